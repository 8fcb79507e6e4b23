/*
 * validate.c
 *		The keywords of the form, judged for one response.
 *
 * All that does not hold is reported, not only the first; but an answer of
 * the wrong type is reported as that alone.  An answer that de-identification
 * took out counts as given, and is not judged further: set_deid() says so
 * when the rule is made.
 *
 * What an item's or group's schema says beyond plain keywords is judged by the
 * walker, after these.  Functions about one value serve both.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "stages/parse.h"
#include "stages/schema.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

static void validate_group(const FormNode *group, Response *response);
static void validate_node(const FormNode *node, Response *response);
static void validate_number(const FormNode *node, const Value *value,
							Response *response);
static void validate_text(const FormNode *node, Value *value,
						  Response *response);
static void validate_pattern(const FormNode *node, const Value *value,
							 Response *response);
static void report(const FormNode *node, Keyword keyword, Response *response);

/* Judges response->values; the findings say what does not hold. */
void
validate(const CompiledForm *form, Response *response)
{
	/* a questionnaire's rules need the response as it came: decode has judged them */
	if (form->questionnaire != NULL)
		return;
	validate_group(form->root, response);
	if (form->root->schema != NULL)
		schema_judge(form->root, response);
}

static void
validate_group(const FormNode *group, Response *response)
{
	check_stack_depth();
	for (int i = 0; i < group->nchildren; i++)
		validate_node(group->children[i], response);
}

static void
validate_node(const FormNode *node, Response *response)
{
	Value	   *value = &response->values[node->slot];

	if (value->kind == VALUE_ABSENT)
	{
		if (node->has & (1 << KEYWORD_REQUIRED))
			report(node, KEYWORD_REQUIRED, response);
		return;
	}
	if (!node_is_judged(node) || value->kind == VALUE_REMOVED)
		return;

	if (!type_holds(node, value))
	{
		report(node, KEYWORD_TYPE, response);
		/* what else would be said follows from it, unless it is no error */
		if (severity_laid(node->overlay[KEYWORD_TYPE], SEVERITY_ERROR) == SEVERITY_ERROR)
			return;
	}
	if (node->has & ((1 << KEYWORD_CONST) | (1 << KEYWORD_ENUM)))
	{
		if ((node->has & (1 << KEYWORD_CONST)) &&
			!equal_values(value, &node->options[node->noptions]))
			report(node, KEYWORD_CONST, response);
		if (node->has & (1 << KEYWORD_ENUM))
		{
			int			i = 0;

			while (i < node->noptions && !equal_values(value, &node->options[i]))
				i++;
			if (i == node->noptions)
				report(node, KEYWORD_ENUM, response);
		}
	}

	switch (value->kind)
	{
		case VALUE_INTEGER:
		case VALUE_NUMERIC:
			validate_number(node, value, response);
			break;
		case VALUE_TEXT:
			validate_text(node, value, response);
			break;
		case VALUE_OBJECT:
			validate_group(node, response);
			break;
		default:
			break;
	}
	if (node->schema != NULL)
		schema_judge(node, response);
}

/* Is the value of one of the node's types? */
bool
type_holds(const FormNode *node, const Value *value)
{
	static const uint16 types[] = {
		[VALUE_ABSENT] = PG_UINT16_MAX,
		[VALUE_REMOVED] = PG_UINT16_MAX,
		[VALUE_NULL] = TYPE_NULL,
		[VALUE_BOOLEAN] = TYPE_BOOLEAN,
		[VALUE_INTEGER] = TYPE_INTEGER | TYPE_NUMBER,
		[VALUE_NUMERIC] = TYPE_NUMBER,
		[VALUE_TEXT] = TYPE_STRING,
		[VALUE_ARRAY] = TYPE_ARRAY,
		[VALUE_OBJECT] = TYPE_OBJECT,
	};

	if (node->types == 0 || (node->types & types[value->kind]))
		return true;
	/* typed: a whole number beyond int64, such as 1e400 */
	return value->kind == VALUE_NUMERIC && value->typed && (node->types & TYPE_INTEGER);
}

static void
validate_number(const FormNode *node, const Value *value, Response *response)
{
	if (!(node->has & KEYWORDS_OF_LIMITS))
		return;
	/* most keep them: one with a fraction, if the whole numbers on both sides do */
	if ((value->kind == VALUE_INTEGER || value->between) && value->number >= node->low &&
		(value->between ? value->number < node->high : value->number <= node->high))
		return;
	for (Keyword keyword = KEYWORD_MINIMUM; keyword <= KEYWORD_EXCLUSIVE_MAXIMUM; keyword++)
	{
		if ((node->has & (1 << keyword)) &&
			!limit_holds(keyword, value, &node->bound[keyword]))
			report(node, keyword, response);
	}
}

/* Both must be numbers. */
bool
limit_holds(Keyword keyword, const Value *value, const Value *limit)
{
	int			order = value_compare_numbers(value, limit);

	switch (keyword)
	{
		case KEYWORD_MINIMUM:
			return order >= 0;
		case KEYWORD_MAXIMUM:
			return order <= 0;
		case KEYWORD_EXCLUSIVE_MINIMUM:
			return order > 0;
		default:
			return order < 0;
	}
}

