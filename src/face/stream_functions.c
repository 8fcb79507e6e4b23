/*
 * stream_functions.c
 *		Starting, stopping and watching streams, as SQL calls them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "processes/stream.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "words/errors.h"

PG_FUNCTION_INFO_V1(epro_etl_pipeline_source);
PG_FUNCTION_INFO_V1(epro_etl_launch_stream);
PG_FUNCTION_INFO_V1(epro_etl_stop_stream);
PG_FUNCTION_INFO_V1(epro_etl_deliver);
PG_FUNCTION_INFO_V1(epro_etl_stream_status);
PG_FUNCTION_INFO_V1(epro_etl_channel_status);
PG_FUNCTION_INFO_V1(epro_etl_wake_stream);

/* how often to look whether a leader that has done all has gone */
#define LAST_LOOK_MS 2

static void check_stages(Jsonb *stages);
static void write_stream(int64 pipeline_id, Jsonb *stages, int queue_size);
static void write_roles(int64 pipeline_id);
static void check_rights(Oid role);
static bool forget_stream(int64 pipeline_id);
static int64 find_pipeline(const char *name);
static void wait_for_end(int64 pipeline_id, TimestampTz until);
static void look_for_end(int64 pipeline_id, TimestampTz until);
static void take_wish_back(int code, Datum arg);
static void give_entry_back(int code, Datum arg);
static bool ask_to_stop(int64 pipeline_id, StreamStop stop);
static void refuse_own_lock(const StreamEntry *stream);
static void refuse_restricted(void);
static Oid	login_role(void);
static void wake_at_commit(XactEvent event, void *arg);

/* pipeline_source(pipeline): whose commits wake its stream. */
Datum
epro_etl_pipeline_source(PG_FUNCTION_ARGS)
{
	Oid			source;

	(void) pipeline_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), &source);
	PG_RETURN_OID(source);
}

/*
 * launch_stream(pipeline, stages, queue_size): writes down that the stream is
 * wanted and starts its leader, which begins when the transaction commits.
 * True when it was not up before.
 */
Datum
epro_etl_launch_stream(PG_FUNCTION_ARGS)
{
	char	   *name;
	Jsonb	   *stages = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	int			queue_size = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	Oid			source;
	int64		pipeline_id;
	int			entry;
	bool		fresh;
	bool		was_down;
	int			give_back;

	PreventCommandDuringRecovery("epro_etl.start_stream()");
	PreventCommandIfReadOnly("epro_etl.start_stream()");
	refuse_restricted();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pipeline must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (stages != NULL)
		check_stages(stages);
	if (!PG_ARGISNULL(2) && (queue_size < 1 || queue_size > MAX_QUEUE_SIZE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue_size must be between 1 and %d", MAX_QUEUE_SIZE)));
	pipeline_id = pipeline_find(name, &source);
	if (get_rel_persistence(source) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a stream cannot read a temporary table"),
				 errhint("Its processes are sessions of their own.")));
	if (!role_may_connect(login_role()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the processes of a stream log in as role \"%s\", who may not",
						GetUserNameFromId(login_role(), false)),
				 errhint("The role needs LOGIN, and CONNECT on the database.")));
	(void) pipeline_load(pipeline_id, pipeline_versions(pipeline_id));

	/* the row's lock brings this into order with other starts and stops */
	write_stream(pipeline_id, stages, queue_size);
	entry = registry_stream_enter(MyDatabaseId, pipeline_id, login_role(), GetUserId(),
								  GetTopTransactionId(), &fresh, &was_down);
	if (entry < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the server has %d streams already", MOST_STREAMS)));
	/* also when the session is terminated while it waits for a lock */
	give_back = !fresh ? -1 : was_down ? entry + MOST_STREAMS : entry;
	PG_ENSURE_ERROR_CLEANUP(give_entry_back, Int32GetDatum(give_back));
	{
		if (fresh)
			write_roles(pipeline_id);
		if (fresh && !leader_register(entry, name))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("no background worker is free for the stream"),
					 errhint("Raise max_worker_processes.")));
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_entry_back, Int32GetDatum(give_back));
	PG_RETURN_BOOL(fresh);
}

