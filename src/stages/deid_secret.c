/*
 * deid_secret.c
 *		What becomes of one answer: the methods that need a key.
 *
 * Their keys are derived for the study and the pseudonyms' version, each method
 * with one of its own.  An item is its form and its JSON Pointer, each after its
 * length: equal answers of two items have nothing in common.
 *
 * Pure: owns nothing, takes no lock.  Raises an error only where a library
 * failed.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/int.h"
#include "port/pg_bswap.h"
#include "stages/deid.h"
#include "stages/hkdf.h"
#include "stages/siv.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "words/compat.h"

/* bits of a draw that make a fraction */
#define DRAWN_BITS 53

static DeidFault hash(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response);
static DeidFault perturb(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response);
static Numeric noise(uint64 drawn, const Value *range, Numeric given);
static DeidFault encrypt(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response);
static void siv_key(Pseudonymiser *pseudonymiser, int version, Span study, uint8 *key);
static Span item_of(Span study, const char *form, const char *pointer);
static bool canonical_text(const Value *value, Span *text);
static Span span_of(const char *text);
static void fail(const char *what);

bool
deid_takes_key(DeidMethod method)
{
	return method == DEID_HASH || method == DEID_PERTURB || method == DEID_ENCRYPT;
}

/* Applies the item's method, which must be one of these. */
DeidFault
deid_apply_key(const CompiledForm *form, const FormNode *node,
			   Pseudonymiser *pseudonymiser, Response *response)
{
	switch (node->deid)
	{
		case DEID_HASH:
			return hash(form, node, pseudonymiser, response);
		case DEID_PERTURB:
			return perturb(form, node, pseudonymiser, response);
		default:
			return encrypt(form, node, pseudonymiser, response);
	}
}

/* Items that share a domain share their hashes, so that they can be joined. */
static DeidFault
hash(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response)
{
	Value	   *value = &response->values[node->slot];
	const char *domain = node->deid_rule->text;
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		digest[MAC_LENGTH];
	char	   *hex = palloc(2 * MAC_LENGTH);
	Span		parts[4];
	int			nparts = 0;

	parts[nparts++] = span_of(domain ? "domain" : "item");
	parts[nparts++] = span_of(domain ? domain : form->name);
	if (domain == NULL)
		parts[nparts++] = span_of(node->pointer);
	if (!canonical_text(value, &parts[nparts++]))
		return "must be a text or a number to be hashed";
	derive_key(pseudonymiser, KEY_HASH, pseudonymiser_version(pseudonymiser), response->study, key);
	keyed_hash(pseudonymiser, key, parts, nparts, digest);
	explicit_bzero(key, sizeof(key));
	deid_set_text(value, hex, (int) hex_encode((const char *) digest, sizeof(digest), hex));
	return NULL;
}

/*
 * Adds a number between -range and range, which subject, item and visit decide:
 * a response that is loaded again gets the same, and nobody can take the mean
 * of many.  A whole number stays one; any other keeps its decimal places.
 */
static DeidFault
perturb(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response)
{
	Value	   *value = &response->values[node->slot];
	const Value *range = &node->deid_rule->value;
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		digest[MAC_LENGTH];
	Span		parts[4];
	uint64		drawn;

	if (value->kind != VALUE_INTEGER && value->kind != VALUE_NUMERIC)
		return "must be a number to be perturbed";
	parts[0] = response->subject;
	parts[1] = span_of(form->name);
	parts[2] = span_of(node->pointer);
	parts[3] = response->visit;
	derive_key(pseudonymiser, KEY_PERTURB, pseudonymiser_version(pseudonymiser), response->study, key);
	keyed_hash(pseudonymiser, key, parts, lengthof(parts), digest);
	explicit_bzero(key, sizeof(key));
	memcpy(&drawn, digest, sizeof(drawn));
	drawn = pg_ntoh64(drawn);

	if (node->type == ITEM_INTEGER)
	{
		int64		sum;

		if (value->kind != VALUE_INTEGER ||
			pg_add_s64_overflow(value->number, (int64) (drawn % (2 * range->number + 1)) - range->number, &sum))
			return "is not a whole number that can be perturbed";
		memset(value, 0, sizeof(*value));
		value->kind = VALUE_INTEGER;
		value->number = sum;
	}
	else
	{
		Numeric		given = value_numeric(value);

		memset(value, 0, sizeof(*value));
		value_set_numeric(value, DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(given),
																	 NumericGetDatum(noise(drawn, range, given)))));
	}
	return NULL;
}

/* range times a fraction between -1 and 1, to as many places as either number has. */
static Numeric
noise(uint64 drawn, const Value *range, Numeric given)
{
	Datum		width = NumericGetDatum(value_numeric(range));
	int64		odd = (int64) ((drawn >> (64 - DRAWN_BITS)) * 2 + 1) - (INT64CONST(1) << DRAWN_BITS);
	int32		places = Max(DatumGetInt32(DirectFunctionCall1(numeric_scale, width)),
							 DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(given))));
	Datum		product = DirectFunctionCall2(numeric_mul, width, NumericGetDatum(int64_to_numeric(odd)));
	Datum		share = DirectFunctionCall2(numeric_div, product,
											NumericGetDatum(int64_to_numeric(INT64CONST(1) << DRAWN_BITS)));

	return DatumGetNumeric(DirectFunctionCall2(numeric_round, share, Int32GetDatum(places)));
}

/*
 * The version of its key, and what AES-256-SIV makes of the answer in base64.
 * Study and item are associated data: what is taken to another place does not
 * decrypt there.
 */
