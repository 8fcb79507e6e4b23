/*
 * chunk.c
 *		One chunk: the composition of the stages, and its transaction.
 *
 *		claim -> decode -> de-identify -> normalise -> validate -> store -> account
 *
 * The caller gives the transaction; all of this happens in it, so that leaving
 * staging, arriving and being accounted for are one.  Within it stand two
 * kinds of subtransaction:
 *
 * - around the judging of the chunk, which writes nothing (so it costs no
 *	 transaction id): an edit check may raise an error, and PostgreSQL can only
 *	 go on after an error by rolling back to somewhere.  It is opened again
 *	 once an error, not once a response;
 *
 * - around each try to store.  The writer tells which row was refused, so that
 *	 row is rejected and the others are tried again, in tries that begin small
 *	 and grow: every row is inserted a bounded number of times, however many
 *	 are refused, and there is never a subtransaction a row.
 *
 * A stream may cut the composition between two stages: then each group of
 * workers does its part, and a response travels between them as a message.
 * The last group claims, stores and accounts as a batch's worker does; the
 * groups before it write nothing.
 *
 * An error's text may hold an answer.  Here it ends: what is kept of it is the
 * SQLSTATE and the names of constraint and column.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pipeline/pipeline.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "words/errors.h"
#include "words/message.h"

/* originals of rejected responses that may wait in memory for their insert */
#define MOST_REJECTED 256
#define MOST_REJECTED_BYTES (8 * 1024 * 1024)

typedef enum Verdict
{
	VERDICT_PASSED = 0,
	VERDICT_REJECTED,
	VERDICT_DUPLICATE
} Verdict;

/* How far the judging of a response has come: where to go on after an error. */
typedef enum Step
{
	STEP_READ = 0,
	STEP_DECODE,
	STEP_DEIDENTIFY,
	STEP_NORMALISE,
	STEP_VALIDATE,
	STEP_CHECK,
	STEP_FORM,
	STEP_DONE
} Step;

const char *const stage_name[STAGE_COUNT] = {
	[STAGE_DECODE] = "decode",
	[STAGE_DEIDENTIFY] = "deidentify",
	[STAGE_NORMALISE] = "normalise",
	[STAGE_VALIDATE] = "validate",
	[STAGE_STORE] = "store",
};

static const Step first_step[STAGE_COUNT] = {
	[STAGE_DECODE] = STEP_DECODE,
	[STAGE_DEIDENTIFY] = STEP_DEIDENTIFY,
	[STAGE_NORMALISE] = STEP_NORMALISE,
	[STAGE_VALIDATE] = STEP_VALIDATE,
	[STAGE_STORE] = STEP_FORM,
};

typedef struct Row
{
	HeapTuple	original;		/* NULL in a group that has a message of it */
	Parcel	   *parcel;			/* a stream's; else NULL */
	PipelineForm *form;			/* NULL: unknown */
	const char *form_name;
	const char *source_id;
	Verdict		verdict;
	bool		warned;
	bool		ended;			/* no stage has more to say about it */
	int			first;			/* of the chunk's findings */
	int			nfindings;
	SinkRows   *formed;			/* a sink each */
} Row;

typedef struct Chunk
{
	Run		   *run;
	Row		   *rows;
	int			n;
	int			at;				/* the row at hand */
	Step		step;			/* of the row at hand */
	Step		end;			/* where this worker's part ends */
	int			next_check;
	Sink	   *forming;		/* whose row is being formed, or NULL */
	int			stored;			/* of the store's try at hand: which row */
	HeapTuple  *batch;			/* scratch of the store */
	int		   *batch_row;		/* which row each of the batch is of */
	volatile int batch_at;		/* of the insert at hand; -1: not known */
	TimestampTz loaded_at;
	int64		skipped;		/* checks not evaluated */
} Chunk;

static int	do_chunk(Run *run, Counts *counts);
static MemoryContext begin_chunk(Run *run, Chunk *chunk);
static void claim_rows(Chunk *chunk);
static void claim_parcels(Chunk *chunk);
static void judge_rows(Chunk *chunk);
static void judge_row(Chunk *chunk);
static void do_step(Chunk *chunk);
static void read_row(Chunk *chunk);
static void read_message(Chunk *chunk, Row *row);
static void pack_row(Chunk *chunk);
static void form_rows(Chunk *chunk);
static void end_row(Chunk *chunk);
static void absorb_judging_error(Chunk *chunk, ErrorData *error);
static void store_rows(Chunk *chunk);
static Size most_tuples(const Chunk *chunk);
static bool try_store(Chunk *chunk, int from, int to);
static void insert_rows(Chunk *chunk, int from, int to);
static void reject_stored(Chunk *chunk, int at, ErrorData *error);
static bool is_sink_column(const PipelineForm *form, const char *name);
static void account_rows(Chunk *chunk, Counts *counts);
static void quarantine_rows(Chunk *chunk);
static void settle_requeued(Chunk *chunk);
static ErrorData *take_error(MemoryContext memory);
pg_attribute_noreturn() static void rethrow_without_data(ErrorData *error);
static PipelineForm *find_form(Pipeline *pipeline, Span name);

