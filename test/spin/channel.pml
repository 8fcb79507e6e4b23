/*
 * channel.pml
 *		The channel's protocol, for spin: src/effects/channel.c with nothing
 *		left but its lock, its two condition variables and its counts.
 *
 * What is done under the lock is one step here: no one else sees its parts, and
 * of the lists, which others change without the lock, it does at most one thing,
 * leaving. (Where it is broken on purpose, the parts are steps.)
 *
 * Condition variables are the server's: a list in the order of arrival; a signal
 * takes the first one off, a sleeper that finds itself off wakes. It goes back
 * onto the list before it looks at interrupts, so an interrupt can swallow a
 * wake-up. FORWARD 1 is a server up to version 16, which passes a wake-up on
 * when somebody leaves a list; 0 is one from 17, which does not.
 *
 * Each sender sends MESSAGES messages, up to BATCH a call, and lets go; each
 * receiver receives until the channel is closed. At any moment, as often in
 * all as the budgets say, a wait may be canceled (the call is then made anew),
 * end by its time, or be the end of the process; between two calls a process
 * may close the channel, let go early, or get busy with something else for
 * ever, without letting go.
 *
 * Checked:
 * - each message is taken once and in its sender's order; none is lost but
 *	 what is left in a channel without receivers
 * - the depth is within 0 and the capacity
 * - nothing goes in once the channel is closed
 * - when nothing moves any more, nobody sleeps beside a message or a free slot,
 *	 nor in a channel that is closed or broken; and who is not busy has ended.
 *	 So every receiver ends once all senders are gone, and the reverse
 * - nothing moves for ever (pan -l: there is no progress label, so each cycle
 *	 is an error)
 *
 * BREAK_... leave out one thing each; spin must find fault with every one.
 */

#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef RECEIVERS
#define RECEIVERS 2
#endif
#ifndef CAPACITY
#define CAPACITY 1
#endif
#ifndef MESSAGES
#define MESSAGES 1
#endif
#ifndef BATCH
#define BATCH 1
#endif
#ifndef FORWARD
#define FORWARD 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#ifndef BUSY
#define BUSY 0
#endif

#define PROCESSES (SENDERS + RECEIVERS)

mtype = { none, done, closed_, broken, over };

/* the channel */
byte from[CAPACITY];
byte number[CAPACITY];
byte head;
byte depth;
bool closed;
byte senders = SENDERS;
byte receivers = RECEIVERS;
chan room = [PROCESSES] of { byte };
chan rows = [PROCESSES] of { byte };

/* the processes */
bool asleep[PROCESSES];
byte ended;
byte busy;

/* what is left of the budgets */
byte cancels = CANCELS;
byte deaths = DEATHS;
byte timeouts = TIMEOUTS;
byte leaves = LEAVES;
byte closes = CLOSES;
byte busies = BUSY;

/* for the checks alone */
byte put_of[SENDERS];
byte taken_of[SENDERS];
bool drained;

/* ---- condition variables ---- */

inline signal(list)
{
	atomic {
		if
		:: nempty(list) -> list ? _
		:: empty(list)
		fi
	}
}

/* All that are on the list now: one that comes back does so at the end. */
inline broadcast(list)
{
	n = len(list);
	do
	:: n > 0 -> atomic { signal(list); n-- }
	:: n == 0 -> break
	od
}

/* One step, inside another one's atomic. */
inline leave_list(list)
{
	if
	:: !listed
	:: listed && list ?? [eval(me)] -> list ?? eval(me)
	:: listed && !(list ?? [eval(me)]) -> pass_on = FORWARD
	fi;
	listed = false
}

inline forward(list)
{
	if
	:: pass_on -> atomic { signal(list); pass_on = false }
	:: else
	fi
}

/* ---- the channel ---- */

/* side is the caller's own count, list where its like wait, other the reverse. */
inline let_go(side, list, other, is_sender)
{
	atomic {
		side--;
		last = side == 0;
		closed = closed || (last && is_sender)
	};
#ifndef BREAK_LEAVE_WAKES
	if
	:: last -> broadcast(other)
	:: else
	fi;
#endif
#ifndef BREAK_DEATH_PASSES_ON
	signal(list)
#endif
}

/*
 * One turn of wait_sleep(): goes onto the list, or sleeps there until there is
 * cause to look again. Jumps to again when canceled, to gone when dead.
 */
inline wait(side, list, other, is_sender)
{
	if
	:: atomic { !listed -> list ! me; listed = true };
#ifdef BREAK_LOOK_AGAIN
		goto sleep
#endif
	:: atomic { listed ->
sleep:
		asleep[me] = true };
end_asleep:
		atomic {
			if
			:: !(list ?? [eval(me)]) ->
				list ! me;
				if
				:: true
				:: cancels > 0 -> cancels--; interrupted = true
				:: deaths > 0 -> deaths--; dying = true
				fi
			:: cancels > 0 -> cancels--; interrupted = true
			:: deaths > 0 -> deaths--; dying = true
			:: timeouts > 0 -> timeouts--; expired = true
			fi;
			asleep[me] = false
		};
		if
		:: dying ->
#ifdef BREAK_DEATH_LEAVES_LIST_LATE
			let_go(side, list, other, is_sender);
			atomic { leave_list(list) };
			forward(list);
#else
			atomic { leave_list(list) };
			forward(list);
			let_go(side, list, other, is_sender);
#endif
			goto gone
		:: interrupted ->
			atomic { interrupted = false; leave_list(list) };
			forward(list);
#ifndef BREAK_CANCEL_PASSES_ON
			signal(list);
#endif
			goto again
		:: else
		fi
	fi
}

