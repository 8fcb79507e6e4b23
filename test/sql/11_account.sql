-- The account: who, when, why and what; quarantine, requeue and reconcile.
\set SHOW_CONTEXT never
SELECT probe.open_area('t11');
SELECT epro_etl.register_form('t11', '{"properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "integer"}}, "required": ["a"]}', '2026-03');
SELECT epro_etl.add_edit_check('t11', 'b is a', 'b = a', severity => 'warning');
SELECT epro_etl.create_sink('t11', 't11', 'loaded');
SELECT probe.put('t11', '{"a": 1, "b": 1}', '{"a": 2, "b": 1}', '{"a": 10}', '{}', '{"a": 3}', '{"a": 4, "b": 4}');
INSERT INTO staging VALUES (7, 'ST01', 't11', NULL, NULL, NULL, '{"a": 1}');
SELECT run_id FROM epro_etl.run('t11', workers => 0, reason => 'the first') \gset
SELECT pipeline, source, status, claimed, loaded, warned, rejected, duplicate, deferred, skipped, remaining, workers, chunks, dry_run, reason, batch_size,
       sqlstate, message, failed_worker, failed_chunk FROM epro_etl.run_history WHERE run_id = :run_id \gx
SELECT session_user_name = session_user AS session_user_told, current_user_name = current_user AS current_user_told,
       started_at <= finished_at AS in_order, elapsed = finished_at - started_at AS elapsed, now() - finished_at < '1 hour' AS of_today,
       versions -> 't11' ->> 'version' AS version FROM epro_etl.run_history WHERE run_id = :run_id;
-- the ledger can name each rule that was used
SELECT f.version, c.check_name FROM epro_etl.run_history h, epro_etl.form f, epro_etl.edit_check c
    WHERE h.run_id = :run_id AND f.name = 't11' AND f.version = h.versions -> 't11' ->> 'version' AND c.form = 't11' AND c.added_at <= h.started_at;
SELECT * FROM epro_etl.reconcile(:run_id);
-- counted once more from the findings themselves: no row is right
SELECT h.* FROM (SELECT claimed, loaded, warned, rejected FROM epro_etl.run_history WHERE run_id = :run_id) h
EXCEPT SELECT 7, 7 - count(*) FILTER (WHERE severity = 'error'),
       count(*) FILTER (WHERE severity = 'warning' AND source_id::int IN (SELECT source_id FROM loaded)), count(*) FILTER (WHERE severity = 'error')
FROM (SELECT DISTINCT source_id, severity FROM probe.last) l;
SELECT source_id, location, rule, kind, severity, message FROM probe.last;
SELECT source_id, form, original, first_try = last_try AS one_try, tries FROM epro_etl.quarantine WHERE pipeline = 't11' ORDER BY source_id;

-- back to staging: refused, chosen, and with what was corrected
SELECT epro_etl.requeue('t11_none');
SELECT epro_etl.requeue(NULL);
SELECT epro_etl.requeue('t11', run_id => 0), epro_etl.requeue('t11', source_ids => '{99}'), epro_etl.requeue('t11', rule => 'nope'), epro_etl.requeue('t11', source_ids => '{}');
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{id}', '"SECRET"') WHERE pipeline = 't11' AND source_id = '3';
SELECT epro_etl.requeue('t11');
SELECT count(*) AS still_there FROM epro_etl.quarantine WHERE pipeline = 't11';
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{id}', '3') WHERE pipeline = 't11' AND source_id = '3';
SELECT epro_etl.requeue('t11', rule => 'maximum');
SELECT id, form, subject, payload FROM staging;
SELECT status, loaded, rejected FROM epro_etl.run('t11', workers => 0);
-- rejected again: it has a second try, and the first is remembered
SELECT source_id, tries, last_try > first_try AS later FROM epro_etl.quarantine WHERE pipeline = 't11' ORDER BY source_id;
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,a}', '9') WHERE pipeline = 't11';
SELECT epro_etl.requeue('t11', source_ids => '{3,4}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t11', workers => 0);
SELECT source_id, tries FROM epro_etl.quarantine WHERE pipeline = 't11' ORDER BY source_id;
SELECT count(*) AS forgotten_when_loaded FROM epro_etl.requeued WHERE pipeline = 't11';
SELECT source_id, a, b FROM loaded ORDER BY source_id;
-- of the first run, the tables now tell less than its ledger: the measure says so, and does not guess
SELECT * FROM epro_etl.reconcile(:run_id);
-- requeued and not yet loaded again: a rollback takes it back
BEGIN;
SELECT epro_etl.requeue('t11');
ROLLBACK;
SELECT (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't11') AS quarantined, (SELECT count(*) FROM staging) AS staged;
-- the same response staged again is another first try
SELECT epro_etl.requeue('t11');
UPDATE staging SET subject = 'P-9';
SELECT status, loaded FROM epro_etl.run('t11', workers => 0);
INSERT INTO staging VALUES (7, 'ST01', 't11', 'P-9', NULL, NULL, '{"a": 1}');
SELECT status, duplicate FROM epro_etl.run('t11', workers => 0);
SELECT source_id, tries, first_try = last_try AS one_try FROM epro_etl.quarantine WHERE pipeline = 't11';

