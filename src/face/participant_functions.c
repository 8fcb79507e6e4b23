/*
 * participant_functions.c
 *		Who takes part in a study: a call chain of three hops, each of which may
 *		be on another server.
 *
 *			study -> participants -> permission
 *
 * Each hop is one query to one relation, under a budget: the function's timeout
 * is an instant that all of them share, so a later hop has what the earlier ones
 * have left; a hop's own timeout can only shorten that.  Whoever's time it was
 * says so: this function for its own and the hops', others for theirs, with a
 * line of context that names the hop.
 *
 * All of it acts as the caller, so that privileges and row security hold, also
 * those of a user mapping.  Only which relations the hops are is read as the
 * extension's owner.
 *
 * There is no subtransaction: on other servers each would cost two round trips,
 * and whoever catches the error has one, whose rollback cancels what runs there.
 * Locks: AccessShareLock on the hops' relations, as any query of them takes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "effects/context.h"
#include "effects/effects.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "words/errors.h"
#include "words/response.h"

PG_FUNCTION_INFO_V1(epro_etl_study_participants);

/* rows taken from a relation at once */
#define ROWS_AT_ONCE 1000

typedef enum HopNumber
{
	HOP_STUDY = 0,
	HOP_PARTICIPANTS,
	HOP_PERMISSION
} HopNumber;

#define HOP_COUNT (HOP_PERMISSION + 1)

typedef enum HopColumn
{
	COLUMN_STUDY = 0,
	COLUMN_SUBJECT_KEY,
	COLUMN_SITE,
	COLUMN_STATUS,
	COLUMN_ENROLLED_ON,
	COLUMN_ROLE
} HopColumn;

#define COLUMN_COUNT (COLUMN_ROLE + 1)

static const char *const hop_name[HOP_COUNT] = {"study", "participants", "permission"};
static const char *const own_table[HOP_COUNT] = {"study", "participant", "site_access"};
static const char *const column_name[COLUMN_COUNT] = {
	"study", "subject_key", "site", "status", "enrolled_on", "role"
};

typedef struct Hop
{
	const char *name;
	Oid			relid;
	char	   *relation;		/* qualified and quoted, once it is locked */
	const char *column[COLUMN_COUNT];	/* what ours are called there */
	Interval   *timeout;		/* its own, or NULL */
	TimestampTz until;			/* the end of its budget; 0: it has none */
	TimestampTz own_until;		/* the same, by its own timeout alone */
	int64		own;			/* its own timeout, in microseconds */
	int64		had;			/* of all that is around it, in microseconds;
								 * negative: no end */
} Hop;

typedef struct Chain
{
	const char *study;
	TimestampTz until;			/* by the function's timeout; 0: none */
	int64		timeout;		/* that timeout, in microseconds */
	Hop			hops[HOP_COUNT];
	MemoryContext memory;		/* of what outlives a hop */
	MemoryContext scratch;		/* of what outlives no row */
	bool		found;			/* there is such a study */
	Tuplestorestate *participants;	/* subject_key, site, status, enrolled_on */
	TupleDesc	shape;			/* of these */
	char	  **sites;			/* that are open to the caller, sorted */
	int			nsites;
	int			most_sites;
	ReturnSetInfo *result;
} Chain;

typedef void (*HopBody) (Chain *chain, Hop *hop);
typedef void (*TakeRow) (Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape);

static void begin_chain(Chain *chain, FunctionCallInfo fcinfo);
static void read_hops(Chain *chain);
static void follow(Chain *chain, HopNumber number, HopBody body);
static void begin_hop(const Chain *chain, Hop *hop);
static void lock_relation(Hop *hop);
static void refuse_late(const Hop *hop);
pg_attribute_noreturn() static void raise_late(const Chain *chain, const Hop *hop);
static void withhold(const Hop *hop, ErrorData *error);
static bool may_quote(const ErrorData *error);
static void tell_hop(void *arg);
static char *describe_hop(const Hop *hop);
static char *describe_time(int64 microseconds);
static void ask_study(Chain *chain, Hop *hop);
static void ask_participants(Chain *chain, Hop *hop);
static void ask_permission(Chain *chain, Hop *hop);
static void take_study(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape);
static void take_participant(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape);
static void take_site(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape);
static void take_rows(Chain *chain, const Hop *hop, const char *query, TakeRow take);
static void append_column(StringInfo query, const Hop *hop, HopColumn column, const char *type);
static void append_source(StringInfo query, const Hop *hop);
static bool is_pseudonym(const char *text, int length);
static bool is_callers_role(const char *name);
static void give_permitted(Chain *chain);
static bool site_is_open(const Chain *chain, Datum site);
static int	compare_sites(const void *a, const void *b);