proctype Sender(byte me)
{
	byte sent;
	byte fit;
	byte wakes;
	byte n;
	bool listed;
	bool pass_on;
	bool last;
	bool interrupted;
	bool dying;
	bool expired;
	mtype result = none;

again:
	do
	:: sent == MESSAGES -> break
	:: atomic { leaves > 0 -> leaves-- }; break
	:: atomic { busies > 0 -> busies--; busy++ };
end_busy:
		false
	:: atomic { closes > 0 && !closed -> closes--; closed = true };
#ifndef BREAK_CLOSE_WAKES
		broadcast(rows);
		broadcast(room);
#endif
		break
	:: sent < MESSAGES ->
look:
		atomic {
			fit = MESSAGES - sent;
			fit = (fit < BATCH -> fit : BATCH);
			fit = (fit < CAPACITY - depth -> fit : CAPACITY - depth);
			if
#ifndef BREAK_CLOSED_REFUSES
			:: closed -> result = closed_
#endif
			:: else ->
				if
				:: receivers == 0 -> result = broken
				:: receivers > 0 && fit == 0 -> result = (expired -> over : none)
				:: receivers > 0 && fit > 0 ->
					assert(!closed);
					result = done;
					wakes = (fit < receivers -> fit : receivers);
#ifdef BREAK_BATCH_WAKES
					wakes = 1;
#endif
					do
					:: fit > 0 ->
						from[(head + depth) % CAPACITY] = me;
						number[(head + depth) % CAPACITY] = sent;
						depth++;
						assert(depth <= CAPACITY);
						sent++;
						put_of[me]++;
						fit--
					:: fit == 0 -> break
					od
				fi
			fi;
			fit = 0;
			expired = false;
#ifndef BREAK_LIST_LEFT_UNLOCKED
			if
			:: result != none -> leave_list(room)
			:: else
			fi
#endif
		};
#ifdef BREAK_LIST_LEFT_UNLOCKED
		atomic {
			if
			:: result != none -> leave_list(room)
			:: else
			fi
		};
#endif
		forward(room);
		if
		:: result == none ->
			wait(senders, room, rows, true);
			goto look
		:: atomic { result == done -> result = none };
			do
			:: atomic { wakes > 0 -> signal(rows); wakes-- }
			:: wakes == 0 -> break
			od
		:: result == over -> result = none
		:: result == closed_ || result == broken -> break
		fi
	od;
	let_go(senders, room, rows, true);
gone:
	ended++
}

proctype Receiver(byte me)
{
	byte share;
	byte wakes;
	byte n;
	bool listed;
	bool pass_on;
	bool last;
	bool interrupted;
	bool dying;
	bool expired;
	mtype result = none;

again:
	do
	:: atomic { leaves > 0 -> leaves-- }; break
	:: atomic { busies > 0 -> busies--; busy++ };
end_busy:
		false
	:: true ->
look:
#ifdef BREAK_LOCK
		share = (depth + receivers - 1) / receivers;
#endif
		atomic {
#ifndef BREAK_LOCK
			share = (depth + receivers - 1) / receivers;
#endif
			if
			:: share > 0 ->
				wakes = (share < senders -> share : senders);
				result = done;
				do
				:: share > 0 ->
					assert(depth > 0);
					assert(number[head] == taken_of[from[head]]);
					assert(taken_of[from[head]] < put_of[from[head]]);
					taken_of[from[head]]++;
					from[head] = 0;
					number[head] = 0;
					head = (head + 1) % CAPACITY;
					depth--;
					share--
				:: share == 0 -> break
				od
			:: share == 0 && closed -> result = closed_; drained = true
			:: share == 0 && !closed -> result = (expired -> over : none)
			fi;
			expired = false;
#ifndef BREAK_LIST_LEFT_UNLOCKED
			if
			:: result != none -> leave_list(rows)
			:: else
			fi
#endif
		};
#ifdef BREAK_LIST_LEFT_UNLOCKED
		atomic {
			if
			:: result != none -> leave_list(rows)
			:: else
			fi
		};
#endif
		forward(rows);
		if
		:: result == none ->
			wait(receivers, rows, room, false);
			goto look
		:: atomic { result == done -> result = none };
			do
			:: atomic { wakes > 0 -> signal(room); wakes-- }
			:: wakes == 0 -> break
			od
		:: result == over -> result = none
		:: result == closed_ -> break
		fi
	od;
	let_go(receivers, rows, room, false);
gone:
	ended++
}

/* When nothing moves any more. */
init
{
	byte i;
	byte left;

	atomic {
		i = 0;
		do
		:: i < SENDERS -> run Sender(i); i++
		:: i >= SENDERS && i < PROCESSES -> run Receiver(i); i++
		:: i == PROCESSES -> break
		od
	};

	timeout ->
	d_step {
		i = 0;
		do
		:: i < PROCESSES ->
			assert(!(asleep[i] && closed));
			assert(!(asleep[i] && i < SENDERS && (depth < CAPACITY || receivers == 0)));
			assert(!(asleep[i] && i >= SENDERS && depth > 0));
			i++
		:: i == PROCESSES -> break
		od;
		assert(busy > 0 || ended == PROCESSES);
		assert(busy > 0 || (closed && senders == 0 && receivers == 0));
		i = 0;
		left = 0;
		do
		:: i < SENDERS -> left = left + put_of[i] - taken_of[i]; i++
		:: i == SENDERS -> break
		od;
		assert(left == depth);
		assert(!drained || depth == 0)
	}
}
