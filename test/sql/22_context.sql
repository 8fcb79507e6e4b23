-- The context: nested deadlines and request values.
\set SHOW_CONTEXT never
SELECT probe.open_area('t22');
-- rows, when there is time
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT g, 'x' || g FROM generate_series(1, 3) g$$) AS t (n integer, what text);
SELECT epro_etl.with_timeout('1 min', 'SELECT 1, NULL::text');
CREATE TABLE done (n integer);
SELECT * FROM epro_etl.with_timeout('1 min', 'INSERT INTO t22.done VALUES (1), (2) RETURNING n * 10') AS t (n integer);
SELECT count(*) FROM epro_etl.with_timeout('1 min', 'TRUNCATE t22.done') AS t (n integer);
-- refused
SELECT epro_etl.with_timeout(NULL, 'SELECT 1');
SELECT epro_etl.with_timeout('1 s', NULL);
SELECT epro_etl.with_timeout('0 s', 'SELECT 1');
SELECT epro_etl.with_timeout('-1 s', 'SELECT 1');
SELECT * FROM epro_etl.with_timeout('1 min', 'SELECT 1') AS t (n text);
SELECT * FROM epro_etl.with_timeout('1 min', 'SELECT 1, 2') AS t (n integer);
SELECT epro_etl.with_timeout('1 min', 'COMMIT');
SELECT epro_etl.with_timeout('1 min', 'SELEC 1');
-- its own end: an error of its own, which can be caught; the transaction goes on
\set VERBOSITY sqlstate
SELECT epro_etl.with_timeout('20 ms', 'SELECT pg_sleep(60)');
\set VERBOSITY default
SELECT epro_etl.with_timeout('20 ms', 'SELECT pg_sleep(60)');
BEGIN;
INSERT INTO done VALUES (1);
DO $$
BEGIN
    PERFORM epro_etl.with_timeout('20 ms', 'WITH w AS (INSERT INTO t22.done VALUES (2) RETURNING n) SELECT n, pg_sleep(60) FROM w');
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE '%', sqlstate;
END $$;
INSERT INTO done VALUES (3);
COMMIT;
SELECT array_agg(n ORDER BY n) FROM done;
-- nested: the one that is over says so, the outer one's end is the outer one's
CREATE FUNCTION outcome(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN 'came to its end';
EXCEPTION WHEN query_canceled OR OTHERS THEN
    RETURN sqlstate;
END $$;
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT outcome('SELECT epro_etl.with_timeout(''20 ms'', ''SELECT pg_sleep(60)'')')$$) AS t (inner_ends text);
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT outcome('SELECT epro_etl.with_timeout(''30 s'', ''SELECT 1'')')$$) AS t (inner_does_not text);
SELECT outcome($$SELECT epro_etl.with_timeout('20 ms', 'SELECT epro_etl.with_timeout(''1 min'', ''SELECT pg_sleep(60)'')')$$) AS outer_ends;
SELECT outcome($$SELECT epro_etl.with_timeout('20 ms', 'SELECT outcome(''SELECT pg_sleep(60)'')')$$) AS swallowed_within;
SELECT * FROM epro_etl.with_timeout('1 min', 'SELECT 1') AS t (goes_on integer);
-- statement_timeout stays what it is
SET statement_timeout = '30 ms';
SELECT outcome($$SELECT epro_etl.with_timeout('1 min', 'SELECT pg_sleep(60)')$$) AS statement_ends;
SELECT epro_etl.with_timeout('1 min', 'SELECT pg_sleep(60)');
RESET statement_timeout;
-- the deadline at hand is the earliest
SELECT epro_etl.context_deadline();
SELECT * FROM epro_etl.with_timeout('1 h', $$SELECT epro_etl.context_deadline() - clock_timestamp() BETWEEN '59 min' AND '1 h'$$) AS t (in_an_hour boolean);
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT d - clock_timestamp() <= '1 min' FROM
    epro_etl.with_timeout('1 h', 'SELECT epro_etl.context_deadline()') AS t (d timestamptz)$$) AS t (no_longer_than_the_outer boolean);
