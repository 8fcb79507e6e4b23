/*
 * fhir_judge.c
 *		The rules of a FHIR Questionnaire (R4), judged over a response's tree.
 *
 * An item that is not enabled (enableWhen) need not be answered, and must not
 * be; nor anything below it.  Whether it is can be undecided: a date that stops
 * after the year, units that are not converted, an expression in another
 * language.  What cannot be decided is a finding of its own kind, never a
 * failure and never a pass.
 *
 * What de-identification takes or changes is asked for, but not judged further,
 * as in any other form.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "stages/fhir.h"
#include "stages/parse.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define BYTES_A_MEGABYTE 1048576

static void judge_scope(FhirTree *tree, FhirScope *scope, FhirTruth above);
static void judge_item(FhirTree *tree, FhirScope *scope, int at, FhirTruth above);
static void judge_presence(FhirTree *tree, const FhirItem *item, FhirTruth enabled, bool answered);
static void judge_count(FhirTree *tree, const FhirItem *item, int64 count);
static FhirTruth is_enabled(FhirTree *tree, FhirScope *scope, int at);
static FhirTruth condition_holds(FhirTree *tree, FhirScope *scope, int at,
								 const FhirCondition *condition);
static const FhirInstance *find_nearest(FhirTree *tree, FhirScope *scope, int at, int question);
static const FhirInstance *pick(const FhirScope *scope, int child_no, int beside);
static FhirTruth answer_meets(const FhirValue *answer, const FhirCondition *condition);
static FhirTruth values_equal(const FhirValue *a, const FhirValue *b);
static void judge_answer(FhirTree *tree, const FhirItem *item, bool only, const FhirValue *answer);
static void judge_code(FhirTree *tree, const FhirItem *item, bool only, const FhirValue *answer);
static void judge_limits(FhirTree *tree, const FhirItem *item, const FhirValue *answer);
static void judge_text(FhirTree *tree, const FhirItem *item, const FhirValue *answer);
static void judge_unit(FhirTree *tree, const FhirItem *item, const FhirValue *answer);
static void judge_attachment(FhirTree *tree, const FhirItem *item, const FhirValue *answer);
static bool mime_type_matches(Span type, Span pattern);
static void judge_reference(FhirTree *tree, const FhirItem *item, const FhirValue *answer);
static void report(FhirTree *tree, const FhirItem *item, FhirRule rule, const char *message);
static void report_unknown(FhirTree *tree, const FhirItem *item, FhirRule rule, const char *message);

/* Judges the whole tree; the findings say what does not hold. */
void
tree_judge(FhirTree *tree)
{
	judge_scope(tree, &tree->top, FHIR_YES);
}

/* An item that is lone, by itself, as if it stood in the tree; NULL: not answered. */
void
lone_judge(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	judge_presence(tree, item, FHIR_YES, answer != NULL);
	if (answer == NULL)
		return;
	judge_count(tree, item, 1);
	judge_answer(tree, item, true, answer);
}

static void
judge_scope(FhirTree *tree, FhirScope *scope, FhirTruth above)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	int			n = scope->item < 0 ? questionnaire->ntop : questionnaire->items[scope->item].nchildren;
	const int  *children = scope->item < 0 ? questionnaire->top : questionnaire->items[scope->item].children;

	check_stack_depth();
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		/* judged when it was read, unless it was given as an array */
		if (tree->plain && questionnaire->items[children[i]].lone && scope->first[i] == NULL)
			continue;
		judge_item(tree, scope, children[i], above);
	}
}

/* One item of the questionnaire in one scope: all that was given for it. */
static void
judge_item(FhirTree *tree, FhirScope *scope, int at, FhirTruth above)
{
	const FhirItem *item = &tree->questionnaire->items[at];
	FhirTruth	own = is_enabled(tree, scope, at);
	FhirTruth	enabled = own;
	bool		answered = false;
	int64		count = 0;

	if (above == FHIR_NO || (above == FHIR_UNKNOWN && enabled == FHIR_YES))
		enabled = above;
	for (const FhirInstance *instance = scope->first[item->child_no]; instance != NULL; instance = instance->next)
	{
		answered |= instance->filled;
		count += item->type == FHIR_QUESTION ? instance->nanswers : 1;
	}
	/* as an error it says all; if it is none, what was answered is judged by itself */
	if (enabled == FHIR_NO &&
		(!answered ||
		 (own == FHIR_NO &&
		  item_fails(tree, item, FHIR_RULE_ENABLE_WHEN, SEVERITY_ERROR,
					 "must not be answered: its condition does not hold"))))
		return;
	if (own == FHIR_UNKNOWN && answered)
		report_unknown(tree, item, FHIR_RULE_ENABLE_WHEN, "whether it may be answered depends on a condition that could not be decided");
	judge_presence(tree, item, enabled, answered);
	judge_count(tree, item, count);

	for (const FhirInstance *instance = scope->first[item->child_no]; instance != NULL; instance = instance->next)
	{
		CHECK_FOR_INTERRUPTS();
		if (instance->scope != NULL)
			judge_scope(tree, instance->scope, enabled);
		for (int i = 0; i < instance->nanswers; i++)
		{
			CHECK_FOR_INTERRUPTS();
			judge_answer(tree, item, instance->nanswers == 1 && instance->next == NULL, &instance->answers[i].value);
			if (instance->answers[i].scope != NULL)
				judge_scope(tree, instance->answers[i].scope, enabled);
		}
	}
}

