/*-------------------------------------------------------------------------
 *
 * unit_parse.c
 *	  Unit tests of src/stages/parse.c.
 *
 * Tables of single texts, then sweeps over whole domains (every date of the
 * calendar, every offset, every code point), which compare with a rule that
 * is written in another way than in parse.c.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "stages/parse.h"

#define REPEAT10(c)		c c c c c c c c c c
#define REPEAT100(c)	REPEAT10(REPEAT10(c))
#define REPEAT1000(c)	REPEAT10(REPEAT100(c))

static void test_integer(void);
static void test_integer_sweep(void);
static void test_decimal(void);
static void test_date(void);
static void test_date_sweep(void);
static void test_time(void);
static void test_time_sweep(void);
static void test_leap_second_sweep(void);
static void test_date_time(void);
static void test_formats(void);
static void test_boolean(void);
static void test_trim(void);
static void test_trim_sweep(void);
static void test_width(void);
static void test_width_sweep(void);
static void test_width_in_place(void);
static void test_equal_fold(void);
static void test_utf8_length(void);
static void test_failure_stores_nothing(void);
static size_t encode_utf8(unsigned int code, char *out);

int
main(void)
{
	test_integer();
	test_integer_sweep();
	test_decimal();
	test_date();
	test_date_sweep();
	test_time();
	test_time_sweep();
	test_leap_second_sweep();
	test_date_time();
	test_formats();
	test_boolean();
	test_trim();
	test_trim_sweep();
	test_width();
	test_width_sweep();
	test_width_in_place();
	test_equal_fold();
	test_utf8_length();
	test_failure_stores_nothing();
	return unit_finish();
}

/* ---------- numbers ---------- */

/* PARSE_OK is 0, so a row that gives only a value expects success. */
static const struct
{
	const char *s;
	size_t		len;
	int64_t		value;
	ParseResult result;
}			integers[] = {
	{TEXT("0"), 0},
	{TEXT("7"), 7},
	{TEXT("10"), 10},
	{TEXT("42"), 42},
	{TEXT("+7"), 7},
	{TEXT("-7"), -7},
	{TEXT("-0"), 0},
	{TEXT("+0"), 0},
	{TEXT("007"), 7},
	{TEXT("-007"), -7},
	{TEXT("0000000000000000000000000000000000000000000000000000000000007"), 7},
	{TEXT("7."), 7},
	{TEXT("-7."), -7},
	{TEXT("7.0"), 7},
	{TEXT("-7.0"), -7},
	{TEXT("+7.000"), 7},
	{TEXT("0.0"), 0},
	{TEXT("-0.0"), 0},
	{TEXT("7.0000000000000000000000000000000000000000000000000"), 7},
	{TEXT("7." REPEAT1000("0") REPEAT1000("0")), 7},
	{TEXT(REPEAT1000("0") REPEAT1000("0") "7"), 7},

	/* 17, 18, 19 digits: where the short way ends */
	{TEXT("12345678901234567"), INT64_C(12345678901234567)},
	{TEXT("123456789012345678"), INT64_C(123456789012345678)},
	{TEXT("-123456789012345678"), INT64_C(-123456789012345678)},
	{TEXT("999999999999999999"), INT64_C(999999999999999999)},
	{TEXT("-999999999999999999"), INT64_C(-999999999999999999)},
	{TEXT("1000000000000000000"), INT64_C(1000000000000000000)},
	{TEXT("1234567890123456789"), INT64_C(1234567890123456789)},
	{TEXT("-1234567890123456789"), INT64_C(-1234567890123456789)},

	/* the ends of int64 */
	{TEXT("9223372036854775806"), INT64_MAX - 1},
	{TEXT("9223372036854775807"), INT64_MAX},
	{TEXT("+9223372036854775807"), INT64_MAX},
	{TEXT("9223372036854775807.000"), INT64_MAX},
	{TEXT("00009223372036854775807"), INT64_MAX},
	{TEXT("9223372036854775807e0"), INT64_MAX},
	{TEXT("922337203685477580.7e1"), INT64_MAX},
	{TEXT("9.223372036854775807e18"), INT64_MAX},
	{TEXT("92233720368547758070e-1"), INT64_MAX},
	{TEXT("-9223372036854775807"), INT64_MIN + 1},
	{TEXT("-9223372036854775808"), INT64_MIN},
	{TEXT("-9223372036854775808.0"), INT64_MIN},
	{TEXT("-9.223372036854775808e18"), INT64_MIN},
	{TEXT("9223372036854775808"), 0, PARSE_RANGE},
	{TEXT("+9223372036854775808"), 0, PARSE_RANGE},
	{TEXT("9223372036854775808.0"), 0, PARSE_RANGE},
	{TEXT("9223372036854775809"), 0, PARSE_RANGE},
	{TEXT("9223372036854775810"), 0, PARSE_RANGE},
	{TEXT("-9223372036854775809"), 0, PARSE_RANGE},
	{TEXT("-9223372036854775810"), 0, PARSE_RANGE},
	{TEXT("9999999999999999999"), 0, PARSE_RANGE},
	{TEXT("10000000000000000000"), 0, PARSE_RANGE},
	{TEXT("18446744073709551615"), 0, PARSE_RANGE},
	{TEXT("18446744073709551616"), 0, PARSE_RANGE},
	{TEXT("18446744073709551623"), 0, PARSE_RANGE},
	{TEXT("92233720368547758070"), 0, PARSE_RANGE},
	{TEXT("1234567890123456789012345678901234567890"), 0, PARSE_RANGE},
	{TEXT("-1234567890123456789012345678901234567890"), 0, PARSE_RANGE},
	{TEXT(REPEAT1000("9")), 0, PARSE_RANGE},

	/* exponents */
	{TEXT("1e2"), 100},
	{TEXT("1E2"), 100},
	{TEXT("1e+2"), 100},
	{TEXT("-1e2"), -100},
	{TEXT("1e0"), 1},
	{TEXT("1e-0"), 1},
	{TEXT("1e00000000000000000000000000000000000002"), 100},
	{TEXT("7.0e0"), 7},
	{TEXT("70e-1"), 7},
	{TEXT("7.5e1"), 75},
	{TEXT("7.50e1"), 75},
	{TEXT("7.500e1"), 75},
	{TEXT("0.007e3"), 7},
	{TEXT("7000e-3"), 7},
	{TEXT("0e0"), 0},
	{TEXT("0e5"), 0},
	{TEXT("0e-5"), 0},
	{TEXT("0e1000"), 0},
	{TEXT("0e-1000"), 0},
	{TEXT("0.000e-3"), 0},
	{TEXT("1e18"), INT64_C(1000000000000000000)},
	{TEXT("9e18"), INT64_C(9000000000000000000)},
	{TEXT("-9e18"), INT64_C(-9000000000000000000)},
	{TEXT("1" REPEAT1000("0") "e-1000"), 1},
	{TEXT("0." REPEAT100("0") "7e101"), 7},
	{TEXT("1e19"), 0, PARSE_RANGE},
	{TEXT("1e20"), 0, PARSE_RANGE},
	{TEXT("1e400"), 0, PARSE_RANGE},
	{TEXT("-1e400"), 0, PARSE_RANGE},
	{TEXT("1e1000"), 0, PARSE_RANGE},
	{TEXT("1e1001"), 0, PARSE_RANGE},
	{TEXT("0e1001"), 0, PARSE_RANGE},
	{TEXT("0e-1001"), 0, PARSE_RANGE},
	{TEXT("1e-1001"), 0, PARSE_RANGE},
	{TEXT("1e2147483647"), 0, PARSE_RANGE},
	{TEXT("1e2147483648"), 0, PARSE_RANGE},
	{TEXT("1e-2147483648"), 0, PARSE_RANGE},
	{TEXT("1e4294967296"), 0, PARSE_RANGE},
	{TEXT("1e4294967298"), 0, PARSE_RANGE},
	{TEXT("1e18446744073709551618"), 0, PARSE_RANGE},
	{TEXT("1e99999999999999999999999999999999999999"), 0, PARSE_RANGE},

	/* numbers that are no integers */
	{TEXT("7.3"), 0, PARSE_FRACTION},
	{TEXT("-7.3"), 0, PARSE_FRACTION},
	{TEXT("0.5"), 0, PARSE_FRACTION},
	{TEXT("7.00000000000000000000000000000000000000000000001"), 0, PARSE_FRACTION},
	{TEXT("9223372036854775807.5"), 0, PARSE_FRACTION},
	{TEXT("99999999999999999999999999.5"), 0, PARSE_FRACTION},
	{TEXT("7e-1"), 0, PARSE_FRACTION},
	{TEXT("1e-1"), 0, PARSE_FRACTION},
	{TEXT("1e-1000"), 0, PARSE_FRACTION},
	{TEXT("75e-1"), 0, PARSE_FRACTION},
	{TEXT("7.55e1"), 0, PARSE_FRACTION},
	{TEXT("71e-2"), 0, PARSE_FRACTION},
	{TEXT("0.1e0"), 0, PARSE_FRACTION},
	{TEXT("11" REPEAT100("0") "e-101"), 0, PARSE_FRACTION},

	/* no numbers */
	{TEXT(""), 0, PARSE_SYNTAX},
	{TEXT("+"), 0, PARSE_SYNTAX},
	{TEXT("-"), 0, PARSE_SYNTAX},
	{TEXT("."), 0, PARSE_SYNTAX},
	{TEXT("-."), 0, PARSE_SYNTAX},
	{TEXT(".0"), 0, PARSE_SYNTAX},
	{TEXT(".5"), 0, PARSE_SYNTAX},
	{TEXT("-.0"), 0, PARSE_SYNTAX},
	{TEXT("--7"), 0, PARSE_SYNTAX},
	{TEXT("++7"), 0, PARSE_SYNTAX},
	{TEXT("+-7"), 0, PARSE_SYNTAX},
	{TEXT("- 7"), 0, PARSE_SYNTAX},
	{TEXT("7-"), 0, PARSE_SYNTAX},
	{TEXT("7+"), 0, PARSE_SYNTAX},
	{TEXT("7-8"), 0, PARSE_SYNTAX},
	{TEXT("7.."), 0, PARSE_SYNTAX},
	{TEXT("7.0.0"), 0, PARSE_SYNTAX},
	{TEXT("7,0"), 0, PARSE_SYNTAX},
	{TEXT("1,000"), 0, PARSE_SYNTAX},
	{TEXT("1_000"), 0, PARSE_SYNTAX},
	{TEXT("1 000"), 0, PARSE_SYNTAX},
	{TEXT("1'000"), 0, PARSE_SYNTAX},
	{TEXT("0x10"), 0, PARSE_SYNTAX},
	{TEXT("0b1"), 0, PARSE_SYNTAX},
	{TEXT("0o7"), 0, PARSE_SYNTAX},
	{TEXT("abc"), 0, PARSE_SYNTAX},
	{TEXT("7a"), 0, PARSE_SYNTAX},
	{TEXT("a7"), 0, PARSE_SYNTAX},
	{TEXT("/"), 0, PARSE_SYNTAX},	/* just below '0' */
	{TEXT(":"), 0, PARSE_SYNTAX},	/* just above '9' */
	{TEXT("1/"), 0, PARSE_SYNTAX},
	{TEXT("1:"), 0, PARSE_SYNTAX},
	{TEXT("1.:"), 0, PARSE_SYNTAX},
	{TEXT("1./"), 0, PARSE_SYNTAX},
	{TEXT("1e:"), 0, PARSE_SYNTAX},
	{TEXT("e"), 0, PARSE_SYNTAX},
	{TEXT("e2"), 0, PARSE_SYNTAX},
	{TEXT("1e"), 0, PARSE_SYNTAX},
	{TEXT("1e+"), 0, PARSE_SYNTAX},
	{TEXT("1e-"), 0, PARSE_SYNTAX},
	{TEXT("1e+-2"), 0, PARSE_SYNTAX},
	{TEXT("1e2.0"), 0, PARSE_SYNTAX},
	{TEXT("1e2e3"), 0, PARSE_SYNTAX},
	{TEXT("1e 2"), 0, PARSE_SYNTAX},
	{TEXT("1 e2"), 0, PARSE_SYNTAX},
	{TEXT("1e99999999999x"), 0, PARSE_SYNTAX},
	{TEXT("7.e1"), 0, PARSE_SYNTAX},
	{TEXT("7.3x"), 0, PARSE_SYNTAX},
	{TEXT("99999999999999999999x"), 0, PARSE_SYNTAX},
	{TEXT("NaN"), 0, PARSE_SYNTAX},
	{TEXT("nan"), 0, PARSE_SYNTAX},
	{TEXT("-NaN"), 0, PARSE_SYNTAX},
	{TEXT("Infinity"), 0, PARSE_SYNTAX},
	{TEXT("-Infinity"), 0, PARSE_SYNTAX},
	{TEXT("inf"), 0, PARSE_SYNTAX},
	{TEXT("null"), 0, PARSE_SYNTAX},
	{TEXT("true"), 0, PARSE_SYNTAX},
	{TEXT(" 3"), 0, PARSE_SYNTAX},
	{TEXT("3 "), 0, PARSE_SYNTAX},
	{TEXT(" 3 "), 0, PARSE_SYNTAX},
	{TEXT("3\n"), 0, PARSE_SYNTAX},
	{TEXT("\t3"), 0, PARSE_SYNTAX},
	{TEXT("3\0"), 0, PARSE_SYNTAX},
	{TEXT("\0003"), 0, PARSE_SYNTAX},
	{TEXT("3\0004"), 0, PARSE_SYNTAX},
	{TEXT("\0"), 0, PARSE_SYNTAX},
	{TEXT("\xEF\xBC\x97"), 0, PARSE_SYNTAX},	/* full-width 7 */
	{TEXT("1\xEF\xBC\x97"), 0, PARSE_SYNTAX},
	{TEXT("\xEF\xBC\x8D" "7"), 0, PARSE_SYNTAX},	/* full-width minus */
	{TEXT("\xE2\x88\x92" "7"), 0, PARSE_SYNTAX},	/* U+2212 minus sign */
	{TEXT("\xD9\xA7"), 0, PARSE_SYNTAX},	/* Arabic-Indic 7 */
	{TEXT("\xE0\xA7\xAD"), 0, PARSE_SYNTAX},	/* Bengali 7 */
	{TEXT("\xE3\x80\x80" "3"), 0, PARSE_SYNTAX},
	{TEXT("\xEF\xBB\xBF" "3"), 0, PARSE_SYNTAX},
	{TEXT("\xED\xA0\x80"), 0, PARSE_SYNTAX},	/* lone surrogate */
	{TEXT("3\xED\xB0\x80"), 0, PARSE_SYNTAX},
	{TEXT("\xFF"), 0, PARSE_SYNTAX},
	{TEXT("3\xFE"), 0, PARSE_SYNTAX},
	{TEXT("3\x80"), 0, PARSE_SYNTAX},
	{TEXT("3\xC2"), 0, PARSE_SYNTAX},
	{TEXT("\xB7"), 0, PARSE_SYNTAX},	/* '7' with the high bit set */
	{TEXT("12345678901234567\xB8"), 0, PARSE_SYNTAX},
};

