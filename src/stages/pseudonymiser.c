/*
 * pseudonymiser.c
 *		From the master key to the keys of each study, and to the subject's
 *		pseudonym.
 *
 * A derived key is HKDF-SHA256 of the master key (hkdf.c), with no salt and
 * with an info that says what it is for: the parts "epro_etl", the purpose, the
 * version in decimal digits (empty where the purpose has none) and the study,
 * each after its length in four bytes, most significant first.
 *
 * subject_key of version 1 is hex(HMAC(k(subject, 1, study), study, subject)),
 * lengths before the parts as above; of version v it is
 * hex(HMAC(k(subject, v, study), subject_key of version v - 1)).  So a pseudonym
 * of one version can be made one of the next without the identifier, by who has
 * the key.
 *
 * Subjects come back for visit after visit, so a small direct-mapped cache of
 * pseudonyms already made stands in front of all this, and another one of
 * derived keys behind it.  Their sizes are fixed.
 *
 * Of the master key only HKDF's root is kept.  All goes when it is wiped, or
 * with the memory context.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bswap.h"
#include "stages/hkdf.h"
#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#define MOST_SHIFT_DAYS 365
#define CACHE_SIZE 32768			/* a power of two */
#define CACHED_LENGTH 48		/* longer identifiers are computed each time */
#define DERIVED_CACHE_SIZE 64	/* a power of two */
#define DERIVED_STUDY_LENGTH 64 /* longer studies' keys are derived each time */

typedef struct CachedKey
{
	uint8		study_len;
	uint8		subject_len;
	char		identity[CACHED_LENGTH];	/* study and subject, joined */
	char		subject_key[SUBJECT_KEY_LENGTH];
	int32		shift_days;		/* 0: not made yet */
} CachedKey;

typedef struct DerivedKey
{
	bool		filled;
	KeyPurpose	purpose;
	int			version;
	int			study_len;
	char		study[DERIVED_STUDY_LENGTH];
	uint8		key[DERIVED_KEY_LENGTH];
} DerivedKey;

/*
 * pg_hmac ties a context to a resource owner, and the server frees what a
 * transaction's owner still holds at its end.  A pseudonymiser serves many
 * transactions, so it has an owner of its own, under none.
 */
struct Pseudonymiser
{
	pg_hmac_ctx *hmac;
	ResourceOwner owner;
	uint8		root[MAC_LENGTH];
	int			version;		/* of the pseudonyms that are made */
	DerivedKey	derived[DERIVED_CACHE_SIZE];
	CachedKey  *cache;
};

/* a purpose's name in a derived key's info; never to be changed */
static const char *const purpose_name[KEY_PURPOSE_COUNT] = {
	[KEY_SUBJECT] = "subject",
	[KEY_DATE_SHIFT] = "date_shift",
	[KEY_HASH] = "hash",
	[KEY_PERTURB] = "perturb",
	[KEY_ENCRYPT] = "encrypt",
	[KEY_CHECK] = "check",
};

static CachedKey *cache_slot(const Pseudonymiser *pseudonymiser, Span study, Span subject);
static void free_hmac(void *argument);
static void compute_subject_key(Pseudonymiser *pseudonymiser, Span study,
								Span subject, char *subject_key);
static int32 compute_shift_days(Pseudonymiser *pseudonymiser, Span study, Span subject);
static void expand(Pseudonymiser *pseudonymiser, KeyPurpose purpose, int version,
				   Span study, uint8 *key);
static void fail(Pseudonymiser *pseudonymiser);
static Span span_of(const void *data, size_t len);

/*
 * Makes a pseudonymiser of version 1 in the current memory context; the caller
 * wipes its own copy of the key.  Raises an error only for lack of memory, or
 * when the library fails.
 */
Pseudonymiser *
pseudonymiser_create(const uint8 *key, size_t len)
{
	Pseudonymiser *made = palloc0(sizeof(Pseudonymiser));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));
	ResourceOwner caller = CurrentResourceOwner;

	made->version = 1;
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
	if (!hkdf_extract(made->hmac, NULL, 0, key, len, made->root))
		fail(made);
	return made;
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

/* Which version of pseudonym is made from now on; 1 at first. */
void
pseudonymiser_set_version(Pseudonymiser *pseudonymiser, int version)
{
	if (pseudonymiser->version != version)
		explicit_bzero(pseudonymiser->cache, sizeof(CachedKey) * CACHE_SIZE);
	pseudonymiser->version = version;
}

int
pseudonymiser_version(const Pseudonymiser *pseudonymiser)
{
	return pseudonymiser->version;
}

/*
 * KEY_CHECK_LENGTH bytes by which a key is known again; nothing else is made
 * with the key that makes them.
 */