/* Prepares a run for its chunks, in the current memory context. */
void
run_begin(Run *run, BlockRanges *ranges)
{
	run->chunk_memory = AllocSetContextCreate(CurrentMemoryContext,
											  "epro_etl chunk",
											  ALLOCSET_DEFAULT_SIZES);
	run->row_memory = AllocSetContextCreate(CurrentMemoryContext,
											"epro_etl response",
											ALLOCSET_DEFAULT_SIZES);
	run->claim = claim_create(&run->pipeline->source, ranges, run->dry_run);
}

/*
 * Does one chunk in the current transaction, under the active snapshot.
 * Returns the number of rows claimed, 0 when there are no more, and adds to
 * counts.  What it allocated is gone at the next call.
 */
int
run_chunk(Run *run, Counts *counts)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile int claimed = 0;

	PG_TRY();
	{
		claimed = do_chunk(run, counts);
	}
	PG_CATCH();
	{
		/* whatever raised it, on whatever table: the text ends here */
		rethrow_without_data(take_error(memory));
	}
	PG_END_TRY();
	return claimed;
}

/*
 * Does a stream's stage group's part of the parcels at hand, in the current
 * transaction, under the active snapshot; writes nothing.  A parcel's result
 * is its packed message; one that is not there any more is gone.
 */
void
run_stages(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;

	PG_TRY();
	{
		Chunk		chunk = {0};
		MemoryContext caller = begin_chunk(run, &chunk);

		claim_parcels(&chunk);
		progress_phase(run->progress, PHASE_VALIDATING);
		judge_rows(&chunk);
		MemoryContextSwitchTo(caller);
	}
	PG_CATCH();
	{
		rethrow_without_data(take_error(memory));
	}
	PG_END_TRY();
}

static int
do_chunk(Run *run, Counts *counts)
{
	Chunk		chunk = {0};
	MemoryContext caller = begin_chunk(run, &chunk);

	progress_phase(run->progress, PHASE_CLAIMING);
	if (run->parcels != NULL)
		claim_parcels(&chunk);
	else
		claim_rows(&chunk);
	if (chunk.n > 0)
	{
		progress_phase(run->progress, PHASE_VALIDATING);
		judge_rows(&chunk);
		if (!run->dry_run)
		{
			progress_phase(run->progress, PHASE_STORING);
			store_rows(&chunk);
		}
		progress_phase(run->progress, PHASE_ACCOUNTING);
		account_rows(&chunk, counts);
	}
	MemoryContextSwitchTo(caller);
	return chunk.n;
}

/* Brings what is compiled up to date; returns the caller's memory context. */
static MemoryContext
begin_chunk(Run *run, Chunk *chunk)
{
	run->pipeline = pipeline_refresh(run->pipeline, run->last == STAGE_STORE);
	claim_set_source(run->claim, &run->pipeline->source);
	MemoryContextReset(run->chunk_memory);
	memset(&run->findings, 0, sizeof(run->findings));
	run->findings.memory = run->chunk_memory;
	chunk->run = run;
	chunk->end = run->last == STAGE_STORE ? STEP_DONE : first_step[run->last + 1];
	chunk->loaded_at = GetCurrentTransactionStartTimestamp();
	return MemoryContextSwitchTo(run->chunk_memory);
}

/* The next rows of a batch. */
static void
claim_rows(Chunk *chunk)
{
	Run		   *run = chunk->run;
	HeapTuple  *claimed = palloc(sizeof(HeapTuple) * (run->batch_size + CLAIM_SLACK));

	chunk->n = claim_chunk(run->claim, run->batch_size, claimed);
	chunk->rows = palloc0(sizeof(Row) * chunk->n);
	for (int i = 0; i < chunk->n; i++)
		chunk->rows[i].original = claimed[i];
}

/*
 * A stream's rows.  Who stores takes them out of the source; the groups before
 * read there only what came as an address.
 */
