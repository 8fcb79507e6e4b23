-- As a user's own test would be: all of it in one transaction that is rolled
-- back, which inline runs (workers => 0) make possible.
\set ECHO none
\set QUIET 1
\pset format unaligned
\pset tuples_only true
\pset pager off
\set ON_ERROR_ROLLBACK 1
\set ON_ERROR_STOP true
-- a key of its own, so that nothing is asked of the server's configuration
COPY (SELECT 'a key for tests, known to everybody') TO PROGRAM 'umask 077; cat > ../epro_etl_pgtap.key';
CREATE TEMP TABLE before AS SELECT (SELECT count(*) FROM epro_etl.run_ledger) AS runs, (SELECT count(*) FROM epro_etl.quarantine) AS quarantined,
    (SELECT count(*) FROM epro_etl.finding) AS findings, (SELECT count(*) FROM epro_etl.form) AS forms;
BEGIN;
SET LOCAL epro_etl.key_file = '../epro_etl_pgtap.key';
SELECT plan(25);

CREATE TABLE staging (id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
SELECT is(epro_etl.register_form('PHQ', '{
    "x-normalise": ["trim", "width", "coerce", "fold"],
    "properties": {
        "q1":    {"type": "integer", "minimum": 0, "maximum": 3},
        "q2":    {"type": "integer", "minimum": 0, "maximum": 3},
        "sum":   {"type": "integer"},
        "lang":  {"type": "string", "enum": ["EN", "ZH"]},
        "phone": {"type": "string"}},
    "required": ["q1", "q2"]}'), '1', 'a form is registered as version 1');
SELECT lives_ok($$ SELECT epro_etl.set_deid('PHQ', '/phone', 'remove') $$, 'its phone number is taken out');
SELECT lives_ok($$ SELECT epro_etl.add_edit_check('PHQ', 'sum', 'q1 + q2 = sum', severity => 'warning', condition => 'sum IS NOT NULL') $$, 'its sum is checked');
SELECT lives_ok($$ SELECT epro_etl.create_pipeline('nightly', 'staging') $$, 'a pipeline');
SELECT is(epro_etl.create_sink('nightly', 'PHQ', 'phq')::text, 'phq', 'and its sink');
SELECT columns_are('phq', ARRAY['source_id', 'study', 'subject_key', 'form', 'form_version', 'visit', 'authored', 'q1', 'q2', 'sum', 'lang', 'run_id', 'key_version', 'loaded_at'],
    'the sink has a column an item, and none for what is taken out');
SELECT col_type_is('phq', 'q1', (SELECT type::text FROM epro_etl.form_items('PHQ') WHERE name = 'q1'), 'typed as the form says');
SELECT col_is_pk('phq', 'source_id', 'a response is in it once');

INSERT INTO staging VALUES
    (1, 'ST01', 'PHQ', 'P-001', 'V1', '2026-03-01Z', '{"q1": "1", "q2": " ２ ", "sum": 3, "lang": "zh", "phone": "555 0100"}'),
    (2, 'ST01', 'PHQ', 'P-001', 'V2', '2026-03-02Z', '{"q1": 3, "q2": 3, "sum": 5}'),
    (3, 'ST01', 'PHQ', 'P-002', 'V1', '2026-03-01Z', '{"q1": 4, "q2": 1.5}'),
    (4, 'ST01', 'PHQ', NULL, 'V1', '2026-03-01Z', '{"q1": 1, "q2": 1}'),
    (5, 'ST01', 'GAD', 'P-003', 'V1', '2026-03-01Z', '{}'),
    (6, 'ST01', 'PHQ', 'P-003', 'V1', '2026-03-01Z', '[1, 2]');
SELECT results_eq($$ SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM epro_etl.run('nightly', workers => 0, dry_run => true) $$,
    $$ VALUES ('succeeded', 6::bigint, 2::bigint, 1::bigint, 4::bigint, 0::bigint, 0::bigint, 0::bigint, 0) $$, 'a dry run says what would be');
SELECT is((SELECT count(*) FROM staging), 6::bigint, 'and moves nothing');
SELECT results_eq($$ SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM epro_etl.run('nightly', workers => 0, reason => 'pgTAP') $$,
    $$ VALUES ('succeeded', 6::bigint, 2::bigint, 1::bigint, 4::bigint, 0::bigint, 0::bigint, 0::bigint, 0) $$, 'the run says what is');
SELECT is_empty('TABLE staging', 'nothing is left behind');
SELECT results_eq('SELECT source_id, q1, q2, sum, lang, visit FROM phq ORDER BY source_id',
    $$ VALUES (1::bigint, 1, 2, 3::bigint, 'ZH', 'V1'), (2, 3, 3, 5, NULL, 'V2') $$, 'answers are stored as what they are');
SELECT is((SELECT count(DISTINCT subject_key) FROM phq), 1::bigint, 'one subject, one key');
SELECT isnt((SELECT min(subject_key) FROM phq), 'P-001', 'which is not the subject');
SELECT bag_eq($$ SELECT source_id, location, rule, kind, severity FROM epro_etl.finding WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) $$,
    $$ VALUES ('2', '', 'sum', 'check', 'warning'), ('3', '/q1', 'maximum', 'schema', 'error'), ('3', '/q2', 'type', 'schema', 'error'),
              ('4', NULL, 'subject', 'subject', 'error'), ('5', NULL, 'form', 'form', 'error'), ('6', '', 'payload', 'payload', 'error') $$,
    'each response that has a fault has its findings');
SELECT set_eq($$ SELECT source_id FROM epro_etl.quarantine WHERE pipeline = 'nightly' $$, ARRAY['3', '4', '5', '6'], 'what was rejected is in quarantine');
SELECT is_empty($$ SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger)) WHERE agrees IS NOT TRUE $$, 'the ledger agrees with the tables');
SELECT is((SELECT reason FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1), 'pgTAP', 'the ledger says why');

UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload}', '{"q1": 0, "q2": 0}') WHERE pipeline = 'nightly' AND source_id = '3';
SELECT is(epro_etl.requeue('nightly', source_ids => '{3}'), 1::bigint, 'a corrected response goes back to staging');
SELECT results_eq($$ SELECT claimed, loaded FROM epro_etl.run('nightly', workers => 0) $$, $$ VALUES (1::bigint, 1::bigint) $$, 'and is loaded');
INSERT INTO staging VALUES (3, 'ST01', 'PHQ', 'P-002', 'V1', '2026-03-01Z', '{"q1": 0, "q2": 0}');
SELECT results_eq($$ SELECT claimed, loaded, duplicate FROM epro_etl.run('nightly', workers => 0) $$, $$ VALUES (1::bigint, 0::bigint, 1::bigint) $$, 'a second time it is a duplicate');
SELECT throws_ok($$ SELECT epro_etl.run('nightli', workers => 0) $$, '42704', 'pipeline "nightli" does not exist', 'a typing error is told');
SELECT throws_ok($$ SELECT epro_etl.register_form('PHQ', '{"properties": {"q1": {"minimun": 0}}}') $$, 'EP003',
    'form definition refused at "/properties/q1/minimun": unknown or unsupported keyword', 'and so is one in a form');

ROLLBACK;
-- pgTAP's own counters are gone with it, so the last one is told by hand
SELECT CASE WHEN (SELECT count(*) FROM epro_etl.run_ledger) = runs AND (SELECT count(*) FROM epro_etl.quarantine) = quarantined
              AND (SELECT count(*) FROM epro_etl.finding) = findings AND (SELECT count(*) FROM epro_etl.form) = forms
              AND to_regclass('phq') IS NULL AND to_regclass('staging') IS NULL
            THEN 'ok 25' ELSE 'not ok 25' END || ' - rolled back, nothing of it has been' FROM before;
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_pgtap.key';
