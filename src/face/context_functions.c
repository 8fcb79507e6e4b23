/*
 * context_functions.c
 *		Deadlines and request values, as SQL calls them.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "effects/context.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "words/errors.h"

PG_FUNCTION_INFO_V1(epro_etl_with_timeout);
PG_FUNCTION_INFO_V1(epro_etl_context_deadline);
PG_FUNCTION_INFO_V1(epro_etl_context_set);
PG_FUNCTION_INFO_V1(epro_etl_context_get);
PG_FUNCTION_INFO_V1(epro_etl_context_server_of);

static void execute_within(const char *query, TimestampTz until, Interval *timeout,
						   ReturnSetInfo *rsinfo);
static void execute(const char *query, ReturnSetInfo *rsinfo);
static void check_shape(TupleDesc given, TupleDesc expected);

/*
 * with_timeout(timeout, query): the query's rows, if it ends within its budget.
 * Otherwise EP001, which can be caught: what the query has done is rolled back,
 * and nothing else.
 */
Datum
epro_etl_with_timeout(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;
	MemoryContext caller;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout and query must not be null")));
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(now), PG_GETARG_DATUM(0)));
	/* what is left of another deadline may be nothing */
	if (until <= now)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_DEADLINE_EXCEEDED),
				 errmsg("deadline exceeded: there is no time for the query"),
				 errdetail("The timeout is zero or less; the query was not begun.")));

	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = tuplestore_begin_heap(rsinfo->allowedModes & SFRM_Materialize_Random,
											  false, work_mem);
	MemoryContextSwitchTo(caller);
	execute_within(text_to_cstring(PG_GETARG_TEXT_PP(1)), until, PG_GETARG_INTERVAL_P(0), rsinfo);
	return (Datum) 0;
}

/* context_deadline(): when the call at hand has to end; NULL: never. */
Datum
epro_etl_context_deadline(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = context_deadline();

	if (deadline == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(deadline);
}

/* context_set(key, value) */
Datum
epro_etl_context_set(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null")));
	context_set(text_to_cstring(PG_GETARG_TEXT_PP(0)),
				PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/* context_get(key) */
Datum
epro_etl_context_get(PG_FUNCTION_ARGS)
{
	char	   *value = context_get(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(value));
}

/* context_server_of(settings): the server that a table can tell, or NULL. */
Datum
epro_etl_context_server_of(PG_FUNCTION_ARGS)
{
	Oid			server = remote_settings_server(PG_GETARG_OID(0));

	if (!OidIsValid(server))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(GetForeignServer(server)->servername));
}

/* In a subtransaction, under a budget of its own. */
static void
execute_within(const char *query, TimestampTz until, Interval *timeout,
			   ReturnSetInfo *rsinfo)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Budget		budget;

	BeginInternalSubTransaction(NULL);
	budget_grant(&budget, until);
	PG_TRY();
	{
		MemoryContextSwitchTo(memory);
		execute(query, rsinfo);
		remote_return(&budget);
		budget_refuse_late(&budget);
		ReleaseCurrentSubTransaction();
		budget_return(&budget);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		bool		ended;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		ended = budget_has_ended(&budget, error);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		budget_return(&budget);
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		if (!ended)
			ReThrowError(error);
		/* the same error under another name: its context says where it was */
		error->sqlerrcode = ERRCODE_EPRO_DEADLINE_EXCEEDED;
		error->domain = TEXTDOMAIN;
		error->message = psprintf("deadline exceeded: the query did not end within %s",
								  DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(timeout))));
		error->detail = pstrdup("What it had done is rolled back.");
		error->hint = NULL;
		ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
}

static void
execute(const char *query, ReturnSetInfo *rsinfo)
{
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	result = SPI_execute(query, false, 0);
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("with_timeout() cannot execute this: %s", SPI_result_code_string(result))));
	if (SPI_tuptable != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		/* in a select list nobody else gives the row a type */
		rsinfo->setDesc = BlessTupleDesc(CreateTupleDescCopy(SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(caller);
		if (rsinfo->expectedDesc != NULL)
			check_shape(rsinfo->setDesc, rsinfo->expectedDesc);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			CHECK_FOR_INTERRUPTS();
			tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
		}
	}
	else if (rsinfo->expectedDesc == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		rsinfo->setDesc = BlessTupleDesc(CreateTemplateTupleDesc(0));
		MemoryContextSwitchTo(caller);
	}
	SPI_finish();
}

/* The query has to give what the caller says it will. */
static void
check_shape(TupleDesc given, TupleDesc expected)
{
	if (given->natts != expected->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the query returns %d columns, and the column definition list has %d",
						given->natts, expected->natts)));
	for (int i = 0; i < given->natts; i++)
	{
		Form_pg_attribute is = TupleDescAttr(given, i);
		Form_pg_attribute wanted = TupleDescAttr(expected, i);

		if (is->atttypid != wanted->atttypid ||
			(wanted->atttypmod >= 0 && is->atttypmod != wanted->atttypmod))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column %d of the query is of type %s, and of type %s in the column definition list",
							i + 1, format_type_with_typemod(is->atttypid, is->atttypmod),
							format_type_with_typemod(wanted->atttypid, wanted->atttypmod)),
					 errhint("Cast it in the query.")));
	}
}
