/*
 * chunk.c
 *		One chunk: the composition of the stages, and its transaction.
 *
 *		claim -> decode -> de-identify -> normalise -> validate -> store -> account
 *
 * The caller gives the transaction; all of this happens in it, so that leaving
 * staging, arriving and being accounted for are one.  Within it stand
 * subtransactions around the judging (judge.c) and around each try to store
 * (keep.c), never one a response.
 *
 * A stream may cut the composition between two stages: then each group of
 * workers does its part, and a response travels between them as a message.
 * The last group claims, stores and accounts as a batch's worker does; the
 * groups before it write nothing.
 *
 * An error's text may hold an answer.  It ends here, or for an error of the
 * commit in session.c: what is kept of it is the SQLSTATE and the names of
 * constraint and column.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "pipeline/chunk.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/message.h"

/* originals of rejected responses that may wait in memory for their insert */
#define MOST_REJECTED 256
#define MOST_REJECTED_BYTES (8 * 1024 * 1024)

const char *const stage_name[STAGE_COUNT] = {
	[STAGE_DECODE] = "decode",
	[STAGE_DEIDENTIFY] = "deidentify",
	[STAGE_NORMALISE] = "normalise",
	[STAGE_VALIDATE] = "validate",
	[STAGE_STORE] = "store",
};

const Step first_step[STAGE_COUNT] = {
	[STAGE_DECODE] = STEP_DECODE,
	[STAGE_DEIDENTIFY] = STEP_DEIDENTIFY,
	[STAGE_NORMALISE] = STEP_NORMALISE,
	[STAGE_VALIDATE] = STEP_VALIDATE,
	[STAGE_STORE] = STEP_FORM,
};

static int do_chunk(Run *run, Counts *counts);
static MemoryContext begin_chunk(Run *run, Chunk *chunk);
static void claim_rows(Chunk *chunk);
static void claim_parcels(Chunk *chunk);
static void take_judged(Chunk *chunk);
static void account_rows(Chunk *chunk, Counts *counts);
static void quarantine_rows(Chunk *chunk);
static void settle_requeued(Chunk *chunk);
pg_attribute_noreturn() static void rethrow_without_data(ErrorData *error);

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
	/* what judging can leave in the source is taken out of it afterwards */
	run->claim = claim_create(&run->pipeline->source, ranges,
							  run->dry_run || run->pipeline->defers);
	if (run->pipeline->has_codes)
		run->codes = codebook_create();
	lookups_forget();
	initStringInfo(&run->message);
}

/*
 * Does one chunk in the current transaction, under the active snapshot.
 * Returns the number of rows seen, 0 when there are no more, and adds to
 * counts.  What it allocated is gone at the next call.
 */
int
run_chunk(Run *run, Counts *counts)
{
	MemoryContext memory = CurrentMemoryContext;
	volatile int seen = 0;

	PG_TRY();
	{
		seen = do_chunk(run, counts);
	}
	PG_CATCH();
	{
		/* whatever raised it, on whatever table: the text ends here */
		rethrow_without_data(error_take(memory));
	}
	PG_END_TRY();
	return seen;
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
		POINT("stages.judged");
	}
	PG_CATCH();
	{
		rethrow_without_data(error_take(memory));
	}
	PG_END_TRY();
}

/*
 * Will a stage group that stores nothing ask for codes, of the parcels at hand?
 * What came as an address is de-identified here again.
 */
bool
run_asks_for_codes(const Run *run)
{
	if (run->codes == NULL || run->last < STAGE_DEIDENTIFY || run->last == STAGE_STORE)
		return false;
	for (int i = 0; i < run->nparcels; i++)
	{
		const Parcel *parcel = &run->parcels[i];

		if (run->first <= STAGE_DEIDENTIFY || !message_head(parcel->message, parcel->len).has_body)
			return true;
	}
	return false;
}

/*
 * Makes the codes that such a group is about to ask for, in the current
 * transaction, which has to commit before anything is sent on.
 */
void
run_resolve(Run *run)
{
	MemoryContext memory = CurrentMemoryContext;

	PG_TRY();
	{
		Chunk		chunk = {0};
		MemoryContext caller = begin_chunk(run, &chunk);

		codebook_trim(run->codes);
		claim_parcels(&chunk);
		resolve_codes(&chunk);
		MemoryContextSwitchTo(caller);
		POINT("stages.resolved");
	}
	PG_CATCH();
	{
		rethrow_without_data(error_take(memory));
	}
	PG_END_TRY();
}

/* The transaction has rolled back, and with it the codes that it made. */
void
run_forget_codes(Run *run)
{
	if (run->codes != NULL)
		codebook_forget(run->codes);
}

/* The run has ended: no original stays in memory. */
void
run_wipe_codes(Run *run)
{
	if (run->codes != NULL)
		codebook_wipe(run->codes);
}

