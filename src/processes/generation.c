/*
 * generation.c
 *		A stream from one start to its next change: the leader's part.
 *
 * A generation is a run in the ledger, with the versions that it is pinned to.
 * The leader opens it, makes the segment, starts the workers of all groups and
 * reads the source for them.  It ends when the stream is told to stop, when
 * the configuration changes (the leader then begins another), or when
 * something fails.
 *
 * Ending in order goes with the flow: the leader lets go of the first channel,
 * the first group drains it and ends, so the second channel closes, and so
 * on; the leader waits for all.  Ending at once, after a failure too: all
 * workers are canceled, and the leader waits for all.  Workers are not
 * replaced one by one: when one is lost, the generation ends and another
 * begins, and what was on its way is read again from the source.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "processes/reader.h"
#include "processes/stream.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* how often to look whether all workers are there */
#define LOOK_AT_WORKERS_MS 100

/* What the leader knows of the generation at hand. */
typedef struct Generation
{
	int			entry;
	const StreamPlan *plan;
	MemoryContext memory;
	dsm_segment *segment;
	StreamShared *shared;
	Crew		crew;
	ChannelEnd	out;
	Reader	   *reader;
	int64		run_id;			/* 0: not in the ledger */
	bool		drained;
	TimestampTz look_at_workers;
	TimestampTz look_at_plan;
} Generation;

static Generation current;

static void open_generation(void);
static Pipeline *open_ledger(void);
static void register_workers(void);
static void give_up(int worker);
static GenerationEnd lead(void);
static bool drain(void);
static bool plan_changed(bool *wanted);
static bool same_plan(const StreamPlan *a, const StreamPlan *b);
static void look_at_workers(TimestampTz now);
static int	count_ended(void);
static void raise_lost(void);
static void raise_cause(void);
static StreamStop stop_wish(void);
static void wait_until(TimestampTz until);
static void end_workers(Outcome outcome, int sqlstate, const char *message);
static void close_ledger(const char *status, const Cause *cause);
static void let_go(void);

/*
 * Runs a stream until it is to stop, has to begin anew, or fails; then it is
 * written down, and no worker is left.  Raises no error of its own.
 */
GenerationEnd
generation_run(int entry, const StreamPlan *plan)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile GenerationEnd end = GENERATION_FAILED;
	Cause		cause = {0};

	memset(&current, 0, sizeof(current));
	current.entry = entry;
	current.plan = plan;
	current.memory = AllocSetContextCreate(caller, "epro_etl generation",
										   ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		MemoryContextSwitchTo(current.memory);
		open_generation();
		end = lead();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(current.memory);
		HOLD_INTERRUPTS();
		error = session_take_error();
		cause.outcome = error->sqlerrcode == ERRCODE_QUERY_CANCELED ? OUTCOME_CANCELED : OUTCOME_FAILED;
		cause.sqlstate = error->sqlerrcode;
		error_strip(error);
		strlcpy(cause.message, error->message, sizeof(cause.message));
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(current.memory);
	end_workers(OUTCOME_STOPPED, 0, "the stream was told to stop");
	if (current.shared != NULL && cause_outcome(&current.shared->cause) == OUTCOME_FAILED)
		cause_read(&current.shared->cause, &cause);
	if (end == GENERATION_FAILED)
	{
		ereport(LOG,
				(errmsg("epro_etl stream of pipeline \"%s\" failed with SQLSTATE %s",
						plan->pipeline, unpack_sql_state(cause.sqlstate))));
		close_ledger(outcome_name(cause.outcome), &cause);
		registry_stream_failed(entry, cause.sqlstate, cause.message);
	}
	else
		close_ledger(current.drained ? "succeeded" : "stopped", NULL);
	let_go();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(current.memory);
	return end;
}

/*
 * On the way out of the process: ends the workers and says so, as far as that
 * can still be done.
 */
void
generation_abandon(void)
{
	Cause		cause = {0};

	if (current.shared == NULL && current.run_id == 0)
		return;
	cause.sqlstate = ERRCODE_ADMIN_SHUTDOWN;
	strlcpy(cause.message, "the leader of the stream was terminated", sizeof(cause.message));
	end_workers(OUTCOME_FAILED, cause.sqlstate, cause.message);
	if (current.shared != NULL && cause_outcome(&current.shared->cause) == OUTCOME_FAILED)
		cause_read(&current.shared->cause, &cause);
	close_ledger(outcome_name(OUTCOME_FAILED), &cause);
	let_go();
}

