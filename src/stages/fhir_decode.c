/*
 * fhir_decode.c
 *		A QuestionnaireResponse (FHIR R4) becomes answers by item.
 *
 * The payload is a whole QuestionnaireResponse, whose items are found by their
 * linkIds, or (without a resourceType) an object {linkId: answer}.  Either
 * becomes a tree of scopes, items and answers; what does not stand as the
 * questionnaire has it is a finding.  The tree is judged at once, by
 * fhir_judge.c: a rule may ask about any item, and needs systems, units and
 * nesting that the answers in their slots do not have any more.  So a stream may
 * be cut behind this stage anywhere, and nothing identified has to travel.
 *
 * Everything is allocated in the current memory context, and points into the
 * payload.  Texts of findings are the compiled form's, or constants.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "stages/fhir.h"

/* instances of items in one response: some rules look at many of them for each */
#define MAX_INSTANCES 20000

/* What an item with one answer needs, in one piece of memory for all of them. */
typedef struct PlainAnswer
{
	JsonbValue	json;			/* as it was found; null: it was not */
	FhirInstance instance;
	FhirAnswer	answer;
} PlainAnswer;

static bool read_head(FhirTree *tree, const JsonbContainer *payload,
					  const JsonbContainer **items);
static void read_status(FhirTree *tree, const JsonbValue *value);
static void read_canonical(FhirTree *tree, const JsonbValue *value);
static void read_authored(FhirTree *tree, const JsonbValue *value);
static void read_items(FhirTree *tree, FhirScope *scope, const JsonbContainer *items);
static void read_item(FhirTree *tree, FhirScope *scope, const JsonbContainer *source, int *last);
static int	find_child(const Questionnaire *questionnaire, const FhirScope *scope,
					   Span link_id, int hint);
static void read_answers(FhirTree *tree, FhirInstance *instance, const JsonbContainer *list);
static void read_answer(FhirTree *tree, FhirInstance *instance, FhirAnswer *answer,
						const JsonbValue *element);
static void read_plain(FhirTree *tree, const JsonbContainer *payload);
static void read_lone_item(FhirTree *tree, const FhirItem *item, const JsonbValue *json);
static PlainAnswer *make_plain(const Questionnaire *questionnaire);
static void read_rest(FhirTree *tree, PlainAnswer *found, const bool *done);
static void read_plain_item(FhirTree *tree, FhirScope **scopes, int at, PlainAnswer *found);
static const char *plain_value(const FhirItem *item, const JsonbValue *json, FhirValue *value);
static const char *plain_text(const FhirItem *item, const JsonbValue *json, FhirValue *value);
static FhirInstance *add_instance(FhirTree *tree, FhirScope *scope, int at);
static FhirInstance *place_instance(FhirTree *tree, FhirScope *scope, int at, FhirInstance *instance);
static FhirScope *make_scope(FhirTree *tree, int item, FhirInstance *owner);
static void fill_slots(FhirTree *tree);
static void fill_many(FhirTree *tree, int at);
static void push_scope(FhirTree *tree, JsonbParseState **state, const FhirScope *scope,
					   int at, int *answered);
static int	step_towards(const Questionnaire *questionnaire, int at, int depth);
static void slot_value(const FhirItem *item, const FhirValue *from, Value *value);
static void push_value(JsonbParseState **state, const FhirItem *item, const FhirValue *from);
static const char *scope_pointer(const FhirTree *tree, const FhirScope *scope);
static bool is_array(const JsonbValue *value);
static bool is_known(Span key, const char *const *names, int n);
static void report(FhirTree *tree, const char *location, const char *rule, const char *message);

/* Elements that say nothing about an answer. */
static const char *const head_elements[] = {
	"resourceType", "id", "meta", "language", "text", "contained", "extension",
	"identifier", "basedOn", "partOf", "parent", "subject", "encounter", "context", "author", "source",
};
static const char *const item_elements[] = {
	"id", "extension", "definition", "text", "subject",
};
static const char *const answer_elements[] = {
	"id", "extension",
};

