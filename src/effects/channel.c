/*
 * channel.c
 *		A bounded queue of messages between processes: many senders, many
 *		receivers, first in first out.
 *
 * A channel is a ring of slots in a dynamic shared memory segment.  Each slot
 * has room for one message of the longest kind, so a channel's memory is
 * capacity times bound, fixed when it is made; no send can fail for want of
 * memory, and none makes it grow.
 *
 * Why not what the server has: shm_mq knows one sender and one receiver.  A
 * DSA area would hold more short messages, but can run out in the middle of a
 * send, and needs somebody to free what a dead process held.  Slots that are
 * taken first and filled later, without a lock, leave a hole in the order when
 * a sender dies in between.  Here a message is copied under a lock: it is
 * wholly in or not at all, whoever dies.
 *
 * Locking:
 *
 * - Channel.lock, an LWLock, guards all that changes: ring, counts of
 *	 processes, closed, counters.  It is held for copies of memory only.
 *	 Nothing that is done under it can raise an error, and an LWLock holds off
 *	 interrupts; so nobody dies with the lock in his hand but by a crash, which
 *	 restarts the server.
 * - The spinlocks of the condition variables come after it.  No other lock is
 *	 taken under it, and no wait is done under it.
 * - Waiting: first go onto the list of the condition variable, then look again
 *	 under the lock, then sleep.  Who has changed something releases the lock
 *	 and then signals.
 * - A wake-up may go to a process that leaves without having looked; then
 *	 somebody else would sleep beside a message, or beside a free slot.  So a
 *	 waiter leaves the list under the lock, in one step with its last look;
 *	 and one that leaves by an error, or dies, passes on a wake-up that it may
 *	 have had.  (The server's own passing on went away in version 17, and
 *	 never covered an interrupt.)
 *
 * A message put wakes one receiver, a slot freed one sender; nobody wakes all
 * but the end of a side, and closing.  Whoever is woken looks for himself:
 * a wake-up too many does no harm.
 */
#include "postgres.h"

#include "common/int.h"
#include "effects/channel.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "words/errors.h"

#define SIDES (CHANNEL_RECEIVER + 1)

struct Channel
{
	/* immutable once channel_init() has returned */
	int			capacity;		/* slots */
	Size		bound;			/* longest message, bytes */
	Size		stride;			/* from one slot to the next, bytes */

	LWLock		lock;
	ConditionVariable room;		/* senders wait here, for a free slot */
	ConditionVariable rows;		/* receivers wait here, for a message */

	/* all from here on: under lock */
	int			head;			/* slot of the oldest message */
	int			depth;			/* messages in the ring, from head on */
	bool		closed;			/* never goes back to false */
	int			living[SIDES];	/* processes that may still come or are here */
	int			absent[SIDES];	/* those of them that have yet to come */
	int64		sent;
	int64		received;
	int64		waits_for_room;
	int64		waits_for_rows;
};

/* One slot; its bytes follow, aligned. */
typedef struct Slot
{
	Size		len;
} Slot;

/* One call's wait, private to the process. */
typedef struct Wait
{
	ConditionVariable *on;
	bool		listed;			/* on the list of the condition variable */
	bool		limited;		/* by until */
	bool		over;			/* the time is up */
	TimestampTz until;
} Wait;

#define HEADER_SIZE MAXALIGN(sizeof(Channel))
#define SLOT_HEADER MAXALIGN(sizeof(Slot))

static Size slot_stride(Size bound);
static Slot *slot_at(Channel *channel, int place);
static char *slot_bytes(Slot *slot);
static void check_end(const ChannelEnd *end, ChannelSide side, const char *verb);
static void refuse_closed(const char *verb);
static ChannelResult put(Channel *channel, const ChannelMessage *messages,
						 int n, int *sent);
static ChannelResult take(Channel *channel, int most, char *buffer,
						  Size *lens, int *received);
