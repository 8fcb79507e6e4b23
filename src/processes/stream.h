/*
 * stream.h
 *		A pipeline that stays up: its leader, its stage groups, and what they
 *		share.
 */
#ifndef EPRO_ETL_STREAM_H
#define EPRO_ETL_STREAM_H

#include "postgres.h"

#include "effects/channel.h"
#include "effects/registry.h"
#include "processes/processes.h"

#define STREAM_MAGIC 0x6570737d

/* most of a response that a channel carries; a larger one goes by its address */
#define MESSAGE_BOUND 8192

/* messages that a worker takes from a channel at once */
#define MOST_RECEIVED 64

/* what a stream has for processes, all groups together */
#define MOST_STAGE_WORKERS 1024

/* Where a row is on its way; who may change it from there. */
typedef enum PlaceState
{
	PLACE_FREE = 0,				/* the leader */
	PLACE_SENT,					/* the worker that has it */
	PLACE_SETTLED,				/* it left the source: the leader */
	PLACE_GONE,					/* it changed since it was read: the leader */
	PLACE_HELD					/* it cannot be moved now: the leader */
} PlaceState;

/* A row on its way.  But for the state, written by the leader while it is free. */
typedef struct Place
{
	pg_atomic_uint32 state;		/* a PlaceState */
	Address		address;
	TimestampTz committed_at;	/* 0: not known */
} Place;

/* The workers that do some adjacent stages.  Immutable. */
typedef struct StageGroup
{
	Stage		named;			/* at which it was cut; the first may begin before */
	Stage		first;
	Stage		last;
	int			nworkers;
} StageGroup;

/*
 * The segment that a stream's leader and workers share, for one generation:
 * from its start to a change of its configuration, its stop or a failure.
 *
 * Immutable once the first worker is registered: everything up to "cause",
 * which has a lock of its own.  Atomic: the rest.
 *
 * The segment's table of contents: StreamShared, the places, a channel for
 * each group.
 */
typedef struct StreamShared
{
	uint32		magic;
	Oid			database;
	Oid			login;
	Oid			role;
	int64		pipeline_id;
	char		pipeline[NAMEDATALEN];
	int64		run_id;
	int			batch_size;
	int			batch_age;		/* milliseconds */
	int			naptime;		/* milliseconds */
	PGPROC	   *leader;			/* whose latch to set */
	int			ngroups;
	StageGroup	groups[STAGE_COUNT];
	int			nworkers;		/* places in workers[] */
	int			nplaces;
	Size		places_offset;
	Size		channel_offset[STAGE_COUNT];	/* what a group receives from */

	Cause		cause;			/* of its end, unless it was told to end */

	pg_atomic_uint32 registered;	/* workers that may come */
	pg_atomic_uint32 arrived;	/* workers that have come */
	pg_atomic_uint32 finished;	/* workers that ended because all was done */
	pg_atomic_uint64 stored;	/* responses that left the source */
	pg_atomic_uint64 in_flight; /* rows on their way; the leader's */
	pg_atomic_uint64 held;		/* rows that cannot be moved now; the leader's */
	pg_atomic_uint64 oldest;	/* commit of the oldest row on its way; 0: none */
	Latency		latency;		/* from commit to stored */

	Progress	workers[FLEXIBLE_ARRAY_MEMBER];
} StreamShared;

/* How a generation ended, other than by an error. */
typedef enum GenerationEnd
{
	GENERATION_STOPPED = 0,		/* as it was told */
	GENERATION_CHANGED,			/* another configuration: begin again */
	GENERATION_FAILED
} GenerationEnd;

/* ---- stream_shared.c ---- */
extern Place *stream_places(StreamShared *shared);
extern Channel *stream_channel(StreamShared *shared, int group);
extern int	stream_group_of(const StreamShared *shared, int worker);
extern int	stream_security(Oid login, Oid role);
extern StreamShared *stream_map(uint32 handle, dsm_segment **segment,
								bool *mapped);
extern dsm_segment *stream_create(const StreamPlan *plan, int entry);

/* ---- generation.c: the leader's work between two changes ---- */
extern GenerationEnd generation_run(int entry, const StreamPlan *plan);
extern void generation_abandon(void);

/* ---- leader.c ---- */
extern void leader_check_role(const StreamPlan *plan);
extern PGDLLEXPORT void epro_etl_stream_main(Datum arg);
extern bool leader_register(int number, const char *pipeline);

/* ---- stage_worker.c ---- */
extern PGDLLEXPORT void epro_etl_stage_main(Datum arg);

/* ---- launcher.c ---- */
extern PGDLLEXPORT void epro_etl_launcher_main(Datum arg);
extern PGDLLEXPORT void epro_etl_starter_main(Datum arg);
extern void launcher_request(void);

#endif							/* EPRO_ETL_STREAM_H */