static void
claim_parcels(Chunk *chunk)
{
	Run		   *run = chunk->run;
	bool		take = run->last == STAGE_STORE;
	Parcel	  **parcels = palloc(sizeof(Parcel *) * run->nparcels);
	Address    *addresses = palloc(sizeof(Address) * run->nparcels);
	HeapTuple  *claimed = palloc(sizeof(HeapTuple) * run->nparcels);
	ClaimFate  *fates = palloc(sizeof(ClaimFate) * run->nparcels);
	int			n = 0;

	chunk->rows = palloc0(sizeof(Row) * run->nparcels);
	for (int i = 0; i < run->nparcels; i++)
	{
		Parcel	   *parcel = &run->parcels[i];

		if (parcel->fate != PARCEL_OPEN)
			continue;
		if (!take && message_head(parcel->message, parcel->len).has_body)
		{
			chunk->rows[chunk->n++].parcel = parcel;
			continue;
		}
		parcels[n] = parcel;
		addresses[n++] = parcel->address;
	}
	if (n > 0)
		claim_addressed(run->claim, addresses, n, take, claimed, fates);
	for (int i = 0; i < n; i++)
	{
		if (fates[i] != CLAIM_TAKEN)
		{
			parcels[i]->fate = fates[i] == CLAIM_GONE ? PARCEL_GONE : PARCEL_HELD;
			continue;
		}
		chunk->rows[chunk->n].original = claimed[i];
		chunk->rows[chunk->n++].parcel = parcels[i];
	}
}

/* Judges all rows; an error of a rule costs a new subtransaction, no row. */
static void
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
				judge_row(chunk);
				chunk->step = STEP_READ;
			}
			ReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
		}
		PG_CATCH();
		{
			ErrorData  *error = take_error(memory);

			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(memory);
			CurrentResourceOwner = owner;
			if (!error_is_datas(error->sqlerrcode))
				ReThrowError(error);
			absorb_judging_error(chunk, error);
		}
		PG_END_TRY();
	}
}

/* One response through this worker's stages; goes on where an error broke off. */
static void
judge_row(Chunk *chunk)
{
	Run		   *run = chunk->run;

	if (chunk->step == STEP_READ)
		MemoryContextReset(run->row_memory);
	MemoryContextSwitchTo(run->row_memory);
	if (chunk->step == STEP_READ)
		read_row(chunk);
	while (chunk->step < chunk->end)
		do_step(chunk);
	end_row(chunk);
	if (run->last != STAGE_STORE)
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
			row->ended = !decode(form, response);
			chunk->step = row->ended ? STEP_DONE : STEP_DEIDENTIFY;
			break;
		case STEP_DEIDENTIFY:
			row->ended = !deidentify(form, run->pseudonymiser, response);
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
			{
				checkset_read(row->form->checks, response);
				check(row->form->checks, response, chunk->next_check);
			}
			chunk->step = STEP_FORM;
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
	response->findings = &run->findings;
	findings_begin(&run->findings);
	row->first = run->findings.first;
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
	chunk->step = head.ended ? STEP_DONE : first_step[run->first];
	message_unpack(parcel->message, parcel->len, row->form ? row->form->form : NULL,
				   &run->response);
}

/* For the next group; what is too large for the channel goes by its address. */
static void
pack_row(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[chunk->at];
	StringInfoData message;

	MemoryContextSwitchTo(run->row_memory);
	initStringInfo(&message);
	message_begin(&message, row->parcel->place);
	message_pack(&message, row->form ? (int32) (row->form - run->pipeline->forms) : -1,
				 row->ended, row->form ? row->form->form : NULL, &run->response,
				 run->last < STAGE_DEIDENTIFY);
	if (message.len > run->bound)
		message_begin(&message, row->parcel->place);
	row->parcel->packed = MemoryContextAlloc(run->chunk_memory, message.len);
	memcpy(row->parcel->packed, message.data, message.len);
	row->parcel->packed_len = message.len;
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
	facts.loaded_at = chunk->loaded_at;
	facts.source_id = claim_id(run->claim, row->original, &facts.source_id_type,
							   &facts.source_id_isnull);
	row->formed = MemoryContextAllocZero(run->chunk_memory,
										 sizeof(SinkRows) * form->nsinks);
	for (int i = 0; i < form->nsinks; i++)
	{
		Sink	   *sink = form->sinks[i];
		bool		fits;

		if (sink->condition != NULL)
		{
			bool		isnull;
			bool		holds;

			checkset_read(form->checks, &run->response);
			holds = checkset_holds(form->checks, sink->condition, &isnull);
			if (isnull || !holds)
				continue;
		}
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
	if (findings->count[SEVERITY_ERROR] > 0)
		row->verdict = VERDICT_REJECTED;
	row->warned = findings->count[SEVERITY_WARNING] > 0;
	chunk->skipped += findings->skipped;

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

/* Stores what passed; refused rows are rejected one by one, others go in. */
static void
store_rows(Chunk *chunk)
{
	int			from = 0;
	int			attempt = chunk->n;
	Size		room = most_tuples(chunk);

	chunk->batch = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(HeapTuple) * room);
	chunk->batch_row = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * room);
	while (from < chunk->n)
	{
		int			to = Min(chunk->n, from + attempt);

		CHECK_FOR_INTERRUPTS();
		if (try_store(chunk, from, to))
		{
			from = to;
			attempt = Min(attempt * 2, chunk->n);
		}
		else if (chunk->stored >= 0)
			attempt = Max(1, 2 * (chunk->stored - from));
		else
			attempt = Max(1, (to - from) / 2);
	}
}

