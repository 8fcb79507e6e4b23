/*
 * deidentify.c
 *		Identifiers out, pseudonym in: the first stage after decoding.
 *
 * The subject becomes its key (pseudonymiser.c); then each item that has one
 * gets its method.
 */
#include "postgres.h"

#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define MICROSECONDS_A_DAY INT64CONST(86400000000)

static void remove_node(const FormNode *node, Value *values);
static bool is_blank(const FormNode *node, const Value *value);
static void generalise_age(const FormNode *node, Value *value,
						   Response *response);

/*
 * Makes the subject key and applies each item's method.  Returns false, with
 * a finding, when there is no subject to make a key of.  Without a pseudonymiser
 * none is asked for.
 */
bool
deidentify(const CompiledForm *form, Pseudonymiser *pseudonymiser,
		   Response *response)
{
	if (pseudonymiser != NULL && !pseudonymise(pseudonymiser, response))
		return false;

	for (int i = 0; i < form->ndeidentified; i++)
	{
		const FormNode *node = form->nodes[form->deidentified[i]];
		Value	   *value = &response->values[node->slot];

		if (value->kind == VALUE_ABSENT)
			continue;
		switch (node->deid)
		{
			case DEID_KEEP:
				break;
			case DEID_REMOVE:
				remove_node(node, response->values);
				break;
			case DEID_REDACT:
				/* what was not answered stays so */
				if (value->kind == VALUE_NULL || is_blank(node, value))
					break;
				value->kind = VALUE_TEXT;
				value->data = "REDACTED";
				value->len = strlen("REDACTED");
				break;
			case DEID_AGE:
				generalise_age(node, value, response);
				break;
		}
	}
	return true;
}

/* Takes out an answer, or a group with all that is in it. */
static void
remove_node(const FormNode *node, Value *values)
{
	Value	   *value = &values[node->slot];

	for (int i = 0; i < node->nchildren; i++)
		remove_node(node->children[i], values);
	if (value->kind != VALUE_ABSENT)
	{
		memset(value, 0, sizeof(*value));
		value->kind = VALUE_REMOVED;
	}
}

/* A text that normalisation is going to take for no answer. */
static bool
is_blank(const FormNode *node, const Value *value)
{
	const char *text = value->data;

	if (value->kind != VALUE_TEXT || !(node->normalise & NORMALISE_BLANK))
		return false;
	return value->len == 0 ||
		((node->normalise & NORMALISE_TRIM) && normalise_trim(&text, value->len) == 0);
}

/*
 * A date of birth becomes the age in whole years on the day (UTC) on which the
 * response was authored: the stage knows no clock.  Ages at and over the cap
 * become the cap.  What is no date is a finding, and goes no further.
 */
static void
generalise_age(const FormNode *node, Value *value, Response *response)
{
	ParsedDate	born;
	const char *text = value->data;
	int			len;
	int			year;
	int			month;
	int			day;
	int			age;
	int64		days;

	if (value->kind == VALUE_NULL || is_blank(node, value))
		return;
	len = value->kind == VALUE_TEXT ? value->len : 0;
	if (len > 0 && (node->normalise & NORMALISE_TRIM))
		len = (int) normalise_trim(&text, len);
	if (value->kind != VALUE_TEXT || parse_date(text, len, &born) != PARSE_OK)
	{
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
					node->pointer, "generalize",
					"must be a date (RFC 3339: YYYY-MM-DD) to become an age");
		remove_node(node, response->values);
		return;
	}
	if (response->authored_isnull || TIMESTAMP_NOT_FINITE(response->authored))
	{
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
					node->pointer, "generalize",
					"an age needs the time at which the response was authored");
		remove_node(node, response->values);
		return;
	}

	days = response->authored / MICROSECONDS_A_DAY;
	if (response->authored % MICROSECONDS_A_DAY < 0)
		days--;
	j2date((int) days + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	age = year - born.year;
	if (month < born.month || (month == born.month && day < born.day))
		age--;
	if (age < 0)
	{
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
					node->pointer, "generalize",
					"lies after the time at which the response was authored");
		remove_node(node, response->values);
		return;
	}
	memset(value, 0, sizeof(*value));
	value->kind = VALUE_INTEGER;
	value->number = Min(age, node->deid_cap);
}
