/*
 * lookup.c
 *		Edit checks that ask a reference: a table, a view, another server.
 *
 * A lookup is a boolean SQL expression that may hold subqueries.  A name in it
 * that no table of the query has is an item of the response, and goes in as a
 * parameter.  So the answer depends on these alone, and is kept: for the run,
 * for a while, and a bounded number of them.  Without one of these items there
 * is no question: the lookup could not be evaluated.
 *
 * Each question has a budget of its own within whatever is left.  One that was
 * not answered is not asked again for a pause, which doubles while it stays so.
 * Nor is any, of a reference that did not answer three different questions in a
 * row: the circuit is open.  What becomes of the responses meanwhile is declared
 * with the lookup.
 *
 * Circuits and answers are private to the process, and forgotten when a run
 * begins.  Each worker asks one question at a time.
 *
 * An error in a question is caught by the composition, which has a
 * subtransaction around it: lookup_failed() says what it means.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "effects/lookup.h"
#include "effects/point.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* questions in a row without an answer, and what then follows */
#define MOST_FAILURES 3
#define FIRST_PAUSE_MS 1000

/* answers that a process keeps, for how long, and what is too large to keep */
#define MOST_ANSWERS 10000
#define MOST_AGE_MS 60000
#define MOST_QUESTION 1024

/* One of the record's columns that a lookup reads. */
typedef struct LookupItem
{
	int			column;
	Oid			type;
	Oid			collation;
	int16		typlen;
	bool		typbyval;
} LookupItem;

typedef struct Lookup
{
	LookupDeclaration declared;
	CheckSet   *record;			/* whose columns it names */
	ExprState  *condition;		/* NULL: always */
	SPIPlanPtr	plan;
	LookupItem *items;			/* its parameters, from $1 */
	int			nitems;
} Lookup;

/* Is a reference asked? */
typedef struct Circuit
{
	int64		check_id;		/* hash key */
	int			failures;		/* in a row */
	TimestampTz open_until;		/* no question before */
} Circuit;

typedef enum AnswerKind
{
	ANSWER_YES = 0,
	ANSWER_NO,
	ANSWER_NULL,
	ANSWER_NOT_ASKED			/* there was none, and it is not asked now */
} AnswerKind;

typedef struct Answer
{
	uint64		hash;			/* hash key: of the question */
	char	   *question;
	int			len;
	AnswerKind	kind;
	int			failures;		/* in a row, of ANSWER_NOT_ASKED */
	TimestampTz good_until;
} Answer;

static HTAB *circuits = NULL;
static HTAB *answers = NULL;
static MemoryContext memory = NULL; /* of both */

static void compile(Lookup *lookup);
static void check_plan(Lookup *lookup);
static void set_up_parser(ParseState *pstate, void *argument);
static Node *resolve_item(ParseState *pstate, ColumnRef *reference, Node *column);
static int	item_of_column(Lookup *lookup, int column);
static bool applies(LookupSet *set, const Lookup *lookup, FindingList *findings);
static AnswerKind ask(LookupSet *set, Lookup *lookup);
static AnswerKind execute(Lookup *lookup);
static bool spell_question(const Lookup *lookup, StringInfo question);
static void note_unanswered(const Lookup *lookup);
static Answer *find_answer(StringInfo question);
static Answer *place_for_answer(StringInfo question);
static uint64 hash_of(StringInfo question);
static void prepare_memory(void);
static Circuit *find_circuit(const Lookup *lookup);
static bool circuit_is_open(const Lookup *lookup);
static void circuit_failed(const Lookup *lookup, const ErrorData *error);
static bool settle_unanswered(const LookupSet *set, Response *response, const char *message);

bool
on_timeout_from_name(const char *name, OnTimeout *on_timeout)
{
	static const char *const names[] = {
		[ON_TIMEOUT_DEFER] = "defer",
		[ON_TIMEOUT_REJECT] = "reject",
		[ON_TIMEOUT_WARN] = "warn",
	};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
		{
			*on_timeout = (OnTimeout) i;
			return true;
		}
	}
	return false;
}

