/*
 * sink.c
 *		From a sink's declaration to what store.c writes by.
 *
 * Columns are matched by name: a response's own facts first, then items.  A
 * long sink, a row an item, has the facts of the item instead of items.
 *
 * What is compiled holds as long as the relation is as it was: load.c compiles
 * again after an invalidation.  The relation is locked by the caller's chunk.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "effects/sink.h"
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
#include "utils/syscache.h"
#include "words/errors.h"

static const char *const fact_name[FACT_COUNT] = {
	[FACT_STUDY] = "study",
	[FACT_SUBJECT_KEY] = "subject_key",
	[FACT_FORM] = "form",
	[FACT_FORM_VERSION] = "form_version",
	[FACT_VISIT] = "visit",
	[FACT_AUTHORED] = "authored",
	[FACT_SOURCE_ID] = "source_id",
	[FACT_RUN_ID] = "run_id",
	[FACT_KEY_VERSION] = "key_version",
	[FACT_LOADED_AT] = "loaded_at",
	[FACT_ITEM] = "item",
	[FACT_ITEM_NO] = "item_no",
	[FACT_LOCATION] = "location",
	[FACT_VALUE] = "value",
	[FACT_VALUE_NUMBER] = "value_number",
};

static void match_columns(Sink *sink, Relation relation, Jsonb *columns,
						  Oid source_id_type);
static void refuse_mapped(const Sink *sink, Relation relation,
						  const char *mapped, const char *column);
static void refuse_lost(ArrayType *matched, Relation relation);
static void check_matched(const Sink *sink, Relation relation);
static bool takes(const Sink *sink, Fact fact);
static bool has_bare_domain(const Sink *sink);
static bool is_mapped(const Sink *sink, AttrNumber attnum);
static List *list_parts(Relation relation);
static void check_ignorable(Relation relation, List *parts);
static bool has_deferrable_key(Relation relation);
static void list_deferred(Sink *sink, List *parts);
static void check_privileges(Relation relation, const Sink *sink);
static bool map_column(const Sink *sink, SinkColumn *column, const char *name);
static void check_type(const SinkColumn *column, Relation relation,
					   Oid source_id_type);
static void check_mapping(Jsonb *columns, Relation relation);
static char *mapped_name(Jsonb *columns, const char *column);
static bool is_remote(List *parts);
static void prepare_inserts(Sink *sink);
static SPIPlanPtr prepare_insert(const Sink *sink, Oid *types, bool many);
static void open_defaults(Sink *sink, Relation relation);

/*
 * Compiles a sink for a form, in the current memory context, which it stays
 * in.  Raises an error that names the column when the relation does not fit,
 * and when the current user may not insert.
 */
Sink *
sink_open(const SinkDeclaration *declared, const CompiledForm *form,
		  Oid source_id_type)
{
	Sink	   *sink = palloc0(sizeof(Sink));
	Relation	relation = try_table_open(declared->relid, AccessShareLock);
	List	   *parts;

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
	/* each row would be refused, and the fault is not theirs */
	if (RELATION_IS_OTHER_TEMP(relation))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("sink \"%s\" is a temporary table of another session", RelationGetRelationName(relation)),
				 errhint("Pass workers => 0 in the session that it belongs to, or load into a table that is not temporary.")));
	sink->id = declared->id;
	sink->relid = declared->relid;
	sink->name = relation_name(declared->relid);
	sink->form = form;
	sink->is_long = declared->is_long;
	sink->ignores = declared->ignores;
	sink->required = declared->required;
	sink->shape = CreateTupleDescCopyConstr(RelationGetDescr(relation));
	sink->values = palloc0(sizeof(Datum) * sink->shape->natts);
	sink->nulls = palloc0(sizeof(bool) * sink->shape->natts);
	refuse_lost(declared->matched, relation);
	match_columns(sink, relation, declared->columns, source_id_type);
	check_matched(sink, relation);

	check_privileges(relation, sink);
	parts = list_parts(relation);
	sink->remote = is_remote(parts);
	if (sink->ignores)
		check_ignorable(relation, parts);
	if (declared->latest)
		latest_open(sink, relation);
	sink->direct = !sink->ignores && sink->latest == NULL && bulk_suits(relation, GetUserId()) &&
		!has_bare_domain(sink);
	list_deferred(sink, parts);
	if (sink->direct)
		open_defaults(sink, relation);
	else
		prepare_inserts(sink);
	table_close(relation, AccessShareLock);
	return sink;
}

