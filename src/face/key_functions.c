/*
 * key_functions.c
 *		rotate_key() and CALL repseudonymise(): another version of the keys, and
 *		old rows to it.
 *
 * Neither takes or returns a pseudonym or anything to make one of: what is
 * rewritten is what stands in a sink, in place.
 *
 * repseudonymise() goes over a sink's blocks from the first to the last, some
 * at a time, each in a transaction of its own: it locks the rows of an older
 * version and changes key and version together.  So a row is either done or
 * not, whenever it is ended, and whoever calls it again goes on with the rest.
 * It acts as its caller with plain SELECT and UPDATE, so privileges, row
 * security and triggers hold.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "effects/audit.h"
#include "effects/context.h"
#include "effects/effects.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "words/compat.h"
#include "words/errors.h"

PG_FUNCTION_INFO_V1(epro_etl_rotate_key);
PG_FUNCTION_INFO_V1(epro_etl_repseudonymise);

/* blocks a transaction, of each part of the sink */
#define BLOCKS_AT_ONCE 64

/* A sink whose rows are to get another key; in memory that outlives its transactions. */
typedef struct Target
{
	Oid			relid;
	char	   *name;
	char	   *study;			/* columns, quoted */
	char	   *subject_key;
	char	   *key_version;
	int			version;		/* that rows are brought to */
	Pseudonymiser *pseudonymiser;
	MemoryContext memory;
} Target;

static void check_may_rotate(void);
static void refuse_atomic(FunctionCallInfo fcinfo);
static void open_target(Target *target);
static void check_relation(const Target *target);
static void find_columns(Target *target);
static void refuse_cascades(const Target *target);
static int64 pass_over(const Target *target);
static void record_step(const Target *target, int64 rows);
static List *lock_parts(const Target *target);
static void raise_no_relation(const Target *target);
static BlockNumber count_blocks(const Target *target);
static int64 change_blocks(const Target *target, BlockNumber first);
static void change_row(const Target *target, SPIPlanPtr update, HeapTuple row,
					   TupleDesc shape);
static void tell_left(const Target *target, int64 changed);
static char *column_text(int column);
static SPIPlanPtr prepare(const char *command, int nargs, Oid *types);

/*
 * rotate_key(note): enters the next version of the keys, and returns it.  Raises
 * EP005 when the key is not the one of the versions before, 42501 for anybody
 * but a superuser and the extension's owner.
 */
Datum
epro_etl_rotate_key(PG_FUNCTION_ARGS)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl rotation",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	int			version;

	check_may_rotate();
	version = keyring_rotate(key_load(keyring_version()),
							 PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	PG_RETURN_INT32(version);
}

/* CALL repseudonymise(target): see the top of this file. */
Datum
epro_etl_repseudonymise(PG_FUNCTION_ARGS)
{
	Target		target = {0};
	int64		changed = 0;
	int64		in_pass;

	refuse_atomic(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	target.relid = PG_GETARG_OID(0);
	/* a child of the portal's: it outlives the transactions, and no error */
	target.memory = AllocSetContextCreate(PortalContext, "epro_etl repseudonymise",
										  ALLOCSET_DEFAULT_SIZES);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	open_target(&target);
	SPI_commit();

	/* a run of an older version may add rows meanwhile */
	do
	{
		in_pass = pass_over(&target);
		changed += in_pass;
	} while (in_pass > 0);

	tell_left(&target, changed);
	SPI_finish();
	MemoryContextDelete(target.memory);
	PG_RETURN_NULL();
}

/* From then on, all new pseudonyms are others: that is for who answers for the key. */
static void
check_may_rotate(void)
{
	if (!superuser() && GetUserId() != extension_owner())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to rotate the key"),
				 errhint("Only a superuser or the owner of the extension may.")));
}

static void
refuse_atomic(FunctionCallInfo fcinfo)
{
	if (fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("repseudonymise() cannot be called in a transaction block"),
			 errdetail("It commits as it goes.")));
}

/* What there is to be done, and may this caller? */
static void
open_target(Target *target)
{
	MemoryContext caller;

	check_relation(target);
	find_columns(target);
	refuse_cascades(target);
	caller = MemoryContextSwitchTo(target->memory);
	target->name = relation_name(target->relid);
	target->version = keyring_version();
	target->pseudonymiser = key_load(target->version);
	MemoryContextSwitchTo(caller);
}

static void
check_relation(const Target *target)
{
	char	   *name = get_rel_name(target->relid);
	ListCell   *cell;

	if (name == NULL)
		raise_no_relation(target);
	if (!epro_owns_relation(target->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(target->relid)), name);
	foreach(cell, lock_parts(target))
	{
		char		kind = get_rel_relkind(lfirst_oid(cell));

		if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is no table, or has parts that are none", name),
					 errhint("Call it on the server that has the rows, for the table that they stand in.")));
	}
}

