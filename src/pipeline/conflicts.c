/*
 * conflicts.c
 *		Rows that a unique key of their sink would refuse, found before anything
 *		is written.
 *
 * A row that is refused costs a try: all that went before it in the try is
 * rolled back and written again.  Where many are, that is most of the work.  So
 * once a key of a sink has refused one, the rest of the chunk, and the chunks
 * behind it, are looked up in the sink's indexes first, for as long as that
 * finds any.  What it cannot find (two rows of one chunk, a key that somebody
 * else is just about to commit) the try still finds.
 *
 * Holds no locks but those that an insert would take, and waits as an insert
 * would: for a transaction that is about to insert the same key.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "pipeline/chunk.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

static int	refuse_in(Chunk *chunk, const PipelineForm *form, int s, int from);
static bool find(Chunk *chunk, Sink *sink, int n, Oid *by);

/*
 * Rejects the rows behind `from` that meet a key.  Only sinks are asked of which
 * Sink.meets says that they are worth it; false when none has refused any.
 */
bool
refuse_conflicts(Chunk *chunk, int from)
{
	Pipeline   *pipeline = chunk->run->pipeline;
	bool		refused = false;

	for (int f = 0; f < pipeline->nforms; f++)
	{
		PipelineForm *form = &pipeline->forms[f];

		for (int s = 0; s < form->nsinks; s++)
		{
			if (!form->sinks[s]->meets)
				continue;
			form->sinks[s]->meets = refuse_in(chunk, form, s, from) > 0;
			refused |= form->sinks[s]->meets;
		}
	}
	return refused;
}

/* Of one sink; returns how many rows were refused. */
static int
refuse_in(Chunk *chunk, const PipelineForm *form, int s, int from)
{
	int			n = gather_batch(chunk, form, s, from, chunk->n);
	int			refused = 0;
	Oid		   *by;

	if (n == 0)
		return 0;
	by = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Oid) * n);
	if (!find(chunk, form->sinks[s], n, by))
		return 0;
	for (int i = 0; i < n; i++)
	{
		int			at = chunk->batch_row[i];
		ErrorData	error = {0};

		/* a response of a long sink has several rows */
		if (by[i] == InvalidOid || chunk->rows[at].verdict != VERDICT_PASSED)
			continue;
		error.sqlerrcode = ERRCODE_UNIQUE_VIOLATION;
		error.constraint_name = get_rel_name(by[i]);
		reject_stored(chunk, at, &error);
		refused++;
	}
	return refused;
}

/* In a subtransaction, since an index may have an expression that fails: then the try will tell. */
static bool
find(Chunk *chunk, Sink *sink, int n, Oid *by)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool found = false;

	chunk->mark = cancel_mark();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		POINT("conflicts.look");
		sink_find_conflicts(sink, chunk->batch, n, by);
		ReleaseCurrentSubTransaction();
		found = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(memory);

		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		POINT("conflicts.absorb");
		if (!error_is_rows(NULL, error))
			ReThrowError(error);
		/* its function may have taken a cancel for its own */
		refuse_swallowed_cancel(chunk, true);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	return found;
}