/*
 * Fills response->values and judges the questionnaire's rules.  Returns false,
 * with a finding, when there is nothing to judge.
 */
bool
questionnaire_read(const CompiledForm *form, const JsonbContainer *payload, Response *response)
{
	FhirTree	tree = {0};
	const JsonbContainer *items = NULL;
	JsonbValue	type;

	tree.form = form;
	tree.questionnaire = form->questionnaire;
	tree.response = response;
	tree.complete = true;
	tree.top = *make_scope(&tree, -1, NULL);
	if (!object_get(payload, "resourceType", &type))
		read_plain(&tree, payload);
	else if (type.type != jbvString || !jsonb_text_is(&type, "QuestionnaireResponse"))
	{
		finding_add(response->findings, FINDING_PAYLOAD, SEVERITY_ERROR, "", "resourceType",
					"the payload is another resource than a QuestionnaireResponse");
		return false;
	}
	else
	{
		if (!read_head(&tree, payload, &items))
			return false;
		if (items != NULL)
			read_items(&tree, &tree.top, items);
	}
	if (tree.ninstances > MAX_INSTANCES)
	{
		finding_add(response->findings, FINDING_PAYLOAD, SEVERITY_ERROR, "", "item",
					"the response has more than 20000 items");
		return false;
	}
	tree_judge(&tree);
	fill_slots(&tree);
	return true;
}

/* What stands beside the items. */
static bool
read_head(FhirTree *tree, const JsonbContainer *payload, const JsonbContainer **items)
{
	JsonbWalk	walk;
	Span		key;
	JsonbValue	value;
	bool		status = false;

	walk_begin(&walk, payload);
	while (walk_next(&walk, &key, &value))
	{
		if (span_is(key, "item"))
		{
			if (is_array(&value))
				*items = value.val.binary.data;
			else
				report(tree, "", "item", "must be an array of items");
		}
		else if (span_is(key, "status"))
		{
			read_status(tree, &value);
			status = true;
		}
		else if (span_is(key, "questionnaire"))
			read_canonical(tree, &value);
		else if (span_is(key, "authored"))
			read_authored(tree, &value);
		else if (span_is(key, "modifierExtension") || span_is(key, "implicitRules"))
		{
			/* what it says may be that nothing of this holds */
			report(tree, "", "modifierExtension", "an extension that may change the meaning of the response is not known");
			return false;
		}
		else if (!is_known(key, head_elements, lengthof(head_elements)))
			head_fails(tree, FHIR_HEAD_ELEMENT, "", SEVERITY_ERROR, "an element that a QuestionnaireResponse does not have");
	}
	if (!status)
		head_fails(tree, FHIR_HEAD_STATUS, "", SEVERITY_ERROR, "must be given");
	return true;
}

/* Only completed and amended responses claim that nothing is missing. */
static void
read_status(FhirTree *tree, const JsonbValue *value)
{
	if (value->type == jbvString &&
		(jsonb_text_is(value, "completed") || jsonb_text_is(value, "amended")))
		return;
	tree->complete = false;
	if (value->type == jbvString && jsonb_text_is(value, "entered-in-error"))
		head_fails(tree, FHIR_HEAD_STATUS, "", SEVERITY_ERROR, "the response was entered in error, and is void");
	else if (value->type != jbvString ||
			 !(jsonb_text_is(value, "in-progress") || jsonb_text_is(value, "stopped")))
		head_fails(tree, FHIR_HEAD_STATUS, "", SEVERITY_ERROR, "must be a code of questionnaire-answers-status");
}