static void wait_begin(Wait *wait, ConditionVariable *on, long timeout_ms);
static void wait_sleep(Wait *wait);
static void wait_end(Wait *wait);
static long time_left(TimestampTz until);
static void wake(ConditionVariable *on, int n);
static bool let_go(Channel *channel, ChannelSide side);
static void wake_after_leave(Channel *channel, ChannelSide side, bool last);
static void detach_callback(dsm_segment *segment, Datum arg);

/*
 * Bytes of shared memory that a channel needs: all that it will ever have.
 * Raises an error if that is more than can be counted.
 */
Size
channel_size(int capacity, Size bound)
{
	if (capacity < 1)
		elog(ERROR, "a channel needs at least one slot");
	return add_size(HEADER_SIZE, mul_size(capacity, slot_stride(bound)));
}

/*
 * Makes a channel in channel_size() bytes at a MAXALIGN'ed address.
 *
 * senders and receivers are the processes that will attach.  They count from
 * now on: a channel whose senders have yet to come is not closed.  A process
 * that will never come has its place given up by channel_give_up().
 *
 * tranche must be registered in each process that uses the channel, or its
 * waits have no name.
 */
void
channel_init(Channel *channel, int tranche, int capacity, Size bound,
			 int senders, int receivers)
{
	Assert(capacity >= 1 && senders >= 1 && receivers >= 1);
	Assert((char *) channel == (char *) MAXALIGN(channel));

	memset(channel, 0, sizeof(Channel));
	channel->capacity = capacity;
	channel->bound = bound;
	channel->stride = slot_stride(bound);
	LWLockInitialize(&channel->lock, tranche);
	ConditionVariableInit(&channel->room);
	ConditionVariableInit(&channel->rows);
	channel->living[CHANNEL_SENDER] = channel->absent[CHANNEL_SENDER] = senders;
	channel->living[CHANNEL_RECEIVER] = channel->absent[CHANNEL_RECEIVER] = receivers;
}

/*
 * Takes one of the places of a side, and fills in end.
 *
 * With a segment, the one that the channel lies in, the process lets go of its
 * place when the segment is detached, in whatever way it ends; end must then
 * outlive the mapping.  Without one, letting go is the caller's affair.
 *
 * Raises an error when all places of the side are taken or given up.
 */
void
channel_attach(ChannelEnd *end, Channel *channel, ChannelSide side,
			   dsm_segment *segment)
{
	end->channel = channel;
	end->segment = segment;
	end->side = side;
	end->attached = false;

	/* may run out of memory: to be done before there is a place to lose */
	if (segment != NULL)
		on_dsm_detach(segment, detach_callback, PointerGetDatum(end));

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	if (channel->absent[side] > 0)
	{
		channel->absent[side]--;
		end->attached = true;
	}
	LWLockRelease(&channel->lock);

	if (!end->attached)
	{
		if (segment != NULL)
			cancel_on_dsm_detach(segment, detach_callback, PointerGetDatum(end));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the channel has no place left on this side")));
	}
	POINT("channel.attached");
}

/*
 * Lets go of an end.  The last sender to do so closes the channel, the last
 * receiver breaks it.  Does nothing when that has been done already; raises no
 * error, so it fits every way out.
 */
void
channel_detach(ChannelEnd *end)
{
	Channel    *channel = end->channel;
	bool		last;

	if (!end->attached)
		return;
	POINT_CALM("channel.detach");
	if (end->segment != NULL)
		cancel_on_dsm_detach(end->segment, detach_callback, PointerGetDatum(end));

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	last = let_go(channel, end->side);
	end->attached = false;
	LWLockRelease(&channel->lock);
	wake_after_leave(channel, end->side, last);
}

/*
 * Lets go of a place for a process that has never attached and never will.
 * The caller must know that: a process that attached lets go by itself.
 */
void
channel_give_up(Channel *channel, ChannelSide side)
{
	bool		found;
	bool		last = false;

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	found = channel->absent[side] > 0;
	if (found)
	{
		channel->absent[side]--;
		last = let_go(channel, side);
	}
	LWLockRelease(&channel->lock);

	if (!found)
		elog(ERROR, "the channel has no place left to give up on this side");
	wake_after_leave(channel, side, last);
}

