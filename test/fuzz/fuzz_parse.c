/*-------------------------------------------------------------------------
 *
 * fuzz_parse.c
 *	  Fuzz target for src/stages/parse.c.
 *
 * Each input goes to every function.  The sanitizers see reads out of bounds
 * and undefined arithmetic; the checks below see wrong answers, by comparing
 * with the C library (strtoll, strtod, timegm) or with the function's own
 * answer for the same value written in another way.
 *
 *-------------------------------------------------------------------------
 */
#include "stages/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* the largest integer up to which a double holds all of them */
#define DOUBLE_EXACT	INT64_C(9007199254740992)

#define MUST(holds) \
	do { \
		if (!(holds)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #holds); \
			abort(); \
		} \
	} while (0)

static void check_numbers(const char *s, size_t len);
static void check_date(const char *s, size_t len);
static void check_time(const char *s, size_t len);
static void check_date_time(const char *s, size_t len);
static void check_formats(const char *s, size_t len);
static void check_boolean(const char *s, size_t len);
static void check_trim(const char *s, size_t len);
static void check_width(const char *s, size_t len);
static void check_equal_fold(const char *s, size_t len);
static char *copy_with_nul(const char *s, size_t len);
static size_t count_digits(const char *s, size_t len);
static bool matches(const char *s, size_t len, const char *shape);

/* libFuzzer's name for it; there is no header to declare it. */
int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *s = (const char *) data;

	check_numbers(s, size);
	check_date(s, size);
	check_time(s, size);
	check_date_time(s, size);
	check_formats(s, size);
	check_boolean(s, size);
	check_trim(s, size);
	check_width(s, size);
	check_equal_fold(s, size);
	MUST(utf8_length(s, size) <= size);
	return 0;
}

static void
check_numbers(const char *s, size_t len)
{
	int64_t		value = 0;
	bool		whole = false;
	ParseResult integer = parse_integer(s, len, &value);
	ParseResult decimal = parse_decimal(s, len, &whole);
	size_t		start = (len > 0 && (s[0] == '-' || s[0] == '+')) ? 1 : 0;
	char	   *text = copy_with_nul(s, len);
	char	   *end;

	/* the two agree, but for "7." and the bound on digits */
	if (integer == PARSE_SYNTAX)
		MUST(decimal == PARSE_SYNTAX);
	else if (s[len - 1] == '.')
		MUST(decimal == PARSE_SYNTAX);
	else if (count_digits(s, len) > PARSE_MAX_DIGITS)
		MUST(decimal == PARSE_RANGE);
	else if (integer == PARSE_OK)
		MUST(decimal == PARSE_OK && whole);
	else if (integer == PARSE_FRACTION)
		MUST(decimal == PARSE_OK && !whole);
	else
		MUST((decimal == PARSE_OK && whole) || decimal == PARSE_RANGE);

	/* strtoll() knows plain digits and both ends of int64 */
	if (len > start && count_digits(s, len) == len - start)
	{
		long long	expected;

		errno = 0;
		expected = strtoll(text, &end, 10);
		MUST(end == text + len);
		if (errno == ERANGE)
			MUST(integer == PARSE_RANGE);
		else
			MUST(integer == PARSE_OK && value == expected);
	}

	/* strtod() knows the points and exponents */
	if (integer == PARSE_OK || decimal == PARSE_OK)
	{
		double		expected = strtod(text, &end);

		MUST(end == text + len);
		if (integer == PARSE_OK && value >= -DOUBLE_EXACT && value <= DOUBLE_EXACT)
			MUST(expected == (double) value);
		/* fifteen digits survive in a double, fraction and all */
		if (integer == PARSE_FRACTION && count_digits(s, len) <= 15 && strpbrk(text, "eE") == NULL)
			MUST(expected != (double) (int64_t) expected);
		if (integer == PARSE_RANGE && decimal == PARSE_OK)
			MUST(expected >= 9.2e18 || expected <= -9.2e18);
	}

	/* written out and read again */
	if (integer == PARSE_OK)
	{
		char		again[64];
		int64_t		reread = 0;
		int			n = snprintf(again, sizeof(again), "%lld", (long long) value);

		MUST(parse_integer(again, (size_t) n, &reread) == PARSE_OK && reread == value);
		n = snprintf(again, sizeof(again), "%lld00.0e-2", (long long) value);
		MUST(parse_integer(again, (size_t) n, &reread) == PARSE_OK && reread == value);
		n = snprintf(again, sizeof(again), "%lld.01", (long long) value);
		MUST(parse_integer(again, (size_t) n, &reread) == PARSE_FRACTION);
	}

	free(text);
}

