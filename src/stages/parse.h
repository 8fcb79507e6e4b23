/*-------------------------------------------------------------------------
 *
 * parse.h
 *	  Total parsers and text normalisers for answers.
 *
 * PostgreSQL 15 has no soft errors: a cast that fails costs a subtransaction
 * and prints the patient's value into the server log.  So whether a text is
 * an integer, a date or a time is decided here, by functions that return a
 * result code.
 *
 * Rules that hold for every function below:
 *
 * - total: any bytes are allowed, NUL and invalid UTF-8 included.  Nothing is
 *	 raised, allocated or kept, or taken from locale, clock or settings;
 * - a text is a pointer and a length in bytes; no terminating NUL is needed
 *	 and no byte at or beyond s + len is read.  s may be NULL if len is 0;
 * - results go through pointers that must not be NULL, and are written only
 *	 when the function returns PARSE_OK (or true);
 * - time is O(len), memory is O(1);
 * - nothing is trimmed: " 7" is no integer.  Call normalise_trim() first where
 *	 the form declares it.
 *
 * This header and parse.c need no PostgreSQL header, so that unit tests and
 * fuzzers can link parse.c alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EPRO_ETL_PARSE_H
#define EPRO_ETL_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ParseResult
{
	PARSE_OK,					/* the value was stored */
	PARSE_SYNTAX,				/* not of the expected shape */
	PARSE_RANGE,				/* right shape, but no such value, or one that
								 * the result cannot hold exactly */
	PARSE_FRACTION,				/* parse_integer: a number, no integer */
	PARSE_INEXACT				/* parse_time, parse_date_time: valid, but
								 * finer than microseconds */
} ParseResult;

typedef struct ParsedDate
{
	int			year;			/* 1 .. 9999 */
	int			month;			/* 1 .. 12 */
	int			day;			/* 1 .. 31 */
} ParsedDate;

typedef struct ParsedTime
{
	int			hour;			/* 0 .. 23, local, as written */
	int			minute;			/* 0 .. 59 */
	int			second;			/* 0 .. 59, or 60 for a leap second */
	int			micros;			/* 0 .. 999999, microseconds */
	bool		has_offset;		/* always true: RFC 3339 demands one */
	int			offset_seconds; /* local minus UTC, seconds: +01:00 is 3600;
								 * -86340 .. 86340 */
} ParsedTime;

/* longest mantissa plus exponent, in digits, and largest exponent taken */
#define PARSE_MAX_DIGITS	1000
#define PARSE_MAX_EXPONENT	1000

/*
 * Integer: [+-]?digits(.0*)? with an optional exponent, whose mantissa then
 * has the JSON shape (RFC 8259 section 6) but for leading zeros and "+".
 *
 * JSON Schema 2020-12 (Validation, section 6.1.1) takes any number with a zero
 * fractional part as an integer, so "7.0", "1e2" and "70e-1" are 7, 100 and 7.
 *
 * PARSE_FRACTION: a number with a non-zero fractional part ("7.3", "1e-1"),
 * of whatever size.  PARSE_RANGE: an integer outside int64, or an exponent
 * outside -PARSE_MAX_EXPONENT .. PARSE_MAX_EXPONENT (even for zero; such a
 * number is not weighed).  PARSE_SYNTAX: all else.
 */
extern ParseResult parse_integer(const char *s, size_t len, int64_t *value);

/*
 * Decimal: [+-]?digits(.digits)?([eE][+-]?digits)?
 *
 * The text is only checked, for numeric_in() to convert: what is accepted here
 * neither fails there nor grows beyond some 2000 digits.  *is_integer says
 * whether the value is an integer ("7.0", "1e2").
 *
 * PARSE_RANGE: more than PARSE_MAX_DIGITS digits written (leading zeros and
 * the exponent's digits count), or an exponent outside -PARSE_MAX_EXPONENT ..
 * PARSE_MAX_EXPONENT.  PARSE_SYNTAX: all else, among it NaN, Infinity,
 * hexadecimal, digit groups ("1_000", "1,000"), ".5", "7." and white space.
 */
extern ParseResult parse_decimal(const char *s, size_t len, bool *is_integer);

/*
 * Date: RFC 3339 section 5.6 full-date, exactly YYYY-MM-DD in ASCII digits.
 *
 * The calendar is the proleptic Gregorian one (RFC 3339 appendix C).
 * PARSE_RANGE: right shape, but no such day (2026-02-30), or the year 0000,
 * which PostgreSQL's date does not know.  PARSE_SYNTAX: all else.
 */
