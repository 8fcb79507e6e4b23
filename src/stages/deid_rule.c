/*
 * deid_rule.c
 *		De-identification rules become part of the compiled form.
 *
 * Here stands which methods there are, which items each takes, what parameters,
 * and what an item is for edit checks and sinks afterwards.
 *
 * Like the form compiler, which this stands beside, it raises errors: a rule
 * that cannot be applied is refused when it is made.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "stages/fhir.h"
#include "stages/form.h"
#include "stages/partial_date.h"
#include "stages/schema.h"
#include "stages/siv.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "words/form.h"

/* top code of an age when set_deid() names none (HIPAA: 90 and over) */
#define DEFAULT_AGE_CAP 90
#define MOST_AGE_CAP 150

/* of the codes of subjects, unless set_deid() names another: the same in all forms */
#define SUBJECT_DOMAIN "subject"

#define MOST_KEPT 1000
/* of a postal code; HIPAA: 3 */
#define MOST_ZIP 5

#define TYPE(type) (1 << (type))
#define DATES (TYPE(ITEM_DATE) | TYPE(ITEM_TIMESTAMP) | TYPE(ITEM_PARTIAL_DATE) | TYPE(ITEM_PARTIAL_TIMESTAMP))
#define NUMBERS (TYPE(ITEM_INTEGER) | TYPE(ITEM_NUMBER))
#define TEXT TYPE(ITEM_TEXT)
#define TIMES (TYPE(ITEM_TIME) | TYPE(ITEM_LOCAL_TIME))
#define ANY (~0)

static const struct
{
	const char *name;
	int			takes;			/* item types */
	const char *says;			/* what these are */
	const char *hint;			/* how it is written */
}			methods[DEID_METHOD_COUNT] = {
	[DEID_KEEP] = {"keep", ANY, NULL, "takes no parameter"},
	[DEID_REMOVE] = {"remove", ANY, NULL, "takes no parameter"},
	[DEID_REDACT] = {"redact", TEXT, "a text", "takes no parameter"},
	[DEID_SUBSTITUTE] = {"substitute", ~TYPE(ITEM_LOCAL_TIME), "of a type that a value can be declared for",
	"takes {\"value\": ...}, an answer that the item could have"},
	[DEID_MASK] = {"mask", TEXT, "a text", "takes {\"keep_last\": 4, \"with\": \"*\"}, a number of characters and one"},
	[DEID_AGE] = {"generalize", DATES | TYPE(ITEM_INTEGER), "a date or a whole number",
	"takes {\"to\": \"age\", \"cap\": 90}"},
	[DEID_YEAR] = {"generalize", DATES | TEXT, "a date", "takes {\"to\": \"year\"}, and perhaps {\"cap\": 90}"},
	[DEID_YEAR_MONTH] = {"generalize", DATES | TEXT, "a date", "takes {\"to\": \"year-month\"}"},
	[DEID_BUCKET] = {"generalize", NUMBERS, "a number", "takes {\"bucket\": 10}, a width above 0"},
	[DEID_ZIP] = {"generalize", TEXT, "a text",
	"takes {\"zip\": 3}, and {\"restricted\": [\"036\"]} for the codes of another country or another census"},
	[DEID_SHIFT] = {"dateShift", DATES | TEXT, "a date", "takes no parameter"},
	[DEID_HASH] = {"cryptoHash", DATES | NUMBERS | TEXT | TIMES, "a text, a number, a date or a time",
	"takes {\"domain\": ...}, a name that items share whose hashes are to be joined"},
	[DEID_PERTURB] = {"perturb", NUMBERS, "a number", "takes {\"range\": 3}, above 0, and a whole number if the item is one"},
	[DEID_ENCRYPT] = {"encrypt", DATES | NUMBERS | TEXT | TIMES, "a text, a number, a date or a time", "takes no parameter"},
	[DEID_PSEUDONYMIZE] = {"pseudonymize", TEXT | TYPE(ITEM_INTEGER), "a text or a whole number",
	"takes {\"domain\": \"...\", \"allow_create\": true}"},
};

/*
 * Areas of 20,000 people or fewer by the census of 2000, in the guidance of the
 * Department of Health and Human Services to 45 CFR 164.514(b)(2)(i)(B).
 */
static const char *hhs_restricted[] = {
	"036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890", "893"
};

/* Why a rule cannot be, or message == NULL. */
typedef struct Refusal
{
	int			code;
	const char *message;
	const char *hint;
} Refusal;

