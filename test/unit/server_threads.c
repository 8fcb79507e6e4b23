/*-------------------------------------------------------------------------
 *
 * server_threads.c
 *	  A stand-in for the server, in which the processes are threads.
 *
 * Locking: an LWLock is a pthread mutex, and the list of each condition
 * variable has another one, so that a checker of races sees no more order than
 * the server gives. Process.mutex guards the latch and the interrupts of a
 * process, and is taken last.
 *
 * What the server's rules forbid ends the program: an error or a sleep under an
 * LWLock, or a lock taken twice.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define NOBODY (-1)
#define MOST_LOCKS 4096
#define MOST_LISTS 240			/* a slock_t may have one byte */
#define MOST_CALLBACKS 8

struct dsm_segment
{
	int			n;
	on_dsm_detach_callback function[MOST_CALLBACKS];
	Datum		arg[MOST_CALLBACKS];
};

struct Process
{
	int			number;
	pthread_t	thread;
	void		(*function) (void *);
	void	   *arg;

	/* under mutex */
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool		latch;
	bool		asleep;
	bool		ended;
	bool		cancel;
	bool		die;
	bool		halt;			/* at the next release of a lock */
	bool		halted;
	bool		go_on;

	/* under the mutex of the condition variable that it is prepared for */
	bool		linked;
	int			next;
	int			prev;

	/* its own */
	ConditionVariable *target;
	LWLock	   *held;
	sigjmp_buf *exception_stack;
	ErrorContextCallback *context_stack;
	sigjmp_buf	end;
	struct dsm_segment segment;
	int			sqlstate;
	char		message[200];
	uint32		seed;
};

bool		server_forwards = true;
int			server_jitter = 0;

static Process processes[MOST_PROCESSES];
static bool in_use[MOST_PROCESSES]; /* touched by process 0 alone */
static uint32 seeds = 1;

static pthread_mutex_t locks[MOST_LOCKS];
static pthread_mutex_t lists[MOST_LISTS];
static uint32 nlocks = 0;
static uint32 nlists = 0;

static __thread Process *me;

static void forbid(bool holds, const char *what);
static void setup(Process *process, int number);
static void *run(void *arg);
static void pause_sometimes(void);
static void raise_pending(void);
static bool wait_latch(long timeout);
static void set_latch(Process *process);
static void push(ConditionVariable *cv, Process *process);
static void strike(ConditionVariable *cv, Process *process);
static pthread_mutex_t *list_mutex(ConditionVariable *cv);
static int64 monotonic_ms(void);

/* ---- processes ---- */

void
server_begin(void)
{
	for (int i = 0; i < MOST_LOCKS; i++)
		pthread_mutex_init(&locks[i], NULL);
	for (int i = 0; i < MOST_LISTS; i++)
		pthread_mutex_init(&lists[i], NULL);
	for (int i = 0; i < MOST_PROCESSES; i++)
	{
		pthread_mutex_init(&processes[i].mutex, NULL);
		pthread_cond_init(&processes[i].changed, NULL);
	}
	setup(&processes[0], 0);
	in_use[0] = true;
	me = &processes[0];
}

Process *
server_start(void (*function) (void *), void *arg)
{
	int			number = 1;

	while (number < MOST_PROCESSES && in_use[number])
		number++;
	forbid(number < MOST_PROCESSES, "too many processes");
	in_use[number] = true;
	setup(&processes[number], number);
	processes[number].function = function;
	processes[number].arg = arg;
	forbid(pthread_create(&processes[number].thread, NULL, run, &processes[number]) == 0,
		   "no thread");
	return &processes[number];
}

void
server_join(Process *process)
{
	pthread_join(process->thread, NULL);
	forbid(!process->linked, "a process ended on a list");
	forbid(process->held == NULL, "a process ended with a lock");
	in_use[process->number] = false;
}

dsm_segment *
server_segment(void)
{
	return &me->segment;
}

void
server_exit_callbacks(void)
{
	while (me->segment.n > 0)
	{
		int			last = --me->segment.n;

		me->segment.function[last] (&me->segment, me->segment.arg[last]);
	}
}

int
server_callbacks(void)
{
	return me->segment.n;
}