/*
 * Sends the first *sent of n messages, in order: at least one, and as many
 * more as there is room for at once; the rest is for the next call.
 *
 * While the channel is full, waits up to timeout_ms: below 0 without a limit,
 * 0 not at all.
 *
 * CHANNEL_DONE: *sent is at least 1, or n was 0.
 * CHANNEL_BROKEN: no receiver is left; nothing will ever be taken.
 * CHANNEL_TIMEOUT: nothing was sent.
 *
 * Raises an error, having sent nothing: when a message is longer than the
 * bound, when the channel is closed (also while this call waits), when end is
 * not an attached sender's, and on an interrupt while waiting.
 */
ChannelResult
channel_send(ChannelEnd *end, const ChannelMessage *messages, int n,
			 int *sent, long timeout_ms)
{
	Channel    *channel = end->channel;
	ChannelResult result;
	Wait		wait;
	bool		settled;
	int			wakes;

	Assert(n >= 0);
	*sent = 0;
	check_end(end, CHANNEL_SENDER, "send on");
	for (int i = 0; i < n; i++)
		if (messages[i].len > channel->bound)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("message of %zu bytes is longer than the channel's bound of %zu bytes",
							messages[i].len, channel->bound)));
	if (n == 0)
		return CHANNEL_DONE;

	POINT("channel.send");
	wait_begin(&wait, &channel->room, timeout_ms);
	for (;;)
	{
		LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
		result = put(channel, messages, n, sent);
		settled = result != CHANNEL_TIMEOUT || wait.over;
		wakes = Min(*sent, channel->living[CHANNEL_RECEIVER]);
		if (settled)
			wait_end(&wait);
		else if (!wait.listed)
			channel->waits_for_room++;
		LWLockRelease(&channel->lock);
		if (settled)
			break;
		wait_sleep(&wait);
	}

	if (result == CHANNEL_CLOSED)
		refuse_closed("send on");
	wake(&channel->rows, wakes);
	POINT("channel.sent");
	return result;
}

/*
 * Receives up to most messages, oldest first, but no more than this receiver's
 * share of what is there, so that slow receivers do not hoard.
 *
 * The messages stand one after another in buffer, each at the next MAXALIGN'ed
 * offset, with their lengths in lens.  buffer, MAXALIGN'ed itself, needs room
 * for most * MAXALIGN(bound) bytes.
 *
 * While the channel is empty, waits up to timeout_ms: below 0 without a limit,
 * 0 not at all.
 *
 * CHANNEL_DONE: *received is at least 1.
 * CHANNEL_CLOSED: closed, and nothing is left.
 * CHANNEL_TIMEOUT: nothing was received.
 *
 * Raises an error, having received nothing: when end is not an attached
 * receiver's, and on an interrupt while waiting.
 */
ChannelResult
channel_receive(ChannelEnd *end, int most, char *buffer, Size *lens,
				int *received, long timeout_ms)
{
	Channel    *channel = end->channel;
	ChannelResult result;
	Wait		wait;
	bool		settled;
	int			wakes;

	Assert(most >= 1);
	*received = 0;
	check_end(end, CHANNEL_RECEIVER, "receive from");

	POINT("channel.receive");
	wait_begin(&wait, &channel->rows, timeout_ms);
	for (;;)
	{
		LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
		result = take(channel, most, buffer, lens, received);
		settled = result != CHANNEL_TIMEOUT || wait.over;
		wakes = Min(*received, channel->living[CHANNEL_SENDER]);
		if (settled)
			wait_end(&wait);
		else if (!wait.listed)
			channel->waits_for_rows++;
		LWLockRelease(&channel->lock);
		if (settled)
			break;
		wait_sleep(&wait);
	}

	wake(&channel->room, wakes);
	POINT("channel.received");
	return result;
}

