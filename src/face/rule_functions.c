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
#include "stages/partial_date.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "words/compat.h"

PG_FUNCTION_INFO_V1(epro_etl_partial_date_earliest);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_latest);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_precision);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_before);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_after);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_not_before);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_not_after);
PG_FUNCTION_INFO_V1(epro_etl_partial_date_same);
PG_FUNCTION_INFO_V1(epro_etl_study_day);

/* The days that it may be, both included. */
typedef struct DateInterval
{
	DateADT		earliest;
	DateADT		latest;
} DateInterval;

static bool read_interval(const text *given, DateInterval *interval);
static DateADT day_of(ParsedDate date);
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

	if (parse_partial_date(VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given), &date) != PARSE_OK)
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

static bool
read_interval(const text *given, DateInterval *interval)
{
	PartialDate date;

	if (parse_partial_date(VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given), &date) != PARSE_OK)
		return false;
	interval->earliest = day_of(partial_date_first(date));
	interval->latest = day_of(partial_date_last(date));
	return true;
}

static DateADT
day_of(ParsedDate date)
{
	return date2j(date.year, date.month, date.day) - POSTGRES_EPOCH_JDATE;
}
