/*
 * pipeline.h
 *		The composition: which stages and effects, in flow order, and what a
 *		transaction is.
 */
#ifndef EPRO_ETL_PIPELINE_H
#define EPRO_ETL_PIPELINE_H

#include "postgres.h"

#include "effects/effects.h"
#include "effects/lookup.h"
#include "lib/stringinfo.h"

/* One form of a pipeline, compiled for this process. */
typedef struct PipelineForm
{
	CompiledForm *form;
	CheckSet   *checks;
	LookupSet  *lookups;
	Sink	  **sinks;
	int			nsinks;
	Value	   *values;			/* of the response at hand */
} PipelineForm;

/* How many responses of a form may break one of its rules before a run is held. */
typedef struct Threshold
{
	const char *name;
	const char *rule;			/* of a check, or place and keyword: /age/maximum */
	double		max_ratio;
	int64		minimum;		/* responses that must have been judged */
	const PipelineForm *form;
} Threshold;

typedef struct Pipeline
{
	int64		id;
	const char *name;
	Source		source;
	PipelineForm *forms;		/* sorted by name */
	int			nforms;
	Threshold  *thresholds;		/* in the order in which they were added */
	int			nthresholds;
	bool		defers;			/* judging can leave a response in the source */
	bool		has_codes;		/* some form has something that gets a random code */
	Jsonb	   *versions;		/* which form, checks, rules, sinks were compiled */
	MemoryContext memory;		/* all of it */
} Pipeline;

/* Where a stream's composition can be cut, in the order of the flow. */
typedef enum Stage
{
	STAGE_DECODE = 0,
	STAGE_DEIDENTIFY,
	STAGE_NORMALISE,
	STAGE_VALIDATE,
	STAGE_STORE
} Stage;

#define STAGE_COUNT (STAGE_STORE + 1)

extern const char *const stage_name[STAGE_COUNT];

/* What a stream is to be, as it is configured now. */
typedef struct StreamPlan
{
	int64		pipeline_id;
	const char *pipeline;
	Oid			source;
	Oid			login;
	Oid			role;
	int			workers[STAGE_COUNT];	/* of the group that begins here, or 0 */
	int			queue_size;
	int			key_version;
	Jsonb	   *context;		/* request values of who started it, or NULL */
	Jsonb	   *versions;
} StreamPlan;

/* ---- load.c: configuration to compiled pipeline ---- */
extern int64 pipeline_look_up(const char *name, Oid *source);
extern int64 pipeline_find(const char *name, Oid *source);
extern Jsonb *pipeline_versions(int64 pipeline_id);
extern Jsonb *pipeline_versions_of_run(int64 run_id);
extern bool pipeline_stream(int64 pipeline_id, StreamPlan *plan);
extern int	pipeline_count_thresholds(int64 pipeline_id);
extern Pipeline *pipeline_load(int64 pipeline_id, Jsonb *versions);
extern Pipeline *pipeline_refresh(Pipeline *pipeline, bool storing);
extern PipelineForm *pipeline_compile_form(const char *form, const char *version,
										   Jsonb *definition);

/* ---- try.c ---- */
extern FindingList *pipeline_try(PipelineForm *form, const Response *response);

/* ---- threshold.c: what holds a whole run ---- */

/* What was seen for a threshold. */
typedef struct Tally
{
	int64		judged;
	int64		broken;
} Tally;

extern void tally_add(const Pipeline *pipeline, Tally *totals, const Tally *tally);
extern char *threshold_exceeded(const Pipeline *pipeline, const Tally *totals,
								bool dry_run);

/* ---- chunk.c: one chunk of one worker ---- */

typedef enum ParcelFate
{
	PARCEL_OPEN = 0,			/* on its way */
	PARCEL_SETTLED,				/* has left the source */
	PARCEL_GONE,				/* changed since it was read */
	PARCEL_HELD					/* cannot be moved now; stays in the source */
} ParcelFate;

/* One response of a stream between two channels; private to a worker. */
typedef struct Parcel
{
	int32		place;			/* in the stream's table of rows on their way */
	Address		address;
	const char *message;		/* what the group before made of it */
	Size		len;
	ParcelFate	fate;
	bool		taken;			/* by the transaction at hand */
	char	   *packed;			/* what this group made of it, in chunk memory */
	Size		packed_len;
} Parcel;

typedef struct Run
{
	int64		run_id;
	int			worker;			/* from 1; 0 is the caller's own session */
	int			batch_size;
	bool		dry_run;
	bool		judging;		/* the pass before the run's own: writes nothing */
	Tally	   *tally;			/* of the chunk at hand, by threshold; NULL: nobody asks */
	Stage		first;			/* the stages that this worker does: all, but */
	Stage		last;			/* for a stream's stage groups */
	Size		bound;			/* of a message to the next group */
	Parcel	   *parcels;		/* a stream's: what to work on; else NULL */
	int			nparcels;
	List	   *remotes;		/* sinks that the chunk at hand has sent rows to */
	List	   *lost;			/* those of them that were found away meanwhile */
	bool		asked;			/* lookups, in the chunk at hand */
	int			nrows;			/* of the chunk at hand */
	int			most;			/* rows of the next; 0: as many as there are */
	HeapTuple	only_row;		/* of a chunk that has one */
	Delivered	delivered;		/* from the outbox, in the step at hand */
	Patience	patience;		/* with the servers of a delivery or a commit */
	int			refused;		/* SQLSTATE of a commit that failed for one row: */
	HeapTuple	refused_row;	/* of the source, or NULL */
	Delivered	refused_delivery;	/* or this one */
	Pipeline   *pipeline;
	Pseudonymiser *pseudonymiser;
	CodeBook   *codes;			/* NULL: no form has any */
	Claim	   *claim;
	Progress   *progress;
	MemoryContext chunk_memory; /* reset after each chunk */
	MemoryContext row_memory;	/* reset after each response */
	Response	response;		/* the one at hand */
	const Response *given;		/* it, where it is from no source; else NULL */
	FindingList findings;		/* of the chunk at hand */
	StringInfoData message;		/* being packed */
} Run;

extern void run_begin(Run *run, BlockRanges *ranges);
extern int	run_chunk(Run *run, Counts *counts);
extern void run_stages(Run *run);
extern bool run_asks_for_codes(const Run *run);
extern void run_resolve(Run *run);
extern void run_forget_codes(Run *run);
extern void run_wipe_codes(Run *run);
extern int	run_deliver(Run *run);
extern void run_forget_remotes(Run *run);
extern bool run_survives_commit(Run *run, const ErrorData *error);
extern bool run_gives_up_remotes(Run *run, const ErrorData *error);
extern bool run_narrows_down(Run *run, const ErrorData *error);
extern void run_committed(Run *run);

#endif							/* EPRO_ETL_PIPELINE_H */