/*
 * required.  A response that is not complete may lack what it will have; and
 * what is below a group that is not there is not asked for (R4, item.required).
 */
static void
judge_presence(FhirTree *tree, const FhirItem *item, FhirTruth enabled, bool answered)
{
	if (!item->required || answered || item->type == FHIR_DISPLAY)
		return;
	if (enabled == FHIR_UNKNOWN)
		report_unknown(tree, item, FHIR_RULE_REQUIRED, "whether it must be answered depends on a condition that could not be decided");
	else
		(void) item_fails(tree, item, FHIR_RULE_REQUIRED,
						  tree->complete ? SEVERITY_ERROR : SEVERITY_WARNING,
						  item->type == FHIR_GROUP ? "must have an item" : "must be answered");
}

static void
judge_count(FhirTree *tree, const FhirItem *item, int64 count)
{
	if (item->max_occurs >= 0 && count > item->max_occurs)
		report(tree, item, FHIR_RULE_MAX_OCCURS, item->max_occurs_says);
	if (item->min_occurs >= 0 && count > 0 && count < item->min_occurs)
		(void) item_fails(tree, item, FHIR_RULE_MIN_OCCURS,
						  tree->complete ? SEVERITY_ERROR : SEVERITY_WARNING, item->min_occurs_says);
}

/* enableWhen: whether an item applies in a scope. */
static FhirTruth
is_enabled(FhirTree *tree, FhirScope *scope, int at)
{
	const FhirItem *item = &tree->questionnaire->items[at];
	FhirTruth	deciding = item->any ? FHIR_YES : FHIR_NO;
	FhirTruth	result = item->any ? FHIR_NO : FHIR_YES;

	if (item->expression)
		return FHIR_UNKNOWN;
	if (item->nconditions == 0)
		return FHIR_YES;
	for (int i = 0; i < item->nconditions; i++)
	{
		FhirTruth	holds = condition_holds(tree, scope, at, &item->conditions[i]);

		if (holds == deciding)
			return deciding;
		if (holds == FHIR_UNKNOWN)
			result = FHIR_UNKNOWN;
	}
	return result;
}

/*
 * One answer that meets the condition is enough; "!=" asks that none is equal,
 * and that there is one (R4 item-operator, as R5 words it).
 */
static FhirTruth
condition_holds(FhirTree *tree, FhirScope *scope, int at, const FhirCondition *condition)
{
	const FhirInstance *first = find_nearest(tree, scope, at, condition->question);
	FhirTruth	result = FHIR_NO;
	bool		answered = false;

	for (const FhirInstance *instance = first; instance != NULL; instance = instance->next)
	{
		CHECK_FOR_INTERRUPTS();
		answered |= instance->filled;
		for (int i = 0; condition->operator != FHIR_EXISTS && i < instance->nanswers; i++)
		{
			FhirTruth	meets = answer_meets(&instance->answers[i].value, condition);

			if (meets == FHIR_YES)
				return condition->operator == FHIR_NOT_EQUAL ? FHIR_NO : FHIR_YES;
			if (meets == FHIR_UNKNOWN)
				result = FHIR_UNKNOWN;
		}
	}
	if (condition->operator == FHIR_EXISTS)
		return answered == condition->exists ? FHIR_YES : FHIR_NO;
	if (condition->operator == FHIR_NOT_EQUAL && answered && result == FHIR_NO)
		return FHIR_YES;
	return result;
}

/*
 * The instances of a question that an item in a scope asks about: those in the
 * innermost scope that both stand in, and where that scope has several on the
 * way, the nearest before the item, or else the nearest behind it (R4,
 * item.enableWhen).
 */
