/*
 * dropdb.c
 *		DROP DATABASE, where the database has streams.
 *
 * The processes of a stream are sessions of its database, so the command
 * would be refused.  Where this library is loaded, it stops them first, as
 * whoever may drop a database may.  If it is not dropped after all, the
 * launcher, where there is one, starts them again.
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "effects/registry.h"
#include "face/face.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/condition_variable.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "words/compat.h"

/* how long to wait for streams to end before the command may fail */
#define WAIT_MS 10000

static ProcessUtility_hook_type previous_utility = NULL;

static void watch_utility(PlannedStmt *statement, const char *text, bool read_only,
						  ProcessUtilityContext context, ParamListInfo params,
						  QueryEnvironment *environment, DestReceiver *destination,
						  QueryCompletion *completion);
static void run_utility(PlannedStmt *statement, const char *text, bool read_only,
						ProcessUtilityContext context, ParamListInfo params,
						QueryEnvironment *environment, DestReceiver *destination,
						QueryCompletion *completion);
static int	stop_streams(Oid database, StreamEntry *stopped);
static bool any_stream(Oid database);
static void bring_back(const StreamEntry *stopped, int n);

/* At load. */
void
dropdb_watch(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
}

static void
watch_utility(PlannedStmt *statement, const char *text, bool read_only,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *destination,
			  QueryCompletion *completion)
{
	Oid			database = InvalidOid;
	StreamEntry *stopped;
	volatile int n = 0;

	if (IsA(statement->utilityStmt, DropdbStmt))
		database = get_database_oid(castNode(DropdbStmt, statement->utilityStmt)->dbname, true);
	if (!OidIsValid(database) || !epro_owns_database(database, GetUserId()) ||
		database == MyDatabaseId)
	{
		run_utility(statement, text, read_only, context, params, environment,
					destination, completion);
		return;
	}

	stopped = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	PG_TRY();
	{
		n = stop_streams(database, stopped);
		run_utility(statement, text, read_only, context, params, environment,
					destination, completion);
	}
	PG_CATCH();
	{
		ConditionVariableCancelSleep();
		bring_back(stopped, n);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
run_utility(PlannedStmt *statement, const char *text, bool read_only,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *environment, DestReceiver *destination,
			QueryCompletion *completion)
{
	ProcessUtility_hook_type next = previous_utility ? previous_utility : standard_ProcessUtility;

	next(statement, text, read_only, context, params, environment, destination, completion);
}

/* Tells the database's streams to stop at once, and waits; which they were. */
static int
stop_streams(Oid database, StreamEntry *stopped)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAIT_MS);
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			room = registry_stream_list(streams);
	int			n = 0;

	for (int i = 0; i < room; i++)
	{
		if (streams[i].database != database)
			continue;
		stopped[n++] = streams[i];
		if (streams[i].state == STREAM_DOWN)
			registry_stream_leave(i);
		else
			registry_stream_stop(i, STOP_NOW);
	}
	while (n > 0 && any_stream(database) && GetCurrentTimestamp() < until)
	{
		CHECK_FOR_INTERRUPTS();
		registry_wait(100);
	}
	ConditionVariableCancelSleep();
	pfree(streams);
	return n;
}

static bool
any_stream(Oid database)
{
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			room = registry_stream_list(streams);
	bool		any = false;

	for (int i = 0; i < room && !any; i++)
		any = streams[i].database == database;
	pfree(streams);
	return any;
}

/* The database is still there: its streams are down, and may be started. */
static void
bring_back(const StreamEntry *stopped, int n)
{
	for (int i = 0; i < n; i++)
	{
		bool		fresh;
		int			entry = registry_stream_enter(stopped[i].database, stopped[i].pipeline_id,
												  stopped[i].login, stopped[i].role,
												  InvalidTransactionId, &fresh);

		if (entry >= 0 && fresh)
			registry_stream_down(entry);
		else if (entry >= 0)
			registry_stream_go_on(entry);
	}
}
