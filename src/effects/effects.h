/*
 * effects.h
 *		What touches the world: settings, key, source, sinks, ledger, shared
 *		memory.  One verb a file; none knows the composition.
 */
#ifndef EPRO_ETL_EFFECTS_H
#define EPRO_ETL_EFFECTS_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "effects/context.h"
#include "executor/spi.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/lwlock.h"
#include "stages/stages.h"
#include "utils/array.h"
#include "words/compat.h"
#include "words/response.h"

/* ---- settings.c ---- */
extern int	epro_workers;
extern int	epro_batch_age;
extern int	epro_batch_size;
extern char *epro_context;
extern char *epro_key_command;
extern char *epro_key_file;
extern int	epro_naptime;
extern int	epro_queue_size;
extern int	epro_sink_timeout;

/* For how long to leave alone what failed so often before, in milliseconds. */
static inline long
doubling_pause(long first, int failures)
{
	return Min(60000, first << Min(failures, 10));
}

#define MAX_WORKERS 1024
#define MAX_BATCH_SIZE 100000
#define MAX_QUEUE_SIZE 65536

extern void settings_define(void);

/* ---- key.c ---- */
extern Pseudonymiser *key_load(int version);

/* ---- keyring.c: which versions of keys there are ---- */
extern int	keyring_version(void);
extern void keyring_verify(Pseudonymiser *pseudonymiser, int version);
extern int	keyring_rotate(Pseudonymiser *pseudonymiser, const char *note);

/* ---- pseudonym.c: random codes, and what they stand for ---- */
extern void pseudonyms_resolve(CodeBook *codes, int64 run_id, bool create);

/* ---- internal.c: acting as the extension's owner, for its own tables ---- */
typedef struct OwnerScope
{
	Oid			user;
	int			context;
	int			guc_level;
} OwnerScope;

extern void owner_begin(OwnerScope *scope);
extern void owner_end(OwnerScope *scope);
extern Oid	own_relation(const char *name);
extern Oid	extension_owner(void);
extern char *relation_name(Oid relid);
extern int	pin_search_path(void);
extern SPIPlanPtr plan_keep(SPIPlanPtr plan, MemoryContext memory);
extern bool error_is_datas(int sqlstate);
extern ErrorData *error_take(MemoryContext memory);
extern bool error_is_ours(const ErrorData *error);
extern bool error_is_own_cancel(const ErrorData *error);
extern void error_mark_cancel(ErrorData *error);
extern bool error_is_marked_cancel(const ErrorData *error);
extern void error_strip(ErrorData *error);
extern bool constraint_exists(const char *name);

/* ---- log_ahead.c: less for the commit to wait for ---- */
extern void log_ahead(void);

/* ---- guard.c: what a rule may do ---- */
typedef struct RuleScope
{
	Oid			user;
	int			context;
	bool		read_only;
	int			guc_level;
} RuleScope;

extern void rules_begin(RuleScope *scope);
extern void rules_end(RuleScope *scope);

/* ---- bulk.c: many rows into one plain relation ---- */
extern bool bulk_suits(Relation relation, Oid user);
extern void bulk_find_conflicts(Relation relation, HeapTuple *tuples, int n, Oid *by);
extern void bulk_insert(Relation relation, HeapTuple *tuples, int n,
						volatile int *at);

/* ---- claim.c: the only reader of the source ---- */
typedef enum Role
{
	ROLE_ID = 0,
	ROLE_STUDY,
	ROLE_FORM,
	ROLE_SUBJECT,
	ROLE_VISIT,
	ROLE_AUTHORED,
	ROLE_PAYLOAD
} Role;

#define ROLE_COUNT (ROLE_PAYLOAD + 1)

extern const char *const role_name[ROLE_COUNT];

typedef struct Source
{
	Oid			relid;
	char	   *column[ROLE_COUNT]; /* column of a role, or NULL */
	char	   *constant[ROLE_COUNT];	/* or its constant, or NULL */
} Source;

/*
 * Hands out ranges of blocks.  next is shared by all workers of a run and only
 * ever grows; the rest is immutable once the run has started.
 */
typedef struct BlockRanges
{
	pg_atomic_uint64 next;
	BlockNumber nblocks;
	int			nworkers;
} BlockRanges;

/* most blocks handed out at once, and the rows that may stand in them */
#define MOST_BLOCKS 64
#define CLAIM_SLACK (MOST_BLOCKS * MaxHeapTuplesPerPage)

typedef struct Claim Claim;

/* What became of a row that was asked for by its address. */
typedef enum ClaimFate
{
	CLAIM_TAKEN = 0,
	CLAIM_GONE,					/* not the version that was addressed */
	CLAIM_LOCKED				/* another session is at it */
} ClaimFate;

extern void source_check(const Source *source);
extern int64 source_rows(Oid source);
extern void ranges_init(BlockRanges *ranges, BlockNumber nblocks, int nworkers);
extern Claim *claim_create(const Source *source, BlockRanges *ranges,
						   bool keep);
