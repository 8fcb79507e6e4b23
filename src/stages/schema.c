/*
 * schema.c
 *		Compiles JSON Schemas (2020-12) of any shape into what schema_walk.c
 *		walks.
 *
 * A form's items with plain keywords are form.c's; all other keywords, and all
 * schemas below them, are compiled here.  The definition is read twice.  The
 * first pass finds every schema in it, with the resource ("$id") it belongs to
 * and its anchors, so that any "$ref" can be followed in the second, whichever
 * way it leads.  A schema is compiled once, and is known before its keywords
 * are, so that circles close.
 *
 * What is not supported is refused by name, and so is what leads out of the
 * definition, or to itself without going deeper into the response.  Compiling
 * raises EP003 with the JSON Pointer; everything compiled lives in the memory
 * context that is current at schema_compiler().
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "stages/form.h"
#include "stages/schema.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/numeric.h"

/* schemas looked at for what a message would lack */
#define MOST_VISITS 10000

/* What stands behind a keyword. */
typedef enum Shape
{
	SHAPE_OTHER,				/* no schema */
	SHAPE_SCHEMA,
	SHAPE_LIST,					/* schemas in an array */
	SHAPE_MAP					/* schemas by name */
} Shape;

static const struct
{
	const char *name;
	Shape		shape;
	int			kind;			/* a SchemaKind; -1: read along with another */
}			keywords[] = {
	{"$ref", SHAPE_OTHER, SCHEMA_REF},
	{"$defs", SHAPE_MAP, -1},
	{"$anchor", SHAPE_OTHER, -1},
	{"allOf", SHAPE_LIST, SCHEMA_ALL_OF},
	{"anyOf", SHAPE_LIST, SCHEMA_ANY_OF},
	{"oneOf", SHAPE_LIST, SCHEMA_ONE_OF},
	{"not", SHAPE_SCHEMA, SCHEMA_NOT},
	{"if", SHAPE_SCHEMA, SCHEMA_IF},
	{"then", SHAPE_SCHEMA, -1},
	{"else", SHAPE_SCHEMA, -1},
	{"dependentSchemas", SHAPE_MAP, SCHEMA_DEPENDENT_SCHEMAS},
	{"dependentRequired", SHAPE_OTHER, SCHEMA_DEPENDENT_REQUIRED},
	{"properties", SHAPE_MAP, SCHEMA_PROPERTIES},
	{"patternProperties", SHAPE_MAP, SCHEMA_PATTERN_PROPERTIES},
	{"additionalProperties", SHAPE_SCHEMA, SCHEMA_ADDITIONAL_PROPERTIES},
	{"propertyNames", SHAPE_SCHEMA, SCHEMA_PROPERTY_NAMES},
	{"minProperties", SHAPE_OTHER, SCHEMA_MIN_PROPERTIES},
	{"maxProperties", SHAPE_OTHER, SCHEMA_MAX_PROPERTIES},
	{"prefixItems", SHAPE_LIST, SCHEMA_PREFIX_ITEMS},
	{"items", SHAPE_SCHEMA, SCHEMA_ITEMS},
	{"contains", SHAPE_SCHEMA, SCHEMA_CONTAINS},
	{"minContains", SHAPE_OTHER, -1},
	{"maxContains", SHAPE_OTHER, -1},
	{"uniqueItems", SHAPE_OTHER, SCHEMA_UNIQUE_ITEMS},
	{"minItems", SHAPE_OTHER, SCHEMA_MIN_ITEMS},
	{"maxItems", SHAPE_OTHER, SCHEMA_MAX_ITEMS},
	{"multipleOf", SHAPE_OTHER, SCHEMA_MULTIPLE_OF},
	{"unevaluatedItems", SHAPE_SCHEMA, SCHEMA_UNEVALUATED_ITEMS},
	{"unevaluatedProperties", SHAPE_SCHEMA, SCHEMA_UNEVALUATED_PROPERTIES},
};

/* Keywords that say nothing about a response, and so may be passed over. */
static const char *const annotations[] = {
	"$comment", "$id", "$schema", "contentEncoding", "contentMediaType",
	"contentSchema", "default", "deprecated", "description", "examples",
	"readOnly", "title", "writeOnly",
};

/* A schema with a URI of its own; its anchors are names within it. */
typedef struct Resource
{
	const char *uri;
	JsonbContainer *root;
	List	   *anchors;		/* of Anchor */
} Resource;

typedef struct Anchor
{
	const char *name;
	JsonbContainer *schema;
} Anchor;

/* Where a schema stands. */
typedef struct Location
{
	JsonbContainer *key;
	Resource   *resource;
	const char *where;
	Schema	   *schema;			/* NULL until somebody needs it */
	bool		is_place;		/* of a form's item: form.c has read it */
} Location;

/* A form's item or group, with keywords that are to be compiled here. */
typedef struct Pending
{
	FormNode   *node;
	Location   *location;
} Pending;

struct SchemaCompiler
{
	HTAB	   *locations;
	List	   *resources;
	List	   *pending;
	List	   *schemas;		/* all that were compiled */
	bool		formats_are_notes;
};

/* A URI reference's parts (RFC 3986, section 3). */
typedef struct Uri
{
	const char *scheme;			/* NULL: none; without its colon */
	const char *authority;		/* NULL: none */
	const char *path;
	const char *query;			/* NULL: none */
} Uri;

static void scan(SchemaCompiler *compiler, JsonbContainer *schema,
				 Resource *resource, const char *where);
static void scan_value(SchemaCompiler *compiler, JsonbValue *value,
					   Resource *resource, const char *where);
