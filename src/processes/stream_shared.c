/*
 * stream_shared.c
 *		The segment that a stream's leader and workers share.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "processes/stream.h"
#include "storage/shmem.h"

static void cut(StreamShared *shared, const StreamPlan *plan);
static Size lay_out(StreamShared *layout, const StreamPlan *plan);
static int	tranche(void);

/* The rows on their way: shared->nplaces of them. */
Place *
stream_places(StreamShared *shared)
{
	return (Place *) ((char *) shared + shared->places_offset);
}

/* What a group receives from. */
Channel *
stream_channel(StreamShared *shared, int group)
{
	(void) tranche();
	return (Channel *) ((char *) shared + shared->channel_offset[group]);
}

/*
 * The group of a worker, from its number (from 0 on).  The first workers go
 * round the groups, so that each group has one before any has two.
 */
int
stream_group_of(const StreamShared *shared, int worker)
{
	for (int round = 0; round < MOST_STAGE_WORKERS; round++)
	{
		for (int g = 0; g < shared->ngroups; g++)
		{
			if (shared->groups[g].nworkers > round && worker-- == 0)
				return g;
		}
	}
	elog(ERROR, "there is no such worker in the stream");
}

/*
 * The security context of a stream's processes: what runs in them, a trigger
 * of a sink for one, must not be able to become the role that they logged in
 * as, nor any other that this one may become.
 */
int
stream_security(Oid login, Oid role)
{
	return login == role ? 0 : SECURITY_LOCAL_USERID_CHANGE;
}

/* A stream's segment, for a look; NULL when it has just gone. */
StreamShared *
stream_map(uint32 handle, dsm_segment **segment, bool *mapped)
{
	StreamShared *shared;

	*segment = handle != 0 ? dsm_find_mapping(handle) : NULL;
	*mapped = *segment != NULL;
	if (*segment == NULL && handle != 0)
		*segment = dsm_attach(handle);
	if (*segment == NULL)
		return NULL;
	shared = dsm_segment_address(*segment);
	if (shared->magic == STREAM_MAGIC && shared->database == MyDatabaseId)
		return shared;
	if (!*mapped)
		dsm_detach(*segment);
	return NULL;
}

/*
 * Makes the segment of a stream's generation, all but run_id filled in, and
 * pins its mapping.
 */
dsm_segment *
stream_create(const StreamPlan *plan, int entry)
{
	StreamShared *layout = palloc0(sizeof(StreamShared));
	Size		size;
	dsm_segment *segment;
	StreamShared *shared;
	Place	   *places;

	cut(layout, plan);
	size = lay_out(layout, plan);
	segment = dsm_create(size, 0);
	dsm_pin_mapping(segment);
	shared = dsm_segment_address(segment);
	memset(shared, 0, layout->channel_offset[0]);
	memcpy(shared, layout, offsetof(StreamShared, cause));
	pfree(layout);

	shared->database = MyDatabaseId;
	shared->login = plan->login;
	shared->role = plan->role;
	shared->pipeline_id = plan->pipeline_id;
	strlcpy(shared->pipeline, plan->pipeline, sizeof(shared->pipeline));
	shared->batch_size = epro_batch_size;
	shared->batch_age = epro_batch_age;
	shared->naptime = epro_naptime;
	shared->leader = MyProc;

	cause_init(&shared->cause);
	pg_atomic_init_u32(&shared->registered, 0);
	pg_atomic_init_u32(&shared->arrived, 0);
	pg_atomic_init_u32(&shared->finished, 0);
	pg_atomic_init_u64(&shared->stored, 0);
	pg_atomic_init_u64(&shared->in_flight, 0);
	pg_atomic_init_u64(&shared->held, 0);
	pg_atomic_init_u64(&shared->oldest, 0);
	latency_init(&shared->latency);
	for (int i = 0; i < shared->nworkers; i++)
		progress_init(&shared->workers[i]);
	places = stream_places(shared);
	for (int i = 0; i < shared->nplaces; i++)
		pg_atomic_init_u32(&places[i].state, PLACE_FREE);
	for (int g = 0; g < shared->ngroups; g++)
		channel_init(stream_channel(shared, g), tranche(), plan->queue_size, MESSAGE_BOUND,
					 g == 0 ? 1 : shared->groups[g - 1].nworkers,
					 shared->groups[g].nworkers);
	shared->magic = STREAM_MAGIC;
	return segment;
}

/* Cuts the composition where groups begin; the first takes what is before. */
static void
cut(StreamShared *shared, const StreamPlan *plan)
{
	for (int stage = 0; stage < STAGE_COUNT; stage++)
	{
		StageGroup *group;

		if (plan->workers[stage] == 0)
			continue;
		group = &shared->groups[shared->ngroups++];
		group->named = (Stage) stage;
		group->first = shared->ngroups == 1 ? STAGE_DECODE : (Stage) stage;
		group->last = STAGE_STORE;
		if (shared->ngroups > 1)
			group[-1].last = (Stage) (stage - 1);
		group->nworkers = plan->workers[stage];
		shared->nworkers += group->nworkers;
	}
}

/*
 * Says what lies where; returns the whole size.  There are places for all that
 * channels and workers can hold, so that these are never short of rows.
 */
static Size
lay_out(StreamShared *layout, const StreamPlan *plan)
{
	Size		size = add_size(offsetof(StreamShared, workers),
								mul_size(layout->nworkers, sizeof(Progress)));
	int			storing = layout->groups[layout->ngroups - 1].nworkers;

	layout->nplaces = layout->ngroups * plan->queue_size +
		(layout->nworkers - storing) * MOST_RECEIVED + storing * epro_batch_size;
	layout->places_offset = size = MAXALIGN(size);
	size = add_size(size, mul_size(layout->nplaces, sizeof(Place)));
	for (int g = 0; g < layout->ngroups; g++)
	{
		layout->channel_offset[g] = size = MAXALIGN(size);
		size = add_size(size, channel_size(plan->queue_size, MESSAGE_BOUND));
	}
	return size;
}

/* The name under which waits for a channel's lock are shown. */
static int
tranche(void)
{
	static int	id = 0;

	if (id == 0)
	{
		id = registry_tranche();
		LWLockRegisterTranche(id, "epro_etl channel");
	}
	return id;
}