extern void claim_set_source(Claim *claim, const Source *source);
extern int	claim_chunk(Claim *claim, int most, HeapTuple *rows);
extern void claim_addressed(Claim *claim, const Address *addresses, int n,
							bool take, HeapTuple *rows, ClaimFate *fates);
extern Address claim_address(Claim *claim, HeapTuple row);
extern void claim_let_go(Claim *claim, int n);
extern void claim_rewind(Claim *claim);
extern void claim_accept(Claim *claim);
extern void claim_read(Claim *claim, HeapTuple row, Response *response);
extern void claim_read_names(Claim *claim, HeapTuple row, Response *response);
extern Datum claim_id(Claim *claim, HeapTuple row, Oid *type, bool *isnull);
extern Jsonb *claim_original(Claim *claim, HeapTuple row);
extern void push_column(JsonbParseState **state, Oid type, Datum given);
extern Jsonb *row_as_jsonb(TupleDesc shape, const Datum *values,
						   const bool *nulls);
extern int64 claim_skipped(const Claim *claim);
extern uint64 claim_blocks(const Claim *claim);

/* ---- peek.c: which rows are there, for a stream's reader ---- */
typedef struct Peek Peek;

extern Peek *peek_create(const Source *source);
extern void peek_rewind(Peek *peek);
extern int	peek_rows(Peek *peek, Address **rows, bool *at_end);
extern void peek_return(Peek *peek, const Address *row);

/* ---- latency.c: how long it took, as a histogram in shared memory ---- */
#define LATENCY_BUCKETS 320

typedef struct Latency
{
	pg_atomic_uint64 buckets[LATENCY_BUCKETS];
} Latency;

extern void latency_init(Latency *latency);
extern void latency_add(Latency *latency, int64 microseconds);
extern int64 latency_percentile(Latency *latency, double fraction);

/* ---- sink.c: how a sink is written, compiled ---- */

/* What the table sink says of one. */
typedef struct SinkDeclaration
{
	int64		id;
	Oid			relid;
	Jsonb	   *columns;		/* {"column": "item"}, or NULL */
	ArrayType  *matched;		/* the columns that took something when it was added */
	bool		is_long;
	bool		ignores;
	bool		latest;			/* of a key, the response authored last stands */
	bool		required;
} SinkDeclaration;

typedef struct Sink
{
	int64		id;				/* sink.sink_id */
	Oid			relid;
	char	   *name;			/* qualified and quoted */
	const CompiledForm *form;
	bool		is_long;		/* a row an item, not a row a response */
	bool		ignores;		/* a row that it holds already is no duplicate */
	bool		required;		/* else the outbox keeps what it cannot take */
	struct SinkColumn *columns;
	int			ncolumns;
	struct SinkDefault *defaults;
	int			ndefaults;
	TupleDesc	shape;
	ExprState  *condition;		/* NULL: every response */
	bool		direct;			/* multi-insert, not the executor's road */
	bool		meets;			/* its keys have refused rows of late: look first */
	bool		remote;			/* a foreign table, or with one as partition */
	struct Latest *latest;		/* the response authored last stands; else NULL */
	SPIPlanPtr	plan;			/* of the executor's road, or NULL */
	SPIPlanPtr	plan_many;		/* many rows a statement, if remote; or NULL */
	ExprContext *context;		/* for the defaults */
	List	   *deferred;		/* its constraints that wait for the commit */
	int			at;				/* column being formed, for errors; or -1 */
	const FormNode *item;		/* whose row of a long sink is being formed */
	int			item_no;		/* its place among the form's items, from 1 */
	Datum	   *values;			/* scratch, a column of the relation each */
	bool	   *nulls;
} Sink;

extern Sink *sink_open(const SinkDeclaration *declared,
					   const CompiledForm *form, Oid source_id_type);

/* ---- store.c: the only writer of sinks ---- */

/* What the store knows about a response besides its answers. */
typedef struct StoreFacts
{
	const CompiledForm *form;
	int64		run_id;
	int			key_version;
	TimestampTz loaded_at;
	Datum		source_id;
	Oid			source_id_type;
	bool		source_id_isnull;
} StoreFacts;

/* The rows of one response in one sink; n is 0 where it is not for it. */
typedef struct SinkRows
{
	HeapTuple  *tuples;
	int			n;
} SinkRows;

/* A row that another has taken the place of. */
typedef struct Superseded
{
	int			by;				/* number of the row that has */
	Jsonb	   *row;
	int64		run_id;			/* of the row, 0: the sink has none */
	const char *source_id;		/* or NULL */
	const char *by_source_id;	/* for the caller to fill in */
} Superseded;

/* What became of rows that met their key. */
typedef struct LatestDone
{
	Superseded *superseded;
	int			nsuperseded;
	int		   *resent;			/* numbers of rows that the sink holds already */
	int			nresent;
	MemoryContext memory;		/* for all of it */
} LatestDone;

