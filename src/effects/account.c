/*
 * account.c
 *		Ledger, findings, quarantine, and rows that were superseded.
 *
 * What a chunk did is written in the chunk's own transaction, so the ledger
 * cannot disagree with the data.  All others, which hold data, go in by direct
 * multi-insert, never as parameters of a statement: some server can be told to
 * log those.
 *
 * Liveness is a held lock, not an age: every worker of a run holds a session
 * advisory lock named after the run, in a key space that the SQL functions for
 * advisory locks cannot reach.  A run without an end and without that lock has
 * crashed.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "effects/effects.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* the fourth field of the lock's tag: SQL's advisory locks have 1 and 2 */
#define LIVENESS_LOCK 3

static void write_findings(int64 run_id, const FindingList *findings,
						   const FoundFor *found, int nfound);
static void write_tuples(const char *relation, HeapTuple *tuples, int n);
static void execute(const char *command, int nargs, Oid *types, Datum *values,
					const char *nulls, int expected);
static Datum text_or_null(const char *text, char *null);
static void liveness_tag(LOCKTAG *tag, int64 run_id);

/* Writes a run's first entry and returns its number.  As the owner. */
int64
account_open_run(const RunStart *start, Jsonb *versions)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, BOOLOID, INT4OID, INT4OID,
	OIDOID, OIDOID, TIMESTAMPTZOID, JSONBOID, BOOLOID, JSONBOID, INT4OID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1] = "             ";
	OwnerScope	scope;
	bool		isnull;
	int64		run_id;

	owner_begin(&scope);
	values[0] = CStringGetTextDatum(start->pipeline);
	values[1] = CStringGetTextDatum(start->source);
	values[2] = text_or_null(start->reason, &nulls[2]);
	values[3] = BoolGetDatum(start->dry_run);
	values[4] = Int32GetDatum(start->workers);
	values[5] = Int32GetDatum(start->batch_size);
	values[6] = ObjectIdGetDatum(start->session_user);
	values[7] = ObjectIdGetDatum(start->current_user);
	values[8] = TimestampTzGetDatum(start->started_at);
	values[9] = JsonbPGetDatum(versions);
	values[10] = BoolGetDatum(start->stream);
	values[11] = JsonbPGetDatum(start->context);
	nulls[11] = start->context ? ' ' : 'n';
	values[12] = Int32GetDatum(start->key_version);
	execute("INSERT INTO epro_etl.run_ledger (pipeline, source, reason, dry_run, workers, batch_size,"
			" session_user_name, current_user_name, started_at, versions, stream, context, key_version)"
			" VALUES ($1, $2, $3, $4, $5, $6, pg_get_userbyid($7), pg_get_userbyid($8), $9, $10, $11, $12, $13)"
			" RETURNING run_id",
			lengthof(types), types, values, nulls, SPI_OK_INSERT_RETURNING);
	run_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										 1, &isnull));
	owner_end(&scope);
	POINT("account.opened");
	return run_id;
}

/* The key version that a run was pinned to. */
int
account_key_version(int64 run_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	OwnerScope	scope;
	bool		isnull;
	int			version;

	owner_begin(&scope);
	execute("SELECT key_version FROM epro_etl.run_ledger WHERE run_id = $1",
			lengthof(types), types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed != 1)
		elog(ERROR, "run " INT64_FORMAT " is not in the ledger", run_id);
	version = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										  1, &isnull));
	owner_end(&scope);
	return version;
}

/* Writes a worker's row, which its chunks then count in. */
void
account_open_worker(int64 run_id, int worker)
{
	Oid			types[] = {INT8OID, INT4OID, INT4OID};
	Datum		values[] = {Int64GetDatum(run_id), Int32GetDatum(worker), Int32GetDatum(MyProcPid)};
	OwnerScope	scope;

	owner_begin(&scope);
	execute("INSERT INTO epro_etl.run_worker (run_id, worker, pid) VALUES ($1, $2, $3)",
			lengthof(types), types, values, NULL, SPI_OK_INSERT);
	owner_end(&scope);
}

/* Accounts for a chunk, in its transaction. */
void
account_chunk(int64 run_id, int worker, const Counts *counts,
			  const FindingList *findings, const FoundFor *found, int nfound)
{
	Oid			types[] = {INT8OID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID,
	INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(run_id), Int32GetDatum(worker),
		Int64GetDatum(counts->claimed), Int64GetDatum(counts->loaded),
		Int64GetDatum(counts->warned), Int64GetDatum(counts->rejected),
		Int64GetDatum(counts->duplicate), Int64GetDatum(counts->deferred),
		Int64GetDatum(counts->skipped), Int64GetDatum(counts->undeclared),
	};
	OwnerScope	scope;

	write_findings(run_id, findings, found, nfound);
	POINT("account.found");

	owner_begin(&scope);
	execute("UPDATE epro_etl.run_worker SET claimed = claimed + $3, loaded = loaded + $4,"
			" warned = warned + $5, rejected = rejected + $6, duplicate = duplicate + $7,"
			" deferred = deferred + $8, skipped = skipped + $9, undeclared = undeclared + $10, chunks = chunks + 1"
			" WHERE run_id = $1 AND worker = $2",
			lengthof(types), types, values, NULL, SPI_OK_UPDATE);
	if (SPI_processed != 1)
		elog(ERROR, "the ledger has lost worker %d of run " INT64_FORMAT, worker, run_id);
	owner_end(&scope);
}