/* The columns are those that runs fill, as the sink has declared them. */
static void
find_columns(Target *target)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(target->relid)};
	OwnerScope	scope;
	uint64		n;
	bool		whole;

	owner_begin(&scope);
	if (SPI_execute_with_args("SELECT DISTINCT CASE WHEN whole THEN study END, CASE WHEN whole THEN subject_key END,"
							  " CASE WHEN whole THEN key_version END FROM ("
							  "SELECT count(t.takes) = 3 AND count(DISTINCT t.takes) = 3 AS whole,"
							  " min(t.name) FILTER (WHERE t.takes = 'study') AS study,"
							  " min(t.name) FILTER (WHERE t.takes = 'subject_key') AS subject_key,"
							  " min(t.name) FILTER (WHERE t.takes = 'key_version') AS key_version"
							  " FROM epro_etl.sink s LEFT JOIN LATERAL ("
							  "SELECT a.attname::text AS name, coalesce(s.columns ->> a.attname::text, a.attname) AS takes"
							  " FROM pg_attribute a WHERE a.attrelid = s.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') t"
							  " ON t.takes IN ('study', 'subject_key', 'key_version')"
							  " WHERE s.target = $1 GROUP BY s.sink_id) k",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the sinks");
	n = SPI_processed;
	whole = n == 1 && SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1) != NULL;
	if (whole)
	{
		MemoryContext caller = MemoryContextSwitchTo(target->memory);

		target->study = column_text(1);
		target->subject_key = column_text(2);
		target->key_version = column_text(3);
		MemoryContextSwitchTo(caller);
	}
	owner_end(&scope);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("\"%s\" is no sink", get_rel_name(target->relid)),
				 errhint("See epro_etl.sink.")));
	if (!whole)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink \"%s\" does not tell which key its rows have",
						get_rel_name(target->relid)),
				 errhint("It needs one column each for study, subject_key and key_version, the same in all forms that go into it.")));
}

static char *
column_text(int column)
{
	return pstrdup(quote_identifier(SPI_getvalue(SPI_tuptable->vals[0],
												 SPI_tuptable->tupdesc, column)));
}

/* A key that another table's change brings along would not bring its version. */
static void
refuse_cascades(const Target *target)
{
	Oid			types[] = {OIDOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(target->relid), CStringGetTextDatum(target->subject_key)};
	OwnerScope	scope;
	bool		cascades;

	owner_begin(&scope);
	if (SPI_execute_with_args("SELECT FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = $1"
							  " AND (c.conrelid = $1 AND a.attnum = ANY (c.conkey) OR c.confrelid = $1 AND a.attnum = ANY (c.confkey))"
							  " WHERE c.contype = 'f' AND c.confupdtype NOT IN ('a', 'r') AND quote_ident(a.attname) = $2 LIMIT 1",
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the constraints");
	cascades = SPI_processed > 0;
	owner_end(&scope);
	if (cascades)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("the subject_key of sink \"%s\" is in a foreign key that cascades",
						get_rel_name(target->relid)),
				 errhint("Drop the foreign key, bring both tables to the version, and add it again.")));
}

/* Once over all blocks there are now; how many rows were changed. */
static int64
pass_over(const Target *target)
{
	BlockNumber nblocks = count_blocks(target);
	int64		changed = 0;

	for (BlockNumber first = 0; first < nblocks; first += BLOCKS_AT_ONCE)
	{
		int			guc_level;
		int64		in_step;

		CHECK_FOR_INTERRUPTS();
		guc_level = pin_search_path();
		/* within the outer one, so that all of its memory goes with it */
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		in_step = change_blocks(target, first);
		if (in_step > 0)
			record_step(target, in_step);
		changed += in_step;
		SPI_finish();
		AtEOXact_GUC(true, guc_level);
		SPI_commit();
	}
	return changed;
}

/* For the audit trail: how many rows a transaction has changed, and of which sink. */
static void
record_step(const Target *target, int64 rows)
{
	AuditRecord record = {0};
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "{\"key_version\": %d, \"rows\": " INT64_FORMAT ", \"target\": ",
					 target->version, rows);
	escape_json(&text, target->name);
	appendStringInfoChar(&text, '}');
	audit_caller(&record);
	record.action = "repseudonymise";
	record.object = "sink";
	record.new_value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data)));
	audit_append(&record);
}

/* The relation and all parts of it, locked to the transaction's end so that they stay. */
static List *
lock_parts(const Target *target)
{
	LockRelationOid(target->relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(target->relid)))
		raise_no_relation(target);
	return find_all_inheritors(target->relid, AccessShareLock, NULL);
}

static void
raise_no_relation(const Target *target)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation with OID %u does not exist", target->relid)));
}

/* Of the longest part. */
static BlockNumber
count_blocks(const Target *target)
{
	BlockNumber most = 0;
	ListCell   *cell;

	foreach(cell, lock_parts(target))
	{
		Relation	part = table_open(lfirst_oid(cell), NoLock);

		if (part->rd_rel->relkind == RELKIND_RELATION)
			most = Max(most, RelationGetNumberOfBlocks(part));
		table_close(part, NoLock);
	}
	return most;
}

