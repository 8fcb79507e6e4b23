/*
 * form.h
 *		The compiled form: what a worker keeps of a registered definition.
 *
 * Immutable once compiled.  Everything in it, messages included, lives in the
 * memory context it was compiled in, so that a finding can point at it.
 */
#ifndef EPRO_ETL_FORM_H
#define EPRO_ETL_FORM_H

#include "postgres.h"

#include "regex/regex.h"
#include "words/value.h"

/* JSON types as bits of FormNode.types; 0 means that any is welcome */
#define TYPE_NULL		0x01
#define TYPE_BOOLEAN	0x02
#define TYPE_INTEGER	0x04
#define TYPE_NUMBER		0x08
#define TYPE_STRING		0x10
#define TYPE_ARRAY		0x20
#define TYPE_OBJECT		0x40

/* what "x-normalise" may declare */
#define NORMALISE_TRIM		0x01
#define NORMALISE_WIDTH		0x02
#define NORMALISE_COERCE	0x04
#define NORMALISE_FOLD		0x08
#define NORMALISE_BLANK		0x10

/* The validation keywords, in the order in which they are judged. */
typedef enum Keyword
{
	KEYWORD_REQUIRED = 0,
	KEYWORD_TYPE,
	KEYWORD_CONST,
	KEYWORD_ENUM,
	KEYWORD_MINIMUM,
	KEYWORD_MAXIMUM,
	KEYWORD_EXCLUSIVE_MINIMUM,
	KEYWORD_EXCLUSIVE_MAXIMUM,
	KEYWORD_MIN_LENGTH,
	KEYWORD_MAX_LENGTH,
	KEYWORD_PATTERN,
	KEYWORD_FORMAT
} Keyword;

#define KEYWORD_COUNT (KEYWORD_FORMAT + 1)

/* of FormNode.has */
#define KEYWORDS_OF_LIMITS \
	(1 << KEYWORD_MINIMUM | 1 << KEYWORD_MAXIMUM | 1 << KEYWORD_EXCLUSIVE_MINIMUM | 1 << KEYWORD_EXCLUSIVE_MAXIMUM)

/* in place of a severity: the keyword is not judged */
#define KEYWORD_OFF (-1)

/* A rule's severity, its own or what was laid over it: see FormNode.overlay. */
static inline int
severity_laid(int overlay, int own)
{
	return overlay == 0 ? own : overlay == KEYWORD_OFF ? KEYWORD_OFF : overlay - 1;
}

typedef enum Format
{
	FORMAT_NONE = 0,
	FORMAT_DATE,
	FORMAT_TIME,
	FORMAT_DATE_TIME,
	FORMAT_DURATION,
	FORMAT_EMAIL,
	FORMAT_IPV4,
	FORMAT_IPV6,
	FORMAT_UUID
} Format;

/* What becomes of an answer; deid_rule.c says which items each method takes. */
typedef enum DeidMethod
{
	DEID_KEEP = 0,
	DEID_REMOVE,				/* the answer is not there any more */
	DEID_REDACT,				/* a fixed text stands where the answer was */
	DEID_SUBSTITUTE,			/* so does a declared value */
	DEID_MASK,					/* all but the last characters are covered */
	DEID_AGE,					/* generalize: a date becomes years of age */
	DEID_YEAR,					/* generalize: its year */
	DEID_YEAR_MONTH,			/* generalize: its year and month, as text */
	DEID_BUCKET,				/* generalize: a number becomes its bucket's lower bound */
	DEID_ZIP,					/* generalize: the beginning of a postal code */
	DEID_SHIFT,					/* judged as it is, then moved by the subject's days */
	DEID_HASH,					/* a keyed hash, in hexadecimal digits */
	DEID_PERTURB,				/* a number with noise */
	DEID_ENCRYPT,
	DEID_PSEUDONYMIZE			/* a random code, the same each time */
} DeidMethod;

#define DEID_METHOD_COUNT (DEID_PSEUDONYMIZE + 1)

