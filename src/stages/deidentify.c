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
#include "stages/deid.h"
#include "stages/form.h"
#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#define CACHE_SIZE 32768			/* a power of two */
#define CACHED_LENGTH 48		/* longer identifiers are computed each time */

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
		DeidFault	fault;

		if (value->kind == VALUE_ABSENT || value->kind == VALUE_REMOVED || node->deid == DEID_SHIFT)
			continue;
		if (node->deid == DEID_REMOVE)
		{
			deid_remove(node, response->values);
			continue;
		}
		/* what was not answered stays so */
		normalise_value(node, value);
		if (value->kind <= VALUE_NULL)
			continue;
		fault = deid_apply(node, value, response);
		if (fault == NULL)
			continue;
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
					node->pointer, deid_method_name(node->deid), fault);
		deid_remove(node, response->values);
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

static void
free_hmac(void *argument)
{
	Pseudonymiser *pseudonymiser = argument;

	pseudonymiser_wipe(pseudonymiser);
	if (pseudonymiser->hmac != NULL)
		pg_hmac_free(pseudonymiser->hmac);
	ResourceOwnerDelete(pseudonymiser->owner);
}