/* Makes an empty set over the items of a form's checks, in the current memory context. */
LookupSet *
lookupset_create(CheckSet *items)
{
	LookupSet  *set = palloc0(sizeof(LookupSet));

	set->items = items;
	return set;
}

/* Compiles a lookup and adds it; the strings of the declaration must stay. */
void
lookupset_add(LookupSet *set, const LookupDeclaration *declared)
{
	Lookup	   *lookup;

	if (set->n >= set->room)
	{
		set->room = Max(4, set->room * 2);
		set->lookups = set->lookups ?
			repalloc(set->lookups, set->room * sizeof(Lookup *)) :
			palloc(set->room * sizeof(Lookup *));
	}
	/* its plan points at it, and may be made anew any time */
	lookup = palloc0(sizeof(Lookup));
	lookup->declared = *declared;
	if (lookup->declared.message == NULL)
		lookup->declared.message = "the lookup does not hold";
	lookup->record = set->items;
	compile(lookup);
	set->lookups[set->n++] = lookup;
	if (declared->on_timeout == ON_TIMEOUT_DEFER)
		set->defers = true;
}

static void
compile(Lookup *lookup)
{
	MemoryContext keep = CurrentMemoryContext;
	const LookupDeclaration *declared = &lookup->declared;
	SPIPrepareOptions options = {0};

	if (declared->condition != NULL)
		lookup->condition = checkset_compile(lookup->record, declared->condition,
											 psprintf("condition of lookup \"%s\"", declared->name));
	lookup->record->what = psprintf("lookup \"%s\"", declared->name);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	options.parserSetup = set_up_parser;
	options.parserSetupArg = lookup;
	options.parseMode = RAW_PARSE_PLPGSQL_EXPR;
	/* planned once; and values never become part of a text sent elsewhere */
	options.cursorOptions = CURSOR_OPT_GENERIC_PLAN;
	/* names are resolved again, and may be more, whenever it is planned anew */
	lookup->items = MemoryContextAllocZero(keep, sizeof(LookupItem) *
										   lookup->record->record->tts_tupleDescriptor->natts);
	PG_TRY();
	{
		lookup->plan = plan_keep(SPI_prepare_extended(declared->query, &options), keep);
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(keep);

		/* the query was declared, perhaps long ago: say which it is */
		if (!error_is_ours(error))
			error->message = psprintf("%s: %s", lookup->record->what, error->message);
		ReThrowError(error);
	}
	PG_END_TRY();
	check_plan(lookup);
	SPI_finish();
	MemoryContextSwitchTo(keep);
}

/* Refuses a query that is no rule. */
static void
check_plan(Lookup *lookup)
{
	const char *what = lookup->record->what;
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(lookup->plan));
	ListCell   *cell;

	if (source->resultDesc == NULL || source->resultDesc->natts != 1 ||
		TupleDescAttr(source->resultDesc, 0)->atttypid != BOOLOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s is not one boolean expression", what),
				 errhint("Write EXISTS (SELECT FROM ...), value IN (SELECT ...), or a function that returns boolean.")));
	foreach(cell, source->query_list)
	{
		const Query *query = lfirst(cell);

		if (query->commandType != CMD_SELECT || query->hasModifyingCTE || query->rowMarks != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_CHECK_REFUSED),
					 errmsg("%s writes, or locks rows", what),
					 errhint("A rule may only read.")));
		if (contain_volatile_functions((Node *) lfirst(cell)))
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_CHECK_REFUSED),
					 errmsg("%s calls a volatile function", what),
					 errdetail("A rule must give the same verdict for the same response."),
					 errhint("Use functions marked IMMUTABLE or STABLE.")));
		rule_refuse_temporary((Node *) lfirst(cell), what);
	}
	foreach(cell, source->relationOids)
	{
		if (get_rel_persistence(lfirst_oid(cell)) == RELPERSISTENCE_TEMP)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_CHECK_REFUSED),
					 errmsg("%s asks a temporary table", what),
					 errdetail("Workers cannot see it."),
					 errhint("Name a table that stays, with its schema.")));
	}
}

static void
set_up_parser(ParseState *pstate, void *argument)
{
	pstate->p_post_columnref_hook = resolve_item;
	pstate->p_ref_hook_state = argument;
}

