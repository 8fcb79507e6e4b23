/*
 * audit.c
 *		The table epro_etl.audit_trail: records in chains, and the chains' heads.
 *
 * A record has its number in its chain, the hash of the one before it, and its
 * own hash over all of that: who changes or takes away a record breaks the
 * chain behind it.  A head, in epro_etl.audit_writer, says how far its chain
 * goes, so that a tail cannot be cut off unseen.  Each record also has the head
 * of the next chain as a witness, so that a whole chain cannot go unseen either.
 *
 * Locking: a chain has one writer at a time, who holds an advisory lock on its
 * slot to the end of the transaction, in a key space that SQL cannot reach.
 * Nobody waits for one: who finds a slot taken takes the next, and makes a
 * chain where there is none.  So there are as many chains as there ever were
 * transactions at once that had something to record, and writers stand in
 * nobody's way.  Heads are read as of now, whatever the isolation level is.
 *
 * Rows are written by the access methods: no trigger is fired, so triggers can
 * refuse everybody else, and no privilege is asked for.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "effects/audit.h"
#include "effects/effects.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

/* the fourth field of the lock's tag; account.c has 3 */
#define SLOT_LOCK 4

/* columns, in the order of the script */
enum TrailColumn
{
	TRAIL_WRITER = 0,
	TRAIL_SEQ,
	TRAIL_AT,
	TRAIL_SESSION_USER,
	TRAIL_CURRENT_USER,
	TRAIL_ACTOR,
	TRAIL_ACTION,
	TRAIL_OBJECT,
	TRAIL_OLD_VALUE,
	TRAIL_NEW_VALUE,
	TRAIL_REASON,
	TRAIL_CONTEXT,
	TRAIL_WITNESS,
	TRAIL_PREVIOUS,
	TRAIL_HASH,
	TRAIL_COLUMNS
};

enum WriterColumn
{
	WRITER_WRITER = 0,
	WRITER_SLOT,
	WRITER_SEQ,
	WRITER_HASH,
	WRITER_COLUMNS
};

/* The newest record of a chain. */
typedef struct Head
{
	bool		found;
	ItemPointerData at;
	pg_uuid_t	writer;
	int64		seq;
	uint8		hash[PG_SHA256_DIGEST_LENGTH];
} Head;

/* the slot that this process has had last; it is likely to be free */
static int	last_slot = 1;

static const char *name_of_role(Oid role);
static int	take_slot(void);
static bool try_slot(int slot);
static void find_head(Relation writers, int slot, Head *head);
static void find_witness(Relation writers, int slot, Head *witness);
static void begin_chain(Head *head);
static void insert_record(const AuditRecord *record, const Head *head,
						  const Head *witness, char *hash);
static void move_head(Relation writers, int slot, const Head *head, const char *hash);
static Datum text_or_null(const char *text, bool *isnull);
static Datum jsonb_or_null(Jsonb *value, bool *isnull);
static Datum hash_datum(const uint8 *hash);
static char *hex_of(const uint8 *hash);
static char *value_in(Jsonb *object, const char *key);
static void digest_bytes(AuditDigest *digest, const void *data, size_t n);

/*
 * Sets what the session knows of the one who acts: both roles, and the request's
 * reason and values.
 */
void
audit_caller(AuditRecord *record)
{
	record->session_user_name = name_of_role(GetSessionUserId());
	record->current_user_name = name_of_role(GetUserId());
	record->reason = context_get("reason");
	record->context = context_values();
}

/*
 * Appends a record, in the transaction at hand, which it becomes visible and
 * rolls back with.  Takes a lock that nobody waits for, and waits for none but
 * those on the tables themselves.
 */
void
audit_append(const AuditRecord *record)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl audit record",
												 ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	Relation	writers = table_open(own_relation("audit_writer"), RowExclusiveLock);
	int			slot = take_slot();
	Head		head;
	Head		witness;
	char		hash[PG_SHA256_DIGEST_LENGTH];

	find_head(writers, slot, &head);
	find_witness(writers, slot, &witness);
	if (!head.found)
		begin_chain(&head);
	insert_record(record, &head, &witness, hash);
	move_head(writers, slot, &head, hash);
	table_close(writers, NoLock);
	CommandCounterIncrement();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
}

/* A role can be dropped while a session still acts as it. */
static const char *
name_of_role(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("unknown (OID=%u)", role);
}

/* The own slot if it is free, else the first that is; held to the transaction's end. */
static int
take_slot(void)
{
	int			slot = last_slot;

	if (!try_slot(slot))
		for (slot = 1; !try_slot(slot); slot++)
			CHECK_FOR_INTERRUPTS();
	return last_slot = slot;
}

