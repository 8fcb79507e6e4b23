/*
 * run.c
 *		The caller's side of a batch run: launch, wait for all, stop for sure.
 *
 * A run belongs to the session that started it.  Until every worker has ended,
 * the session owns ending them: when its wait is canceled or times out, when
 * its client goes away, when it is terminated.  Stopping is: say why in the
 * shared segment, then end the crew (crew.c).
 *
 * If the session is killed with -9, the server restarts and all workers with
 * it; the ledger then has a run that did not end and whose liveness nobody
 * holds.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "effects/context.h"
#include "effects/point.h"
#include "effects/registry.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "processes/processes.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "words/errors.h"

struct OwnedRun
{
	dsm_segment *segment;
	RunShared  *shared;
	Crew		crew;
	struct OwnedRun *next;
};

/* the runs that this session has started and not forgotten */
static OwnedRun *owned_runs = NULL;

static OwnedRun *create_shared(const RunRequest *request, int workers,
							   int64 pipeline_id, Oid source,
							   BlockNumber nblocks);
static void enlist_workers(OwnedRun *owned);
static void tell_inline(const RunRequest *request, const char *detail,
						const char *hint);
static bool wait_for_all(OwnedRun *owned, TimestampTz until);
static void stop(OwnedRun *owned, Outcome outcome, int sqlstate,
				 const char *message);
static void stop_all_at_exit(int code, Datum arg);
static void run_forget(OwnedRun *owned);
static void refuse_own_lock(OwnedRun *owned);
static void raise_cause(OwnedRun *owned);
static void tell_would_hold(OwnedRun *owned);
static void fill_result(OwnedRun *owned, RunResult *result);

/* Refuses numbers that make no sense, and fills in the defaults. */
void
run_request_check(RunRequest *request)
{
	if (request->workers < 0 || request->workers > MAX_WORKERS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("workers must be between 0 and %d", MAX_WORKERS),
				 errhint("0 runs in the calling session; about one a processor is a good number.")));
	if (request->max_reject_ratio > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_reject_ratio must be between 0 and 1")));
}

/*
 * Starts the workers of a run.  Returns NULL, with a NOTICE, when no worker
 * can be had, or none could see what the caller has not committed: the caller
 * then runs inline.
 */
OwnedRun *
run_launch(const RunRequest *request)
{
	Oid			source;
	int64		pipeline_id = pipeline_find(request->pipeline, &source);
	Relation	relation;
	BlockNumber nblocks;
	OwnedRun   *owned;
	int			workers = request->workers;

	if (workers == 0)
		return NULL;
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		tell_inline(request, "The transaction has written, and workers cannot see what is not committed.",
					"Commit before the run, or pass workers => 0.");
		return NULL;
	}
	if (!role_may_connect(GetSessionUserId()))
	{
		tell_inline(request, "Workers log in as the session user, who may not.",
					"The role needs LOGIN, and CONNECT on the database.");
		return NULL;
	}

	relation = relation_open(source, AccessShareLock);
	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
	{
		relation_close(relation, NoLock);
		tell_inline(request, "Its source is a temporary table, which workers cannot see.", NULL);
		return NULL;
	}
	nblocks = RelationGetNumberOfBlocks(relation);
	relation_close(relation, AccessShareLock);

	/* a worker without a block of its own has nothing to do */
	workers = Min(workers, Max(1, (int) Min(nblocks, MAX_WORKERS)));
	owned = create_shared(request, workers, pipeline_id, source, nblocks);
	enlist_workers(owned);
	if (owned->crew.n == 0)
	{
		run_forget(owned);
		tell_inline(request, "No background worker is free.", "Raise max_worker_processes.");
		return NULL;
	}
	return owned;
}

/*
 * Waits until all workers have ended, fills in the result and forgets the run:
 * true; or until the given time (0: for ever) while it goes on: false.  Raises
 * the first cause if the run did not succeed; on any error, also of the wait,
 * no worker is left.
 */
