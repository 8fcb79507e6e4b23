/*
 * rule_functions.c
 *		What edit checks can call: partial dates and study days.
 *
 * A partial date stands for every day that it may be: so it has an earliest and
 * a latest one, and a comparison is NULL while both answers are possible.  Pure,
 * and total: no text raises an error, what cannot be read is NULL.  Owns
 * nothing, takes no lock.
 */
#include "postgres.h"

#include "fmgr.h"
#include "stages/parse.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

PG_FUNCTION_INFO_V1(epro_etl_partial_date_earliest);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_latest);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_precision);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_before);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_after);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_not_before);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_not_after);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_same);
PG_FUNCTION_INFO_V1(epro_etl_study_day);

/* What is known of a date; 0: unknown. */
typedef struct PartialDate
{
	int			year;
	int			month;
	int			day;
} PartialDate;

/* The days that it may be, both included. */
typedef struct DateInterval
{
	DateADT		earliest;
	DateADT		latest;
} DateInterval;

typedef enum Component
{
	COMPONENT_KNOWN,
	COMPONENT_UNKNOWN,			/* "-", UN or UNK */
	COMPONENT_NONE				/* neither */
} Component;

static bool read_interval(const text *given, DateInterval *interval);
static bool read_partial_date(const char *s, size_t len, PartialDate *date);
static Component read_component(const char **s, const char *end, int *number);
static bool is_time(const char *s, const char *end);
static bool digits(const char *s, const char *end, int n, int *number);
static int	days_in_month(int year, int month);
static DateADT day_of(int year, int month, int day);
static Datum compare(FunctionCallInfo fcinfo, bool strictly, bool swapped);

/* partial_date_earliest(text): the first day that it may be. */
Datum
epro_etl_partial_date_earliest(PG_FUNCTION_ARGS)
{
	DateInterval interval;

	if (!read_interval(PG_GETARG_TEXT_PP(0), &interval))
		PG_RETURN_NULL();
	PG_RETURN_DATEADT(interval.earliest);
}

/* partial_date_latest(text): the last day that it may be. */
Datum
epro_etl_partial_date_latest(PG_FUNCTION_ARGS)
{
	DateInterval interval;

	if (!read_interval(PG_GETARG_TEXT_PP(0), &interval))
		PG_RETURN_NULL();
	PG_RETURN_DATEADT(interval.latest);
}

/*
 * partial_date_precision(text): year, month or day, up to which it is known
 * without a gap.
 */
Datum
epro_etl_partial_date_precision(PG_FUNCTION_ARGS)
{
	text	   *given = PG_GETARG_TEXT_PP(0);
	PartialDate date;

	if (!read_partial_date(VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given), &date))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(date.month == 0 ? "year" : date.day == 0 ? "month" : "day"));
}

/* partial_date_before(a, b): is every day of a before every day of b, or none? */
Datum
epro_etl_partial_date_before(PG_FUNCTION_ARGS)
{
	return compare(fcinfo, true, false);
}

/* partial_date_after(a, b) */
Datum
epro_etl_partial_date_after(PG_FUNCTION_ARGS)
{
	return compare(fcinfo, true, true);
}

/* partial_date_not_before(a, b) */
Datum
epro_etl_partial_date_not_before(PG_FUNCTION_ARGS)
{
	return compare(fcinfo, false, true);
}

/* partial_date_not_after(a, b) */
Datum
epro_etl_partial_date_not_after(PG_FUNCTION_ARGS)
{
	return compare(fcinfo, false, false);
}

/* partial_date_same(a, b): true only of two whole dates */
Datum
epro_etl_partial_date_same(PG_FUNCTION_ARGS)
{
	DateInterval a;
	DateInterval b;

	if (!read_interval(PG_GETARG_TEXT_PP(0), &a) || !read_interval(PG_GETARG_TEXT_PP(1), &b))
		PG_RETURN_NULL();
	if (a.latest < b.earliest || b.latest < a.earliest)
		PG_RETURN_BOOL(false);
	if (a.earliest == a.latest && b.earliest == b.latest)
		PG_RETURN_BOOL(true);
	PG_RETURN_NULL();
}