static bool
try_slot(int slot)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, (uint32) slot, SLOT_LOCK);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Of the chain of a slot, as it was committed last, or is here.  Whoever holds
 * the slot sees what the holder before has committed: a lock is let go after that.
 */
static void
find_head(Relation writers, int slot, Head *head)
{
	Relation	index = index_open(own_relation("audit_writer_slot_key"), AccessShareLock);
	TupleTableSlot *row = table_slot_create(writers, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = epro_index_beginscan(writers, index, snapshot, 1);
	ScanKeyData key;
	bool		isnull;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slot));
	index_rescan(scan, &key, 1, NULL, 0);
	head->found = index_getnext_slot(scan, ForwardScanDirection, row);
	if (head->found)
	{
		bytea	   *hash = DatumGetByteaPP(slot_getattr(row, WRITER_HASH + 1, &isnull));

		head->at = row->tts_tid;
		head->writer = *DatumGetUUIDP(slot_getattr(row, WRITER_WRITER + 1, &isnull));
		head->seq = DatumGetInt64(slot_getattr(row, WRITER_SEQ + 1, &isnull));
		if (VARSIZE_ANY_EXHDR(hash) != sizeof(head->hash))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the head of an audit chain is damaged"),
					 errhint("See epro_etl.verify_audit().")));
		memcpy(head->hash, VARDATA_ANY(hash), sizeof(head->hash));
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(row);
	index_close(index, AccessShareLock);
}

/* The next chain's head; the last one's next is the first. */
static void
find_witness(Relation writers, int slot, Head *witness)
{
	find_head(writers, slot + 1, witness);
	if (!witness->found && slot > 1)
		find_head(writers, 1, witness);
}

static void
begin_chain(Head *head)
{
	memset(head, 0, sizeof(*head));
	if (!pg_strong_random(head->writer.data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	/* as gen_random_uuid() marks them: RFC 4122, section 4.4 */
	head->writer.data[6] = (head->writer.data[6] & 0x0f) | 0x40;
	head->writer.data[8] = (head->writer.data[8] & 0x3f) | 0x80;
}

/* Behind head; hash is set to its own. */
static void
insert_record(const AuditRecord *record, const Head *head, const Head *witness,
			  char *hash)
{
	Relation	trail = table_open(own_relation("audit_trail"), RowExclusiveLock);
	Datum		values[TRAIL_COLUMNS];
	bool		nulls[TRAIL_COLUMNS] = {false};
	TimestampTz now = GetCurrentTimestamp();
	char	   *writer = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&head->writer)));
	char	   *actor = value_in(record->context, "actor");
	AuditDigest digest;

	audit_digest_begin(&digest);
	audit_digest_text(&digest, writer);
	audit_digest_number(&digest, head->seq + 1);
	audit_digest_instant(&digest, now);
	audit_digest_text(&digest, record->session_user_name);
	audit_digest_text(&digest, record->current_user_name);
	audit_digest_text(&digest, actor);
	audit_digest_text(&digest, record->action);
	audit_digest_text(&digest, record->object);
	audit_digest_jsonb(&digest, record->old_value);
	audit_digest_jsonb(&digest, record->new_value);
	audit_digest_text(&digest, record->reason);
	audit_digest_jsonb(&digest, record->context);
	audit_digest_text(&digest, witness->found ? hex_of(witness->hash) : NULL);
	audit_digest_text(&digest, head->seq > 0 ? hex_of(head->hash) : NULL);
	(void) audit_digest_end(&digest);
	memcpy(hash, digest.result, PG_SHA256_DIGEST_LENGTH);

	values[TRAIL_WRITER] = UUIDPGetDatum(&head->writer);
	values[TRAIL_SEQ] = Int64GetDatum(head->seq + 1);
	values[TRAIL_AT] = TimestampTzGetDatum(now);
	values[TRAIL_SESSION_USER] = CStringGetTextDatum(record->session_user_name);
	values[TRAIL_CURRENT_USER] = CStringGetTextDatum(record->current_user_name);
	values[TRAIL_ACTOR] = text_or_null(actor, &nulls[TRAIL_ACTOR]);
	values[TRAIL_ACTION] = CStringGetTextDatum(record->action);
	values[TRAIL_OBJECT] = CStringGetTextDatum(record->object);
	values[TRAIL_OLD_VALUE] = jsonb_or_null(record->old_value, &nulls[TRAIL_OLD_VALUE]);
	values[TRAIL_NEW_VALUE] = jsonb_or_null(record->new_value, &nulls[TRAIL_NEW_VALUE]);
	values[TRAIL_REASON] = text_or_null(record->reason, &nulls[TRAIL_REASON]);
	values[TRAIL_CONTEXT] = jsonb_or_null(record->context, &nulls[TRAIL_CONTEXT]);
	nulls[TRAIL_WITNESS] = !witness->found;
	values[TRAIL_WITNESS] = hash_datum(witness->hash);
	nulls[TRAIL_PREVIOUS] = head->seq == 0;
	values[TRAIL_PREVIOUS] = hash_datum(head->hash);
	values[TRAIL_HASH] = hash_datum(digest.result);
	CatalogTupleInsert(trail, heap_form_tuple(RelationGetDescr(trail), values, nulls));
	table_close(trail, NoLock);
}

