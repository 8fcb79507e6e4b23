/*
 * judge.c
 *		Judging a chunk: each response through the pure stages, or through
 *		those of them that this worker does.
 *
 * An edit check may raise an error, and PostgreSQL can only go on after an
 * error by rolling back to somewhere.  So the chunk is judged inside a
 * subtransaction, which writes nothing and costs no transaction id.  After an
 * error another is opened, and judging goes on behind the step that failed.
 *
 * Where rules ask for random codes, a first pass only collects what for, so that
 * all can be settled at once.  It leaves no other trace: the judging meets each
 * row, and whatever is wrong with it, again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pipeline/chunk.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "words/errors.h"
#include "words/message.h"

/* of the buffer that messages are packed in, times the bound */
#define MOST_KEPT 8

static void collect_originals(Chunk *chunk);
static void collect_row(Chunk *chunk);
static void judge_row(Chunk *chunk);
static void do_step(Chunk *chunk);
static void read_row(Chunk *chunk);
static void read_message(Chunk *chunk, Row *row);
static void pack_row(Chunk *chunk);
static void form_rows(Chunk *chunk);
static void end_row(Chunk *chunk);
static void check_row(Chunk *chunk);
static bool sink_takes(CheckSet *checks, const Sink *sink, const Response *response);
static void look_up_row(Chunk *chunk);
static void defer_row(Chunk *chunk, bool asked);
static bool rule_tried_to_write(const Chunk *chunk, const ErrorData *error);
static void absorb_judging_error(Chunk *chunk, ErrorData *error);
static void refuse_lost_connection(Chunk *chunk, const ErrorData *error);
static void absorb_lookup_error(Chunk *chunk, LookupFailure failure, ErrorData *error);
static PipelineForm *find_form(Pipeline *pipeline, Span name);

/* Judges all rows; an error of a rule costs a new subtransaction, no row. */
void
judge_rows(Chunk *chunk)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	while (chunk->at < chunk->n)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(memory);
		PG_TRY();
		{
			for (; chunk->at < chunk->n; chunk->at++)
			{
				CHECK_FOR_INTERRUPTS();
				POINT("judge.row");
				judge_row(chunk);
				chunk->step = STEP_READ;
			}
			ReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
		}
		PG_CATCH();
		{
			ErrorData  *error = error_take(memory);
			LookupSet  *lookups = chunk->step == STEP_LOOK_UP ?
				chunk->rows[chunk->at].form->lookups : NULL;
			LookupFailure failure = lookups ? lookup_failed(lookups, error) : LOOKUP_PASSED_ON;

			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
			POINT("judge.rolled_back");
			if (lookups != NULL)
				lookup_returned(lookups);
			/* all are judged, and who was asked is told that the subtransaction ends */
			if (chunk->at == chunk->n)
			{
				refuse_lost_connection(chunk, error);
				ReThrowError(error);
			}
			if (failure == LOOKUP_PASSED_ON && !error_is_datas(error->sqlerrcode) &&
				!rule_tried_to_write(chunk, error))
				ReThrowError(error);
			/* while a lookup is asked, its own budget may cancel */
			refuse_swallowed_cancel(chunk, lookups == NULL);
			if (lookups != NULL)
				absorb_lookup_error(chunk, failure, error);
			else
				absorb_judging_error(chunk, error);
		}
		PG_END_TRY();
	}
}

/*
 * Makes or finds the codes that judging is going to ask for, outside of its
 * subtransactions.  A dry run makes none that stay.
 */
void
resolve_codes(Chunk *chunk)
{
	Run		   *run = chunk->run;

	if (run->codes == NULL)
		return;
	collect_originals(chunk);
	pseudonyms_resolve(run->codes, run->run_id, !run->dry_run);
}

static void
collect_originals(Chunk *chunk)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	while (chunk->at < chunk->n)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(memory);
		PG_TRY();
		{
			for (; chunk->at < chunk->n; chunk->at++)
			{
				CHECK_FOR_INTERRUPTS();
				chunk->mark = cancel_mark();
				MemoryContextReset(chunk->run->row_memory);
				MemoryContextSwitchTo(chunk->run->row_memory);
				POINT("codes.collect");
				collect_row(chunk);
				MemoryContextSwitchTo(memory);
			}
			ReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
		}
		PG_CATCH();
		{
			ErrorData  *error = error_take(memory);

			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
			if (chunk->at == chunk->n || !error_is_datas(error->sqlerrcode))
				ReThrowError(error);
			refuse_swallowed_cancel(chunk, true);
			POINT("codes.absorb");
			/* it cannot be read: for the judging to say */
			chunk->at++;
		}
		PG_END_TRY();
	}
	chunk->at = 0;
	chunk->step = STEP_READ;
	chunk->run->findings.n = 0;
}

