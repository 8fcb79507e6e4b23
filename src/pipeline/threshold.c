/*
 * threshold.c
 *		Batch thresholds: which share of a form's responses may break a rule
 *		before the whole run is held.
 *
 * Who judges counts each chunk into Run.tally; who owns the run adds these up
 * and asks here.  What a run has committed cannot be held any more, so the
 * counting is a pass of its own, before the first response is taken: see
 * processes/worker.c and inline.c.  Owns nothing, takes no lock.
 */
#include "postgres.h"

#include "pipeline/chunk.h"
#include "utils/builtins.h"
#include "utils/float.h"

static bool breaks(const FindingList *findings, const Row *row, const char *rule);
static bool is_of(const Finding *finding, const char *rule);

/*
 * Counts the chunk at hand, which has been judged, anew.  A response that is
 * to stay in the source is for the run that judges it to the end.
 */
void
tally_rows(Chunk *chunk)
{
	Run		   *run = chunk->run;
	const Pipeline *pipeline = run->pipeline;

	memset(run->tally, 0, sizeof(Tally) * pipeline->nthresholds);
	for (int i = 0; i < chunk->n; i++)
	{
		const Row  *row = &chunk->rows[i];

		if (row->form == NULL || row->deferred)
			continue;
		for (int t = 0; t < pipeline->nthresholds; t++)
		{
			if (pipeline->thresholds[t].form != row->form)
				continue;
			run->tally[t].judged++;
			if (breaks(&run->findings, row, pipeline->thresholds[t].rule))
				run->tally[t].broken++;
		}
	}
}

/* Has one of a response's findings been made by this rule? */
static bool
breaks(const FindingList *findings, const Row *row, const char *rule)
{
	/* what the list has no room for may be the rule's */
	if (row->nfindings >= MAX_FINDINGS)
		return true;
	for (int i = row->first; i < row->first + row->nfindings; i++)
	{
		if (is_of(&findings->items[i], rule))
			return true;
	}
	return false;
}

/* A rule that could not be evaluated, or got no answer, is not broken. */
static bool
is_of(const Finding *finding, const char *rule)
{
	size_t		len;

	if (rule[0] != '/')
		return (finding->kind == FINDING_CHECK || finding->kind == FINDING_ERROR) &&
			strcmp(finding->rule, rule) == 0;
	if (finding->kind != FINDING_SCHEMA || finding->location == NULL)
		return false;
	len = strlen(finding->location);
	return strncmp(rule, finding->location, len) == 0 && rule[len] == '/' &&
		strcmp(rule + len + 1, finding->rule) == 0;
}

void
tally_add(const Pipeline *pipeline, Tally *totals, const Tally *tally)
{
	for (int t = 0; t < pipeline->nthresholds; t++)
	{
		totals[t].judged += tally[t].judged;
		totals[t].broken += tally[t].broken;
	}
}

/*
 * What to say of the first threshold that is exceeded, in the current memory
 * context; NULL: none is.  Holds names of the configuration and counts, no data.
 */
char *
threshold_exceeded(const Pipeline *pipeline, const Tally *totals, bool dry_run)
{
	for (int t = 0; t < pipeline->nthresholds; t++)
	{
		const Threshold *threshold = &pipeline->thresholds[t];
		const Tally *seen = &totals[t];

		/* a quotient is rounded as the share that was declared: they can be equal */
		if (seen->judged > 0 && seen->judged >= threshold->minimum &&
			(double) seen->broken / (double) seen->judged > threshold->max_ratio)
			return psprintf("batch threshold \"%s\" of form \"%s\" %s the run: " INT64_FORMAT " of " INT64_FORMAT
							" responses break the rule \"%s\", where at most a share of %s may",
							threshold->name, threshold->form->form->name, dry_run ? "would hold" : "holds",
							seen->broken, seen->judged, threshold->rule, float8out_internal(threshold->max_ratio));
	}
	return NULL;
}
