/*-------------------------------------------------------------------------
 *
 * unit_hkdf.c
 *	  Unit tests of src/stages/hkdf.c, which is linked with PostgreSQL's own
 *	  pg_hmac as the extension is.
 *
 * Some cases of the RFCs stand here. The many are Project Wycheproof's, read
 * from the folder $EPRO_DATA/wycheproof (by default ../shared/data beside the
 * checkout); without it they are skipped, and that is said. Every case of the
 * files has to be judged: their own number of tests is compared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "unit.h"

#include "stages/hkdf.h"

#define MOST_BYTES 16384

typedef struct Bytes
{
	uint8	   *data;
	size_t		len;
} Bytes;

/* One test of a file: a flat object. */
typedef struct Case
{
	const char *from;
	const char *to;
} Case;

static void test_rfc_4231(void);
static void test_rfc_5869(void);
static void test_parts(void);
static void test_limits(void);
static void test_file(const char *name, void (*judge) (const Case *));
static void judge_hmac(const Case *test);
static void judge_hkdf(const Case *test);
static char *read_file(const char *name);
static const char *field(const Case *test, const char *name);
static bool is_valid(const Case *test);
static Bytes hex_field(const Case *test, const char *name);
static Bytes hex(const char *digits, size_t len);
static Span span_of(Bytes bytes);
static bool expand(Bytes secret, Bytes salt, Bytes info, uint8 *out, size_t len);

static pg_hmac_ctx *hmac;

int
main(void)
{
	hmac = pg_hmac_create(PG_SHA256);
	if (hmac == NULL)
		return 1;
	test_rfc_4231();
	test_rfc_5869();
	test_parts();
	test_limits();
	test_file("hmac_sha256_test.json", judge_hmac);
	test_file("hkdf_sha256_test.json", judge_hkdf);
	pg_hmac_free(hmac);
	return unit_finish();
}

