/*
 * load.c
 *		From the configuration tables to a compiled pipeline.
 *
 * A run is pinned to versions: its first worker decides which form, edit
 * checks, de-identification rules, batch thresholds and sinks are current and
 * writes them into the ledger; every worker compiles exactly these, also when
 * it has to compile again in the middle of the run because a relation or
 * function changed.
 *
 * Configuration is read as the extension's owner; everything compiled from it
 * is compiled, and later evaluated, as the caller of the run.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "effects/point.h"
#include "pipeline/pipeline.h"
#include "stages/form.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "words/errors.h"

/* Set by invalidation messages: what is compiled may be out of date. */
static bool stale = false;

/* Has the last compilation come to its end?  If not, its result is not there. */
static bool complete = false;

/* The relations whose changes matter to the pipeline compiled last. */
static Oid *watched = NULL;
static int	nwatched = 0;

/* A rule of a form: of de-identification (with params), an edit check, or a severity (without text). */
typedef struct Rule
{
	int64		id;
	char	   *form;
	char	   *name;			/* of the check; JSON Pointer of the item or keyword */
	char	   *text;			/* expression; method; or NULL */
	Jsonb	   *params;
	char	   *condition;
	char	   *severity;
	char	   *message;
	int64		timeout;		/* of a lookup, in microseconds */
	char	   *on_timeout;		/* NULL: not a lookup */
	bool		computes;		/* a score, which becomes an item */
} Rule;

/* their columns, as read_rules() knows them */
#define RULE_OF_DEID "d.rule_id AS id, d.form, d.path, d.method, d.params, NULL, NULL, NULL, 0::bigint, NULL, false"
#define RULE_OF_CHECK "c.check_id, c.form, c.check_name, c.expression, NULL, c.condition, c.severity, c.message," \
	" coalesce(extract(epoch FROM c.timeout) * 1000000, 0)::bigint, c.on_timeout, c.computes"
#define RULE_OF_OVERLAY "o.overlay_id, o.form, o.location, NULL, NULL, NULL, o.severity, NULL, 0::bigint, NULL, false"
#define OVERLAY_HOLDS "o.removed_at IS NULL AND now() >= o.valid_from AND now() < o.valid_until"

static void watch_catalogs(void);
static void watch_relations(const Pipeline *pipeline);
static void relation_changed(Datum arg, Oid relid);
static void function_changed(Datum arg, int cacheid, uint32 hashvalue);
static void load_source(Pipeline *pipeline);
static void load_forms(Pipeline *pipeline);
static void load_rules(Pipeline *pipeline);
static void load_thresholds(Pipeline *pipeline);
static void load_sinks(Pipeline *pipeline);
static Rule *read_rules(uint64 n, MemoryContext memory);
static int	overlaid(const char *name);
static int	severity_of(const Rule *check, const Rule *rules, uint64 n);
static void add_rules(PipelineForm *form, const Rule *rules, uint64 n, bool registering);
pg_attribute_noreturn() static void refuse_overlay(const CompiledForm *form, const char *place,
												   const char *hint);
static PipelineForm *find_form(Pipeline *pipeline, const char *name);
static uint64 query(const char *command, int nargs, Oid *types, Datum *values);
static ArrayType *column_array(uint64 row, int column, MemoryContext memory);
static char *column_text(uint64 row, int column, MemoryContext memory);
static Jsonb *column_jsonb(uint64 row, int column, MemoryContext memory);
static Datum column_datum(uint64 row, int column);
static char *setting_text(Jsonb *settings, const char *role, const char *inner);

/* A pipeline's number and source, which may have been dropped; 0: there is none. */
int64
pipeline_look_up(const char *name, Oid *source)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name)};
	OwnerScope	scope;
	int64		id = 0;
	bool		isnull;

	owner_begin(&scope);
	if (query("SELECT pipeline_id, source FROM epro_etl.pipeline WHERE name = $1",
			  1, types, values) == 1)
	{
		id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		*source = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
												 SPI_tuptable->tupdesc, 2, &isnull));
	}
	owner_end(&scope);
	return id;
}

/*
 * Finds a pipeline by name, and its source.  Raises an error when either is
 * not there.
 */
