/*
 * fhir.h
 *		A FHIR Questionnaire (R4) as a form: what its files share.
 *
 * fhir_form.c compiles, fhir_decode.c reads a response into a tree of answers,
 * fhir_judge.c judges that tree, fhir_rules.c knows the rules by name, place and
 * severity, fhir_value.c the data types.  The compiled questionnaire is immutable
 * once overlaid; a tree lives for one response.
 */
#ifndef EPRO_ETL_STAGES_FHIR_H
#define EPRO_ETL_STAGES_FHIR_H

#include "postgres.h"

#include "stages/form.h"
#include "utils/jsonb.h"
#include "words/form.h"
#include "words/response.h"

/* The types that answer[x] can have. */
typedef enum FhirKind
{
	FHIR_NONE = 0,
	FHIR_BOOLEAN,
	FHIR_DECIMAL,
	FHIR_INTEGER,
	FHIR_DATE,
	FHIR_DATE_TIME,
	FHIR_TIME,
	FHIR_STRING,
	FHIR_URI,
	FHIR_ATTACHMENT,
	FHIR_CODING,
	FHIR_QUANTITY,
	FHIR_REFERENCE
} FhirKind;

#define FHIR_KIND_COUNT (FHIR_REFERENCE + 1)
#define FHIR_BIT(kind) (1 << (kind))
#define FHIR_NUMBERS (FHIR_BIT(FHIR_INTEGER) | FHIR_BIT(FHIR_DECIMAL))

/* One value of one of these types. */
typedef struct FhirValue
{
	FhirKind	kind;
	Value		value;			/* as the item's slot takes it; of a quantity the
								 * number */
	Span		code;			/* CODING, QUANTITY: code; REFERENCE: reference;
								 * any other: the text */
	Span		system;			/* CODING, QUANTITY */
	Span		text;			/* CODING: display; QUANTITY: unit */
	int64		low;			/* DATE, DATE_TIME, TIME: first microsecond, as
								 * written, without regard to the zone */
	int64		high;			/* and last: "2021" is a year */
	bool		zoned;
	int64		zone;			/* microseconds east of UTC */
	const JsonbContainer *object;	/* CODING, QUANTITY, REFERENCE, ATTACHMENT */
	int			object_len;
} FhirValue;

/* How two values stand to each other. */
typedef enum FhirOrder
{
	FHIR_BEFORE,
	FHIR_SAME,
	FHIR_AFTER,
	FHIR_OVERLAPS,				/* not precise enough to say */
	FHIR_UNRELATED				/* of types or units that are not compared */
} FhirOrder;

/* An answer's truth: what is not known is neither. */
typedef enum FhirTruth
{
	FHIR_NO = 0,
	FHIR_YES,
	FHIR_UNKNOWN
} FhirTruth;

/* One permitted answer, or one unit. */
typedef struct FhirOption
{
	FhirKind	kind;
	Span		code;
	Span		system;			/* absent: of any system */
	bool		exclusive;
} FhirOption;

typedef struct FhirCodes
{
	FhirOption *list;			/* sorted by kind, code and system */
	int			n;
	int			room;
	bool		partial;		/* a part of it could not be resolved */
} FhirCodes;

typedef enum FhirOperator
{
	FHIR_EXISTS,
	FHIR_EQUAL,
	FHIR_NOT_EQUAL,
	FHIR_GREATER,
	FHIR_LESS,
	FHIR_GREATER_EQUAL,
	FHIR_LESS_EQUAL
} FhirOperator;

typedef struct FhirCondition
{
	int			question;		/* place in Questionnaire.items */
	FhirOperator operator;
	bool		exists;			/* of EXISTS: what is asked for */
	FhirValue	answer;			/* of the others */
} FhirCondition;

typedef enum FhirType
{
	FHIR_GROUP,
	FHIR_DISPLAY,
	FHIR_QUESTION
} FhirType;

/* The rules of an item that can have another severity, in the order of judging. */
typedef enum FhirRule
{
	FHIR_RULE_ORDER = 0,
	FHIR_RULE_ENABLE_WHEN,
	FHIR_RULE_REQUIRED,
	FHIR_RULE_MAX_OCCURS,
	FHIR_RULE_MIN_OCCURS,
	FHIR_RULE_CODES,
	FHIR_RULE_EXCLUSIVE,
	FHIR_RULE_MAX_PLACES,
	FHIR_RULE_MINIMUM,
	FHIR_RULE_MAXIMUM,
	FHIR_RULE_MAX_LENGTH,
	FHIR_RULE_MIN_LENGTH,
	FHIR_RULE_REGEX,
	FHIR_RULE_UNITS,
	FHIR_RULE_MIME_TYPE,
	FHIR_RULE_MAX_SIZE,
	FHIR_RULE_TARGETS
} FhirRule;

