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
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "words/compat.h"

/* how long to wait for streams to end before the command may fail */
#define WAIT_MS 10000

/* The streams that were told to stop. */
typedef struct Stopped
{
	StreamEntry *streams;
	int			n;
} Stopped;

static ProcessUtility_hook_type previous_utility = NULL;

static void watch_utility(PlannedStmt *statement, const char *text, bool read_only,
						  ProcessUtilityContext context, ParamListInfo params,
						  QueryEnvironment *environment, DestReceiver *destination,
						  QueryCompletion *completion);
static void run_utility(PlannedStmt *statement, const char *text, bool read_only,
						ProcessUtilityContext context, ParamListInfo params,
						QueryEnvironment *environment, DestReceiver *destination,
						QueryCompletion *completion);
static void stop_streams(Oid database, Stopped *stopped);
static bool any_stream(Oid database);
static void bring_back(int code, Datum arg);

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
	Stopped    *stopped;

	if (IsA(statement->utilityStmt, DropdbStmt))
		database = get_database_oid(castNode(DropdbStmt, statement->utilityStmt)->dbname, true);
	if (!OidIsValid(database) || !epro_owns_database(database, GetUserId()) ||
		database == MyDatabaseId)
	{
		run_utility(statement, text, read_only, context, params, environment,
					destination, completion);
		return;
	}

	stopped = palloc0(sizeof(Stopped));
	stopped->streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	PG_ENSURE_ERROR_CLEANUP(bring_back, PointerGetDatum(stopped));
	{
		stop_streams(database, stopped);
		run_utility(statement, text, read_only, context, params, environment,
					destination, completion);
	}
	PG_END_ENSURE_ERROR_CLEANUP(bring_back, PointerGetDatum(stopped));
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

/* Tells the database's streams to stop at once, notes which, and waits. */
static void
stop_streams(Oid database, Stopped *stopped)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAIT_MS);
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			room = registry_stream_list(streams);

	for (int i = 0; i < room; i++)
	{
		if (streams[i].database != database)
			continue;
		stopped->streams[stopped->n++] = streams[i];
		if (!registry_stream_forget(i, streams[i].pipeline_id))
			registry_stream_stop(i, STOP_NOW);
	}
	while (stopped->n > 0 && any_stream(database) && GetCurrentTimestamp() < until)
	{
		CHECK_FOR_INTERRUPTS();
		registry_wait(100);
	}
	ConditionVariableCancelSleep();
	pfree(streams);
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
bring_back(int code, Datum arg)
{
	Stopped    *stopped = (Stopped *) DatumGetPointer(arg);

	ConditionVariableCancelSleep();
	for (int i = 0; i < stopped->n; i++)
	{
		StreamEntry *stream = &stopped->streams[i];
		bool		fresh;
		bool		was_down;
		int			entry = registry_stream_enter(stream->database, stream->pipeline_id,
												  stream->login, stream->role,
												  InvalidTransactionId, &fresh, &was_down);

		if (entry >= 0 && fresh)
			registry_stream_down(entry);
		else if (entry >= 0)
			registry_stream_go_on(entry);
	}
}
