/*
 * check.c
 *		Edit checks: SQL boolean expressions over the items of a response.
 *
 * An expression is parsed, analysed and type-checked against the form, goes
 * through the planner's expression preprocessing and is compiled for the
 * executor's expression engine, once a process.  Evaluating it for a response
 * runs no query: the answers stand in a virtual tuple.
 *
 * Three-valued: false is a finding; NULL is a finding of the kind "not
 * evaluated", neither a pass nor a fail.  An expression may raise an error
 * (division by zero): that is the one thing here that is not pure.  check()
 * leaves the number of the check at hand in set->current, and the composition
 * catches the error, records it and goes on behind it.
 *
 * A score is an expression of type numeric, whose value goes into the slot of
 * an item of its own.  Scores are computed before the checks, which can read
 * them.  One that is NULL is a finding, too: it could not be computed.
 *
 * Columns of the record: an item each, then subject (the pseudonym: no stage
 * behind de-identification sees an identifier), visit, authored and study.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "stages/form.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "words/errors.h"
#include "words/origin.h"

/* the response's own columns, behind the items */
enum
{
	OWN_SUBJECT = 0,
	OWN_VISIT,
	OWN_AUTHORED,
	OWN_STUDY,
	OWN_COUNT
};

static const struct
{
	const char *name;
	Oid			type;
}			own_columns[OWN_COUNT] = {
	[OWN_SUBJECT] = {"subject", TEXTOID},
	[OWN_VISIT] = {"visit", TEXTOID},
	[OWN_AUTHORED] = {"authored", TIMESTAMPTZOID},
	[OWN_STUDY] = {"study", TEXTOID},
};

static EditCheck *add(CheckSet *set, const char *what, const char *name,
					  const char *condition);
static void compute(CheckSet *set, const EditCheck *score, Response *response);
static Node *analyse(CheckSet *set, const char *expression, const char *what,
					 Oid type);
static Node *coerce_to_numeric(ParseState *pstate, Node *node, const char *what);
static Node *resolve_column(ParseState *pstate, ColumnRef *reference);
static void point_into_expression(void *expression);
static Datum span_datum(Span span, bool *isnull);

/* Makes an empty set for a form, in the current memory context. */
CheckSet *
checkset_create(const CompiledForm *form)
{
	CheckSet   *set = palloc0(sizeof(CheckSet));
	int			ncolumns = form->nnodes + OWN_COUNT;
	TupleDesc	shape = CreateTemplateTupleDesc(ncolumns);

	for (int i = 0; i < form->nnodes; i++)
		TupleDescInitEntry(shape, (AttrNumber) (i + 1), NULL,
						   item_type_oid(form->nodes[i]->type, form->nodes[i]->fits_int4),
						   -1, 0);
	for (int i = 0; i < OWN_COUNT; i++)
		TupleDescInitEntry(shape, (AttrNumber) (form->nnodes + i + 1), NULL,
						   own_columns[i].type, -1, 0);

	set->form = form;
	set->nreadable = form->nnodes;
	set->record = MakeSingleTupleTableSlot(shape, &TTSOpsVirtual);
	set->context = CreateStandaloneExprContext();
	set->context->ecxt_scantuple = set->record;
	set->used = palloc0(sizeof(bool) * ncolumns);
	return set;
}

/*
 * Compiles a boolean expression over the form's items; "what" names it in
 * errors.  The result lives in the current memory context.
 */
ExprState *
checkset_compile(CheckSet *set, const char *expression, const char *what)
{
	Node	   *node = analyse(set, expression, what, BOOLOID);

	return ExecInitExpr(expression_planner((Expr *) node), NULL);
}

/* Compiles an edit check and adds it to the set. */
void
checkset_add(CheckSet *set, const char *name, Severity severity,
			 const char *expression, const char *condition, const char *message)
{
	EditCheck  *added = add(set, "edit check", name, condition);

	added->severity = severity;
	added->message = pstrdup(message ? message : "the edit check does not hold");
	added->expression =
		checkset_compile(set, expression, psprintf("edit check \"%s\"", name));
}

/*
 * Compiles a score and adds it to the set; its item is in the form already, see
 * form_add_score().  It can read items, and scores that were added before.
 */
void
checkset_add_score(CheckSet *set, const char *name, const char *expression,
				   const char *condition)
{
	int			slot = form_find(set->form, name)->slot;
	EditCheck  *added;
	Node	   *node;

	set->nreadable = slot;
	added = add(set, "score", name, condition);
	added->slot = slot;
	node = analyse(set, expression, psprintf("score \"%s\"", name), NUMERICOID);
	set->nreadable = set->form->nnodes;
	added->expression = ExecInitExpr(expression_planner((Expr *) node), NULL);
}

/* Room for one more, with its condition compiled. */
static EditCheck *
add(CheckSet *set, const char *what, const char *name, const char *condition)
{
	EditCheck  *added;

	if (set->nchecks >= set->room)
	{
		set->room = Max(8, set->room * 2);
		set->checks = set->checks ?
			repalloc(set->checks, set->room * sizeof(EditCheck)) :
			palloc(set->room * sizeof(EditCheck));
	}
	added = &set->checks[set->nchecks++];
	added->name = pstrdup(name);
	added->slot = -1;
	added->condition = condition ?
		checkset_compile(set, condition, psprintf("condition of %s \"%s\"", what, name)) : NULL;
	return added;
}

