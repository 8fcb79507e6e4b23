/*
 * claim.c
 *		The only reader of the source: block ranges, and SKIP LOCKED inside.
 *
 * Claimers that each rescan from the head with LIMIT n FOR UPDATE SKIP LOCKED
 * walk every dead and every locked row again, which is quadratic over a drain.
 * Here a counter shared by the run's workers hands out ranges of blocks, as a
 * parallel sequential scan does, and every block is read once.
 *
 * A row is claimed by deleting it without waiting: the delete is what leaves
 * staging, and it fails at once where another session has locked, changed or
 * claimed the row, which is what SKIP LOCKED means.  So a claim costs one
 * tuple write, and everything that follows in the same transaction (arrival,
 * quarantine, ledger) commits with it or not at all.  Two runs over one source
 * need nothing else to share the work.
 *
 * The direct road needs a plain table without delete triggers and row security.
 * Any other table is claimed by an SQL DELETE over the same block range, so that
 * its triggers fire and its policies hold.
 *
 * A stream's rows come by their addresses instead, from a reader that holds no
 * lock: a row is claimed if it is still the version that was read.
 *
 * Locking: RowExclusiveLock on the source for the transaction of the chunk; no
 * lock of our own.  Position and ranges are private to the process; only
 * BlockRanges.next is shared, and atomic.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "effects/claim.h"
#include "effects/point.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_relation.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "words/errors.h"

const char *const role_name[ROLE_COUNT] = {
	[ROLE_ID] = "id",
	[ROLE_STUDY] = "study",
	[ROLE_FORM] = "form",
	[ROLE_SUBJECT] = "subject",
	[ROLE_VISIT] = "visit",
	[ROLE_AUTHORED] = "authored",
	[ROLE_PAYLOAD] = "payload",
};

/* how the last ranges get smaller: each worker finds this many more */
#define RAMP_DOWN 8

/* blocks that one statement of the SQL road claims */
#define SQL_BLOCKS 4

/* what stands behind a row that is read by SQL: ctid and xmin */
#define ADDRESS_COLUMNS 2

/* rows of a chunk may hold this much together, whatever their number */
#define MOST_CHUNK_BYTES (16 * 1024 * 1024)

static bool claims_directly(Relation relation);
static void open_source(Claim *claim, bool takes);
static void prepare_claim(Claim *claim);
static void settle_roles(Claim *claim, TupleDesc shape);
static bool next_range(Claim *claim, Range *range);
static void push_remainder(Claim *claim, Range range);
static void push_range(Claim *claim, Range **list, int *n, int *room, Range range);
static int	claim_direct(Claim *claim, int most, HeapTuple *rows);
static int	claim_by_sql(Claim *claim, int most, HeapTuple *rows);
static ClaimFate fetch_directly(Claim *claim, const Address *address,
								BlockNumber nblocks, bool take, TupleTableSlot *slot);
static ClaimFate fetch_by_sql(Claim *claim, const Address *address, bool take,
							  HeapTuple *row);
static HeapTuple fetch_one(Claim *claim, const Address *address, SPIPlanPtr plan,
						   int expected);
static TupleDesc columns_of(TupleDesc shape, int extra);
static void set_address(HeapTuple row, TupleDesc shape);
static Size row_size(Claim *claim, HeapTuple row);

/* Starts handing out ranges over nblocks blocks to nworkers workers. */
void
ranges_init(BlockRanges *ranges, BlockNumber nblocks, int nworkers)
{
	pg_atomic_init_u64(&ranges->next, 0);
	ranges->nblocks = nblocks;
	ranges->nworkers = Max(nworkers, 1);
}

/*
 * Checks that the source can be read and emptied by the current user, and has
 * the pipeline's columns.  Raises an error that names what to do.
 */
