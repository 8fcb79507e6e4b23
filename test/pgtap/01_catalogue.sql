-- The public face, held against the design: names, arguments, results, settings,
-- and what must be true of every object of the extension.
\set ECHO none
\set QUIET 1
\pset format unaligned
\pset tuples_only true
\pset pager off
\set ON_ERROR_ROLLBACK 1
\set ON_ERROR_STOP true
-- the settings are known where the library is
LOAD 'epro_etl';
BEGIN;
SELECT plan(37);

-- less what an object brings along: the sequences of identity columns and, members since PostgreSQL 16, row types and arrays
CREATE TEMP VIEW member AS
    SELECT classid, objid, pg_describe_object(classid, objid, 0) AS told FROM pg_depend d
    WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'epro_etl') AND deptype = 'e'
      AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i');

SELECT has_extension('epro_etl');
SELECT has_schema('epro_etl');

-- functions, arguments with defaults, results
SELECT bag_eq($$
    SELECT p.proname || '(' || regexp_replace(regexp_replace(pg_get_function_identity_arguments(p.oid), '(^|, )OUT [^,]*', '', 'g'), '(^|, )IN ', '\1', 'g') || ')'
           || CASE p.prokind WHEN 'p' THEN '' ELSE ' -> ' || CASE WHEN p.proretset THEN 'SETOF ' ELSE '' END || p.prorettype::regtype END
    FROM pg_proc p WHERE p.pronamespace = 'epro_etl'::regnamespace $$, $$ VALUES
    ('register_form(name text, definition jsonb, version text) -> text'),
    ('register_form(name text, definition xml, version text) -> text'),
    ('register_form(name text, definition text, version text) -> text'),
    ('register_odm(definition xml, version text) -> SETOF record'),
    ('odm_text(definition text) -> void'),
    ('odm_read(definition xml) -> jsonb'),
    ('odm_type(data_type text) -> jsonb'),
    ('odm_comparison(item text, family text, comparator text, literals text[]) -> text'),
    ('odm_xpath(expression text, at_group boolean, here text, places jsonb) -> jsonb'),
    ('odm_translate(odm jsonb, form_oid text) -> jsonb'),
    ('odm_store(name text, translated jsonb, version text) -> text'),
    ('add_edit_check(form text, check_name text, expression text, severity text, condition text, message text) -> void'),
    ('add_lookup(form text, check_name text, query text, severity text, condition text, message text, timeout interval, on_timeout text) -> void'),
    ('remove_edit_check(form text, check_name text) -> void'),
    ('retire_check(form text, check_name text) -> boolean'),
    ('thresholds_fit(form text, rules text) -> void'),
    ('refuse_stream() -> trigger'),
    ('explain_form(form text) -> SETOF record'),
    ('form_rules(form text) -> SETOF record'),
    ('validate(form text, payload jsonb, study text, visit text, authored timestamp with time zone) -> SETOF record'),
    ('add_check(form text, check_name text, kind text, params jsonb, severity text, condition text, message text) -> void'),
    ('add_score(form text, score text, spec jsonb) -> void'),
    ('rule_item(form text, item text) -> regtype'),
    ('rule_literal(value jsonb) -> text'),
    ('rule_options(value jsonb) -> text'),
    ('rule_params(form text, what text, params jsonb, known jsonb) -> void'),
    ('rule_date(form text, item text, prefix text, bound text, zone text) -> text'),
    ('rule_table(what text, name text, columns text[]) -> regclass'),
    ('rule_match(form text, what text, match jsonb) -> text'),
    ('rule_when(form text, what text, "when" jsonb) -> text'),
    ('partial_date_earliest(partial text) -> date'),
    ('partial_date_latest(partial text) -> date'),
    ('partial_date_precision(partial text) -> text'),
    ('partial_date_before(a text, b text) -> boolean'),
    ('partial_date_after(a text, b text) -> boolean'),
    ('partial_date_not_before(a text, b text) -> boolean'),
    ('partial_date_not_after(a text, b text) -> boolean'),
    ('partial_date_same(a text, b text) -> boolean'),
    ('study_day(date date, reference date) -> integer'),
    ('set_deid(form text, path text, method text, params jsonb) -> void'),
    ('deid_suits(form text, path text, method text, params jsonb) -> boolean'),
    ('deid_kinds(form text) -> SETOF record'),
    ('decrypt_answer(form text, path text, study text, answer text) -> text'),
    ('apply_deid_profile(form text, profile text, categories jsonb) -> void'),
    ('deid_report(form text) -> SETOF record'),
    ('k_anonymity(relation regclass, columns text[], k integer) -> SETOF record'),
    ('set_severity(form text, location text, severity text, reason text, valid_from timestamp with time zone, valid_until timestamp with time zone) -> void'),
    ('create_pipeline(name text, source regclass, columns jsonb, options jsonb) -> void'),
    ('drop_pipeline(name text) -> void'),
    ('create_sink(pipeline text, form text, target text, shape text) -> regclass'),
    ('add_sink(pipeline text, form text, target regclass, shape text, columns jsonb, condition text, on_duplicate text, required boolean) -> void'),
    ('remove_sink(pipeline text, form text, target regclass) -> void'),
    ('run(pipeline text, workers integer, max_rejects bigint, max_reject_ratio double precision, timeout interval, dry_run boolean, reason text) -> record'),
    ('start_run(pipeline text, workers integer, max_rejects bigint, max_reject_ratio double precision, timeout interval, dry_run boolean, reason text) -> bigint'),
    ('wait_run(run_id bigint, timeout interval) -> record'),
    ('cancel_run(run_id bigint) -> boolean'),
    ('run_job(pipeline text, workers integer, max_rejects bigint, max_reject_ratio double precision, timeout interval, dry_run boolean, reason text)'),
    ('rotate_key(note text) -> integer'),
    ('repseudonymise(target regclass)'),
    ('requeue(pipeline text, run_id bigint, source_ids text[], rule text) -> bigint'),
    ('reconcile(run_id bigint) -> SETOF record'),
    ('progress() -> SETOF record'),
    ('form_items(form text) -> SETOF record'),
    ('form_not_imported(form text) -> SETOF record'),
    ('compile_form(form text) -> void'),
    ('compile_pipeline(pipeline text) -> void'),
    ('make_sink(pipeline text, form text, target text, shape text, schema name) -> regclass'),
    ('tell_unstored(pipeline text, form text) -> void'),
    ('start_stream(pipeline text, stages jsonb, queue_size integer) -> void'),
    ('stop_stream(pipeline text, drain boolean, timeout interval) -> boolean'),
    ('launch_stream(pipeline text, stages jsonb, queue_size integer) -> boolean'),
    ('watch_source(pipeline text) -> void'),
    ('pipeline_source(pipeline text) -> regclass'),
    ('wake_stream() -> trigger'),
    ('deliver(pipeline text) -> bigint'),
    ('stream_status() -> SETOF record'),
    ('channel_status() -> SETOF record'),
    ('with_timeout(timeout interval, query text) -> SETOF record'),
    ('context_deadline() -> timestamp with time zone'),
    ('context_set(key text, value text) -> void'),
    ('context_get(key text) -> text'),
    ('set_hop(hop text, relation regclass, columns jsonb, timeout interval) -> void'),
    ('study_participants(study text, timeout interval) -> SETOF record'),
    ('add_context_server(server text, settings text) -> regclass'),
    ('remove_context_server(server text) -> void'),
    ('make_context_server(server text, settings text, schema name) -> regclass'),
    ('context_server_of(settings regclass) -> text'),
    ('audit_change() -> trigger'),
    ('audit_count() -> trigger'),
    ('audit_correction() -> trigger'),
    ('audit_requeue() -> trigger'),
    ('audit_refuse() -> trigger'),
    ('audit_triggers() -> SETOF record'),
    ('audit_run(run_id bigint, at_end boolean) -> jsonb'),
    ('audit_bytes(parts text[]) -> bytea'),
    ('audit_instant(at timestamp with time zone) -> text'),
    ('audit_heads() -> jsonb'),
    ('verify_audit(heads jsonb) -> SETOF record') $$, 'the functions of the design, and those that they are made of');