/* Of one response, as far as this worker de-identifies it. */
static void
collect_row(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Response   *response = &run->response;
	Row		   *row = &chunk->rows[chunk->at];
	Row			untouched = *row;
	bool		has_body = row->parcel != NULL &&
		message_head(row->parcel->message, row->parcel->len).has_body;
	PipelineForm *form;

	if (has_body && run->first > STAGE_DEIDENTIFY)
		return;
	if (!has_body)
	{
		memset(response, 0, sizeof(*response));
		claim_read_names(run->claim, row->original, response);
		form = response->form_name.data ? find_form(run->pipeline, response->form_name) : NULL;
		if (form == NULL || (form->form->subject_domain == NULL && !form->form->has_coded_items))
			return;
		if (!form->form->has_coded_items)
		{
			pseudonymize_collect(form->form, response, false, run->codes);
			return;
		}
	}
	read_row(chunk);
	if (row->form != NULL && !row->ended &&
		(chunk->step == STEP_DEIDENTIFY || decode(row->form->form, response)))
		pseudonymize_collect(row->form->form, response, true, run->codes);
	*row = untouched;
	run->findings.n = 0;
}

/* One response through this worker's stages; goes on where an error broke off. */
static void
judge_row(Chunk *chunk)
{
	Run		   *run = chunk->run;

	chunk->mark = cancel_mark();
	if (chunk->step == STEP_READ)
		MemoryContextReset(run->row_memory);
	MemoryContextSwitchTo(run->row_memory);
	if (chunk->step == STEP_READ)
		read_row(chunk);
	while (chunk->step < chunk->end)
		do_step(chunk);
	end_row(chunk);
	if (run->last != STAGE_STORE && run->given == NULL)
		pack_row(chunk);
	MemoryContextSwitchTo(run->chunk_memory);
}

/* One stage's work on the response at hand: which step comes next. */
static void
do_step(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Response   *response = &run->response;
	Row		   *row = &chunk->rows[chunk->at];
	const CompiledForm *form = row->form->form;

	switch (chunk->step)
	{
		case STEP_DECODE:
			if (run->pseudonymiser != NULL)
				pseudonymiser_expect(run->pseudonymiser, response->study, response->subject);
			row->ended = !decode(form, response);
			chunk->step = row->ended ? STEP_DONE : STEP_DEIDENTIFY;
			break;
		case STEP_DEIDENTIFY:
			row->ended = !deidentify(form, run->pseudonymiser, run->codes, response);
			chunk->step = row->ended ? STEP_DONE : STEP_NORMALISE;
			break;
		case STEP_NORMALISE:
			normalise(form, response);
			chunk->step = STEP_VALIDATE;
			break;
		case STEP_VALIDATE:
			validate(form, response);
			chunk->next_check = 0;
			chunk->step = STEP_CHECK;
			break;
		case STEP_CHECK:
			if (row->form->checks->nchecks > 0)
				check_row(chunk);
			chunk->step = STEP_SHIFT;
			break;
		case STEP_SHIFT:
			/* what comes behind, and other servers, see no true date */
			shift_dates(form, response);
			chunk->next_lookup = 0;
			chunk->step = STEP_LOOK_UP;
			break;
		case STEP_LOOK_UP:
			look_up_row(chunk);
			break;
		case STEP_FORM:
			if (run->findings.count[SEVERITY_ERROR] == 0)
				form_rows(chunk);
			chunk->step = STEP_DONE;
			break;
		case STEP_READ:
		case STEP_DONE:
			Assert(false);
			break;
	}
}

static void
read_row(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Response   *response = &run->response;
	Row		   *row = &chunk->rows[chunk->at];

	memset(response, 0, sizeof(*response));
	if (run->given != NULL)
		*response = *run->given;
	response->findings = &run->findings;
	findings_begin(&run->findings);
	row->first = run->findings.first;
	if (run->given != NULL)
	{
		row->form = &run->pipeline->forms[0];
		response->values = row->form->values;
		chunk->step = STEP_DECODE;
		return;
	}
	if (row->parcel != NULL && message_head(row->parcel->message, row->parcel->len).has_body)
	{
		read_message(chunk, row);
		return;
	}

	claim_read(run->claim, row->original, response);
	row->form = response->form_name.data ?
		find_form(run->pipeline, response->form_name) : NULL;
	chunk->step = STEP_DECODE;
	if (row->form == NULL)
	{
		finding_add(&run->findings, FINDING_FORM, SEVERITY_ERROR, NULL, "form",
					response->form_name.data == NULL ? "the response names no form" :
					"the form is not registered, or has no sink in this pipeline");
		row->ended = true;
		chunk->step = STEP_DONE;
	}
	else
		response->values = row->form->values;
}