void
source_check(const Source *source)
{
	Relation	relation = try_relation_open(source->relid, AccessShareLock);
	AclResult	may;

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of the pipeline does not exist any more"),
				 errhint("Create the pipeline anew with epro_etl.create_pipeline().")));
	if (relation->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("source \"%s\" is not a table", RelationGetRelationName(relation)),
				 errhint("Stage the responses in a plain table.")));

	may = pg_class_aclcheck(source->relid, GetUserId(), ACL_SELECT);
	if (may == ACLCHECK_OK)
		may = pg_class_aclcheck(source->relid, GetUserId(), ACL_DELETE);
	if (may != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for source \"%s\"", RelationGetRelationName(relation)),
				 errhint("A run needs SELECT and DELETE on its source.")));

	if (!claims_directly(relation) &&
		pg_class_aclcheck(source->relid, GetUserId(), ACL_UPDATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for source \"%s\"", RelationGetRelationName(relation)),
				 errhint("A run needs UPDATE, too, on a source with delete triggers, rules or row security, to lock its rows.")));

	for (int role = 0; role < ROLE_COUNT; role++)
	{
		AttrNumber	attnum;
		Oid			type;

		if (source->column[role] == NULL)
		{
			if (role == ROLE_ID || role == ROLE_SUBJECT || role == ROLE_PAYLOAD)
				ereport(ERROR,
						(errcode(ERRCODE_EPRO_RELATION_UNFIT),
						 errmsg("the pipeline has no column for the role \"%s\"", role_name[role]),
						 errhint("Create the pipeline anew with epro_etl.create_pipeline().")));
			continue;
		}
		attnum = get_attnum(source->relid, source->column[role]);
		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("source \"%s\" has no column \"%s\" for the role \"%s\"",
							RelationGetRelationName(relation), source->column[role],
							role_name[role]),
					 errhint("The source was altered: create the pipeline anew, or give the column its name back.")));
		type = getBaseType(get_atttype(source->relid, attnum));
		if (role == ROLE_PAYLOAD && type != JSONBOID && type != JSONOID && type != TEXTOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("payload column \"%s\" is of type %s",
							source->column[role], format_type_be(type)),
					 errhint("A payload is jsonb, json or text.")));
		if (role == ROLE_AUTHORED && type != TIMESTAMPTZOID && type != TIMESTAMPOID &&
			type != DATEOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("authored column \"%s\" is of type %s",
							source->column[role], format_type_be(type)),
					 errhint("The time of authoring is timestamptz, timestamp or date.")));
	}
	relation_close(relation, AccessShareLock);
}

/*
 * Counts what is in the source, as the current user sees it now.  Reads the
 * whole table: for a run that stopped before it had seen everything.
 */
int64
source_rows(Oid source)
{
	int64		rows = 0;
	bool		isnull;
	char	   *name = relation_name(source);

	if (name == NULL)
		return 0;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM ONLY %s", name), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count the source");
	rows = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return rows;
}

/* Makes a claim in the current memory context, which must outlive it. */
Claim *
claim_create(const Source *source, BlockRanges *ranges, bool keep)
{
	Claim	   *claim = palloc0(sizeof(Claim));

	claim->source = source;
	claim->ranges = ranges;
	claim->keep = keep;
	claim->memory = CurrentMemoryContext;
	return claim;
}

/* The source was looked up anew: it is the same relation, perhaps renamed. */
void
claim_set_source(Claim *claim, const Source *source)
{
	claim->source = source;
}

/*
 * Claims up to most rows in the current transaction and copies them, into the
 * current memory context.  Returns their number: 0 when all ranges are done.
 * The array needs room for most + CLAIM_SLACK rows: the SQL road takes whole
 * ranges.
 */
int
claim_chunk(Claim *claim, int most, HeapTuple *rows)
{
	int			n;

	claim->ntaken = 0;
	claim->remainder = false;
	claim->skipped_chunk = 0;
	claim->deformed = NULL;
	open_source(claim, !claim->keep);
	n = claim->direct ? claim_direct(claim, most, rows) :
		claim_by_sql(claim, most, rows);
	POINT("claim.chunk");
	table_close(claim->relation, NoLock);
	claim->relation = NULL;
	return n;
}

/* The chunk's transaction was rolled back: its ranges are to be read again. */
void
claim_rewind(Claim *claim)
{
	/* what the chunk left over is part of what it had taken */
	if (claim->remainder)
		claim->npending--;
	claim->remainder = false;
	for (int i = claim->ntaken - 1; i >= 0; i--)
		push_range(claim, &claim->pending, &claim->npending,
				   &claim->pending_room, claim->taken[i]);
	claim->ntaken = 0;
	claim->skipped_chunk = 0;
}

/* The chunk's transaction is final: its skipped rows count. */
void
claim_accept(Claim *claim)
{
	claim->skipped += claim->skipped_chunk;
	claim->skipped_chunk = 0;
	claim->ntaken = 0;
	claim->remainder = false;
}