/*
 * stop_stream(pipeline, drain, timeout): asks the stream to end and waits for
 * that.  A drain that takes longer than timeout becomes a stop at once.  True
 * when there was a stream.
 */
Datum
epro_etl_stop_stream(PG_FUNCTION_ARGS)
{
	bool		drain = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	TimestampTz until = 0;
	int64		pipeline_id;
	bool		wanted;
	bool		running;

	PreventCommandDuringRecovery("epro_etl.stop_stream()");
	PreventCommandIfReadOnly("epro_etl.stop_stream()");
	refuse_restricted();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pipeline must not be null")));
	if (!PG_ARGISNULL(2))
		until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														TimestampTzGetDatum(GetCurrentTimestamp()),
														PG_GETARG_DATUM(2)));
	pipeline_id = find_pipeline(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	wanted = forget_stream(pipeline_id);
	running = ask_to_stop(pipeline_id, drain ? STOP_DRAIN : STOP_NOW);
	if (running)
		wait_for_end(pipeline_id, until);
	PG_RETURN_BOOL(wanted || running);
}

/* deliver(pipeline): what the outbox holds for its sinks, in this transaction. */
Datum
epro_etl_deliver(PG_FUNCTION_ARGS)
{
	Run			run = {0};
	Oid			source;
	int64		pipeline_id = pipeline_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), &source);
	int64		total = 0;
	int			delivered;

	PreventCommandDuringRecovery("epro_etl.deliver()");
	PreventCommandIfReadOnly("epro_etl.deliver()");
	run.pipeline = pipeline_load(pipeline_id, pipeline_versions(pipeline_id));
	run_begin(&run, NULL);
	do
	{
		CHECK_FOR_INTERRUPTS();
		PushActiveSnapshot(GetTransactionSnapshot());
		delivered = run_deliver(&run);
		PopActiveSnapshot();
		CommandCounterIncrement();
		run_committed(&run);
		total += delivered;
	} while (delivered > 0);
	PG_RETURN_INT64(total);
}

/* {"deidentify": 2, "store": 1}: stages in which a group of workers begins. */
static void
check_stages(Jsonb *stages)
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	workers;
	int64		total = 0;

	if (!JB_ROOT_IS_OBJECT(stages) || JB_ROOT_COUNT(stages) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stages must be an object of numbers of workers"),
				 errhint("Write for example {\"deidentify\": 2, \"validate\": 3, \"store\": 1}; NULL does not cut.")));
	iterator = JsonbIteratorInit(&stages->root);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		bool		known = false;
		int64		n = 0;

		(void) JsonbIteratorNext(&iterator, &workers, true);
		for (int stage = 0; stage < STAGE_COUNT; stage++)
			known |= jsonb_text_is(&key, stage_name[stage]);
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown stage \"%s\"", jsonb_text(&key)),
					 errhint("The stages are decode, deidentify, normalise, validate and store.")));
		if (workers.type != jbvNumeric || !value_from_numeric(workers.val.numeric, &n) ||
			n < 1 || n > MOST_STAGE_WORKERS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the number of workers of stage \"%s\" must be between 1 and %d",
							jsonb_text(&key), MOST_STAGE_WORKERS)));
		total += n;
	}
	if (total > MOST_STAGE_WORKERS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream cannot have more than %d workers", MOST_STAGE_WORKERS)));
}

/*
 * Writes the wish down, as the extension's owner: who could write it by hand
 * could have a stream act as anybody.  What is another role's stays as it is.
 */
