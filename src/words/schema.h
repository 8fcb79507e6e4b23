/*
 * schema.h
 *		A compiled JSON Schema (2020-12): what the walker judges values by.
 *
 * Schemas refer to each other and may do so in circles.  All of it is immutable
 * once compiled and overlaid, and lives in the memory context of its form.
 */
#ifndef EPRO_ETL_SCHEMA_H
#define EPRO_ETL_SCHEMA_H

#include "postgres.h"

#include "words/form.h"

/* What a rule does; its keyword is SchemaRule.name. */
typedef enum SchemaKind
{
	SCHEMA_NEVER = 0,			/* the schema false */
	SCHEMA_REF,					/* in place: one schema */
	SCHEMA_NOT,
	SCHEMA_ALL_OF,				/* in place: several */
	SCHEMA_ANY_OF,
	SCHEMA_ONE_OF,
	SCHEMA_IF,					/* three: if, then, else; a missing one is NULL */
	SCHEMA_DEPENDENT_SCHEMAS,	/* one a key */
	SCHEMA_DEPENDENT_REQUIRED,	/* objects: names a key */
	SCHEMA_REQUIRED,			/* names */
	SCHEMA_PROPERTIES,
	SCHEMA_PATTERN_PROPERTIES,
	SCHEMA_ADDITIONAL_PROPERTIES,	/* with siblings' names and patterns */
	SCHEMA_PROPERTY_NAMES,
	SCHEMA_MIN_PROPERTIES,
	SCHEMA_MAX_PROPERTIES,
	SCHEMA_PREFIX_ITEMS,		/* arrays */
	SCHEMA_ITEMS,				/* from `least` on */
	SCHEMA_CONTAINS,			/* between `least` and `most` times */
	SCHEMA_UNIQUE_ITEMS,
	SCHEMA_MIN_ITEMS,
	SCHEMA_MAX_ITEMS,
	SCHEMA_MULTIPLE_OF,			/* numbers */
	SCHEMA_UNEVALUATED_ITEMS,	/* after all others of its schema */
	SCHEMA_UNEVALUATED_PROPERTIES
} SchemaKind;

/* A property's name in a definition. */
typedef struct SchemaKey
{
	const char *data;
	int			len;
} SchemaKey;

typedef struct Schema Schema;

typedef struct SchemaRule
{
	SchemaKind	kind;
	int8		overlay;		/* severity + 1; 0: as ever; or KEYWORD_OFF */
	const char *name;			/* the keyword, as a finding names it */
	const char *where;			/* JSON Pointer of the keyword */
	const char *message;		/* what a finding says; never holds data */
	Schema    **schemas;
	int			nschemas;
	SchemaKey  *keys;			/* of schemas, or of rules about names */
	int			nkeys;
	SchemaKey **needed;			/* dependentRequired: by key */
	int		   *nneeded;
	regex_t   **patterns;		/* patternProperties, and who needs to know */
	int			npatterns;
	int64		least;
	int64		most;
	Value		divisor;
} SchemaRule;

struct Schema
{
	const char *where;			/* JSON Pointer into the definition */
	FormNode   *plain;			/* "type" to "format" of it, or NULL */
	SchemaRule *rules;
	int			nrules;
	bool		collects;		/* an unevaluated... is among its rules */
	int			mark;			/* of the compiler's search for circles */
};

#endif							/* EPRO_ETL_SCHEMA_H */