/* Rows seen and left, because others had locked or changed them. */
int64
claim_skipped(const Claim *claim)
{
	return claim->skipped;
}

uint64
claim_blocks(const Claim *claim)
{
	return claim->blocks;
}

/* Nothing but the rows themselves has a say in their deletion. */
static bool
claims_directly(Relation relation)
{
	TriggerDesc *triggers = relation->trigdesc;
	bool		triggered = triggers != NULL &&
		(triggers->trig_delete_before_row || triggers->trig_delete_after_row ||
		 triggers->trig_delete_before_statement || triggers->trig_delete_after_statement ||
		 triggers->trig_delete_old_table);

	return !triggered && !relation->rd_rel->relhasrules &&
		check_enable_rls(RelationGetRelid(relation), InvalidOid, true) != RLS_ENABLED;
}

static void
open_source(Claim *claim, bool takes)
{
	const Source *source = claim->source;
	MemoryContext caller;
	bool		direct;

	claim->relation = try_relation_open(source->relid, RowExclusiveLock);
	if (claim->relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of the pipeline was dropped during the run"),
				 errhint("What was committed stays; create the pipeline anew with epro_etl.create_pipeline().")));

	/* locked by now: what is found here holds until the chunk's end */
	caller = MemoryContextSwitchTo(claim->memory);
	if (claim->relation_shape == NULL)
		claim->relation_shape = CreateTupleDescCopyConstr(RelationGetDescr(claim->relation));
	else if (!equalTupleDescs(claim->relation_shape, RelationGetDescr(claim->relation)))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("source \"%s\" was altered during the run",
						RelationGetRelationName(claim->relation)),
				 errhint("What was committed stays; run the pipeline again for the rest.")));

	/* the two roads number the columns differently: settle anew on a change */
	direct = claims_directly(claim->relation);
	if (direct && takes)
		CheckCmdReplicaIdentity(claim->relation, CMD_DELETE);
	if (direct != claim->direct)
		claim->shape = NULL;
	claim->direct = direct;
	if (claim->shape == NULL && claim->direct)
		settle_roles(claim, CreateTupleDescCopyConstr(RelationGetDescr(claim->relation)));
	MemoryContextSwitchTo(caller);
	claim->file = epro_relation_file(claim->relation);
	if (!claim->direct)
		prepare_claim(claim);
}

/*
 * The plans of the SQL road name the source, and a name can pass to another
 * table: make them anew when it has changed.  It cannot while we hold the lock.
 */
static void
prepare_claim(Claim *claim)
{
	const char *name = relation_name(RelationGetRelid(claim->relation));
	Oid			types[2] = {TIDOID, TIDOID};

	if (claim->plan_name != NULL && strcmp(claim->plan_name, name) == 0)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	claim->read_plan = plan_keep(SPI_prepare(psprintf("SELECT s.*, s.ctid, s.xmin FROM ONLY %s s WHERE s.ctid OPERATOR(pg_catalog.>=) $1 "
													  "AND s.ctid OPERATOR(pg_catalog.<) $2", name),
											 2, types), claim->memory);
	claim->delete_plan = plan_keep(SPI_prepare(psprintf("DELETE FROM ONLY %s s WHERE s.ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
														"SELECT c.ctid FROM ONLY %s c WHERE c.ctid OPERATOR(pg_catalog.>=) $1 "
														"AND c.ctid OPERATOR(pg_catalog.<) $2 FOR UPDATE SKIP LOCKED)) RETURNING s.*",
														name, name), 2, types), claim->memory);
	types[1] = XIDOID;
	claim->read_one_plan = plan_keep(SPI_prepare(psprintf("SELECT s.* FROM ONLY %s s WHERE s.ctid OPERATOR(pg_catalog.=) $1 "
														  "AND s.xmin OPERATOR(pg_catalog.=) $2", name),
												 2, types), claim->memory);
	claim->delete_one_plan = plan_keep(SPI_prepare(psprintf("DELETE FROM ONLY %s s WHERE s.ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
															"SELECT c.ctid FROM ONLY %s c WHERE c.ctid OPERATOR(pg_catalog.=) $1 "
															"AND c.xmin OPERATOR(pg_catalog.=) $2 FOR UPDATE SKIP LOCKED)) RETURNING s.*",
															name, name), 2, types), claim->memory);
	SPI_finish();
	claim->plan_name = MemoryContextStrdup(claim->memory, name);
}

