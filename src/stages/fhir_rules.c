/*
 * fhir_rules.c
 *		The rules of a FHIR Questionnaire by name, place and severity.
 *
 * A rule stands where the Questionnaire declares it: an element of the item, or
 * an extension.  What no element declares (a response's status, the order of
 * items) has the pointer of what it is about, and behind it the rule's name.
 * Either way a rule can also be named as its findings are: location and rule.
 *
 * What settles where an answer goes is always an error, since no answer may be
 * lost for a severity.
 */
#include "postgres.h"

#include "stages/fhir.h"
#include "words/response.h"

static const char fixed_hint[] =
	"By it a response is read: what does not hold would get lost, so it is always an error.";

/* Of the response as a whole, and of all items alike. */
static const struct
{
	const char *where;
	const char *name;
	const char *says;
	int			head;			/* a FhirHeadRule; -1: always an error */
	Severity	severity;
}			head_rules[] = {
	{"/resourceType", "resourceType", "must be a QuestionnaireResponse, or an object of answers", -1, SEVERITY_ERROR},
	{"/modifierExtension", "modifierExtension", "must not have an extension that may change the meaning", -1, SEVERITY_ERROR},
	{"/status", "status", "must be a code of questionnaire-answers-status, and not entered-in-error", FHIR_HEAD_STATUS, SEVERITY_ERROR},
	{"/url", "questionnaire", "must name this questionnaire, in this version", FHIR_HEAD_QUESTIONNAIRE, SEVERITY_ERROR},
	{"/authored", "authored", "must be a dateTime", FHIR_HEAD_AUTHORED, SEVERITY_ERROR},
	{"/effectivePeriod", "effectivePeriod", "must be authored while the questionnaire is in use", FHIR_HEAD_PERIOD, SEVERITY_WARNING},
	{"/element", "element", "must not have an element that FHIR does not have there", FHIR_HEAD_ELEMENT, SEVERITY_ERROR},
	{"/item", "item", "items must stand as the questionnaire has them", -1, SEVERITY_ERROR},
	{"/linkId", "linkId", "must be of an item of the questionnaire, in its place", -1, SEVERITY_ERROR},
	{"/answer", "answer", "an answer must be one, to a question", -1, SEVERITY_ERROR},
	{"/value", "value", "an answer must have one value, and a code where it is a choice", -1, SEVERITY_ERROR},
};

static void list_of_head(const Questionnaire *questionnaire, FormRules *rules);
static void list_of_item(const FhirItem *item, FormRules *rules);
static bool is_judged(const FhirItem *item, FhirRule rule);
static const char *name_of(const FhirItem *item, FhirRule rule);
static const char *says_of(const FhirItem *item, FhirRule rule);

/* The form's rules, in the order in which they are judged. */
void
questionnaire_rules(const CompiledForm *form, FormRules *rules)
{
	const Questionnaire *questionnaire = form->questionnaire;

	list_of_head(questionnaire, rules);
	for (int i = 0; i < questionnaire->nitems; i++)
		list_of_item(&questionnaire->items[i], rules);
}

static void
list_of_head(const Questionnaire *questionnaire, FormRules *rules)
{
	for (int i = 0; i < (int) lengthof(head_rules); i++)
	{
		int			head = head_rules[i].head;
		FormRule   *rule;

		if (head == FHIR_HEAD_PERIOD && questionnaire->from == NULL && questionnaire->until == NULL)
			continue;
		rule = form_rules_add(rules, head_rules[i].where, head_rules[i].name, head_rules[i].says);
		rule->hint = fixed_hint;
		if (head < 0)
			continue;
		rule->overlay = unconstify(int8 *, &questionnaire->overlay[head]);
		rule->severity = severity_laid(*rule->overlay, head_rules[i].severity);
		rule->also = list_make1(psprintf("/%s", head_rules[i].name));
	}
}

static void
list_of_item(const FhirItem *item, FormRules *rules)
{
	FormRule   *row;

	if (item->type == FHIR_QUESTION)
	{
		row = form_rules_add(rules, psprintf("%s/type", item->where), "type", item->type_says);
		row->hint = fixed_hint;
		row->also = list_make1(psprintf("%s/type", item->pointer));
	}
	if (!item->repeats)
	{
		row = form_rules_add(rules, psprintf("%s/repeats", item->where), "repeats",
							 "must be there once, with one answer");
		row->hint = fixed_hint;
		row->also = list_make1(psprintf("%s/repeats", item->pointer));
	}
	for (int rule = 0; rule < FHIR_RULE_COUNT; rule++)
	{
		if (!is_judged(item, (FhirRule) rule))
			continue;
		row = form_rules_add(rules, linitial(item->places[rule]), name_of(item, (FhirRule) rule),
							 says_of(item, (FhirRule) rule));
		row->overlay = unconstify(int8 *, &item->overlay[rule]);
		row->severity = severity_laid(*row->overlay, SEVERITY_ERROR);
		row->also = lappend(list_copy_tail(item->places[rule], 1),
							psprintf("%s/%s", item->pointer, row->name));
	}
}

