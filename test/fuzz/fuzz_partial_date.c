/*-------------------------------------------------------------------------
 *
 * fuzz_partial_date.c
 *	  Fuzz target for src/stages/partial_date.c.
 *
 * The sanitizers see reads out of bounds; the checks below see an interval that
 * is none, one whose ends are no days, and a whole date that parse_date() reads
 * otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "stages/partial_date.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(holds) \
	do { \
		if (!(holds)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #holds); \
			abort(); \
		} \
	} while (0)

static void must_be_a_day(ParsedDate date);
static int	number_of(ParsedDate date);

/* libFuzzer's name for it; there is no header to declare it. */
int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *s = (const char *) data;
	PartialDate date = {-1, -1, -1};
	ParsedDate	whole;
	ParseResult result = parse_partial_date(s, size, &date);
	ParseResult strict = parse_date(s, size, &whole);

	/* a whole date is one here too, with the same verdict */
	if (strict != PARSE_SYNTAX)
		MUST(result == strict);
	if (result != PARSE_OK)
	{
		MUST(date.year == -1 && date.month == -1 && date.day == -1);
		return 0;
	}
	must_be_a_day(partial_date_first(date));
	must_be_a_day(partial_date_last(date));
	MUST(number_of(partial_date_first(date)) <= number_of(partial_date_last(date)));
	MUST(number_of(partial_date_first(date)) / 10000 == number_of(partial_date_last(date)) / 10000);
	if (date.month && date.day)
		MUST(number_of(partial_date_first(date)) == number_of(partial_date_last(date)));
	if (strict == PARSE_OK)
		MUST(number_of(partial_date_first(date)) == number_of(whole));
	return 0;
}

static void
must_be_a_day(ParsedDate date)
{
	char		text[32];
	ParsedDate	again;
	int			len = snprintf(text, sizeof(text), "%04d-%02d-%02d", date.year, date.month, date.day);

	MUST(parse_date(text, (size_t) len, &again) == PARSE_OK);
	MUST(number_of(again) == number_of(date));
}

static int
number_of(ParsedDate date)
{
	return date.year * 10000 + date.month * 100 + date.day;
}
