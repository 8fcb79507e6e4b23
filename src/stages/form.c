/*
 * form.c
 *		Compiles a JSON Schema (2020-12) into the form that the stages walk.
 *
 * A questionnaire needs a part of JSON Schema; the rest is refused here, with
 * the JSON Pointer of the keyword, because a keyword that is passed over in
 * silence is a check that never ran.  The same goes for a misspelt one.
 *
 * Every level's properties are sorted as jsonb sorts its keys (length first,
 * then bytes), so that decode.c meets all of them in one merge pass.
 *
 * Compiling raises errors; walking never does.  All of the compiled form,
 * the texts of its findings included, is allocated in the memory context that
 * is current at the call and lives until that context is reset, which also
 * frees the regular expressions (malloc'ed by the server before 16).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "words/errors.h"
#include "stages/fhir.h"
#include "stages/form.h"

#define SCHEMA_DIALECT "https://json-schema.org/draft/2020-12/schema"

const char *const keyword_name[KEYWORD_COUNT] = {
	[KEYWORD_REQUIRED] = "required",
	[KEYWORD_TYPE] = "type",
	[KEYWORD_CONST] = "const",
	[KEYWORD_ENUM] = "enum",
	[KEYWORD_MINIMUM] = "minimum",
	[KEYWORD_MAXIMUM] = "maximum",
	[KEYWORD_EXCLUSIVE_MINIMUM] = "exclusiveMinimum",
	[KEYWORD_EXCLUSIVE_MAXIMUM] = "exclusiveMaximum",
	[KEYWORD_MIN_LENGTH] = "minLength",
	[KEYWORD_MAX_LENGTH] = "maxLength",
	[KEYWORD_PATTERN] = "pattern",
	[KEYWORD_FORMAT] = "format",
};

/* Keywords that say nothing about a response, and so may be passed over. */
static const char *const annotations[] = {
	"$comment", "$id", "$schema", "default", "deprecated", "description",
	"examples", "readOnly", "title", "writeOnly",
};

static const struct
{
	const char *name;
	uint16		bit;
}			type_names[] = {
	{"null", TYPE_NULL},
	{"boolean", TYPE_BOOLEAN},
	{"integer", TYPE_INTEGER},
	{"number", TYPE_NUMBER},
	{"string", TYPE_STRING},
	{"array", TYPE_ARRAY},
	{"object", TYPE_OBJECT},
},			normalise_names[] = {
	{"trim", NORMALISE_TRIM},
	{"width", NORMALISE_WIDTH},
	{"coerce", NORMALISE_COERCE},
	{"fold", NORMALISE_FOLD},
	{"blank", NORMALISE_BLANK},
};

const char *const normalisation_name[] = {"trim", "width", "coerce", "fold", "blank"};
const int	normalisation_count = lengthof(normalisation_name);

/* One property schema at hand, and where it stands in the definition. */
typedef struct Place
{
	FormNode   *node;
	const char *schema;			/* JSON Pointer of the schema */
	uint8		inherited;		/* normalisation declared further out */
	JsonbValue *required;		/* "required" of this level, or NULL */
	JsonbValue *properties;
	bool		normalise_declared;
} Place;

static void compile_schema(FormNode *node, JsonbContainer *schema,
						   const char *where, uint8 inherited);
static void compile_keyword(Place *place, JsonbValue *key, JsonbValue *value);
static void compile_type(Place *place, JsonbValue *value, const char *where);
static void compile_options(Place *place, Keyword keyword, JsonbValue *value,
							const char *where);
static void compile_limit(Place *place, Keyword keyword, JsonbValue *value,
						  const char *where);
static void compile_length(Place *place, Keyword keyword, JsonbValue *value,
						   const char *where);
static void compile_pattern(Place *place, JsonbValue *value, const char *where);
static void compile_format(Place *place, JsonbValue *value, const char *where);
static void compile_normalise(Place *place, JsonbValue *value,
							  const char *where);
