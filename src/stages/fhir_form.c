/*
 * fhir_form.c
 *		Compiles a FHIR Questionnaire (R4) into the form that the stages walk.
 *
 * Each question is an item of the form, whatever group it stands in: linkIds
 * are unique (que-2), so an item's name is its linkId.  What the definition
 * says of an answer is compiled once: code lists are sorted, regular
 * expressions made, limits read.
 *
 * A rule that cannot be used is refused.  A rule that is written in a language
 * of its own (FHIRPath, CQL) is not evaluated: it goes on the form's list of
 * what was not imported, which register_form() tells.  A value set that is not
 * at hand is a finding of each answer that it is asked about.
 *
 * Compiling raises errors; what it makes lives in the memory context that is
 * current at the call.  The definition has to outlive it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "stages/fhir.h"
#include "stages/form.h"
#include "utils/builtins.h"
#include "words/compat.h"
#include "words/errors.h"

#define STRUCTURE "http://hl7.org/fhir/StructureDefinition/"
#define SDC "http://hl7.org/fhir/uv/sdc/StructureDefinition/"

/* value sets that include value sets: how deep, before it is held for a circle */
#define MAX_INCLUDES 20

/* What an extension of an item is to us. */
typedef enum Extension
{
	EXTENSION_UNKNOWN = 0,
	EXTENSION_DISPLAY,			/* says nothing about a response */
	EXTENSION_NOT_EVALUATED,
	EXTENSION_ENABLES,
	EXTENSION_MIN_VALUE,
	EXTENSION_MAX_VALUE,
	EXTENSION_MIN_LENGTH,
	EXTENSION_REGEX,
	EXTENSION_MAX_PLACES,
	EXTENSION_MIN_OCCURS,
	EXTENSION_MAX_OCCURS,
	EXTENSION_UNIT,
	EXTENSION_UNIT_OPTION,
	EXTENSION_UNIT_VALUE_SET,
	EXTENSION_UNIT_OPEN,
	EXTENSION_MIME_TYPE,
	EXTENSION_MAX_SIZE,
	EXTENSION_REFERENCE_RESOURCE
} Extension;

