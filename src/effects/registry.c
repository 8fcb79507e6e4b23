/*
 * registry.c
 *		What all sessions of the server know of runs and streams.
 *
 * A small table in the server's main shared memory, whether or not the library
 * was preloaded: without preloading it takes some 30 kB of the slack that the
 * server leaves for that (as pg_prewarm's autoprewarm does); with
 * preloading the room is asked for.  Everything larger is in the dynamic
 * segments of runs and streams, whose handles are here.
 *
 * Locking: registry->lock, an LWLock, guards all of it, held for a few copies;
 * woken_at is atomic, and only who claims or frees an entry changes its key.
 * Who waits for a stream's state waits on registry->changed.
 */
#include "postgres.h"

#include "effects/effects.h"
#include "effects/registry.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* how long a stream waits after failures in a row: doubling, up to a bound */
#define FIRST_PAUSE_MS 500
/* who has run for this long has recovered */
#define HEALTHY_MS 60000

typedef struct Registry
{
	LWLock		lock;
	int			channel_tranche;	/* of the locks of all channels; immutable */
	ConditionVariable changed;	/* the state of some stream */
	PGPROC	   *launcher;		/* NULL: none.  Under lock */
	Oid			started;		/* where the last starter did its work.  Under lock */
	uint32		handles[MOST_RUNS]; /* of segments; 0: free.  Under lock */
	StreamEntry streams[MOST_STREAMS];
} Registry;

static Registry *registry = NULL;

static shmem_request_hook_type previous_request = NULL;

static void request_room(void);
static void set_state(StreamEntry *stream, StreamState state);
static void tell_change(void);

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

	registry_attach();
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
	registry_attach();
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

	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	for (int i = 0; i < MOST_RUNS && n < room; i++)
	{
		if (registry->handles[i] != 0)
			handles[n++] = registry->handles[i];
	}
	LWLockRelease(&registry->lock);
	return n;
}

/*
 * Takes an entry for a stream that is to be started: its number, or -1 when
 * there is no room.  fresh: nobody else has started it; was_down: it had an
 * entry all the same.  If somebody has, its leader will not leave before it
 * has seen what the starter has written.
 */
int
registry_stream_enter(Oid database, int64 pipeline_id, Oid login, Oid role,
					  TransactionId starter, bool *fresh, bool *was_down)
{
	int			found = -1;
	StreamEntry *stream;

	registry_attach();
	*fresh = *was_down = false;
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MOST_STREAMS; i++)
	{
		stream = &registry->streams[i];
		if (stream->database == database && stream->pipeline_id == pipeline_id)
		{
			found = i;
			break;
		}
		if (found < 0 && stream->database == InvalidOid)
			found = i;
	}
	if (found >= 0)
	{
		stream = &registry->streams[found];
		*was_down = stream->database != InvalidOid &&
			(stream->state == STREAM_DOWN || stream_never_came(stream));
		*fresh = stream->database == InvalidOid || *was_down;
		if (stream->database == InvalidOid)
		{
			/* woken_at is initialized; the rest begins anew */
			memset(stream, 0, offsetof(StreamEntry, woken_at));
			pg_atomic_write_u64(&stream->woken_at, 0);
		}
		if (TransactionIdIsValid(starter) || *fresh)
			stream->starter = starter;
		if (*fresh)
		{
			stream->database = database;
			stream->pipeline_id = pipeline_id;
			stream->login = login;
			stream->role = role;
			stream->stop = STOP_NONE;
			set_state(stream, STREAM_STARTING);
		}
	}
	LWLockRelease(&registry->lock);
	tell_change();
	return found;
}

/* Copies a stream's entry and returns its number; -1 when there is none. */
int
registry_stream_find(Oid database, int64 pipeline_id, StreamEntry *copy)
{
	int			found = -1;

	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	for (int i = 0; i < MOST_STREAMS && found < 0; i++)
	{
		StreamEntry *stream = &registry->streams[i];

		if (stream->database == database && stream->pipeline_id == pipeline_id)
		{
			*copy = *stream;
			found = i;
		}
	}
	LWLockRelease(&registry->lock);
	return found;
}

/* Copies all entries, free ones included: MOST_STREAMS of them. */
int
registry_stream_list(StreamEntry *copies)
{
	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	memcpy(copies, registry->streams, sizeof(registry->streams));
	LWLockRelease(&registry->lock);
	return MOST_STREAMS;
}