/* Which questionnaire was answered: compared as far as both sides say it. */
static void
read_canonical(FhirTree *tree, const JsonbValue *value)
{
	const Questionnaire *ours = tree->questionnaire;
	Span		url = {NULL, 0};
	Span		version = {NULL, 0};
	bool		reference = false;
	const char *bar;

	if (value->type == jbvString)
	{
		url.data = value->val.string.val;
		url.len = value->val.string.len;
	}
	else if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
	{
		/* STU3: a Reference, which may be relative to a server we do not know */
		url = object_text(value->val.binary.data, "reference");
		reference = true;
	}
	if (url.data == NULL)
	{
		head_fails(tree, FHIR_HEAD_QUESTIONNAIRE, "", SEVERITY_ERROR, "must be a canonical");
		return;
	}
	if (ours->url.data == NULL)
		return;
	bar = memchr(url.data, '|', url.len);
	if (bar != NULL)
	{
		version.data = bar + 1;
		version.len = (int) (url.data + url.len - version.data);
		url.len = (int) (bar - url.data);
	}
	if (!spans_equal(url, ours->url))
	{
		if (reference || url.data[0] == '#')
			head_unknown(tree, FHIR_HEAD_QUESTIONNAIRE, "which questionnaire is meant cannot be told from the reference");
		else
			head_fails(tree, FHIR_HEAD_QUESTIONNAIRE, "", SEVERITY_ERROR, "the response is of another questionnaire");
	}
	else if (version.len > 0 && ours->version.data != NULL && !spans_equal(version, ours->version))
		head_fails(tree, FHIR_HEAD_QUESTIONNAIRE, "", SEVERITY_ERROR,
				   "the response is of another version of the questionnaire");
}

/* Was the questionnaire in use when it was answered?  A day too late is no false answer. */
static void
read_authored(FhirTree *tree, const JsonbValue *value)
{
	const Questionnaire *ours = tree->questionnaire;
	FhirValue	authored;

	if (kind_read(FHIR_DATE_TIME, value, &authored) != NULL)
		head_fails(tree, FHIR_HEAD_AUTHORED, "", SEVERITY_ERROR, "must be a dateTime");
	else if ((ours->from != NULL && values_order(&authored, ours->from) == FHIR_BEFORE) ||
			 (ours->until != NULL && values_order(&authored, ours->until) == FHIR_AFTER))
		head_fails(tree, FHIR_HEAD_PERIOD, "", SEVERITY_WARNING,
				   "the response was authored when the questionnaire was not in use");
}

/* The items of one scope. */
static void
read_items(FhirTree *tree, FhirScope *scope, const JsonbContainer *items)
{
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;
	int			last = 0;

	check_stack_depth();
	walk_begin(&walk, items);
	while (walk_next(&walk, &key, &element) && tree->ninstances <= MAX_INSTANCES)
	{
		CHECK_FOR_INTERRUPTS();
		if (element.type == jbvBinary && JsonContainerIsObject(element.val.binary.data))
			read_item(tree, scope, element.val.binary.data, &last);
		else
			report(tree, scope_pointer(tree, scope), "item", "an item must be an object");
	}
}

