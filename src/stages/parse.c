/*-------------------------------------------------------------------------
 *
 * parse.c
 *	  Total parsers and text normalisers for answers.
 *
 * See parse.h for what each function takes and returns, and for the rules
 * that hold for all.
 *
 * A loader calls these functions some millions of times a second, so what is
 * common is short: an integer of up to 18 digits cannot overflow and is read
 * in one loop, a date is ten fixed places, and text that is all ASCII is
 * passed over eight bytes at a time.
 *
 * Everything here works on bytes, not characters.  That is sound for UTF-8,
 * where the bytes of one character never occur inside another one.
 *
 *-------------------------------------------------------------------------
 */
#include "stages/parse.h"

#include <string.h>

/* any number of this many digits fits into int64 */
#define SAFE_DIGITS			18

#define MINUTES_PER_HOUR	60
#define MINUTES_PER_DAY		1440

/* "HH:MM:SS", and the whole of the shortest time, "HH:MM:SSZ" */
#define CLOCK_LEN			8
#define MIN_TIME_LEN		9
#define DATE_LEN			10
#define NUMERIC_OFFSET_LEN	6
#define FRACTION_DIGITS		6

/* of an e-mail address, in bytes (RFC 5321 section 4.5.3.1, RFC 1035) */
#define MAX_LOCAL_PART		64
#define MAX_DOMAIN			255
#define MAX_LABEL			63

#define UUID_TEXT_LEN		36

/*
 * A number as written: sign, digits, point, digits, exponent.  The pointers
 * are into the text.
 */
typedef struct ScannedNumber
{
	bool		negative;
	bool		has_point;
	bool		has_exponent;
	const char *whole;			/* digits before the point, at least one */
	size_t		nwhole;
	const char *frac;			/* digits after the point, perhaps none */
	size_t		nfrac;
	size_t		nexponent;		/* digits of the exponent */
	int			exponent;		/* its value; stops growing once beyond
								 * PARSE_MAX_EXPONENT */
} ScannedNumber;

static ParseResult scan_number(const char *s, size_t len, ScannedNumber *n);
static int64_t point_position(const ScannedNumber *n);
static bool number_is_integer(const ScannedNumber *n);
static bool exponent_in_bounds(const ScannedNumber *n);
static int	number_digit(const ScannedNumber *n, size_t i);
static ParseResult read_time(const char *s, size_t len, ParsedTime *t);
static int	last_day_of_month(int year, int month);
static bool parse_offset(const char *s, size_t len, int *hour, int *minute);
static int	utc_minute(const ParsedTime *t);
static size_t ordered_units(const char *s, size_t len, const char *units);
static size_t local_part_len(const char *s, size_t len);
static bool is_domain(const char *s, size_t len);
static bool is_hex(char c);
static bool is_alphanumeric(char c);
static size_t white_space_width(const char *s, size_t len);
static size_t trailing_white_space_width(const char *s, size_t len);
static size_t ascii_prefix(const char *s, size_t len);
static int	full_width_to_ascii(const char *s, size_t len);

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The value of two ASCII digits, or -1. */
static inline int
two_digits(const char *s)
{
	if (!is_digit(s[0]) || !is_digit(s[1]))
		return -1;
	return (s[0] - '0') * 10 + (s[1] - '0');
}

static inline char
ascii_lower(char c)
{
	return (c >= 'A' && c <= 'Z') ? (char) (c + ('a' - 'A')) : c;
}

/* ---------- numbers ---------- */

