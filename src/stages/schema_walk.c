/*
 * schema_walk.c
 *		Judges a value by a compiled schema: what is not plain in a form.
 *
 * What is walked is the response as the stages before have made it: an item is
 * its Value, normalised and de-identified; a group is its items by their slots,
 * and then the keys of the payload that the form does not declare; below an
 * item it is the payload's jsonb, in place.
 *
 * An answer that de-identification took out or altered is unknown, so a rule
 * has three results, joined as Kleene has it: a rule that comes out unknown is
 * one finding of kind "not evaluated".  So is one that cannot be judged to its
 * end, because the payload is nested beyond the stack or would take longer than
 * any honest payload, or because a pattern gives up; but since the sender could
 * have meant that, its severity is error.
 *
 * A severity that was laid over a rule is that of its findings and of all that
 * is judged below it, the nearest one first; what was switched off is not judged.
 * A failure that is no error holds for the rules around it, so that they are
 * judged as if it were not there.  Where rules decide for another (alternatives,
 * conditions, undeclared properties), they do so as the definition has them, and
 * what is told of them has the other's severity.
 *
 * Nothing here raises an error for data.  A finding never holds any: a key that
 * the definition does not name is data, and the finding points at its object.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "stages/schema.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

/* schemas that a response is held against: a constant, and some by its bytes */
#define MOST_STEPS			INT64CONST(10000000)
#define MOST_STEPS_A_BYTE	16

/* findings of the closest branch of an anyOf or oneOf */
#define MOST_OF_BRANCH		5

/* elements that uniqueItems compares */
#define MOST_UNIQUE			4000000

static const char misfit[] = "has a property that does not fit, of a name that the form does not give";

#define TEN_TO_1000			"1e1000"
#define MOST_SCALE			1000

typedef enum Truth
{
	TRUTH_FAILS = 0,
	TRUTH_UNKNOWN,
	TRUTH_HOLDS
} Truth;

/* A value, and how it was reached. */
typedef struct Instance
{
	Value		value;
	const FormNode *node;		/* a group, whose items have slots; or NULL */
	const struct Instance *outer;	/* NULL: the form's item or group itself */
	const char *key;			/* in outer; NULL: an element */
	int			keylen;
	int			at;				/* place in outer, see Marks */
	int			depth;
	bool		hidden;			/* the key is data, and not to be shown */
	bool		unknown;		/* de-identified: what it was is not known */
} Instance;

/* The members of an object, one after the other. */
typedef struct Members
{
	const Instance *of;
	const JsonbContainer *container;
	int			n;				/* of the container */
	int			child;			/* next item of the group */
	int			i;				/* next key of the container */
	int			c;				/* of the group's items, the first not below it */
	uint32		key;			/* offsets of the next key and value */
	uint32		value;
} Members;

/* What has been judged of an object or array: for the unevaluated... */
typedef struct Marks
{
	bool	   *seen;			/* a group's items first, then the container's */
	int			n;
	bool		uncertain;		/* by a rule that is unknown itself */
} Marks;

/* What becomes of failures; NULL instead: nobody asks. */
typedef struct Report
{
	bool		counting;		/* else they are reported */
	int			count;
	int			depth;			/* counting: of the shallowest */
	int			left;			/* that may be reported; -1: all */
	int			overlay;		/* as FormNode.overlay, of the rule at hand */
	bool		decides;		/* for another rule: overlays do not count */
} Report;

typedef struct Walk
{
	Response   *response;
	const FormNode *top;
	int64		steps;			/* left */
	const char *limit;			/* why something was not judged, or NULL */
} Walk;

static Truth judge_schema(Walk *walk, const Schema *schema, const Instance *instance,
						  Report *report, Marks *marks);
static Truth judge_in_place(Walk *walk, const Schema *schema, const Instance *instance,
							Report *report, Marks *marks);
static void say_unknown(Walk *walk, Truth truth, const char *rule, int overlay);
static Truth judge_plain(Walk *walk, const FormNode *plain, const Instance *instance,
						 Report *report, bool top);
static Truth plain_holds(Walk *walk, const FormNode *plain, Keyword keyword,
						 const Instance *instance);
static Truth equals(Walk *walk, const Instance *instance, const Value *option);
static Truth judge_rule(Walk *walk, const SchemaRule *rule, const Instance *instance,
						Report *report, Marks *marks);
static Truth judge_keyword(Walk *walk, const SchemaRule *rule, const Instance *instance,
						   Report *report, Marks *marks);
static Truth judge_all_of(Walk *walk, const SchemaRule *rule, const Instance *instance,
						  Report *report, Marks *marks);
static Truth judge_alternatives(Walk *walk, const SchemaRule *rule, const Instance *instance,
								Report *report, Marks *marks);
static void say_closest(Walk *walk, const SchemaRule *rule, const Instance *instance,
						Report *report);
static Truth judge_if(Walk *walk, const SchemaRule *rule, const Instance *instance,
					  Report *report, Marks *marks);
static Truth judge_object(Walk *walk, const SchemaRule *rule, const Instance *instance,
						  Report *report, Marks *marks);
static Truth judge_required(Walk *walk, const SchemaKey *keys, int nkeys,
							const SchemaRule *rule, const Instance *instance,
							Report *report);
static Truth judge_properties(Walk *walk, const SchemaRule *rule, const Instance *instance,
							  Report *report, Marks *marks);
static Truth judge_members(Walk *walk, const SchemaRule *rule, const Instance *instance,
						   Report *report, Marks *marks);
static Truth judge_member(Walk *walk, const SchemaRule *rule, Instance *member,
						  Report *report, Marks *marks, const char **fault);
