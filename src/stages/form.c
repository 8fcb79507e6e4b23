/*
 * form.c
 *		Compiles a JSON Schema (2020-12) into the form that the stages walk.
 *
 * Most of a questionnaire is plain: items with a type and keywords about one
 * value, which have a slot and are judged without a detour.  That part is
 * compiled here; what an item's or group's schema says beyond it is compiled by
 * schema.c, and judged by its walker.  A keyword that neither knows is refused
 * with its JSON Pointer, because a keyword that is passed over in silence is a
 * check that never ran.  The same goes for a misspelt one.
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
#include "stages/schema.h"

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

static const struct
{
	const char *name;
	Format		format;
	const char *message;
}			formats[] = {
	{"date", FORMAT_DATE, "must be a date (RFC 3339: YYYY-MM-DD)"},
	{"time", FORMAT_TIME, "must be a time with its offset (RFC 3339)"},
	{"date-time", FORMAT_DATE_TIME, "must be a date-time with its offset (RFC 3339)"},
	{"duration", FORMAT_DURATION, "must be a duration (RFC 3339, appendix A: such as P1DT12H)"},
	{"email", FORMAT_EMAIL, "must be an e-mail address (RFC 5321)"},
	{"ipv4", FORMAT_IPV4, "must be an IPv4 address (RFC 2673: four decimal numbers)"},
	{"ipv6", FORMAT_IPV6, "must be an IPv6 address (RFC 4291)"},
	{"uuid", FORMAT_UUID, "must be a UUID (RFC 4122)"},
};

/* One property schema at hand, and where it stands in the definition. */
typedef struct Place
{
	FormNode   *node;
	const struct Place *outer;	/* the group that the item is of, or NULL */
	JsonbContainer *container;
	SchemaCompiler *compiler;
	const char *schema;			/* JSON Pointer of the schema */
	uint8		inherited;		/* normalisation declared further out */
	JsonbValue *required;		/* "required" of this level, or NULL */
	JsonbValue *properties;
	bool		normalise_declared;
} Place;

static void compile_schema(Place *place);
static void follow_reference(Place *place);
static void compile_keyword(Place *place, JsonbValue *key, JsonbValue *value);
static bool is_group(const Place *place);
static void compile_type(FormNode *node, JsonbValue *value, const char *where);
static void compile_options(FormNode *node, Keyword keyword, JsonbValue *value,
							const char *where);
static void compile_limit(FormNode *node, Keyword keyword, JsonbValue *value,
						  const char *where);
static void narrow_range(FormNode *node, Keyword keyword);
static void compile_length(FormNode *node, Keyword keyword, JsonbValue *value,
						   const char *where);
static void compile_pattern(FormNode *node, JsonbValue *value, const char *where);
static void compile_format(FormNode *node, JsonbValue *value, const char *where);
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
static int	compare_keys(const void *a, const void *b);
static bool needs_payload(const FormNode *group);

/*
 * Compiles a definition.  Raises EP003 with the JSON Pointer of what is wrong
 * or not supported.
 */
CompiledForm *
form_compile(const char *name, const char *version, Jsonb *definition)
{
	CompiledForm *form = palloc0(sizeof(CompiledForm));
	FormNode   *root = palloc0(sizeof(FormNode));
	Place		place = {0};

	if (!JB_ROOT_IS_OBJECT(definition))
		form_refuse("", "a form definition must be a JSON object",
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
	place.node = root;
	place.container = &definition->root;
	place.compiler = schema_compiler(place.container);
	place.schema = "";
	compile_schema(&place);
	if (root->nchildren == 0)
	{
		/* a misspelt "properties" is what is to be told of */
		schema_finish(place.compiler);
		form_refuse("/properties", "a form must declare at least one item",
					"Name the items under \"properties\".");
	}
	if (root->types != 0 && (root->types & TYPE_OBJECT) == 0)
		form_refuse("/type", "a form must be of type object",
			   "A response is an object: items by name.");

	form->nodes = palloc(sizeof(FormNode *) * count_nodes(root));
	number_nodes(form, root);
	check_names(form);
	form_collect_slots(form);
	schema_finish(place.compiler);
	form->needs_payload = needs_payload(root);
	return form;
}

static void
compile_schema(Place *place)
{
	FormNode   *node = place->node;
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;

	check_stack_depth();
	follow_reference(place);

	iterator = JsonbIteratorInit(place->container);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		CHECK_FOR_INTERRUPTS();
		(void) JsonbIteratorNext(&iterator, &value, true);
		compile_keyword(place, &key, &value);
	}

	if (!place->normalise_declared)
		node->normalise = place->inherited;
	if (is_group(place))
	{
		compile_properties(place);
		if (place->required != NULL)
			compile_required(place);
		/* see form_walks() */
		node->has &= ~((1 << KEYWORD_CONST) | (1 << KEYWORD_ENUM));
	}
	schema_place(place->compiler, node, place->container);
	settle_type(node);
}

