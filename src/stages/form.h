/*
 * form.h
 *		The form compiler: a JSON Schema becomes the structure that the
 *		stages walk.
 */
#ifndef EPRO_ETL_STAGES_FORM_H
#define EPRO_ETL_STAGES_FORM_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "words/form.h"

extern CompiledForm *form_compile(const char *name, const char *version,
								  Jsonb *definition);

/* ---- deid_rule.c ---- */
extern void form_deidentify(CompiledForm *form, const char *path,
							const char *method, Jsonb *params);
extern bool form_suits_method(CompiledForm *form, const char *path,
							  const char *method, Jsonb *params);
extern const char *deid_method_name(DeidMethod method);
extern const char *form_node_holds(const CompiledForm *form, const FormNode *node);

/* in place of a severity: the rule makes no finding of its own */
#define NO_SEVERITY (-2)

/* A rule as those see it who list all rules, or name one. */
typedef struct FormRule
{
	const char *where;			/* JSON Pointer of its keyword in the definition */
	List	   *also;			/* other pointers that name it */
	const char *name;			/* as a finding names it */
	const char *says;			/* never holds data */
	int			severity;		/* of its findings; KEYWORD_OFF or NO_SEVERITY */
	int8	   *overlay;		/* takes a severity; NULL: it cannot have another */
	const char *hint;			/* overlay is NULL: what to do instead */
} FormRule;

typedef struct FormRules
{
	FormRule   *list;
	int			n;
	int			room;
} FormRules;

/* ---- schema_rules.c ---- */
extern FormRules *form_rules(const CompiledForm *form);
extern FormRule *form_rules_add(FormRules *rules, const char *where, const char *name,
								const char *says);

/* ---- overlay.c ---- */
extern bool form_overlay(CompiledForm *form, const char *place, int severity,
						 char **hint);

/* ---- form.c ---- */
extern FormNode *form_find(const CompiledForm *form, const char *name);
extern void form_collect_slots(CompiledForm *form);
extern const char *form_normalisation(int at, uint8 *bit);
extern bool form_node_is_item(const FormNode *node);

/* ---- score.c ---- */
extern FormNode *form_add_score(CompiledForm *form, const char *name);

/* ---- pattern.c ---- */
extern regex_t *pattern_compile(const char *text, const char **fault,
								const char **hint);

#endif							/* EPRO_ETL_STAGES_FORM_H */
