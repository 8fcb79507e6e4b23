/*
 * keep.c
 *		Storing a chunk: what passed goes into its sinks.
 *
 * The writer tells which row was refused, so that row is rejected and the
 * others are tried again, in tries that begin small and grow: every row is
 * inserted a bounded number of times, however many are refused, and there is
 * never a subtransaction a row.
 *
 * A sink on another server can be away.  If it is not required, its rows go
 * into the outbox, and the others' go on.  If it is, a stream holds the
 * responses that it is to have: they stay in the source, and the chunk is done
 * again without them; a batch ends with the error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pipeline/chunk.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "words/errors.h"

/* rows that one step takes out of the outbox for one sink */
#define MOST_DELIVERED 500

static Size most_tuples(const Chunk *chunk);
static void order_rows(Chunk *chunk);
static int	compare_rows(const void *one, const void *other, void *chunk);
static const Sink *latest_sink(const Row *row, HeapTuple *tuple);
static bool try_store(Chunk *chunk, int from, int to);
static void release_patiently(Chunk *chunk);
static void insert_rows(Chunk *chunk, int from, int to, List **resent);
static void insert_batch(Chunk *chunk, Sink *sink, int n, List **resent);
static void keep_superseded(Chunk *chunk, Sink *sink, LatestDone *done);
static void note_resent(Chunk *chunk, List *resent);
static void add_finding(Chunk *chunk, Row *row, Severity severity,
						const char *rule, const char *message);
static void hold_rows(Chunk *chunk);
static void refuse_row(Chunk *chunk);
static bool same_row(HeapTuple one, HeapTuple other);
static void do_without(Chunk *chunk, ErrorData *error);
static void note_lost(Run *run, Sink *sink, int sqlstate);
static void note_remotes(Run *run, const ErrorData *error);
static void forget_refused(Run *run);
static bool refuse_delivery(Run *run, Sink *sink);
static void deliver_to(Run *run, Sink *sink);
static const char *source_id(Chunk *chunk, Row *row);
static bool is_sink_column(const PipelineForm *form, const char *name);

/* Stores what passed; refused rows are rejected one by one, others go in. */
void
store_rows(Chunk *chunk)
{
	int			from = 0;
	int			attempt = chunk->n;
	Size		room = most_tuples(chunk);
	bool		looked_in_vain = false;

	chunk->batch = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(HeapTuple) * room);
	chunk->batch_row = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * room);
	hold_rows(chunk);
	order_rows(chunk);
	if (chunk->run->refused_row != NULL)
		refuse_row(chunk);
	(void) refuse_conflicts(chunk, 0);
	while (from < chunk->n)
	{
		int			to = Min(chunk->n, from + attempt);

		CHECK_FOR_INTERRUPTS();
		if (try_store(chunk, from, to))
		{
			from = to;
			attempt = Min(attempt * 2, chunk->n);
		}
		else if (chunk->again)
			continue;
		else if (chunk->met && !looked_in_vain && refuse_conflicts(chunk, from))
			attempt = chunk->n;
		else if (chunk->stored >= 0)
		{
			looked_in_vain |= chunk->met;
			attempt = Max(1, 2 * (chunk->stored - from));
		}
		else
			attempt = Max(1, (to - from) / 2);
	}
}

/*
 * Where the latest response of a key stands, rows with a key lock each other
 * out: chunks take them in one order, so that they do not do so in a circle.
 * Rows of one key stay in the order in which they came.
 */
static void
order_rows(Chunk *chunk)
{
	int		   *order;
	Row		   *rows;
	bool		matters = false;

	for (int i = 0; i < chunk->n && !matters; i++)
		matters = latest_sink(&chunk->rows[i], NULL) != NULL;
	if (!matters)
		return;
	order = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * chunk->n);
	rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Row) * chunk->n);
	for (int i = 0; i < chunk->n; i++)
		order[i] = i;
	qsort_arg(order, chunk->n, sizeof(int), compare_rows, chunk);
	for (int i = 0; i < chunk->n; i++)
		rows[i] = chunk->rows[order[i]];
	chunk->rows = rows;
	pfree(order);
}