void
registry_stream_read(int entry, StreamEntry *copy)
{
	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	*copy = registry->streams[entry];
	LWLockRelease(&registry->lock);
}

/* This process is the stream's leader. */
void
registry_stream_lead(int entry, Oid source)
{
	StreamEntry *stream = &registry->streams[entry];

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	stream->leader = MyProc;
	stream->pid = MyProcPid;
	stream->source = source;
	LWLockRelease(&registry->lock);
}

void
registry_stream_state(int entry, StreamState state)
{
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	set_state(&registry->streams[entry], state);
	LWLockRelease(&registry->lock);
	tell_change();
}

/* A generation begins (handle 0: has ended). */
void
registry_stream_generation(int entry, uint32 handle, int64 run_id)
{
	StreamEntry *stream = &registry->streams[entry];

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	stream->handle = handle;
	stream->run_id = run_id;
	if (handle != 0)
		stream->generations++;
	LWLockRelease(&registry->lock);
}

/*
 * It has failed: notes why, and from when on to try again.  The pause doubles
 * with each failure in a row.
 */
void
registry_stream_failed(int entry, int sqlstate, const char *note)
{
	StreamEntry *stream = &registry->streams[entry];
	TimestampTz now = GetCurrentTimestamp();
	int			len = pg_mbcliplen(note, strlen(note), MOST_NOTE - 1);

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	if (stream->state == STREAM_RUNNING &&
		TimestampDifferenceExceeds(stream->since, now, HEALTHY_MS))
		stream->failures = 0;
	stream->not_before = TimestampTzPlusMilliseconds(now,
													 doubling_pause(FIRST_PAUSE_MS, stream->failures));
	stream->failures++;
	stream->sqlstate = sqlstate;
	memcpy(stream->note, note, len);
	stream->note[len] = '\0';
	set_state(stream, STREAM_WAITING);
	LWLockRelease(&registry->lock);
	tell_change();
}

/* Its leader has gone without ending it: a launcher may start it again. */
void
registry_stream_down(int entry)
{
	StreamEntry *stream = &registry->streams[entry];

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	stream->leader = NULL;
	stream->pid = 0;
	stream->handle = 0;
	set_state(stream, STREAM_DOWN);
	if (registry->launcher != NULL)
		SetLatch(&registry->launcher->procLatch);
	LWLockRelease(&registry->lock);
	tell_change();
}

/* A leader that was asked for and has not come in a minute never will. */
bool
stream_never_came(const StreamEntry *stream)
{
	return stream->state == STREAM_STARTING && stream->leader == NULL &&
		TimestampDifferenceExceeds(stream->since, GetCurrentTimestamp(), NEVER_CAME_MS);
}

/* Frees the entry of a stream that is down, if it still is; true if it was. */
bool
registry_stream_forget(int entry, int64 pipeline_id)
{
	StreamEntry *stream = &registry->streams[entry];
	bool		forgotten;

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	forgotten = stream->database != InvalidOid && stream->pipeline_id == pipeline_id &&
		stream->state == STREAM_DOWN;
	if (forgotten)
		stream->database = InvalidOid;
	LWLockRelease(&registry->lock);
	tell_change();
	return forgotten;
}

/* One that is down is about to be started; false when it is not down. */
bool
registry_stream_take(int entry)
{
	StreamEntry *stream = &registry->streams[entry];
	bool		taken;

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	taken = stream->database != InvalidOid &&
		(stream->state == STREAM_DOWN || stream_never_came(stream));
	if (taken)
	{
		stream->stop = STOP_NONE;
		set_state(stream, STREAM_STARTING);
	}
	LWLockRelease(&registry->lock);
	return taken;
}

/* It has ended for good: the entry is free. */
void
registry_stream_leave(int entry)
{
	StreamEntry *stream = &registry->streams[entry];

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	stream->database = InvalidOid;
	stream->leader = NULL;
	LWLockRelease(&registry->lock);
	tell_change();
}

/*
 * Its leader has nothing more to do.  Frees the entry, unless somebody has
 * started the stream since: since the wish to stop, or since the transaction
 * that the leader has waited for.  Then returns that one, to be waited for.
 */