static void
read_item(FhirTree *tree, FhirScope *scope, const JsonbContainer *source, int *last)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	const char *here = scope_pointer(tree, scope);
	const JsonbContainer *answers = NULL;
	const JsonbContainer *items = NULL;
	const FhirItem *item;
	FhirInstance *instance;
	JsonbWalk	walk;
	Span		key;
	Span		link_id = {NULL, 0};
	JsonbValue	value;
	int			at;

	walk_begin(&walk, source);
	while (walk_next(&walk, &key, &value))
	{
		if (span_is(key, "linkId"))
		{
			if (value.type == jbvString)
			{
				link_id.data = value.val.string.val;
				link_id.len = value.val.string.len;
			}
		}
		else if (span_is(key, "answer") && is_array(&value))
			answers = value.val.binary.data;
		else if (span_is(key, "item") && is_array(&value))
			items = value.val.binary.data;
		else if (span_is(key, "answer") || span_is(key, "item"))
			report(tree, here, "element", "the answers or items of an item must be an array");
		else if (span_is(key, "modifierExtension"))
			report(tree, here, "modifierExtension", "an extension that may change the meaning of an item is not known");
		else if (!is_known(key, item_elements, lengthof(item_elements)))
			head_fails(tree, FHIR_HEAD_ELEMENT, here, SEVERITY_ERROR, "an element that an item does not have");
	}
	if (link_id.data == NULL)
	{
		report(tree, here, "linkId", "an item must have a linkId");
		return;
	}
	at = find_child(questionnaire, scope, link_id, *last);
	if (at < 0)
	{
		report(tree, here, "linkId", "an item with a linkId that the questionnaire does not have");
		return;
	}
	item = &questionnaire->items[at];
	if (item->parent != scope->item)
	{
		report(tree, item->pointer, "linkId", "the item stands in another place than in the questionnaire");
		return;
	}
	if (item->child_no < *last)
		(void) item_fails(tree, item, FHIR_RULE_ORDER, SEVERITY_ERROR, "the item comes after one that it comes before in the questionnaire");
	*last = item->child_no;

	instance = add_instance(tree, scope, at);
	if (instance->within->first[item->child_no] != instance && !item->repeats)
		report(tree, item->pointer, "repeats", "must be there once");
	if (item->type == FHIR_QUESTION)
	{
		if (items != NULL && JsonContainerSize(items) > 0)
			report(tree, item->pointer, "item", "the items below a question must stand in its answer");
		if (answers != NULL)
			read_answers(tree, instance, answers);
	}
	else if (answers != NULL && JsonContainerSize(answers) > 0)
		report(tree, item->pointer, "answer", item->type == FHIR_GROUP ?
			   "a group has no answer" : "a display item has no answer");
	if (item->type == FHIR_GROUP && items != NULL && JsonContainerSize(items) > 0)
	{
		instance->filled = true;
		read_items(tree, instance->scope, items);
	}
	if (item->type == FHIR_DISPLAY && items != NULL && JsonContainerSize(items) > 0)
		report(tree, item->pointer, "item", "a display item has no items");
}

/* By linkId: mostly it is the next one, or the same again. */
static int
find_child(const Questionnaire *questionnaire, const FhirScope *scope, Span link_id, int hint)
{
	int			n = scope->item < 0 ? questionnaire->ntop : questionnaire->items[scope->item].nchildren;
	const int  *children = scope->item < 0 ? questionnaire->top : questionnaire->items[scope->item].children;

	for (int i = hint; i < Min(n, hint + 2); i++)
	{
		const FhirItem *item = &questionnaire->items[children[i]];

		if (item->len == link_id.len && memcmp(item->link_id, link_id.data, link_id.len) == 0)
			return children[i];
	}
	return questionnaire_find(questionnaire, link_id);
}

static void
read_answers(FhirTree *tree, FhirInstance *instance, const JsonbContainer *list)
{
	const FhirItem *item = &tree->questionnaire->items[instance->item];
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element;

	instance->answers = palloc0(sizeof(FhirAnswer) * Max(1, JsonContainerSize(list)));
	walk_begin(&walk, list);
	while (walk_next(&walk, &key, &element))
	{
		CHECK_FOR_INTERRUPTS();
		read_answer(tree, instance, &instance->answers[instance->nanswers++], &element);
	}
	instance->filled = instance->nanswers > 0;
	if (instance->nanswers > 1 && !item->repeats)
		report(tree, item->pointer, "repeats", "must have one answer");
}

static void
read_answer(FhirTree *tree, FhirInstance *instance, FhirAnswer *answer, const JsonbValue *element)
{
	const FhirItem *item = &tree->questionnaire->items[instance->item];
	const JsonbContainer *items = NULL;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	value;
	int			nvalues = 0;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
	{
		report(tree, item->pointer, "answer", "an answer must be an object");
		return;
	}
	walk_begin(&walk, element->val.binary.data);
	while (walk_next(&walk, &key, &value))
	{
		FhirKind	kind = kind_of_member(key, "value");

		if (key.len >= 5 && memcmp(key.data, "value", 5) == 0)
		{
			nvalues++;
			if (kind == FHIR_NONE || !(item->kinds & FHIR_BIT(kind)))
				report(tree, item->pointer, "type", item->type_says);
			else
			{
				const char *fault = kind_read(kind, &value, &answer->value);

				if (fault != NULL)
				{
					answer->value.kind = FHIR_NONE;
					report(tree, item->pointer, "type", fault);
				}
			}
		}
		else if (span_is(key, "item") && is_array(&value))
			items = value.val.binary.data;
		else if (span_is(key, "item"))
			report(tree, item->pointer, "element", "the items of an answer must be an array");
		else if (span_is(key, "modifierExtension"))
			report(tree, item->pointer, "modifierExtension",
				   "an extension that may change the meaning of an answer is not known");
		else if (!is_known(key, answer_elements, lengthof(answer_elements)))
			head_fails(tree, FHIR_HEAD_ELEMENT, item->pointer, SEVERITY_ERROR,
					   "an element that an answer does not have");
	}
	if (nvalues == 0)
		report(tree, item->pointer, "value", "an answer must have a value");
	else if (nvalues > 1)
		report(tree, item->pointer, "value", "an answer must have one value");
	if (item->nchildren > 0)
		answer->scope = make_scope(tree, instance->item, instance);
	if (items == NULL || JsonContainerSize(items) == 0)
		return;
	if (answer->scope == NULL)
		report(tree, item->pointer, "item", "an item below a question that has none");
	else
		read_items(tree, answer->scope, items);
}