static const struct
{
	const char *url;
	Extension	is;
}			extensions[] = {
	{STRUCTURE "minValue", EXTENSION_MIN_VALUE},
	{STRUCTURE "maxValue", EXTENSION_MAX_VALUE},
	{SDC "sdc-questionnaire-minQuantity", EXTENSION_MIN_VALUE},
	{SDC "sdc-questionnaire-maxQuantity", EXTENSION_MAX_VALUE},
	{STRUCTURE "minLength", EXTENSION_MIN_LENGTH},
	{STRUCTURE "regex", EXTENSION_REGEX},
	{STRUCTURE "maxDecimalPlaces", EXTENSION_MAX_PLACES},
	{STRUCTURE "questionnaire-minOccurs", EXTENSION_MIN_OCCURS},
	{STRUCTURE "questionnaire-maxOccurs", EXTENSION_MAX_OCCURS},
	{STRUCTURE "questionnaire-unit", EXTENSION_UNIT},
	{STRUCTURE "questionnaire-unitOption", EXTENSION_UNIT_OPTION},
	{STRUCTURE "questionnaire-unitValueSet", EXTENSION_UNIT_VALUE_SET},
	{SDC "sdc-questionnaire-unitOpen", EXTENSION_UNIT_OPEN},
	{STRUCTURE "mimeType", EXTENSION_MIME_TYPE},
	{STRUCTURE "maxSize", EXTENSION_MAX_SIZE},
	{STRUCTURE "questionnaire-referenceResource", EXTENSION_REFERENCE_RESOURCE},
	{SDC "sdc-questionnaire-enableWhenExpression", EXTENSION_ENABLES},
	{STRUCTURE "questionnaire-constraint", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "targetConstraint", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "questionnaire-referenceProfile", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "questionnaire-referenceFilter", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "questionnaire-signatureRequired", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "variable", EXTENSION_NOT_EVALUATED},
	{SDC "sdc-questionnaire-calculatedExpression", EXTENSION_NOT_EVALUATED},
	{SDC "sdc-questionnaire-answerExpression", EXTENSION_NOT_EVALUATED},
	{SDC "sdc-questionnaire-answerOptionsToggleExpression", EXTENSION_NOT_EVALUATED},
	{SDC "sdc-questionnaire-unitSupplementalSystem", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "cqf-library", EXTENSION_DISPLAY},
	{STRUCTURE "cqf-expression", EXTENSION_NOT_EVALUATED},
	{STRUCTURE "entryFormat", EXTENSION_DISPLAY},
	{STRUCTURE "designNote", EXTENSION_DISPLAY},
	{STRUCTURE "translation", EXTENSION_DISPLAY},
	{STRUCTURE "display", EXTENSION_DISPLAY},
	{STRUCTURE "itemWeight", EXTENSION_DISPLAY},
	{STRUCTURE "ordinalValue", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-baseType", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-choiceOrientation", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-displayCategory", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-fhirType", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-hidden", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-itemControl", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-optionPrefix", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-sliderStepValue", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-supportLink", EXTENSION_DISPLAY},
	{STRUCTURE "questionnaire-usageMode", EXTENSION_DISPLAY},
	{STRUCTURE "preferredTerminologyServer", EXTENSION_DISPLAY},
	{STRUCTURE "rendering-markdown", EXTENSION_DISPLAY},
	{STRUCTURE "rendering-style", EXTENSION_DISPLAY},
	{STRUCTURE "rendering-styleSensitive", EXTENSION_DISPLAY},
	{STRUCTURE "rendering-xhtml", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-candidateExpression", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-choiceColumn", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-collapsible", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-columnCount", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-contextExpression", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-entryMode", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-initialExpression", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-isSubject", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-itemPopulationContext", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-keyboard", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-launchContext", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-lookupQuestionnaire", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-observationLinkPeriod", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-observationExtract", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-openLabel", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-optionalDisplay", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-performerType", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-preferredTerminologyServer", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-shortText", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-sourceQueries", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-sourceStructureMap", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-targetStructureMap", EXTENSION_DISPLAY},
	{SDC "sdc-questionnaire-width", EXTENSION_DISPLAY},
};

/* An item's type, and which answers it takes. */
static const struct
{
	const char *name;
	FhirType	type;
	uint32		kinds;
	ItemType	column;
}			item_types[] = {
	{"group", FHIR_GROUP, 0, ITEM_JSON},
	{"display", FHIR_DISPLAY, 0, ITEM_JSON},
	{"boolean", FHIR_QUESTION, FHIR_BIT(FHIR_BOOLEAN), ITEM_BOOLEAN},
	{"decimal", FHIR_QUESTION, FHIR_BIT(FHIR_DECIMAL), ITEM_NUMBER},
	{"integer", FHIR_QUESTION, FHIR_BIT(FHIR_INTEGER), ITEM_INTEGER},
	{"date", FHIR_QUESTION, FHIR_BIT(FHIR_DATE), ITEM_PARTIAL_DATE},
	{"dateTime", FHIR_QUESTION, FHIR_BIT(FHIR_DATE_TIME), ITEM_PARTIAL_TIMESTAMP},
	{"time", FHIR_QUESTION, FHIR_BIT(FHIR_TIME), ITEM_LOCAL_TIME},
	{"string", FHIR_QUESTION, FHIR_BIT(FHIR_STRING), ITEM_TEXT},
	{"text", FHIR_QUESTION, FHIR_BIT(FHIR_STRING), ITEM_TEXT},
	{"url", FHIR_QUESTION, FHIR_BIT(FHIR_URI), ITEM_TEXT},
	{"choice", FHIR_QUESTION, 0, ITEM_TEXT},
	{"open-choice", FHIR_QUESTION, 0, ITEM_TEXT},
	{"coding", FHIR_QUESTION, 0, ITEM_TEXT},
	{"attachment", FHIR_QUESTION, FHIR_BIT(FHIR_ATTACHMENT), ITEM_JSON},
	{"reference", FHIR_QUESTION, FHIR_BIT(FHIR_REFERENCE), ITEM_JSON},
	{"quantity", FHIR_QUESTION, FHIR_BIT(FHIR_QUANTITY), ITEM_JSON},
};

static const struct
{
	const char *name;
	FhirOperator operator;
}			operators[] = {
	{"exists", FHIR_EXISTS},
	{"=", FHIR_EQUAL},
	{"!=", FHIR_NOT_EQUAL},
	{">", FHIR_GREATER},
	{"<", FHIR_LESS},
	{">=", FHIR_GREATER_EQUAL},
	{"<=", FHIR_LESS_EQUAL},
};

/* The definition at hand. */
typedef struct Definition
{
	CompiledForm *form;
	Questionnaire *made;
	const JsonbContainer *questionnaire;
	const JsonbContainer *bundle;	/* its entries, or NULL */
	const JsonbContainer **sources; /* by item: its object */
	const char **places;		/* by item: JSON Pointer in the definition */
	int			room;
} Definition;

static void find_lone(Questionnaire *made);
static void open_bundle(Definition *definition, const JsonbContainer *bundle);
static void compile_head(Definition *definition);
static int	compile_items(Definition *definition, const JsonbContainer *items,
						  const char *where, int parent, int **places);
static void compile_item(Definition *definition, int at);
static void compile_type(Definition *definition, int at, ItemType *column);
static void compile_extensions(Definition *definition, int at);
static void compile_extension(Definition *definition, int at, Extension is,
							  const JsonbContainer *extension, const char *where);
static void compile_limit(FhirItem *item, Extension is, FhirKind kind,
						  const JsonbValue *value, const char *where);
static void place(FhirItem *item, FhirRule rule, const char *where);
static int64 compile_count(const JsonbValue *value, const char *where);
static void compile_options(Definition *definition, int at);
static void compile_value_set(Definition *definition, int at);
static void include_value_set(Definition *definition, FhirCodes *codes, FhirKind kind,
							  Span canonical, int depth);
static void include_part(Definition *definition, FhirCodes *codes, FhirKind kind,
						 const JsonbContainer *part, int depth);
static void include_concepts(FhirCodes *codes, FhirKind kind, Span system,
							 const JsonbContainer *concepts, const char *below);
static void exclude_parts(FhirCodes *codes, const JsonbContainer *parts);
static const JsonbContainer *find_resource(Definition *definition, const char *type, Span reference);
static bool resource_is(const JsonbContainer *resource, const char *type, Span reference, bool by_id);
static void compile_conditions(Definition *definition, int at);
static void compile_condition(Definition *definition, int at, const JsonbContainer *source,
							  FhirCondition *condition, const char *where);
static void make_node(Definition *definition, int at, ItemType column);
static const char *kinds_text(uint32 kinds);
static void name_nodes(Definition *definition);
static int	compare_names(const void *a, const void *b);
static int	compare_links(const void *a, const void *b);
static const char *usable_name(const char *link_id);
static const char *escaped(const char *link_id);
static FhirOption *add_option(FhirCodes *codes, FhirKind kind, Span code, Span system);
static void settle_codes(FhirCodes *codes);
static bool codes_clash(const FhirCodes *codes);
static bool extension_value(const JsonbContainer *extension, Span *member, JsonbValue *value);
static bool get_flag(const JsonbContainer *object, const char *key, const char *where);
static const JsonbContainer *element_object(const JsonbValue *element, const char *where);
static bool is_object(const JsonbValue *value);
static char *span_text(Span span);
static void add_note(CompiledForm *form, const char *location, const char *construct, const char *reason);

pg_attribute_noreturn() static void refuse(const char *where, const char *what, const char *hint);

/* Is the definition a FHIR resource?  What kind of one, questionnaire_compile() looks. */
bool
questionnaire_is(const JsonbContainer *definition)
{
	return object_text(definition, "resourceType").data != NULL;
}

/* Fills a form, whose name and version are there, from the definition. */
void
questionnaire_compile(CompiledForm *form, JsonbContainer *container)
{
	Definition	definition = {0};
	Questionnaire *made = palloc0(sizeof(Questionnaire));
	const JsonbContainer *items;
	ItemType   *columns;

	definition.form = form;
	definition.made = made;
	form->root = palloc0(sizeof(FormNode));
	form->root->key = form->root->name = form->root->pointer = "";
	form->root->slot = -1;
	form->questionnaire = made;

	if (span_is(object_text(container, "resourceType"), "Bundle"))
		open_bundle(&definition, container);
	else if (span_is(object_text(container, "resourceType"), "Questionnaire"))
		definition.questionnaire = container;
	else
		refuse("/resourceType", "a FHIR resource that defines a form must be a Questionnaire",
			   "Pass a Questionnaire, or a Bundle with one and its ValueSets.");
	compile_head(&definition);

	items = object_array(definition.questionnaire, "item");
	if (items == NULL)
		refuse("/item", "a form must declare at least one item", NULL);
	made->ntop = compile_items(&definition, items, "", -1, &made->top);
	made->links = palloc(sizeof(FhirLink) * made->nitems);
	for (int i = 0; i < made->nitems; i++)
		made->links[i] = (FhirLink) {made->items[i].link_id, made->items[i].len, i};
	qsort(made->links, made->nitems, sizeof(FhirLink), compare_links);
	for (int i = 1; i < made->nitems; i++)
	{
		if (compare_links(&made->links[i - 1], &made->links[i]) == 0)
			refuse(psprintf("%s/linkId", definition.places[made->links[i].at]),
				   "two items have the same linkId (que-2)", NULL);
	}

	columns = palloc0(sizeof(ItemType) * made->nitems);
	form->nodes = palloc(sizeof(FormNode *) * made->nitems);
	for (int i = 0; i < made->nitems; i++)
	{
		CHECK_FOR_INTERRUPTS();
		compile_item(&definition, i);
		compile_type(&definition, i, &columns[i]);
		compile_extensions(&definition, i);
		compile_options(&definition, i);
		compile_value_set(&definition, i);
	}
	for (int i = 0; i < made->nitems; i++)
	{
		compile_conditions(&definition, i);
		if (made->items[i].type == FHIR_QUESTION)
			make_node(&definition, i, columns[i]);
	}
	find_lone(made);
	if (form->nnodes == 0)
		refuse("/item", "a form must ask at least one question", NULL);
	name_nodes(&definition);
	/* the list of nodes may grow by what the form computes */
	form->root->nchildren = form->nnodes;
	form->root->children = palloc(sizeof(FormNode *) * form->nnodes);
	memcpy(form->root->children, form->nodes, sizeof(FormNode *) * form->nnodes);
}

/*
 * Questions that stand at the top, have no condition and nothing below them, do
 * not repeat, and that no condition asks about.
 */
static void
find_lone(Questionnaire *made)
{
	for (int i = 0; i < made->nitems; i++)
	{
		FhirItem   *item = &made->items[i];

		CHECK_FOR_INTERRUPTS();
		item->lone = item->type == FHIR_QUESTION && item->parent < 0 && item->nchildren == 0 &&
			!item->many && item->nconditions == 0 && !item->expression;
	}
	for (int i = 0; i < made->nitems; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int c = 0; c < made->items[i].nconditions; c++)
			made->items[made->items[i].conditions[c].question].lone = false;
	}
}

