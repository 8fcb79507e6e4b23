/*
 * latest.c
 *		Of one key, the response that was authored last stands in the sink.
 *
 * For a sink with on_duplicate 'latest': a wide one, a table of this database,
 * with one unique key that a response has all columns of, and a column for
 * authored.  It takes the executor's road, a row at a time: find the row with
 * the key and lock it, then insert, replace, or leave it.
 *
 * The row that is replaced stays the same row, by an UPDATE: what refers to it
 * goes on doing so, and others of its key are held off by its lock.  Columns
 * that nothing is mapped to get their defaults, as an INSERT would give them: a
 * mark that somebody has put on the earlier answers says nothing about these.
 * Identity columns and those of other unique keys are the row's name, and stay.
 *
 * Concurrency.  A statement has a snapshot of its own, so the row that is
 * locked is the newest of its key, whoever wrote it.  If there is none, the
 * INSERT waits for whoever is inserting the key, and then does nothing; that
 * row is found in the next turn.  Locks are held to the transaction's end.
 * keep.c gives the rows of a chunk in the order of the key, so that chunks do
 * not wait for each other in a circle.  A row that cannot be seen though it
 * holds the key (row security) refuses the response as any unique key does.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "effects/point.h"
#include "effects/sink.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "words/errors.h"

/* how often a key is looked for that could neither be found nor inserted */
#define MOST_TURNS 5

typedef struct KeyColumn
{
	int			column;			/* of the sink's columns */
	Oid			equals;			/* operator of the key */
	FmgrInfo	compare;
	Oid			collation;
} KeyColumn;

typedef struct Latest
{
	char	   *name;			/* of the key's index */
	KeyColumn  *key;
	int			nkey;
	int			authored;		/* which of the sink's columns */
	int			run_id;			/* likewise, or -1 */
	int			source_id;
	int		   *found_at;		/* place of each of the sink's columns in what find gives */
	SPIPlanPtr	find;			/* parameters: the key's columns */
	SPIPlanPtr	insert;			/* does nothing where the key is held */
	SPIPlanPtr	replace;
} Latest;

pg_attribute_noreturn() static void refuse(Relation relation, const char *fault, const char *hint);
static void find_key(Sink *sink, Relation relation);
static bool is_key(const Sink *sink, Relation relation, Relation index);
static bool same_columns(Relation one, Relation other);
static void take_key(const Sink *sink, Latest *latest, Relation index);
static int	sink_column(const Sink *sink, AttrNumber attnum);
static int	column_of_fact(const Sink *sink, Fact fact);
static void check_privileges(const Sink *sink, Relation relation);
static void prepare(Sink *sink, Relation relation);
static char *find_statement(const Sink *sink, Relation relation);
static char *insert_statement(const Sink *sink);
static char *replace_statement(const Sink *sink, Relation relation);
static bool keeps_name(Relation relation, Form_pg_attribute attribute);
static void append_key(StringInfo out, const Sink *sink, bool by_column);
static void insert_one(const Sink *sink, int at, Datum *values,
					   const char *nulls, LatestDone *done);
static bool has_key(const Latest *latest, const char *nulls);
static bool find_row(const Latest *latest, const Datum *values);
static void meet_row(const Sink *sink, int at, Datum *values,
					 const char *nulls, LatestDone *done);
static bool says_same(const Sink *sink, const Datum *values, const char *nulls);
static bool is_bookkeeping(Fact fact);
static Datum as_stored(const SinkColumn *column, Datum value);
pg_attribute_noreturn() static void refuse_duplicate(const Sink *sink,
													 const char *why);
static void note_superseded(const Sink *sink, int by, LatestDone *done);
static Datum found(const Latest *latest, int column, bool *isnull);

/*
 * Compiles it for a sink whose columns are known, in the current memory
 * context.  Raises an error when the relation does not fit, or the current
 * user may not do what it takes.
 */
void
latest_open(Sink *sink, Relation relation)
{
	if (sink->is_long)
		refuse(relation, "it is long, and a response several rows of it",
			   "Make it wide, a row a response, or take on_duplicate => 'reject'.");
	if (sink->remote || !strchr("rp", relation->rd_rel->relkind))
		refuse(relation, "it is no table of this database alone",
			   "Load into a local table, or take on_duplicate => 'reject' or 'ignore'.");
	if (relation->rd_rel->relhasrules)
		refuse(relation, "it has rules",
			   "Use triggers instead of rules, or take on_duplicate => 'reject'.");
	if (column_of_fact(sink, FACT_AUTHORED) < 0)
		refuse(relation, "it has no column for \"authored\"",
			   "Give it a column authored of type timestamptz, or map one with columns => '{\"column\": \"authored\"}'.");
	sink->latest = palloc0(sizeof(Latest));
	sink->latest->authored = column_of_fact(sink, FACT_AUTHORED);
	sink->latest->run_id = column_of_fact(sink, FACT_RUN_ID);
	sink->latest->source_id = column_of_fact(sink, FACT_SOURCE_ID);
	find_key(sink, relation);
	check_privileges(sink, relation);
	prepare(sink, relation);
}

