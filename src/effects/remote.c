/*
 * remote.c
 *		Tells other servers what the call at hand has: the time that is left, as
 *		their statement_timeout, and whose request it is, in application_name.
 *
 * A server is told through a foreign table over its pg_settings: an UPDATE of
 * that is sent whole, and calls set_config() over there, in the very connection
 * and transaction that the session's own statements use.  So what was told goes
 * with a rollback, also to a savepoint; before the commit it is given back.
 * What the server had of itself it knows itself: pg_settings.reset_val.
 *
 * Told is whoever a plan is about to reach, before each run of the plan, so
 * each FETCH too.  The time is rounded up, never down: the other server is the
 * backstop, for when nobody here can cancel any more.  The timer here comes
 * first, and names the error.
 *
 * What was told to whom is private to the process, and to the transaction.  One
 * connection is known by its user mapping, as postgres_fdw knows it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "effects/context.h"
#include "effects/effects.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "words/compat.h"
#include "words/errors.h"

/*
 * The least that is told.  A shorter time could end the very statement that
 * tells the next; the timer here does not need the backstop to be that near.
 */
#define LEAST_MS 20

/* what is told may be this much longer than what is left, or an eighth */
#define SLACK_MS 5

/* the columns of a table of settings, as pg_settings has them */
static const char *const column_name[] = {"name", "setting", "reset_val"};

/* What a server is told. */
typedef struct Terms
{
	int			ms;				/* statement_timeout; 0: its own */
	const char *name;			/* application_name; NULL: its own */
} Terms;

/* Who was told in this transaction; in its memory. */
typedef struct Listener
{
	Oid			mapping;		/* the connection */
	Oid			server;
	Oid			user;			/* whose mapping it is, or who uses the public one */
	int			first_level;	/* nesting of transactions when first told, */
	int			last_level;		/* and when last told */
	bool		known;			/* false: a rollback has changed what was told */
	Terms		told;
} Listener;

static List *listeners = NIL;
static bool telling = false;
static ExecutorRun_hook_type run_before_us = NULL;

static void tell_and_run(EPRO_RUN_PARAMETERS);
static bool has_something_to_tell(void);
static bool tell_servers_below(PlanState *state, void *estate);
static void tell_sinks(ModifyTableState *state, EState *estate);
static void tell_server(Oid server, Oid user);
static void tell_mapping(Oid mapping, Oid server, Oid user);
static Terms terms_within(TimestampTz deadline);
static const char *name_with_request(void);
static bool still_holds(const Terms *told, const Terms *terms);
static bool is_own(const Terms *terms);
static bool tell(Oid settings, Oid user, const Terms *terms);
static void name_telling(void *name);
static void send_terms(Oid settings, const Terms *terms);
static void note_told(Oid mapping, Oid server, Oid user, const Terms *terms);
static void watch_transactions(void);
static void at_transaction_end(XactEvent event, void *arg);
static void give_back(void);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);
static Listener *find_listener(Oid mapping);
static Oid	find_mapping(Oid user, Oid server);
static Oid	find_settings(Oid server);
static Oid	server_of(Oid relid);
static bool may_tell_through(Oid settings, Oid user);

/* When the library is loaded. */
void
remote_watch(void)
{
	run_before_us = ExecutorRun_hook;
	ExecutorRun_hook = tell_and_run;
}

/*
 * A budget is about to end well: servers that were told of it are told what
 * holds around it, for what is not told of itself, such as COPY.
 */
void
remote_return(const Budget *budget)
{
	TimestampTz deadline;
	ListCell   *cell;

	if (listeners == NIL || telling || IsInParallelMode())
		return;
	deadline = context_deadline_around(budget);
	foreach(cell, listeners)
	{
		Listener   *listener = lfirst(cell);
		Terms		terms = terms_within(deadline);
		Oid			settings;

		if (listener->known && still_holds(&listener->told, &terms))
			continue;
		settings = find_settings(listener->server);
		if (OidIsValid(settings) && find_mapping(listener->user, listener->server) == listener->mapping &&
			tell(settings, listener->user, &terms))
			note_told(listener->mapping, listener->server, listener->user, &terms);
	}
}

/*
 * The server that a table can tell: a foreign table over its pg_settings, with
 * exactly the columns that we use, and nothing that could do more than that.
 * InvalidOid: it is none.  Leaves it locked.
 */
