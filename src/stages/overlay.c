/*
 * overlay.c
 *		Severities that are declared beside the form: a keyword that is to warn
 *		only, or to say nothing.
 *
 * An overlay that names no keyword is refused when it or a form is registered.
 * One that begins later may meet another version by then: it lies over nothing.
 */
#include "postgres.h"

#include "stages/form.h"
#include "words/form.h"

static char *place_in_definition(const FormNode *node);
static const char *place_of_required(const FormNode *node);

/*
 * Gives the keyword at a place of the definition (a JSON Pointer, such as
 * "/properties/hours/maximum") a severity, or KEYWORD_OFF.  "/required" is each
 * name of the list, "/required/0" one.  False: nothing is judged there.
 */
bool
form_overlay(CompiledForm *form, const char *place, int severity)
{
	bool		found = false;

	for (int i = 0; i < form->nnodes; i++)
	{
		FormNode   *node = form->nodes[i];
		/* a questionnaire's rule is an item's: its location, and the rule */
		const char *here = form->questionnaire ? node->pointer : place_in_definition(node);
		size_t		len = strlen(here);

		for (int k = 0; k < KEYWORD_COUNT; k++)
		{
			bool		is_it;

			if ((node->has & (1 << k)) == 0)
				continue;
			if (k == KEYWORD_REQUIRED && form->questionnaire == NULL)
			{
				const char *list = place_of_required(node);
				size_t		list_len = strlen(list);

				is_it = strncmp(place, list, list_len) == 0 &&
					(place[list_len] == '\0' ||
					 strcmp(place + list_len, psprintf("/%d", node->required_at)) == 0);
			}
			else
				is_it = strncmp(place, here, len) == 0 && place[len] == '/' &&
					strcmp(place + len + 1, keyword_name[k]) == 0;
			if (!is_it)
				continue;
			node->overlay[k] = (int8) (severity == KEYWORD_OFF ? KEYWORD_OFF : severity + 1);
			found = true;
		}
	}
	return found;
}

/* An item's own schema: each key of its pointer stands under "properties". */
static char *
place_in_definition(const FormNode *node)
{
	StringInfoData place;

	initStringInfo(&place);
	for (const char *at = node->pointer; *at != '\0'; at++)
	{
		if (*at == '/')
			appendStringInfoString(&place, "/properties");
		appendStringInfoChar(&place, *at);
	}
	return place.data;
}

/* The list that an item is named in is the one of the group around it. */
static const char *
place_of_required(const FormNode *node)
{
	char	   *place = place_in_definition(node);

	/* without "/properties/key", where the key has no slash of its own */
	*strrchr(place, '/') = '\0';
	*strrchr(place, '/') = '\0';
	return psprintf("%s/required", place);
}