ParseResult
parse_integer(const char *s, size_t len, int64_t *value)
{
	ScannedNumber n;
	size_t		start = (len > 0 && (s[0] == '-' || s[0] == '+')) ? 1 : 0;
	int64_t		ndigits;
	int64_t		v = 0;

	if (len > start && len - start <= SAFE_DIGITS)
	{
		size_t		i;

		for (i = start; i < len && is_digit(s[i]); i++)
			v = v * 10 + (s[i] - '0');
		if (i == len)
		{
			*value = (s[0] == '-') ? -v : v;
			return PARSE_OK;
		}
	}

	if (scan_number(s, len, &n) != PARSE_OK)
		return PARSE_SYNTAX;
	/* "7." is let pass as people write it, "7.e1" is nobody's number */
	if (n.has_exponent && n.has_point && n.nfrac == 0)
		return PARSE_SYNTAX;
	if (!exponent_in_bounds(&n))
		return PARSE_RANGE;
	if (!number_is_integer(&n))
		return PARSE_FRACTION;

	/*
	 * Go on below zero, because INT64_MIN has no positive counterpart.  The
	 * test is v * 10 - digit >= INT64_MIN, turned so that it cannot overflow;
	 * division truncates towards zero, which is upwards here.
	 */
	ndigits = point_position(&n);
	v = 0;
	for (int64_t i = 0; i < ndigits; i++)
	{
		int			digit = number_digit(&n, (size_t) i);

		if (v < (INT64_MIN + digit) / 10)
			return PARSE_RANGE;
		v = v * 10 - digit;
	}
	if (!n.negative && v == INT64_MIN)
		return PARSE_RANGE;

	*value = n.negative ? v : -v;
	return PARSE_OK;
}

ParseResult
parse_decimal(const char *s, size_t len, bool *is_integer)
{
	ScannedNumber n;

	if (scan_number(s, len, &n) != PARSE_OK)
		return PARSE_SYNTAX;
	if (n.has_point && n.nfrac == 0)
		return PARSE_SYNTAX;
	if (n.nwhole + n.nfrac + n.nexponent > PARSE_MAX_DIGITS)
		return PARSE_RANGE;
	if (!exponent_in_bounds(&n))
		return PARSE_RANGE;

	*is_integer = number_is_integer(&n);
	return PARSE_OK;
}

/*
 * Splits [+-]?digits(.digits*)?([eE][+-]?digits)? into its parts.  Returns
 * PARSE_OK or PARSE_SYNTAX; on PARSE_SYNTAX *n is of no use.
 */
static ParseResult
scan_number(const char *s, size_t len, ScannedNumber *n)
{
	size_t		i = 0;

	memset(n, 0, sizeof(*n));

	if (i < len && (s[i] == '-' || s[i] == '+'))
		n->negative = (s[i++] == '-');

	if (i == len || !is_digit(s[i]))
		return PARSE_SYNTAX;
	n->whole = s + i;
	while (i < len && is_digit(s[i]))
	{
		i++;
		n->nwhole++;
	}

	if (i < len && s[i] == '.')
	{
		n->has_point = true;
		i++;
		n->frac = s + i;
		while (i < len && is_digit(s[i]))
		{
			i++;
			n->nfrac++;
		}
	}

	if (i < len && (s[i] == 'e' || s[i] == 'E'))
	{
		bool		negative = false;

		n->has_exponent = true;
		i++;
		if (i < len && (s[i] == '-' || s[i] == '+'))
			negative = (s[i++] == '-');
		while (i < len && is_digit(s[i]))
		{
			if (n->exponent <= PARSE_MAX_EXPONENT)
				n->exponent = n->exponent * 10 + (s[i] - '0');
			i++;
			n->nexponent++;
		}
		if (n->nexponent == 0)
			return PARSE_SYNTAX;
		if (negative)
			n->exponent = -n->exponent;
	}

	return (i == len) ? PARSE_OK : PARSE_SYNTAX;
}

/*
 * How many of the number's digits, counted from the first one written, stand
 * before the point once the exponent has moved it.  May be negative, or more
 * than there are digits.
 */
static int64_t
point_position(const ScannedNumber *n)
{
	return (int64_t) n->nwhole + n->exponent;
}