/* A Bundle: one Questionnaire, and what it refers to. */
static void
open_bundle(Definition *definition, const JsonbContainer *bundle)
{
	JsonbWalk	walk;
	Span		key;
	JsonbValue	entry;
	JsonbValue	resource;

	definition->bundle = object_array(bundle, "entry");
	if (definition->bundle == NULL)
		refuse("/entry", "the Bundle has no entries", NULL);
	walk_begin(&walk, definition->bundle);
	while (walk_next(&walk, &key, &entry))
	{
		if (!is_object(&entry) || !object_get(entry.val.binary.data, "resource", &resource) ||
			!is_object(&resource) ||
			!span_is(object_text(resource.val.binary.data, "resourceType"), "Questionnaire"))
			continue;
		if (definition->questionnaire != NULL)
			refuse(psprintf("/entry/%d", walk.at - 1), "the Bundle has more than one Questionnaire", NULL);
		definition->questionnaire = resource.val.binary.data;
	}
	if (definition->questionnaire == NULL)
		refuse("/entry", "the Bundle has no Questionnaire", NULL);
}

static void
compile_head(Definition *definition)
{
	Questionnaire *made = definition->made;
	const JsonbContainer *source = definition->questionnaire;
	const JsonbContainer *list;
	JsonbValue	value;
	JsonbWalk	walk;
	Span		key;

	made->url = object_text(source, "url");
	made->version = object_text(source, "version");
	if (made->url.data == NULL)
		add_note(definition->form, "", "url",
				 "it has none: which questionnaire a response is of is not compared");
	if (object_get(source, "modifierExtension", &value) || object_get(source, "implicitRules", &value))
		refuse("", "the Questionnaire has modifierExtension or implicitRules, which may change the meaning of all the rest", NULL);
	if (object_get(source, "derivedFrom", &value))
		add_note(definition->form, "", "derivedFrom", "the questionnaire must say all that is to be judged");
	if (object_get(source, "effectivePeriod", &value) && is_object(&value))
	{
		const JsonbContainer *period = value.val.binary.data;

		for (int end = 0; end < 2; end++)
		{
			FhirValue  *limit = palloc(sizeof(FhirValue));

			if (!object_get(period, end ? "end" : "start", &value))
				continue;
			if (kind_read(FHIR_DATE_TIME, &value, limit) != NULL)
				refuse(end ? "/effectivePeriod/end" : "/effectivePeriod/start", "must be a dateTime", NULL);
			if (end)
				made->until = limit;
			else
				made->from = limit;
		}
	}
	if ((list = object_array(source, "extension")) == NULL)
		return;
	walk_begin(&walk, list);
	while (walk_next(&walk, &key, &value))
	{
		Span		url = is_object(&value) ? object_text(value.val.binary.data, "url") : (Span) {NULL, 0};
		Extension	is = EXTENSION_UNKNOWN;

		for (int i = 0; i < (int) lengthof(extensions); i++)
		{
			if (span_is(url, extensions[i].url))
				is = extensions[i].is;
		}
		if (is != EXTENSION_DISPLAY)
			add_note(definition->form, "", url.data ? span_text(url) : "extension",
					 is == EXTENSION_UNKNOWN ? "an extension that is not known" : "it is not evaluated");
	}
}

/*
 * Lays out the items of one level and of all below them, parents first, and
 * returns the level's places.
 */
static int
compile_items(Definition *definition, const JsonbContainer *items, const char *where,
			  int parent, int **places)
{
	Questionnaire *made = definition->made;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;
	int			n = 0;

	check_stack_depth();
	*places = palloc(sizeof(int) * Max(1, JsonContainerSize(items)));
	walk_begin(&walk, items);
	while (walk_next(&walk, &key, &element))
	{
		const char *here = psprintf("%s/item/%d", where, n);
		const JsonbContainer *source = element_object(&element, here);
		const JsonbContainer *below = object_array(source, "item");
		Span		link_id = object_text(source, "linkId");
		int			at = made->nitems++;
		FhirItem   *item;

		CHECK_FOR_INTERRUPTS();
		if (link_id.data == NULL)
			refuse(psprintf("%s/linkId", here), "an item needs a linkId", NULL);
		if (at >= definition->room)
		{
			int			room = Max(64, definition->room * 2);

			if (definition->room == 0)
			{
				made->items = palloc(sizeof(FhirItem) * room);
				definition->sources = palloc(sizeof(void *) * room);
				definition->places = palloc(sizeof(char *) * room);
			}
			else
			{
				made->items = repalloc(made->items, sizeof(FhirItem) * room);
				definition->sources = repalloc(definition->sources, sizeof(void *) * room);
				definition->places = repalloc(definition->places, sizeof(char *) * room);
			}
			definition->room = room;
		}
		item = &made->items[at];
		memset(item, 0, sizeof(*item));
		item->link_id = span_text(link_id);
		item->len = link_id.len;
		item->pointer = escaped(item->link_id);
		item->parent = parent;
		item->depth = parent < 0 ? 0 : made->items[parent].depth + 1;
		item->child_no = n;
		item->where = here;
		definition->sources[at] = source;
		definition->places[at] = here;
		(*places)[n++] = at;
		if (below != NULL)
		{
			int		   *children;
			int			nchildren = compile_items(definition, below, here, at, &children);

			/* the array may have moved */
			made->items[at].children = children;
			made->items[at].nchildren = nchildren;
		}
	}
	return n;
}

