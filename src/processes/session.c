/*
 * session.c
 *		A worker's session: whose it is, and what one of its transactions is.
 *
 * A worker logs in as the role that asked for it and acts as the role that
 * this one had become, so its privileges are the caller's, no more.  It is
 * ended by the signals that end any backend: SIGINT cancels the statement at
 * hand, SIGTERM is die().  No handler of our own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "common/pg_prng.h"
#include "effects/point.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "processes/processes.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "words/errors.h"

/* a chunk that met a deadlock or a serialization failure is tried again */
#define MOST_TRIES 10
#define FIRST_PAUSE_MS 4

static void be_known_elsewhere(void);
static void commit_patiently(Run *run);
static int	begin_again(Run *run, MemoryContext memory, bool committing, int tries);

/* whom the transactions act as */
static Oid	acting_role = InvalidOid;
static int	acting_context = 0;

/* May workers log in as that role?  Otherwise each would end at once. */
bool
role_may_connect(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may;

	if (!HeapTupleIsValid(tuple))
		return false;
	may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin &&
		epro_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK;
	ReleaseSysCache(tuple);
	return may;
}

/* Takes signals, and gets a resource owner for what outlives transactions. */
void
session_open(const char *what)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, what);
}

/*
 * Connects.  settings are a session's, serialized, to be taken over; NULL: the
 * role's and the database's own hold.
 */
void
session_connect(Oid database, Oid login, Oid role, int security_context,
				char *settings)
{
	BackgroundWorkerInitializeConnectionByOid(database, login, 0);
	acting_role = role;
	acting_context = security_context;
	pgstat_report_appname("epro_etl");

	StartTransactionCommand();
	if (settings != NULL)
		RestoreGUCState(settings);
	/* a chunk is a short transaction that writes, whatever others' are */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_deferrable", "off", PGC_USERSET, PGC_S_SESSION);
	/* no plan of a trigger, foreign key or function has a response's values in it: plans can be logged */
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION);
	be_known_elsewhere();
	CommitTransactionCommand();
}

/*
 * On other servers, connections of ours bear our own title, from the first
 * moment on, unless somebody has said what they are to bear.
 */
static void
be_known_elsewhere(void)
{
	const char *setting = "postgres_fdw.application_name";
	const char *title = GetConfigOption(setting, true, false);

	if (title == NULL || title[0] == '\0')
		SetConfigOption(setting, "%a", PGC_USERSET, PGC_S_SESSION);
}

/* Starts a transaction as the acting role, under a snapshot of its own. */
void
session_begin(void)
{
	ConstraintsSetStmt *immediate;

	SetCurrentStatementStartTimestamp();
	/* no transaction starts in a restricted context; a commit leaves its own behind */
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	StartTransactionCommand();
	SetUserIdAndSecContext(acting_role, acting_context);
	/* constraints that wait for the commit would refuse the whole chunk */
	immediate = makeNode(ConstraintsSetStmt);
	immediate->deferred = false;
	AfterTriggerSetState(immediate);
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
session_commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Ends a transaction that has written nothing.  A server that was asked in it
 * may be gone by now; that is no matter.
 */
void
session_commit_reading(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;

	PG_TRY();
	{
		session_commit();
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(memory);

		if (!run->asked || !lookup_lost_connection(error))
			ReThrowError(error);
		FreeErrorData(error);
		AbortCurrentTransaction();
	}
	PG_END_TRY();
}

/*
 * One chunk, one transaction; again, a bounded number of times, when it fell
 * victim to a deadlock or to serialization; again without the responses of a
 * sink that is away, or when a reference that was asked is gone; and again in
 * smaller parts when another server refuses some of them at the commit.  Returns what run_chunk() does.
 */
int
session_chunk(Run *run, Counts *counts)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile int tries = 0;
	volatile int seen = -1;
	volatile bool committing;

	while (seen < 0)
	{
		committing = false;
		PG_TRY();
		{
			memset(counts, 0, sizeof(*counts));
			session_begin();
			MemoryContextSwitchTo(memory);
			seen = run_chunk(run, counts);
			POINT("session.commit");
			committing = true;
			commit_patiently(run);
			MemoryContextSwitchTo(memory);
			POINT("session.committed");
			claim_accept(run->claim);
		}
		PG_CATCH();
		{
			tries = begin_again(run, memory, committing, tries);
			claim_rewind(run->claim);
			seen = -1;
		}
		PG_END_TRY();
	}
	return seen;
}