/* Are all digits after the (moved) point zero? */
static bool
number_is_integer(const ScannedNumber *n)
{
	int64_t		point = point_position(n);
	size_t		ndigits = n->nwhole + n->nfrac;

	for (size_t i = (point > 0) ? (size_t) point : 0; i < ndigits; i++)
	{
		if (number_digit(n, i) != 0)
			return false;
	}
	return true;
}

static bool
exponent_in_bounds(const ScannedNumber *n)
{
	return n->exponent >= -PARSE_MAX_EXPONENT &&
		n->exponent <= PARSE_MAX_EXPONENT;
}

/* The i-th digit as if there were no point; zero beyond the last one. */
static int
number_digit(const ScannedNumber *n, size_t i)
{
	if (i < n->nwhole)
		return n->whole[i] - '0';
	i -= n->nwhole;
	return (i < n->nfrac) ? n->frac[i] - '0' : 0;
}

/* ---------- dates and times ---------- */

ParseResult
parse_date(const char *s, size_t len, ParsedDate *d)
{
	int			century;
	int			year;
	int			month;
	int			day;

	if (len != DATE_LEN || s[4] != '-' || s[7] != '-')
		return PARSE_SYNTAX;

	century = two_digits(s);
	year = two_digits(s + 2);
	month = two_digits(s + 5);
	day = two_digits(s + 8);
	if (century < 0 || year < 0 || month < 0 || day < 0)
		return PARSE_SYNTAX;

	year += century * 100;
	if (year < 1 || month < 1 || month > 12 ||
		day < 1 || day > last_day_of_month(year, month))
		return PARSE_RANGE;

	d->year = year;
	d->month = month;
	d->day = day;
	return PARSE_OK;
}

ParseResult
parse_time(const char *s, size_t len, ParsedTime *t)
{
	ParsedTime	r = {0};
	ParseResult result = read_time(s, len, &r);

	if (result == PARSE_OK)
		*t = r;
	return result;
}

/* Also stores a time that is PARSE_INEXACT, cut to microseconds. */
static ParseResult
read_time(const char *s, size_t len, ParsedTime *t)
{
	ParsedTime	r = {0};
	int			scale = 100000;
	bool		too_fine = false;
	int			offset_hour;
	int			offset_minute;
	size_t		i = CLOCK_LEN;

	/* the shape, all of it, before any value is judged */
	if (len < MIN_TIME_LEN || s[2] != ':' || s[5] != ':')
		return PARSE_SYNTAX;

	r.hour = two_digits(s);
	r.minute = two_digits(s + 3);
	r.second = two_digits(s + 6);
	if (r.hour < 0 || r.minute < 0 || r.second < 0)
		return PARSE_SYNTAX;

	if (s[i] == '.')
	{
		i++;
		if (i == len || !is_digit(s[i]))
			return PARSE_SYNTAX;
		for (; i < len && is_digit(s[i]); i++)
		{
			/* beyond the sixth digit scale is 0 */
			r.micros += (s[i] - '0') * scale;
			if (scale == 0 && s[i] != '0')
				too_fine = true;
			scale /= 10;
		}
	}

	if (!parse_offset(s + i, len - i, &offset_hour, &offset_minute))
		return PARSE_SYNTAX;

	if (r.hour > 23 || r.minute > 59 || r.second > 60 ||
		offset_hour < -23 || offset_hour > 23 ||
		offset_minute < -59 || offset_minute > 59)
		return PARSE_RANGE;

	r.has_offset = true;
	r.offset_seconds = (offset_hour * MINUTES_PER_HOUR + offset_minute) * 60;

	/* a leap second comes after 23:59:59 UTC, whatever the local time */
	if (r.second == 60 &&
		(utc_minute(&r) + 1) % MINUTES_PER_DAY != 0)
		return PARSE_RANGE;

	*t = r;
	return too_fine ? PARSE_INEXACT : PARSE_OK;
}

