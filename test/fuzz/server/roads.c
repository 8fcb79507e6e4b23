/*
 * roads.c
 *		One payload on every road that it can go, and what must be the same
 *		at their ends.
 *
 * A payload is decoded from a text or from a jsonb; and in a stream it goes on
 * to the next group as a message, after any of the stages.  All of these have to
 * come to the same values and findings, so each is held against the others.
 * What also must hold: no stage raises an error for data; a finding outlives the
 * memory of its response; a message that is cut off is refused; and what is
 * left at the end becomes a datum of every column type that its item can be
 * loaded into, which that type's own output can read.
 *
 * The memory of a road is a context of its own, deleted before the next reads
 * what the road has left behind.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fuzz_server.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "stages/form.h"
#include "stages/stages.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "words/errors.h"
#include "words/message.h"

/* 2026-01-01 00:00 UTC, in microseconds from 2000-01-01 */
#define AUTHORED INT64CONST(820540800000000)

/* numeric(5,2), and varchar(3) or char(3) */
#define NUMERIC_5_2 ((5 << 16 | 2) + VARHDRSZ)
#define LENGTH_3 (3 + VARHDRSZ)

/* The stages between payload and verdict, in order. */
typedef enum Stop
{
	AFTER_DECODE = 1,
	AFTER_DEIDENTIFY,
	AFTER_NORMALISE,
	AFTER_VALIDATE
} Stop;

/* One response on one road. */
typedef struct Trip
{
	MemoryContext chunk;		/* where findings live */
	MemoryContext row;			/* where values live */
	Response	response;
	FindingList findings;
	bool		decoded;
} Trip;

static const struct
{
	Oid			type;
	int32		typmod;
}			columns[] = {
	{BOOLOID, -1}, {INT2OID, -1}, {INT4OID, -1}, {INT8OID, -1}, {FLOAT8OID, -1},
	{NUMERICOID, -1}, {NUMERICOID, NUMERIC_5_2}, {TEXTOID, -1}, {VARCHAROID, -1},
	{VARCHAROID, LENGTH_3}, {BPCHAROID, LENGTH_3}, {DATEOID, -1}, {TIMEOID, -1},
	{TIMETZOID, -1}, {TIMESTAMPTZOID, -1}, {JSONOID, -1}, {JSONBOID, -1},
};

static void trip_begin(Trip *trip, const CompiledForm *form);
static void trip_go(Trip *trip, const CompiledForm *form, Stop from, Stop to);
static void trip_end(Trip *trip);
static void read_findings(const Trip *trip);
static bool text_alone_refuses(const Trip *trip);
static void same_findings(const Trip *a, const Trip *b);
static void same_values(const CompiledForm *form, const Trip *a, const Trip *b, bool groups);
static bool same_value(const Value *a, const Value *b);
static bool same_text(const char *a, const char *b);
static void go_by_message(const CompiledForm *form, const Trip *direct, Jsonb *payload, uint32 hash);
static void refuse_cut_off(const CompiledForm *form, const StringInfoData *message, Size len);
static void load_columns(const CompiledForm *form, const Trip *trip);

/*
 * Text to jsonb, by the server's own input.  In the current memory context.
 */
Parsed
parse_jsonb(const char *text, size_t len, Jsonb **jsonb)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile Parsed parsed = PARSED_REFUSED;
	char	   *terminated;

	if (!pg_verify_mbstr(GetDatabaseEncoding(), text, (int) len, true))
		return PARSED_NO_TEXT;
	terminated = pnstrdup(text, len);
	PG_TRY();
	{
		*jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(terminated)));
		parsed = PARSED_OK;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR)
			fuzz_fail_error("jsonb_in", error);
		FlushErrorState();
	}
	PG_END_TRY();
	return parsed;
}

/* A form, or NULL when it is refused as forms are refused. */
CompiledForm *
try_compile(Jsonb *definition)
{
	MemoryContext caller = CurrentMemoryContext;
	CompiledForm *volatile form = NULL;

	PG_TRY();
	{
		form = form_compile("f", "1", definition);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_EPRO_FORM_REFUSED &&
			error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX)
			fuzz_fail_error("form_compile", error);
		FlushErrorState();
	}
	PG_END_TRY();
	return form;
}