static void
compile_item(Definition *definition, int at)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *source = definition->sources[at];
	const char *where = definition->places[at];
	JsonbValue	value;

	item->min_length = item->max_length = item->max_places = -1;
	item->min_occurs = item->max_occurs = -1;
	place(item, FHIR_RULE_ORDER, psprintf("%s/order", where));
	item->required = get_flag(source, "required", where);
	if (item->required)
		place(item, FHIR_RULE_REQUIRED, psprintf("%s/required", where));
	item->repeats = get_flag(source, "repeats", where);
	item->many = item->repeats || (item->parent >= 0 && definition->made->items[item->parent].many);
	if (object_get(source, "modifierExtension", &value))
		refuse(psprintf("%s/modifierExtension", where),
			   "a modifier extension may change the meaning of the item", NULL);
	if (object_get(source, "maxLength", &value))
	{
		place(item, FHIR_RULE_MAX_LENGTH, psprintf("%s/maxLength", where));
		item->max_length = compile_count(&value, psprintf("%s/maxLength", where));
		item->max_length_says = psprintf("must have at most " INT64_FORMAT " characters", item->max_length);
	}
}

static void
compile_type(Definition *definition, int at, ItemType *column)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *source = definition->sources[at];
	const char *where = psprintf("%s/type", definition->places[at]);
	Span		type = object_text(source, "type");
	Span		constraint = object_text(source, "answerConstraint");
	int			i = 0;

	while (i < (int) lengthof(item_types) && !span_is(type, item_types[i].name))
		i++;
	if (span_is(type, "question"))
		refuse(where, "\"question\" is abstract: an item must be of one of its kinds", NULL);
	if (i == (int) lengthof(item_types))
		refuse(where, "unknown item type", "The types are those of FHIR R4, item-type.");
	item->type = item_types[i].type;
	item->kinds = item_types[i].kinds;
	*column = item_types[i].column;
	item->choice = (item->type == FHIR_QUESTION && item->kinds == 0);
	item->open = span_is(type, "open-choice");
	if (item->type == FHIR_DISPLAY && item->nchildren > 0)
		refuse(psprintf("%s/item", definition->places[at]), "a display item has no items (que-1)", NULL);
	/* R5 says the same of any question */
	if (span_is(constraint, "optionsOrString") || span_is(constraint, "optionsOrType"))
		item->open = true;
	if (span_is(constraint, "optionsOrString"))
		item->kinds |= FHIR_BIT(FHIR_STRING);
	if (span_is(type, "open-choice"))
		item->kinds |= FHIR_BIT(FHIR_STRING);
}

static void
compile_extensions(Definition *definition, int at)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *list = object_array(definition->sources[at], "extension");
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;

	if (list == NULL)
		return;
	walk_begin(&walk, list);
	while (walk_next(&walk, &key, &element))
	{
		const char *where = psprintf("%s/extension/%d", definition->places[at], walk.at - 1);
		const JsonbContainer *extension = element_object(&element, where);
		Span		url = object_text(extension, "url");
		Extension	is = EXTENSION_UNKNOWN;

		for (int i = 0; i < (int) lengthof(extensions); i++)
		{
			if (span_is(url, extensions[i].url))
				is = extensions[i].is;
		}
		switch (is)
		{
			case EXTENSION_DISPLAY:
				break;
			case EXTENSION_UNKNOWN:
				add_note(definition->form, item->pointer, url.data ? span_text(url) : "extension",
						 "an extension that is not known");
				break;
			case EXTENSION_NOT_EVALUATED:
				add_note(definition->form, item->pointer, span_text(url), "it is not evaluated");
				break;
			case EXTENSION_ENABLES:
				item->expression = true;
				place(item, FHIR_RULE_ENABLE_WHEN, where);
				add_note(definition->form, item->pointer, span_text(url),
						 "it is not evaluated: whether the item is enabled is not known");
				break;
			default:
				compile_extension(definition, at, is, extension, where);
				break;
		}
	}
	if (item->units != NULL)
		settle_codes(item->units);
}

