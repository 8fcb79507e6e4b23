/*
 * outbox.c
 *		Rows for a sink that was away, kept in this database until it is back.
 *
 * Only for sinks that are declared not to be required: the response has left
 * the source and is in its other sinks, and what is still to be delivered is
 * written here in the same transaction.  A row is a jsonb object of the sink's
 * columns, de-identified as the sink's rows are.
 *
 * Delivery takes rows out and inserts them in one transaction.  If the
 * connection is lost while that commits, a row may have arrived and be here
 * still: a unique key and on_duplicate 'ignore' make that harmless.  A row
 * that the sink refuses, or does not store, stays here, marked, and is not
 * tried again.
 *
 * Rows are put in behind the back of the foreign key to the sink.  Who writes
 * or takes out rows therefore locks the sink FOR KEY SHARE first: a sink with
 * rows here cannot be taken off, and one that was taken off gets none.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "effects/point.h"
#include "effects/sink.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* columns of the table, in order */
#define OUTBOX_COLUMNS 7

/* Rows taken out for delivery. */
typedef struct Taken
{
	Datum	   *rows;			/* jsonb */
	HeapTuple  *whole;			/* to put one back */
	TupleDesc	shape;			/* of these: as the table's */
	int64		first;			/* outbox_id of the first */
	int			n;
} Taken;

static void hold_sink(const Sink *sink);
static Jsonb *as_jsonb(const Sink *sink, HeapTuple tuple);
static void take(const Sink *sink, int64 outbox_id, int most, Taken *taken);
static void insert(const Sink *sink, Datum *rows, int n);
static int	try_insert(const Sink *sink, Datum *rows, int n);
static void insert_each(const Sink *sink, const Taken *taken);
static void mark_refused(const Taken *taken, int at, int sqlstate);
static char *insert_statement(const Sink *sink);

/*
 * Keeps rows of a sink; source_ids says of which response each is.  Raises an
 * error when the sink was taken off.
 */
void
outbox_put(int64 run_id, const Sink *sink, HeapTuple *tuples,
		   const char **source_ids, int n)
{
	Relation	relation = table_open(own_relation("outbox"), RowExclusiveLock);
	Oid			sequence = own_relation("outbox_outbox_id_seq");
	HeapTuple  *kept = palloc(sizeof(HeapTuple) * n);
	TimestampTz now = GetCurrentTimestamp();
	volatile int at;
	int			guc_level;

	hold_sink(sink);
	guc_level = pin_formats();
	for (int i = 0; i < n; i++)
	{
		Datum		values[OUTBOX_COLUMNS] = {0};
		bool		nulls[OUTBOX_COLUMNS] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int64GetDatum(nextval_internal(sequence, false));
		values[1] = Int64GetDatum(sink->id);
		values[2] = Int64GetDatum(run_id);
		nulls[3] = source_ids[i] == NULL;
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(source_ids[i]);
		values[4] = JsonbPGetDatum(as_jsonb(sink, tuples[i]));
		values[5] = TimestampTzGetDatum(now);
		nulls[6] = true;
		kept[i] = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	}
	AtEOXact_GUC(true, guc_level);
	POINT("outbox.put");
	bulk_insert(relation, kept, n, &at);
	table_close(relation, NoLock);
	CommandCounterIncrement();
}

/*
 * Delivers up to most rows of a sink, oldest first, in the current transaction;
 * one that is refused is marked.  Raises the error of a sink that is away.
 */
void
outbox_deliver(const Sink *sink, int most, Delivered *delivered)
{
	Taken		taken;

	take(sink, 0, most, &taken);
	delivered->sink_id = sink->id;
	delivered->first = taken.n > 0 ? taken.first : 0;
	delivered->n = taken.n;
	POINT("outbox.taken");
	if (taken.n > 0 && try_insert(sink, taken.rows, taken.n) != 0)
		insert_each(sink, &taken);
}

/*
 * Marks a row that the sink refuses when it commits.  False when it is not
 * there any more, or somebody else is at it.
 */
bool
outbox_refuse(const Sink *sink, int64 outbox_id, int sqlstate)
{
	Taken		taken;

	take(sink, outbox_id, 1, &taken);
	if (taken.n == 1)
		mark_refused(&taken, 0, sqlstate);
	return taken.n == 1;
}

/* As the extension's owner: keeps the sink from being taken off. */
static void
hold_sink(const Sink *sink)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(sink->id)};
	OwnerScope	scope;

	owner_begin(&scope);
	if (SPI_execute_with_args("SELECT 1 FROM epro_etl.sink WHERE sink_id = $1 FOR KEY SHARE",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock a sink");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink %s was taken off during the run", sink->name),
				 errhint("What was committed stays; run the pipeline again for the rest.")));
	owner_end(&scope);
}

/*
 * Pins how a value is written as text, so that whoever reads it finds what was
 * meant.  Returns the level for AtEOXact_GUC().
 */