static const FhirInstance *
find_nearest(FhirTree *tree, FhirScope *scope, int at, int question)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	const FhirItem *items = questionnaire->items;
	int			beside = at;
	int			depth;

	for (;;)
	{
		int			above = question;

		if (scope->item < 0)
			break;
		while (items[above].depth > items[scope->item].depth)
			above = items[above].parent;
		if (above == scope->item)
			break;
		beside = scope->item;
		scope = scope->owner->within;
	}
	/* it asks about the very question that it stands below */
	if (scope->item == question)
		return scope->owner;

	for (depth = scope->item < 0 ? 0 : items[scope->item].depth + 1; depth < items[question].depth; depth++)
	{
		const FhirInstance *instance;
		int			next = question;

		while (items[next].depth > depth)
			next = items[next].parent;
		instance = pick(scope, items[next].child_no, items[beside].child_no);
		if (instance == NULL)
			return NULL;
		scope = instance->scope != NULL ? instance->scope :
			instance->nanswers > 0 ? instance->answers[instance->nanswers - 1].scope : NULL;
		if (scope == NULL)
			return NULL;
		beside = next;
	}
	return scope->first[items[question].child_no];
}

/* The last of them if they come before, the first if behind. */
static const FhirInstance *
pick(const FhirScope *scope, int child_no, int beside)
{
	return child_no < beside ? scope->last[child_no] : scope->first[child_no];
}

/* Does it?  Of "!=": is it equal? */
static FhirTruth
answer_meets(const FhirValue *answer, const FhirCondition *condition)
{
	FhirOrder	order;

	if (answer->kind == FHIR_NONE)
		return FHIR_UNKNOWN;
	if (condition->operator == FHIR_EQUAL || condition->operator == FHIR_NOT_EQUAL)
		return values_equal(answer, &condition->answer);
	order = values_order(answer, &condition->answer);
	switch (order)
	{
		case FHIR_OVERLAPS:
			return FHIR_UNKNOWN;
		case FHIR_UNRELATED:
			/* two quantities whose units do not convert are not decided */
			return answer->kind == condition->answer.kind ? FHIR_UNKNOWN : FHIR_NO;
		case FHIR_BEFORE:
			return condition->operator == FHIR_LESS || condition->operator == FHIR_LESS_EQUAL;
		case FHIR_AFTER:
			return condition->operator == FHIR_GREATER || condition->operator == FHIR_GREATER_EQUAL;
		case FHIR_SAME:
			return condition->operator == FHIR_GREATER_EQUAL || condition->operator == FHIR_LESS_EQUAL;
	}
	return FHIR_UNKNOWN;
}

static FhirTruth
values_equal(const FhirValue *a, const FhirValue *b)
{
	switch (a->kind)
	{
		case FHIR_BOOLEAN:
			return b->kind == FHIR_BOOLEAN && a->value.number == b->value.number;
		case FHIR_CODING:
			if (b->kind != FHIR_CODING)
				return FHIR_NO;
			/* a condition that names no system asks for the code alone */
			if (b->code.data == NULL)
				return spans_equal(a->text, b->text);
			return spans_equal(a->code, b->code) &&
				(b->system.data == NULL || spans_equal(a->system, b->system));
		case FHIR_REFERENCE:
			return b->kind == FHIR_REFERENCE && spans_equal(a->code, b->code);
		default:
			break;
	}
	switch (values_order(a, b))
	{
		case FHIR_SAME:
			return FHIR_YES;
		case FHIR_OVERLAPS:
			return FHIR_UNKNOWN;
		case FHIR_UNRELATED:
			return a->kind == b->kind ? FHIR_UNKNOWN : FHIR_NO;
		default:
			return FHIR_NO;
	}
}

/* The rules of one answer by itself; only: its item has no other. */
static void
judge_answer(FhirTree *tree, const FhirItem *item, bool only, const FhirValue *answer)
{
	if (answer->kind == FHIR_NONE || !node_is_judged(item->node))
		return;
	if (item->codes != NULL)
		judge_code(tree, item, only, answer);
	else if (answer->kind == FHIR_CODING && answer->code.data == NULL && !item->open)
		finding_add(tree->response->findings, FINDING_SCHEMA, SEVERITY_ERROR, item->pointer,
					"value", "must have a code");
	judge_limits(tree, item, answer);
	judge_text(tree, item, answer);
	if (answer->kind == FHIR_QUANTITY && item->units != NULL)
		judge_unit(tree, item, answer);
	if (answer->kind == FHIR_ATTACHMENT)
		judge_attachment(tree, item, answer);
	if (answer->kind == FHIR_REFERENCE && item->ntargets > 0)
		judge_reference(tree, item, answer);
}

