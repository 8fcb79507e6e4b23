/*
 * fhir_value.c
 *		FHIR's data types, as far as an answer can have them.
 *
 * Readers are total: what is wrong is returned as a text without the data, and
 * no error is raised.  A date or dateTime may stop after the year or the month
 * (FHIR R4, section 2.24.0.1); it is kept as the span of time that it means, so
 * that a comparison can tell "no" from "not precise enough".
 *
 * Also here: walking a jsonb container without the server's iterator, which
 * allocates, and what else the questionnaire's files share.
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "stages/fhir.h"
#include "stages/parse.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/numeric.h"

#define UCUM "http://unitsofmeasure.org"
#define LONGEST_UNIT 16
#define LONGEST_NUMBER 1000		/* bytes of one that is converted: no overflow */

const char *const fhir_kind_name[FHIR_KIND_COUNT] = {
	[FHIR_NONE] = "",
	[FHIR_BOOLEAN] = "Boolean",
	[FHIR_DECIMAL] = "Decimal",
	[FHIR_INTEGER] = "Integer",
	[FHIR_DATE] = "Date",
	[FHIR_DATE_TIME] = "DateTime",
	[FHIR_TIME] = "Time",
	[FHIR_STRING] = "String",
	[FHIR_URI] = "Uri",
	[FHIR_ATTACHMENT] = "Attachment",
	[FHIR_CODING] = "Coding",
	[FHIR_QUANTITY] = "Quantity",
	[FHIR_REFERENCE] = "Reference",
};

/* Units that are converted into each other: UCUM's code, and how many of the first of its kind. */
static const struct
{
	const char *code;
	char		dimension;
	const char *factor;
	bool		metric;			/* takes a prefix */
}			units[] = {
	{"m", 'L', "1", true},
	{"[in_i]", 'L', "0.0254", false},
	{"[ft_i]", 'L', "0.3048", false},
	{"[yd_i]", 'L', "0.9144", false},
	{"[mi_i]", 'L', "1609.344", false},
	{"g", 'M', "1", true},
	{"t", 'M', "1000000", false},
	{"[lb_av]", 'M', "453.59237", false},
	{"[oz_av]", 'M', "28.349523125", false},
	{"L", 'V', "1", true},
	{"l", 'V', "1", true},
	{"s", 'T', "1", true},
	{"min", 'T', "60", false},
	{"h", 'T', "3600", false},
	{"d", 'T', "86400", false},
	{"wk", 'T', "604800", false},
	{"mol", 'N', "1", true},
	{"Pa", 'P', "1", true},
	{"bar", 'P', "100000", true},
	{"m[Hg]", 'P', "133322", true},
	{"J", 'E', "1", true},
	{"cal", 'E', "4.184", true},
}			,
			prefixes[] = {
	{"G", 0, "1000000000", false},
	{"M", 0, "1000000", false},
	{"k", 0, "1000", false},
	{"h", 0, "100", false},
	{"da", 0, "10", false},
	{"d", 0, "0.1", false},
	{"c", 0, "0.01", false},
	{"m", 0, "0.001", false},
	{"u", 0, "0.000001", false},
	{"n", 0, "0.000000001", false},
	{"p", 0, "0.000000000001", false},
};

static inline void clear(FhirValue *value);
static const char *read_number(FhirKind kind, const JsonbValue *json, FhirValue *value);
static const char *read_text(FhirKind kind, const JsonbValue *json, FhirValue *value);
static const char *read_object(FhirKind kind, const JsonbValue *json, FhirValue *value);
static const char *read_date(Span text, FhirValue *value);
static const char *read_time(Span text, FhirValue *value);
static const char *read_reference(FhirValue *value);
static bool uri_is_sound(Span text);
static bool read_digits(const char *text, int n, int *number);
static int64 day_start(int year, int month, int day);
static FhirOrder spans_order(const FhirValue *a, const FhirValue *b);
static FhirOrder quantities_order(const FhirValue *a, const FhirValue *b);
static FhirOrder numbers_order(Numeric a, Numeric b);
static FhirOrder texts_order(Span a, Span b);
static char unit_dimension(Span code, Numeric *factor);
static Numeric decimal(const char *digits);
static Numeric product(Numeric a, Numeric b);
static int	spans_compare(Span a, Span b);