int64
pipeline_find(const char *name, Oid *source)
{
	int64		id = pipeline_look_up(name, source);

	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", name),
				 errhint("Make it with epro_etl.create_pipeline().")));
	if (get_rel_name(*source) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of pipeline \"%s\" does not exist any more", name),
				 errhint("Create the pipeline anew with epro_etl.create_pipeline().")));
	return id;
}

/* Which form, edit checks, rules and sinks are current, as the ledger records them. */
Jsonb *
pipeline_versions(int64 pipeline_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	Jsonb	   *versions;

	owner_begin(&scope);
	query("SELECT coalesce(jsonb_object_agg(f.name, jsonb_build_object("
		  " 'form_id', f.form_id, 'version', f.version,"
		  " 'edit_checks', coalesce((SELECT jsonb_agg(c.check_id ORDER BY c.check_id)"
		  "   FROM epro_etl.edit_check c WHERE c.form = f.name AND c.removed_at IS NULL), '[]'),"
		  " 'deid_rules', coalesce((SELECT jsonb_agg(d.rule_id ORDER BY d.rule_id)"
		  "   FROM epro_etl.deid_rule d WHERE d.form = f.name AND d.removed_at IS NULL), '[]'),"
		  " 'severities', coalesce((SELECT jsonb_agg(o.overlay_id ORDER BY o.overlay_id)"
		  "   FROM epro_etl.severity_overlay o WHERE o.form = f.name AND " OVERLAY_HOLDS "), '[]'),"
		  " 'batch_thresholds', coalesce((SELECT jsonb_agg(t.threshold_id ORDER BY t.threshold_id)"
		  "   FROM epro_etl.batch_threshold t WHERE t.form = f.name AND t.removed_at IS NULL), '[]'),"
		  " 'sinks', (SELECT jsonb_agg(s.sink_id ORDER BY s.sink_id)"
		  "   FROM epro_etl.sink s WHERE s.form = f.name AND s.pipeline_id = $1))), '{}')"
		  " FROM (SELECT DISTINCT ON (name) name, form_id, version FROM epro_etl.form"
		  "   WHERE name IN (SELECT s.form FROM epro_etl.sink s WHERE s.pipeline_id = $1)"
		  "   ORDER BY name, form_id DESC) f",
		  1, types, values);
	versions = column_jsonb(0, 1, memory);
	owner_end(&scope);
	return versions;
}

/* For how many thresholds a run that starts now needs room. */
int
pipeline_count_thresholds(int64 pipeline_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};
	OwnerScope	scope;
	int			n;

	owner_begin(&scope);
	n = (int) query("SELECT 1 FROM epro_etl.batch_threshold t WHERE t.removed_at IS NULL AND EXISTS"
					" (SELECT FROM epro_etl.sink s WHERE s.pipeline_id = $1 AND s.form = t.form)",
					1, types, values);
	owner_end(&scope);
	return n;
}

/* The versions that a run was pinned to. */
Jsonb *
pipeline_versions_of_run(int64 run_id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	Jsonb	   *versions;

	owner_begin(&scope);
	if (query("SELECT versions FROM epro_etl.run_ledger WHERE run_id = $1",
			  1, types, values) != 1)
		elog(ERROR, "run " INT64_FORMAT " is not in the ledger", run_id);
	versions = column_jsonb(0, 1, memory);
	owner_end(&scope);
	return versions;
}

/*
 * What a stream is to be, as it is configured now; false when it is not to be
 * any more.  Strings and versions live in the current memory context.
 */