/* Those of no such sink first, then as insert_rows() goes: by form, sink, key. */
static int
compare_rows(const void *one, const void *other, void *chunk)
{
	int			at[2] = {*(const int *) one, *(const int *) other};
	const Row  *rows[2];
	const Sink *sinks[2];
	HeapTuple	tuples[2];
	int			order = 0;

	for (int i = 0; i < 2; i++)
	{
		rows[i] = &((Chunk *) chunk)->rows[at[i]];
		sinks[i] = latest_sink(rows[i], &tuples[i]);
	}
	if (sinks[0] == NULL || sinks[1] == NULL)
		order = (sinks[0] != NULL) - (sinks[1] != NULL);
	else if (rows[0]->form != rows[1]->form)
		order = rows[0]->form < rows[1]->form ? -1 : 1;
	else if (sinks[0] != sinks[1])
		order = sinks[0]->id < sinks[1]->id ? -1 : 1;
	else
		order = latest_compare(sinks[0], tuples[0], tuples[1]);
	return order != 0 ? order : at[0] - at[1];
}

/* The first sink of a row in which the latest stands, and what goes there; or NULL. */
static const Sink *
latest_sink(const Row *row, HeapTuple *tuple)
{
	if (row->verdict != VERDICT_PASSED)
		return NULL;
	for (int s = 0; s < row->form->nsinks; s++)
	{
		if (row->form->sinks[s]->latest == NULL || row->formed[s].n == 0)
			continue;
		if (tuple != NULL)
			*tuple = row->formed[s].tuples[0];
		return row->form->sinks[s];
	}
	return NULL;
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
 * not known which one it was.  Also false, with chunk->again, when a sink has
 * gone away that can be done without.
 */
static bool
try_store(Chunk *chunk, int from, int to)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool stored = false;
	List	   *resent = NIL;

	chunk->stored = -1;
	chunk->batch_at = -1;
	chunk->again = false;
	chunk->storing = NULL;
	chunk->releasing = false;
	chunk->inserting = NULL;
	chunk->met = false;
	chunk->mark = cancel_mark();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		insert_rows(chunk, from, to, &resent);
		POINT("try.inserted");
		release_patiently(chunk);
		stored = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(memory);
		Sink	   *sink = chunk->storing;

		patience_end(&chunk->patience, error);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		POINT("try.absorb");
		if (error_is_rows(sink, error))
			refuse_swallowed_cancel(chunk, sink == NULL);
		if (!error_is_rows(sink, error))
		{
			do_without(chunk, error);
			chunk->again = true;
		}
		else if (chunk->batch_at >= 0)
			chunk->stored = chunk->batch_row[chunk->batch_at];
		else if (to - from == 1)
			chunk->stored = from;
		if (chunk->stored >= 0)
			reject_stored(chunk, chunk->stored, error);
		if (chunk->inserting != NULL && chunk->inserting->direct &&
			(error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION || error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION))
			chunk->met = chunk->inserting->meets = true;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	if (stored)
		note_resent(chunk, resent);
	return stored;
}

/* Every server that takes part is told, and one of them may not answer. */
static void
release_patiently(Chunk *chunk)
{
	Run		   *run = chunk->run;

	chunk->releasing = true;
	if (run->remotes != NIL && run->parcels != NULL)
		patience_begin(&chunk->patience, epro_sink_timeout);
	ReleaseCurrentSubTransaction();
	patience_end(&chunk->patience, NULL);
	chunk->releasing = false;
}

/*
 * Sink by sink; on an error chunk->batch_at is the row's place, or -1.  *resent
 * gets what a sink holds already.
 */
static void
insert_rows(Chunk *chunk, int from, int to, List **resent)
{
	Pipeline   *pipeline = chunk->run->pipeline;

	for (int f = 0; f < pipeline->nforms; f++)
	{
		PipelineForm *form = &pipeline->forms[f];

		for (int s = 0; s < form->nsinks; s++)
		{
			int			n = gather_batch(chunk, form, s, from, to);

			if (n > 0)
				insert_batch(chunk, form->sinks[s], n, resent);
		}
	}
}

/* The batch becomes what the rows from..to are to have in a form's sink, by number; returns how many. */
int
gather_batch(Chunk *chunk, const PipelineForm *form, int sink, int from, int to)
{
	int			n = 0;

	for (int i = from; i < to; i++)
	{
		const Row  *row = &chunk->rows[i];

		if (row->form != form || row->verdict != VERDICT_PASSED)
			continue;
		for (int t = 0; t < row->formed[sink].n; t++)
		{
			chunk->batch[n] = row->formed[sink].tuples[t];
			chunk->batch_row[n++] = i;
		}
	}
	return n;
}