/*
 * What is no column of the query is an item.  What is both is refused: a
 * comparison of a column with itself would always hold.  "response" stands
 * before an item whose name is taken.
 */
static Node *
resolve_item(ParseState *pstate, ColumnRef *reference, Node *column)
{
	Lookup	   *lookup = pstate->p_ref_hook_state;
	StringInfoData name;
	const char *item_name;
	ListCell   *cell;
	Param	   *parameter;
	int			found;
	int			item;

	initStringInfo(&name);
	foreach(cell, reference->fields)
	{
		if (!IsA(lfirst(cell), String))
			return NULL;
		appendStringInfo(&name, "%s%s", name.len ? "." : "", strVal(lfirst(cell)));
	}
	item_name = name.data;
	found = checkset_column(lookup->record, pstate, item_name, reference->location);
	if (found < 0 && strncmp(name.data, "response.", 9) == 0)
	{
		item_name = name.data + 9;
		found = checkset_column(lookup->record, pstate, item_name, reference->location);
	}
	if (found < 0)
		return NULL;
	if (column != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_COLUMN),
				 errmsg("\"%s\" in %s is a column of the query, and an item of the response",
						name.data, lookup->record->what),
				 errhint("Write alias.%s for the column, and response.%s for the item.",
						 item_name, item_name),
				 parser_errposition(pstate, reference->location)));

	item = item_of_column(lookup, found);
	parameter = makeNode(Param);
	parameter->paramkind = PARAM_EXTERN;
	parameter->paramid = item + 1;
	parameter->paramtype = lookup->items[item].type;
	parameter->paramtypmod = -1;
	parameter->paramcollid = lookup->items[item].collation;
	parameter->location = reference->location;
	return (Node *) parameter;
}

static int
item_of_column(Lookup *lookup, int column)
{
	Form_pg_attribute attribute = TupleDescAttr(lookup->record->record->tts_tupleDescriptor, column);
	LookupItem *item;

	for (int i = 0; i < lookup->nitems; i++)
	{
		if (lookup->items[i].column == column)
			return i;
	}
	item = &lookup->items[lookup->nitems++];
	item->column = column;
	item->type = attribute->atttypid;
	item->collation = attribute->attcollation;
	item->typlen = attribute->attlen;
	item->typbyval = attribute->attbyval;
	return lookup->nitems - 1;
}

/*
 * Asks what the response at hand calls for, from the given lookup on.  False: it
 * is to stay in the source, since a reference that did not answer rests.  May
 * raise an error, see lookup_failed().
 */
bool
look_up(LookupSet *set, Response *response, int from)
{
	FindingList *findings = response->findings;

	if (set->n == 0)
		return true;
	set->current = from;
	checkset_read(set->items, response);
	for (; set->current < set->n; set->current++)
	{
		Lookup	   *lookup = set->lookups[set->current];
		const LookupDeclaration *declared = &lookup->declared;

		if (!applies(set, lookup, findings))
			continue;
		switch (ask(set, lookup))
		{
			case ANSWER_YES:
				break;
			case ANSWER_NO:
				finding_add(findings, FINDING_CHECK, declared->severity, "",
							declared->name, declared->message);
				break;
			case ANSWER_NULL:
				finding_add(findings, FINDING_NOT_EVALUATED, SEVERITY_INFORMATION, "",
							declared->name, "the lookup could not be evaluated");
				break;
			case ANSWER_NOT_ASKED:
				if (!settle_unanswered(set, response,
									   "the reference is not asked for now, since it did not answer before"))
					return false;
				break;
		}
	}
	return true;
}

static bool
applies(LookupSet *set, const Lookup *lookup, FindingList *findings)
{
	RuleScope	scope;
	bool		yes;

	if (lookup->condition == NULL || !set->items->calls_out)
		return check_applies(set->items, lookup->condition, lookup->declared.name, findings);
	rules_begin(&scope);
	yes = check_applies(set->items, lookup->condition, lookup->declared.name, findings);
	rules_end(&scope);
	return yes;
}

/*
 * In PG_CATCH, before anything is rolled back: what does an error mean that
 * broke off the work on a response?
 */