/* The payload must be a text that the database's encoding can hold. */
void
judge_on_all_roads(const CompiledForm *form, const char *text, size_t len)
{
	uint32		hash = hash_bytes((const unsigned char *) text, (int) len);
	Jsonb	   *payload = NULL;
	Parsed		parsed = parse_jsonb(text, len, &payload);
	Trip		by_text;
	Trip		by_jsonb;

	trip_begin(&by_text, form);
	by_text.response.payload_kind = PAYLOAD_TEXT;
	by_text.response.payload.data = text;
	by_text.response.payload.len = (int) len;
	trip_go(&by_text, form, AFTER_DECODE, AFTER_VALIDATE);

	if (parsed == PARSED_OK)
	{
		trip_begin(&by_jsonb, form);
		by_jsonb.response.payload_kind = PAYLOAD_JSONB;
		by_jsonb.response.payload.data = (const char *) payload;
		by_jsonb.response.payload.len = VARSIZE(payload);
		trip_go(&by_jsonb, form, AFTER_DECODE, AFTER_VALIDATE);
		if (!text_alone_refuses(&by_text))
		{
			MUST(by_text.decoded == by_jsonb.decoded);
			same_findings(&by_text, &by_jsonb);
			if (by_text.decoded)
				same_values(form, &by_text, &by_jsonb, true);
		}
		go_by_message(form, &by_jsonb, payload, hash);
		if (by_jsonb.decoded)
			load_columns(form, &by_jsonb);
		trip_end(&by_jsonb);
	}
	else
	{
		MUST(!by_text.decoded);
		MUST(by_text.findings.n == 1 && by_text.findings.items[0].kind == FINDING_PAYLOAD);
	}
	trip_end(&by_text);
}

static void
trip_begin(Trip *trip, const CompiledForm *form)
{
	memset(trip, 0, sizeof(*trip));
	trip->chunk = fuzz_memory(CurrentMemoryContext, "chunk");
	trip->row = fuzz_memory(CurrentMemoryContext, "row");
	trip->findings.memory = trip->chunk;
	trip->response.findings = &trip->findings;
	trip->response.authored = AUTHORED;
	trip->response.values = MemoryContextAllocZero(trip->row, sizeof(Value) * form->nnodes);
	trip->decoded = true;
	findings_begin(&trip->findings);
}

/* The stages of a trip, both named included; none is to raise an error. */
static void
trip_go(Trip *trip, const CompiledForm *form, Stop from, Stop to)
{
	MemoryContext caller = MemoryContextSwitchTo(trip->row);

	for (int at = from; trip->decoded && at <= (int) to; at++)
	{
		switch ((Stop) at)
		{
			case AFTER_DECODE:
				trip->decoded = decode(form, &trip->response);
				break;
			case AFTER_DEIDENTIFY:
				MUST(deidentify(form, NULL, NULL, &trip->response));
				break;
			case AFTER_NORMALISE:
				normalise(form, &trip->response);
				break;
			case AFTER_VALIDATE:
				validate(form, &trip->response);
				break;
		}
	}
	MemoryContextSwitchTo(caller);
}

/* Its findings must be there when the response's memory is not. */
static void
trip_end(Trip *trip)
{
	if (trip->row != NULL)
		MemoryContextDelete(trip->row);
	trip->row = NULL;
	read_findings(trip);
	MemoryContextDelete(trip->chunk);
}

static void
read_findings(const Trip *trip)
{
	int			made = 0;

	MUST(trip->findings.n - trip->findings.first <= MAX_FINDINGS);
	for (int i = 0; i <= SEVERITY_ERROR; i++)
		made += trip->findings.count[i];
	MUST(made >= trip->findings.n - trip->findings.first);
	for (int i = trip->findings.first; i < trip->findings.n; i++)
	{
		const Finding *finding = &trip->findings.items[i];

		MUST(finding_kind_name(finding->kind) != NULL && severity_name(finding->severity) != NULL);
		MUST(finding->rule != NULL && strlen(finding->rule) > 0);
		MUST(finding->message != NULL && strlen(finding->message) > 0);
		MUST(finding->location == NULL ||
			 pg_verify_mbstr(GetDatabaseEncoding(), finding->location, (int) strlen(finding->location), true));
	}
}

/* Is it a payload that jsonb would take, or settle in silence (see decode.c)? */
static bool
text_alone_refuses(const Trip *trip)
{
	static const char *const reasons[] = {
		"the payload gives a key twice in one object",
		"the payload has a number beyond 1000 digits",
		"the payload is nested more than 512 levels deep",
	};

	if (trip->decoded || trip->findings.n != 1 || strcmp(trip->findings.items[0].rule, "payload") != 0)
		return false;
	for (int i = 0; i < (int) lengthof(reasons); i++)
	{
		if (strcmp(trip->findings.items[0].message, reasons[i]) == 0)
			return true;
	}
	return false;
}

static void
same_findings(const Trip *a, const Trip *b)
{
	MUST(a->findings.n == b->findings.n);
	MUST(a->findings.skipped == b->findings.skipped);
	MUST(memcmp(a->findings.count, b->findings.count, sizeof(a->findings.count)) == 0);
	for (int i = 0; i < a->findings.n; i++)
	{
		const Finding *left = &a->findings.items[i];
		const Finding *right = &b->findings.items[i];

		MUST(left->kind == right->kind && left->severity == right->severity);
		MUST(same_text(left->location, right->location));
		MUST(same_text(left->rule, right->rule));
		MUST(same_text(left->message, right->message));
	}
}