static Truth judge_array(Walk *walk, const SchemaRule *rule, const Instance *instance,
						 Report *report, Marks *marks);
static Truth judge_contains(Walk *walk, const SchemaRule *rule, const Instance *instance,
							Report *report, Marks *marks);
static Truth judge_unique(Walk *walk, const SchemaRule *rule, const Instance *instance,
						  Report *report);
static int	compare_elements(const void *a, const void *b);
static Truth judge_multiple(Walk *walk, const SchemaRule *rule, const Instance *instance,
							Report *report);
static bool is_never(const Schema *schema);
static bool tick(Walk *walk);
static Truth give_up(Walk *walk, const char *why);
static Truth fail(Walk *walk, Report *report, const char *rule, const char *message,
				  const Instance *instance);
static Truth broken(Walk *walk, Report *report, const SchemaRule *rule,
					const Instance *instance);
static const char *location(Walk *walk, const Instance *instance);
static void append_path(StringInfo out, const Instance *instance);
static bool find_member(Walk *walk, const Instance *object, const char *key,
						int keylen, Instance *member);
static void members_begin(Members *members, const Instance *object);
static bool members_next(Walk *walk, Members *members, Instance *member);
static int	members_count(Walk *walk, const Instance *object);
static void item_instance(Walk *walk, const Instance *group, int at, Instance *item);
static int	find_child(const FormNode *group, const char *key, int keylen);
static int	find_key(const JsonbContainer *object, const char *key, int keylen);
static int	compare_key(const char *a, int alen, const char *b, int blen);
static int	array_size(const Instance *array);
static void element(const Instance *array, int at, uint32 *offset, Instance *out);
static void marks_create(Marks *marks, const Instance *instance);
static void mark(Marks *marks, const Instance *member);

/* What a failed schema would have evaluated counts as left over: not worth telling. */
static inline bool
follows_failure(const SchemaRule *rule, Truth so_far)
{
	return so_far == TRUTH_FAILS &&
		(rule->kind == SCHEMA_UNEVALUATED_ITEMS || rule->kind == SCHEMA_UNEVALUATED_PROPERTIES);
}

/* Kleene's "and" and "or"; no macros, for their arguments are whole judgements. */
static inline Truth
both(Truth a, Truth b)
{
	return a < b ? a : b;
}

static inline Truth
either(Truth a, Truth b)
{
	return a > b ? a : b;
}

/* Does this overlay count here?  What is off is off with all that is in it. */
static inline bool
is_overlaid(const Report *report, int overlay)
{
	return unlikely(overlay != 0) && report != NULL && !report->decides &&
		report->overlay != KEYWORD_OFF;
}

/* What a failure that was told counts for around it. */
static inline Truth
failure(const Report *report)
{
	return report == NULL || report->decides ||
		severity_laid(report->overlay, SEVERITY_ERROR) == SEVERITY_ERROR ? TRUTH_FAILS : TRUTH_HOLDS;
}

/*
 * Judges an item or group that is answered, or with node being the root the
 * response, by node->schema.  Scratch memory is the current context's.
 */
void
schema_judge(const FormNode *node, Response *response)
{
	Walk		walk = {0};
	Instance	top = {0};
	Report		report = {0};
	Marks		marks = {0};
	Truth		worst = TRUTH_HOLDS;
	const Schema *schema = node->schema;

	walk.response = response;
	walk.top = node;
	walk.steps = MOST_STEPS + MOST_STEPS_A_BYTE * (int64) response->payload.len;
	report.left = -1;
	if (node->slot >= 0)
		top.value = response->values[node->slot];
	else
	{
		top.value.kind = VALUE_OBJECT;
		top.value.data = response->root;
	}
	top.node = node->nchildren > 0 && top.value.kind == VALUE_OBJECT ? node : NULL;

	if (schema->collects)
		marks_create(&marks, &top);
	if (schema->plain != NULL)
		(void) judge_plain(&walk, schema->plain, &top, &report, true);
	for (int i = 0; i < schema->nrules; i++)
	{
		Truth		truth;

		walk.limit = NULL;
		if (follows_failure(&schema->rules[i], worst))
			break;
		truth = judge_rule(&walk, &schema->rules[i], &top, &report,
						   schema->collects ? &marks : NULL);
		worst = both(worst, truth);
		say_unknown(&walk, truth, schema->rules[i].name, schema->rules[i].overlay);
	}
}

/* marks are for what this schema judges, and nothing else. */
static Truth
judge_schema(Walk *walk, const Schema *schema, const Instance *instance,
			 Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;
	Marks		own;

	if (schema->plain == NULL && schema->nrules == 0)
		return TRUTH_HOLDS;
	if (!tick(walk))
		return TRUTH_UNKNOWN;
	if (stack_is_too_deep())
		return give_up(walk, "the payload is nested deeper than can be judged");

	if (schema->collects && marks == NULL)
	{
		marks_create(&own, instance);
		marks = &own;
	}
	if (schema->plain != NULL)
	{
		truth = judge_plain(walk, schema->plain, instance, report, false);
		/* of the wrong type: what else would be said follows from it */
		if (truth == TRUTH_FAILS &&
			(report == NULL || (!instance->unknown && !type_holds(schema->plain, &instance->value))))
			return truth;
	}
	for (int i = 0; i < schema->nrules; i++)
	{
		if (follows_failure(&schema->rules[i], truth))
			break;
		truth = both(truth, judge_rule(walk, &schema->rules[i], instance, report, marks));
		if (truth == TRUTH_FAILS && report == NULL)
			return truth;
	}
	return truth;
}

