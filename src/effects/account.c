/*
 * account.c
 *		Ledger, findings, quarantine, and rows that were superseded.
 *
 * What a chunk did is written in the chunk's own transaction, so the ledger
 * cannot disagree with the data.  All others, which hold data, go in by direct
 * multi-insert, never as parameters of a statement: some server can be told to
 * log those.
 *
 * What could be changed behind the extension's back is made evident by records
 * of the audit trail, in the same transactions: one when a run opens, one when
 * it closes, over its entry and its workers' counts, and one for the rows that a
 * chunk has superseded in a sink.
 *
 * Liveness is a held lock, not an age: every worker of a run holds a session
 * advisory lock named after the run, in a key space that the SQL functions for
 * advisory locks cannot reach.  A run without an end and without that lock has
 * crashed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "effects/audit.h"
#include "effects/effects.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/lock.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* the fourth field of the lock's tag: SQL's advisory locks have 1 and 2 */
#define LIVENESS_LOCK 3

/*
 * A digest of rows whose order nobody knows afterwards: of each row's SHA-256
 * four numbers of 64 bits, each summed up.
 */
#define SUM_LANES 4

static void write_findings(int64 run_id, const FindingList *findings,
						   const FoundFor *found, int nfound);
static void write_tuples(const char *relation, HeapTuple *tuples, int n);
static void record_run(const char *action, int64 run_id);
static void record_superseded(int64 run_id, const Sink *sink, int n, const uint64 *sum);
static void add_to_sum(uint64 *sum, int64 superseded_id, int64 run_id, const Sink *sink,
					   const Superseded *row, TimestampTz at);
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
	record_run("begin", run_id);
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
	INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	int64		nfindings = 0;
	Datum		values[] = {
		Int64GetDatum(run_id), Int32GetDatum(worker),
		Int64GetDatum(counts->claimed), Int64GetDatum(counts->loaded),
		Int64GetDatum(counts->warned), Int64GetDatum(counts->rejected),
		Int64GetDatum(counts->duplicate), Int64GetDatum(counts->deferred),
		Int64GetDatum(counts->skipped), Int64GetDatum(counts->undeclared),
		(Datum) 0
	};
	OwnerScope	scope;

	static SPIPlanPtr plan = NULL;

	for (int i = 0; i < nfound; i++)
		nfindings += found[i].n;
	values[lengthof(values) - 1] = Int64GetDatum(nfindings);
	write_findings(run_id, findings, found, nfound);
	POINT("account.found");

	owner_begin(&scope);
	if (plan == NULL)
		plan = plan_keep(SPI_prepare("UPDATE epro_etl.run_worker SET claimed = claimed + $3, loaded = loaded + $4,"
									 " warned = warned + $5, rejected = rejected + $6, duplicate = duplicate + $7,"
									 " deferred = deferred + $8, skipped = skipped + $9, undeclared = undeclared + $10,"
									 " chunks = chunks + 1, findings = findings + $11 WHERE run_id = $1 AND worker = $2",
									 lengthof(types), types), TopMemoryContext);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_UPDATE || SPI_processed != 1)
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
	uint64		sum[SUM_LANES] = {0};
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
		add_to_sum(sum, DatumGetInt64(values[0]), run_id, sink, row, now);
	}
	table_close(relation, NoLock);
	POINT("account.superseded");
	write_tuples("superseded", tuples, n);
	record_superseded(run_id, sink, n, sum);
}