/*
 * Does any worker hold the run's liveness now?  Never waits: who waited here
 * would stand in the way of workers that are still to come.
 */
bool
account_is_alive(int64 run_id)
{
	LOCKTAG		tag;

	liveness_tag(&tag, run_id);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, ExclusiveLock, false);
	return false;
}

/* Puts rejected responses into quarantine, whole. */
void
account_quarantine(int64 run_id, const char *pipeline, const Rejected *rejected,
				   int nrejected)
{
	Relation	relation;
	HeapTuple  *tuples;
	TimestampTz now = GetCurrentTimestamp();
	Oid			sequence;

	if (nrejected == 0)
		return;
	tuples = palloc(sizeof(HeapTuple) * nrejected);
	relation = table_open(own_relation("quarantine"), RowExclusiveLock);
	sequence = own_relation("quarantine_quarantine_id_seq");
	for (int i = 0; i < nrejected; i++)
	{
		Datum		values[9];
		bool		nulls[9] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int64GetDatum(nextval_internal(sequence, false));
		values[1] = Int64GetDatum(run_id);
		values[2] = CStringGetTextDatum(pipeline);
		nulls[3] = rejected[i].source_id == NULL;
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(rejected[i].source_id);
		nulls[4] = rejected[i].form == NULL;
		values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(rejected[i].form);
		values[5] = JsonbPGetDatum(rejected[i].original);
		values[6] = TimestampTzGetDatum(now);
		values[7] = TimestampTzGetDatum(now);
		values[8] = Int32GetDatum(1);
		tuples[i] = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	}
	table_close(relation, NoLock);
	POINT("account.quarantine");
	write_tuples("quarantine", tuples, nrejected);
}

/* Keeps rows of a sink that responses of the run have taken the place of. */
void
account_superseded(int64 run_id, const Sink *sink, const Superseded *superseded,
				   int n)
{
	Relation	relation;
	HeapTuple  *tuples;
	TimestampTz now = GetCurrentTimestamp();
	Oid			sequence;

	if (n == 0)
		return;
	tuples = palloc(sizeof(HeapTuple) * n);
	relation = table_open(own_relation("superseded"), RowExclusiveLock);
	sequence = own_relation("superseded_superseded_id_seq");
	for (int i = 0; i < n; i++)
	{
		const Superseded *row = &superseded[i];
		Datum		values[9];
		bool		nulls[9] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int64GetDatum(nextval_internal(sequence, false));
		values[1] = Int64GetDatum(sink->id);
		values[2] = CStringGetTextDatum(sink->name);
		values[3] = Int64GetDatum(run_id);
		nulls[4] = row->by_source_id == NULL;
		values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(row->by_source_id);
		nulls[5] = row->run_id == 0;
		values[5] = Int64GetDatum(row->run_id);
		nulls[6] = row->source_id == NULL;
		values[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(row->source_id);
		values[7] = JsonbPGetDatum(row->row);
		values[8] = TimestampTzGetDatum(now);
		tuples[i] = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	}
	table_close(relation, NoLock);
	POINT("account.superseded");
	write_tuples("superseded", tuples, n);
}

/* Has any response of the pipeline been put back into staging, and not come through yet? */
bool
account_has_requeued(const char *pipeline)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(pipeline)};
	OwnerScope	scope;
	bool		any;

	owner_begin(&scope);
	execute("SELECT 1 FROM epro_etl.requeued WHERE pipeline = $1 LIMIT 1",
			1, types, values, NULL, SPI_OK_SELECT);
	any = SPI_processed > 0;
	owner_end(&scope);
	return any;
}

/*
 * Requeued responses of a chunk: one that failed again keeps its history of
 * tries, one that was loaded has none any more.
 */
void
account_requeued(int64 run_id, const char *pipeline, Datum *loaded_ids,
				 int nloaded)
{
	Oid			types[] = {TEXTOID, INT8OID, TEXTARRAYOID};
	Datum		values[] = {
		CStringGetTextDatum(pipeline), Int64GetDatum(run_id),
		PointerGetDatum(construct_array(loaded_ids, nloaded, TEXTOID, -1, false, TYPALIGN_INT))
	};
	OwnerScope	scope;

	owner_begin(&scope);
	execute("WITH back AS (DELETE FROM epro_etl.requeued r USING epro_etl.quarantine q"
			" WHERE r.pipeline = $1 AND q.pipeline = $1 AND q.run_id = $2 AND q.source_id = r.source_id"
			" RETURNING r.source_id, r.first_try, r.tries)"
			" UPDATE epro_etl.quarantine q SET first_try = b.first_try, tries = b.tries + 1"
			" FROM back b WHERE q.pipeline = $1 AND q.run_id = $2 AND q.source_id = b.source_id",
			2, types, values, NULL, SPI_OK_UPDATE);
	POINT("account.requeued");
	execute("DELETE FROM epro_etl.requeued WHERE pipeline = $1 AND source_id = ANY ($3) AND $2 IS NOT NULL",
			3, types, values, NULL, SPI_OK_DELETE);
	owner_end(&scope);
}