/*
 * study_participants(study, timeout): the participants of a study at the sites
 * that are open to the caller.  Raises P0002 for a study that is not there or
 * not open to the caller, EP001 when a hop's time is over, EP006 for a subject
 * key that is no pseudonym; and what the relations of the hops raise.
 */
Datum
epro_etl_study_participants(PG_FUNCTION_ARGS)
{
	Chain		chain = {0};
	int			guc_level;

	begin_chain(&chain, fcinfo);
	read_hops(&chain);

	guc_level = pin_search_path();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	follow(&chain, HOP_STUDY, ask_study);
	follow(&chain, HOP_PARTICIPANTS, ask_participants);
	follow(&chain, HOP_PERMISSION, ask_permission);
	SPI_finish();
	AtEOXact_GUC(true, guc_level);
	return (Datum) 0;
}

/* The clock starts here: what reading the hops takes is the function's time too. */
static void
begin_chain(Chain *chain, FunctionCallInfo fcinfo)
{
	TimestampTz now = GetCurrentTimestamp();

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("study must not be null")));
	chain->study = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(1))
	{
		chain->until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															   TimestampTzGetDatum(now),
															   PG_GETARG_DATUM(1)));
		chain->timeout = chain->until - now;
		if (chain->timeout <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_DEADLINE_EXCEEDED),
					 errmsg("deadline exceeded: there is no time for the call"),
					 errdetail("The timeout is zero or less; nothing was asked.")));
	}

	InitMaterializedSRF(fcinfo, 0);
	chain->result = (ReturnSetInfo *) fcinfo->resultinfo;
	chain->memory = CurrentMemoryContext;
	chain->scratch = AllocSetContextCreate(CurrentMemoryContext,
										   "epro_etl participants",
										   ALLOCSET_DEFAULT_SIZES);
}

/* Which relations the hops are: an own table, where nothing is registered. */
static void
read_hops(Chain *chain)
{
	OwnerScope	scope;

	for (int i = 0; i < HOP_COUNT; i++)
	{
		chain->hops[i].name = hop_name[i];
		chain->hops[i].relid = own_relation(own_table[i]);
		for (int c = 0; c < COLUMN_COUNT; c++)
			chain->hops[i].column[c] = column_name[c];
	}

	owner_begin(&scope);
	if (SPI_execute("SELECT hop, relation::oid, timeout, columns ->> 'study', columns ->> 'subject_key',"
					" columns ->> 'site', columns ->> 'status', columns ->> 'enrolled_on', columns ->> 'role'"
					" FROM epro_etl.hop", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the configuration");
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	shape = SPI_tuptable->tupdesc;
		MemoryContext spi = MemoryContextSwitchTo(chain->memory);
		char	   *name = SPI_getvalue(tuple, shape, 1);

		for (int i = 0; i < HOP_COUNT; i++)
		{
			Hop		   *hop = &chain->hops[i];
			Datum		timeout;
			bool		isnull;

			if (strcmp(name, hop_name[i]) != 0)
				continue;
			hop->relid = DatumGetObjectId(SPI_getbinval(tuple, shape, 2, &isnull));
			timeout = SPI_getbinval(tuple, shape, 3, &isnull);
			if (!isnull)
				hop->timeout = memcpy(palloc(sizeof(Interval)), DatumGetIntervalP(timeout),
									  sizeof(Interval));
			for (int c = 0; c < COLUMN_COUNT; c++)
				hop->column[c] = SPI_getvalue(tuple, shape, 4 + c);
		}
		MemoryContextSwitchTo(spi);
	}
	owner_end(&scope);
	MemoryContextSwitchTo(chain->memory);
}

/*
 * One hop, under its budget.  Its end is EP001 if no one's around it has come as
 * well; any other error goes on with its SQLSTATE and a line of context, and
 * without its text where that can quote data.
 */
static void
follow(Chain *chain, HopNumber number, HopBody body)
{
	Hop		   *hop = &chain->hops[number];
	Budget		budget;
	ErrorContextCallback callback;

	begin_hop(chain, hop);
	if (hop->until != 0)
		budget_grant(&budget, hop->until);
	PG_TRY();
	{
		callback.callback = tell_hop;
		callback.arg = hop;
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		refuse_late(hop);
		lock_relation(hop);
		body(chain, hop);
		/* the relation may have swallowed the cancel: it is late all the same */
		refuse_late(hop);
		error_context_stack = callback.previous;
	}
	PG_CATCH();
	{
		ErrorData  *error = error_take(chain->memory);
		bool		ended = hop->until != 0 && budget_has_ended(&budget, error);

		if (hop->until != 0)
			budget_return(&budget);
		if (ended)
			raise_late(chain, hop);
		if (may_quote(error))
			withhold(hop, error);
		ReThrowError(error);
	}
	PG_END_TRY();
	if (hop->until != 0)
		budget_return(&budget);
}

/* What it may take: the rest of the function's timeout, or its own if shorter. */
static void
begin_hop(const Chain *chain, Hop *hop)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz around = context_deadline();

	hop->until = chain->until;
	if (hop->timeout != NULL)
	{
		hop->own_until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
																 TimestampTzGetDatum(now),
																 IntervalPGetDatum(hop->timeout)));
		hop->own = hop->own_until - now;
		if (hop->until == 0 || hop->own_until < hop->until)
			hop->until = hop->own_until;
	}
	if (hop->until != 0 && (around == 0 || hop->until < around))
		around = hop->until;
	hop->had = around == 0 ? -1 : Max(around - now, 0);
}