/*
 * Puts the answers that any expression reads into the record.  An answer that
 * is not of its item's type is NULL there: the keyword "type" has reported it,
 * and a check over it cannot be evaluated.
 */
void
checkset_read(CheckSet *set, const Response *response)
{
	const CompiledForm *form = set->form;
	TupleTableSlot *record = set->record;

	ResetExprContext(set->context);
	ExecClearTuple(record);
	for (int i = 0; i < form->nnodes + OWN_COUNT; i++)
	{
		record->tts_isnull[i] = true;
		if (!set->used[i])
			continue;
		if (i < form->nnodes)
		{
			const FormNode *node = form->nodes[i];

			if (value_datum(&response->values[i],
							item_type_oid(node->type, node->fits_int4), -1,
							&record->tts_values[i], &record->tts_isnull[i]) != NULL)
				record->tts_isnull[i] = true;
			continue;
		}
		switch (i - form->nnodes)
		{
			case OWN_SUBJECT:
				record->tts_values[i] = CStringGetTextDatum(response->subject_key);
				record->tts_isnull[i] = response->subject_key[0] == '\0';
				break;
			case OWN_VISIT:
				record->tts_values[i] = span_datum(response->visit, &record->tts_isnull[i]);
				break;
			case OWN_AUTHORED:
				record->tts_values[i] = TimestampTzGetDatum(response->authored);
				record->tts_isnull[i] = response->authored_isnull;
				break;
			case OWN_STUDY:
				record->tts_values[i] = span_datum(response->study, &record->tts_isnull[i]);
				break;
		}
	}
	ExecStoreVirtualTuple(record);
}

/* Evaluates one expression over the record at hand.  May raise an error. */
bool
checkset_holds(CheckSet *set, ExprState *expression, bool *isnull)
{
	return DatumGetBool(ExecEvalExprSwitchContext(expression, set->context,
												  isnull));
}

/*
 * Is a check for the response at hand?  A condition that is unknown leaves it
 * not evaluated, which is a finding.  May raise an error.
 */
bool
check_applies(CheckSet *set, ExprState *condition, const char *name,
			  FindingList *findings)
{
	bool		isnull;
	bool		holds;

	if (condition == NULL)
		return true;
	holds = checkset_holds(set, condition, &isnull);
	if (isnull)
		finding_add(findings, FINDING_NOT_EVALUATED, SEVERITY_INFORMATION, "", name,
					"the condition could not be evaluated");
	return !isnull && holds;
}

/*
 * Judges the checks from the given one on.  May raise an error, which belongs
 * to the check number set->current.
 */
void
check(CheckSet *set, Response *response, int from)
{
	for (set->current = from; set->current < set->nchecks; set->current++)
	{
		EditCheck  *at_hand = &set->checks[set->current];
		bool		isnull;
		bool		holds;

		if (!check_applies(set, at_hand->condition, at_hand->name, response->findings))
			continue;
		if (at_hand->slot >= 0)
		{
			compute(set, at_hand, response);
			continue;
		}
		holds = checkset_holds(set, at_hand->expression, &isnull);
		if (isnull)
			finding_add(response->findings, FINDING_NOT_EVALUATED,
						SEVERITY_INFORMATION, "", at_hand->name,
						"the check could not be evaluated");
		else if (!holds)
			finding_add(response->findings, FINDING_CHECK, at_hand->severity,
						"", at_hand->name, at_hand->message);
	}
}

/*
 * Computes a score, for the record at hand too: what follows can read it.  Its
 * value lives in the current memory context, the record is emptied earlier.
 */
static void
compute(CheckSet *set, const EditCheck *score, Response *response)
{
	TupleTableSlot *record = set->record;
	bool		isnull;
	Datum		datum = ExecEvalExprSwitchContext(score->expression, set->context, &isnull);
	Numeric		number = isnull ? NULL : DatumGetNumericCopy(datum);

	if (number == NULL || numeric_is_nan(number) || numeric_is_inf(number))
	{
		finding_add(response->findings, FINDING_NOT_EVALUATED,
					SEVERITY_INFORMATION, "", score->name,
					"the score could not be computed");
		return;
	}
	value_set_numeric(&response->values[score->slot], number);
	record->tts_values[score->slot] = NumericGetDatum(number);
	record->tts_isnull[score->slot] = false;
}