void
server_cancel(Process *process, bool quiet)
{
	pthread_mutex_lock(&process->mutex);
	process->cancel = true;
	pthread_mutex_unlock(&process->mutex);
	if (!quiet)
		set_latch(process);
}

void
server_die(Process *process, bool quiet)
{
	pthread_mutex_lock(&process->mutex);
	process->die = true;
	pthread_mutex_unlock(&process->mutex);
	if (!quiet)
		set_latch(process);
}

void
server_await_sleep(Process *process)
{
	pthread_mutex_lock(&process->mutex);
	while (!process->ended && !(process->asleep && !process->latch))
		pthread_cond_wait(&process->changed, &process->mutex);
	pthread_mutex_unlock(&process->mutex);
}

void
server_stay(void)
{
	pthread_mutex_lock(&me->mutex);
	me->halt = false;
	me->halted = true;
	pthread_cond_broadcast(&me->changed);
	while (!me->go_on)
		pthread_cond_wait(&me->changed, &me->mutex);
	me->halted = me->go_on = false;
	pthread_mutex_unlock(&me->mutex);
}

void
server_halt(Process *process)
{
	pthread_mutex_lock(&process->mutex);
	process->halt = true;
	pthread_mutex_unlock(&process->mutex);
}

void
server_await_halt(Process *process)
{
	pthread_mutex_lock(&process->mutex);
	while (!process->ended && !process->halted)
		pthread_cond_wait(&process->changed, &process->mutex);
	pthread_mutex_unlock(&process->mutex);
}

void
server_go_on(Process *process)
{
	pthread_mutex_lock(&process->mutex);
	process->go_on = true;
	pthread_cond_broadcast(&process->changed);
	pthread_mutex_unlock(&process->mutex);
}

int
server_sqlstate(void)
{
	return me->sqlstate;
}

const char *
server_message(void)
{
	return me->message;
}

uint32
server_random(void)
{
	me->seed ^= me->seed << 13;
	me->seed ^= me->seed >> 17;
	me->seed ^= me->seed << 5;
	return me->seed;
}

static void
forbid(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "server_threads: %s\n", what);
	abort();
}

/* The mutex and its condition stay; all else is new. */
static void
setup(Process *process, int number)
{
	process->number = number;
	process->latch = process->asleep = process->ended = false;
	process->cancel = process->die = false;
	process->halt = process->halted = process->go_on = false;
	process->linked = false;
	process->target = NULL;
	process->held = NULL;
	process->exception_stack = NULL;
	process->context_stack = NULL;
	process->segment.n = 0;
	process->sqlstate = 0;
	process->message[0] = '\0';
	process->seed = seeds++ * 2654435761u | 1;
}

/* The way of a backend: an error at the outermost level ends it, in order. */
static void *
run(void *arg)
{
	me = arg;
	if (sigsetjmp(me->end, 0) == 0)
	{
		me->exception_stack = &me->end;
		me->function(me->arg);
	}
	me->exception_stack = NULL;

	/* before or after: both happen, within a transaction and outside */
	if (server_random() % 2 == 0)
		ConditionVariableCancelSleep();
	if (me->segment.n > 0)
	{
		server_exit_callbacks();
		forbid(me->target == NULL, "a wait outlived the segment of its list");
	}
	ConditionVariableCancelSleep();

	pthread_mutex_lock(&me->mutex);
	me->ended = true;
	pthread_cond_broadcast(&me->changed);
	pthread_mutex_unlock(&me->mutex);
	return NULL;
}

/* Lets others run in between, where a real machine would now and then. */
static void
pause_sometimes(void)
{
	static const struct timespec moment = {0, 20000};

	if (server_jitter == 0 || server_random() % server_jitter != 0)
		return;
	if (server_random() % 8 == 0)
		nanosleep(&moment, NULL);
	else
		sched_yield();
}

/* CHECK_FOR_INTERRUPTS() */
static void
raise_pending(void)
{
	bool		cancel;
	bool		die;

	pthread_mutex_lock(&me->mutex);
	cancel = me->cancel;
	die = me->die;
	me->cancel = false;
	pthread_mutex_unlock(&me->mutex);
	if (die)
		siglongjmp(me->end, 1); /* FATAL passes all that catch */
	if (cancel)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED), errmsg("canceled")));
}

/* ---- errors ---- */