/* Until the transaction's end, its name means this relation. */
static void
lock_relation(Hop *hop)
{
	LockRelationOid(hop->relid, AccessShareLock);
	hop->relation = relation_name(hop->relid);
	if (hop->relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the relation of hop \"%s\" does not exist any more", hop->name),
				 errhint("Name another with epro_etl.set_hop(), or NULL for the extension's own table.")));
}

static void
refuse_late(const Hop *hop)
{
	if (hop->until != 0 && GetCurrentTimestamp() >= hop->until)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg(MESSAGE_LATE)));
}

/* Of two budgets that are over, the outer one is the function's. */
static void
raise_late(const Chain *chain, const Hop *hop)
{
	bool		functions = hop->own_until == 0 ||
		(chain->until != 0 && GetCurrentTimestamp() >= chain->until);

	ereport(ERROR,
			(errcode(ERRCODE_EPRO_DEADLINE_EXCEEDED),
			 errmsg("deadline exceeded: hop \"%s\" of study_participants() did not answer within the %s it had",
					hop->name, describe_time(hop->had)),
			 functions ?
			 errdetail("The function's timeout of %s is over.", describe_time(chain->timeout)) :
			 errdetail("The hop's own timeout of %s is over.", describe_time(hop->own)),
			 functions ?
			 errhint("Give the call more time, or find out why the relation is slow.") :
			 errhint("Give the hop more time with epro_etl.set_hop(), or find out why its relation is slow.")));
}

/* Takes out of an error all but the SQLSTATE and which hop it was. */
static void
withhold(const Hop *hop, ErrorData *error)
{
	error->message = psprintf("hop \"%s\" of study_participants() met an error of its relation (SQLSTATE %s)",
							  hop->name, unpack_sql_state(error->sqlerrcode));
	error->hint = psprintf("The error's own text is withheld, since it can quote data; query %s to see it.",
						   hop->relation == NULL ? "the relation" : hop->relation);
	error->context = describe_hop(hop);
	error->detail = NULL;
	error->detail_log = NULL;
	error->internalquery = NULL;
	error->internalpos = 0;
	error->schema_name = NULL;
	error->table_name = NULL;
	error->column_name = NULL;
	error->datatype_name = NULL;
	error->constraint_name = NULL;
}