static void
refuse(Relation relation, const char *fault, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_RELATION_UNFIT),
			 errmsg("sink \"%s\" cannot hold the latest response of a key: %s",
					RelationGetRelationName(relation), fault),
			 errhint("%s", hint)));
}

/* The one key of a response; two over the same columns are one. */
static void
find_key(Sink *sink, Relation relation)
{
	List	   *indexes = RelationGetIndexList(relation);
	Relation	key = NULL;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!is_key(sink, relation, index) || (key != NULL && same_columns(key, index)))
		{
			index_close(index, NoLock);
			continue;
		}
		if (key != NULL)
			refuse(relation, psprintf("\"%s\" and \"%s\" are both keys of a response",
									  RelationGetRelationName(key), RelationGetRelationName(index)),
				   "Leave it one unique key over columns that responses fill, the one that tells resent responses; a unique key of a column that nothing is mapped to may stay.");
		key = index;
	}
	if (key == NULL)
		refuse(relation, "it has no unique key that responses could meet",
			   "Give it a primary key or unique constraint over columns that responses fill, such as (study, subject_key, visit): not deferrable, not partial, without expressions, NULLS DISTINCT, and without authored, run_id and loaded_at.");
	take_key(sink, sink->latest, key);
	index_close(key, NoLock);
	list_free(indexes);
}

/*
 * Is it a unique key that a response has all columns of, and whose columns,
 * compared as the columns are, tell the same as it does?
 */
static bool
is_key(const Sink *sink, Relation relation, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
		form->indnullsnotdistinct || index->rd_rel->relam != BTREE_AM_OID ||
		RelationGetIndexExpressions(index) != NIL || RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attnum = form->indkey.values[i];
		int			column = sink_column(sink, attnum);
		Fact		fact;

		if (column < 0)
			return false;
		fact = sink->columns[column].fact;
		if (fact == FACT_AUTHORED || fact == FACT_RUN_ID || fact == FACT_LOADED_AT)
			return false;
		if (index->rd_indcollation[i] != TupleDescAttr(RelationGetDescr(relation), attnum - 1)->attcollation)
			return false;
	}
	return true;
}

static bool
same_columns(Relation one, Relation other)
{
	Bitmapset  *sets[2] = {NULL, NULL};

	for (int i = 0; i < one->rd_index->indnkeyatts; i++)
		sets[0] = bms_add_member(sets[0], one->rd_index->indkey.values[i]);
	for (int i = 0; i < other->rd_index->indnkeyatts; i++)
		sets[1] = bms_add_member(sets[1], other->rd_index->indkey.values[i]);
	return bms_equal(sets[0], sets[1]);
}

static void
take_key(const Sink *sink, Latest *latest, Relation index)
{
	latest->name = pstrdup(RelationGetRelationName(index));
	latest->nkey = index->rd_index->indnkeyatts;
	latest->key = palloc0(sizeof(KeyColumn) * latest->nkey);
	for (int i = 0; i < latest->nkey; i++)
	{
		KeyColumn  *key = &latest->key[i];
		Oid			family = index->rd_opfamily[i];
		Oid			type = index->rd_opcintype[i];
		Oid			compare = get_opfamily_proc(family, type, type, BTORDER_PROC);

		key->column = sink_column(sink, index->rd_index->indkey.values[i]);
		key->equals = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
		key->collation = index->rd_indcollation[i];
		if (!OidIsValid(key->equals) || !OidIsValid(compare))
			elog(ERROR, "index \"%s\" has no operator or order for its type", latest->name);
		fmgr_info(compare, &key->compare);
	}
}

/* Which of the sink's columns it is, or -1. */
static int
sink_column(const Sink *sink, AttrNumber attnum)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].attnum == attnum)
			return i;
	}
	return -1;
}

static int
column_of_fact(const Sink *sink, Fact fact)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].fact == fact)
			return i;
	}
	return -1;
}

