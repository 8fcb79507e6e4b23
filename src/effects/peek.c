/*
 * peek.c
 *		Which rows are in the source now, for a stream's reader.
 *
 * The reader takes no lock on a row and copies none: it finds addresses, and
 * whoever stores a response claims it (claim.c).  It walks the table in block
 * order, some blocks a step, each step under a snapshot of its own, so that it
 * never holds one while it waits.
 *
 * A snapshot and SELECT on the source are all it needs; row security holds.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "effects/effects.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "words/errors.h"

/* blocks that one step reads */
#define STEP_BLOCKS 16

struct Peek
{
	Oid			relid;
	SPIPlanPtr	plan;
	char	   *plan_name;		/* of the source when it was made */
	ItemPointerData next;		/* where the next step begins */
	MemoryContext memory;
};

static void prepare(Peek *peek);

/* Makes one in the current memory context, which must outlive it. */
Peek *
peek_create(const Source *source)
{
	Peek	   *peek = palloc0(sizeof(Peek));

	peek->relid = source->relid;
	peek->memory = CurrentMemoryContext;
	peek_rewind(peek);
	return peek;
}

/* Begins again at the table's first block. */
void
peek_rewind(Peek *peek)
{
	ItemPointerSet(&peek->next, 0, FirstOffsetNumber);
}

/*
 * The rows of the next blocks, in a new array in the current memory context;
 * returns their number.  at_end: these were the last blocks there are.
 */
int
peek_rows(Peek *peek, Address **rows, bool *at_end)
{
	MemoryContext caller = CurrentMemoryContext;
	Relation	relation = try_relation_open(peek->relid, AccessShareLock);
	BlockNumber nblocks;
	BlockNumber end;
	ItemPointerData limit;
	Datum		arguments[2];
	int			n;

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of the stream does not exist any more"),
				 errhint("Create the pipeline anew with epro_etl.create_pipeline().")));
	nblocks = RelationGetNumberOfBlocks(relation);
	end = Min(nblocks, ItemPointerGetBlockNumber(&peek->next) + STEP_BLOCKS);
	prepare(peek);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ItemPointerSet(&limit, end, 0);
	arguments[0] = PointerGetDatum(&peek->next);
	arguments[1] = PointerGetDatum(&limit);
	if (SPI_execute_plan(peek->plan, arguments, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source");
	n = (int) SPI_processed;
	*rows = MemoryContextAlloc(caller, sizeof(Address) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*rows)[i].file = epro_relation_file(relation);
		(*rows)[i].tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[i],
																	  SPI_tuptable->tupdesc, 1, &isnull));
		(*rows)[i].xmin = DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[i],
															  SPI_tuptable->tupdesc, 2, &isnull));
	}
	SPI_finish();
	relation_close(relation, NoLock);

	*at_end = end >= nblocks;
	ItemPointerSet(&peek->next, end, FirstOffsetNumber);
	return n;
}

/* There was no room for this row and those behind it: the next step finds them. */
void
peek_return(Peek *peek, const Address *row)
{
	peek->next = row->tid;
}

/* The plan names the source, and a name can pass to another table. */
static void
prepare(Peek *peek)
{
	const char *name = relation_name(peek->relid);
	Oid			types[2] = {TIDOID, TIDOID};

	if (peek->plan_name != NULL && strcmp(peek->plan_name, name) == 0)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peek->plan = plan_keep(SPI_prepare(psprintf("SELECT s.ctid, s.xmin FROM ONLY %s s"
												" WHERE s.ctid OPERATOR(pg_catalog.>=) $1"
												" AND s.ctid OPERATOR(pg_catalog.<) $2", name),
									   2, types), peek->memory);
	SPI_finish();
	peek->plan_name = MemoryContextStrdup(peek->memory, name);
}
