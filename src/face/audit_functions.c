/*
 * audit_functions.c
 *		The triggers of the audit trail: they record what is done to tables of
 *		the extension by statements, and refuse to have the trail changed.
 *
 * What runs do to the ledger is recorded where it is done (account.c), and so
 * is not seen here: rows that are written by the access methods fire nothing.
 *
 * A record says who has called, not on whose behalf a function acts: the
 * session's role, and the one that it has become with SET ROLE.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "effects/audit.h"
#include "effects/effects.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(epro_etl_audit_change);
PG_FUNCTION_INFO_V1(epro_etl_audit_count);
PG_FUNCTION_INFO_V1(epro_etl_audit_correction);
PG_FUNCTION_INFO_V1(epro_etl_audit_requeue);
PG_FUNCTION_INFO_V1(epro_etl_audit_refuse);
PG_FUNCTION_INFO_V1(epro_etl_audit_run);

/* columns of epro_etl.correction, in the order of the script */
enum CorrectionColumn
{
	CORRECTION_ID = 0,
	CORRECTION_QUARANTINE_ID,
	CORRECTION_RUN_ID,
	CORRECTION_SOURCE_ID,
	CORRECTION_ORIGINAL,
	CORRECTION_AT,
	CORRECTION_BY,
	CORRECTION_SALT,
	CORRECTION_COLUMNS
};

static TriggerData *called_as(FunctionCallInfo fcinfo, const char *name, bool for_row);
static void append(const char *action, const char *object, Jsonb *old_value,
				   Jsonb *new_value, const char *reason);
static Jsonb *tuple_as_jsonb(TupleDesc shape, HeapTuple tuple);
static const char *kind_of_change(Jsonb *before, Jsonb *after);
static bool says(Jsonb *row, const char *column, const char *value);
static char *text_of(Jsonb *row, const char *column);
static char *keep_original(TupleDesc shape, HeapTuple before, int64 *correction_id);
static char *changed_keys(Jsonb *before, Jsonb *after);
static Datum column_of(TupleDesc shape, HeapTuple tuple, const char *name, bool *isnull);
static Jsonb *as_jsonb(const char *text);
static char *who_calls(void);

/*
 * audit_change(): trigger AFTER a row of a table without patient data was
 * inserted, updated or deleted.  Records the row as it was and as it is.
 */
Datum
epro_etl_audit_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = called_as(fcinfo, "audit_change", true);
	TupleDesc	shape = RelationGetDescr(trigger->tg_relation);
	Jsonb	   *before = NULL;
	Jsonb	   *after = NULL;
	char	   *reason = NULL;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		after = tuple_as_jsonb(shape, trigger->tg_trigtuple);
	else
		before = tuple_as_jsonb(shape, trigger->tg_trigtuple);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		after = tuple_as_jsonb(shape, trigger->tg_newtuple);
		if (compareJsonbContainers(&before->root, &after->root) == 0)
			return PointerGetDatum(NULL);
	}
	/* what is taken off or changed is not so for the reason that it was made for */
	if (before == NULL)
		reason = text_of(after, says(after, "note", NULL) ? "note" : "reason");
	append(kind_of_change(before, after), RelationGetRelationName(trigger->tg_relation),
		   before, after, reason);
	return PointerGetDatum(NULL);
}

/*
 * audit_count(): trigger AFTER a statement, for tables that hold data, or whose
 * rows are many.  Records how many rows; a TRUNCATE does not know.  With an
 * argument, what the extension does there itself is not recorded.
 */
Datum
epro_etl_audit_count(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = called_as(fcinfo, "audit_count", false);
	Tuplestorestate *rows = trigger->tg_oldtable ? trigger->tg_oldtable : trigger->tg_newtable;
	const char *action = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? "add" :
		TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "change" :
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "remove" : "truncate";
	Jsonb	   *count = rows ? as_jsonb(psprintf("{\"rows\": " INT64_FORMAT "}", tuplestore_tuple_count(rows))) : NULL;

	/* in an owner's scope, see internal.c */
	if (trigger->tg_trigger->tgnargs > 0 && InLocalUserIdChange() && GetUserId() == extension_owner())
		return PointerGetDatum(NULL);
	if (rows == NULL || tuplestore_tuple_count(rows) > 0)
		append(action, RelationGetRelationName(trigger->tg_relation),
			   trigger->tg_oldtable ? count : NULL, trigger->tg_oldtable ? NULL : count, NULL);
	return PointerGetDatum(NULL);
}

