/*
 * progress.c
 *		Where the live view finds the runs: a small table in shared memory.
 *
 * Each run keeps its progress in its own dynamic segment.  This table holds
 * the handles of those segments.  It lives in the server's main shared memory,
 * whether or not the library was preloaded: without preloading it takes a few
 * hundred bytes of the slack that the server leaves for that (as pg_prewarm's
 * autoprewarm does); with preloading the room is asked for.
 *
 * Locking: table->lock guards handles[]; everything in a Progress is atomic,
 * and written by one worker only.
 */
#include "postgres.h"

#include "effects/effects.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* runs at the same time that the view can show; others work all the same */
#define MOST_RUNS 64

typedef struct Registry
{
	LWLock		lock;
	uint32		handles[MOST_RUNS]; /* of segments; 0: free.  Under lock */
} Registry;

static Registry *registry = NULL;

static shmem_request_hook_type previous_request = NULL;

static void request_room(void);
static void attach_registry(void);

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
		[PHASE_ENDED] = "ended",
	};

	return (int) phase < (int) lengthof(names) ? names[phase] : "unknown";
}

/* At load: when preloaded, asks for the table's room. */
void
registry_request(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request = shmem_request_hook;
	shmem_request_hook = request_room;
}

/* Shows a run in the view, unless there is no place left. */
void
registry_enter(uint32 handle)
{
	bool		entered = false;

	attach_registry();
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MOST_RUNS && !entered; i++)
	{
		if (registry->handles[i] == 0)
		{
			registry->handles[i] = handle;
			entered = true;
		}
	}
	LWLockRelease(&registry->lock);
}

void
registry_leave(uint32 handle)
{
	attach_registry();
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MOST_RUNS; i++)
	{
		if (registry->handles[i] == handle)
			registry->handles[i] = 0;
	}
	LWLockRelease(&registry->lock);
}

/* The segments of all runs shown; returns their number. */
int
registry_list(uint32 *handles, int room)
{
	int			n = 0;

	attach_registry();
	LWLockAcquire(&registry->lock, LW_SHARED);
	for (int i = 0; i < MOST_RUNS && n < room; i++)
	{
		if (registry->handles[i] != 0)
			handles[n++] = registry->handles[i];
	}
	LWLockRelease(&registry->lock);
	return n;
}

static void
request_room(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(sizeof(Registry));
}

static void
attach_registry(void)
{
	bool		found;

	if (registry != NULL)
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	registry = ShmemInitStruct("epro_etl runs", sizeof(Registry), &found);
	if (!found)
	{
		memset(registry, 0, sizeof(Registry));
		LWLockInitialize(&registry->lock, LWLockNewTrancheId());
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(registry->lock.tranche, "epro_etl runs");
}