/* One transaction's work, with the search path pinned and SPI its own. */
static int64
change_blocks(const Target *target, BlockNumber first)
{
	Oid			select_types[] = {TIDOID, TIDOID, INT4OID};
	Oid			update_types[] = {OIDOID, TIDOID, TEXTOID, INT4OID};
	ItemPointerData from;
	ItemPointerData to;
	Datum		values[lengthof(select_types)];
	SPITupleTable *rows;
	uint64		n;
	SPIPlanPtr	update;

	ItemPointerSet(&from, first, 0);
	ItemPointerSet(&to, first + BLOCKS_AT_ONCE, 0);
	values[0] = PointerGetDatum(&from);
	values[1] = PointerGetDatum(&to);
	values[2] = Int32GetDatum(target->version);
	/* what is no derived pseudonym, as a random code, is left as it is */
	if (SPI_execute_plan(prepare(psprintf("SELECT tableoid, ctid, %s::text, %s::text, %s::integer FROM %s"
										  " WHERE ctid >= $1 AND ctid < $2 AND %s::integer < $3"
										  " AND %s::text ~ '^[0-9a-f]{64}$' FOR UPDATE",
										  target->study, target->subject_key, target->key_version,
										  target->name, target->key_version, target->subject_key),
								 lengthof(select_types), select_types),
						 values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read a sink");
	n = SPI_processed;
	rows = SPI_tuptable;
	if (n == 0)
		return 0;
	update = prepare(psprintf("UPDATE %s SET %s = $3, %s = $4 WHERE tableoid = $1 AND ctid = $2"
							  " RETURNING %s::text = $3 AND %s::integer = $4",
							  target->name, target->subject_key, target->key_version,
							  target->subject_key, target->key_version),
					 lengthof(update_types), update_types);
	for (uint64 i = 0; i < n; i++)
		change_row(target, update, rows->vals[i], rows->tupdesc);
	return (int64) n;
}

static void
change_row(const Target *target, SPIPlanPtr update, HeapTuple row, TupleDesc shape)
{
	Datum		values[4];
	bool		isnull;
	Datum		study = SPI_getbinval(row, shape, 3, &isnull);
	Span		span = {NULL, 0};
	char		subject_key[SUBJECT_KEY_LENGTH + 1];

	CHECK_FOR_INTERRUPTS();
	if (!isnull)
	{
		text	   *whole = DatumGetTextPP(study);

		span.data = VARDATA_ANY(whole);
		span.len = (int) VARSIZE_ANY_EXHDR(whole);
	}
	/* the condition on its form has left out what is longer */
	text_to_cstring_buffer(DatumGetTextPP(SPI_getbinval(row, shape, 4, &isnull)),
						   subject_key, sizeof(subject_key));
	pseudonym_advance(target->pseudonymiser, span,
					  DatumGetInt32(SPI_getbinval(row, shape, 5, &isnull)), subject_key);
	values[0] = SPI_getbinval(row, shape, 1, &isnull);
	values[1] = SPI_getbinval(row, shape, 2, &isnull);
	values[2] = CStringGetTextDatum(subject_key);
	values[3] = Int32GetDatum(target->version);
	/* a key without its version would be made another one by the next call */
	if (SPI_execute_plan(update, values, NULL, false, 0) != SPI_OK_UPDATE_RETURNING ||
		SPI_processed != 1 ||
		!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("a row of sink \"%s\" could not be changed", get_rel_name(target->relid)),
				 errhint("A trigger or a rule has dropped the change, or made another of it. What was committed before stays; call it again when that is put right.")));
	SPI_freetuptable(SPI_tuptable);
}

/* What was done, and what was left: nothing passes silently. */
static void
tell_left(const Target *target, int64 changed)
{
	bool		hidden = check_enable_rls(target->relid, InvalidOid, true) == RLS_ENABLED;
	int64		left;
	bool		isnull;

	if (SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE %s IS NULL OR %s OPERATOR(pg_catalog.<>) %d",
							 target->name, target->key_version, target->key_version, target->version),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read a sink");
	left = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	ereport(NOTICE,
			(errmsg("rows that were brought to key version %d: " INT64_FORMAT,
					target->version, changed)));
	if (left > 0)
		ereport(WARNING,
				(errmsg("rows that were left as they are: " INT64_FORMAT, left),
				 errdetail("They have no key_version or a later one, or no derived pseudonym, or came since.")));
	if (hidden)
		ereport(WARNING,
				(errmsg("row security may hide more rows of \"%s\"", get_rel_name(target->relid))));
}

/* For the statement at hand. */
static SPIPlanPtr
prepare(const char *command, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(command, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s",
			 SPI_result_code_string(SPI_result));
	return plan;
}