static void
check_date(const char *s, size_t len)
{
	ParsedDate	d;
	ParseResult result = parse_date(s, len, &d);
	struct tm	tm = {0};
	struct tm	normal;
	time_t		seconds;
	bool		exists;

	MUST((result != PARSE_SYNTAX) == matches(s, len, "0000-00-00"));
	if (result == PARSE_SYNTAX)
		return;

	/* a day exists if the C library does not make another one of it */
	tm.tm_year = (s[0] - '0') * 1000 + (s[1] - '0') * 100 + (s[2] - '0') * 10 + (s[3] - '0') - 1900;
	tm.tm_mon = (s[5] - '0') * 10 + (s[6] - '0') - 1;
	tm.tm_mday = (s[8] - '0') * 10 + (s[9] - '0');
	normal = tm;
	seconds = timegm(&normal);
	MUST(gmtime_r(&seconds, &normal) != NULL);
	exists = normal.tm_year == tm.tm_year && normal.tm_mon == tm.tm_mon &&
		normal.tm_mday == tm.tm_mday && tm.tm_year > -1900;
	MUST(result == (exists ? PARSE_OK : PARSE_RANGE));

	if (result == PARSE_OK)
	{
		char		again[64];

		snprintf(again, sizeof(again), "%04d-%02d-%02d", d.year, d.month, d.day);
		MUST(strlen(again) == len && memcmp(again, s, len) == 0);
	}
}

/* The time written in full, six digits of fraction and a numeric offset. */
static int
format_time(const ParsedTime *t, char *out, size_t size)
{
	int			offset = abs(t->offset_seconds) / 60;

	return snprintf(out, size, "%02d:%02d:%02d.%06d%c%02d:%02d", t->hour, t->minute, t->second,
					t->micros, t->offset_seconds < 0 ? '-' : '+', offset / 60, offset % 60);
}

static bool
same_time(const ParsedTime *a, const ParsedTime *b)
{
	return a->hour == b->hour && a->minute == b->minute && a->second == b->second &&
		a->micros == b->micros && a->has_offset == b->has_offset &&
		a->offset_seconds == b->offset_seconds;
}

static void
check_time(const char *s, size_t len)
{
	ParsedTime	t;
	ParsedTime	reread;
	ParseResult result = parse_time(s, len, &t);
	bool		zulu = len > 0 && (s[len - 1] == 'Z' || s[len - 1] == 'z');
	char		again[96];
	int			n;

	if (result != PARSE_SYNTAX)
	{
		size_t		tail = zulu ? 1 : 6;

		MUST(len >= 8 + tail && matches(s, 8, "00:00:00"));
		MUST(zulu || matches(s + len - 5, 5, "00:00"));
		MUST(len == 8 + tail ||
			 (s[8] == '.' && len > 9 + tail && count_digits(s + 9, len - 9 - tail) == len - 9 - tail));
	}
	else
	{
		MUST(!matches(s, len, "00:00:00Z") && !matches(s, len, "00:00:00.000z") &&
			 !matches(s, len, "00:00:00+00:00") && !matches(s, len, "00:00:00.0-00:00"));
	}
	if (result != PARSE_OK)
		return;

	MUST(t.hour >= 0 && t.hour <= 23 && t.minute >= 0 && t.minute <= 59);
	MUST(t.second >= 0 && t.second <= 60 && t.micros >= 0 && t.micros <= 999999);
	MUST(t.has_offset && abs(t.offset_seconds) <= 86340 && t.offset_seconds % 60 == 0);
	/* second 60 follows 23:59:59 UTC */
	MUST(t.second < 60 ||
		 (t.hour * 3600 + t.minute * 60 + 60 - t.offset_seconds + 86400) % 86400 == 0);

	n = format_time(&t, again, sizeof(again));
	MUST(parse_time(again, (size_t) n, &reread) == PARSE_OK && same_time(&reread, &t));

	/* what was written in full is written again as it was */
	MUST(memcmp(s, again, 8) == 0);
	if (!zulu && (t.offset_seconds != 0 || s[len - 6] == '+'))
		MUST(memcmp(s + len - 6, again + n - 6, 6) == 0);
	for (size_t i = 9; i < 15 && s[8] == '.' && s[i] >= '0' && s[i] <= '9'; i++)
		MUST(s[i] == again[i]);
}

static void
check_date_time(const char *s, size_t len)
{
	ParsedDate	d;
	ParsedDate	date;
	ParsedTime	t;
	ParsedTime	time;
	ParseResult result = parse_date_time(s, len, &d, &t);
	ParseResult date_result;
	ParseResult time_result;

	if (len < 11 || (s[10] != 'T' && s[10] != 't'))
	{
		MUST(result == PARSE_SYNTAX);
		return;
	}

	date_result = parse_date(s, 10, &date);
	time_result = parse_time(s + 11, len - 11, &time);
	if (date_result == PARSE_SYNTAX || time_result == PARSE_SYNTAX)
		MUST(result == PARSE_SYNTAX);
	else if (date_result == PARSE_RANGE || time_result == PARSE_RANGE)
		MUST(result == PARSE_RANGE);
	else if (time_result == PARSE_INEXACT)
		MUST(result == PARSE_INEXACT || result == PARSE_RANGE);
	else
	{
		struct tm	tm = {0};
		time_t		seconds;

		/* the second after a leap second begins a month in UTC */
		tm.tm_year = date.year - 1900;
		tm.tm_mon = date.month - 1;
		tm.tm_mday = date.day;
		tm.tm_hour = time.hour;
		tm.tm_min = time.minute;
		tm.tm_sec = time.second;
		seconds = timegm(&tm) - time.offset_seconds;
		MUST(gmtime_r(&seconds, &tm) != NULL);
		if (time.second == 60 && tm.tm_mday != 1)
			MUST(result == PARSE_RANGE);
		else
		{
			MUST(result == PARSE_OK);
			MUST(d.year == date.year && d.month == date.month && d.day == date.day);
			MUST(same_time(&t, &time));
		}
	}
}

