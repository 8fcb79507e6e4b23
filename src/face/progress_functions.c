/*
 * progress_functions.c
 *		The live view: a row a worker, read from the runs' shared segments.
 */
#include "postgres.h"

#include "effects/registry.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "processes/stream.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(epro_etl_progress);

#define MOST_LISTED 64

static void list_run(ReturnSetInfo *rsinfo, RunShared *shared);
static void list_streams(ReturnSetInfo *rsinfo);
static void list_worker(ReturnSetInfo *rsinfo, int64 run_id, const char *pipeline,
						int worker, Progress *progress, BlockNumber nblocks,
						const char *stage);

/* progress(): the workers of all runs and streams in this database. */
Datum
epro_etl_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint32		handles[MOST_LISTED];
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	list_streams(rsinfo);
	n = registry_list(handles, MOST_LISTED);
	for (int i = 0; i < n; i++)
	{
		/* our own session's runs are mapped already; others may just be gone */
		dsm_segment *mapped = dsm_find_mapping(handles[i]);
		dsm_segment *segment = mapped ? mapped : dsm_attach(handles[i]);
		RunShared  *shared;

		if (segment == NULL)
			continue;
		shared = dsm_segment_address(segment);
		if (shared->magic == RUN_MAGIC && shared->database == MyDatabaseId)
			list_run(rsinfo, shared);
		if (mapped == NULL)
			dsm_detach(segment);
	}
	return (Datum) 0;
}

static void
list_run(ReturnSetInfo *rsinfo, RunShared *shared)
{
	for (int i = 0; i < (int) pg_atomic_read_u32(&shared->registered); i++)
		list_worker(rsinfo, (int64) pg_atomic_read_u64(&shared->run_id), shared->pipeline,
					i + 1, &shared->workers[i], shared->ranges.nblocks, NULL);
}

/* The workers of this database's streams. */
static void
list_streams(ReturnSetInfo *rsinfo)
{
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			n = registry_stream_list(streams);

	for (int i = 0; i < n; i++)
	{
		dsm_segment *segment;
		bool		mapped;
		StreamShared *shared;

		if (streams[i].database != MyDatabaseId ||
			(shared = stream_map(streams[i].handle, &segment, &mapped)) == NULL)
			continue;
		for (int w = 0; w < (int) pg_atomic_read_u32(&shared->registered); w++)
			list_worker(rsinfo, shared->run_id, shared->pipeline, w + 1, &shared->workers[w],
						0, stage_name[shared->groups[stream_group_of(shared, w)].named]);
		if (!mapped)
			dsm_detach(segment);
	}
}

/* stage: of a stream's worker, which has no blocks; NULL: a run's. */
static void
list_worker(ReturnSetInfo *rsinfo, int64 run_id, const char *pipeline, int worker,
			Progress *progress, BlockNumber nblocks, const char *stage)
{
	Datum		values[11];
	bool		nulls[11] = {false};
	int64		since = (int64) pg_atomic_read_u64(&progress->since);

	values[0] = Int64GetDatum(run_id);
	nulls[0] = run_id == 0;
	values[1] = CStringGetTextDatum(pipeline);
	values[2] = Int32GetDatum(worker);
	values[3] = Int32GetDatum((int32) pg_atomic_read_u32(&progress->pid));
	nulls[3] = pg_atomic_read_u32(&progress->pid) == 0;
	values[4] = CStringGetTextDatum(phase_name((Phase) pg_atomic_read_u32(&progress->phase)));
	values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->processed));
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->excluded));
	values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->blocks));
	values[8] = Int64GetDatum((int64) nblocks);
	nulls[7] = nulls[8] = stage != NULL;
	values[9] = TimestampTzGetDatum(since);
	nulls[9] = since == 0;
	nulls[10] = stage == NULL;
	values[10] = stage ? CStringGetTextDatum(stage) : (Datum) 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}
