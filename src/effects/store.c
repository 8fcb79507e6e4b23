/*
 * store.c
 *		The only writer of sinks.
 *
 * A sink's row is formed while the response is at hand, so that an answer
 * that does not fit its column is found before the heap is touched.  Plain
 * relations then take whole chunks by multi-insert (bulk.c); partitioned and
 * foreign tables, views, and relations with triggers, rules, row security or
 * generated columns take the executor's road, a prepared INSERT a row.  The
 * result is the same.
 *
 * Columns are matched by name: a response's own facts first, then items.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "effects/effects.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "stages/form.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* What a response knows besides its answers, by its column's name. */
typedef enum Fact
{
	FACT_NONE = -1,				/* an item */
	FACT_STUDY = 0,
	FACT_SUBJECT_KEY,
	FACT_FORM,
	FACT_FORM_VERSION,
	FACT_VISIT,
	FACT_AUTHORED,
	FACT_SOURCE_ID,
	FACT_RUN_ID,
	FACT_LOADED_AT
} Fact;

static const char *const fact_name[] = {
	[FACT_STUDY] = "study",
	[FACT_SUBJECT_KEY] = "subject_key",
	[FACT_FORM] = "form",
	[FACT_FORM_VERSION] = "form_version",
	[FACT_VISIT] = "visit",
	[FACT_AUTHORED] = "authored",
	[FACT_SOURCE_ID] = "source_id",
	[FACT_RUN_ID] = "run_id",
	[FACT_LOADED_AT] = "loaded_at",
};

typedef struct SinkColumn
{
	AttrNumber	attnum;
	Oid			type;
	int32		typmod;
	const char *name;
	bool		is_domain;		/* NULL needs a check of its own */
	Fact		fact;
	const FormNode *item;		/* when it is no fact */
} SinkColumn;

/* a column that nothing is mapped to, with a default of its own */
typedef struct SinkDefault
{
	AttrNumber	attnum;
	ExprState  *expression;
} SinkDefault;

static bool has_bare_domain(const Sink *sink);
static bool is_mapped(const Sink *sink, AttrNumber attnum);
static void list_deferred(Sink *sink, Relation relation);
static void settle_deferred(const Sink *sink);
static void set_deferred(const Sink *sink, bool deferred);
static void check_domain_null(const SinkColumn *column);
static void check_privileges(Relation relation, const Sink *sink);
static bool map_column(SinkColumn *column, const char *name,
					   const CompiledForm *form);
static void check_type(const SinkColumn *column, Relation relation,
					   Oid source_id_type);
static void check_mapping(Jsonb *columns, Relation relation);
static char *mapped_name(Jsonb *columns, const char *column);
static void prepare_insert(Sink *sink);
static void open_defaults(Sink *sink, Relation relation);
static ConversionFault fact_datum(const SinkColumn *column,
								  const Response *response,
								  const StoreFacts *facts,
								  Datum *datum, bool *isnull);
static void span_value(Value *value, const char *data, int len);

/*
 * Compiles a sink for a form, in the current memory context, which it stays
 * in.  Raises an error that names the column when the relation does not fit,
 * and when the current user may not insert.
 */