bool
pipeline_stream(int64 pipeline_id, StreamPlan *plan)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	bool		found;
	bool		isnull;

	memset(plan, 0, sizeof(*plan));
	owner_begin(&scope);
	found = query("SELECT p.name, p.source, s.login::oid, s.role::oid, s.queue_size, s.stages, s.context"
				  " FROM epro_etl.stream s JOIN epro_etl.pipeline p USING (pipeline_id)"
				  " WHERE s.pipeline_id = $1", 1, types, values) == 1;
	if (found)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	shape = SPI_tuptable->tupdesc;
		Jsonb	   *stages = column_jsonb(0, 6, memory);

		plan->context = column_jsonb(0, 7, memory);
		plan->pipeline_id = pipeline_id;
		plan->pipeline = column_text(0, 1, memory);
		plan->source = DatumGetObjectId(SPI_getbinval(row, shape, 2, &isnull));
		plan->login = DatumGetObjectId(SPI_getbinval(row, shape, 3, &isnull));
		plan->role = DatumGetObjectId(SPI_getbinval(row, shape, 4, &isnull));
		plan->queue_size = DatumGetInt32(SPI_getbinval(row, shape, 5, &isnull));
		if (isnull)
			plan->queue_size = epro_queue_size;
		for (int stage = 0; stages != NULL && stage < STAGE_COUNT; stage++)
		{
			JsonbValue *workers = getKeyJsonValueFromContainer(&stages->root, stage_name[stage],
															   strlen(stage_name[stage]), NULL);

			if (workers != NULL && workers->type == jbvNumeric)
				plan->workers[stage] = DatumGetInt32(DirectFunctionCall1(numeric_int4,
																		 NumericGetDatum(workers->val.numeric)));
		}
		/* not cut: one group does all */
		if (stages == NULL)
			plan->workers[STAGE_DECODE] = Max(epro_workers, 1);
	}
	owner_end(&scope);
	if (found)
	{
		plan->versions = pipeline_versions(pipeline_id);
		plan->key_version = keyring_version();
	}
	return found;
}

/*
 * Compiles a pipeline as of the given versions, into a memory context of its
 * own below the current one.  Raises the errors of whatever does not fit.
 */
Pipeline *
pipeline_load(int64 pipeline_id, Jsonb *versions)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "epro_etl pipeline",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	Pipeline   *pipeline = palloc0(sizeof(Pipeline));
	RuleScope	scope;

	watch_catalogs();
	stale = false;
	complete = false;
	pipeline->id = pipeline_id;
	pipeline->memory = memory;
	pipeline->versions = (Jsonb *) PG_DETOAST_DATUM_COPY(PointerGetDatum(versions));

	/* names in rules mean the same here as where the rule was registered */
	rules_begin(&scope);
	load_source(pipeline);
	load_forms(pipeline);
	load_rules(pipeline);
	load_thresholds(pipeline);
	load_sinks(pipeline);
	rules_end(&scope);
	POINT("pipeline.loaded");
	watch_relations(pipeline);
	complete = true;

	MemoryContextSwitchTo(caller);
	return pipeline;
}

/*
 * Compiles again, with the same versions, if anything has changed since; the
 * old one is freed then.  Returns the one to go on with.  Who stores, too,
 * gets source and sinks locked.
 */
Pipeline *
pipeline_refresh(Pipeline *pipeline, bool storing)
{
	MemoryContext caller;
	Pipeline   *fresh;

	/* locked first: what is compiled then holds until the chunk's end */
	for (int i = 0; storing && i < nwatched; i++)
		LockRelationOid(watched[i], RowExclusiveLock);
	AcceptInvalidationMessages();
	if (!stale && complete)
		return pipeline;
	caller = MemoryContextSwitchTo(MemoryContextGetParent(pipeline->memory));
	fresh = pipeline_load(pipeline->id, pipeline->versions);
	MemoryContextSwitchTo(caller);
	POINT("pipeline.refreshed");
	MemoryContextDelete(pipeline->memory);
	return fresh;
}

/*
 * Compiles one definition together with the form's current de-identification
 * rules and edit checks, as a test whether they fit each other.
 */
PipelineForm *
pipeline_compile_form(const char *name, const char *version, Jsonb *definition)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name)};
	MemoryContext memory = CurrentMemoryContext;
	PipelineForm *compiled = palloc0(sizeof(PipelineForm));
	OwnerScope	scope;
	RuleScope	guarded;
	uint64		n;
	Rule	   *rules;

	compiled->form = form_compile(name, version, definition);
	owner_begin(&scope);
	n = query("SELECT " RULE_OF_DEID " FROM epro_etl.deid_rule d WHERE d.form = $1 AND d.removed_at IS NULL"
			  " UNION ALL SELECT " RULE_OF_CHECK " FROM epro_etl.edit_check c WHERE c.form = $1 AND c.removed_at IS NULL"
			  " UNION ALL SELECT " RULE_OF_OVERLAY " FROM epro_etl.severity_overlay o WHERE o.form = $1 AND " OVERLAY_HOLDS
			  " ORDER BY id",
			  1, types, values);
	rules = read_rules(n, memory);
	owner_end(&scope);
	MemoryContextSwitchTo(memory);

	rules_begin(&guarded);
	add_rules(compiled, rules, n, true);
	rules_end(&guarded);
	return compiled;
}

