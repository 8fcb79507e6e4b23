-- The README's tour: test/readme.sh holds every block of it against the
-- expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
RESET client_min_messages;
\set SHOW_CONTEXT never
-- a staging table, as an app's backend fills it
CREATE TABLE staging (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study text, form text, subject text, visit text,
    authored timestamptz, payload jsonb);
INSERT INTO staging (study, form, subject, visit, authored, payload) VALUES
    ('ST01', 'SLEEP', 'P-001', 'DAY 1', '2026-03-01 07:30+00', '{"hours": "7.5", "quality": " good ", "awake": "2", "email": "lin@example.org"}'),
    ('ST01', 'SLEEP', 'P-001', 'DAY 2', '2026-03-02 07:10+00', '{"hours": 6, "quality": "FAIR", "awake": "２"}'),
    ('ST01', 'SLEEP', 'P-002', 'DAY 1', '2026-03-01 08:00+00', '{"hours": "4", "quality": "POOR", "awake": "5"}'),
    ('ST01', 'SLEEP', 'P-002', 'DAY 2', '2026-03-02 08:05+00', '{"hours": "27", "quality": "SO SO"}'),
    ('ST01', 'SLEEP', 'P-003', 'DAY 1', '2026-03-01 06:45+00', '{"hours": "8", "quality": "GOOD", "awake": "1.5"}');
-- what a response must look like, and which changes of representation are allowed
SELECT epro_etl.register_form('SLEEP', '{
    "type": "object",
    "x-normalise": ["trim", "width", "coerce", "fold"],
    "properties": {
        "hours":   {"type": "number", "minimum": 0, "maximum": 24},
        "quality": {"type": "string", "enum": ["GOOD", "FAIR", "POOR"]},
        "awake":   {"type": "integer", "minimum": 0, "maximum": 50},
        "email":   {"type": "string"}},
    "required": ["hours", "quality"]}');
SELECT epro_etl.set_deid('SLEEP', '/email', 'remove');
SELECT epro_etl.add_edit_check('SLEEP', 'short night', 'hours >= 5', severity => 'warning',
                               message => 'fewer than 5 hours of sleep');
-- where responses come from, and where they go
SELECT epro_etl.create_pipeline('nightly', source => 'staging');
SELECT epro_etl.create_sink('nightly', form => 'SLEEP', target => 'sleep');
-- the nightly load
SELECT run_id, status, claimed, loaded, warned, rejected, duplicate, remaining
  FROM epro_etl.run('nightly', workers => 2, reason => 'tour');
SELECT source_id, visit, hours, quality, awake FROM sleep ORDER BY source_id;
SELECT source_id, location, rule, kind, severity, message
  FROM epro_etl.finding WHERE run_id = 1 ORDER BY source_id, location, rule;
SELECT * FROM epro_etl.reconcile(1);
-- the site answers a query: the response is corrected and tried again
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,awake}', '1') WHERE source_id = '5';
SELECT epro_etl.requeue('nightly', source_ids => '{5}');
SELECT run_id, status, claimed, loaded, rejected
  FROM epro_etl.run('nightly', workers => 0, reason => 'query 17 answered');
SELECT run_id, status, claimed, loaded, warned, rejected, reason, versions -> 'SLEEP' ->> 'version' AS sleep_version
  FROM epro_etl.run_history ORDER BY run_id;
-- the stream: the same form, a pipeline that stays up, three sinks
SELECT epro_etl.create_pipeline('edc', source => 'staging');
SELECT epro_etl.create_sink('edc', form => 'SLEEP', target => 'sleep_now');
SELECT epro_etl.create_sink('edc', form => 'SLEEP', target => 'sleep_items', shape => 'long');
CREATE TABLE poor_nights (source_id bigint PRIMARY KEY, subject_key text, visit text, hours numeric);
SELECT epro_etl.add_sink('edc', form => 'SLEEP', target => 'poor_nights', condition => $$quality = 'POOR'$$);
SELECT epro_etl.start_stream('edc', stages => '{"deidentify": 1, "validate": 2, "store": 1}');
DO $$ BEGIN
    FOR i IN 1..3000 LOOP
        EXIT WHEN EXISTS (SELECT FROM epro_etl.stat_stream WHERE state = 'running');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT pipeline, state, workers, stored, in_flight, held FROM epro_etl.stat_stream;
INSERT INTO staging (study, form, subject, visit, authored, payload) VALUES
    ('ST01', 'SLEEP', 'P-001', 'DAY 3', '2026-03-03 07:20+00', '{"hours": "7", "quality": "GOOD", "awake": 0}'),
    ('ST01', 'SLEEP', 'P-002', 'DAY 3', '2026-03-03 08:10+00', '{"hours": 3.5, "quality": "poor"}');
DO $$ BEGIN
    FOR i IN 1..3000 LOOP
        EXIT WHEN (SELECT stored = 2 FROM epro_etl.stat_stream);
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT source_id, visit, hours, quality, awake FROM sleep_now ORDER BY source_id;
SELECT source_id, visit, item, value, value_number FROM sleep_items ORDER BY source_id, item_no;
SELECT source_id, visit, hours FROM poor_nights;
SELECT channel, stage, capacity, sent, received, depth FROM epro_etl.stat_channel ORDER BY channel;
SELECT epro_etl.stop_stream('edc');
SELECT run_id, status, claimed, loaded, warned, stream FROM epro_etl.run_history WHERE pipeline = 'edc';
-- mistakes are told where they are made
SELECT epro_etl.register_form('SLEEP', '{"properties": {"hours": {"type": "number", "minimun": 0}}}');
SELECT * FROM epro_etl.run('nightli');
DROP EXTENSION epro_etl;
DROP TABLE staging, sleep, sleep_now, sleep_items, poor_nights;