static Resource *scan_identity(SchemaCompiler *compiler, JsonbContainer *schema,
							   Resource *resource, const char *where);
static Location *location_of(SchemaCompiler *compiler, JsonbContainer *schema);
static Schema *compile_value(SchemaCompiler *compiler, JsonbValue *value,
							 const char *where);
static void compile_keywords(SchemaCompiler *compiler, Schema *schema,
							 Location *location, const FormNode *place);
static void compile_plain(SchemaCompiler *compiler, Schema *schema,
						  Keyword keyword, JsonbValue *value, const char *where);
static void compile_rule(SchemaCompiler *compiler, Schema *schema,
						 Location *location, const FormNode *place,
						 SchemaKind kind, const char *name, JsonbValue *value);
static void compile_required(Schema *schema, JsonbValue *value,
							 const FormNode *place, const char *where);
static void compile_dependent_required(SchemaRule *rule, JsonbValue *value);
static void compile_list(SchemaCompiler *compiler, SchemaRule *rule,
						 JsonbValue *value);
static void compile_map(SchemaCompiler *compiler, SchemaRule *rule,
						JsonbValue *value);
static void compile_if(SchemaCompiler *compiler, SchemaRule *rule,
					   JsonbContainer *schema, const char *where);
static void compile_contains(SchemaRule *rule, JsonbContainer *schema,
							 const char *where);
static void compile_divisor(SchemaRule *rule, JsonbValue *value);
static void compile_patterns(SchemaRule *rule);
static void take_siblings(const Schema *schema, SchemaRule *rule,
						  JsonbContainer *container, const char *where);
static SchemaRule *add_rule(Schema *schema, SchemaKind kind, const char *name,
							const char *where);
static SchemaKey *names_of(JsonbValue *value, const char *where, int *n);
static int64 count_of(JsonbValue *value, const char *where);
static void refuse_circle(Schema *schema);
static int	in_place(const SchemaRule *rule);
static bool payload_at(const Schema *schema, const FormNode *node, int *left);
static const FormNode *child_named(const FormNode *node, const SchemaKey *key);
static bool holds_objects(const Value *value);
static bool follow_reference(SchemaCompiler *compiler, Resource *resource,
							 const char *reference, const char *where, JsonbValue *target);
static bool walk_pointer(JsonbContainer *root, const char *pointer, JsonbValue *target);
static char *percent_decoded(const char *text);
static char *uri_resolve(const char *base, const char *reference);
static void uri_split(const char *text, Uri *uri);
static void append_clean_path(StringInfo out, const char *path);
static bool look_up_key(JsonbContainer *container, const char *name, JsonbValue *value);
static int	compare_keys(const void *a, const void *b);

/*
 * Reads a definition for its schemas, identifiers and anchors.  The definition
 * must live as long as what is compiled of it.
 */
SchemaCompiler *
schema_compiler(JsonbContainer *definition)
{
	SchemaCompiler *compiler = palloc0(sizeof(SchemaCompiler));
	Resource   *root = palloc0(sizeof(Resource));
	HASHCTL		control = {0};
	JsonbValue	formats;

	control.keysize = sizeof(JsonbContainer *);
	control.entrysize = sizeof(Location);
	control.hcxt = CurrentMemoryContext;
	compiler->locations = hash_create("schemas of a form", 64, &control,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (look_up_key(definition, "x-formats", &formats))
	{
		if (formats.type != jbvString ||
			!(jsonb_text_is(&formats, "assert") || jsonb_text_is(&formats, "annotate")))
			form_refuse("/x-formats", "\"x-formats\" must be \"assert\" or \"annotate\"", NULL);
		compiler->formats_are_notes = jsonb_text_is(&formats, "annotate");
	}
	root->uri = "";
	root->root = definition;
	compiler->resources = lappend(compiler->resources, root);
	scan(compiler, definition, root, "");
	return compiler;
}

/* Did the definition say that "format" is no check? */
bool
schema_formats_are_notes(const SchemaCompiler *compiler)
{
	return compiler->formats_are_notes;
}

/*
 * The schema that this one stands for, when it is a "$ref" and no more; else
 * NULL.  *where becomes the pointer of that schema.
 */
JsonbContainer *
schema_follow(SchemaCompiler *compiler, JsonbContainer *schema, const char **where)
{
	JsonbIterator *iterator = JsonbIteratorInit(schema);
	JsonbValue	key;
	JsonbValue	value;
	char	   *reference = NULL;

	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (jsonb_text_is(&key, "$ref") && value.type == jbvString)
			reference = jsonb_text(&value);
		else if (!schema_is_annotation(&key) && !jsonb_text_is(&key, "$defs") &&
				 !jsonb_text_is(&key, "$anchor") && !jsonb_text_is(&key, "x-normalise"))
			return NULL;
	}
	if (reference == NULL ||
		!follow_reference(compiler, location_of(compiler, schema)->resource,
						  reference, form_deeper(*where, "$ref", 4), &value) ||
		value.type != jbvBinary)
		return NULL;
	*where = location_of(compiler, value.val.binary.data)->where;
	return value.val.binary.data;
}

/*
 * Notes a form's item or group: whatever its schema says beyond what form.c
 * takes in is compiled by schema_finish(), into node->schema.
 */
void
schema_place(SchemaCompiler *compiler, FormNode *node, JsonbContainer *schema)
{
	Pending    *pending = palloc(sizeof(Pending));

	pending->node = node;
	pending->location = location_of(compiler, schema);
	pending->location->is_place = true;
	node->where = pending->location->where;
	compiler->pending = lappend(compiler->pending, pending);
}