/*
 * A sender closes the channel for all senders.  What is in it can still be
 * received.  Raises an error if the channel is closed already, or end is not an
 * attached sender's.
 */
void
channel_close(ChannelEnd *end)
{
	Channel    *channel = end->channel;
	bool		was_closed;

	check_end(end, CHANNEL_SENDER, "close");

	LWLockAcquire(&channel->lock, LW_EXCLUSIVE);
	was_closed = channel->closed;
	channel->closed = true;
	LWLockRelease(&channel->lock);

	if (was_closed)
		refuse_closed("close");
	ConditionVariableBroadcast(&channel->rows);
	ConditionVariableBroadcast(&channel->room);
}

/* A consistent picture of one moment.  Any process that maps the channel may ask. */
void
channel_stat(Channel *channel, ChannelStat *stat)
{
	LWLockAcquire(&channel->lock, LW_SHARED);
	stat->depth = channel->depth;
	stat->capacity = channel->capacity;
	stat->sent = channel->sent;
	stat->received = channel->received;
	stat->waits_for_room = channel->waits_for_room;
	stat->waits_for_rows = channel->waits_for_rows;
	stat->senders = channel->living[CHANNEL_SENDER];
	stat->receivers = channel->living[CHANNEL_RECEIVER];
	stat->closed = channel->closed;
	LWLockRelease(&channel->lock);
}

/* ---- the ring ---- */

static Size
slot_stride(Size bound)
{
	/* of a bound near the end of the range, MAXALIGN alone would make 0 */
	(void) add_size(bound, MAXIMUM_ALIGNOF);
	return add_size(SLOT_HEADER, MAXALIGN(bound));
}

/* The slot of the message at a place in the order: 0 is the oldest one's. */
static Slot *
slot_at(Channel *channel, int place)
{
	Size		at = ((Size) channel->head + place) % channel->capacity;

	return (Slot *) ((char *) channel + HEADER_SIZE + at * channel->stride);
}

static char *
slot_bytes(Slot *slot)
{
	return (char *) slot + SLOT_HEADER;
}

/*
 * Puts in what there is room for.  CHANNEL_TIMEOUT is "full".  The caller holds
 * the lock exclusively.
 */
static ChannelResult
put(Channel *channel, const ChannelMessage *messages, int n, int *sent)
{
	int			fit = Min(n, channel->capacity - channel->depth);

	if (channel->closed)
		return CHANNEL_CLOSED;
	if (channel->living[CHANNEL_RECEIVER] == 0)
		return CHANNEL_BROKEN;
	if (fit == 0)
		return CHANNEL_TIMEOUT;

	for (int i = 0; i < fit; i++)
	{
		Slot	   *slot = slot_at(channel, channel->depth + i);

		slot->len = messages[i].len;
		if (slot->len > 0)
			memcpy(slot_bytes(slot), messages[i].data, slot->len);
	}
	channel->depth += fit;
	channel->sent += fit;
	*sent = fit;
	return CHANNEL_DONE;
}

/*
 * Takes out one receiver's share.  CHANNEL_TIMEOUT is "empty".  The caller
 * holds the lock exclusively.
 */
static ChannelResult
take(Channel *channel, int most, char *buffer, Size *lens, int *received)
{
	int			depth = channel->depth;
	int			receivers = channel->living[CHANNEL_RECEIVER];
	int			taken;

	if (depth == 0)
		return channel->closed ? CHANNEL_CLOSED : CHANNEL_TIMEOUT;

	taken = Min(most, depth / receivers + (depth % receivers > 0));
	for (int i = 0; i < taken; i++)
	{
		Slot	   *slot = slot_at(channel, i);

		lens[i] = slot->len;
		memcpy(buffer, slot_bytes(slot), slot->len);
		buffer += MAXALIGN(slot->len);
	}
	channel->head = ((Size) channel->head + taken) % channel->capacity;
	channel->depth -= taken;
	channel->received += taken;
	*received = taken;
	return CHANNEL_DONE;
}

/* ---- waiting ---- */