/* A schema about the same value as the one it stands in: its marks count there. */
static Truth
judge_in_place(Walk *walk, const Schema *schema, const Instance *instance,
			   Report *report, Marks *marks)
{
	Marks		own;
	Truth		truth;

	if (marks == NULL)
		return judge_schema(walk, schema, instance, report, NULL);
	marks_create(&own, instance);
	truth = judge_schema(walk, schema, instance, report, &own);
	if (truth == TRUTH_FAILS)
		return truth;
	for (int i = 0; i < own.n; i++)
		marks->seen[i] |= own.seen[i];
	marks->uncertain |= own.uncertain || truth == TRUTH_UNKNOWN;
	return truth;
}

/* Once for a rule of the form's item or group, whatever is below it. */
static void
say_unknown(Walk *walk, Truth truth, const char *rule, int overlay)
{
	if (truth != TRUTH_UNKNOWN)
		return;
	finding_add(walk->response->findings, FINDING_NOT_EVALUATED,
				walk->limit ? (Severity) severity_laid(overlay, SEVERITY_ERROR) : SEVERITY_INFORMATION,
				walk->top->pointer, rule,
				walk->limit ? walk->limit :
				"not evaluated, because it depends on an answer that was de-identified");
}

/* ---- keywords about one value ---- */

static Truth
judge_plain(Walk *walk, const FormNode *plain, const Instance *instance,
			Report *report, bool top)
{
	Truth		truth = TRUTH_HOLDS;

	for (Keyword keyword = KEYWORD_TYPE; keyword <= KEYWORD_FORMAT; keyword++)
	{
		int			overlay = plain->overlay[keyword];
		Truth		one;

		if (!(plain->has & (1 << keyword)) ||
			(overlay == KEYWORD_OFF && is_overlaid(report, overlay)))
			continue;
		if (top)
			walk->limit = NULL;
		one = plain_holds(walk, plain, keyword, instance);
		if (one == TRUTH_FAILS)
		{
			int			around = report ? report->overlay : 0;

			if (is_overlaid(report, overlay))
				report->overlay = overlay;
			one = fail(walk, report, keyword_name[keyword], plain->message[keyword], instance);
			if (report != NULL)
				report->overlay = around;
		}
		if (top)
			say_unknown(walk, one, keyword_name[keyword], overlay);
		truth = both(truth, one);
		if (one == TRUTH_FAILS && (report == NULL || keyword == KEYWORD_TYPE))
			break;
	}
	return truth;
}

static Truth
plain_holds(Walk *walk, const FormNode *plain, Keyword keyword, const Instance *instance)
{
	const Value *value = &instance->value;
	bool		holds = true;

	if (instance->unknown)
		return TRUTH_UNKNOWN;
	switch (keyword)
	{
		case KEYWORD_REQUIRED:
			break;
		case KEYWORD_TYPE:
			holds = type_holds(plain, value);
			break;
		case KEYWORD_CONST:
			return equals(walk, instance, &plain->options[plain->noptions]);
		case KEYWORD_ENUM:
			{
				Truth		truth = TRUTH_FAILS;

				for (int i = 0; i < plain->noptions && truth != TRUTH_HOLDS; i++)
					truth = either(truth, equals(walk, instance, &plain->options[i]));
				return truth;
			}
		case KEYWORD_MINIMUM:
		case KEYWORD_MAXIMUM:
		case KEYWORD_EXCLUSIVE_MINIMUM:
		case KEYWORD_EXCLUSIVE_MAXIMUM:
			if (value->kind == VALUE_INTEGER || value->kind == VALUE_NUMERIC)
				holds = limit_holds(keyword, value, &plain->bound[keyword]);
			break;
		case KEYWORD_MIN_LENGTH:
		case KEYWORD_MAX_LENGTH:
			if (value->kind == VALUE_TEXT)
				holds = length_holds(plain, keyword, value);
			break;
		case KEYWORD_PATTERN:
			if (value->kind == VALUE_TEXT)
			{
				int			code = pattern_matches(plain->pattern, value->data, value->len);

				if (code != REG_OKAY && code != REG_NOMATCH)
					return give_up(walk, "the pattern could not be evaluated for this text");
				holds = code == REG_OKAY;
			}
			break;
		case KEYWORD_FORMAT:
			if (value->kind == VALUE_TEXT)
			{
				Value		scratch = *value;

				holds = format_holds(plain->format, &scratch);
			}
			break;
	}
	return holds ? TRUTH_HOLDS : TRUTH_FAILS;
}

/* A group is compared item by item, as it is now; all else as it stands. */
static Truth
equals(Walk *walk, const Instance *instance, const Value *option)
{
	Members		members;
	Instance	member;
	Truth		truth = TRUTH_HOLDS;
	int			n = 0;

	if (instance->unknown)
		return TRUTH_UNKNOWN;
	if (instance->node == NULL)
		return equal_values(&instance->value, option) ? TRUTH_HOLDS : TRUTH_FAILS;
	if (option->kind != VALUE_OBJECT)
		return TRUTH_FAILS;
	members_begin(&members, instance);
	while (members_next(walk, &members, &member))
	{
		Instance	whole = {0};
		Instance	other;

		CHECK_FOR_INTERRUPTS();
		n++;
		whole.value = *option;
		if (!find_member(walk, &whole, member.key, member.keylen, &other))
			return TRUTH_FAILS;
		truth = both(truth, equals(walk, &member, &other.value));
		if (truth == TRUTH_FAILS)
			return truth;
	}
	return n == JsonContainerSize((const JsonbContainer *) option->data) ? truth : TRUTH_FAILS;
}

/* ---- rules ---- */

