/*
 * row.c
 *		What is in a claimed row: a response's roles, and the whole of it as
 *		quarantine keeps it.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "effects/claim.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static void deform(Claim *claim, HeapTuple row);
static Span read_text(Claim *claim, Role role);

/* Reads a claimed row's roles.  Texts may point into the row. */
void
claim_read(Claim *claim, HeapTuple row, Response *response)
{
	int			payload = claim->attnum[ROLE_PAYLOAD] - 1;
	int			authored = claim->attnum[ROLE_AUTHORED] - 1;

	claim_read_names(claim, row, response);
	response->source_id = read_text(claim, ROLE_ID);
	response->visit = read_text(claim, ROLE_VISIT);

	response->authored_isnull = authored < 0 || claim->nulls[authored];
	if (!response->authored_isnull)
	{
		Datum		given = claim->values[authored];

		if (claim->type[ROLE_AUTHORED] == TIMESTAMPOID)
			given = DirectFunctionCall1(timestamp_timestamptz, given);
		else if (claim->type[ROLE_AUTHORED] == DATEOID)
			given = DirectFunctionCall1(date_timestamptz, given);
		response->authored = DatumGetTimestampTz(given);
	}

	response->payload_kind = PAYLOAD_NULL;
	if (!claim->nulls[payload])
	{
		struct varlena *whole;

		if (claim->type[ROLE_PAYLOAD] == JSONBOID)
		{
			/* jsonb is read in place, and needs its alignment */
			whole = PG_DETOAST_DATUM(claim->values[payload]);
			response->payload_kind = PAYLOAD_JSONB;
			response->payload.data = (const char *) whole;
			response->payload.len = (int) VARSIZE(whole);
		}
		else
		{
			whole = PG_DETOAST_DATUM_PACKED(claim->values[payload]);
			response->payload_kind = PAYLOAD_TEXT;
			response->payload.data = VARDATA_ANY(whole);
			response->payload.len = (int) VARSIZE_ANY_EXHDR(whole);
		}
	}
}

/* Of a claimed row only what says whose it is and of which form. */
void
claim_read_names(Claim *claim, HeapTuple row, Response *response)
{
	deform(claim, row);
	response->study = read_text(claim, ROLE_STUDY);
	response->form_name = read_text(claim, ROLE_FORM);
	response->subject = read_text(claim, ROLE_SUBJECT);
}

/* The id of a claimed row, in its own type. */
Datum
claim_id(Claim *claim, HeapTuple row, Oid *type, bool *isnull)
{
	int			column = claim->attnum[ROLE_ID] - 1;

	deform(claim, row);
	*type = claim->type[ROLE_ID];
	*isnull = claim->nulls[column];
	return claim->values[column];
}

/* The whole row as quarantine keeps it. */
Jsonb *
claim_original(Claim *claim, HeapTuple row)
{
	deform(claim, row);
	return row_as_jsonb(claim->shape, claim->values, claim->nulls);
}

/*
 * A row as an object of its columns.  A column that is NULL is left out, so
 * that null stands for a jsonb null.  A json column is kept as the text it was
 * given as.
 */
Jsonb *
row_as_jsonb(TupleDesc shape, const Datum *values, const bool *nulls)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(shape, i);
		JsonbValue	key;

		if (column->attisdropped || nulls[i])
			continue;
		key.type = jbvString;
		key.val.string.val = NameStr(column->attname);
		key.val.string.len = strlen(NameStr(column->attname));
		pushJsonbValue(&state, WJB_KEY, &key);
		push_column(&state, getBaseType(column->atttypid), values[i]);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Pushes a column's value: what jsonb can hold as itself, else its text. */
void
push_column(JsonbParseState **state, Oid type, Datum given)
{
	JsonbValue	value;
	char		buffer[MAXDATELEN + 1];
	Oid			output;
	bool		varlena;

	switch (type)
	{
		case JSONBOID:
			{
				Jsonb	   *inner = (Jsonb *) PG_DETOAST_DATUM(given);

				if (JB_ROOT_IS_SCALAR(inner))
				{
					JsonbExtractScalar(&inner->root, &value);
					break;
				}
				value.type = jbvBinary;
				value.val.binary.data = &inner->root;
				value.val.binary.len = VARSIZE(inner) - VARHDRSZ;
				break;
			}
		case BOOLOID:
			value.type = jbvBool;
			value.val.boolean = DatumGetBool(given);
			break;
		case INT2OID:
			value.type = jbvNumeric;
			value.val.numeric = int64_to_numeric(DatumGetInt16(given));
			break;
		case INT4OID:
			value.type = jbvNumeric;
			value.val.numeric = int64_to_numeric(DatumGetInt32(given));
			break;
		case INT8OID:
			value.type = jbvNumeric;
			value.val.numeric = int64_to_numeric(DatumGetInt64(given));
			break;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			value.type = jbvString;
			value.val.string.val = pstrdup(JsonEncodeDateTime(buffer, given, type, NULL));
			value.val.string.len = strlen(value.val.string.val);
			break;
		default:
			getTypeOutputInfo(type, &output, &varlena);
			value.type = jbvString;
			value.val.string.val = OidOutputFunctionCall(output, given);
			value.val.string.len = strlen(value.val.string.val);
			break;
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
deform(Claim *claim, HeapTuple row)
{
	if (claim->deformed == row)
		return;
	heap_deform_tuple(row, claim->shape, claim->values, claim->nulls);
	claim->deformed = row;
}

static Span
read_text(Claim *claim, Role role)
{
	Span		span = {NULL, 0};
	int			column = claim->attnum[role] - 1;
	Datum		value;

	if (column < 0)
	{
		if (claim->source->constant[role] != NULL)
		{
			span.data = claim->source->constant[role];
			span.len = strlen(span.data);
		}
		return span;
	}
	if (claim->nulls[column])
		return span;
	value = claim->values[column];
	switch (claim->type[role])
	{
		case TEXTOID:
		case VARCHAROID:
			{
				struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

				span.data = VARDATA_ANY(text);
				span.len = (int) VARSIZE_ANY_EXHDR(text);
				return span;
			}
		case INT8OID:
		case INT4OID:
			{
				char	   *digits = palloc(MAXINT8LEN + 1);

				span.len = pg_lltoa(claim->type[role] == INT8OID ?
									DatumGetInt64(value) : DatumGetInt32(value),
									digits);
				span.data = digits;
				return span;
			}
	}
	span.data = OidOutputFunctionCall(claim->output[role], value);
	span.len = strlen(span.data);
	return span;
}