/* Which column takes what. */
static void
match_columns(Sink *sink, Relation relation, Jsonb *columns,
			  Oid source_id_type)
{
	TupleDesc	shape = sink->shape;

	check_mapping(columns, relation);
	sink->columns = palloc0(sizeof(SinkColumn) * shape->natts);
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
		if (!map_column(sink, column, mapped ? mapped : column->name))
		{
			if (mapped != NULL)
				refuse_mapped(sink, relation, mapped, column->name);
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
}

static void
refuse_mapped(const Sink *sink, Relation relation, const char *mapped,
			  const char *column)
{
	if (sink->is_long)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("a long sink has no \"%s\" for column \"%s\" of sink \"%s\"",
						mapped, column, RelationGetRelationName(relation)),
				 errhint("Map the column to item, item_no, location, value or value_number, or to study, subject_key, form, form_version, visit, authored, source_id, run_id, key_version or loaded_at.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("form \"%s\" has no item \"%s\" for column \"%s\" of sink \"%s\"",
					sink->form->name, mapped, column, RelationGetRelationName(relation)),
			 errhint("Map the column to an item of the form, or to study, subject_key, form, form_version, visit, authored, source_id, run_id, key_version or loaded_at.")));
}

/*
 * What a column that is gone, or has another name now, took would be nowhere.  The
 * caller holds a lock on the relation: what the catalogue said before may be over.
 */
static void
refuse_lost(ArrayType *matched, Relation relation)
{
	Datum	   *names;
	int			n;

	deconstruct_array(matched, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		const char *name = TextDatumGetCString(names[i]);

		if (get_attnum(RelationGetRelid(relation), name) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_RELATION_UNFIT),
					 errmsg("sink \"%s\" was altered: it has lost column \"%s\"",
							RelationGetRelationName(relation), name),
					 errhint("Give the column back, or take the sink off with epro_etl.remove_sink() and add it anew.")));
	}
}

/* A sink that can tell nothing of a response is an error of who added it. */
static void
check_matched(const Sink *sink, Relation relation)
{
	if (sink->is_long &&
		!(takes(sink, FACT_ITEM) && (takes(sink, FACT_VALUE) || takes(sink, FACT_VALUE_NUMBER))))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("long sink \"%s\" has no column for \"%s\"",
						RelationGetRelationName(relation),
						takes(sink, FACT_ITEM) ? "value\" or \"value_number" : "item"),
				 errhint("A long sink takes a row an item: its name and its answer. Columns are matched by name; map others with columns => '{\"column\": \"item\"}'.")));
	if (sink->ncolumns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink \"%s\" has no column for any item of form \"%s\"",
						RelationGetRelationName(relation), sink->form->name),
				 errhint("Columns are matched by name; map others with columns => '{\"column\": \"item\"}'.")));
}

static bool
takes(const Sink *sink, Fact fact)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].fact == fact)
			return true;
	}
	return false;
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

/* The relation, and all its partitions, which are locked by this. */
static List *
list_parts(Relation relation)
{
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return find_all_inheritors(RelationGetRelid(relation), AccessShareLock, NULL);
	return list_make1_oid(RelationGetRelid(relation));
}

/*
 * A sink that ignores duplicates must let us tell one from a row that got
 * lost: neither is stored, so nothing else may keep a row from being stored.
 */
