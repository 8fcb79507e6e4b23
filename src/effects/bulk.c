/*
 * bulk.c
 *		Many rows into one plain relation: multi-insert, then the indexes.
 *
 * This is what COPY does.  It is open to a relation for which the executor
 * would do nothing else: no triggers (so no foreign keys), no rules, no row
 * security, no generated columns, no partitions.  Every other relation takes
 * the executor's road in store.c, with the same result.
 *
 * Privileges are not looked at here: the callers have done so.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "effects/effects.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

/* rows that have a slot at once: bounded, however many rows a chunk has */
#define SLICE_ROWS 250

static void insert_slice(ResultRelInfo *target, EState *estate,
						 BulkInsertState bulk, TupleTableSlot **slots,
						 HeapTuple *tuples, int from, int n, volatile int *at);

/* May rows be inserted into it this way, for that user? */
bool
bulk_suits(Relation relation, Oid user)
{
	TupleDesc	shape = RelationGetDescr(relation);

	return relation->rd_rel->relkind == RELKIND_RELATION &&
		!relation->rd_rel->relispartition &&
		!relation->rd_rel->relhasrules &&
		relation->trigdesc == NULL &&
		(shape->constr == NULL || !shape->constr->has_generated_stored) &&
		check_enable_rls(RelationGetRelid(relation), user, true) != RLS_ENABLED;
}

/*
 * Inserts n tuples.  Raises the error of the first row that a constraint
 * refuses, with *at its number; *at is -1 where the row is not known.  Must
 * run in a subtransaction if the error is to be survived.
 */
void
bulk_insert(Relation relation, HeapTuple *tuples, int n, volatile int *at)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "epro_etl bulk insert",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	int			nslots = Min(n, SLICE_ROWS);
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * nslots);
	BulkInsertState bulk = GetBulkInsertState();
	/* a copy is not reference-counted: the resource owner need not count slots */
	TupleDesc	shape = CreateTupleDescCopy(RelationGetDescr(relation));

	InitResultRelInfo(target, relation, 0, NULL, 0);
	ExecOpenIndices(target, false);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(shape, &TTSOpsHeapTuple);

	for (int from = 0; from < n; from += nslots)
	{
		insert_slice(target, estate, bulk, slots, tuples, from,
					 Min(n - from, nslots), at);
		log_ahead();
	}

	FreeBulkInsertState(bulk);
	ExecCloseIndices(target);
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	FreeExecutorState(estate);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
}

/*
 * Which of n tuples a key would refuse now: by[i] is the key's index, or
 * InvalidOid.  Waits for a transaction that is inserting the same key, as an
 * insert would; writes nothing.  A deferrable key refuses later, if at all.
 */
void
bulk_find_conflicts(Relation relation, HeapTuple *tuples, int n, Oid *by)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "epro_etl look-up of keys",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(relation)),
													&TTSOpsHeapTuple);

	memset(by, 0, sizeof(Oid) * n);
	InitResultRelInfo(target, relation, 0, NULL, 0);
	ExecOpenIndices(target, true);
	for (int k = 0; k < target->ri_NumIndices; k++)
	{
		const IndexInfo *key = target->ri_IndexRelationInfo[k];
		Relation	index = target->ri_IndexRelationDescs[k];
		List	   *only = list_make1_oid(RelationGetRelid(index));

		if (!(key->ii_Unique || key->ii_ExclusionOps != NULL) || !key->ii_ReadyForInserts ||
			!index->rd_index->indimmediate)
			continue;
		for (int i = 0; i < n; i++)
		{
			ItemPointerData other;

			CHECK_FOR_INTERRUPTS();
			if (by[i] != InvalidOid)
				continue;
			ExecStoreHeapTuple(tuples[i], slot, false);
			slot->tts_tableOid = RelationGetRelid(relation);
			if (epro_finds_conflict(target, slot, estate, &other, only))
				by[i] = RelationGetRelid(index);
			ResetPerTupleExprContext(estate);
		}
	}
	ExecCloseIndices(target);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
}

/* The n tuples behind the first `from`; a slot each. */
static void
insert_slice(ResultRelInfo *target, EState *estate, BulkInsertState bulk,
			 TupleTableSlot **slots, HeapTuple *tuples, int from, int n,
			 volatile int *at)
{
	Relation	relation = target->ri_RelationDesc;
	bool		has_constraints = RelationGetDescr(relation)->constr != NULL;

	for (int i = 0; i < n; i++)
	{
		/* as if it were the slot's own, or the insert would make it a copy */
		ExecStoreHeapTuple(tuples[from + i], slots[i], true);
		slots[i]->tts_tableOid = RelationGetRelid(relation);
		if (has_constraints)
		{
			*at = from + i;
			ExecConstraints(target, slots[i], estate);
			ResetPerTupleExprContext(estate);
		}
	}

	*at = -1;
	table_multi_insert(relation, slots, n, GetCurrentCommandId(true), 0, bulk);
	/* it is the caller's, who may need it again */
	for (int i = 0; i < n; i++)
		slots[i]->tts_flags &= ~TTS_FLAG_SHOULDFREE;

	if (target->ri_NumIndices > 0)
	{
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			*at = from + i;
			epro_insert_index_tuples(target, slots[i], estate);
			ResetPerTupleExprContext(estate);
		}
	}
	*at = -1;
}