static void
test_integer(void)
{
	for (size_t i = 0; i < LENGTH(integers); i++)
	{
		size_t		len = integers[i].len;
		char	   *s = unit_exact_copy(integers[i].s, len);
		int64_t		value = -77;
		ParseResult result = parse_integer(s, len, &value);

		CHECK(result == integers[i].result, s, len);
		CHECK(value == (result == PARSE_OK ? integers[i].value : -77), s, len);
		free(s);
	}
}

/* Around every power of two, written in five ways, must come back. */
static void
test_integer_sweep(void)
{
	static const char *const formats[] = {"%lld", "%lld.0", "%lld0e-1", "%lld00.0e-2", "%lld.000E0"};

	for (int shift = 0; shift < 63; shift++)
	{
		for (int step = -2; step <= 2; step++)
		{
			int64_t		expected = (INT64_C(1) << shift) - 1 + step;

			for (int sign = 0; sign < 2; sign++, expected = -expected)
			{
				bool		good = true;
				char		text[64];

				for (size_t f = 0; f < LENGTH(formats); f++)
				{
					int64_t		value = 0;
					int			len = snprintf(text, sizeof(text), formats[f], (long long) expected);

					good = good &&
						parse_integer(text, (size_t) len, &value) == PARSE_OK &&
						value == expected;
				}
				CHECK(good, text, strlen(text));
			}
		}
	}
}