/* Is the rule declared, and is there something that it is judged of? */
static bool
is_judged(const FhirItem *item, FhirRule rule)
{
	if (item->places[rule] == NIL)
		return false;
	if (rule == FHIR_RULE_ORDER || rule == FHIR_RULE_ENABLE_WHEN || rule == FHIR_RULE_MAX_OCCURS ||
		rule == FHIR_RULE_MIN_OCCURS)
		return true;
	if (rule == FHIR_RULE_REQUIRED)
		return item->type != FHIR_DISPLAY;
	/* what de-identification takes is asked for, and not judged */
	return item->node != NULL && node_is_judged(item->node);
}

static const char *
name_of(const FhirItem *item, FhirRule rule)
{
	switch (rule)
	{
		case FHIR_RULE_ORDER:
			return "order";
		case FHIR_RULE_ENABLE_WHEN:
			return "enableWhen";
		case FHIR_RULE_REQUIRED:
			return "required";
		case FHIR_RULE_MAX_OCCURS:
			return "maxOccurs";
		case FHIR_RULE_MIN_OCCURS:
			return "minOccurs";
		case FHIR_RULE_CODES:
			return item->codes_rule;
		case FHIR_RULE_EXCLUSIVE:
			return "optionExclusive";
		case FHIR_RULE_MAX_PLACES:
			return "maxDecimalPlaces";
		case FHIR_RULE_MINIMUM:
			return "minValue";
		case FHIR_RULE_MAXIMUM:
			return "maxValue";
		case FHIR_RULE_MAX_LENGTH:
			return "maxLength";
		case FHIR_RULE_MIN_LENGTH:
			return "minLength";
		case FHIR_RULE_REGEX:
			return "regex";
		case FHIR_RULE_UNITS:
			return item->units_rule;
		case FHIR_RULE_MIME_TYPE:
			return "mimeType";
		case FHIR_RULE_MAX_SIZE:
			return "maxSize";
		case FHIR_RULE_TARGETS:
			return "referenceResource";
	}
	return NULL;
}

static const char *
says_of(const FhirItem *item, FhirRule rule)
{
	switch (rule)
	{
		case FHIR_RULE_ORDER:
			return "must come where it comes in the questionnaire";
		case FHIR_RULE_ENABLE_WHEN:
			return "must not be answered unless its condition holds";
		case FHIR_RULE_REQUIRED:
			return item->type == FHIR_GROUP ? "must have an item" : "must be answered";
		case FHIR_RULE_MAX_OCCURS:
			return item->max_occurs_says;
		case FHIR_RULE_MIN_OCCURS:
			return item->min_occurs_says;
		case FHIR_RULE_CODES:
			return "must be one of the declared options";
		case FHIR_RULE_EXCLUSIVE:
			return "an option that excludes others must stand alone";
		case FHIR_RULE_MAX_PLACES:
			return item->max_places_says;
		case FHIR_RULE_MINIMUM:
			return item->minimum_says;
		case FHIR_RULE_MAXIMUM:
			return item->maximum_says;
		case FHIR_RULE_MAX_LENGTH:
			return item->max_length_says;
		case FHIR_RULE_MIN_LENGTH:
			return item->min_length_says;
		case FHIR_RULE_REGEX:
			return "must match the declared regular expression";
		case FHIR_RULE_UNITS:
			return "must be given in a declared unit, with its code and system";
		case FHIR_RULE_MIME_TYPE:
			return "must be of a declared MIME type";
		case FHIR_RULE_MAX_SIZE:
			return "must not be larger than declared";
		case FHIR_RULE_TARGETS:
			return "must refer to a resource of a declared type";
	}
	return NULL;
}

/* ---- findings ---- */

/* A finding, unless the rule is switched off; severity is the rule's own.  Is it an error? */
bool
item_fails(FhirTree *tree, const FhirItem *item, FhirRule rule, Severity severity,
		   const char *message)
{
	int			laid = severity_laid(item->overlay[rule], severity);

	if (laid != KEYWORD_OFF)
		finding_add(tree->response->findings, FINDING_SCHEMA, (Severity) laid, item->pointer,
					name_of(item, rule), message);
	return laid == SEVERITY_ERROR;
}

/* What cannot be decided is no more severe than the rule. */
void
item_unknown(FhirTree *tree, const FhirItem *item, FhirRule rule, Severity severity,
			 const char *message)
{
	int			laid = severity_laid(item->overlay[rule], severity);

	if (laid != KEYWORD_OFF)
		finding_add(tree->response->findings, FINDING_NOT_EVALUATED,
					Min((Severity) laid, severity), item->pointer, name_of(item, rule), message);
}

/* As item_fails(), of the response as a whole or of something at a location. */
void
head_fails(FhirTree *tree, FhirHeadRule rule, const char *location, Severity severity,
		   const char *message)
{
	int			laid = severity_laid(tree->questionnaire->overlay[rule], severity);
	int			i = 0;

	while (head_rules[i].head != (int) rule)
		i++;
	if (laid != KEYWORD_OFF)
		finding_add(tree->response->findings, FINDING_SCHEMA, (Severity) laid, location,
					head_rules[i].name, message);
}

/* Of the response as a whole, what cannot be decided. */
void
head_unknown(FhirTree *tree, FhirHeadRule rule, const char *message)
{
	int			i = 0;

	while (head_rules[i].head != (int) rule)
		i++;
	if (tree->questionnaire->overlay[rule] != KEYWORD_OFF)
		finding_add(tree->response->findings, FINDING_NOT_EVALUATED, SEVERITY_INFORMATION, "",
					head_rules[i].name, message);
}