static Truth
judge_rule(Walk *walk, const SchemaRule *rule, const Instance *instance,
		   Report *report, Marks *marks)
{
	int			around;
	Truth		truth;

	if (!is_overlaid(report, rule->overlay))
		return judge_keyword(walk, rule, instance, report, marks);
	if (rule->overlay == KEYWORD_OFF)
	{
		Report		silent = {.counting = true, .overlay = KEYWORD_OFF};

		/* what it evaluates is not left over */
		if (marks != NULL)
			(void) judge_keyword(walk, rule, instance, &silent, marks);
		return TRUTH_HOLDS;
	}
	around = report->overlay;
	report->overlay = rule->overlay;
	truth = judge_keyword(walk, rule, instance, report, marks);
	report->overlay = around;
	return truth;
}

static Truth
judge_keyword(Walk *walk, const SchemaRule *rule, const Instance *instance,
			  Report *report, Marks *marks)
{
	switch (rule->kind)
	{
		case SCHEMA_NEVER:
			return broken(walk, report, rule, instance);
		case SCHEMA_REF:
		case SCHEMA_ALL_OF:
			return judge_all_of(walk, rule, instance, report, marks);
		case SCHEMA_ANY_OF:
		case SCHEMA_ONE_OF:
			return judge_alternatives(walk, rule, instance, report, marks);
		case SCHEMA_NOT:
			{
				Truth		truth = judge_schema(walk, rule->schemas[0], instance, NULL, NULL);

				if (truth == TRUTH_HOLDS)
					return broken(walk, report, rule, instance);
				return (Truth) (TRUTH_HOLDS - truth);
			}
		case SCHEMA_IF:
			return judge_if(walk, rule, instance, report, marks);
		default:
			break;
	}

	if (instance->unknown)
		return TRUTH_UNKNOWN;
	switch (instance->value.kind)
	{
		case VALUE_OBJECT:
			return judge_object(walk, rule, instance, report, marks);
		case VALUE_ARRAY:
			return judge_array(walk, rule, instance, report, marks);
		case VALUE_INTEGER:
		case VALUE_NUMERIC:
			return judge_multiple(walk, rule, instance, report);
		default:
			return TRUTH_HOLDS;
	}
}

static Truth
judge_all_of(Walk *walk, const SchemaRule *rule, const Instance *instance,
			 Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;

	for (int i = 0; i < rule->nschemas; i++)
	{
		truth = both(truth, judge_in_place(walk, rule->schemas[i], instance, report, marks));
		if (truth == TRUTH_FAILS && report == NULL)
			break;
	}
	return truth;
}

/* anyOf and oneOf */
static Truth
judge_alternatives(Walk *walk, const SchemaRule *rule, const Instance *instance,
				   Report *report, Marks *marks)
{
	bool		any = rule->kind == SCHEMA_ANY_OF;
	int			most = any ? rule->nschemas : 1;
	int			holding = 0;
	int			unknown = 0;

	for (int i = 0; i < rule->nschemas && holding <= most; i++)
	{
		Truth		truth = judge_in_place(walk, rule->schemas[i], instance, NULL, marks);

		holding += truth == TRUTH_HOLDS;
		unknown += truth == TRUTH_UNKNOWN;
		/* one is enough, unless what the others evaluate is asked for */
		if (any && holding > 0 && marks == NULL)
			break;
	}
	if (holding > most || holding + unknown == 0)
	{
		Truth		truth = broken(walk, report, rule, instance);

		if (holding == 0)
			say_closest(walk, rule, instance, report);
		return truth;
	}
	return unknown == 0 || (any && holding > 0) ? TRUTH_HOLDS : TRUTH_UNKNOWN;
}

/*
 * Of branches that all fail, reports what fails in the one that was most likely
 * meant: whose failures are deepest within the value, and of these the one with
 * the fewest.
 */
static void
say_closest(Walk *walk, const SchemaRule *rule, const Instance *instance, Report *report)
{
	Report		say = {0};
	int			closest = 0;
	int			depth = -1;
	int			count = 0;

	if (report == NULL || report->counting)
		return;
	for (int i = 0; i < rule->nschemas; i++)
	{
		Report		score = {0};

		score.counting = score.decides = true;
		score.depth = PG_INT32_MAX;
		(void) judge_schema(walk, rule->schemas[i], instance, &score, NULL);
		if (score.depth > depth || (score.depth == depth && score.count < count))
		{
			closest = i;
			depth = score.depth;
			count = score.count;
		}
	}
	/* within the closest branch of another: the bound is the outer one's */
	say.left = MOST_OF_BRANCH;
	say.overlay = report->overlay;
	say.decides = true;
	(void) judge_schema(walk, rule->schemas[closest], instance,
						report->left >= 0 ? report : &say, NULL);
}

/* rule->schemas are if, then and else. */
static Truth
judge_if(Walk *walk, const SchemaRule *rule, const Instance *instance,
		 Report *report, Marks *marks)
{
	Truth		asked = judge_in_place(walk, rule->schemas[0], instance, NULL, marks);
	const Schema *then = rule->schemas[1];
	const Schema *otherwise = rule->schemas[2];
	Report		silent = {0};
	Report	   *either_way = NULL;
	Truth		answer;

	if (asked == TRUTH_HOLDS)
		return then ? judge_in_place(walk, then, instance, report, marks) : TRUTH_HOLDS;
	if (asked == TRUTH_FAILS)
		return otherwise ? judge_in_place(walk, otherwise, instance, report, marks) : TRUTH_HOLDS;
	/* known only where both ways lead to the same */
	if (report != NULL && !report->decides)
	{
		silent.counting = true;
		either_way = &silent;
	}
	answer = then ? judge_in_place(walk, then, instance, either_way, marks) : TRUTH_HOLDS;
	if (answer != (otherwise ? judge_in_place(walk, otherwise, instance, either_way, marks) : TRUTH_HOLDS) ||
		(answer == TRUTH_HOLDS && silent.count > 0))
		return TRUTH_UNKNOWN;
	return answer == TRUTH_FAILS ? broken(walk, report, rule, instance) : answer;
}

