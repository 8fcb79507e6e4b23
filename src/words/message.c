/*
 * message.c
 *		A response as bytes, on its way from one stage group to the next.
 *
 * The layout is private to one build of this file: sender and receiver are
 * processes of one server.  Both know the same compiled form, so values go by
 * their slots.  What is unpacked points into the message, which has to outlive
 * it; a message begins at a MAXALIGN'ed address, as a channel lays it out.
 *
 * A message that ends too early or names what is not there is a broken
 * machine, not bad data: an error.
 */
#include "postgres.h"

#include "words/compat.h"
#include "words/message.h"

/* with the kind of a value, in its first byte */
#define TYPED_BIT 0x80

/* what stands before a value's bytes, at most */
#define MOST_VALUE_HEAD (1 + sizeof(int64) + 2 * sizeof(int32))

/* What reads a message, and must not read beyond it. */
typedef struct Cursor
{
	const char *data;
	Size		len;
	Size		at;
} Cursor;

static void put_span(StringInfo message, Span span);
static void put_text(StringInfo message, const char *text);
static void put_value(StringInfo message, const FormNode *node, const Value *value);
static void put_findings(StringInfo message, const FindingList *findings);
static bool has_number(const Value *value);
static int32 data_len(const Value *value);
static const void *get(Cursor *cursor, Size n);
static Span get_span(Cursor *cursor);
static const char *get_text(Cursor *cursor);
static void get_value(Cursor *cursor, Value *value);
static void get_findings(Cursor *cursor, FindingList *findings);

/* Starts a message, which then is an address only. */
void
message_begin(StringInfo message, int32 place)
{
	MessageHead head = {0};

	resetStringInfo(message);
	head.place = place;
	head.form = -1;
	appendBinaryStringInfo(message, (const char *) &head, sizeof(head));
}

/*
 * Adds the body: the response and its findings.  form may be NULL, for a
 * response that names none.  identified: whether the subject is still to be
 * made a key of, so that it has to go along.
 */
void
message_pack(StringInfo message, int32 form_index, bool ended,
			 bool deferred, const CompiledForm *form, const Response *response,
			 bool identified)
{
	MessageHead *head = (MessageHead *) message->data;
	Span		nothing = {NULL, 0};

	head->form = form_index;
	head->has_body = true;
	head->ended = ended;
	head->deferred = deferred;

	put_span(message, response->source_id);
	put_span(message, response->study);
	put_span(message, response->form_name);
	put_span(message, response->visit);
	put_span(message, identified ? response->subject : nothing);
	appendBinaryStringInfo(message, (const char *) &response->authored, sizeof(TimestampTz));
	appendStringInfoChar(message, response->authored_isnull);
	appendBinaryStringInfo(message, response->subject_key, sizeof(response->subject_key));
	appendBinaryStringInfo(message, (const char *) &response->shift_days, sizeof(response->shift_days));
	put_findings(message, response->findings);
	for (int i = 0; !ended && form != NULL && i < form->nnodes; i++)
		put_value(message, form->nodes[i], &response->values[form->nodes[i]->slot]);
}

/* Reads how a message begins. */
MessageHead
message_head(const char *data, Size len)
{
	MessageHead head;
	Cursor		cursor = {data, len, 0};

	memcpy(&head, get(&cursor, sizeof(head)), sizeof(head));
	return head;
}

/*
 * Reads a message with a body into a response, whose findings and values
 * have their place already.  Texts and containers point into the message.
 */
void
message_unpack(const char *data, Size len, const CompiledForm *form,
			   Response *response)
{
	Cursor		cursor = {data, len, 0};
	MessageHead head;

	memcpy(&head, get(&cursor, sizeof(head)), sizeof(head));
	response->source_id = get_span(&cursor);
	response->study = get_span(&cursor);
	response->form_name = get_span(&cursor);
	response->visit = get_span(&cursor);
	response->subject = get_span(&cursor);
	memcpy(&response->authored, get(&cursor, sizeof(TimestampTz)), sizeof(TimestampTz));
	response->authored_isnull = *(const char *) get(&cursor, 1);
	memcpy(response->subject_key, get(&cursor, sizeof(response->subject_key)),
		   sizeof(response->subject_key));
	memcpy(&response->shift_days, get(&cursor, sizeof(response->shift_days)),
		   sizeof(response->shift_days));
	get_findings(&cursor, response->findings);
	for (int i = 0; !head.ended && form != NULL && i < form->nnodes; i++)
		get_value(&cursor, &response->values[form->nodes[i]->slot]);
}

static void
put_span(StringInfo message, Span span)
{
	int32		len = span.data ? span.len : -1;

	appendBinaryStringInfo(message, (const char *) &len, sizeof(len));
	if (len > 0)
		appendBinaryStringInfo(message, span.data, len);
}

/* A terminated text, its end included, so that it can be pointed at. */
static void
put_text(StringInfo message, const char *text)
{
	Span		span = {text, text ? (int) strlen(text) + 1 : 0};

	put_span(message, span);
}

/*
 * A value: its kind, then what the kind has of number, zone, length and bytes.
 * Written in one go, since a response has dozens.  A group is no more than its
 * items, which follow: its container stays.
 */