/* The earlier row is read whole, and every column may be set. */
static void
check_privileges(const Sink *sink, Relation relation)
{
	Oid			relid = RelationGetRelid(relation);

	if ((pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		 pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK) ||
		(pg_class_aclcheck(relid, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		 pg_attribute_aclcheck_all(relid, GetUserId(), ACL_UPDATE, ACLMASK_ALL) != ACLCHECK_OK))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for sink \"%s\"", RelationGetRelationName(relation)),
				 errhint("A sink with on_duplicate 'latest' needs SELECT and UPDATE beside INSERT.")));
}

/* The three statements. */
static void
prepare(Sink *sink, Relation relation)
{
	MemoryContext memory = CurrentMemoryContext;
	Latest	   *latest = sink->latest;
	Oid		   *types = palloc(sizeof(Oid) * sink->ncolumns);
	Oid		   *key_types = palloc(sizeof(Oid) * latest->nkey);
	char	   *find = find_statement(sink, relation);
	char	   *insert = insert_statement(sink);
	char	   *replace = replace_statement(sink, relation);

	for (int i = 0; i < sink->ncolumns; i++)
		types[i] = sink->columns[i].type;
	for (int i = 0; i < latest->nkey; i++)
		key_types[i] = types[latest->key[i].column];
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	latest->find = plan_keep(SPI_prepare(find, latest->nkey, key_types), memory);
	latest->insert = plan_keep(SPI_prepare(insert, sink->ncolumns, types), memory);
	latest->replace = plan_keep(SPI_prepare(replace, sink->ncolumns, types), memory);
	SPI_finish();
}

/*
 * All columns of the row with the key, locked as its UPDATE will lock it.  A
 * child table's rows are not the key's; a partition's are.
 */
static char *
find_statement(const Sink *sink, Relation relation)
{
	Latest	   *latest = sink->latest;
	StringInfoData out;
	int			n = 0;

	latest->found_at = palloc0(sizeof(int) * sink->ncolumns);
	initStringInfo(&out);
	appendStringInfoString(&out, "SELECT ");
	for (int i = 0; i < sink->shape->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sink->shape, i);
		int			column = sink_column(sink, attribute->attnum);

		if (attribute->attisdropped)
			continue;
		appendStringInfo(&out, "%st.%s", n++ ? ", " : "",
						 quote_identifier(NameStr(attribute->attname)));
		if (column >= 0)
			latest->found_at[column] = n;
	}
	appendStringInfo(&out, " FROM %s%s t WHERE ",
					 relation->rd_rel->relkind == RELKIND_RELATION ? "ONLY " : "", sink->name);
	append_key(&out, sink, false);
	appendStringInfoString(&out, " FOR NO KEY UPDATE");
	return out.data;
}

static char *
insert_statement(const Sink *sink)
{
	StringInfoData names;
	StringInfoData places;
	StringInfoData key;

	initStringInfo(&names);
	initStringInfo(&places);
	initStringInfo(&key);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		appendStringInfo(&names, "%s%s", i ? ", " : "", quote_identifier(sink->columns[i].name));
		appendStringInfo(&places, "%s$%d", i ? ", " : "", i + 1);
	}
	for (int i = 0; i < sink->latest->nkey; i++)
		appendStringInfo(&key, "%s%s", i ? ", " : "",
						 quote_identifier(sink->columns[sink->latest->key[i].column].name));
	return psprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO NOTHING",
					sink->name, names.data, places.data, key.data);
}

static char *
replace_statement(const Sink *sink, Relation relation)
{
	StringInfoData out;
	int			n = 0;

	initStringInfo(&out);
	appendStringInfo(&out, "UPDATE %s%s t SET ",
					 relation->rd_rel->relkind == RELKIND_RELATION ? "ONLY " : "", sink->name);
	for (int i = 0; i < sink->shape->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sink->shape, i);
		int			column = sink_column(sink, attribute->attnum);

		if (attribute->attisdropped || attribute->attgenerated != '\0' ||
			(column < 0 && keeps_name(relation, attribute)))
			continue;
		appendStringInfo(&out, "%s%s = ", n++ ? ", " : "",
						 quote_identifier(NameStr(attribute->attname)));
		if (column >= 0)
			appendStringInfo(&out, "$%d", column + 1);
		else
			appendStringInfoString(&out, "DEFAULT");
	}
	appendStringInfoString(&out, " WHERE ");
	append_key(&out, sink, true);
	return out.data;
}

