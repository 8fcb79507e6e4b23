/*
 * processes.h
 *		Who runs a pipeline: the caller's own session, or workers it owns.
 */
#ifndef EPRO_ETL_PROCESSES_H
#define EPRO_ETL_PROCESSES_H

#include "postgres.h"

#include "effects/effects.h"
#include "pipeline/pipeline.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/proc.h"
#include "storage/spin.h"

#define RUN_MAGIC 0x6570726f	/* "epro" */

/* length of an error message that crosses processes; a diagnostic, not data */
#define MOST_MESSAGE 1024

/* what the caller is told when the run's own timeout is over */
#define MESSAGE_DEADLINE "deadline exceeded: the run did not end within its timeout"

/* and what the ledger is told when that of a budget around it is */
#define MESSAGE_BUDGET "deadline exceeded: a budget around the run is over"

/* what to do about a run that a batch threshold holds */
#define HINT_HELD "A run with dry_run => true lists what the rule has found; correct the responses in the source, or change the threshold with epro_etl.add_check()."

/* How a run ended.  The first cause that is set stays. */
typedef enum Outcome
{
	OUTCOME_NONE = 0,			/* nothing has stopped it: succeeded */
	OUTCOME_STOPPED,			/* too many rejects; a dry run that would be held */
	OUTCOME_HELD,				/* by a batch threshold, before anything was taken */
	OUTCOME_CANCELED,			/* by the caller's cancel, exit, or cancel_run() */
	OUTCOME_TIMED_OUT,			/* statement_timeout, or the run's own */
	OUTCOME_FAILED				/* an error of a worker */
} Outcome;

/*
 * Why it ended: the first cause.  All under mutex, a spinlock; only plain
 * copies while it is held.
 */
typedef struct Cause
{
	slock_t		mutex;
	Outcome		outcome;
	int			sqlstate;
	int			worker;			/* 0: the owner of the workers */
	int64		chunk;
	char		message[MOST_MESSAGE];
	char		hint[MOST_MESSAGE];
} Cause;

/* What the caller asks for. */
typedef struct RunRequest
{
	char	   *pipeline;
	int			workers;
	int64		max_rejects;	/* -1: no limit */
	double		max_reject_ratio;	/* -1: no limit */
	TimestampTz deadline;		/* of timeout; 0: none */
	bool		dry_run;
	bool		outlives_statement; /* start_run(): belongs to the session */
	char	   *reason;
} RunRequest;

/* What the caller gets. */
typedef struct RunResult
{
	int64		run_id;
	const char *status;
	Counts		counts;
	int64		remaining;
	int			workers;
	TimestampTz started_at;
	TimestampTz finished_at;
} RunResult;

/* What a run's workers have counted for a threshold, together. */
typedef struct SharedTally
{
	pg_atomic_uint64 judged;
	pg_atomic_uint64 broken;
} SharedTally;

/*
 * The segment that the caller and the workers of a run share.
 *
 * Immutable once the first worker is registered: everything up to "cause",
 * which has a lock of its own.  Atomic: the rest.
 *
 * The segment's table of contents: RunShared, a SharedTally a threshold, the
 * caller's settings, the reason.
 */