/* How many tuples one sink can be given at once, at most. */
static Size
most_tuples(const Chunk *chunk)
{
	Size		n = 1;

	for (int i = 0; i < chunk->n; i++)
	{
		const Row  *row = &chunk->rows[i];
		int			most = 0;

		if (row->verdict != VERDICT_PASSED)
			continue;
		for (int s = 0; s < row->form->nsinks; s++)
			most = Max(most, row->formed[s].n);
		n += most;
	}
	return n;
}

/*
 * Stores the rows from..to in one subtransaction.  If the data is refused,
 * returns false: chunk->stored is the row, rejected by now, or -1 when it is
 * not known which one it was.
 */
static bool
try_store(Chunk *chunk, int from, int to)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool stored = false;

	chunk->stored = -1;
	chunk->batch_at = -1;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		insert_rows(chunk, from, to);
		ReleaseCurrentSubTransaction();
		stored = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = take_error(memory);

		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		if (!error_is_datas(error->sqlerrcode))
			ReThrowError(error);
		if (chunk->batch_at >= 0)
			chunk->stored = chunk->batch_row[chunk->batch_at];
		else if (to - from == 1)
			chunk->stored = from;
		if (chunk->stored >= 0)
			reject_stored(chunk, chunk->stored, error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	return stored;
}

/* Sink by sink; on an error chunk->batch_at is the row's place, or -1. */
static void
insert_rows(Chunk *chunk, int from, int to)
{
	Pipeline   *pipeline = chunk->run->pipeline;

	for (int f = 0; f < pipeline->nforms; f++)
	{
		PipelineForm *form = &pipeline->forms[f];

		for (int s = 0; s < form->nsinks; s++)
		{
			int			n = 0;

			for (int i = from; i < to; i++)
			{
				Row		   *row = &chunk->rows[i];

				if (row->form != form || row->verdict != VERDICT_PASSED)
					continue;
				for (int t = 0; t < row->formed[s].n; t++)
				{
					chunk->batch[n] = row->formed[s].tuples[t];
					chunk->batch_row[n++] = i;
				}
			}
			if (n > 0)
				sink_insert(form->sinks[s], chunk->batch, n, &chunk->batch_at);
		}
	}
}

/* A sink refused a row: a finding without the row's values. */
static void
reject_stored(Chunk *chunk, int at, ErrorData *error)
{
	Run		   *run = chunk->run;
	Row		   *row = &chunk->rows[at];
	FindingList *findings = &run->findings;
	const char *rule = error->constraint_name && constraint_exists(error->constraint_name) ?
		error->constraint_name : unpack_sql_state(error->sqlerrcode);
	const char *message;
	Response	response = {0};
	int			before;

	switch (error->sqlerrcode)
	{
		case ERRCODE_UNIQUE_VIOLATION:
		case ERRCODE_EXCLUSION_VIOLATION:
			message = "the sink already holds a row with this key";
			break;
		case ERRCODE_NOT_NULL_VIOLATION:
			message = error->column_name && is_sink_column(row->form, error->column_name) ?
				psprintf("column \"%s\" of the sink must not be null", error->column_name) :
				"a column of the sink must not be null";
			break;
		case ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION:
			message = "the sink did not store the row: a trigger or rule suppressed it";
			break;
		case ERRCODE_FOREIGN_KEY_VIOLATION:
			message = "the row that the sink refers to does not exist";
			break;
		case ERRCODE_CHECK_VIOLATION:
			/* another server names neither constraint nor table */
			message = error->constraint_name || !error->table_name ?
				"a check constraint of the sink does not hold" :
				"no partition of the sink takes the row";
			break;
		default:
			message = psprintf("the sink refused the row (SQLSTATE %s)",
							   unpack_sql_state(error->sqlerrcode));
			break;
	}

	/* its earlier findings and this one must stand together: move them */
	before = row->nfindings;
	findings_begin(findings);
	for (int i = 0; i < before; i++)
	{
		Finding		moved = findings->items[row->first + i];

		finding_add(findings, moved.kind, moved.severity, moved.location,
					moved.rule, moved.message);
	}
	finding_add(findings, FINDING_CONSTRAINT, SEVERITY_ERROR, "",
				pstrdup(rule), message);
	row->first = findings->first;
	row->nfindings = findings->n - findings->first;
	row->verdict = error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION ||
		error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION ?
		VERDICT_DUPLICATE : VERDICT_REJECTED;
	row->warned = false;

	if (row->source_id == NULL)
	{
		claim_read(run->claim, row->original, &response);
		if (response.source_id.data != NULL)
			row->source_id = pnstrdup(response.source_id.data, response.source_id.len);
	}
}

