-- Rows that meet a key of their sink: found before anything is written, and refused as the executor's road refuses them.
\set SHOW_CONTEXT never
SELECT probe.open_area('t40');
SELECT epro_etl.register_form('t40', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}, "lo": {"type": "integer"}, "hi": {"type": "integer"}}}');
-- two keys, one of them partial, one over an expression that can fail, an exclusion constraint; the same once more with a
-- trigger, which takes the executor's road
CREATE TABLE fast (source_id int, a int PRIMARY KEY, b int UNIQUE, c int, lo int, hi int, EXCLUDE USING gist (int4range(lo, hi) WITH &&) WHERE (lo IS NOT NULL));
CREATE UNIQUE INDEX ON fast (c) WHERE c > 0;
CREATE UNIQUE INDEX ON fast ((1000 / (c + 7))) WHERE c < 0;
CREATE TABLE slow (LIKE fast INCLUDING ALL);
CREATE FUNCTION as_it_is() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER as_it_is BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION as_it_is();
CREATE TABLE given AS SELECT n AS id, jsonb_strip_nulls(jsonb_build_object('a', CASE WHEN n % 7 = 0 THEN n / 7 ELSE 10000 + n END, 'b', CASE n % 11 WHEN 0 THEN NULL WHEN 3 THEN n / 11 ELSE 20000 + n END,
    'c', CASE WHEN n % 13 = 0 THEN n % 5 WHEN n % 101 = 0 AND n < 300 THEN -7 WHEN n % 103 = 0 THEN -n ELSE NULL END,
    'lo', CASE WHEN n % 17 = 0 THEN n END, 'hi', CASE WHEN n % 17 = 0 THEN n + 20 END)) AS payload FROM generate_series(1, 1200) n;
CREATE FUNCTION held() RETURNS void LANGUAGE sql AS $$
    TRUNCATE fast, slow;
    INSERT INTO fast (source_id, a, b, c, lo, hi) SELECT -n, n, -n, 100 + n, 10000 + n, 10000 + n FROM generate_series(1, 90) n;
    INSERT INTO fast (source_id, a, b) SELECT -1000 - n, -n, n FROM generate_series(1, 60) n;
    INSERT INTO slow SELECT * FROM fast $$;
SELECT epro_etl.add_sink('t40', 't40', 'fast'), epro_etl.create_pipeline('t40_slow', 'staging'), epro_etl.add_sink('t40_slow', 't40', 'slow');
CREATE FUNCTION one(pipeline text, workers int) RETURNS TABLE (claimed bigint, loaded bigint, rejected bigint, duplicate bigint) LANGUAGE sql AS $$
    INSERT INTO staging (id, study, form, subject, payload) SELECT id, 'ST01', 't40', 'P', payload FROM given ORDER BY id;
    SELECT r.claimed, r.loaded, r.rejected, r.duplicate FROM epro_etl.run(pipeline, workers => workers) r $$;
SET epro_etl.batch_size = 150;
SELECT held();
SELECT * FROM one('t40', 0);
CREATE TABLE fast_said AS SELECT source_id::int AS id, rule, kind, severity, message FROM probe.last;
SELECT * FROM one('t40_slow', 0);
CREATE TABLE slow_said AS SELECT source_id::int AS id, rule, kind, severity, message FROM probe.last;
-- the same rows, and the same said of the others, but for which of several keys
SELECT count(*) FROM fast WHERE source_id > 0;
SELECT count(*) AS differ FROM (SELECT source_id FROM fast FULL JOIN slow USING (source_id) WHERE fast.a IS NULL OR slow.a IS NULL OR to_jsonb(fast) <> to_jsonb(slow)) d;
SELECT count(*) AS differ FROM (SELECT id, kind, severity, message FROM fast_said EXCEPT SELECT id, kind, severity, message FROM slow_said) d;
SELECT replace(rule, 'slow', 'fast') AS rule, count(*) FROM slow_said GROUP BY 1 ORDER BY 1;
SELECT count(*) AS other_key FROM fast_said f JOIN slow_said s USING (id) WHERE f.rule <> replace(s.rule, 'slow', 'fast');
-- each is somewhere once
SELECT count(*) AS wrong FROM (SELECT g.id, count(p.id) AS n FROM given g LEFT JOIN (SELECT source_id AS id FROM fast WHERE source_id > 0
    UNION ALL SELECT source_id::int FROM epro_etl.quarantine WHERE run_id = (SELECT max(run_id) - 1 FROM epro_etl.run_ledger)) p ON p.id = g.id GROUP BY g.id) x WHERE n <> 1;
-- a long sink: a response that is refused leaves none of its rows
CREATE TABLE long_one (source_id int, item text, value text, UNIQUE (source_id, item));
INSERT INTO long_one SELECT n, 'b', 'held' FROM generate_series(10, 400, 10) n;
SELECT epro_etl.create_pipeline('t40_long', 'staging'), epro_etl.add_sink('t40_long', 't40', 'long_one', shape => 'long');
SELECT * FROM one('t40_long', 0);
SELECT rule, count(*), count(DISTINCT source_id) FROM probe.last GROUP BY 1;
SELECT count(DISTINCT source_id) FROM long_one WHERE value <> 'held';
SELECT count(*) AS left_of_refused FROM long_one JOIN probe.last l ON l.source_id::int = long_one.source_id WHERE value <> 'held';
SELECT probe.close_area('t40');
