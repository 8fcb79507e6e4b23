/*
 * siv.c
 *		AES-256-SIV (RFC 5297): encryption that is deterministic and authenticated.
 *
 * There is no nonce: the same text under the same key and associated data gives
 * the same bytes, so that answers can still be counted and joined; what differs
 * in one bit is not opened.  It is OpenSSL's, from 3.0 on, which the server links
 * already; a server without has no encryption.
 *
 * Pure: owns no more than OpenSSL's description of the cipher, which holds no
 * secret.
 */
#include "postgres.h"

#include "stages/siv.h"

#ifdef USE_OPENSSL
#include <openssl/evp.h>
#endif

#if defined(USE_OPENSSL) && OPENSSL_VERSION_NUMBER >= 0x30000000L

static EVP_CIPHER_CTX *begin(const uint8 *key, bool sealing);
static const EVP_CIPHER *cipher(void);

/* Can this server do it?  OpenSSL may be one that leaves it out. */
bool
siv_is_there(void)
{
	return cipher() != NULL;
}

/*
 * Writes SIV_TAG_LENGTH bytes more than the plain text has, which must not be
 * empty, nor may the associated data.  False: the library failed.
 */
bool
siv_seal(const uint8 *key, Span associated, Span plain, uint8 *sealed)
{
	EVP_CIPHER_CTX *context = begin(key, true);
	int			len;
	bool		done = context != NULL &&
		EVP_EncryptUpdate(context, NULL, &len, (const uint8 *) associated.data, associated.len) == 1 &&
		EVP_EncryptUpdate(context, sealed + SIV_TAG_LENGTH, &len, (const uint8 *) plain.data, plain.len) == 1 &&
		EVP_EncryptFinal_ex(context, sealed + SIV_TAG_LENGTH + len, &len) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, SIV_TAG_LENGTH, sealed) == 1;

	EVP_CIPHER_CTX_free(context);
	return done;
}

/*
 * Writes SIV_TAG_LENGTH bytes less than the sealed text has.  False: it was not
 * sealed by this key with this associated data, or was changed; nothing of what
 * was written is to be looked at then.
 */
bool
siv_open(const uint8 *key, Span associated, Span sealed, uint8 *plain)
{
	EVP_CIPHER_CTX *context;
	int			len;
	bool		done;

	if (sealed.len <= SIV_TAG_LENGTH)
		return false;
	context = begin(key, false);
	done = context != NULL &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, SIV_TAG_LENGTH, (void *) sealed.data) == 1 &&
		EVP_DecryptUpdate(context, NULL, &len, (const uint8 *) associated.data, associated.len) == 1 &&
		EVP_DecryptUpdate(context, plain, &len, (const uint8 *) sealed.data + SIV_TAG_LENGTH,
						  sealed.len - SIV_TAG_LENGTH) == 1 &&
		EVP_DecryptFinal_ex(context, plain + len, &len) == 1;
	EVP_CIPHER_CTX_free(context);
	return done;
}

static EVP_CIPHER_CTX *
begin(const uint8 *key, bool sealing)
{
	EVP_CIPHER_CTX *context = cipher() ? EVP_CIPHER_CTX_new() : NULL;

	if (context == NULL)
		return NULL;
	if (EVP_CipherInit_ex2(context, cipher(), key, NULL, sealing ? 1 : 0, NULL) == 1)
		return context;
	EVP_CIPHER_CTX_free(context);
	return NULL;
}

static const EVP_CIPHER *
cipher(void)
{
	static EVP_CIPHER *fetched = NULL;

	if (fetched == NULL)
		fetched = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
	return fetched;
}

#else

bool
siv_is_there(void)
{
	return false;
}

bool
siv_seal(const uint8 *key, Span associated, Span plain, uint8 *sealed)
{
	return false;
}

bool
siv_open(const uint8 *key, Span associated, Span sealed, uint8 *plain)
{
	return false;
}

#endif