bool
run_wait(OwnedRun *owned, TimestampTz until, RunResult *result)
{
	TimestampTz deadline = context_deadline();
	bool		budgets = context_deadline_is_budgets();
	volatile bool ended = false;

	PG_TRY();
	{
		ended = wait_for_all(owned, until);
		POINT("run.ended");
	}
	PG_CATCH();
	{
		/* the statement's own timeout and a cancel have the same SQLSTATE */
		bool		late = deadline != 0 && GetCurrentTimestamp() >= deadline;

		if (late && budgets)
			stop(owned, OUTCOME_TIMED_OUT, ERRCODE_EPRO_DEADLINE_EXCEEDED, MESSAGE_BUDGET);
		else
			stop(owned, late ? OUTCOME_TIMED_OUT : OUTCOME_CANCELED, geterrcode(),
				 late ? "the caller's statement timeout" : "the caller was canceled");
		run_forget(owned);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (ended)
		raise_cause(owned);
	fill_result(owned, result);
	if (ended)
		tell_would_hold(owned);
	else
		result->status = "running";
	return ended;
}

static bool
wait_for_all(OwnedRun *owned, TimestampTz until)
{
	RunShared  *shared = owned->shared;
	TimestampTz look_at_locks = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															DeadlockTimeout);

	POINT("run.wait");
	while (!crew_all_ended(&owned->crew))
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next = shared->deadline_is_ours ? shared->deadline : 0;
		long		timeout;

		CHECK_FOR_INTERRUPTS();
		if (next != 0 && now >= next)
		{
			stop(owned, OUTCOME_TIMED_OUT, ERRCODE_EPRO_DEADLINE_EXCEEDED,
				 MESSAGE_DEADLINE);
			return true;
		}
		if (cause_outcome(&shared->cause) > OUTCOME_HELD)
		{
			/* one has failed: the others' work would be for nothing */
			stop(owned, OUTCOME_FAILED, 0, NULL);
			return true;
		}
		if (until != 0 && now >= until)
			return false;
		if (until != 0 && (next == 0 || until < next))
			next = until;
		if (now >= look_at_locks)
		{
			refuse_own_lock(owned);
			look_at_locks = TimestampTzPlusMilliseconds(now, DeadlockTimeout);
		}
		if (next == 0 || look_at_locks < next)
			next = look_at_locks;
		timeout = TimestampDifferenceMilliseconds(now, next) + 1;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
						 timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	return true;
}

/*
 * The caller's wait for its workers is invisible to the deadlock detector: a
 * worker that waits for a lock of the caller's would wait for ever.  So the
 * caller looks for that itself, as often as the detector would.
 */
static void
refuse_own_lock(OwnedRun *owned)
{
	for (int i = 0; i < owned->crew.n; i++)
	{
		int			pid;

		if (crew_lives(&owned->crew, i, &pid) && pid != 0 && waits_for_us(pid))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
					 errmsg("a worker of the run waits for a lock that the calling session holds"),
					 errhint("Commit before the run, or pass workers => 0.")));
	}
}

/* The run of this number, if this session has started it. */
OwnedRun *
run_find(int64 run_id)
{
	for (OwnedRun *owned = owned_runs; owned != NULL; owned = owned->next)
	{
		if ((int64) pg_atomic_read_u64(&owned->shared->run_id) == run_id)
			return owned;
	}
	return NULL;
}

/*
 * Waits until the run has its number, and returns it; raises the first cause
 * when it never gets one.
 */