/* The first n of the batch, into their sink or the outbox. */
static void
insert_batch(Chunk *chunk, Sink *sink, int n, List **resent)
{
	Run		   *run = chunk->run;

	if (!sink->remote)
	{
		LatestDone	done = {0};

		done.memory = CurrentMemoryContext;
		chunk->inserting = sink;
		sink_insert(sink, chunk->batch, n, &chunk->batch_at, &done);
		keep_superseded(chunk, sink, &done);
		for (int i = 0; i < done.nresent; i++)
			*resent = lappend(*resent, list_make2(&chunk->rows[chunk->batch_row[done.resent[i]]], sink));
		return;
	}
	if (sink_is_away(sink))
	{
		const char **ids = palloc(sizeof(char *) * n);

		Assert(!sink->required);
		for (int i = 0; i < n; i++)
			ids[i] = source_id(chunk, &chunk->rows[chunk->batch_row[i]]);
		outbox_put(run->run_id, sink, chunk->batch, ids, n);
		return;
	}
	run->remotes = list_append_unique_ptr(run->remotes, sink);
	chunk->storing = sink;
	chunk->inserting = NULL;
	patience_begin(&chunk->patience, run->parcels != NULL ? epro_sink_timeout : 0);
	sink_insert(sink, chunk->batch, n, &chunk->batch_at, NULL);
	patience_end(&chunk->patience, NULL);
	chunk->storing = NULL;
}

/* What rows of the batch have taken the place of. */
static void
keep_superseded(Chunk *chunk, Sink *sink, LatestDone *done)
{
	for (int i = 0; i < done->nsuperseded; i++)
	{
		Superseded *superseded = &done->superseded[i];

		superseded->by_source_id = source_id(chunk, &chunk->rows[chunk->batch_row[superseded->by]]);
	}
	account_superseded(chunk->run->run_id, sink, done->superseded, done->nsuperseded);
}

/* Responses that are stored by being there already: each sink's own finding. */
static void
note_resent(Chunk *chunk, List *resent)
{
	ListCell   *cell;

	foreach(cell, resent)
	{
		Row		   *row = linitial(lfirst(cell));

		add_finding(chunk, row, SEVERITY_INFORMATION, latest_key_name(lsecond(lfirst(cell))),
					"the sink already holds this response: it was sent again");
		row->source_id = source_id(chunk, row);
	}
}

/*
 * A stream's responses for a required sink that is away stay in the source:
 * the chunk, which has taken them out, is to be done again without them.
 */
static void
hold_rows(Chunk *chunk)
{
	bool		held = false;

	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];

		if (row->parcel == NULL || row->verdict != VERDICT_PASSED)
			continue;
		for (int s = 0; s < row->form->nsinks; s++)
		{
			Sink	   *sink = row->form->sinks[s];

			if (sink->required && row->formed[s].n > 0 && sink_is_away(sink))
			{
				row->parcel->fate = PARCEL_HELD;
				held = true;
			}
		}
	}
	if (held)
		POINT("keep.hold");
	if (held)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_SINK_AWAY),
				 errmsg("a required sink is away")));
}

/*
 * A try has failed by an error that is not the data's: can it be done again?
 * When the subtransaction ended nobody can say whose it is, as at a commit.
 */
static void
do_without(Chunk *chunk, ErrorData *error)
{
	Run		   *run = chunk->run;
	Sink	   *sink = chunk->storing;

	POINT("keep.without");
	if (chunk->releasing ? !run_survives_commit(run, error) :
		sink == NULL || !error_is_away(sink, error) || (sink->required && run->parcels == NULL))
		ReThrowError(error);
	if (chunk->releasing)
		run->lost = list_copy(run->remotes);
	else
		note_lost(run, sink, error->sqlerrcode);
	hold_rows(chunk);
}

/*
 * A sink is away, in the middle of a transaction: once a transaction, though
 * its wrapper may refuse to commit what has been broken off, too.
 */
static void
note_lost(Run *run, Sink *sink, int sqlstate)
{
	if (list_member_ptr(run->lost, sink))
		return;
	sink_went_away(sink, sqlstate);
	run->remotes = list_append_unique_ptr(run->remotes, sink);
	run->lost = lappend(run->lost, sink);
}

