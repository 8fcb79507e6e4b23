/*
 * value.c
 *		One answer as an SQL datum, without ever raising an error for data.
 *
 * PostgreSQL 15 has no soft errors, and a cast that fails writes the
 * patient's answer into the server log.  So every conversion here is total:
 * it returns a datum, or a short text that says why there is none.  The one
 * exception is named at value_datum().
 *
 * Results live in the current memory context, or point into the response.
 */
#include "postgres.h"

#include <math.h>

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "words/value.h"

/*
 * The short on-disk form of numeric (see numeric.c, "Interpretation of high
 * bits").  It cannot change without breaking pg_upgrade; the regression suite holds
 * this reading against numeric's own functions (14_numbers).
 */
#define NUMERIC_KIND(header)	((header) & 0xC000)
#define NUMERIC_SHORT_FORM		0x8000
#define NUMERIC_SHORT_NEGATIVE	0x2000
#define NUMERIC_SHORT_WEIGHT(header) \
	(((header) & 0x0040 ? ~0x003F : 0) | ((header) & 0x003F))
#define NUMERIC_BASE			10000

/* PostgreSQL's limit of a time zone's displacement, in seconds */
#define MOST_DISPLACEMENT (16 * 60 * 60)

/* base-10000 digits before the point that always fit int64 */
#define SAFE_DIGITS 4

static const char too_fine[] = "is not a time that the column can keep exactly";

static TimeADT time_rounded(TimeADT value, int32 typmod);
static ConversionFault integer_datum(int64 value, Oid type, int32 typmod,
									 Numeric numeric, Datum *datum);
static ConversionFault numeric_column_datum(Numeric number, Oid type,
											int32 typmod, Datum *datum);
static ConversionFault text_datum(const char *data, int len, Oid type,
								  int32 typmod, Datum *datum);
static ConversionFault container_datum(const Value *value, Oid type,
									   Datum *datum);
static bool is_json_by_input(Oid type);
static char *json_text(const Value *value);
static void input_datum(char *text, Oid type, int32 typmod, Datum *datum);

/* What a Numeric is, and the number of NUMBER_WHOLE and NUMBER_BETWEEN. */
typedef enum NumberKind
{
	NUMBER_WHOLE,				/* a whole one, which fits int64 */
	NUMBER_BETWEEN,				/* between this whole number and the next */
	NUMBER_FRACTION,			/* not whole, and no more is known of it */
	NUMBER_HUGE,				/* whole, and beyond int64 */
	NUMBER_NONE					/* NaN or infinite */
} NumberKind;

/*
 * Whole numbers of up to sixteen digits and their fractions, that is every answer
 * a questionnaire has, take the short way without numeric arithmetic.
 */
static NumberKind
read_numeric(Numeric numeric, int64 *integer)
{
	const char *raw = VARDATA_ANY(numeric);
	int			size = VARSIZE_ANY_EXHDR(numeric);
	uint16		header;
	Datum		whole;

	memcpy(&header, raw, sizeof(header));
	if (NUMERIC_KIND(header) == NUMERIC_SHORT_FORM)
	{
		int			ndigits = (size - (int) sizeof(header)) / (int) sizeof(int16);
		int			weight = NUMERIC_SHORT_WEIGHT(header);
		bool		negative = (header & NUMERIC_SHORT_NEGATIVE) != 0;
		/* trailing zeros are never stored: digits past the point are real */
		bool		fraction = ndigits > weight + 1;

		if (ndigits == 0)
		{
			*integer = 0;
			return NUMBER_WHOLE;
		}
		if (weight < SAFE_DIGITS)
		{
			int64		value = 0;

			for (int i = 0; i <= weight; i++)
			{
				int16		digit = 0;

				if (i < ndigits)
					memcpy(&digit, raw + sizeof(header) + i * sizeof(int16),
						   sizeof(int16));
				value = value * NUMERIC_BASE + digit;
			}
			*integer = !negative ? value : fraction ? -value - 1 : -value;
			return fraction ? NUMBER_BETWEEN : NUMBER_WHOLE;
		}
		if (fraction)
			return NUMBER_FRACTION;
	}

	if (numeric_is_nan(numeric) || numeric_is_inf(numeric))
		return NUMBER_NONE;
	whole = DirectFunctionCall2(numeric_trunc, NumericGetDatum(numeric),
								Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, whole,
										  NumericGetDatum(numeric))))
		return NUMBER_FRACTION;
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, whole,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, whole,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MIN)))))
		return NUMBER_HUGE;
	*integer = DatumGetInt64(DirectFunctionCall1(numeric_int8, whole));
	return NUMBER_WHOLE;
}

/*
 * Reads a whole number out of a Numeric; false when it has a fraction, does
 * not fit, or is NaN or infinite.
 */
