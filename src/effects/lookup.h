/*
 * lookup.h
 *		Edit checks that ask a reference: a table, a view, another server.
 */
#ifndef EPRO_ETL_LOOKUP_H
#define EPRO_ETL_LOOKUP_H

#include "postgres.h"

#include "effects/context.h"
#include "effects/effects.h"

/* What becomes of a response when the reference does not answer in time. */
typedef enum OnTimeout
{
	ON_TIMEOUT_DEFER = 0,		/* it stays in the source, for another run */
	ON_TIMEOUT_REJECT,
	ON_TIMEOUT_WARN
} OnTimeout;

/* What the table edit_check says of one. */
typedef struct LookupDeclaration
{
	int64		check_id;
	const char *name;
	const char *query;			/* a boolean expression, with subqueries */
	const char *condition;		/* or NULL */
	const char *message;		/* or NULL */
	Severity	severity;
	int64		timeout;		/* microseconds */
	OnTimeout	on_timeout;
} LookupDeclaration;

/* A form's lookups, compiled; they read the record of its checks. */
typedef struct LookupSet
{
	CheckSet   *items;
	struct Lookup **lookups;
	int			n;
	int			room;
	bool		defers;			/* any of them may leave a response in the source, */
	bool		is_trial;		/* but there is none */
	int			current;		/* the one that is asked: what broke off */
	bool		asking;
	Budget		budget;			/* of the one that is asked */
} LookupSet;

/* What broke off the asking. */
typedef enum LookupFailure
{
	LOOKUP_PASSED_ON = 0,		/* not for the lookup to say: to be raised again */
	LOOKUP_UNANSWERED,			/* its time was over, or nobody was there */
	LOOKUP_RAISED,				/* it raised an error of the data's */
	LOOKUP_WRONG				/* it cannot be asked as it is */
} LookupFailure;

extern bool on_timeout_from_name(const char *name, OnTimeout *on_timeout);
extern LookupSet *lookupset_create(CheckSet *items);
extern void lookupset_add(LookupSet *set, const LookupDeclaration *declared);
extern bool look_up(LookupSet *set, Response *response, int from);
extern LookupFailure lookup_failed(LookupSet *set, ErrorData *error);
extern void lookup_returned(LookupSet *set);
extern bool lookup_settle(LookupSet *set, LookupFailure failure,
						  const ErrorData *error, Response *response);
extern bool lookup_lost_connection(const ErrorData *error);
extern void lookups_forget(void);

#endif							/* EPRO_ETL_LOOKUP_H */