/* The schema false, which nothing fits. */
Schema *
schema_never(const char *where)
{
	Schema	   *schema = palloc0(sizeof(Schema));
	SchemaRule *rule;

	schema->where = where;
	schema->rules = palloc0(sizeof(SchemaRule));
	rule = add_rule(schema, SCHEMA_NEVER, "false", where);
	rule->message = "must not be given";
	return schema;
}

/* Compiles what was noted, and ends the compiler. */
void
schema_finish(SchemaCompiler *compiler)
{
	ListCell   *cell;

	foreach(cell, compiler->pending)
	{
		Pending    *pending = lfirst(cell);
		Schema	   *schema = palloc0(sizeof(Schema));

		schema->where = pending->location->where;
		compile_keywords(compiler, schema, pending->location, pending->node);
		if (schema->nrules > 0 || schema->plain != NULL)
		{
			pending->node->schema = schema;
			compiler->schemas = lappend(compiler->schemas, schema);
		}
	}
	foreach(cell, compiler->schemas)
		refuse_circle(lfirst(cell));
	hash_destroy(compiler->locations);
}

/* A keyword that says nothing about a response? */
bool
schema_is_annotation(const JsonbValue *keyword)
{
	for (int i = 0; i < (int) lengthof(annotations); i++)
	{
		if (jsonb_text_is(keyword, annotations[i]))
			return true;
	}
	return false;
}

/* ---- the first pass ---- */

static void
scan(SchemaCompiler *compiler, JsonbContainer *schema, Resource *resource,
	 const char *where)
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;
	Location   *location;
	bool		found;

	check_stack_depth();
	resource = scan_identity(compiler, schema, resource, where);
	location = hash_search(compiler->locations, &schema, HASH_ENTER, &found);
	location->resource = resource;
	location->where = where;
	location->schema = NULL;
	location->is_place = false;

	iterator = JsonbIteratorInit(schema);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		Shape		shape = SHAPE_OTHER;
		const char *below;
		JsonbIterator *inner;
		JsonbValue	name;
		JsonbValue	element;
		int			at = 0;

		CHECK_FOR_INTERRUPTS();
		(void) JsonbIteratorNext(&iterator, &value, true);
		for (int i = 0; i < (int) lengthof(keywords); i++)
		{
			if (jsonb_text_is(&key, keywords[i].name))
				shape = keywords[i].shape;
		}
		if (shape == SHAPE_OTHER)
			continue;
		below = form_deeper(where, key.val.string.val, key.val.string.len);
		if (shape == SHAPE_SCHEMA)
		{
			scan_value(compiler, &value, resource, below);
			continue;
		}
		/* what has the wrong shape is refused when it is compiled */
		if (value.type != jbvBinary ||
			JsonContainerIsObject(value.val.binary.data) != (shape == SHAPE_MAP))
			continue;
		inner = JsonbIteratorInit(value.val.binary.data);
		(void) JsonbIteratorNext(&inner, &name, false);
		if (shape == SHAPE_LIST)
		{
			while (JsonbIteratorNext(&inner, &element, true) == WJB_ELEM)
				scan_value(compiler, &element, resource, psprintf("%s/%d", below, at++));
			continue;
		}
		while (JsonbIteratorNext(&inner, &name, true) == WJB_KEY)
		{
			(void) JsonbIteratorNext(&inner, &element, true);
			scan_value(compiler, &element, resource,
					   form_deeper(below, name.val.string.val, name.val.string.len));
		}
	}
}

static void
scan_value(SchemaCompiler *compiler, JsonbValue *value, Resource *resource,
		   const char *where)
{
	if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		scan(compiler, value->val.binary.data, resource, where);
}

/* "$id" begins a resource; "$anchor" is a name in the one at hand. */
static Resource *
scan_identity(SchemaCompiler *compiler, JsonbContainer *schema,
			  Resource *resource, const char *where)
{
	JsonbValue	value;

	if (look_up_key(schema, "$id", &value))
	{
		Resource   *own = schema == resource->root ? resource : palloc0(sizeof(Resource));
		const char *pointer = form_deeper(where, "$id", 3);
		char	   *uri;
		char	   *fragment;
		ListCell   *cell;

		if (value.type != jbvString)
			form_refuse(pointer, "\"$id\" must be a URI", NULL);
		uri = jsonb_text(&value);
		fragment = strchr(uri, '#');
		if (fragment != NULL && fragment[1] != '\0')
			form_refuse(pointer, "\"$id\" must not have a fragment", "Name a part of it with \"$anchor\".");
		if (fragment != NULL)
			*fragment = '\0';
		uri = uri_resolve(resource->uri, uri);
		foreach(cell, compiler->resources)
		{
			Resource   *other = lfirst(cell);

			if (other != own && strcmp(other->uri, uri) == 0)
				form_refuse(pointer, "\"$id\" is given to two schemas", NULL);
		}
		own->uri = uri;
		if (own != resource)
			compiler->resources = lappend(compiler->resources, own);
		own->root = schema;
		resource = own;
	}
	if (look_up_key(schema, "$anchor", &value))
	{
		Anchor	   *anchor = palloc(sizeof(Anchor));
		ListCell   *cell;

		if (value.type != jbvString)
			form_refuse(form_deeper(where, "$anchor", 7), "\"$anchor\" must be a name", NULL);
		anchor->name = jsonb_text(&value);
		anchor->schema = schema;
		foreach(cell, resource->anchors)
		{
			if (strcmp(((Anchor *) lfirst(cell))->name, anchor->name) == 0)
				form_refuse(form_deeper(where, "$anchor", 7), "\"$anchor\" is given to two schemas", NULL);
		}
		resource->anchors = lappend(resource->anchors, anchor);
	}
	return resource;
}

