/*
 * hkdf.c
 *		HMAC-SHA256 (RFC 2104) and HKDF-SHA256 (RFC 5869), over PostgreSQL's
 *		own pg_hmac.
 *
 * Nothing here needs a server, so that the published test vectors are run
 * through these very functions (test/unit/unit_hkdf.c).  What is secret on the
 * stack is wiped before a return.
 */
#include "postgres.h"

#include "port/pg_bswap.h"
#include "stages/hkdf.h"

static bool hmac_begin(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len);
static bool hmac_add(pg_hmac_ctx *hmac, Span part);

/* The MAC of the parts one after the other, MAC_LENGTH bytes. */
bool
hmac_parts(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len,
		   const Span *parts, int nparts, uint8 *mac)
{
	if (!hmac_begin(hmac, key, key_len))
		return false;
	for (int i = 0; i < nparts; i++)
	{
		if (!hmac_add(hmac, parts[i]))
			return false;
	}
	return pg_hmac_final(hmac, mac, MAC_LENGTH) >= 0;
}

/*
 * The same with each part's length before it, four bytes, most significant
 * first: "AB" and "C" are not "A" and "BC".
 */
bool
hmac_prefixed(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len,
			  const Span *parts, int nparts, uint8 *mac)
{
	if (!hmac_begin(hmac, key, key_len))
		return false;
	for (int i = 0; i < nparts; i++)
	{
		uint32		len = pg_hton32((uint32) parts[i].len);

		if (pg_hmac_update(hmac, (uint8 *) &len, sizeof(len)) < 0 ||
			!hmac_add(hmac, parts[i]))
			return false;
	}
	return pg_hmac_final(hmac, mac, MAC_LENGTH) >= 0;
}

/* RFC 5869, section 2.2: a root of MAC_LENGTH bytes.  The salt may be empty. */
bool
hkdf_extract(pg_hmac_ctx *hmac, const uint8 *salt, size_t salt_len,
			 const uint8 *secret, size_t secret_len, uint8 *root)
{
	if (!hmac_begin(hmac, salt, salt_len))
		return false;
	if (secret_len > 0 && pg_hmac_update(hmac, secret, secret_len) < 0)
		return false;
	return pg_hmac_final(hmac, root, MAC_LENGTH) >= 0;
}

/*
 * RFC 5869, section 2.3: len bytes of key out of a root, for what info says.
 * False also for more than 255 times MAC_LENGTH.
 */
bool
hkdf_expand(pg_hmac_ctx *hmac, const uint8 *root, size_t root_len,
			const Span *info, int ninfo, uint8 *out, size_t len)
{
	uint8		block[MAC_LENGTH];
	uint8		count = 0;
	bool		done = len <= 255 * MAC_LENGTH;

	for (size_t at = 0; done && at < len; at += MAC_LENGTH)
	{
		done = hmac_begin(hmac, root, root_len) &&
			(count == 0 || pg_hmac_update(hmac, block, MAC_LENGTH) >= 0);
		for (int i = 0; done && i < ninfo; i++)
			done = hmac_add(hmac, info[i]);
		count++;
		done = done && pg_hmac_update(hmac, &count, 1) >= 0 &&
			pg_hmac_final(hmac, block, MAC_LENGTH) >= 0;
		if (done)
			memcpy(out + at, block, Min(len - at, MAC_LENGTH));
	}
	explicit_bzero(block, sizeof(block));
	return done;
}

/* An empty key is as many zeros as the block has: a library may take NULL for "as before". */
static bool
hmac_begin(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len)
{
	static const uint8 empty[1] = {0};

	return pg_hmac_init(hmac, key_len > 0 ? key : empty, key_len > 0 ? key_len : 1) >= 0;
}

static bool
hmac_add(pg_hmac_ctx *hmac, Span part)
{
	return part.len == 0 ||
		pg_hmac_update(hmac, (const uint8 *) part.data, part.len) >= 0;
}