static DeidFault
encrypt(const CompiledForm *form, const FormNode *node, Pseudonymiser *pseudonymiser, Response *response)
{
	Value	   *value = &response->values[node->slot];
	int			version = pseudonymiser_version(pseudonymiser);
	uint8		key[SIV_KEY_LENGTH];
	Span		text;
	Span		plain;
	uint8	   *sealed;
	char	   *prefix = psprintf("%d:", version);
	int			prefix_len = (int) strlen(prefix);
	int			room;
	char	   *encoded;
	char	   *marked;
	bool		done;

	if (!canonical_text(value, &text))
		return "must be a text or a number to be encrypted";
	if (text.len > MaxAllocSize / 4)
		return "is too long to be encrypted";

	/* so that an empty text is not empty */
	marked = palloc(text.len + 1);
	marked[0] = DEID_SEALED_TEXT;
	memcpy(marked + 1, text.data, text.len);
	plain.data = marked;
	plain.len = text.len + 1;
	sealed = palloc(plain.len + SIV_TAG_LENGTH);
	siv_key(pseudonymiser, version, response->study, key);
	done = siv_seal(key, item_of(response->study, form->name, node->pointer), plain, sealed);
	explicit_bzero(key, sizeof(key));
	if (!done)
		fail("encrypt");

	room = pg_b64_enc_len(plain.len + SIV_TAG_LENGTH);
	encoded = palloc(prefix_len + room);
	memcpy(encoded, prefix, prefix_len);
	room = pg_b64_encode((const EproBase64Byte *) sealed, plain.len + SIV_TAG_LENGTH,
						 encoded + prefix_len, room);
	if (room < 0)
		fail("encode");
	deid_set_text(value, encoded, prefix_len + room);
	return NULL;
}

/*
 * What was encrypted, in the current memory context; data NULL: it is no answer
 * of that item and study under this key.
 */
Span
deid_decrypt(Pseudonymiser *pseudonymiser, const char *form, const char *pointer,
			 Span study, Span answer)
{
	Span		nothing = {NULL, 0};
	Span		text;
	Span		sealed;
	char	   *raw;
	uint8		key[SIV_KEY_LENGTH];
	int			at = 0;
	int			version = 0;
	int			room;
	bool		done;

	while (at < answer.len && at < 9 && answer.data[at] >= '0' && answer.data[at] <= '9')
		version = version * 10 + (answer.data[at++] - '0');
	if (version < 1 || at >= answer.len || answer.data[at++] != ':')
		return nothing;
	room = pg_b64_dec_len(answer.len - at);
	raw = palloc(room + 1);
	sealed.data = raw;
	sealed.len = pg_b64_decode(answer.data + at, answer.len - at, (EproBase64Byte *) raw, room);
	if (sealed.len <= SIV_TAG_LENGTH)
		return nothing;
	raw = palloc(sealed.len - SIV_TAG_LENGTH);
	siv_key(pseudonymiser, version, study, key);
	done = siv_open(key, item_of(study, form, pointer), sealed, (uint8 *) raw);
	explicit_bzero(key, sizeof(key));
	if (!done || raw[0] != DEID_SEALED_TEXT)
		return nothing;
	text.data = raw + 1;
	text.len = sealed.len - SIV_TAG_LENGTH - 1;
	return text;
}

/* AES-256-SIV takes two keys of 256 bits: both are made of the derived one. */
static void
siv_key(Pseudonymiser *pseudonymiser, int version, Span study, uint8 *key)
{
	uint8		derived[DERIVED_KEY_LENGTH];
	Span		half = span_of("siv mac");

	derive_key(pseudonymiser, KEY_ENCRYPT, version, study, derived);
	keyed_hash(pseudonymiser, derived, &half, 1, key);
	half = span_of("siv ctr");
	keyed_hash(pseudonymiser, derived, &half, 1, key + MAC_LENGTH);
	explicit_bzero(derived, sizeof(derived));
}

/* Study, form and pointer, each after its length. */
static Span
item_of(Span study, const char *form, const char *pointer)
{
	Span		parts[3];
	Span		item;
	char	   *at;

	parts[0] = study;
	parts[1] = span_of(form);
	parts[2] = span_of(pointer);
	item.len = 0;
	for (int i = 0; i < lengthof(parts); i++)
		item.len += (int) sizeof(uint32) + parts[i].len;
	item.data = at = palloc(item.len);
	for (int i = 0; i < lengthof(parts); i++)
	{
		uint32		len = pg_hton32((uint32) parts[i].len);

		memcpy(at, &len, sizeof(len));
		at += sizeof(len);
		if (parts[i].len > 0)
			memcpy(at, parts[i].data, parts[i].len);
		at += parts[i].len;
	}
	return item;
}

/* Equal answers have one text: 7, 7.0 and 7.00 are the same number. */
static bool
canonical_text(const Value *value, Span *text)
{
	switch (value->kind)
	{
		case VALUE_TEXT:
			text->data = value->data;
			text->len = value->len;
			return true;
		case VALUE_INTEGER:
			*text = span_of(psprintf(INT64_FORMAT, value->number));
			return true;
		case VALUE_NUMERIC:
			*text = span_of(DatumGetCString(DirectFunctionCall1(numeric_out,
																DirectFunctionCall1(numeric_trim_scale,
																					NumericGetDatum(value_numeric(value))))));
			return true;
		default:
			return false;
	}
}

static Span
span_of(const char *text)
{
	Span		span = {text, (int) strlen(text)};

	return span;
}

static void
fail(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not %s an answer", what)));
}