/* Of a schema that the first pass has met; NULL: it is none. */
static Location *
location_of(SchemaCompiler *compiler, JsonbContainer *schema)
{
	return hash_search(compiler->locations, &schema, HASH_FIND, NULL);
}

/* ---- the second pass ---- */

/* Compiles a schema, or finds the one that was compiled of it. */
static Schema *
compile_value(SchemaCompiler *compiler, JsonbValue *value, const char *where)
{
	Location   *location;
	Schema	   *schema;

	check_stack_depth();
	if (value->type == jbvBool)
	{
		if (!value->val.boolean)
			return schema_never(where);
		schema = palloc0(sizeof(Schema));
		schema->where = where;
		return schema;
	}
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		form_refuse(where, "a schema must be an object or a boolean", NULL);
	location = location_of(compiler, value->val.binary.data);
	if (location->schema == NULL)
	{
		schema = palloc0(sizeof(Schema));
		schema->where = location->where;
		location->schema = schema;
		compiler->schemas = lappend(compiler->schemas, schema);
		compile_keywords(compiler, schema, location, NULL);
	}
	return location->schema;
}

/*
 * All keywords of a schema; of a form's place, what form.c does not take in.
 * Those that ask what the others left over come last.
 */
static void
compile_keywords(SchemaCompiler *compiler, Schema *schema, Location *location,
				 const FormNode *place)
{
	JsonbContainer *container = location->key;
	bool		group = place != NULL && place->nchildren > 0;

	schema->rules = palloc0(sizeof(SchemaRule) * (JsonContainerSize(container) + 1));
	for (int pass = 0; pass < 2; pass++)
	{
		JsonbIterator *iterator = JsonbIteratorInit(container);
		JsonbValue	key;
		JsonbValue	value;

		(void) JsonbIteratorNext(&iterator, &key, false);
		while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
		{
			const char *where = form_deeper(location->where, key.val.string.val,
											key.val.string.len);
			Keyword		plain;
			int			i = 0;

			CHECK_FOR_INTERRUPTS();
			(void) JsonbIteratorNext(&iterator, &value, true);
			while (i < (int) lengthof(keywords) && !jsonb_text_is(&key, keywords[i].name))
				i++;
			if (i < (int) lengthof(keywords))
			{
				bool		late = keywords[i].kind == SCHEMA_UNEVALUATED_ITEMS ||
					keywords[i].kind == SCHEMA_UNEVALUATED_PROPERTIES;

				/* of a list of items that is no array nobody else would tell */
				if (pass == 0 && keywords[i].kind < 0 && keywords[i].shape == SHAPE_MAP &&
					(value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data)))
					form_refuse(where, "the keyword must be an object of schemas", NULL);
				if (late == (pass == 1) && keywords[i].kind >= 0 &&
					!(group && keywords[i].kind == SCHEMA_PROPERTIES))
					compile_rule(compiler, schema, location, place,
								 (SchemaKind) keywords[i].kind, keywords[i].name, &value);
			}
			else if (pass == 1)
				continue;
			else if (form_keyword_find(&key, &plain))
			{
				if (plain == KEYWORD_REQUIRED)
					compile_required(schema, &value, group ? place : NULL, where);
				else if (place == NULL || form_walks(place, plain))
					compile_plain(compiler, schema, plain, &value, where);
			}
			else if (jsonb_text_is(&key, "x-normalise"))
			{
				if (!location->is_place)
					form_refuse(where, "normalisation is for items, not for schemas within them",
								"Declare it at the item, or at the root for all of them.");
			}
			else if (jsonb_text_is(&key, "x-formats"))
			{
				if (where[0] != '\0' && location->where[0] != '\0')
					form_refuse(where, "\"x-formats\" is for the definition as a whole", NULL);
			}
			else if (!schema_is_annotation(&key))
				form_refuse(where, "unknown or unsupported keyword",
							"Correct its spelling, or state the rule as an edit check with epro_etl.add_edit_check().");
		}
	}
}

/* A keyword about one value, as form.c reads it. */
static void
compile_plain(SchemaCompiler *compiler, Schema *schema, Keyword keyword,
			  JsonbValue *value, const char *where)
{
	if (keyword == KEYWORD_FORMAT && compiler->formats_are_notes)
		return;
	if (schema->plain == NULL)
		schema->plain = palloc0(sizeof(FormNode));
	form_keyword(schema->plain, keyword, value, where);
}