static void
move_head(Relation writers, int slot, const Head *head, const char *hash)
{
	Datum		values[WRITER_COLUMNS];
	bool		nulls[WRITER_COLUMNS] = {false};
	HeapTuple	row;

	values[WRITER_WRITER] = UUIDPGetDatum(&head->writer);
	values[WRITER_SLOT] = Int32GetDatum(slot);
	values[WRITER_SEQ] = Int64GetDatum(head->seq + 1);
	values[WRITER_HASH] = hash_datum((const uint8 *) hash);
	row = heap_form_tuple(RelationGetDescr(writers), values, nulls);
	if (head->found)
	{
		ItemPointerData at = head->at;

		CatalogTupleUpdate(writers, &at, row);
	}
	else
		CatalogTupleInsert(writers, row);
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

static Datum
jsonb_or_null(Jsonb *value, bool *isnull)
{
	*isnull = value == NULL;
	return value ? JsonbPGetDatum(value) : (Datum) 0;
}

static Datum
hash_datum(const uint8 *hash)
{
	bytea	   *made = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	SET_VARSIZE(made, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	memcpy(VARDATA(made), hash, PG_SHA256_DIGEST_LENGTH);
	return PointerGetDatum(made);
}

static char *
hex_of(const uint8 *hash)
{
	char	   *text = palloc(2 * PG_SHA256_DIGEST_LENGTH + 1);

	text[hex_encode((const char *) hash, PG_SHA256_DIGEST_LENGTH, text)] = '\0';
	return text;
}

/* A text of an object, or NULL. */
static char *
value_in(Jsonb *object, const char *key)
{
	JsonbValue *found = object ? getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL) : NULL;

	return found && found->type == jbvString ? pnstrdup(found->val.string.val, found->val.string.len) : NULL;
}

/* Must be ended, unless an error comes first: the transaction's end frees it then. */
void
audit_digest_begin(AuditDigest *digest)
{
	digest->hash = pg_cryptohash_create(PG_SHA256);
	if (digest->hash == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(digest->hash) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a digest: %s", pg_cryptohash_error(digest->hash))));
}

/* The length in four bytes, high ones first, and the text; NULL is the length -1. */
void
audit_digest_text(AuditDigest *digest, const char *text)
{
	size_t		length = text ? strlen(text) : 0;
	uint32		prefix = pg_hton32(text ? (uint32) length : PG_UINT32_MAX);

	digest_bytes(digest, &prefix, sizeof(prefix));
	digest_bytes(digest, text, length);
}

void
audit_digest_number(AuditDigest *digest, int64 number)
{
	char	   *text = psprintf(INT64_FORMAT, number);

	audit_digest_text(digest, text);
	pfree(text);
}

/* In microseconds since 1970, UTC. */
void
audit_digest_instant(AuditDigest *digest, TimestampTz instant)
{
	audit_digest_number(digest, instant + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

void
audit_digest_jsonb(AuditDigest *digest, Jsonb *value)
{
	char	   *text = value ? JsonbToCString(NULL, &value->root, VARSIZE(value)) : NULL;

	audit_digest_text(digest, text);
	if (text)
		pfree(text);
}

/* In hexadecimal, in the current memory context; digest->result has the bytes. */
char *
audit_digest_end(AuditDigest *digest)
{
	if (pg_cryptohash_final(digest->hash, digest->result, sizeof(digest->result)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a digest: %s", pg_cryptohash_error(digest->hash))));
	pg_cryptohash_free(digest->hash);
	return hex_of(digest->result);
}

static void
digest_bytes(AuditDigest *digest, const void *data, size_t n)
{
	if (n > 0 && pg_cryptohash_update(digest->hash, data, n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a digest: %s", pg_cryptohash_error(digest->hash))));
}