Oid
remote_settings_server(Oid relid)
{
	Relation	relation;
	ForeignTable *table;
	const char *schema = NULL;
	const char *name = NULL;
	bool		fits;
	ListCell   *cell;

	if (!OidIsValid(server_of(relid)) ||
		(relation = try_table_open(relid, AccessShareLock)) == NULL)
		return InvalidOid;
	table = GetForeignTable(relid);
	foreach(cell, table->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "schema_name") == 0)
			schema = defGetString(option);
		else if (strcmp(option->defname, "table_name") == 0)
			name = defGetString(option);
	}
	fits = schema != NULL && strcmp(schema, "pg_catalog") == 0 &&
		name != NULL && strcmp(name, "pg_settings") == 0 &&
		RelationGetNumberOfAttributes(relation) == lengthof(column_name) &&
		relation->trigdesc == NULL && !relation->rd_rel->relispartition &&
		/* its owner can have it run things as whoever asks, in statistics or checks */
		(superuser_arg(relation->rd_rel->relowner) || relation->rd_rel->relowner == extension_owner());
	for (int i = 0; fits && i < (int) lengthof(column_name); i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), i);

		fits = !attribute->attisdropped && attribute->atttypid == TEXTOID &&
			attribute->attgenerated == '\0' &&
			strcmp(NameStr(attribute->attname), column_name[i]) == 0 &&
			GetForeignColumnOptions(relid, attribute->attnum) == NIL;
	}
	table_close(relation, NoLock);
	return fits ? table->serverid : InvalidOid;
}

