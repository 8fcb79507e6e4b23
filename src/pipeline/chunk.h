/*
 * chunk.h
 *		One chunk at hand: private to the files that do it.
 *
 * chunk.c composes, judge.c judges, keep.c stores.
 */
#ifndef EPRO_ETL_CHUNK_H
#define EPRO_ETL_CHUNK_H

#include "postgres.h"

#include "pipeline/pipeline.h"

typedef enum Verdict
{
	VERDICT_PASSED = 0,
	VERDICT_REJECTED,
	VERDICT_DUPLICATE,
	VERDICT_DEFERRED			/* it stays in the source */
} Verdict;

/* How far the judging of a response has come: where to go on after an error. */
typedef enum Step
{
	STEP_READ = 0,
	STEP_DECODE,
	STEP_DEIDENTIFY,
	STEP_NORMALISE,
	STEP_VALIDATE,
	STEP_CHECK,
	STEP_SHIFT,
	STEP_LOOK_UP,
	STEP_FORM,
	STEP_DONE
} Step;

typedef struct Row
{
	HeapTuple	original;		/* NULL in a group that has a message of it */
	Parcel	   *parcel;			/* a stream's; else NULL */
	PipelineForm *form;			/* NULL: unknown */
	const char *form_name;
	const char *source_id;
	Verdict		verdict;
	bool		warned;
	bool		ended;			/* no stage has more to say about it */
	bool		deferred;		/* it is to stay in the source */
	int			first;			/* of the chunk's findings */
	int			nfindings;
	SinkRows   *formed;			/* a sink each */
} Row;

typedef struct Chunk
{
	Run		   *run;
	Row		   *rows;
	int			n;
	int			at;				/* the row at hand */
	Step		step;			/* of the row at hand */
	Step		end;			/* where this worker's part ends */
	int			next_check;
	int			next_lookup;
	Sink	   *forming;		/* whose row is being formed, or NULL */
	int			stored;			/* of the store's try at hand: which row */
	Sink	   *storing;		/* that is being written, or NULL */
	Sink	   *inserting;		/* the last one of this database that was written */
	bool		met;			/* the try failed for a key that is there already */
	volatile bool releasing;	/* a try ends: servers are told of it */
	bool		again;			/* the try failed for no row: it is to be done again */
	HeapTuple  *batch;			/* scratch of the store */
	int		   *batch_row;		/* which row each of the batch is of */
	volatile int batch_at;		/* of the insert at hand; -1: not known */
	TimestampTz loaded_at;
	CancelMark	mark;			/* before what is done at the moment */
	Patience	patience;		/* with the sink that is being written */
	int64		skipped;		/* checks not evaluated */
	int64		undeclared;		/* keys that are no item */
} Chunk;

/* where each stage begins */
extern const Step first_step[STAGE_COUNT];

/* ---- chunk.c ---- */
extern void refuse_swallowed_cancel(const Chunk *chunk, bool by_budgets);

/* ---- judge.c ---- */
extern void resolve_codes(Chunk *chunk);
extern void judge_rows(Chunk *chunk);

/* ---- threshold.c ---- */
extern void tally_rows(Chunk *chunk);

/* ---- keep.c ---- */
extern void store_rows(Chunk *chunk);
extern int	gather_batch(Chunk *chunk, const PipelineForm *form, int sink, int from, int to);
extern void reject_stored(Chunk *chunk, int at, ErrorData *error);

/* ---- conflicts.c ---- */
extern bool refuse_conflicts(Chunk *chunk, int from);

#endif							/* EPRO_ETL_CHUNK_H */
