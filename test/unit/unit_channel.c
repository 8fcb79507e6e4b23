/*-------------------------------------------------------------------------
 *
 * unit_channel.c
 *	  The channel: what it promises, one by one; then many processes at once
 *	  that send, receive, close, leave, are canceled and die.
 *
 * The oracle of the second part: each process notes what it has sent or
 * received, and at the end nothing is there twice, nothing is missing but what
 * the channel still holds, and each receiver saw each sender's messages in order.
 *
 * A wake-up that gets lost shows as a program that hangs; an alarm ends it.
 *
 *-------------------------------------------------------------------------
 */
#include <limits.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "effects/channel.h"
#include "unit.h"

#define CANARY 0xA5
#define CANARY_SIZE 64
#define MOST_SIDE 8
#define MOST_BATCH 12
#define BOUND 40

static const char *volatile at = "the start";
static const int *volatile at_shape = NULL;
static int	effort = 100;		/* per cent */

/* A check that is about no text. */
#define HOLDS(claim) CHECK(claim, at, strlen(at))

/* call raises an error of this code, and its message has this part. */
#define RAISES(state, part, call) \
	do { \
		volatile bool raised = false; \
		PG_TRY(); \
		{ \
			call; \
		} \
		PG_CATCH(); \
		{ \
			raised = true; \
		} \
		PG_END_TRY(); \
		HOLDS(raised); \
		HOLDS(!raised || server_sqlstate() == (state)); \
		CHECK(!raised || strstr(server_message(), (part)) != NULL, \
			  server_message(), strlen(server_message())); \
	} while (0)

#define WRONG_STATE ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE

/* ---- a channel in exactly the memory that it asked for ---- */

static Channel *
channel_make(int capacity, Size bound, int senders, int receivers)
{
	Size		size = channel_size(capacity, bound);
	unsigned char *memory = malloc(size + CANARY_SIZE);

	if (memory == NULL)
		abort();
	memset(memory, CANARY, size + CANARY_SIZE);
	channel_init((Channel *) memory, 1, capacity, bound, senders, receivers);
	return (Channel *) memory;
}

static void
channel_drop(Channel *channel, int capacity, Size bound)
{
	const unsigned char *behind = (unsigned char *) channel + channel_size(capacity, bound);
	bool		whole = true;

	for (int i = 0; i < CANARY_SIZE; i++)
		whole = whole && behind[i] == CANARY;
	HOLDS(whole);
	free(channel);
}

static ChannelStat
stat_of(Channel *channel)
{
	ChannelStat stat;

	channel_stat(channel, &stat);
	return stat;
}

static ChannelResult
send_text(ChannelEnd *end, const char *text, long timeout_ms)
{
	ChannelMessage message = {text, strlen(text)};
	int			sent;

	return channel_send(end, &message, 1, &sent, timeout_ms);
}

/* Whether the next message is this text. */
static bool
receive_text(ChannelEnd *end, const char *text)
{
	char		buffer[BOUND + 8];
	Size		len;
	int			received;

	return channel_receive(end, 1, buffer, &len, &received, 0) == CHANNEL_DONE &&
		received == 1 && len == strlen(text) && memcmp(buffer, text, len) == 0;
}

static ChannelResult
receive_any(ChannelEnd *end, long timeout_ms)
{
	char		buffer[BOUND + 8];
	Size		len;
	int			received;

	return channel_receive(end, 1, buffer, &len, &received, timeout_ms);
}

static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- one process, one promise after the other ---- */

static void
sizes(void)
{
	at = "sizes";
	HOLDS(channel_size(1, 0) > 0);
	HOLDS(channel_size(2, 0) > channel_size(1, 0));
	HOLDS(channel_size(7, 8) - channel_size(6, 8) == channel_size(2, 8) - channel_size(1, 8));
	HOLDS(channel_size(100, 1000) - channel_size(99, 1000) < 1000 + 32);
	RAISES(ERRCODE_INTERNAL_ERROR, "at least one slot", channel_size(0, 8));
	RAISES(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "", channel_size(1, SIZE_MAX));
	RAISES(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "", channel_size(1, SIZE_MAX - 7));
	RAISES(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "", channel_size(1, SIZE_MAX - 30));
	RAISES(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "", channel_size(INT_MAX, SIZE_MAX / 1000));
}