/* Finds each role's column in the rows' shape; once a run. */
static void
settle_roles(Claim *claim, TupleDesc shape)
{
	claim->shape = shape;
	claim->values = palloc0(sizeof(Datum) * shape->natts);
	claim->nulls = palloc0(sizeof(bool) * shape->natts);
	for (int role = 0; role < ROLE_COUNT; role++)
	{
		const char *name = claim->source->column[role];
		bool		varlena;

		claim->attnum[role] = InvalidAttrNumber;
		for (int i = 0; name != NULL && i < shape->natts; i++)
		{
			Form_pg_attribute column = TupleDescAttr(shape, i);

			if (column->attisdropped || strcmp(NameStr(column->attname), name) != 0)
				continue;
			claim->attnum[role] = (AttrNumber) (i + 1);
			claim->type[role] = getBaseType(column->atttypid);
			getTypeOutputInfo(column->atttypid, &claim->output[role], &varlena);
		}
		if (name != NULL && claim->attnum[role] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the source has no column \"%s\" any more", name)));
	}
}

/*
 * Takes the next range: one left over, or a new one.  Ranges get smaller at
 * the end, so that the workers finish together.
 */
static bool
next_range(Claim *claim, Range *range)
{
	BlockRanges *ranges = claim->ranges;
	uint64		at = pg_atomic_read_u64(&ranges->next);
	uint64		size;

	if (claim->npending > 0)
	{
		*range = claim->pending[--claim->npending];
		return true;
	}
	if (at >= ranges->nblocks)
		return false;
	size = (ranges->nblocks - at) / ((uint64) ranges->nworkers * RAMP_DOWN);
	size = Min(Max(size, 1), MOST_BLOCKS);
	at = pg_atomic_fetch_add_u64(&ranges->next, size);
	if (at >= ranges->nblocks)
		return false;
	ItemPointerSet(&range->start, (BlockNumber) at, FirstOffsetNumber);
	range->end = (BlockNumber) Min(at + size, ranges->nblocks);
	return true;
}

static void
push_range(Claim *claim, Range **list, int *n, int *room, Range range)
{
	if (*n >= *room)
	{
		*room = Max(16, *room * 2);
		*list = *list ? repalloc(*list, sizeof(Range) * *room) :
			MemoryContextAlloc(claim->memory, sizeof(Range) * *room);
	}
	(*list)[(*n)++] = range;
}

/* The chunk is full: the rest of its last range is for the next one. */
static void
push_remainder(Claim *claim, Range range)
{
	push_range(claim, &claim->pending, &claim->npending, &claim->pending_room, range);
	claim->remainder = true;
}