TransactionId
registry_stream_retire(int entry, TransactionId waited)
{
	StreamEntry *stream = &registry->streams[entry];
	TransactionId later = InvalidTransactionId;

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	if (TransactionIdIsValid(stream->starter) && stream->starter != waited &&
		!(stream->stop != STOP_NONE && stream->starter == stream->stopped))
	{
		later = stream->starter;
		stream->stop = STOP_NONE;
	}
	else
	{
		stream->database = InvalidOid;
		stream->leader = NULL;
	}
	LWLockRelease(&registry->lock);
	tell_change();
	return later;
}

/* Asks a stream to stop; more urgent wishes replace lesser ones. */
void
registry_stream_stop(int entry, StreamStop stop)
{
	StreamEntry *stream = &registry->streams[entry];

	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	stream->stop = Max(stream->stop, stop);
	stream->stopped = stream->starter;
	if (stream->leader != NULL)
		SetLatch(&stream->leader->procLatch);
	LWLockRelease(&registry->lock);
}

/* Takes the wish back. */
void
registry_stream_go_on(int entry)
{
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	registry->streams[entry].stop = STOP_NONE;
	LWLockRelease(&registry->lock);
}

/* A commit into a source: wakes the streams that read it. */
void
registry_wake(Oid database, Oid source)
{
	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	for (int i = 0; i < MOST_STREAMS; i++)
	{
		StreamEntry *stream = &registry->streams[i];
		uint64		never = 0;

		if (stream->database != database || stream->source != source ||
			stream->leader == NULL)
			continue;
		/* one that has been woken and not looked yet need not be woken again */
		if (pg_atomic_compare_exchange_u64(&stream->woken_at, &never,
										   (uint64) GetCurrentTimestamp()))
			SetLatch(&stream->leader->procLatch);
	}
	LWLockRelease(&registry->lock);
}

/* When the first commit was since the last call; 0: none. */
TimestampTz
registry_woken(int entry)
{
	return (TimestampTz) pg_atomic_exchange_u64(&registry->streams[entry].woken_at, 0);
}

/*
 * Waits until some stream's state may have changed.  The caller ends its waiting
 * with ConditionVariableCancelSleep().
 */
void
registry_wait(long timeout_ms)
{
	registry_attach();
	(void) ConditionVariableTimedSleep(&registry->changed, timeout_ms, PG_WAIT_EXTENSION);
}

/* The lock tranche that all channels share. */
int
registry_tranche(void)
{
	registry_attach();
	return registry->channel_tranche;
}

/* The process that restarts streams; NULL: none. */
void
registry_launcher(PGPROC *launcher)
{
	registry_attach();
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	registry->launcher = launcher;
	LWLockRelease(&registry->lock);
}

/* Says that the streams of a database have been entered; InvalidOid: nobody says so yet. */
void
registry_started(Oid database)
{
	registry_attach();
	LWLockAcquire(&registry->lock, LW_EXCLUSIVE);
	registry->started = database;
	LWLockRelease(&registry->lock);
}

bool
registry_was_started(Oid database)
{
	bool		was;

	registry_attach();
	LWLockAcquire(&registry->lock, LW_SHARED);
	was = registry->started == database;
	LWLockRelease(&registry->lock);
	return was;
}

static void
set_state(StreamEntry *stream, StreamState state)
{
	stream->state = state;
	stream->since = GetCurrentTimestamp();
}

static void
tell_change(void)
{
	ConditionVariableBroadcast(&registry->changed);
}

static void
request_room(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(sizeof(Registry));
}

/*
 * Finds or makes the table.  Functions that a stream's own processes call with
 * an entry rely on its having been found before.
 */
void
registry_attach(void)
{
	bool		found;

	if (registry != NULL)
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	registry = ShmemInitStruct("epro_etl", sizeof(Registry), &found);
	if (!found)
	{
		memset(registry, 0, sizeof(Registry));
		LWLockInitialize(&registry->lock, LWLockNewTrancheId());
		registry->channel_tranche = LWLockNewTrancheId();
		ConditionVariableInit(&registry->changed);
		for (int i = 0; i < MOST_STREAMS; i++)
			pg_atomic_init_u64(&registry->streams[i].woken_at, 0);
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(registry->lock.tranche, "epro_etl registry");
}
