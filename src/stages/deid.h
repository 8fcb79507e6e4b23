/*
 * deid.h
 *		What the files of de-identification share: methods about one value.
 *
 * Each takes an answer that is there and not null, normalised, and puts
 * something else in its place.  Returns NULL, or why it cannot be done, said
 * without the answer; the caller takes the answer out then.  None raises an
 * error for data.  Results live in the current memory context.
 */
#ifndef EPRO_ETL_STAGES_DEID_H
#define EPRO_ETL_STAGES_DEID_H

#include "postgres.h"

#include "stages/stages.h"
#include "words/response.h"

/* how what is encrypted begins */
#define DEID_SEALED_TEXT 't'

typedef const char *DeidFault;

/* ---- deid_method.c: without a key ---- */
extern DeidFault deid_apply(const FormNode *node, Value *value,
							const Response *response);
extern void deid_set_text(Value *value, const char *text, int len);
extern void deid_remove(const FormNode *node, Value *values);

/* ---- deid_date.c: dates ---- */
extern DeidFault deid_age(const DeidRule *rule, Value *value,
						  const Response *response);
extern DeidFault deid_year(const DeidRule *rule, Value *value,
						   const Response *response);
extern DeidFault deid_year_month(Value *value);

/* ---- deid_secret.c: with a key ---- */
extern bool deid_takes_key(DeidMethod method);
extern DeidFault deid_apply_key(const CompiledForm *form, const FormNode *node,
								Pseudonymiser *pseudonymiser, Response *response);
extern Span deid_decrypt(Pseudonymiser *pseudonymiser, const char *form,
						 const char *pointer, Span study, Span answer);

#endif							/* EPRO_ETL_STAGES_DEID_H */
