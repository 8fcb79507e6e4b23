/*
 * value.h
 *		One answer, and how it becomes a datum of an SQL type.
 */
#ifndef EPRO_ETL_VALUE_H
#define EPRO_ETL_VALUE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "words/errors.h"

/* What an answer is, after decoding and whatever stages have run since. */
typedef enum ValueKind
{
	VALUE_ABSENT = 0,			/* not answered */
	VALUE_REMOVED,				/* answered, and taken out by de-identification */
	VALUE_NULL,					/* JSON null */
	VALUE_BOOLEAN,
	VALUE_INTEGER,				/* a number that is a whole one and fits int64 */
	VALUE_NUMERIC,				/* any other number */
	VALUE_TEXT,
	VALUE_ARRAY,
	VALUE_OBJECT
} ValueKind;

/* The SQL side of an item: what an edit check sees and create_sink() makes. */
typedef enum ItemType
{
	ITEM_JSON = 0,
	ITEM_BOOLEAN,
	ITEM_INTEGER,
	ITEM_NUMBER,
	ITEM_TEXT,
	ITEM_DATE,
	ITEM_TIME,
	ITEM_TIMESTAMP,
	ITEM_LOCAL_TIME,			/* a time of day without its zone */
	ITEM_PARTIAL_DATE,			/* a text; a whole one fits a date column, too */
	ITEM_PARTIAL_TIMESTAMP
} ItemType;

typedef struct Value
{
	ValueKind	kind;
	bool		typed;			/* a TEXT whose format was read into number */
	bool		between;		/* a NUMERIC between number and the next one */
	int			len;			/* TEXT: bytes; ARRAY, OBJECT: container bytes */
	const void *data;			/* TEXT: bytes, not terminated; numbers: the
								 * Numeric or NULL; ARRAY, OBJECT: container */
	int64		number;			/* BOOLEAN 0/1; INTEGER; NUMERIC: see between; typed
								 * TEXT: days, microseconds of the day, or microseconds */
	int			zone;			/* typed time: seconds west of UTC */
} Value;

/* Why a value is not in a column: NULL when it is. */
typedef const char *ConversionFault;

extern bool value_from_numeric(Numeric numeric, int64 *integer);
extern void value_set_numeric(Value *value, Numeric numeric);
extern void value_set_jsonb(Value *value, const JsonbValue *from);
extern bool jsonb_text_is(const JsonbValue *value, const char *name);
extern char *jsonb_text(const JsonbValue *value);
extern Numeric value_numeric(const Value *value);
extern int	value_compare_numerics(const Value *a, const Value *b);
extern char *value_text(const Value *value, int *len);
extern Oid	item_type_oid(ItemType type, bool fits_int4);
extern bool item_type_loads(ItemType type, Oid column_type);
extern TimestampTz timestamptz_rounded(TimestampTz value, int32 typmod);
extern ConversionFault value_datum(const Value *value, Oid type, int32 typmod,
								   Datum *datum, bool *isnull);

/*
 * Sets an empty value from one of a jsonb container's: from offset to end behind
 * base.  It points into the container.  In line, since every answer goes by here.
 */
static inline void
value_set_entry(Value *value, const char *base, JEntry entry, uint32 offset, uint32 end)
{
	if (JBE_ISSTRING(entry))
	{
		value->kind = VALUE_TEXT;
		value->data = base + offset;
		value->len = (int) (end - offset);
	}
	else if (JBE_ISNUMERIC(entry))
		value_set_numeric(value, (Numeric) (base + INTALIGN(offset)));
	else if (JBE_ISBOOL(entry))
	{
		value->kind = VALUE_BOOLEAN;
		value->number = JBE_ISBOOL_TRUE(entry) ? 1 : 0;
	}
	else if (JBE_ISNULL(entry))
		value->kind = VALUE_NULL;
	else
	{
		value->data = base + INTALIGN(offset);
		value->kind = JsonContainerIsArray((const JsonbContainer *) value->data) ?
			VALUE_ARRAY : VALUE_OBJECT;
		value->len = (int) (end - INTALIGN(offset));
	}
}

/* How two numbers stand to each other: negative, 0, positive. */
static inline int
value_compare_numbers(const Value *a, const Value *b)
{
	if (a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER)
		return (a->number > b->number) - (a->number < b->number);
	return value_compare_numerics(a, b);
}

#endif							/* EPRO_ETL_VALUE_H */