/* Does a column that nothing is mapped to say which row it is? */
static bool
keeps_name(Relation relation, Form_pg_attribute attribute)
{
	List	   *indexes;
	ListCell   *cell;
	bool		keeps = attribute->attidentity != '\0';

	indexes = RelationGetIndexList(relation);
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		for (int i = 0; index->rd_index->indisunique && i < index->rd_index->indnkeyatts; i++)
			keeps |= index->rd_index->indkey.values[i] == attribute->attnum;
		index_close(index, NoLock);
	}
	list_free(indexes);
	return keeps;
}

/* "The key is that of the parameters", which are the key's columns or all. */
static void
append_key(StringInfo out, const Sink *sink, bool by_column)
{
	for (int i = 0; i < sink->latest->nkey; i++)
	{
		const KeyColumn *key = &sink->latest->key[i];
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(key->equals));
		Form_pg_operator form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for operator %u", key->equals);
		form = (Form_pg_operator) GETSTRUCT(tuple);
		appendStringInfo(out, "%st.%s OPERATOR(%s.%s) $%d", i ? " AND " : "",
						 quote_identifier(sink->columns[key->column].name),
						 quote_identifier(get_namespace_name(form->oprnamespace)),
						 NameStr(form->oprname), (by_column ? key->column : i) + 1);
		ReleaseSysCache(tuple);
	}
}

/* In which order two rows of a sink go in: that of the key, NULLs last. */
int
latest_compare(const Sink *sink, HeapTuple one, HeapTuple other)
{
	for (int i = 0; i < sink->latest->nkey; i++)
	{
		KeyColumn  *key = &sink->latest->key[i];
		AttrNumber	attnum = sink->columns[key->column].attnum;
		bool		nulls[2];
		Datum		values[2];
		int			order;

		values[0] = heap_getattr(one, attnum, sink->shape, &nulls[0]);
		values[1] = heap_getattr(other, attnum, sink->shape, &nulls[1]);
		if (nulls[0] || nulls[1])
			order = (int) nulls[0] - (int) nulls[1];
		else
			order = DatumGetInt32(FunctionCall2Coll(&key->compare, key->collation,
													values[0], values[1]));
		if (order != 0)
			return order;
	}
	return 0;
}

/* The name of the key's index. */
const char *
latest_key_name(const Sink *sink)
{
	return sink->latest->name;
}

/*
 * Stores n rows, connected to SPI; *at is the number of the one at hand.
 * Raises a unique violation for a row that has to give way to the one that is
 * there.
 */
void
latest_insert(Sink *sink, HeapTuple *tuples, int n, volatile int *at,
			  LatestDone *done)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "epro_etl latest response",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	char	   *nulls = palloc0(sink->ncolumns + 1);
	Datum	   *values = palloc(sizeof(Datum) * sink->ncolumns);

	done->superseded = MemoryContextAlloc(done->memory, sizeof(Superseded) * n);
	done->resent = MemoryContextAlloc(done->memory, sizeof(int) * n);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		*at = i;
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		store_parameters(sink, tuples[i], values, nulls);
		insert_one(sink, i, values, nulls, done);
		MemoryContextSwitchTo(caller);
	}
	MemoryContextDelete(scratch);
}

/* Inserts the row at hand, or does what the one that holds its key calls for. */
static void
insert_one(const Sink *sink, int at, Datum *values, const char *nulls,
		   LatestDone *done)
{
	const Latest *latest = sink->latest;

	for (int turn = 0; turn < MOST_TURNS && has_key(latest, nulls); turn++)
	{
		if (find_row(latest, values))
		{
			meet_row(sink, at, values, nulls, done);
			return;
		}
		POINT("latest.insert");
		if (SPI_execute_plan(latest->insert, values, nulls, false, 0) == SPI_OK_INSERT &&
			SPI_processed == 1)
			return;
	}
	/* not to be found and not to be inserted: the sink says itself what it is */
	store_execute(sink, sink->plan, values, nulls, 1);
}

/* A NULL in the key is like no other: such a row meets none. */
static bool
has_key(const Latest *latest, const char *nulls)
{
	for (int i = 0; i < latest->nkey; i++)
	{
		if (nulls[latest->key[i].column] == 'n')
			return false;
	}
	return true;
}