static void
open_generation(void)
{
	Pipeline   *pipeline = open_ledger();

	current.segment = stream_create(current.plan, current.entry);
	current.shared = dsm_segment_address(current.segment);
	current.shared->run_id = current.run_id;
	POINT("generation.segment");
	channel_attach(&current.out, stream_channel(current.shared, 0), CHANNEL_SENDER,
				   current.segment);
	registry_stream_generation(current.entry, dsm_segment_handle(current.segment),
							   current.run_id);
	current.reader = reader_create(current.shared, &pipeline->source, &current.out,
								   current.entry);
	register_workers();
	current.look_at_plan = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), epro_naptime);
}

/* Compiles, so that what does not fit is told once; then opens the run. */
static Pipeline *
open_ledger(void)
{
	RunStart	start = {0};
	Pipeline   *pipeline;
	int64		run_id;

	session_begin();
	MemoryContextSwitchTo(current.memory);
	pipeline = pipeline_load(current.plan->pipeline_id, current.plan->versions);
	start.pipeline_id = current.plan->pipeline_id;
	start.pipeline = current.plan->pipeline;
	start.source = relation_name(pipeline->source.relid);
	start.reason = "stream";
	start.stream = true;
	start.batch_size = epro_batch_size;
	start.key_version = current.plan->key_version;
	for (int stage = 0; stage < STAGE_COUNT; stage++)
		start.workers += current.plan->workers[stage];
	start.session_user = current.plan->login;
	start.current_user = current.plan->role;
	start.started_at = GetCurrentTimestamp();
	start.context = current.plan->context;
	run_id = account_open_run(&start, current.plan->versions);
	POINT("generation.opened");
	account_liveness_hold(run_id);
	session_commit();
	current.run_id = run_id;
	MemoryContextSwitchTo(current.memory);
	return pipeline;
}

/* As many as there are places for, but at least one for each group. */
static void
register_workers(void)
{
	StreamShared *shared = current.shared;
	char		name[BGW_MAXLEN + NAMEDATALEN];

	crew_init(&current.crew, shared->nworkers);
	do
		snprintf(name, sizeof(name), "epro_etl stage worker %d of pipeline %s",
				 current.crew.n + 1, shared->pipeline);
	while (current.crew.n < shared->nworkers &&
		   crew_register(&current.crew, "epro_etl_stage_main", "epro_etl stage worker", name,
						 UInt32GetDatum(dsm_segment_handle(current.segment))));
	POINT("generation.registered");
	pg_atomic_write_u32(&shared->registered, current.crew.n);
	if (current.crew.n < shared->ngroups)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("not enough background workers are free for the stream"),
				 errhint("Raise max_worker_processes.")));
	if (current.crew.n < shared->nworkers)
		ereport(LOG,
				(errmsg("epro_etl stream of pipeline \"%s\" has %d of %d workers",
						shared->pipeline, current.crew.n, shared->nworkers),
				 errhint("Raise max_worker_processes.")));
	for (int i = current.crew.n; i < shared->nworkers; i++)
		give_up(i);
}

/* A worker that will never come holds no end of a channel. */
static void
give_up(int worker)
{
	int			group = stream_group_of(current.shared, worker);

	channel_give_up(stream_channel(current.shared, group), CHANNEL_RECEIVER);
	if (group + 1 < current.shared->ngroups)
		channel_give_up(stream_channel(current.shared, group + 1), CHANNEL_SENDER);
}

/* Reads the source for the workers, until there is a reason to end. */
static GenerationEnd
lead(void)
{
	registry_stream_state(current.entry, STREAM_RUNNING);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		wanted = true;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		POINT("generation.lead");
		raise_cause();
		look_at_workers(now);
		switch (stop_wish())
		{
			case STOP_NONE:
				break;
			case STOP_DRAIN:
				current.drained = drain();
				return GENERATION_STOPPED;
			case STOP_NOW:
				return GENERATION_STOPPED;
		}
		if (now >= current.look_at_plan)
		{
			current.look_at_plan = TimestampTzPlusMilliseconds(now, epro_naptime);
			if (plan_changed(&wanted))
			{
				current.drained = drain();
				return wanted ? GENERATION_CHANGED : GENERATION_STOPPED;
			}
		}
		if (!reader_step(current.reader))
			wait_until(Min(reader_next(current.reader), current.look_at_plan));
	}
}

/*
 * Lets what is on its way arrive, group by group; false when it was told to
 * stop at once meanwhile.
 */
static bool
drain(void)
{
	bool		missed = false;

	registry_stream_state(current.entry, STREAM_DRAINING);
	channel_detach(&current.out);
	while (!crew_all_ended(&current.crew))
	{
		CHECK_FOR_INTERRUPTS();
		POINT("generation.drain");
		raise_cause();
		if (stop_wish() == STOP_NOW)
			return false;
		/* one that never came will not close what it was to send on */
		if (count_ended() > (int) pg_atomic_read_u32(&current.shared->finished))
		{
			if (missed)
				raise_lost();
			missed = true;
		}
		reader_collect(current.reader);
		wait_until(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AT_WORKERS_MS));
	}
	raise_cause();
	return true;
}

