/*
 * worker.c
 *		A worker of a batch run: all stages for its chunks, a transaction each.
 *
 * The caller owns the worker.  It shares a segment with it, in which the
 * worker finds what to do, as whom, and until when.
 *
 * The first worker to come leads: it opens the run in the ledger.  The last
 * one to leave closes it, whatever happened: it is the one process that is
 * certain to be there, when the caller may be gone.
 *
 * Every worker holds the run's liveness lock as long as its session lives.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/context.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "processes/processes.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/timeout.h"
#include "words/errors.h"

/* what the process knows of itself; there is one run to a process */
static RunShared *shared = NULL;
static int	worker_number = 0;
static bool connected = false;
static bool has_left = false;
static int64 chunk_number = 0;
static char *requested_by = NULL;	/* for the log; NULL: nobody has said */

static void connect_as_caller(void);
static void work(void);
static int64 open_run(Pipeline **pipeline);
static void begin_counting(Run *run);
static bool judge_first(Run *run);
static bool may_go_on(const Run *run);
static void do_chunks(Run *run);
static void count_chunk(Run *run, const Counts *counts);
static void report_error(void);
static char *describe_request(void);
static void leave(void);
static bool leave_once(void);
static void leave_at_exit(int code, Datum arg);
static void close_run(void);
static void wake_caller(void);

/* Entry point of a worker; the argument is the handle of the run's segment. */
void
epro_etl_worker_main(Datum arg)
{
	dsm_segment *segment;

	session_open("epro_etl worker");
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);			/* the caller is gone, and with it the run */
	dsm_pin_mapping(segment);
	shared = dsm_segment_address(segment);
	if (shared->magic != RUN_MAGIC)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("invalid magic number in the segment of a run")));

	worker_number = (int) pg_atomic_fetch_add_u32(&shared->arrived, 1) + 1;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	pg_atomic_write_u32(&shared->workers[worker_number - 1].pid, MyProcPid);
	progress_phase(&shared->workers[worker_number - 1], PHASE_STARTING);

	PG_TRY();
	{
		POINT("worker.arrived");
		if (pg_atomic_read_u32(&shared->stop) == 0)
		{
			connect_as_caller();
			/* from here on the run counts on us, to close it if we are the last */
			connected = true;
			pg_atomic_fetch_add_u32(&shared->active, 1);
			POINT("worker.connected");
			work();
		}
	}
	PG_CATCH();
	{
		report_error();
	}
	PG_END_TRY();

	leave();
	proc_exit(0);
}

static void
connect_as_caller(void)
{
	/* with the caller's settings, its own and its role's, as they were at the call */
	session_connect(shared->database, shared->session_user, shared->current_user,
					shared->security_context, (char *) shared + shared->settings_offset);

	/* nothing of the run outlives the deadline, also when the caller hangs */
	if (shared->deadline != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, shared->deadline);
}

static void
work(void)
{
	Run			run = {0};
	MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "epro_etl run",
												 ALLOCSET_DEFAULT_SIZES);
	char		title[NAMEDATALEN * 2 + MOST_CONTEXT_VALUE];
	char	   *request;

	MemoryContextSwitchTo(memory);
	requested_by = describe_request();
	run.worker = worker_number;
	run.batch_size = shared->batch_size;
	run.dry_run = shared->dry_run;
	run.last = STAGE_STORE;
	run.progress = &shared->workers[worker_number - 1];
	run.run_id = open_run(&run.pipeline);
	if (run.run_id == 0)
		return;					/* whoever leads could not open the run */
	POINT("worker.opened");

	request = context_get("request_id");
	snprintf(title, sizeof(title), "epro_etl run " INT64_FORMAT " worker %d%s%s",
			 run.run_id, worker_number, request ? " of " : "", request ? request : "");
	SetConfigOption("application_name", title, PGC_USERSET, PGC_S_SESSION);
	snprintf(title, sizeof(title), "epro_etl: run " INT64_FORMAT " of pipeline %s",
			 run.run_id, shared->pipeline);
	pgstat_report_activity(STATE_RUNNING, title);

	session_begin();
	MemoryContextSwitchTo(memory);
	run.pseudonymiser = key_load(account_key_version(run.run_id));
	session_commit();
	MemoryContextSwitchTo(memory);
	if (run.pipeline->nthresholds > 0)
		begin_counting(&run);
	if (run.tally == NULL || run.dry_run || judge_first(&run))
	{
		run_begin(&run, &shared->ranges);
		do_chunks(&run);
		if (run.tally != NULL)
			(void) may_go_on(&run);
		pg_atomic_fetch_add_u64(&shared->skipped_rows, (uint64) claim_skipped(run.claim));
	}
	pseudonymiser_wipe(run.pseudonymiser);
	run_wipe_codes(&run);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* A dry run counts for the thresholds in its one pass, any other in one before. */
