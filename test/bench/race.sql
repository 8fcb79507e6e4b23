-- More entrants over diary.sql: the whole job by the best set-based statement that we know, the bare move of ready-made rows as
-- the limit, sinks that a row has to take the general road to, and keys that the sink holds already.
SET client_min_messages = warning;
SET search_path = bench;

CREATE FUNCTION wrong(n integer, name text, type text) RETURNS text LANGUAGE sql RETURN CASE
    WHEN n <= 27 THEN format('CASE WHEN x.%1$s IS NULL THEN ''%1$s required'' WHEN x.%1$s !~ %2$L THEN ''%1$s type'' WHEN x.%1$s::%3$s NOT BETWEEN %4$s THEN ''%1$s range'' END', name,
        CASE type WHEN 'integer' THEN '^-?\d{1,9}$' WHEN 'numeric' THEN '^-?\d+(\.\d+)?$' ELSE '^\d{4}-\d\d-\d\d$' END, type,
        CASE type WHEN 'integer' THEN '0 AND 3' WHEN 'numeric' THEN '0 AND 100' ELSE '''2025-01-01'' AND ''2027-01-01''' END)
    WHEN n = 28 THEN 'CASE WHEN x.q28 NOT IN (''true'', ''false'') THEN ''q28 type'' END'
    WHEN n = 29 THEN 'CASE WHEN x.q29 NOT IN (''MILD'', ''MODERATE'', ''SEVERE'') THEN ''q29 code'' END'
    ELSE 'CASE WHEN length(x.q30) > 200 THEN ''q30 length'' END' END;
CREATE FUNCTION peer() RETURNS text LANGUAGE sql AS $$
    SELECT format('WITH moved AS (DELETE FROM bench.staging RETURNING *), judged AS MATERIALIZED ('
        'SELECT m.id, m.study, encode(sha256((''key'' || m.subject)::bytea), ''hex'') AS subject_key, m.authored, m.payload, x.*, array_remove(ARRAY[%s], NULL) AS wrong'
        ' FROM moved m, jsonb_to_record(m.payload) AS x (dob text, %s)),'
        ' bad AS (INSERT INTO bench.rejected SELECT id, study, subject_key, payload - ''{name,email,dob}''::text[], wrong FROM judged WHERE wrong <> ''{}'')'
        ' INSERT INTO bench.sink_daily (source_id, study, subject_key, dob, authored, %s) SELECT id, study, subject_key, extract(year FROM age(authored, dob::date))::integer, authored, %s FROM judged WHERE wrong = ''{}''',
        string_agg(wrong(n, name, type), ', ' ORDER BY n), string_agg(name || ' text', ', ' ORDER BY n), string_agg(name, ', ' ORDER BY n),
        string_agg(name || '::' || type, ', ' ORDER BY n)) FROM bench.item $$;

-- what is left to do when everything is done; the broken ones are among them, so that a move has as many rows to write
CREATE UNLOGGED TABLE ready (LIKE sink_daily INCLUDING INDEXES);
ALTER TABLE ready DROP COLUMN loaded_at;
SELECT format('INSERT INTO bench.ready (source_id, study, subject_key, dob, authored, %s) SELECT id, study, encode(sha256((''key'' || subject)::bytea), ''hex''),'
    ' extract(year FROM age(authored, (payload ->> ''dob'')::date)), authored, %s FROM bench.pool ORDER BY id',
    string_agg(name, ', ' ORDER BY n), string_agg(format('(payload ->> %L)::%s', name, type), ', ' ORDER BY n)) FROM item \gexec
VACUUM ANALYZE ready;
INSERT INTO entrant (position, name, plain, pipeline, statement, alike, same) VALUES
    (1, 'limit', '1 worker', 'daily', 'BEGIN; INSERT INTO bench.sink_daily SELECT * FROM bench.ready WHERE source_id <= :rows; DELETE FROM bench.staging; COMMIT', false, false),
    (2, 'peer_sql', '1 worker', 'daily', peer(), true, true);

CREATE TABLE study (study text PRIMARY KEY);
INSERT INTO study VALUES ('ST01');
CREATE FUNCTION as_it_is() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT make_pipeline('trigger'), make_pipeline('foreign'), make_pipeline('secured'),
       make_pipeline('partitioned', options => 'PARTITION BY HASH (source_id)') \g /dev/null
CREATE TRIGGER as_it_is BEFORE INSERT ON sink_trigger FOR EACH ROW EXECUTE FUNCTION as_it_is();
ALTER TABLE sink_foreign ADD FOREIGN KEY (study) REFERENCES study;
SELECT format('CREATE TABLE bench.sink_partitioned_%s PARTITION OF bench.sink_partitioned FOR VALUES WITH (MODULUS 4, REMAINDER %1$s)', i)
    FROM generate_series(0, 3) i \gexec
CREATE ROLE bench_loader;
GRANT USAGE ON SCHEMA bench, epro_etl TO bench_loader;
GRANT EXECUTE ON FUNCTION epro_etl.run TO bench_loader;
GRANT SELECT, DELETE ON staging TO bench_loader;
GRANT INSERT, SELECT ON sink_secured TO bench_loader;
ALTER TABLE sink_secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY its_study ON sink_secured TO bench_loader USING (study = 'ST01');
INSERT INTO entrant (position, name, plain, pipeline, statement, same)
    SELECT position, '1 worker, sink ' || name, '1 worker', pipeline, format(statement, pipeline), true
    FROM (VALUES (21, 'with a trigger', 'trigger', 'SELECT FROM epro_etl.run(%L, workers => 1)'),
                 (22, 'with a foreign key', 'foreign', 'SELECT FROM epro_etl.run(%L, workers => 1)'),
                 (23, 'with row security', 'secured', 'SET ROLE bench_loader; SELECT FROM epro_etl.run(%L, workers => 1); RESET ROLE'),
                 (24, 'partitioned', 'partitioned', 'SELECT FROM epro_etl.run(%L, workers => 1)')) AS v (position, name, pipeline, statement);

-- the sink holds some of the keys already: one in 20, or all
INSERT INTO entrant (position, name, plain, pipeline, before, statement, alike)
    SELECT position, name, '1 worker', 'daily', format('INSERT INTO bench.sink_daily (source_id) SELECT id FROM bench.pool WHERE id <= :rows AND id %% %s = 0', every),
           'SELECT FROM epro_etl.run(''daily'', workers => 1)', false
    FROM (VALUES (31, '1 worker, 5 % duplicates', 20), (32, '1 worker, 100 % duplicates', 1)) AS v (position, name, every);

DROP VIEW report;
CREATE VIEW report AS
    SELECT name AS entrant, rows, round(seconds::numeric, 3) AS "median s", round(rows_s) AS "rows/s", round(1 / times(name, 'peer_sql', rows), 2) AS "x peer_sql",
           round(1 / times(name, 'limit', rows), 2) AS "of limit", round(1 / times(name, '1 worker', rows), 2) AS "of 1 worker",
           round(wal::numeric) AS "WAL bytes/row", round((wal / first_value(wal) OVER (PARTITION BY rows ORDER BY position))::numeric, 2) AS "x limit's"
    FROM figure ORDER BY rows, position;