/*
 * An item that is a reference and no more is what it refers to: as plain, and
 * as fast.  One that leads back into itself stays a reference.
 */
static void
follow_reference(Place *place)
{
	for (int steps = 0; place->outer != NULL && steps < 32; steps++)
	{
		const char *where = place->schema;
		JsonbContainer *target = schema_follow(place->compiler, place->container, &where);
		JsonbValue	normalise;

		if (target == NULL)
			return;
		for (const Place *outer = place->outer; outer != NULL; outer = outer->outer)
		{
			if (outer->container == target)
				return;
		}
		if (getKeyJsonValueFromContainer(place->container, "x-normalise",
										 strlen("x-normalise"), &normalise) != NULL)
		{
			compile_normalise(place, &normalise,
							  form_deeper(place->schema, "x-normalise", strlen("x-normalise")));
			place->inherited = place->node->normalise;
			place->node->normalise = 0;
			place->normalise_declared = false;
		}
		place->container = target;
		place->schema = where;
	}
}

/* Takes in what is plain; schema.c reads the others, or refuses them. */
static void
compile_keyword(Place *place, JsonbValue *key, JsonbValue *value)
{
	const char *where = form_deeper(place->schema, key->val.string.val,
									key->val.string.len);
	Keyword		keyword;

	if (form_keyword_find(key, &keyword))
	{
		if (keyword == KEYWORD_REQUIRED)
		{
			place->required = palloc(sizeof(JsonbValue));
			*place->required = *value;
		}
		/* for a group, what form_walks() leaves out cannot be told yet */
		else if (place->outer == NULL && keyword != KEYWORD_TYPE)
			return;
		else if (keyword != KEYWORD_FORMAT || !schema_formats_are_notes(place->compiler))
			form_keyword(place->node, keyword, value, where);
	}
	else if (jsonb_text_is(key, "properties"))
	{
		if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
			form_refuse(where, "\"properties\" must be an object", NULL);
		place->properties = palloc(sizeof(JsonbValue));
		*place->properties = *value;
	}
	else if (jsonb_text_is(key, "x-normalise"))
		compile_normalise(place, value, where);
	else if (jsonb_text_is(key, "$schema"))
	{
		if (value->type != jbvString || !jsonb_text_is(value, SCHEMA_DIALECT))
			form_refuse(where, "the definition is written in another dialect",
						"The dialect must be " SCHEMA_DIALECT ".");
	}
}

/*
 * Have the properties slots of their own?  JSON Schema lets any other type pass
 * an item's "properties", so that an item may be a group for sure only when it
 * is declared to be an object.
 */
static bool
is_group(const Place *place)
{
	JsonbValue	empty;

	if (place->properties == NULL)
		return false;
	if (place->outer == NULL)
		return true;
	return place->node->types == TYPE_OBJECT &&
		getKeyJsonValueFromContainer(place->properties->val.binary.data, "", 0, &empty) == NULL;
}

/* Is this a keyword about one value?  Then *keyword says which. */
bool
form_keyword_find(const JsonbValue *key, Keyword *keyword)
{
	for (int k = 0; k < KEYWORD_COUNT; k++)
	{
		if (jsonb_text_is(key, keyword_name[k]))
		{
			*keyword = (Keyword) k;
			return true;
		}
	}
	return false;
}

/* Does the walker judge this keyword of an item or group, rather than validate()? */
bool
form_walks(const FormNode *place, Keyword keyword)
{
	if (place->slot < 0)
		return keyword != KEYWORD_TYPE;
	/* a group is its items, some of which may have been taken out */
	return place->nchildren > 0 && (keyword == KEYWORD_CONST || keyword == KEYWORD_ENUM);
}

/* Takes in a keyword other than "required"; where is its JSON Pointer. */
void
form_keyword(FormNode *node, Keyword keyword, JsonbValue *value, const char *where)
{
	switch (keyword)
	{
		case KEYWORD_REQUIRED:
			Assert(false);
			break;
		case KEYWORD_TYPE:
			compile_type(node, value, where);
			break;
		case KEYWORD_CONST:
		case KEYWORD_ENUM:
			compile_options(node, keyword, value, where);
			break;
		case KEYWORD_MINIMUM:
		case KEYWORD_MAXIMUM:
		case KEYWORD_EXCLUSIVE_MINIMUM:
		case KEYWORD_EXCLUSIVE_MAXIMUM:
			compile_limit(node, keyword, value, where);
			break;
		case KEYWORD_MIN_LENGTH:
		case KEYWORD_MAX_LENGTH:
			compile_length(node, keyword, value, where);
			break;
		case KEYWORD_PATTERN:
			compile_pattern(node, value, where);
			break;
		case KEYWORD_FORMAT:
			compile_format(node, value, where);
			break;
	}
}