/* The type that a member's name ends in: "valueDate" after "value"; NONE: none of ours. */
FhirKind
kind_of_member(Span member, const char *prefix)
{
	int			skip = (int) strlen(prefix);

	if (member.len <= skip || memcmp(member.data, prefix, skip) != 0)
		return FHIR_NONE;
	member.data += skip;
	member.len -= skip;
	for (int kind = FHIR_NONE + 1; kind < FHIR_KIND_COUNT; kind++)
	{
		if (span_is(member, fhir_kind_name[kind]))
			return (FhirKind) kind;
	}
	return FHIR_NONE;
}

/*
 * Reads a value of a type.  Returns NULL, or what is wrong with it, said
 * without the value.  Points into what it reads from.
 */
const char *
kind_read(FhirKind kind, const JsonbValue *json, FhirValue *value)
{
	clear(value);
	switch (kind)
	{
		case FHIR_BOOLEAN:
			if (json->type != jbvBool)
				return "must be true or false";
			value_set_jsonb(&value->value, json);
			value->kind = kind;
			return NULL;
		case FHIR_DECIMAL:
		case FHIR_INTEGER:
			return read_number(kind, json, value);
		case FHIR_DATE:
		case FHIR_DATE_TIME:
		case FHIR_TIME:
		case FHIR_STRING:
		case FHIR_URI:
			return read_text(kind, json, value);
		case FHIR_ATTACHMENT:
		case FHIR_CODING:
		case FHIR_QUANTITY:
		case FHIR_REFERENCE:
			return read_object(kind, json, value);
		case FHIR_NONE:
			break;
	}
	return "must be of a type that an answer can have";
}

/* Member by member: compilers make of a memset() of this size an instruction that is slow to start. */
static inline void
clear(FhirValue *value)
{
	static const Span absent = {NULL, 0};

	value->kind = FHIR_NONE;
	value->value = (Value) {VALUE_ABSENT};
	value->code = value->system = value->text = absent;
	value->low = value->high = value->zone = 0;
	value->zoned = false;
	value->object = NULL;
	value->object_len = 0;
}

static const char *
read_number(FhirKind kind, const JsonbValue *json, FhirValue *value)
{
	if (json->type != jbvNumeric)
		return "must be a number";
	value_set_jsonb(&value->value, json);
	if (kind == FHIR_INTEGER &&
		(value->value.kind != VALUE_INTEGER ||
		 value->value.number < PG_INT32_MIN || value->value.number > PG_INT32_MAX))
		return "must be a whole number of 32 bits";
	value->kind = kind;
	return NULL;
}

static const char *
read_text(FhirKind kind, const JsonbValue *json, FhirValue *value)
{
	const char *fault = NULL;

	if (json->type != jbvString)
		return "must be a text";
	if (json->val.string.len == 0)
		return "must not be empty";
	value_set_jsonb(&value->value, json);
	value->code.data = json->val.string.val;
	value->code.len = json->val.string.len;
	if (kind == FHIR_TIME)
		fault = read_time(value->code, value);
	else if (kind == FHIR_DATE || kind == FHIR_DATE_TIME)
	{
		fault = read_date(value->code, value);
		if (fault == NULL && kind == FHIR_DATE && value->code.len > 10)
			fault = "must be a date (YYYY, YYYY-MM or YYYY-MM-DD)";
		/* a time of day was read for the one, a day for the other */
		if (kind == FHIR_DATE_TIME && !value->zoned)
			value->value.typed = false;
	}
	else if (kind == FHIR_URI && !uri_is_sound(value->code))
		fault = "must be a URI";
	if (fault == NULL)
		value->kind = kind;
	return fault;
}

