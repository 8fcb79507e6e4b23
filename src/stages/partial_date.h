/*
 * partial_date.h
 *		Partial dates: what is known of a date, and the days that it may be.
 *
 * The rules of parse.h hold: total, and no PostgreSQL header is needed.
 */
#ifndef EPRO_ETL_PARTIAL_DATE_H
#define EPRO_ETL_PARTIAL_DATE_H

#include "stages/parse.h"

/* 0: unknown; the year never is */
typedef struct PartialDate
{
	int			year;			/* 1 .. 9999 */
	int			month;			/* 1 .. 12 */
	int			day;			/* 1 .. 31; may be known without the month */
} PartialDate;

/*
 * YYYY[-MM[-DD[Thh[:mm[:ss[.s]]]]]]: ISO 8601 cut off from the right, where
 * month and day may be "-", UN or UNK (in any case), and YYYY--- is a year.
 * The time is looked at, and left out; it has no offset: the date is the local
 * one as written.
 *
 * PARSE_RANGE: right shape, but no such day or time.  PARSE_SYNTAX: all else.
 */
extern ParseResult parse_partial_date(const char *s, size_t len, PartialDate *date);

/* The first and the last day that it may be. */
extern ParsedDate partial_date_first(PartialDate date);
extern ParsedDate partial_date_last(PartialDate date);

#endif							/* EPRO_ETL_PARTIAL_DATE_H */