static void
compile_rule(SchemaCompiler *compiler, Schema *schema, Location *location,
			 const FormNode *place, SchemaKind kind, const char *name,
			 JsonbValue *value)
{
	const char *where = form_deeper(location->where, name, strlen(name));
	SchemaRule *rule = add_rule(schema, kind, name, where);
	JsonbValue	other;

	switch (kind)
	{
		case SCHEMA_REF:
			if (value->type != jbvString)
				form_refuse(where, "\"$ref\" must be a URI reference", NULL);
			if (!follow_reference(compiler, location->resource, jsonb_text(value), where, &other))
				form_refuse(where, "\"$ref\" does not lead to a schema of this definition",
							"Take the schema in under \"$defs\", with its \"$id\" if it is referred to by that.");
			rule->schemas = palloc(sizeof(Schema *));
			rule->schemas[0] = compile_value(compiler, &other, where);
			rule->nschemas = 1;
			break;
		case SCHEMA_ALL_OF:
		case SCHEMA_ANY_OF:
		case SCHEMA_ONE_OF:
		case SCHEMA_PREFIX_ITEMS:
			compile_list(compiler, rule, value);
			break;
		case SCHEMA_IF:
			compile_if(compiler, rule, location->key, location->where);
			break;
		case SCHEMA_DEPENDENT_SCHEMAS:
		case SCHEMA_PROPERTIES:
			compile_map(compiler, rule, value);
			break;
		case SCHEMA_PATTERN_PROPERTIES:
			compile_map(compiler, rule, value);
			compile_patterns(rule);
			break;
		case SCHEMA_DEPENDENT_REQUIRED:
			compile_dependent_required(rule, value);
			break;
		case SCHEMA_MIN_PROPERTIES:
		case SCHEMA_MAX_PROPERTIES:
		case SCHEMA_MIN_ITEMS:
		case SCHEMA_MAX_ITEMS:
			rule->least = rule->most = count_of(value, where);
			rule->message = psprintf("must have at %s " INT64_FORMAT " %s",
									 kind == SCHEMA_MIN_ITEMS || kind == SCHEMA_MIN_PROPERTIES ? "least" : "most",
									 rule->least,
									 kind == SCHEMA_MIN_ITEMS || kind == SCHEMA_MAX_ITEMS ? "elements" : "properties");
			break;
		case SCHEMA_UNIQUE_ITEMS:
			if (value->type != jbvBool)
				form_refuse(where, "\"uniqueItems\" must be a boolean", NULL);
			rule->message = "must not have an element twice";
			if (!value->val.boolean)
				schema->nrules--;
			break;
		case SCHEMA_MULTIPLE_OF:
			compile_divisor(rule, value);
			break;
		case SCHEMA_NOT:
		case SCHEMA_ADDITIONAL_PROPERTIES:
		case SCHEMA_PROPERTY_NAMES:
		case SCHEMA_ITEMS:
		case SCHEMA_CONTAINS:
		case SCHEMA_UNEVALUATED_ITEMS:
		case SCHEMA_UNEVALUATED_PROPERTIES:
			rule->schemas = palloc(sizeof(Schema *));
			rule->schemas[0] = compile_value(compiler, value, where);
			rule->nschemas = 1;
			rule->message = kind == SCHEMA_NOT ? "must not be what \"not\" describes" :
				kind == SCHEMA_PROPERTY_NAMES ? "has a property whose name is not allowed" :
				kind == SCHEMA_ADDITIONAL_PROPERTIES || kind == SCHEMA_UNEVALUATED_PROPERTIES ?
				"has a property that is not declared" : "has an element that is not declared";
			if (kind == SCHEMA_CONTAINS)
				compile_contains(rule, location->key, location->where);
			if (kind == SCHEMA_ITEMS && look_up_key(location->key, "prefixItems", &other) &&
				other.type == jbvBinary)
				rule->least = JsonContainerSize(other.val.binary.data);
			if (kind == SCHEMA_ADDITIONAL_PROPERTIES || kind == SCHEMA_UNEVALUATED_PROPERTIES)
				take_siblings(schema, rule, location->key, location->where);
			if (kind == SCHEMA_UNEVALUATED_ITEMS || kind == SCHEMA_UNEVALUATED_PROPERTIES)
				schema->collects = true;
			break;
		case SCHEMA_NEVER:
		case SCHEMA_REQUIRED:
			Assert(false);
			break;
	}
}

/* Of a group, only the names that are no item of it: form.c has the others. */
static void
compile_required(Schema *schema, JsonbValue *value, const FormNode *place,
				 const char *where)
{
	int			n;
	SchemaKey  *names = names_of(value, where, &n);
	SchemaRule *rule;
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (place == NULL || child_named(place, &names[i]) == NULL)
			names[kept++] = names[i];
	}
	if (kept == 0)
		return;
	rule = add_rule(schema, SCHEMA_REQUIRED, "required", where);
	rule->keys = names;
	rule->nkeys = kept;
	rule->message = "must be answered";
}

static void
compile_dependent_required(SchemaRule *rule, JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	names;
	int			n;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		form_refuse(rule->where, "\"dependentRequired\" must be an object of names", NULL);
	n = JsonContainerSize(value->val.binary.data);
	rule->keys = palloc(sizeof(SchemaKey) * Max(n, 1));
	rule->needed = palloc(sizeof(SchemaKey *) * Max(n, 1));
	rule->nneeded = palloc(sizeof(int) * Max(n, 1));
	rule->message = "must be answered, since another item is";
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		int			i = rule->nkeys++;

		(void) JsonbIteratorNext(&iterator, &names, true);
		rule->keys[i].data = jsonb_text(&key);
		rule->keys[i].len = key.val.string.len;
		rule->needed[i] = names_of(&names, form_deeper(rule->where, key.val.string.val, key.val.string.len),
								   &rule->nneeded[i]);
	}
}

static void
compile_list(SchemaCompiler *compiler, SchemaRule *rule, JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbValue	element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data) ||
		JsonContainerSize(value->val.binary.data) == 0)
		form_refuse(rule->where, "the keyword must be an array of schemas, at least one", NULL);
	rule->schemas = palloc(sizeof(Schema *) * JsonContainerSize(value->val.binary.data));
	rule->message = rule->kind == SCHEMA_ONE_OF ? "must fit exactly one of the declared schemas" :
		"must fit one of the declared schemas";
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		Schema	   *schema = compile_value(compiler, &element,
										   psprintf("%s/%d", rule->where, rule->nschemas));

		rule->schemas[rule->nschemas++] = schema;
	}
}

