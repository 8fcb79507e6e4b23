/*
 * normalise.c
 *		Representation, never meaning: what the form declares, nothing else.
 *
 * Collected answers arrive as text: "3", " 3 ", "７", "7.0".  "x-normalise"
 * declares for an item which of these are the same answer.  What cannot be
 * read as the declared type stays as it came, for validate.c to report: 7.3
 * for a whole number is a finding, not 7.
 */
#include "postgres.h"

#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"

static void normalise_text(const FormNode *node, Value *value);
static void coerce_text(const FormNode *node, Value *value);
static void fold_text(const FormNode *node, Value *value);

/* Applies each item's declared normalisation to response->values. */
void
normalise(const CompiledForm *form, Response *response)
{
	for (int i = 0; i < form->nnormalised; i++)
	{
		const FormNode *node = form->nodes[form->normalised[i]];

		normalise_value(node, &response->values[node->slot]);
	}
}

/*
 * One answer, of whatever kind.  A method of de-identification that reads the
 * answer asks for it, too: it has to see what the others would have seen.
 */
void
normalise_value(const FormNode *node, Value *value)
{
	if (value->kind == VALUE_TEXT)
		normalise_text(node, value);
	else if ((value->kind == VALUE_INTEGER || value->kind == VALUE_NUMERIC) &&
			 (node->normalise & NORMALISE_COERCE) &&
			 (node->types & ~TYPE_NULL) == TYPE_STRING)
	{
		/* a code given as a number: 1 for "1" */
		value->data = value_text(value, &value->len);
		value->kind = VALUE_TEXT;
		fold_text(node, value);
	}
}

static void
normalise_text(const FormNode *node, Value *value)
{
	if ((node->normalise & NORMALISE_WIDTH) &&
		normalise_width_needed(value->data, value->len))
	{
		char	   *narrow = palloc(value->len);

		value->len = (int) normalise_width(value->data, value->len, narrow);
		value->data = narrow;
	}
	if (node->normalise & NORMALISE_TRIM)
	{
		const char *text = value->data;

		value->len = (int) normalise_trim(&text, value->len);
		value->data = text;
	}
	if (value->len == 0 && (node->normalise & NORMALISE_BLANK))
	{
		memset(value, 0, sizeof(*value));
		value->kind = VALUE_ABSENT;
		return;
	}
	if (node->normalise & NORMALISE_COERCE)
		coerce_text(node, value);
	if (value->kind == VALUE_TEXT)
		fold_text(node, value);
}

/* Reads a text as the type that the item declares, unless a text will do. */
static void
coerce_text(const FormNode *node, Value *value)
{
	int64		integer;
	bool		boolean;
	bool		whole;

	if (node->types == 0 || (node->types & TYPE_STRING))
		return;
	if ((node->types & (TYPE_INTEGER | TYPE_NUMBER)) &&
		parse_integer(value->data, value->len, &integer) == PARSE_OK)
	{
		value->kind = VALUE_INTEGER;
		value->data = NULL;
		value->number = integer;
		return;
	}
	if ((node->types & (TYPE_INTEGER | TYPE_NUMBER)) &&
		parse_decimal(value->data, value->len, &whole) == PARSE_OK)
	{
		Datum		numeric;

		/* a fraction is no answer to a whole-number item: let it be judged */
		if (!whole && !(node->types & TYPE_NUMBER))
			return;
		numeric = DirectFunctionCall3(numeric_in,
									  CStringGetDatum(pnstrdup(value->data, value->len)),
									  ObjectIdGetDatum(InvalidOid),
									  Int32GetDatum(-1));
		value_set_numeric(value, DatumGetNumeric(numeric));
		return;
	}
	if ((node->types & TYPE_BOOLEAN) &&
		parse_boolean(value->data, value->len, &boolean))
	{
		value->kind = VALUE_BOOLEAN;
		value->data = NULL;
		value->number = boolean ? 1 : 0;
	}
}

/* A code in another case takes the spelling of the code list. */
static void
fold_text(const FormNode *node, Value *value)
{
	const Value *match = NULL;

	if (!(node->normalise & NORMALISE_FOLD))
		return;
	for (int i = 0; i < node->noptions; i++)
	{
		const Value *option = &node->options[i];

		if (option->kind != VALUE_TEXT)
			continue;
		if (option->len == value->len &&
			memcmp(option->data, value->data, value->len) == 0)
			return;
		if (equal_fold_ascii(option->data, option->len, value->data, value->len))
		{
			/* two codes that differ only in case: which was meant, nobody knows */
			if (match != NULL)
				return;
			match = option;
		}
	}
	if (match != NULL)
	{
		value->data = match->data;
		value->len = match->len;
	}
}