static Refusal make_rule(const CompiledForm *form, const char *path, const char *method,
						 const Jsonb *params, FormNode **node, DeidRule *rule);
static Refusal make_authored_rule(const DeidRule *rule);
static Refusal make_subject_rule(const DeidRule *rule);
static bool choose_method(const char *method, const Jsonb *params, DeidMethod *chosen);
static Refusal read_params(const Jsonb *params, const char *method, DeidRule *rule);
static bool read_param(DeidRule *rule, const JsonbValue *key, const JsonbValue *value);
static bool is_complete(const DeidRule *rule);
static bool read_restricted(DeidRule *rule, JsonbContainer *list);
static const JsonbValue *find_param(const Jsonb *params, const char *name);
static bool whole_number(const JsonbValue *value, int low, int high, int *number);
static bool positive_number(const JsonbValue *value, Value *number);
static bool suits_substitute(const FormNode *node, Value *value);
static void settle_codes(CompiledForm *form, FormNode *node, const DeidRule *rule);
static void settle_type(FormNode *node, const DeidRule *rule);
static void remove_group(FormNode *group);
static Refusal refuse(int code, const char *message, const char *hint);

/*
 * Adds a de-identification rule to a compiled form, in the current memory
 * context, which must be the form's, as params must be.  Raises an error when
 * the form has no such item, or the method cannot be applied to it.
 */
void
form_deidentify(CompiledForm *form, const char *path, const char *method,
				Jsonb *params)
{
	FormNode   *node;
	DeidRule   *rule = palloc0(sizeof(DeidRule));
	Refusal		refusal = make_rule(form, path, method, params, &node, rule);

	if (refusal.message != NULL)
		ereport(ERROR,
				(errcode(refusal.code),
				 errmsg("%s", refusal.message),
				 refusal.hint ? errhint("%s", refusal.hint) : 0));
	if (node == NULL && strcmp(path, "authored") == 0)
		form->authored = rule->method;
	else if (node == NULL)
	{
		form->subject_domain = rule->method != DEID_PSEUDONYMIZE ? NULL : rule->text ? rule->text : SUBJECT_DOMAIN;
		form->subject_creates = rule->creates;
	}
	else if (rule->method == DEID_REMOVE)
		remove_group(node);
	else
	{
		node->deid = rule->method;
		node->deid_rule = rule;
		if (rule->method == DEID_PSEUDONYMIZE)
			settle_codes(form, node, rule);
		settle_type(node, rule);
	}
	form->shifts |= rule->method == DEID_SHIFT || form->authored != DEID_KEEP;
	form_collect_slots(form);
}

/* Does this server know the method, and does the form's item suit it? */
bool
form_suits_method(CompiledForm *form, const char *path, const char *method,
				  Jsonb *params)
{
	FormNode   *node;
	DeidRule	rule = {0};

	return make_rule(form, path, method, params, &node, &rule).message == NULL;
}

/* As set_deid() and findings call it. */
const char *
deid_method_name(DeidMethod method)
{
	return methods[method].name;
}

/*
 * What a profile goes by: an item holds "date", "free text" or "other".  What is
 * no scalar may hold words.  A text is no free one if its codes are listed.
 */
const char *
form_node_holds(const CompiledForm *form, const FormNode *node)
{
	const Questionnaire *questionnaire = form->questionnaire;

	for (int i = 0; questionnaire != NULL && i < questionnaire->nitems; i++)
	{
		const FhirItem *item = &questionnaire->items[i];

		if (item->node != node)
			continue;
		if (item->kinds & (FHIR_BIT(FHIR_DATE) | FHIR_BIT(FHIR_DATE_TIME)))
			return "date";
		if (item->choice)
			return item->open ? "free text" : "other";
		return item->kinds & (FHIR_BIT(FHIR_STRING) | FHIR_BIT(FHIR_URI) | FHIR_BIT(FHIR_ATTACHMENT) |
							  FHIR_BIT(FHIR_REFERENCE) | FHIR_BIT(FHIR_CODING)) ? "free text" : "other";
	}
	if (DATES & TYPE(node->type))
		return "date";
	if (node->type == ITEM_JSON || node->type == ITEM_TEXT)
		return node->noptions > 0 || (node->has & (1 << KEYWORD_CONST)) ? "other" : "free text";
	return "other";
}