-- reconcile counts a relation once, and says NULL where it cannot tell
SELECT epro_etl.register_form('t11_b', '{"properties": {"a": {"type": "integer"}}}');
CREATE TABLE shared (source_id int, a int, run_id bigint);
CREATE TABLE untold (source_id int, a int);
SELECT epro_etl.create_pipeline('t11_shared', 'staging');
SELECT epro_etl.add_sink('t11_shared', 't11', 'shared');
SELECT epro_etl.add_sink('t11_shared', 't11_b', 'shared');
SELECT epro_etl.create_pipeline('t11_untold', 'staging');
SELECT epro_etl.add_sink('t11_untold', 't11_b', 'untold');
SELECT epro_etl.create_pipeline('t11_either', 'staging');
SELECT epro_etl.add_sink('t11_either', 't11_b', 'shared', condition => 'a < 5');
SELECT setval('staged', 100);
SELECT probe.put('t11', '{"a": 1}', '{"a": 10}');
SELECT probe.put('t11_b', '{"a": 1}');
SELECT run_id FROM epro_etl.run('t11_shared', workers => 0) \gset
SELECT * FROM epro_etl.reconcile(:run_id);
SELECT probe.put('t11_b', '{"a": 1}', '{"a": "x"}');
SELECT run_id FROM epro_etl.run('t11_untold', workers => 0) \gset
SELECT * FROM epro_etl.reconcile(:run_id);
SELECT probe.put('t11_b', '{"a": 1}', '{"a": 7}');
SELECT run_id FROM epro_etl.run('t11_either', workers => 0) \gset
SELECT * FROM epro_etl.reconcile(:run_id);
SELECT probe.put('t11', '{"a": 1}', '{"a": 10}');
SELECT run_id FROM epro_etl.run('t11', workers => 0, dry_run => true) \gset
SELECT * FROM epro_etl.reconcile(:run_id);
-- a run that did not end by itself is told by its lock, which is not held
INSERT INTO epro_etl.run_ledger (pipeline, source, dry_run, workers, batch_size, session_user_name, current_user_name, started_at, versions)
    VALUES ('t11', 'staging', false, 2, 1000, 'x', 'x', now() - interval '1 day', '{}');
SELECT status, claimed, loaded, finished_at FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT status FROM epro_etl.wait_run((SELECT max(run_id) FROM epro_etl.run_ledger));
DELETE FROM epro_etl.run_ledger WHERE pipeline = 't11' AND session_user_name = 'x';
-- keys that no item declares reach no sink, and are counted: in groups, in a questionnaire's answers, and by every way
SELECT epro_etl.register_form('t11 keys', '{"properties": {"a": {"type": "integer"}, "g": {"type": "object", "properties": {"b": {"type": "integer"}, "c": {"type": "integer"}}}}}');
SELECT epro_etl.register_form('t11 asked', '{"resourceType": "Questionnaire", "url": "urn:t11", "item": [{"linkId": "g", "type": "group", "item": [{"linkId": "a", "type": "integer"}]}, {"linkId": "z", "type": "string"}]}');
SELECT epro_etl.create_sink('t11', 't11 keys', 'keys');
SELECT epro_etl.create_sink('t11', 't11 asked', 'asked');
CREATE FUNCTION stage_keys() RETURNS void LANGUAGE sql AS $$
    TRUNCATE staging;
    INSERT INTO staging SELECT n, 'ST01', 't11 keys', 'P', 'V', '2026-03-01'::timestamptz, p FROM unnest(ARRAY['{}', '{"a": 1, "g": {"b": 1, "c": 2}}', '{"a": 1, "x": 1, "yy": {"a": 1}, "g": {"b": 1, "d": 1, "ee": 2}}', '{"0": 1, "zzzzzz": 2}',
        '{"g": {"0": 1}}', '{"a": "wrong", "x": 1}']::jsonb[]) WITH ORDINALITY AS u (p, n)
    UNION ALL SELECT 100 + n, 'ST01', 't11 asked', 'P', 'V', '2026-03-01', p FROM unnest(ARRAY['{}', '{"a": 1, "z": "q"}', '{"a": null, "g": 1, "z": "q", "zz": 1}', '{"A": 1}']::jsonb[]) WITH ORDINALITY AS u (p, n) $$;
SELECT stage_keys();
SELECT claimed, rejected FROM epro_etl.run('t11', workers => 0, dry_run => true);
SELECT undeclared FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT claimed, rejected FROM epro_etl.run('t11', workers => 0);
SELECT undeclared FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT stage_keys();
SELECT claimed, rejected FROM epro_etl.run('t11', workers => 2);
SELECT undeclared FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT stage_keys();
SELECT epro_etl.start_stream('t11', stages => '{"decode": 1, "deidentify": 1, "store": 1}');
DO $$ BEGIN FOR i IN 1..3000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM staging); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT epro_etl.stop_stream('t11');
SELECT claimed, rejected, undeclared FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT probe.close_area('t11');