#define FHIR_RULE_COUNT (FHIR_RULE_TARGETS + 1)

/* Those of the response as a whole. */
typedef enum FhirHeadRule
{
	FHIR_HEAD_STATUS = 0,
	FHIR_HEAD_QUESTIONNAIRE,
	FHIR_HEAD_AUTHORED,
	FHIR_HEAD_PERIOD,
	FHIR_HEAD_ELEMENT
} FhirHeadRule;

#define FHIR_HEAD_COUNT (FHIR_HEAD_ELEMENT + 1)

/*
 * One item of the questionnaire, in the order of the definition.  What is looked
 * at for each answer comes first, so that it lies together.
 */
typedef struct FhirItem
{
	FhirType	type;
	uint32		kinds;			/* FHIR_BIT of the types an answer may have */
	FormNode   *node;			/* NULL: no question */
	bool		lone;			/* no other item has to do with it: it can be
								 * judged where it is read */
	bool		required;
	bool		repeats;
	bool		open;			/* an answer in words is welcome, too */
	bool		number_only;	/* a quantity of one declared unit */
	bool		whole;			/* a Coding stays with its system */
	FhirCodes  *codes;			/* NULL: any answer */
	FhirCodes  *units;			/* NULL: any unit */
	FhirValue  *minimum;
	FhirValue  *maximum;
	int64		min_length;		/* -1: any; so are the four below */
	int64		max_length;
	int64		max_places;
	int64		min_occurs;
	int64		max_occurs;
	regex_t    *pattern;

	bool		choice;			/* choice or open-choice */
	bool		many;			/* it, or what it is in, repeats: an array */
	bool		any;			/* enableBehavior */
	bool		expression;		/* enabled by an expression nobody evaluates */
	FhirCondition *conditions;	/* enableWhen */
	int			nconditions;

	int			parent;			/* place in Questionnaire.items; -1: none */
	int			depth;			/* 0: at the top */
	int			child_no;		/* which child of its parent */
	int		   *children;		/* places in Questionnaire.items */
	int			nchildren;

	const char *link_id;
	int			len;
	const char *pointer;		/* of its findings */
	const char *where;			/* JSON Pointer in the Questionnaire */
	List	   *places[FHIR_RULE_COUNT];	/* by rule: pointers of what declares it */
	int8		overlay[FHIR_RULE_COUNT];	/* see FormNode.overlay */
	const char *codes_rule;		/* answerOption or answerValueSet */
	const char *units_rule;
	Span	   *mime_types;
	int			nmime_types;
	Numeric		max_size;		/* megabytes; NULL: any */
	Span	   *targets;		/* referenceResource */
	int			ntargets;

	/* what findings say */
	const char *type_says;
	const char *minimum_says;
	const char *maximum_says;
	const char *min_length_says;
	const char *max_length_says;
	const char *max_places_says;
	const char *min_occurs_says;
	const char *max_occurs_says;
} FhirItem;

/* Where an item is, by its linkId. */
typedef struct FhirLink
{
	const char *link_id;
	int			len;
	int			at;				/* place in Questionnaire.items */
} FhirLink;

/* A linkId against another: by length, then by bytes, as jsonb sorts its keys. */
static inline int
link_order(const FhirLink *link, Span link_id)
{
	return link->len != link_id.len ? link->len - link_id.len :
		memcmp(link->link_id, link_id.data, link_id.len);
}

typedef struct Questionnaire
{
	Span		url;
	Span		version;
	FhirValue  *from;			/* effectivePeriod */
	FhirValue  *until;
	FhirItem   *items;
	int			nitems;
	FhirLink   *links;			/* nitems of them, by link_order() */
	int		   *top;			/* those without a parent */
	int			ntop;
	int8		overlay[FHIR_HEAD_COUNT];	/* see FormNode.overlay */
} Questionnaire;

/*
 * The tree of a response.  A scope is a place in which items stand: the
 * response, a group, or the answer to a question that has items below it.
 */