static void compile_properties(Place *place);
static void compile_required(Place *place);
static void settle_type(FormNode *node);
static bool options_fit_int4(const FormNode *node);
static void number_nodes(CompiledForm *form, FormNode *group);
static int	count_nodes(const FormNode *group);
static void check_names(CompiledForm *form);
static int	compare_names(const void *a, const void *b);
static const char *deeper(const char *pointer, const char *key, int keylen);
static int	compare_keys(const void *a, const void *b);

pg_attribute_noreturn() static void refuse(const char *where, const char *what, const char *hint);

/*
 * Compiles a definition.  Raises EP003 with the JSON Pointer of what is wrong
 * or not supported.
 */
CompiledForm *
form_compile(const char *name, const char *version, Jsonb *definition)
{
	CompiledForm *form = palloc0(sizeof(CompiledForm));
	FormNode   *root = palloc0(sizeof(FormNode));

	if (!JB_ROOT_IS_OBJECT(definition))
		refuse("", "a form definition must be a JSON object",
			   "Pass a JSON Schema of type \"object\" with \"properties\".");

	/* the compiled form keeps pointers to texts: have an own copy */
	definition = (Jsonb *) PG_DETOAST_DATUM_COPY(PointerGetDatum(definition));

	form->name = pstrdup(name);
	form->version = pstrdup(version);
	form->root = root;
	root->key = "";
	root->name = "";
	root->pointer = "";
	root->slot = -1;
	if (questionnaire_is(&definition->root))
	{
		questionnaire_compile(form, &definition->root);
		form_collect_slots(form);
		return form;
	}
	compile_schema(root, &definition->root, "", 0);
	if (root->nchildren == 0)
		refuse("/properties", "a form must declare at least one item",
			   "Name the items under \"properties\".");
	if (root->types != 0 && (root->types & TYPE_OBJECT) == 0)
		refuse("/type", "a form must be of type object",
			   "A response is an object: items by name.");

	form->nodes = palloc(sizeof(FormNode *) * count_nodes(root));
	number_nodes(form, root);
	check_names(form);
	form_collect_slots(form);
	return form;
}

static void
compile_schema(FormNode *node, JsonbContainer *schema, const char *where,
			   uint8 inherited)
{
	Place		place = {0};
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	check_stack_depth();

	place.node = node;
	place.schema = where;
	place.inherited = inherited;

	iterator = JsonbIteratorInit(schema);
	token = JsonbIteratorNext(&iterator, &key, false);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) == WJB_KEY)
	{
		CHECK_FOR_INTERRUPTS();
		(void) JsonbIteratorNext(&iterator, &value, true);
		compile_keyword(&place, &key, &value);
	}

	if (!place.normalise_declared)
		node->normalise = inherited;
	if (place.properties != NULL)
		compile_properties(&place);
	if (place.required != NULL)
		compile_required(&place);
	/* JSON Schema would let any other type pass, with the group's items unseen */
	if (place.properties != NULL && node->slot >= 0 && node->types != TYPE_OBJECT)
		refuse(where, "a group of items must be of type object",
			   "Add \"type\": \"object\" beside \"properties\".");
	settle_type(node);
}