static void
tell_and_run(EPRO_RUN_PARAMETERS)
{
	if (has_something_to_tell() && !ScanDirectionIsNoMovement(direction))
		(void) tell_servers_below(query->planstate, query->estate);
	if (run_before_us)
		run_before_us(EPRO_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(EPRO_RUN_ARGUMENTS);
}

/* Asked before every run of every plan, so it is cheap. */
static bool
has_something_to_tell(void)
{
	return (listeners != NIL || context_deadline() != 0 ||
			(epro_context != NULL && epro_context[0] != '\0')) &&
		!telling && !IsInParallelMode() && !RecoveryInProgress();
}

/* For a plan that is initialised: nothing was sent for it yet. */
static bool
tell_servers_below(PlanState *state, void *estate)
{
	if (state == NULL)
		return false;
	if (IsA(state, ForeignScanState))
	{
		ForeignScan *scan = (ForeignScan *) state->plan;

		if (OidIsValid(scan->fs_server))
			tell_server(scan->fs_server, epro_foreign_scan_user(scan, (EState *) estate));
	}
	else if (IsA(state, ModifyTableState))
		tell_sinks((ModifyTableState *) state, estate);
	return planstate_tree_walker(state, tell_servers_below, estate);
}

/*
 * What is changed where it stands is scanned as well; what is inserted is not.
 * Rows that are routed may go to a partition's server or not; one that gets none
 * must not be needed, so these are not told.
 */
static void
tell_sinks(ModifyTableState *state, EState *estate)
{
	ResultRelInfo *sink = state->rootResultRelInfo;
	Oid			server = server_of(RelationGetRelid(sink->ri_RelationDesc));

	if (state->operation != CMD_DELETE && OidIsValid(server))
		tell_server(server, epro_result_user(sink, estate));
}

/*
 * user: InvalidOid is the current one, as in a plan.  Called for each piece of
 * a long FETCH, so nothing is left in memory.
 */
static void
tell_server(Oid server, Oid user)
{
	Oid			who = OidIsValid(user) ? user : GetUserId();
	Oid			mapping = find_mapping(who, server);
	MemoryContext memory;
	MemoryContext caller;

	if (!OidIsValid(mapping))
		return;
	memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl telling", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(memory);
	tell_mapping(mapping, server, who);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
}

static void
tell_mapping(Oid mapping, Oid server, Oid user)
{
	Listener   *listener = find_listener(mapping);
	Terms		terms = terms_within(context_deadline());
	Oid			settings;

	if (listener ? listener->known && still_holds(&listener->told, &terms) : is_own(&terms))
		return;
	settings = find_settings(server);
	if (OidIsValid(settings) && tell(settings, user, &terms))
		note_told(mapping, server, user, &terms);
}

/* What is to be told now, in the current memory context. */
static Terms
terms_within(TimestampTz deadline)
{
	Terms		terms = {0};

	terms.name = name_with_request();
	if (deadline != 0)
	{
		int64		left = (deadline - GetCurrentTimestamp() + 999) / 1000;

		if (left <= INT_MAX)
			terms.ms = (int) Max(left, LEAST_MS);
	}
	return terms;
}

/* NULL: there is no request. */
static const char *
name_with_request(void)
{
	char	   *request = context_get("request_id");
	char	   *suffix;

	if (request == NULL)
		return NULL;
	if (application_name == NULL || application_name[0] == '\0')
		return request;
	suffix = psprintf(" of %s", request);
	/* a worker's title has it already */
	if (strlen(application_name) >= strlen(suffix) &&
		strcmp(application_name + strlen(application_name) - strlen(suffix), suffix) == 0)
		return application_name;
	return psprintf("%s%s", application_name, suffix);
}

/* Need a server that was told this not be told anew? */
static bool
still_holds(const Terms *told, const Terms *terms)
{
	if ((told->name == NULL) != (terms->name == NULL) ||
		(told->name != NULL && strcmp(told->name, terms->name) != 0))
		return false;
	if (told->ms == 0 || terms->ms == 0)
		return told->ms == terms->ms;
	return told->ms >= terms->ms && told->ms - terms->ms <= Max(SLACK_MS, terms->ms / 8);
}

static bool
is_own(const Terms *terms)
{
	return terms->ms == 0 && terms->name == NULL;
}

static void
name_telling(void *name)
{
	errcontext("while another server was told the time that is left, through foreign table \"%s\"",
			   (char *) name);
}

/*
 * Tells a server, as the user; false when that one may not.  Raises what the
 * server, or the way to it, raises.
 */
static bool
tell(Oid settings, Oid user, const Terms *terms)
{
	ErrorContextCallback naming = {error_context_stack, name_telling, get_rel_name(settings)};
	bool		was_read_only = XactReadOnly;
	Oid			caller;
	int			security;

	if (!may_tell_through(settings, user))
		return false;
	GetUserIdAndSecContext(&caller, &security);
	if (user != caller)
		SetUserIdAndSecContext(user, security | SECURITY_LOCAL_USERID_CHANGE);
	telling = true;
	/* nothing is written, here or there */
	XactReadOnly = false;
	PG_TRY();
	{
		error_context_stack = &naming;
		send_terms(settings, terms);
		error_context_stack = naming.previous;
	}
	PG_FINALLY();
	{
		XactReadOnly = was_read_only;
		telling = false;
	}
	PG_END_TRY();
	if (user != caller)
		SetUserIdAndSecContext(caller, security);
	watch_transactions();
	return true;
}

/*
 * One statement, which is sent whole.  Operators are qualified: the search path
 * is the caller's.  A time that the server has of itself, and that is shorter,
 * stays; times are compared as digits, since a cast would not be sent.
 */
static void
send_terms(Oid settings, const Terms *terms)
{
	static const char *const command =
		"UPDATE ONLY %s SET setting = CASE"
		" WHEN name OPERATOR(pg_catalog.=) 'application_name'"
		" THEN CASE WHEN $2 IS NULL THEN reset_val ELSE $2 END"
		" WHEN $1 IS NULL OR (reset_val OPERATOR(pg_catalog.<>) '0' AND"
		" pg_catalog.lpad(reset_val, 10, '0') OPERATOR(pg_catalog.<) pg_catalog.lpad($1, 10, '0'))"
		" THEN reset_val ELSE $1 END"
		" WHERE name OPERATOR(pg_catalog.=) 'application_name'"
		" OR name OPERATOR(pg_catalog.=) 'statement_timeout'";
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2] = {0};
	char		nulls[2] = {'n', 'n'};
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (terms->ms != 0)
	{
		values[0] = CStringGetTextDatum(psprintf("%d", terms->ms));
		nulls[0] = ' ';
	}
	if (terms->name != NULL)
	{
		values[1] = CStringGetTextDatum(terms->name);
		nulls[1] = ' ';
	}
	result = SPI_execute_with_args(psprintf(command, relation_name(settings)), 2, types,
								   values, nulls, false, 0);
	if (result != SPI_OK_UPDATE)
		elog(ERROR, "could not tell a server: %s", SPI_result_code_string(result));
	SPI_finish();
}

static void
note_told(Oid mapping, Oid server, Oid user, const Terms *terms)
{
	Listener   *listener = find_listener(mapping);
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

	if (listener == NULL)
	{
		listener = palloc0(sizeof(Listener));
		listener->mapping = mapping;
		listener->server = server;
		listener->first_level = GetCurrentTransactionNestLevel();
		listeners = lappend(listeners, listener);
	}
	listener->user = user;
	listener->last_level = GetCurrentTransactionNestLevel();
	listener->known = true;
	listener->told.ms = terms->ms;
	if (listener->told.name != NULL)
		pfree(unconstify(char *, listener->told.name));
	listener->told.name = terms->name ? pstrdup(terms->name) : NULL;
	MemoryContextSwitchTo(caller);
}