static void
write_stream(int64 pipeline_id, Jsonb *stages, int queue_size)
{
	Oid			types[] = {INT8OID, JSONBOID, INT4OID, OIDOID, OIDOID};
	Datum		values[] = {
		Int64GetDatum(pipeline_id), JsonbPGetDatum(stages), Int32GetDatum(queue_size),
		ObjectIdGetDatum(login_role()), ObjectIdGetDatum(GetUserId())
	};
	char		nulls[] = {' ', stages ? ' ' : 'n', queue_size ? ' ' : 'n', ' ', ' ', '\0'};
	OwnerScope	scope;
	bool		isnull;
	Oid			role;

	owner_begin(&scope);
	if (SPI_execute_with_args("INSERT INTO epro_etl.stream (pipeline_id, stages, queue_size, login, role, context)"
							  " VALUES ($1, $2, $3, $4, $5, nullif(current_setting('epro_etl.context'), '')::jsonb)"
							  " ON CONFLICT (pipeline_id) DO UPDATE SET stages = excluded.stages,"
							  " queue_size = excluded.queue_size, context = excluded.context"
							  " RETURNING role::oid",
							  lengthof(types), types, values, nulls, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not write the stream down");
	role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	owner_end(&scope);
	check_rights(role);
}

/*
 * Maintenance runs functions of tables' owners, as these, in sessions of
 * others, who must not be the ones that a stream logs in as.
 */
static void
refuse_restricted(void)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a stream cannot be started or stopped within a security-restricted operation")));
}

/* As whom a stream logs in: a function's owner, inside one that changes users. */
static Oid
login_role(void)
{
	return InLocalUserIdChange() ? GetUserId() : GetSessionUserId();
}

/* A stream is for the role that it acts as, and its members, to start and stop. */
static void
check_rights(Oid role)
{
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the stream of another role"),
				 errhint("Start and stop it as the role that it acts as, or as a member of that role.")));
}

/* One that was not up acts as who starts it; one that is up keeps its roles. */
static void
write_roles(int64 pipeline_id)
{
	Oid			types[] = {INT8OID, OIDOID, OIDOID};
	Datum		values[] = {
		Int64GetDatum(pipeline_id), ObjectIdGetDatum(login_role()),
		ObjectIdGetDatum(GetUserId())
	};
	OwnerScope	scope;

	owner_begin(&scope);
	if (SPI_execute_with_args("UPDATE epro_etl.stream SET login = $2, role = $3, started_at = now()"
							  " WHERE pipeline_id = $1",
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write the stream down");
	owner_end(&scope);
}

/* The stream is not wanted any more; true if it was. */
static bool
forget_stream(int64 pipeline_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};
	OwnerScope	scope;
	bool		wanted;
	bool		isnull;
	Oid			role = InvalidOid;

	owner_begin(&scope);
	if (SPI_execute_with_args("DELETE FROM epro_etl.stream WHERE pipeline_id = $1 RETURNING role::oid",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
		elog(ERROR, "could not write the stream down");
	wanted = SPI_processed > 0;
	if (wanted)
		role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	owner_end(&scope);
	if (wanted)
		check_rights(role);
	return wanted;
}

/* By name; its source need not be there any more. */
static int64
find_pipeline(const char *name)
{
	Oid			source;
	int64		id = pipeline_look_up(name, &source);

	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", name),
				 errhint("See epro_etl.pipeline.")));
	return id;
}

/* True when there is a leader that will end. */
static bool
ask_to_stop(int64 pipeline_id, StreamStop stop)
{
	StreamEntry stream;
	int			entry = registry_stream_find(MyDatabaseId, pipeline_id, &stream);

	if (entry < 0)
		return false;
	check_rights(stream.role);
	if (stream.state == STREAM_DOWN && registry_stream_forget(entry, pipeline_id))
		return false;
	registry_stream_stop(entry, stop);
	return true;
}

/*
 * Until the stream has ended.  An error, or the end of the session, takes the
 * wish back, as it does the rest.
 */
static void
wait_for_end(int64 pipeline_id, TimestampTz until)
{
	PG_ENSURE_ERROR_CLEANUP(take_wish_back, PointerGetDatum(&pipeline_id));
	{
		look_for_end(pipeline_id, until);
	}
	PG_END_ENSURE_ERROR_CLEANUP(take_wish_back, PointerGetDatum(&pipeline_id));
	ConditionVariableCancelSleep();
}

static void
take_wish_back(int code, Datum arg)
{
	StreamEntry stream;
	int			entry;

	ConditionVariableCancelSleep();
	entry = registry_stream_find(MyDatabaseId, *(int64 *) DatumGetPointer(arg), &stream);
	if (entry >= 0)
		registry_stream_go_on(entry);
}

/*
 * The stream is not started after all.  -1: it was not ours to start; from
 * MOST_STREAMS on: it was down before, and is again.
 */
static void
give_entry_back(int code, Datum arg)
{
	int			entry = DatumGetInt32(arg);

	if (entry >= MOST_STREAMS)
		registry_stream_down(entry - MOST_STREAMS);
	else if (entry >= 0)
		registry_stream_leave(entry);
}

static void
look_for_end(int64 pipeline_id, TimestampTz until)
{
	TimestampTz look_at_locks = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DeadlockTimeout);
	StreamEntry stream;
	int			entry;
	int			pid = 0;

	while ((entry = registry_stream_find(MyDatabaseId, pipeline_id, &stream)) >= 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		pid = stream.pid;
		if (stream.state == STREAM_DOWN)
			(void) registry_stream_forget(entry, pipeline_id);
		else if (until != 0 && now >= until)
		{
			registry_stream_stop(entry, STOP_NOW);
			until = 0;
		}
		if (now >= look_at_locks)
		{
			refuse_own_lock(&stream);
			look_at_locks = TimestampTzPlusMilliseconds(now, DeadlockTimeout);
		}
		registry_wait(TimestampDifferenceMilliseconds(now, until == 0 ? look_at_locks :
													  Min(until, look_at_locks)) + 1);
	}
	/* the leader has let go of everything, and is on its way out */
	while (pid != 0 && BackendPidGetProc(pid) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		registry_wait(LAST_LOOK_MS);
	}
}