/* Each length up to the bound, for bounds on and beside the alignment. */
static void
lengths(void)
{
	at = "lengths";
	for (volatile Size bound = 0; bound <= 17; bound++)
	{
		Channel    *channel = channel_make(3, bound, 1, 1);
		ChannelEnd	sender;
		ChannelEnd	receiver;
		char		text[18] = "abcdefghijklmnopq";
		ChannelMessage mixed[2] = {{text, bound}, {text, bound + 1}};
		int			moved;

		channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
		channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
		for (Size len = 0; len <= bound; len++)
		{
			char	   *exact = unit_exact_copy(text, len);
			ChannelMessage message = {exact, len};
			char	   *buffer = malloc(bound + 1);
			Size		got;

			if (buffer == NULL)
				abort();
			HOLDS(channel_send(&sender, &message, 1, &moved, 0) == CHANNEL_DONE && moved == 1);
			HOLDS(channel_receive(&receiver, 1, buffer, &got, &moved, 0) == CHANNEL_DONE);
			CHECK(got == len && memcmp(buffer, text, len) == 0, text, len);
			free(buffer);
			free(exact);
		}

		/* one too long: nothing of the batch goes in */
		RAISES(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "longer than the channel's bound",
			   channel_send(&sender, mixed, 2, &moved, 0));
		HOLDS(strstr(server_message(), "abc") == NULL);
		HOLDS(moved == 0 && stat_of(channel).depth == 0);
		HOLDS(channel_send(&sender, mixed, 1, &moved, 0) == CHANNEL_DONE);
		channel_drop(channel, 3, bound);
	}
}

