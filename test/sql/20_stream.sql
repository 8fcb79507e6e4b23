-- Streams: what can be asked for, what is refused, and what a short one does.
-- Processes, failures and changes in mid-stream are test/t's.
-- In a database of its own, so that the extension can be dropped at the end.
SET client_min_messages = warning;
DROP DATABASE IF EXISTS epro_stream;
CREATE DATABASE epro_stream TEMPLATE template0 ENCODING 'UTF8';
SELECT current_database() AS regression \gset
\c epro_stream
CREATE EXTENSION epro_etl;
CREATE TABLE staging (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, study text, form text, subject text, payload jsonb);
SELECT epro_etl.register_form('PAIN', '{"type": "object", "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}}, "required": ["score"]}');
SELECT epro_etl.create_pipeline('edc', 'staging');
SELECT epro_etl.create_sink('edc', 'PAIN', 'pain');
CREATE FUNCTION wait_for(condition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1..3000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF NOT coalesce(holds, false) THEN
        RAISE EXCEPTION 'it never came: %', condition;
    END IF;
END $$;

-- refused
\set SHOW_CONTEXT never
SELECT epro_etl.start_stream(NULL);
SELECT epro_etl.start_stream('nothing');
SELECT epro_etl.start_stream('edc', stages => '{}');
SELECT epro_etl.start_stream('edc', stages => '[1]');
SELECT epro_etl.start_stream('edc', stages => '{"check": 1}');
SELECT epro_etl.start_stream('edc', stages => '{"store": 0}');
SELECT epro_etl.start_stream('edc', stages => '{"store": 1.5}');
SELECT epro_etl.start_stream('edc', stages => '{"store": "1"}');
SELECT epro_etl.start_stream('edc', stages => '{"validate": 1000, "store": 25}');
SELECT epro_etl.start_stream('edc', queue_size => 0);
SELECT epro_etl.start_stream('edc', queue_size => 65537);
SELECT epro_etl.stop_stream(NULL);
SELECT epro_etl.stop_stream('nothing');
SELECT epro_etl.wake_stream();
SELECT epro_etl.deliver('nothing');
CREATE TEMP TABLE passing (LIKE staging INCLUDING ALL);
SELECT epro_etl.create_pipeline('passing', 'passing');
SELECT epro_etl.start_stream('passing');
SELECT epro_etl.drop_pipeline('passing');
BEGIN READ ONLY;
SELECT epro_etl.stop_stream('edc');
ROLLBACK;
SELECT count(*) AS streams FROM epro_etl.stat_stream;

-- maintenance runs a table's functions in other people's sessions
CREATE TABLE bait (a integer);
INSERT INTO bait VALUES (1);
CREATE FUNCTION go(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM epro_etl.launch_stream('edc', NULL, NULL); RETURN 1; END $$;
CREATE INDEX ON bait (go(a));
SELECT count(*) AS streams FROM epro_etl.stream_status();

-- what is not up can be stopped: nothing happens
SELECT epro_etl.stop_stream('edc');

-- rolled back: it never begins
BEGIN;
SELECT epro_etl.start_stream('edc');
ROLLBACK;
SELECT wait_for('NOT EXISTS (SELECT FROM epro_etl.stream_status())');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'staging'::regclass AND NOT tgisinternal;

-- one group, then two: the flow is the same
BEGIN;
SELECT epro_etl.context_set('request_id', 'r-17');
SELECT epro_etl.start_stream('edc', stages => '{"store": 1}', queue_size => 16);
COMMIT;
SELECT wait_for($$(SELECT state = 'running' FROM epro_etl.stat_stream)$$);
SELECT pipeline, state, workers, workers_wanted, stages, queue_size FROM epro_etl.stat_stream;
SELECT context FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
INSERT INTO staging (study, form, subject, payload)
    SELECT 'S', 'PAIN', 'P' || g % 3, jsonb_build_object('score', g) FROM generate_series(1, 12) g;
SELECT wait_for('(SELECT stored = 12 FROM epro_etl.stat_stream)');
SELECT count(*), min(score), max(score) FROM pain;
SELECT source_id, location, rule, kind, severity FROM epro_etl.finding ORDER BY length(source_id), source_id, rule;
SELECT epro_etl.start_stream('edc', stages => '{"decode": 1, "store": 1}');
SELECT wait_for($$(SELECT state = 'running' AND workers = 2 FROM epro_etl.stat_stream)$$);
INSERT INTO staging (study, form, subject, payload) VALUES ('S', 'PAIN', 'P1', '{"score": 4}'), ('S', 'PAIN', 'P1', '"no object"'),
    ('S', 'OTHER', 'P1', '{"score": 4}'), ('S', 'PAIN', NULL, '{"score": 4}');
SELECT wait_for('(SELECT stored = 4 FROM epro_etl.stat_stream)');
SELECT source_id, form, location, rule, kind FROM epro_etl.finding WHERE length(source_id) = 2 AND source_id > '12' ORDER BY source_id, rule;
SELECT wait_for($$(SELECT bool_and(phase = 'waiting for rows') FROM epro_etl.stat_progress)$$);
SELECT wait_for('(SELECT in_flight = 0 FROM epro_etl.stat_stream)');
SELECT channel, stage, depth, capacity, sent, received, senders, receivers, closed FROM epro_etl.stat_channel ORDER BY channel;
SELECT stage, phase, tuples_processed, tuples_excluded, blocks_done FROM epro_etl.stat_progress ORDER BY stage;
SELECT latency_p50_ms > 0 AND latency_p50_ms <= latency_p99_ms AS measured, lag FROM epro_etl.stat_stream;
SELECT epro_etl.stop_stream('edc');
SELECT count(*) AS streams FROM epro_etl.stat_stream;
SELECT count(*) AS left_in_staging FROM staging;

-- started as another role, it acts as that one, and nothing in it can go back
SET client_min_messages = warning;
DROP ROLE IF EXISTS epro_stream_operator;
CREATE ROLE epro_stream_operator;
RESET client_min_messages;
GRANT USAGE ON SCHEMA epro_etl TO epro_stream_operator;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO epro_stream_operator;
GRANT SELECT, INSERT, DELETE, TRIGGER ON staging TO epro_stream_operator;
GRANT INSERT ON pain TO epro_stream_operator;
CREATE TABLE told (who name, what text);
GRANT INSERT ON told TO epro_stream_operator;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        RESET ROLE;
        INSERT INTO told VALUES (current_user, 'went back');
    EXCEPTION WHEN insufficient_privilege THEN
        INSERT INTO told VALUES (current_user, sqlerrm);
    END;
    RETURN NEW;
END $$;
CREATE TRIGGER tell BEFORE INSERT ON pain FOR EACH ROW EXECUTE FUNCTION tell();
SET ROLE epro_stream_operator;
SELECT epro_etl.start_stream('edc', stages => '{"store": 1}');
RESET ROLE;
INSERT INTO staging (study, form, subject, payload) VALUES ('S', 'PAIN', 'P1', '{"score": 5}');
SELECT wait_for('(SELECT count(*) = 1 FROM told)');
SELECT * FROM told;
SELECT epro_etl.stop_stream('edc');
SELECT r.run_id, r.status, r.claimed, r.loaded, r.rejected, r.remaining, r.stream, r.workers, c.agrees
    FROM epro_etl.run_history r, LATERAL (SELECT bool_and(agrees) AS agrees FROM epro_etl.reconcile(r.run_id)) c ORDER BY r.run_id;

-- a sink is required unless it is declared not to be; nothing waits for delivery
SELECT required FROM epro_etl.sink;
SELECT epro_etl.deliver('edc');

-- the trigger goes with the extension
DROP EXTENSION epro_etl;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = 'staging'::regclass AND NOT tgisinternal;
\c :regression
DROP DATABASE epro_stream;
DROP ROLE epro_stream_operator;