static const char *
read_object(FhirKind kind, const JsonbValue *json, FhirValue *value)
{
	JsonbValue	number;

	if (json->type != jbvBinary || !JsonContainerIsObject(json->val.binary.data))
		return "must be an object";
	value->object = json->val.binary.data;
	value->object_len = json->val.binary.len;
	value_set_jsonb(&value->value, json);
	value->kind = kind;
	switch (kind)
	{
		case FHIR_CODING:
			value->system = object_text(value->object, "system");
			value->code = object_text(value->object, "code");
			value->text = object_text(value->object, "display");
			return NULL;
		case FHIR_QUANTITY:
			value->system = object_text(value->object, "system");
			value->code = object_text(value->object, "code");
			value->text = object_text(value->object, "unit");
			if (!object_get(value->object, "value", &number) || number.type != jbvNumeric)
			{
				value->kind = FHIR_NONE;
				return "must be a quantity with a value";
			}
			value_set_jsonb(&value->value, &number);
			return NULL;
		case FHIR_REFERENCE:
			return read_reference(value);
		default:
			return NULL;
	}
}

static const char *
read_reference(FhirValue *value)
{
	JsonbValue	identifier;

	value->code = object_text(value->object, "reference");
	value->text = object_text(value->object, "type");
	if (value->code.data != NULL && !uri_is_sound(value->code))
	{
		value->kind = FHIR_NONE;
		return "must refer by a URI";
	}
	/* ref-2 of R5; R4 would let a bare display pass */
	if (value->code.data == NULL && object_text(value->object, "display").data == NULL &&
		!object_get(value->object, "identifier", &identifier))
	{
		value->kind = FHIR_NONE;
		return "must be a reference, an identifier or a display";
	}
	return NULL;
}

/* A date that may stop after the year or month, or a date with a time and its zone. */
static const char *
read_date(Span text, FhirValue *value)
{
	static const char *const fault = "must be a date (YYYY, YYYY-MM, YYYY-MM-DD), or one with a time and its zone";
	ParsedDate	date;
	ParsedTime	clock;
	int			year;
	int			month;

	if (text.len > 10)
	{
		/* RFC 3339 lets them be small, FHIR does not */
		if (text.data[10] != 'T' || text.data[text.len - 1] == 'z' ||
			parse_date_time(text.data, text.len, &date, &clock) != PARSE_OK)
			return fault;
		value->low = day_start(date.year, date.month, date.day) +
			((clock.hour * INT64CONST(60) + clock.minute) * 60 + clock.second) * USECS_PER_SEC +
			clock.micros;
		value->high = value->low;
		value->zoned = true;
		value->zone = clock.offset_seconds * USECS_PER_SEC;
		value->value.number = value->low - value->zone;
		value->value.typed = true;
		return NULL;
	}
	if (text.len == 10)
	{
		if (parse_date(text.data, text.len, &date) != PARSE_OK)
			return fault;
		value->low = day_start(date.year, date.month, date.day);
		value->high = value->low + USECS_PER_DAY - 1;
		value->value.number = value->low / USECS_PER_DAY;
		value->value.typed = true;
		return NULL;
	}
	if (!read_digits(text.data, Min(text.len, 4), &year) || text.len < 4 || year < 1)
		return fault;
	if (text.len == 4)
	{
		value->low = day_start(year, 1, 1);
		value->high = day_start(year + 1, 1, 1) - 1;
		return NULL;
	}
	if (text.len != 7 || text.data[4] != '-' || !read_digits(text.data + 5, 2, &month) ||
		month < 1 || month > 12)
		return fault;
	value->low = day_start(year, month, 1);
	value->high = (month == 12 ? day_start(year + 1, 1, 1) : day_start(year, month + 1, 1)) - 1;
	return NULL;
}

