/*
 * store.c
 *		The only writer of sinks.
 *
 * A sink's rows are formed while the response is at hand, so that an answer
 * that does not fit its column is found before the heap is touched.  Plain
 * relations then take whole chunks by multi-insert (bulk.c); partitioned and
 * foreign tables, views, and relations with triggers, rules, row security or
 * generated columns take the executor's road, a prepared INSERT a row, or to
 * another server many rows a statement.  The result is the same.
 *
 * What a sink is made of is sink.c's.  The caller holds its lock.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "commands/trigger.h"
#include "effects/point.h"
#include "effects/sink.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "stages/form.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* one statement to a remote sink; its server's wrapper may send it in parts */
#define STATEMENT_ROWS 500
#define STATEMENT_BYTES (4 * 1024 * 1024)

static bool form_item_rows(Sink *sink, const Response *response,
						   const StoreFacts *facts, bool fits,
						   MemoryContext memory, SinkRows *rows);
static bool is_answered(const Value *value);
static bool form_columns(Sink *sink, const Response *response,
						 const StoreFacts *facts, bool of_item);
static const char *column_pointer(const Sink *sink, const SinkColumn *column);
static HeapTuple form_tuple(Sink *sink, MemoryContext memory);
static Relation open_direct(Sink *sink);
static void insert_directly(Sink *sink, HeapTuple *tuples, int n,
							volatile int *at);
static void insert_each(Sink *sink, HeapTuple *tuples, int n, volatile int *at);
static void insert_many(Sink *sink, HeapTuple *tuples, int n, volatile int *at);
static int	statement_rows(HeapTuple *tuples, int n);
static Datum column_array(const Sink *sink, const SinkColumn *column,
						  HeapTuple *tuples, int n);
static void settle_deferred(const Sink *sink);
static void set_deferred(const Sink *sink, bool deferred);
static void check_domain_null(const SinkColumn *column);
static ConversionFault fact_datum(const Sink *sink, const SinkColumn *column,
								  const Response *response,
								  const StoreFacts *facts,
								  Datum *datum, bool *isnull);
static void span_value(Value *value, const char *data, int len);
static void text_value(Value *value, const char *text);

/*
 * Forms the sink's rows of a response, in the given memory context: one, or in
 * a long sink one for each item that is answered.  Returns false, with
 * findings, when an answer does not fit its column; there are no rows then.
 * May raise an error of a type's input function or a column's default.
 */
bool
sink_form_rows(Sink *sink, const Response *response, const StoreFacts *facts,
			   MemoryContext memory, SinkRows *rows)
{
	bool		fits;

	rows->n = 0;
	rows->tuples = NULL;
	sink->item = NULL;
	memset(sink->nulls, true, sizeof(bool) * sink->shape->natts);
	fits = form_columns(sink, response, facts, false);
	if (sink->is_long)
		return form_item_rows(sink, response, facts, fits, memory, rows);
	if (!fits)
		return false;
	rows->tuples = MemoryContextAlloc(memory, sizeof(HeapTuple));
	rows->tuples[rows->n++] = form_tuple(sink, memory);
	return true;
}

/*
 * A row an item; the columns of the response itself are formed already, and
 * "fits" says whether its facts do.
 */
static bool
form_item_rows(Sink *sink, const Response *response, const StoreFacts *facts,
			   bool fits, MemoryContext memory, SinkRows *rows)
{
	const CompiledForm *form = sink->form;
	int			answered = 0;

	for (int i = 0; i < form->nnodes; i++)
		answered += form_node_is_item(form->nodes[i]) &&
			is_answered(&response->values[i]);
	if (answered == 0)
		return fits;
	rows->tuples = MemoryContextAlloc(memory, sizeof(HeapTuple) * answered);

	sink->item_no = 0;
	for (int i = 0; i < form->nnodes; i++)
	{
		if (!form_node_is_item(form->nodes[i]))
			continue;
		sink->item_no++;
		if (!is_answered(&response->values[i]))
			continue;
		sink->item = form->nodes[i];
		if (!form_columns(sink, response, facts, true))
			fits = false;
		if (fits)
			rows->tuples[rows->n++] = form_tuple(sink, memory);
	}
	sink->item = NULL;
	if (!fits)
		rows->n = 0;
	return fits;
}

