/*
 * try.c
 *		Judging one response by a form's rules, as a run would, and storing
 *		nothing: for those who write rules.
 *
 * The response goes the way of a stream's, from one stage group to the next:
 * decoded and de-identified here, the rest by judge.c from a message of it.
 */
#include "postgres.h"

#include "pipeline/chunk.h"
#include "utils/memutils.h"
#include "words/message.h"

/*
 * The findings about a response, in the current memory context; those of the
 * list from "first" on.  Raises the errors of lookups that cannot be asked.
 */
FindingList *
pipeline_try(PipelineForm *form, Response *response)
{
	Pipeline	pipeline = {0};
	Run		   *run = palloc0(sizeof(Run));
	Chunk		chunk = {0};
	Row			row = {0};
	Parcel		parcel = {0};
	bool		goes_on;

	pipeline.forms = form;
	pipeline.nforms = 1;
	run->pipeline = &pipeline;
	run->first = STAGE_NORMALISE;
	run->last = STAGE_VALIDATE;
	run->bound = MaxAllocSize;
	run->chunk_memory = CurrentMemoryContext;
	run->row_memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl response",
											ALLOCSET_DEFAULT_SIZES);
	run->findings.memory = run->chunk_memory;
	initStringInfo(&run->message);
	form->lookups->is_trial = true;
	lookups_forget();

	response->values = form->values;
	response->findings = &run->findings;
	findings_begin(&run->findings);
	goes_on = decode(form->form, response) && deidentify(form->form, NULL, response);
	message_begin(&run->message, 0);
	message_pack(&run->message, 0, !goes_on, false, form->form, response, false);
	parcel.message = memcpy(palloc(run->message.len), run->message.data, run->message.len);
	parcel.len = run->message.len;

	row.parcel = &parcel;
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

		error_strip(error);
		ReThrowError(error);
	}
	PG_END_TRY();
	return &run->findings;
}
