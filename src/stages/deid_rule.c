/*
 * deid_rule.c
 *		De-identification rules become part of the compiled form.
 *
 * Like the form compiler, which this stands beside, it raises errors: a rule
 * that cannot be applied is refused when it is made.
 */
#include "postgres.h"

#include "stages/form.h"
#include "utils/jsonb.h"
#include "words/form.h"

/* top code of an age when set_deid() names none (HIPAA: 90 and over) */
#define DEFAULT_AGE_CAP 90

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
				 errhint("The methods are keep, remove, redact and generalize.")));
	form_collect_slots(form);
}

/* Removes an item, or a group with all that is in it. */
static void
remove_group(FormNode *group)
{
	group->deid = DEID_REMOVE;
	for (int i = 0; i < group->nchildren; i++)
		remove_group(group->children[i]);
}
