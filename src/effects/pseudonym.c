/*
 * pseudonym.c
 *		The table of random codes: finds what stands for an original, and makes
 *		what is missing.
 *
 * One code for one (domain, study, original), whoever asks first.  What the
 * caller wants is looked up, and made, in one sorted order, so that two who make
 * codes at the same time wait for each other and never in a circle.  Who waited
 * reads under a snapshot of after the wait.
 *
 * An original identifies somebody, so none gets into a statement: a plan that
 * is shown, with its parameters or with constants made of them, would quote it.
 * The table is read by an index scan and written by a speculative insertion,
 * which is what ON CONFLICT DO NOTHING does, as the extension's owner: the
 * caller's role needs no privilege on the table, and has none.
 *
 * The unique index is over a digest, for originals of any length.  What it finds
 * is compared as a whole.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "effects/effects.h"
#include "effects/point.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "words/errors.h"

/* random bytes of a code, which has two digits for each */
#define CODE_BYTES 16

/* a code that comes up twice, or a row that goes while it is waited for */
#define MOST_TRIES 100

/* the order of the table's columns */
enum
{
	COLUMN_DOMAIN = 0,
	COLUMN_STUDY,
	COLUMN_ORIGINAL,
	COLUMN_CODE,
	COLUMN_CREATED_AT,
	COLUMN_RUN_ID,
	COLUMN_COUNT
};

/* The table at hand, for one call. */
typedef struct CodeTable
{
	Relation	relation;
	Relation	index;
	TupleTableSlot *slot;		/* of what is found */
	TupleTableSlot *made;		/* of what is inserted */
	EState	   *estate;
	ResultRelInfo *target;		/* NULL: nothing is inserted */
	pg_cryptohash_ctx *hash;
	MemoryContext scratch;		/* reset for each code */
	int64		run_id;
} CodeTable;

static void open_table(CodeTable *table, bool create);
static void close_table(CodeTable *table);
static void find_codes(CodeTable *table, Code **wanted, int n);
static void find_code(CodeTable *table, Code *code, Snapshot snapshot);
static void make_code(CodeTable *table, Code *code);
static bool insert_code(CodeTable *table, const Code *code, const char *text, bool wait);
static void draw_code(char *text);
static bytea *digest_of(CodeTable *table, const CodeName *name);
static bool is_text(TupleTableSlot *slot, int column, Span expected);
static Datum as_text(Span span);

/*
 * Gives each code that is wanted its text, in the current transaction; without
 * create one that is not in the table gets a text that is nowhere else.
 * What has no code and may not be given one is not wanted any more.
 */
void
pseudonyms_resolve(CodeBook *codes, int64 run_id, bool create)
{
	CodeTable	table = {0};
	OwnerScope	scope;
	MemoryContext memory = CurrentMemoryContext;
	int			n;
	Code	  **wanted = codebook_wanted(codes, &n);

	if (n == 0)
		return;
	owner_begin(&scope);
	MemoryContextSwitchTo(memory);
	table.run_id = run_id;
	open_table(&table, create);
	find_codes(&table, wanted, n);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (wanted[i]->text[0] != '\0' || !wanted[i]->create)
			continue;
		if (create)
			make_code(&table, wanted[i]);
		else
			draw_code(wanted[i]->text);
	}
	POINT("codes.made");
	close_table(&table);
	owner_end(&scope);
	MemoryContextSwitchTo(memory);
	codebook_give_up(codes);
	pfree(wanted);
}

static void
open_table(CodeTable *table, bool create)
{
	LOCKMODE	mode = create ? RowExclusiveLock : AccessShareLock;

	table->relation = table_open(own_relation("pseudonym"), mode);
	table->index = index_open(own_relation("pseudonym_original"), AccessShareLock);
	table->slot = table_slot_create(table->relation, NULL);
	table->scratch = AllocSetContextCreate(CurrentMemoryContext, "epro_etl codes of a chunk",
										   ALLOCSET_DEFAULT_SIZES);
	table->hash = pg_cryptohash_create(PG_SHA256);
	if (table->hash == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (!create)
		return;
	table->made = MakeSingleTupleTableSlot(RelationGetDescr(table->relation), &TTSOpsHeapTuple);
	table->estate = CreateExecutorState();
	table->target = makeNode(ResultRelInfo);
	InitResultRelInfo(table->target, table->relation, 0, NULL, 0);
	ExecOpenIndices(table->target, true);
}

static void
close_table(CodeTable *table)
{
	if (table->target != NULL)
	{
		ExecCloseIndices(table->target);
		ExecDropSingleTupleTableSlot(table->made);
		FreeExecutorState(table->estate);
		CommandCounterIncrement();
	}
	pg_cryptohash_free(table->hash);
	ExecDropSingleTupleTableSlot(table->slot);
	MemoryContextDelete(table->scratch);
	index_close(table->index, AccessShareLock);
	table_close(table->relation, NoLock);
}

/* Those that are there, seen as of now. */
static void
find_codes(CodeTable *table, Code **wanted, int n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		find_code(table, wanted[i], snapshot);
	}
	UnregisterSnapshot(snapshot);
}