/*
 * Can the ledger be written without a wait?  For a process on its way out,
 * which nobody could interrupt.  Holds the lock until the transaction's end.
 */
bool
account_can_write(void)
{
	return ConditionalLockRelationOid(own_relation("run_ledger"), RowExclusiveLock);
}

/* Writes how a run ended.  The first cause has been decided by the caller. */
void
account_close_run(int64 run_id, const char *status, int sqlstate,
				  const char *message, int worker, int64 chunk, int64 remaining)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID,
	TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1] = "        ";
	OwnerScope	scope;

	POINT("account.close");
	owner_begin(&scope);
	values[0] = Int64GetDatum(run_id);
	values[1] = CStringGetTextDatum(status);
	values[2] = text_or_null(sqlstate ? unpack_sql_state(sqlstate) : NULL, &nulls[2]);
	values[3] = text_or_null(message, &nulls[3]);
	values[4] = Int32GetDatum(worker);
	nulls[4] = worker > 0 ? ' ' : 'n';
	values[5] = Int64GetDatum(chunk);
	nulls[5] = worker > 0 ? ' ' : 'n';
	values[6] = Int64GetDatum(remaining);
	nulls[6] = remaining >= 0 ? ' ' : 'n';
	values[7] = TimestampTzGetDatum(GetCurrentTimestamp());
	execute("UPDATE epro_etl.run_ledger SET status = $2, sqlstate = $3, message = $4,"
			" failed_worker = $5, failed_chunk = $6, remaining = $7, finished_at = $8"
			" WHERE run_id = $1",
			lengthof(types), types, values, nulls, SPI_OK_UPDATE);
	owner_end(&scope);
}

/*
 * Holds the run's liveness until the session ends.  May have to wait for the
 * moment in which account_is_alive() holds it elsewhere.
 */
void
account_liveness_hold(int64 run_id)
{
	LOCKTAG		tag;

	liveness_tag(&tag, run_id);
	(void) LockAcquire(&tag, ShareLock, true, false);
}

/* Lets go of it: the run has ended, the session goes on. */
void
account_liveness_release(int64 run_id)
{
	LOCKTAG		tag;

	liveness_tag(&tag, run_id);
	(void) LockRelease(&tag, ShareLock, true);
}

static void
write_findings(int64 run_id, const FindingList *findings, const FoundFor *found,
			   int nfound)
{
	Relation	relation;
	HeapTuple  *tuples;
	int			total = 0;
	int			n = 0;

	for (int i = 0; i < nfound; i++)
		total += found[i].n;
	if (total == 0)
		return;

	tuples = palloc(sizeof(HeapTuple) * total);
	relation = table_open(own_relation("finding"), RowExclusiveLock);
	for (int i = 0; i < nfound; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int f = found[i].first; f < found[i].first + found[i].n; f++)
		{
			const Finding *finding = &findings->items[f];
			Datum		values[8];
			bool		nulls[8] = {false};

			values[0] = Int64GetDatum(run_id);
			nulls[1] = found[i].source_id == NULL;
			values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(found[i].source_id);
			nulls[2] = found[i].form == NULL;
			values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(found[i].form);
			nulls[3] = finding->location == NULL;
			values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(finding->location);
			values[4] = CStringGetTextDatum(finding->rule);
			values[5] = CStringGetTextDatum(finding_kind_name(finding->kind));
			values[6] = CStringGetTextDatum(severity_name(finding->severity));
			values[7] = CStringGetTextDatum(finding->message);
			tuples[n++] = heap_form_tuple(RelationGetDescr(relation), values, nulls);
		}
	}
	table_close(relation, NoLock);
	write_tuples("finding", tuples, n);
}

/* Into an own table: no privilege of the caller is needed, see internal.c. */
static void
write_tuples(const char *name, HeapTuple *tuples, int n)
{
	Relation	relation = table_open(own_relation(name), RowExclusiveLock);
	volatile int at;

	bulk_insert(relation, tuples, n, &at);
	table_close(relation, NoLock);
	CommandCounterIncrement();
}

static void
execute(const char *command, int nargs, Oid *types, Datum *values,
		const char *nulls, int expected)
{
	int			result = SPI_execute_with_args(command, nargs, types, values,
											   nulls, false, 0);

	if (result != expected)
		elog(ERROR, "could not write the ledger: %s", SPI_result_code_string(result));
}

static Datum
text_or_null(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
liveness_tag(LOCKTAG *tag, int64 run_id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (run_id >> 32),
						 (uint32) run_id, LIVENESS_LOCK);
}