/*
 * An object {linkId: answer}, groups left out; what is not asked for is passed
 * over.  Both sides are sorted alike, so one pass finds the answers.  Those of
 * lone items are done with there; the others are read afterwards, in the
 * questionnaire's order: parents come first in it, so a scope is there when it
 * is needed.
 */
static void
read_plain(FhirTree *tree, const JsonbContainer *payload)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	const FhirLink *link = questionnaire->links;
	const FhirLink *end = link + questionnaire->nitems;
	PlainAnswer *found = NULL;
	bool	   *done = palloc0(sizeof(bool) * questionnaire->nitems);
	JsonbWalk	walk;
	Span		key;
	JsonbValue	value;

	tree->plain = true;
	tree->response->findings->undeclared = JsonContainerSize(payload);
	walk_begin(&walk, payload);
	while (link < end && walk_next(&walk, &key, &value))
	{
		const FhirItem *item;
		int			order = -1;

		CHECK_FOR_INTERRUPTS();
		while (link < end && (order = link_order(link, key)) < 0)
			link++;
		if (order != 0 || questionnaire->items[link->at].type != FHIR_QUESTION)
			continue;
		tree->response->findings->undeclared--;
		if (value.type == jbvNull)
			continue;
		item = &questionnaire->items[link->at];
		if (item->lone && !is_array(&value))
		{
			read_lone_item(tree, item, &value);
			done[link->at] = true;
		}
		else
		{
			if (found == NULL)
				found = make_plain(questionnaire);
			found[link->at].json = value;
		}
	}
	read_rest(tree, found, done);
}

/* An item that has to do with no other is judged at once, and goes into its slot. */
static void
read_lone_item(FhirTree *tree, const FhirItem *item, const JsonbValue *json)
{
	FhirValue	answer;
	const char *fault = plain_value(item, json, &answer);

	if (fault != NULL)
	{
		answer.kind = FHIR_NONE;
		report(tree, item->pointer, "type", fault);
	}
	slot_value(item, &answer, &tree->response->values[item->node->slot]);
	lone_judge(tree, item, &answer);
}

/* Room for an answer of each item, null. */
static PlainAnswer *
make_plain(const Questionnaire *questionnaire)
{
	PlainAnswer *found = palloc(sizeof(PlainAnswer) * questionnaire->nitems);

	for (int i = 0; i < questionnaire->nitems; i++)
		found[i].json.type = jbvNull;
	return found;
}

/* The items that are not done with: those that were found, and lone ones that were not. */
static void
read_rest(FhirTree *tree, PlainAnswer *found, const bool *done)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	FhirScope **scopes = palloc0(sizeof(FhirScope *) * questionnaire->nitems);

	for (int i = 0; i < questionnaire->nitems; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (found != NULL && found[i].json.type != jbvNull)
			read_plain_item(tree, scopes, i, &found[i]);
		else if (questionnaire->items[i].lone && !done[i])
			lone_judge(tree, &questionnaire->items[i], NULL);
	}
}

