/*
 * run_functions.c
 *		run(), start_run(), wait_run() and run_job(), as SQL calls them.
 *
 * Thin: arguments to a RunRequest, a RunResult to a row.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "processes/processes.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "words/errors.h"

PG_FUNCTION_INFO_V1(epro_etl_run);
PG_FUNCTION_INFO_V1(epro_etl_start_run);
PG_FUNCTION_INFO_V1(epro_etl_wait_run);
PG_FUNCTION_INFO_V1(epro_etl_run_job);

/* how often a session that does not own a run looks whether it lives */
#define LOOK_MS 20

static void read_request(FunctionCallInfo fcinfo, const char *what,
						 RunRequest *request);
static TimestampTz deadline_of(Interval *timeout);
static Datum result_row(FunctionCallInfo fcinfo, const RunResult *result);
static void wait_for_another(int64 run_id, TimestampTz until);
static void read_ledger(int64 run_id, RunResult *result);

/* run(...): returns the run's row when all of it is done. */
Datum
epro_etl_run(PG_FUNCTION_ARGS)
{
	RunRequest	request;
	RunResult	result = {0};
	OwnedRun   *owned;

	read_request(fcinfo, "epro_etl.run()", &request);
	owned = run_launch(&request);
	if (owned == NULL)
		run_inline(&request, &result);
	else
		run_wait(owned, 0, &result);
	return result_row(fcinfo, &result);
}

/* start_run(...): returns the run's number as soon as it is in the ledger. */
Datum
epro_etl_start_run(PG_FUNCTION_ARGS)
{
	RunRequest	request;
	RunResult	result = {0};
	OwnedRun   *owned;

	read_request(fcinfo, "epro_etl.start_run()", &request);
	request.outlives_statement = true;
	owned = run_launch(&request);
	if (owned == NULL)
	{
		run_inline(&request, &result);
		PG_RETURN_INT64(result.run_id);
	}
	PG_RETURN_INT64(run_number(owned));
}

/* wait_run(run_id, timeout): the run's row; running when the timeout is over. */
Datum
epro_etl_wait_run(PG_FUNCTION_ARGS)
{
	int64		run_id;
	TimestampTz until = PG_ARGISNULL(1) ? 0 : deadline_of(PG_GETARG_INTERVAL_P(1));
	RunResult	result = {0};
	OwnedRun   *owned;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run_id must not be null")));
	run_id = PG_GETARG_INT64(0);
	owned = run_find(run_id);
	if (owned != NULL)
		run_wait(owned, until, &result);
	else
	{
		wait_for_another(run_id, until);
		read_ledger(run_id, &result);
	}
	return result_row(fcinfo, &result);
}

/*
 * CALL run_job(...): for schedulers.  Outside a transaction block it waits
 * without a snapshot, so that a long run holds back nobody's vacuum.
 */
Datum
epro_etl_run_job(PG_FUNCTION_ARGS)
{
	bool		atomic = !(fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
						   !castNode(CallContext, fcinfo->context)->atomic);
	RunRequest	request;
	RunResult	result = {0};
	OwnedRun   *owned;

	read_request(fcinfo, "epro_etl.run_job()", &request);
	owned = run_launch(&request);
	if (owned == NULL)
	{
		run_inline(&request, &result);
		if (strcmp(result.status, "stopped") == 0)
			ereport(WARNING,
					(errcode(ERRCODE_EPRO_STOPPED),
					 errmsg("run " INT64_FORMAT " stopped itself", result.run_id),
					 errhint("See its message in epro_etl.run_history, and epro_etl.finding.")));
		PG_RETURN_NULL();
	}

	if (!atomic)
	{
		(void) run_number(owned);
		PG_TRY();
		{
			if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
				elog(ERROR, "SPI_connect failed");
			SPI_commit();
			SPI_finish();
		}
		PG_CATCH();
		{
			run_abandon(owned);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	run_wait(owned, 0, &result);
	if (strcmp(result.status, "stopped") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_STOPPED),
				 errmsg("run " INT64_FORMAT " stopped itself", result.run_id),
				 errdetail(INT64_FORMAT " of " INT64_FORMAT " responses were rejected%s",
						   result.counts.rejected + result.counts.duplicate,
						   result.counts.claimed,
						   request.dry_run ? ", in a dry run." : "; what was committed stays."),
				 errhint("See its message in epro_etl.run_history, and epro_etl.finding.")));
	PG_RETURN_NULL();
}