static bool
is_answered(const Value *value)
{
	return value->kind > VALUE_NULL;
}

/*
 * Fills sink->values: the columns that hold what a long sink knows of the item
 * at hand, or all others.  False, with findings, when something does not fit.
 */
static bool
form_columns(Sink *sink, const Response *response, const StoreFacts *facts,
			 bool of_item)
{
	bool		fits = true;

	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SinkColumn *column = &sink->columns[i];
		int			at = column->attnum - 1;
		ConversionFault fault;

		if ((column->fact >= FACT_ITEM) != of_item)
			continue;
		sink->at = i;
		if (column->item != NULL)
			fault = value_datum(&response->values[column->item->slot],
								column->type, column->typmod,
								&sink->values[at], &sink->nulls[at]);
		else
			fault = fact_datum(sink, column, response, facts,
							   &sink->values[at], &sink->nulls[at]);
		if (fault == NULL && column->is_domain && sink->nulls[at])
			check_domain_null(column);
		if (fault != NULL)
		{
			finding_add(response->findings, FINDING_CONVERSION, SEVERITY_ERROR,
						column_pointer(sink, column), column->name, fault);
			fits = false;
		}
	}
	sink->at = -1;
	return fits;
}

/* Which item a column is about; the empty pointer is the whole response. */
static const char *
column_pointer(const Sink *sink, const SinkColumn *column)
{
	const FormNode *item = column->fact >= FACT_ITEM ? sink->item : column->item;

	return item ? item->pointer : "";
}

/* A row of sink->values, and of defaults where nothing is mapped. */
static HeapTuple
form_tuple(Sink *sink, MemoryContext memory)
{
	MemoryContext caller;
	HeapTuple	formed;

	if (sink->ndefaults > 0)
		ResetExprContext(sink->context);
	for (int i = 0; i < sink->ndefaults; i++)
	{
		SinkDefault *with = &sink->defaults[i];

		sink->values[with->attnum - 1] =
			ExecEvalExprSwitchContext(with->expression, sink->context,
									  &sink->nulls[with->attnum - 1]);
	}
	caller = MemoryContextSwitchTo(memory);
	formed = heap_form_tuple(sink->shape, sink->values, sink->nulls);
	MemoryContextSwitchTo(caller);
	return formed;
}

/*
 * Inserts n rows of a sink.  Raises the error of the first row that is
 * refused, with *at its number, or -1 where the row is not known.  Where the
 * latest response stands, *done says what became of rows that met their key;
 * elsewhere it stays as it was.
 */
void
sink_insert(Sink *sink, HeapTuple *tuples, int n, volatile int *at,
			LatestDone *done)
{
	*at = -1;
	if (sink->direct)
	{
		insert_directly(sink, tuples, n, at);
		POINT("sink.direct");
		return;
	}

	/* a constraint that waits for the commit would refuse all or nothing */
	settle_deferred(sink);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (sink->latest != NULL)
		latest_insert(sink, tuples, n, at, done);
	else if (sink->plan_many != NULL)
		insert_many(sink, tuples, n, at);
	else
		insert_each(sink, tuples, n, at);
	POINT("sink.executed");
	*at = -1;
	SPI_finish();
	set_deferred(sink, true);
}

/*
 * Which of n rows a key of the sink would refuse now: by[i] is its index, or
 * InvalidOid.  Writes nothing.  Only for sinks that are written directly.
 */
void
sink_find_conflicts(Sink *sink, HeapTuple *tuples, int n, Oid *by)
{
	Relation	relation = open_direct(sink);

	bulk_find_conflicts(relation, tuples, n, by);
	table_close(relation, NoLock);
}

static void
insert_directly(Sink *sink, HeapTuple *tuples, int n, volatile int *at)
{
	Relation	relation = open_direct(sink);

	bulk_insert(relation, tuples, n, at);
	table_close(relation, NoLock);
}

