/*
 * deid_date.c
 *		Dates that say less, and dates that are moved.
 *
 * Ages, years and months are made before anything judges the answer.  A date
 * that is moved by its subject's days (dateShift) is judged as it was given;
 * shift_dates() moves it for whatever comes behind the edit checks.
 *
 * Pure: owns nothing, takes no lock.
 */
#include "postgres.h"

#include "stages/deid.h"
#include "stages/form.h"
#include "stages/partial_date.h"
#include "stages/stages.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define LAST_YEAR 9999
#define DATE_LEN 10				/* YYYY-MM-DD */
#define MONTH_LEN 7
#define YEAR_LEN 4

/* what stands for the unknown part of a partial date while it is moved */
#define MIDDLE_MONTH 7
#define MIDDLE_DAY 15

static const char no_time[] = "needs the time at which the response was authored";

static DeidFault shift_value(Value *value, int days);
static void settle_authored(const CompiledForm *form, Response *response);
static bool read_stamp(const Value *value, PartialDate *date, Span *clock);
static int	zone_len(const char *text, int len);
static bool authored_day(const Response *response, ParsedDate *day);
static void put_digits(char *to, int n, int number);
static void set_integer(Value *value, int number);

/*
 * Moves every date of an item with dateShift, and settles the time at which
 * the response was authored.  What cannot be moved is taken out, with a
 * finding.  Without the subject's days nothing of it may go any farther.
 */
void
shift_dates(const CompiledForm *form, Response *response)
{
	if (!form->shifts)
		return;
	for (int i = 0; i < form->ndeidentified; i++)
	{
		const FormNode *node = form->nodes[form->deidentified[i]];
		Value	   *value = &response->values[node->slot];
		DeidFault	fault = NULL;

		if (node->deid != DEID_SHIFT || value->kind <= VALUE_NULL)
			continue;
		if (response->shift_days != 0)
			fault = shift_value(value, response->shift_days);
		if (fault != NULL)
			finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
						node->pointer, deid_method_name(DEID_SHIFT), fault);
		if (fault != NULL || response->shift_days == 0)
			deid_remove(node, response->values);
	}
	settle_authored(form, response);
}

/* The time at which it was authored, by whole days of 24 hours. */
static void
settle_authored(const CompiledForm *form, Response *response)
{
	ParsedDate	day;
	int64		shifted = response->authored + response->shift_days * USECS_PER_DAY;

	if (form->authored == DEID_KEEP || response->authored_isnull)
		return;
	if (form->authored == DEID_REMOVE ||
		(form->authored == DEID_SHIFT && response->shift_days == 0))
		response->authored_isnull = true;
	else if (TIMESTAMP_NOT_FINITE(response->authored))
		return;
	else if (form->authored == DEID_SHIFT && IS_VALID_TIMESTAMP(shifted))
		response->authored = shifted;
	else if (form->authored != DEID_SHIFT && authored_day(response, &day))
		response->authored = (date2j(day.year, form->authored == DEID_YEAR ? 1 : day.month, 1) -
							  POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	else
	{
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR, NULL, "authored",
					"the time at which it was authored is beyond what can be de-identified");
		response->authored_isnull = true;
	}
}

/*
 * A date of birth becomes the age in whole years on the day (UTC) on which the
 * response was authored: the stage knows no clock.  Ages at and over the cap
 * become the cap; so does an age that was given as such.
 */
DeidFault
deid_age(const DeidRule *rule, Value *value, const Response *response)
{
	static const char no_date[] = "must be a date (RFC 3339: YYYY-MM-DD) to become an age";
	PartialDate born;
	ParsedDate	day;
	Span		clock;
	int64		age;

	if (value->kind == VALUE_INTEGER)
	{
		if (value->number < 0)
			return "must be an age, from 0";
		set_integer(value, (int) Min(value->number, rule->cap));
		return NULL;
	}
	if (!read_stamp(value, &born, &clock) || born.day == 0 || born.month == 0)
		return no_date;
	if (response->authored_isnull || !authored_day(response, &day))
		return no_time;
	age = day.year - born.year;
	if (day.month < born.month || (day.month == born.month && day.day < born.day))
		age--;
	if (age < 0)
		return "lies after the time at which the response was authored";
	set_integer(value, (int) Min(age, rule->cap));
	return NULL;
}

/*
 * The year, as written.  With a cap, a year that tells of so many years or more
 * before the response was authored becomes the last such year.
 */
DeidFault
deid_year(const DeidRule *rule, Value *value, const Response *response)
{
	PartialDate date;
	ParsedDate	day;
	Span		clock;

	if (!read_stamp(value, &date, &clock))
		return "must be a date to become a year";
	if (rule->cap > 0)
	{
		if (response->authored_isnull || !authored_day(response, &day))
			return no_time;
		date.year = Max(date.year, day.year - rule->cap);
	}
	set_integer(value, date.year);
	return NULL;
}