/* Finds the row with the key of the one at hand, into SPI_tuptable, and locks it. */
static bool
find_row(const Latest *latest, const Datum *values)
{
	Datum	   *key = palloc(sizeof(Datum) * latest->nkey);

	for (int i = 0; i < latest->nkey; i++)
		key[i] = values[latest->key[i].column];
	if (SPI_execute_plan(latest->find, key, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for a row's key");
	if (SPI_processed > 0)
		return true;
	SPI_freetuptable(SPI_tuptable);
	return false;
}

/* What was found has the key of the row at hand: which of them stands? */
static void
meet_row(const Sink *sink, int at, Datum *values, const char *nulls,
		 LatestDone *done)
{
	const Latest *latest = sink->latest;
	SPITupleTable *there = SPI_tuptable;
	bool		isnull;
	TimestampTz earlier = DatumGetTimestampTz(found(latest, latest->authored, &isnull));
	TimestampTz later;

	if (says_same(sink, values, nulls))
	{
		done->resent[done->nresent++] = at;
		SPI_freetuptable(there);
		return;
	}
	if (isnull || nulls[latest->authored] == 'n')
		refuse_duplicate(sink, "the sink already holds a row with this key, and which was authored later cannot be told");
	later = DatumGetTimestampTz(as_stored(&sink->columns[latest->authored],
										  values[latest->authored]));
	if (later < earlier)
		refuse_duplicate(sink, "the sink already holds a row with this key that was authored later");
	if (later == earlier)
		refuse_duplicate(sink, "the sink already holds a row with this key that was authored at the same time, and says otherwise");
	note_superseded(sink, at, done);
	SPI_freetuptable(there);
	POINT("latest.replace");
	store_execute(sink, latest->replace, values, nulls, 1);
}

/*
 * Does the row that was found say what the one at hand does, byte by byte, but
 * for what the run itself has put there?
 */
static bool
says_same(const Sink *sink, const Datum *values, const char *nulls)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SinkColumn *column = &sink->columns[i];
		Datum		there;
		bool		isnull;
		int16		len;
		bool		by_value;

		if (is_bookkeeping(column->fact))
			continue;
		there = found(sink->latest, i, &isnull);
		if (isnull != (nulls[i] == 'n'))
			return false;
		if (isnull)
			continue;
		get_typlenbyval(column->type, &len, &by_value);
		if (!datum_image_eq(there, as_stored(column, values[i]), by_value, len))
			return false;
	}
	return true;
}

static bool
is_bookkeeping(Fact fact)
{
	return fact == FACT_SOURCE_ID || fact == FACT_RUN_ID ||
		fact == FACT_LOADED_AT || fact == FACT_FORM_VERSION;
}

/* A time as its column rounds it; all else is formed as the column has it. */
static Datum
as_stored(const SinkColumn *column, Datum value)
{
	Datum		typmod = Int32GetDatum(column->typmod);

	if (column->typmod < 0)
		return value;
	switch (column->type)
	{
		case TIMESTAMPTZOID:
			return DirectFunctionCall2(timestamptz_scale, value, typmod);
		case TIMEOID:
			return DirectFunctionCall2(time_scale, value, typmod);
		case TIMETZOID:
			return DirectFunctionCall2(timetz_scale, value, typmod);
	}
	return value;
}

static void
refuse_duplicate(const Sink *sink, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("%s", why),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, sink->latest->name)));
}

/* Keeps what was found: the row at hand takes its place. */
static void
note_superseded(const Sink *sink, int by, LatestDone *done)
{
	const Latest *latest = sink->latest;
	Superseded *made = &done->superseded[done->nsuperseded];
	TupleDesc	shape = SPI_tuptable->tupdesc;
	Datum	   *values = palloc(sizeof(Datum) * shape->natts);
	bool	   *nulls = palloc(sizeof(bool) * shape->natts);
	Jsonb	   *row;
	Datum		id;
	bool		isnull;
	int			guc_level = pin_formats();

	heap_deform_tuple(SPI_tuptable->vals[0], shape, values, nulls);
	row = row_as_jsonb(shape, values, nulls);
	memset(made, 0, sizeof(*made));
	made->by = by;
	made->row = MemoryContextAlloc(done->memory, VARSIZE(row));
	memcpy(made->row, row, VARSIZE(row));
	if (latest->run_id >= 0)
		made->run_id = DatumGetInt64(found(latest, latest->run_id, &isnull));
	if (latest->source_id >= 0)
	{
		Oid			output;
		bool		varlena;

		id = found(latest, latest->source_id, &isnull);
		getTypeOutputInfo(sink->columns[latest->source_id].type, &output, &varlena);
		if (!isnull)
			made->source_id = MemoryContextStrdup(done->memory, OidOutputFunctionCall(output, id));
	}
	AtEOXact_GUC(true, guc_level);
	done->nsuperseded++;
}

/* One of the sink's columns in the row that was found; 0 where it is NULL. */
static Datum
found(const Latest *latest, int column, bool *isnull)
{
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									  latest->found_at[column], isnull);

	return *isnull ? (Datum) 0 : value;
}
