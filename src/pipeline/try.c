/*
 * try.c
 *		Judging one response by a form's rules, as a run would, and storing
 *		nothing: for those who write rules.
 */
#include "postgres.h"

#include "effects/point.h"
#include "pipeline/chunk.h"
#include "utils/memutils.h"

/*
 * The findings about a response, in the current memory context; those of the
 * list from "first" on.  Raises the errors of lookups that cannot be asked.
 */
FindingList *
pipeline_try(PipelineForm *form, const Response *response)
{
	Pipeline	pipeline = {0};
	Run		   *run = palloc0(sizeof(Run));
	Chunk		chunk = {0};
	Row			row = {0};

	pipeline.forms = form;
	pipeline.nforms = 1;
	run->pipeline = &pipeline;
	run->last = STAGE_VALIDATE;
	run->given = response;
	run->chunk_memory = CurrentMemoryContext;
	run->row_memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl response",
											ALLOCSET_DEFAULT_SIZES);
	run->findings.memory = run->chunk_memory;
	form->lookups->is_trial = true;
	lookups_forget();

	chunk.run = run;
	chunk.rows = &row;
	chunk.n = 1;
	chunk.end = first_step[STAGE_STORE];
	PG_TRY();
	{
		judge_rows(&chunk);
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(run->chunk_memory);

		POINT("trial.absorb");
		error_strip(error);
		ReThrowError(error);
	}
	PG_END_TRY();
	return &run->findings;
}