/* The parameters of an item's method. */
typedef struct DeidRule
{
	DeidMethod	method;
	int			cap;			/* AGE: the top code, e.g. 90; YEAR: likewise, in
								 * years before the response was authored; 0: none */
	int			keep;			/* MASK: last characters; ZIP: first */
	const char *text;			/* MASK: the character that covers; HASH,
								 * PSEUDONYMIZE: the domain, or NULL: its own */
	Value		value;			/* SUBSTITUTE: it; BUCKET: the width; PERTURB: the
								 * range */
	bool		creates;		/* PSEUDONYMIZE: whether what has no code gets one */
	bool		postal;			/* ZIP: any postal code, not a US one only */
	const char **restricted;	/* ZIP: what begins so becomes zeros */
	int			nrestricted;
} DeidRule;

/*
 * One property: an item, or (with children) a group of items.  What every answer
 * is judged by comes first, so that it shares a cache line.
 */
typedef struct FormNode
{
	const char *key;			/* property name, not terminated for jsonb's
								 * sake only: it is terminated here */
	int			keylen;
	int			slot;			/* index of its Value in a response */
	uint32		has;			/* bit a Keyword: which are declared */
	DeidMethod	deid;
	Format		format;
	uint16		types;
	uint8		normalise;
	bool		fits_int4;
	ItemType	type;			/* the SQL side, see item_type_oid() */
	int			nchildren;
	struct FormNode **children; /* in jsonb's key order */
	struct Schema *schema;		/* what else its schema says (words/schema.h),
								 * or NULL: it is plain */
	regex_t    *pattern;
	int64		low;			/* whole numbers from here to there keep all */
	int64		high;			/* limits; nothing is said where has names none */
	Value		bound[KEYWORD_EXCLUSIVE_MAXIMUM + 1];	/* the four limits */
	int64		min_length;
	int64		max_length;
	Value	   *options;		/* enum's values, then const's as the last */
	int			noptions;		/* of enum */
	int			required_at;	/* its place in the list of the required */
	int8		overlay[KEYWORD_COUNT]; /* severity + 1; 0: as ever; or KEYWORD_OFF */

	const DeidRule *deid_rule;	/* NULL: the method has no parameters */
	const char *deid_domain;	/* pseudonymize: within which a code stands for one thing */
	bool		deid_creates;	/* and whether what has none gets one */
	bool		deid_whole;		/* and whether a text may be a whole number */

	const char *name;			/* item name: keys joined by dots */
	const char *pointer;		/* JSON Pointer (RFC 6901) into the payload */
	const char *where;			/* that of its schema in the definition; NULL: the
								 * schema is a boolean, or there is none */
	const char *message[KEYWORD_COUNT]; /* what a finding says */
} FormNode;

/* Something of a definition that no rule was made of. */
typedef struct FormNote
{
	const char *location;		/* JSON Pointer of the item; "": the form */
	const char *construct;		/* as its standard calls it */
	const char *reason;
} FormNote;

typedef struct CompiledForm
{
	const char *name;
	const char *version;
	FormNode   *root;			/* the response itself: a group */
	FormNode  **nodes;			/* every node but the root, by slot */
	int			nnodes;
	int		   *normalised;		/* slots with something to normalise */
	int			nnormalised;
	int		   *deidentified;	/* slots with a method other than keep */
	int			ndeidentified;
	DeidMethod	authored;		/* of the time at which it was authored */
	bool		shifts;			/* is any date moved? */
	const char *subject_domain; /* of a random code in place of the subject's key;
								 * or NULL */
	bool		subject_creates;
	bool		has_coded_items;	/* items of DEID_PSEUDONYMIZE */
	bool		needs_payload;	/* rules ask for undeclared keys, too: slots
								 * alone do not do for validate() */
	struct Questionnaire *questionnaire;	/* of FHIR; NULL: any other form */
	FormNote   *notes;			/* what was not imported */
	int			nnotes;
} CompiledForm;

extern const char *const keyword_name[KEYWORD_COUNT];

/* Is the answer itself judged?  Any other is not known any more. */
static inline bool
node_is_judged(const FormNode *node)
{
	return node->deid == DEID_KEEP || node->deid == DEID_SHIFT;
}

#endif							/* EPRO_ETL_FORM_H */
