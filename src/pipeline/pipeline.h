/*
 * pipeline.h
 *		The composition: which stages and effects, in flow order, and what a
 *		transaction is.
 */
#ifndef EPRO_ETL_PIPELINE_H
#define EPRO_ETL_PIPELINE_H

#include "postgres.h"

#include "effects/effects.h"

/* One form of a pipeline, compiled for this process. */
typedef struct PipelineForm
{
	CompiledForm *form;
	CheckSet   *checks;
	Sink	  **sinks;
	int			nsinks;
	Value	   *values;			/* of the response at hand */
} PipelineForm;

typedef struct Pipeline
{
	int64		id;
	const char *name;
	Source		source;
	PipelineForm *forms;		/* sorted by name */
	int			nforms;
	Jsonb	   *versions;		/* which form, checks, rules, sinks were compiled */
	MemoryContext memory;		/* all of it */
} Pipeline;

/* ---- load.c: configuration to compiled pipeline ---- */
extern int64 pipeline_find(const char *name, Oid *source);
extern Jsonb *pipeline_versions(int64 pipeline_id);
extern Jsonb *pipeline_versions_of_run(int64 run_id);
extern Pipeline *pipeline_load(int64 pipeline_id, Jsonb *versions);
extern Pipeline *pipeline_refresh(Pipeline *pipeline);
extern CompiledForm *pipeline_compile_form(const char *form, const char *version,
										   Jsonb *definition);

/* ---- chunk.c: one chunk of one worker ---- */
typedef struct Run
{
	int64		run_id;
	int			worker;			/* from 1; 0 is the caller's own session */
	int			batch_size;
	bool		dry_run;
	Pipeline   *pipeline;
	Pseudonymiser *pseudonymiser;
	Claim	   *claim;
	Progress   *progress;
	MemoryContext chunk_memory; /* reset after each chunk */
	MemoryContext row_memory;	/* reset after each response */
	Response	response;		/* the one at hand */
	FindingList findings;		/* of the chunk at hand */
} Run;

extern void run_begin(Run *run, BlockRanges *ranges);
extern int	run_chunk(Run *run, Counts *counts);

#endif							/* EPRO_ETL_PIPELINE_H */