extern bool sink_form_rows(Sink *sink, const Response *response,
						   const StoreFacts *facts, MemoryContext memory,
						   SinkRows *rows);
extern bool sink_error_place(const Sink *sink, const char **location,
							 const char **column);
extern void sink_find_conflicts(Sink *sink, HeapTuple *tuples, int n, Oid *by);
extern void sink_insert(Sink *sink, HeapTuple *tuples, int n, volatile int *at,
						LatestDone *done);

/* ---- latest.c: of one key, the response that was authored last stands ---- */
extern int	latest_compare(const Sink *sink, HeapTuple one, HeapTuple other);
extern const char *latest_key_name(const Sink *sink);

/* ---- away.c: sinks on other servers that do not answer ---- */
extern bool sink_is_away(const Sink *sink);
extern void sink_went_away(const Sink *sink, int sqlstate);
extern void sink_came_back(const Sink *sink);
extern bool error_is_away(const Sink *sink, const ErrorData *error);
extern bool error_is_rows(const Sink *sink, const ErrorData *error);
extern void patience_begin(Patience *patience, int milliseconds);
extern void patience_end(Patience *patience, ErrorData *error);

/* ---- outbox.c: rows for a sink that was away ---- */
extern int	pin_formats(void);
extern void outbox_put(int64 run_id, const Sink *sink, HeapTuple *tuples,
					   const char **source_ids, int n);

/* What was taken out of it for a sink. */
typedef struct Delivered
{
	int64		sink_id;
	int64		first;			/* outbox_id */
	int			n;
} Delivered;

extern void outbox_deliver(const Sink *sink, int most, Delivered *delivered);
extern bool outbox_refuse(const Sink *sink, int64 outbox_id, int sqlstate);

/* ---- account.c: ledger, findings, quarantine, superseded rows ---- */
typedef struct Counts
{
	int64		claimed;
	int64		loaded;
	int64		warned;
	int64		rejected;
	int64		duplicate;
	int64		deferred;
	int64		skipped;		/* checks not evaluated */
	int64		undeclared;		/* keys that no item declares */
} Counts;

typedef struct Rejected
{
	const char *source_id;
	const char *form;
	Jsonb	   *original;
} Rejected;

typedef struct FoundFor
{
	const char *source_id;
	const char *form;
	int			first;			/* of the chunk's findings */
	int			n;
} FoundFor;

typedef struct RunStart
{
	int64		pipeline_id;
	const char *pipeline;
	const char *source;
	const char *reason;
	bool		dry_run;
	bool		stream;			/* resident: a generation of a stream */
	int			workers;
	int			batch_size;
	int			key_version;
	Oid			session_user;
	Oid			current_user;
	TimestampTz started_at;
	Jsonb	   *context;		/* request values; NULL: none */
} RunStart;

extern int64 account_open_run(const RunStart *start, Jsonb *versions);
extern int	account_key_version(int64 run_id);
extern void account_open_worker(int64 run_id, int worker);
extern void account_quarantine(int64 run_id, const char *pipeline,
							   const Rejected *rejected, int nrejected);
extern bool account_has_requeued(const char *pipeline);
extern void account_requeued(int64 run_id, const char *pipeline,
							 Datum *loaded_ids, int nloaded);
extern void account_superseded(int64 run_id, const Sink *sink,
							   const Superseded *superseded, int n);
extern void account_chunk(int64 run_id, int worker, const Counts *counts,
						  const FindingList *findings,
						  const FoundFor *found, int nfound);
extern bool account_can_write(void);
extern void account_close_run(int64 run_id, const char *status, int sqlstate,
							  const char *message, int worker, int64 chunk,
							  int64 remaining);
extern Jsonb *account_facts(int64 run_id, bool at_end, bool read_only);
extern void account_liveness_hold(int64 run_id);
extern void account_liveness_release(int64 run_id);
extern bool account_is_alive(int64 run_id);

/* ---- progress.c: the live view's place in shared memory ---- */
typedef enum Phase
{
	PHASE_STARTING = 0,
	PHASE_CLAIMING,
	PHASE_VALIDATING,
	PHASE_STORING,
	PHASE_ACCOUNTING,
	PHASE_RECEIVING,
	PHASE_SENDING,
	PHASE_ENDED
} Phase;

/* Written by the one worker it belongs to, read by anyone: all atomics. */
typedef struct Progress
{
	pg_atomic_uint32 pid;
	pg_atomic_uint32 phase;
	pg_atomic_uint64 since;		/* TimestampTz of the phase's start */
	pg_atomic_uint64 processed;
	pg_atomic_uint64 excluded;
	pg_atomic_uint64 blocks;
	pg_atomic_uint64 chunks;
} Progress;

extern void progress_init(Progress *progress);
extern void progress_phase(Progress *progress, Phase phase);
extern const char *phase_name(Phase phase);

#endif							/* EPRO_ETL_EFFECTS_H */
