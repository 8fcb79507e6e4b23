/*
 * deidentify.c
 *		Identifiers out, pseudonym in: the first stage after decoding.
 *
 * subject_key = hex(HMAC-SHA256(key, len(study) study len(subject) subject)),
 * lengths as four bytes, most significant first.  The lengths keep study "AB"
 * with subject "C" apart from study "A" with subject "BC" (RFC 2104 for HMAC;
 * PostgreSQL's own pg_hmac does it).
 *
 * Subjects come back for visit after visit, so a small direct-mapped cache of
 * keys already made stands in front of the HMAC.  Its size is fixed.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/sha2.h"
#include "port/pg_bswap.h"
#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define CACHE_SIZE 32768			/* a power of two */
#define CACHED_LENGTH 48		/* longer identifiers are computed each time */
#define MICROSECONDS_A_DAY INT64CONST(86400000000)

typedef struct CachedKey
{
	uint8		study_len;
	uint8		subject_len;
	char		identity[CACHED_LENGTH];	/* study and subject, joined */
	char		subject_key[SUBJECT_KEY_LENGTH];
} CachedKey;

/*
 * pg_hmac ties a context to a resource owner, and the server frees what a
 * transaction's owner still holds at its end.  A pseudonymiser serves many
 * transactions, so it has an owner of its own, under none.
 */
struct Pseudonymiser
{
	pg_hmac_ctx *hmac;
	ResourceOwner owner;
	uint8	   *key;
	size_t		len;
	CachedKey  *cache;
};

static bool pseudonymise(Pseudonymiser *pseudonymiser, Response *response);
static bool compute_key(Pseudonymiser *pseudonymiser, Span study, Span subject,
						char *subject_key);
static void remove_node(const FormNode *node, Value *values);
static bool is_blank(const FormNode *node, const Value *value);
static void generalise_age(const FormNode *node, Value *value,
						   Response *response);
static void free_hmac(void *argument);

/*
 * Makes a pseudonymiser in the current memory context, with its own copy of
 * the key.  Raises an error only for lack of memory.
 */
Pseudonymiser *
pseudonymiser_create(const uint8 *key, size_t len)
{
	Pseudonymiser *made = palloc0(sizeof(Pseudonymiser));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));
	ResourceOwner caller = CurrentResourceOwner;

	made->key = palloc(len);
	memcpy(made->key, key, len);
	made->len = len;
	made->cache = MemoryContextAllocHuge(CurrentMemoryContext,
										 sizeof(CachedKey) * CACHE_SIZE);
	memset(made->cache, 0, sizeof(CachedKey) * CACHE_SIZE);
	made->owner = ResourceOwnerCreate(NULL, "epro_etl pseudonymiser");
	callback->func = free_hmac;
	callback->arg = made;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	CurrentResourceOwner = made->owner;
	made->hmac = pg_hmac_create(PG_SHA256);
	CurrentResourceOwner = caller;
	if (made->hmac == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return made;
}

/* Forgets the key and all identifiers; the pseudonymiser cannot be used again. */
void
pseudonymiser_wipe(Pseudonymiser *pseudonymiser)
{
	explicit_bzero(pseudonymiser->key, pseudonymiser->len);
	explicit_bzero(pseudonymiser->cache, sizeof(CachedKey) * CACHE_SIZE);
}

/*
 * Makes the subject key and applies each item's method.  Returns false, with
 * a finding, when there is no subject to make a key of.  Without a pseudonymiser
 * and codes none is asked for.
 */
bool
deidentify(const CompiledForm *form, Pseudonymiser *pseudonymiser,
		   CodeBook *codes, Response *response)
{
	if (pseudonymiser != NULL &&
		!(pseudonymise(pseudonymiser, response) && pseudonymize_subject(form, codes, response)))
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
			case DEID_PSEUDONYMIZE:
				pseudonymize_item(node, codes, value, response);
				break;
		}
	}
	return true;
}

static bool
pseudonymise(Pseudonymiser *pseudonymiser, Response *response)
{
	Span		study = response->study;
	Span		subject = response->subject;
	CachedKey  *cached;

	response->subject_key[0] = '\0';
	subject.len = (int) normalise_trim(&subject.data, subject.data ? subject.len : 0);
	if (response->subject.data == NULL || subject.len == 0)
	{
		finding_add(response->findings, FINDING_SUBJECT, SEVERITY_ERROR, NULL,
					"subject", "the response names no subject");
		return false;
	}
	/* only whether it is blank is asked above: the identifier stays as it is */
	subject = response->subject;

	if (study.len + subject.len > CACHED_LENGTH)
		return compute_key(pseudonymiser, study, subject, response->subject_key);

	{
		uint32		hash = hash_bytes((const unsigned char *) subject.data, subject.len);

		hash = hash_combine(hash, study.len ?
							hash_bytes((const unsigned char *) study.data, study.len) : 0);
		cached = &pseudonymiser->cache[hash & (CACHE_SIZE - 1)];
	}
	if (cached->subject_len == subject.len && cached->study_len == study.len &&
		memcmp(cached->identity, study.data, study.len) == 0 &&
		memcmp(cached->identity + study.len, subject.data, subject.len) == 0)
	{
		memcpy(response->subject_key, cached->subject_key, SUBJECT_KEY_LENGTH);
		response->subject_key[SUBJECT_KEY_LENGTH] = '\0';
		return true;
	}

	if (!compute_key(pseudonymiser, study, subject, response->subject_key))
		return false;
	cached->study_len = (uint8) study.len;
	cached->subject_len = (uint8) subject.len;
	memcpy(cached->identity, study.data, study.len);
	memcpy(cached->identity + study.len, subject.data, subject.len);
	memcpy(cached->subject_key, response->subject_key, SUBJECT_KEY_LENGTH);
	return true;
}

static bool
compute_key(Pseudonymiser *pseudonymiser, Span study, Span subject,
			char *subject_key)
{
	pg_hmac_ctx *hmac = pseudonymiser->hmac;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint32		study_len = pg_hton32((uint32) study.len);
	uint32		subject_len = pg_hton32((uint32) subject.len);

	if (pg_hmac_init(hmac, pseudonymiser->key, pseudonymiser->len) < 0 ||
		pg_hmac_update(hmac, (uint8 *) &study_len, sizeof(study_len)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) study.data, study.len) < 0 ||
		pg_hmac_update(hmac, (uint8 *) &subject_len, sizeof(subject_len)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) subject.data, subject.len) < 0 ||
		pg_hmac_final(hmac, digest, sizeof(digest)) < 0)
		/* the library failed, not the data: nothing can go on without a key */
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a subject key: %s",
						pg_hmac_error(hmac))));
	hex_encode((const char *) digest, sizeof(digest), subject_key);
	subject_key[SUBJECT_KEY_LENGTH] = '\0';
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

static void
free_hmac(void *argument)
{
	Pseudonymiser *pseudonymiser = argument;

	pseudonymiser_wipe(pseudonymiser);
	if (pseudonymiser->hmac != NULL)
		pg_hmac_free(pseudonymiser->hmac);
	ResourceOwnerDelete(pseudonymiser->owner);
}