static void
read_plain_item(FhirTree *tree, FhirScope **scopes, int at, PlainAnswer *found)
{
	const JsonbValue *value = &found->json;
	const Questionnaire *questionnaire = tree->questionnaire;
	const FhirItem *item = &questionnaire->items[at];
	FhirScope  *scope = &tree->top;
	FhirInstance *instance;
	JsonbWalk	walk;
	Span		key;
	JsonbValue	element = *value;
	bool		several = is_array(value);

	/* the groups that it stands in, from the outside */
	for (int depth = 0; depth < item->depth; depth++)
	{
		int			above = step_towards(questionnaire, at, depth);

		if (scopes[above] == NULL && questionnaire->items[above].type == FHIR_GROUP)
		{
			instance = add_instance(tree, scope, above);
			instance->filled = true;
			scopes[above] = instance->scope;
		}
		if (scopes[above] == NULL)
		{
			report(tree, item->pointer, "item", "the question that it stands below has no answer");
			return;
		}
		scope = scopes[above];
	}
	instance = place_instance(tree, scope, at, &found->instance);
	instance->answers = several ?
		palloc(sizeof(FhirAnswer) * Max(1, JsonContainerSize(value->val.binary.data))) : &found->answer;
	if (several)
		walk_begin(&walk, value->val.binary.data);
	while (!several || walk_next(&walk, &key, &element))
	{
		FhirAnswer *answer = &instance->answers[instance->nanswers++];
		const char *fault;

		CHECK_FOR_INTERRUPTS();
		answer->scope = NULL;
		fault = plain_value(item, &element, &answer->value);
		if (fault != NULL)
		{
			answer->value.kind = FHIR_NONE;
			report(tree, item->pointer, "type", fault);
		}
		if (item->nchildren > 0)
		{
			answer->scope = make_scope(tree, at, instance);
			if (scopes[at] == NULL)
				scopes[at] = answer->scope;
		}
		if (!several)
			break;
	}
	instance->filled = instance->nanswers > 0;
	if (several && !item->repeats)
		report(tree, item->pointer, "repeats", "must have one answer");
}

/* A JSON value as the type that the item has. */
static const char *
plain_value(const FhirItem *item, const JsonbValue *json, FhirValue *value)
{
	static const FhirKind objects[] = {FHIR_CODING, FHIR_QUANTITY, FHIR_REFERENCE, FHIR_ATTACHMENT};

	switch (json->type)
	{
		case jbvBool:
			if (item->kinds & FHIR_BIT(FHIR_BOOLEAN))
				return kind_read(FHIR_BOOLEAN, json, value);
			break;
		case jbvNumeric:
			if (item->kinds & FHIR_BIT(FHIR_INTEGER))
				return kind_read(FHIR_INTEGER, json, value);
			if (item->kinds & FHIR_BIT(FHIR_DECIMAL))
				return kind_read(FHIR_DECIMAL, json, value);
			if (item->number_only)
			{
				/* in the one unit that it can have */
				const char *fault = kind_read(FHIR_DECIMAL, json, value);

				value->kind = FHIR_QUANTITY;
				value->code = value->text = item->units->list[0].code;
				value->system = item->units->list[0].system;
				return fault;
			}
			break;
		case jbvString:
			return plain_text(item, json, value);
		case jbvBinary:
			for (int i = 0; i < (int) lengthof(objects); i++)
			{
				if (JsonContainerIsObject(json->val.binary.data) &&
					(item->kinds & FHIR_BIT(objects[i])))
					return kind_read(objects[i], json, value);
			}
			break;
		default:
			break;
	}
	return item->type_says;
}

