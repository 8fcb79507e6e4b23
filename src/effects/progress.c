/*
 * progress.c
 *		What a worker tells the live view about itself.
 *
 * Each run and each stream keeps its workers' progress in its own dynamic
 * segment, which the registry leads to.  Everything in a Progress is atomic,
 * and written by the one worker it belongs to.
 */
#include "postgres.h"

#include "effects/effects.h"
#include "utils/timestamp.h"

/* Before the segment is shown to others. */
void
progress_init(Progress *progress)
{
	pg_atomic_init_u32(&progress->pid, 0);
	pg_atomic_init_u32(&progress->phase, PHASE_STARTING);
	pg_atomic_init_u64(&progress->since, 0);
	pg_atomic_init_u64(&progress->processed, 0);
	pg_atomic_init_u64(&progress->excluded, 0);
	pg_atomic_init_u64(&progress->blocks, 0);
	pg_atomic_init_u64(&progress->chunks, 0);
}

/* A worker says what it is doing. */
void
progress_phase(Progress *progress, Phase phase)
{
	pg_atomic_write_u32(&progress->phase, phase);
	pg_atomic_write_u64(&progress->since, (uint64) GetCurrentTimestamp());
}

const char *
phase_name(Phase phase)
{
	static const char *const names[] = {
		[PHASE_STARTING] = "starting",
		[PHASE_CLAIMING] = "claiming",
		[PHASE_VALIDATING] = "validating",
		[PHASE_STORING] = "storing",
		[PHASE_ACCOUNTING] = "accounting",
		[PHASE_RECEIVING] = "waiting for rows",
		[PHASE_SENDING] = "waiting for room",
		[PHASE_ENDED] = "ended",
	};

	return (int) phase < (int) lengthof(names) ? names[phase] : "unknown";
}