/* Locked, and as it was when the run began. */
static Relation
open_direct(Sink *sink)
{
	Relation	relation = table_open(sink->relid, RowExclusiveLock);

	if (!equalTupleDescs(sink->shape, RelationGetDescr(relation)) ||
		!bulk_suits(relation, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink \"%s\" was altered during the run",
						RelationGetRelationName(relation)),
				 errhint("What was committed stays; run the pipeline again for the rest.")));
	return relation;
}

/* A statement a row. */
static void
insert_each(Sink *sink, HeapTuple *tuples, int n, volatile int *at)
{
	char	   *nulls = palloc(sink->ncolumns + 1);
	Datum	   *values = palloc(sizeof(Datum) * sink->ncolumns);

	nulls[sink->ncolumns] = '\0';
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		*at = i;
		store_parameters(sink, tuples[i], values, nulls);
		store_execute(sink, sink->plan, values, nulls, 1);
	}
}

/* A row as a statement of one row takes it: a parameter a column. */
void
store_parameters(const Sink *sink, HeapTuple tuple, Datum *values, char *nulls)
{
	for (int c = 0; c < sink->ncolumns; c++)
	{
		bool		isnull;

		values[c] = heap_getattr(tuple, sink->columns[c].attnum, sink->shape, &isnull);
		nulls[c] = isnull ? 'n' : ' ';
	}
}

/*
 * Many rows a statement, so that they cross the network together.  Of a
 * statement that is refused, the row is not known.
 */
static void
insert_many(Sink *sink, HeapTuple *tuples, int n, volatile int *at)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "epro_etl rows of a statement",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	Datum	   *arrays = palloc(sizeof(Datum) * sink->ncolumns);

	for (int from = 0, count; from < n; from += count)
	{
		CHECK_FOR_INTERRUPTS();
		count = statement_rows(tuples + from, n - from);
		*at = count == 1 ? from : -1;
		MemoryContextReset(memory);
		MemoryContextSwitchTo(memory);
		for (int c = 0; c < sink->ncolumns; c++)
			arrays[c] = column_array(sink, &sink->columns[c], tuples + from, count);
		MemoryContextSwitchTo(caller);
		store_execute(sink, sink->plan_many, arrays, NULL, count);
	}
	MemoryContextDelete(memory);
}

/* How many of the next n rows go in together. */
static int
statement_rows(HeapTuple *tuples, int n)
{
	Size		bytes = 0;
	int			count = 0;

	while (count < Min(n, STATEMENT_ROWS) && bytes < STATEMENT_BYTES)
		bytes += tuples[count++]->t_len;
	return count;
}

/* One column of n rows, as an array in the current memory context. */
static Datum
column_array(const Sink *sink, const SinkColumn *column, HeapTuple *tuples,
			 int n)
{
	Datum	   *values = palloc(sizeof(Datum) * n);
	bool	   *nulls = palloc(sizeof(bool) * n);
	int			lower = 1;
	int16		len;
	bool		by_value;
	char		align;

	for (int i = 0; i < n; i++)
		values[i] = heap_getattr(tuples[i], column->attnum, sink->shape, &nulls[i]);
	get_typlenbyvalalign(column->type, &len, &by_value, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, column->type,
											  len, by_value, align));
}

/*
 * Runs an INSERT of n rows, or an UPDATE: all must arrive, or be there already.
 * Connected to SPI.
 */
void
store_execute(const Sink *sink, SPIPlanPtr plan, Datum *values,
			  const char *nulls, uint64 n)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if ((result != SPI_OK_INSERT && result != SPI_OK_UPDATE) ||
		(SPI_processed != n && !sink->ignores))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("sink \"%s\" did not store a row that it was given", sink->name)));
}

/*
 * Where sink_form_rows() was when it raised an error: the item's JSON Pointer
 * and the column.  False when it was at no column.
 */
bool
sink_error_place(const Sink *sink, const char **location, const char **column)
{
	const SinkColumn *at = sink->at >= 0 ? &sink->columns[sink->at] : NULL;

	if (at == NULL)
		return false;
	*location = column_pointer(sink, at);
	*column = at->name;
	return true;
}

/*
 * Has the sink's deferred constraints checked at once from here on.  What is
 * pending already, inline, is the caller's own: no response is to blame.
 */
