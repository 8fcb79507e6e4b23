/*
 * shared.c
 *		What the processes of a run tell each other.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "processes/processes.h"

/* a ratio says nothing about the first few responses */
#define LEAST_FOR_RATIO 100

/*
 * Says why the run ends; the first cause wins.  The message must hold no
 * data.  worker 0 is the caller.
 */
void
shared_fail(RunShared *shared, Outcome outcome, int sqlstate,
			const char *message, const char *hint, int worker, int64 chunk)
{
	int			message_len = message ? pg_mbcliplen(message, strlen(message), MOST_MESSAGE - 1) : 0;
	int			hint_len = hint ? pg_mbcliplen(hint, strlen(hint), MOST_MESSAGE - 1) : 0;

	SpinLockAcquire(&shared->mutex);
	if (shared->outcome == OUTCOME_NONE)
	{
		shared->outcome = outcome;
		shared->sqlstate = sqlstate;
		shared->error_worker = worker;
		shared->error_chunk = chunk;
		memcpy(shared->error_message, message ? message : "", message_len);
		shared->error_message[message_len] = '\0';
		memcpy(shared->error_hint, hint ? hint : "", hint_len);
		shared->error_hint[hint_len] = '\0';
	}
	SpinLockRelease(&shared->mutex);
	pg_atomic_write_u32(&shared->stop, 1);
}

Outcome
shared_outcome(RunShared *shared)
{
	Outcome		outcome;

	SpinLockAcquire(&shared->mutex);
	outcome = shared->outcome;
	SpinLockRelease(&shared->mutex);
	return outcome;
}

const char *
outcome_name(Outcome outcome)
{
	static const char *const names[] = {
		[OUTCOME_NONE] = "succeeded",
		[OUTCOME_STOPPED] = "stopped",
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