static void
compile_extension(Definition *definition, int at, Extension is,
				  const JsonbContainer *extension, const char *where)
{
	FhirItem   *item = &definition->made->items[at];
	char	   *url = span_text(object_text(extension, "url"));
	const char *rule = strrchr(url, '/') + 1;
	Span		member;
	JsonbValue	value;
	Span		text = {NULL, 0};

	if (!extension_value(extension, &member, &value))
	{
		/* computed from something, by an extension of the extension */
		add_note(definition->form, item->pointer, url, "it has no value of its own: it is not evaluated");
		return;
	}
	if (value.type == jbvString)
	{
		text.data = value.val.string.val;
		text.len = value.val.string.len;
	}
	switch (is)
	{
		case EXTENSION_MIN_VALUE:
		case EXTENSION_MAX_VALUE:
			place(item, is == EXTENSION_MIN_VALUE ? FHIR_RULE_MINIMUM : FHIR_RULE_MAXIMUM, where);
			compile_limit(item, is, kind_of_member(member, "value"), &value, where);
			break;
		case EXTENSION_MIN_LENGTH:
			place(item, FHIR_RULE_MIN_LENGTH, where);
			item->min_length = compile_count(&value, where);
			item->min_length_says = psprintf("must have at least " INT64_FORMAT " characters", item->min_length);
			break;
		case EXTENSION_MAX_PLACES:
			place(item, FHIR_RULE_MAX_PLACES, where);
			item->max_places = compile_count(&value, where);
			item->max_places_says = psprintf("must have at most " INT64_FORMAT " decimal places", item->max_places);
			break;
		case EXTENSION_MIN_OCCURS:
			place(item, FHIR_RULE_MIN_OCCURS, where);
			item->min_occurs = compile_count(&value, where);
			item->min_occurs_says = psprintf("must be given at least " INT64_FORMAT " times", item->min_occurs);
			break;
		case EXTENSION_MAX_OCCURS:
			place(item, FHIR_RULE_MAX_OCCURS, where);
			item->max_occurs = compile_count(&value, where);
			item->max_occurs_says = psprintf("must be given at most " INT64_FORMAT " times", item->max_occurs);
			break;
		case EXTENSION_REGEX:
			{
				const char *fault = NULL;
				const char *hint = NULL;

				if (text.data == NULL)
					refuse(where, "a regular expression must be a text", NULL);
				place(item, FHIR_RULE_REGEX, where);
				/* the whole value has to match (FHIR, extension regex) */
				item->pattern = pattern_compile(psprintf("^(?:%s)$", span_text(text)), &fault, &hint);
				if (item->pattern == NULL)
					refuse(where, fault, hint);
				break;
			}
		case EXTENSION_UNIT:
		case EXTENSION_UNIT_OPTION:
			{
				FhirValue	unit;

				/* of a number it is what the number is taken for, and no rule */
				if (!(item->kinds & FHIR_BIT(FHIR_QUANTITY)))
					break;
				if (kind_read(FHIR_CODING, &value, &unit) != NULL)
					refuse(where, "a unit must be a Coding", NULL);
				place(item, FHIR_RULE_UNITS, where);
				if (item->units == NULL)
					item->units = palloc0(sizeof(FhirCodes));
				item->units_rule = rule + strlen("questionnaire-");
				add_option(item->units, FHIR_CODING, unit.code.data ? unit.code : unit.text, unit.system);
				break;
			}
		case EXTENSION_UNIT_VALUE_SET:
			if (text.data == NULL)
				refuse(where, "a value set must be named by its canonical", NULL);
			place(item, FHIR_RULE_UNITS, where);
			if (item->units == NULL)
				item->units = palloc0(sizeof(FhirCodes));
			item->units_rule = "unitValueSet";
			include_value_set(definition, item->units, FHIR_CODING, text, 0);
			break;
		case EXTENSION_UNIT_OPEN:
			if (!span_is(text, "optionsOnly"))
				add_note(definition->form, item->pointer, url, "any unit is taken");
			break;
		case EXTENSION_MIME_TYPE:
			if (text.data == NULL)
				refuse(where, "a MIME type must be a text", NULL);
			place(item, FHIR_RULE_MIME_TYPE, where);
			item->mime_types = item->mime_types == NULL ? palloc(sizeof(Span)) :
				repalloc(item->mime_types, sizeof(Span) * (item->nmime_types + 1));
			item->mime_types[item->nmime_types++] = text;
			break;
		case EXTENSION_MAX_SIZE:
			if (value.type != jbvNumeric)
				refuse(where, "a size must be a number", NULL);
			place(item, FHIR_RULE_MAX_SIZE, where);
			item->max_size = value.val.numeric;
			break;
		case EXTENSION_REFERENCE_RESOURCE:
			if (text.data == NULL)
				refuse(where, "a resource type must be a text", NULL);
			place(item, FHIR_RULE_TARGETS, where);
			item->targets = item->targets == NULL ? palloc(sizeof(Span)) :
				repalloc(item->targets, sizeof(Span) * (item->ntargets + 1));
			item->targets[item->ntargets++] = text;
			break;
		default:
			break;
	}
}

/* minValue, maxValue and their kin */
static void
compile_limit(FhirItem *item, Extension is, FhirKind kind, const JsonbValue *value,
			  const char *where)
{
	FhirValue  *limit = palloc0(sizeof(FhirValue));
	bool		is_minimum = (is == EXTENSION_MIN_VALUE);
	const char *fault = kind_read(kind, value, limit);
	StringInfoData says;
	int			len;

	if (fault != NULL)
		refuse(where, psprintf("the limit %s", fault), NULL);
	/* a number limits a quantity in whatever unit it is given */
	if ((item->kinds & FHIR_BIT(FHIR_QUANTITY)) && kind != FHIR_QUANTITY)
		refuse(where, "a quantity is limited by a quantity", NULL);
	if (item->type != FHIR_QUESTION || values_order(limit, limit) != FHIR_SAME ||
		(!(item->kinds & FHIR_BIT(kind)) &&
		 !((kind == FHIR_INTEGER || kind == FHIR_DECIMAL) &&
		   (item->kinds & (FHIR_BIT(FHIR_INTEGER) | FHIR_BIT(FHIR_DECIMAL)))) &&
		 !((kind == FHIR_DATE || kind == FHIR_DATE_TIME) &&
		   (item->kinds & (FHIR_BIT(FHIR_DATE) | FHIR_BIT(FHIR_DATE_TIME))))))
		refuse(where, "the limit is not of the type of the item", NULL);

	initStringInfo(&says);
	appendStringInfo(&says, "must be %s %s", is_minimum ? ">=" : "<=", value_text(&limit->value, &len));
	if (kind == FHIR_QUANTITY && (limit->code.data || limit->text.data))
		appendStringInfo(&says, " %s", span_text(limit->code.data ? limit->code : limit->text));
	if (is_minimum)
	{
		item->minimum = limit;
		item->minimum_says = says.data;
	}
	else
	{
		item->maximum = limit;
		item->maximum_says = says.data;
	}
}

/* Notes what declares a rule; there may be more of it. */
static void
place(FhirItem *item, FhirRule rule, const char *where)
{
	item->places[rule] = lappend(item->places[rule], unconstify(char *, where));
}

/* A whole number, zero or more. */
static int64
compile_count(const JsonbValue *value, const char *where)
{
	Value		count = {0};

	if (value->type == jbvNumeric)
		value_set_jsonb(&count, value);
	if (count.kind != VALUE_INTEGER || count.number < 0)
		refuse(where, "must be a whole number, zero or more", NULL);
	return count.number;
}

/* answerOption; STU3 wrote "option" */
static void
compile_options(Definition *definition, int at)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *source = definition->sources[at];
	const char *name = "answerOption";
	const JsonbContainer *list = object_array(source, name);
	uint32		kinds = 0;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;

	if (list == NULL)
	{
		name = "option";
		list = object_array(source, name);
	}
	if (list == NULL)
		return;
	item->codes = palloc0(sizeof(FhirCodes));
	item->codes_rule = name;
	place(item, FHIR_RULE_CODES, psprintf("%s/%s", definition->places[at], name));
	walk_begin(&walk, list);
	while (walk_next(&walk, &key, &element))
	{
		const char *where = psprintf("%s/%s/%d", definition->places[at], name, walk.at - 1);
		const JsonbContainer *option = element_object(&element, where);
		const JsonbContainer *about = object_array(option, "extension");
		Span		member;
		JsonbValue	value;
		FhirValue	read;
		FhirKind	kind;
		FhirOption *added;
		const char *fault;

		CHECK_FOR_INTERRUPTS();
		if (!extension_value(option, &member, &value))
			refuse(where, "an option needs a value", NULL);
		kind = kind_of_member(member, "value");
		fault = kind_read(kind, &value, &read);
		if (fault != NULL)
			refuse(where, psprintf("the option %s", fault), NULL);
		if (!item->choice && !(item->kinds & FHIR_BIT(kind)))
			refuse(where, "the option is not of the type of the item", NULL);
		kinds |= FHIR_BIT(kind);
		if (kind == FHIR_CODING)
			added = add_option(item->codes, kind, read.code.data ? read.code : read.text, read.system);
		else if (kind == FHIR_INTEGER)
		{
			Span		digits;

			digits.data = value_text(&read.value, &digits.len);
			added = add_option(item->codes, kind, digits, (Span) {NULL, 0});
		}
		else
			added = add_option(item->codes, kind, read.code, (Span) {NULL, 0});
		if (about == NULL)
			continue;
		{
			JsonbWalk	inner;
			JsonbValue	extension;

			walk_begin(&inner, about);
			while (walk_next(&inner, &key, &extension))
			{
				Span		url = is_object(&extension) ?
					object_text(extension.val.binary.data, "url") : (Span) {NULL, 0};
				bool		known = false;

				if (span_is(url, STRUCTURE "questionnaire-optionExclusive"))
				{
					known = true;
					if (object_get(extension.val.binary.data, "valueBoolean", &value) &&
						value.type == jbvBool)
						added->exclusive = value.val.boolean;
					if (added->exclusive)
						place(item, FHIR_RULE_EXCLUSIVE, psprintf("%s/extension/%d", where, inner.at - 1));
				}
				for (int i = 0; i < (int) lengthof(extensions); i++)
					known |= span_is(url, extensions[i].url) && extensions[i].is == EXTENSION_DISPLAY;
				if (!known)
					add_note(definition->form, item->pointer, url.data ? span_text(url) : "extension",
							 "an extension of an option that is not evaluated");
			}
		}
	}
	if (item->choice)
		item->kinds |= kinds;
	settle_codes(item->codes);
}

