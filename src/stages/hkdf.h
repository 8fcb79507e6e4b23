/*
 * hkdf.h
 *		HMAC-SHA256 over parts, and HKDF-SHA256: what all keyed methods share.
 *
 * All return false only where the library failed, or as they say; pg_hmac_error()
 * has the reason.  A context that was made for PG_SHA256 is used again and again.
 */
#ifndef EPRO_ETL_HKDF_H
#define EPRO_ETL_HKDF_H

#include "postgres.h"

#include "common/hmac.h"
#include "common/sha2.h"
#include "words/response.h"

#define MAC_LENGTH PG_SHA256_DIGEST_LENGTH

extern bool hmac_parts(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len,
					   const Span *parts, int nparts, uint8 *mac);
extern bool hmac_prefixed(pg_hmac_ctx *hmac, const uint8 *key, size_t key_len,
						  const Span *parts, int nparts, uint8 *mac);
extern bool hkdf_extract(pg_hmac_ctx *hmac, const uint8 *salt, size_t salt_len,
						 const uint8 *secret, size_t secret_len, uint8 *root);
extern bool hkdf_expand(pg_hmac_ctx *hmac, const uint8 *root, size_t root_len,
						const Span *info, int ninfo, uint8 *out, size_t len);

#endif							/* EPRO_ETL_HKDF_H */
