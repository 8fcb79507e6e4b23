/*
 * response.h
 *		One response on its way, and the findings made about it.
 */
#ifndef EPRO_ETL_RESPONSE_H
#define EPRO_ETL_RESPONSE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "words/form.h"

/* Findings a response may collect before the rest is summed up in one. */
#define MAX_FINDINGS 100

/* length of a subject key: HMAC-SHA256 in hexadecimal */
#define SUBJECT_KEY_LENGTH 64

typedef enum Severity
{
	SEVERITY_INFORMATION = 0,
	SEVERITY_WARNING,
	SEVERITY_ERROR
} Severity;

/* Where a finding comes from; finding.kind spells it. */
typedef enum FindingKind
{
	FINDING_SCHEMA = 0,			/* a keyword of the form did not hold */
	FINDING_CHECK,				/* an edit check was false */
	FINDING_ERROR,				/* an edit check raised an error */
	FINDING_NOT_EVALUATED,		/* an edit check was NULL */
	FINDING_UNANSWERED,			/* what a lookup asks did not answer in time */
	FINDING_CONSTRAINT,			/* the sink refused the row */
	FINDING_CONVERSION,			/* the answer does not fit the sink's column */
	FINDING_PAYLOAD,			/* the payload could not be read */
	FINDING_FORM,				/* no such form in this pipeline */
	FINDING_SUBJECT,			/* no subject, so no pseudonym */
	FINDING_DEIDENTIFY			/* a method could not be applied */
} FindingKind;

/*
 * Every string is the compiled form's or a constant, or was copied to the
 * chunk's memory: a finding outlives the response's scratch memory.
 */
typedef struct Finding
{
	FindingKind kind;
	Severity	severity;
	const char *location;		/* JSON Pointer, or column, or NULL */
	const char *rule;
	const char *message;
} Finding;

typedef struct FindingList
{
	MemoryContext memory;		/* where items is, and grows */
	Finding    *items;
	int			n;
	int			room;
	int			first;			/* of the response at hand */
	int			count[SEVERITY_ERROR + 1];	/* of the response at hand */
	int			skipped;		/* of these, checks not evaluated */
	int			undeclared;		/* keys of the response at hand that are no item */
} FindingList;

/*
 * One version of a row of the source, wherever it is on its way.  A table that
 * is rewritten (VACUUM FULL) keeps the transactions of its rows and moves them:
 * so the file is part of the address.
 */
typedef struct Address
{
	Oid			file;			/* of the relation */
	TransactionId xmin;			/* raw, as the system column shows it */
	ItemPointerData tid;
} Address;

/* A text that need not be terminated. */
typedef struct Span
{
	const char *data;			/* NULL: absent */
	int			len;
} Span;

typedef enum PayloadKind
{
	PAYLOAD_NULL = 0,
	PAYLOAD_JSONB,				/* a Jsonb, detoasted */
	PAYLOAD_TEXT				/* JSON as text, to be parsed */
} PayloadKind;

typedef struct Response
{
	/* what claim read */
	Span		study;
	Span		form_name;
	Span		subject;
	Span		visit;
	Span		source_id;
	TimestampTz authored;
	bool		authored_isnull;
	PayloadKind payload_kind;
	Span		payload;		/* the Jsonb's, or the text's bytes */

	/* what the stages made of it, in the caller's memory context */
	Value	   *values;			/* by slot of the form */
	const void *root;			/* the payload's container, for rules about
								 * keys that the form does not declare; NULL:
								 * it stayed behind, see CompiledForm */
	char		subject_key[SUBJECT_KEY_LENGTH + 1];
	int32		shift_days;		/* of the subject; 0: its dates stay, or nothing
								 * is known of it */
	FindingList *findings;
} Response;

extern void findings_begin(FindingList *list);
extern void findings_keep(FindingList *list, int last);
extern void finding_add(FindingList *list, FindingKind kind, Severity severity,
						const char *location, const char *rule,
						const char *message);
extern const char *finding_kind_name(FindingKind kind);
extern const char *severity_name(Severity severity);
extern bool severity_from_name(const char *name, Severity *severity);

#endif							/* EPRO_ETL_RESPONSE_H */