/* The transaction is over: what it has sent to whom is the next one's to say. */
void
run_forget_remotes(Run *run)
{
	run->remotes = NIL;
	run->lost = NIL;
}

/*
 * The commit of a chunk has failed, with rows sent to remote sinks: true when
 * it is to be done again, without them.  What is in doubt is whether the rows
 * have arrived; a unique key and on_duplicate 'ignore' make it all one.
 */
bool
run_survives_commit(Run *run, const ErrorData *error)
{
	ListCell   *cell;

	foreach(cell, run->remotes)
	{
		const Sink *sink = lfirst(cell);

		if (!error_is_away(sink, error) || (sink->required && run->parcels == NULL))
			return false;
	}
	note_remotes(run, error);
	return run->remotes != NIL;
}

/*
 * A chunk has been tried again and again, and each time something had to be
 * rolled back: true when it is to be done without the remote sinks, which
 * were part of each try.
 */
bool
run_gives_up_remotes(Run *run, const ErrorData *error)
{
	ListCell   *cell;

	foreach(cell, run->remotes)
	{
		if (((Sink *) lfirst(cell))->required && run->parcels == NULL)
			return false;
	}
	note_remotes(run, error);
	return run->remotes != NIL;
}

/* All that the chunk has sent rows to are away, but who is noted already. */
static void
note_remotes(Run *run, const ErrorData *error)
{
	ListCell   *cell;

	foreach(cell, run->remotes)
	{
		if (!list_member_ptr(run->lost, lfirst(cell)))
			sink_went_away(lfirst(cell), error->sqlerrcode);
	}
}

/*
 * The commit of a chunk has failed by an error of the data, which another
 * server has raised that looks at it only then: true when the chunk is to be
 * done again in smaller parts, until one row is left.  That one is rejected, if
 * it is met again: it may be locked by now, and another in its place.
 */
bool
run_narrows_down(Run *run, const ErrorData *error)
{
	if (run->remotes == NIL || run->nrows == 0 || !error_is_datas(error->sqlerrcode))
		return false;
	if (run->nrows > 1)
	{
		/* a source that is claimed by whole blocks cannot be narrowed further */
		if (run->most == 1)
			return false;
		run->most = run->nrows / 2;
		forget_refused(run);
		return true;
	}
	run->most = 1;
	forget_refused(run);
	run->refused = error->sqlerrcode;
	if (run->delivered.n == 1)
		run->refused_delivery = run->delivered;
	else
	{
		MemoryContext caller = MemoryContextSwitchTo(MemoryContextGetParent(run->chunk_memory));

		run->refused_row = heap_copytuple(run->only_row);
		MemoryContextSwitchTo(caller);
	}
	return true;
}

static void
forget_refused(Run *run)
{
	if (run->refused_row != NULL)
		heap_freetuple(run->refused_row);
	run->refused_row = NULL;
	run->refused_delivery.n = 0;
	run->refused = 0;
}

/*
 * A chunk has been committed: what it has taken has left the source, and who
 * was sent rows has them.
 */
void
run_committed(Run *run)
{
	ListCell   *cell;

	foreach(cell, run->remotes)
	{
		if (!list_member_ptr(run->lost, lfirst(cell)))
			sink_came_back(lfirst(cell));
	}
	run_forget_remotes(run);
	if (run->codes != NULL)
		codebook_accept(run->codes);
	for (int i = 0; i < run->nparcels; i++)
	{
		if (run->parcels[i].taken && run->parcels[i].fate == PARCEL_OPEN)
			run->parcels[i].fate = PARCEL_SETTLED;
	}
	if (run->refused != 0)
		forget_refused(run);
	run->most *= 2;
	if (run->most > run->batch_size)
		run->most = 0;
}

/* A row of the chunk may be the one that another server refuses when it commits. */
static void
refuse_row(Chunk *chunk)
{
	ErrorData	error = {0};

	error.sqlerrcode = chunk->run->refused;
	for (int i = 0; i < chunk->n; i++)
	{
		Row		   *row = &chunk->rows[i];

		if (row->verdict == VERDICT_PASSED && same_row(row->original, chunk->run->refused_row))
			reject_stored(chunk, i, &error);
	}
}

/* Byte by byte: not every road to the source tells where a row stands. */
static bool
same_row(HeapTuple one, HeapTuple other)
{
	return one->t_len == other->t_len &&
		memcmp((char *) one->t_data + SizeofHeapTupleHeader,
			   (char *) other->t_data + SizeofHeapTupleHeader,
			   one->t_len - SizeofHeapTupleHeader) == 0;
}

