/*
 * context.c
 *		What travels down a call tree: a deadline, and request values.
 *
 * A deadline is an instant, never a duration that starts anew.  Budgets nest:
 * each is granted within the one around it, and the earliest of all is when
 * the timer cancels what is going on, as statement_timeout would.  Which budget
 * that was is found out where the cancel arrives: it is the outermost that has
 * ended.  A cancel that somebody swallows on the way comes again.
 *
 * Request values are a transaction-local setting, so subtransactions, parallel
 * workers and a run's workers have them without more ado.
 *
 * All of it is private to the process; the timer is one, and armed while there
 * is a budget.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/context.h"
#include "effects/effects.h"
#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/timeout.h"
#include "words/compat.h"
#include "words/errors.h"

/* how often a cancel comes again that was swallowed */
#define AGAIN_MS 20

/* by how much another server's clock may be ahead when a time is over */
#define EARLY_MS 5

/* Does a setting look like request values? */
typedef struct ValuesCheck
{
	JsonSemAction actions;
	int			depth;
	bool		fits;
} ValuesCheck;

static Budget *innermost = NULL;
static TimeoutId timer = MAX_TIMEOUTS;

/*
 * Whose cancel is it?  Others cancel by SIGINT, also statement_timeout; so these
 * are counted.  It is ours while the timer has fired and none has come since.
 */
static volatile sig_atomic_t canceled = false;	/* the timer has fired */
static volatile uint32 cancels = 0; /* of others, ever */
static volatile uint32 cancels_before = 0;	/* when the timer fired */
static volatile uint32 firings = 0; /* of the timer, ever */

static TimestampTz statement_deadline(void);
static TimestampTz earliest_of(const Budget *budget);
static TimestampTz sooner(TimestampTz one, TimestampTz other);
static TimestampTz moment_of(const ErrorData *error, TimestampTz deadline);
static void arm(void);
static void listen(void);
static void at_transaction_end(XactEvent event, void *arg);
static void on_timer(void);
static void on_cancel(SIGNAL_ARGS);
static EproJsonAction on_object(void *state);
static EproJsonAction on_array(void *state);
static EproJsonAction on_key(void *state, char *name, bool isnull);
static EproJsonAction on_scalar(void *state, char *token, JsonTokenType type);
static Jsonb *parse_values(const char *text);

/* When what is going on has to end, whoever says so; 0: never. */
TimestampTz
context_deadline(void)
{
	return sooner(statement_deadline(), earliest_of(innermost));
}

/* The same without a budget and what is within it. */
TimestampTz
context_deadline_around(const Budget *budget)
{
	return sooner(statement_deadline(), earliest_of(budget->outer));
}

/* Is it that of a budget, not of the statement or transaction? */
bool
context_deadline_is_budgets(void)
{
	TimestampTz statement = statement_deadline();
	TimestampTz budgets = earliest_of(innermost);

	return budgets != 0 && (statement == 0 || budgets < statement);
}

/* For canceled_since(). */
CancelMark
cancel_mark(void)
{
	CancelMark	mark;

	listen();
	mark.by_others = cancels;
	mark.by_budgets = firings;
	return mark;
}

/*
 * Has this process been canceled since, if only to a handler that swallowed it?
 * An error that a rule or trigger raises then says nothing about the data.
 */
bool
canceled_since(const CancelMark *mark, bool by_budgets)
{
	return cancels != mark->by_others ||
		(by_budgets && firings != mark->by_budgets);
}

/*
 * Grants a budget, until budget_return(); the caller's frame must stay that
 * long, also when an error passes through it.  A budget that is longer than
 * the one around it changes nothing.
 */
void
budget_grant(Budget *budget, TimestampTz until)
{
	listen();
	budget->until = until;
	budget->cancels = cancels;
	budget->outer = innermost;
	innermost = budget;
	arm();
}

/* The innermost budget is over, or was not needed. */
void
budget_return(Budget *budget)
{
	Assert(innermost == budget);
	innermost = budget->outer;
	disable_timeout(timer, false);
	/* a cancel that is on its way is for nobody any more, but for others' */
	if (canceled && cancels == cancels_before)
	{
		QueryCancelPending = false;
		if (cancels != cancels_before)
			InterruptPending = QueryCancelPending = true;
	}
	canceled = false;
	arm();
}

/*
 * At the end of what a budget is for: who swallowed the cancel, and came to an
 * end all the same, is late.
 */
