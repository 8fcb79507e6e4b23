-- The examples of doc/context.md: test/readme.sh holds every block of it against
-- the expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
CREATE SCHEMA request;
SET search_path = request, public;
CREATE EXTENSION postgres_fdw SCHEMA request;
RESET client_min_messages;
SET intervalstyle = postgres;
\set SHOW_CONTEXT never
-- a line an error: whether a worker or the caller notices the end first is not the page's to say
\set VERBOSITY terse
-- a registry of sites, which knows two and does not answer for a third
CREATE TABLE site (code text PRIMARY KEY, is_open boolean);
INSERT INTO site VALUES ('NORTH', true), ('SOUTH', false);
CREATE FUNCTION ask_registry(code text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(60) WHERE ask_registry.code = 'WEST';
    RETURN (SELECT s.is_open FROM request.site s WHERE s.code = ask_registry.code);
END $$;
CREATE TABLE asked (what text);
SET application_name = 'gateway';
-- a deadline of its own
SELECT * FROM epro_etl.with_timeout('10 s', $$SELECT ask_registry('NORTH')$$) AS t (is_open boolean);
SELECT * FROM epro_etl.with_timeout('50 ms', $$SELECT ask_registry('WEST')$$) AS t (is_open boolean);
-- one that is caught
CREATE FUNCTION site_state(code text, budget interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer boolean;
BEGIN
    SELECT t.is_open INTO answer
      FROM epro_etl.with_timeout(budget, format('SELECT ask_registry(%L)', code)) AS t (is_open boolean);
    RETURN CASE WHEN answer THEN 'open' ELSE 'closed' END;
EXCEPTION WHEN SQLSTATE 'EP001' THEN
    RETURN 'no answer in time';
END $$;
BEGIN;
INSERT INTO asked VALUES ('for three sites');
SELECT site_state('NORTH', '10 s') AS north, site_state('SOUTH', '10 s') AS south, site_state('WEST', '50 ms') AS west;
COMMIT;
SELECT * FROM asked;
-- derived: shorter only
SELECT * FROM epro_etl.with_timeout('10 s', $$
    SELECT d <= clock_timestamp() + interval '10 s'
      FROM epro_etl.with_timeout('1 hour', 'SELECT epro_etl.context_deadline()') AS t (d timestamptz)
$$) AS t (within_the_outer boolean);
-- and the outer's end is the outer's
SELECT * FROM epro_etl.with_timeout('50 ms', $$SELECT site_state('WEST', '1 min')$$) AS t (west text);
SET statement_timeout = '50 ms';
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT site_state('WEST', '1 min')$$) AS t (west text);
RESET statement_timeout;
-- a child that leaves its caller time to answer
CREATE FUNCTION answer_request(code text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    left_over interval := epro_etl.context_deadline() - clock_timestamp();
BEGIN
    RETURN 'the site is: ' || site_state(code, least('5 s', left_over / 2));
END $$;
SELECT * FROM epro_etl.with_timeout('1 s', $$SELECT answer_request('WEST')$$) AS t (answer text);
-- values
BEGIN;
SELECT epro_etl.context_set('request_id', 'r-2041'), epro_etl.context_set('actor', 'gateway');
SELECT * FROM epro_etl.with_timeout('10 s', $$SELECT epro_etl.context_get('request_id')$$) AS t (request_id text);
SAVEPOINT again;
SELECT epro_etl.context_set('reason', 'second try');
ROLLBACK TO again;
SHOW epro_etl.context;
COMMIT;
SELECT epro_etl.context_get('request_id') IS NULL AS gone;
-- a run: its workers end before the call returns, whatever ends it
CREATE TABLE staging (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
SELECT epro_etl.register_form('PAIN', '{"properties": {
    "pain": {"type": "integer", "minimum": 0, "maximum": 10}, "site": {"type": "string"}}}');
SELECT epro_etl.create_pipeline('diary', source => 'staging');
SELECT epro_etl.create_sink('diary', form => 'PAIN', target => 'pain');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(60) WHERE NEW.pain = 10;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON pain FOR EACH ROW EXECUTE FUNCTION slow();
INSERT INTO staging (study, form, subject, visit, authored, payload) VALUES
    ('ST01', 'PAIN', 'P-001', 'DAY 1', '2026-03-01 07:30+00', '{"pain": 3}'),
    ('ST01', 'PAIN', 'P-002', 'DAY 1', '2026-03-01 07:40+00', '{"pain": 10}');
SELECT status, loaded FROM epro_etl.run('diary', workers => 1, timeout => '1 s');
SELECT * FROM epro_etl.with_timeout('1 s', $$SELECT status FROM epro_etl.run('diary', workers => 1)$$) AS t (status text);
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND datname = current_database();
SELECT count(*) FROM staging;
DROP TRIGGER slow ON pain;
BEGIN;
SELECT epro_etl.context_set('request_id', 'r-2042');
SELECT status, loaded FROM epro_etl.run('diary', workers => 1);
COMMIT;
SELECT run_id, status, context FROM epro_etl.run_history ORDER BY run_id;
-- work that outlives the statement
SELECT * FROM epro_etl.with_timeout('10 s', $$SELECT epro_etl.start_run('diary', workers => 1)$$) AS t (run_id bigint);
SELECT status, loaded FROM epro_etl.wait_run(4);
-- other servers: this one, reached through postgres_fdw
DO $$
DECLARE
    socket text := split_part(current_setting('unix_socket_directories'), ',', 1);
BEGIN
    EXECUTE format('CREATE SERVER registry_server FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
                   CASE socket WHEN '' THEN 'localhost' ELSE socket END, current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR CURRENT_USER SERVER registry_server;
CREATE VIEW heard AS
    SELECT current_setting('statement_timeout')::interval AS time_left, current_setting('application_name') AS caller;
CREATE FOREIGN TABLE heard_there (time_left interval, caller text)
    SERVER registry_server OPTIONS (schema_name 'request', table_name 'heard');
SELECT epro_etl.add_context_server('registry_server');
BEGIN;
SELECT epro_etl.context_set('request_id', 'r-2043');
SELECT time_left BETWEEN '5 s' AND '12 s' AS is_told, caller
  FROM epro_etl.with_timeout('10 s', 'SELECT * FROM heard_there') AS t (time_left interval, caller text);
COMMIT;
-- lookups: a time of their own, for each question
SELECT epro_etl.add_lookup('PAIN', 'site is open', 'request.ask_registry(site)', timeout => '500 ms', on_timeout => 'defer');
INSERT INTO staging (study, form, subject, visit, authored, payload) VALUES
    ('ST01', 'PAIN', 'P-001', 'DAY 2', '2026-03-02 07:30+00', '{"pain": 2, "site": "NORTH"}'),
    ('ST01', 'PAIN', 'P-002', 'DAY 2', '2026-03-02 07:40+00', '{"pain": 4, "site": "WEST"}');
SELECT status, claimed, loaded, deferred FROM epro_etl.run('diary', workers => 1);
-- a call chain, which names who was late
INSERT INTO epro_etl.study (study) VALUES ('ST01');
INSERT INTO epro_etl.participant (study, subject_key, site)
    SELECT 'ST01', encode(sha256(convert_to(p, 'UTF8')), 'hex'), s FROM (VALUES ('a', 'NORTH'), ('b', 'SOUTH')) AS v (p, s);
INSERT INTO epro_etl.site_access (study, site, role) VALUES ('ST01', 'NORTH', current_user);
SELECT left(subject_key, 8) AS subject_key, site FROM epro_etl.study_participants('ST01', timeout => '10 s');
CREATE VIEW permit AS SELECT a.study, a.site, a.role FROM epro_etl.site_access a, pg_sleep(60);
SELECT epro_etl.set_hop('permission', 'permit');
CREATE FUNCTION answer_with_participants(study text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN count(*) || ' participants' FROM epro_etl.study_participants(study, timeout => '50 ms');
EXCEPTION WHEN SQLSTATE 'EP001' THEN
    RETURN substring(sqlerrm FROM 'hop "\w+"') || ' was late';
END $$;
SELECT answer_with_participants('ST01');
SELECT epro_etl.set_hop('permission', NULL);
DROP VIEW permit;
DROP EXTENSION epro_etl;
SET client_min_messages = warning;
DROP SCHEMA request CASCADE;