/* ---- objects ---- */

static Truth
judge_object(Walk *walk, const SchemaRule *rule, const Instance *instance,
			 Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;
	Instance	member;

	switch (rule->kind)
	{
		case SCHEMA_REQUIRED:
			return judge_required(walk, rule->keys, rule->nkeys, rule, instance, report);
		case SCHEMA_DEPENDENT_REQUIRED:
			for (int i = 0; i < rule->nkeys; i++)
			{
				if (find_member(walk, instance, rule->keys[i].data, rule->keys[i].len, &member))
					truth = both(truth, judge_required(walk, rule->needed[i], rule->nneeded[i],
													  rule, instance, report));
			}
			return truth;
		case SCHEMA_DEPENDENT_SCHEMAS:
			for (int i = 0; i < rule->nkeys; i++)
			{
				if (find_member(walk, instance, rule->keys[i].data, rule->keys[i].len, &member))
					truth = both(truth, judge_in_place(walk, rule->schemas[i], instance, report, marks));
			}
			return truth;
		case SCHEMA_PROPERTIES:
			return judge_properties(walk, rule, instance, report, marks);
		case SCHEMA_PATTERN_PROPERTIES:
		case SCHEMA_ADDITIONAL_PROPERTIES:
		case SCHEMA_PROPERTY_NAMES:
		case SCHEMA_UNEVALUATED_PROPERTIES:
			return judge_members(walk, rule, instance, report, marks);
		case SCHEMA_MIN_PROPERTIES:
			return members_count(walk, instance) < rule->least ?
				broken(walk, report, rule, instance) : truth;
		case SCHEMA_MAX_PROPERTIES:
			return members_count(walk, instance) > rule->most ?
				broken(walk, report, rule, instance) : truth;
		default:
			return truth;
	}
}

/* What is missing is named: the name is the definition's. */
static Truth
judge_required(Walk *walk, const SchemaKey *keys, int nkeys, const SchemaRule *rule,
			   const Instance *instance, Report *report)
{
	Truth		truth = TRUTH_HOLDS;

	for (int i = 0; i < nkeys; i++)
	{
		Instance	member = {0};

		if (find_member(walk, instance, keys[i].data, keys[i].len, &member))
			continue;
		memset(&member, 0, sizeof(member));
		member.outer = instance;
		member.key = keys[i].data;
		member.keylen = keys[i].len;
		member.depth = instance->depth;
		truth = broken(walk, report, rule, &member);
	}
	return truth;
}

static Truth
judge_properties(Walk *walk, const SchemaRule *rule, const Instance *instance,
				 Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;

	for (int i = 0; i < rule->nkeys; i++)
	{
		Instance	member;

		CHECK_FOR_INTERRUPTS();
		if (!find_member(walk, instance, rule->keys[i].data, rule->keys[i].len, &member))
			continue;
		mark(marks, &member);
		truth = both(truth, judge_schema(walk, rule->schemas[i], &member, report, NULL));
		if (truth == TRUTH_FAILS && report == NULL)
			break;
	}
	return truth;
}

/* Rules that look at every member. */
static Truth
judge_members(Walk *walk, const SchemaRule *rule, const Instance *instance,
			  Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;
	const char *fault = NULL;
	bool		decides = report != NULL && report->decides;
	Members		members;
	Instance	member;

	if (report != NULL)
		report->decides = true;
	members_begin(&members, instance);
	while (members_next(walk, &members, &member))
	{
		if (!tick(walk))
		{
			truth = both(truth, TRUTH_UNKNOWN);
			break;
		}
		truth = both(truth, judge_member(walk, rule, &member, report, marks, &fault));
		if (truth == TRUTH_FAILS && report == NULL)
			return truth;
	}
	if (report != NULL)
		report->decides = decides;
	/* once, however many there are */
	if (fault != NULL)
		return fail(walk, report, rule->name, fault, instance);
	if (truth == TRUTH_FAILS)
		return failure(report);
	if (rule->kind == SCHEMA_UNEVALUATED_PROPERTIES && marks->uncertain)
		truth = both(truth, TRUTH_UNKNOWN);
	return truth;
}

/*
 * What fails at a member whose name must not be shown is told of the object, by
 * *fault; else it is reported as anywhere.
 */