static void
compile_map(SchemaCompiler *compiler, SchemaRule *rule, JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	element;
	int			n;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		form_refuse(rule->where, "the keyword must be an object of schemas", NULL);
	n = JsonContainerSize(value->val.binary.data);
	rule->keys = palloc(sizeof(SchemaKey) * Max(n, 1));
	rule->schemas = palloc(sizeof(Schema *) * Max(n, 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		int			i = rule->nkeys;

		(void) JsonbIteratorNext(&iterator, &element, true);
		rule->keys[i].data = jsonb_text(&key);
		rule->keys[i].len = key.val.string.len;
		rule->schemas[i] = compile_value(compiler, &element,
										 form_deeper(rule->where, key.val.string.val, key.val.string.len));
		rule->nkeys = rule->nschemas = i + 1;
	}
}

/* With its "then" and "else"; alone it says nothing. */
static void
compile_if(SchemaCompiler *compiler, SchemaRule *rule, JsonbContainer *schema,
		   const char *where)
{
	static const char *const names[] = {"if", "then", "else"};
	JsonbValue	value;

	rule->schemas = palloc0(sizeof(Schema *) * 3);
	rule->nschemas = 3;
	rule->message = "must fit what is declared for its case";
	for (int i = 0; i < 3; i++)
	{
		if (look_up_key(schema, names[i], &value))
			rule->schemas[i] = compile_value(compiler, &value, form_deeper(where, names[i], strlen(names[i])));
	}
}

static void
compile_contains(SchemaRule *rule, JsonbContainer *schema, const char *where)
{
	JsonbValue	value;

	rule->least = 1;
	rule->most = PG_INT64_MAX;
	if (look_up_key(schema, "minContains", &value))
		rule->least = count_of(&value, form_deeper(where, "minContains", 11));
	if (look_up_key(schema, "maxContains", &value))
		rule->most = count_of(&value, form_deeper(where, "maxContains", 11));
	rule->message = rule->most == PG_INT64_MAX ?
		psprintf("must have at least " INT64_FORMAT " elements of the declared kind", rule->least) :
		psprintf("must have " INT64_FORMAT " to " INT64_FORMAT " elements of the declared kind",
				 rule->least, rule->most);
}

/* A divisor as fine as a payload's numbers may be, and no finer. */
static void
compile_divisor(SchemaRule *rule, JsonbValue *value)
{
	int			len;

	if (value->type == jbvNumeric)
		value_set_jsonb(&rule->divisor, value);
	if (value->type != jbvNumeric ||
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(value->val.numeric),
										  NumericGetDatum(int64_to_numeric(0)))) <= 0)
		form_refuse(rule->where, "\"multipleOf\" must be a number greater than zero", NULL);
	if (!schema_divides(&rule->divisor))
		form_refuse(rule->where, "\"multipleOf\" has more than 1000 digits before or after its point", NULL);
	rule->message = psprintf("must be a multiple of %s", value_text(&rule->divisor, &len));
}

static void
compile_patterns(SchemaRule *rule)
{
	rule->patterns = palloc(sizeof(regex_t *) * Max(rule->nkeys, 1));
	for (int i = 0; i < rule->nkeys; i++)
	{
		const char *fault = NULL;
		const char *hint = NULL;

		rule->patterns[i] = pattern_compile(rule->keys[i].data, &fault, &hint);
		if (rule->patterns[i] == NULL)
			form_refuse(form_deeper(rule->where, rule->keys[i].data, rule->keys[i].len), fault, hint);
		rule->npatterns = i + 1;
	}
}

/*
 * Which properties the keywords beside it have spoken of: names, sorted as
 * jsonb's keys are, and patterns.  In jsonb's order of keys, the patterns have
 * been compiled before.
 */
static void
take_siblings(const Schema *schema, SchemaRule *rule, JsonbContainer *container,
			  const char *where)
{
	JsonbValue	properties;

	for (int i = 0; i < schema->nrules; i++)
	{
		if (schema->rules[i].kind == SCHEMA_PATTERN_PROPERTIES)
		{
			rule->patterns = schema->rules[i].patterns;
			rule->npatterns = schema->rules[i].npatterns;
		}
	}
	if (look_up_key(container, "properties", &properties))
	{
		JsonbIterator *iterator;
		JsonbValue	key;
		JsonbValue	value;

		if (properties.type != jbvBinary || !JsonContainerIsObject(properties.val.binary.data))
			form_refuse(form_deeper(where, "properties", 10), "\"properties\" must be an object", NULL);
		rule->keys = palloc(sizeof(SchemaKey) * (JsonContainerSize(properties.val.binary.data) + 1));
		iterator = JsonbIteratorInit(properties.val.binary.data);
		(void) JsonbIteratorNext(&iterator, &key, false);
		while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
		{
			(void) JsonbIteratorNext(&iterator, &value, true);
			rule->keys[rule->nkeys].data = jsonb_text(&key);
			rule->keys[rule->nkeys++].len = key.val.string.len;
		}
		qsort(rule->keys, rule->nkeys, sizeof(SchemaKey), compare_keys);
	}
}

static SchemaRule *
add_rule(Schema *schema, SchemaKind kind, const char *name, const char *where)
{
	SchemaRule *rule = &schema->rules[schema->nrules++];

	memset(rule, 0, sizeof(*rule));
	rule->kind = kind;
	rule->name = name;
	rule->where = where;
	return rule;
}