static void
check_ignorable(Relation relation, List *parts)
{
	const char *fault = NULL;
	ListCell   *cell;

	if (relation->rd_rel->relhasrules)
		fault = "a view or a rule could drop a row";
	foreach(cell, parts)
	{
		Relation	part = table_open(lfirst_oid(cell), AccessShareLock);

		if (part->trigdesc != NULL && part->trigdesc->trig_insert_before_row)
			fault = "a trigger before the insert could drop a row";
		else if (has_deferrable_key(part))
			fault = "a unique or exclusion constraint is deferrable";
		table_close(part, AccessShareLock);
	}
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("sink \"%s\" cannot ignore duplicates: %s",
						RelationGetRelationName(relation), fault),
				 errhint("Take on_duplicate => 'reject', or another relation.")));
}

static bool
has_deferrable_key(Relation relation)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *cell;
	bool		deferrable = false;

	foreach(cell, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", lfirst_oid(cell));
		deferrable |= !((Form_pg_index) GETSTRUCT(tuple))->indimmediate;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return deferrable;
}

/* Names the constraints that would wait for the commit, partitions' included. */
static void
list_deferred(Sink *sink, List *parts)
{
	ListCell   *cell;

	foreach(cell, parts)
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

/* What a column holds: a fact, or else, in a wide sink, an item. */
static bool
map_column(const Sink *sink, SinkColumn *column, const char *name)
{
	int			nfacts = sink->is_long ? FACT_COUNT : FACT_ITEM;

	column->fact = FACT_NONE;
	column->item = NULL;
	for (int i = 0; i < nfacts; i++)
	{
		if (strcmp(name, fact_name[i]) == 0)
		{
			column->fact = (Fact) i;
			return true;
		}
	}
	if (!sink->is_long)
		column->item = form_find(sink->form, name);
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
			case FACT_KEY_VERSION:
			case FACT_ITEM_NO:
				offered = INT4OID;
				fits = item_type_loads(ITEM_INTEGER, base);
				break;
			case FACT_VALUE_NUMBER:
				offered = NUMERICOID;
				fits = item_type_loads(ITEM_INTEGER, base);
				break;
			case FACT_VALUE:
				fits = item_type_loads(ITEM_TEXT, base) || item_type_loads(ITEM_JSON, base);
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

/* Does a part of it stand on another server? */
static bool
is_remote(List *parts)
{
	ListCell   *cell;

	foreach(cell, parts)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_FOREIGN_TABLE)
			return true;
	}
	return false;
}

/*
 * The executor's road: an INSERT of one row, and to another server one of many,
 * whose parameters are an array a column.  A type without arrays is left to the
 * first.
 */
static void
prepare_inserts(Sink *sink)
{
	Oid		   *types = palloc(sizeof(Oid) * sink->ncolumns);
	bool		has_arrays = true;

	for (int i = 0; i < sink->ncolumns; i++)
		types[i] = sink->columns[i].type;
	sink->plan = prepare_insert(sink, types, false);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		types[i] = get_array_type(types[i]);
		has_arrays &= OidIsValid(types[i]);
	}
	if (sink->remote && has_arrays)
		sink->plan_many = prepare_insert(sink, types, true);
}

/* An INSERT whose parameters are the columns of a row, or arrays of many. */
static SPIPlanPtr
prepare_insert(const Sink *sink, Oid *types, bool many)
{
	MemoryContext memory = CurrentMemoryContext;
	StringInfoData names;
	StringInfoData places;
	SPIPlanPtr	plan;

	initStringInfo(&names);
	initStringInfo(&places);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		appendStringInfo(&names, "%s%s", i ? ", " : "",
						 quote_identifier(sink->columns[i].name));
		appendStringInfo(&places, many ? "%spg_catalog.unnest($%d)" : "%s$%d",
						 i ? ", " : "", i + 1);
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	/* a plan for the row at hand has its values in it, and some server is told to log plans */
	plan = plan_keep(SPI_prepare_cursor(psprintf(many ? "INSERT INTO %s (%s) SELECT * FROM ROWS FROM (%s)%s" :
												 "INSERT INTO %s (%s) VALUES (%s)%s",
												 sink->name, names.data, places.data,
												 sink->ignores ? " ON CONFLICT DO NOTHING" : ""),
										sink->ncolumns, types, CURSOR_OPT_GENERIC_PLAN), memory);
	SPI_finish();
	return plan;
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