static Truth
judge_member(Walk *walk, const SchemaRule *rule, Instance *member, Report *report,
			 Marks *marks, const char **fault)
{
	Truth		truth = TRUTH_HOLDS;
	bool		listed = false;
	Report	   *shown = member->hidden ? NULL : report;

	if (rule->kind == SCHEMA_PROPERTY_NAMES)
	{
		Instance	name = {0};

		name.value.kind = VALUE_TEXT;
		name.value.data = member->key;
		name.value.len = member->keylen;
		name.outer = member->outer;
		name.hidden = true;
		truth = judge_schema(walk, rule->schemas[0], &name, NULL, NULL);
		if (truth == TRUTH_FAILS)
			*fault = rule->message;
		return truth;
	}

	for (int i = 0; i < rule->npatterns && !listed; i++)
	{
		int			code = pattern_matches(rule->patterns[i], member->key, member->keylen);

		if (code != REG_OKAY && code != REG_NOMATCH)
			truth = both(truth, give_up(walk, "a pattern could not be evaluated for the name of a property"));
		else if (code == REG_NOMATCH)
			continue;
		else if (rule->kind != SCHEMA_PATTERN_PROPERTIES)
			listed = true;
		else
		{
			mark(marks, member);
			truth = both(truth, judge_schema(walk, rule->schemas[i], member, shown, NULL));
		}
	}
	if (truth == TRUTH_FAILS && member->hidden)
		*fault = misfit;
	if (rule->kind == SCHEMA_PATTERN_PROPERTIES || listed || truth != TRUTH_HOLDS)
		return truth;

	{
		int			low = 0;
		int			high = rule->nkeys;

		while (low < high)
		{
			int			middle = (low + high) / 2;

			if (compare_key(rule->keys[middle].data, rule->keys[middle].len,
							member->key, member->keylen) < 0)
				low = middle + 1;
			else
				high = middle;
		}
		if (low < rule->nkeys && compare_key(rule->keys[low].data, rule->keys[low].len,
											 member->key, member->keylen) == 0)
			return truth;
	}
	if (rule->kind == SCHEMA_UNEVALUATED_PROPERTIES && marks->seen[member->at])
		return truth;
	mark(marks, member);
	if (is_never(rule->schemas[0]))
	{
		*fault = rule->message;
		return TRUTH_FAILS;
	}
	truth = judge_schema(walk, rule->schemas[0], member, shown, NULL);
	if (truth == TRUTH_FAILS && member->hidden && *fault == NULL)
		*fault = misfit;
	return truth;
}

/* ---- arrays ---- */

static Truth
judge_array(Walk *walk, const SchemaRule *rule, const Instance *instance,
			Report *report, Marks *marks)
{
	Truth		truth = TRUTH_HOLDS;
	int			n = array_size(instance);
	int			from = 0;
	int			to = n;
	uint32		offset = 0;

	switch (rule->kind)
	{
		case SCHEMA_CONTAINS:
			return judge_contains(walk, rule, instance, report, marks);
		case SCHEMA_UNIQUE_ITEMS:
			return judge_unique(walk, rule, instance, report);
		case SCHEMA_MIN_ITEMS:
			return n < rule->least ? broken(walk, report, rule, instance) : truth;
		case SCHEMA_MAX_ITEMS:
			return n > rule->most ? broken(walk, report, rule, instance) : truth;
		case SCHEMA_PREFIX_ITEMS:
			to = Min(n, rule->nschemas);
			break;
		case SCHEMA_ITEMS:
			from = (int) Min(n, rule->least);
			break;
		case SCHEMA_UNEVALUATED_ITEMS:
			break;
		default:
			return truth;
	}

	for (int i = 0; i < to; i++)
	{
		const Schema *schema = rule->schemas[rule->kind == SCHEMA_PREFIX_ITEMS ? i : 0];
		Instance	one;

		if (!tick(walk))
			return both(truth, TRUTH_UNKNOWN);
		element(instance, i, &offset, &one);
		if (i < from || (rule->kind == SCHEMA_UNEVALUATED_ITEMS && marks->seen[i]))
			continue;
		mark(marks, &one);
		truth = both(truth, judge_schema(walk, schema, &one, report, NULL));
		if (truth == TRUTH_FAILS && report == NULL)
			return truth;
	}
	if (rule->kind == SCHEMA_UNEVALUATED_ITEMS && marks->uncertain)
		truth = both(truth, TRUTH_UNKNOWN);
	return truth;
}

static Truth
judge_contains(Walk *walk, const SchemaRule *rule, const Instance *instance,
			   Report *report, Marks *marks)
{
	int			n = array_size(instance);
	int64		holding = 0;
	int64		unknown = 0;
	uint32		offset = 0;

	for (int i = 0; i < n; i++)
	{
		Instance	one;
		Truth		truth;

		if (!tick(walk))
			return TRUTH_UNKNOWN;
		element(instance, i, &offset, &one);
		truth = judge_schema(walk, rule->schemas[0], &one, NULL, NULL);
		if (truth == TRUTH_HOLDS)
			mark(marks, &one);
		holding += truth == TRUTH_HOLDS;
		unknown += truth == TRUTH_UNKNOWN;
		if (marks == NULL && holding >= rule->least && rule->most == PG_INT64_MAX)
			return TRUTH_HOLDS;
	}
	if (holding > rule->most)
		return fail(walk, report, "maxContains", rule->message, instance);
	if (holding + unknown < rule->least)
		return fail(walk, report, rule->least == 1 ? rule->name : "minContains", rule->message, instance);
	return holding >= rule->least && holding + unknown <= rule->most ? TRUTH_HOLDS : TRUTH_UNKNOWN;
}

/* Sorted, equal elements are neighbours. */
static Truth
judge_unique(Walk *walk, const SchemaRule *rule, const Instance *instance, Report *report)
{
	int			n = array_size(instance);
	Value	   *values;
	uint32		offset = 0;
	bool		twice = false;

	if (n < 2)
		return TRUTH_HOLDS;
	if (n > MOST_UNIQUE)
		return give_up(walk, "the array is longer than can be judged");
	values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Value) * n);
	for (int i = 0; i < n; i++)
	{
		Instance	one;

		CHECK_FOR_INTERRUPTS();
		element(instance, i, &offset, &one);
		values[i] = one.value;
	}
	walk->steps -= n;
	qsort(values, n, sizeof(Value), compare_elements);
	for (int i = 1; i < n && !twice; i++)
		twice = compare_elements(&values[i - 1], &values[i]) == 0;
	pfree(values);
	return twice ? broken(walk, report, rule, instance) : TRUTH_HOLDS;
}