/* Goes on with what the group before has made of it. */
static void
read_message(Chunk *chunk, Row *row)
{
	Run		   *run = chunk->run;
	Parcel	   *parcel = row->parcel;
	MessageHead head = message_head(parcel->message, parcel->len);

	if (head.form >= run->pipeline->nforms)
		elog(ERROR, "a message names a form that is not there");
	if (head.form >= 0)
	{
		row->form = &run->pipeline->forms[head.form];
		run->response.values = row->form->values;
	}
	row->ended = head.ended;
	row->deferred = head.deferred;
	chunk->step = head.ended ? STEP_DONE : first_step[run->first];
	message_unpack(parcel->message, parcel->len, row->form ? row->form->form : NULL,
				   &run->response);
}

/*
 * For the next group.  What is too large for the channel goes by its address; so
 * does what is still to be judged by more than its items.
 */
static void
pack_row(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[chunk->at];
	StringInfo	message = &run->message;
	bool		by_address = !row->ended && run->last < STAGE_VALIDATE &&
		row->form->form->needs_payload;

	message_begin(message, row->parcel->place);
	if (!by_address)
		message_pack(message, row->form ? (int32) (row->form - run->pipeline->forms) : -1,
					 row->ended, row->deferred, row->form ? row->form->form : NULL, &run->response,
					 run->last < STAGE_DEIDENTIFY);
	if (message->len > run->bound)
		message_begin(message, row->parcel->place);
	row->parcel->packed = MemoryContextAlloc(run->chunk_memory, message->len);
	memcpy(row->parcel->packed, message->data, message->len);
	row->parcel->packed_len = message->len;
	if (message->maxlen > MOST_KEPT * run->bound)
	{
		message->maxlen = (int) run->bound;
		message->data = repalloc(message->data, message->maxlen);
	}
}

/* Expressions of the server's own functions can do no harm: the guard is for others. */
static void
check_row(Chunk *chunk)
{
	CheckSet   *checks = chunk->rows[chunk->at].form->checks;
	Response   *response = &chunk->run->response;
	RuleScope	scope;

	checkset_read(checks, response);
	if (checks->calls_out)
		rules_begin(&scope);
	check(checks, response, chunk->next_check);
	if (checks->calls_out)
		rules_end(&scope);
}

static bool
sink_takes(CheckSet *checks, const Sink *sink, const Response *response)
{
	RuleScope	scope;
	bool		isnull;
	bool		holds;

	checkset_read(checks, response);
	if (checks->calls_out)
		rules_begin(&scope);
	holds = checkset_holds(checks, sink->condition, &isnull);
	if (checks->calls_out)
		rules_end(&scope);
	return holds && !isnull;
}

/* Asks what the response calls for; one that gets no answer may have to wait. */
static void
look_up_row(Chunk *chunk)
{
	Row		   *row = &chunk->rows[chunk->at];
	bool		goes_on;

	if (row->form->lookups->n > 0)
		chunk->run->asked = true;
	goes_on = look_up(row->form->lookups, &chunk->run->response, chunk->next_lookup);
	chunk->mark = cancel_mark();
	chunk->step = STEP_FORM;
	if (!goes_on)
		defer_row(chunk, false);
}

/*
 * The response is to stay in the source.  Its other findings are for when it is
 * judged to the end.  A stream meets it again and again: it says so only when the
 * reference has been asked.
 */
static void
defer_row(Chunk *chunk, bool asked)
{
	Row		   *row = &chunk->rows[chunk->at];

	findings_keep(&chunk->run->findings, asked || row->parcel == NULL ? 1 : 0);
	row->deferred = row->ended = true;
	chunk->step = STEP_DONE;
}

/* Forms the rows of every sink that the response is for. */
static void
form_rows(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[chunk->at];
	PipelineForm *form = row->form;
	StoreFacts	facts = {0};
	bool		any = false;
	bool		empty = false;

	/* an error may have broken off the forming of another response's row */
	chunk->forming = NULL;
	facts.form = form->form;
	facts.run_id = run->run_id;
	facts.key_version = pseudonymiser_version(run->pseudonymiser);
	facts.loaded_at = chunk->loaded_at;
	facts.source_id = claim_id(run->claim, row->original, &facts.source_id_type,
							   &facts.source_id_isnull);
	row->formed = MemoryContextAllocZero(run->chunk_memory,
										 sizeof(SinkRows) * form->nsinks);
	for (int i = 0; i < form->nsinks; i++)
	{
		Sink	   *sink = form->sinks[i];
		bool		fits;

		if (sink->condition != NULL && !sink_takes(form->checks, sink, &run->response))
			continue;
		chunk->forming = sink;
		fits = sink_form_rows(sink, &run->response, &facts, run->chunk_memory,
							  &row->formed[i]);
		chunk->forming = NULL;
		if (fits && row->formed[i].n == 0)
			empty = true;
		else
			any = true;
	}
	/* a response must arrive somewhere: it may not vanish between conditions */
	if (!any)
		finding_add(&run->findings, FINDING_FORM, SEVERITY_ERROR, NULL, "sink",
					empty ? "no item is answered: nothing to store" :
					"no sink's condition holds for the response");
}