static void
put_value(StringInfo message, const FormNode *node, const Value *value)
{
	int32		len = node->nchildren > 0 ? 0 : data_len(value);
	char	   *at;

	enlargeStringInfo(message, MOST_VALUE_HEAD + MAXIMUM_ALIGNOF + len);
	at = message->data + message->len;
	*at++ = (char) (value->kind | (value->typed ? TYPED_BIT : 0));
	if (has_number(value))
	{
		memcpy(at, &value->number, sizeof(value->number));
		at += sizeof(value->number);
	}
	if (value->typed)
	{
		memcpy(at, &value->zone, sizeof(value->zone));
		at += sizeof(value->zone);
	}
	if (value->kind >= VALUE_INTEGER)
	{
		memcpy(at, &len, sizeof(len));
		at += sizeof(len);
		if (len > 0)
		{
			if (value->kind != VALUE_TEXT)
			{
				char	   *aligned = message->data + MAXALIGN(at - message->data);

				/* what the buffer held before may be of an identified row */
				memset(at, 0, aligned - at);
				at = aligned;
			}
			memcpy(at, value->data, len);
			at += len;
		}
	}
	message->len = (int) (at - message->data);
	message->data[message->len] = '\0';
}

static void
get_value(Cursor *cursor, Value *value)
{
	unsigned char kind = *(const unsigned char *) get(cursor, 1);
	int32		len;

	memset(value, 0, sizeof(*value));
	value->kind = (ValueKind) (kind & ~TYPED_BIT);
	value->typed = (kind & TYPED_BIT) != 0;
	value->between = false;
	if (has_number(value))
		memcpy(&value->number, get(cursor, sizeof(value->number)), sizeof(value->number));
	if (value->typed)
		memcpy(&value->zone, get(cursor, sizeof(value->zone)), sizeof(value->zone));
	if (value->kind < VALUE_INTEGER)
		return;
	memcpy(&len, get(cursor, sizeof(len)), sizeof(len));
	if (len > 0 && value->kind != VALUE_TEXT)
		(void) get(cursor, MAXALIGN(cursor->at) - cursor->at);
	value->data = len > 0 ? get(cursor, len) : NULL;
	if (value->kind >= VALUE_TEXT)
		value->len = len;
	/* an empty text is one all the same */
	if (value->kind == VALUE_TEXT && len == 0)
		value->data = "";
}

/* Does its number say something? */
static bool
has_number(const Value *value)
{
	return value->typed || (value->kind >= VALUE_BOOLEAN && value->kind <= VALUE_NUMERIC);
}

/* Bytes behind its pointer. */
static int32
data_len(const Value *value)
{
	if (value->kind >= VALUE_TEXT)
		return value->len;
	if (value->kind >= VALUE_INTEGER && value->data != NULL)
		return (int32) VARSIZE(value->data);
	return 0;
}

/* Of the response at hand, with its counts. */
static void
put_findings(StringInfo message, const FindingList *findings)
{
	int32		n = findings->n - findings->first;

	appendBinaryStringInfo(message, (const char *) &n, sizeof(n));
	appendBinaryStringInfo(message, (const char *) findings->count, sizeof(findings->count));
	appendBinaryStringInfo(message, (const char *) &findings->skipped, sizeof(findings->skipped));
	appendBinaryStringInfo(message, (const char *) &findings->undeclared, sizeof(findings->undeclared));
	for (int i = findings->first; i < findings->n; i++)
	{
		const Finding *finding = &findings->items[i];

		appendStringInfoChar(message, (char) finding->kind);
		appendStringInfoChar(message, (char) finding->severity);
		put_text(message, finding->location);
		put_text(message, finding->rule);
		put_text(message, finding->message);
	}
}

static void
get_findings(Cursor *cursor, FindingList *findings)
{
	int32		n;
	int			count[SEVERITY_ERROR + 1];
	int			skipped;
	int			undeclared;

	memcpy(&n, get(cursor, sizeof(n)), sizeof(n));
	memcpy(count, get(cursor, sizeof(count)), sizeof(count));
	memcpy(&skipped, get(cursor, sizeof(skipped)), sizeof(skipped));
	memcpy(&undeclared, get(cursor, sizeof(undeclared)), sizeof(undeclared));
	for (int i = 0; i < n; i++)
	{
		FindingKind kind = (FindingKind) *(const char *) get(cursor, 1);
		Severity	severity = (Severity) *(const char *) get(cursor, 1);
		const char *location = get_text(cursor);
		const char *rule = get_text(cursor);
		const char *text = get_text(cursor);

		finding_add(findings, kind, severity, location, rule, text);
	}
	/* more may have been made than are listed */
	memcpy(findings->count, count, sizeof(count));
	findings->skipped = skipped;
	findings->undeclared = undeclared;
}

static const void *
get(Cursor *cursor, Size n)
{
	const char *here = cursor->data + cursor->at;

	if (n > cursor->len - cursor->at)
		elog(ERROR, "a message between stage groups is broken");
	cursor->at += n;
	return here;
}

static Span
get_span(Cursor *cursor)
{
	Span		span = {NULL, 0};
	int32		len;

	memcpy(&len, get(cursor, sizeof(len)), sizeof(len));
	if (len < 0)
		return span;
	span.data = get(cursor, len);
	span.len = len;
	return span;
}

static const char *
get_text(Cursor *cursor)
{
	return get_span(cursor).data;
}