/*
 * The callback that was registered last is called first.  Ours has to send
 * before postgres_fdw commits, so it comes after postgres_fdw's, which is
 * registered with the first connection.
 */
static void
watch_transactions(void)
{
	static bool watching = false;

	if (watching)
		return;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	watching = true;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (listeners != NIL)
				give_back();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			listeners = NIL;
			break;
		default:
			break;
	}
}

/* What the servers had of themselves; a commit would keep anything else. */
static void
give_back(void)
{
	static const Terms own = {0};
	ListCell   *cell;

	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(cell, listeners)
	{
		Listener   *listener = lfirst(cell);
		ForeignServer *server = GetForeignServerExtended(listener->server, FSV_MISSING_OK);
		Oid			settings;

		/* a connection whose server or mapping is dropped is closed */
		if ((listener->known && is_own(&listener->told)) || server == NULL ||
			!SearchSysCacheExists1(USERMAPPINGOID, ObjectIdGetDatum(listener->mapping)))
			continue;
		settings = find_settings(listener->server);
		if (!OidIsValid(settings) ||
			find_mapping(listener->user, listener->server) != listener->mapping ||
			!tell(settings, listener->user, &own))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("server \"%s\" has a deadline of this transaction that cannot be given back",
							server->servername),
					 errdetail("Its table of settings, or the privilege to use it, or the user mapping is another since."),
					 errhint("Do that in a transaction of its own.")));
		note_told(listener->mapping, listener->server, listener->user, &own);
	}
	PopActiveSnapshot();
}

/* A savepoint that is rolled back here is rolled back there. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	foreach(cell, listeners)
	{
		Listener   *listener = lfirst(cell);

		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			listener->first_level = Min(listener->first_level, level - 1);
			listener->last_level = Min(listener->last_level, level - 1);
		}
		else if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			if (listener->first_level >= level)
				listeners = foreach_delete_current(listeners, cell);
			else if (listener->last_level >= level)
				listener->known = false;
		}
	}
}

static Listener *
find_listener(Oid mapping)
{
	ListCell   *cell;

	foreach(cell, listeners)
	{
		if (((Listener *) lfirst(cell))->mapping == mapping)
			return lfirst(cell);
	}
	return NULL;
}

/* The user's own, or the public one; InvalidOid: none. */
static Oid
find_mapping(Oid user, Oid server)
{
	Oid			mapping = GetSysCacheOid2(USERMAPPINGUSERSERVER, Anum_pg_user_mapping_oid,
										  ObjectIdGetDatum(user), ObjectIdGetDatum(server));

	return OidIsValid(mapping) ? mapping :
		GetSysCacheOid2(USERMAPPINGUSERSERVER, Anum_pg_user_mapping_oid,
						ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
}

/*
 * The registered table of a server's settings;
 * InvalidOid: there is none.  It is checked anew each time: it is somebody's
 * table, and may have changed.
 */
static Oid
find_settings(Oid server)
{
	Oid			schema = OidIsValid(get_extension_oid("epro_etl", true)) ?
		get_namespace_oid("epro_etl", true) : InvalidOid;
	Oid			relid = OidIsValid(schema) ? get_relname_relid("context_server", schema) : InvalidOid;
	Oid			found = InvalidOid;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(relid))
		return InvalidOid;
	relation = table_open(relid, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (!OidIsValid(found) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Oid			settings = DatumGetObjectId(heap_getattr(tuple, 2, RelationGetDescr(relation), &isnull));

		if (!isnull && server_of(settings) == server && remote_settings_server(settings) == server)
			found = settings;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/* Of a foreign table; InvalidOid: it is none. */
static Oid
server_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	Oid			server;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	server = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftserver;
	ReleaseSysCache(tuple);
	return server;
}

static bool
may_tell_through(Oid settings, Oid user)
{
	AttrNumber	setting = get_attnum(settings, column_name[1]);

	return epro_namespace_aclcheck(get_rel_namespace(settings), user, ACL_USAGE) == ACLCHECK_OK &&
		pg_class_aclcheck(settings, user, ACL_SELECT) == ACLCHECK_OK &&
		(pg_class_aclcheck(settings, user, ACL_UPDATE) == ACLCHECK_OK ||
		 pg_attribute_aclcheck(settings, setting, user, ACL_UPDATE) == ACLCHECK_OK);
}