/*
 * Could the text of an error be data?  A function can raise any SQLSTATE, but it
 * cannot say who raised it: only what the server itself says of relations, rights
 * and connections is told.
 */
static bool
may_quote(const ErrorData *error)
{
	/* where the server and postgres_fdw say that something is missing, not a function */
	static const char *const sources[] = {
		"ProcessInterrupts", "aclcheck_error", "aclcheck_error_col", "connect_pg_server",
		"check_conn_params", "GetUserMapping", "parserOpenTable", "errorMissingColumn",
	};

	if (error_is_ours(error) || error_is_own_cancel(error))
		return false;
	for (int i = 0; error->funcname != NULL && i < (int) lengthof(sources); i++)
	{
		if (strcmp(error->funcname, sources[i]) == 0)
			return false;
	}
	return true;
}

/* Error context callback. */
static void
tell_hop(void *arg)
{
	errcontext("%s", describe_hop(arg));
}

/* In the current memory context. */
static char *
describe_hop(const Hop *hop)
{
	if (hop->had < 0)
		return psprintf("hop \"%s\" of study_participants()", hop->name);
	return psprintf("hop \"%s\" of study_participants(), which had %s",
					hop->name, describe_time(hop->had));
}

/* In the current memory context. */
static char *
describe_time(int64 microseconds)
{
	if (microseconds >= 10 * USECS_PER_SEC)
		return psprintf(INT64_FORMAT " s", (microseconds + USECS_PER_SEC / 2) / USECS_PER_SEC);
	return psprintf(INT64_FORMAT " ms", (microseconds + 500) / 1000);
}

/* Row security and a study that is not there look alike, as they should. */
static void
ask_study(Chain *chain, Hop *hop)
{
	StringInfoData query;

	initStringInfo(&query);
	append_column(&query, hop, COLUMN_STUDY, "text");
	append_source(&query, hop);
	appendStringInfoString(&query, " LIMIT 1");
	take_rows(chain, hop, query.data, take_study);
	if (!chain->found)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("study \"%s\" does not exist, or is not open to role \"%s\"",
						chain->study, GetUserNameFromId(GetUserId(), false))));
}

/* Keeps them, beyond work_mem in a file: the sites are not known yet. */
static void
ask_participants(Chain *chain, Hop *hop)
{
	MemoryContext spi = MemoryContextSwitchTo(chain->memory);
	StringInfoData query;

	chain->participants = tuplestore_begin_heap(false, false, work_mem);
	MemoryContextSwitchTo(spi);
	initStringInfo(&query);
	append_column(&query, hop, COLUMN_SUBJECT_KEY, "text");
	append_column(&query, hop, COLUMN_SITE, "text");
	append_column(&query, hop, COLUMN_STATUS, "text");
	append_column(&query, hop, COLUMN_ENROLLED_ON, "date");
	append_source(&query, hop);
	take_rows(chain, hop, query.data, take_participant);
}

/*
 * The sites whose role is one of the caller's.  That is settled here, since
 * another server does not know who calls.
 */
static void
ask_permission(Chain *chain, Hop *hop)
{
	StringInfoData query;

	initStringInfo(&query);
	append_column(&query, hop, COLUMN_SITE, "text");
	append_column(&query, hop, COLUMN_ROLE, "text");
	append_source(&query, hop);
	take_rows(chain, hop, query.data, take_site);
	if (chain->nsites > 0)
		qsort(chain->sites, chain->nsites, sizeof(char *), compare_sites);
	give_permitted(chain);
}

static void
take_study(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape)
{
	chain->found = true;
}

static void
take_participant(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, shape, 1, &isnull);
	text	   *key = isnull ? NULL : DatumGetTextPP(value);

	if (key == NULL || !is_pseudonym(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_RELATION_UNFIT),
				 errmsg("relation %s gives a subject key that is not a pseudonym", hop->relation),
				 errdetail("A pseudonym has %d hexadecimal digits, in lower case.", SUBJECT_KEY_LENGTH),
				 errhint("Name a relation or column with pseudonyms with epro_etl.set_hop().")));
	if (chain->shape == NULL)
	{
		MemoryContext scratch = MemoryContextSwitchTo(chain->memory);

		chain->shape = CreateTupleDescCopy(shape);
		MemoryContextSwitchTo(scratch);
	}
	tuplestore_puttuple(chain->participants, row);
}