void
budget_refuse_late(const Budget *budget)
{
	if (GetCurrentTimestamp() >= budget->until)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg(MESSAGE_LATE)));
}

/*
 * Called where an error arrives that came from inside a budget, before anything
 * is rolled back: was it the end of this budget?  Not if one around it has
 * ended as well, or the statement's time, or if somebody else has canceled since
 * it was granted: then it is theirs to say, and the error has to go on as this
 * very ErrorData, which is marked.
 */
bool
budget_has_ended(const Budget *budget, ErrorData *error)
{
	TimestampTz statement = statement_deadline();
	TimestampTz now = moment_of(error, context_deadline());

	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED || error_is_marked_cancel(error))
		return false;
	if ((statement != 0 && now >= statement) || cancels != budget->cancels ||
		(!canceled && error_is_own_cancel(error)))
	{
		/* the timer of an outer budget may fire before the error gets there */
		error_mark_cancel(error);
		return false;
	}
	if (now < budget->until)
		return false;
	for (const Budget *outer = budget->outer; outer != NULL; outer = outer->outer)
	{
		if (now >= outer->until)
			return false;
	}
	return true;
}

/*
 * Called where an error arrives: if it is a cancel, is it because of this
 * deadline?
 */
bool
deadline_has_come(TimestampTz deadline, const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		moment_of(error, deadline) >= deadline;
}

/*
 * When an error happened: now, mostly.  A server that was told the time that is
 * left ends its statement when that is over by its own clock, which may go a
 * little faster; then the deadline is the moment.  Not when somebody has just
 * canceled us: then there is no telling.
 */
static TimestampTz
moment_of(const ErrorData *error, TimestampTz deadline)
{
	TimestampTz now = GetCurrentTimestamp();

	if (deadline != 0 && now < deadline && !error_is_own_cancel(error) && !QueryCancelPending &&
		deadline - now <= EARLY_MS * INT64CONST(1000))
		return deadline;
	return now;
}