static int
do_chunk(Run *run, Counts *counts)
{
	Chunk		chunk = {0};
	MemoryContext caller = begin_chunk(run, &chunk);
	int			seen;

	if (run->codes != NULL)
		codebook_trim(run->codes);
	progress_phase(run->progress, PHASE_CLAIMING);
	if (run->parcels != NULL)
		claim_parcels(&chunk);
	else
		claim_rows(&chunk);
	seen = chunk.n;
	run->delivered.n = 0;
	POINT("chunk.claimed");
	if (seen > 0)
	{
		progress_phase(run->progress, PHASE_VALIDATING);
		resolve_codes(&chunk);
		judge_rows(&chunk);
		if (run->tally != NULL)
			tally_rows(&chunk);
		if (run->pipeline->defers && !run->dry_run)
			take_judged(&chunk);
	}
	POINT("chunk.judged");
	run->nrows = chunk.n;
	run->only_row = chunk.n == 1 ? chunk.rows[0].original : NULL;
	if (chunk.n > 0 && !run->judging)
	{
		if (!run->dry_run)
		{
			progress_phase(run->progress, PHASE_STORING);
			store_rows(&chunk);
			POINT("chunk.stored");
		}
		progress_phase(run->progress, PHASE_ACCOUNTING);
		account_rows(&chunk, counts);
		POINT("chunk.accounted");
	}
	MemoryContextSwitchTo(caller);
	return seen;
}

/* Brings what is compiled up to date; returns the caller's memory context. */
static MemoryContext
begin_chunk(Run *run, Chunk *chunk)
{
	run_forget_remotes(run);
	run->asked = false;
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

	chunk->n = claim_chunk(run->claim, run->most > 0 ? run->most : run->batch_size, claimed);
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
	bool		stores = run->last == STAGE_STORE;
	bool		take = stores && !run->pipeline->defers;
	Parcel	  **parcels = palloc(sizeof(Parcel *) * run->nparcels);
	Address    *addresses = palloc(sizeof(Address) * run->nparcels);
	HeapTuple  *claimed = palloc(sizeof(HeapTuple) * run->nparcels);
	ClaimFate  *fates = palloc(sizeof(ClaimFate) * run->nparcels);
	int			n = 0;

	chunk->rows = palloc0(sizeof(Row) * run->nparcels);
	for (int i = 0; i < run->nparcels; i++)
	{
		Parcel	   *parcel = &run->parcels[i];

		parcel->taken = false;
		if (parcel->fate != PARCEL_OPEN || (run->most > 0 && n == run->most))
			continue;
		if (!stores && message_head(parcel->message, parcel->len).has_body)
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
		parcels[i]->taken = take;
		chunk->rows[chunk->n].original = claimed[i];
		chunk->rows[chunk->n++].parcel = parcels[i];
	}
}

/*
 * Takes out of the source what was read there and judged, but for what is to
 * stay.  A row that is not to be had any more is none of the chunk's.
 */
static void
take_judged(Chunk *chunk)
{
	Run		   *run = chunk->run;
	Address    *addresses = palloc(sizeof(Address) * chunk->n);
	HeapTuple  *claimed = palloc(sizeof(HeapTuple) * chunk->n);
	ClaimFate  *fates = palloc(sizeof(ClaimFate) * chunk->n);
	int			n = 0;
	int			at = 0;
	int			kept = 0;

	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];

		if (row->deferred)
			continue;
		addresses[n++] = row->parcel ? row->parcel->address :
			claim_address(run->claim, row->original);
	}
	claim_addressed(run->claim, addresses, n, true, claimed, fates);
	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];
		ClaimFate	fate = row->deferred ? CLAIM_TAKEN : fates[at++];

		if (row->parcel != NULL)
		{
			row->parcel->taken = !row->deferred && fate == CLAIM_TAKEN;
			if (!row->parcel->taken)
				row->parcel->fate = fate == CLAIM_GONE ? PARCEL_GONE : PARCEL_HELD;
		}
		if (fate == CLAIM_TAKEN)
			chunk->rows[kept++] = *row;
	}
	if (run->parcels == NULL)
		claim_let_go(run->claim, chunk->n - kept);
	chunk->n = kept;
}

/*
 * Where an error would be taken for a response's own: not if this process was
 * canceled meanwhile, and a rule or trigger made something else of that.
 */
void
refuse_swallowed_cancel(const Chunk *chunk, bool by_budgets)
{
	if (canceled_since(&chunk->mark, by_budgets))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to user request or timeout"),
				 errdetail("A rule or trigger had caught the cancel.")));
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
			case VERDICT_DEFERRED:
				/* one of a stream that was not asked about is just held on */
				if (row->parcel == NULL || row->nfindings > 0)
					made.deferred++;
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
	made.claimed = made.loaded + made.rejected + made.duplicate + made.deferred;
	made.skipped = chunk->skipped;
	made.undeclared = chunk->undeclared;

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
	counts->deferred += made.deferred;
	counts->skipped += made.skipped;
	counts->undeclared += made.undeclared;
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
		if (row->verdict == VERDICT_REJECTED || row->verdict == VERDICT_DUPLICATE)
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

/* Raises an error again that is not one response's, without what could be data. */
static void
rethrow_without_data(ErrorData *error)
{
	POINT("chunk.rethrow");
	error_strip(error);
	ReThrowError(error);
}