/* Takes one keyword in, or refuses it. */
static void
compile_keyword(Place *place, JsonbValue *key, JsonbValue *value)
{
	const char *where = deeper(place->schema, key->val.string.val,
							   key->val.string.len);
	JsonbValue *copy;

	for (int k = 0; k < KEYWORD_COUNT; k++)
	{
		if (!jsonb_text_is(key, keyword_name[k]))
			continue;
		/* the response as a whole is an object of items, and nothing else */
		if (place->node->slot < 0 && k != KEYWORD_REQUIRED && k != KEYWORD_TYPE)
			refuse(where, "the keyword is not judged for the response as a whole",
				   "State it for an item, or as an edit check.");
		switch ((Keyword) k)
		{
			case KEYWORD_REQUIRED:
				copy = palloc(sizeof(JsonbValue));
				*copy = *value;
				place->required = copy;
				return;
			case KEYWORD_TYPE:
				compile_type(place, value, where);
				return;
			case KEYWORD_CONST:
			case KEYWORD_ENUM:
				compile_options(place, (Keyword) k, value, where);
				return;
			case KEYWORD_MINIMUM:
			case KEYWORD_MAXIMUM:
			case KEYWORD_EXCLUSIVE_MINIMUM:
			case KEYWORD_EXCLUSIVE_MAXIMUM:
				compile_limit(place, (Keyword) k, value, where);
				return;
			case KEYWORD_MIN_LENGTH:
			case KEYWORD_MAX_LENGTH:
				compile_length(place, (Keyword) k, value, where);
				return;
			case KEYWORD_PATTERN:
				compile_pattern(place, value, where);
				return;
			case KEYWORD_FORMAT:
				compile_format(place, value, where);
				return;
		}
	}

	if (jsonb_text_is(key, "properties"))
	{
		if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
			refuse(where, "\"properties\" must be an object", NULL);
		copy = palloc(sizeof(JsonbValue));
		*copy = *value;
		place->properties = copy;
		return;
	}
	if (jsonb_text_is(key, "x-normalise"))
	{
		compile_normalise(place, value, where);
		return;
	}
	if (jsonb_text_is(key, "$schema"))
	{
		if (value->type != jbvString || !jsonb_text_is(value, SCHEMA_DIALECT))
			refuse(where, "the definition is written in another dialect",
				   "The dialect must be " SCHEMA_DIALECT ".");
		return;
	}
	for (int i = 0; i < (int) lengthof(annotations); i++)
	{
		if (jsonb_text_is(key, annotations[i]))
			return;
	}
	refuse(where, "unknown or unsupported keyword",
		   "Correct its spelling, or state the rule as an edit check with epro_etl.add_edit_check().");
}

static void
compile_type(Place *place, JsonbValue *value, const char *where)
{
	FormNode   *node = place->node;
	StringInfoData says;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	element;
	bool		single = (value->type == jbvString);

	initStringInfo(&says);
	appendStringInfoString(&says, "must be of type");

	if (!single &&
		!(value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data)))
		refuse(where, "\"type\" must be a type name or an array of them", NULL);

	iterator = single ? NULL : JsonbIteratorInit(value->val.binary.data);
	if (!single)
		(void) JsonbIteratorNext(&iterator, &element, false);
	for (;;)
	{
		bool		known = false;

		if (single)
			element = *value;
		else
		{
			token = JsonbIteratorNext(&iterator, &element, true);
			if (token != WJB_ELEM)
				break;
		}
		for (int i = 0; i < (int) lengthof(type_names); i++)
		{
			if (element.type == jbvString && jsonb_text_is(&element, type_names[i].name))
			{
				if (node->types & type_names[i].bit)
					refuse(where, "\"type\" names a type twice", NULL);
				appendStringInfo(&says, "%s %s", node->types ? " or" : "",
								 type_names[i].name);
				node->types |= type_names[i].bit;
				known = true;
			}
		}
		if (!known)
			refuse(where, "unknown type",
				   "The types are null, boolean, integer, number, string, array and object.");
		if (single)
			break;
	}
	if (node->types == 0)
		refuse(where, "\"type\" names no type", NULL);
	node->has |= 1 << KEYWORD_TYPE;
	node->message[KEYWORD_TYPE] = says.data;
}

/* enum's values, and const's as the one after them */
static void
compile_options(Place *place, Keyword keyword, JsonbValue *value,
				const char *where)
{
	FormNode   *node = place->node;
	int			room = 1;
	JsonbIterator *iterator;
	JsonbValue	element;
	Value	   *options;

	if (keyword == KEYWORD_ENUM)
	{
		if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
			refuse(where, "\"enum\" must be an array", NULL);
		room = JsonContainerSize(value->val.binary.data) + 1;
		if (room == 1)
			refuse(where, "\"enum\" must not be empty", NULL);
	}

	/* the two keywords may come in either order: const's place is the last */
	options = palloc0(sizeof(Value) * (room + 1));
	if (keyword == KEYWORD_CONST)
	{
		Value		constant = {0};

		value_set_jsonb(&constant, value);
		if (node->options != NULL)
			node->options[node->noptions] = constant;
		else
		{
			options[0] = constant;
			node->options = options;
		}
		node->message[keyword] = "must be the declared constant";
	}
	else
	{
		int			n = 0;

		iterator = JsonbIteratorInit(value->val.binary.data);
		(void) JsonbIteratorNext(&iterator, &element, false);
		while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
			value_set_jsonb(&options[n++], &element);
		if (node->has & (1 << KEYWORD_CONST))
			options[n] = node->options[0];
		node->options = options;
		node->noptions = n;
		node->message[keyword] = psprintf("must be one of the %d declared values", n);
	}
	node->has |= 1 << keyword;
}