/* hh:mm:ss and perhaps a fraction, without a zone */
static const char *
read_time(Span text, FhirValue *value)
{
	static const char *const fault = "must be a time (hh:mm:ss)";
	int			hour;
	int			minute;
	int			second;
	int			digit;
	int64		micros = 0;
	int64		weight = USECS_PER_SEC / 10;

	if (text.len < 8 || text.data[2] != ':' || text.data[5] != ':' ||
		!read_digits(text.data, 2, &hour) || !read_digits(text.data + 3, 2, &minute) ||
		!read_digits(text.data + 6, 2, &second) ||
		hour > 23 || minute > 59 || second > 60)
		return fault;
	if (text.len > 8 && (text.data[8] != '.' || text.len == 9))
		return fault;
	for (int i = 9; i < text.len; i++)
	{
		if (!read_digits(text.data + i, 1, &digit))
			return fault;
		micros += digit * weight;
		weight /= 10;
	}
	value->low = ((hour * INT64CONST(60) + minute) * 60 + second) * USECS_PER_SEC + micros;
	value->high = value->low;
	/* 23:59:60 is the last that a time of day can be */
	value->value.number = Min(value->low, USECS_PER_DAY);
	value->value.typed = true;
	return NULL;
}

/*
 * No character that RFC 3986 leaves out, and a UUID or OID that is one (FHIR
 * R4, data type uri).
 */
static bool
uri_is_sound(Span text)
{
	for (int i = 0; i < text.len; i++)
	{
		unsigned char c = text.data[i];

		if (c <= ' ' || c == 0x7f || strchr("\"<>\\^`{|}", c) != NULL)
			return false;
	}
	if (text.len >= 9 && memcmp(text.data, "urn:uuid:", 9) == 0)
	{
		if (text.len != 9 + 36)
			return false;
		for (int i = 0; i < 36; i++)
		{
			char		c = text.data[9 + i];
			bool		dash = (i == 8 || i == 13 || i == 18 || i == 23);

			if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
				return false;
		}
	}
	if (text.len >= 8 && memcmp(text.data, "urn:oid:", 8) == 0)
	{
		if (text.len == 8 || text.data[text.len - 1] == '.')
			return false;
		for (int i = 8; i < text.len; i++)
		{
			char		c = text.data[i];

			if (!((c >= '0' && c <= '9') || (c == '.' && i > 8 && text.data[i - 1] != '.')))
				return false;
		}
	}
	return true;
}

static bool
read_digits(const char *text, int n, int *number)
{
	*number = 0;
	for (int i = 0; i < n; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		*number = *number * 10 + (text[i] - '0');
	}
	return n > 0;
}

static int64
day_start(int year, int month, int day)
{
	return (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

/* Of values_order(): all that is not two whole numbers.  Decimals and integers are both numbers. */
FhirOrder
values_order_any(const FhirValue *a, const FhirValue *b)
{
	bool		number = (a->kind == FHIR_DECIMAL || a->kind == FHIR_INTEGER);
	bool		day = (a->kind == FHIR_DATE || a->kind == FHIR_DATE_TIME);

	if (number && (b->kind == FHIR_DECIMAL || b->kind == FHIR_INTEGER))
		return numbers_order(value_numeric(&a->value), value_numeric(&b->value));
	if (day && (b->kind == FHIR_DATE || b->kind == FHIR_DATE_TIME))
		return spans_order(a, b);
	if (a->kind != b->kind)
		return FHIR_UNRELATED;
	switch (a->kind)
	{
		case FHIR_TIME:
			return spans_order(a, b);
		case FHIR_QUANTITY:
			return quantities_order(a, b);
		case FHIR_STRING:
		case FHIR_URI:
			return texts_order(a->code, b->code);
		default:
			return FHIR_UNRELATED;
	}
}

/* Two moments with zones by the moment; else as they are written. */
static FhirOrder
spans_order(const FhirValue *a, const FhirValue *b)
{
	bool		both = a->zoned && b->zoned;
	int64		shift_a = both ? a->zone : 0;
	int64		shift_b = both ? b->zone : 0;

	if (a->low - shift_a == b->low - shift_b && a->high - shift_a == b->high - shift_b)
		return FHIR_SAME;
	if (a->high - shift_a < b->low - shift_b)
		return FHIR_BEFORE;
	if (a->low - shift_a > b->high - shift_b)
		return FHIR_AFTER;
	return FHIR_OVERLAPS;
}

/* Of one unit, or of two that are converted. */
static FhirOrder
quantities_order(const FhirValue *a, const FhirValue *b)
{
	Numeric		factor_a;
	Numeric		factor_b;
	char		dimension;
	bool		same;

	if (a->code.data != NULL && b->code.data != NULL)
		same = spans_equal(a->code, b->code) && spans_equal(a->system, b->system);
	else
		same = spans_equal(a->text, b->text);
	if (same)
		return numbers_order(value_numeric(&a->value), value_numeric(&b->value));
	if (!span_is(a->system, UCUM) || !span_is(b->system, UCUM) ||
		VARSIZE(value_numeric(&a->value)) > LONGEST_NUMBER ||
		VARSIZE(value_numeric(&b->value)) > LONGEST_NUMBER)
		return FHIR_UNRELATED;
	dimension = unit_dimension(a->code, &factor_a);
	if (dimension == 0 || dimension != unit_dimension(b->code, &factor_b))
		return FHIR_UNRELATED;
	return numbers_order(product(value_numeric(&a->value), factor_a),
						 product(value_numeric(&b->value), factor_b));
}

static FhirOrder
numbers_order(Numeric a, Numeric b)
{
	int			order = DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
														  NumericGetDatum(b)));

	return order < 0 ? FHIR_BEFORE : order > 0 ? FHIR_AFTER : FHIR_SAME;
}