/* Any order will do in which exactly equal values are equal. */
static int
compare_elements(const void *a, const void *b)
{
	const Value *left = a;
	const Value *right = b;
	bool		number = left->kind == VALUE_INTEGER || left->kind == VALUE_NUMERIC;

	CHECK_FOR_INTERRUPTS();
	if (number && left->kind == right->kind)
		return value_compare_numbers(left, right);
	/* a whole number that fits int64 is never a NUMERIC */
	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	switch (left->kind)
	{
		case VALUE_BOOLEAN:
			return (int) (left->number - right->number);
		case VALUE_TEXT:
			return compare_key(left->data, left->len, right->data, right->len);
		case VALUE_ARRAY:
		case VALUE_OBJECT:
			return compareJsonbContainers((JsonbContainer *) left->data,
										  (JsonbContainer *) right->data);
		default:
			return 0;
	}
}

/* ---- numbers ---- */

static Truth
judge_multiple(Walk *walk, const SchemaRule *rule, const Instance *instance, Report *report)
{
	const Value *value = &instance->value;
	bool		holds;

	if (rule->kind != SCHEMA_MULTIPLE_OF)
		return TRUTH_HOLDS;
	if (value->kind == VALUE_INTEGER && rule->divisor.kind == VALUE_INTEGER)
		holds = value->number % rule->divisor.number == 0;
	else if (!schema_divides(value))
		return give_up(walk, "the number has more digits than can be judged");
	else
	{
		Datum		rest = DirectFunctionCall2(numeric_mod, NumericGetDatum(value_numeric(value)),
											   NumericGetDatum(value_numeric(&rule->divisor)));
		int64		whole;

		holds = value_from_numeric(DatumGetNumeric(rest), &whole) && whole == 0;
		pfree(DatumGetPointer(rest));
	}
	return holds ? TRUTH_HOLDS : broken(walk, report, rule, instance);
}

/*
 * Can it be divided in a time that does not depend on who sent it?  A payload in
 * jsonb may have numbers of a hundred thousand digits.
 */
bool
schema_divides(const Value *number)
{
	Datum		numeric;
	Datum		bound;

	if (number->kind == VALUE_INTEGER)
		return true;
	numeric = NumericGetDatum(value_numeric(number));
	bound = DirectFunctionCall3(numeric_in, CStringGetDatum(TEN_TO_1000),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return DatumGetInt32(DirectFunctionCall1(numeric_scale, numeric)) <= MOST_SCALE &&
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, DirectFunctionCall1(numeric_abs, numeric), bound)) < 0;
}

/* ---- failures ---- */

static bool
is_never(const Schema *schema)
{
	return schema->nrules == 1 && schema->rules[0].kind == SCHEMA_NEVER;
}

/* One step of judging; false when there have been too many. */
static bool
tick(Walk *walk)
{
	CHECK_FOR_INTERRUPTS();
	if (--walk->steps >= 0)
		return true;
	(void) give_up(walk, "the rule takes longer than can be judged");
	return false;
}

static Truth
give_up(Walk *walk, const char *why)
{
	walk->limit = why;
	return TRUTH_UNKNOWN;
}

/* Tells a failure, and returns what it counts for around it. */
static Truth
fail(Walk *walk, Report *report, const char *rule, const char *message,
	 const Instance *instance)
{
	FindingList *findings = walk->response->findings;
	Truth		truth = failure(report);

	if (report == NULL)
		return truth;
	if (report->counting)
	{
		report->count++;
		report->depth = Min(report->depth, instance->depth);
		return truth;
	}
	if (report->left == 0)
		return truth;
	if (report->left > 0)
		report->left--;
	/* a finding that is only counted needs no place */
	finding_add(findings, FINDING_SCHEMA, (Severity) severity_laid(report->overlay, SEVERITY_ERROR),
				findings->n - findings->first < MAX_FINDINGS ? location(walk, instance) : "",
				rule, message);
	return truth;
}

/* The same, by the name of the rule and what it always says. */
static Truth
broken(Walk *walk, Report *report, const SchemaRule *rule, const Instance *instance)
{
	return fail(walk, report, rule->name, rule->message, instance);
}

/* The JSON Pointer, as far as the definition names the keys; it outlives the response. */
static const char *
location(Walk *walk, const Instance *instance)
{
	StringInfoData out;
	const Instance *shown = instance;

	for (const Instance *at = instance; at->outer != NULL; at = at->outer)
	{
		if (at->hidden)
			shown = at->outer;
	}
	if (shown->outer == NULL)
		return walk->top->pointer;
	initStringInfo(&out);
	appendStringInfoString(&out, walk->top->pointer);
	append_path(&out, shown);
	return MemoryContextStrdup(walk->response->findings->memory, out.data);
}

static void
append_path(StringInfo out, const Instance *instance)
{
	if (instance->outer == NULL)
		return;
	append_path(out, instance->outer);
	if (instance->key == NULL)
	{
		appendStringInfo(out, "/%d", instance->at);
		return;
	}
	appendStringInfoChar(out, '/');
	for (int i = 0; i < instance->keylen; i++)
	{
		if (instance->key[i] == '~')
			appendStringInfoString(out, "~0");
		else if (instance->key[i] == '/')
			appendStringInfoString(out, "~1");
		else
			appendStringInfoChar(out, instance->key[i]);
	}
}

/* ---- the response as objects and arrays ---- */