static void
watch_catalogs(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
	watching = true;
}

/* What an invalidation of a relation is held against. */
static void
watch_relations(const Pipeline *pipeline)
{
	int			room = 1;

	for (int i = 0; i < pipeline->nforms; i++)
		room += pipeline->forms[i].nsinks;
	nwatched = 0;
	if (watched != NULL)
		pfree(watched);
	watched = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * room);
	watched[nwatched++] = pipeline->source.relid;
	for (int i = 0; i < pipeline->nforms; i++)
	{
		for (int s = 0; s < pipeline->forms[i].nsinks; s++)
			watched[nwatched++] = pipeline->forms[i].sinks[s]->relid;
	}
}

/* Called wherever invalidations are accepted: no more than a look-up. */
static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid))
		stale = true;
	for (int i = 0; i < nwatched && !stale; i++)
		stale = (watched[i] == relid);
}

static void
function_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
}

static void
load_source(Pipeline *pipeline)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline->id)};
	OwnerScope	scope;
	Jsonb	   *columns;
	bool		isnull;

	owner_begin(&scope);
	if (query("SELECT name, source, columns FROM epro_etl.pipeline WHERE pipeline_id = $1",
			  1, types, values) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the pipeline was dropped")));
	pipeline->name = column_text(0, 1, pipeline->memory);
	pipeline->source.relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
															SPI_tuptable->tupdesc, 2, &isnull));
	columns = column_jsonb(0, 3, pipeline->memory);
	owner_end(&scope);
	MemoryContextSwitchTo(pipeline->memory);

	for (int role = 0; role < ROLE_COUNT; role++)
	{
		pipeline->source.column[role] = setting_text(columns, role_name[role], NULL);
		pipeline->source.constant[role] = setting_text(columns, role_name[role], "value");
	}
	source_check(&pipeline->source);
}

static void
load_forms(Pipeline *pipeline)
{
	Oid			types[] = {JSONBOID};
	Datum		values[] = {JsonbPGetDatum(pipeline->versions)};
	OwnerScope	scope;
	uint64		n;
	char	  **names;
	char	  **versions;
	Jsonb	  **definitions;

	owner_begin(&scope);
	n = query("SELECT f.name, f.version, f.definition FROM epro_etl.form f, jsonb_each($1) v"
			  " WHERE f.form_id = (v.value->>'form_id')::bigint ORDER BY f.name COLLATE \"C\"",
			  1, types, values);
	pipeline->forms = MemoryContextAllocZero(pipeline->memory, sizeof(PipelineForm) * (n + 1));
	names = MemoryContextAlloc(pipeline->memory, sizeof(char *) * (n + 1));
	versions = MemoryContextAlloc(pipeline->memory, sizeof(char *) * (n + 1));
	definitions = MemoryContextAlloc(pipeline->memory, sizeof(Jsonb *) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		names[i] = column_text(i, 1, pipeline->memory);
		versions[i] = column_text(i, 2, pipeline->memory);
		definitions[i] = column_jsonb(i, 3, pipeline->memory);
	}
	owner_end(&scope);
	MemoryContextSwitchTo(pipeline->memory);

	pipeline->nforms = (int) n;
	for (int i = 0; i < pipeline->nforms; i++)
	{
		PipelineForm *form = &pipeline->forms[i];

		form->form = form_compile(names[i], versions[i], definitions[i]);
	}
}

static void
load_rules(Pipeline *pipeline)
{
	Oid			types[] = {JSONBOID};
	Datum		values[] = {JsonbPGetDatum(pipeline->versions)};
	OwnerScope	scope;
	uint64		n;
	Rule	   *rules;

	owner_begin(&scope);
	n = query("SELECT " RULE_OF_DEID " FROM epro_etl.deid_rule d, jsonb_each($1) v,"
			  "  jsonb_array_elements_text(v.value->'deid_rules') r WHERE d.rule_id = r::bigint"
			  " UNION ALL SELECT " RULE_OF_CHECK " FROM epro_etl.edit_check c, jsonb_each($1) v,"
			  "  jsonb_array_elements_text(v.value->'edit_checks') r WHERE c.check_id = r::bigint"
			  " UNION ALL SELECT " RULE_OF_OVERLAY " FROM epro_etl.severity_overlay o, jsonb_each($1) v,"
			  "  jsonb_array_elements_text(v.value->'severities') r WHERE o.overlay_id = r::bigint"
			  " ORDER BY id",
			  1, types, values);
	rules = read_rules(n, pipeline->memory);
	owner_end(&scope);
	MemoryContextSwitchTo(pipeline->memory);

	for (int i = 0; i < pipeline->nforms; i++)
	{
		PipelineForm *form = &pipeline->forms[i];

		add_rules(form, rules, n, false);
		if (form->lookups->defers)
			pipeline->defers = true;
		if (form->form->subject_domain != NULL || form->form->has_coded_items)
			pipeline->has_codes = true;
	}
}

