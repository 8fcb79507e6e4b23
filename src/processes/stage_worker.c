/*
 * stage_worker.c
 *		A worker of a stream's stage group: receive, do the group's stages,
 *		send on; or, in the last group, store.
 *
 * A worker holds no transaction while it waits for a channel.  The groups
 * before the last write nothing.  The last one claims, stores and accounts for
 * a chunk in one transaction, and only then says that its rows have left.
 *
 * It ends when its channel is closed and drained; as it lets go of its own side
 * of the next channel then, the end travels down the flow.  An error ends it
 * early: it tells the first cause, and the leader ends the others.  No row is
 * lost by that, since a row is in the source until it is stored.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/interrupt.h"
#include "processes/stream.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/errors.h"
#include "words/message.h"

/* how long the work on what was received at once should take */
#define LITTLE_MS 5
#define MUCH_MS 20

/* a chunk may hold this much together, whatever the number of its responses */
#define MOST_BATCH_BYTES (16 * 1024 * 1024)

/* what the process knows of itself; there is one stream to a process */
static StreamShared *shared = NULL;
static const StageGroup *group = NULL;
static int	worker_number = 0;	/* from 1 */
static bool has_left = false;
static int64 chunk_number = 0;
static ChannelEnd in;
static ChannelEnd out;

/* What is at hand between two channels. */
typedef struct Batch
{
	Parcel	   *parcels;
	int			n;
	int			most;
	Size		bytes;
	char	   *received;		/* of one call */
	Size		lens[MOST_RECEIVED];
	MemoryContext memory;		/* of the messages; reset for each batch */
} Batch;

static void attach(dsm_segment *segment);
static void work(void);
static void open_worker(Run *run);
static void open_batch(Batch *batch);
static bool receive_batch(Run *run, Batch *batch);
static bool meanwhile(Run *run);
static ChannelResult receive_some(Batch *batch, int most, long timeout_ms);
static void hand_on(Run *run, Batch *batch);
static void send_on(Batch *batch);
static void store(Run *run, Batch *batch);
static bool tell_places(Run *run, Batch *batch);
static void settle(const Parcel *parcel, PlaceState state);
static int	adapt(int most, int64 microseconds);
static void report_error(void);
static void leave_at_exit(int code, Datum arg);

/* Entry point of a worker; the argument is the handle of the stream's segment. */
void
epro_etl_stage_main(Datum arg)
{
	dsm_segment *segment;

	session_open("epro_etl stage worker");
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);			/* the leader is gone, and with it the generation */
	dsm_pin_mapping(segment);
	shared = dsm_segment_address(segment);
	if (shared->magic != STREAM_MAGIC)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("invalid magic number in the segment of a stream")));

	worker_number = (int) pg_atomic_fetch_add_u32(&shared->arrived, 1) + 1;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	PG_TRY();
	{
		POINT("stage.arrived");
		attach(segment);
		session_connect(shared->database, shared->login, shared->role,
						stream_security(shared->login, shared->role), NULL);
		work();
		POINT("stage.done");
		pg_atomic_fetch_add_u32(&shared->finished, 1);
	}
	PG_CATCH();
	{
		report_error();
	}
	PG_END_TRY();

	has_left = true;
	progress_phase(&shared->workers[worker_number - 1], PHASE_ENDED);
	pg_atomic_write_u32(&shared->workers[worker_number - 1].pid, 0);
	SetLatch(&shared->leader->procLatch);
	proc_exit(0);
}

/* Takes its places at the channels. */
static void
attach(dsm_segment *segment)
{
	int			g = stream_group_of(shared, worker_number - 1);

	group = &shared->groups[g];
	pg_atomic_write_u32(&shared->workers[worker_number - 1].pid, MyProcPid);
	progress_phase(&shared->workers[worker_number - 1], PHASE_STARTING);
	channel_attach(&in, stream_channel(shared, g), CHANNEL_RECEIVER, segment);
	if (g + 1 < shared->ngroups)
		channel_attach(&out, stream_channel(shared, g + 1), CHANNEL_SENDER, segment);
}

static void
work(void)
{
	Run			run = {0};
	Batch		batch = {0};

	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "epro_etl stream",
												ALLOCSET_DEFAULT_SIZES));
	open_worker(&run);
	open_batch(&batch);
	run.parcels = batch.parcels;
	POINT("stage.opened");
	while (receive_batch(&run, &batch))
	{
		POINT("stage.received");
		/* a commit may have taken the cancel that was to end us */
		if (cause_outcome(&shared->cause) != OUTCOME_NONE)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the stream ends")));
		chunk_number++;
		run.nparcels = batch.n;
		if (group->last == STAGE_STORE)
			store(&run, &batch);
		else
			hand_on(&run, &batch);
		pg_atomic_fetch_add_u64(&run.progress->chunks, 1);
		pgstat_report_stat(false);
	}
	pseudonymiser_wipe(run.pseudonymiser);
	run_wipe_codes(&run);
	channel_detach(&in);
	if (group->last != STAGE_STORE)
		channel_detach(&out);
}