/* An error can be raised with any name; only a column's own is repeated. */
static bool
is_sink_column(const PipelineForm *form, const char *name)
{
	for (int i = 0; i < form->nsinks; i++)
	{
		if (get_attnum(form->sinks[i]->relid, name) != InvalidAttrNumber)
			return true;
	}
	return false;
}

static void
account_rows(Chunk *chunk, Counts *counts)
{
	Run		   *run = chunk->run;
	Counts		made = {0};
	FoundFor   *found = palloc(sizeof(FoundFor) * chunk->n);
	int			nfound = 0;

	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];

		switch (row->verdict)
		{
			case VERDICT_PASSED:
				made.loaded++;
				if (row->warned)
					made.warned++;
				break;
			case VERDICT_REJECTED:
				made.rejected++;
				break;
			case VERDICT_DUPLICATE:
				made.duplicate++;
				break;
		}
		if (row->nfindings > 0)
		{
			found[nfound].source_id = row->source_id;
			/* a name that no form has may be anything: it stays in quarantine */
			found[nfound].form = row->form ? row->form_name : NULL;
			found[nfound].first = row->first;
			found[nfound++].n = row->nfindings;
		}
	}
	made.claimed = chunk->n;
	made.skipped = chunk->skipped;

	if (!run->dry_run && made.rejected + made.duplicate > 0)
		quarantine_rows(chunk);
	if (!run->dry_run && account_has_requeued(run->pipeline->name))
		settle_requeued(chunk);
	account_chunk(run->run_id, run->worker, &made, &run->findings, found, nfound);

	counts->claimed += made.claimed;
	counts->loaded += made.loaded;
	counts->warned += made.warned;
	counts->rejected += made.rejected;
	counts->duplicate += made.duplicate;
	counts->skipped += made.skipped;
}

/* Whole rows, a bounded number in memory at a time. */
static void
quarantine_rows(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Rejected	rejected[MOST_REJECTED];
	int			n = 0;
	Size		bytes = 0;

	MemoryContextReset(run->row_memory);
	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];

		CHECK_FOR_INTERRUPTS();
		if (row->verdict != VERDICT_PASSED)
		{
			MemoryContext caller = MemoryContextSwitchTo(run->row_memory);

			rejected[n].source_id = row->source_id;
			rejected[n].form = row->form_name;
			rejected[n].original = claim_original(run->claim, row->original);
			bytes += VARSIZE(rejected[n].original);
			n++;
			MemoryContextSwitchTo(caller);
		}
		if (n > 0 && (n == MOST_REJECTED || bytes > MOST_REJECTED_BYTES || i == chunk->n - 1))
		{
			MemoryContext caller = MemoryContextSwitchTo(run->row_memory);

			account_quarantine(run->run_id, run->pipeline->name, rejected, n);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(run->row_memory);
			n = 0;
			bytes = 0;
		}
	}
}

/* The few that were in quarantine before: their tries go on, or are over. */
static void
settle_requeued(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Datum	   *ids = palloc(sizeof(Datum) * chunk->n);
	int			n = 0;
	Response	response = {0};

	for (int i = 0; i < chunk->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (chunk->rows[i].verdict != VERDICT_PASSED)
			continue;
		claim_read(run->claim, chunk->rows[i].original, &response);
		if (response.source_id.data != NULL)
			ids[n++] = PointerGetDatum(cstring_to_text_with_len(response.source_id.data,
																response.source_id.len));
	}
	account_requeued(run->run_id, run->pipeline->name, ids, n);
}

static ErrorData *
take_error(MemoryContext memory)
{
	ErrorData  *error;

	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	FlushErrorState();
	return error;
}

/* Raises an error again that is not one response's, without what could be data. */
static void
rethrow_without_data(ErrorData *error)
{
	error_strip(error);
	ReThrowError(error);
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