LookupFailure
lookup_failed(LookupSet *set, ErrorData *error)
{
	bool		is_remotes = error->funcname != NULL &&
		strcmp(error->funcname, "pgfdw_report_error") == 0;

	/* postgres_fdw's "password is required": a user mapping is wrong */
	if (error->sqlerrcode == ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED)
		return LOOKUP_WRONG;
	if (!set->asking)
		return error_is_datas(error->sqlerrcode) ? LOOKUP_RAISED : LOOKUP_PASSED_ON;
	/* also by a time that the reference gave itself */
	if (budget_has_ended(&set->budget, error) || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_EPRO_DEADLINE_EXCEEDED)
		return LOOKUP_UNANSWERED;
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connection */
		case MAKE_SQLSTATE('H', 'V', '0', '0', '0'):	/* foreign server */
			return LOOKUP_UNANSWERED;
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources, */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancel or shutdown, */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* system: of the other server */
			return is_remotes ? LOOKUP_UNANSWERED : LOOKUP_PASSED_ON;
		case MAKE_SQLSTATE('0', 'A', '0', '0', '0'):	/* the rule itself is wrong: */
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):	/* no such login, */
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):	/* database, */
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):	/* schema, */
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* relation or right, */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* or it is not ready */
			return LOOKUP_WRONG;
	}
	return error_is_datas(error->sqlerrcode) ? LOOKUP_RAISED : LOOKUP_PASSED_ON;
}

/* After the rollback: the question's time is nobody's any more. */
void
lookup_returned(LookupSet *set)
{
	if (set->asking)
		budget_return(&set->budget);
	set->asking = false;
}

/*
 * What follows from a question that was broken off, for the response at hand.
 * False: the response is to stay in the source.  Raises an error when the
 * lookup itself is wrong.
 */
bool
lookup_settle(LookupSet *set, LookupFailure failure, const ErrorData *error,
			  Response *response)
{
	const Lookup *lookup = set->lookups[set->current];
	const LookupDeclaration *declared = &lookup->declared;
	const char *message;

	POINT("lookup.settle");
	if (failure == LOOKUP_RAISED)
	{
		message = psprintf("raised an error (SQLSTATE %s)", unpack_sql_state(error->sqlerrcode));
		finding_add(response->findings, FINDING_ERROR, SEVERITY_ERROR, "", declared->name,
					MemoryContextStrdup(response->findings->memory, message));
		return true;
	}
	if (failure == LOOKUP_WRONG)
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("lookup \"%s\" of form \"%s\" cannot be asked (SQLSTATE %s)",
						declared->name, set->items->form->name, unpack_sql_state(error->sqlerrcode)),
				 errhint("Does what it names still exist, and may role \"%s\" read it?",
						 GetUserNameFromId(GetUserId(), false))));
	note_unanswered(lookup);
	circuit_failed(lookup, error);
	message = error->sqlerrcode == ERRCODE_EPRO_DEADLINE_EXCEEDED ?
		"the reference did not answer within the time that it gave itself" :
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ?
		psprintf("the reference did not answer within " INT64_FORMAT " ms", declared->timeout / 1000) :
		psprintf("the reference could not be asked (SQLSTATE %s)", unpack_sql_state(error->sqlerrcode));
	return settle_unanswered(set, response,
							 MemoryContextStrdup(response->findings->memory, message));
}

/*
 * Was a connection lost over which a reference had been asked?  A foreign-data
 * wrapper then refuses to commit, and the transaction is to be done again.
 * Answers are kept, and what was not answered is not asked again at once.
 */
bool
lookup_lost_connection(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	/* one that could not be reached has no part in the transaction */
	return error->sqlerrcode != ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION &&
		(category == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION) ||
		 category == ERRCODE_TO_CATEGORY(ERRCODE_FDW_ERROR) ||
		 category == ERRCODE_TO_CATEGORY(ERRCODE_ADMIN_SHUTDOWN)) &&
		error->sqlerrcode != ERRCODE_QUERY_CANCELED;
}

/* A run begins: what was answered, and who did not answer, was another's. */
void
lookups_forget(void)
{
	if (memory != NULL)
		MemoryContextDelete(memory);
	memory = NULL;
	circuits = answers = NULL;
}

