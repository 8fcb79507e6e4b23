/*
 * deid_method.c
 *		What becomes of one answer: the methods that need no key.
 *
 * Pure: owns nothing, takes no lock.  Dates are deid_date.c's.
 */
#include "postgres.h"

#include "common/int.h"
#include "mb/pg_wchar.h"
#include "stages/deid.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* of a US ZIP code, and of one with its four more digits */
#define ZIP_DIGITS 5
#define ZIP_PLUS_4 9
/* the longest postal code of any country, with room */
#define MOST_POSTAL 16

static DeidFault mask(const DeidRule *rule, Value *value);
static DeidFault put_into_bucket(const DeidRule *rule, Value *value);
static DeidFault shorten_postal_code(const DeidRule *rule, Value *value);

/* Applies the item's method. */
DeidFault
deid_apply(const FormNode *node, Value *value, const Response *response)
{
	const DeidRule *rule = node->deid_rule;

	switch (node->deid)
	{
		case DEID_KEEP:
		case DEID_REMOVE:
		case DEID_SHIFT:
		case DEID_HASH:
		case DEID_PERTURB:
		case DEID_ENCRYPT:
		case DEID_PSEUDONYMIZE:
			Assert(false);
			return NULL;
		case DEID_REDACT:
			deid_set_text(value, "REDACTED", strlen("REDACTED"));
			return NULL;
		case DEID_SUBSTITUTE:
			*value = rule->value;
			return NULL;
		case DEID_MASK:
			return mask(rule, value);
		case DEID_AGE:
			return deid_age(rule, value, response);
		case DEID_YEAR:
			return deid_year(rule, value, response);
		case DEID_YEAR_MONTH:
			return deid_year_month(value);
		case DEID_BUCKET:
			return put_into_bucket(rule, value);
		case DEID_ZIP:
			return shorten_postal_code(rule, value);
	}
	return "cannot be de-identified";
}

/* Takes out an answer, or a group with all that is in it. */
void
deid_remove(const FormNode *node, Value *values)
{
	Value	   *value = &values[node->slot];

	for (int i = 0; i < node->nchildren; i++)
		deid_remove(node->children[i], values);
	if (value->kind != VALUE_ABSENT)
	{
		memset(value, 0, sizeof(*value));
		value->kind = VALUE_REMOVED;
	}
}

/* Puts a text in the place of a value; it has to outlive the value. */
void
deid_set_text(Value *value, const char *text, int len)
{
	memset(value, 0, sizeof(*value));
	value->kind = VALUE_TEXT;
	value->data = text;
	value->len = len;
}

/*
 * A character for each, but for the last few.  A text of no more than these is
 * covered as a whole: it would be shown as a whole otherwise.
 */
static DeidFault
mask(const DeidRule *rule, Value *value)
{
	const char *from = value->data;
	const char *end = from + value->len;
	int			cover_len = (int) strlen(rule->text);
	int			n;
	int			covered;
	char	   *masked;
	char	   *at;

	if (value->kind != VALUE_TEXT)
		return "must be a text to be masked";
	n = pg_mbstrlen_with_len(from, value->len);
	covered = n > rule->keep ? n - rule->keep : n;
	masked = MemoryContextAllocHuge(CurrentMemoryContext, (Size) covered * cover_len + value->len + 1);
	at = masked;
	for (int i = 0; i < covered; i++)
	{
		memcpy(at, rule->text, cover_len);
		at += cover_len;
		from += pg_mblen(from);
	}
	memcpy(at, from, end - from);
	at += end - from;
	if (at - masked > MaxAllocSize / 2)
		return "is too long to be masked";
	deid_set_text(value, masked, (int) (at - masked));
	return NULL;
}

/* The lower bound: the largest multiple of the width that is no larger. */
static DeidFault
put_into_bucket(const DeidRule *rule, Value *value)
{
	const Value *width = &rule->value;
	Datum		given;
	Datum		step;
	Datum		above;
	int64		lower;

	if (value->kind != VALUE_INTEGER && value->kind != VALUE_NUMERIC)
		return "must be a number to be put into a bucket";
	if (value->kind == VALUE_INTEGER && width->kind == VALUE_INTEGER)
	{
		int64		rest = value->number % width->number;

		if (rest < 0)
			rest += width->number;
		if (!pg_sub_s64_overflow(value->number, rest, &lower))
		{
			memset(value, 0, sizeof(*value));
			value->kind = VALUE_INTEGER;
			value->number = lower;
			return NULL;
		}
	}
	/* the remainder is exact, a quotient would be rounded */
	given = NumericGetDatum(value_numeric(value));
	step = NumericGetDatum(value_numeric(width));
	above = DirectFunctionCall2(numeric_mod, given, step);
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, above,
										  NumericGetDatum(int64_to_numeric(0)))) < 0)
		above = DirectFunctionCall2(numeric_add, above, step);
	memset(value, 0, sizeof(*value));
	value_set_numeric(value, DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale,
																 DirectFunctionCall2(numeric_sub, given, above))));
	return NULL;
}

/*
 * The first characters of a postal code, or zeros where they stand for too few
 * people (45 CFR 164.514(b)(2)(i)(B)).  A US code has five digits, or nine; of
 * any other, the letters and digits count.
 */
static DeidFault
shorten_postal_code(const DeidRule *rule, Value *value)
{
	static const char us[] = "must be a ZIP code of five digits, or nine, to be shortened";
	static const char any[] = "must be a postal code, longer than what is kept of it";
	const char *text = value->data;
	char		code[MOST_POSTAL];
	bool		digits_only = true;
	int			n = 0;
	char	   *kept;

	if (value->kind != VALUE_TEXT)
		return rule->postal ? any : us;
	for (int i = 0; i < value->len; i++)
	{
		char		c = text[i];

		if (c == ' ' || c == '-')
			continue;
		digits_only &= (c >= '0' && c <= '9');
		if (c >= 'a' && c <= 'z')
			c -= 'a' - 'A';
		if (n >= MOST_POSTAL || !((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')))
			return rule->postal ? any : us;
		code[n++] = c;
	}
	if (!rule->postal && (!digits_only || (n != ZIP_DIGITS && n != ZIP_PLUS_4)))
		return us;
	if (n <= rule->keep)
		return any;

	kept = palloc(rule->keep);
	memcpy(kept, code, rule->keep);
	for (int i = 0; i < rule->nrestricted; i++)
	{
		int			len = (int) strlen(rule->restricted[i]);

		if (len <= n && memcmp(code, rule->restricted[i], len) == 0)
			memset(kept, '0', rule->keep);
	}
	deid_set_text(value, kept, rule->keep);
	return NULL;
}
