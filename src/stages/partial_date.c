/*
 * partial_date.c
 *		Reads partial dates.  Pure and total, as parse.c is, and like it linked
 *		by unit tests and fuzzers without a server; owns nothing, takes no lock.
 */
#include "stages/partial_date.h"

#define MONTHS 12

typedef enum Component
{
	COMPONENT_KNOWN,
	COMPONENT_UNKNOWN,			/* "-", UN or UNK */
	COMPONENT_NONE				/* neither */
} Component;

static Component read_component(const char **s, const char *end, int *number);
static ParseResult read_time(const char *s, const char *end);
static bool digits(const char *s, const char *end, int n, int *number);
static int	days_in_month(int year, int month);

ParseResult
parse_partial_date(const char *s, size_t len, PartialDate *date)
{
	const char *end;
	PartialDate read = {0, 0, 0};
	Component	month = COMPONENT_UNKNOWN;
	Component	day = COMPONENT_UNKNOWN;
	ParseResult time = PARSE_OK;

	if (len < 4)
		return PARSE_SYNTAX;
	end = s + len;
	if (!digits(s, end, 4, &read.year))
		return PARSE_SYNTAX;
	s += 4;
	if (s < end)
	{
		if (*s++ != '-')
			return PARSE_SYNTAX;
		month = read_component(&s, end, &read.month);
	}
	if (s < end)
	{
		bool		dashed = s[-1] == '-';

		if (month == COMPONENT_NONE || *s++ != '-')
			return PARSE_SYNTAX;
		if (s < end || !dashed)
			day = read_component(&s, end, &read.day);
	}
	if (month == COMPONENT_NONE || day == COMPONENT_NONE)
		return PARSE_SYNTAX;
	if (s < end)
	{
		time = read_time(s, end);
		if (time == PARSE_SYNTAX || month != COMPONENT_KNOWN || day != COMPONENT_KNOWN)
			return PARSE_SYNTAX;
	}
	if (read.year == 0 || time == PARSE_RANGE ||
		(month == COMPONENT_KNOWN && (read.month < 1 || read.month > MONTHS)) ||
		(day == COMPONENT_KNOWN &&
		 (read.day < 1 || read.day > days_in_month(read.year, read.month ? read.month : 1))))
		return PARSE_RANGE;
	*date = read;
	return PARSE_OK;
}

/* January has every day that a month may have. */
ParsedDate
partial_date_first(PartialDate date)
{
	ParsedDate	first;

	first.year = date.year;
	first.month = date.month ? date.month : 1;
	first.day = date.day ? date.day : 1;
	return first;
}

/* So has December. */
ParsedDate
partial_date_last(PartialDate date)
{
	ParsedDate	last;

	last.year = date.year;
	last.month = date.month ? date.month : MONTHS;
	last.day = date.day ? date.day : days_in_month(last.year, last.month);
	return last;
}

static Component
read_component(const char **s, const char *end, int *number)
{
	if (digits(*s, end, 2, number))
	{
		*s += 2;
		return COMPONENT_KNOWN;
	}
	if (*s < end && **s == '-')
	{
		*s += 1;
		return COMPONENT_UNKNOWN;
	}
	for (int n = 3; n >= 2; n--)
	{
		if (end - *s >= n && equal_fold_ascii(*s, n, "UNK", n))
		{
			*s += n;
			return COMPONENT_UNKNOWN;
		}
	}
	return COMPONENT_NONE;
}

static ParseResult
read_time(const char *s, const char *end)
{
	static const int most[] = {23, 59, 59};
	ParseResult result = PARSE_OK;
	int			number;

	for (int i = 0; i < 3; i++)
	{
		if (*s++ != (i == 0 ? 'T' : ':') || !digits(s, end, 2, &number))
			return PARSE_SYNTAX;
		if (number > most[i])
			result = PARSE_RANGE;
		s += 2;
		if (s == end)
			return result;
	}
	if (*s++ != '.' || s == end)
		return PARSE_SYNTAX;
	while (s < end && *s >= '0' && *s <= '9')
		s++;
	return s == end ? result : PARSE_SYNTAX;
}

/* Do n digits stand here? */
static bool
digits(const char *s, const char *end, int n, int *number)
{
	int			read = 0;

	if (end - s < n)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (s[i] < '0' || s[i] > '9')
			return false;
		read = read * 10 + (s[i] - '0');
	}
	*number = read;
	return true;
}

static int
days_in_month(int year, int month)
{
	static const int days[MONTHS] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && leap);
}