/* A code, if the item has codes and this is one; else words, a date and so on. */
static const char *
plain_text(const FhirItem *item, const JsonbValue *json, FhirValue *value)
{
	Span		text = {json->val.string.val, json->val.string.len};
	const FhirOption *listed = NULL;

	if (item->kinds & FHIR_BIT(FHIR_CODING))
	{
		if (item->codes != NULL)
			listed = codes_find(item->codes, FHIR_CODING, text);
		if (listed != NULL || (item->kinds & (item->kinds - 1)) == 0)
		{
			memset(value, 0, sizeof(*value));
			if (text.len == 0)
				return "must not be empty";
			value->kind = FHIR_CODING;
			value->code = text;
			if (listed != NULL)
				value->system = listed->system;
			value_set_jsonb(&value->value, json);
			return NULL;
		}
	}
	for (int kind = FHIR_DATE; kind <= FHIR_URI; kind++)
	{
		if (item->kinds & FHIR_BIT(kind))
			return kind_read((FhirKind) kind, json, value);
	}
	return item->type_says;
}

/* One more item in a scope. */
static FhirInstance *
add_instance(FhirTree *tree, FhirScope *scope, int at)
{
	return place_instance(tree, scope, at, palloc(sizeof(FhirInstance)));
}

/* The same, where its memory is there already. */
static FhirInstance *
place_instance(FhirTree *tree, FhirScope *scope, int at, FhirInstance *instance)
{
	const FhirItem *item = &tree->questionnaire->items[at];

	*instance = (FhirInstance) {.item = at,.order = tree->ninstances++,.within = scope};
	if (scope->last[item->child_no] != NULL)
		scope->last[item->child_no]->next = instance;
	else
		scope->first[item->child_no] = instance;
	scope->last[item->child_no] = instance;
	if (item->type == FHIR_GROUP)
		instance->scope = make_scope(tree, at, instance);
	return instance;
}

static FhirScope *
make_scope(FhirTree *tree, int item, FhirInstance *owner)
{
	int			n = item < 0 ? tree->questionnaire->ntop : tree->questionnaire->items[item].nchildren;
	FhirScope  *scope = palloc(sizeof(FhirScope));

	scope->item = item;
	scope->owner = owner;
	scope->first = palloc0(sizeof(FhirInstance *) * 2 * Max(1, n));
	scope->last = scope->first + n;
	return scope;
}

/* The answers, each in the slot of its item. */
static void
fill_slots(FhirTree *tree)
{
	const Questionnaire *questionnaire = tree->questionnaire;

	for (int i = 0; i < questionnaire->nitems; i++)
	{
		const FhirItem *item = &questionnaire->items[i];
		const FhirScope *scope = &tree->top;
		const FhirInstance *instance;

		if (item->type != FHIR_QUESTION)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (item->many)
		{
			fill_many(tree, i);
			continue;
		}
		/* nothing on the way to it repeats */
		for (int depth = 0; scope != NULL && depth < item->depth; depth++)
		{
			int			above = step_towards(questionnaire, i, depth);

			instance = scope->first[questionnaire->items[above].child_no];
			scope = instance == NULL ? NULL :
				instance->scope != NULL ? instance->scope :
				instance->nanswers > 0 ? instance->answers[0].scope : NULL;
		}
		instance = scope == NULL ? NULL : scope->first[item->child_no];
		if (instance != NULL && instance->nanswers > 0)
			slot_value(item, &instance->answers[0].value, &tree->response->values[item->node->slot]);
	}
}

/*
 * An array of its answers; if what it stands in repeats, an element each time
 * that is there, so that the arrays of a group's items have their places in
 * common.
 */
static void
fill_many(FhirTree *tree, int at)
{
	const FhirItem *item = &tree->questionnaire->items[at];
	JsonbParseState *state = NULL;
	Value	   *value = &tree->response->values[item->node->slot];
	int			answered = 0;
	Jsonb	   *made;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	push_scope(tree, &state, &tree->top, at, &answered);
	if (answered == 0)
		return;
	made = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	value->kind = VALUE_ARRAY;
	value->data = &made->root;
	value->len = VARSIZE(made) - VARHDRSZ;
}