/* No detector sees that a process of the stream waits for us, who wait for it. */
static void
refuse_own_lock(const StreamEntry *stream)
{
	dsm_segment *segment;
	bool		mapped;
	StreamShared *shared = stream_map(stream->handle, &segment, &mapped);
	bool		ours = stream->pid != 0 && waits_for_us(stream->pid);

	for (int i = 0; shared != NULL && i < shared->nworkers && !ours; i++)
	{
		int			pid = (int) pg_atomic_read_u32(&shared->workers[i].pid);

		ours = pid != 0 && waits_for_us(pid);
	}
	if (shared != NULL && !mapped)
		dsm_detach(segment);
	if (ours)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
				 errmsg("a process of the stream waits for a lock that the calling session holds"),
				 errhint("Commit before stopping the stream.")));
}

/* stream_status(): a row a stream of this database that has a leader, or had one. */
Datum
epro_etl_stream_status(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[STREAM_STARTING] = "starting",
		[STREAM_RUNNING] = "running",
		[STREAM_DRAINING] = "draining",
		[STREAM_WAITING] = "waiting",
		[STREAM_DOWN] = "down",
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			n = registry_stream_list(streams);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		StreamEntry *stream = &streams[i];
		Datum		values[19] = {0};
		bool		nulls[19];
		dsm_segment *segment;
		bool		mapped;
		StreamShared *shared;

		if (stream->database != MyDatabaseId)
			continue;
		memset(nulls, false, sizeof(nulls));
		shared = stream_map(stream->handle, &segment, &mapped);
		values[0] = Int64GetDatum(stream->pipeline_id);
		values[1] = CStringGetTextDatum(names[stream->state]);
		values[2] = TimestampTzGetDatum(stream->since);
		values[3] = Int32GetDatum(stream->pid);
		nulls[3] = stream->pid == 0;
		values[4] = Int64GetDatum(stream->run_id);
		nulls[4] = stream->run_id == 0;
		values[5] = Int64GetDatum(stream->generations);
		values[6] = Int32GetDatum(stream->failures);
		values[7] = TimestampTzGetDatum(stream->not_before);
		nulls[7] = stream->state != STREAM_WAITING && stream->state != STREAM_DOWN;
		nulls[8] = nulls[9] = stream->failures == 0;
		if (!nulls[8])
		{
			values[8] = CStringGetTextDatum(unpack_sql_state(stream->sqlstate));
			values[9] = CStringGetTextDatum(stream->note);
		}
		memset(&nulls[10], shared == NULL, sizeof(bool) * 9);
		if (shared != NULL)
		{
			TimestampTz oldest = (TimestampTz) pg_atomic_read_u64(&shared->oldest);
			int64		half = latency_percentile(&shared->latency, 0.5);
			int64		most = latency_percentile(&shared->latency, 0.99);

			values[10] = Int32GetDatum((int32) pg_atomic_read_u32(&shared->registered));
			values[11] = Int32GetDatum(shared->nworkers);
			values[12] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->stored));
			values[13] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->in_flight));
			values[14] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->held));
			values[15] = TimestampTzGetDatum(oldest);
			nulls[15] = oldest == 0;
			values[16] = Float8GetDatum((double) half / 1000.0);
			values[17] = Float8GetDatum((double) most / 1000.0);
			nulls[16] = nulls[17] = half < 0;
			values[18] = Int32GetDatum(shared->ngroups);
			if (!mapped)
				dsm_detach(segment);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* channel_status(): a row a channel of this database's streams. */