static void
take_site(Chain *chain, const Hop *hop, HeapTuple row, TupleDesc shape)
{
	char	   *site = SPI_getvalue(row, shape, 1);
	char	   *role = SPI_getvalue(row, shape, 2);

	if (site == NULL || role == NULL || !is_callers_role(role))
		return;
	if (chain->nsites == chain->most_sites)
	{
		MemoryContext scratch = MemoryContextSwitchTo(chain->memory);

		chain->most_sites = Max(64, chain->most_sites * 2);
		chain->sites = chain->sites == NULL ?
			palloc(sizeof(char *) * chain->most_sites) :
			repalloc_huge(chain->sites, sizeof(char *) * chain->most_sites);
		MemoryContextSwitchTo(scratch);
	}
	chain->sites[chain->nsites++] = MemoryContextStrdup(chain->memory, site);
}

/*
 * Runs a query whose $1 is the study, and has each row taken, in the scratch
 * memory context.  Read only, and under the snapshot of the calling query.
 */
static void
take_rows(Chain *chain, const Hop *hop, const char *query, TakeRow take)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(chain->study)};
	Portal		portal = SPI_cursor_open_with_args(NULL, query, 1, types, values, NULL, true, 0);
	MemoryContext caller = CurrentMemoryContext;

	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		if (SPI_processed == 0)
			break;
		MemoryContextSwitchTo(chain->scratch);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			CHECK_FOR_INTERRUPTS();
			take(chain, hop, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextReset(chain->scratch);
		}
		MemoryContextSwitchTo(caller);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(portal);
}

static void
append_column(StringInfo query, const Hop *hop, HopColumn column, const char *type)
{
	appendStringInfo(query, "%s %s::pg_catalog.%s", query->len == 0 ? "SELECT" : ",",
					 quote_identifier(hop->column[column]), type);
}

static void
append_source(StringInfo query, const Hop *hop)
{
	appendStringInfo(query, " FROM %s WHERE %s OPERATOR(pg_catalog.=) $1",
					 hop->relation, quote_identifier(hop->column[COLUMN_STUDY]));
}

static bool
is_pseudonym(const char *text, int length)
{
	if (length != SUBJECT_KEY_LENGTH)
		return false;
	for (int i = 0; i < length; i++)
	{
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	}
	return true;
}

/* As pg_has_role(name, 'USAGE'), but a role that is not there is nobody's. */
static bool
is_callers_role(const char *name)
{
	Oid			role = strlen(name) < NAMEDATALEN ? get_role_oid(name, true) : InvalidOid;

	return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
}

/* The participants of open sites become the function's rows. */
static void
give_permitted(Chain *chain)
{
	TupleTableSlot *slot;
	MemoryContext caller;
	Datum		study;

	if (chain->shape == NULL || chain->nsites == 0)
	{
		if (chain->participants != NULL)
			tuplestore_end(chain->participants);
		return;
	}
	study = CStringGetTextDatum(chain->study);
	slot = MakeSingleTupleTableSlot(chain->shape, &TTSOpsMinimalTuple);
	caller = MemoryContextSwitchTo(chain->scratch);
	while (tuplestore_gettupleslot(chain->participants, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (!slot->tts_isnull[1] && site_is_open(chain, slot->tts_values[1]))
		{
			Datum		values[5] = {study};
			bool		nulls[5] = {false};

			memcpy(values + 1, slot->tts_values, sizeof(Datum) * 4);
			memcpy(nulls + 1, slot->tts_isnull, sizeof(bool) * 4);
			tuplestore_putvalues(chain->result->setResult, chain->result->setDesc, values, nulls);
		}
		/* a row that comes back from a file is in the scratch memory itself */
		ExecClearTuple(slot);
		MemoryContextReset(chain->scratch);
	}
	MemoryContextSwitchTo(caller);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(chain->participants);
}

static bool
site_is_open(const Chain *chain, Datum site)
{
	char	   *name = TextDatumGetCString(site);

	return bsearch(&name, chain->sites, chain->nsites, sizeof(char *), compare_sites) != NULL;
}

static int
compare_sites(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}