static FhirOrder
texts_order(Span a, Span b)
{
	int			order = spans_compare(a, b);

	return order < 0 ? FHIR_BEFORE : order > 0 ? FHIR_AFTER : FHIR_SAME;
}

/* What a unit measures, and how many of the basic unit it is; 0: not known. */
static char
unit_dimension(Span code, Numeric *factor)
{
	if (code.data == NULL || code.len > LONGEST_UNIT)
		return 0;
	for (int i = 0; i < (int) lengthof(units); i++)
	{
		int			len = (int) strlen(units[i].code);

		if (span_is(code, units[i].code))
		{
			*factor = decimal(units[i].factor);
			return units[i].dimension;
		}
		if (!units[i].metric || code.len <= len ||
			memcmp(code.data + code.len - len, units[i].code, len) != 0)
			continue;
		for (int p = 0; p < (int) lengthof(prefixes); p++)
		{
			Span		prefix = {code.data, code.len - len};

			if (!span_is(prefix, prefixes[p].code))
				continue;
			*factor = product(decimal(units[i].factor), decimal(prefixes[p].factor));
			return units[i].dimension;
		}
	}
	return 0;
}

static Numeric
decimal(const char *digits)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static Numeric
product(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_mul, NumericGetDatum(a), NumericGetDatum(b)));
}

/* Is it one of these?  A listed code without a system is one of any system. */
bool
codes_have(const FhirCodes *codes, const FhirOption *option, const FhirOption **found)
{
	const FhirOption *listed = codes_find(codes, option->kind, option->code);

	for (; listed != NULL && listed < codes->list + codes->n; listed++)
	{
		if (listed->kind != option->kind || spans_compare(listed->code, option->code) != 0)
			break;
		if (listed->system.data == NULL || spans_equal(listed->system, option->system))
		{
			if (found != NULL)
				*found = listed;
			return true;
		}
	}
	return false;
}

/* The first that has the code, of whatever system; NULL: none. */
const FhirOption *
codes_find(const FhirCodes *codes, FhirKind kind, Span code)
{
	int			low = 0;
	int			high = codes->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		const FhirOption *listed = &codes->list[middle];
		int			order = (int) listed->kind - (int) kind;

		if (order == 0)
			order = spans_compare(listed->code, code);
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < codes->n && codes->list[low].kind == kind &&
		spans_compare(codes->list[low].code, code) == 0)
		return &codes->list[low];
	return NULL;
}