static void
validate_text(const FormNode *node, Value *value, Response *response)
{
	for (Keyword keyword = KEYWORD_MIN_LENGTH; keyword <= KEYWORD_MAX_LENGTH; keyword++)
	{
		if ((node->has & (1 << keyword)) && !length_holds(node, keyword, value))
			report(node, keyword, response);
	}
	if (node->pattern != NULL && node->overlay[KEYWORD_PATTERN] != KEYWORD_OFF)
		validate_pattern(node, value, response);
	if (node->format != FORMAT_NONE && !format_holds(node->format, value))
		report(node, KEYWORD_FORMAT, response);
}

/*
 * A character has one to four bytes: they are counted only where the bytes do
 * not decide.
 */
bool
length_holds(const FormNode *node, Keyword keyword, const Value *value)
{
	if (keyword == KEYWORD_MIN_LENGTH)
		return value->len / 4 >= node->min_length ||
			(int64) utf8_length(value->data, value->len) >= node->min_length;
	return value->len <= node->max_length ||
		(int64) utf8_length(value->data, value->len) <= node->max_length;
}

/* The engine may give up on a text: then nothing is known of it, and it does not pass. */
static void
validate_pattern(const FormNode *node, const Value *value, Response *response)
{
	switch (pattern_matches(node->pattern, value->data, value->len))
	{
		case REG_OKAY:
			break;
		case REG_NOMATCH:
			report(node, KEYWORD_PATTERN, response);
			break;
		default:
			finding_add(response->findings, FINDING_NOT_EVALUATED,
						(Severity) severity_laid(node->overlay[KEYWORD_PATTERN], SEVERITY_ERROR),
						node->pointer, keyword_name[KEYWORD_PATTERN],
						"the pattern could not be evaluated for this text");
	}
}

/*
 * REG_OKAY, REG_NOMATCH, or why the engine gave up.  A pattern is searched for,
 * not anchored (JSON Schema, section 6.3.3).
 */
int
pattern_matches(regex_t *pattern, const char *text, int len)
{
	pg_wchar   *wide = MemoryContextAllocHuge(CurrentMemoryContext,
											  ((Size) len + 1) * sizeof(pg_wchar));
	int			wide_len = pg_mb2wchar_with_len(text, wide, len);
	int			code = pg_regexec(pattern, wide, wide_len, 0, NULL, 0, NULL, 0);

	pfree(wide);
	/* a cancel may be why */
	if (code != REG_OKAY && code != REG_NOMATCH)
		CHECK_FOR_INTERRUPTS();
	return code;
}

/*
 * Reads the text by its format, and keeps what was read for the sink.  A time
 * finer than microseconds is a good one, but no SQL type holds it: it stays a
 * text.
 */
bool
format_holds(Format format, Value *value)
{
	ParsedDate	date;
	ParsedTime	time;
	ParseResult result;

	switch (format)
	{
		case FORMAT_DATE:
			if (parse_date(value->data, value->len, &date) != PARSE_OK)
				return false;
			value->number = date2j(date.year, date.month, date.day) - POSTGRES_EPOCH_JDATE;
			break;
		case FORMAT_TIME:
			result = parse_time(value->data, value->len, &time);
			if (result != PARSE_OK)
				return result == PARSE_INEXACT;
			value->number = ((time.hour * INT64CONST(60) + time.minute) * 60 +
							 time.second) * USECS_PER_SEC + time.micros;
			value->zone = -time.offset_seconds;
			break;
		case FORMAT_DATE_TIME:
			result = parse_date_time(value->data, value->len, &date, &time);
			if (result != PARSE_OK)
				return result == PARSE_INEXACT;
			value->number = (date2j(date.year, date.month, date.day) -
							 POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
				((time.hour * INT64CONST(60) + time.minute) * 60 +
				 time.second - time.offset_seconds) * USECS_PER_SEC + time.micros;
			break;
		case FORMAT_DURATION:
			return parse_duration(value->data, value->len);
		case FORMAT_EMAIL:
			return parse_email(value->data, value->len);
		case FORMAT_IPV4:
			return parse_ipv4(value->data, value->len);
		case FORMAT_IPV6:
			return parse_ipv6(value->data, value->len);
		case FORMAT_UUID:
			return parse_uuid(value->data, value->len);
		case FORMAT_NONE:
			return true;
	}
	value->typed = true;
	return true;
}

/* Equality as JSON Schema has it: 1 and 1.0 are the same number. */
bool
equal_values(const Value *a, const Value *b)
{
	if ((a->kind == VALUE_INTEGER || a->kind == VALUE_NUMERIC) &&
		(b->kind == VALUE_INTEGER || b->kind == VALUE_NUMERIC))
		return value_compare_numbers(a, b) == 0;
	if (a->kind != b->kind)
		return false;
	switch (a->kind)
	{
		case VALUE_TEXT:
			return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
		case VALUE_BOOLEAN:
			return a->number == b->number;
		case VALUE_ARRAY:
		case VALUE_OBJECT:
			return compareJsonbContainers((JsonbContainer *) a->data,
										  (JsonbContainer *) b->data) == 0;
		default:
			return true;
	}
}

static void
report(const FormNode *node, Keyword keyword, Response *response)
{
	int			severity = severity_laid(node->overlay[keyword], SEVERITY_ERROR);

	if (severity == KEYWORD_OFF)
		return;
	finding_add(response->findings, FINDING_SCHEMA, (Severity) severity,
				node->pointer, keyword_name[keyword], node->message[keyword]);
}
