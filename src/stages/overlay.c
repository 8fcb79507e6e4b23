/*
 * overlay.c
 *		Severities that are declared beside the form: a rule that is to warn
 *		only, or to say nothing.
 *
 * An overlay is laid into the compiled rule, so that judging has nothing to look
 * up.  One that names no rule, or one that cannot have another severity, is
 * refused when it or a form is registered.  One that begins later may meet
 * another version by then: it lies over nothing.
 */
#include "postgres.h"

#include "stages/form.h"
#include "utils/memutils.h"

static bool is_named(const FormRule *rule, const char *place);

/*
 * Gives the rules at a place of the definition (a JSON Pointer, such as
 * "/properties/hours/maximum") a severity, or KEYWORD_OFF.  False: nothing there
 * can have one; *hint then says what to do instead, or is NULL if there is no
 * rule.
 */
bool
form_overlay(CompiledForm *form, const char *place, int severity, char **hint)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "epro_etl rules",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(scratch);
	FormRules  *rules = form_rules(form);
	bool		found = false;

	*hint = NULL;
	for (int i = 0; i < rules->n; i++)
	{
		const FormRule *rule = &rules->list[i];

		if (!is_named(rule, place))
			continue;
		if (rule->overlay == NULL)
		{
			*hint = MemoryContextStrdup(outer, rule->hint);
			continue;
		}
		*rule->overlay = (int8) (severity == KEYWORD_OFF ? KEYWORD_OFF : severity + 1);
		found = true;
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(scratch);
	return found;
}

static bool
is_named(const FormRule *rule, const char *place)
{
	ListCell   *cell;

	if (strcmp(rule->where, place) == 0)
		return true;
	foreach(cell, rule->also)
	{
		if (strcmp(lfirst(cell), place) == 0)
			return true;
	}
	return false;
}