/* What a query gives of rules, into a memory context. */
static Rule *
read_rules(uint64 n, MemoryContext memory)
{
	Rule	   *rules = MemoryContextAllocZero(memory, sizeof(Rule) * (n + 1));

	for (uint64 i = 0; i < n; i++)
	{
		Rule	   *rule = &rules[i];

		rule->id = DatumGetInt64(column_datum(i, 1));
		rule->form = column_text(i, 2, memory);
		rule->name = column_text(i, 3, memory);
		rule->text = column_text(i, 4, memory);
		rule->params = column_jsonb(i, 5, memory);
		rule->condition = column_text(i, 6, memory);
		rule->severity = column_text(i, 7, memory);
		rule->message = column_text(i, 8, memory);
		rule->timeout = DatumGetInt64(column_datum(i, 9));
		rule->on_timeout = column_text(i, 10, memory);
		rule->computes = DatumGetBool(column_datum(i, 11));
	}
	return rules;
}

static int
overlaid(const char *name)
{
	Severity	severity;

	if (strcmp(name, "off") == 0)
		return KEYWORD_OFF;
	if (!severity_from_name(name, &severity))
		elog(ERROR, "unknown severity \"%s\"", name);
	return severity;
}

/* An edit check's own severity, or one that was laid over it. */
static int
severity_of(const Rule *check, const Rule *rules, uint64 n)
{
	const char *name = check->severity;

	for (uint64 i = 0; i < n; i++)
	{
		if (rules[i].params == NULL && rules[i].text == NULL &&
			strcmp(rules[i].form, check->form) == 0 && strcmp(rules[i].name, check->name) == 0)
			name = rules[i].severity;
	}
	return overlaid(name);
}

/*
 * Compiles those of the rules that are the form's, in the current memory
 * context.  De-identification first: it settles what the items are for the rest.
 * Then the scores, so that every check can read them.
 */
static void
add_rules(PipelineForm *form, const Rule *rules, uint64 n, bool registering)
{
	for (uint64 i = 0; i < n; i++)
	{
		if (rules[i].params != NULL && strcmp(rules[i].form, form->form->name) == 0)
			form_deidentify(form->form, rules[i].name, rules[i].text, rules[i].params);
	}
	for (uint64 i = 0; i < n; i++)
	{
		if (rules[i].computes && strcmp(rules[i].form, form->form->name) == 0)
			(void) form_add_score(form->form, rules[i].name);
	}
	form->checks = checkset_create(form->form);
	for (uint64 i = 0; i < n; i++)
	{
		if (rules[i].computes && strcmp(rules[i].form, form->form->name) == 0)
			checkset_add_score(form->checks, rules[i].name, rules[i].text, rules[i].condition);
	}
	form->lookups = lookupset_create(form->checks);
	for (uint64 i = 0; i < n; i++)
	{
		const Rule *rule = &rules[i];
		LookupDeclaration declared = {rule->id, rule->name, rule->text, rule->condition, rule->message};
		int			severity;

		if (rule->params != NULL || rule->computes || strcmp(rule->form, form->form->name) != 0)
			continue;
		if (rule->text == NULL)
		{
			char	   *hint;

			if (rule->name[0] == '/' &&
				!form_overlay(form->form, rule->name, overlaid(rule->severity), &hint) && registering)
				refuse_overlay(form->form, rule->name, hint);
			continue;
		}
		severity = severity_of(rule, rules, n);
		if (severity == KEYWORD_OFF)
			continue;
		declared.severity = (Severity) severity;
		if (rule->on_timeout == NULL)
		{
			checkset_add(form->checks, rule->name, declared.severity, rule->text,
						 rule->condition, rule->message);
			continue;
		}
		declared.timeout = rule->timeout;
		if (!on_timeout_from_name(rule->on_timeout, &declared.on_timeout))
			elog(ERROR, "unknown policy \"%s\"", rule->on_timeout);
		lookupset_add(form->lookups, &declared);
	}
	form->values = palloc0(sizeof(Value) * form->form->nnodes);
}

