/*
 * progress_functions.c
 *		The live view: a row a worker, read from the runs' shared segments.
 */
#include "postgres.h"

#include "effects/registry.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "processes/processes.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(epro_etl_progress);

#define MOST_LISTED 64

static void list_run(ReturnSetInfo *rsinfo, RunShared *shared);

/* progress(): the workers of all runs in this database. */
Datum
epro_etl_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint32		handles[MOST_LISTED];
	int			n;

	InitMaterializedSRF(fcinfo, 0);
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
	{
		Progress   *progress = &shared->workers[i];
		Datum		values[10];
		bool		nulls[10] = {false};
		int64		since = (int64) pg_atomic_read_u64(&progress->since);

		values[0] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->run_id));
		nulls[0] = pg_atomic_read_u64(&shared->run_id) == 0;
		values[1] = CStringGetTextDatum(shared->pipeline);
		values[2] = Int32GetDatum(i + 1);
		values[3] = Int32GetDatum((int32) pg_atomic_read_u32(&progress->pid));
		nulls[3] = pg_atomic_read_u32(&progress->pid) == 0;
		values[4] = CStringGetTextDatum(phase_name((Phase) pg_atomic_read_u32(&progress->phase)));
		values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->processed));
		values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->excluded));
		values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&progress->blocks));
		values[8] = Int64GetDatum((int64) shared->ranges.nblocks);
		values[9] = TimestampTzGetDatum(since);
		nulls[9] = since == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}