/* The response is judged: keep what must outlive its scratch memory. */
static void
end_row(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[chunk->at];
	FindingList *findings = &run->findings;
	Span		id = run->response.source_id;
	Span		name = run->response.form_name;

	row->nfindings = findings->n - row->first;
	if (row->deferred)
		row->verdict = VERDICT_DEFERRED;
	else if (findings->count[SEVERITY_ERROR] > 0)
		row->verdict = VERDICT_REJECTED;
	row->warned = findings->count[SEVERITY_WARNING] > 0;
	chunk->skipped += findings->skipped;
	chunk->undeclared += findings->undeclared;

	/* only who has findings now, or is refused by a sink later, needs names */
	row->form_name = row->form ? row->form->form->name : NULL;
	if (row->nfindings > 0 || row->verdict != VERDICT_PASSED)
	{
		MemoryContext caller = MemoryContextSwitchTo(run->chunk_memory);

		if (id.data != NULL)
			row->source_id = pnstrdup(id.data, id.len);
		if (row->form_name == NULL && name.data != NULL)
			row->form_name = pnstrdup(name.data, name.len);
		MemoryContextSwitchTo(caller);
	}
}

/* Or to be let write: the rule's error, though it looks like one of the transaction. */
static bool
rule_tried_to_write(const Chunk *chunk, const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INVALID_TRANSACTION_STATE &&
		(chunk->step == STEP_CHECK || (chunk->step == STEP_FORM && chunk->forming == NULL));
}

/* Turns an error of the row at hand into a finding, and says where to go on. */
static void
absorb_judging_error(Chunk *chunk, ErrorData *error)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[chunk->at];
	CheckSet   *checks = row->form ? row->form->checks : NULL;
	const char *sqlstate = MemoryContextStrdup(run->chunk_memory,
											   unpack_sql_state(error->sqlerrcode));
	const char *message = psprintf("raised an error (SQLSTATE %s)", sqlstate);

	switch (chunk->step)
	{
		case STEP_CHECK:
			finding_add(&run->findings, FINDING_ERROR, SEVERITY_ERROR, "",
						checks->checks[checks->current].name, message);
			chunk->next_check = checks->current + 1;
			return;
		case STEP_FORM:
			{
				const char *location = "";
				const char *column = "sink";

				if (chunk->forming == NULL)
				{
					finding_add(&run->findings, FINDING_ERROR, SEVERITY_ERROR, "",
								"sink condition", message);
					break;
				}
				(void) sink_error_place(chunk->forming, &location, &column);
				finding_add(&run->findings, FINDING_CONVERSION, SEVERITY_ERROR, location,
							column, psprintf("the column's type refused the answer (SQLSTATE %s)", sqlstate));
				break;
			}
		default:
			finding_add(&run->findings, FINDING_PAYLOAD, SEVERITY_ERROR, "",
						"row", psprintf("the row could not be read (SQLSTATE %s)", sqlstate));
			break;
	}
	row->ended = true;
	chunk->step = STEP_DONE;
}

/* A question was broken off: what that means for the row, and where to go on. */
static void
absorb_lookup_error(Chunk *chunk, LookupFailure failure, ErrorData *error)
{
	Row		   *row = &chunk->rows[chunk->at];
	LookupSet  *lookups = row->form->lookups;

	chunk->next_lookup = lookups->current + 1;
	if (!lookup_settle(lookups, failure, error, &chunk->run->response))
		defer_row(chunk, true);
	if (failure == LOOKUP_UNANSWERED)
		refuse_lost_connection(chunk, error);
}

/* Who writes must not go on with a transaction that cannot be committed. */
static void
refuse_lost_connection(Chunk *chunk, const ErrorData *error)
{
	if (chunk->run->asked && chunk->run->last == STAGE_STORE && lookup_lost_connection(error))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("a connection was lost over which a lookup had asked"),
				 errdetail("The transaction cannot be committed any more."),
				 errhint("Run the pipeline again.")));
}

/* The forms are sorted by name, as bytes. */
static PipelineForm *
find_form(Pipeline *pipeline, Span name)
{
	int			low = 0;
	int			high = pipeline->nforms - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		PipelineForm *form = &pipeline->forms[middle];
		int			len = (int) strlen(form->form->name);
		int			order = memcmp(name.data, form->form->name, Min(name.len, len));

		if (order == 0)
			order = name.len - len;
		if (order == 0)
			return form;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return NULL;
}