/* No answer: false when the response is to stay in the source for it. */
static bool
settle_unanswered(const LookupSet *set, Response *response, const char *message)
{
	static const Severity severity[] = {
		[ON_TIMEOUT_DEFER] = SEVERITY_INFORMATION,
		[ON_TIMEOUT_REJECT] = SEVERITY_ERROR,
		[ON_TIMEOUT_WARN] = SEVERITY_WARNING,
	};
	const LookupDeclaration *declared = &set->lookups[set->current]->declared;
	OnTimeout	policy = declared->on_timeout;
	/* one that is rejected anyway need not wait for it */
	bool		rejected = response->findings->count[SEVERITY_ERROR] > 0;

	finding_add(response->findings, FINDING_UNANSWERED, severity[policy], "",
				declared->name, message);
	return policy != ON_TIMEOUT_DEFER || rejected || set->is_trial;
}

/* The answer to the question that the record at hand is; may raise an error. */
static AnswerKind
ask(LookupSet *set, Lookup *lookup)
{
	StringInfoData question;
	Answer	   *answer;
	AnswerKind	kind;

	initStringInfo(&question);
	if (!spell_question(lookup, &question))
		return ANSWER_NULL;
	answer = find_answer(&question);
	if (answer != NULL && GetCurrentTimestamp() < answer->good_until)
		return answer->kind;
	if (circuit_is_open(lookup))
		return ANSWER_NOT_ASKED;

	set->asking = true;
	budget_grant(&set->budget, GetCurrentTimestamp() + lookup->declared.timeout);
	POINT("lookup.ask");
	kind = execute(lookup);
	/* it may have swallowed the cancel: it is late all the same */
	budget_refuse_late(&set->budget);
	budget_return(&set->budget);
	set->asking = false;

	POINT("lookup.answered");
	find_circuit(lookup)->failures = 0;
	if ((answer = place_for_answer(&question)) != NULL)
	{
		answer->kind = kind;
		answer->failures = 0;
		answer->good_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MOST_AGE_MS);
	}
	return kind;
}

/* There was no answer to the question that the record at hand is. */
static void
note_unanswered(const Lookup *lookup)
{
	StringInfoData question;
	Answer	   *answer;

	initStringInfo(&question);
	if (spell_question(lookup, &question) && (answer = place_for_answer(&question)) != NULL)
	{
		answer->failures = answer->kind == ANSWER_NOT_ASKED ? answer->failures + 1 : 1;
		answer->kind = ANSWER_NOT_ASKED;
		answer->good_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), doubling_pause(FIRST_PAUSE_MS, answer->failures - 1));
	}
}

static AnswerKind
execute(Lookup *lookup)
{
	SPIExecuteOptions options = {0};
	ParamListInfo parameters = makeParamList(lookup->nitems);
	TupleTableSlot *record = lookup->record->record;
	bool		holds = false;
	bool		isnull = true;
	RuleScope	scope;

	parameters->parserSetup = set_up_parser;
	parameters->parserSetupArg = lookup;
	for (int i = 0; i < lookup->nitems; i++)
	{
		ParamExternData *parameter = &parameters->params[i];

		parameter->value = record->tts_values[lookup->items[i].column];
		parameter->isnull = record->tts_isnull[lookup->items[i].column];
		parameter->ptype = lookup->items[i].type;
	}
	/* under another path the plan would be made anew, with other names */
	rules_begin(&scope);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	options.params = parameters;
	options.read_only = true;
	options.tcount = 2;
	if (SPI_execute_plan_extended(lookup->plan, &options) != SPI_OK_SELECT)
		elog(ERROR, "a lookup is not a query");
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("a lookup gives more than one row")));
	if (SPI_processed == 1)
		holds = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	rules_end(&scope);
	return isnull ? ANSWER_NULL : holds ? ANSWER_YES : ANSWER_NO;
}

/*
 * The question as bytes: which lookup, and the values that it reads.  False: one
 * of them is missing, and there is nothing to ask; a subquery would just find
 * nothing, as if the reference had said no.
 */