/*
 * Refuses one whose rule is none of the form's any more: it would hold nothing.
 * A stream has no batch that could be held.
 */
static void
load_thresholds(Pipeline *pipeline)
{
	Oid			types[] = {INT8OID, JSONBOID};
	Datum		values[] = {Int64GetDatum(pipeline->id), JsonbPGetDatum(pipeline->versions)};
	OwnerScope	scope;
	uint64		n;
	char	  **forms;
	bool		streams = false;
	const char *lost = NULL;

	owner_begin(&scope);
	n = query("SELECT t.form, t.check_name, t.rule, t.max_ratio, t.minimum,"
			  " t.rule LIKE '/%' OR EXISTS (SELECT FROM epro_etl.edit_check c, jsonb_array_elements_text(v.value->'edit_checks') r"
			  "   WHERE c.check_id = r::bigint AND c.check_name = t.rule AND NOT c.computes),"
			  " EXISTS (SELECT FROM epro_etl.stream s WHERE s.pipeline_id = $1)"
			  " FROM jsonb_each($2) v, jsonb_array_elements_text(v.value->'batch_thresholds') i, epro_etl.batch_threshold t"
			  " WHERE t.threshold_id = i::bigint ORDER BY t.threshold_id",
			  2, types, values);
	pipeline->thresholds = MemoryContextAllocZero(pipeline->memory, sizeof(Threshold) * (n + 1));
	forms = MemoryContextAlloc(pipeline->memory, sizeof(char *) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		Threshold  *threshold = &pipeline->thresholds[i];

		forms[i] = column_text(i, 1, pipeline->memory);
		threshold->name = column_text(i, 2, pipeline->memory);
		threshold->rule = column_text(i, 3, pipeline->memory);
		threshold->max_ratio = DatumGetFloat8(column_datum(i, 4));
		threshold->minimum = DatumGetInt64(column_datum(i, 5));
		if (!DatumGetBool(column_datum(i, 6)))
			lost = threshold->rule;
		streams = DatumGetBool(column_datum(i, 7));
	}
	owner_end(&scope);
	MemoryContextSwitchTo(pipeline->memory);

	if (streams)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has a stream and a batch threshold", pipeline->name),
				 errdetail("A stream has no batch that a threshold could hold."),
				 errhint("Stop the stream with epro_etl.stop_stream(), or take the threshold off with epro_etl.remove_edit_check().")));
	if (lost != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("a batch threshold names the rule \"%s\", which its form does not have any more", lost),
				 errhint("Add the threshold anew with epro_etl.add_check(), or take it off with epro_etl.remove_edit_check().")));
	pipeline->nthresholds = (int) n;
	for (uint64 i = 0; i < n; i++)
		pipeline->thresholds[i].form = find_form(pipeline, forms[i]);
}

/* hint is NULL: there is no such rule. */
static void
refuse_overlay(const CompiledForm *form, const char *place, const char *hint)
{
	if (hint != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the rule of form \"%s\" at \"%s\" cannot have a severity of its own",
						form->name, place),
				 errhint("%s", hint)));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("form \"%s\" judges no keyword at \"%s\"", form->name, place),
			 errdetail("A severity is laid over it."),
			 errhint("Name a keyword by its JSON Pointer in the definition, such as \"/properties/age/maximum\", or an edit check by its name; epro_etl.set_severity() with NULL takes one back.")));
}