Sink *
sink_open(Oid relid, const CompiledForm *form, Jsonb *columns,
		  Oid source_id_type)
{
	Sink	   *sink = palloc0(sizeof(Sink));
	Relation	relation = try_table_open(relid, AccessShareLock);
	TupleDesc	shape;

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a sink of form \"%s\" does not exist any more", form->name),
				 errhint("Take it off with epro_etl.remove_sink(pipeline, form), and add another.")));

	if (!strchr("rpfv", relation->rd_rel->relkind))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be a sink", RelationGetRelationName(relation)),
				 errhint("A sink is a table, a partitioned or foreign table, or a view that takes inserts.")));
	shape = CreateTupleDescCopyConstr(RelationGetDescr(relation));
	sink->relid = relid;
	sink->name = relation_name(relid);
	sink->shape = shape;
	sink->columns = palloc0(sizeof(SinkColumn) * shape->natts);
	sink->values = palloc0(sizeof(Datum) * shape->natts);
	sink->nulls = palloc0(sizeof(bool) * shape->natts);
	check_mapping(columns, relation);

	for (int i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(shape, i);
		SinkColumn *column = &sink->columns[sink->ncolumns];
		char	   *mapped;

		if (attribute->attisdropped || attribute->attgenerated != '\0')
			continue;
		column->attnum = attribute->attnum;
		column->type = attribute->atttypid;
		column->typmod = attribute->atttypmod;
		column->name = pstrdup(NameStr(attribute->attname));
		mapped = mapped_name(columns, column->name);
		if (!map_column(column, mapped ? mapped : column->name, form))
		{
			if (mapped != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_OBJECT),
						 errmsg("form \"%s\" has no item \"%s\" for column \"%s\" of sink \"%s\"",
								form->name, mapped, column->name,
								RelationGetRelationName(relation)),
						 errhint("Map the column to an item of the form, or to study, subject_key, form, form_version, visit, authored, source_id, run_id or loaded_at.")));
			continue;
		}
		check_type(column, relation, source_id_type);
		if (attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			ereport(ERROR,
					(errcode(ERRCODE_GENERATED_ALWAYS),
					 errmsg("column \"%s\" of sink \"%s\" is generated always as identity and cannot be loaded",
							column->name, RelationGetRelationName(relation)),
					 errhint("Make it GENERATED BY DEFAULT, or map another column.")));
		column->is_domain = get_typtype(column->type) == TYPTYPE_DOMAIN;
		sink->ncolumns++;
	}
	if (sink->ncolumns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink \"%s\" has no column for any item of form \"%s\"",
						RelationGetRelationName(relation), form->name),
				 errhint("Columns are matched by name; map others with columns => '{\"column\": \"item\"}'.")));

	check_privileges(relation, sink);
	sink->direct = bulk_suits(relation, GetUserId()) && !has_bare_domain(sink);
	list_deferred(sink, relation);
	if (sink->direct)
		open_defaults(sink, relation);
	else
		prepare_insert(sink);
	table_close(relation, AccessShareLock);
	return sink;
}

/*
 * Forms the sink's row of a response, in the given memory context.  Returns
 * NULL, with findings, when an answer does not fit its column.  May raise an
 * error of a type's input function or a column's default.
 */
HeapTuple
sink_form_tuple(Sink *sink, const Response *response, const StoreFacts *facts,
				MemoryContext memory)
{
	bool		fits = true;
	HeapTuple	formed;
	MemoryContext caller;

	memset(sink->nulls, true, sizeof(bool) * sink->shape->natts);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SinkColumn *column = &sink->columns[i];
		int			at = column->attnum - 1;
		ConversionFault fault;

		sink->at = i;
		if (column->item != NULL)
			fault = value_datum(&response->values[column->item->slot],
								column->type, column->typmod,
								&sink->values[at], &sink->nulls[at]);
		else
			fault = fact_datum(column, response, facts,
							   &sink->values[at], &sink->nulls[at]);
		if (fault == NULL && column->is_domain && sink->nulls[at])
			check_domain_null(column);
		if (fault != NULL)
		{
			finding_add(response->findings, FINDING_CONVERSION, SEVERITY_ERROR,
						column->item ? column->item->pointer : "",
						column->name, fault);
			fits = false;
		}
	}
	sink->at = -1;
	if (!fits)
		return NULL;
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
 * refused, with *at its number, or -1 where the row is not known.
 */
void
sink_insert(Sink *sink, HeapTuple *tuples, int n, volatile int *at)
{
	if (sink->direct)
	{
		Relation	relation = table_open(sink->relid, RowExclusiveLock);

		if (!equalTupleDescs(sink->shape, RelationGetDescr(relation)) ||
			!bulk_suits(relation, GetUserId()))
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_RELATION_UNFIT),
					 errmsg("sink \"%s\" was altered during the run",
							RelationGetRelationName(relation)),
					 errhint("What was committed stays; run the pipeline again for the rest.")));
		bulk_insert(relation, tuples, n, at);
		table_close(relation, NoLock);
		return;
	}

	/* a constraint that waits for the commit would refuse all or nothing */
	settle_deferred(sink);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	for (int i = 0; i < n; i++)
	{
		char	   *nulls = palloc(sink->ncolumns + 1);
		Datum	   *values = palloc(sizeof(Datum) * sink->ncolumns);

		CHECK_FOR_INTERRUPTS();
		*at = i;
		for (int c = 0; c < sink->ncolumns; c++)
		{
			bool		isnull;

			values[c] = heap_getattr(tuples[i], sink->columns[c].attnum,
									 sink->shape, &isnull);
			nulls[c] = isnull ? 'n' : ' ';
		}
		nulls[sink->ncolumns] = '\0';
		if (SPI_execute_plan(sink->plan, values, nulls, false, 0) != SPI_OK_INSERT ||
			SPI_processed != 1)
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("sink \"%s\" did not store a row that it was given", sink->name)));
		pfree(nulls);
		pfree(values);
	}
	*at = -1;
	SPI_finish();
	set_deferred(sink, true);
}

