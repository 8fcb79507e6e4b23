/*
 * registry.h
 *		What all sessions of the server know of runs and streams: a table in
 *		the main shared memory.
 */
#ifndef EPRO_ETL_REGISTRY_H
#define EPRO_ETL_REGISTRY_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/proc.h"

/* runs at the same time that the live view can show; others work all the same */
#define MOST_RUNS 64
/* streams of a server */
#define MOST_STREAMS 64
/* a leader that has not come by then */
#define NEVER_CAME_MS 60000
/* length of what is told of a stream's last failure; a diagnostic, not data */
#define MOST_NOTE 256

/*
 * A stream's states, and what may follow:
 * starting -> running -> draining -> (gone)
 * running -> waiting -> starting: it failed, and waits before the next try
 * any -> down: its leader has ended without saying so; a launcher, or
 * start_stream(), starts another
 */
typedef enum StreamState
{
	STREAM_STARTING = 0,
	STREAM_RUNNING,
	STREAM_DRAINING,
	STREAM_WAITING,
	STREAM_DOWN
} StreamState;

typedef enum StreamStop
{
	STOP_NONE = 0,
	STOP_DRAIN,					/* when what is on its way has arrived */
	STOP_NOW
} StreamStop;

/* One stream.  Under the registry's lock, but for what is atomic. */
typedef struct StreamEntry
{
	Oid			database;		/* InvalidOid: the entry is free */
	int64		pipeline_id;
	Oid			login;			/* as whom its processes log in, */
	Oid			role;			/* and act */
	Oid			source;			/* whose commits wake it */
	StreamState state;
	TimestampTz since;			/* of the state */
	StreamStop	stop;			/* written by who wants it stopped */
	TransactionId starter;		/* the last that wants it started */
	TransactionId stopped;		/* the last starter before the wish to stop */
	PGPROC	   *leader;			/* NULL: there is none */
	int			pid;
	uint32		handle;			/* of the segment it works in; 0: none */
	int64		run_id;
	int64		generations;	/* how often it has begun */
	int			failures;		/* in a row */
	TimestampTz not_before;		/* the next try; 0: at once */
	int			sqlstate;		/* of the last failure */
	char		note[MOST_NOTE];
	pg_atomic_uint64 woken_at;	/* first commit since it last looked; 0: none */
} StreamEntry;

extern void registry_request(void);
extern void registry_attach(void);
extern void registry_enter(uint32 handle);
extern void registry_leave(uint32 handle);
extern int	registry_list(uint32 *handles, int room);

extern int	registry_stream_enter(Oid database, int64 pipeline_id, Oid login,
								  Oid role, TransactionId starter, bool *fresh,
								  bool *was_down);
extern int	registry_stream_find(Oid database, int64 pipeline_id,
								 StreamEntry *copy);
extern int	registry_stream_list(StreamEntry *copies);
extern void registry_stream_read(int entry, StreamEntry *copy);
extern void registry_stream_lead(int entry, Oid source);
extern void registry_stream_state(int entry, StreamState state);
extern void registry_stream_generation(int entry, uint32 handle, int64 run_id);
extern void registry_stream_failed(int entry, int sqlstate, const char *note);
extern void registry_stream_down(int entry);
extern bool registry_stream_take(int entry);
extern void registry_stream_leave(int entry);
extern bool registry_stream_forget(int entry, int64 pipeline_id);
extern bool stream_never_came(const StreamEntry *stream);
extern TransactionId registry_stream_retire(int entry, TransactionId waited);
extern void registry_stream_stop(int entry, StreamStop stop);
extern void registry_stream_go_on(int entry);
extern void registry_wake(Oid database, Oid source);
extern TimestampTz registry_woken(int entry);
extern void registry_wait(long timeout_ms);
extern int	registry_tranche(void);
extern void registry_launcher(PGPROC *launcher);
extern void registry_started(Oid database);
extern bool registry_was_started(Oid database);

#endif							/* EPRO_ETL_REGISTRY_H */