extern ParseResult parse_date(const char *s, size_t len, ParsedDate *d);

/*
 * Time: RFC 3339 section 5.6 full-time, HH:MM:SS[.fraction] and then Z, z,
 * +HH:MM or -HH:MM.  The offset is required; -00:00 is taken as 0.
 *
 * PARSE_RANGE: right shape, but
 * - a field out of bounds (24:00:00Z, an offset of 24:00);
 * - a second of 60 anywhere but at 23:59 UTC (RFC 3339 section 5.7).
 * PARSE_INEXACT: a valid time with a non-zero digit beyond the sixth of the
 * fraction.  Microseconds cannot hold it, and cutting it off would alter the
 * answer.  Zeros there are accepted, however many.
 * PARSE_SYNTAX: all else.
 *
 * PostgreSQL has no leap seconds (it rolls 23:59:60 over to the next day) and
 * reads offsets up to 15:59:59 only: convert from the fields, not through
 * timestamptz_in().
 */
extern ParseResult parse_time(const char *s, size_t len, ParsedTime *t);

/*
 * Date and time: RFC 3339 section 5.6 date-time, full-date 'T' full-time,
 * where 'T' may be lower case (a space may not stand for it).
 *
 * PARSE_RANGE: as for parse_date() and parse_time(), and a leap second on any
 * day that is not the last of its month in UTC (RFC 3339 section 5.7).
 * PARSE_SYNTAX, for a text with any part misshapen, wins over PARSE_RANGE, and
 * that over PARSE_INEXACT.
 * On PARSE_OK both *d and *t are stored; otherwise neither is.
 */
extern ParseResult parse_date_time(const char *s, size_t len,
								   ParsedDate *d, ParsedTime *t);

/*
 * Duration: RFC 3339 appendix A, in capitals: "P", then either whole weeks
 * ("P4W") or years, months, days and, after a "T", hours, minutes, seconds,
 * with no unit left out between two ("P1Y2M", not "P1Y2D").  True if it is.
 */
extern bool parse_duration(const char *s, size_t len);

/*
 * E-mail address: RFC 5321 section 4.1.2, Mailbox.  A dot-string or a quoted
 * string, "@", and a domain of letters, digits and hyphens, or an address in
 * brackets ([192.0.2.1], [IPv6:2001:db8::1]).  The limits of section 4.5.3.1
 * hold: 64 bytes before the "@", 255 behind it, 63 a label.  ASCII only.
 */
extern bool parse_email(const char *s, size_t len);

/* IPv4 address: RFC 2673 section 3.2, four decimal numbers without leading zeros. */
extern bool parse_ipv4(const char *s, size_t len);

/* IPv6 address: RFC 4291 section 2.2, without a zone. */
extern bool parse_ipv6(const char *s, size_t len);

/* UUID: RFC 4122 section 3, in either case. */
extern bool parse_uuid(const char *s, size_t len);

/* Boolean: exactly "true" or "false" (RFC 8259 section 3).  True if it is. */
extern bool parse_boolean(const char *s, size_t len, bool *value);

/*
 * Strips leading and trailing white space: the characters with the Unicode
 * property White_Space (tab, LF, VT, FF, CR, space, U+0085, U+00A0, U+1680,
 * U+2000-200A, U+2028, U+2029, U+202F, U+205F, U+3000), and U+FEFF, the byte
 * order mark that exports leave behind.  UTF-8.
 *
 * Moves *s to the first byte kept and returns the new length in bytes.
 */
extern size_t normalise_trim(const char **s, size_t len);

/* Is there anything for normalise_width() to change? */
extern bool normalise_width_needed(const char *s, size_t len);

/*
 * Maps the full-width forms U+FF01 .. U+FF5E to ASCII 0x21 .. 0x7E and the
 * ideographic space U+3000 to a space; all other bytes are copied unchanged
 * (half-width katakana too: they are no ASCII).  UTF-8.
 *
 * out must have room for len bytes, and may be s itself.  Returns the number
 * of bytes written, at most len; no NUL is added.
 */
extern size_t normalise_width(const char *s, size_t len, char *out);

/* Are both texts equal but for the case of ASCII letters? */
extern bool equal_fold_ascii(const char *a, size_t alen,
							 const char *b, size_t blen);

/*
 * Length of a valid UTF-8 text in code points, as JSON Schema's minLength and
 * maxLength count (RFC 8259 section 8, "characters").  In an invalid text,
 * every byte that is no continuation byte counts as one.
 */
extern size_t utf8_length(const char *s, size_t len);

#endif							/* EPRO_ETL_PARSE_H */