int64
run_number(OwnedRun *owned)
{
	PG_TRY();
	{
		while (pg_atomic_read_u64(&owned->shared->run_id) == 0 && !crew_all_ended(&owned->crew))
		{
			CHECK_FOR_INTERRUPTS();
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
	PG_CATCH();
	{
		run_abandon(owned);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (pg_atomic_read_u64(&owned->shared->run_id) == 0)
		raise_cause(owned);
	return (int64) pg_atomic_read_u64(&owned->shared->run_id);
}

/* Ends a run on the way out of an error: no worker is left. */
void
run_abandon(OwnedRun *owned)
{
	stop(owned, OUTCOME_CANCELED, geterrcode(), "the caller was canceled");
	run_forget(owned);
}

/* Lets go of a run whose workers have all ended. */
static void
run_forget(OwnedRun *owned)
{
	OwnedRun  **link = &owned_runs;

	while (*link != NULL && *link != owned)
		link = &(*link)->next;
	if (*link == owned)
		*link = owned->next;
	registry_leave(dsm_segment_handle(owned->segment));
	dsm_detach(owned->segment);
	crew_forget(&owned->crew);
	pfree(owned);
}

static OwnedRun *
create_shared(const RunRequest *request, int workers, int64 pipeline_id,
			  Oid source, BlockNumber nblocks)
{
	static bool exit_is_covered = false;
	Size		settings = EstimateGUCStateSpace();
	Size		reason = request->reason ? strlen(request->reason) + 1 : 0;
	int			ntallies = pipeline_count_thresholds(pipeline_id);
	Size		tallies = MAXALIGN(offsetof(RunShared, workers) + sizeof(Progress) * workers);
	Size		fixed = tallies + MAXALIGN(sizeof(SharedTally) * ntallies);
	OwnedRun   *owned = MemoryContextAllocZero(TopMemoryContext, sizeof(OwnedRun));
	RunShared  *shared;

	crew_init(&owned->crew, workers);
	owned->segment = dsm_create(fixed + MAXALIGN(settings) + reason, 0);
	dsm_pin_mapping(owned->segment);
	owned->shared = shared = dsm_segment_address(owned->segment);
	owned->next = owned_runs;
	owned_runs = owned;
	if (!exit_is_covered)
	{
		before_shmem_exit(stop_all_at_exit, (Datum) 0);
		exit_is_covered = true;
	}

	memset(shared, 0, fixed);
	shared->database = MyDatabaseId;
	shared->session_user = GetSessionUserId();
	GetUserIdAndSecContext(&shared->current_user, &shared->security_context);
	shared->pipeline_id = pipeline_id;
	strlcpy(shared->pipeline, request->pipeline, sizeof(shared->pipeline));
	shared->source = source;
	shared->nworkers = workers;
	shared->batch_size = epro_batch_size;
	shared->dry_run = request->dry_run;
	shared->max_rejects = request->max_rejects;
	shared->max_reject_ratio = request->max_reject_ratio;
	shared->started_at = GetCurrentTimestamp();
	/* a run that outlives the statement that starts it has its own time only */
	shared->deadline = request->outlives_statement ? 0 : context_deadline();
	if (request->deadline != 0 &&
		(shared->deadline == 0 || request->deadline < shared->deadline))
	{
		shared->deadline = request->deadline;
		shared->deadline_is_ours = true;
	}
	else if (shared->deadline != 0)
		shared->deadline_is_budgets = context_deadline_is_budgets();
	shared->caller = MyProc;
	shared->tallies_offset = tallies;
	shared->ntallies = ntallies;
	for (int t = 0; t < ntallies; t++)
	{
		SharedTally *tally = (SharedTally *) ((char *) shared + tallies) + t;

		pg_atomic_init_u64(&tally->judged, 0);
		pg_atomic_init_u64(&tally->broken, 0);
	}
	shared->settings_offset = fixed;
	SerializeGUCState(settings, (char *) shared + fixed);
	if (reason > 0)
	{
		shared->reason_offset = fixed + MAXALIGN(settings);
		memcpy((char *) shared + shared->reason_offset, request->reason, reason);
	}

	cause_init(&shared->cause);
	pg_atomic_init_u32(&shared->stop, 0);
	pg_atomic_init_u32(&shared->arrived, 0);
	pg_atomic_init_u32(&shared->active, 0);
	pg_atomic_init_u32(&shared->closed, 0);
	pg_atomic_init_u32(&shared->registered, 0);
	pg_atomic_init_u64(&shared->run_id, 0);
	ConditionVariableInit(&shared->opened);
	ranges_init(&shared->judge_ranges, nblocks, workers);
	pg_atomic_init_u32(&shared->judging, 0);
	ranges_init(&shared->ranges, nblocks, workers);
	pg_atomic_init_u64(&shared->claimed, 0);
	pg_atomic_init_u64(&shared->loaded, 0);
	pg_atomic_init_u64(&shared->warned, 0);
	pg_atomic_init_u64(&shared->rejected, 0);
	pg_atomic_init_u64(&shared->duplicate, 0);
	pg_atomic_init_u64(&shared->deferred, 0);
	pg_atomic_init_u64(&shared->skipped_rows, 0);
	pg_atomic_init_u64(&shared->remaining, 0);
	for (int i = 0; i < workers; i++)
		progress_init(&shared->workers[i]);
	shared->magic = RUN_MAGIC;
	return owned;
}

/*
 * Registers as many as there are slots for, and makes the run known.  On an
 * error, also of sending the notice, no worker is left: nobody waits for them
 * yet.
 */
static void
enlist_workers(OwnedRun *owned)
{
	RunShared  *shared = owned->shared;
	char		name[BGW_MAXLEN + NAMEDATALEN];

	PG_TRY();
	{
		do
			snprintf(name, sizeof(name), "epro_etl worker %d of pipeline %s",
					 owned->crew.n + 1, shared->pipeline);
		while (owned->crew.n < shared->nworkers &&
			   crew_register(&owned->crew, "epro_etl_worker_main", "epro_etl worker", name,
							 UInt32GetDatum(dsm_segment_handle(owned->segment))));
		POINT("run.registered");
		pg_atomic_write_u32(&shared->registered, owned->crew.n);
		if (owned->crew.n > 0)
			registry_enter(dsm_segment_handle(owned->segment));
		if (owned->crew.n > 0 && owned->crew.n < shared->nworkers)
			ereport(NOTICE,
					(errmsg("run of pipeline \"%s\" has %d of %d workers",
							shared->pipeline, owned->crew.n, shared->nworkers),
					 errdetail("No more background workers are free."),
					 errhint("Raise max_worker_processes.")));
	}
	PG_CATCH();
	{
		run_abandon(owned);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
tell_inline(const RunRequest *request, const char *detail, const char *hint)
{
	ereport(NOTICE,
			(errmsg("run of pipeline \"%s\" is done in the calling session, without workers",
					request->pipeline),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * Says why, ends all workers of a run and waits until they have ended.  Not to
 * raise errors: it runs in clean-up and at exit.
 */
static void
stop(OwnedRun *owned, Outcome outcome, int sqlstate, const char *message)
{
	POINT_CALM("run.stop");
	HOLD_INTERRUPTS();
	shared_fail(owned->shared, outcome, sqlstate, message, NULL, 0, 0);
	ConditionVariableBroadcast(&owned->shared->opened);
	if (!crew_end(&owned->crew))
		ereport(WARNING,
				(errmsg("a worker of run " INT64_FORMAT " has not ended yet",
						(int64) pg_atomic_read_u64(&owned->shared->run_id)),
				 errdetail("It was told to terminate; it claims nothing more.")));
	RESUME_INTERRUPTS();
}

/* The session ends, by whatever way it can still end by itself. */
static void
stop_all_at_exit(int code, Datum arg)
{
	POINT_CALM("run.exit");
	while (owned_runs != NULL)
	{
		OwnedRun   *owned = owned_runs;

		stop(owned, OUTCOME_CANCELED, ERRCODE_ADMIN_SHUTDOWN,
			 "the session that started the run has ended");
		owned_runs = owned->next;
		registry_leave(dsm_segment_handle(owned->segment));
	}
}

/* If the run did not succeed: forgets it and raises the first cause. */
static void
raise_cause(OwnedRun *owned)
{
	RunShared  *shared = owned->shared;
	int64		run_id = (int64) pg_atomic_read_u64(&shared->run_id);
	Cause		cause;
	uint64		committed = pg_atomic_read_u64(&shared->claimed);

	cause_read(&shared->cause, &cause);
	if (cause.outcome == OUTCOME_NONE && (run_id == 0 || pg_atomic_read_u32(&shared->closed) == 0))
	{
		run_forget(owned);
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_WORKER_LOST),
				 errmsg("the workers of the run ended without an answer"),
				 errhint("The server log says why; perhaps no more processes could be started.")));
	}
	if (cause.outcome <= OUTCOME_STOPPED)
		return;
	/* a budget's end is for who has granted it to name */
	if (cause.outcome == OUTCOME_TIMED_OUT && shared->deadline_is_budgets)
		cause.sqlstate = ERRCODE_QUERY_CANCELED;
	run_forget(owned);
	if (cause.outcome == OUTCOME_HELD)
		ereport(ERROR,
				(errcode(cause.sqlstate),
				 errmsg("%s", cause.message),
				 errdetail("In run " INT64_FORMAT "; nothing has left the source, and nothing was stored.", run_id),
				 errhint("%s", cause.hint)));
	ereport(ERROR,
			(errcode(cause.sqlstate ? cause.sqlstate : ERRCODE_EPRO_WORKER_LOST),
			 errmsg("%s", cause.message),
			 cause.worker > 0 ?
			 errdetail("In worker %d, chunk " INT64_FORMAT ", of run " INT64_FORMAT "; " UINT64_FORMAT " responses were committed before and stay.",
					   cause.worker, cause.chunk, run_id, committed) :
			 errdetail("In run " INT64_FORMAT "; " UINT64_FORMAT " responses were committed before and stay.",
					   run_id, committed),
			 cause.hint[0] ? errhint("%s", cause.hint) : 0));
}

/* Forgets the run; says of a dry run that a threshold would have held it. */
static void
tell_would_hold(OwnedRun *owned)
{
	Cause		cause;

	cause_read(&owned->shared->cause, &cause);
	run_forget(owned);
	if (cause.outcome == OUTCOME_STOPPED && cause.sqlstate != 0)
		ereport(WARNING,
				(errcode(cause.sqlstate),
				 errmsg("%s", cause.message),
				 errdetail("This was a dry run: findings and counts are in the ledger.")));
}

static void
fill_result(OwnedRun *owned, RunResult *result)
{
	RunShared  *shared = owned->shared;

	result->run_id = (int64) pg_atomic_read_u64(&shared->run_id);
	result->status = outcome_name(cause_outcome(&shared->cause));
	result->counts.claimed = (int64) pg_atomic_read_u64(&shared->claimed);
	result->counts.loaded = (int64) pg_atomic_read_u64(&shared->loaded);
	result->counts.warned = (int64) pg_atomic_read_u64(&shared->warned);
	result->counts.rejected = (int64) pg_atomic_read_u64(&shared->rejected);
	result->counts.duplicate = (int64) pg_atomic_read_u64(&shared->duplicate);
	result->counts.deferred = (int64) pg_atomic_read_u64(&shared->deferred);
	result->remaining = (int64) pg_atomic_read_u64(&shared->remaining);
	result->workers = (int) pg_atomic_read_u32(&shared->arrived);
	result->started_at = shared->started_at;
	result->finished_at = GetCurrentTimestamp();
}