void
pseudonymiser_check(Pseudonymiser *pseudonymiser, int version, uint8 *value)
{
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		hash[MAC_LENGTH];
	char		digits[12];
	Span		none = {NULL, 0};
	Span		parts[2];

	parts[0] = span_of("key_version", strlen("key_version"));
	parts[1] = span_of(digits, pg_ltoa(version, digits));
	derive_key(pseudonymiser, KEY_CHECK, version, none, key);
	keyed_hash(pseudonymiser, key, parts, lengthof(parts), hash);
	explicit_bzero(key, sizeof(key));
	memcpy(value, hash, KEY_CHECK_LENGTH);
}

/* Forgets all keys and identifiers; the pseudonymiser cannot be used again. */
void
pseudonymiser_wipe(Pseudonymiser *pseudonymiser)
{
	explicit_bzero(pseudonymiser->root, sizeof(pseudonymiser->root));
	explicit_bzero(pseudonymiser->derived, sizeof(pseudonymiser->derived));
	explicit_bzero(pseudonymiser->cache, sizeof(CachedKey) * CACHE_SIZE);
}

/*
 * Puts the subject's key into the response and, if the form shifts dates, the
 * days by which the subject's are shifted.  Returns false, with a finding, when
 * there is no subject to make a key of.
 */
bool
pseudonymise(Pseudonymiser *pseudonymiser, bool shifts, Response *response)
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
	/* no study: nothing is copied then, but from somewhere */
	if (study.data == NULL)
		study.data = "";

	if (study.len + subject.len > CACHED_LENGTH)
	{
		compute_subject_key(pseudonymiser, study, subject, response->subject_key);
		if (shifts)
			response->shift_days = compute_shift_days(pseudonymiser, study, subject);
		return true;
	}

	cached = cache_slot(pseudonymiser, study, subject);
	if (cached->subject_len != subject.len || cached->study_len != study.len ||
		memcmp(cached->identity, study.data, study.len) != 0 ||
		memcmp(cached->identity + study.len, subject.data, subject.len) != 0)
	{
		compute_subject_key(pseudonymiser, study, subject, response->subject_key);
		cached->study_len = (uint8) study.len;
		cached->subject_len = (uint8) subject.len;
		memcpy(cached->identity, study.data, study.len);
		memcpy(cached->identity + study.len, subject.data, subject.len);
		memcpy(cached->subject_key, response->subject_key, SUBJECT_KEY_LENGTH);
		cached->shift_days = 0;
	}
	memcpy(response->subject_key, cached->subject_key, SUBJECT_KEY_LENGTH);
	response->subject_key[SUBJECT_KEY_LENGTH] = '\0';
	if (shifts && cached->shift_days == 0)
		cached->shift_days = compute_shift_days(pseudonymiser, study, subject);
	if (shifts)
		response->shift_days = cached->shift_days;
	return true;
}

/*
 * A response of this subject is about to be decoded: what the cache has of it may
 * come from memory meanwhile.
 */
void
pseudonymiser_expect(const Pseudonymiser *pseudonymiser, Span study, Span subject)
{
	const char *cached;

	if (subject.data == NULL)
		return;
	cached = (const char *) cache_slot(pseudonymiser, study, subject);
	__builtin_prefetch(cached);
	__builtin_prefetch(cached + sizeof(CachedKey) - 1);
}

static CachedKey *
cache_slot(const Pseudonymiser *pseudonymiser, Span study, Span subject)
{
	uint32		hash = hash_bytes((const unsigned char *) subject.data, subject.len);

	hash = hash_combine(hash, study.len ?
						hash_bytes((const unsigned char *) study.data, study.len) : 0);
	return &pseudonymiser->cache[hash & (CACHE_SIZE - 1)];
}

static void
compute_subject_key(Pseudonymiser *pseudonymiser, Span study, Span subject,
					char *subject_key)
{
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		hash[MAC_LENGTH];
	Span		identity[2];

	identity[0] = study;
	identity[1] = subject;
	derive_key(pseudonymiser, KEY_SUBJECT, 1, study, key);
	keyed_hash(pseudonymiser, key, identity, lengthof(identity), hash);
	explicit_bzero(key, sizeof(key));
	hex_encode((const char *) hash, sizeof(hash), subject_key);
	subject_key[SUBJECT_KEY_LENGTH] = '\0';
	pseudonym_advance(pseudonymiser, study, 1, subject_key);
}

/*
 * Makes a pseudonym of a version one of the pseudonymiser's version, in place.
 * What is given are SUBJECT_KEY_LENGTH digits and a terminator.
 */
