/*
 * sink.h
 *		What a compiled sink is made of: sink.c's and store.c's alone.
 */
#ifndef EPRO_ETL_SINK_H
#define EPRO_ETL_SINK_H

#include "postgres.h"

#include "effects/effects.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

/*
 * What a row takes besides a wide sink's items, by its column's name: what a
 * response knows, and from FACT_ITEM on what a long sink knows of one item.
 */
typedef enum Fact
{
	FACT_NONE = -1,				/* an item of a wide sink */
	FACT_STUDY = 0,
	FACT_SUBJECT_KEY,
	FACT_FORM,
	FACT_FORM_VERSION,
	FACT_VISIT,
	FACT_AUTHORED,
	FACT_SOURCE_ID,
	FACT_RUN_ID,
	FACT_KEY_VERSION,
	FACT_LOADED_AT,
	FACT_ITEM,
	FACT_ITEM_NO,
	FACT_LOCATION,
	FACT_VALUE,
	FACT_VALUE_NUMBER
} Fact;

#define FACT_COUNT (FACT_VALUE_NUMBER + 1)

typedef struct SinkColumn
{
	AttrNumber	attnum;
	Oid			type;
	int32		typmod;
	const char *name;
	bool		is_domain;		/* NULL needs a check of its own */
	Fact		fact;
	const FormNode *item;		/* when it is no fact */
} SinkColumn;

/* a column that nothing is mapped to, with a default of its own */
typedef struct SinkDefault
{
	AttrNumber	attnum;
	ExprState  *expression;
} SinkDefault;

/* ---- store.c ---- */
extern void store_execute(const Sink *sink, SPIPlanPtr plan, Datum *values,
						  const char *nulls, uint64 n);
extern void store_parameters(const Sink *sink, HeapTuple tuple, Datum *values,
							 char *nulls);

/* ---- latest.c ---- */
extern void latest_open(Sink *sink, Relation relation);
extern void latest_insert(Sink *sink, HeapTuple *tuples, int n,
						  volatile int *at, LatestDone *done);

#endif							/* EPRO_ETL_SINK_H */