static void
compile_type(FormNode *node, JsonbValue *value, const char *where)
{
	StringInfoData says;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	element;
	bool		single = (value->type == jbvString);

	initStringInfo(&says);
	appendStringInfoString(&says, "must be of type");

	if (!single &&
		!(value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data)))
		form_refuse(where, "\"type\" must be a type name or an array of them", NULL);

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
					form_refuse(where, "\"type\" names a type twice", NULL);
				appendStringInfo(&says, "%s %s", node->types ? " or" : "",
								 type_names[i].name);
				node->types |= type_names[i].bit;
				known = true;
			}
		}
		if (!known)
			form_refuse(where, "unknown type",
				   "The types are null, boolean, integer, number, string, array and object.");
		if (single)
			break;
	}
	if (node->types == 0)
		form_refuse(where, "\"type\" names no type", NULL);
	node->has |= 1 << KEYWORD_TYPE;
	node->message[KEYWORD_TYPE] = says.data;
}

/* enum's values, and const's as the one after them */
static void
compile_options(FormNode *node, Keyword keyword, JsonbValue *value,
				const char *where)
{
	int			room = 1;
	JsonbIterator *iterator;
	JsonbValue	element;
	Value	   *options;

	if (keyword == KEYWORD_ENUM)
	{
		if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
			form_refuse(where, "\"enum\" must be an array", NULL);
		room = JsonContainerSize(value->val.binary.data) + 1;
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
compile_limit(FormNode *node, Keyword keyword, JsonbValue *value,
			  const char *where)
{
	static const char *const relation[] = {
		[KEYWORD_MINIMUM] = ">=",
		[KEYWORD_MAXIMUM] = "<=",
		[KEYWORD_EXCLUSIVE_MINIMUM] = ">",
		[KEYWORD_EXCLUSIVE_MAXIMUM] = "<",
	};
	int			len;

	if (value->type != jbvNumeric)
		form_refuse(where, "a limit must be a number", NULL);
	value_set_jsonb(&node->bound[keyword], value);
	narrow_range(node, keyword);
	node->has |= 1 << keyword;
	node->message[keyword] = psprintf("must be %s %s", relation[keyword],
									  value_text(&node->bound[keyword], &len));
}

/* Leaves out of low to high the whole numbers that break a limit; all, where it is no small number. */
static void
narrow_range(FormNode *node, Keyword keyword)
{
	const Value *limit = &node->bound[keyword];
	int64		number = limit->number;
	bool		known = limit->kind == VALUE_INTEGER || limit->between;

	if (!(node->has & KEYWORDS_OF_LIMITS))
	{
		node->low = PG_INT64_MIN;
		node->high = PG_INT64_MAX;
	}
	if (known && keyword == KEYWORD_MINIMUM)
		node->low = Max(node->low, limit->between ? number + 1 : number);
	else if (known && keyword == KEYWORD_EXCLUSIVE_MINIMUM && number < PG_INT64_MAX)
		node->low = Max(node->low, number + 1);
	else if (known && keyword == KEYWORD_MAXIMUM)
		node->high = Min(node->high, number);
	else if (known && keyword == KEYWORD_EXCLUSIVE_MAXIMUM && number > PG_INT64_MIN)
		node->high = Min(node->high, limit->between ? number : number - 1);
	else
	{
		node->low = PG_INT64_MAX;
		node->high = PG_INT64_MIN;
	}
}

static void
compile_length(FormNode *node, Keyword keyword, JsonbValue *value,
			   const char *where)
{
	Value		length = {0};

	if (value->type == jbvNumeric)
		value_set_jsonb(&length, value);
	if (length.kind != VALUE_INTEGER || length.number < 0)
		form_refuse(where, "a length must be a whole number, zero or more", NULL);
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
compile_pattern(FormNode *node, JsonbValue *value, const char *where)
{
	const char *fault = NULL;
	const char *hint = NULL;

	if (value->type != jbvString)
		form_refuse(where, "\"pattern\" must be a text", NULL);
	node->pattern = pattern_compile(jsonb_text(value), &fault, &hint);
	if (node->pattern == NULL)
		form_refuse(where, fault, hint);
	node->has |= 1 << KEYWORD_PATTERN;
	node->message[KEYWORD_PATTERN] = "must match the declared pattern";
}

static void
compile_format(FormNode *node, JsonbValue *value, const char *where)
{
	int			i = 0;

	while (i < (int) lengthof(formats) &&
		   !(value->type == jbvString && jsonb_text_is(value, formats[i].name)))
		i++;
	if (i == (int) lengthof(formats))
		form_refuse(where, "unknown or unsupported format",
					"The formats are date, date-time, time, duration, email, ipv4, ipv6 and uuid; use \"pattern\" for others, or say \"x-formats\": \"annotate\" at the root if no format is to be checked.");
	node->format = formats[i].format;
	node->message[KEYWORD_FORMAT] = formats[i].message;
	node->has |= 1 << KEYWORD_FORMAT;
}

/* "x-normalise": the changes of representation that this item allows */
static void
compile_normalise(Place *place, JsonbValue *value, const char *where)
{
	JsonbIterator *iterator;
	JsonbValue	element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		form_refuse(where, "\"x-normalise\" must be an array", NULL);
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
			form_refuse(where, "unknown normalisation",
				   "The normalisations are trim, width, coerce, fold and blank.");
	}
	place->normalise_declared = true;
}

static void
compile_properties(Place *place)
{
	FormNode   *group = place->node;
	JsonbContainer *properties = place->properties->val.binary.data;
	const char *where = form_deeper(place->schema, "properties", strlen("properties"));
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;

	group->children = palloc(sizeof(FormNode *) * (JsonContainerSize(properties) + 1));
	iterator = JsonbIteratorInit(properties);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		FormNode   *node = palloc0(sizeof(FormNode));
		Place		item = {0};

		CHECK_FOR_INTERRUPTS();
		(void) JsonbIteratorNext(&iterator, &value, true);
		node->key = jsonb_text(&key);
		node->keylen = key.val.string.len;
		if (node->keylen == 0)
			form_refuse(where, "an item needs a name", NULL);
		node->pointer = form_deeper(group->pointer, node->key, node->keylen);
		node->name = group->name[0] == '\0' ? node->key :
			psprintf("%s.%s", group->name, node->key);
		node->message[KEYWORD_REQUIRED] = "must be answered";
		item.schema = form_deeper(where, node->key, node->keylen);
		if (value.type == jbvBinary && JsonContainerIsObject(value.val.binary.data))
		{
			item.node = node;
			item.outer = place;
			item.container = value.val.binary.data;
			item.compiler = place->compiler;
			item.inherited = group->normalise;
			compile_schema(&item);
		}
		else if (value.type != jbvBool)
			form_refuse(item.schema, "a property's schema must be an object or a boolean", NULL);
		else if (!value.val.boolean)
			node->schema = schema_never(item.schema);
		group->children[group->nchildren++] = node;
	}
	qsort(group->children, group->nchildren, sizeof(FormNode *), compare_keys);
}

/* Of the items that are declared; schema.c reads the whole. */
static void
compile_required(Place *place)
{
	JsonbIterator *iterator;
	JsonbValue	element;
	int			at = 0;

	if (place->required->type != jbvBinary ||
		!JsonContainerIsArray(place->required->val.binary.data))
		return;
	iterator = JsonbIteratorInit(place->required->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		for (int i = 0; element.type == jbvString && i < place->node->nchildren; i++)
		{
			FormNode   *node = place->node->children[i];

			if (!jsonb_text_is(&element, node->key))
				continue;
			node->has |= 1 << KEYWORD_REQUIRED;
			node->required_at = at;
		}
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

/* The name of the at-th normalisation, from 0, and its bit; NULL: there are no more. */
const char *
form_normalisation(int at, uint8 *bit)
{
	if (at >= (int) lengthof(normalise_names))
		return NULL;
	*bit = (uint8) normalise_names[at].bit;
	return normalise_names[at].name;
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
			form_refuse(sorted[i]->pointer, "two items have the same name when groups are written with dots",
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
		/* a method that reads the answer has it normalised */
		if (form->nodes[i]->normalise != 0 && node_is_judged(form->nodes[i]))
			form->normalised[form->nnormalised++] = i;
		if (form->nodes[i]->deid != DEID_KEEP)
			form->deidentified[form->ndeidentified++] = i;
	}
}

/* Does a rule about the response or a group of it ask for undeclared keys? */
static bool
needs_payload(const FormNode *group)
{
	if (group->schema != NULL && schema_needs_payload(group->schema, group))
		return true;
	for (int i = 0; i < group->nchildren; i++)
	{
		if (group->children[i]->nchildren > 0 && needs_payload(group->children[i]))
			return true;
	}
	return false;
}

/* A JSON Pointer one key deeper, the key escaped (RFC 6901, section 3). */
const char *
form_deeper(const char *pointer, const char *key, int keylen)
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

/* Raises EP003; where is a JSON Pointer into the definition. */
void
form_refuse(const char *where, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_FORM_REFUSED),
			 errmsg("form definition refused at \"%s\": %s", where, what),
			 hint ? errhint("%s", hint) : 0));
}