typedef struct FhirScope
{
	int			item;			/* whose; -1: the response */
	struct FhirInstance *owner;
	struct FhirInstance **first;	/* by child_no */
	struct FhirInstance **last;
} FhirScope;

typedef struct FhirAnswer
{
	FhirValue	value;			/* kind NONE: could not be read */
	FhirScope  *scope;			/* NULL: nothing can stand below it */
} FhirAnswer;

typedef struct FhirInstance
{
	int			item;
	int			order;			/* in the response */
	FhirScope  *within;
	struct FhirInstance *next;	/* of the same item in the same scope */
	FhirAnswer *answers;
	int			nanswers;
	FhirScope  *scope;			/* of a group */
	bool		filled;			/* it has an answer, or items */
} FhirInstance;

typedef struct FhirTree
{
	const CompiledForm *form;
	const Questionnaire *questionnaire;
	Response   *response;
	FhirScope	top;
	bool		complete;		/* the status says that nothing is missing */
	int			ninstances;
	bool		plain;			/* {linkId: answer}: lone items are not in it */
} FhirTree;

/* An object's members or an array's elements, one after the other. */
typedef struct JsonbWalk
{
	const JsonbContainer *container;
	const char *base;
	int			n;
	int			at;
	bool		is_object;
	uint32		key;
	uint32		value;
} JsonbWalk;

/* ---- fhir_form.c ---- */
extern bool questionnaire_is(const JsonbContainer *definition);
extern void questionnaire_compile(CompiledForm *form, JsonbContainer *definition);

/* ---- fhir_decode.c ---- */
extern bool questionnaire_read(const CompiledForm *form, const JsonbContainer *payload,
							   Response *response);

/* ---- fhir_judge.c ---- */
extern void tree_judge(FhirTree *tree);
extern void lone_judge(FhirTree *tree, const FhirItem *item, const FhirValue *answer);

/* ---- fhir_rules.c ---- */
extern void questionnaire_rules(const CompiledForm *form, FormRules *rules);
extern bool item_fails(FhirTree *tree, const FhirItem *item, FhirRule rule,
					   Severity severity, const char *message);
extern void item_unknown(FhirTree *tree, const FhirItem *item, FhirRule rule,
						 Severity severity, const char *message);
extern void head_fails(FhirTree *tree, FhirHeadRule rule, const char *location,
					   Severity severity, const char *message);
extern void head_unknown(FhirTree *tree, FhirHeadRule rule, const char *message);

/* ---- fhir_value.c ---- */
extern const char *const fhir_kind_name[FHIR_KIND_COUNT];
extern FhirKind kind_of_member(Span member, const char *prefix);
extern const char *kind_read(FhirKind kind, const JsonbValue *json, FhirValue *value);
extern FhirOrder values_order_any(const FhirValue *a, const FhirValue *b);
extern bool codes_have(const FhirCodes *codes, const FhirOption *option, const FhirOption **found);
extern const FhirOption *codes_find(const FhirCodes *codes, FhirKind kind, Span code);
extern int	options_compare(const void *a, const void *b);
extern int	questionnaire_find(const Questionnaire *questionnaire, Span link_id);
extern bool span_is(Span span, const char *text);
extern bool spans_equal(Span a, Span b);
extern void walk_begin(JsonbWalk *walk, const JsonbContainer *container);
extern bool walk_next(JsonbWalk *walk, Span *key, JsonbValue *value);
extern bool object_get(const JsonbContainer *object, const char *key, JsonbValue *value);
extern Span object_text(const JsonbContainer *object, const char *key);
extern const JsonbContainer *object_array(const JsonbContainer *object, const char *key);

/* How one value stands to another.  Whole numbers in line: most answers are. */
static inline FhirOrder
values_order(const FhirValue *a, const FhirValue *b)
{
	if (a->value.kind == VALUE_INTEGER && b->value.kind == VALUE_INTEGER &&
		(FHIR_NUMBERS & FHIR_BIT(a->kind)) != 0 && (FHIR_NUMBERS & FHIR_BIT(b->kind)) != 0)
		return a->value.number < b->value.number ? FHIR_BEFORE :
			a->value.number > b->value.number ? FHIR_AFTER : FHIR_SAME;
	return values_order_any(a, b);
}

#endif							/* EPRO_ETL_STAGES_FHIR_H */