/*
 * Delivers some of what the outbox has for one of the pipeline's sinks, in the
 * current transaction.  Returns how many rows; a sink that is away keeps its.
 */
int
run_deliver(Run *run)
{
	MemoryContext caller;
	Pipeline   *pipeline;

	run_forget_remotes(run);
	run->pipeline = pipeline = pipeline_refresh(run->pipeline, true);
	MemoryContextReset(run->chunk_memory);
	caller = MemoryContextSwitchTo(run->chunk_memory);
	run->delivered.n = 0;
	for (int f = 0; f < pipeline->nforms && run->delivered.n == 0; f++)
	{
		for (int s = 0; s < pipeline->forms[f].nsinks && run->delivered.n == 0; s++)
		{
			Sink	   *sink = pipeline->forms[f].sinks[s];

			if (sink->required || !sink->remote || refuse_delivery(run, sink) ||
				sink_is_away(sink))
				continue;
			deliver_to(run, sink);
		}
	}
	run->nrows = run->delivered.n;
	MemoryContextSwitchTo(caller);
	return run->nrows;
}

/* If a row of it is the one that it refuses when it commits: marks it. */
static bool
refuse_delivery(Run *run, Sink *sink)
{
	const Delivered *refused = &run->refused_delivery;

	if (refused->n == 0 || refused->sink_id != sink->id ||
		!outbox_refuse(sink, refused->first, run->refused))
		return false;
	run->delivered = *refused;
	return true;
}

static void
deliver_to(Run *run, Sink *sink)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		patience_begin(&run->patience, epro_sink_timeout);
		outbox_deliver(sink, run->most > 0 ? Min(run->most, MOST_DELIVERED) : MOST_DELIVERED,
					   &run->delivered);
		patience_end(&run->patience, NULL);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(memory);

		patience_end(&run->patience, error);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		POINT("deliver.absorb");
		if (!error_is_away(sink, error))
		{
			error_strip(error);
			ReThrowError(error);
		}
		note_lost(run, sink, error->sqlerrcode);
		run->delivered.n = 0;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	if (run->delivered.n > 0)
		run->remotes = lappend(run->remotes, sink);
}

/* A sink refused a row: a finding without the row's values. */
void
reject_stored(Chunk *chunk, int at, ErrorData *error)
{
	Row		   *row = &chunk->rows[at];
	const char *rule = error->constraint_name && constraint_exists(error->constraint_name) ?
		error->constraint_name : unpack_sql_state(error->sqlerrcode);
	const char *message;

	switch (error->sqlerrcode)
	{
		case ERRCODE_UNIQUE_VIOLATION:
		case ERRCODE_EXCLUSION_VIOLATION:
			message = error_is_ours(error) ? pstrdup(error->message) :
				"the sink already holds a row with this key";
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

	add_finding(chunk, row, SEVERITY_ERROR, pstrdup(rule), message);
	row->verdict = error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION ||
		error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION ?
		VERDICT_DUPLICATE : VERDICT_REJECTED;
	row->warned = false;

	row->source_id = source_id(chunk, row);
}

/* What a sink has to say of a row, behind its earlier findings. */
static void
add_finding(Chunk *chunk, Row *row, Severity severity, const char *rule,
			const char *message)
{
	FindingList *findings = &chunk->run->findings;
	int			before = row->nfindings;

	/* they must stand together: move them */
	findings_begin(findings);
	for (int i = 0; i < before; i++)
	{
		Finding		moved = findings->items[row->first + i];

		finding_add(findings, moved.kind, moved.severity, moved.location,
					moved.rule, moved.message);
	}
	finding_add(findings, FINDING_CONSTRAINT, severity, "", rule, message);
	row->first = findings->first;
	row->nfindings = findings->n - findings->first;
}

/* The id of a response, in the chunk's memory; NULL if it has none. */
static const char *
source_id(Chunk *chunk, Row *row)
{
	Response	response = {0};

	if (row->source_id == NULL)
	{
		claim_read(chunk->run->claim, row->original, &response);
		if (response.source_id.data != NULL)
			row->source_id = pnstrdup(response.source_id.data, response.source_id.len);
	}
	return row->source_id;
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
