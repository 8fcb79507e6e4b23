/*
 * stages.h
 *		The pure stages, one verb a file, in the order of the flow.
 *
 * Each takes a compiled form and a response, allocates in the current memory
 * context, touches no table, no shared memory, no clock and no setting, and
 * reports bad data as findings.  None raises an error for data, and none
 * knows another: the composition is pipeline/chunk.c's.
 */
#ifndef EPRO_ETL_STAGES_H
#define EPRO_ETL_STAGES_H

#include "postgres.h"

#include "common/hmac.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "parser/parse_node.h"
#include "words/codes.h"
#include "words/response.h"

/* ---- decode.c: payload to values ---- */
extern bool decode(const CompiledForm *form, Response *response);

/* ---- pseudonymiser.c: keys, and the subject's pseudonym ---- */
typedef struct Pseudonymiser Pseudonymiser;

/* What a derived key is for; no two methods share one. */
typedef enum KeyPurpose
{
	KEY_SUBJECT = 0,
	KEY_DATE_SHIFT,				/* of no version: intervals would break */
	KEY_HASH,
	KEY_PERTURB,
	KEY_ENCRYPT,
	KEY_CHECK					/* of no version */
} KeyPurpose;

#define KEY_PURPOSE_COUNT (KEY_CHECK + 1)
#define DERIVED_KEY_LENGTH 32
#define KEY_CHECK_LENGTH 8

extern Pseudonymiser *pseudonymiser_create(const uint8 *key, size_t len);
extern void pseudonymiser_set_version(Pseudonymiser *pseudonymiser, int version);
extern int	pseudonymiser_version(const Pseudonymiser *pseudonymiser);
extern void pseudonymiser_wipe(Pseudonymiser *pseudonymiser);
extern void derive_key(Pseudonymiser *pseudonymiser, KeyPurpose purpose,
					   int version, Span study, uint8 *key);
extern void keyed_hash(Pseudonymiser *pseudonymiser, const uint8 *key,
					   const Span *parts, int nparts, uint8 *hash);
extern void pseudonymiser_check(Pseudonymiser *pseudonymiser, int version,
								uint8 *value);
extern void pseudonymiser_expect(const Pseudonymiser *pseudonymiser, Span study, Span subject);
extern bool pseudonymise(Pseudonymiser *pseudonymiser, bool shifts,
						 Response *response);
extern void pseudonym_advance(Pseudonymiser *pseudonymiser, Span study,
							  int version, char *subject_key);

/* ---- deidentify.c: identifiers out, pseudonym in ---- */
extern bool deidentify(const CompiledForm *form, Pseudonymiser *pseudonymiser,
					   CodeBook *codes, Response *response);

/* ---- pseudonymize.c: its part that puts random codes ---- */
extern void pseudonymize_collect(const CompiledForm *form, const Response *response,
								 bool decoded, CodeBook *codes);
extern bool pseudonymize_subject(const CompiledForm *form, CodeBook *codes,
								 Response *response);
extern void pseudonymize_item(const FormNode *node, CodeBook *codes, Value *value,
							  Response *response);

/* ---- deid_date.c: dates of the judged response, moved for what comes behind ---- */
extern void shift_dates(const CompiledForm *form, Response *response);

/* ---- normalise.c: representation, never meaning ---- */
extern void normalise(const CompiledForm *form, Response *response);
extern void normalise_value(const FormNode *node, Value *value);

/* ---- validate.c: the keywords of the form ---- */
extern void validate(const CompiledForm *form, Response *response);

/* ---- check.c: edit checks, and other declared expressions ---- */
typedef struct EditCheck
{
	const char *name;
	Severity	severity;
	const char *message;
	ExprState  *condition;		/* NULL: always */
	ExprState  *expression;
	int			slot;			/* of the score that it computes; -1: a check */
} EditCheck;

/* A form's expressions and the record they read; one at a time per process. */
typedef struct CheckSet
{
	const CompiledForm *form;
	TupleTableSlot *record;		/* a column an item, then the response's own */
	ExprContext *context;
	bool	   *used;			/* by column: does an expression read it? */
	EditCheck  *checks;
	int			nchecks;
	int			room;
	int			current;		/* the check being evaluated: what raised */
	int			nreadable;		/* nodes that what is compiled may read */
	const char *what;			/* the expression being compiled, for errors */
	bool		calls_out;		/* does any run code that is not the server's own? */
} CheckSet;

extern CheckSet *checkset_create(const CompiledForm *form);
extern ExprState *checkset_compile(CheckSet *set, const char *expression,
								   const char *what);
extern void checkset_add(CheckSet *set, const char *name, Severity severity,
						 const char *expression, const char *condition,
						 const char *message);
extern void checkset_add_score(CheckSet *set, const char *name,
							   const char *expression, const char *condition);
extern int	checkset_column(CheckSet *set, ParseState *pstate, const char *name,
							int location);
extern void checkset_read(CheckSet *set, const Response *response);
extern void rule_refuse_temporary(Node *rule, const char *what);
extern bool checkset_holds(CheckSet *set, ExprState *expression, bool *isnull);
extern bool check_applies(CheckSet *set, ExprState *condition,
						  const char *name, FindingList *findings);
extern void check(CheckSet *set, Response *response, int from);

#endif							/* EPRO_ETL_STAGES_H */