bool
value_from_numeric(Numeric numeric, int64 *integer)
{
	int64		read;

	if (read_numeric(numeric, &read) != NUMBER_WHOLE)
		return false;
	*integer = read;
	return true;
}

/*
 * Makes a value of a Numeric, which must outlive it.  A whole number too large
 * for int64 is a NUMERIC marked as typed: it is still a JSON Schema integer.
 */
void
value_set_numeric(Value *value, Numeric numeric)
{
	NumberKind	kind = read_numeric(numeric, &value->number);

	value->data = numeric;
	value->kind = kind == NUMBER_WHOLE ? VALUE_INTEGER : VALUE_NUMERIC;
	value->typed = kind == NUMBER_HUGE;
	value->between = kind == NUMBER_BETWEEN;
}

/* value_compare_numbers(), unless both fit int64. */
int
value_compare_numerics(const Value *a, const Value *b)
{
	if (a->between && b->kind == VALUE_INTEGER)
		return a->number >= b->number ? 1 : -1;
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(value_numeric(a)),
											 NumericGetDatum(value_numeric(b))));
}

/* Makes a value of a jsonb one, which must outlive it. */
void
value_set_jsonb(Value *value, const JsonbValue *from)
{
	memset(value, 0, sizeof(*value));
	switch (from->type)
	{
		case jbvNull:
			value->kind = VALUE_NULL;
			break;
		case jbvBool:
			value->kind = VALUE_BOOLEAN;
			value->number = from->val.boolean ? 1 : 0;
			break;
		case jbvNumeric:
			value_set_numeric(value, from->val.numeric);
			break;
		case jbvString:
			value->kind = VALUE_TEXT;
			value->data = from->val.string.val;
			value->len = from->val.string.len;
			break;
		case jbvBinary:
			value->kind = JsonContainerIsArray(from->val.binary.data) ?
				VALUE_ARRAY : VALUE_OBJECT;
			value->data = from->val.binary.data;
			value->len = from->val.binary.len;
			break;
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) from->type);
	}
}

/* Is a jsonb string this text? */
bool
jsonb_text_is(const JsonbValue *value, const char *name)
{
	return value->val.string.len == (int) strlen(name) &&
		memcmp(value->val.string.val, name, value->val.string.len) == 0;
}

/* A jsonb string's text, terminated, in the current memory context. */
char *
jsonb_text(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* The number as a Numeric; the value must be a number. */
Numeric
value_numeric(const Value *value)
{
	if (value->data != NULL)
		return (Numeric) value->data;
	return int64_to_numeric(value->number);
}

/* A scalar's text, in the current memory context, terminated. */
char *
value_text(const Value *value, int *len)
{
	char	   *text;

	switch (value->kind)
	{
		case VALUE_TEXT:
			*len = value->len;
			return pnstrdup(value->data, value->len);
		case VALUE_BOOLEAN:
			text = pstrdup(value->number ? "true" : "false");
			break;
		case VALUE_INTEGER:
		case VALUE_NUMERIC:
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value_numeric(value))));
			break;
		case VALUE_ARRAY:
		case VALUE_OBJECT:
			text = JsonbToCString(NULL, (JsonbContainer *) value->data, value->len);
			break;
		default:
			text = pstrdup("");
			break;
	}
	*len = strlen(text);
	return text;
}

/* The SQL type of an item: what edit checks see and create_sink() makes. */
Oid
item_type_oid(ItemType type, bool fits_int4)
{
	switch (type)
	{
		case ITEM_BOOLEAN:
			return BOOLOID;
		case ITEM_INTEGER:
			return fits_int4 ? INT4OID : INT8OID;
		case ITEM_NUMBER:
			return NUMERICOID;
		case ITEM_TEXT:
			return TEXTOID;
		case ITEM_DATE:
			return DATEOID;
		case ITEM_TIME:
			return TIMETZOID;
		case ITEM_TIMESTAMP:
			return TIMESTAMPTZOID;
		case ITEM_LOCAL_TIME:
			return TIMEOID;
		case ITEM_PARTIAL_DATE:
		case ITEM_PARTIAL_TIMESTAMP:
			return TEXTOID;
		case ITEM_JSON:
			break;
	}
	return JSONBOID;
}

