/*
 * response.c
 *		The list of findings of a chunk, and the words for their kinds.
 *
 * One list serves a whole chunk; each response owns a run of it, which starts
 * at list->first.  A response's run is bounded: what comes after the bound is
 * summed up by one last finding, so that a hostile payload cannot fill the
 * memory of a worker.
 */
#include "postgres.h"

#include "words/response.h"

static const char *const kind_name[] = {
	[FINDING_SCHEMA] = "schema",
	[FINDING_CHECK] = "check",
	[FINDING_ERROR] = "error",
	[FINDING_NOT_EVALUATED] = "not evaluated",
	[FINDING_UNANSWERED] = "unanswered",
	[FINDING_CONSTRAINT] = "constraint",
	[FINDING_CONVERSION] = "conversion",
	[FINDING_PAYLOAD] = "payload",
	[FINDING_FORM] = "form",
	[FINDING_SUBJECT] = "subject",
	[FINDING_DEIDENTIFY] = "deidentify",
};

static const char *const severity_names[] = {
	[SEVERITY_INFORMATION] = "information",
	[SEVERITY_WARNING] = "warning",
	[SEVERITY_ERROR] = "error",
};

/* Starts the next response's run of findings. */
void
findings_begin(FindingList *list)
{
	list->first = list->n;
	memset(list->count, 0, sizeof(list->count));
	list->skipped = 0;
	list->undeclared = 0;
}

/* Of the response at hand, keeps no more than its last findings. */
void
findings_keep(FindingList *list, int last)
{
	int			n = Min(last, list->n - list->first);

	for (int i = 0; i < n; i++)
		list->items[list->first + i] = list->items[list->n - n + i];
	list->n = list->first + n;
}

/*
 * Adds a finding to the response at hand.  Counts always, so that a response
 * is rejected or warned about for the finding that no longer fits as well.
 */
void
finding_add(FindingList *list, FindingKind kind, Severity severity,
			const char *location, const char *rule, const char *message)
{
	int			made = list->n - list->first;
	Finding    *finding;

	list->count[severity]++;
	if (kind == FINDING_NOT_EVALUATED)
		list->skipped++;
	if (made >= MAX_FINDINGS)
		return;

	if (list->n >= list->room)
	{
		list->room = Max(64, list->room * 2);
		if (list->items == NULL)
			list->items = MemoryContextAlloc(list->memory,
											 list->room * sizeof(Finding));
		else
			list->items = repalloc(list->items, list->room * sizeof(Finding));
	}

	finding = &list->items[list->n++];
	if (made == MAX_FINDINGS - 1)
	{
		finding->kind = FINDING_SCHEMA;
		finding->severity = severity;
		finding->location = "";
		finding->rule = "findings";
		finding->message = "more findings than are listed";
		return;
	}
	finding->kind = kind;
	finding->severity = severity;
	finding->location = location;
	finding->rule = rule;
	finding->message = message;
}

const char *
finding_kind_name(FindingKind kind)
{
	return kind_name[kind];
}

const char *
severity_name(Severity severity)
{
	return severity_names[severity];
}

/* Reads a severity's name; false when there is no such severity. */
bool
severity_from_name(const char *name, Severity *severity)
{
	for (int i = 0; i < (int) lengthof(severity_names); i++)
	{
		if (strcmp(name, severity_names[i]) == 0)
		{
			*severity = (Severity) i;
			return true;
		}
	}
	return false;
}