/* An array of names, none of them twice. */
static SchemaKey *
names_of(JsonbValue *value, const char *where, int *n)
{
	JsonbIterator *iterator;
	JsonbValue	element;
	SchemaKey  *names;

	*n = 0;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		form_refuse(where, "the keyword must be an array of item names", NULL);
	names = palloc(sizeof(SchemaKey) * (JsonContainerSize(value->val.binary.data) + 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		if (element.type != jbvString)
			form_refuse(where, "the keyword must be an array of item names", NULL);
		names[*n].data = jsonb_text(&element);
		names[(*n)++].len = element.val.string.len;
	}
	return names;
}

static int64
count_of(JsonbValue *value, const char *where)
{
	Value		count = {0};

	if (value->type == jbvNumeric)
		value_set_jsonb(&count, value);
	if (count.kind != VALUE_INTEGER || count.number < 0)
		form_refuse(where, "a count must be a whole number, zero or more", NULL);
	return count.number;
}

/* ---- circles ---- */

/*
 * A schema that applies itself to the same value would never come to an end.
 * 1 marks the way that is being gone, 2 what was gone to its end.
 */
static void
refuse_circle(Schema *schema)
{
	check_stack_depth();
	if (schema->mark == 2)
		return;
	if (schema->mark == 1)
		form_refuse(schema->where, "the schema refers to itself without going deeper into the response", NULL);
	schema->mark = 1;
	for (int i = 0; i < schema->nrules; i++)
	{
		for (int s = 0; s < in_place(&schema->rules[i]); s++)
		{
			if (schema->rules[i].schemas[s] != NULL)
				refuse_circle(schema->rules[i].schemas[s]);
		}
	}
	schema->mark = 2;
}

/* How many schemas the rule applies to the very value that it judges. */
static int
in_place(const SchemaRule *rule)
{
	switch (rule->kind)
	{
		case SCHEMA_REF:
		case SCHEMA_NOT:
		case SCHEMA_ALL_OF:
		case SCHEMA_ANY_OF:
		case SCHEMA_ONE_OF:
		case SCHEMA_IF:
		case SCHEMA_DEPENDENT_SCHEMAS:
			return rule->nschemas;
		default:
			return 0;
	}
}

/* ---- what a message between stage groups would lack ---- */

/*
 * Does judging a group by this schema ask for more than its items, that is for
 * keys which the form does not declare?  Then it needs the payload.
 */
bool
schema_needs_payload(const Schema *schema, const FormNode *node)
{
	int			left = MOST_VISITS;

	return payload_at(schema, node, &left);
}

static bool
payload_at(const Schema *schema, const FormNode *node, int *left)
{
	check_stack_depth();
	/* an item is in its slot as a whole */
	if (node->nchildren == 0)
		return false;
	/* more ways than are worth going: the payload is always enough */
	if (--*left < 0)
		return true;
	if (schema->plain != NULL)
	{
		const FormNode *plain = schema->plain;
		int			n = plain->noptions + ((plain->has & (1 << KEYWORD_CONST)) ? 1 : 0);

		for (int i = 0; i < n; i++)
		{
			if (holds_objects(&plain->options[i]))
				return true;
		}
	}
	for (int i = 0; i < schema->nrules; i++)
	{
		const SchemaRule *rule = &schema->rules[i];

		switch (rule->kind)
		{
			case SCHEMA_PATTERN_PROPERTIES:
			case SCHEMA_ADDITIONAL_PROPERTIES:
			case SCHEMA_PROPERTY_NAMES:
			case SCHEMA_MIN_PROPERTIES:
			case SCHEMA_MAX_PROPERTIES:
			case SCHEMA_UNEVALUATED_PROPERTIES:
				return true;
			default:
				break;
		}
		for (int k = 0; k < rule->nkeys; k++)
		{
			const FormNode *child = child_named(node, &rule->keys[k]);

			if (child == NULL)
				return true;
			if (rule->kind == SCHEMA_PROPERTIES && payload_at(rule->schemas[k], child, left))
				return true;
			for (int d = 0; rule->needed != NULL && d < rule->nneeded[k]; d++)
			{
				if (child_named(node, &rule->needed[k][d]) == NULL)
					return true;
			}
		}
		for (int s = 0; s < in_place(rule); s++)
		{
			if (rule->schemas[s] != NULL && payload_at(rule->schemas[s], node, left))
				return true;
		}
	}
	return false;
}

static const FormNode *
child_named(const FormNode *node, const SchemaKey *key)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		if (node->children[i]->keylen == key->len &&
			memcmp(node->children[i]->key, key->data, key->len) == 0)
			return node->children[i];
	}
	return NULL;
}

static bool
holds_objects(const Value *value)
{
	return value->kind == VALUE_OBJECT;
}

/* ---- references ---- */

/* False when there is no such schema in the definition. */
static bool
follow_reference(SchemaCompiler *compiler, Resource *resource,
				 const char *reference, const char *where, JsonbValue *target)
{
	char	   *uri = pstrdup(reference);
	char	   *fragment = strchr(uri, '#');
	ListCell   *cell;

	if (fragment != NULL)
		*fragment++ = '\0';
	if (uri[0] != '\0')
	{
		Resource   *found = NULL;

		uri = uri_resolve(resource->uri, uri);
		foreach(cell, compiler->resources)
		{
			if (strcmp(((Resource *) lfirst(cell))->uri, uri) == 0)
				found = lfirst(cell);
		}
		if (found == NULL)
			form_refuse(where, "\"$ref\" leads out of the definition",
						"Take the schema in under \"$defs\", with its \"$id\".");
		resource = found;
	}
	fragment = percent_decoded(fragment ? fragment : "");

	memset(target, 0, sizeof(*target));
	target->type = jbvBinary;
	target->val.binary.data = resource->root;
	if (fragment[0] == '/')
	{
		if (!walk_pointer(resource->root, fragment, target))
			return false;
	}
	else if (fragment[0] != '\0')
	{
		Anchor	   *found = NULL;

		foreach(cell, resource->anchors)
		{
			if (strcmp(((Anchor *) lfirst(cell))->name, fragment) == 0)
				found = lfirst(cell);
		}
		if (found == NULL)
			return false;
		target->val.binary.data = found->schema;
	}
	return target->type == jbvBool ||
		(target->type == jbvBinary && location_of(compiler, target->val.binary.data) != NULL);
}