static int
claim_direct(Claim *claim, int most, HeapTuple *rows)
{
	Relation	relation = claim->relation;
	Snapshot	snapshot = GetActiveSnapshot();
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	Size		bytes = 0;
	int			n = 0;
	Range		range;

	while (n < most && bytes < MOST_CHUNK_BYTES && next_range(claim, &range))
	{
		TableScanDesc scan;
		ItemPointerData last;
		BlockNumber blocks = range.end - ItemPointerGetBlockNumber(&range.start);
		bool		drained = false;

		push_range(claim, &claim->taken, &claim->ntaken, &claim->taken_room, range);
		ItemPointerSet(&last, range.end - 1, MaxOffsetNumber);
		scan = table_beginscan_tidrange(relation, snapshot, &range.start, &last);
		while (n < most && bytes < MOST_CHUNK_BYTES)
		{
			CHECK_FOR_INTERRUPTS();
			if (!table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
			{
				drained = true;
				break;
			}
			range.start = slot->tts_tid;
			ItemPointerSetOffsetNumber(&range.start,
									   OffsetNumberNext(ItemPointerGetOffsetNumber(&slot->tts_tid)));
			if (!claim->keep)
			{
				TM_FailureData failure;

				if (table_tuple_delete(relation, &slot->tts_tid,
									   GetCurrentCommandId(true), snapshot,
									   InvalidSnapshot, false, &failure,
									   false) != TM_Ok)
				{
					claim->skipped_chunk++;
					continue;
				}
			}
			rows[n] = ExecCopySlotHeapTuple(slot);
			bytes += row_size(claim, rows[n]);
			n++;
		}
		ExecClearTuple(slot);
		table_endscan(scan);
		log_ahead();
		if (drained)
			claim->blocks += blocks;
		else
			push_remainder(claim, range);
	}
	ExecDropSingleTupleTableSlot(slot);
	return n;
}

/*
 * The same by SQL, a few blocks at a time: all the rows that these have, so
 * that a chunk may get larger by that much.
 */
static int
claim_by_sql(Claim *claim, int most, HeapTuple *rows)
{
	MemoryContext memory = CurrentMemoryContext;
	Size		bytes = 0;
	int			n = 0;
	Range		range;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	while (n < most && bytes < MOST_CHUNK_BYTES && next_range(claim, &range))
	{
		push_range(claim, &claim->taken, &claim->ntaken, &claim->taken_room, range);
		while (n < most && bytes < MOST_CHUNK_BYTES &&
			   ItemPointerGetBlockNumber(&range.start) < range.end)
		{
			BlockNumber first = ItemPointerGetBlockNumber(&range.start);
			BlockNumber next = Min(range.end, first + SQL_BLOCKS);
			ItemPointerData end;
			Datum		arguments[2];
			uint64		seen;
			uint64		got;

			CHECK_FOR_INTERRUPTS();
			ItemPointerSet(&end, next, 0);
			arguments[0] = PointerGetDatum(&range.start);
			arguments[1] = PointerGetDatum(&end);
			if (SPI_execute_plan(claim->read_plan, arguments, NULL, false, 0) != SPI_OK_SELECT)
				elog(ERROR, "could not read the source");
			seen = got = SPI_processed;
			if (!claim->keep)
			{
				SPI_freetuptable(SPI_tuptable);
				if (SPI_execute_plan(claim->delete_plan, arguments, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
					elog(ERROR, "could not claim rows of the source");
				got = SPI_processed;
			}
			claim->skipped_chunk += (int64) (seen - Min(seen, got));
			claim->blocks += next - first;

			if (claim->shape == NULL)
			{
				MemoryContext caller = MemoryContextSwitchTo(claim->memory);

				settle_roles(claim, columns_of(SPI_tuptable->tupdesc, claim->keep ? ADDRESS_COLUMNS : 0));
				MemoryContextSwitchTo(caller);
			}
			for (uint64 i = 0; i < got; i++)
			{
				MemoryContext caller = MemoryContextSwitchTo(memory);

				if (n >= most + CLAIM_SLACK)
					elog(ERROR, "blocks hold more rows than they can");
				rows[n] = heap_copytuple(SPI_tuptable->vals[i]);
				if (claim->keep)
					set_address(rows[n], SPI_tuptable->tupdesc);
				MemoryContextSwitchTo(caller);
				bytes += row_size(claim, rows[n]);
				n++;
			}
			SPI_freetuptable(SPI_tuptable);
			ItemPointerSet(&range.start, next, FirstOffsetNumber);
		}
		if (ItemPointerGetBlockNumber(&range.start) < range.end)
			push_remainder(claim, range);
	}
	SPI_finish();
	return n;
}

/* Where a row stands that claim_chunk() has read without taking it. */
Address
claim_address(Claim *claim, HeapTuple row)
{
	Address		address;

	address.file = claim->file;
	address.xmin = HeapTupleHeaderGetRawXmin(row->t_data);
	address.tid = row->t_self;
	return address;
}

/* Rows of the chunk that could not be had after all: others are at them. */
void
claim_let_go(Claim *claim, int n)
{
	claim->skipped_chunk += n;
}

/*
 * Claims rows by their addresses (or, with take false, reads them in place)
 * in the current transaction.  Copies into the current memory context what is
 * still the version that was addressed; the others' rows[] are NULL, and
 * fates[] says why.
 */
void
claim_addressed(Claim *claim, const Address *addresses, int n, bool take,
				HeapTuple *rows, ClaimFate *fates)
{
	claim->deformed = NULL;
	/* locked then: nobody rewrites it until the transaction's end */
	open_source(claim, take);
	if (claim->direct)
	{
		TupleTableSlot *slot = table_slot_create(claim->relation, NULL);
		/* it cannot get shorter while we hold its lock */
		BlockNumber nblocks = RelationGetNumberOfBlocks(claim->relation);

		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			fates[i] = addresses[i].file != claim->file ? CLAIM_GONE :
				fetch_directly(claim, &addresses[i], nblocks, take, slot);
			rows[i] = fates[i] == CLAIM_TAKEN ? ExecCopySlotHeapTuple(slot) : NULL;
			ExecClearTuple(slot);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	else
	{
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			rows[i] = NULL;
			fates[i] = addresses[i].file != claim->file ? CLAIM_GONE :
				fetch_by_sql(claim, &addresses[i], take, &rows[i]);
		}
	}
	POINT("claim.addressed");
	table_close(claim->relation, NoLock);
	claim->relation = NULL;
}

static ClaimFate
fetch_directly(Claim *claim, const Address *address, BlockNumber nblocks, bool take,
			   TupleTableSlot *slot)
{
	Relation	relation = claim->relation;
	Snapshot	snapshot = GetActiveSnapshot();
	ItemPointerData tid = address->tid;
	TM_FailureData failure;
	bool		isnull;

	/* the table may have been truncated since */
	if (ItemPointerGetBlockNumber(&tid) >= nblocks ||
		!table_tuple_fetch_row_version(relation, &tid, snapshot, slot))
		return CLAIM_GONE;
	/* the place may have passed to another row */
	if (DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
											  &isnull)) != address->xmin)
		return CLAIM_GONE;
	if (!take)
		return CLAIM_TAKEN;
	switch (table_tuple_delete(relation, &tid, GetCurrentCommandId(true), snapshot,
							   InvalidSnapshot, false, &failure, false))
	{
		case TM_Ok:
			return CLAIM_TAKEN;
		case TM_BeingModified:
		case TM_WouldBlock:
			return CLAIM_LOCKED;
		default:
			return CLAIM_GONE;
	}
}

static ClaimFate
fetch_by_sql(Claim *claim, const Address *address, bool take, HeapTuple *row)
{
	*row = fetch_one(claim, address, take ? claim->delete_one_plan : claim->read_one_plan,
					 take ? SPI_OK_DELETE_RETURNING : SPI_OK_SELECT);
	if (*row != NULL)
		return CLAIM_TAKEN;
	/* was it skipped, or is it not there? */
	return take && fetch_one(claim, address, claim->read_one_plan, SPI_OK_SELECT) != NULL ?
		CLAIM_LOCKED : CLAIM_GONE;
}

static HeapTuple
fetch_one(Claim *claim, const Address *address, SPIPlanPtr plan, int expected)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		arguments[2] = {PointerGetDatum(&address->tid),
	TransactionIdGetDatum(address->xmin)};
	HeapTuple	row = NULL;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_plan(plan, arguments, NULL, false, 0) != expected)
		elog(ERROR, "could not read a row of the source");
	if (claim->shape == NULL)
	{
		MemoryContext inner = MemoryContextSwitchTo(claim->memory);

		settle_roles(claim, columns_of(SPI_tuptable->tupdesc, 0));
		MemoryContextSwitchTo(inner);
	}
	if (SPI_processed > 0)
	{
		MemoryContext inner = MemoryContextSwitchTo(caller);

		row = heap_copytuple(SPI_tuptable->vals[0]);
		MemoryContextSwitchTo(inner);
	}
	SPI_finish();
	return row;
}