/* Those of the pinned sinks that are still there: one can be taken off any time. */
static void
load_sinks(Pipeline *pipeline)
{
	Oid			types[] = {INT8OID, JSONBOID};
	Datum		values[] = {Int64GetDatum(pipeline->id), JsonbPGetDatum(pipeline->versions)};
	OwnerScope	scope;
	Oid			id_type;
	uint64		n;
	struct
	{
		SinkDeclaration declared;
		char	   *form;
		char	   *condition;
	}		   *given;

	owner_begin(&scope);
	n = query("SELECT s.form, s.condition, s.matched, s.columns, s.sink_id, s.target, s.shape = 'long', s.on_duplicate = 'ignore', s.required, s.on_duplicate = 'latest'"
			  " FROM epro_etl.sink s WHERE s.pipeline_id = $1 AND s.sink_id IN"
			  "  (SELECT i::bigint FROM jsonb_array_elements_text($2 -> s.form -> 'sinks') i)"
			  " ORDER BY s.sink_id", 2, types, values);
	given = MemoryContextAllocZero(pipeline->memory, sizeof(*given) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		SinkDeclaration *declared = &given[i].declared;

		given[i].form = column_text(i, 1, pipeline->memory);
		given[i].condition = column_text(i, 2, pipeline->memory);
		declared->matched = column_array(i, 3, pipeline->memory);
		declared->columns = column_jsonb(i, 4, pipeline->memory);
		declared->id = DatumGetInt64(column_datum(i, 5));
		declared->relid = DatumGetObjectId(column_datum(i, 6));
		declared->is_long = DatumGetBool(column_datum(i, 7));
		declared->ignores = DatumGetBool(column_datum(i, 8));
		declared->required = DatumGetBool(column_datum(i, 9));
		declared->latest = DatumGetBool(column_datum(i, 10));
	}
	owner_end(&scope);
	MemoryContextSwitchTo(pipeline->memory);

	id_type = getBaseType(get_atttype(pipeline->source.relid,
									  get_attnum(pipeline->source.relid,
												 pipeline->source.column[ROLE_ID])));
	for (int i = 0; i < pipeline->nforms; i++)
		pipeline->forms[i].sinks = palloc0(sizeof(Sink *) * n);
	for (uint64 i = 0; i < n; i++)
	{
		PipelineForm *form = find_form(pipeline, given[i].form);
		Sink	   *sink;

		if (form == NULL)
			continue;
		POINT("pipeline.sink");
		sink = sink_open(&given[i].declared, form->form, id_type);
		if (given[i].condition != NULL)
			sink->condition = checkset_compile(form->checks, given[i].condition,
											   "condition of a sink");
		form->sinks[form->nsinks++] = sink;
	}
}

static PipelineForm *
find_form(Pipeline *pipeline, const char *name)
{
	for (int i = 0; i < pipeline->nforms; i++)
	{
		if (strcmp(pipeline->forms[i].form->name, name) == 0)
			return &pipeline->forms[i];
	}
	return NULL;
}

static uint64
query(const char *command, int nargs, Oid *types, Datum *values)
{
	int			result = SPI_execute_with_args(command, nargs, types, values,
											   NULL, true, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read the configuration: %s",
			 SPI_result_code_string(result));
	return SPI_processed;
}

static ArrayType *
column_array(uint64 row, int column, MemoryContext memory)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	ArrayType  *array = DatumGetArrayTypePCopy(column_datum(row, column));

	MemoryContextSwitchTo(caller);
	return array;
}

static char *
column_text(uint64 row, int column, MemoryContext memory)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return text ? MemoryContextStrdup(memory, text) : NULL;
}

static Jsonb *
column_jsonb(uint64 row, int column, MemoryContext memory)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									  column, &isnull);
	MemoryContext caller;
	Jsonb	   *copy;

	if (isnull)
		return NULL;
	caller = MemoryContextSwitchTo(memory);
	copy = (Jsonb *) PG_DETOAST_DATUM_COPY(datum);
	MemoryContextSwitchTo(caller);
	return copy;
}

/* A column by value, which is not null. */
static Datum
column_datum(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 &isnull);
}

/* A role's column (inner NULL), or its constant: {"study": {"value": "X"}} */
static char *
setting_text(Jsonb *settings, const char *role, const char *inner)
{
	JsonbValue *found = getKeyJsonValueFromContainer(&settings->root, role,
													 strlen(role), NULL);

	if (found != NULL && inner != NULL)
	{
		if (found->type != jbvBinary)
			return NULL;
		found = getKeyJsonValueFromContainer(found->val.binary.data, inner,
											 strlen(inner), NULL);
	}
	if (found == NULL || found->type != jbvString)
		return NULL;
	return pnstrdup(found->val.string.val, found->val.string.len);
}