/* RFC 6901, section 4. */
static bool
walk_pointer(JsonbContainer *root, const char *pointer, JsonbValue *target)
{
	while (*pointer == '/')
	{
		StringInfoData token;
		JsonbContainer *container = target->val.binary.data;

		if (target->type != jbvBinary)
			return false;
		initStringInfo(&token);
		for (pointer++; *pointer != '\0' && *pointer != '/'; pointer++)
		{
			if (*pointer == '~' && (pointer[1] == '0' || pointer[1] == '1'))
				appendStringInfoChar(&token, *++pointer == '0' ? '~' : '/');
			else
				appendStringInfoChar(&token, *pointer);
		}
		if (JsonContainerIsObject(container))
		{
			if (getKeyJsonValueFromContainer(container, token.data, token.len, target) == NULL)
				return false;
		}
		else
		{
			JsonbValue *element;
			char	   *end;
			unsigned long at = strtoul(token.data, &end, 10);

			if (token.len == 0 || *end != '\0' || token.data[0] < '0' || token.data[0] > '9' ||
				at >= JsonContainerSize(container))
				return false;
			element = getIthJsonbValueFromContainer(container, (uint32) at);
			if (element == NULL)
				return false;
			*target = *element;
		}
	}
	return true;
}

static char *
percent_decoded(const char *text)
{
	StringInfoData out;

	initStringInfo(&out);
	for (; *text; text++)
	{
		unsigned int code;
		char		hex[3] = {0};

		if (text[0] == '%' && isxdigit((unsigned char) text[1]) && isxdigit((unsigned char) text[2]))
		{
			memcpy(hex, text + 1, 2);
			code = (unsigned int) strtoul(hex, NULL, 16);
			appendStringInfoChar(&out, (char) code);
			text += 2;
		}
		else
			appendStringInfoChar(&out, *text);
	}
	return out.data;
}

/* RFC 3986, section 5.2.2. */
static char *
uri_resolve(const char *base, const char *reference)
{
	Uri			from;
	Uri			to;
	StringInfoData out;

	uri_split(base, &from);
	uri_split(reference, &to);
	initStringInfo(&out);
	if (to.scheme != NULL)
		return pstrdup(reference);
	if (from.scheme != NULL)
		appendStringInfo(&out, "%s:", from.scheme);
	if (to.authority != NULL || from.authority != NULL)
		appendStringInfo(&out, "//%s", to.authority ? to.authority : from.authority);
	if (to.authority != NULL || to.path[0] == '/')
		append_clean_path(&out, to.path);
	else if (to.path[0] == '\0')
	{
		appendStringInfoString(&out, from.path);
		if (to.query == NULL)
			to.query = from.query;
	}
	else
	{
		const char *slash = strrchr(from.path, '/');
		char	   *merged = slash == NULL && from.authority != NULL ? psprintf("/%s", to.path) :
			psprintf("%.*s%s", slash ? (int) (slash - from.path + 1) : 0, from.path, to.path);

		append_clean_path(&out, merged);
	}
	if (to.query != NULL)
		appendStringInfo(&out, "?%s", to.query);
	return out.data;
}

static void
uri_split(const char *text, Uri *uri)
{
	char	   *rest = pstrdup(text);
	char	   *mark;
	size_t		scheme = 0;

	memset(uri, 0, sizeof(*uri));
	if (isalpha((unsigned char) rest[0]))
	{
		while (isalnum((unsigned char) rest[scheme]) ||
			   (rest[scheme] != '\0' && strchr("+-.", rest[scheme]) != NULL))
			scheme++;
	}
	if (scheme > 0 && rest[scheme] == ':')
	{
		uri->scheme = pnstrdup(rest, scheme);
		rest += scheme + 1;
	}
	mark = strchr(rest, '?');
	if (mark != NULL)
	{
		*mark = '\0';
		uri->query = mark + 1;
	}
	if (rest[0] == '/' && rest[1] == '/')
	{
		size_t		len = strcspn(rest + 2, "/");

		uri->authority = pnstrdup(rest + 2, len);
		rest += 2 + len;
	}
	uri->path = rest;
}

/* A path without "." and ".." (RFC 3986, section 5.2.4). */
static void
append_clean_path(StringInfo out, const char *path)
{
	int			start = out->len;

	while (*path != '\0')
	{
		size_t		lead = *path == '/' ? 1 : 0;
		size_t		len = strcspn(path + lead, "/");
		const char *segment = path + lead;
		bool		last = segment[len] == '\0';

		if (len == 1 && segment[0] == '.')
		{
			if (last && lead)
				appendStringInfoChar(out, '/');
		}
		else if (len == 2 && segment[0] == '.' && segment[1] == '.')
		{
			while (out->len > start && out->data[--out->len] != '/')
				;
			out->data[out->len] = '\0';
			if (last)
				appendStringInfoChar(out, '/');
		}
		else
			appendBinaryStringInfo(out, path, (int) (lead + len));
		path = segment + len;
	}
}

/* ---- helpers ---- */

static bool
look_up_key(JsonbContainer *container, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(container, name, strlen(name), value) != NULL;
}

/* jsonb's order of keys: by length, then by bytes */
static int
compare_keys(const void *a, const void *b)
{
	const SchemaKey *left = a;
	const SchemaKey *right = b;

	if (left->len != right->len)
		return left->len < right->len ? -1 : 1;
	return memcmp(left->data, right->data, left->len);
}
