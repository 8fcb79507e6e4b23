/*
 * launcher.c
 *		Starts streams when the server starts, and again when they are down.
 *
 * Only where the library is preloaded: a background worker of the server's own
 * that is connected to no database.  When it begins (the server has started,
 * or has started again after a crash) it sends a starter into each database,
 * one after another, which enters the streams that are to be up into the
 * registry.  From then on it starts a leader for each entry that is down, when
 * its pause is over, and forgets those whose database was dropped.  A database
 * whose starter did not come to its end gets another, after longer and longer
 * pauses.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/extension.h"
#include "effects/point.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "processes/stream.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* seconds after which the server starts a launcher that has died */
#define RESTART_S 5

/* how long a starter may take for its database */
#define STARTER_MS 10000

/* how long until a failed starter's next: doubling, up to a bound */
#define STARTER_PAUSE_MS 10000
#define STARTER_LONGEST_PAUSE_MS 600000

/* how long to wait for a place for a background worker */
#define NO_PLACE_MS 5000

static List *send_starters(List *databases);
static bool send_starter(Oid database);
static List *list_databases(void);
static TimestampTz start_what_is_down(void);
static bool start_leader(int entry, int64 pipeline_id);
static bool database_exists(Oid database);
static void enter_streams(void);
static void leave_at_exit(int code, Datum arg);