/* Sets a value until the transaction's end; NULL takes it away. */
void
context_set(const char *key, const char *value)
{
	Jsonb	   *values = context_values();
	JsonbParseState *state = NULL;
	JsonbIterator *iterator;
	JsonbValue	name;
	JsonbValue	item;
	Jsonb	   *result;
	char	   *text;

	if (strlen(key) == 0 || strlen(key) > MOST_CONTEXT_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key of a request value has 1 to %d bytes", MOST_CONTEXT_KEY)));
	if (value != NULL && strlen(value) > MOST_CONTEXT_VALUE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a request value has at most %d bytes", MOST_CONTEXT_VALUE),
				 errhint("A request value names things: an identifier, an actor, a reason.")));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (values != NULL)
	{
		iterator = JsonbIteratorInit(&values->root);
		(void) JsonbIteratorNext(&iterator, &name, false);
		while (JsonbIteratorNext(&iterator, &name, true) == WJB_KEY)
		{
			(void) JsonbIteratorNext(&iterator, &item, true);
			if ((int) strlen(key) == name.val.string.len &&
				memcmp(key, name.val.string.val, name.val.string.len) == 0)
				continue;
			pushJsonbValue(&state, WJB_KEY, &name);
			pushJsonbValue(&state, WJB_VALUE, &item);
		}
	}
	if (value != NULL)
	{
		name.type = item.type = jbvString;
		name.val.string.val = unconstify(char *, key);
		name.val.string.len = (int) strlen(key);
		item.val.string.val = unconstify(char *, value);
		item.val.string.len = (int) strlen(value);
		pushJsonbValue(&state, WJB_KEY, &name);
		pushJsonbValue(&state, WJB_VALUE, &item);
	}
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	text = JsonbToCString(NULL, &result->root, VARSIZE(result));
	if (strlen(text) > MOST_CONTEXT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("request values have %d bytes together, at most", MOST_CONTEXT)));
	(void) set_config_option("epro_etl.context", text, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* A value, in the current memory context; NULL: it is not set. */
char *
context_get(const char *key)
{
	Jsonb	   *values = context_values();
	JsonbValue *found = values ? getKeyJsonValueFromContainer(&values->root, key, strlen(key), NULL) : NULL;

	return found && found->type == jbvString ? pnstrdup(found->val.string.val, found->val.string.len) : NULL;
}

/* All of them, in the current memory context; NULL: there are none. */
Jsonb *
context_values(void)
{
	return epro_context == NULL || epro_context[0] == '\0' ? NULL :
		parse_values(epro_context);
}

/* When the statement at hand times out, or its transaction; 0: never. */
static TimestampTz
statement_deadline(void)
{
	TimestampTz statement = get_timeout_active(STATEMENT_TIMEOUT) ?
		get_timeout_finish_time(STATEMENT_TIMEOUT) : 0;
	TimestampTz transaction = EPRO_HAS_TRANSACTION_TIMEOUT && get_timeout_active(EPRO_TRANSACTION_TIMEOUT) ?
		get_timeout_finish_time(EPRO_TRANSACTION_TIMEOUT) : 0;

	return sooner(statement, transaction);
}

/* The earliest end of a budget and those around it; 0: there is none. */
static TimestampTz
earliest_of(const Budget *budget)
{
	TimestampTz first = 0;

	for (; budget != NULL; budget = budget->outer)
		first = sooner(first, budget->until);
	return first;
}

/* The earlier of two instants, of which each may be 0: never. */
static TimestampTz
sooner(TimestampTz one, TimestampTz other)
{
	return one == 0 || other == 0 ? Max(one, other) : Min(one, other);
}

static void
arm(void)
{
	if (innermost == NULL)
		return;
	listen();
	enable_timeout_every(timer, earliest_of(innermost), AGAIN_MS);
}

/* From now on cancels are counted, and the timer can be armed. */
static void
listen(void)
{
	if (timer != MAX_TIMEOUTS)
		return;
	timer = RegisterTimeout(USER_TIMEOUT, on_timer);
	pqsignal(SIGINT, on_cancel);
	RegisterXactCallback(at_transaction_end, NULL);
}

/* An error may have left frames behind whose budgets nobody returned. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT || innermost == NULL)
		return;
	innermost = NULL;
	canceled = false;
	disable_timeout(timer, false);
}

/* In a signal handler: cancels the statement at hand, as a timeout does. */
static void
on_timer(void)
{
	uint32		others = cancels;

	firings++;
	/* if somebody else has canceled it, that is what it will be */
	if (!QueryCancelPending)
	{
		cancels_before = others;
		canceled = true;
	}
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* In place of the server's handler, which it calls.  lock_timeout is no cancel. */
static void
on_cancel(SIGNAL_ARGS)
{
	if (!get_timeout_indicator(LOCK_TIMEOUT, false))
		cancels++;
	StatementCancelHandler(postgres_signal_arg);
}

/* Check hook of the setting: a JSON object of bounded size, as context_set() writes. */
bool
context_check(char **value, void **extra, GucSource source)
{
	ValuesCheck values = {0};

	if (*value == NULL || **value == '\0')
		return true;
	if (strlen(*value) > MOST_CONTEXT)
	{
		GUC_check_errdetail("Request values have %d bytes together, at most.", MOST_CONTEXT);
		return false;
	}
	values.actions.semstate = &values;
	values.actions.object_start = on_object;
	values.actions.array_start = on_array;
	values.actions.object_field_start = on_key;
	values.actions.scalar = on_scalar;
	values.fits = **value == '{';
	if (!values.fits ||
		pg_parse_json(epro_json_lexer(*value, strlen(*value), GetDatabaseEncoding()),
					  &values.actions) != JSON_SUCCESS || !values.fits)
	{
		GUC_check_errdetail("It is a JSON object of texts, with keys of up to %d bytes and values of up to %d; see epro_etl.context_set().",
							MOST_CONTEXT_KEY, MOST_CONTEXT_VALUE);
		return false;
	}
	return true;
}

/* One object, and no other. */
static EproJsonAction
on_object(void *state)
{
	ValuesCheck *values = state;

	values->fits = values->fits && ++values->depth == 1;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
on_array(void *state)
{
	((ValuesCheck *) state)->fits = false;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
on_key(void *state, char *name, bool isnull)
{
	ValuesCheck *values = state;

	values->fits = values->fits && name[0] != '\0' && strlen(name) <= MOST_CONTEXT_KEY;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
on_scalar(void *state, char *token, JsonTokenType type)
{
	ValuesCheck *values = state;

	values->fits = values->fits && type == JSON_TOKEN_STRING && strlen(token) <= MOST_CONTEXT_VALUE;
	EPRO_JSON_GO_ON;
}

static Jsonb *
parse_values(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}