ParseResult
parse_date_time(const char *s, size_t len, ParsedDate *d, ParsedTime *t)
{
	ParsedDate	date;
	ParsedTime	time = {0};
	ParseResult date_result;
	ParseResult time_result;

	if (len <= DATE_LEN || (s[DATE_LEN] != 'T' && s[DATE_LEN] != 't'))
		return PARSE_SYNTAX;

	date_result = parse_date(s, DATE_LEN, &date);
	time_result = read_time(s + DATE_LEN + 1, len - DATE_LEN - 1, &time);
	if (date_result == PARSE_SYNTAX || time_result == PARSE_SYNTAX)
		return PARSE_SYNTAX;
	if (date_result != PARSE_OK)
		return date_result;
	if (time_result == PARSE_RANGE)
		return time_result;

	/*
	 * A leap second ends a month in UTC.  read_time() has seen to it that
	 * the UTC time is 23:59, so the UTC date is the local one, or with an
	 * offset east of UTC it may be the day before.
	 */
	if (time.second == 60)
	{
		int			leap_day = last_day_of_month(date.year, date.month);

		if (utc_minute(&time) < 0)
			leap_day = 1;
		if (date.day != leap_day)
			return PARSE_RANGE;
	}

	if (time_result != PARSE_OK)
		return time_result;
	*d = date;
	*t = time;
	return PARSE_OK;
}

static int
last_day_of_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return (month == 2 && leap) ? 29 : days[month - 1];
}

/*
 * RFC 3339 section 5.6 time-offset, the whole of the text.  Both parts carry
 * the sign.  False if the shape is wrong; values are not judged.
 */
static bool
parse_offset(const char *s, size_t len, int *hour, int *minute)
{
	int			sign;

	if (len == 1 && (s[0] == 'Z' || s[0] == 'z'))
	{
		*hour = 0;
		*minute = 0;
		return true;
	}

	if (len != NUMERIC_OFFSET_LEN ||
		(s[0] != '+' && s[0] != '-') || s[3] != ':')
		return false;
	*hour = two_digits(s + 1);
	*minute = two_digits(s + 4);
	if (*hour < 0 || *minute < 0)
		return false;

	sign = (s[0] == '-') ? -1 : 1;
	*hour *= sign;
	*minute *= sign;
	return true;
}

/* Minute of the local day in UTC: negative if it falls into the day before. */
static int
utc_minute(const ParsedTime *t)
{
	return t->hour * MINUTES_PER_HOUR + t->minute - t->offset_seconds / 60;
}

/* ---------- durations, addresses, identifiers ---------- */

bool
parse_duration(const char *s, size_t len)
{
	size_t		date;

	if (len < 3 || s[0] != 'P')
		return false;
	s++;
	len--;
	if (ordered_units(s, len, "W") == len)
		return true;
	date = ordered_units(s, len, "YMD");
	if (date == len)
		return true;
	s += date;
	len -= date;
	return len > 1 && s[0] == 'T' && ordered_units(s + 1, len - 1, "HMS") == len - 1;
}

/*
 * Length of "1Y2M3D" and the like that the text begins with, 0 if it begins
 * with none: each unit follows the one before it in the list.
 */
static size_t
ordered_units(const char *s, size_t len, const char *units)
{
	size_t		end = 0;
	const char *next = NULL;

	for (;;)
	{
		size_t		i = end;

		while (i < len && is_digit(s[i]))
			i++;
		if (i == end || i == len)
			return end;
		if (next == NULL)
		{
			next = units;
			while (*next != '\0' && *next != s[i])
				next++;
		}
		if (*next == '\0' || *next != s[i])
			return end;
		next++;
		end = i + 1;
	}
}

bool
parse_email(const char *s, size_t len)
{
	size_t		local = local_part_len(s, len);

	if (local == 0 || local > MAX_LOCAL_PART || local >= len || s[local] != '@')
		return false;
	s += local + 1;
	len -= local + 1;
	if (len > 2 && s[0] == '[' && s[len - 1] == ']')
	{
		if (len > 7 && equal_fold_ascii(s + 1, 5, "IPv6:", 5))
			return parse_ipv6(s + 6, len - 7);
		return parse_ipv4(s + 1, len - 2);
	}
	return is_domain(s, len);
}