static void
find_code(CodeTable *table, Code *code, Snapshot snapshot)
{
	MemoryContext caller = MemoryContextSwitchTo(table->scratch);
	ScanKeyData key;
	IndexScanDesc scan;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(digest_of(table, &code->name)));
	scan = epro_index_beginscan(table->relation, table->index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, table->slot))
	{
		bool		isnull;

		/* two of one digest are not known to exist; were there any, they stay apart */
		if (!is_text(table->slot, COLUMN_DOMAIN, code->name.domain) ||
			!is_text(table->slot, COLUMN_STUDY, code->name.study) ||
			!is_text(table->slot, COLUMN_ORIGINAL, code->name.original))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("two originals of epro_etl.pseudonym have the same digest")));
		text_to_cstring_buffer(DatumGetTextPP(slot_getattr(table->slot, COLUMN_CODE + 1, &isnull)),
							   code->text, sizeof(code->text));
	}
	index_endscan(scan);
	ExecClearTuple(table->slot);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(table->scratch);
}

/* Makes one, or takes that of who was there first. */
static void
make_code(CodeTable *table, Code *code)
{
	char		text[2 * CODE_BYTES + 1];

	for (int tries = 0; tries < MOST_TRIES; tries++)
	{
		draw_code(text);
		/* it was not there a moment ago: mostly there is nobody to wait for */
		if (insert_code(table, code, text, tries > 0))
		{
			strlcpy(code->text, text, sizeof(code->text));
			return;
		}
		find_codes(table, &code, 1);
		if (code->text[0] != '\0')
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not make a code: the rows of epro_etl.pseudonym keep changing")));
}

/*
 * Inserts a row; false when there is another for the same original, or with the
 * same code.  With wait, looks for such a one first, and waits for the end of a
 * transaction that is making it.
 */
static bool
insert_code(CodeTable *table, const Code *code, const char *text, bool wait)
{
	MemoryContext caller = MemoryContextSwitchTo(table->scratch);
	Datum		values[COLUMN_COUNT];
	bool		nulls[COLUMN_COUNT] = {false};
	ItemPointerData other;
	uint32		token;
	bool		conflict = false;

	values[COLUMN_DOMAIN] = as_text(code->name.domain);
	values[COLUMN_STUDY] = as_text(code->name.study);
	values[COLUMN_ORIGINAL] = as_text(code->name.original);
	values[COLUMN_CODE] = CStringGetTextDatum(text);
	values[COLUMN_CREATED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[COLUMN_RUN_ID] = Int64GetDatum(table->run_id);
	ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(table->relation), values, nulls),
					   table->made, false);
	table->made->tts_tableOid = RelationGetRelid(table->relation);

	ItemPointerSetInvalid(&table->made->tts_tid);
	if (wait && epro_finds_conflict(table->target, table->made, table->estate, &other, NIL))
		conflict = true;
	else
	{
		/* who finds it unfinished waits for the token, not for our transaction */
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(table->relation, table->made,
									   GetCurrentCommandId(true), 0, NULL, token);
		(void) epro_insert_index_tuples_speculatively(table->target, table->made,
													  table->estate, &conflict);
		table_tuple_complete_speculative(table->relation, table->made, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	}
	ExecClearTuple(table->made);
	ResetPerTupleExprContext(table->estate);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(table->scratch);
	return !conflict;
}

/* Random, from the server's strong source: it tells nothing of what it stands for. */
static void
draw_code(char *text)
{
	uint8		bytes[CODE_BYTES];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random code")));
	(void) hex_encode((const char *) bytes, sizeof(bytes), text);
	text[2 * CODE_BYTES] = '\0';
}

/*
 * SHA-256 of "<bytes of domain>:<bytes of study>:" and the three behind each other:
 * what the expression of the index pseudonym_original makes of a row.
 */
static bytea *
digest_of(CodeTable *table, const CodeName *name)
{
	bytea	   *digest = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	char	   *lengths = psprintf("%d:%d:", name->domain.len, name->study.len);

	SET_VARSIZE(digest, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	if (pg_cryptohash_init(table->hash) < 0 ||
		pg_cryptohash_update(table->hash, (const uint8 *) lengths, strlen(lengths)) < 0 ||
		pg_cryptohash_update(table->hash, (const uint8 *) name->domain.data, name->domain.len) < 0 ||
		pg_cryptohash_update(table->hash, (const uint8 *) name->study.data, name->study.len) < 0 ||
		pg_cryptohash_update(table->hash, (const uint8 *) name->original.data, name->original.len) < 0 ||
		pg_cryptohash_final(table->hash, (uint8 *) VARDATA(digest), PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a digest: %s", pg_cryptohash_error(table->hash))));
	return digest;
}

static bool
is_text(TupleTableSlot *slot, int column, Span expected)
{
	bool		isnull;
	text	   *found = DatumGetTextPP(slot_getattr(slot, column + 1, &isnull));

	return VARSIZE_ANY_EXHDR(found) == expected.len &&
		(expected.len == 0 || memcmp(VARDATA_ANY(found), expected.data, expected.len) == 0);
}

static Datum
as_text(Span span)
{
	return PointerGetDatum(cstring_to_text_with_len(span.len > 0 ? span.data : "", span.len));
}
