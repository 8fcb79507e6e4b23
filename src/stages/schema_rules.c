/*
 * schema_rules.c
 *		A form's rules as a list, in the order in which they are judged: for
 *		those who name one, or ask which there are.
 *
 * The places are the definition's.  What is reached in several ways is listed
 * once a way that makes a difference: how severe its findings are, and whether
 * it makes any.  A rule within an alternative, a condition or the schema of
 * undeclared properties makes none of its own: it decides the rule around it.
 *
 * Everything is allocated in the current memory context, and points into the
 * compiled form.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "stages/fhir.h"
#include "stages/form.h"
#include "utils/hsearch.h"
#include "words/schema.h"

/* How a schema is reached. */
typedef struct Way
{
	int			inherited;		/* laid over the nearest rule around: see FormNode.overlay */
	const char *decides;		/* the rule that it decides; NULL: its findings are its own */
} Way;

typedef struct Listing
{
	FormRules  *rules;
	HTAB	   *seen;			/* of Seen */
	const FormNode *node;		/* the item at hand, or the group around it */
	const char *where;			/* its schema's pointer */
	const char *path;			/* and the way there through "properties"; NULL:
								 * further in, where others may share the rules */
} Listing;

typedef struct SeenKey
{
	const Schema *schema;
	int64		way;
} SeenKey;

static void list_group(Listing *listing, const FormNode *group, const char *where,
					   const char *path);
static void list_node(Listing *listing, const FormNode *group, const FormNode *node,
					  const char *where, const char *path);
static void list_required(Listing *listing, const FormNode *node, const char *where,
						  const char *path);
static void list_schema(Listing *listing, const Schema *schema, Way way);
static void list_plain(Listing *listing, const FormNode *plain, const char *where, Way way);
static void list_rule(Listing *listing, SchemaRule *rule, Way way);
static void list_counts(Listing *listing, const SchemaRule *rule, Way way);
static bool decides(const SchemaRule *rule, int schema);
static const char *says_of(const SchemaRule *rule);
static void add(Listing *listing, const char *where, const char *name, const char *says,
				int8 *overlay, Way way);
static int	overlaid(Way way, int overlay);
static bool is_never(const Schema *schema);