Datum
epro_etl_channel_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamEntry *streams = palloc(sizeof(StreamEntry) * MOST_STREAMS);
	int			n = registry_stream_list(streams);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		dsm_segment *segment;
		bool		mapped;
		StreamShared *shared;

		if (streams[i].database != MyDatabaseId ||
			(shared = stream_map(streams[i].handle, &segment, &mapped)) == NULL)
			continue;
		for (int g = 0; g < shared->ngroups; g++)
		{
			ChannelStat stat;
			Datum		values[12];
			bool		nulls[12] = {false};

			channel_stat(stream_channel(shared, g), &stat);
			values[0] = Int64GetDatum(streams[i].pipeline_id);
			values[1] = Int32GetDatum(g + 1);
			values[2] = CStringGetTextDatum(stage_name[shared->groups[g].named]);
			values[3] = Int32GetDatum(stat.depth);
			values[4] = Int32GetDatum(stat.capacity);
			values[5] = Int64GetDatum(stat.sent);
			values[6] = Int64GetDatum(stat.received);
			values[7] = Int64GetDatum(stat.waits_for_room);
			values[8] = Int64GetDatum(stat.waits_for_rows);
			values[9] = Int32GetDatum(stat.senders);
			values[10] = Int32GetDatum(stat.receivers);
			values[11] = BoolGetDatum(stat.closed);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
		if (!mapped)
			dsm_detach(segment);
	}
	return (Datum) 0;
}

/* The sources that the transaction at hand has written to; a few, mostly one. */
static Oid *written = NULL;
static int	nwritten = 0;
static int	written_room = 0;

/*
 * wake_stream(): trigger of a source, once a statement.  The stream is woken
 * when the transaction has committed, once, and nothing is written for it.
 */
Datum
epro_etl_wake_stream(PG_FUNCTION_ARGS)
{
	static bool watching = false;
	Oid			source;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("wake_stream() is a trigger's function")));
	/* what a trigger returns may be no row, but not SQL's null */
	source = RelationGetRelid(((TriggerData *) fcinfo->context)->tg_relation);
	if (!watching)
	{
		/* what can fail is to fail here, not after the commit */
		registry_attach();
		RegisterXactCallback(wake_at_commit, NULL);
		watching = true;
	}
	for (int i = 0; i < nwritten; i++)
	{
		if (written[i] == source)
			return PointerGetDatum(NULL);
	}
	if (nwritten == written_room)
	{
		int			room = Max(8, written_room * 2);

		written = written ? repalloc(written, sizeof(Oid) * room) :
			MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * room);
		written_room = room;
	}
	written[nwritten++] = source;
	return PointerGetDatum(NULL);
}

/* After the commit is visible to others.  Must not raise an error. */
static void
wake_at_commit(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			for (int i = 0; i < nwritten; i++)
				registry_wake(MyDatabaseId, written[i]);
			nwritten = 0;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			nwritten = 0;
			break;
		default:
			break;
	}
}
