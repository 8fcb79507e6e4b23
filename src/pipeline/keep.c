/*
 * keep.c
 *		Storing a chunk: what passed goes into its sinks.
 *
 * The writer tells which row was refused, so that row is rejected and the
 * others are tried again, in tries that begin small and grow: every row is
 * inserted a bounded number of times, however many are refused, and there is
 * never a subtransaction a row.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pipeline/chunk.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "words/errors.h"

static Size most_tuples(const Chunk *chunk);
static bool try_store(Chunk *chunk, int from, int to);
static void insert_rows(Chunk *chunk, int from, int to);
static void reject_stored(Chunk *chunk, int at, ErrorData *error);
static bool is_sink_column(const PipelineForm *form, const char *name);

/* Stores what passed; refused rows are rejected one by one, others go in. */
void
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