/*
 * Has the codes made that a group which stores nothing is about to ask for, in a
 * transaction of its own, tried again as a chunk is.
 */
void
session_resolve(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile int tries = 0;
	volatile bool resolved = false;

	while (!resolved)
	{
		PG_TRY();
		{
			session_begin();
			MemoryContextSwitchTo(memory);
			run_resolve(run);
			POINT("session.resolved");
			session_commit();
			MemoryContextSwitchTo(memory);
			codebook_accept(run->codes);
			resolved = true;
		}
		PG_CATCH();
		{
			tries = begin_again(run, memory, false, tries);
		}
		PG_END_TRY();
	}
}

/*
 * Delivers some of the outbox in one transaction, tried again as a chunk is.
 * Returns how many rows: 0 when nothing can be delivered now.
 */
int
session_deliver(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile int tries = 0;
	volatile int delivered = -1;
	volatile bool committing;

	while (delivered < 0)
	{
		committing = false;
		PG_TRY();
		{
			session_begin();
			MemoryContextSwitchTo(memory);
			delivered = run_deliver(run);
			POINT("session.delivered");
			committing = true;
			commit_patiently(run);
			MemoryContextSwitchTo(memory);
		}
		PG_CATCH();
		{
			tries = begin_again(run, memory, committing, tries);
			delivered = -1;
		}
		PG_END_TRY();
	}
	return delivered;
}

/* Other servers commit first, and may not answer; a batch's caller has its own time. */
static void
commit_patiently(Run *run)
{
	if (run->remotes != NIL && run->parcels != NULL)
		patience_begin(&run->patience, epro_sink_timeout);
	session_commit();
	patience_end(&run->patience, NULL);
	run_committed(run);
}

/*
 * In PG_CATCH: rolls back for another try, or raises the error again, which at
 * a commit has not been through chunk.c's hands.  Returns the number of tries.
 */
static int
begin_again(Run *run, MemoryContext memory, bool committing, int tries)
{
	ErrorData  *error = error_take(memory);
	bool		victim;

	patience_end(&run->patience, error);
	victim = ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
		ERRCODE_TO_CATEGORY(ERRCODE_T_R_DEADLOCK_DETECTED) &&
		(++tries < MOST_TRIES || run_gives_up_remotes(run, error));
	if (!victim && error->sqlerrcode != ERRCODE_EPRO_SINK_AWAY &&
		!(committing && (run_survives_commit(run, error) || run_narrows_down(run, error))) &&
		!(run->asked && (committing || error_is_ours(error)) && lookup_lost_connection(error) &&
		  ++tries < MOST_TRIES))
	{
		if (committing)
			error_strip(error);
		ReThrowError(error);
	}
	FreeErrorData(error);
	AbortCurrentTransaction();
	MemoryContextSwitchTo(memory);
	run_forget_remotes(run);
	run_forget_codes(run);
	POINT("session.again");
	if (victim)
		session_step_back(tries);
	return tries;
}

/*
 * Waits a little, longer each time and never for the same time as another
 * worker: the survivor of a deadlock must get ahead before the victim is back.
 */
void
session_step_back(int tries)
{
	long		most = FIRST_PAUSE_MS << Min(tries, 6);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 1 + (long) (pg_prng_double(&pg_global_prng_state) * (double) most),
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Called with an error at hand, in a memory context that outlives transactions:
 * takes it, rolls back all there is, and lets go of what waits hold.
 */
ErrorData *
session_take_error(void)
{
	ErrorData  *error = error_take(CurrentMemoryContext);

	disable_all_timeouts(false);
	ConditionVariableCancelSleep();
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	return error;
}