/*
 * audit_correction(): trigger AFTER a row of quarantine was updated by hand.
 * The earlier original goes to epro_etl.correction, which is as sensitive as
 * quarantine; the record has keys, the names of the columns of the source that
 * have changed, and a digest that only who has the earlier original's row can make.
 */
Datum
epro_etl_audit_correction(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = called_as(fcinfo, "audit_correction", true);
	TupleDesc	shape = RelationGetDescr(trigger->tg_relation);
	HeapTuple	pair[] = {trigger->tg_trigtuple, trigger->tg_newtuple};
	Jsonb	   *originals[2];
	Jsonb	   *keys[2];
	char	   *digest;
	int64		correction_id;
	bool		isnull;

	for (int i = 0; i < 2; i++)
	{
		static const char *const names[] = {"quarantine_id", "run_id", "pipeline", "source_id", "form"};
		JsonbParseState *state = NULL;

		originals[i] = DatumGetJsonbP(column_of(shape, pair[i], "original", &isnull));
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		for (int n = 0; n < lengthof(names); n++)
		{
			Datum		value = column_of(shape, pair[i], names[n], &isnull);
			JsonbValue	key;

			if (isnull)
				continue;
			key.type = jbvString;
			key.val.string.val = unconstify(char *, names[n]);
			key.val.string.len = strlen(names[n]);
			pushJsonbValue(&state, WJB_KEY, &key);
			push_column(&state, TupleDescAttr(shape, SPI_fnumber(shape, names[n]) - 1)->atttypid, value);
		}
		keys[i] = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	}
	if (compareJsonbContainers(&originals[0]->root, &originals[1]->root) == 0 &&
		compareJsonbContainers(&keys[0]->root, &keys[1]->root) == 0)
		return PointerGetDatum(NULL);

	digest = keep_original(shape, pair[0], &correction_id);
	append("correct", RelationGetRelationName(trigger->tg_relation), keys[0],
		   as_jsonb(psprintf("{\"keys\": %s, \"columns\": %s, \"correction_id\": " INT64_FORMAT ", \"digest\": \"%s\"}",
							 JsonbToCString(NULL, &keys[1]->root, VARSIZE(keys[1])),
							 changed_keys(originals[0], originals[1]), correction_id, digest)),
		   NULL);
	return PointerGetDatum(NULL);
}

/*
 * audit_requeue(): trigger AFTER a statement has deleted rows of quarantine.
 * Records which responses of which runs they were: as requeued those that have
 * gone into epro_etl.requeued by the same moment, as discarded the others.
 */
Datum
epro_etl_audit_requeue(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = called_as(fcinfo, "audit_requeue", false);
	OwnerScope	scope;
	bool		isnull;
	Datum		value;

	if (trigger->tg_oldtable == NULL || tuplestore_tuple_count(trigger->tg_oldtable) == 0)
		return PointerGetDatum(NULL);
	owner_begin(&scope);
	if (SPI_register_trigger_data(trigger) != SPI_OK_TD_REGISTER ||
		SPI_execute("SELECT requeued, jsonb_build_object('rows', sum(rows), 'responses', jsonb_object_agg(run_id, ids ORDER BY run_id)) FROM ("
					" SELECT g.run_id, r.source_id IS NOT NULL AS requeued, count(*) AS rows,"
					"  jsonb_agg(g.source_id ORDER BY g.quarantine_id) AS ids"
					" FROM gone g LEFT JOIN epro_etl.requeued r ON r.pipeline = g.pipeline AND r.source_id = g.source_id"
					" GROUP BY 1, 2) x GROUP BY 1 ORDER BY 1", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what has left quarantine");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		SPITupleTable *table = SPI_tuptable;
		bool		requeued = DatumGetBool(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));

		value = SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull);
		append(requeued ? "requeue" : "discard", RelationGetRelationName(trigger->tg_relation),
			   DatumGetJsonbP(value), NULL, NULL);
	}
	owner_end(&scope);
	return PointerGetDatum(NULL);
}