/* Is it to be another stream by now, or (wanted false) none any more? */
static bool
plan_changed(bool *wanted)
{
	MemoryContext memory = AllocSetContextCreate(current.memory, "epro_etl plan",
												 ALLOCSET_DEFAULT_SIZES);
	StreamPlan	plan;
	bool		changed;

	session_begin();
	MemoryContextSwitchTo(memory);
	*wanted = pipeline_stream(current.plan->pipeline_id, &plan);
	POINT("generation.plan");
	if (*wanted)
		leader_check_role(&plan);
	changed = !*wanted || !same_plan(&plan, current.plan);
	session_commit();
	MemoryContextSwitchTo(current.memory);
	MemoryContextDelete(memory);
	/* a wait for a lock takes the latch's news, and keeps them */
	SetLatch(MyLatch);
	return changed;
}

static bool
same_plan(const StreamPlan *a, const StreamPlan *b)
{
	return a->source == b->source && a->login == b->login && a->role == b->role &&
		a->queue_size == b->queue_size && a->key_version == b->key_version &&
		memcmp(a->workers, b->workers, sizeof(a->workers)) == 0 &&
		compareJsonbContainers(&a->versions->root, &b->versions->root) == 0;
}

/* A worker that has ended without being told to is a failure. */
static void
look_at_workers(TimestampTz now)
{
	if (now < current.look_at_workers)
		return;
	current.look_at_workers = TimestampTzPlusMilliseconds(now, LOOK_AT_WORKERS_MS);
	if (count_ended() > 0)
		raise_lost();
}

static int
count_ended(void)
{
	int			ended = 0;
	int			pid;

	for (int i = 0; i < current.crew.n; i++)
		ended += !crew_lives(&current.crew, i, &pid);
	return ended;
}

/* What it told, if it did. */
static void
raise_lost(void)
{
	raise_cause();
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_WORKER_LOST),
			 errmsg("a worker of the stream ended without an answer")));
}

/* Ends the generation with what a worker has told. */
static void
raise_cause(void)
{
	Cause		cause;

	if (cause_outcome(&current.shared->cause) == OUTCOME_NONE)
		return;
	cause_read(&current.shared->cause, &cause);
	ereport(ERROR,
			(errcode(cause.sqlstate ? cause.sqlstate : ERRCODE_EPRO_WORKER_LOST),
			 errmsg("%s", cause.message)));
}

static StreamStop
stop_wish(void)
{
	StreamEntry entry;

	registry_stream_read(current.entry, &entry);
	return entry.stop;
}

static void
wait_until(TimestampTz until)
{
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout + 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* No worker is left after this. */
static void
end_workers(Outcome outcome, int sqlstate, const char *message)
{
	if (current.shared == NULL)
		return;
	POINT_CALM("generation.end");
	if (current.crew.handles != NULL && !crew_all_ended(&current.crew))
	{
		cause_tell(&current.shared->cause, outcome, sqlstate, message, NULL, 0, 0);
		(void) crew_end(&current.crew);
	}
}

/* Writes the end down; when that cannot be done, the extension may be gone. */
static void
close_ledger(const char *status, const Cause *cause)
{
	if (current.run_id == 0)
		return;
	HOLD_CANCEL_INTERRUPTS();
	PG_TRY();
	{
		POINT("generation.close");
		session_begin();
		if (!proc_exit_inprogress || account_can_write())
			account_close_run(current.run_id, status, cause ? cause->sqlstate : 0,
							  cause ? cause->message : NULL, cause ? cause->worker : 0,
							  cause ? cause->chunk : 0, -1);
		session_commit();
	}
	PG_CATCH();
	{
		/* raising an error has let go of what was held */
		HOLD_CANCEL_INTERRUPTS();
		MemoryContextSwitchTo(TopMemoryContext);
		FreeErrorData(session_take_error());
	}
	PG_END_TRY();
	/* a process that ends has lost its locks by now */
	if (!proc_exit_inprogress)
		account_liveness_release(current.run_id);
	current.run_id = 0;
	RESUME_CANCEL_INTERRUPTS();
}

static void
let_go(void)
{
	registry_stream_generation(current.entry, 0, 0);
	if (current.shared == NULL)
		return;
	channel_detach(&current.out);
	if (current.crew.handles != NULL)
		crew_forget(&current.crew);
	dsm_detach(current.segment);
	current.shared = NULL;
}