/* The place of an item, by its linkId; -1: none. */
int
questionnaire_find(const Questionnaire *questionnaire, Span link_id)
{
	int			low = 0;
	int			high = questionnaire->nitems - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			order = link_order(&questionnaire->links[middle], link_id);

		if (order == 0)
			return questionnaire->links[middle].at;
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

int
options_compare(const void *a, const void *b)
{
	const FhirOption *left = a;
	const FhirOption *right = b;
	int			order = (int) left->kind - (int) right->kind;

	if (order == 0)
		order = spans_compare(left->code, right->code);
	if (order == 0)
		order = spans_compare(left->system, right->system);
	return order;
}

static int
spans_compare(Span a, Span b)
{
	int			order = Min(a.len, b.len) > 0 ? memcmp(a.data, b.data, Min(a.len, b.len)) : 0;

	return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

bool
span_is(Span span, const char *text)
{
	int			len = (int) strlen(text);

	return span.data != NULL && span.len == len && memcmp(span.data, text, len) == 0;
}

/* Both absent is equal, too. */
bool
spans_equal(Span a, Span b)
{
	if (a.data == NULL || b.data == NULL)
		return a.data == NULL && b.data == NULL;
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

/* Starts at the first member or element. */
void
walk_begin(JsonbWalk *walk, const JsonbContainer *container)
{
	int			n = JsonContainerSize(container);

	walk->container = container;
	walk->is_object = JsonContainerIsObject(container);
	walk->n = n;
	walk->at = 0;
	walk->base = (const char *) (container->children + (walk->is_object ? 2 * n : n));
	walk->key = 0;
	walk->value = walk->is_object ? getJsonbOffset(container, n) : 0;
}

/* The next one; false at the end.  Points into the container. */
bool
walk_next(JsonbWalk *walk, Span *key, JsonbValue *value)
{
	const JEntry *entries = walk->container->children;
	uint32		end = walk->value;
	JEntry		entry;

	if (walk->at >= walk->n)
		return false;
	if (walk->is_object)
	{
		uint32		key_end = walk->key;

		JBE_ADVANCE_OFFSET(key_end, entries[walk->at]);
		key->data = walk->base + walk->key;
		key->len = (int) (key_end - walk->key);
		walk->key = key_end;
	}
	entry = entries[walk->is_object ? walk->n + walk->at : walk->at];
	JBE_ADVANCE_OFFSET(end, entry);

	if (JBE_ISSTRING(entry))
	{
		value->type = jbvString;
		value->val.string.val = (char *) walk->base + walk->value;
		value->val.string.len = (int) (end - walk->value);
	}
	else if (JBE_ISNUMERIC(entry))
	{
		value->type = jbvNumeric;
		value->val.numeric = (Numeric) (walk->base + INTALIGN(walk->value));
	}
	else if (JBE_ISBOOL(entry))
	{
		value->type = jbvBool;
		value->val.boolean = JBE_ISBOOL_TRUE(entry);
	}
	else if (JBE_ISNULL(entry))
		value->type = jbvNull;
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = (JsonbContainer *) (walk->base + INTALIGN(walk->value));
		value->val.binary.len = (int) (end - INTALIGN(walk->value));
	}
	walk->value = end;
	walk->at++;
	return true;
}

bool
object_get(const JsonbContainer *object, const char *key, JsonbValue *value)
{
	return getKeyJsonValueFromContainer((JsonbContainer *) object, key, strlen(key), value) != NULL;
}

/* A member that is a text, and not an empty one. */
Span
object_text(const JsonbContainer *object, const char *key)
{
	Span		span = {NULL, 0};
	JsonbValue	value;

	if (object_get(object, key, &value) && value.type == jbvString && value.val.string.len > 0)
	{
		span.data = value.val.string.val;
		span.len = value.val.string.len;
	}
	return span;
}

/* A member that is an array, or NULL. */
const JsonbContainer *
object_array(const JsonbContainer *object, const char *key)
{
	JsonbValue	value;

	if (object_get(object, key, &value) && value.type == jbvBinary &&
		JsonContainerIsArray(value.val.binary.data))
		return value.val.binary.data;
	return NULL;
}