/* answerValueSet; STU3 wrote "options" and a Reference */
static void
compile_value_set(Definition *definition, int at)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *source = definition->sources[at];
	const char *where = psprintf("%s/answerValueSet", definition->places[at]);
	Span		canonical = object_text(source, "answerValueSet");
	JsonbValue	value;

	if (object_get(source, "options", &value) && is_object(&value))
	{
		canonical = object_text(value.val.binary.data, "reference");
		where = psprintf("%s/options", definition->places[at]);
	}
	if (canonical.data == NULL)
	{
		if (item->choice && (item->codes == NULL || item->open))
			item->kinds |= FHIR_BIT(FHIR_CODING);
		return;
	}
	if (!item->choice)
		refuse(where, "only a choice has a value set (que-5)", NULL);
	if (item->codes != NULL)
		refuse(where, "a question cannot have both answerOption and answerValueSet (que-4)", NULL);
	item->kinds |= FHIR_BIT(FHIR_CODING);
	item->codes = palloc0(sizeof(FhirCodes));
	item->codes_rule = "answerValueSet";
	place(item, FHIR_RULE_CODES, where);
	include_value_set(definition, item->codes, FHIR_CODING, canonical, 0);
	settle_codes(item->codes);
}

/*
 * Takes in the codes of a value set: by its compose, or else its expansion.
 * What is not at hand, or not listed, leaves the codes partial.
 */
static void
include_value_set(Definition *definition, FhirCodes *codes, FhirKind kind, Span canonical, int depth)
{
	const JsonbContainer *set = depth > MAX_INCLUDES ? NULL :
		find_resource(definition, "ValueSet", canonical);
	JsonbValue	value;
	const JsonbContainer *parts;

	check_stack_depth();
	if (set == NULL)
	{
		codes->partial = true;
		return;
	}
	if (object_get(set, "expansion", &value) && is_object(&value) &&
		object_array(value.val.binary.data, "contains") != NULL)
	{
		include_concepts(codes, kind, (Span) {NULL, 0},
						 object_array(value.val.binary.data, "contains"), "contains");
		return;
	}
	if (!object_get(set, "compose", &value) || !is_object(&value))
	{
		codes->partial = true;
		return;
	}
	{
		const JsonbContainer *compose = value.val.binary.data;
		FhirCodes	own = {0};
		JsonbWalk	walk;
		Span		key;

		parts = object_array(compose, "include");
		if (parts == NULL)
			own.partial = true;
		else
		{
			walk_begin(&walk, parts);
			while (walk_next(&walk, &key, &value))
			{
				CHECK_FOR_INTERRUPTS();
				if (is_object(&value))
					include_part(definition, &own, kind, value.val.binary.data, depth);
			}
		}
		exclude_parts(&own, object_array(compose, "exclude"));
		for (int i = 0; i < own.n; i++)
			add_option(codes, kind, own.list[i].code, own.list[i].system);
		codes->partial |= own.partial;
	}
}

/* One include: listed concepts, a whole code system, or other value sets. */
static void
include_part(Definition *definition, FhirCodes *codes, FhirKind kind,
			 const JsonbContainer *part, int depth)
{
	Span		system = object_text(part, "system");
	const JsonbContainer *concepts = object_array(part, "concept");
	const JsonbContainer *sets = object_array(part, "valueSet");
	const JsonbContainer *whole;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	value;

	if (sets != NULL && system.data == NULL && JsonContainerSize(sets) == 1)
	{
		walk_begin(&walk, sets);
		while (walk_next(&walk, &key, &value))
		{
			if (value.type != jbvString)
				codes->partial = true;
			else
				include_value_set(definition, codes, kind,
								  (Span) {value.val.string.val, value.val.string.len}, depth + 1);
		}
		return;
	}
	/* an intersection, or a query */
	if (sets != NULL || system.data == NULL || object_get(part, "filter", &value))
	{
		codes->partial = true;
		return;
	}
	if (concepts != NULL)
	{
		include_concepts(codes, kind, system, concepts, NULL);
		return;
	}
	whole = find_resource(definition, "CodeSystem", system);
	if (whole == NULL || !span_is(object_text(whole, "content"), "complete") ||
		object_array(whole, "concept") == NULL)
		codes->partial = true;
	else
		include_concepts(codes, kind, system, object_array(whole, "concept"), "concept");
}

/* A list of concepts, with those below them where the list has a member for it. */
static void
include_concepts(FhirCodes *codes, FhirKind kind, Span system,
				 const JsonbContainer *concepts, const char *below)
{
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;
	JsonbValue	abstract;

	check_stack_depth();
	walk_begin(&walk, concepts);
	while (walk_next(&walk, &key, &element))
	{
		const JsonbContainer *concept;
		Span		code;
		Span		own_system;

		CHECK_FOR_INTERRUPTS();
		if (!is_object(&element))
			continue;
		concept = element.val.binary.data;
		code = object_text(concept, "code");
		own_system = object_text(concept, "system");
		/* an abstract entry of an expansion groups others, and is no answer */
		if (code.data != NULL &&
			!(object_get(concept, "abstract", &abstract) && abstract.type == jbvBool &&
			  abstract.val.boolean))
			add_option(codes, kind, code, own_system.data ? own_system : system);
		if (below != NULL && object_array(concept, below) != NULL)
			include_concepts(codes, kind, system, object_array(concept, below), below);
	}
}