-- what is NULL or another default unless it is given
CREATE FUNCTION pg_temp.required(name text) RETURNS text LANGUAGE sql AS $$
    SELECT array_to_string((array(SELECT a FROM unnest(p.proargnames, coalesce(p.proargmodes, array_fill('i'::"char", ARRAY[p.pronargs::int]))) WITH ORDINALITY AS u (a, m, n)
                                  WHERE m = 'i' ORDER BY n))[1 : p.pronargs - p.pronargdefaults], ', ')
    FROM pg_proc p WHERE p.pronamespace = 'epro_etl'::regnamespace AND p.proname = name $$;
SELECT is(pg_temp.required('register_form'), 'name, definition', 'what register_form() must be given');
SELECT is(pg_temp.required('add_edit_check'), 'form, check_name, expression', 'what add_edit_check() must be given');
SELECT is(pg_temp.required('add_check'), 'form, check_name, kind, params', 'what add_check() must be given');
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'epro_etl'::regnamespace
    AND (p.proname LIKE 'partial\_date\_%' OR p.proname = 'study_day') AND NOT (p.provolatile = 'i' AND p.proparallel = 's' AND p.proisstrict) $$,
    'what edit checks can call is immutable, strict, and safe in parallel');
SELECT is(pg_temp.required('apply_deid_profile'), 'form, profile', 'what apply_deid_profile() must be given');
SELECT is(pg_temp.required('k_anonymity'), 'relation, columns', 'what k_anonymity() must be given');
SELECT is((SELECT string_agg(paragraph || ' ' || category, ', ' ORDER BY paragraph) FROM epro_etl.deid_category),
    'A names, B geographic, C dates, D telephone, E fax, F email, G ssn, H medical record, I health plan, J account, K license, L vehicle, M device, N url, O ip address, P biometric, Q photograph, R other',
    'the 18 identifiers of 45 CFR 164.514(b)(2)(i)');