/* *node is NULL for the response's own time. */
static Refusal
make_rule(const CompiledForm *form, const char *path, const char *method,
		  const Jsonb *params, FormNode **node, DeidRule *rule)
{
	Refusal		refusal;

	*node = NULL;
	for (int i = 0; i < form->nnodes; i++)
	{
		if (form->nodes[i]->pointer[0] != '\0' && strcmp(form->nodes[i]->pointer, path) == 0)
			*node = form->nodes[i];
	}
	if (*node == NULL && strcmp(path, "authored") != 0 && strcmp(path, "subject") != 0)
		return refuse(ERRCODE_UNDEFINED_OBJECT, psprintf("form \"%s\" has no item at \"%s\"", form->name, path),
					  "Name the item by its JSON Pointer, such as \"/email\"; \"authored\" is the time at which a response was authored, \"subject\" who it is about.");
	if (!JB_ROOT_IS_OBJECT(params))
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  "parameters of a de-identification method must be a JSON object", NULL);
	if (!choose_method(method, params, &rule->method))
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  strcmp(method, "generalize") == 0 ?
					  "method \"generalize\" must be told to what, as \"to\" (age, year or year-month), \"bucket\" or \"zip\"" :
					  psprintf("unknown de-identification method \"%s\"", method),
					  strcmp(method, "generalize") == 0 ?
					  "For example {\"to\": \"age\"}, {\"to\": \"year\"}, {\"bucket\": 10} or {\"zip\": 3}." :
					  "The methods are keep, remove, redact, substitute, mask, generalize, dateShift, cryptoHash, perturb, encrypt and pseudonymize.");
	refusal = read_params(params, method, rule);
	if (refusal.message != NULL)
		return refusal;
	if (*node == NULL)
		return strcmp(path, "subject") == 0 ? make_subject_rule(rule) : make_authored_rule(rule);
	if ((*node)->nchildren > 0 && rule->method != DEID_REMOVE && rule->method != DEID_KEEP)
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE, psprintf("\"%s\" is a group of items", path),
					  "Only the methods \"remove\" and \"keep\" take a whole group.");
	if ((methods[rule->method].takes & TYPE((*node)->type)) == 0)
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("method \"%s\", as it is written, does not take item \"%s\": it is not %s",
							   method, path, methods[rule->method].says),
					  "Use another method; \"remove\" takes any item.");
	if (rule->method == DEID_SUBSTITUTE && !suits_substitute(*node, &rule->value))
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("the value to substitute is not of the type of item \"%s\"", path),
					  "It stands where answers stood: edit checks and sinks must be able to read it.");
	/* noise of a whole number is a whole one */
	if (rule->method == DEID_PERTURB && (*node)->type == ITEM_INTEGER &&
		(rule->value.kind != VALUE_INTEGER || rule->value.number > PG_INT32_MAX))
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("the range of item \"%s\" must be a whole number, as the item is", path), NULL);
	if (rule->method == DEID_ENCRYPT && !siv_is_there())
		return refuse(ERRCODE_FEATURE_NOT_SUPPORTED,
					  "the server has no OpenSSL of version 3 that could encrypt",
					  "Use cryptoHash, or a server that is built with OpenSSL.");
	return refusal;
}

static Refusal
make_authored_rule(const DeidRule *rule)
{
	Refusal		none = {0};

	if ((rule->method == DEID_YEAR && rule->cap == 0) || rule->method == DEID_YEAR_MONTH ||
		rule->method == DEID_KEEP || rule->method == DEID_REMOVE || rule->method == DEID_SHIFT)
		return none;
	return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
				  "the method does not take the time at which a response was authored",
				  "Use dateShift, or generalize with {\"to\": \"year\"} or {\"to\": \"year-month\"}, remove or keep.");
}

/* A random code; or the derived key, as without a rule. */
static Refusal
make_subject_rule(const DeidRule *rule)
{
	Refusal		none = {0};

	if (rule->method == DEID_PSEUDONYMIZE || (rule->method == DEID_HASH && rule->text == NULL))
		return none;
	return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
				  psprintf("the subject cannot be de-identified by method \"%s\" with these parameters",
						   methods[rule->method].name),
				  "Use \"pseudonymize\" for a random code, or \"cryptoHash\" without parameters for the derived key that it has without a rule.");
}