static void
compile_limit(Place *place, Keyword keyword, JsonbValue *value,
			  const char *where)
{
	FormNode   *node = place->node;
	static const char *const relation[] = {
		[KEYWORD_MINIMUM] = ">=",
		[KEYWORD_MAXIMUM] = "<=",
		[KEYWORD_EXCLUSIVE_MINIMUM] = ">",
		[KEYWORD_EXCLUSIVE_MAXIMUM] = "<",
	};
	int			len;

	if (value->type != jbvNumeric)
		refuse(where, "a limit must be a number", NULL);
	value_set_jsonb(&node->bound[keyword], value);
	node->has |= 1 << keyword;
	node->message[keyword] = psprintf("must be %s %s", relation[keyword],
									  value_text(&node->bound[keyword], &len));
}

static void
compile_length(Place *place, Keyword keyword, JsonbValue *value,
			   const char *where)
{
	FormNode   *node = place->node;
	Value		length = {0};

	if (value->type == jbvNumeric)
		value_set_jsonb(&length, value);
	if (length.kind != VALUE_INTEGER || length.number < 0)
		refuse(where, "a length must be a whole number, zero or more", NULL);
	if (keyword == KEYWORD_MIN_LENGTH)
		node->min_length = length.number;
	else
		node->max_length = length.number;
	node->has |= 1 << keyword;
	node->message[keyword] = psprintf("must have at %s " INT64_FORMAT " characters",
									  keyword == KEYWORD_MIN_LENGTH ? "least" : "most",
									  length.number);
}

static void
compile_pattern(Place *place, JsonbValue *value, const char *where)
{
	FormNode   *node = place->node;
	const char *fault = NULL;
	const char *hint = NULL;

	if (value->type != jbvString)
		refuse(where, "\"pattern\" must be a text", NULL);
	node->pattern = pattern_compile(jsonb_text(value), &fault, &hint);
	if (node->pattern == NULL)
		refuse(where, fault, hint);
	node->has |= 1 << KEYWORD_PATTERN;
	node->message[KEYWORD_PATTERN] = "must match the declared pattern";
}

static void
compile_format(Place *place, JsonbValue *value, const char *where)
{
	FormNode   *node = place->node;

	if (value->type == jbvString && jsonb_text_is(value, "date"))
	{
		node->format = FORMAT_DATE;
		node->message[KEYWORD_FORMAT] = "must be a date (RFC 3339: YYYY-MM-DD)";
	}
	else if (value->type == jbvString && jsonb_text_is(value, "time"))
	{
		node->format = FORMAT_TIME;
		node->message[KEYWORD_FORMAT] = "must be a time with its offset (RFC 3339)";
	}
	else if (value->type == jbvString && jsonb_text_is(value, "date-time"))
	{
		node->format = FORMAT_DATE_TIME;
		node->message[KEYWORD_FORMAT] = "must be a date-time with its offset (RFC 3339)";
	}
	else
		refuse(where, "unknown or unsupported format",
			   "The formats are date, date-time and time; use \"pattern\" for others.");
	node->has |= 1 << KEYWORD_FORMAT;
}

