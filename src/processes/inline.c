/*
 * inline.c
 *		A run in the caller's own session and transaction.
 *
 * It sees what the caller has staged and not committed, and rolls back with
 * it, ledger included.  Tests, small jobs, and runs that found no free worker
 * take this road; a response cannot tell.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "effects/context.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "processes/processes.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "words/errors.h"

static void do_run(const RunRequest *request, RunResult *result);
static void open_run(Run *run, const RunRequest *request, RunResult *result);
static BlockNumber count_blocks(Oid source);
static void judge_first(Run *run, Tally *totals, BlockNumber nblocks);
static int	do_chunk(Run *run, Counts *counts);

/*
 * Runs a pipeline in the current transaction.  Raises the errors of what does
 * not fit, EP001 when the run's own timeout is over; nothing has moved then.
 */
void
run_inline(const RunRequest *request, RunResult *result)
{
	MemoryContext memory = CurrentMemoryContext;
	Budget		budget;

	if (request->deadline == 0)
	{
		do_run(request, result);
		return;
	}
	budget_grant(&budget, request->deadline);
	PG_TRY();
	{
		do_run(request, result);
		remote_return(&budget);
		budget_refuse_late(&budget);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		bool		ended;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		ended = budget_has_ended(&budget, error);
		budget_return(&budget);
		FlushErrorState();
		POINT("inline.late");
		if (!ended)
			ReThrowError(error);
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_DEADLINE_EXCEEDED),
				 errmsg("deadline exceeded: the run of pipeline \"%s\" did not end within its timeout",
						request->pipeline),
				 errdetail("The run was in the calling transaction, which rolls it back."),
				 errhint("Give it more time, or workers that commit chunk by chunk.")));
	}
	PG_END_TRY();
	budget_return(&budget);
}

static void
do_run(const RunRequest *request, RunResult *result)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "epro_etl inline run",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	Run			run = {0};
	BlockRanges ranges;
	BlockNumber nblocks;
	Tally	   *totals = NULL;
	Outcome		outcome = OUTCOME_NONE;
	char	   *would_hold = NULL;
	int			guc_level = NewGUCNestLevel();

	/* as in a worker, see session.c */
	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	open_run(&run, request, result);
	POINT("inline.opened");
	nblocks = count_blocks(run.pipeline->source.relid);
	if (run.pipeline->nthresholds > 0)
	{
		totals = palloc0(sizeof(Tally) * run.pipeline->nthresholds);
		run.tally = palloc0(sizeof(Tally) * run.pipeline->nthresholds);
		if (!request->dry_run)
			judge_first(&run, totals, nblocks);
	}
	ranges_init(&ranges, nblocks, 1);
	run_begin(&run, &ranges);
	while (do_chunk(&run, &result->counts) > 0)
	{
		if (run.tally != NULL)
			tally_add(run.pipeline, totals, run.tally);
		if (too_many_rejects(result->counts.claimed,
							 result->counts.rejected + result->counts.duplicate,
							 request->max_rejects, request->max_reject_ratio))
		{
			outcome = OUTCOME_STOPPED;
			break;
		}
	}
	pseudonymiser_wipe(run.pseudonymiser);
	run_wipe_codes(&run);
	if (outcome == OUTCOME_NONE && run.tally != NULL)
		would_hold = threshold_exceeded(run.pipeline, totals, true);
	if (would_hold != NULL)
		outcome = OUTCOME_STOPPED;

	result->remaining = outcome == OUTCOME_NONE || would_hold != NULL ? claim_skipped(run.claim) :
		source_rows(run.pipeline->source.relid);
	result->status = outcome_name(outcome);
	result->finished_at = GetCurrentTimestamp();
	POINT("inline.close");
	account_close_run(run.run_id, result->status, would_hold ? ERRCODE_EPRO_STOPPED : 0,
					  would_hold ? would_hold :
					  outcome == OUTCOME_STOPPED ? "too many responses were rejected" : NULL,
					  0, 0, result->remaining);
	AtEOXact_GUC(true, guc_level);
	if (would_hold != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_EPRO_STOPPED),
				 errmsg("%s", would_hold),
				 errdetail("This was a dry run: findings and counts are in the ledger.")));
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
}

/*
 * The pass before the run's own: judges all there is and writes nothing.  Raises
 * the error of a threshold that is exceeded; the caller's transaction, with the
 * run's entry in the ledger, is then undone.
 */
static void
judge_first(Run *run, Tally *totals, BlockNumber nblocks)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl judging",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	BlockRanges ranges;
	Counts		counts = {0};
	char	   *exceeded;

	ranges_init(&ranges, nblocks, 1);
	run->dry_run = run->judging = true;
	run_begin(run, &ranges);
	while (do_chunk(run, &counts) > 0)
		tally_add(run->pipeline, totals, run->tally);
	run->dry_run = run->judging = false;
	run->tally = NULL;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	run->codes = NULL;

	exceeded = threshold_exceeded(run->pipeline, totals, false);
	if (exceeded == NULL)
		return;
	pseudonymiser_wipe(run->pseudonymiser);
	ereport(ERROR,
			(errcode(ERRCODE_EPRO_STOPPED),
			 errmsg("%s", exceeded),
			 errdetail("Nothing has left the source, and nothing was stored. The run was in the calling transaction, whose ledger has no entry of it."),
			 errhint(HINT_HELD)));
}

/* One chunk in the caller's transaction: returns the number of rows seen. */
static int
do_chunk(Run *run, Counts *counts)
{
	int			seen;

	CHECK_FOR_INTERRUPTS();
	PushActiveSnapshot(GetTransactionSnapshot());
	seen = run_chunk(run, counts);
	PopActiveSnapshot();
	CommandCounterIncrement();
	run_committed(run);
	claim_accept(run->claim);
	return seen;
}

static BlockNumber
count_blocks(Oid source)
{
	Relation	relation = table_open(source, AccessShareLock);
	BlockNumber nblocks = RelationGetNumberOfBlocks(relation);

	table_close(relation, NoLock);
	return nblocks;
}

static void
open_run(Run *run, const RunRequest *request, RunResult *result)
{
	RunStart	start = {0};
	Oid			source;
	Jsonb	   *versions;

	start.pipeline_id = pipeline_find(request->pipeline, &source);
	start.pipeline = request->pipeline;
	start.source = relation_name(source);
	start.reason = request->reason;
	start.dry_run = request->dry_run;
	start.batch_size = epro_batch_size;
	start.session_user = GetSessionUserId();
	start.current_user = GetUserId();
	start.started_at = result->started_at = GetCurrentTimestamp();
	start.context = context_values();

	versions = pipeline_versions(start.pipeline_id);
	run->pipeline = pipeline_load(start.pipeline_id, versions);
	start.key_version = keyring_version();
	run->pseudonymiser = key_load(start.key_version);
	run->batch_size = epro_batch_size;
	run->dry_run = request->dry_run;
	run->last = STAGE_STORE;
	run->progress = palloc0(sizeof(Progress));
	run->run_id = result->run_id = account_open_run(&start, versions);
	account_open_worker(run->run_id, 0);
}