/* answerOption or answerValueSet, and the option that stands alone. */
static void
judge_code(FhirTree *tree, const FhirItem *item, bool only, const FhirValue *answer)
{
	FhirOption	option = {0};
	const FhirOption *found = NULL;

	option.kind = answer->kind;
	option.code = answer->code;
	if (answer->kind == FHIR_INTEGER)
		option.code.data = value_text(&answer->value, &option.code.len);
	else if (answer->kind == FHIR_CODING)
	{
		option.system = answer->system;
		if (option.code.data == NULL)
			option.code = answer->text;
	}
	if (!codes_have(item->codes, &option, &found))
	{
		/* in an answer's own words, where these are welcome */
		if (item->open && answer->kind != FHIR_CODING)
			return;
		if (item->codes->partial)
			report_unknown(tree, item, FHIR_RULE_CODES, "the value set could not be resolved: whether it has the code is not known");
		else
			report(tree, item, FHIR_RULE_CODES, "must be one of the declared options");
		return;
	}
	if (found->exclusive && !only)
		report(tree, item, FHIR_RULE_EXCLUSIVE, "an option that excludes others was chosen with others");
}

static void
judge_limits(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	if (item->max_places >= 0 && (answer->kind == FHIR_DECIMAL || answer->kind == FHIR_QUANTITY))
	{
		Numeric		number = value_numeric(&answer->value);

		if (DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(number))) > item->max_places)
			report(tree, item, FHIR_RULE_MAX_PLACES, item->max_places_says);
	}
	if (item->minimum != NULL)
	{
		FhirOrder	order = values_order(answer, item->minimum);

		/* a span that begins no earlier lies behind it, too */
		if (order == FHIR_BEFORE)
			report(tree, item, FHIR_RULE_MINIMUM, item->minimum_says);
		else if (order == FHIR_UNRELATED ||
				 (order == FHIR_OVERLAPS && answer->low < item->minimum->low))
			report_unknown(tree, item, FHIR_RULE_MINIMUM, "the answer cannot be compared with the limit");
	}
	if (item->maximum != NULL)
	{
		FhirOrder	order = values_order(answer, item->maximum);

		if (order == FHIR_AFTER)
			report(tree, item, FHIR_RULE_MAXIMUM, item->maximum_says);
		else if (order == FHIR_UNRELATED ||
				 (order == FHIR_OVERLAPS && answer->high > item->maximum->high))
			report_unknown(tree, item, FHIR_RULE_MAXIMUM, "the answer cannot be compared with the limit");
	}
}

/* The length of a text, and the expression that what is written must match. */
static void
judge_text(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	Span		text = answer->code;
	pg_wchar   *wide;
	int			wide_len;
	int			code;

	if (answer->kind == FHIR_STRING || answer->kind == FHIR_URI)
	{
		/* a character has one to four bytes: count only where bytes do not decide */
		if ((item->max_length >= 0 && text.len > item->max_length) ||
			(item->min_length >= 0 && text.len / 4 < item->min_length))
		{
			int64		length = (int64) utf8_length(text.data, text.len);

			if (item->max_length >= 0 && length > item->max_length)
				report(tree, item, FHIR_RULE_MAX_LENGTH, item->max_length_says);
			if (item->min_length >= 0 && length < item->min_length)
				report(tree, item, FHIR_RULE_MIN_LENGTH, item->min_length_says);
		}
	}
	if (item->pattern == NULL || item->overlay[FHIR_RULE_REGEX] == KEYWORD_OFF)
		return;
	switch (answer->kind)
	{
		case FHIR_DECIMAL:
		case FHIR_INTEGER:
			text.data = value_text(&answer->value, &text.len);
			break;
		case FHIR_DATE:
		case FHIR_DATE_TIME:
		case FHIR_TIME:
		case FHIR_STRING:
		case FHIR_URI:
			break;
		default:
			return;
	}
	wide = palloc(((Size) text.len + 1) * sizeof(pg_wchar));
	wide_len = pg_mb2wchar_with_len(text.data, wide, text.len);
	code = pg_regexec(item->pattern, wide, wide_len, 0, NULL, 0, NULL, 0);
	pfree(wide);
	if (code == REG_NOMATCH)
		report(tree, item, FHIR_RULE_REGEX, "must match the declared regular expression");
	else if (code != REG_OKAY)
	{
		CHECK_FOR_INTERRUPTS();
		/* the engine gave up: then nothing is known of it, and it does not pass */
		item_unknown(tree, item, FHIR_RULE_REGEX, SEVERITY_ERROR,
					 "the regular expression could not be evaluated for this text");
	}
}