static void
wait_begin(Wait *wait, ConditionVariable *on, long timeout_ms)
{
	wait->on = on;
	wait->listed = false;
	wait->limited = timeout_ms >= 0;
	wait->over = timeout_ms == 0;
	wait->until = 0;

	if (timeout_ms > 0)
	{
		int64		microseconds;

		if (pg_mul_s64_overflow(timeout_ms, 1000, &microseconds) ||
			pg_add_s64_overflow(GetCurrentTimestamp(), microseconds, &wait->until))
			wait->until = PG_INT64_MAX;
	}
}

/*
 * Goes onto the list, the first time; later sleeps.  Either way the caller has
 * to look again, and must not hold the lock.  Raises an error on an interrupt;
 * then the wait is ended, and a wake-up that we may have had goes to another.
 */
static void
wait_sleep(Wait *wait)
{
	const long	left = wait->limited ? time_left(wait->until) : -1;

	if (left == 0)
	{
		wait->over = true;
		return;
	}
	if (!wait->listed)
	{
		ConditionVariablePrepareToSleep(wait->on);
		wait->listed = true;
		return;
	}

	PG_TRY();
	{
		POINT("channel.sleep");
		(void) ConditionVariableTimedSleep(wait->on, left, PG_WAIT_EXTENSION);
	}
	PG_CATCH();
	{
		ConditionVariableCancelSleep();
		ConditionVariableSignal(wait->on);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Leaves the list.  The caller holds the lock since its last look: what is put
 * after that look wakes somebody who still waits.
 */
static void
wait_end(Wait *wait)
{
	if (wait->listed)
		ConditionVariableCancelSleep();
}

/* Milliseconds from now on, rounded up; no more than one sleep can take. */
static long
time_left(TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now >= until)
		return 0;
	return (long) Min((until - now - 1) / 1000 + 1, INT_MAX);
}

/*
 * Wakes up to n waiters.  n is at most the number of processes that can wait
 * there, counted under the lock; the caller has released it since.
 */
static void
wake(ConditionVariable *on, int n)
{
	for (int i = 0; i < n; i++)
		ConditionVariableSignal(on);
}

/* ---- coming and going ---- */

/* Raises an error unless end is attached, and on this side. */
static void
check_end(const ChannelEnd *end, ChannelSide side, const char *verb)
{
	if (!end->attached)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s a channel by a detached end", verb)));
	if (end->side != side)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s a channel by the end of a %s", verb,
						side == CHANNEL_SENDER ? "receiver" : "sender")));
}

static void
refuse_closed(const char *verb)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s a closed channel", verb)));
}

/*
 * One process less on a side; the last sender closes.  Says whether it was the
 * last.  The caller holds the lock exclusively.
 */
static bool
let_go(Channel *channel, ChannelSide side)
{
	bool		last = --channel->living[side] == 0;

	if (last && side == CHANNEL_SENDER)
		channel->closed = true;
	return last;
}

/*
 * The end of a side wakes all of the other.  And a process that died while it
 * waited may have had a wake-up, which another of its side has to get.
 */
static void
wake_after_leave(Channel *channel, ChannelSide side, bool last)
{
	ConditionVariable *own = side == CHANNEL_SENDER ? &channel->room : &channel->rows;
	ConditionVariable *other = side == CHANNEL_SENDER ? &channel->rows : &channel->room;

	if (last)
		ConditionVariableBroadcast(other);
	ConditionVariableSignal(own);
}

/*
 * The segment goes, and with it our place: the process is ending, in any way.
 * If it dies in a wait, it is still on a list.  It has to leave that now: later
 * the list is not mapped any more, and a wake-up could come to it after it has
 * passed one on.
 */
static void
detach_callback(dsm_segment *segment, Datum arg)
{
	ChannelEnd *end = (ChannelEnd *) DatumGetPointer(arg);

	ConditionVariableCancelSleep();

	POINT_CALM("channel.gone");
	/* the server has struck this callback off its list */
	end->segment = NULL;
	channel_detach(end);
}