SELECT is(pg_temp.required('create_pipeline'), 'name, source', 'what create_pipeline() must be given');
SELECT is(pg_temp.required('add_sink'), 'pipeline, form, target', 'what add_sink() must be given');
SELECT is((SELECT string_agg(DISTINCT pg_temp.required(f), '|') FROM unnest('{run,start_run,run_job}'::text[]) f), 'pipeline',
    'a pipeline is all that run(), start_run() and run_job() must be given');
SELECT is((SELECT proargnames[8:] FROM pg_proc WHERE oid = 'epro_etl.run'::regproc),
    '{run_id,status,claimed,loaded,warned,rejected,duplicate,deferred,remaining,workers,elapsed}', 'the row of run()');
SELECT is((SELECT proargnames[3:] FROM pg_proc WHERE oid = 'epro_etl.wait_run'::regproc),
    '{run_id,status,claimed,loaded,warned,rejected,duplicate,deferred,remaining,workers,elapsed}', 'wait_run() returns the row of run()');

SELECT is(pg_temp.required('set_hop'), 'hop, relation', 'what set_hop() must be given');
SELECT is(pg_temp.required('study_participants'), 'study', 'what study_participants() must be given');

-- relations
SELECT bag_eq($$ SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm', 'f') $$,
    $$ VALUES ('form'), ('edit_check'), ('deid_rule'), ('deid_category'), ('deid_profile'), ('pipeline'), ('sink'), ('run_ledger'), ('run_worker'), ('finding'), ('quarantine'), ('requeued'), ('superseded'),
              ('run_history'), ('stat_progress'), ('outbox'), ('stream'), ('stat_channel'), ('stat_stream'),
               ('context_server'), ('pseudonym'), ('severity_overlay'), ('batch_threshold'), ('study'), ('participant'), ('site_access'), ('hop'), ('form_import'), ('import_report'),
               ('key_version'), ('audit_trail'), ('audit_writer'), ('correction') $$, 'the tables and views of the design');
SELECT columns_are('epro_etl', 'finding', ARRAY['run_id', 'source_id', 'form', 'location', 'rule', 'kind', 'severity', 'message']);
SELECT columns_are('epro_etl', 'quarantine', ARRAY['quarantine_id', 'run_id', 'pipeline', 'source_id', 'form', 'original', 'first_try', 'last_try', 'tries']);
SELECT columns_are('epro_etl', 'superseded', ARRAY['superseded_id', 'sink_id', 'target', 'run_id', 'source_id', 'earlier_run_id', 'earlier_source_id', 'row', 'superseded_at']);
SELECT columns_are('epro_etl', 'audit_trail', ARRAY['writer', 'seq', 'at', 'session_user_name', 'current_user_name', 'actor', 'action', 'object', 'old_value', 'new_value', 'reason', 'context',
    'witness', 'previous', 'hash']);