/* One name can stand for several methods: then the parameters say which. */
static bool
choose_method(const char *method, const Jsonb *params, DeidMethod *chosen)
{
	const JsonbValue *to = find_param(params, "to");

	if (strcmp(method, "generalize") == 0)
	{
		if (to != NULL && to->type == jbvString && jsonb_text_is(to, "age"))
			*chosen = DEID_AGE;
		else if (to != NULL && to->type == jbvString && jsonb_text_is(to, "year"))
			*chosen = DEID_YEAR;
		else if (to != NULL && to->type == jbvString && jsonb_text_is(to, "year-month"))
			*chosen = DEID_YEAR_MONTH;
		else if (to == NULL && find_param(params, "bucket") != NULL)
			*chosen = DEID_BUCKET;
		else if (to == NULL && find_param(params, "zip") != NULL)
			*chosen = DEID_ZIP;
		else
			return false;
		return true;
	}
	for (int i = 0; i < DEID_METHOD_COUNT; i++)
	{
		if (strcmp(methods[i].name, method) == 0)
		{
			*chosen = (DeidMethod) i;
			return true;
		}
	}
	return false;
}

/* Every method takes a category, which set_deid() has looked up. */
static Refusal
read_params(const Jsonb *params, const char *method, DeidRule *rule)
{
	JsonbIterator *iterator = JsonbIteratorInit((JsonbContainer *) &params->root);
	JsonbValue	key;
	JsonbValue	value;
	Refusal		none = {0};

	if (rule->method == DEID_AGE)
		rule->cap = DEFAULT_AGE_CAP;
	if (rule->method == DEID_MASK)
		rule->text = "*";
	rule->creates = true;
	if (rule->method == DEID_ZIP)
	{
		rule->restricted = hhs_restricted;
		rule->nrestricted = lengthof(hhs_restricted);
	}
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (jsonb_text_is(&key, "category") && value.type == jbvString)
			continue;
		if (!read_param(rule, &key, &value))
			return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
						  psprintf("method \"%s\" does not take the parameter \"%s\", or not with this value",
								   method, jsonb_text(&key)),
						  psprintf("The method \"%s\" %s; every method takes a category.", method, methods[rule->method].hint));
	}
	if (!is_complete(rule))
		return refuse(ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("method \"%s\" needs a parameter", method),
					  psprintf("The method \"%s\" %s.", method, methods[rule->method].hint));
	return none;
}

static bool
read_param(DeidRule *rule, const JsonbValue *key, const JsonbValue *value)
{
	switch (rule->method)
	{
		case DEID_SUBSTITUTE:
			if (!jsonb_text_is(key, "value") || value->type == jbvNull)
				return false;
			value_set_jsonb(&rule->value, value);
			return true;
		case DEID_MASK:
			if (jsonb_text_is(key, "keep_last"))
				return whole_number(value, 0, MOST_KEPT, &rule->keep);
			if (!jsonb_text_is(key, "with") || value->type != jbvString ||
				pg_mbstrlen_with_len(value->val.string.val, value->val.string.len) != 1)
				return false;
			rule->text = jsonb_text(value);
			return true;
		case DEID_AGE:
		case DEID_YEAR:
			if (jsonb_text_is(key, "cap"))
				return whole_number(value, 1, MOST_AGE_CAP, &rule->cap);
			return jsonb_text_is(key, "to");
		case DEID_YEAR_MONTH:
			return jsonb_text_is(key, "to");
		case DEID_BUCKET:
			return jsonb_text_is(key, "bucket") && positive_number(value, &rule->value);
		case DEID_PERTURB:
			return jsonb_text_is(key, "range") && positive_number(value, &rule->value);
		case DEID_PSEUDONYMIZE:
			if (jsonb_text_is(key, "allow_create") && value->type == jbvBool)
			{
				rule->creates = value->val.boolean;
				return true;
			}
			/* FALLTHROUGH */
		case DEID_HASH:
			if (!jsonb_text_is(key, "domain") || value->type != jbvString || value->val.string.len == 0)
				return false;
			rule->text = jsonb_text(value);
			return true;
		case DEID_ZIP:
			if (jsonb_text_is(key, "zip"))
				return whole_number(value, 1, MOST_ZIP, &rule->keep);
			return jsonb_text_is(key, "restricted") && value->type == jbvBinary &&
				JsonContainerIsArray(value->val.binary.data) &&
				read_restricted(rule, value->val.binary.data);
		default:
			return false;
	}
}

static bool
is_complete(const DeidRule *rule)
{
	if (rule->method == DEID_SUBSTITUTE || rule->method == DEID_PERTURB)
		return rule->value.kind != VALUE_ABSENT;
	return true;
}