SET statement_timeout = '10 min';
SELECT epro_etl.context_deadline() - clock_timestamp() BETWEEN '9 min' AND '11 min' AS the_statements;
SELECT * FROM epro_etl.with_timeout('1 h', $$SELECT epro_etl.context_deadline() - clock_timestamp() < '11 min'$$) AS t (still_the_statements boolean);
RESET statement_timeout;
-- a run within a budget; and runs within runs have each its own
SELECT epro_etl.register_form('t22', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t22', 't22', 'loaded');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON loaded FOR EACH ROW EXECUTE FUNCTION slow();
SELECT probe.put('t22', '{"a": 1}');
SELECT outcome($$SELECT epro_etl.run('t22', workers => 0, timeout => '30 ms')$$) AS run_ends;
SELECT outcome($$SELECT epro_etl.with_timeout('30 ms', 'SELECT epro_etl.run(''t22'', workers => 0, timeout => ''1 min'')')$$) AS budget_ends;
SELECT outcome($$SELECT epro_etl.with_timeout('2 s', 'SELECT epro_etl.run(''t22'', workers => 1)')$$) AS budget_ends_workers;
SELECT outcome($$SELECT epro_etl.with_timeout('1 min', 'SELECT epro_etl.run(''t22'', workers => 1, timeout => ''2 s'')')$$) AS run_ends_workers;
SELECT count(*) FROM staging;
DROP TRIGGER slow ON loaded;
-- request values: for the transaction, into the ledger
SELECT epro_etl.context_get('request_id');
BEGIN;
SELECT epro_etl.context_set('request_id', 'r-17');
SELECT epro_etl.context_set('actor', 'a "quoted" name');
SAVEPOINT s;
SELECT epro_etl.context_set('actor', 'another'), epro_etl.context_set('reason', 'query 4');
SELECT epro_etl.context_get('actor'), epro_etl.context_get('reason');
ROLLBACK TO s;
SELECT epro_etl.context_get('actor'), epro_etl.context_get('reason'), epro_etl.context_get('nothing');
SELECT status, loaded FROM epro_etl.run('t22', workers => 0);
SELECT epro_etl.context_set('actor', NULL);
SHOW epro_etl.context;
COMMIT;
SHOW epro_etl.context;
SELECT context FROM epro_etl.run_history WHERE pipeline = 't22' AND status = 'succeeded';
SELECT probe.put('t22', '{"a": 2}');
SET epro_etl.context = '{"request_id": "by the session"}';
SELECT status, loaded, workers FROM epro_etl.run('t22', workers => 1);
RESET epro_etl.context;
SELECT context FROM epro_etl.run_history WHERE pipeline = 't22' AND status = 'succeeded' ORDER BY run_id DESC LIMIT 1;
SELECT epro_etl.context_set(NULL, 'x');
SELECT epro_etl.context_set('', 'x');
SELECT epro_etl.context_set(repeat('k', 64), 'x');
SELECT epro_etl.context_set('k', repeat('v', 257));
DO $$ BEGIN FOR i IN 1..20 LOOP PERFORM epro_etl.context_set('k' || i, repeat('v', 250)); END LOOP; END $$;
SET epro_etl.context = 'no object';
SET epro_etl.context = '{"a": ';
-- two cancels before anybody looks: the statement's stands, whichever was first
SELECT length(set_config('t22.big', repeat('x', 100000000), false));
CREATE FUNCTION deaf() RETURNS integer LANGUAGE sql AS $$
    SELECT length(md5(current_setting('t22.big')) || md5(current_setting('t22.big')) || md5(current_setting('t22.big')) || md5(current_setting('t22.big')))
$$;
SET statement_timeout = '50 ms';
SELECT outcome($$SELECT * FROM epro_etl.with_timeout('100 ms', 'SELECT t22.deaf()') AS t (n int)$$);
SET statement_timeout = '100 ms';
SELECT outcome($$SELECT * FROM epro_etl.with_timeout('50 ms', 'SELECT t22.deaf()') AS t (n int)$$);
SET statement_timeout = '70 ms';
SELECT outcome($$SELECT * FROM epro_etl.with_timeout('120 ms', 'SELECT * FROM epro_etl.with_timeout(''100 ms'', ''SELECT t22.deaf()'') AS t (n int)') AS t (n int)$$);
RESET statement_timeout;
SELECT outcome($$SELECT * FROM epro_etl.with_timeout('50 ms', 'SELECT t22.deaf()') AS t (n int)$$);
RESET t22.big;
-- a rule that makes an error of its own of the cancel rejects nothing
SELECT epro_etl.register_form('T22', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t22', 'T22', 'sink');
CREATE FUNCTION stubborn(a bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(60);
    RETURN true;
EXCEPTION WHEN query_canceled THEN
    RAISE division_by_zero;
END $$;
SELECT epro_etl.add_edit_check('T22', 'stubborn', 't22.stubborn(a)');
INSERT INTO staging (id, form, subject, payload) SELECT n, 'T22', 'P', '{"a": 1}' FROM generate_series(1, 10) n;
SELECT epro_etl.run('t22', workers => 0, timeout => '30 ms');
\set VERBOSITY terse
SELECT epro_etl.run('t22', workers => 1, timeout => '2 s');
\set VERBOSITY default
\set VERBOSITY sqlstate
SET statement_timeout = '30 ms';
SELECT epro_etl.run('t22', workers => 0);
RESET statement_timeout;
\set VERBOSITY default
SELECT * FROM epro_etl.with_timeout('2 s', $$SELECT epro_etl.run('t22', workers => 1)$$) AS t (n record);
SELECT status, sqlstate, message FROM epro_etl.run_history WHERE pipeline = 't22' ORDER BY run_id;
SELECT count(*) FROM staging;
SELECT epro_etl.remove_edit_check('T22', 'stubborn');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN t22.stubborn(1) THEN NEW END;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON sink FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT epro_etl.run('t22', workers => 0, timeout => '30 ms');
\set VERBOSITY terse
SELECT epro_etl.run('t22', workers => 1, timeout => '2 s');
\set VERBOSITY default
SELECT count(*) FROM staging;
SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't22';
-- what the setting may be, and what the column definition list may say
SET epro_etl.context = '{"a": 1}';
SET epro_etl.context = '{"a": {"b": "c"}}';
SET epro_etl.context = '{"a": ["b"]}';
SET epro_etl.context = '{"": "b"}';
SET epro_etl.context = '{"a": "b", "c": ""}';
SELECT epro_etl.context_get('a');
RESET epro_etl.context;
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT 'abcdef'::varchar$$) AS t (n varchar(3));
SELECT * FROM epro_etl.with_timeout('1 min', $$SELECT 'abcdef'::varchar(3)$$) AS t (n varchar(3));
SELECT probe.close_area('t22');
