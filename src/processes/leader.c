/*
 * leader.c
 *		The process that keeps a stream up.
 *
 * One background worker a stream.  It runs generation after generation: at
 * once when the configuration has changed, after a pause that doubles when
 * one has failed.  It ends when the stream is told to stop, or is not in the
 * configuration any more.  If it is terminated, it leaves its entry in the
 * registry marked as down; the launcher, where there is one, starts another.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "processes/stream.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* how often to look whether the session that starts us has committed */
#define LOOK_AT_STARTER_MS 10

/* the stream that this process leads; -1: none, or it has ended */
static int	entry = -1;

static bool lead_on(int64 pipeline_id, MemoryContext memory);
static void wait_for(TransactionId starter);
static bool read_plan(int64 pipeline_id, StreamPlan *plan, bool *wanted);
static bool pause_before_next(void);
static void abandon_at_exit(int code, Datum arg);
static void go_down_at_exit(int code, Datum arg);

/*
 * Registers the leader of a stream, as its entry in the registry has it; it
 * begins when the transaction that wants it started has ended.  False when the
 * server has no place for another background worker.
 */
bool
leader_register(int number, const char *pipeline)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "epro_etl", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "epro_etl_stream_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, "epro_etl stream", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "epro_etl stream of pipeline %s", pipeline);
	worker.bgw_main_arg = Int32GetDatum(number);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* Entry point of a leader; the argument is the stream's entry in the registry. */
void
epro_etl_stream_main(Datum arg)
{
	StreamEntry stream;
	MemoryContext memory;
	TransactionId starter;

	session_open("epro_etl stream");
	registry_stream_read(DatumGetInt32(arg), &stream);
	if (stream.database == InvalidOid)
		proc_exit(0);
	entry = DatumGetInt32(arg);
	/* the later one is called first; if it fails, the other is called still */
	before_shmem_exit(go_down_at_exit, (Datum) 0);
	before_shmem_exit(abandon_at_exit, (Datum) 0);
	registry_stream_lead(entry, InvalidOid);
	session_connect(stream.database, stream.login, stream.role,
					stream_security(stream.login, stream.role), NULL);
	POINT("leader.connected");
	memory = AllocSetContextCreate(TopMemoryContext, "epro_etl stream", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(memory);

	/* a start may come while we are about to leave: then it is ours to do */
	starter = stream.starter;
	do
	{
		wait_for(starter);
		while (lead_on(stream.pipeline_id, memory))
			;
		starter = registry_stream_retire(entry, starter);
	} while (TransactionIdIsValid(starter));
	entry = -1;
	proc_exit(0);
}

/* One generation, and the pause after a failure; false when that was the last. */
static bool
lead_on(int64 pipeline_id, MemoryContext memory)
{
	StreamEntry stream;
	StreamPlan	plan;
	bool		wanted;

	MemoryContextSwitchTo(memory);
	MemoryContextReset(memory);
	registry_stream_read(entry, &stream);
	if (stream.stop != STOP_NONE)
		return false;
	if (!read_plan(pipeline_id, &plan, &wanted))
		return pause_before_next();
	if (!wanted)
		return false;
	registry_stream_lead(entry, plan.source);
	registry_stream_state(entry, STREAM_STARTING);
	if (generation_run(entry, &plan) == GENERATION_FAILED)
		return pause_before_next();
	/* stopped, not wanted any more, or changed: the next look says so */
	return true;
}

/*
 * What the session that starts us has written is there when it has committed.
 * Until then it may want to stop us again, so this is no wait for a lock.
 */
static void
wait_for(TransactionId starter)
{
	StreamEntry stream;

	while (TransactionIdIsValid(starter) && TransactionIdIsInProgress(starter))
	{
		registry_stream_read(entry, &stream);
		if (stream.stop != STOP_NONE)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_AT_STARTER_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * What the stream is to be; wanted is false when it is not to be any more:
 * stopped, dropped, or the extension with it.  Returns false, and has noted
 * why, when that cannot be read now.
 */
static bool
read_plan(int64 pipeline_id, StreamPlan *plan, bool *wanted)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile bool read = false;

	PG_TRY();
	{
		session_begin();
		MemoryContextSwitchTo(memory);
		*wanted = OidIsValid(get_namespace_oid("epro_etl", true)) &&
			pipeline_stream(pipeline_id, plan);
		POINT("leader.plan");
		if (*wanted)
			leader_check_role(plan);
		session_commit();
		read = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(memory);
		HOLD_INTERRUPTS();
		error = session_take_error();
		MemoryContextSwitchTo(memory);
		error_strip(error);
		ereport(LOG,
				(errmsg("epro_etl stream could not begin: SQLSTATE %s",
						unpack_sql_state(error->sqlerrcode))));
		registry_stream_failed(entry, error->sqlerrcode, error->message);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	return read;
}

/* Who may not become the role any more must not act as it for ever. */
void
leader_check_role(const StreamPlan *plan)
{
	if (!epro_may_become(plan->login, plan->role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the stream's session user is not a member of the role it acts as")));
}

/* Waits for the time of the next try; false when the stream is to stop. */
static bool
pause_before_next(void)
{
	for (;;)
	{
		StreamEntry stream;
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		registry_stream_read(entry, &stream);
		if (stream.stop != STOP_NONE)
			return false;
		if (now >= stream.not_before)
			return true;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(now, stream.not_before) + 1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* On the way out without having been told to stop: first ends the workers, */
static void
abandon_at_exit(int code, Datum arg)
{
	POINT_CALM("leader.exit");
	if (entry >= 0)
		generation_abandon();
}

/* then leaves word that there is no leader. */
static void
go_down_at_exit(int code, Datum arg)
{
	if (entry < 0)
		return;
	registry_stream_failed(entry, ERRCODE_ADMIN_SHUTDOWN, "the leader of the stream was terminated");
	registry_stream_down(entry);
}