/*
 * Where sink_form_tuple() was when it raised an error: the item's JSON Pointer
 * and the column.  False when it was at no column.
 */
bool
sink_error_place(const Sink *sink, const char **location, const char **column)
{
	const SinkColumn *at = sink->at >= 0 ? &sink->columns[sink->at] : NULL;

	if (at == NULL)
		return false;
	*location = at->item ? at->item->pointer : "";
	*column = at->name;
	return true;
}

static void
check_privileges(Relation relation, const Sink *sink)
{
	if (pg_class_aclcheck(sink->relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (pg_attribute_aclcheck(sink->relid, sink->columns[i].attnum,
								  GetUserId(), ACL_INSERT) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for sink \"%s\"",
							RelationGetRelationName(relation)),
					 errhint("A run needs INSERT on its sinks.")));
	}
}

/*
 * A column of a domain that nothing is mapped to: the executor asks the domain
 * about its NULL or default, multi-insert would not.
 */
static bool
has_bare_domain(const Sink *sink)
{
	for (int i = 0; i < sink->shape->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sink->shape, i);

		if (!attribute->attisdropped && !is_mapped(sink, attribute->attnum) &&
			get_typtype(attribute->atttypid) == TYPTYPE_DOMAIN)
			return true;
	}
	return false;
}

/* Does anything go into the column? */
static bool
is_mapped(const Sink *sink, AttrNumber attnum)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].attnum == attnum)
			return true;
	}
	return false;
}

/* Names the constraints that would wait for the commit, partitions' included. */
static void
list_deferred(Sink *sink, Relation relation)
{
	List	   *relids = list_make1_oid(RelationGetRelid(relation));
	ListCell   *cell;

	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(RelationGetRelid(relation), AccessShareLock, NULL);
	foreach(cell, relids)
	{
		Relation	part = table_open(lfirst_oid(cell), AccessShareLock);
		TriggerDesc *triggers = part->trigdesc;
		char	   *schema = get_namespace_name(RelationGetNamespace(part));

		for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		{
			Trigger    *trigger = &triggers->triggers[i];

			if (trigger->tginitdeferred && OidIsValid(trigger->tgconstraint))
				sink->deferred = lappend(sink->deferred,
										 makeRangeVar(schema, get_constraint_name(trigger->tgconstraint), -1));
		}
		table_close(part, AccessShareLock);
	}
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

/* What a column holds: a fact, or else an item. */
static bool
map_column(SinkColumn *column, const char *name, const CompiledForm *form)
{
	column->fact = FACT_NONE;
	column->item = NULL;
	for (int i = 0; i < (int) lengthof(fact_name); i++)
	{
		if (strcmp(name, fact_name[i]) == 0)
		{
			column->fact = (Fact) i;
			return true;
		}
	}
	column->item = form_find(form, name);
	return column->item != NULL;
}

static void
check_type(const SinkColumn *column, Relation relation, Oid source_id_type)
{
	bool		fits = true;
	const char *what = column->item ? column->item->name : fact_name[column->fact];
	Oid			base = getBaseType(column->type);
	Oid			offered = TEXTOID;

	if (column->item != NULL)
	{
		fits = item_type_loads(column->item->type, column->type);
		offered = item_type_oid(column->item->type, column->item->fits_int4);
	}
	else
	{
		switch (column->fact)
		{
			case FACT_AUTHORED:
			case FACT_LOADED_AT:
				offered = TIMESTAMPTZOID;
				fits = base == TIMESTAMPTZOID;
				break;
			case FACT_RUN_ID:
				offered = INT8OID;
				fits = base == INT8OID;
				break;
			case FACT_SOURCE_ID:
				offered = source_id_type;
				fits = base == source_id_type || item_type_loads(ITEM_TEXT, base);
				break;
			default:
				fits = item_type_loads(ITEM_TEXT, base);
				break;
		}
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of sink \"%s\" is of type %s and cannot take \"%s\"",
						column->name, RelationGetRelationName(relation),
						format_type_be(column->type), what),
				 errhint("Make it %s, or map another column.", format_type_be(offered))));
}