static void
settle_deferred(const Sink *sink)
{
	MemoryContext memory = CurrentMemoryContext;

	PG_TRY();
	{
		set_deferred(sink, false);
	}
	PG_CATCH();
	{
		if (!error_is_datas(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(memory);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("the transaction has violated a deferred constraint of sink \"%s\" before the run",
						sink->name),
				 errhint("SET CONSTRAINTS ALL IMMEDIATE shows which; correct it and run again.")));
	}
	PG_END_TRY();
}

/* Makes them be checked at once, or wait again; rolled back with an error. */
static void
set_deferred(const Sink *sink, bool deferred)
{
	ConstraintsSetStmt *statement;

	if (sink->deferred == NIL)
		return;
	statement = makeNode(ConstraintsSetStmt);
	statement->constraints = sink->deferred;
	statement->deferred = deferred;
	AfterTriggerSetState(statement);
}

/* A domain may refuse NULL: its input function knows, and raises an error. */
static void
check_domain_null(const SinkColumn *column)
{
	Oid			input;
	Oid			ioparam;

	getTypeInputInfo(column->type, &input, &ioparam);
	(void) OidInputFunctionCall(input, NULL, ioparam, column->typmod);
}

static ConversionFault
fact_datum(const Sink *sink, const SinkColumn *column, const Response *response,
		   const StoreFacts *facts, Datum *datum, bool *isnull)
{
	Value		value;

	*isnull = false;
	*datum = (Datum) 0;
	switch (column->fact)
	{
		case FACT_AUTHORED:
			*datum = TimestampTzGetDatum(timestamptz_rounded(response->authored, column->typmod));
			*isnull = response->authored_isnull;
			return NULL;
		case FACT_LOADED_AT:
			*datum = TimestampTzGetDatum(timestamptz_rounded(facts->loaded_at, column->typmod));
			return NULL;
		case FACT_RUN_ID:
			*datum = Int64GetDatum(facts->run_id);
			return NULL;
		case FACT_KEY_VERSION:
			/* no key has made a random code */
			memset(&value, 0, sizeof(value));
			value.kind = facts->form->subject_domain == NULL ? VALUE_INTEGER : VALUE_NULL;
			value.number = facts->key_version;
			break;
		case FACT_SOURCE_ID:
			if (facts->source_id_isnull || facts->source_id_type == column->type)
			{
				*datum = facts->source_id;
				*isnull = facts->source_id_isnull;
				return NULL;
			}
			span_value(&value, response->source_id.data, response->source_id.len);
			break;
		case FACT_STUDY:
			span_value(&value, response->study.data, response->study.len);
			break;
		case FACT_SUBJECT_KEY:
			span_value(&value, response->subject_key, (int) strlen(response->subject_key));
			break;
		case FACT_FORM:
			text_value(&value, facts->form->name);
			break;
		case FACT_FORM_VERSION:
			text_value(&value, facts->form->version);
			break;
		case FACT_VISIT:
			span_value(&value, response->visit.data, response->visit.len);
			break;
		case FACT_ITEM:
			text_value(&value, sink->item->name);
			break;
		case FACT_ITEM_NO:
			memset(&value, 0, sizeof(value));
			value.kind = VALUE_INTEGER;
			value.number = sink->item_no;
			break;
		case FACT_LOCATION:
			text_value(&value, sink->item->pointer);
			break;
		case FACT_VALUE:
			value = response->values[sink->item->slot];
			break;
		case FACT_VALUE_NUMBER:
			value = response->values[sink->item->slot];
			if (value.kind == VALUE_INTEGER || value.kind == VALUE_NUMERIC)
				break;
			*isnull = true;
			return NULL;
		case FACT_NONE:
			Assert(false);
			return "is no fact";
	}
	return value_datum(&value, column->type, column->typmod, datum, isnull);
}

static void
span_value(Value *value, const char *data, int len)
{
	memset(value, 0, sizeof(*value));
	value->kind = data ? VALUE_TEXT : VALUE_NULL;
	value->data = data;
	value->len = len;
}

static void
text_value(Value *value, const char *text)
{
	span_value(value, text, (int) strlen(text));
}
