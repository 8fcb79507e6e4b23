/*
 * schema.h
 *		The schema compiler and the walker, for the stages that have a place
 *		for a schema.
 */
#ifndef EPRO_ETL_STAGES_SCHEMA_H
#define EPRO_ETL_STAGES_SCHEMA_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "words/compat.h"
#include "words/response.h"
#include "words/schema.h"

/* ---- schema.c ---- */
typedef struct SchemaCompiler SchemaCompiler;

extern SchemaCompiler *schema_compiler(JsonbContainer *definition);
extern bool schema_formats_are_notes(const SchemaCompiler *compiler);
extern JsonbContainer *schema_follow(SchemaCompiler *compiler, JsonbContainer *schema,
									 const char **where);
extern void schema_place(SchemaCompiler *compiler, FormNode *node,
						 JsonbContainer *schema);
extern Schema *schema_never(const char *where);
extern void schema_finish(SchemaCompiler *compiler);
extern bool schema_needs_payload(const Schema *schema, const FormNode *node);
extern bool schema_is_annotation(const JsonbValue *keyword);

/* ---- schema_walk.c ---- */
extern void schema_judge(const FormNode *node, Response *response);
extern bool schema_divides(const Value *number);

/* ---- form.c: what a form's compiler and the schemas' have in common ---- */
extern void form_keyword(FormNode *node, Keyword keyword, JsonbValue *value,
						 const char *where);
extern bool form_keyword_find(const JsonbValue *key, Keyword *keyword);
extern bool form_walks(const FormNode *place, Keyword keyword);
extern const char *form_deeper(const char *pointer, const char *key, int keylen);
pg_attribute_noreturn() extern void form_refuse(const char *where, const char *what,
												const char *hint);

/* ---- validate.c: keywords about one value, as both judge them ---- */
extern bool type_holds(const FormNode *node, const Value *value);
extern bool limit_holds(Keyword keyword, const Value *value, const Value *limit);
extern bool length_holds(const FormNode *node, Keyword keyword, const Value *value);
extern int	pattern_matches(regex_t *pattern, const char *text, int len);
extern bool format_holds(Format format, Value *value);
extern bool equal_values(const Value *a, const Value *b);

#endif							/* EPRO_ETL_STAGES_SCHEMA_H */