SELECT columns_are('epro_etl', 'stat_progress', ARRAY['run_id', 'pipeline', 'worker', 'pid', 'phase', 'tuples_processed', 'tuples_excluded',
    'blocks_done', 'blocks_total', 'since', 'stage']);
SELECT is_empty($$ SELECT a FROM unnest('{run_id,pipeline,source,status,claimed,loaded,warned,rejected,duplicate,deferred,skipped,undeclared,remaining,workers,dry_run,reason,
    session_user_name,current_user_name,started_at,finished_at,elapsed,sqlstate,message,versions,key_version}'::name[]) a
    EXCEPT SELECT attname FROM pg_attribute WHERE attrelid = 'epro_etl.run_history'::regclass $$, 'run_history tells who, when, why and what');
SELECT bag_eq($$ SELECT name::text FROM pg_settings WHERE name LIKE 'epro\_etl.%' $$,
    $$ VALUES ('epro_etl.workers'), ('epro_etl.batch_size'), ('epro_etl.key_file'), ('epro_etl.key_command'), ('epro_etl.batch_age'), ('epro_etl.context'),
              ('epro_etl.naptime'), ('epro_etl.queue_size'), ('epro_etl.sink_timeout') $$, 'the settings of this version');

-- what must be true of every object
SELECT is_empty($$ SELECT told FROM member WHERE obj_description(objid, classid::regclass::name) IS NULL $$, 'every object has a comment');
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) x
    WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind IN ('r', 'v', 'S') AND x.grantee = 0 $$, 'no relation is open to PUBLIC');
SELECT is_empty($$ SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) x
    WHERE c.relnamespace = 'epro_etl'::regnamespace AND x.grantee = 0 $$, 'no column is open to PUBLIC');
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
    WHERE p.pronamespace = 'epro_etl'::regnamespace AND x.grantee = 0 $$, 'no routine is open to PUBLIC');
SELECT is_empty($$ SELECT x.privilege_type FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
    WHERE n.nspname = 'epro_etl' AND x.grantee = 0 $$, 'the schema is not open to PUBLIC');
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = 'epro_etl'::regnamespace AND l.lanname IN ('plpgsql', 'sql') AND p.proname NOT IN ('create_sink', 'add_context_server')
      AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false) $$,
    'every function in SQL and PL/pgSQL pins its search path, but create_sink() and add_context_server(), which read the caller''s');
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'epro_etl'::regnamespace AND p.prosecdef $$,
    'no function acts with its owner''s privileges');
SELECT is_empty($$ SELECT p.oid::regtype FROM pg_type p, aclexplode(coalesce(p.typacl, acldefault('T', p.typowner))) x
    WHERE p.typnamespace = 'epro_etl'::regnamespace AND p.typtype = 'd' AND x.grantee = 0 $$, 'no domain is open to PUBLIC');
SELECT bag_eq($$ SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relrowsecurity
    AND EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = c.oid AND y.polcmd = 'r' AND y.polname = 'reading') $$,
    $$ VALUES ('study'), ('participant'), ('site_access') $$, 'row security by role');
-- pg_dump keeps what is no part of the script
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind IN ('r', 'S')
    EXCEPT SELECT unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'epro_etl'
    EXCEPT VALUES ('epro_etl.stream'::regclass) $$, 'pg_dump keeps the rows of every table, but not which streams are up');

-- whoever adds a table says what becomes of it in the audit trail
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind = 'r'
    EXCEPT SELECT relation FROM epro_etl.audit_triggers() $$, 'every table has triggers of the audit trail');
SELECT bag_eq($$ SELECT c.relname::text, t.tgname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'epro_etl'::regnamespace
    AND t.tgname LIKE 'audit\_%' AND t.tgenabled = 'A' $$, $$ SELECT relation, name FROM epro_etl.audit_triggers() $$, 'and they are always enabled');

SELECT * FROM finish();
ROLLBACK;