/* Parses and analyses, as boolean or numeric; errors point into the expression. */
static Node *
analyse(CheckSet *set, const char *expression, const char *what, Oid type)
{
	ParseState *pstate = make_parsestate(NULL);
	ErrorContextCallback pointing;
	List	   *raw;
	SelectStmt *select;
	ResTarget  *target;
	Node	   *node;

	pointing.callback = point_into_expression;
	pointing.arg = (void *) expression;
	pointing.previous = error_context_stack;
	error_context_stack = &pointing;
	set->what = what;

	raw = raw_parser(expression, RAW_PARSE_PLPGSQL_EXPR);
	select = (SelectStmt *) linitial_node(RawStmt, raw)->stmt;
	if (!IsA(select, SelectStmt) || list_length(select->targetList) != 1 ||
		select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->sortClause != NIL ||
		select->limitCount != NULL || select->limitOffset != NULL ||
		select->lockingClause != NIL || select->distinctClause != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s must be one expression", what),
				 errhint("Write what stands behind CHECK in a table, without clauses of a query.")));
	target = linitial_node(ResTarget, select->targetList);

	pstate->p_sourcetext = expression;
	pstate->p_pre_columnref_hook = resolve_column;
	pstate->p_ref_hook_state = set;
	node = transformExpr(pstate, target->val, EXPR_KIND_CHECK_CONSTRAINT);
	node = type == BOOLOID ? coerce_to_boolean(pstate, node, what) :
		coerce_to_numeric(pstate, node, what);
	assign_expr_collations(pstate, node);

	if (contain_volatile_functions(node))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_CHECK_REFUSED),
				 errmsg("%s calls a volatile function", what),
				 errdetail("A rule must give the same verdict for the same response."),
				 errhint("Use functions marked IMMUTABLE or STABLE.")));
	rule_refuse_temporary(node, what);
	if (expression_calls_out(node))
		set->calls_out = true;
	error_context_stack = pointing.previous;
	free_parsestate(pstate);
	return node;
}

/*
 * Refuses a rule, an expression or a query, that names a function, an operator
 * or a type of a session: in another one the name is nobody's, or means what
 * the caller there has made of it.
 */
void
rule_refuse_temporary(Node *rule, const char *what)
{
	if (expression_is_temporary(rule))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_CHECK_REFUSED),
				 errmsg("%s uses a temporary function, operator or type", what),
				 errdetail("It is there in one session only."),
				 errhint("Make it in a schema that stays, and name that.")));
}

static Node *
coerce_to_numeric(ParseState *pstate, Node *node, const char *what)
{
	Oid			given = exprType(node);
	Node	   *coerced = coerce_to_target_type(pstate, node, given, NUMERICOID, -1,
												COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST,
												exprLocation(node));

	if (coerced == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s must be a number, not type %s", what, format_type_be(given)),
				 parser_errposition(pstate, exprLocation(node))));
	return coerced;
}

/* A name is an item, dotted as the groups are nested, or one of the own. */
static Node *
resolve_column(ParseState *pstate, ColumnRef *reference)
{
	CheckSet   *set = pstate->p_ref_hook_state;
	StringInfoData name;
	ListCell   *cell;
	int			column;
	Form_pg_attribute attribute;
	Var		   *var;

	initStringInfo(&name);
	foreach(cell, reference->fields)
	{
		if (!IsA(lfirst(cell), String))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("a rule must name its items one by one"),
					 parser_errposition(pstate, reference->location)));
		appendStringInfo(&name, "%s%s", name.len ? "." : "", strVal(lfirst(cell)));
	}

	column = checkset_column(set, pstate, name.data, reference->location);
	if (column < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("form \"%s\" has no item \"%s\"", set->form->name, name.data),
				 errdetail("It is named in %s.", set->what),
				 errhint("Name an item of the form, or subject, visit, authored or study."),
				 parser_errposition(pstate, reference->location)));

	attribute = TupleDescAttr(set->record->tts_tupleDescriptor, column);
	var = makeVar(1, (AttrNumber) (column + 1), attribute->atttypid, -1,
				  attribute->attcollation, 0);
	var->location = reference->location;
	return (Node *) var;
}

/*
 * The column of the record that a rule means by a name, which is read from now
 * on; -1: there is none.
 */
int
checkset_column(CheckSet *set, ParseState *pstate, const char *name, int location)
{
	FormNode   *node = form_find(set->form, name);
	int			column = node ? node->slot : -1;

	for (int i = 0; column < 0 && i < OWN_COUNT; i++)
	{
		if (strcmp(name, own_columns[i].name) == 0)
			column = set->form->nnodes + i;
	}
	if (node != NULL && node->deid == DEID_REMOVE)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_CHECK_REFUSED),
				 errmsg("item \"%s\" is removed by de-identification and cannot be judged", name),
				 errdetail("It is named in %s.", set->what),
				 errhint("De-identification comes before validation: remove the edit check, or choose another method."),
				 parser_errposition(pstate, location)));
	if (node != NULL && node->slot >= set->nreadable)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_CHECK_REFUSED),
				 errmsg("score \"%s\" is not computed yet where it is read", name),
				 errdetail("It is named in %s.", set->what),
				 errhint("Scores are computed in the order in which they were added: remove the one that reads, and add it last."),
				 parser_errposition(pstate, location)));
	if (column >= 0)
		set->used[column] = true;
	return column;
}

/* The position is one in the expression, not in the statement that calls us. */
static void
point_into_expression(void *expression)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) expression);
	}
}

static Datum
span_datum(Span span, bool *isnull)
{
	*isnull = (span.data == NULL);
	if (*isnull)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(span.data, span.len));
}