/* By a key that the definition names; in a group, an item as it is now. */
static bool
find_member(Walk *walk, const Instance *object, const char *key, int keylen,
			Instance *member)
{
	const JsonbContainer *container = object->value.data;
	int			nchildren = 0;
	int			at;

	memset(member, 0, sizeof(*member));
	if (object->node != NULL)
	{
		nchildren = object->node->nchildren;
		at = find_child(object->node, key, keylen);
		if (at >= 0)
		{
			item_instance(walk, object, at, member);
			return member->value.kind != VALUE_ABSENT;
		}
	}
	if (container == NULL || (at = find_key(container, key, keylen)) < 0)
		return false;
	member->outer = object;
	member->key = key;
	member->keylen = keylen;
	member->at = nchildren + at;
	member->depth = object->depth + 1;
	{
		int			n = JsonContainerSize(container);
		uint32		offset = getJsonbOffset(container, n + at);

		value_set_entry(&member->value, (const char *) (container->children + 2 * n),
						container->children[n + at], offset,
						offset + getJsonbLength(container, n + at));
	}
	return true;
}

static void
members_begin(Members *members, const Instance *object)
{
	memset(members, 0, sizeof(*members));
	members->of = object;
	members->container = object->value.data;
	if (members->container != NULL)
	{
		members->n = JsonContainerSize(members->container);
		members->value = getJsonbOffset(members->container, members->n);
	}
}

/* A group's items that are answered, then the keys that are no item of it. */
static bool
members_next(Walk *walk, Members *members, Instance *member)
{
	const Instance *of = members->of;
	const FormNode *group = of->node;
	int			nchildren = group ? group->nchildren : 0;

	while (members->child < nchildren)
	{
		item_instance(walk, of, members->child++, member);
		if (member->value.kind != VALUE_ABSENT)
			return true;
	}
	while (members->i < members->n)
	{
		const JEntry *entries = members->container->children;
		const char *base = (const char *) (entries + 2 * members->n);
		int			i = members->i++;
		uint32		key = members->key;
		uint32		value = members->value;
		int			order = 1;

		JBE_ADVANCE_OFFSET(members->key, entries[i]);
		JBE_ADVANCE_OFFSET(members->value, entries[members->n + i]);
		/* both are sorted alike */
		while (members->c < nchildren &&
			   (order = compare_key(group->children[members->c]->key, group->children[members->c]->keylen,
									base + key, (int) (members->key - key))) < 0)
			members->c++;
		if (members->c < nchildren && order == 0)
			continue;
		memset(member, 0, sizeof(*member));
		member->outer = of;
		member->key = base + key;
		member->keylen = (int) (members->key - key);
		member->at = nchildren + i;
		member->depth = of->depth + 1;
		member->hidden = true;
		value_set_entry(&member->value, base, entries[members->n + i], value, members->value);
		return true;
	}
	return false;
}

static int
members_count(Walk *walk, const Instance *object)
{
	Members		members;
	Instance	member;
	int			n = 0;

	if (object->node == NULL)
		return object->value.data ? JsonContainerSize((const JsonbContainer *) object->value.data) : 0;
	members_begin(&members, object);
	while (members_next(walk, &members, &member))
		n++;
	return n;
}

/* An item or group of the form within a group, by its slot. */
static void
item_instance(Walk *walk, const Instance *group, int at, Instance *item)
{
	const FormNode *node = group->node->children[at];

	memset(item, 0, sizeof(*item));
	item->value = walk->response->values[node->slot];
	item->outer = group;
	item->key = node->key;
	item->keylen = node->keylen;
	item->at = at;
	item->depth = group->depth + 1;
	item->unknown = !node_is_judged(node) || item->value.kind == VALUE_REMOVED;
	if (node->nchildren > 0 && item->value.kind == VALUE_OBJECT)
		item->node = node;
}

static int
find_child(const FormNode *group, const char *key, int keylen)
{
	int			low = 0;
	int			high = group->nchildren - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		const FormNode *child = group->children[middle];
		int			order = compare_key(child->key, child->keylen, key, keylen);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

static int
find_key(const JsonbContainer *object, const char *key, int keylen)
{
	const char *base = (const char *) (object->children + 2 * JsonContainerSize(object));
	int			low = 0;
	int			high = (int) JsonContainerSize(object) - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_key(base + getJsonbOffset(object, middle),
										(int) getJsonbLength(object, middle), key, keylen);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

/* jsonb's order of keys: by length, then by bytes (see jsonb_util.c) */
static int
compare_key(const char *a, int alen, const char *b, int blen)
{
	if (alen != blen)
		return alen < blen ? -1 : 1;
	return alen > 0 ? memcmp(a, b, alen) : 0;
}

static int
array_size(const Instance *array)
{
	return array->value.data ? JsonContainerSize((const JsonbContainer *) array->value.data) : 0;
}

/* The next element; *offset is where it begins, 0 before the first. */
static void
element(const Instance *array, int at, uint32 *offset, Instance *out)
{
	const JsonbContainer *container = array->value.data;
	uint32		start = *offset;

	memset(out, 0, sizeof(*out));
	JBE_ADVANCE_OFFSET(*offset, container->children[at]);
	out->outer = array;
	out->at = at;
	out->depth = array->depth + 1;
	value_set_entry(&out->value, (const char *) (container->children + JsonContainerSize(container)),
					container->children[at], start, *offset);
}

/* ---- marks ---- */

static void
marks_create(Marks *marks, const Instance *instance)
{
	const JsonbContainer *container = instance->value.data;

	memset(marks, 0, sizeof(*marks));
	if (instance->value.kind != VALUE_OBJECT && instance->value.kind != VALUE_ARRAY)
		return;
	marks->n = (instance->node ? instance->node->nchildren : 0) +
		(container ? JsonContainerSize(container) : 0);
	marks->seen = palloc0(marks->n + 1);
}

static void
mark(Marks *marks, const Instance *member)
{
	if (marks != NULL)
		marks->seen[member->at] = true;
}