/* YYYY-MM as written; YYYY where the month is not known. */
DeidFault
deid_year_month(Value *value)
{
	PartialDate date;
	Span		clock;
	char	   *text;

	if (!read_stamp(value, &date, &clock))
		return "must be a date to become a year and month";
	text = date.month ? psprintf("%04d-%02d", date.year, date.month) : psprintf("%04d", date.year);
	deid_set_text(value, text, date.month ? MONTH_LEN : YEAR_LEN);
	return NULL;
}

/*
 * By whole days, at the precision that it has: of a month its 15th is moved, of
 * a year its 1st of July.  Time of day and zone stay as written.  A second of
 * 60 would tell the day, there are so few of them: it becomes 59.
 */
static DeidFault
shift_value(Value *value, int days)
{
	PartialDate date;
	Span		clock;
	bool		typed = value->typed;
	int64		number = value->number;
	int			zone = value->zone;
	int			julian;
	int			year;
	int			month;
	int			day;
	char	   *text;
	int			len;

	if (!read_stamp(value, &date, &clock))
		return "must be a date to be shifted";
	julian = date2j(date.year, date.month ? date.month : MIDDLE_MONTH,
					date.month == 0 ? 1 : date.day ? date.day : MIDDLE_DAY) + days;
	j2date(julian, &year, &month, &day);
	if (year < 1 || year > LAST_YEAR)
		return "lies outside the years 1 to 9999 when it is shifted";

	len = date.month == 0 ? YEAR_LEN : date.day == 0 ? MONTH_LEN : DATE_LEN;
	text = palloc(DATE_LEN + clock.len);
	put_digits(text, 4, year);
	text[YEAR_LEN] = text[MONTH_LEN] = '-';
	put_digits(text + YEAR_LEN + 1, 2, month);
	put_digits(text + MONTH_LEN + 1, 2, day);
	if (len == DATE_LEN && clock.len > 0)
	{
		memcpy(text + len, clock.data, clock.len);
		/* Thh:mm:60 */
		if (clock.len >= 9 && memcmp(clock.data + 6, ":60", 3) == 0)
		{
			memcpy(text + len + 6, ":59", 3);
			number -= USECS_PER_SEC;
		}
		len += clock.len;
	}
	deid_set_text(value, text, len);
	value->typed = typed;
	value->zone = zone;
	if (typed)
		value->number = len == DATE_LEN ? julian - POSTGRES_EPOCH_JDATE : number + days * USECS_PER_DAY;
	return NULL;
}

/*
 * Reads what is known of a date, and where its time of day stands, from the T
 * to the end.  A time of day may have a zone, which says nothing about the day
 * as written.
 */
static bool
read_stamp(const Value *value, PartialDate *date, Span *clock)
{
	const char *text = value->data;
	ParsedDate	day;
	ParsedTime	time;
	ParseResult result;

	clock->data = NULL;
	clock->len = 0;
	if (value->kind != VALUE_TEXT)
		return false;
	if (value->len > DATE_LEN && (text[DATE_LEN] == 'T' || text[DATE_LEN] == 't'))
	{
		clock->data = text + DATE_LEN;
		clock->len = value->len - DATE_LEN;
		result = parse_date_time(text, value->len, &day, &time);
		if (result == PARSE_OK || result == PARSE_INEXACT)
		{
			(void) parse_date(text, DATE_LEN, &day);
			date->year = day.year;
			date->month = day.month;
			date->day = day.day;
			return true;
		}
		return parse_partial_date(text, value->len - zone_len(text, value->len), date) == PARSE_OK;
	}
	return parse_partial_date(text, value->len, date) == PARSE_OK;
}

/* How long the zone at the end of a text is: Z, or an offset such as +02:00. */
static int
zone_len(const char *text, int len)
{
	const char *offset = text + len - 6;

	if (text[len - 1] == 'Z')
		return 1;
	if (len <= DATE_LEN + 6 || (offset[0] != '+' && offset[0] != '-') || offset[3] != ':')
		return 0;
	for (int i = 1; i < 6; i++)
	{
		if (i != 3 && (offset[i] < '0' || offset[i] > '9'))
			return 0;
	}
	return 6;
}

/* The day, in UTC, on which it was authored; false: there is none. */
static bool
authored_day(const Response *response, ParsedDate *day)
{
	int64		days = response->authored / USECS_PER_DAY;

	if (TIMESTAMP_NOT_FINITE(response->authored))
		return false;
	if (response->authored % USECS_PER_DAY < 0)
		days--;
	j2date((int) days + POSTGRES_EPOCH_JDATE, &day->year, &day->month, &day->day);
	return true;
}

/* Many dates are moved, and a format string is slow to read. */
static void
put_digits(char *to, int n, int number)
{
	while (n-- > 0)
	{
		to[n] = (char) ('0' + number % 10);
		number /= 10;
	}
}

static void
set_integer(Value *value, int number)
{
	memset(value, 0, sizeof(*value));
	value->kind = VALUE_INTEGER;
	value->number = number;
}
