/*
 * deid_rule.c
 *		De-identification rules become part of the compiled form.
 *
 * Like the form compiler, which this stands beside, it raises errors: a rule
 * that cannot be applied is refused when it is made.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "stages/form.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "words/form.h"

/* top code of an age when set_deid() names none (HIPAA: 90 and over) */
#define DEFAULT_AGE_CAP 90

/* of the codes of subjects, unless set_deid() names another: the same in all forms */
#define SUBJECT_DOMAIN "subject"

static void deidentify_subject(CompiledForm *form, const char *method, Jsonb *params);
static void pseudonymize_node(CompiledForm *form, FormNode *node, Jsonb *params);
static void read_code_params(Jsonb *params, const char **domain, bool *creates);
static void remove_group(FormNode *group);

/*
 * Adds a de-identification rule to a compiled form; raises an error when the
 * form has no such item, or the method cannot be applied to it.
 */
void
form_deidentify(CompiledForm *form, const char *path, const char *method,
				Jsonb *params)
{
	FormNode   *node = NULL;
	JsonbIterator *iterator = JsonbIteratorInit(&params->root);
	JsonbValue	key;
	JsonbValue	value;
	bool		to_age = false;

	if (strcmp(path, "subject") == 0)
	{
		deidentify_subject(form, method, params);
		return;
	}
	for (int i = 0; i < form->nnodes; i++)
	{
		if (strcmp(form->nodes[i]->pointer, path) == 0)
			node = form->nodes[i];
	}
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("form \"%s\" has no item at \"%s\"", form->name, path),
				 errhint("Name the item by its JSON Pointer, such as \"/email\".")));
	if (node->nchildren > 0 && strcmp(method, "remove") != 0 && strcmp(method, "keep") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is a group of items", path),
				 errhint("Only the method \"remove\" takes a whole group.")));
	if (!JB_ROOT_IS_OBJECT(params))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameters of a de-identification method must be a JSON object")));

	if (strcmp(method, "pseudonymize") == 0)
	{
		pseudonymize_node(form, node, params);
		form_collect_slots(form);
		return;
	}
	node->deid_cap = DEFAULT_AGE_CAP;
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		Value		number = {0};

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (value.type == jbvNumeric)
			value_set_jsonb(&number, &value);
		if (strcmp(method, "generalize") == 0 && jsonb_text_is(&key, "to") &&
			value.type == jbvString && jsonb_text_is(&value, "age"))
			to_age = true;
		else if (strcmp(method, "generalize") == 0 && jsonb_text_is(&key, "cap") &&
				 number.kind == VALUE_INTEGER &&
				 number.number >= 1 && number.number <= 150)
			node->deid_cap = (int) number.number;
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("method \"%s\" does not take the parameter \"%s\", or not with this value",
							method, jsonb_text(&key)),
					 errhint("The method \"generalize\" takes {\"to\": \"age\", \"cap\": 90}; the others take none.")));
	}

	if (strcmp(method, "keep") == 0)
		node->deid = DEID_KEEP;
	else if (strcmp(method, "remove") == 0)
		remove_group(node);
	else if (strcmp(method, "redact") == 0)
	{
		if (node->type != ITEM_TEXT)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("item \"%s\" is not a text and cannot be redacted", path),
					 errhint("Use the method \"remove\".")));
		node->deid = DEID_REDACT;
	}
	else if (strcmp(method, "generalize") == 0)
	{
		if (!to_age || (node->type != ITEM_DATE && node->type != ITEM_PARTIAL_DATE))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("method \"generalize\" makes an age of a date: item \"%s\" must be of format date, and the parameters must say so",
							path),
					 errhint("Use params => '{\"to\": \"age\"}' with an item of type string and format date.")));
		node->deid = DEID_AGE;
		node->type = ITEM_INTEGER;
		node->fits_int4 = true;
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown de-identification method \"%s\"", method),
				 errhint("The methods are keep, remove, redact, generalize and pseudonymize.")));
	form_collect_slots(form);
}

/* How a subject is replaced: by a derived key, as without a rule, or a random code. */
static void
deidentify_subject(CompiledForm *form, const char *method, Jsonb *params)
{
	bool		is_random = strcmp(method, "pseudonymize") == 0;

	if (!is_random && (strcmp(method, "cryptoHash") != 0 || !JB_ROOT_IS_OBJECT(params) || JB_ROOT_COUNT(params) > 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the subject cannot be de-identified by method \"%s\" with these parameters", method),
				 errhint("Use \"pseudonymize\" for a random code, or \"cryptoHash\" without parameters for the derived key that it has without a rule.")));
	if (!is_random)
		return;
	form->subject_domain = SUBJECT_DOMAIN;
	read_code_params(params, &form->subject_domain, &form->subject_creates);
}

/* An item becomes a text, which is its code. */
static void
pseudonymize_node(CompiledForm *form, FormNode *node, Jsonb *params)
{
	StringInfoData domain;

	if (node->type != ITEM_TEXT && node->type != ITEM_INTEGER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("item \"%s\" is neither a text nor a whole number and cannot have a code", node->pointer)));
	/* as JSON, so that no other form and path read the same */
	initStringInfo(&domain);
	appendStringInfoChar(&domain, '[');
	escape_json(&domain, form->name);
	appendStringInfoString(&domain, ", ");
	escape_json(&domain, node->pointer);
	appendStringInfoChar(&domain, ']');
	node->deid_domain = domain.data;
	read_code_params(params, &node->deid_domain, &node->deid_creates);
	node->deid = DEID_PSEUDONYMIZE;
	node->deid_whole = node->type == ITEM_INTEGER;
	node->type = ITEM_TEXT;
	/* a code of digits alone is none the less a text */
	if (node->types != 0)
		node->types = TYPE_STRING | (node->types & TYPE_NULL);
	form->has_coded_items = true;
}

/* {"domain": "...", "allow_create": true} */
static void
read_code_params(Jsonb *params, const char **domain, bool *creates)
{
	JsonbIterator *iterator = JsonbIteratorInit(&params->root);
	JsonbValue	key;
	JsonbValue	value;

	*creates = true;
	if (!JB_ROOT_IS_OBJECT(params))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameters of a de-identification method must be a JSON object")));
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (jsonb_text_is(&key, "domain") && value.type == jbvString && value.val.string.len > 0)
			*domain = jsonb_text(&value);
		else if (jsonb_text_is(&key, "allow_create") && value.type == jbvBool)
			*creates = value.val.boolean;
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("method \"%s\" does not take the parameter \"%s\", or not with this value",
							"pseudonymize", jsonb_text(&key)),
					 errhint("It takes {\"domain\": \"...\", \"allow_create\": true}.")));
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