/* The ring goes round, batches are cut, results stand packed. */
static void
batches(void)
{
	Channel    *channel = channel_make(4, 9, 1, 1);
	ChannelEnd	sender;
	ChannelEnd	receiver;
	ChannelMessage messages[10];
	char		texts[10][9];
	int			moved;

	at = "batches";
	channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
	for (int i = 0; i < 10; i++)
	{
		memset(texts[i], 'a' + i, 9);
		messages[i].data = texts[i];
		messages[i].len = i % 2 == 0 ? 9 : i;
	}

	HOLDS(channel_send(&sender, messages, 0, &moved, -1) == CHANNEL_DONE && moved == 0);
	for (int round = 0; round < 9; round++)
	{
		char		buffer[4 * 16];
		Size		lens[4];
		char	   *next = buffer;

		HOLDS(channel_send(&sender, messages, 3, &moved, 0) == CHANNEL_DONE && moved == 3);
		HOLDS(channel_send(&sender, messages + 3, 7, &moved, 0) == CHANNEL_DONE && moved == 1);
		HOLDS(channel_send(&sender, messages, 10, &moved, 0) == CHANNEL_TIMEOUT && moved == 0);
		HOLDS(channel_send(&sender, messages, 0, &moved, 0) == CHANNEL_DONE && moved == 0);
		HOLDS(stat_of(channel).depth == 4);

		memset(buffer, CANARY, sizeof(buffer));
		HOLDS(channel_receive(&receiver, 3, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 3);
		for (int i = 0; i < 3; i++)
		{
			HOLDS(lens[i] == messages[i].len && memcmp(next, texts[i], lens[i]) == 0);
			next += MAXALIGN(lens[i]);
		}
		HOLDS((unsigned char) *next == CANARY);
		HOLDS(channel_receive(&receiver, 4, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 1);
		HOLDS(lens[0] == 3 && memcmp(buffer, "ddd", 3) == 0);
		HOLDS(channel_receive(&receiver, 4, buffer, lens, &moved, 0) == CHANNEL_TIMEOUT && moved == 0);
	}
	HOLDS(stat_of(channel).sent == 36 && stat_of(channel).received == 36);
	HOLDS(stat_of(channel).capacity == 4);
	HOLDS(stat_of(channel).waits_for_room == 0 && stat_of(channel).waits_for_rows == 0);
	channel_drop(channel, 4, 9);
}

/* A receiver takes no more than its share, and never nothing. */
static void
fair_share(void)
{
	static const int shares[] = {4, 2, 2, 1, 1};
	Channel    *channel = channel_make(10, 1, 1, 3);
	ChannelEnd	sender;
	ChannelEnd	receiver;
	ChannelMessage messages[10];
	char		buffer[10 * MAXIMUM_ALIGNOF];
	Size		lens[10];
	int			moved;

	at = "fair share";
	for (int i = 0; i < 10; i++)
		messages[i] = (ChannelMessage) {"x", 1};
	channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
	channel_send(&sender, messages, 10, &moved, 0);
	for (int i = 0; i < (int) LENGTH(shares); i++)
		HOLDS(channel_receive(&receiver, 10, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == shares[i]);

	channel_send(&sender, messages, 9, &moved, 0);
	HOLDS(channel_receive(&receiver, 2, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 2);
	channel_give_up(channel, CHANNEL_RECEIVER);
	HOLDS(channel_receive(&receiver, 9, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 4);
	channel_give_up(channel, CHANNEL_RECEIVER);
	HOLDS(channel_receive(&receiver, 9, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 3);
	channel_drop(channel, 10, 1);
}

/* What nobody may do is an error, and does no harm. */
static void
misuse(void)
{
	Channel    *channel = channel_make(2, BOUND, 2, 1);
	ChannelEnd	a;
	ChannelEnd	b;
	ChannelEnd	receiver;
	ChannelEnd	extra;

	at = "misuse";
	channel_attach(&a, channel, CHANNEL_SENDER, NULL);
	channel_attach(&b, channel, CHANNEL_SENDER, NULL);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
	RAISES(WRONG_STATE, "no place left", channel_attach(&extra, channel, CHANNEL_SENDER, NULL));
	RAISES(WRONG_STATE, "no place left",
		   channel_attach(&extra, channel, CHANNEL_RECEIVER, server_segment()));
	HOLDS(!extra.attached);
	server_exit_callbacks();	/* of extra, none is left */
	RAISES(ERRCODE_INTERNAL_ERROR, "no place left", channel_give_up(channel, CHANNEL_SENDER));
	HOLDS(stat_of(channel).senders == 2 && stat_of(channel).receivers == 1);

	RAISES(WRONG_STATE, "the end of a receiver", send_text(&receiver, "x", 0));
	RAISES(WRONG_STATE, "the end of a sender", receive_any(&a, 0));
	RAISES(WRONG_STATE, "the end of a receiver", channel_close(&receiver));

	HOLDS(send_text(&a, "first", 0) == CHANNEL_DONE);
	channel_close(&a);
	HOLDS(stat_of(channel).closed && stat_of(channel).senders == 2);
	RAISES(WRONG_STATE, "cannot close a closed channel", channel_close(&a));
	RAISES(WRONG_STATE, "cannot close a closed channel", channel_close(&b));
	RAISES(WRONG_STATE, "cannot send on a closed channel", send_text(&b, "x", 0));
	RAISES(WRONG_STATE, "cannot send on a closed channel", send_text(&a, "x", -1));
	HOLDS(receive_text(&receiver, "first"));
	HOLDS(receive_any(&receiver, -1) == CHANNEL_CLOSED);
	HOLDS(receive_any(&receiver, 0) == CHANNEL_CLOSED);

	channel_detach(&a);
	channel_detach(&a);
	channel_detach(&a);
	HOLDS(stat_of(channel).senders == 1);
	HOLDS(server_callbacks() == 0);
	RAISES(WRONG_STATE, "detached end", send_text(&a, "x", 0));
	RAISES(WRONG_STATE, "detached end", channel_close(&a));
	channel_detach(&receiver);
	RAISES(WRONG_STATE, "detached end", receive_any(&receiver, 0));
	RAISES(WRONG_STATE, "cannot send on a closed channel", send_text(&b, "x", 0));
	channel_detach(&b);
	HOLDS(stat_of(channel).senders == 0 && stat_of(channel).receivers == 0);
	channel_drop(channel, 2, BOUND);
}

/* Who has yet to come counts; the last one to go ends the side. */
static void
coming_and_going(void)
{
	Channel    *channel = channel_make(2, BOUND, 2, 2);
	ChannelEnd	sender;
	ChannelEnd	receiver;

	at = "coming and going";
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, server_segment());
	HOLDS(receive_any(&receiver, 0) == CHANNEL_TIMEOUT);
	channel_attach(&sender, channel, CHANNEL_SENDER, server_segment());
	HOLDS(send_text(&sender, "one", 0) == CHANNEL_DONE);
	channel_detach(&sender);
	HOLDS(!stat_of(channel).closed);
	HOLDS(receive_text(&receiver, "one"));
	HOLDS(receive_any(&receiver, 0) == CHANNEL_TIMEOUT);

	/* the other place is used and left without a word */
	channel_attach(&sender, channel, CHANNEL_SENDER, server_segment());
	HOLDS(send_text(&sender, "two", 0) == CHANNEL_DONE);
	channel_detach(&sender);
	HOLDS(stat_of(channel).closed && stat_of(channel).senders == 0);
	HOLDS(receive_text(&receiver, "two"));
	HOLDS(receive_any(&receiver, -1) == CHANNEL_CLOSED);
	HOLDS(server_callbacks() == 1);
	channel_detach(&receiver);
	HOLDS(server_callbacks() == 0);
	server_exit_callbacks();
	HOLDS(stat_of(channel).receivers == 1);
	channel_drop(channel, 2, BOUND);

	/* all senders given up: closed; all receivers: broken */
	channel = channel_make(2, BOUND, 2, 2);
	channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, server_segment());
	channel_give_up(channel, CHANNEL_RECEIVER);
	HOLDS(send_text(&sender, "x", 0) == CHANNEL_DONE);
	server_exit_callbacks();	/* the process of the receiver ends */
	HOLDS(!receiver.attached);
	HOLDS(send_text(&sender, "x", -1) == CHANNEL_BROKEN);
	HOLDS(stat_of(channel).depth == 1 && stat_of(channel).sent == 1);
	channel_give_up(channel, CHANNEL_SENDER);
	HOLDS(!stat_of(channel).closed);
	channel_detach(&sender);
	HOLDS(stat_of(channel).closed);
	channel_drop(channel, 2, BOUND);

	channel = channel_make(1, BOUND, 1, 1);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
	channel_give_up(channel, CHANNEL_SENDER);
	HOLDS(receive_any(&receiver, -1) == CHANNEL_CLOSED);
	channel_drop(channel, 1, BOUND);
}

static void
timeouts(void)
{
	Channel    *channel = channel_make(1, BOUND, 1, 1);
	ChannelEnd	sender;
	ChannelEnd	receiver;
	int64		start;

	at = "timeouts";
	channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
	channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
	start = now_ms();
	HOLDS(receive_any(&receiver, 25) == CHANNEL_TIMEOUT);
	HOLDS(now_ms() - start >= 24);
	HOLDS(stat_of(channel).waits_for_rows == 1);
	HOLDS(send_text(&sender, "x", 25) == CHANNEL_DONE);
	start = now_ms();
	HOLDS(send_text(&sender, "y", 25) == CHANNEL_TIMEOUT);
	HOLDS(now_ms() - start >= 24);
	HOLDS(send_text(&sender, "y", 0) == CHANNEL_TIMEOUT);
	HOLDS(stat_of(channel).waits_for_room == 1 && stat_of(channel).waits_for_rows == 1);
	HOLDS(receive_any(&receiver, LONG_MAX) == CHANNEL_DONE);
	HOLDS(send_text(&sender, "z", LONG_MAX) == CHANNEL_DONE);
	channel_drop(channel, 1, BOUND);
}

/* ---- two or three processes, each step known ---- */

/* A process that makes one call and notes how it ended. */
typedef struct Caller
{
	Channel    *channel;
	ChannelSide side;
	long		timeout_ms;
	bool		again;			/* make the call anew after an error */
	bool		stays;			/* after the call, until told to go on */

	/* noted; to be read once the process has ended */
	ChannelResult result;
	int			calls;
	int			sqlstate;		/* of the last error */
	bool		came_back;
	Process    *process;
} Caller;

static void
call_for_it(void *arg)
{
	Caller	   *caller = arg;
	static __thread ChannelEnd end; /* outlives the function, as the callback does */
	volatile bool failed;

	channel_attach(&end, caller->channel, caller->side, server_segment());
	do
	{
		failed = false;
		caller->calls++;
		PG_TRY();
		{
			caller->result = caller->side == CHANNEL_SENDER ?
				send_text(&end, "from a caller", caller->timeout_ms) :
				receive_any(&end, caller->timeout_ms);
		}
		PG_CATCH();
		{
			failed = true;
			caller->sqlstate = server_sqlstate();
		}
		PG_END_TRY();
	} while (failed && caller->again);
	caller->came_back = true;
	if (caller->stays)
		server_stay();
	channel_detach(&end);
}

static void
call_begin(Caller *caller, Channel *channel, ChannelSide side, long timeout_ms, bool stays)
{
	memset(caller, 0, sizeof(Caller));
	caller->channel = channel;
	caller->side = side;
	caller->timeout_ms = timeout_ms;
	caller->stays = stays;
	caller->process = server_start(call_for_it, caller);
	server_await_sleep(caller->process);
}

/* Each thing that ends a receiver's wait. */
static void
receivers_wake(void)
{
	static const long waits[] = {-1, 10000000, LONG_MAX};

	at = "receivers wake";
	for (int i = 0; i < (int) LENGTH(waits); i++)
	{
		for (int how = 0; how < 5; how++)
		{
			Channel    *channel = channel_make(1, BOUND, how == 3 ? 2 : 1, 1);
			ChannelEnd	sender;
			Caller		caller;

			if (how != 4)
				channel_attach(&sender, channel, CHANNEL_SENDER, server_segment());
			call_begin(&caller, channel, CHANNEL_RECEIVER, waits[i], false);
			HOLDS(stat_of(channel).waits_for_rows == 1);
			if (how == 0)
				send_text(&sender, "x", 0);
			else if (how == 1)
				channel_close(&sender);
			else if (how == 2)
				server_exit_callbacks();
			else if (how == 3)
			{
				channel_detach(&sender);
				channel_give_up(channel, CHANNEL_SENDER);
			}
			else
				channel_give_up(channel, CHANNEL_SENDER);
			server_join(caller.process);
			HOLDS(caller.came_back && caller.sqlstate == 0);
			HOLDS(caller.result == (how == 0 ? CHANNEL_DONE : CHANNEL_CLOSED));
			server_exit_callbacks();
			channel_drop(channel, 1, BOUND);
		}
	}
}

/* Each thing that ends a sender's wait. */
static void
senders_wake(void)
{
	at = "senders wake";
	for (int how = 0; how < 4; how++)
	{
		Channel    *channel = channel_make(1, BOUND, 2, how == 3 ? 2 : 1);
		ChannelEnd	sender;
		ChannelEnd	receiver;
		Caller		caller;

		channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
		channel_attach(&receiver, channel, CHANNEL_RECEIVER, server_segment());
		send_text(&sender, "full", 0);
		call_begin(&caller, channel, CHANNEL_SENDER, -1, false);
		HOLDS(stat_of(channel).waits_for_room == 1);
		if (how == 0)
			HOLDS(receive_text(&receiver, "full"));
		else if (how == 1)
			channel_close(&sender);
		else if (how == 2)
			server_exit_callbacks();
		else
		{
			channel_give_up(channel, CHANNEL_RECEIVER);
			server_exit_callbacks();
		}
		server_join(caller.process);
		HOLDS(caller.came_back);
		if (how == 1)
			HOLDS(caller.sqlstate == WRONG_STATE);
		else
			HOLDS(caller.sqlstate == 0 && caller.result == (how == 0 ? CHANNEL_DONE : CHANNEL_BROKEN));
		server_exit_callbacks();
		channel_drop(channel, 1, BOUND);
	}
}

/*
 * An interrupt in a wait: an error or the end, and the channel works on. In the
 * second round the process has also been woken, so that somebody else has to
 * get what it was woken for.
 */
static void
interrupts(void)
{
	at = "interrupts";
	for (int way = 0; way < 16; way++)
	{
		bool		dies = way & 1;
		bool		woken = way & 2;
		bool		sends = way & 4;
		ChannelSide side = sends ? CHANNEL_SENDER : CHANNEL_RECEIVER;
		Channel    *channel = channel_make(1, BOUND, sends ? 3 : 1, sends ? 1 : 2);
		ChannelEnd	sender;
		ChannelEnd	receiver;
		Caller		first;
		Caller		second;

		server_forwards = way & 8;
		channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
		if (sends)
		{
			channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
			send_text(&sender, "full", 0);
		}
		call_begin(&first, channel, side, -1, true);
		call_begin(&second, channel, side, -1, false);

		if (dies)
			server_die(first.process, woken);
		else
			server_cancel(first.process, woken);
		if (!woken)
			server_await_halt(first.process);
		if (sends)
			HOLDS(receive_text(&receiver, "full"));
		else
			send_text(&sender, "x", 0);
		server_join(second.process);

		/* the first one was of no help: it has not let go yet */
		HOLDS(dies || stat_of(channel).senders == (sends ? 2 : 1));
		HOLDS(dies || stat_of(channel).receivers == 1);
		server_go_on(first.process);
		server_join(first.process);

		HOLDS(first.came_back == !dies);
		HOLDS(first.sqlstate == (dies ? 0 : ERRCODE_QUERY_CANCELED));
		HOLDS(second.came_back && second.sqlstate == 0 && second.result == CHANNEL_DONE);
		HOLDS(stat_of(channel).depth == (sends ? 1 : 0));
		HOLDS(stat_of(channel).senders == 1 && stat_of(channel).receivers == (sends ? 1 : 0));
		channel_drop(channel, 1, BOUND);
	}
	server_forwards = true;
}

/* A batch wakes as many as it has messages for; so does what makes room. */
static void
batches_wake(void)
{
	at = "batches wake";
	for (int way = 0; way < 4; way++)
	{
		bool		sends = way & 1;
		ChannelSide side = sends ? CHANNEL_SENDER : CHANNEL_RECEIVER;
		Channel    *channel = channel_make(3, BOUND, sends ? 4 : 1, sends ? 1 : 3);
		ChannelMessage messages[3] = {{"a", 1}, {"b", 1}, {"c", 1}};
		char		buffer[3 * MAXALIGN(BOUND)];
		Size		lens[3];
		ChannelEnd	sender;
		ChannelEnd	receiver;
		Caller		callers[3];
		int			moved;

		server_forwards = way & 2;
		channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
		if (sends)
		{
			channel_attach(&receiver, channel, CHANNEL_RECEIVER, NULL);
			channel_send(&sender, messages, 3, &moved, 0);
		}
		for (int i = 0; i < 3; i++)
			call_begin(&callers[i], channel, side, -1, true);
		if (sends)
			HOLDS(channel_receive(&receiver, 3, buffer, lens, &moved, 0) == CHANNEL_DONE && moved == 3);
		else
			HOLDS(channel_send(&sender, messages, 3, &moved, 0) == CHANNEL_DONE && moved == 3);
		for (int i = 0; i < 3; i++)
			server_await_halt(callers[i].process);
		for (int i = 0; i < 3; i++)
		{
			server_go_on(callers[i].process);
			server_join(callers[i].process);
			HOLDS(callers[i].came_back && callers[i].result == CHANNEL_DONE);
		}
		HOLDS(stat_of(channel).depth == (sends ? 3 : 0));
		channel_drop(channel, 3, BOUND);
	}
	server_forwards = true;
}

/*
 * The first receiver has taken a message and is about to return, when the next
 * one comes: that is for the second, who sleeps, whatever the first does then.
 */
static void
takers_leave_the_list(void)
{
	at = "takers leave the list";
	for (int forwards = 0; forwards < 2; forwards++)
	{
		Channel    *channel = channel_make(1, BOUND, 1, 2);
		ChannelEnd	sender;
		Caller		first;
		Caller		second;

		server_forwards = forwards == 1;
		channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
		call_begin(&first, channel, CHANNEL_RECEIVER, -1, false);
		server_halt(first.process);
		send_text(&sender, "one", 0);
		server_await_halt(first.process);
		call_begin(&second, channel, CHANNEL_RECEIVER, -1, false);
		send_text(&sender, "two", 0);
		server_join(second.process);
		HOLDS(second.came_back && second.result == CHANNEL_DONE);
		HOLDS(stat_of(channel).depth == 0 && stat_of(channel).received == 2);
		server_go_on(first.process);
		server_join(first.process);
		channel_drop(channel, 1, BOUND);
	}
	server_forwards = true;
}

/* A canceled call made again waits as the first one did. */
static void
cancel_and_wait_again(void)
{
	Channel    *channel = channel_make(1, BOUND, 1, 1);
	ChannelEnd	sender;
	Caller		caller = {channel, CHANNEL_RECEIVER, -1, true};

	at = "cancel and wait again";
	channel_attach(&sender, channel, CHANNEL_SENDER, NULL);
	caller.process = server_start(call_for_it, &caller);
	for (int64 i = 1; i <= 5; i++)
	{
		while (stat_of(channel).waits_for_rows < i)
			server_await_sleep(caller.process);
		server_await_sleep(caller.process);
		server_cancel(caller.process, false);
	}
	while (stat_of(channel).waits_for_rows < 6)
		server_await_sleep(caller.process);
	send_text(&sender, "x", 0);
	server_join(caller.process);
	HOLDS(caller.came_back && caller.calls == 6);
	HOLDS(caller.sqlstate == ERRCODE_QUERY_CANCELED && caller.result == CHANNEL_DONE);
	channel_drop(channel, 1, BOUND);
}

/* ---- many processes ---- */

typedef struct Id
{
	uint32		sender;
	uint32		number;
} Id;

/* What may happen in a round beside sending and receiving. */
typedef enum Trouble
{
	TROUBLE_NONE = 0,
	TROUBLE_LEAVE,				/* some go early, by hand or by their end */
	TROUBLE_CLOSE,				/* a sender closes, the others meet it */
	TROUBLE_KILL,				/* cancels and deaths from outside */
	TROUBLES
} Trouble;

typedef struct Round
{
	Channel    *channel;
	Trouble		trouble;
	uint32		messages;		/* of each sender */
	long		timeout_ms;
} Round;

/* One process of a round; process 0 reads it after the end. */
typedef struct Worker
{
	Round	   *round;
	uint32		number;
	Process    *process;
	uint32		sent;
	Id		   *seen;			/* what a receiver got, in its order */
	int			nseen;
	int			room;
	bool		ended;			/* told by the channel that it is over */
	const char *volatile wrong;
} Worker;

static int	shape[4];			/* senders, receivers, capacity, trouble */

/* A message tells where it is from; its length and filling follow from that. */
static Size
compose(char *to, Id id)
{
	Size		len = sizeof(Id) + (id.sender * 7 + id.number * 13) % (BOUND - sizeof(Id) + 1);

	memcpy(to, &id, sizeof(Id));
	memset(to + sizeof(Id), (char) (id.sender + id.number), len - sizeof(Id));
	return len;
}

static void
note_seen(Worker *worker, const char *bytes, Size len)
{
	char		expected[BOUND];
	Id			id;

	if (len < sizeof(Id))
	{
		worker->wrong = "a message is too short";
		return;
	}
	memcpy(&id, bytes, sizeof(Id));
	if (len != compose(expected, id) || memcmp(bytes, expected, len) != 0)
		worker->wrong = "a message was changed";
	if (worker->nseen == worker->room)
	{
		worker->room = worker->room * 2 + 64;
		worker->seen = realloc(worker->seen, worker->room * sizeof(Id));
		if (worker->seen == NULL)
			abort();
	}
	worker->seen[worker->nseen++] = id;
}

/* The limit of one call; those of the round, and now and then no limit. */
static long
some_timeout(Round *round)
{
	return server_random() % 4 == 0 ? (long) (server_random() % 3) : round->timeout_ms;
}

static void
send_all(void *arg)
{
	Worker	   *worker = arg;
	Round	   *round = worker->round;
	bool		leaves = round->trouble == TROUBLE_LEAVE && server_random() % 2 == 0;
	uint32		until = leaves ? server_random() % round->messages : round->messages;
	bool		closes = round->trouble == TROUBLE_CLOSE && worker->number == 0;
	static __thread ChannelEnd end;

	channel_attach(&end, round->channel, CHANNEL_SENDER, server_segment());
	while (worker->sent < until && !worker->ended)
	{
		char		bytes[MOST_BATCH][BOUND];
		ChannelMessage messages[MOST_BATCH];
		int			n = 1 + server_random() % MOST_BATCH;
		volatile int sent = 0;
		int			got = 0;

		n = Min(n, (int) (until - worker->sent));
		for (int i = 0; i < n; i++)
		{
			messages[i].data = bytes[i];
			messages[i].len = compose(bytes[i], (Id) {worker->number, worker->sent + i});
		}
		PG_TRY();
		{
			ChannelResult result = channel_send(&end, messages, n, &got, some_timeout(round));

			sent = got;
			if (result == CHANNEL_BROKEN)
				worker->ended = true;
			else if ((result == CHANNEL_DONE) != (got >= 1) || got > n)
				worker->wrong = "a send's result and its number differ";
		}
		PG_CATCH();
		{
			if (server_sqlstate() == WRONG_STATE && round->trouble == TROUBLE_CLOSE)
				worker->ended = true;
			else if (server_sqlstate() != ERRCODE_QUERY_CANCELED || round->trouble != TROUBLE_KILL)
				worker->wrong = "an error while sending";
		}
		PG_END_TRY();
		worker->sent += sent;
		if (worker->wrong != NULL)
			break;
		if (closes && worker->sent >= until / 2)
		{
			channel_close(&end);
			break;
		}
	}
	/* the process's end does the same */
	if (server_random() % 2 == 0)
		channel_detach(&end);
}

static void
receive_all(void *arg)
{
	Worker	   *worker = arg;
	Round	   *round = worker->round;
	bool		leaves = round->trouble == TROUBLE_LEAVE && server_random() % 2 == 0;
	int			until = leaves ? server_random() % round->messages : INT_MAX;
	static __thread ChannelEnd end;

	channel_attach(&end, round->channel, CHANNEL_RECEIVER, server_segment());
	while (worker->nseen < until && !worker->ended && worker->wrong == NULL)
	{
		char		buffer[MOST_BATCH * MAXALIGN(BOUND)];
		Size		lens[MOST_BATCH];
		int			most = 1 + server_random() % MOST_BATCH;
		int			received = 0;

		PG_TRY();
		{
			ChannelResult result = channel_receive(&end, most, buffer, lens, &received, some_timeout(round));
			char	   *next = buffer;

			if (result == CHANNEL_CLOSED)
				worker->ended = true;
			if ((result == CHANNEL_DONE) != (received >= 1) || received > most)
				worker->wrong = "a receive's result and its number differ";
			for (int i = 0; i < received; i++)
			{
				note_seen(worker, next, lens[i]);
				next += MAXALIGN(lens[i]);
			}
		}
		PG_CATCH();
		{
			if (server_sqlstate() != ERRCODE_QUERY_CANCELED || round->trouble != TROUBLE_KILL)
				worker->wrong = "an error while receiving";
		}
		PG_END_TRY();
	}
	if (server_random() % 2 == 0)
		channel_detach(&end);
}

static void
not_wrong(const Worker *worker)
{
	const char *wrong = worker->wrong != NULL ? worker->wrong : "";

	CHECK(wrong[0] == '\0', wrong, strlen(wrong));
}

/* The oracle. Frees what the receivers noted. */
static void
judge(Round *round, Worker *senders, int nsenders, Worker *receivers, int nreceivers)
{
	ChannelStat stat = stat_of(round->channel);
	int64		sent = 0;
	int64		received = 0;
	bool		twice = false;
	bool		unsent = false;
	bool		disorder = false;
	bool		drained = false;
	bool	   *there[MOST_SIDE];

	for (int i = 0; i < nsenders; i++)
	{
		there[i] = calloc(round->messages, sizeof(bool));
		if (there[i] == NULL)
			abort();
		sent += senders[i].sent;
		not_wrong(&senders[i]);
		if (round->trouble == TROUBLE_NONE)
			HOLDS(senders[i].sent == round->messages);
	}
	for (int i = 0; i < nreceivers; i++)
	{
		int64		last[MOST_SIDE];

		for (int j = 0; j < nsenders; j++)
			last[j] = -1;
		received += receivers[i].nseen;
		drained = drained || receivers[i].ended;
		not_wrong(&receivers[i]);
		for (int j = 0; j < receivers[i].nseen; j++)
		{
			Id			id = receivers[i].seen[j];

			if (id.sender >= (uint32) nsenders || id.number >= senders[id.sender].sent)
			{
				unsent = true;
				continue;
			}
			twice = twice || there[id.sender][id.number];
			there[id.sender][id.number] = true;
			disorder = disorder || last[id.sender] >= (int64) id.number;
			last[id.sender] = id.number;
		}
		free(receivers[i].seen);
	}
	HOLDS(!twice);
	HOLDS(!unsent);
	HOLDS(!disorder);
	HOLDS(stat.sent == sent && stat.received == received);
	HOLDS(stat.depth == sent - received && stat.depth >= 0 && stat.depth <= stat.capacity);
	HOLDS(!drained || stat.depth == 0);
	HOLDS(stat.senders == 0 && stat.receivers == 0 && stat.closed);

	/* what is missing is the end of what was sent: the channel holds it */
	if (stat.depth == 0)
		for (int i = 0; i < nsenders; i++)
			for (uint32 j = 0; j < senders[i].sent; j++)
				HOLDS(there[i][j]);
	for (int i = 0; i < nsenders; i++)
		free(there[i]);
}

/* Interrupts at random, until all have had theirs. Some survive. */
static void
kill_some(Worker *senders, int nsenders, Worker *receivers, int nreceivers)
{
	for (int i = 0; i < 6 * (nsenders + nreceivers); i++)
	{
		int			which = server_random() % (nsenders + nreceivers);
		Process    *process = which < nsenders ? senders[which].process :
			receivers[which - nsenders].process;
		struct timespec moment = {0, server_random() % 100000};

		if (server_random() % 8 == 0)
			server_die(process, server_random() % 2 == 0);
		else
			server_cancel(process, server_random() % 2 == 0);
		nanosleep(&moment, NULL);
	}
}

static void
play(int nsenders, int nreceivers, int capacity, Trouble trouble, uint32 messages)
{
	Worker		senders[MOST_SIDE] = {{0}};
	Worker		receivers[MOST_SIDE] = {{0}};
	Round		round = {channel_make(capacity, BOUND, nsenders, nreceivers), trouble, messages, -1};

	at = "many processes";
	shape[0] = nsenders;
	shape[1] = nreceivers;
	shape[2] = capacity;
	shape[3] = trouble;
	at_shape = shape;
	for (int i = 0; i < Max(nsenders, nreceivers); i++)
	{
		if (i < nreceivers)
		{
			receivers[i].round = &round;
			receivers[i].number = i;
			receivers[i].process = server_start(receive_all, &receivers[i]);
		}
		if (i < nsenders)
		{
			senders[i].round = &round;
			senders[i].number = i;
			senders[i].process = server_start(send_all, &senders[i]);
		}
	}
	if (trouble == TROUBLE_KILL)
		kill_some(senders, nsenders, receivers, nreceivers);
	for (int i = 0; i < nsenders; i++)
		server_join(senders[i].process);
	for (int i = 0; i < nreceivers; i++)
		server_join(receivers[i].process);
	judge(&round, senders, nsenders, receivers, nreceivers);
	channel_drop(round.channel, capacity, BOUND);
	at_shape = NULL;
}

static void
many(void)
{
	static const int capacities[] = {1, 2, 3, 16, 100};
	int			turn = 0;

	for (int nsenders = 1; nsenders <= MOST_SIDE; nsenders++)
		for (int nreceivers = 1; nreceivers <= MOST_SIDE; nreceivers++)
			for (Trouble trouble = TROUBLE_NONE; trouble < TROUBLES; trouble++)
			{
				turn++;
				if (turn * effort / 100 == (turn - 1) * effort / 100)
					continue;
				server_forwards = server_random() % 2 == 0;
				server_jitter = server_random() % 2 == 0 ? 4 : 40;
				play(nsenders, nreceivers, capacities[turn / 3 % LENGTH(capacities)], trouble, 150);
			}
	/* few processes, many rounds: where a lost wake-up leaves nobody to help */
	for (turn = 0; turn < 20 * effort; turn++)
	{
		server_forwards = server_random() % 2 == 0;
		server_jitter = 3;
		play(1 + server_random() % 3, 1 + server_random() % 3, 1 + server_random() % 2,
			 turn % TROUBLES, 20);
	}
	server_jitter = 0;
	server_forwards = true;
}

/* A hang is a wake-up that got lost. Says where, and dies. */
static void
hung(int signo)
{
	char		text[200];
	int			len;

	len = at_shape == NULL ? snprintf(text, sizeof(text), "hung in: %s\n", at) :
		snprintf(text, sizeof(text), "hung in: %s, %d senders, %d receivers, capacity %d, trouble %d\n",
				 at, at_shape[0], at_shape[1], at_shape[2], at_shape[3]);
	if (write(STDERR_FILENO, text, len) != len)
		_exit(3);
	_exit(2);
}

/*
 * "fewer" and "fewest" make less of the part with many processes, for the tools
 * that slow it down; "nothing" is to see whether the program starts.
 */
int
main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "nothing") == 0)
		return 0;
	if (argc > 1)
		effort = strcmp(argv[1], "fewest") == 0 ? 8 : 50;

	signal(SIGALRM, hung);
	alarm(120);
	server_begin();
	sizes();
	lengths();
	batches();
	fair_share();
	misuse();
	coming_and_going();
	timeouts();
	receivers_wake();
	senders_wake();
	interrupts();
	batches_wake();
	takers_leave_the_list();
	cancel_and_wait_again();
	many();
	return unit_finish();
}
