-- run(): arguments, dry runs, limits, transactions, and what ends it.
\set SHOW_CONTEXT never
SELECT probe.open_area('t10');
SELECT epro_etl.register_form('t10', '{"properties": {"a": {"type": "integer"}}, "required": ["a"]}');
SELECT epro_etl.create_sink('t10', 't10', 'loaded');
SELECT probe.put('t10', '{"a": 1}', '{}', '{"a": 3}');
-- the oracle: what was staged is in exactly one of staging, sink and quarantine; no row is right
CREATE VIEW amiss AS
    SELECT n AS id, (SELECT count(*) FROM staging WHERE id = n) AS staged, (SELECT count(*) FROM loaded WHERE source_id = n) AS loaded,
           (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't10' AND source_id = n::text) AS quarantined
    FROM generate_series(1, (SELECT last_value FROM staged)) n
    WHERE (SELECT count(*) FROM staging WHERE id = n) + (SELECT count(*) FROM loaded WHERE source_id = n)
        + (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't10' AND source_id = n::text) <> 1;
-- arguments that are refused move nothing
SELECT epro_etl.run(NULL);
SELECT epro_etl.run('t10_none');
SELECT epro_etl.run('t10', workers => -1);
SELECT epro_etl.run('t10', workers => 10000);
SELECT epro_etl.run('t10', max_rejects => -1);
SELECT epro_etl.run('t10', max_reject_ratio => 1.5);
SELECT epro_etl.run('t10', max_reject_ratio => -0.5);
SELECT epro_etl.run('t10', max_reject_ratio => 'NaN');
SELECT epro_etl.run('t10', timeout => '0');
SELECT epro_etl.run('t10', timeout => '-1 s');
SELECT epro_etl.start_run('t10_none');
SELECT epro_etl.start_run('t10', workers => -1);
SELECT epro_etl.wait_run(NULL);
SELECT epro_etl.wait_run(0);
SELECT epro_etl.cancel_run(0);
SELECT epro_etl.cancel_run(NULL);
SELECT * FROM epro_etl.reconcile(0);
CALL epro_etl.run_job('t10_none');
BEGIN READ ONLY;
SELECT epro_etl.run('t10', workers => 0);
ROLLBACK;
SELECT count(*) AS still_staged FROM staging;
SELECT count(*) AS runs FROM epro_etl.run_ledger WHERE pipeline LIKE 't10%';
-- a dry run judges and reports, and moves nothing
SELECT probe.put('t10', '{"a": 4}');
SELECT status, claimed, loaded, rejected, duplicate, remaining FROM epro_etl.run('t10', workers => 0, dry_run => true, reason => 'rehearsal');
SELECT source_id, location, rule, kind FROM probe.last;
SELECT dry_run, reason FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT (SELECT count(*) FROM staging) AS staged, (SELECT count(*) FROM loaded) AS loaded, (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't10') AS quarantined;
-- in the calling transaction: rows of one's own are seen, and all goes back with it
BEGIN;
INSERT INTO staging VALUES (5, 'ST01', 't10', 'P-1', NULL, NULL, '{"a": 5}');
SELECT status, claimed, loaded, rejected, workers FROM epro_etl.run('t10', workers => 0);
SELECT count(*) AS staged FROM staging;
ROLLBACK;
SELECT (SELECT count(*) FROM staging) AS staged, (SELECT count(*) FROM loaded) AS loaded, (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't10') AS quarantined;
SELECT count(*) AS runs FROM epro_etl.run_ledger WHERE pipeline = 't10' AND NOT dry_run;
-- with workers asked for in a transaction that has written, and told why not
BEGIN;
INSERT INTO staging VALUES (5, 'ST01', 't10', 'P-1', NULL, NULL, '{"a": 5}');
SELECT status, claimed, loaded, rejected, workers FROM epro_etl.run('t10', workers => 2);
ROLLBACK;
-- a savepoint takes it back as well, as often as one likes
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        BEGIN
            PERFORM epro_etl.run('t10', workers => 0);
            RAISE EXCEPTION 'no';
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT count(*) AS staged FROM staging;
SELECT setval('staged', 4);
TABLE amiss;
-- and it is done
SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers, elapsed >= '0' AS elapsed FROM epro_etl.run('t10', workers => 0);
TABLE amiss;
SELECT status, claimed FROM epro_etl.run('t10', workers => 0);
-- the same by workers; how many there are is the server's matter
SELECT probe.put('t10', VARIADIC array_agg(CASE WHEN n % 10 = 0 THEN '{}' ELSE jsonb_build_object('a', n) END)) FROM generate_series(1, 3000) n;
SELECT status, claimed, loaded, rejected, remaining, workers BETWEEN 0 AND 2 AS workers FROM epro_etl.run('t10', workers => 2);
TABLE amiss;
SELECT probe.put('t10', '{"a": 1}', '{}');
SELECT epro_etl.start_run('t10', workers => 1) AS run_id \gset
SELECT run_id = :run_id AS that_run, status, claimed, loaded, rejected FROM epro_etl.wait_run(:run_id);
SELECT run_id = :run_id AS that_run, status, claimed, loaded, rejected FROM epro_etl.wait_run(:run_id);
SELECT epro_etl.cancel_run(:run_id) AS was_there_any;
SELECT probe.put('t10', '{"a": 1}');
CALL epro_etl.run_job('t10', workers => 1, reason => 'by a scheduler');
SELECT status, loaded, reason FROM epro_etl.run_history WHERE pipeline = 't10' ORDER BY run_id DESC LIMIT 1;
TABLE epro_etl.stat_progress;
TABLE amiss;
-- too many rejected: no more are claimed, what is done stays
SET epro_etl.batch_size = 10;
TRUNCATE staging;
SELECT probe.put('t10', VARIADIC array_agg(CASE WHEN n BETWEEN 11 AND 15 THEN '{}' ELSE '{"a": 1}' END::jsonb ORDER BY n)) FROM generate_series(1, 50) n;
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t10', workers => 0, max_rejects => 4);
SELECT status, sqlstate, message FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
TABLE amiss;
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t10', workers => 0, max_rejects => 4);
-- a ratio is looked at from 100 responses on, and must be exceeded
TRUNCATE staging;
SELECT probe.put('t10', VARIADIC array_agg(CASE WHEN n % 2 = 1 THEN '{}' ELSE '{"a": 1}' END::jsonb ORDER BY n)) FROM generate_series(1, 400) n;
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t10', workers => 0, max_reject_ratio => 0.49);
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t10', workers => 0, max_reject_ratio => 0.5);
SELECT status, claimed FROM epro_etl.run('t10', workers => 0, max_rejects => 0, max_reject_ratio => 0);
-- run_job() has no row to return: that it was stopped is a warning where an error would undo what was done, and else an error
SELECT probe.put('t10', VARIADIC array_agg('{}'::jsonb)) FROM generate_series(1, 30) n;
\set VERBOSITY sqlstate
CALL epro_etl.run_job('t10', workers => 0, max_rejects => 4);
CALL epro_etl.run_job('t10', workers => 1, max_rejects => 4);
\set VERBOSITY default
SELECT status, rejected FROM epro_etl.run_history WHERE pipeline = 't10' ORDER BY run_id DESC LIMIT 2;
RESET epro_etl.batch_size;
TABLE amiss;
-- interrupted inline: nothing has happened
SELECT status FROM epro_etl.run('t10', workers => 0);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN new; END';
CREATE TRIGGER slow BEFORE INSERT ON loaded FOR EACH ROW EXECUTE FUNCTION slow();
SELECT probe.put('t10', '{"a": 1}', '{}');
\set VERBOSITY sqlstate
SELECT status FROM epro_etl.run('t10', workers => 0, timeout => '100 ms');
SET statement_timeout = '100 ms';
SELECT status FROM epro_etl.run('t10', workers => 0);
RESET statement_timeout;
\set VERBOSITY default
SELECT count(*) AS staged FROM staging;
TABLE amiss;
DROP TRIGGER slow ON loaded;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t10', workers => 0, timeout => '1 day');
TABLE amiss;
SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
SELECT probe.close_area('t10');