static bool
spell_question(const Lookup *lookup, StringInfo question)
{
	TupleTableSlot *record = lookup->record->record;

	appendBinaryStringInfo(question, (const char *) &lookup->declared.check_id, sizeof(int64));
	for (int i = 0; i < lookup->nitems; i++)
	{
		const LookupItem *item = &lookup->items[i];
		Datum		value = record->tts_values[item->column];

		if (record->tts_isnull[item->column])
			return false;
		if (item->typbyval)
			appendBinaryStringInfo(question, (const char *) &value, sizeof(Datum));
		else
			appendBinaryStringInfo(question, (const char *) DatumGetPointer(value),
								   (int) datumGetSize(value, false, item->typlen));
	}
	return true;
}

/* What is known of a question, perhaps of too long ago; NULL: nothing. */
static Answer *
find_answer(StringInfo question)
{
	uint64		hash = hash_of(question);
	Answer	   *answer;

	prepare_memory();
	answer = hash_search(answers, &hash, HASH_FIND, NULL);
	return answer != NULL && answer->len == question->len &&
		memcmp(answer->question, question->data, question->len) == 0 ? answer : NULL;
}

/*
 * Where the answer to a question is to be kept; that of another, which happens to
 * have the same hash, has to go.  When there is no room, all have to.  NULL: it
 * is not kept.
 */
static Answer *
place_for_answer(StringInfo question)
{
	uint64		hash = hash_of(question);
	Answer	   *answer = find_answer(question);
	bool		found;

	if (answer != NULL)
		return answer;
	if (question->len > MOST_QUESTION)
		return NULL;
	if (hash_get_num_entries(answers) >= MOST_ANSWERS)
	{
		HASH_SEQ_STATUS all;

		hash_seq_init(&all, answers);
		while ((answer = hash_seq_search(&all)) != NULL)
		{
			pfree(answer->question);
			hash_search(answers, &answer->hash, HASH_REMOVE, NULL);
		}
	}
	answer = hash_search(answers, &hash, HASH_ENTER, &found);
	if (found)
		pfree(answer->question);
	answer->question = MemoryContextAlloc(memory, question->len);
	memcpy(answer->question, question->data, question->len);
	answer->len = question->len;
	answer->kind = ANSWER_NULL;
	return answer;
}

static uint64
hash_of(StringInfo question)
{
	return hash_bytes_extended((const unsigned char *) question->data, question->len, 0);
}

static void
prepare_memory(void)
{
	HASHCTL		control = {0};

	if (memory != NULL)
		return;
	memory = AllocSetContextCreate(TopMemoryContext, "epro_etl lookups", ALLOCSET_DEFAULT_SIZES);
	control.hcxt = memory;
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(Answer);
	answers = hash_create("epro_etl answers", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	control.entrysize = sizeof(Circuit);
	circuits = hash_create("epro_etl circuits", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static Circuit *
find_circuit(const Lookup *lookup)
{
	Circuit    *circuit;
	bool		found;

	prepare_memory();
	circuit = hash_search(circuits, &lookup->declared.check_id, HASH_ENTER, &found);
	if (!found)
	{
		circuit->failures = 0;
		circuit->open_until = 0;
	}
	return circuit;
}

/* Is the reference not to be asked now?  After a pause, it is, once. */
static bool
circuit_is_open(const Lookup *lookup)
{
	const Circuit *circuit = find_circuit(lookup);

	return circuit->failures >= MOST_FAILURES && GetCurrentTimestamp() < circuit->open_until;
}

/* A question went without an answer; says so in the log when enough did. */
static void
circuit_failed(const Lookup *lookup, const ErrorData *error)
{
	Circuit    *circuit = find_circuit(lookup);
	long		pause;

	if (++circuit->failures < MOST_FAILURES)
		return;
	pause = doubling_pause(FIRST_PAUSE_MS, circuit->failures - MOST_FAILURES);
	circuit->open_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	ereport(LOG,
			(errmsg("epro_etl lookup \"%s\" of form \"%s\" was not answered %d times in a row (SQLSTATE %s), and is asked again in %ld ms",
					lookup->declared.name, lookup->record->form->name, circuit->failures, unpack_sql_state(error->sqlerrcode), pause)));
}