sigjmp_buf **
server_exception_stack(void)
{
	return &me->exception_stack;
}

ErrorContextCallback **
server_context_stack(void)
{
	return &me->context_stack;
}

bool
errstart(int elevel, const char *domain)
{
	(void) domain;
	forbid(elevel == ERROR, "only errors are raised here");
	forbid(me->held == NULL, "an error under a lock");
	me->sqlstate = ERRCODE_INTERNAL_ERROR;
	me->message[0] = '\0';
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

int
errcode(int sqlstate)
{
	me->sqlstate = sqlstate;
	return 0;
}

int
errmsg(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(me->message, sizeof(me->message), format, args);
	va_end(args);
	return 0;
}

int
errmsg_internal(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(me->message, sizeof(me->message), format, args);
	va_end(args);
	return 0;
}

void
errfinish(const char *file, int line, const char *function)
{
	(void) file;
	(void) line;
	(void) function;
	pg_re_throw();
}

void
pg_re_throw(void)
{
	forbid(me->exception_stack != NULL, "nobody catches an error");
	siglongjmp(*me->exception_stack, 1);
}

/* of a server with assertions; without the type from 16 on */
void
ExceptionalCondition(const char *condition,
#if PG_VERSION_NUM < 160000
					 const char *type,
#endif
					 const char *file, int line)
{
	fprintf(stderr, "server_threads: at %s:%d\n", file, line);
	forbid(false, condition);
	abort();
}

/* ---- LWLocks ---- */

void
LWLockInitialize(LWLock *lock, int tranche)
{
	lock->tranche = tranche;
	lock->state.value = nlocks++ % MOST_LOCKS;
}

bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	(void) mode;
	forbid(me->held == NULL, "a lock under a lock");
	pause_sometimes();
	pthread_mutex_lock(&locks[lock->state.value]);
	me->held = lock;
	return true;
}

void
LWLockRelease(LWLock *lock)
{
	bool		halt;

	forbid(me->held == lock, "released a lock of others");
	me->held = NULL;
	pthread_mutex_unlock(&locks[lock->state.value]);
	pause_sometimes();

	pthread_mutex_lock(&me->mutex);
	halt = me->halt;
	pthread_mutex_unlock(&me->mutex);
	if (halt)
		server_stay();
}

/* ---- condition variables ---- */

void
ConditionVariableInit(ConditionVariable *cv)
{
	cv->mutex = nlists++ % MOST_LISTS;
	cv->wakeup.head = cv->wakeup.tail = NOBODY;
}

void
ConditionVariablePrepareToSleep(ConditionVariable *cv)
{
	if (me->target != NULL)
		ConditionVariableCancelSleep();
	me->target = cv;
	pthread_mutex_lock(list_mutex(cv));
	push(cv, me);
	pthread_mutex_unlock(list_mutex(cv));
	pause_sometimes();
}

bool
ConditionVariableTimedSleep(ConditionVariable *cv, long timeout, uint32 event)
{
	int64		until = monotonic_ms() + timeout;
	bool		woken = false;

	(void) event;
	forbid(me->held == NULL, "a sleep under a lock");
	if (me->target != cv)
	{
		ConditionVariablePrepareToSleep(cv);
		return false;
	}
	while (!woken)
	{
		bool		expired = !wait_latch(timeout < 0 ? -1 : Max(until - monotonic_ms(), 0));

		pthread_mutex_lock(list_mutex(cv));
		woken = !me->linked;
		if (woken)
			push(cv, me);
		pthread_mutex_unlock(list_mutex(cv));
		pause_sometimes();
		raise_pending();
		if (!woken && expired)
			return true;
	}
	return false;
}

#if PG_VERSION_NUM >= 170000
#define ANSWER(signaled) return (signaled)
bool
#else
#define ANSWER(signaled) return
void
#endif
ConditionVariableCancelSleep(void)
{
	ConditionVariable *cv = me->target;
	bool		signaled;

	if (cv == NULL)
		ANSWER(false);
	pthread_mutex_lock(list_mutex(cv));
	signaled = !me->linked;
	if (me->linked)
		strike(cv, me);
	pthread_mutex_unlock(list_mutex(cv));
	me->target = NULL;
	if (signaled && server_forwards)
		ConditionVariableSignal(cv);
	ANSWER(signaled);
}