/* Takes out what is listed; a query that takes out more leaves the rest unsure. */
static void
exclude_parts(FhirCodes *codes, const JsonbContainer *parts)
{
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;

	if (parts == NULL)
		return;
	walk_begin(&walk, parts);
	while (walk_next(&walk, &key, &element))
	{
		const JsonbContainer *part;
		const JsonbContainer *concepts;
		FhirCodes	out = {0};
		int			kept = 0;

		if (!is_object(&element))
			continue;
		part = element.val.binary.data;
		concepts = object_array(part, "concept");
		if (concepts == NULL)
		{
			/* any of these may be out: none is sure to be in */
			codes->n = 0;
			codes->partial = true;
			return;
		}
		include_concepts(&out, FHIR_CODING, object_text(part, "system"), concepts, NULL);
		settle_codes(&out);
		for (int i = 0; i < codes->n; i++)
		{
			if (!codes_have(&out, &codes->list[i], NULL))
				codes->list[kept++] = codes->list[i];
		}
		codes->n = kept;
	}
}

/* What stands in the questionnaire ("#id"), or with it in the Bundle, by its canonical. */
static const JsonbContainer *
find_resource(Definition *definition, const char *type, Span reference)
{
	const JsonbContainer *contained = object_array(definition->questionnaire, "contained");
	bool		by_id = (reference.len > 0 && reference.data[0] == '#');
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;
	JsonbValue	resource;

	if (contained != NULL)
	{
		walk_begin(&walk, contained);
		while (walk_next(&walk, &key, &element))
		{
			if (is_object(&element) && resource_is(element.val.binary.data, type, reference, by_id))
				return element.val.binary.data;
		}
	}
	if (definition->bundle == NULL || by_id)
		return NULL;
	walk_begin(&walk, definition->bundle);
	while (walk_next(&walk, &key, &element))
	{
		if (is_object(&element) && object_get(element.val.binary.data, "resource", &resource) &&
			is_object(&resource) && resource_is(resource.val.binary.data, type, reference, false))
			return resource.val.binary.data;
	}
	return NULL;
}

static bool
resource_is(const JsonbContainer *resource, const char *type, Span reference, bool by_id)
{
	const char *bar;
	Span		version;

	if (!span_is(object_text(resource, "resourceType"), type))
		return false;
	if (by_id)
	{
		Span		id = {reference.data + 1, reference.len - 1};

		return spans_equal(object_text(resource, "id"), id);
	}
	bar = memchr(reference.data, '|', reference.len);
	if (bar != NULL)
	{
		version.data = bar + 1;
		version.len = (int) (reference.data + reference.len - version.data);
		reference.len = (int) (bar - reference.data);
		if (!spans_equal(object_text(resource, "version"), version))
			return false;
	}
	return spans_equal(object_text(resource, "url"), reference);
}

/* enableWhen and enableBehavior */
static void
compile_conditions(Definition *definition, int at)
{
	FhirItem   *item = &definition->made->items[at];
	const JsonbContainer *source = definition->sources[at];
	const JsonbContainer *list = object_array(source, "enableWhen");
	Span		behaviour = object_text(source, "enableBehavior");
	bool		stu3 = false;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;

	if (list == NULL)
		return;
	item->conditions = palloc0(sizeof(FhirCondition) * Max(1, JsonContainerSize(list)));
	place(item, FHIR_RULE_ENABLE_WHEN, psprintf("%s/enableWhen", definition->places[at]));
	walk_begin(&walk, list);
	while (walk_next(&walk, &key, &element))
	{
		const char *where = psprintf("%s/enableWhen/%d", definition->places[at], walk.at - 1);
		const JsonbContainer *condition = element_object(&element, where);

		if (object_text(condition, "operator").data == NULL)
			stu3 = true;
		compile_condition(definition, at, condition, &item->conditions[item->nconditions++], where);
	}
	if (span_is(behaviour, "any"))
		item->any = true;
	else if (behaviour.data == NULL)
	{
		/* STU3 had no other */
		item->any = stu3;
		if (!stu3 && item->nconditions > 1)
			refuse(psprintf("%s/enableBehavior", definition->places[at]),
				   "more than one condition needs to say whether all or any must hold (que-12)", NULL);
	}
	else if (!span_is(behaviour, "all"))
		refuse(psprintf("%s/enableBehavior", definition->places[at]), "must be all or any", NULL);
}

static void
compile_condition(Definition *definition, int at, const JsonbContainer *source,
				  FhirCondition *condition, const char *where)
{
	Questionnaire *made = definition->made;
	Span		question = object_text(source, "question");
	Span		operator = object_text(source, "operator");
	JsonbWalk	walk;
	Span		key;
	JsonbValue	value;
	JsonbValue	answer;
	FhirKind	kind = FHIR_NONE;
	const char *fault;
	int			i = 0;

	condition->question = question.data ? questionnaire_find(made, question) : -1;
	if (condition->question < 0)
		refuse(psprintf("%s/question", where), "the item asks about a question that is not there", NULL);
	if (condition->question == at)
		refuse(psprintf("%s/question", where), "the item asks about itself", NULL);

	answer.type = jbvNull;
	walk_begin(&walk, source);
	while (walk_next(&walk, &key, &value))
	{
		if (kind_of_member(key, "answer") != FHIR_NONE)
		{
			kind = kind_of_member(key, "answer");
			answer = value;
		}
	}
	if (operator.data == NULL)
	{
		/* STU3: hasAnswer, or an answer that is equal */
		condition->operator = FHIR_EQUAL;
		if (object_get(source, "hasAnswer", &answer))
		{
			condition->operator = FHIR_EXISTS;
			kind = FHIR_BOOLEAN;
		}
	}
	else
	{
		while (i < (int) lengthof(operators) && !span_is(operator, operators[i].name))
			i++;
		if (i == (int) lengthof(operators))
			refuse(psprintf("%s/operator", where), "unknown operator",
				   "The operators are exists, =, !=, >, <, >= and <=.");
		condition->operator = operators[i].operator;
	}
	fault = kind_read(kind, &answer, &condition->answer);
	if (fault != NULL)
		refuse(where, psprintf("the answer that is asked for %s", fault), NULL);
	if (condition->operator == FHIR_EXISTS)
	{
		if (kind != FHIR_BOOLEAN)
			refuse(where, "the operator exists takes true or false (que-7)", NULL);
		condition->exists = condition->answer.value.number != 0;
		return;
	}
	if (condition->operator != FHIR_EQUAL && condition->operator != FHIR_NOT_EQUAL &&
		values_order(&condition->answer, &condition->answer) != FHIR_SAME)
		refuse(where, "answers of this type have no order", NULL);
}