/* All rules that are judged of a response. */
FormRules *
form_rules(const CompiledForm *form)
{
	Listing		listing = {0};
	HASHCTL		control = {0};

	listing.rules = palloc0(sizeof(FormRules));
	if (form->questionnaire != NULL)
	{
		questionnaire_rules(form, listing.rules);
		return listing.rules;
	}
	control.keysize = sizeof(SeenKey);
	control.entrysize = sizeof(SeenKey);
	control.hcxt = CurrentMemoryContext;
	listing.seen = hash_create("schemas that were listed", 64, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	list_group(&listing, form->root, "", "");
	listing.where = listing.path = "";
	if (form->root->schema != NULL)
		list_schema(&listing, form->root->schema, (Way) {0});
	return listing.rules;
}

/* One more, which is an error and cannot be anything else: the caller says more. */
FormRule *
form_rules_add(FormRules *rules, const char *where, const char *name, const char *says)
{
	FormRule   *rule;

	if (rules->n >= rules->room)
	{
		rules->room = Max(64, rules->room * 2);
		rules->list = rules->list == NULL ? palloc(sizeof(FormRule) * rules->room) :
			repalloc_huge(rules->list, sizeof(FormRule) * rules->room);
	}
	rule = &rules->list[rules->n++];
	memset(rule, 0, sizeof(*rule));
	rule->where = where;
	rule->name = name;
	rule->says = says;
	rule->severity = SEVERITY_ERROR;
	return rule;
}

/* ---- items: as validate() goes through them ---- */

static void
list_group(Listing *listing, const FormNode *group, const char *where, const char *path)
{
	check_stack_depth();
	for (int i = 0; i < group->nchildren; i++)
		list_node(listing, group, group->children[i], where, path);
}

/* where and path are the group's. */
static void
list_node(Listing *listing, const FormNode *group, const FormNode *node,
		  const char *where, const char *path)
{
	const char *key = node->pointer + strlen(group->pointer);
	const char *own = node->where ? node->where : psprintf("%s/properties%s", where, key);

	CHECK_FOR_INTERRUPTS();
	if (node->has & (1 << KEYWORD_REQUIRED))
		list_required(listing, node, where, path);
	/* what de-identification takes is asked for, and not judged */
	if (!node_is_judged(node))
		return;
	path = psprintf("%s/properties%s", path, key);
	listing->node = node;
	listing->where = own;
	listing->path = path;
	list_plain(listing, node, own, (Way) {0});
	list_group(listing, node, own, path);
	listing->node = node;
	listing->where = own;
	listing->path = path;
	if (node->schema != NULL)
		list_schema(listing, node->schema, (Way) {0});
}

/* An element of the group's list; the list is all of them. */
static void
list_required(Listing *listing, const FormNode *node, const char *where, const char *path)
{
	FormRule   *rule;

	listing->node = node;
	listing->where = where;
	listing->path = path;
	add(listing, psprintf("%s/required/%d", where, node->required_at),
		keyword_name[KEYWORD_REQUIRED], node->message[KEYWORD_REQUIRED],
		unconstify(int8 *, &node->overlay[KEYWORD_REQUIRED]), (Way) {0});
	rule = &listing->rules->list[listing->rules->n - 1];
	rule->also = lappend(rule->also, psprintf("%s/required", where));
	if (strcmp(where, path) != 0)
		rule->also = lappend(rule->also, psprintf("%s/required", path));
}

/* ---- schemas: as the walker goes through them ---- */

static void
list_schema(Listing *listing, const Schema *schema, Way way)
{
	SeenKey		key = {0};
	bool		seen;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	key.schema = schema;
	key.way = way.decides != NULL ? KEYWORD_OFF - 1 : way.inherited;
	(void) hash_search(listing->seen, &key, HASH_ENTER, &seen);
	if (seen)
		return;
	if (schema->plain != NULL)
		list_plain(listing, schema->plain, schema->where, way);
	for (int i = 0; i < schema->nrules; i++)
		list_rule(listing, &schema->rules[i], way);
}

static void
list_plain(Listing *listing, const FormNode *plain, const char *where, Way way)
{
	for (Keyword keyword = KEYWORD_TYPE; keyword <= KEYWORD_FORMAT; keyword++)
	{
		if (plain->has & (1 << keyword))
			add(listing, psprintf("%s/%s", where, keyword_name[keyword]), keyword_name[keyword],
				plain->message[keyword], unconstify(int8 *, &plain->overlay[keyword]), way);
	}
}

static void
list_rule(Listing *listing, SchemaRule *rule, Way way)
{
	const char *path = listing->path;
	/* the schema false says it for the keyword that it stands behind */
	bool		is_element = rule->kind == SCHEMA_ITEMS || rule->kind == SCHEMA_UNEVALUATED_ITEMS;
	bool		is_member = rule->kind == SCHEMA_ADDITIONAL_PROPERTIES ||
		rule->kind == SCHEMA_UNEVALUATED_PROPERTIES;

	if (!(is_element && is_never(rule->schemas[0])))
		add(listing, rule->where, rule->name, says_of(rule), &rule->overlay, way);
	if (rule->kind == SCHEMA_CONTAINS)
		list_counts(listing, rule, way);
	if (is_member && is_never(rule->schemas[0]))
		return;
	listing->path = NULL;
	for (int i = 0; i < rule->nschemas; i++)
	{
		Way			below = way;

		if (rule->schemas[i] == NULL)
			continue;
		below.inherited = overlaid(way, rule->overlay);
		if (below.decides == NULL && decides(rule, i))
			below.decides = rule->where;
		list_schema(listing, rule->schemas[i], below);
	}
	listing->path = path;
}

/* "minContains" and "maxContains" are parts of "contains". */
static void
list_counts(Listing *listing, const SchemaRule *rule, Way way)
{
	static const char *const names[] = {"minContains", "maxContains"};

	if (way.decides == NULL)
		way.decides = rule->where;
	for (int i = 0; i < 2; i++)
	{
		if (i == 0 ? rule->least == 1 : rule->most == PG_INT64_MAX)
			continue;
		add(listing, psprintf("%.*s/%s", (int) (strrchr(rule->where, '/') - rule->where),
							  rule->where, names[i]),
			names[i], rule->message, NULL, way);
	}
}

/* Do the rules of this schema settle whether the rule holds, rather than say so themselves? */
static bool
decides(const SchemaRule *rule, int schema)
{
	switch (rule->kind)
	{
		case SCHEMA_NOT:
		case SCHEMA_ANY_OF:
		case SCHEMA_ONE_OF:
		case SCHEMA_CONTAINS:
		case SCHEMA_PATTERN_PROPERTIES:
		case SCHEMA_ADDITIONAL_PROPERTIES:
		case SCHEMA_PROPERTY_NAMES:
		case SCHEMA_UNEVALUATED_PROPERTIES:
			return true;
		case SCHEMA_IF:
			return schema == 0;
		default:
			return false;
	}
}

/* What a rule's findings say, or if it has none what it does. */
static const char *
says_of(const SchemaRule *rule)
{
	switch (rule->kind)
	{
		case SCHEMA_REF:
			return rule->schemas[0]->where[0] == '\0' ? "what the definition says" :
				psprintf("what \"%s\" says", rule->schemas[0]->where);
		case SCHEMA_ALL_OF:
			return psprintf("what %d schemas say", rule->nschemas);
		case SCHEMA_DEPENDENT_SCHEMAS:
			return "what the schema of a property says of all, where it is given";
		case SCHEMA_PROPERTIES:
		case SCHEMA_PATTERN_PROPERTIES:
			return "what the schema of each property says";
		case SCHEMA_ADDITIONAL_PROPERTIES:
		case SCHEMA_UNEVALUATED_PROPERTIES:
			return is_never(rule->schemas[0]) ? rule->message :
				"what its schema says of each property that is not declared";
		case SCHEMA_PREFIX_ITEMS:
		case SCHEMA_ITEMS:
		case SCHEMA_UNEVALUATED_ITEMS:
			return "what the schema of each element says";
		default:
			return rule->message;
	}
}

/* ---- rows ---- */

/* overlay: where a severity is laid over the rule; NULL where it decides another. */
static void
add(Listing *listing, const char *where, const char *name, const char *says,
	int8 *overlay, Way way)
{
	FormRule   *rule = form_rules_add(listing->rules, where, name, says);

	/* through the item's reference: this item alone */
	if (listing->path != NULL && strcmp(listing->where, listing->path) != 0)
	{
		rule->also = list_make1(psprintf("%s%s", listing->path, where + strlen(listing->where)));
		rule->says = psprintf("\"%s\": %s", listing->node->pointer, says);
	}
	if (way.decides != NULL)
	{
		rule->says = psprintf("decides \"%s\": %s", way.decides, rule->says);
		rule->severity = NO_SEVERITY;
		rule->hint = psprintf("It decides the rule at \"%s\": lay the severity over that.", way.decides);
		return;
	}
	rule->overlay = overlay;
	rule->severity = severity_laid(overlaid(way, *overlay), SEVERITY_ERROR);
}

/* The nearest counts; what is off is off with all that is in it. */
static int
overlaid(Way way, int overlay)
{
	return way.inherited == KEYWORD_OFF || overlay == 0 ? way.inherited : overlay;
}

static bool
is_never(const Schema *schema)
{
	return schema->nrules == 1 && schema->rules[0].kind == SCHEMA_NEVER;
}