typedef struct RunShared
{
	uint32		magic;
	Oid			database;
	Oid			session_user;
	Oid			current_user;
	int			security_context;
	int64		pipeline_id;
	char		pipeline[NAMEDATALEN];
	Oid			source;
	int			nworkers;		/* places in workers[] */
	int			batch_size;
	bool		dry_run;
	int64		max_rejects;
	double		max_reject_ratio;
	TimestampTz started_at;
	TimestampTz deadline;		/* the earlier of both kinds; 0: none */
	bool		deadline_is_ours;	/* the run's timeout, */
	bool		deadline_is_budgets;	/* that of a budget around it, or the statement's */
	PGPROC	   *caller;			/* whose latch to set */
	Size		tallies_offset; /* of the SharedTallies */
	int			ntallies;
	Size		settings_offset;	/* of the caller's settings, serialized */
	Size		reason_offset;	/* 0: none */

	Cause		cause;			/* of its end */

	pg_atomic_uint32 stop;		/* 1: claim no more */
	pg_atomic_uint32 registered;	/* workers that were asked for and may come */
	pg_atomic_uint32 arrived;	/* workers that have come; the first leads */
	pg_atomic_uint32 active;	/* connected and not left: the last one closes */
	pg_atomic_uint32 closed;	/* 1: the ledger says how the run ended */
	pg_atomic_uint64 run_id;	/* 0 until the first worker has opened it */
	ConditionVariable opened;	/* run_id was set, or never will be; judging is 0 */

	BlockRanges judge_ranges;	/* of the pass that judges for the thresholds */
	pg_atomic_uint32 judging;	/* workers that may still count for them */

	BlockRanges ranges;
	pg_atomic_uint64 claimed;	/* totals of committed chunks */
	pg_atomic_uint64 loaded;
	pg_atomic_uint64 warned;
	pg_atomic_uint64 rejected;
	pg_atomic_uint64 duplicate;
	pg_atomic_uint64 deferred;
	pg_atomic_uint64 skipped_rows;	/* seen and left to others */
	pg_atomic_uint64 remaining;	/* as the ledger has it; written on closing */

	Progress	workers[FLEXIBLE_ARRAY_MEMBER];
} RunShared;

/* ---- crew.c: workers that a process has started and must end ---- */
typedef struct Crew
{
	BackgroundWorkerHandle **handles;
	int			n;
} Crew;

extern void crew_init(Crew *crew, int room);
extern bool crew_register(Crew *crew, const char *function, const char *type,
						  const char *name, Datum argument);
extern bool crew_lives(const Crew *crew, int worker, int *pid);
extern bool crew_all_ended(const Crew *crew);
extern bool crew_end(Crew *crew);
extern void crew_forget(Crew *crew);
extern bool waits_for_us(int pid);

/* ---- session.c: a worker's session and its transactions ---- */
extern bool role_may_connect(Oid role);
extern void session_open(const char *what);
extern void session_connect(Oid database, Oid login, Oid role,
							int security_context, char *settings);
extern void session_begin(void);
extern void session_commit(void);
extern void session_commit_reading(Run *run);
extern int	session_chunk(Run *run, Counts *counts);
extern int	session_deliver(Run *run);
extern void session_resolve(Run *run);
extern void session_step_back(int tries);
extern ErrorData *session_take_error(void);

/* ---- shared.c ---- */
extern void cause_init(Cause *cause);
extern void cause_tell(Cause *cause, Outcome outcome, int sqlstate,
					   const char *message, const char *hint, int worker,
					   int64 chunk);
extern void cause_read(Cause *cause, Cause *copy);
extern Outcome cause_outcome(Cause *cause);
extern void shared_fail(RunShared *shared, Outcome outcome, int sqlstate,
						const char *message, const char *hint, int worker,
						int64 chunk);
extern const char *outcome_name(Outcome outcome);
extern void shared_add(RunShared *shared, const Counts *counts);
extern void shared_tally(RunShared *shared, const Tally *tally);
extern char *shared_exceeded(RunShared *shared, const Pipeline *pipeline);
extern bool shared_too_many_rejects(RunShared *shared);
extern bool too_many_rejects(int64 claimed, int64 rejected, int64 most,
							 double ratio);

/* ---- worker.c ---- */
extern PGDLLEXPORT void epro_etl_worker_main(Datum arg);

/* ---- inline.c ---- */
extern void run_inline(const RunRequest *request, RunResult *result);

/* ---- run.c ---- */
typedef struct OwnedRun OwnedRun;

extern void run_request_check(RunRequest *request);
extern OwnedRun *run_launch(const RunRequest *request);
extern bool run_wait(OwnedRun *owned, TimestampTz until, RunResult *result);
extern OwnedRun *run_find(int64 run_id);
extern int64 run_number(OwnedRun *owned);
extern void run_abandon(OwnedRun *owned);

#endif							/* EPRO_ETL_PROCESSES_H */