static const struct
{
	const char *s;
	size_t		len;
	bool		is_integer;
	ParseResult result;
}			decimals[] = {
	{TEXT("0"), true},
	{TEXT("7"), true},
	{TEXT("+7"), true},
	{TEXT("-7"), true},
	{TEXT("-0"), true},
	{TEXT("007"), true},
	{TEXT("7.0"), true},
	{TEXT("7.000"), true},
	{TEXT("7.3"), false},
	{TEXT("-7.3"), false},
	{TEXT("+7.3"), false},
	{TEXT("0.1"), false},
	{TEXT("00.10"), false},
	{TEXT("1e2"), true},
	{TEXT("1E2"), true},
	{TEXT("1e+2"), true},
	{TEXT("1e-2"), false},
	{TEXT("100e-2"), true},
	{TEXT("150e-2"), false},
	{TEXT("1.5e1"), true},
	{TEXT("1.55e1"), false},
	{TEXT("0.000"), true},
	{TEXT("0e-5"), true},
	{TEXT("9223372036854775807"), true},
	{TEXT("9223372036854775808"), true},
	{TEXT("1234567890123456789012345678901234567890"), true},
	{TEXT("1234567890123456789012345678901234567890.5"), false},
	{TEXT("1e400"), true},
	{TEXT("1e-400"), false},
	{TEXT("1e1000"), true},
	{TEXT("1e-1000"), false},
	{TEXT("0e1000"), true},
	{TEXT("1e0000000002"), true},

	/* the bound of 1000 digits, wherever they stand */
	{TEXT(REPEAT1000("9")), true},
	{TEXT("-" REPEAT1000("9")), true},
	{TEXT("9" REPEAT1000("9")), false, PARSE_RANGE},
	{TEXT("0" REPEAT1000("9")), false, PARSE_RANGE},
	{TEXT(REPEAT100("9") "." REPEAT100("9")), false},
	{TEXT("0." REPEAT100("3")), false},
	{TEXT("0." REPEAT1000("3")), false, PARSE_RANGE},
	{TEXT("0." REPEAT1000("0")), false, PARSE_RANGE},
	{TEXT("1e" REPEAT100("0") "1"), true},
	{TEXT("1e" REPEAT1000("0")), false, PARSE_RANGE},
	{TEXT(REPEAT1000("9") "e0"), false, PARSE_RANGE},
	{TEXT(REPEAT1000("0") REPEAT1000("0")), false, PARSE_RANGE},

	/* the bound of the exponent */
	{TEXT("1e1001"), false, PARSE_RANGE},
	{TEXT("1e-1001"), false, PARSE_RANGE},
	{TEXT("0e1001"), false, PARSE_RANGE},
	{TEXT("1e9999"), false, PARSE_RANGE},
	{TEXT("1e131072"), false, PARSE_RANGE},
	{TEXT("1e-16384"), false, PARSE_RANGE},
	{TEXT("1e2147483648"), false, PARSE_RANGE},
	{TEXT("1e4294967296"), false, PARSE_RANGE},
	{TEXT("1e-18446744073709551616"), false, PARSE_RANGE},
	{TEXT("1e99999999999999999999999999999999999999999"), false, PARSE_RANGE},

	{TEXT(""), false, PARSE_SYNTAX},
	{TEXT("+"), false, PARSE_SYNTAX},
	{TEXT("-"), false, PARSE_SYNTAX},
	{TEXT("."), false, PARSE_SYNTAX},
	{TEXT(".5"), false, PARSE_SYNTAX},
	{TEXT("-.5"), false, PARSE_SYNTAX},
	{TEXT("7."), false, PARSE_SYNTAX},
	{TEXT("7.e1"), false, PARSE_SYNTAX},
	{TEXT("7.5."), false, PARSE_SYNTAX},
	{TEXT("7.5.5"), false, PARSE_SYNTAX},
	{TEXT("7.-5"), false, PARSE_SYNTAX},
	{TEXT("7,5"), false, PARSE_SYNTAX},
	{TEXT("1_000"), false, PARSE_SYNTAX},
	{TEXT("1,000"), false, PARSE_SYNTAX},
	{TEXT("0x1F"), false, PARSE_SYNTAX},
	{TEXT("0x1p3"), false, PARSE_SYNTAX},
	{TEXT("0b1"), false, PARSE_SYNTAX},
	{TEXT("1e"), false, PARSE_SYNTAX},
	{TEXT("1e+"), false, PARSE_SYNTAX},
	{TEXT("1e1.5"), false, PARSE_SYNTAX},
	{TEXT("1ee1"), false, PARSE_SYNTAX},
	{TEXT("1d5"), false, PARSE_SYNTAX},
	{TEXT("1.5f"), false, PARSE_SYNTAX},
	{TEXT("--1"), false, PARSE_SYNTAX},
	{TEXT("NaN"), false, PARSE_SYNTAX},
	{TEXT("nan"), false, PARSE_SYNTAX},
	{TEXT("+NaN"), false, PARSE_SYNTAX},
	{TEXT("Infinity"), false, PARSE_SYNTAX},
	{TEXT("-Infinity"), false, PARSE_SYNTAX},
	{TEXT("+inf"), false, PARSE_SYNTAX},
	{TEXT("inf"), false, PARSE_SYNTAX},
	{TEXT(" 7.5"), false, PARSE_SYNTAX},
	{TEXT("7.5 "), false, PARSE_SYNTAX},
	{TEXT("7 .5"), false, PARSE_SYNTAX},
	{TEXT("7.5\n"), false, PARSE_SYNTAX},
	{TEXT("7.5\0"), false, PARSE_SYNTAX},
	{TEXT("7\0005"), false, PARSE_SYNTAX},
	{TEXT("\xEF\xBC\x97"), false, PARSE_SYNTAX},
	{TEXT("7\xEF\xBC\x8E" "5"), false, PARSE_SYNTAX},	/* full-width point */
	{TEXT("\xFF"), false, PARSE_SYNTAX},
	{TEXT("7.\xB5"), false, PARSE_SYNTAX},
	{TEXT("\xED\xA0\x80"), false, PARSE_SYNTAX},
	{TEXT("9" REPEAT1000("9") "x"), false, PARSE_SYNTAX},
	{TEXT("1e99999x"), false, PARSE_SYNTAX},
};

static void
test_decimal(void)
{
	for (size_t i = 0; i < LENGTH(decimals); i++)
	{
		size_t		len = decimals[i].len;
		char	   *s = unit_exact_copy(decimals[i].s, len);
		bool		is_integer = !decimals[i].is_integer;
		ParseResult result = parse_decimal(s, len, &is_integer);

		CHECK(result == decimals[i].result, s, len);
		CHECK((is_integer == decimals[i].is_integer) == (result == PARSE_OK), s, len);
		free(s);
	}
}

/* ---------- dates and times ---------- */