/* A mapping for a column that is not there is a typing error. */
static void
check_mapping(Jsonb *columns, Relation relation)
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;

	if (columns == NULL)
		return;
	iterator = JsonbIteratorInit(&columns->root);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(key.val.string.val, key.val.string.len);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (get_attnum(RelationGetRelid(relation), name) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("sink \"%s\" has no column \"%s\"",
							RelationGetRelationName(relation), name),
					 errhint("The mapping names columns of the sink on the left and items on the right.")));
		if (value.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the mapping of column \"%s\" must be the name of an item", name)));
	}
}

static char *
mapped_name(Jsonb *columns, const char *column)
{
	JsonbValue *found;

	if (columns == NULL)
		return NULL;
	found = getKeyJsonValueFromContainer(&columns->root, column, strlen(column), NULL);
	if (found == NULL)
		return NULL;
	return pnstrdup(found->val.string.val, found->val.string.len);
}

/* The executor's road: one INSERT, prepared once. */
static void
prepare_insert(Sink *sink)
{
	MemoryContext memory = CurrentMemoryContext;
	StringInfoData names;
	StringInfoData places;
	Oid		   *types = palloc(sizeof(Oid) * sink->ncolumns);

	initStringInfo(&names);
	initStringInfo(&places);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		appendStringInfo(&names, "%s%s", i ? ", " : "",
						 quote_identifier(sink->columns[i].name));
		appendStringInfo(&places, "%s$%d", i ? ", " : "", i + 1);
		types[i] = sink->columns[i].type;
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	sink->plan = plan_keep(SPI_prepare(psprintf("INSERT INTO %s (%s) VALUES (%s)",
												sink->name, names.data, places.data),
									   sink->ncolumns, types), memory);
	SPI_finish();
}

/* Defaults of columns that nothing is mapped to, as COPY evaluates them. */
static void
open_defaults(Sink *sink, Relation relation)
{
	sink->context = CreateStandaloneExprContext();
	sink->defaults = palloc0(sizeof(SinkDefault) * sink->shape->natts);
	for (int i = 0; i < sink->shape->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sink->shape, i);
		Node	   *expression;

		if (attribute->attisdropped || is_mapped(sink, attribute->attnum))
			continue;
		expression = build_column_default(relation, attribute->attnum);
		if (expression == NULL)
			continue;
		sink->defaults[sink->ndefaults].attnum = attribute->attnum;
		sink->defaults[sink->ndefaults++].expression =
			ExecInitExpr(expression_planner((Expr *) expression), NULL);
	}
}

static ConversionFault
fact_datum(const SinkColumn *column, const Response *response,
		   const StoreFacts *facts, Datum *datum, bool *isnull)
{
	Value		value;

	*isnull = false;
	switch (column->fact)
	{
		case FACT_AUTHORED:
			*datum = TimestampTzGetDatum(response->authored);
			*isnull = response->authored_isnull;
			return NULL;
		case FACT_LOADED_AT:
			*datum = TimestampTzGetDatum(facts->loaded_at);
			return NULL;
		case FACT_RUN_ID:
			*datum = Int64GetDatum(facts->run_id);
			return NULL;
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
			span_value(&value, response->subject_key, SUBJECT_KEY_LENGTH);
			break;
		case FACT_FORM:
			span_value(&value, facts->form->name, strlen(facts->form->name));
			break;
		case FACT_FORM_VERSION:
			span_value(&value, facts->form->version, strlen(facts->form->version));
			break;
		case FACT_VISIT:
			span_value(&value, response->visit.data, response->visit.len);
			break;
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