/* The shape of the rows without their last columns, in the current memory context. */
static TupleDesc
columns_of(TupleDesc shape, int extra)
{
	TupleDesc	columns = CreateTemplateTupleDesc(shape->natts - extra);

	for (int i = 1; i <= columns->natts; i++)
		TupleDescCopyEntry(columns, (AttrNumber) i, shape, (AttrNumber) i);
	return columns;
}

/* Where a row stands, which its last columns say, goes to where claim_address() looks. */
static void
set_address(HeapTuple row, TupleDesc shape)
{
	bool		isnull;

	row->t_self = *(ItemPointer) DatumGetPointer(heap_getattr(row, shape->natts - 1, shape, &isnull));
	HeapTupleHeaderSetXmin(row->t_data,
						   DatumGetTransactionId(heap_getattr(row, shape->natts, shape, &isnull)));
}

/* What a row will take once its payload is read, wherever that is stored. */
static Size
row_size(Claim *claim, HeapTuple row)
{
	Size		size = row->t_len;

	if (HeapTupleHasExternal(row))
	{
		bool		isnull;
		Datum		payload = heap_getattr(row, claim->attnum[ROLE_PAYLOAD],
										   claim->shape, &isnull);

		if (!isnull)
			size += toast_raw_datum_size(payload);
	}
	return size;
}