/* Length of the Dot-string or Quoted-string that the text begins with, or 0. */
static size_t
local_part_len(const char *s, size_t len)
{
	size_t		i = 0;

	if (len > 0 && s[0] == '"')
	{
		for (i = 1; i < len && s[i] != '"'; i++)
		{
			if (s[i] == '\\' && ++i == len)
				return 0;
			if (s[i] < ' ' || s[i] > '~')
				return 0;
		}
		return i < len ? i + 1 : 0;
	}
	for (;;)
	{
		size_t		start = i;

		while (i < len && s[i] != '\0' &&
			   (is_alphanumeric(s[i]) || strchr("!#$%&'*+-/=?^_`{|}~", s[i]) != NULL))
			i++;
		if (i == start)
			return 0;
		if (i == len || s[i] != '.')
			return i;
		i++;
	}
}

/* Labels of letters, digits and inner hyphens, joined by dots. */
static bool
is_domain(const char *s, size_t len)
{
	size_t		start = 0;

	if (len == 0 || len > MAX_DOMAIN)
		return false;
	for (size_t i = 0; i <= len; i++)
	{
		if (i < len && s[i] != '.')
		{
			if (!is_alphanumeric(s[i]) && s[i] != '-')
				return false;
			continue;
		}
		if (i == start || i - start > MAX_LABEL || s[start] == '-' || s[i - 1] == '-')
			return false;
		start = i + 1;
	}
	return true;
}

bool
parse_ipv4(const char *s, size_t len)
{
	size_t		i = 0;

	for (int part = 0; part < 4; part++)
	{
		size_t		start = i;
		int			number = 0;

		while (i < len && is_digit(s[i]) && i - start < 3)
			number = number * 10 + (s[i++] - '0');
		if (i == start || number > 255 || (s[start] == '0' && i - start > 1))
			return false;
		if (part < 3 && (i == len || s[i++] != '.'))
			return false;
	}
	return i == len;
}

bool
parse_ipv6(const char *s, size_t len)
{
	int			groups = 0;
	bool		gap = false;
	size_t		i = 0;

	if (len >= 2 && s[0] == ':' && s[1] == ':')
	{
		gap = true;
		i = 2;
	}
	while (i < len)
	{
		size_t		start = i;

		while (i < len && is_hex(s[i]) && i - start < 4)
			i++;
		if (i == start)
			return false;
		/* the last two groups may be written as an IPv4 address */
		if (i < len && s[i] == '.')
		{
			if (!parse_ipv4(s + start, len - start))
				return false;
			groups += 2;
			break;
		}
		groups++;
		if (i == len)
			break;
		if (s[i++] != ':' || i == len)
			return false;
		if (s[i] == ':')
		{
			if (gap)
				return false;
			gap = true;
			i++;
		}
	}
	return gap ? groups < 8 : groups == 8;
}

bool
parse_uuid(const char *s, size_t len)
{
	if (len != UUID_TEXT_LEN)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !is_hex(s[i]))
			return false;
	}
	return true;
}

static bool
is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool
is_alphanumeric(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---------- booleans ---------- */

bool
parse_boolean(const char *s, size_t len, bool *value)
{
	if (len == 4 && memcmp(s, "true", 4) == 0)
		*value = true;
	else if (len == 5 && memcmp(s, "false", 5) == 0)
		*value = false;
	else
		return false;
	return true;
}

/* ---------- text ---------- */

size_t
normalise_trim(const char **s, size_t len)
{
	size_t		width;

	while ((width = white_space_width(*s, len)) > 0)
	{
		*s += width;
		len -= width;
	}
	while ((width = trailing_white_space_width(*s, len)) > 0)
		len -= width;
	return len;
}

bool
normalise_width_needed(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		i += ascii_prefix(s + i, len - i);
		if (i < len && full_width_to_ascii(s + i, len - i) >= 0)
			return true;
	}
	return false;
}

