/*
 * context.h
 *		What travels down a call tree: a deadline, and request values.
 */
#ifndef EPRO_ETL_CONTEXT_H
#define EPRO_ETL_CONTEXT_H

#include "postgres.h"

#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/*
 * One budget of the call tree at hand.  Lives on the stack of whoever grants
 * it; the innermost is first.  Private to the process.
 */
typedef struct Budget
{
	TimestampTz until;
	uint32		cancels;		/* by others, when it was granted */
	struct Budget *outer;
} Budget;

/* How long other servers are waited for: a budget, where there is one. */
typedef struct Patience
{
	Budget		budget;
	bool		granted;
} Patience;

/* sizes of request values, in bytes; a context is a note, not a load */
#define MOST_CONTEXT_KEY 63
#define MOST_CONTEXT_VALUE 256
#define MOST_CONTEXT 2048

/* ---- deadline ---- */
extern TimestampTz context_deadline(void);
extern TimestampTz context_deadline_around(const Budget *budget);
extern void budget_grant(Budget *budget, TimestampTz until);
extern void budget_return(Budget *budget);
extern void budget_refuse_late(const Budget *budget);
extern bool budget_has_ended(const Budget *budget, ErrorData *error);

/* what is said of whoever ends too late without having noticed */
#define MESSAGE_LATE "canceling statement due to its deadline"

/* How often this process had been canceled at some moment. */
typedef struct CancelMark
{
	uint32		by_others;
	uint32		by_budgets;
} CancelMark;

extern bool context_deadline_is_budgets(void);
extern CancelMark cancel_mark(void);
extern bool canceled_since(const CancelMark *mark, bool by_budgets);
extern bool deadline_has_come(TimestampTz deadline, const ErrorData *error);

/* ---- request values ---- */
extern bool context_check(char **value, void **extra, GucSource source);
extern void context_set(const char *key, const char *value);
extern char *context_get(const char *key);
extern Jsonb *context_values(void);

/* ---- remote.c: other servers are told both ---- */
extern void remote_watch(void);
extern void remote_return(const Budget *budget);
extern Oid	remote_settings_server(Oid relid);

#endif							/* EPRO_ETL_CONTEXT_H */
