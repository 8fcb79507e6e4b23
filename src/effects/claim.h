/*
 * claim.h
 *		A claim, private to the files that take rows and read them.
 *
 * claim.c takes them out of the source, row.c reads what is in them.
 */
#ifndef EPRO_ETL_CLAIM_H
#define EPRO_ETL_CLAIM_H

#include "postgres.h"

#include "effects/effects.h"

/* Blocks from start on, up to but not including block end. */
typedef struct Range
{
	ItemPointerData start;
	BlockNumber end;
} Range;

struct Claim
{
	const Source *source;
	BlockRanges *ranges;
	bool		keep;			/* read, leave in place */
	MemoryContext memory;		/* what outlives a chunk */

	/* of the chunk at hand */
	Relation	relation;
	TupleDesc	shape;			/* of the rows handed out */
	AttrNumber	attnum[ROLE_COUNT];
	Oid			type[ROLE_COUNT];
	Oid			output[ROLE_COUNT];
	bool		direct;
	Oid			file;			/* that the source is in */
	TupleDesc	relation_shape; /* of the source, as the run found it */

	Range	   *taken;			/* by this chunk: where it began in each */
	int			ntaken;
	int			taken_room;
	Range	   *pending;		/* to be read before new ranges */
	int			npending;
	int			pending_room;
	bool		remainder;		/* this chunk has put one there */

	SPIPlanPtr	delete_plan;
	SPIPlanPtr	read_plan;
	SPIPlanPtr	delete_one_plan;
	SPIPlanPtr	read_one_plan;
	char	   *plan_name;		/* of the source when they were made */

	Datum	   *values;
	bool	   *nulls;
	HeapTuple	deformed;		/* whose columns values and nulls hold */

	int64		skipped;
	int64		skipped_chunk;
	uint64		blocks;
};

#endif							/* EPRO_ETL_CLAIM_H */