/*
 * study_day(date, reference): the reference is day 1, the day before it -1;
 * there is no day 0.  NULL for a date without end.
 */
Datum
epro_etl_study_day(PG_FUNCTION_ARGS)
{
	DateADT		date = PG_GETARG_DATEADT(0);
	DateADT		reference = PG_GETARG_DATEADT(1);

	if (DATE_NOT_FINITE(date) || DATE_NOT_FINITE(reference))
		PG_RETURN_NULL();
	PG_RETURN_INT32(date - reference + (date >= reference ? 1 : 0));
}

/* a < b (strictly) or a <= b, of all their days or of none; NULL: of some. */
static Datum
compare(FunctionCallInfo fcinfo, bool strictly, bool swapped)
{
	DateInterval a;
	DateInterval b;
	int			reach = strictly ? 0 : 1;

	if (!read_interval(PG_GETARG_TEXT_PP(swapped ? 1 : 0), &a) ||
		!read_interval(PG_GETARG_TEXT_PP(swapped ? 0 : 1), &b))
		PG_RETURN_NULL();
	if (a.latest < b.earliest + reach)
		PG_RETURN_BOOL(true);
	if (a.earliest >= b.latest + reach)
		PG_RETURN_BOOL(false);
	PG_RETURN_NULL();
}

/* With an unknown month, every month has the day in question but for its end. */
static bool
read_interval(const text *given, DateInterval *interval)
{
	PartialDate date;
	int			last_month;

	if (!read_partial_date(VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given), &date))
		return false;
	last_month = date.month ? date.month : MONTHS_PER_YEAR;
	interval->earliest = day_of(date.year, date.month ? date.month : 1,
								date.day ? date.day : 1);
	interval->latest = day_of(date.year, last_month,
							  date.day ? date.day : days_in_month(date.year, last_month));
	return true;
}

/*
 * YYYY[-MM[-DD[Thh[:mm[:ss[.s]]]]]], where month and day may be "-", UN or UNK;
 * YYYY--- is a year, too.
 */
static bool
read_partial_date(const char *s, size_t len, PartialDate *date)
{
	const char *end = s + len;
	Component	month = COMPONENT_UNKNOWN;
	Component	day = COMPONENT_UNKNOWN;

	memset(date, 0, sizeof(*date));
	if (!digits(s, end, 4, &date->year) || date->year == 0)
		return false;
	s += 4;
	if (s < end)
	{
		if (*s++ != '-')
			return false;
		month = read_component(&s, end, &date->month);
	}
	if (s < end)
	{
		bool		dashed = s[-1] == '-';

		if (month == COMPONENT_NONE || *s++ != '-')
			return false;
		if (s < end || !dashed)
			day = read_component(&s, end, &date->day);
	}
	if (month == COMPONENT_NONE || day == COMPONENT_NONE)
		return false;
	if (month == COMPONENT_KNOWN && (date->month < 1 || date->month > MONTHS_PER_YEAR))
		return false;
	if (day == COMPONENT_KNOWN &&
		(date->day < 1 || date->day > days_in_month(date->year, date->month ? date->month : 1)))
		return false;
	if (s < end)
		return month == COMPONENT_KNOWN && day == COMPONENT_KNOWN && is_time(s, end);
	return true;
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

/* Thh[:mm[:ss[.s]]], without an offset: the date is the local one as written. */
static bool
is_time(const char *s, const char *end)
{
	static const int most[] = {23, 59, 59};
	int			number;

	for (int i = 0; i < (int) lengthof(most); i++)
	{
		if (*s++ != (i == 0 ? 'T' : ':') || !digits(s, end, 2, &number) || number > most[i])
			return false;
		s += 2;
		if (s == end)
			return true;
	}
	if (*s++ != '.' || s == end)
		return false;
	while (s < end && *s >= '0' && *s <= '9')
		s++;
	return s == end;
}

/* Do just n digits stand here? */
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
	return day_tab[isleap(year)][month - 1];
}

static DateADT
day_of(int year, int month, int day)
{
	return date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
}