static const struct
{
	const char *s;
	size_t		len;
	ParsedDate	d;
	ParseResult result;
}			dates[] = {
	{TEXT("2026-01-31"), {2026, 1, 31}},
	{TEXT("2026-02-28"), {2026, 2, 28}},
	{TEXT("2024-02-29"), {2024, 2, 29}},
	{TEXT("2000-02-29"), {2000, 2, 29}},
	{TEXT("0400-02-29"), {400, 2, 29}},
	{TEXT("0004-02-29"), {4, 2, 29}},
	{TEXT("9996-02-29"), {9996, 2, 29}},
	{TEXT("0001-01-01"), {1, 1, 1}},
	{TEXT("9999-12-31"), {9999, 12, 31}},
	{TEXT("1582-10-10"), {1582, 10, 10}},	/* skipped by Gregory, not here */
	{TEXT("1970-01-01"), {1970, 1, 1}},
	{TEXT("2026-09-30"), {2026, 9, 30}},
	{TEXT("2026-12-09"), {2026, 12, 9}},

	{TEXT("2026-02-29"), {0}, PARSE_RANGE},
	{TEXT("2026-02-30"), {0}, PARSE_RANGE},
	{TEXT("2024-02-30"), {0}, PARSE_RANGE},
	{TEXT("1900-02-29"), {0}, PARSE_RANGE},
	{TEXT("2100-02-29"), {0}, PARSE_RANGE},
	{TEXT("0100-02-29"), {0}, PARSE_RANGE},
	{TEXT("2026-04-31"), {0}, PARSE_RANGE},
	{TEXT("2026-06-31"), {0}, PARSE_RANGE},
	{TEXT("2026-09-31"), {0}, PARSE_RANGE},
	{TEXT("2026-11-31"), {0}, PARSE_RANGE},
	{TEXT("2026-01-32"), {0}, PARSE_RANGE},
	{TEXT("2026-01-99"), {0}, PARSE_RANGE},
	{TEXT("2026-01-00"), {0}, PARSE_RANGE},
	{TEXT("2026-00-01"), {0}, PARSE_RANGE},
	{TEXT("2026-13-01"), {0}, PARSE_RANGE},
	{TEXT("2026-99-01"), {0}, PARSE_RANGE},
	{TEXT("0000-00-00"), {0}, PARSE_RANGE},
	{TEXT("0000-01-01"), {0}, PARSE_RANGE},
	{TEXT("0000-02-29"), {0}, PARSE_RANGE},
	{TEXT("9999-99-99"), {0}, PARSE_RANGE},

	{TEXT(""), {0}, PARSE_SYNTAX},
	{TEXT("2"), {0}, PARSE_SYNTAX},
	{TEXT("2026"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-1"), {0}, PARSE_SYNTAX},
	{TEXT("2026-1-01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-1-1"), {0}, PARSE_SYNTAX},
	{TEXT("26-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("12026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("+2026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("-2026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("+026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("-026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("20260101"), {0}, PARSE_SYNTAX},
	{TEXT("2026010101"), {0}, PARSE_SYNTAX},
	{TEXT("2026/01/01"), {0}, PARSE_SYNTAX},
	{TEXT("2026.01.01"), {0}, PARSE_SYNTAX},
	{TEXT("2026 01 01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01/01"), {0}, PARSE_SYNTAX},
	{TEXT("2026/01-01"), {0}, PARSE_SYNTAX},
	{TEXT("01-01-2026"), {0}, PARSE_SYNTAX},
	{TEXT("01/01/2026"), {0}, PARSE_SYNTAX},
	{TEXT("2026-001"), {0}, PARSE_SYNTAX},
	{TEXT("2026-W01-1"), {0}, PARSE_SYNTAX},
	{TEXT("2026-Jan-1"), {0}, PARSE_SYNTAX},
	{TEXT("YYYY-MM-DD"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-0:"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-0/"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-:0"), {0}, PARSE_SYNTAX},
	{TEXT("2026-/1-01"), {0}, PARSE_SYNTAX},
	{TEXT(":026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("2/26-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("20:6-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("202/-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01- 1"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-1 "), {0}, PARSE_SYNTAX},
	{TEXT(" 2026-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01 "), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01\n"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01\0"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01Z"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01T00:00:00Z"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-0\0"), {0}, PARSE_SYNTAX},
	{TEXT("2026\000" "01-01"), {0}, PARSE_SYNTAX},
	{TEXT("today"), {0}, PARSE_SYNTAX},
	{TEXT("infinity"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-1\xE0\xA7\xAA"), {0}, PARSE_SYNTAX},	/* Bengali 4 */
	{TEXT("2026-0\xEF\xBC\x91-01"), {0}, PARSE_SYNTAX},	/* full-width 1 */
	{TEXT("\xE0\xA7\xA8" "0-01-01"), {0}, PARSE_SYNTAX},	/* ten bytes */
	{TEXT("2026-01-\xB1\xB2"), {0}, PARSE_SYNTAX},
	{TEXT("\xFF\xFF\xFF\xFF-01-01"), {0}, PARSE_SYNTAX},
	{TEXT("2026-\xED\xA0\x80-1"), {0}, PARSE_SYNTAX},
	{TEXT("2026\xE2\x80\x93" "01\xE2\x80\x93" "01"), {0}, PARSE_SYNTAX},
};

static void
test_date(void)
{
	for (size_t i = 0; i < LENGTH(dates); i++)
	{
		size_t		len = dates[i].len;
		char	   *s = unit_exact_copy(dates[i].s, len);
		ParsedDate	d = {0};
		ParseResult result = parse_date(s, len, &d);

		CHECK(result == dates[i].result, s, len);
		CHECK(memcmp(&d, &dates[i].d, sizeof(d)) == 0, s, len);
		free(s);
	}
}

/*
 * Every text of the shape NNNN-NN-NN with month and day up to 39: those taken
 * must be the days of the calendar, which from 0001-01-01 to 9999-12-31 are
 * 3652059 (Julian days 1721426 to 5373484), and each year must have its own
 * number of them.
 */
static void
test_date_sweep(void)
{
	char		text[] = "NNNN-NN-NN";
	int			days = 0;

	for (int year = 0; year <= 9999; year++)
	{
		int			expected = year * 365 + year / 4 - year / 100 + year / 400;
		bool		good = true;

		text[0] = (char) ('0' + year / 1000);
		text[1] = (char) ('0' + year / 100 % 10);
		text[2] = (char) ('0' + year / 10 % 10);
		text[3] = (char) ('0' + year % 10);
		for (int month = 0; month < 40; month++)
		{
			text[5] = (char) ('0' + month / 10);
			text[6] = (char) ('0' + month % 10);
			for (int day = 0; day < 40; day++)
			{
				ParsedDate	d;
				ParseResult result;

				text[8] = (char) ('0' + day / 10);
				text[9] = (char) ('0' + day % 10);
				result = parse_date(text, 10, &d);
				if (result == PARSE_OK)
				{
					days++;
					good = good && d.year == year && d.month == month && d.day == day;
				}
				else
					good = good && result == PARSE_RANGE;
			}
		}
		/* after year Y, the days of the years 1 .. Y have been counted */
		if (!good || days != expected || year == 9999)
			CHECK(good && days == expected, text, 10);
	}
	CHECK(days == 3652059, "days of the calendar", 20);
}

/* hour, minute, second, micros, has_offset, offset_seconds */
static const struct
{
	const char *s;
	size_t		len;
	ParsedTime	t;
	ParseResult result;
}			times[] = {
	{TEXT("00:00:00Z"), {0, 0, 0, 0, true, 0}},
	{TEXT("08:30:06Z"), {8, 30, 6, 0, true, 0}},
	{TEXT("08:30:06z"), {8, 30, 6, 0, true, 0}},
	{TEXT("23:59:59Z"), {23, 59, 59, 0, true, 0}},
	{TEXT("12:34:56+00:00"), {12, 34, 56, 0, true, 0}},
	{TEXT("12:34:56-00:00"), {12, 34, 56, 0, true, 0}},
	{TEXT("12:34:56+09:00"), {12, 34, 56, 0, true, 32400}},
	{TEXT("12:34:56-08:00"), {12, 34, 56, 0, true, -28800}},
	{TEXT("12:34:56+05:45"), {12, 34, 56, 0, true, 20700}},
	{TEXT("12:34:56-03:30"), {12, 34, 56, 0, true, -12600}},
	{TEXT("12:34:56-00:30"), {12, 34, 56, 0, true, -1800}},
	{TEXT("12:34:56+23:59"), {12, 34, 56, 0, true, 86340}},
	{TEXT("12:34:56-23:59"), {12, 34, 56, 0, true, -86340}},

	/* fractions */
	{TEXT("12:34:56.5Z"), {12, 34, 56, 500000, true, 0}},
	{TEXT("12:34:56.52Z"), {12, 34, 56, 520000, true, 0}},
	{TEXT("12:34:56.283185Z"), {12, 34, 56, 283185, true, 0}},
	{TEXT("12:34:56.000001Z"), {12, 34, 56, 1, true, 0}},
	{TEXT("12:34:56.999999Z"), {12, 34, 56, 999999, true, 0}},
	{TEXT("12:34:56.0Z"), {12, 34, 56, 0, true, 0}},
	{TEXT("12:34:56.1234560Z"), {12, 34, 56, 123456, true, 0}},
	{TEXT("12:34:56.123456000000000000Z"), {12, 34, 56, 123456, true, 0}},
	{TEXT("12:34:56." REPEAT1000("0") "+01:00"), {12, 34, 56, 0, true, 3600}},
	{TEXT("12:34:56.5+01:00"), {12, 34, 56, 500000, true, 3600}},
	{TEXT("12:34:56.1234567Z"), {0}, PARSE_INEXACT},
	{TEXT("12:34:56.0000001Z"), {0}, PARSE_INEXACT},
	{TEXT("12:34:56.00000000000000000000000000001Z"), {0}, PARSE_INEXACT},
	{TEXT("12:34:56.999999999999999Z"), {0}, PARSE_INEXACT},

	/* leap seconds */
	{TEXT("23:59:60Z"), {23, 59, 60, 0, true, 0}},
	{TEXT("23:59:60.5Z"), {23, 59, 60, 500000, true, 0}},
	{TEXT("23:59:60+00:00"), {23, 59, 60, 0, true, 0}},
	{TEXT("23:59:60-00:00"), {23, 59, 60, 0, true, 0}},
	{TEXT("15:59:60-08:00"), {15, 59, 60, 0, true, -28800}},
	{TEXT("08:59:60+09:00"), {8, 59, 60, 0, true, 32400}},
	{TEXT("01:29:60+01:30"), {1, 29, 60, 0, true, 5400}},
	{TEXT("00:29:60-23:30"), {0, 29, 60, 0, true, -84600}},
	{TEXT("23:29:60+23:30"), {23, 29, 60, 0, true, 84600}},
	{TEXT("23:58:60+23:59"), {23, 58, 60, 0, true, 86340}},
	{TEXT("00:00:60-23:59"), {0, 0, 60, 0, true, -86340}},
	{TEXT("00:00:60+00:01"), {0, 0, 60, 0, true, 60}},
	{TEXT("22:59:60Z"), {0}, PARSE_RANGE},
	{TEXT("23:58:60Z"), {0}, PARSE_RANGE},
	{TEXT("00:00:60Z"), {0}, PARSE_RANGE},
	{TEXT("12:34:60Z"), {0}, PARSE_RANGE},
	{TEXT("23:59:60+01:00"), {0}, PARSE_RANGE},
	{TEXT("23:59:60-01:00"), {0}, PARSE_RANGE},
	{TEXT("23:59:60+00:30"), {0}, PARSE_RANGE},
	{TEXT("15:59:60+08:00"), {0}, PARSE_RANGE},
	{TEXT("23:59:61Z"), {0}, PARSE_RANGE},

	/* out of bounds */
	{TEXT("24:00:00Z"), {0}, PARSE_RANGE},
	{TEXT("24:59:60+01:00"), {0}, PARSE_RANGE},
	{TEXT("25:00:00Z"), {0}, PARSE_RANGE},
	{TEXT("99:99:99Z"), {0}, PARSE_RANGE},
	{TEXT("00:60:00Z"), {0}, PARSE_RANGE},
	{TEXT("00:00:61Z"), {0}, PARSE_RANGE},
	{TEXT("00:00:99Z"), {0}, PARSE_RANGE},
	{TEXT("00:00:00+24:00"), {0}, PARSE_RANGE},
	{TEXT("00:00:00-24:00"), {0}, PARSE_RANGE},
	{TEXT("00:00:00+00:60"), {0}, PARSE_RANGE},
	{TEXT("00:00:00-00:60"), {0}, PARSE_RANGE},
	{TEXT("00:00:00+99:99"), {0}, PARSE_RANGE},

	{TEXT(""), {0}, PARSE_SYNTAX},
	{TEXT("Z"), {0}, PARSE_SYNTAX},
	{TEXT("12"), {0}, PARSE_SYNTAX},
	{TEXT("12:34"), {0}, PARSE_SYNTAX},
	{TEXT("12:34Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:5Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.5"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56."), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.+01:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56,5Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.5.5Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.:Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56./Z"), {0}, PARSE_SYNTAX},
	{TEXT("8:3:6Z"), {0}, PARSE_SYNTAX},
	{TEXT("008:030:006Z"), {0}, PARSE_SYNTAX},
	{TEXT("123456Z"), {0}, PARSE_SYNTAX},
	{TEXT("12-34-56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34-56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12-34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("ab:cd:efZ"), {0}, PARSE_SYNTAX},
	{TEXT("1a:34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:3a:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:5aZ"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:-6Z"), {0}, PARSE_SYNTAX},
	{TEXT("-1:34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56X"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56 Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56 PST"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56 PM"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56ZZ"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56Z+01:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01:00Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+0100"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01:0"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+1:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01-00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56#01:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+0a:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01:0a"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56+01:00:00"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56\xE2\x88\x92" "01:00"), {0}, PARSE_SYNTAX},
	{TEXT(" 12:34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56Z "), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56Z\n"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56Z\0"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56\0"), {0}, PARSE_SYNTAX},
	{TEXT("T12:34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("2026-01-01T12:34:56Z"), {0}, PARSE_SYNTAX},
	{TEXT("1\xE0\xA7\xA8:00:00Z"), {0}, PARSE_SYNTAX},
	{TEXT("\xEF\xBC\x91" "2:00:00Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56\xEF\xBC\xBA"), {0}, PARSE_SYNTAX},	/* full-width Z */
	{TEXT("12:34:56.\xB5Z"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56\xFF"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:\xED\xA0\x80"), {0}, PARSE_SYNTAX},

	/* wrong shape and out of bounds: the shape is told */
	{TEXT("24:00:00"), {0}, PARSE_SYNTAX},
	{TEXT("23:58:60"), {0}, PARSE_SYNTAX},
	{TEXT("12:34:56.1234567"), {0}, PARSE_SYNTAX},
	{TEXT("99:99:99+9"), {0}, PARSE_SYNTAX},
};

static bool
same_time(const ParsedTime *a, const ParsedTime *b)
{
	return a->hour == b->hour && a->minute == b->minute && a->second == b->second &&
		a->micros == b->micros && a->has_offset == b->has_offset &&
		a->offset_seconds == b->offset_seconds;
}

static void
test_time(void)
{
	for (size_t i = 0; i < LENGTH(times); i++)
	{
		size_t		len = times[i].len;
		char	   *s = unit_exact_copy(times[i].s, len);
		ParsedTime	t = {0};
		ParseResult result = parse_time(s, len, &t);

		CHECK(result == times[i].result, s, len);
		CHECK(same_time(&t, &times[i].t), s, len);
		free(s);
	}
}

/* Of all NN:NN:NNZ, the seconds of a day are taken, and one leap second. */
static void
test_time_sweep(void)
{
	char		text[] = "NN:NN:NNZ";
	int			taken = 0;
	bool		good = true;

	for (int n = 0; n < 1000000; n++)
	{
		ParsedTime	t;

		text[0] = (char) ('0' + n / 100000);
		text[1] = (char) ('0' + n / 10000 % 10);
		text[3] = (char) ('0' + n / 1000 % 10);
		text[4] = (char) ('0' + n / 100 % 10);
		text[6] = (char) ('0' + n / 10 % 10);
		text[7] = (char) ('0' + n % 10);
		if (parse_time(text, 9, &t) == PARSE_OK)
		{
			taken++;
			good = good && t.hour * 10000 + t.minute * 100 + t.second == n;
		}
	}
	CHECK(good, "times of day", 12);
	CHECK(taken == 86400 + 1, "times of day", 12);
}

/*
 * With every offset that there is, just one minute of the local day takes a
 * 60th second: the one that is 23:59 in UTC, found here by counting on from
 * there.
 */
static void
test_leap_second_sweep(void)
{
	for (int offset = -1439; offset <= 1439; offset++)
	{
		int			size = (offset < 0) ? -offset : offset;
		int			expected = (1439 + offset + 1440) % 1440;
		bool		good = true;
		char		text[32];

		for (int minute = 0; minute < 1440; minute++)
		{
			ParsedTime	t;
			ParseResult result;

			/* by hand, as snprintf() four million times would be slow */
			memcpy(text, "NN:NN:60+NN:NN", 15);
			text[0] = (char) ('0' + minute / 600);
			text[1] = (char) ('0' + minute / 60 % 10);
			text[3] = (char) ('0' + minute % 60 / 10);
			text[4] = (char) ('0' + minute % 10);
			text[8] = (offset < 0) ? '-' : '+';
			text[9] = (char) ('0' + size / 600);
			text[10] = (char) ('0' + size / 60 % 10);
			text[12] = (char) ('0' + size % 60 / 10);
			text[13] = (char) ('0' + size % 10);

			result = parse_time(text, 14, &t);
			if (minute == expected)
				good = good && result == PARSE_OK && t.offset_seconds == offset * 60;
			else
				good = good && result == PARSE_RANGE;
		}
		if (!good || size % 60 == 0)
			CHECK(good, text, 14);
	}
}

static const struct
{
	const char *s;
	size_t		len;
	ParsedDate	d;
	ParsedTime	t;
	ParseResult result;
}			date_times[] = {
	{TEXT("2026-01-31T08:30:06Z"), {2026, 1, 31}, {8, 30, 6, 0, true, 0}},
	{TEXT("2026-01-31t08:30:06z"), {2026, 1, 31}, {8, 30, 6, 0, true, 0}},
	{TEXT("2026-01-31T08:30:06.25+09:00"), {2026, 1, 31}, {8, 30, 6, 250000, true, 32400}},
	{TEXT("2024-02-29T00:00:00-08:00"), {2024, 2, 29}, {0, 0, 0, 0, true, -28800}},
	{TEXT("0001-01-01T00:00:00Z"), {1, 1, 1}, {0, 0, 0, 0, true, 0}},
	{TEXT("0001-01-01T00:00:00+23:59"), {1, 1, 1}, {0, 0, 0, 0, true, 86340}},
	{TEXT("9999-12-31T23:59:59.999999-23:59"), {9999, 12, 31}, {23, 59, 59, 999999, true, -86340}},

	/* a leap second ends a month, in UTC */
	{TEXT("2016-12-31T23:59:60Z"), {2016, 12, 31}, {23, 59, 60, 0, true, 0}},
	{TEXT("2015-06-30T23:59:60Z"), {2015, 6, 30}, {23, 59, 60, 0, true, 0}},
	{TEXT("1998-12-31T15:59:60.123-08:00"), {1998, 12, 31}, {15, 59, 60, 123000, true, -28800}},
	{TEXT("2017-01-01T08:59:60+09:00"), {2017, 1, 1}, {8, 59, 60, 0, true, 32400}},
	{TEXT("2024-02-29T23:59:60Z"), {2024, 2, 29}, {23, 59, 60, 0, true, 0}},
	{TEXT("2024-03-01T00:59:60+01:00"), {2024, 3, 1}, {0, 59, 60, 0, true, 3600}},
	{TEXT("2024-02-28T23:59:60Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-30T23:59:60Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2017-01-01T23:59:60Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-31T08:59:60+09:00"), {0}, {0}, PARSE_RANGE},
	{TEXT("2017-01-02T08:59:60+09:00"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-30T15:59:60-08:00"), {0}, {0}, PARSE_RANGE},
	{TEXT("2017-01-01T15:59:60-08:00"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-31T22:59:60Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-31T23:58:60Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2016-12-31T23:59:61Z"), {0}, {0}, PARSE_RANGE},

	{TEXT("2026-02-30T00:00:00Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("0000-00-00T00:00:00Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T24:00:00Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T15:60:00Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T15:59:59-24:00"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T10:00:00+10:60"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T10:00:00.1234567Z"), {0}, {0}, PARSE_INEXACT},
	/* no such time, however fine */
	{TEXT("2026-01-31T24:00:00.1234567Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-02-30T10:00:00.1234567Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-30T23:59:60.1234567Z"), {0}, {0}, PARSE_RANGE},
	{TEXT("2026-01-31T23:59:60.1234567Z"), {0}, {0}, PARSE_INEXACT},
	{TEXT("2026-02-30T24:00:00Z"), {0}, {0}, PARSE_RANGE},

	{TEXT(""), {0}, {0}, PARSE_SYNTAX},
	{TEXT("T"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30:06"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31 08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31_08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-3108:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31TT08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30:06+01"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-1-31T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-3T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("+12026-01-31T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("20260131T083006Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-031T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30:06Z "), {0}, {0}, PARSE_SYNTAX},
	{TEXT(" 2026-01-31T08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30:06Z\n"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T08:30:06Z\0"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31\0" "08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-1\xE0\xA7\xAA" "T00:00:00Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31T0\xE0\xA7\xAA:00:00Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-01-31\xEF\xBC\xB4" "08:30:06Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("now"), {0}, {0}, PARSE_SYNTAX},

	/* wrong shape in one part, out of bounds in the other */
	{TEXT("2026-02-30T08:30:06"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026-1-310T24:00:00Z"), {0}, {0}, PARSE_SYNTAX},
	{TEXT("2026/01/31T24:00:00Z"), {0}, {0}, PARSE_SYNTAX},
};

static void
test_date_time(void)
{
	for (size_t i = 0; i < LENGTH(date_times); i++)
	{
		size_t		len = date_times[i].len;
		char	   *s = unit_exact_copy(date_times[i].s, len);
		ParsedDate	d = {0};
		ParsedTime	t = {0};
		ParseResult result = parse_date_time(s, len, &d, &t);

		CHECK(result == date_times[i].result, s, len);
		CHECK(memcmp(&d, &date_times[i].d, sizeof(d)) == 0, s, len);
		CHECK(same_time(&t, &date_times[i].t), s, len);
		free(s);
	}
}

/* ---------- durations, addresses, identifiers ---------- */

static const struct
{
	bool		(*parse) (const char *s, size_t len);
	const char *s;
	size_t		len;
	bool		taken;
}			formats[] = {
	{parse_duration, TEXT("P1Y2M3DT4H5M6S"), true},
	{parse_duration, TEXT("P4W"), true},
	{parse_duration, TEXT("PT36H"), true},
	{parse_duration, TEXT("P1D"), true},
	{parse_duration, TEXT("P1Y2D"), false},
	{parse_duration, TEXT("PT1H2S"), false},
	{parse_duration, TEXT("P"), false},
	{parse_duration, TEXT("PT"), false},
	{parse_duration, TEXT("P1DT"), false},
	{parse_duration, TEXT("P1W1D"), false},
	{parse_duration, TEXT("P1"), false},
	{parse_duration, TEXT("PT1D"), false},
	{parse_duration, TEXT("P1H"), false},
	{parse_duration, TEXT("P-1D"), false},
	{parse_duration, TEXT("PT0.5S"), false},
	{parse_duration, TEXT("p1d"), false},
	{parse_duration, TEXT("P2D1Y"), false},
	{parse_duration, TEXT(""), false},

	{parse_email, TEXT("a@b"), true},
	{parse_email, TEXT("o'neil+x@ward-3.example"), true},
	{parse_email, TEXT("\"a b\\\"c\"@b.c"), true},
	{parse_email, TEXT("a@[192.0.2.1]"), true},
	{parse_email, TEXT("a@[ipv6:2001:db8::1]"), true},
	{parse_email, TEXT("a@[IPv6:]"), false},
	{parse_email, TEXT("a@[x]"), false},
	{parse_email, TEXT("a@"), false},
	{parse_email, TEXT("@b"), false},
	{parse_email, TEXT("a"), false},
	{parse_email, TEXT("a.@b"), false},
	{parse_email, TEXT("a..b@c"), false},
	{parse_email, TEXT("a@b..c"), false},
	{parse_email, TEXT("a@b."), false},
	{parse_email, TEXT("a@-b"), false},
	{parse_email, TEXT("a@b-.c"), false},
	{parse_email, TEXT("a@b c"), false},
	{parse_email, TEXT("a\0@b"), false},
	{parse_email, TEXT("\"a\\"), false},
	{parse_email, TEXT("\"a\"b@c"), false},
	{parse_email, TEXT("\xC3\xA4@b.c"), false},

	{parse_ipv4, TEXT("0.0.0.0"), true},
	{parse_ipv4, TEXT("255.255.255.255"), true},
	{parse_ipv4, TEXT("256.0.0.1"), false},
	{parse_ipv4, TEXT("01.0.0.1"), false},
	{parse_ipv4, TEXT("1.2.3"), false},
	{parse_ipv4, TEXT("1.2.3."), false},
	{parse_ipv4, TEXT("1.2.3.4.5"), false},
	{parse_ipv4, TEXT("1.2.3.4 "), false},
	{parse_ipv4, TEXT("1.2.3.1000"), false},

	{parse_ipv6, TEXT("::"), true},
	{parse_ipv6, TEXT("::1"), true},
	{parse_ipv6, TEXT("1::"), true},
	{parse_ipv6, TEXT("1:2:3:4:5:6:7:8"), true},
	{parse_ipv6, TEXT("1:2:3:4:5:6:7::"), true},
	{parse_ipv6, TEXT("::ffff:192.0.2.1"), true},
	{parse_ipv6, TEXT("1:2:3:4:5:6:192.0.2.1"), true},
	{parse_ipv6, TEXT("1:2:3:4:5:6:7"), false},
	{parse_ipv6, TEXT("1:2:3:4:5:6:7:8:9"), false},
	{parse_ipv6, TEXT("1:2:3:4::5:6:7:8"), false},
	{parse_ipv6, TEXT("1::2::3"), false},
	{parse_ipv6, TEXT(":::"), false},
	{parse_ipv6, TEXT(":1"), false},
	{parse_ipv6, TEXT("1:"), false},
	{parse_ipv6, TEXT("12345::"), false},
	{parse_ipv6, TEXT("::g"), false},
	{parse_ipv6, TEXT("fe80::1%eth0"), false},
	{parse_ipv6, TEXT("1.2.3.4"), false},
	{parse_ipv6, TEXT("192.0.2.1::"), false},

	{parse_uuid, TEXT("2eb8aa08-aa98-11ea-b4aa-73b441d16380"), true},
	{parse_uuid, TEXT("2EB8AA08-AA98-11EA-B4AA-73B441D16380"), true},
	{parse_uuid, TEXT("2eb8aa08aa98-11ea-b4aa-73b441d16380-"), false},
	{parse_uuid, TEXT("2eb8aa08-aa98-11ea-b4aa-73b441d1638"), false},
	{parse_uuid, TEXT("{eb8aa08-aa98-11ea-b4aa-73b441d16380}"), false},
	{parse_uuid, TEXT("2eb8aa08-aa98-11ea-b4aa-73b441d1638g"), false},
};

static void
test_formats(void)
{
	for (size_t i = 0; i < LENGTH(formats); i++)
	{
		size_t		len = formats[i].len;
		char	   *s = unit_exact_copy(formats[i].s, len);

		CHECK(formats[i].parse(s, len) == formats[i].taken, s, len);
		free(s);
	}
}

/* ---------- booleans ---------- */

static const struct
{
	const char *s;
	size_t		len;
	bool		taken;
	bool		value;
}			booleans[] = {
	{TEXT("true"), true, true},
	{TEXT("false"), true, false},
	{TEXT(""), false},
	{TEXT("t"), false},
	{TEXT("tru"), false},
	{TEXT("fals"), false},
	{TEXT("trux"), false},
	{TEXT("xrue"), false},
	{TEXT("falsx"), false},
	{TEXT("xalse"), false},
	{TEXT("truee"), false},
	{TEXT("falsee"), false},
	{TEXT("True"), false},
	{TEXT("TRUE"), false},
	{TEXT("False"), false},
	{TEXT("FALSE"), false},
	{TEXT("f"), false},
	{TEXT("yes"), false},
	{TEXT("no"), false},
	{TEXT("on"), false},
	{TEXT("1"), false},
	{TEXT("0"), false},
	{TEXT("null"), false},
	{TEXT(" true"), false},
	{TEXT("true "), false},
	{TEXT("true\0"), false},
	{TEXT("false\n"), false},
	{TEXT("tr\0e"), false},
	{TEXT("fal\xFF" "e"), false},
};

static void
test_boolean(void)
{
	for (size_t i = 0; i < LENGTH(booleans); i++)
	{
		size_t		len = booleans[i].len;
		char	   *s = unit_exact_copy(booleans[i].s, len);
		bool		value = !booleans[i].value;
		bool		taken = parse_boolean(s, len, &value);

		CHECK(taken == booleans[i].taken, s, len);
		CHECK((value == booleans[i].value) == taken, s, len);
		free(s);
	}
}

/* ---------- text ---------- */

/* where the trimmed text begins, and how long it is */
static const struct
{
	const char *s;
	size_t		len;
	size_t		start;
	size_t		kept;
}			trims[] = {
	{TEXT(""), 0, 0},
	{TEXT("3"), 0, 1},
	{TEXT(" 3 "), 1, 1},
	{TEXT("  3"), 2, 1},
	{TEXT("3  "), 0, 1},
	{TEXT(" 3 4 "), 1, 3},
	{TEXT("\t\r\n\v\f 3 \f\v\n\r\t"), 6, 1},
	{TEXT("\r\n3\r\n"), 2, 1},
	{TEXT("\xE3\x80\x80" "3\xE3\x80\x80"), 3, 1},	/* U+3000 */
	{TEXT("\xC2\xA0" "3\xC2\xA0"), 2, 1},	/* U+00A0 */
	{TEXT("\xEF\xBB\xBF" "3\xEF\xBB\xBF"), 3, 1},	/* U+FEFF */
	{TEXT("\xC2\x85" "3\xC2\x85"), 2, 1},	/* U+0085 */
	{TEXT("\xE2\x80\x89" "3\xE2\x80\xAF"), 3, 1},	/* U+2009, U+202F */
	{TEXT("\xE1\x9A\x80" "3\xE2\x81\x9F"), 3, 1},	/* U+1680, U+205F */
	{TEXT("\xE2\x80\xA8" "3\xE2\x80\xA9"), 3, 1},	/* U+2028, U+2029 */
	{TEXT(" \xE3\x80\x80\t\xC2\xA0\xEF\xBB\xBF" "a b\xEF\xBB\xBF\xC2\xA0\n\xE3\x80\x80 "), 10, 3},
	{TEXT("a\xE3\x80\x80" "b"), 0, 5},
	{TEXT("a\xC2\xA0" "b"), 0, 4},

	/* nothing but white space: all of it is leading */
	{TEXT(" "), 1, 0},
	{TEXT("   "), 3, 0},
	{TEXT("\xE3\x80\x80"), 3, 0},
	{TEXT("\xE3\x80\x80 \xC2\xA0"), 6, 0},

	/* no white space, however like it */
	{TEXT("\0" "3\0"), 0, 3},
	{TEXT("\x1C" "3\x1F"), 0, 3},
	{TEXT("\b3\x0E"), 0, 3},
	{TEXT("\x7F"), 0, 1},
	{TEXT("\xE2\x80\x8B" "3\xE2\x80\x8B"), 0, 7},	/* U+200B zero width */
	{TEXT("\xC2\x84" "3\xC2\x86"), 0, 5},
	{TEXT("\xE3\x80\x81" "3\xE3\x80\x82"), 0, 7},	/* ideographic comma, stop */
	{TEXT("\xEF\xBC\x97"), 0, 3},
	{TEXT("\xE3\x81\xA0"), 0, 3},	/* ends in A0 */
	{TEXT("\xE4\x80\x80"), 0, 3},	/* ends in 80 80 */
	{TEXT("\xF0\xA3\x80\x80"), 0, 4},	/* four bytes */

	/* broken UTF-8 */
	{TEXT("\xE3"), 0, 1},
	{TEXT("\xE3\x80"), 0, 2},
	{TEXT("\x80\x80"), 0, 2},
	{TEXT("\xC2"), 0, 1},
	{TEXT("\xA0"), 0, 1},
	{TEXT("\xEF\xBB"), 0, 2},
	{TEXT(" \xE3\x80 "), 1, 2},
	{TEXT(" \xC2 "), 1, 1},
	{TEXT("\xE3 \x80"), 0, 3},
	{TEXT(" \xED\xA0\x80 "), 1, 3},
	{TEXT(" \xFF "), 1, 1},
	{TEXT("\xE3\xE3\x80\x80"), 0, 1},
	{TEXT("\xE3\x80\0" "3"), 0, 4},	/* no continuation bytes */
	{TEXT("\xE3\0\x80" "3"), 0, 4},
	{TEXT("3\xEF\xBB?"), 0, 4},
	{TEXT("\xF3\x80\x80"), 0, 3},
	{TEXT("\xC0\xA0" "3"), 0, 3},	/* overlong */
	{TEXT("\xE0\x80\xA0" "3"), 0, 4},
};

static void
test_trim(void)
{
	for (size_t i = 0; i < LENGTH(trims); i++)
	{
		size_t		len = trims[i].len;
		char	   *s = unit_exact_copy(trims[i].s, len);
		const char *trimmed = s;
		size_t		kept = normalise_trim(&trimmed, len);

		CHECK(kept == trims[i].kept, s, len);
		/* (no difference of null pointers) */
		CHECK(len == 0 ? trimmed == s : (size_t) (trimmed - s) == trims[i].start, s, len);
		free(s);
	}
}

/* Every code point but the surrogates, before and behind a letter. */
static void
test_trim_sweep(void)
{
	/* PropList.txt of the Unicode Character Database, White_Space; U+FEFF */
	static const unsigned int spaces[] = {
		0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x2001,
		0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A,
		0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF
	};
	size_t		next = 0;

	for (unsigned int code = 0; code <= 0x10FFFF; code++)
	{
		bool		is_space = next < LENGTH(spaces) && spaces[next] == code;
		char		text[9];
		const char *s = text;
		size_t		width;
		size_t		kept;
		bool		good;

		if (code >= 0xD800 && code <= 0xDFFF)
			continue;
		if (is_space)
			next++;

		width = encode_utf8(code, text);
		text[width] = 'x';
		memcpy(text + width + 1, text, width);
		kept = normalise_trim(&s, 2 * width + 1);
		good = is_space ? (kept == 1 && s == text + width) :
			(kept == 2 * width + 1 && s == text);
		if (!good || is_space)
			CHECK(good, text, 2 * width + 1);
	}
	CHECK(next == LENGTH(spaces), "all white space was met", 23);
}

static const struct
{
	const char *s;
	size_t		len;
	const char *narrow;
	size_t		narrow_len;
}			widths[] = {
	{TEXT(""), TEXT("")},
	{TEXT("7"), TEXT("7")},
	{TEXT("plain ASCII, longer than eight"), TEXT("plain ASCII, longer than eight")},
	{TEXT("\xEF\xBC\x97"), TEXT("7")},
	{TEXT("\xEF\xBC\x8D\xEF\xBC\x91\xEF\xBC\x8E\xEF\xBC\x95"), TEXT("-1.5")},
	{TEXT("1\xEF\xBC\x92" "3"), TEXT("123")},
	{TEXT("\xEF\xBC\x81"), TEXT("!")},	/* U+FF01, the first */
	{TEXT("\xEF\xBC\xBF"), TEXT("_")},	/* U+FF3F */
	{TEXT("\xEF\xBD\x80"), TEXT("`")},	/* U+FF40 */
	{TEXT("\xEF\xBD\x9E"), TEXT("~")},	/* U+FF5E, the last */
	{TEXT("\xEF\xBC\xA1\xEF\xBD\x81"), TEXT("Aa")},
	{TEXT("\xEF\xBC\xBA\xEF\xBD\x9A"), TEXT("Zz")},
	{TEXT("\xE3\x80\x80"), TEXT(" ")},
	{TEXT("a\xE3\x80\x80" "b"), TEXT("a b")},
	{TEXT("longer than eight \xEF\xBC\x97"), TEXT("longer than eight 7")},
	{TEXT("12345678\xEF\xBC\x99"), TEXT("123456789")},
	{TEXT("1234567\xEF\xBC\x98"), TEXT("12345678")},
	{TEXT("\xE7\x97\x9B\xE3\x81\xBF\xEF\xBC\x97"), TEXT("\xE7\x97\x9B\xE3\x81\xBF" "7")},

	/* left as they are */
	{TEXT("\xEF\xBC\x80"), TEXT("\xEF\xBC\x80")},	/* U+FF00 */
	{TEXT("\xEF\xBD\x9F"), TEXT("\xEF\xBD\x9F")},	/* U+FF5F */
	{TEXT("\xEF\xBD\xB1"), TEXT("\xEF\xBD\xB1")},	/* half-width katakana */
	{TEXT("\xEF\xBF\xA5"), TEXT("\xEF\xBF\xA5")},	/* full-width yen */
	{TEXT("\xE3\x80\x81"), TEXT("\xE3\x80\x81")},	/* U+3001 */
	{TEXT("\xC2\xA0"), TEXT("\xC2\xA0")},
	{TEXT("\xE2\x88\x92" "7"), TEXT("\xE2\x88\x92" "7")},
	{TEXT("\xD9\xA7"), TEXT("\xD9\xA7")},
	{TEXT("a\0b"), TEXT("a\0b")},

	/* broken UTF-8 */
	{TEXT("\xEF"), TEXT("\xEF")},
	{TEXT("\xEF\xBC"), TEXT("\xEF\xBC")},
	{TEXT("7\xEF\xBC"), TEXT("7\xEF\xBC")},
	{TEXT("\xEF\xBC" "7"), TEXT("\xEF\xBC" "7")},
	{TEXT("\xE3\x80"), TEXT("\xE3\x80")},
	{TEXT("\xBC\x97"), TEXT("\xBC\x97")},
	{TEXT("\xEF\xEF\xBC\x97"), TEXT("\xEF" "7")},
	{TEXT("\xED\xA0\x80\xEF\xBC\x97"), TEXT("\xED\xA0\x80" "7")},
	{TEXT("\xFF\xFE"), TEXT("\xFF\xFE")},
};

static void
test_width(void)
{
	for (size_t i = 0; i < LENGTH(widths); i++)
	{
		size_t		len = widths[i].len;
		bool		changes = len != widths[i].narrow_len;
		char	   *s = unit_exact_copy(widths[i].s, len);
		char	   *out = unit_exact_copy(widths[i].s, len);
		size_t		n = normalise_width(s, len, out);

		CHECK(normalise_width_needed(s, len) == changes, s, len);
		CHECK(n == widths[i].narrow_len, s, len);
		CHECK(n == 0 || memcmp(out, widths[i].narrow, n) == 0, s, len);
		free(s);
		free(out);
	}
}

/* Every code point but the surrogates. */
static void
test_width_sweep(void)
{
	int			changed = 0;

	for (unsigned int code = 0; code <= 0x10FFFF; code++)
	{
		char		text[4];
		char		expected[4];
		char		out[4];
		size_t		len;
		size_t		n = 1;
		bool		good;

		if (code >= 0xD800 && code <= 0xDFFF)
			continue;
		len = encode_utf8(code, text);
		if (code >= 0xFF01 && code <= 0xFF5E)
			expected[0] = (char) (code - 0xFEE0);
		else if (code == 0x3000)
			expected[0] = ' ';
		else
			n = encode_utf8(code, expected);

		good = normalise_width(text, len, out) == n && memcmp(out, expected, n) == 0 &&
			normalise_width_needed(text, len) == (n != len);
		if (n != len)
			changed++;
		if (!good || n != len)
			CHECK(good, text, len);
	}
	CHECK(changed == 94 + 1, "full-width forms", 16);
}

static void
test_width_in_place(void)
{
	char		text[] = "a\xEF\xBC\x91\xE3\x80\x80\xE7\x97\x9B\xEF\xBC\x92" "b";
	size_t		n = normalise_width(text, sizeof(text) - 1, text);

	CHECK(n == 8 && memcmp(text, "a1 \xE7\x97\x9B" "2b", 8) == 0, text, n);
}

static const struct
{
	const char *a;
	size_t		alen;
	const char *b;
	size_t		blen;
	bool		equal;
}			folds[] = {
	{TEXT(""), TEXT(""), true},
	{TEXT("a"), TEXT("A"), true},
	{TEXT("Z"), TEXT("z"), true},
	{TEXT("Mild"), TEXT("MILD"), true},
	{TEXT("Mild"), TEXT("mILD"), true},
	{TEXT("abcdefghijklmnopqrstuvwxyz"), TEXT("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), true},
	{TEXT("a-1 b"), TEXT("A-1 B"), true},
	{TEXT("\xC3\x84"), TEXT("\xC3\x84"), true},
	{TEXT("\xFF"), TEXT("\xFF"), true},
	{TEXT("a\0b"), TEXT("A\0B"), true},
	{TEXT("a"), TEXT("b"), false},
	{TEXT("a"), TEXT(""), false},
	{TEXT(""), TEXT("a"), false},
	{TEXT("a"), TEXT("ab"), false},
	{TEXT("ab"), TEXT("a"), false},
	{TEXT("a\0b"), TEXT("a\0c"), false},
	{TEXT("a"), TEXT("a\0"), false},
	{TEXT("@"), TEXT("`"), false},	/* 0x40 and 0x60: no letters */
	{TEXT("["), TEXT("{"), false},	/* 0x5B and 0x7B */
	{TEXT("_"), TEXT("\x7F"), false},
	{TEXT("0"), TEXT("P"), false},
	{TEXT("\xC3\xA4"), TEXT("\xC3\x84"), false},	/* only ASCII folds */
	{TEXT("K"), TEXT("\xE2\x84\xAA"), false},	/* Kelvin sign */
	{TEXT("\xE1"), TEXT("\xC1"), false},
	{TEXT("a"), TEXT("\xEF\xBD\x81"), false},
};

static void
test_equal_fold(void)
{
	for (size_t i = 0; i < LENGTH(folds); i++)
	{
		char	   *a = unit_exact_copy(folds[i].a, folds[i].alen);
		char	   *b = unit_exact_copy(folds[i].b, folds[i].blen);

		CHECK(equal_fold_ascii(a, folds[i].alen, b, folds[i].blen) == folds[i].equal,
			  a, folds[i].alen);
		CHECK(equal_fold_ascii(b, folds[i].blen, a, folds[i].alen) == folds[i].equal,
			  b, folds[i].blen);
		free(a);
		free(b);
	}
}

static const struct
{
	const char *s;
	size_t		len;
	size_t		length;
}			lengths[] = {
	{TEXT(""), 0},
	{TEXT("a"), 1},
	{TEXT("abcdefghij"), 10},
	{TEXT("\0"), 1},
	{TEXT("a\0b"), 3},
	{TEXT("\xC3\xA4"), 1},
	{TEXT("\xE7\x97\x9B\xE3\x81\xBF"), 2},
	{TEXT("\xF0\x9F\x98\x80"), 1},
	{TEXT("a\xC3\xA4\xE7\x97\x9B\xF0\x9F\x98\x80" "b"), 5},
	{TEXT("e\xCC\x81"), 2},		/* combining accent: two code points */
	{TEXT("\xF4\x8F\xBF\xBF"), 1},	/* U+10FFFF */
	{TEXT("\xED\xA0\x80"), 1},	/* invalid from here on */
	{TEXT("\x80"), 0},
	{TEXT("\xC3"), 1},
	{TEXT("\xFF\xFF"), 2},
	{TEXT("\xE7\x97"), 1},
};

static void
test_utf8_length(void)
{
	for (size_t i = 0; i < LENGTH(lengths); i++)
	{
		size_t		len = lengths[i].len;
		char	   *s = unit_exact_copy(lengths[i].s, len);

		CHECK(utf8_length(s, len) == lengths[i].length, s, len);
		free(s);
	}
}

/* ---------- what parse.h promises for all ---------- */

/*
 * The tables above begin with zeroes; here the results hold something before,
 * and each text fails as late as it can.
 */
static void
test_failure_stores_nothing(void)
{
	ParsedDate	d = {-1, -2, -3};
	ParsedTime	t = {-1, -2, -3, -4, false, -5};
	const ParsedTime before = t;
	static const char *const bad_times[] = {"23:58:60.5+01:00", "12:34:56.1234567Z", "12:34:56.5"};
	static const char *const bad_date_times[] = {"2016-12-30T23:59:60Z", "2026-01-31T24:00:00Z",
	"2026-02-30T12:00:00Z", "2026-01-31T12:00:00"};

	CHECK(parse_date("2026-02-30", 10, &d) == PARSE_RANGE, "date", 4);
	for (size_t i = 0; i < LENGTH(bad_times); i++)
		CHECK(parse_time(bad_times[i], strlen(bad_times[i]), &t) != PARSE_OK, "time", 4);
	for (size_t i = 0; i < LENGTH(bad_date_times); i++)
		CHECK(parse_date_time(bad_date_times[i], strlen(bad_date_times[i]), &d, &t) != PARSE_OK,
			  "date-time", 9);

	CHECK(d.year == -1 && d.month == -2 && d.day == -3, "date", 4);
	CHECK(same_time(&t, &before), "time", 4);
}

static size_t
encode_utf8(unsigned int code, char *out)
{
	if (code < 0x80)
	{
		out[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
	{
		out[0] = (char) (0xC0 | code >> 6);
		out[1] = (char) (0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000)
	{
		out[0] = (char) (0xE0 | code >> 12);
		out[1] = (char) (0x80 | (code >> 6 & 0x3F));
		out[2] = (char) (0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (char) (0xF0 | code >> 18);
	out[1] = (char) (0x80 | (code >> 12 & 0x3F));
	out[2] = (char) (0x80 | (code >> 6 & 0x3F));
	out[3] = (char) (0x80 | (code & 0x3F));
	return 4;
}