/* "x-normalise": the changes of representation that this item allows */
static void
compile_normalise(Place *place, JsonbValue *value, const char *where)
{
	JsonbIterator *iterator;
	JsonbValue	element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		refuse(where, "\"x-normalise\" must be an array", NULL);
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		bool		known = false;

		for (int i = 0; i < (int) lengthof(normalise_names); i++)
		{
			if (element.type == jbvString && jsonb_text_is(&element, normalise_names[i].name))
			{
				place->node->normalise |= normalise_names[i].bit;
				known = true;
			}
		}
		if (!known)
			refuse(where, "unknown normalisation",
				   "The normalisations are trim, width, coerce, fold and blank.");
	}
	place->normalise_declared = true;
}

static void
compile_properties(Place *place)
{
	FormNode   *group = place->node;
	JsonbContainer *properties = place->properties->val.binary.data;
	const char *where = deeper(place->schema, "properties", strlen("properties"));
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;

	group->children = palloc(sizeof(FormNode *) * (JsonContainerSize(properties) + 1));
	iterator = JsonbIteratorInit(properties);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		FormNode   *node = palloc0(sizeof(FormNode));
		const char *below;

		CHECK_FOR_INTERRUPTS();
		(void) JsonbIteratorNext(&iterator, &value, true);
		node->key = jsonb_text(&key);
		node->keylen = key.val.string.len;
		if (node->keylen == 0)
			refuse(where, "an item needs a name", NULL);
		node->pointer = deeper(group->pointer, node->key, node->keylen);
		node->name = group->name[0] == '\0' ? node->key :
			psprintf("%s.%s", group->name, node->key);
		node->message[KEYWORD_REQUIRED] = "must be answered";
		below = deeper(where, node->key, node->keylen);
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			refuse(below, "a property's schema must be an object", NULL);
		compile_schema(node, value.val.binary.data, below, group->normalise);
		group->children[group->nchildren++] = node;
	}
	qsort(group->children, group->nchildren, sizeof(FormNode *), compare_keys);
}

static void
compile_required(Place *place)
{
	const char *where = deeper(place->schema, "required", strlen("required"));
	JsonbIterator *iterator;
	JsonbValue	element;
	int			at = 0;

	if (place->required->type != jbvBinary ||
		!JsonContainerIsArray(place->required->val.binary.data))
		refuse(where, "\"required\" must be an array of item names", NULL);
	iterator = JsonbIteratorInit(place->required->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		FormNode   *found = NULL;

		if (element.type != jbvString)
			refuse(where, "\"required\" must be an array of item names", NULL);
		for (int i = 0; i < place->node->nchildren; i++)
		{
			if (jsonb_text_is(&element, place->node->children[i]->key))
				found = place->node->children[i];
		}
		if (found == NULL)
			refuse(psprintf("%s/%d", where, at),
				   "a required item is not declared under \"properties\"",
				   "Declare it, or correct its spelling.");
		found->has |= 1 << KEYWORD_REQUIRED;
		found->required_at = at;
		at++;
	}
}

/* Which SQL type an item has. */
static void
settle_type(FormNode *node)
{
	uint16		types = node->types & ~TYPE_NULL;

	switch (types)
	{
		case TYPE_BOOLEAN:
			node->type = ITEM_BOOLEAN;
			break;
		case TYPE_INTEGER:
			{
				const Value *low = &node->bound[KEYWORD_MINIMUM];
				const Value *high = &node->bound[KEYWORD_MAXIMUM];

				node->type = ITEM_INTEGER;
				node->fits_int4 =
					(low->kind == VALUE_INTEGER && low->number >= PG_INT32_MIN &&
					 high->kind == VALUE_INTEGER && high->number <= PG_INT32_MAX) ||
					options_fit_int4(node);
				break;
			}
		case TYPE_NUMBER:
		case TYPE_NUMBER | TYPE_INTEGER:
			node->type = ITEM_NUMBER;
			break;
		case TYPE_STRING:
			node->type = node->format == FORMAT_DATE ? ITEM_DATE :
				node->format == FORMAT_TIME ? ITEM_TIME :
				node->format == FORMAT_DATE_TIME ? ITEM_TIMESTAMP : ITEM_TEXT;
			break;
		default:
			node->type = ITEM_JSON;
			break;
	}
}