/* Compiles what the leader has written into the ledger. */
static void
open_worker(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;
	char		title[NAMEDATALEN * 2];

	run->run_id = shared->run_id;
	run->worker = worker_number;
	run->batch_size = shared->batch_size;
	run->first = group->first;
	run->last = group->last;
	run->bound = MESSAGE_BOUND;
	run->progress = &shared->workers[worker_number - 1];

	session_begin();
	MemoryContextSwitchTo(memory);
	account_liveness_hold(run->run_id);
	if (group->last == STAGE_STORE)
		account_open_worker(run->run_id, worker_number);
	run->pipeline = pipeline_load(shared->pipeline_id, pipeline_versions_of_run(run->run_id));
	run->pseudonymiser = key_load(account_key_version(run->run_id));
	session_commit();
	MemoryContextSwitchTo(memory);

	snprintf(title, sizeof(title), "epro_etl stream %s %s", shared->pipeline,
			 stage_name[group->named]);
	SetConfigOption("application_name", title, PGC_USERSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_RUNNING, title);
	run_begin(run, NULL);
}

static void
open_batch(Batch *batch)
{
	batch->most = group->last == STAGE_STORE ? shared->batch_size : 1;
	batch->parcels = palloc(sizeof(Parcel) * Max(shared->batch_size, MOST_RECEIVED));
	batch->received = palloc(MOST_RECEIVED * MAXALIGN(MESSAGE_BOUND));
	batch->memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl batch",
										  ALLOCSET_DEFAULT_SIZES);
}

/*
 * Waits for messages.  Who stores waits on, for a chunk by size or age: its
 * commit costs the same for one row and for many.  False at the end.
 */
static bool
receive_batch(Run *run, Batch *batch)
{
	ChannelResult result;
	TimestampTz until;
	bool		busy;

	batch->n = 0;
	batch->bytes = 0;
	MemoryContextReset(batch->memory);
	progress_phase(&shared->workers[worker_number - 1], PHASE_RECEIVING);
	do
	{
		busy = meanwhile(run);
		result = receive_some(batch, batch->most, busy ? 0 : shared->naptime);
	} while (result == CHANNEL_TIMEOUT);
	if (result == CHANNEL_CLOSED || group->last != STAGE_STORE)
		return result != CHANNEL_CLOSED;

	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), shared->batch_age);
	while (batch->n < batch->most && batch->bytes < MOST_BATCH_BYTES)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (receive_some(batch, batch->most - batch->n, left) != CHANNEL_DONE)
			break;
	}
	return true;
}

/*
 * What is to be done beside the flow.  The first who stores empties the outbox,
 * a step at a time, so that the flow does not stand still for a long one.
 * Returns whether there may be more to do at once.
 */
static bool
meanwhile(Run *run)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (worker_number != shared->ngroups || now < next)
		return false;
	if (session_deliver(run) > 0)
		return true;
	next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), shared->naptime);
	return false;
}

static ChannelResult
receive_some(Batch *batch, int most, long timeout_ms)
{
	Place	   *places = stream_places(shared);
	const char *at = batch->received;
	int			n;
	ChannelResult result = channel_receive(&in, Min(most, MOST_RECEIVED), batch->received,
										   batch->lens, &n, timeout_ms);

	for (int i = 0; i < n; i++)
	{
		Parcel	   *parcel = &batch->parcels[batch->n++];

		memset(parcel, 0, sizeof(*parcel));
		parcel->message = at;
		parcel->len = batch->lens[i];
		/* who stores goes on receiving into the same buffer */
		if (group->last == STAGE_STORE)
		{
			char	   *copy = MemoryContextAlloc(batch->memory, parcel->len);

			parcel->message = memcpy(copy, at, parcel->len);
		}
		at += MAXALIGN(batch->lens[i]);
		parcel->place = message_head(parcel->message, parcel->len).place;
		parcel->address = places[parcel->place].address;
		batch->bytes += batch->lens[i];
	}
	return result;
}

/*
 * The group's stages, in a transaction that writes nothing; then on they go.  Codes
 * that are asked for have been committed by then: a message may hold one.
 */
static void
hand_on(Run *run, Batch *batch)
{
	MemoryContext memory = CurrentMemoryContext;
	instr_time	began;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(began);
	if (run_asks_for_codes(run))
		session_resolve(run);
	session_begin();
	MemoryContextSwitchTo(memory);
	run_stages(run);
	session_commit_reading(run);
	MemoryContextSwitchTo(memory);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, began);
	batch->most = adapt(batch->most, (int64) INSTR_TIME_GET_MICROSEC(took));

	progress_phase(run->progress, PHASE_SENDING);
	send_on(batch);
	pg_atomic_fetch_add_u64(&run->progress->processed, batch->n);
}