/* At load: when preloaded, asks the server for a launcher. */
void
launcher_request(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_S;
	strlcpy(worker.bgw_library_name, "epro_etl", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "epro_etl_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "epro_etl launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "epro_etl launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* Entry point of the launcher. */
void
epro_etl_launcher_main(Datum arg)
{
	int			pause = STARTER_PAUSE_MS;
	TimestampTz again;
	List	   *databases;		/* those whose starter failed */

	session_open("epro_etl launcher");
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("epro_etl launcher");
	registry_launcher(MyProc);
	before_shmem_exit(leave_at_exit, (Datum) 0);

	databases = send_starters(list_databases());
	again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	for (;;)
	{
		TimestampTz next = start_what_is_down();

		if (databases != NIL)
		{
			if (GetCurrentTimestamp() >= again)
			{
				databases = send_starters(databases);
				pause = Min(pause * 2, STARTER_LONGEST_PAUSE_MS);
				again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
				continue;
			}
			next = next == 0 ? again : Min(next, again);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (next != 0 ? WL_TIMEOUT : 0),
						 next != 0 ? TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next) + 1 : -1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

/* Entry point of a starter; the argument is the database. */
void
epro_etl_starter_main(Datum arg)
{
	session_open("epro_etl starter");
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	pgstat_report_appname("epro_etl starter");
	enter_streams();
	registry_started(MyDatabaseId);
	proc_exit(0);
}

/* Frees the list, and returns a new one of those where it has to be done again. */
static List *
send_starters(List *databases)
{
	List	   *failed = NIL;
	ListCell   *cell;

	foreach(cell, databases)
	{
		if (!send_starter(lfirst_oid(cell)) && database_exists(lfirst_oid(cell)))
			failed = lappend_oid(failed, lfirst_oid(cell));
	}
	list_free(databases);
	return failed;
}

/* One after another, since each needs a background worker for a moment; has it done its work? */
static bool
send_starter(Oid database)
{
	Crew		crew;
	TimestampTz began;

	registry_started(InvalidOid);
	crew_init(&crew, 1);
	while (!crew_register(&crew, "epro_etl_starter_main", "epro_etl starter", "epro_etl starter",
						  ObjectIdGetDatum(database)))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 NO_PLACE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	began = GetCurrentTimestamp();
	while (!crew_all_ended(&crew))
	{
		/* one that waits for a lock must not hold up the other databases */
		if (TimestampDifferenceExceeds(began, GetCurrentTimestamp(), STARTER_MS))
			(void) crew_end(&crew);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 STARTER_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	crew_forget(&crew);
	return registry_was_started(database);
}

/* Those that one may connect to. */
static List *
list_databases(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext inner;

		if (!database->datallowconn || database->datistemplate)
			continue;
		inner = MemoryContextSwitchTo(caller);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(inner);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return databases;
}

/* Returns when to look again; 0: when somebody wakes us. */
static TimestampTz
start_what_is_down(void)
{
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			n = registry_stream_list(streams);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;

	for (int i = 0; i < n; i++)
	{
		TimestampTz when = Max(streams[i].not_before, now);

		if (streams[i].database == InvalidOid)
			continue;
		if (streams[i].state == STREAM_STARTING && streams[i].leader == NULL &&
			!stream_never_came(&streams[i]))
			when = TimestampTzPlusMilliseconds(streams[i].since, NEVER_CAME_MS);
		else if (streams[i].state != STREAM_DOWN && !stream_never_came(&streams[i]))
			continue;
		else if (!database_exists(streams[i].database))
		{
			(void) registry_stream_forget(i, streams[i].pipeline_id);
			continue;
		}
		if (now >= when && registry_stream_take(i))
		{
			if (start_leader(i, streams[i].pipeline_id))
				continue;
			when = TimestampTzPlusMilliseconds(now, NO_PLACE_MS);
		}
		next = next == 0 ? when : Min(next, when);
	}
	pfree(streams);
	return next;
}

/*
 * Starts the leader of an entry that we have taken; false, and the entry is down
 * again, when there is no place for it.  So it is on an error, which would leave
 * it to be waited for.
 */
static bool
start_leader(int entry, int64 pipeline_id)
{
	char		name[32];
	volatile bool registered = false;

	snprintf(name, sizeof(name), INT64_FORMAT, pipeline_id);
	PG_TRY();
	{
		POINT("launcher.start");
		registered = leader_register(entry, name);
	}
	PG_FINALLY();
	{
		if (!registered)
			registry_stream_down(entry);
	}
	PG_END_TRY();
	return registered;
}

static bool
database_exists(Oid database)
{
	bool		exists;

	StartTransactionCommand();
	exists = SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database));
	CommitTransactionCommand();
	return exists;
}

/*
 * In a starter, which is a superuser: enters what the extension's own table
 * says, and looks at none that merely has its name.
 */
static void
enter_streams(void)
{
	Oid			extension;
	Oid			schema;
	Oid			relid;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension = get_extension_oid("epro_etl", true);
	schema = get_namespace_oid("epro_etl", true);
	relid = OidIsValid(schema) ? get_relname_relid("stream", schema) : InvalidOid;
	if (OidIsValid(extension) && OidIsValid(relid) &&
		getExtensionOfObject(RelationRelationId, relid) == extension &&
		get_rel_relkind(relid) == RELKIND_RELATION)
	{
		OwnerScope	scope;

		POINT("starter.enter");
		/* as its owner, who may be less than we are */
		owner_begin(&scope);
		if (SPI_execute("SELECT pipeline_id, login::pg_catalog.oid, role::pg_catalog.oid FROM epro_etl.stream",
						true, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not read the streams");
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			TupleDesc	shape = SPI_tuptable->tupdesc;
			bool		isnull;
			bool		fresh;
			bool		was_down;
			int			entry = registry_stream_enter(MyDatabaseId,
													  DatumGetInt64(SPI_getbinval(row, shape, 1, &isnull)),
													  DatumGetObjectId(SPI_getbinval(row, shape, 2, &isnull)),
													  DatumGetObjectId(SPI_getbinval(row, shape, 3, &isnull)),
													  InvalidTransactionId, &fresh, &was_down);

			if (entry >= 0 && fresh)
				registry_stream_down(entry);
		}
		owner_end(&scope);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
leave_at_exit(int code, Datum arg)
{
	POINT_CALM("launcher.exit");
	registry_launcher(NULL);
}