/* groups: with their containers, which stay behind when a message goes. */
static void
same_values(const CompiledForm *form, const Trip *a, const Trip *b, bool groups)
{
	for (int i = 0; i < form->nnodes; i++)
	{
		const Value *left = &a->response.values[i];
		const Value *right = &b->response.values[i];

		MUST(left->kind == right->kind);
		if (groups || form->nodes[i]->nchildren == 0)
			MUST(same_value(left, right));
	}
}

static bool
same_value(const Value *a, const Value *b)
{
	if (a->typed != b->typed || (a->typed && (a->number != b->number || a->zone != b->zone)))
		return false;
	switch (a->kind)
	{
		case VALUE_ABSENT:
		case VALUE_REMOVED:
		case VALUE_NULL:
			return true;
		case VALUE_BOOLEAN:
			return a->number == b->number;
		case VALUE_INTEGER:
			return a->number == b->number && (a->data == NULL) == (b->data == NULL) &&
				(a->data == NULL || (VARSIZE(a->data) == VARSIZE(b->data) &&
									 memcmp(a->data, b->data, VARSIZE(a->data)) == 0));
		case VALUE_NUMERIC:
			return VARSIZE(a->data) == VARSIZE(b->data) && memcmp(a->data, b->data, VARSIZE(a->data)) == 0;
		case VALUE_TEXT:
		case VALUE_ARRAY:
		case VALUE_OBJECT:
			return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
	}
	return false;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL ? b == NULL : b != NULL && strcmp(a, b) == 0;
}

/*
 * The same payload, sent on as a message after one of the stages.  Where the
 * rules ask for the payload, a stream sends the address instead (judge.c), so
 * that there is nothing to compare before the last.
 */
static void
go_by_message(const CompiledForm *form, const Trip *direct, Jsonb *payload, uint32 hash)
{
	Stop		stop = form->needs_payload && direct->decoded ? AFTER_VALIDATE : (Stop) (AFTER_DECODE + hash % 4);
	StringInfoData message;
	Trip		first;
	Trip		second;
	char	   *bytes;

	trip_begin(&first, form);
	first.response.payload_kind = PAYLOAD_JSONB;
	first.response.payload.data = (const char *) payload;
	first.response.payload.len = VARSIZE(payload);
	trip_go(&first, form, AFTER_DECODE, stop);
	initStringInfo(&message);
	message_begin(&message, 7);
	message_pack(&message, 0, !first.decoded, false, form, &first.response, stop < AFTER_DEIDENTIFY);
	trip_end(&first);

	bytes = palloc(message.len);
	memcpy(bytes, message.data, message.len);
	MUST(message_head(bytes, message.len).place == 7);
	MUST(message_head(bytes, message.len).has_body);
	trip_begin(&second, form);
	second.decoded = !message_head(bytes, message.len).ended;
	message_unpack(bytes, message.len, form, &second.response);
	trip_go(&second, form, stop + 1, AFTER_VALIDATE);
	MUST(second.decoded == direct->decoded);
	same_findings(&second, direct);
	if (second.decoded)
		same_values(form, &second, direct, false);

	/* a finding may point into the message */
	MemoryContextDelete(second.row);
	second.row = NULL;
	trip_end(&second);
	pfree(bytes);

	refuse_cut_off(form, &message, (hash >> 2) % message.len);
}

static void
refuse_cut_off(const CompiledForm *form, const StringInfoData *message, Size len)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool refused = false;
	char	   *bytes = palloc(len);
	Trip		trip;

	memcpy(bytes, message->data, len);
	trip_begin(&trip, form);
	PG_TRY();
	{
		message_unpack(bytes, len, form, &trip.response);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		refused = true;
	}
	PG_END_TRY();
	MUST(refused);
	MemoryContextDelete(trip.row);
	MemoryContextDelete(trip.chunk);
}

static void
load_columns(const CompiledForm *form, const Trip *trip)
{
	for (int i = 0; i < form->nnodes; i++)
	{
		const FormNode *node = form->nodes[i];
		const Value *value = &trip->response.values[i];

		if (!form_node_is_item(node) || value->kind == VALUE_ABSENT)
			continue;
		for (int c = 0; c < (int) lengthof(columns); c++)
		{
			Datum		datum;
			bool		isnull;
			Oid			output;
			bool		by_reference;

			if (!item_type_loads(node->type, columns[c].type) ||
				value_datum(value, columns[c].type, columns[c].typmod, &datum, &isnull) != NULL || isnull)
				continue;
			getTypeOutputInfo(columns[c].type, &output, &by_reference);
			MUST(OidOutputFunctionCall(output, datum) != NULL);
		}
	}
}