void
pseudonym_advance(Pseudonymiser *pseudonymiser, Span study, int version,
				  char *subject_key)
{
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		hash[MAC_LENGTH];
	Span		former = span_of(subject_key, SUBJECT_KEY_LENGTH);

	while (version++ < pseudonymiser->version)
	{
		derive_key(pseudonymiser, KEY_SUBJECT, version, study, key);
		if (!hmac_parts(pseudonymiser->hmac, key, sizeof(key), &former, 1, hash))
			fail(pseudonymiser);
		hex_encode((const char *) hash, sizeof(hash), subject_key);
	}
	explicit_bzero(key, sizeof(key));
}

/*
 * -365 .. -1 or 1 .. 365, each as likely as any other: 64 bits are so many that
 * what is left over by the division does not count.
 */
static int32
compute_shift_days(Pseudonymiser *pseudonymiser, Span study, Span subject)
{
	uint8		key[DERIVED_KEY_LENGTH];
	uint8		hash[MAC_LENGTH];
	uint64		drawn;
	int32		days;

	derive_key(pseudonymiser, KEY_DATE_SHIFT, 0, study, key);
	keyed_hash(pseudonymiser, key, &subject, 1, hash);
	explicit_bzero(key, sizeof(key));
	memcpy(&drawn, hash, sizeof(drawn));
	days = (int32) (pg_ntoh64(drawn) % (2 * MOST_SHIFT_DAYS)) - MOST_SHIFT_DAYS;
	return days < 0 ? days : days + 1;
}

/*
 * The key of a purpose for a study: DERIVED_KEY_LENGTH bytes, which the caller
 * wipes.  A purpose that has no version takes no notice of one.
 */
void
derive_key(Pseudonymiser *pseudonymiser, KeyPurpose purpose, int version,
		   Span study, uint8 *key)
{
	DerivedKey *derived;
	uint32		hash;

	if (purpose == KEY_DATE_SHIFT || purpose == KEY_CHECK)
		version = 0;
	if (study.len > DERIVED_STUDY_LENGTH)
	{
		expand(pseudonymiser, purpose, version, study, key);
		return;
	}
	hash = study.len > 0 ? hash_bytes((const unsigned char *) study.data, study.len) : 0;
	derived = &pseudonymiser->derived[(hash + version * KEY_PURPOSE_COUNT + purpose) &
									  (DERIVED_CACHE_SIZE - 1)];
	if (!derived->filled || derived->purpose != purpose || derived->version != version ||
		derived->study_len != study.len ||
		(study.len > 0 && memcmp(derived->study, study.data, study.len) != 0))
	{
		derived->filled = false;
		expand(pseudonymiser, purpose, version, study, derived->key);
		derived->purpose = purpose;
		derived->version = version;
		derived->study_len = study.len;
		if (study.len > 0)
			memcpy(derived->study, study.data, study.len);
		derived->filled = true;
	}
	memcpy(key, derived->key, DERIVED_KEY_LENGTH);
}

/*
 * MAC_LENGTH bytes of HMAC-SHA256 of the parts, each after its length, under a
 * key of derive_key().
 */
void
keyed_hash(Pseudonymiser *pseudonymiser, const uint8 *key, const Span *parts,
		   int nparts, uint8 *hash)
{
	if (!hmac_prefixed(pseudonymiser->hmac, key, DERIVED_KEY_LENGTH, parts, nparts, hash))
		fail(pseudonymiser);
}

/* Version 0 stands for none. */
static void
expand(Pseudonymiser *pseudonymiser, KeyPurpose purpose, int version, Span study,
	   uint8 *key)
{
	char		digits[12];
	Span		parts[4];
	Span		info[2 * lengthof(parts)];
	uint32		lengths[lengthof(parts)];

	parts[0] = span_of("epro_etl", strlen("epro_etl"));
	parts[1] = span_of(purpose_name[purpose], strlen(purpose_name[purpose]));
	parts[2] = span_of(digits, version > 0 ? pg_ltoa(version, digits) : 0);
	parts[3] = study;
	for (int i = 0; i < lengthof(parts); i++)
	{
		lengths[i] = pg_hton32((uint32) parts[i].len);
		info[2 * i] = span_of(&lengths[i], sizeof(lengths[i]));
		info[2 * i + 1] = parts[i];
	}
	if (!hkdf_expand(pseudonymiser->hmac, pseudonymiser->root, MAC_LENGTH,
					 info, lengthof(info), key, DERIVED_KEY_LENGTH))
		fail(pseudonymiser);
}

/* The library failed, not the data: nothing can go on without a key. */
static void
fail(Pseudonymiser *pseudonymiser)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute a key: %s",
					pg_hmac_error(pseudonymiser->hmac))));
}

static Span
span_of(const void *data, size_t len)
{
	Span		span = {data, (int) len};

	return span;
}