/* The arguments that run(), start_run() and run_job() share, in this order. */
static void
read_request(FunctionCallInfo fcinfo, const char *what, RunRequest *request)
{
	PreventCommandDuringRecovery(what);
	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);

	memset(request, 0, sizeof(*request));
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pipeline must not be null")));
	request->pipeline = text_to_cstring(PG_GETARG_TEXT_PP(0));
	request->workers = PG_ARGISNULL(1) ? epro_workers : PG_GETARG_INT32(1);
	request->max_rejects = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	request->max_reject_ratio = PG_ARGISNULL(3) ? -1 : PG_GETARG_FLOAT8(3);
	request->deadline = PG_ARGISNULL(4) ? 0 : deadline_of(PG_GETARG_INTERVAL_P(4));
	request->dry_run = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	request->reason = PG_ARGISNULL(6) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(6));
	if ((!PG_ARGISNULL(2) && request->max_rejects < 0) ||
		(!PG_ARGISNULL(3) && !(request->max_reject_ratio >= 0)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rejects and max_reject_ratio must not be negative"),
				 errhint("NULL is no limit.")));
	run_request_check(request);
}

/* The instant at which a timeout that starts now is over. */
static TimestampTz
deadline_of(Interval *timeout)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline =
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												TimestampTzGetDatum(now),
												IntervalPGetDatum(timeout)));

	if (deadline <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be longer than zero")));
	return deadline;
}

static Datum
result_row(FunctionCallInfo fcinfo, const RunResult *result)
{
	TupleDesc	shape;
	Datum		values[11];
	bool		nulls[11] = {false};
	Interval   *elapsed = palloc0(sizeof(Interval));

	if (get_call_result_type(fcinfo, NULL, &shape) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	elapsed->time = result->finished_at - result->started_at;
	values[0] = Int64GetDatum(result->run_id);
	values[1] = CStringGetTextDatum(result->status);
	values[2] = Int64GetDatum(result->counts.claimed);
	values[3] = Int64GetDatum(result->counts.loaded);
	values[4] = Int64GetDatum(result->counts.warned);
	values[5] = Int64GetDatum(result->counts.rejected);
	values[6] = Int64GetDatum(result->counts.duplicate);
	values[7] = Int64GetDatum(result->counts.deferred);
	values[8] = Int64GetDatum(result->remaining);
	nulls[8] = result->remaining < 0;
	values[9] = Int32GetDatum(result->workers);
	values[10] = IntervalPGetDatum(elapsed);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(shape), values, nulls));
}

/* Waits for a run that another session owns. */
static void
wait_for_another(int64 run_id, TimestampTz until)
{
	while (account_is_alive(run_id) && (until == 0 || GetCurrentTimestamp() < until))
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static void
read_ledger(int64 run_id, RunResult *result)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	int64		number[10] = {0};
	bool		isnull;

	owner_begin(&scope);
	if (SPI_execute_with_args("SELECT status, claimed, loaded, warned, rejected, duplicate, deferred,"
							  " coalesce(remaining, -1), workers::bigint, started_at,"
							  " coalesce(finished_at, clock_timestamp())"
							  " FROM epro_etl.run_history WHERE run_id = $1",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the ledger");
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("run " INT64_FORMAT " does not exist", run_id),
				 errhint("See epro_etl.run_history.")));
	result->status = MemoryContextStrdup(memory,
										 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	for (int i = 0; i < 10; i++)
		number[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, i + 2, &isnull));
	owner_end(&scope);

	result->run_id = run_id;
	result->counts.claimed = number[0];
	result->counts.loaded = number[1];
	result->counts.warned = number[2];
	result->counts.rejected = number[3];
	result->counts.duplicate = number[4];
	result->counts.deferred = number[5];
	result->remaining = number[6];
	result->workers = (int) number[7];
	result->started_at = number[8];
	result->finished_at = number[9];
}