/* Is every number of the code list an integer to SQL? */
static bool
options_fit_int4(const FormNode *node)
{
	for (int i = 0; i < node->noptions; i++)
	{
		const Value *option = &node->options[i];

		if (option->kind == VALUE_NUMERIC ||
			(option->kind == VALUE_INTEGER &&
			 (option->number < PG_INT32_MIN || option->number > PG_INT32_MAX)))
			return false;
	}
	return node->noptions > 0;
}

/*
 * Finds an item by name: exactly, or else, when only one item is meant,
 * without regard to case, because SQL folds what is not quoted.
 */
FormNode *
form_find(const CompiledForm *form, const char *name)
{
	FormNode   *folded = NULL;
	int			matches = 0;

	for (int i = 0; i < form->nnodes; i++)
	{
		FormNode   *node = form->nodes[i];

		if (!form_node_is_item(node))
			continue;
		if (strcmp(node->name, name) == 0)
			return node;
		if (pg_strcasecmp(node->name, name) == 0)
		{
			folded = node;
			matches++;
		}
	}
	return matches == 1 ? folded : NULL;
}

/* Is it a question, rather than a group of questions? */
bool
form_node_is_item(const FormNode *node)
{
	return node->nchildren == 0;
}

static int
count_nodes(const FormNode *group)
{
	int			n = 1;

	for (int i = 0; i < group->nchildren; i++)
		n += count_nodes(group->children[i]);
	return n;
}

static void
number_nodes(CompiledForm *form, FormNode *group)
{
	for (int i = 0; i < group->nchildren; i++)
	{
		FormNode   *node = group->children[i];

		node->slot = form->nnodes;
		form->nodes[form->nnodes++] = node;
		number_nodes(form, node);
	}
}

/* An item's name is how rules and sinks call it: there must be one of it. */
static void
check_names(CompiledForm *form)
{
	FormNode  **sorted = palloc(sizeof(FormNode *) * form->nnodes);

	memcpy(sorted, form->nodes, sizeof(FormNode *) * form->nnodes);
	qsort(sorted, form->nnodes, sizeof(FormNode *), compare_names);
	for (int i = 1; i < form->nnodes; i++)
	{
		if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
			refuse(sorted[i]->pointer, "two items have the same name when groups are written with dots",
				   "Rename one of them.");
	}
	pfree(sorted);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(FormNode *const *) a)->name, (*(FormNode *const *) b)->name);
}

/* The slots that normalise and de-identify have to visit, and no others. */
void
form_collect_slots(CompiledForm *form)
{
	form->normalised = palloc(sizeof(int) * form->nnodes);
	form->deidentified = palloc(sizeof(int) * form->nnodes);
	form->nnormalised = form->ndeidentified = 0;
	for (int i = 0; i < form->nnodes; i++)
	{
		if (form->nodes[i]->normalise != 0)
			form->normalised[form->nnormalised++] = i;
		if (form->nodes[i]->deid != DEID_KEEP)
			form->deidentified[form->ndeidentified++] = i;
	}
}

/* A JSON Pointer one key deeper, the key escaped (RFC 6901, section 3). */
static const char *
deeper(const char *pointer, const char *key, int keylen)
{
	StringInfoData longer;

	initStringInfo(&longer);
	appendStringInfo(&longer, "%s/", pointer);
	for (int i = 0; i < keylen; i++)
	{
		if (key[i] == '~')
			appendStringInfoString(&longer, "~0");
		else if (key[i] == '/')
			appendStringInfoString(&longer, "~1");
		else
			appendStringInfoChar(&longer, key[i]);
	}
	return longer.data;
}

/* jsonb's order of keys: by length, then by bytes (see jsonb_util.c) */
static int
compare_keys(const void *a, const void *b)
{
	const FormNode *left = *(FormNode *const *) a;
	const FormNode *right = *(FormNode *const *) b;

	if (left->keylen != right->keylen)
		return left->keylen < right->keylen ? -1 : 1;
	return memcmp(left->key, right->key, left->keylen);
}

static void
refuse(const char *where, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_FORM_REFUSED),
			 errmsg("form definition refused at \"%s\": %s", where, what),
			 hint ? errhint("%s", hint) : 0));
}