static void
judge_unit(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	FhirOption	unit = {0};

	unit.kind = FHIR_CODING;
	unit.code = answer->code.data ? answer->code : answer->text;
	unit.system = answer->system;
	if (codes_have(item->units, &unit, NULL))
		return;
	if (item->units->partial)
		report_unknown(tree, item, FHIR_RULE_UNITS, "the value set could not be resolved: whether it has the unit is not known");
	else
		report(tree, item, FHIR_RULE_UNITS, "must be given in a declared unit, with its code and system");
}

static void
judge_attachment(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	Span		type = object_text(answer->object, "contentType");
	Span		data = object_text(answer->object, "data");
	JsonbValue	size;

	if (item->nmime_types > 0)
	{
		bool		matches = false;

		for (int i = 0; i < item->nmime_types; i++)
			matches |= type.data != NULL && mime_type_matches(type, item->mime_types[i]);
		if (!matches)
			report(tree, item, FHIR_RULE_MIME_TYPE, "must be of a declared MIME type");
	}
	if (item->max_size != NULL)
	{
		int64		bytes = -1;
		Datum		limit = DirectFunctionCall2(numeric_mul, NumericGetDatum(item->max_size),
												NumericGetDatum(int64_to_numeric(BYTES_A_MEGABYTE)));

		/* base64: three bytes in four characters */
		if (data.data != NULL)
			bytes = (int64) data.len / 4 * 3;
		else if (object_get(answer->object, "size", &size) && size.type == jbvNumeric)
		{
			Value		number;

			value_set_jsonb(&number, &size);
			if (number.kind == VALUE_INTEGER)
				bytes = number.number;
		}
		if (bytes < 0)
			report_unknown(tree, item, FHIR_RULE_MAX_SIZE, "the attachment does not tell its size");
		else if (DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(int64_to_numeric(bytes)), limit)))
			report(tree, item, FHIR_RULE_MAX_SIZE, "must not be larger than declared");
	}
}

/* "image/png" with or without parameters; "image/\*" is any image */
static bool
mime_type_matches(Span type, Span pattern)
{
	if (pattern.len > 0 && pattern.data[pattern.len - 1] == '*')
		return type.len >= pattern.len && memcmp(type.data, pattern.data, pattern.len - 1) == 0;
	return type.len >= pattern.len && memcmp(type.data, pattern.data, pattern.len) == 0 &&
		(type.len == pattern.len || type.data[pattern.len] == ';');
}

/* The type of what is referred to, as far as the reference tells it. */
static void
judge_reference(FhirTree *tree, const FhirItem *item, const FhirValue *answer)
{
	Span		type = answer->text;
	Span		url = answer->code;

	if (type.data == NULL && url.data != NULL && url.data[0] != '#')
	{
		/* .../Patient/12, perhaps with /_history/3 behind it */
		int			end = url.len;
		int			start;

		for (int i = 0; i + 10 <= url.len; i++)
		{
			if (memcmp(url.data + i, "/_history/", 10) == 0)
				end = i;
		}
		while (end > 0 && url.data[end - 1] != '/')
			end--;
		start = Max(end - 1, 0);
		while (start > 0 && url.data[start - 1] != '/')
			start--;
		if (end > 0)
		{
			type.data = url.data + start;
			type.len = end - 1 - start;
		}
	}
	if (type.data == NULL)
	{
		report_unknown(tree, item, FHIR_RULE_TARGETS, "the reference does not tell the type of what it refers to");
		return;
	}
	for (int i = 0; i < item->ntargets; i++)
	{
		if (spans_equal(type, item->targets[i]))
			return;
	}
	report(tree, item, FHIR_RULE_TARGETS, "must refer to a resource of a declared type");
}

static void
report(FhirTree *tree, const FhirItem *item, FhirRule rule, const char *message)
{
	(void) item_fails(tree, item, rule, SEVERITY_ERROR, message);
}

static void
report_unknown(FhirTree *tree, const FhirItem *item, FhirRule rule, const char *message)
{
	item_unknown(tree, item, rule, SEVERITY_INFORMATION, message);
}