/* The C library knows addresses; it reads a text up to its NUL. */
static void
check_formats(const char *s, size_t len)
{
	unsigned char address[16];
	char	   *text = copy_with_nul(s, len);
	bool		whole = strlen(text) == len;

	MUST(parse_ipv4(s, len) == (whole && inet_pton(AF_INET, text, address) == 1));
	MUST(parse_ipv6(s, len) == (whole && inet_pton(AF_INET6, text, address) == 1));
	if (parse_uuid(s, len))
		MUST(len == 36 && strspn(text, "0123456789abcdefABCDEF-") == len);
	if (parse_duration(s, len))
		MUST(len >= 3 && text[0] == 'P' && strspn(text, "P0123456789YMWDTHS") == len);
	if (parse_email(s, len))
		MUST(len <= 64 + 1 + 255 && whole && memchr(s, '@', len) != NULL);
	free(text);
}

static void
check_boolean(const char *s, size_t len)
{
	bool		value;
	char	   *text = copy_with_nul(s, len);
	bool		is_true = len == 4 && strcmp(text, "true") == 0;
	bool		is_false = len == 5 && strcmp(text, "false") == 0;

	MUST(parse_boolean(s, len, &value) == (is_true || is_false));
	if (is_true || is_false)
		MUST(value == is_true);
	free(text);
}

static void
check_trim(const char *s, size_t len)
{
	const char *trimmed = s;
	size_t		kept = normalise_trim(&trimmed, len);
	const char *twice = trimmed;
	int64_t		value;

	MUST(trimmed >= s && kept <= len && (size_t) (trimmed - s) <= len - kept);
	MUST(normalise_trim(&twice, kept) == kept && twice == trimmed);

	/* no parser takes what there is to trim */
	if (kept < len)
		MUST(parse_integer(s, len, &value) == PARSE_SYNTAX);
}

static void
check_width(const char *s, size_t len)
{
	char	   *out = malloc(len);
	char	   *in_place = copy_with_nul(s, len);
	size_t		n = normalise_width(s, len, out);

	MUST(n <= len);
	MUST(normalise_width_needed(s, len) == (n < len));
	MUST(!normalise_width_needed(out, n));
	MUST(utf8_length(s, len) == utf8_length(out, n));
	if (n == len && len > 0)
		MUST(memcmp(s, out, len) == 0);
	MUST(normalise_width(in_place, len, in_place) == n);
	if (n > 0)
		MUST(memcmp(in_place, out, n) == 0);

	free(in_place);
	free(out);
}

static void
check_equal_fold(const char *s, size_t len)
{
	size_t		half = len / 2;
	char	   *other = copy_with_nul(s, len);
	bool		equal = true;

	/* the letters' case turned round */
	for (size_t i = 0; i < len; i++)
	{
		if ((other[i] >= 'a' && other[i] <= 'z') || (other[i] >= 'A' && other[i] <= 'Z'))
			other[i] ^= 0x20;
	}
	MUST(equal_fold_ascii(s, len, other, len));
	MUST(len == 0 || !equal_fold_ascii(s, len, other, len - 1));

	/* one half of the input and the other */
	for (size_t i = 0; i < half; i++)
		equal = equal && (s[i] == s[half + i] || s[i] == other[half + i]);
	MUST(equal_fold_ascii(s, half, s + half, half) == equal);
	MUST(equal_fold_ascii(s + half, half, s, half) == equal);

	free(other);
}

/* For the C library, which needs a NUL at the end.  To be freed. */
static char *
copy_with_nul(const char *s, size_t len)
{
	char	   *copy = malloc(len + 1);

	if (copy == NULL)
		abort();
	if (len > 0)
		memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

static size_t
count_digits(const char *s, size_t len)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
		n += s[i] >= '0' && s[i] <= '9';
	return n;
}

/* Is the text like the shape, where 0 stands for any digit? */
static bool
matches(const char *s, size_t len, const char *shape)
{
	if (len != strlen(shape))
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (shape[i] == '0' ? (s[i] < '0' || s[i] > '9') : s[i] != shape[i])
			return false;
	}
	return true;
}