/*
 * audit_refuse(): trigger BEFORE a row of the trail is touched, or all of them.
 * Only a superuser may insert, since a dump is restored so; a head that comes
 * back keeps its chain, and another goes on.  With the argument "erase" a
 * superuser may also delete, where there can be a duty to: that is recorded.
 */
Datum
epro_etl_audit_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		erases;
	int			slot;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("audit_refuse() is a trigger's function")));
	erases = trigger->tg_trigger->tgnargs > 0 && !TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	if (!superuser() || (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && !erases))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("\"epro_etl.%s\" can only be added to, and by the extension itself",
						RelationGetRelationName(trigger->tg_relation)),
				 errdetail("It is part of the audit trail.")));
	slot = SPI_fnumber(RelationGetDescr(trigger->tg_relation), "slot");
	if (slot > 0)
	{
		Datum		none = (Datum) 0;
		bool		isnull = true;

		return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation),
														 1, &slot, &none, &isnull));
	}
	return PointerGetDatum(TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ? trigger->tg_trigtuple : NULL);
}

/* audit_run(run_id, at_end): what a record of a run has to say, by the ledger as it is. */
Datum
epro_etl_audit_run(PG_FUNCTION_ARGS)
{
	MemoryContext memory = CurrentMemoryContext;
	Jsonb	   *facts;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	facts = account_facts(PG_GETARG_INT64(0), PG_GETARG_BOOL(1), true);
	if (facts != NULL)
	{
		Size		size = VARSIZE(facts);
		Jsonb	   *kept = MemoryContextAlloc(memory, size);

		memcpy(kept, facts, size);
		facts = kept;
	}
	SPI_finish();
	if (facts == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(facts);
}

static TriggerData *
called_as(FunctionCallInfo fcinfo, const char *name, bool for_row)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		for_row != (TRIGGER_FIRED_FOR_ROW(trigger->tg_event) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() is a trigger's function", name)));
	/* on a table of one's own, it would record what never was */
	if (own_relation(RelationGetRelationName(trigger->tg_relation)) != RelationGetRelid(trigger->tg_relation))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s() is for the tables of the extension", name)));
	return trigger;
}

/* The reason is the request's, or else the one that is given. */
static void
append(const char *action, const char *object, Jsonb *old_value, Jsonb *new_value,
	   const char *reason)
{
	AuditRecord record = {0};

	audit_caller(&record);
	/* a trigger's function acts as its owner */
	record.current_user_name = who_calls();
	record.action = action;
	record.object = object;
	record.old_value = old_value;
	record.new_value = new_value;
	if (record.reason == NULL)
		record.reason = reason;
	audit_append(&record);
}

static Jsonb *
tuple_as_jsonb(TupleDesc shape, HeapTuple tuple)
{
	Datum	   *values = palloc(sizeof(Datum) * shape->natts);
	bool	   *nulls = palloc(sizeof(bool) * shape->natts);

	heap_deform_tuple(tuple, shape, values, nulls);
	return row_as_jsonb(shape, values, nulls);
}

/* As an auditor calls it: rows of rules are retired, and a rule can be switched off. */
static const char *
kind_of_change(Jsonb *before, Jsonb *after)
{
	if (before == NULL)
		return says(after, "severity", "off") ? "switch off" : "add";
	if (after == NULL)
		return "remove";
	if (says(after, "removed_at", NULL) && !says(before, "removed_at", NULL))
		return says(before, "severity", "off") ? "switch on" : "retire";
	return "change";
}

/* Has the row that value in a column, or with NULL any at all? */
static bool
says(Jsonb *row, const char *column, const char *value)
{
	char	   *found = text_of(row, column);

	return found != NULL && (value == NULL || strcmp(found, value) == 0);
}

static char *
text_of(Jsonb *row, const char *column)
{
	JsonbValue *found = getKeyJsonValueFromContainer(&row->root, column, strlen(column), NULL);

	return found && found->type == jbvString ? pnstrdup(found->val.string.val, found->val.string.len) : NULL;
}

/* Writes the earlier original down; returns the digest of its row. */
static char *
keep_original(TupleDesc shape, HeapTuple before, int64 *correction_id)
{
	Relation	relation = table_open(own_relation("correction"), RowExclusiveLock);
	Datum		values[CORRECTION_COLUMNS];
	bool		nulls[CORRECTION_COLUMNS] = {false};
	TimestampTz now = GetCurrentTimestamp();
	pg_uuid_t	salt;
	HeapTuple	row;
	AuditDigest digest;
	volatile int at;
	char	   *by = who_calls();

	if (!pg_strong_random(salt.data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	*correction_id = nextval_internal(own_relation("correction_correction_id_seq"), false);
	values[CORRECTION_ID] = Int64GetDatum(*correction_id);
	values[CORRECTION_QUARANTINE_ID] = column_of(shape, before, "quarantine_id", &nulls[CORRECTION_QUARANTINE_ID]);
	values[CORRECTION_RUN_ID] = column_of(shape, before, "run_id", &nulls[CORRECTION_RUN_ID]);
	values[CORRECTION_SOURCE_ID] = column_of(shape, before, "source_id", &nulls[CORRECTION_SOURCE_ID]);
	values[CORRECTION_ORIGINAL] = column_of(shape, before, "original", &nulls[CORRECTION_ORIGINAL]);
	values[CORRECTION_AT] = TimestampTzGetDatum(now);
	values[CORRECTION_BY] = CStringGetTextDatum(by);
	values[CORRECTION_SALT] = UUIDPGetDatum(&salt);

	audit_digest_begin(&digest);
	audit_digest_number(&digest, *correction_id);
	audit_digest_number(&digest, DatumGetInt64(values[CORRECTION_QUARANTINE_ID]));
	audit_digest_number(&digest, DatumGetInt64(values[CORRECTION_RUN_ID]));
	audit_digest_text(&digest, nulls[CORRECTION_SOURCE_ID] ? NULL : TextDatumGetCString(values[CORRECTION_SOURCE_ID]));
	audit_digest_jsonb(&digest, DatumGetJsonbP(values[CORRECTION_ORIGINAL]));
	audit_digest_instant(&digest, now);
	audit_digest_text(&digest, by);
	audit_digest_text(&digest, DatumGetCString(DirectFunctionCall1(uuid_out, values[CORRECTION_SALT])));
	row = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	bulk_insert(relation, &row, 1, &at);
	table_close(relation, NoLock);
	return audit_digest_end(&digest);
}

/* Columns of the source in which two originals differ, as a JSON array. */
static char *
changed_keys(Jsonb *before, Jsonb *after)
{
	Jsonb	   *pair[] = {before, after};
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < 2; i++)
	{
		Jsonb	   *other = pair[1 - i];
		JsonbIterator *iterator = JsonbIteratorInit(&pair[i]->root);
		JsonbValue	key;
		JsonbValue	value;

		if (!JB_ROOT_IS_OBJECT(pair[0]) || !JB_ROOT_IS_OBJECT(pair[1]))
			return pstrdup("[]");
		(void) JsonbIteratorNext(&iterator, &key, false);
		while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
		{
			JsonbValue *there = getKeyJsonValueFromContainer(&other->root, key.val.string.val, key.val.string.len, NULL);

			(void) JsonbIteratorNext(&iterator, &value, true);
			/* what both have, and is different, is told once */
			if (there != NULL && (i == 1 || compareJsonbContainers(&JsonbValueToJsonb(there)->root, &JsonbValueToJsonb(&value)->root) == 0))
				continue;
			appendStringInfoString(&list, list.len > 0 ? ", " : "");
			escape_json(&list, pnstrdup(key.val.string.val, key.val.string.len));
		}
	}
	return psprintf("[%s]", list.data);
}

/* A column by its name. */
static Datum
column_of(TupleDesc shape, HeapTuple tuple, const char *name, bool *isnull)
{
	int			number = SPI_fnumber(shape, name);

	if (number <= 0)
		elog(ERROR, "column \"%s\" is not there", name);
	return heap_getattr(tuple, number, shape, isnull);
}

static Jsonb *
as_jsonb(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/* The role that the session has become, whatever function acts as whom. */
static char *
who_calls(void)
{
	return GetUserNameFromId(GetOuterUserId(), false);
}