/* RFC 4231, test cases 1 and 2. */
static void
test_rfc_4231(void)
{
	static const struct
	{
		const char *key;
		const char *message;
		const char *mac;
	}			rows[] = {
		{"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
		"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
		"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	};

	for (size_t i = 0; i < LENGTH(rows); i++)
	{
		Bytes		key = hex(rows[i].key, strlen(rows[i].key));
		Bytes		message = hex(rows[i].message, strlen(rows[i].message));
		Bytes		expected = hex(rows[i].mac, strlen(rows[i].mac));
		Span		part = span_of(message);
		uint8		mac[MAC_LENGTH];

		CHECK(hmac_parts(hmac, key.data, key.len, &part, 1, mac), rows[i].key, strlen(rows[i].key));
		CHECK(memcmp(mac, expected.data, MAC_LENGTH) == 0, rows[i].key, strlen(rows[i].key));
		free(key.data);
		free(message.data);
		free(expected.data);
	}
}

/* RFC 5869, test cases 1 and 3: with and without salt and info. */
static void
test_rfc_5869(void)
{
	static const struct
	{
		const char *salt;
		const char *info;
		const char *root;
		const char *out;
	}			rows[] = {
		{"000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
			"077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
		"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
		{"", "",
			"19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
		"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
	};

	for (size_t i = 0; i < LENGTH(rows); i++)
	{
		Bytes		secret = hex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", 44);
		Bytes		salt = hex(rows[i].salt, strlen(rows[i].salt));
		Bytes		info = hex(rows[i].info, strlen(rows[i].info));
		Bytes		root = hex(rows[i].root, strlen(rows[i].root));
		Bytes		expected = hex(rows[i].out, strlen(rows[i].out));
		uint8		extracted[MAC_LENGTH];
		uint8		out[42];

		CHECK(hkdf_extract(hmac, salt.data, salt.len, secret.data, secret.len, extracted), rows[i].salt, strlen(rows[i].salt));
		CHECK(memcmp(extracted, root.data, MAC_LENGTH) == 0, rows[i].salt, strlen(rows[i].salt));
		CHECK(expand(secret, salt, info, out, sizeof(out)), rows[i].salt, strlen(rows[i].salt));
		CHECK(memcmp(out, expected.data, sizeof(out)) == 0, rows[i].salt, strlen(rows[i].salt));
		free(secret.data);
		free(salt.data);
		free(info.data);
		free(root.data);
		free(expected.data);
	}
}

/* Parts are joined; with lengths before them, where they end counts. */
static void
test_parts(void)
{
	const Span	whole = {"ABC", 3};
	const Span	early[2] = {{"A", 1}, {"BC", 2}};
	const Span	late[2] = {{"AB", 2}, {"C", 1}};
	const Span	none = {NULL, 0};
	const uint8 key[4] = "key";
	uint8		a[MAC_LENGTH];
	uint8		b[MAC_LENGTH];

	CHECK(hmac_parts(hmac, key, 3, &whole, 1, a) && hmac_parts(hmac, key, 3, early, 2, b) &&
		  memcmp(a, b, MAC_LENGTH) == 0, "joined", strlen("joined"));
	CHECK(hmac_prefixed(hmac, key, 3, early, 2, a) && hmac_prefixed(hmac, key, 3, late, 2, b) &&
		  memcmp(a, b, MAC_LENGTH) != 0, "apart", strlen("apart"));
	CHECK(hmac_prefixed(hmac, key, 3, &none, 1, a) && hmac_prefixed(hmac, key, 3, NULL, 0, b) &&
		  memcmp(a, b, MAC_LENGTH) != 0, "an empty part is one", strlen("an empty part is one"));
	/* an empty key is not the key of the call before */
	CHECK(hmac_parts(hmac, key, 3, &whole, 1, a) && hmac_parts(hmac, NULL, 0, &whole, 1, b) &&
		  memcmp(a, b, MAC_LENGTH) != 0, "an empty key", strlen("an empty key"));
}

/* Every length up to two blocks is the beginning of a longer one; 255 blocks are the most. */
static void
test_limits(void)
{
	const uint8 root[MAC_LENGTH] = {1};
	uint8		longest[255 * MAC_LENGTH + 1];
	uint8		out[2 * MAC_LENGTH];

	CHECK(hkdf_expand(hmac, root, sizeof(root), NULL, 0, longest, 255 * MAC_LENGTH), "255 blocks", strlen("255 blocks"));
	CHECK(!hkdf_expand(hmac, root, sizeof(root), NULL, 0, longest, 255 * MAC_LENGTH + 1), "one byte more", strlen("one byte more"));
	for (size_t len = 0; len <= sizeof(out); len++)
	{
		char	   *exact = malloc(len + 1);

		CHECK(hkdf_expand(hmac, root, sizeof(root), NULL, 0, (uint8 *) exact, len) &&
			  memcmp(exact, longest, len) == 0, "a beginning", strlen("a beginning"));
		free(exact);
	}
}

/* Judges each case of a file, and sees that it were all. */
static void
test_file(const char *name, void (*judge) (const Case *))
{
	char	   *text = read_file(name);
	const char *at;
	const char *total;
	int			judged = 0;

	if (text == NULL)
		return;
	total = strstr(text, "\"numberOfTests\"");
	for (at = text; (at = strstr(at, "\"tcId\"")) != NULL; judged++)
	{
		Case		test = {at, strchr(at, '}')};

		if (test.to == NULL)
			break;
		judge(&test);
		at = test.to;
	}
	CHECK(total != NULL && judged > 0 && judged == atoi(strchr(total, ':') + 1), name, strlen(name));
	free(text);
}

/* A tag may be the beginning of the MAC; an invalid one is of another. */
static void
judge_hmac(const Case *test)
{
	Bytes		key = hex_field(test, "key");
	Bytes		message = hex_field(test, "msg");
	Bytes		tag = hex_field(test, "tag");
	Span		part = span_of(message);
	uint8		mac[MAC_LENGTH];
	bool		same = hmac_parts(hmac, key.data, key.len, &part, 1, mac) &&
		tag.len >= 16 && tag.len <= MAC_LENGTH && memcmp(mac, tag.data, tag.len) == 0;

	CHECK(same == is_valid(test), test->from, (size_t) (test->to - test->from));
	free(key.data);
	free(message.data);
	free(tag.data);
}

static void
judge_hkdf(const Case *test)
{
	Bytes		secret = hex_field(test, "ikm");
	Bytes		salt = hex_field(test, "salt");
	Bytes		info = hex_field(test, "info");
	Bytes		expected = hex_field(test, "okm");
	const char *size = field(test, "size");
	size_t		len = size ? (size_t) atoi(size) : 0;
	uint8		out[MOST_BYTES];
	bool		same;

	if (len == 0 || len > sizeof(out))
		abort();
	same = expand(secret, salt, info, out, len) &&
		len == expected.len && memcmp(out, expected.data, len) == 0;
	CHECK(same == is_valid(test), test->from, (size_t) (test->to - test->from));
	/* what is invalid is refused, and not merely another result */
	CHECK(is_valid(test) || !expand(secret, salt, info, out, len), test->from, (size_t) (test->to - test->from));
	free(secret.data);
	free(salt.data);
	free(info.data);
	free(expected.data);
}

/* The whole file, to be freed; NULL, and said, when it is not there. */
static char *
read_file(const char *name)
{
	const char *data = getenv("EPRO_DATA");
	char		path[4096];
	FILE	   *file;
	char	   *text;
	size_t		len;

	snprintf(path, sizeof(path), "%s/wycheproof/%s", data && data[0] ? data : "../../../shared/data", name);
	file = fopen(path, "r");
	if (file == NULL)
	{
		fprintf(stderr, "unit_hkdf: skipped: cannot read %s\n", path);
		return NULL;
	}
	text = malloc(1 << 20);
	if (text == NULL)
		abort();
	len = fread(text, 1, (1 << 20) - 1, file);
	text[len] = '\0';
	fclose(file);
	return text;
}

/* Where a case's value begins, behind a text's quotation mark; NULL: it has none. */
static const char *
field(const Case *test, const char *name)
{
	char		quoted[32];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\"", name);
	at = strstr(test->from, quoted);
	if (at == NULL || at > test->to)
		return NULL;
	at += strlen(quoted);
	return at + strspn(at, " :\"");
}

static bool
is_valid(const Case *test)
{
	const char *result = field(test, "result");

	if (result == NULL || (strncmp(result, "valid\"", 6) != 0 && strncmp(result, "invalid\"", 8) != 0))
		abort();
	return result[0] == 'v';
}

static Bytes
hex_field(const Case *test, const char *name)
{
	const char *digits = field(test, name);

	if (digits == NULL)
		abort();
	/* an empty text has both its quotation marks passed over */
	if (digits[-1] == '"' && digits[-2] == '"')
		return hex("", 0);
	return hex(digits, strcspn(digits, "\""));
}

/* To be freed. */
static Bytes
hex(const char *digits, size_t len)
{
	Bytes		bytes = {NULL, len / 2};

	if (len == 0)
		return bytes;
	bytes.data = malloc(bytes.len);
	if (bytes.data == NULL || len % 2 != 0)
		abort();
	for (size_t i = 0; i < bytes.len; i++)
	{
		unsigned int byte;

		if (sscanf(digits + 2 * i, "%2x", &byte) != 1)
			abort();
		bytes.data[i] = (uint8) byte;
	}
	return bytes;
}

static Span
span_of(Bytes bytes)
{
	Span		span = {(const char *) bytes.data, (int) bytes.len};

	return span;
}

static bool
expand(Bytes secret, Bytes salt, Bytes info, uint8 *out, size_t len)
{
	uint8		root[MAC_LENGTH];
	Span		part = span_of(info);

	return hkdf_extract(hmac, salt.data, salt.len, secret.data, secret.len, root) &&
		hkdf_expand(hmac, root, sizeof(root), &part, 1, out, len);
}