static void
push_scope(FhirTree *tree, JsonbParseState **state, const FhirScope *scope, int at, int *answered)
{
	const Questionnaire *questionnaire = tree->questionnaire;
	const FhirItem *item = &questionnaire->items[at];
	int			depth = scope->item < 0 ? 0 : questionnaire->items[scope->item].depth + 1;
	int			next = step_towards(questionnaire, at, depth);
	const FhirInstance *instance = scope->first[questionnaire->items[next].child_no];
	bool		nested = item->parent >= 0 && questionnaire->items[item->parent].many;

	check_stack_depth();
	if (next == at)
	{
		JsonbValue	null = {.type = jbvNull};
		int			before = *answered;

		if (nested && item->repeats)
			(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		for (; instance != NULL; instance = instance->next)
		{
			CHECK_FOR_INTERRUPTS();
			for (int i = 0; i < instance->nanswers; i++)
			{
				/* more than one, where it does not repeat, is a finding already */
				if (nested && !item->repeats && *answered > before)
					break;
				push_value(state, item, &instance->answers[i].value);
				(*answered)++;
			}
		}
		if (nested && item->repeats)
			(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
		else if (nested && *answered == before)
			(void) pushJsonbValue(state, WJB_ELEM, &null);
		return;
	}
	for (; instance != NULL; instance = instance->next)
	{
		CHECK_FOR_INTERRUPTS();
		if (instance->scope != NULL)
			push_scope(tree, state, instance->scope, at, answered);
		for (int i = 0; i < instance->nanswers; i++)
		{
			if (instance->answers[i].scope != NULL)
				push_scope(tree, state, instance->answers[i].scope, at, answered);
		}
	}
}

/* The item at a depth on the way to an item. */
static int
step_towards(const Questionnaire *questionnaire, int at, int depth)
{
	while (questionnaire->items[at].depth > depth)
		at = questionnaire->items[at].parent;
	return at;
}

/* A choice is its code; a quantity, if there is one unit, its number. */
static void
slot_value(const FhirItem *item, const FhirValue *from, Value *value)
{
	Span		text;

	switch (from->kind)
	{
		case FHIR_NONE:
			return;
		case FHIR_CODING:
			text = from->code.data ? from->code : from->text;
			if ((item->whole && from->object != NULL) || text.data == NULL)
			{
				*value = from->value;
				return;
			}
			value->kind = VALUE_TEXT;
			value->data = text.data;
			value->len = text.len;
			return;
		case FHIR_QUANTITY:
			if (item->number_only || from->object == NULL)
			{
				*value = from->value;
				return;
			}
			value->kind = VALUE_OBJECT;
			value->data = from->object;
			value->len = from->object_len;
			return;
		default:
			*value = from->value;
			return;
	}
}

static void
push_value(JsonbParseState **state, const FhirItem *item, const FhirValue *from)
{
	Value		value = {0};
	JsonbValue	json;

	slot_value(item, from, &value);
	switch (value.kind)
	{
		case VALUE_BOOLEAN:
			json.type = jbvBool;
			json.val.boolean = value.number != 0;
			break;
		case VALUE_INTEGER:
		case VALUE_NUMERIC:
			json.type = jbvNumeric;
			json.val.numeric = value_numeric(&value);
			break;
		case VALUE_TEXT:
			json.type = jbvString;
			json.val.string.val = (char *) value.data;
			json.val.string.len = value.len;
			break;
		case VALUE_ARRAY:
		case VALUE_OBJECT:
			json.type = jbvBinary;
			json.val.binary.data = (JsonbContainer *) value.data;
			json.val.binary.len = value.len;
			break;
		default:
			json.type = jbvNull;
			break;
	}
	(void) pushJsonbValue(state, WJB_ELEM, &json);
}

static const char *
scope_pointer(const FhirTree *tree, const FhirScope *scope)
{
	return scope->item < 0 ? "" : tree->questionnaire->items[scope->item].pointer;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

/* Of the names, or an extension of one that is of a simple type ("_text"). */
static bool
is_known(Span key, const char *const *names, int n)
{
	if (key.len > 0 && (key.data[0] == '_'))
		return true;
	for (int i = 0; i < n; i++)
	{
		if (span_is(key, names[i]))
			return true;
	}
	return false;
}

static void
report(FhirTree *tree, const char *location, const char *rule, const char *message)
{
	finding_add(tree->response->findings, FINDING_SCHEMA, SEVERITY_ERROR, location, rule, message);
}
