/*
 * internal.c
 *		Acting as the extension's owner, on the extension's own tables.
 *
 * A run acts as its caller, and the caller needs no privilege to write the
 * ledger: who could write it by hand could forge it.  So the ledger is written
 * as the owner of its tables, in a scope like the one that foreign-key
 * triggers use.  Inside it the search path is pinned.
 *
 * An error inside a scope needs no clean-up: the (sub)transaction's abort
 * restores the user and the settings.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_extension.h"
#include "effects/effects.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static const char canceled_by_others[] = "ProcessInterrupts()";

pg_attribute_noreturn() static void refuse_missing(const char *name);
static char *installed_version(void);
static void free_plan(void *plan);
static const char *text_of_condition(int sqlstate);
static bool name_exists(Oid catalog, Oid index, AttrNumber column,
						NameData *name);

/* Becomes the owner of the extension's tables, and connects to SPI. */
void
owner_begin(OwnerScope *scope)
{
	Oid			owner = extension_owner();

	GetUserIdAndSecContext(&scope->user, &scope->context);
	/* policies are for those who read and correct, whatever the owner is held to */
	SetUserIdAndSecContext(owner, scope->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	scope->guc_level = pin_search_path();
	/*
	 * Of tables that nobody has analysed the planner expects thousands of rows,
	 * and would compile, or start processes, to read the few that there are.
	 */
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("max_parallel_workers_per_gather", "0", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
owner_end(OwnerScope *scope)
{
	SPI_finish();
	AtEOXact_GUC(true, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->context);
}

/* An own table's OID; raises an error when the extension was dropped, or not updated. */
Oid
own_relation(const char *name)
{
	Oid			schema = get_namespace_oid("epro_etl", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(relid))
		refuse_missing(name);
	return relid;
}

/* A new library is there for all databases at once, each of which is then to be updated. */
static void
refuse_missing(const char *name)
{
	char	   *version = installed_version();

	if (version != NULL && strcmp(version, EPRO_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"epro_etl\" is of version %s in this database, and its library of version %s",
						version, EPRO_VERSION),
				 errhint("Run ALTER EXTENSION epro_etl UPDATE.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation \"epro_etl.%s\" does not exist", name),
			 errhint("The extension was dropped or damaged; see CREATE EXTENSION epro_etl.")));
}

/* The version of the extension's objects here; NULL: it is not installed. */
static char *
installed_version(void)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("epro_etl"));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(extensions), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return version;
}

/* A relation's name, qualified and quoted; NULL when there is none. */
char *
relation_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name == NULL ? NULL :
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

/*
 * Pins the search path so that no name means something else than where it was
 * written.  Returns the level for AtEOXact_GUC().
 */
int
pin_search_path(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Keeps a plan for as long as a memory context, errors or not. */
SPIPlanPtr
plan_keep(SPIPlanPtr plan, MemoryContext memory)
{
	MemoryContextCallback *callback;

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare a statement: %s",
			 SPI_result_code_string(SPI_result));
	callback = MemoryContextAlloc(memory, sizeof(MemoryContextCallback));
	callback->func = free_plan;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(memory, callback);
	return plan;
}

static void
free_plan(void *plan)
{
	SPI_freeplan((SPIPlanPtr) plan);
}

/*
 * Is an error with this SQLSTATE the data's fault, so that it rejects one
 * response, rather than the system's, which ends the run?  A trigger, a check
 * constraint or a rule may raise anything: what is not known to be the
 * system's is the data's.
 */
bool
error_is_datas(int sqlstate)
{
	/* an index row or a tuple too large: the answer is, not the system */
	if (sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return true;

	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connection */
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'):	/* transaction state */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* rollback: deadlock */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'):	/* limits */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* object state: locks */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* operator: cancel */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* system */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'):	/* snapshot too old */
		case MAKE_SQLSTATE('E', 'P', '0', '0', '0'):	/* our own */
		case MAKE_SQLSTATE('F', '0', '0', '0', '0'):	/* configuration file */
		case MAKE_SQLSTATE('H', 'V', '0', '0', '0'):	/* foreign server */
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):	/* internal */
			return false;
	}
	return true;
}

/* In PG_CATCH: takes the error out of the way, into a memory context. */
ErrorData *
error_take(MemoryContext memory)
{
	ErrorData  *error;

	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	FlushErrorState();
	return error;
}

/* Was it raised by this extension, whose texts hold no data? */
bool
error_is_ours(const ErrorData *error)
{
	return error->domain != NULL && strcmp(error->domain, TEXTDOMAIN) == 0;
}

/*
 * Takes out of an error what could be data.  Only this extension's own texts
 * are known to hold none: of any other error the SQLSTATE is kept, and the
 * message of the server's that come from no function or statement, such as a
 * cancel or a full disk.
 */
void
error_strip(ErrorData *error)
{
	if (!error_is_ours(error))
	{
		if ((error->context != NULL && !error_is_own_cancel(error)) || error_is_datas(error->sqlerrcode))
		{
			error->message = pstrdup(text_of_condition(error->sqlerrcode));
			error->hint = pstrdup("The error's own text is withheld, since it can quote a response.");
		}
		else
			error->hint = NULL;
		error->detail = NULL;
		error->detail_log = NULL;
		error->schema_name = NULL;
		error->table_name = NULL;
		error->column_name = NULL;
		error->datatype_name = NULL;
		error->constraint_name = NULL;
	}
	error->context = NULL;
	error->internalquery = NULL;
	error->internalpos = 0;
}

/* Was this very process canceled, not another server's?  The text is the server's own. */
bool
error_is_own_cancel(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->funcname != NULL &&
		(strcmp(error->funcname, "ProcessInterrupts") == 0 || error_is_marked_cancel(error));
}

/*
 * Marks the error of a cancel as one that no budget has asked for.  The name of
 * the function that raised it is the one thing that stays with an error, however
 * often it is copied, and that nobody reads.  The error is a copy.
 */
void
error_mark_cancel(ErrorData *error)
{
	error->funcname = MemoryContextStrdup(GetMemoryChunkContext(error), canceled_by_others);
}

bool
error_is_marked_cancel(const ErrorData *error)
{
	return error->funcname != NULL && strcmp(error->funcname, canceled_by_others) == 0;
}

/* What an error is called whose own text is withheld. */
static const char *
text_of_condition(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
			return "could not serialize access";
		case ERRCODE_T_R_DEADLOCK_DETECTED:
			return "deadlock detected";
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return "could not obtain a lock in time";
		case ERRCODE_QUERY_CANCELED:
			return "canceling statement due to user request or timeout";
	}
	return psprintf("the run met an error of a statement, function or rule it called (SQLSTATE %s)",
					unpack_sql_state(sqlstate));
}

/*
 * Is there a constraint, or an index, of this name?  An error can be raised with
 * any name at all; only one that names something is repeated.
 */
bool
constraint_exists(const char *name)
{
	NameData	wanted;

	if (strlen(name) >= NAMEDATALEN)
		return false;
	namestrcpy(&wanted, name);
	return name_exists(ConstraintRelationId, ConstraintNameNspIndexId,
					   Anum_pg_constraint_conname, &wanted) ||
		name_exists(RelationRelationId, ClassNameNspIndexId,
					Anum_pg_class_relname, &wanted);
}

static bool
name_exists(Oid catalog, Oid index, AttrNumber column, NameData *name)
{
	Relation	relation = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(name));
	scan = systable_beginscan(relation, index, true, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/* Who owns the extension's tables. */
Oid
extension_owner(void)
{
	Oid			relid = own_relation("run_ledger");
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}
