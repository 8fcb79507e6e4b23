/*
 * origin.c
 *		Where the functions, operators and types that an expression names are from.
 *
 * An expression of the server's own functions does what it says.  One that
 * names a function of somebody's, or a type, whose constraints and casts may be
 * somebody's, does whatever that one does; and what is temporary is another
 * thing in each session, or nothing.
 *
 * Expressions are analysed ones, or whole queries.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "words/origin.h"

/* of a schema */
typedef bool (*SchemaTest) (Oid schema);

static bool names(Node *node, void *test);
static bool function_is(Oid function, void *test);
static bool type_is(Oid type, SchemaTest test);
static bool is_others(Oid schema);

/* Does it name anything of a session? */
bool
expression_is_temporary(Node *node)
{
	return names(node, isAnyTempNamespace);
}

/* May it run code that is neither the server's nor this extension's? */
bool
expression_calls_out(Node *node)
{
	return names(node, is_others);
}

static bool
names(Node *node, void *test)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, function_is, test))
		return true;
	switch (nodeTag(node))
	{
		case T_ArrayCoerceExpr:
		case T_CoerceToDomain:
		case T_CoerceViaIO:
		case T_Const:
		case T_ConvertRowtypeExpr:
		case T_FuncExpr:
		case T_RelabelType:
		case T_RowExpr:
			if (type_is(exprType(node), test))
				return true;
			break;
		case T_Query:
			return query_tree_walker((Query *) node, names, test, 0);
		default:
			break;
	}
	return expression_tree_walker(node, names, test);
}

static bool
function_is(Oid function, void *test)
{
	return ((SchemaTest) test) (get_func_namespace(function));
}

static bool
type_is(Oid type, SchemaTest test)
{
	HeapTuple	tuple;
	bool		is;

	/* table_to_xml() and its like run whatever a view says */
	if (type == XMLOID)
		return test(InvalidOid);
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	is = test(((Form_pg_type) GETSTRUCT(tuple))->typnamespace);
	ReleaseSysCache(tuple);
	return is;
}

static bool
is_others(Oid schema)
{
	return schema != PG_CATALOG_NAMESPACE && schema != get_namespace_oid("epro_etl", true);
}