static void
begin_counting(Run *run)
{
	if (run->pipeline->nthresholds > shared->ntallies)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a batch threshold was added while the run started"),
				 errhint("Run the pipeline again.")));
	run->tally = palloc0(sizeof(Tally) * shared->ntallies);
	/* before the first range is taken: see may_go_on() */
	pg_atomic_fetch_add_u32(&shared->judging, 1);
	POINT("worker.counting");
}

/*
 * The pass before the run's own: all workers judge all there is, read it only,
 * and write nothing.  False if that was the end of the run.
 */
static bool
judge_first(Run *run)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl judging",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);

	run->dry_run = run->judging = true;
	run_begin(run, &shared->judge_ranges);
	do_chunks(run);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	run->codes = NULL;
	POINT("worker.judged");
	if (!may_go_on(run))
		return false;
	run->dry_run = run->judging = false;
	run->tally = NULL;
	chunk_number = 0;
	return true;
}

/*
 * This worker has found no more ranges to count in.  Whoever has taken one is
 * among those who judge until it is counted, so once these are none, the
 * totals are what they will be, and each worker finds the same.  Before the
 * run's own pass they wait for that, without a transaction; a dry run has
 * nothing to wait for, its last one tells.  False if the run has ended.
 */
static bool
may_go_on(const Run *run)
{
	uint32		left = pg_atomic_sub_fetch_u32(&shared->judging, 1);
	char	   *message;

	if (left == 0)
		ConditionVariableBroadcast(&shared->opened);
	else if (!run->judging)
		return false;
	ConditionVariablePrepareToSleep(&shared->opened);
	while (pg_atomic_read_u32(&shared->judging) > 0 && pg_atomic_read_u32(&shared->stop) == 0)
		ConditionVariableSleep(&shared->opened, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	if (pg_atomic_read_u32(&shared->stop) != 0)
		return false;
	message = shared_exceeded(shared, run->pipeline);
	if (message != NULL)
		shared_fail(shared, run->judging ? OUTCOME_HELD : OUTCOME_STOPPED, ERRCODE_EPRO_STOPPED,
					message, HINT_HELD, 0, 0);
	return message == NULL;
}

/*
 * The leader opens the run, the others wait for its number and compile what it
 * chose.  Returns 0 when the run has ended before it began.
 */
static int64
open_run(Pipeline **pipeline)
{
	MemoryContext memory = CurrentMemoryContext;
	int64		run_id;

	if (worker_number == 1)
	{
		RunStart	start = {0};
		Jsonb	   *versions;

		session_begin();
		MemoryContextSwitchTo(memory);
		start.pipeline_id = shared->pipeline_id;
		start.pipeline = shared->pipeline;
		start.source = relation_name(shared->source);
		if (start.source == NULL)
			start.source = "";	/* dropped by now: compiling will say so */
		start.reason = shared->reason_offset ?
			(char *) shared + shared->reason_offset : NULL;
		start.dry_run = shared->dry_run;
		start.workers = shared->nworkers;
		start.batch_size = shared->batch_size;
		start.session_user = shared->session_user;
		start.current_user = shared->current_user;
		start.started_at = shared->started_at;
		start.context = context_values();
		start.key_version = keyring_version();
		versions = pipeline_versions(shared->pipeline_id);
		run_id = account_open_run(&start, versions);
		account_open_worker(run_id, worker_number);
		account_liveness_hold(run_id);
		session_commit();

		pg_atomic_write_u64(&shared->run_id, (uint64) run_id);
		ConditionVariableBroadcast(&shared->opened);
		wake_caller();

		session_begin();
		MemoryContextSwitchTo(memory);
		*pipeline = pipeline_load(shared->pipeline_id, versions);
		session_commit();
		MemoryContextSwitchTo(memory);
		return run_id;
	}

	ConditionVariablePrepareToSleep(&shared->opened);
	while ((run_id = (int64) pg_atomic_read_u64(&shared->run_id)) == 0 &&
		   pg_atomic_read_u32(&shared->stop) == 0)
		ConditionVariableSleep(&shared->opened, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	if (run_id == 0)
		return 0;

	session_begin();
	MemoryContextSwitchTo(memory);
	account_liveness_hold(run_id);
	account_open_worker(run_id, worker_number);
	*pipeline = pipeline_load(shared->pipeline_id, pipeline_versions_of_run(run_id));
	session_commit();
	MemoryContextSwitchTo(memory);
	return run_id;
}

static void
do_chunks(Run *run)
{
	while (pg_atomic_read_u32(&shared->stop) == 0)
	{
		Counts		counts;
		int			seen;

		/* something may have swallowed the cancel, which comes but once */
		if (shared->deadline != 0 && GetCurrentTimestamp() >= shared->deadline)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg(MESSAGE_LATE)));
		chunk_number++;
		seen = session_chunk(run, &counts);
		if (seen == 0)
			break;
		if (run->tally != NULL)
			shared_tally(shared, run->tally);
		if (!run->judging)
			count_chunk(run, &counts);
		pgstat_report_stat(false);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

static void
count_chunk(Run *run, const Counts *counts)
{
	shared_add(shared, counts);
	pg_atomic_fetch_add_u64(&run->progress->processed, counts->claimed);
	pg_atomic_fetch_add_u64(&run->progress->excluded,
							counts->rejected + counts->duplicate);
	pg_atomic_write_u64(&run->progress->blocks, claim_blocks(run->claim));
	pg_atomic_fetch_add_u64(&run->progress->chunks, 1);
	if (shared_too_many_rejects(shared))
		shared_fail(shared, OUTCOME_STOPPED, 0, "too many responses were rejected",
					NULL, worker_number, chunk_number);
}

/*
 * Called with an error at hand: rolls back, and tells the first cause.  What
 * reaches the log is the SQLSTATE; the text goes to the caller alone, and it
 * has been through chunk.c's hands.
 */
static void
report_error(void)
{
	ErrorData  *error;
	Outcome		outcome = OUTCOME_FAILED;

	POINT_CALM("worker.report");
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(TopMemoryContext);
	error = session_take_error();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		outcome = shared->deadline != 0 && deadline_has_come(shared->deadline, error) ?
			OUTCOME_TIMED_OUT : OUTCOME_CANCELED;
	if (outcome == OUTCOME_TIMED_OUT && (shared->deadline_is_ours || shared->deadline_is_budgets))
		shared_fail(shared, outcome, ERRCODE_EPRO_DEADLINE_EXCEEDED,
					shared->deadline_is_ours ? MESSAGE_DEADLINE : MESSAGE_BUDGET,
					NULL, worker_number, chunk_number);
	else
		shared_fail(shared, outcome, error->sqlerrcode, error->message, error->hint,
					worker_number, chunk_number);
	if (outcome == OUTCOME_FAILED)
		ereport(LOG,
				(errmsg("epro_etl worker %d of run " INT64_FORMAT " failed with SQLSTATE %s",
						worker_number, (int64) pg_atomic_read_u64(&shared->run_id),
						unpack_sql_state(error->sqlerrcode)),
				 requested_by ? errcontext("%s", requested_by) : 0));
	ConditionVariableBroadcast(&shared->opened);
	RESUME_INTERRUPTS();
}

/* Whose request failed, for the log: it is read beside other requests'. */
static char *
describe_request(void)
{
	char	   *id = context_get("request_id");
	char	   *actor = context_get("actor");

	if (id == NULL && actor == NULL)
		return NULL;
	return psprintf("%s%s%s%s%s", id ? "request_id " : "", id ? id : "",
					id && actor ? ", " : "", actor ? "actor " : "", actor ? actor : "");
}

/*
 * The worker is done; the last one closes the run.  One that comes later than
 * that finds nothing to do, and closes it again with the same words.
 */
static void
leave(void)
{
	/* a cancel must not interrupt what says that there was one */
	HOLD_CANCEL_INTERRUPTS();
	disable_all_timeouts(false);
	if (leave_once())
	{
		PG_TRY();
		{
			POINT("worker.leave");
			close_run();
		}
		PG_CATCH();
		{
			/* raising an error has let go of what was held */
			HOLD_CANCEL_INTERRUPTS();
			report_error();
		}
		PG_END_TRY();
	}
	wake_caller();
	RESUME_CANCEL_INTERRUPTS();
}

/*
 * Is no longer one of the active; true when it was the last of them.  A worker
 * that never connected was none: it could not write into the ledger.
 */
static bool
leave_once(void)
{
	if (has_left)
		return false;
	has_left = true;
	progress_phase(&shared->workers[worker_number - 1], PHASE_ENDED);
	pg_atomic_write_u32(&shared->workers[worker_number - 1].pid, 0);
	return connected && pg_atomic_sub_fetch_u32(&shared->active, 1) == 0;
}

/*
 * On FATAL: whoever waits for us must not wait on, and the ledger is told as
 * well.  The server's own clean-up has rolled back by now; a transaction at
 * this point of the exit is what dropping temporary tables does too.
 */
static void
leave_at_exit(int code, Datum arg)
{
	if (has_left)
		return;
	POINT_CALM("worker.exit");
	/* who died waiting for the leader is on a list in a segment that goes */
	ConditionVariableCancelSleep();
	shared_fail(shared, OUTCOME_FAILED, ERRCODE_ADMIN_SHUTDOWN,
				"a worker of the run was terminated", NULL,
				worker_number, chunk_number);
	if (leave_once())
		close_run();
	ConditionVariableBroadcast(&shared->opened);
	wake_caller();
}

/* Writes the end of the run into the ledger, as far as it was opened. */
static void
close_run(void)
{
	int64		run_id = (int64) pg_atomic_read_u64(&shared->run_id);
	Cause		cause;
	int64		remaining = -1;

	if (run_id == 0)
		return;
	cause_read(&shared->cause, &cause);

	session_begin();
	if (proc_exit_inprogress && !account_can_write())
	{
		session_commit();
		return;
	}
	if (cause.outcome == OUTCOME_NONE || (cause.outcome == OUTCOME_STOPPED && cause.sqlstate != 0))
		remaining = (int64) pg_atomic_read_u64(&shared->skipped_rows);
	else if (cause.outcome == OUTCOME_STOPPED || cause.outcome == OUTCOME_HELD)
		remaining = source_rows(shared->source);
	pg_atomic_write_u64(&shared->remaining, (uint64) remaining);
	account_close_run(run_id, outcome_name(cause.outcome), cause.sqlstate,
					  cause.message[0] ? cause.message : NULL, cause.worker,
					  cause.chunk, remaining);
	session_commit();
	pg_atomic_write_u32(&shared->closed, 1);
}

static void
wake_caller(void)
{
	SetLatch(&shared->caller->procLatch);
}