/* The question as the other stages and the sinks see it. */
static void
make_node(Definition *definition, int at, ItemType column)
{
	Questionnaire *made = definition->made;
	FhirItem   *item = &made->items[at];
	FormNode   *node = palloc0(sizeof(FormNode));
	bool		conditional = false;

	if (item->kinds == FHIR_BIT(FHIR_QUANTITY) && item->units != NULL &&
		item->units->n == 1 && !item->units->partial)
	{
		item->number_only = true;
		column = ITEM_NUMBER;
	}
	if (item->choice && item->codes != NULL)
	{
		/* a code that two systems have is none without its system */
		if (item->kinds == FHIR_BIT(FHIR_INTEGER))
			column = ITEM_INTEGER;
		else if (codes_clash(item->codes) || (item->kinds & FHIR_BIT(FHIR_REFERENCE)))
		{
			item->whole = true;
			column = ITEM_JSON;
		}
	}
	else if (!item->choice && (item->kinds & (item->kinds - 1)) != 0)
		column = ITEM_JSON;

	item->type_says = kinds_text(item->kinds);

	for (int i = at; i >= 0; i = made->items[i].parent)
		conditional |= made->items[i].nconditions > 0 || made->items[i].expression;
	node->key = item->link_id;
	node->keylen = item->len;
	node->name = usable_name(item->link_id);
	node->pointer = item->pointer;
	node->type = item->many ? ITEM_JSON : column;
	node->fits_int4 = true;
	if (item->required && !conditional)
	{
		node->has |= 1 << KEYWORD_REQUIRED;
		node->message[KEYWORD_REQUIRED] = "must be answered";
	}
	item->node = node;
	node->slot = definition->form->nnodes;
	definition->form->nodes[definition->form->nnodes++] = node;
}

/* "must be answered with valueDate or valueString" */
static const char *
kinds_text(uint32 kinds)
{
	StringInfoData says;
	bool		first = true;

	initStringInfo(&says);
	appendStringInfoString(&says, "must be answered with ");
	for (int kind = FHIR_NONE + 1; kind < FHIR_KIND_COUNT; kind++)
	{
		if (!(kinds & FHIR_BIT(kind)))
			continue;
		appendStringInfo(&says, "%svalue%s", first ? "" : " or ", fhir_kind_name[kind]);
		first = false;
	}
	return says.data;
}

/* An item's name is how rules and sinks call it: there must be one of it. */
static void
name_nodes(Definition *definition)
{
	CompiledForm *form = definition->form;
	FormNode  **sorted = palloc(sizeof(FormNode *) * form->nnodes);

	memcpy(sorted, form->nodes, sizeof(FormNode *) * form->nnodes);
	qsort(sorted, form->nnodes, sizeof(FormNode *), compare_names);
	for (int i = 1; i < form->nnodes; i++)
	{
		if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
			refuse(sorted[i]->pointer,
				   psprintf("two linkIds make the same item name, \"%s\"", sorted[i]->name),
				   "In a name, whatever is no letter, digit or underscore is an underscore.");
	}
	pfree(sorted);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(FormNode *const *) a)->name, (*(FormNode *const *) b)->name);
}

/* By length, then by bytes, as the tree's reader searches them. */
static int
compare_links(const void *a, const void *b)
{
	const FhirLink *right = b;

	return link_order(a, (Span) {right->link_id, right->len});
}

/* A linkId with an underscore for each byte that a name should not have. */
static const char *
usable_name(const char *link_id)
{
	char	   *name = pstrdup(link_id);

	for (char *p = name; *p; p++)
	{
		unsigned char c = (unsigned char) *p;

		/* letters of other scripts stay */
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  c >= 0x80))
			*p = '_';
	}
	return name;
}

/* "/" and the linkId, as a JSON Pointer writes it (RFC 6901, section 3) */
static const char *
escaped(const char *link_id)
{
	StringInfoData pointer;

	initStringInfo(&pointer);
	appendStringInfoChar(&pointer, '/');
	for (const char *p = link_id; *p; p++)
	{
		if (*p == '~')
			appendStringInfoString(&pointer, "~0");
		else if (*p == '/')
			appendStringInfoString(&pointer, "~1");
		else
			appendStringInfoChar(&pointer, *p);
	}
	return pointer.data;
}

static FhirOption *
add_option(FhirCodes *codes, FhirKind kind, Span code, Span system)
{
	FhirOption *option;

	if (codes->n >= codes->room)
	{
		codes->room = Max(16, codes->room * 2);
		codes->list = codes->list == NULL ? palloc(sizeof(FhirOption) * codes->room) :
			repalloc(codes->list, sizeof(FhirOption) * codes->room);
	}
	option = &codes->list[codes->n++];
	option->kind = kind;
	option->code = code;
	option->system = system;
	option->exclusive = false;
	return option;
}

static void
settle_codes(FhirCodes *codes)
{
	if (codes->n > 0)
		qsort(codes->list, codes->n, sizeof(FhirOption), options_compare);
}

/* Is a code in the list twice, of two systems? */
static bool
codes_clash(const FhirCodes *codes)
{
	for (int i = 1; i < codes->n; i++)
	{
		if (codes->list[i].kind == codes->list[i - 1].kind &&
			spans_equal(codes->list[i].code, codes->list[i - 1].code) &&
			!spans_equal(codes->list[i].system, codes->list[i - 1].system))
			return true;
	}
	return false;
}

/* The value[x] of an extension or an option. */
static bool
extension_value(const JsonbContainer *extension, Span *member, JsonbValue *value)
{
	JsonbWalk	walk;

	walk_begin(&walk, extension);
	while (walk_next(&walk, member, value))
	{
		if (member->len > 5 && memcmp(member->data, "value", 5) == 0)
			return true;
	}
	return false;
}

static bool
get_flag(const JsonbContainer *object, const char *key, const char *where)
{
	JsonbValue	value;

	if (!object_get(object, key, &value))
		return false;
	if (value.type != jbvBool)
		refuse(psprintf("%s/%s", where, key), "must be true or false", NULL);
	return value.val.boolean;
}

static const JsonbContainer *
element_object(const JsonbValue *element, const char *where)
{
	if (!is_object(element))
		refuse(where, "must be an object", NULL);
	return element->val.binary.data;
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static char *
span_text(Span span)
{
	return pnstrdup(span.data, span.len);
}

/* Something of the definition that no rule was made of. */
static void
add_note(CompiledForm *form, const char *location, const char *construct, const char *reason)
{
	form->notes = form->notes == NULL ? palloc(sizeof(FormNote)) :
		repalloc(form->notes, sizeof(FormNote) * (form->nnotes + 1));
	form->notes[form->nnotes].location = location;
	form->notes[form->nnotes].construct = construct;
	form->notes[form->nnotes++].reason = reason;
}

static void
refuse(const char *where, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_FORM_REFUSED),
			 errmsg("form definition refused at \"%s\": %s", where, what),
			 hint ? errhint("%s", hint) : 0));
}
