/*
 * crew.c
 *		The background workers that one process has started and must end.
 *
 * Until every worker of a crew has ended, the process that registered it owns
 * ending them.  Ending is: cancel every worker (SIGINT), wait for all; after a
 * while terminate them (SIGTERM), which every wait of a worker reacts to.  That
 * wait cannot be interrupted, since a second cancel would leave a worker
 * behind.  A worker is never killed.
 *
 * A crew is private to its process; it lives in TopMemoryContext.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "processes/processes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * While ending: how often to look, to cancel again, when to turn to SIGTERM,
 * and when to return although a worker hangs where no signal reaches it.
 */
#define END_LOOK_MS 20
#define END_CANCEL_MS 200
#define END_TERMINATE_MS 5000
#define END_GIVE_UP_MS 60000

/* sessions looked at on the way from a waiting worker back to us */
#define MOST_BLOCKERS 64

static void signal_all(Crew *crew, bool terminate);

/* Makes room for a number of workers. */
void
crew_init(Crew *crew, int room)
{
	crew->n = 0;
	crew->handles = MemoryContextAllocZero(TopMemoryContext,
										   sizeof(BackgroundWorkerHandle *) * Max(room, 1));
}

/*
 * Registers one more worker, which runs the given function of this library.
 * Returns false when the server has no place for it.
 */
bool
crew_register(Crew *crew, const char *function, const char *type,
			  const char *name, Datum argument)
{
	BackgroundWorker worker = {0};
	MemoryContext caller;
	bool		registered;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "epro_etl", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	memcpy(worker.bgw_name, name, pg_mbcliplen(name, strlen(name), BGW_MAXLEN - 1));
	worker.bgw_main_arg = argument;
	worker.bgw_notify_pid = MyProcPid;

	caller = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &crew->handles[crew->n]);
	MemoryContextSwitchTo(caller);
	if (registered)
		crew->n++;
	return registered;
}

/* Is a worker on its way, or there?  Its pid, or 0 while it is not there. */
bool
crew_lives(const Crew *crew, int worker, int *pid)
{
	pid_t		found = 0;
	BgwHandleStatus status = GetBackgroundWorkerPid(crew->handles[worker], &found);

	if (status == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	*pid = status == BGWH_STARTED ? (int) found : 0;
	return status != BGWH_STOPPED;
}

bool
crew_all_ended(const Crew *crew)
{
	int			pid;

	for (int i = 0; i < crew->n; i++)
	{
		if (crew_lives(crew, i, &pid))
			return false;
	}
	return true;
}

/*
 * Ends all workers and waits until they have ended; false when one hangs.  Not
 * to be interrupted, and not to raise errors: it runs in clean-up and at exit.
 */
bool
crew_end(Crew *crew)
{
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz signalled = 0;
	bool		ended;

	HOLD_INTERRUPTS();
	while (!(ended = crew_all_ended(crew)))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (TimestampDifferenceExceeds(signalled, now, END_CANCEL_MS))
		{
			signal_all(crew, TimestampDifferenceExceeds(began, now, END_TERMINATE_MS));
			signalled = now;
		}
		if (TimestampDifferenceExceeds(began, now, END_GIVE_UP_MS))
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 END_LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	RESUME_INTERRUPTS();
	/* the latch may have been set for others too */
	SetLatch(MyLatch);
	return ended;
}

/* Forgets a crew whose workers have all ended. */
void
crew_forget(Crew *crew)
{
	for (int i = 0; i < crew->n; i++)
		pfree(crew->handles[i]);
	pfree(crew->handles);
	crew->handles = NULL;
	crew->n = 0;
}

/*
 * Does a process wait for this session, perhaps by way of others?  Looks at
 * each session once, and at a bounded number of them.
 */
bool
waits_for_us(int pid)
{
	int			seen[MOST_BLOCKERS];
	int			nseen = 1;

	seen[0] = pid;
	for (int at = 0; at < nseen; at++)
	{
		ArrayType  *blockers;
		int		   *pids;
		int			n;

		CHECK_FOR_INTERRUPTS();
		blockers = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(seen[at])));
		n = ARR_NDIM(blockers) == 0 ? 0 : ARR_DIMS(blockers)[0];
		pids = (int *) ARR_DATA_PTR(blockers);
		for (int i = 0; i < n; i++)
		{
			bool		known = pids[i] == 0;

			if (pids[i] == MyProcPid)
				return true;
			for (int k = 0; k < nseen && !known; k++)
				known = (seen[k] == pids[i]);
			if (!known && nseen < MOST_BLOCKERS)
				seen[nseen++] = pids[i];
		}
		pfree(blockers);
	}
	return false;
}

static void
signal_all(Crew *crew, bool terminate)
{
	for (int i = 0; i < crew->n; i++)
	{
		pid_t		pid;
		BgwHandleStatus status = GetBackgroundWorkerPid(crew->handles[i], &pid);

		if (status == BGWH_NOT_YET_STARTED || (status == BGWH_STARTED && terminate))
			TerminateBackgroundWorker(crew->handles[i]);
		else if (status == BGWH_STARTED)
			kill(pid, SIGINT);
	}
}