/* Has any response of the pipeline been put back into staging, and not come through yet? */
bool
account_has_requeued(const char *pipeline)
{
	Relation	relation = table_open(own_relation("requeued"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		any;

	/* every chunk asks: a statement would cost more than the rest of its accounting */
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(pipeline));
	key.sk_collation = TupleDescAttr(RelationGetDescr(relation), 0)->attcollation;
	scan = systable_beginscan(relation, own_relation("requeued_pkey"), true,
							  GetActiveSnapshot(), 1, &key);
	any = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
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
	return ConditionalLockRelationOid(own_relation("run_ledger"), RowExclusiveLock) &&
		ConditionalLockRelationOid(own_relation("audit_trail"), RowExclusiveLock) &&
		ConditionalLockRelationOid(own_relation("audit_writer"), RowExclusiveLock);
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
	record_run("end", run_id);
	owner_end(&scope);
}

/*
 * What the audit trail says of a run: when it began, what it was asked and under
 * which versions; at its end its status, its counts and a digest of all that the
 * ledger has of it.  A worker that came when all was done has no part in it.
 * Connected to SPI, as the current user; NULL when there is no such run.
 */
Jsonb *
account_facts(int64 run_id, bool at_end, bool read_only)
{
	/* kept: who verifies asks for all runs */
	static SPIPlanPtr plans[2];
	SPIPlanPtr	plan = plans[at_end];
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	bool		isnull;

	if (plan == NULL)
	{
		plan = SPI_prepare(at_end ?
						   "SELECT jsonb_strip_nulls(jsonb_build_object('run_id', l.run_id, 'pipeline', l.pipeline, 'status', l.status, 'sqlstate', l.sqlstate,"
						   " 'claimed', w.claimed, 'loaded', w.loaded, 'warned', w.warned, 'rejected', w.rejected, 'duplicate', w.duplicate,"
						   " 'deferred', w.deferred, 'findings', w.findings, 'digest', encode(sha256(("
						   "SELECT string_agg(CASE WHEN p IS NULL THEN '\\xffffffff' ELSE int4send(octet_length(p)) || convert_to(p, 'UTF8') END, '' ORDER BY n)"
						   " FROM unnest(ARRAY[l.run_id::text, l.pipeline, l.source, l.status, l.reason, l.dry_run::text, l.workers::text, l.batch_size::text,"
						   " l.session_user_name, l.current_user_name, (extract(epoch FROM l.started_at) * 1000000)::bigint::text,"
						   " (extract(epoch FROM l.finished_at) * 1000000)::bigint::text, l.remaining::text, l.sqlstate, l.message,"
						   " l.failed_worker::text, l.failed_chunk::text, l.versions::text, l.stream::text, l.context::text, l.key_version::text] || w.told)"
						   " WITH ORDINALITY AS u (p, n))), 'hex')))"
						   " FROM epro_etl.run_ledger l, LATERAL ("
						   "SELECT coalesce(sum(w.claimed), 0) AS claimed, coalesce(sum(w.loaded), 0) AS loaded, coalesce(sum(w.warned), 0) AS warned,"
						   " coalesce(sum(w.rejected), 0) AS rejected, coalesce(sum(w.duplicate), 0) AS duplicate, coalesce(sum(w.deferred), 0) AS deferred,"
						   " coalesce(sum(w.findings), 0) AS findings, array_agg(format('%s %s %s %s %s %s %s %s %s %s %s %s %s', w.worker, w.pid, w.claimed,"
						   " w.loaded, w.warned, w.rejected, w.duplicate, w.deferred, w.skipped, w.undeclared, w.chunks, w.findings, w.run_id) ORDER BY w.worker) AS told"
						   " FROM epro_etl.run_worker w WHERE w.run_id = l.run_id AND w.chunks > 0) w WHERE l.run_id = $1"
						   :
						   "SELECT jsonb_strip_nulls(jsonb_build_object('run_id', l.run_id, 'pipeline', l.pipeline, 'source', l.source, 'dry_run', l.dry_run,"
						   " 'stream', l.stream, 'workers', l.workers, 'batch_size', l.batch_size, 'key_version', l.key_version, 'versions', l.versions))"
						   " FROM epro_etl.run_ledger l WHERE l.run_id = $1",
						   lengthof(types), types);
		plan = plan_keep(plan, TopMemoryContext);
		plans[at_end] = plan;
	}
	if (SPI_execute_plan(plan, values, NULL, read_only, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the ledger");
	if (SPI_processed != 1)
		return NULL;
	return DatumGetJsonbPCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
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

/* One record of a run, in an owner's scope; none, if the ledger has lost the run. */
static void
record_run(const char *action, int64 run_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	AuditRecord record = {0};
	HeapTuple	row;
	TupleDesc	shape;
	Datum		context;
	bool		isnull;

	record.new_value = account_facts(run_id, strcmp(action, "end") == 0, false);
	execute("SELECT session_user_name, current_user_name, reason, context FROM epro_etl.run_ledger WHERE run_id = $1",
			lengthof(types), types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed != 1 || record.new_value == NULL)
		return;
	row = SPI_tuptable->vals[0];
	shape = SPI_tuptable->tupdesc;
	record.session_user_name = SPI_getvalue(row, shape, 1);
	record.current_user_name = SPI_getvalue(row, shape, 2);
	record.action = action;
	record.object = "run_ledger";
	record.reason = SPI_getvalue(row, shape, 3);
	context = SPI_getbinval(row, shape, 4, &isnull);
	record.context = isnull ? NULL : DatumGetJsonbP(context);
	audit_append(&record);
}

/* One record for what a chunk has superseded in a sink; it rolls back with the try. */
static void
record_superseded(int64 run_id, const Sink *sink, int n, const uint64 *sum)
{
	AuditRecord record = {0};
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "{\"run_id\": " INT64_FORMAT ", \"sink_id\": " INT64_FORMAT ", \"target\": ",
					 run_id, sink->id);
	escape_json(&text, sink->name);
	appendStringInfo(&text, ", \"rows\": %d, \"sum\": [", n);
	for (int lane = 0; lane < SUM_LANES; lane++)
		appendStringInfo(&text, "%s" INT64_FORMAT, lane > 0 ? ", " : "", (int64) sum[lane]);
	appendStringInfoString(&text, "]}");
	audit_caller(&record);
	record.action = "overwrite";
	record.object = "superseded";
	record.new_value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data)));
	audit_append(&record);
}

/* What verify_audit() makes of the row, too. */
static void
add_to_sum(uint64 *sum, int64 superseded_id, int64 run_id, const Sink *sink,
		   const Superseded *row, TimestampTz at)
{
	AuditDigest digest;

	audit_digest_begin(&digest);
	audit_digest_number(&digest, superseded_id);
	audit_digest_number(&digest, sink->id);
	audit_digest_text(&digest, sink->name);
	audit_digest_number(&digest, run_id);
	audit_digest_text(&digest, row->by_source_id);
	if (row->run_id != 0)
		audit_digest_number(&digest, row->run_id);
	else
		audit_digest_text(&digest, NULL);
	audit_digest_text(&digest, row->source_id);
	audit_digest_jsonb(&digest, row->row);
	audit_digest_instant(&digest, at);
	pfree(audit_digest_end(&digest));
	for (int lane = 0; lane < SUM_LANES; lane++)
	{
		uint64		part;

		memcpy(&part, &digest.result[lane * sizeof(part)], sizeof(part));
		sum[lane] += pg_ntoh64(part);
	}
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