/* With a list of its own, the codes are those of any country. */
static bool
read_restricted(DeidRule *rule, JsonbContainer *list)
{
	JsonbIterator *iterator = JsonbIteratorInit(list);
	JsonbValue	element;

	rule->postal = true;
	rule->nrestricted = 0;
	rule->restricted = palloc(sizeof(char *) * (JsonContainerSize(list) + 1));
	(void) JsonbIteratorNext(&iterator, &element, false);
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
	{
		char	   *prefix;

		if (element.type != jbvString || element.val.string.len == 0)
			return false;
		prefix = jsonb_text(&element);
		for (char *at = prefix; *at != '\0'; at++)
		{
			if (!((*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'Z')))
				return false;
		}
		rule->restricted[rule->nrestricted++] = prefix;
	}
	return true;
}

static const JsonbValue *
find_param(const Jsonb *params, const char *name)
{
	return getKeyJsonValueFromContainer((JsonbContainer *) &params->root, name, strlen(name), NULL);
}

static bool
whole_number(const JsonbValue *value, int low, int high, int *number)
{
	Value		given = {0};

	if (value->type == jbvNumeric)
		value_set_jsonb(&given, value);
	*number = (int) given.number;
	return given.kind == VALUE_INTEGER && given.number >= low && given.number <= high;
}

static bool
positive_number(const JsonbValue *value, Value *number)
{
	Value		zero = {VALUE_INTEGER};

	if (value->type != jbvNumeric)
		return false;
	value_set_jsonb(number, value);
	return limit_holds(KEYWORD_EXCLUSIVE_MINIMUM, number, &zero);
}

/* Reads it as the item's type, as validation would read an answer. */
static bool
suits_substitute(const FormNode *node, Value *value)
{
	Datum		datum;
	bool		isnull;
	PartialDate date;

	switch (node->type)
	{
		case ITEM_DATE:
			return value->kind == VALUE_TEXT && format_holds(FORMAT_DATE, value);
		case ITEM_TIME:
			return value->kind == VALUE_TEXT && format_holds(FORMAT_TIME, value);
		case ITEM_TIMESTAMP:
			return value->kind == VALUE_TEXT && format_holds(FORMAT_DATE_TIME, value);
		case ITEM_PARTIAL_DATE:
		case ITEM_PARTIAL_TIMESTAMP:
			return value->kind == VALUE_TEXT &&
				(format_holds(node->type == ITEM_PARTIAL_DATE ? FORMAT_DATE : FORMAT_DATE_TIME, value) ||
				 parse_partial_date(value->data, value->len, &date) == PARSE_OK);
		case ITEM_TEXT:
			return value->kind == VALUE_TEXT;
		default:
			return value_datum(value, item_type_oid(node->type, node->fits_int4), -1, &datum, &isnull) == NULL;
	}
}

/* Within which domain its codes are, and of what. */
static void
settle_codes(CompiledForm *form, FormNode *node, const DeidRule *rule)
{
	StringInfoData domain;

	/* as JSON, so that no other form and path read the same */
	initStringInfo(&domain);
	appendStringInfoChar(&domain, '[');
	escape_json(&domain, form->name);
	appendStringInfoString(&domain, ", ");
	escape_json(&domain, node->pointer);
	appendStringInfoChar(&domain, ']');
	node->deid_domain = rule->text ? rule->text : domain.data;
	node->deid_creates = rule->creates;
	node->deid_whole = node->type == ITEM_INTEGER;
	/* a code of digits alone is none the less a text */
	if (node->types != 0)
		node->types = TYPE_STRING | (node->types & TYPE_NULL);
	form->has_coded_items = true;
}

/* What the item is from now on, for edit checks and sinks. */
static void
settle_type(FormNode *node, const DeidRule *rule)
{
	switch (rule->method)
	{
		case DEID_AGE:
		case DEID_YEAR:
			node->type = ITEM_INTEGER;
			node->fits_int4 = true;
			break;
		case DEID_YEAR_MONTH:
		case DEID_ZIP:
		case DEID_HASH:
		case DEID_ENCRYPT:
		case DEID_PSEUDONYMIZE:
			node->type = ITEM_TEXT;
			break;
		case DEID_BUCKET:
		case DEID_PERTURB:
			/* its limits are not judged any more */
			node->fits_int4 = false;
			if (rule->value.kind != VALUE_INTEGER)
				node->type = ITEM_NUMBER;
			break;
		default:
			break;
	}
}

/* Removes an item, or a group with all that is in it. */
static void
remove_group(FormNode *group)
{
	group->deid = DEID_REMOVE;
	for (int i = 0; i < group->nchildren; i++)
		remove_group(group->children[i]);
}

static Refusal
refuse(int code, const char *message, const char *hint)
{
	Refusal		refusal = {code, message, hint};

	return refusal;
}