/* Can answers of this item type be put into a column of that type? */
bool
item_type_loads(ItemType type, Oid column_type)
{
	Oid			base = getBaseType(column_type);
	char		category;
	bool		preferred;

	get_type_category_preferred(base, &category, &preferred);
	if (category == TYPCATEGORY_STRING)
		return true;
	switch (type)
	{
		case ITEM_BOOLEAN:
			return base == BOOLOID;
		case ITEM_INTEGER:
			return base == INT2OID || base == INT4OID || base == INT8OID ||
				base == NUMERICOID || base == FLOAT8OID;
		case ITEM_NUMBER:
			return base == NUMERICOID || base == FLOAT8OID;
		case ITEM_TEXT:
			return category == TYPCATEGORY_ENUM || base == UUIDOID;
		case ITEM_DATE:
		case ITEM_PARTIAL_DATE:
			return base == DATEOID;
		case ITEM_TIME:
			return base == TIMETZOID;
		case ITEM_TIMESTAMP:
		case ITEM_PARTIAL_TIMESTAMP:
			return base == TIMESTAMPTZOID;
		case ITEM_LOCAL_TIME:
			return base == TIMEOID;
		case ITEM_JSON:
			return base == JSONBOID || base == JSONOID;
	}
	return false;
}

/*
 * Turns an answer into a datum of a column's type.
 *
 * Returns NULL, or what does not fit, said without the answer.  Types without
 * a reader of ours (domains, enums, uuid) go through their own input function,
 * which may raise an error: the caller must be ready to catch it, and to drop
 * its text.
 */
ConversionFault
value_datum(const Value *value, Oid type, int32 typmod,
			Datum *datum, bool *isnull)
{
	*isnull = false;
	*datum = (Datum) 0;

	/* json, and domains over it or jsonb: a text is a JSON string there */
	if (value->kind >= VALUE_BOOLEAN && is_json_by_input(type))
	{
		input_datum(json_text(value), type, typmod, datum);
		return NULL;
	}

	switch (value->kind)
	{
		case VALUE_ABSENT:
		case VALUE_REMOVED:
		case VALUE_NULL:
			*isnull = true;
			return NULL;

		case VALUE_BOOLEAN:
			if (type == BOOLOID)
			{
				*datum = BoolGetDatum(value->number != 0);
				return NULL;
			}
			break;

		case VALUE_INTEGER:
			return integer_datum(value->number, type, typmod,
								 (Numeric) value->data, datum);

		case VALUE_NUMERIC:
			return numeric_column_datum((Numeric) value->data, type, typmod,
										datum);

		case VALUE_TEXT:
			if (value->typed)
			{
				if (type == DATEOID)
				{
					*datum = DateADTGetDatum((DateADT) value->number);
					return NULL;
				}
				if (type == TIMESTAMPTZOID)
				{
					*datum = TimestampTzGetDatum(value->number);
					return timestamptz_rounded(value->number, typmod) == value->number ? NULL : too_fine;
				}
				if (type == TIMEOID)
				{
					*datum = TimeADTGetDatum((TimeADT) value->number);
					return time_rounded(value->number, typmod) == value->number ? NULL : too_fine;
				}
				if (type == TIMETZOID)
				{
					TimeTzADT  *time = palloc(sizeof(TimeTzADT));

					/* the type holds it, but could not read it back */
					if (abs(value->zone) >= MOST_DISPLACEMENT)
						return "has an offset beyond 15:59, which the column cannot keep";
					time->time = value->number;
					time->zone = value->zone;
					*datum = TimeTzADTPGetDatum(time);
					return time_rounded(value->number, typmod) == value->number ? NULL : too_fine;
				}
			}
			/* a time that was not read, or is finer than microseconds */
			if (type == TIMESTAMPTZOID || type == TIMETZOID)
				return too_fine;
			return text_datum(value->data, value->len, type, typmod, datum);

		case VALUE_ARRAY:
		case VALUE_OBJECT:
			return container_datum(value, type, datum);
	}

	if (type == JSONBOID)
		return container_datum(value, type, datum);
	{
		int			len;
		char	   *text = value_text(value, &len);

		return text_datum(text, len, type, typmod, datum);
	}
}

/* As a column of type timestamptz(n) keeps it. */
TimestampTz
timestamptz_rounded(TimestampTz value, int32 typmod)
{
	if (typmod < 0)
		return value;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_scale, TimestampTzGetDatum(value),
												   Int32GetDatum(typmod)));
}

static TimeADT
time_rounded(TimeADT value, int32 typmod)
{
	AdjustTimeForTypmod(&value, typmod);
	return value;
}

static ConversionFault
integer_datum(int64 value, Oid type, int32 typmod, Numeric numeric, Datum *datum)
{
	switch (type)
	{
		case INT4OID:
			if (value < PG_INT32_MIN || value > PG_INT32_MAX)
				return "out of range for an integer column";
			*datum = Int32GetDatum((int32) value);
			return NULL;
		case INT8OID:
			*datum = Int64GetDatum(value);
			return NULL;
		case INT2OID:
			if (value < PG_INT16_MIN || value > PG_INT16_MAX)
				return "out of range for a smallint column";
			*datum = Int16GetDatum((int16) value);
			return NULL;
	}
	return numeric_column_datum(numeric ? numeric : int64_to_numeric(value),
								type, typmod, datum);
}