static void
send_on(Batch *batch)
{
	ChannelMessage *messages = palloc(sizeof(ChannelMessage) * batch->n);
	int			n = 0;
	int			at = 0;
	bool		gone = false;

	for (int i = 0; i < batch->n; i++)
	{
		Parcel	   *parcel = &batch->parcels[i];

		if (parcel->fate != PARCEL_OPEN)
		{
			settle(parcel, parcel->fate == PARCEL_GONE ? PLACE_GONE : PLACE_HELD);
			gone = true;
			continue;
		}
		messages[n].data = parcel->packed;
		messages[n++].len = parcel->packed_len;
	}
	if (gone)
		SetLatch(&shared->leader->procLatch);
	POINT("stage.send");
	while (at < n)
	{
		int			sent;

		CHECK_FOR_INTERRUPTS();
		if (channel_send(&out, messages + at, n - at, &sent, shared->naptime) == CHANNEL_BROKEN)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_WORKER_LOST),
					 errmsg("the next stage group of the stream has ended")));
		at += sent;
	}
	pfree(messages);
}

/*
 * A slow stage must not take more than it can soon do, or the others of its
 * group would have nothing to do beside it.
 */
static int
adapt(int most, int64 microseconds)
{
	if (microseconds < LITTLE_MS * 1000)
		return Min(most * 2, MOST_RECEIVED);
	if (microseconds > MUCH_MS * 1000)
		return Max(most / 2, 1);
	return most;
}

/* Chunks, mostly one, as in a batch; what is committed has left. */
static void
store(Run *run, Batch *batch)
{
	bool		open;

	do
	{
		Counts		counts;

		(void) session_chunk(run, &counts);
		pg_atomic_fetch_add_u64(&run->progress->excluded, counts.rejected + counts.duplicate);
		POINT("stage.settle");
		open = tell_places(run, batch);
	} while (open);
	SetLatch(&shared->leader->procLatch);
}

/* Says of each row what became of it; true when some are still to be done. */
static bool
tell_places(Run *run, Batch *batch)
{
	Place	   *places = stream_places(shared);
	TimestampTz now = GetCurrentTimestamp();
	int			stored = 0;
	bool		open = false;

	for (int i = 0; i < batch->n; i++)
	{
		Parcel	   *parcel = &batch->parcels[i];

		/* what has been told is the leader's, and may be another row's by now */
		if (parcel->place < 0)
			continue;
		switch (parcel->fate)
		{
			case PARCEL_OPEN:
				open = true;
				continue;
			case PARCEL_SETTLED:
				stored++;
				if (places[parcel->place].committed_at != 0)
					latency_add(&shared->latency, now - places[parcel->place].committed_at);
				settle(parcel, PLACE_SETTLED);
				break;
			case PARCEL_GONE:
				settle(parcel, PLACE_GONE);
				break;
			case PARCEL_HELD:
				settle(parcel, PLACE_HELD);
				break;
		}
		parcel->place = -1;
	}
	pg_atomic_fetch_add_u64(&shared->stored, stored);
	pg_atomic_fetch_add_u64(&run->progress->processed, stored);
	return open;
}

/* The row's place is the leader's again; nothing of it is read after this. */
static void
settle(const Parcel *parcel, PlaceState state)
{
	pg_write_barrier();
	pg_atomic_write_u32(&stream_places(shared)[parcel->place].state, state);
}

/* Called with an error at hand: rolls back, and tells the first cause. */
static void
report_error(void)
{
	ErrorData  *error;

	POINT_CALM("stage.report");
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(TopMemoryContext);
	error = session_take_error();
	cause_tell(&shared->cause,
			   error->sqlerrcode == ERRCODE_QUERY_CANCELED ? OUTCOME_CANCELED : OUTCOME_FAILED,
			   error->sqlerrcode, error->message, error->hint, worker_number, chunk_number);
	RESUME_INTERRUPTS();
}

/* On FATAL: the leader must know that it was not the end of the flow. */
static void
leave_at_exit(int code, Datum arg)
{
	if (has_left)
		return;
	POINT_CALM("stage.exit");
	cause_tell(&shared->cause, OUTCOME_FAILED, ERRCODE_ADMIN_SHUTDOWN,
			   "a worker of the stream was terminated", NULL, worker_number, chunk_number);
	pg_atomic_write_u32(&shared->workers[worker_number - 1].pid, 0);
	SetLatch(&shared->leader->procLatch);
}