size_t
normalise_width(const char *s, size_t len, char *out)
{
	size_t		n = 0;
	size_t		i = 0;

	/* out never gets ahead of s, so they may be the same */
	while (i < len)
	{
		int			ascii = full_width_to_ascii(s + i, len - i);

		if (ascii >= 0)
		{
			out[n++] = (char) ascii;
			i += 3;
		}
		else
			out[n++] = s[i++];
	}
	return n;
}

bool
equal_fold_ascii(const char *a, size_t alen, const char *b, size_t blen)
{
	if (alen != blen)
		return false;
	for (size_t i = 0; i < alen; i++)
	{
		if (ascii_lower(a[i]) != ascii_lower(b[i]))
			return false;
	}
	return true;
}

size_t
utf8_length(const char *s, size_t len)
{
	size_t		n = 0;

	/* count what is no continuation byte, 10xxxxxx */
	for (size_t i = 0; i < len; i++)
		n += ((unsigned char) s[i] & 0xC0) != 0x80;
	return n;
}

/*
 * Width in bytes of the white space character that the text begins with, or 0
 * if it begins with none.
 */
static size_t
white_space_width(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *) s;
	int			code;

	if (len == 0)
		return 0;
	if (u[0] < 0x80)
		return (u[0] == ' ' || (u[0] >= '\t' && u[0] <= '\r')) ? 1 : 0;

	/* U+0085, U+00A0 */
	if (u[0] == 0xC2)
		return (len >= 2 && (u[1] == 0x85 || u[1] == 0xA0)) ? 2 : 0;

	/* what is left is three bytes wide, 1110xxxx 10xxxxxx 10xxxxxx */
	if (len < 3 || (u[0] & 0xF0) != 0xE0 ||
		(u[1] & 0xC0) != 0x80 || (u[2] & 0xC0) != 0x80)
		return 0;
	code = (u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F);
	if (code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
		code == 0x2028 || code == 0x2029 || code == 0x202F ||
		code == 0x205F || code == 0x3000 || code == 0xFEFF)
		return 3;
	return 0;
}

/* The same for the character that the text ends with. */
static size_t
trailing_white_space_width(const char *s, size_t len)
{
	for (size_t width = 1; width <= 3 && width <= len; width++)
	{
		if (white_space_width(s + len - width, width) == width)
			return width;
	}
	return 0;
}

/*
 * How many bytes, eight at a time, the text begins with that are ASCII for
 * sure.  May stop short.
 */
static size_t
ascii_prefix(const char *s, size_t len)
{
	size_t		i = 0;
	uint64_t	word;

	while (len - i >= sizeof(word))
	{
		memcpy(&word, s + i, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			break;
		i += sizeof(word);
	}
	return i;
}

/*
 * The ASCII counterpart of the full-width character that the text begins with,
 * or -1 if it begins with none.  All of them are three bytes wide.
 */
static int
full_width_to_ascii(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *) s;

	if (len < 3)
		return -1;
	/* U+3000 */
	if (u[0] == 0xE3 && u[1] == 0x80 && u[2] == 0x80)
		return ' ';
	/* U+FF01 .. U+FF3F: 0x21 .. 0x5F */
	if (u[0] == 0xEF && u[1] == 0xBC && u[2] >= 0x81 && u[2] <= 0xBF)
		return u[2] - 0x81 + 0x21;
	/* U+FF40 .. U+FF5E: 0x60 .. 0x7E */
	if (u[0] == 0xEF && u[1] == 0xBD && u[2] >= 0x80 && u[2] <= 0x9E)
		return u[2] - 0x80 + 0x60;
	return -1;
}