void
ConditionVariableSignal(ConditionVariable *cv)
{
	Process    *first = NULL;

	pause_sometimes();
	pthread_mutex_lock(list_mutex(cv));
	if (cv->wakeup.head != NOBODY)
	{
		first = &processes[cv->wakeup.head];
		strike(cv, first);
	}
	pthread_mutex_unlock(list_mutex(cv));
	if (first != NULL)
		set_latch(first);
}

void
ConditionVariableBroadcast(ConditionVariable *cv)
{
	Process    *all[MOST_PROCESSES];
	int			n = 0;

	if (me->target != NULL)
		ConditionVariableCancelSleep();
	pause_sometimes();
	pthread_mutex_lock(list_mutex(cv));
	while (cv->wakeup.head != NOBODY)
	{
		all[n] = &processes[cv->wakeup.head];
		strike(cv, all[n++]);
	}
	pthread_mutex_unlock(list_mutex(cv));
	for (int i = 0; i < n; i++)
		set_latch(all[i]);
}

/* False if the time is up. Resets the latch. */
static bool
wait_latch(long timeout)
{
	struct timespec until;
	bool		set;
	int			expired = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	if (timeout >= 0)
	{
		until.tv_sec += timeout / 1000;
		until.tv_nsec += timeout % 1000 * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
	}

	pthread_mutex_lock(&me->mutex);
	me->asleep = true;
	pthread_cond_broadcast(&me->changed);
	while (!me->latch && expired == 0)
	{
		if (timeout >= 0)
			expired = pthread_cond_timedwait(&me->changed, &me->mutex, &until);
		else
			pthread_cond_wait(&me->changed, &me->mutex);
	}
	me->asleep = false;
	set = me->latch;
	me->latch = false;
	pthread_mutex_unlock(&me->mutex);
	return set;
}

static void
set_latch(Process *process)
{
	pthread_mutex_lock(&process->mutex);
	process->latch = true;
	pthread_cond_broadcast(&process->changed);
	pthread_mutex_unlock(&process->mutex);
}

/* Both: the caller holds the list's mutex. */
static void
push(ConditionVariable *cv, Process *process)
{
	forbid(!process->linked, "twice on a list");
	process->linked = true;
	process->next = NOBODY;
	process->prev = cv->wakeup.tail;
	if (cv->wakeup.tail == NOBODY)
		cv->wakeup.head = process->number;
	else
		processes[cv->wakeup.tail].next = process->number;
	cv->wakeup.tail = process->number;
}

static void
strike(ConditionVariable *cv, Process *process)
{
	process->linked = false;
	if (process->prev == NOBODY)
		cv->wakeup.head = process->next;
	else
		processes[process->prev].next = process->next;
	if (process->next == NOBODY)
		cv->wakeup.tail = process->prev;
	else
		processes[process->next].prev = process->prev;
}

static pthread_mutex_t *
list_mutex(ConditionVariable *cv)
{
	return &lists[cv->mutex];
}

/* ---- the rest ---- */

void
on_dsm_detach(dsm_segment *segment, on_dsm_detach_callback function, Datum arg)
{
	forbid(segment->n < MOST_CALLBACKS, "too many callbacks");
	segment->function[segment->n] = function;
	segment->arg[segment->n++] = arg;
}

void
cancel_on_dsm_detach(dsm_segment *segment, on_dsm_detach_callback function,
					 Datum arg)
{
	for (int i = segment->n - 1; i >= 0; i--)
	{
		if (segment->function[i] != function || segment->arg[i] != arg)
			continue;
		for (int j = i; j < segment->n - 1; j++)
		{
			segment->function[j] = segment->function[j + 1];
			segment->arg[j] = segment->arg[j + 1];
		}
		segment->n--;
		return;
	}
}

Size
add_size(Size a, Size b)
{
	if (a + b < a)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("size overflows")));
	return a + b;
}

Size
mul_size(Size a, Size b)
{
	if (b != 0 && a > SIZE_MAX / b)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("size overflows")));
	return a * b;
}

TimestampTz
GetCurrentTimestamp(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((TimestampTz) now.tv_sec - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) *
		USECS_PER_SEC + now.tv_nsec / 1000;
}

static int64
monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