static ConversionFault
numeric_column_datum(Numeric number, Oid type, int32 typmod, Datum *datum)
{
	Datum		given = NumericGetDatum(number);

	switch (type)
	{
		case NUMERICOID:
			if (typmod >= (int32) VARHDRSZ)
			{
				int			precision = ((typmod - VARHDRSZ) >> 16) & 0xffff;
				int			scale = (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
				Datum		rounded = DirectFunctionCall2(numeric_round, given,
														  Int32GetDatum(scale));
				Datum		limit;

				if (!DatumGetBool(DirectFunctionCall2(numeric_eq, rounded, given)))
					return "has more decimal places than the column";
				limit = DirectFunctionCall2(numeric_power,
											NumericGetDatum(int64_to_numeric(10)),
											NumericGetDatum(int64_to_numeric(precision - scale)));
				if (!DatumGetBool(DirectFunctionCall2(numeric_lt,
													  DirectFunctionCall1(numeric_abs, given),
													  limit)))
					return "has more digits than the column";
				*datum = DirectFunctionCall2(numeric, given, Int32GetDatum(typmod));
				return NULL;
			}
			*datum = given;
			return NULL;

		case FLOAT8OID:
			{
				double		approximate = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, given));

				if (isinf(approximate) ||
					!DatumGetBool(DirectFunctionCall2(numeric_eq, given,
													  DirectFunctionCall1(float8_numeric, Float8GetDatum(approximate)))))
					return "has more digits than a double precision column keeps";
				*datum = Float8GetDatum(approximate);
				return NULL;
			}

		case INT2OID:
		case INT4OID:
		case INT8OID:
			return "is not a whole number in the column's range";
		case JSONBOID:
			{
				JsonbValue	scalar;

				scalar.type = jbvNumeric;
				scalar.val.numeric = number;
				*datum = JsonbPGetDatum(JsonbValueToJsonb(&scalar));
				return NULL;
			}
	}
	{
		char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, given));

		return text_datum(text, strlen(text), type, typmod, datum);
	}
}

static ConversionFault
text_datum(const char *data, int len, Oid type, int32 typmod, Datum *datum)
{
	switch (type)
	{
		case TEXTOID:
			*datum = PointerGetDatum(cstring_to_text_with_len(data, len));
			return NULL;
		case VARCHAROID:
		case BPCHAROID:
			if (typmod >= (int32) VARHDRSZ &&
				pg_mbstrlen_with_len(data, len) > typmod - (int32) VARHDRSZ)
				return "is longer than the column";
			if (type == VARCHAROID)
			{
				*datum = PointerGetDatum(cstring_to_text_with_len(data, len));
				return NULL;
			}
			break;
		case JSONBOID:
			{
				JsonbValue	scalar;

				scalar.type = jbvString;
				scalar.val.string.val = (char *) data;
				scalar.val.string.len = len;
				*datum = JsonbPGetDatum(JsonbValueToJsonb(&scalar));
				return NULL;
			}
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case FLOAT8OID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPTZOID:
			return "is not of the column's type";
	}
	input_datum(pnstrdup(data, len), type, typmod, datum);
	return NULL;
}

static ConversionFault
container_datum(const Value *value, Oid type, Datum *datum)
{
	if (type == JSONBOID)
	{
		JsonbValue	whole;

		if (value->kind == VALUE_BOOLEAN)
		{
			whole.type = jbvBool;
			whole.val.boolean = value->number != 0;
		}
		else
		{
			whole.type = jbvBinary;
			whole.val.binary.data = (JsonbContainer *) value->data;
			whole.val.binary.len = value->len;
		}
		*datum = JsonbPGetDatum(JsonbValueToJsonb(&whole));
		return NULL;
	}
	{
		int			len;
		char	   *text = value_text(value, &len);

		return text_datum(text, len, type, -1, datum);
	}
}

static bool
is_json_by_input(Oid type)
{
	Oid			base;

	if (type == JSONOID)
		return true;
	if (type < FirstNormalObjectId)
		return false;
	base = getBaseType(type);
	return base == JSONOID || base == JSONBOID;
}

/* The answer as JSON writes it. */
static char *
json_text(const Value *value)
{
	int			len;
	char	   *text = value_text(value, &len);

	if (value->kind == VALUE_TEXT)
	{
		StringInfoData quoted;

		initStringInfo(&quoted);
		escape_json(&quoted, text);
		return quoted.data;
	}
	return text;
}

/* Through the type's own input function: may raise an error. */
static void
input_datum(char *text, Oid type, int32 typmod, Datum *datum)
{
	Oid			input;
	Oid			ioparam;

	getTypeInputInfo(type, &input, &ioparam);
	*datum = OidInputFunctionCall(input, text, ioparam, typmod);
}