int
pin_formats(void)
{
	static const char *const pins[][2] = {
		{"datestyle", "ISO"},
		{"intervalstyle", "postgres"},
		{"extra_float_digits", "3"},
	};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(pins); i++)
		(void) set_config_option(pins[i][0], pins[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* The sink's columns that something is mapped to. */
static Jsonb *
as_jsonb(const Sink *sink, HeapTuple tuple)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SinkColumn *column = &sink->columns[i];
		JsonbValue	key;
		bool		isnull;
		Datum		value = heap_getattr(tuple, column->attnum, sink->shape, &isnull);

		if (isnull)
			continue;
		key.type = jbvString;
		key.val.string.val = unconstify(char *, column->name);
		key.val.string.len = strlen(column->name);
		pushJsonbValue(&state, WJB_KEY, &key);
		push_column(&state, getBaseType(column->type), value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * As the extension's owner: rows that nobody else delivers just now, or one of
 * them.
 */
static void
take(const Sink *sink, int64 outbox_id, int most, Taken *taken)
{
	Oid			types[] = {INT8OID, INT4OID, INT8OID};
	Datum		values[] = {Int64GetDatum(sink->id), Int32GetDatum(most), Int64GetDatum(outbox_id)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;

	owner_begin(&scope);
	if (SPI_execute_with_args("DELETE FROM epro_etl.outbox o WHERE o.outbox_id = ANY (ARRAY("
							  "SELECT c.outbox_id FROM epro_etl.outbox c JOIN epro_etl.sink s ON s.sink_id = c.sink_id"
							  " WHERE c.sink_id = $1 AND c.refused IS NULL AND ($3 = 0 OR c.outbox_id = $3)"
							  " ORDER BY c.outbox_id LIMIT $2 FOR KEY SHARE OF s FOR UPDATE OF c SKIP LOCKED))"
							  " RETURNING o.*",
							  3, types, values, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
		elog(ERROR, "could not read the outbox");
	taken->n = (int) SPI_processed;
	taken->rows = MemoryContextAlloc(memory, sizeof(Datum) * Max(taken->n, 1));
	taken->whole = MemoryContextAlloc(memory, sizeof(HeapTuple) * Max(taken->n, 1));
	for (int i = 0; i < taken->n; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(memory);
		bool		isnull;

		if (i == 0)
		{
			taken->shape = CreateTupleDescCopy(SPI_tuptable->tupdesc);
			taken->first = DatumGetInt64(heap_getattr(SPI_tuptable->vals[i], 1, taken->shape, &isnull));
		}
		taken->whole[i] = heap_copytuple(SPI_tuptable->vals[i]);
		taken->rows[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(heap_getattr(taken->whole[i], 5,
																			taken->shape, &isnull)));
		MemoryContextSwitchTo(caller);
	}
	owner_end(&scope);
}

/* As the role at hand.  All must arrive, or be there already. */
static void
insert(const Sink *sink, Datum *rows, int n)
{
	Oid			types[] = {JSONBARRAYOID};
	Datum		values[] = {PointerGetDatum(construct_array(rows, n, JSONBOID, -1, false, TYPALIGN_INT))};
	int			guc_level = pin_formats();
	SPIPlanPtr	plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	/* a plan for these rows would have them in it, and some server is told to log plans */
	plan = SPI_prepare_cursor(insert_statement(sink), 1, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL || SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not deliver to sink %s", sink->name);
	if (SPI_processed != (uint64) n && !sink->ignores)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("sink %s did not store a row that it was given", sink->name)));
	SPI_finish();
	AtEOXact_GUC(true, guc_level);
}

/*
 * Inserts rows in a subtransaction.  Returns 0, or the SQLSTATE with which the
 * sink refused one of them; raises the error of a sink that is away.
 */
static int
try_insert(const Sink *sink, Datum *rows, int n)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int refused = 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		POINT("outbox.insert");
		insert(sink, rows, n);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(memory);

		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		POINT("outbox.absorb");
		if (!error_is_rows(sink, error))
			ReThrowError(error);
		refused = error->sqlerrcode;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	return refused;
}

/* One by one, since one of them is refused. */
static void
insert_each(const Sink *sink, const Taken *taken)
{
	for (int i = 0; i < taken->n; i++)
	{
		int			refused;

		CHECK_FOR_INTERRUPTS();
		refused = try_insert(sink, &taken->rows[i], 1);
		if (refused != 0)
			mark_refused(taken, i, refused);
	}
}

/* Back into the outbox it goes, for a person to look at. */
static void
mark_refused(const Taken *taken, int at, int sqlstate)
{
	Relation	relation = table_open(own_relation("outbox"), RowExclusiveLock);
	Datum		values[OUTBOX_COLUMNS];
	bool		nulls[OUTBOX_COLUMNS];
	HeapTuple	tuple;
	volatile int row;

	heap_deform_tuple(taken->whole[at], taken->shape, values, nulls);
	values[4] = taken->rows[at];
	values[6] = CStringGetTextDatum(unpack_sql_state(sqlstate));
	nulls[6] = false;
	tuple = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	POINT("outbox.refuse");
	bulk_insert(relation, &tuple, 1, &row);
	table_close(relation, NoLock);
	CommandCounterIncrement();
}

/* Each column from its key, by its type's own input. */
static char *
insert_statement(const Sink *sink)
{
	StringInfoData names;
	StringInfoData reads;

	initStringInfo(&names);
	initStringInfo(&reads);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SinkColumn *column = &sink->columns[i];
		char	   *key = quote_literal_cstr(column->name);

		appendStringInfo(&names, "%s%s", i ? ", " : "", quote_identifier(column->name));
		appendStringInfo(&reads, i ? ", " : "");
		if (getBaseType(column->type) == JSONBOID)
			appendStringInfo(&reads, "r OPERATOR(pg_catalog.->) %s", key);
		else
			appendStringInfo(&reads, "CAST(r OPERATOR(pg_catalog.->>) %s AS %s)", key,
							 format_type_with_typemod(column->type, column->typmod));
	}
	return psprintf("INSERT INTO %s (%s) SELECT %s FROM pg_catalog.unnest($1) AS r%s",
					sink->name, names.data, reads.data,
					sink->ignores ? " ON CONFLICT DO NOTHING" : "");
}
