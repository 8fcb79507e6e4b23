/*
 * shared.c
 *		What the processes of a run tell each other.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "processes/processes.h"

/* a ratio says nothing about the first few responses */
#define LEAST_FOR_RATIO 100

void
cause_init(Cause *cause)
{
	memset(cause, 0, sizeof(*cause));
	SpinLockInit(&cause->mutex);
}

/*
 * Says why it ends; the first cause wins.  The message must hold no data.
 * worker 0 is the owner.
 */
void
cause_tell(Cause *cause, Outcome outcome, int sqlstate, const char *message,
		   const char *hint, int worker, int64 chunk)
{
	int			message_len = message ? pg_mbcliplen(message, strlen(message), MOST_MESSAGE - 1) : 0;
	int			hint_len = hint ? pg_mbcliplen(hint, strlen(hint), MOST_MESSAGE - 1) : 0;

	SpinLockAcquire(&cause->mutex);
	if (cause->outcome == OUTCOME_NONE)
	{
		cause->outcome = outcome;
		cause->sqlstate = sqlstate;
		cause->worker = worker;
		cause->chunk = chunk;
		memcpy(cause->message, message ? message : "", message_len);
		cause->message[message_len] = '\0';
		memcpy(cause->hint, hint ? hint : "", hint_len);
		cause->hint[hint_len] = '\0';
	}
	SpinLockRelease(&cause->mutex);
}

/* Copies what has been told; the copy's mutex is not to be used. */
void
cause_read(Cause *cause, Cause *copy)
{
	SpinLockAcquire(&cause->mutex);
	memcpy(copy, cause, sizeof(*copy));
	SpinLockRelease(&cause->mutex);
}

Outcome
cause_outcome(Cause *cause)
{
	Outcome		outcome;

	SpinLockAcquire(&cause->mutex);
	outcome = cause->outcome;
	SpinLockRelease(&cause->mutex);
	return outcome;
}

/* Says why the run ends, and that nothing more is to be claimed. */
void
shared_fail(RunShared *shared, Outcome outcome, int sqlstate,
			const char *message, const char *hint, int worker, int64 chunk)
{
	cause_tell(&shared->cause, outcome, sqlstate, message, hint, worker, chunk);
	pg_atomic_write_u32(&shared->stop, 1);
}

const char *
outcome_name(Outcome outcome)
{
	static const char *const names[] = {
		[OUTCOME_NONE] = "succeeded",
		[OUTCOME_STOPPED] = "stopped",
		[OUTCOME_HELD] = "stopped",
		[OUTCOME_CANCELED] = "canceled",
		[OUTCOME_TIMED_OUT] = "timed out",
		[OUTCOME_FAILED] = "failed",
	};

	return names[outcome];
}

/* Adds a committed chunk to the run's totals. */
void
shared_add(RunShared *shared, const Counts *counts)
{
	pg_atomic_fetch_add_u64(&shared->claimed, counts->claimed);
	pg_atomic_fetch_add_u64(&shared->loaded, counts->loaded);
	pg_atomic_fetch_add_u64(&shared->warned, counts->warned);
	pg_atomic_fetch_add_u64(&shared->rejected, counts->rejected);
	pg_atomic_fetch_add_u64(&shared->duplicate, counts->duplicate);
	pg_atomic_fetch_add_u64(&shared->deferred, counts->deferred);
}

/* Adds what a judged chunk has counted to what the run's workers have. */
void
shared_tally(RunShared *shared, const Tally *tally)
{
	SharedTally *totals = (SharedTally *) ((char *) shared + shared->tallies_offset);

	for (int t = 0; t < shared->ntallies; t++)
	{
		pg_atomic_fetch_add_u64(&totals[t].judged, tally[t].judged);
		pg_atomic_fetch_add_u64(&totals[t].broken, tally[t].broken);
	}
}

/* threshold_exceeded() of the totals, once nobody counts any more. */
char *
shared_exceeded(RunShared *shared, const Pipeline *pipeline)
{
	SharedTally *totals = (SharedTally *) ((char *) shared + shared->tallies_offset);
	Tally	   *copy = palloc0(sizeof(Tally) * shared->ntallies);

	for (int t = 0; t < shared->ntallies; t++)
	{
		copy[t].judged = (int64) pg_atomic_read_u64(&totals[t].judged);
		copy[t].broken = (int64) pg_atomic_read_u64(&totals[t].broken);
	}
	return threshold_exceeded(pipeline, copy, shared->dry_run);
}

bool
shared_too_many_rejects(RunShared *shared)
{
	return too_many_rejects((int64) pg_atomic_read_u64(&shared->claimed),
							(int64) (pg_atomic_read_u64(&shared->rejected) +
									 pg_atomic_read_u64(&shared->duplicate)),
							shared->max_rejects, shared->max_reject_ratio);
}

/* Has a run rejected more than it may?  -1 is no limit. */
bool
too_many_rejects(int64 claimed, int64 rejected, int64 most, double ratio)
{
	if (most >= 0 && rejected > most)
		return true;
	return ratio >= 0 && claimed >= LEAST_FOR_RATIO &&
		(double) rejected > ratio * (double) claimed;
}
