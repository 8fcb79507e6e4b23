-- The entrants of bench.sh, instead of those of forms.sql: the whole job by the best set-based statement that we know, the
-- bare move of ready-made rows as the limit, and this extension.
SET client_min_messages = warning;
SET search_path = bench_forms;
CREATE VIEW item AS
    SELECT 'q' || i AS name, CASE WHEN i <= 18 THEN 'integer' WHEN i <= 24 THEN 'numeric' WHEN i <= 27 THEN 'date' WHEN i = 28 THEN 'boolean' ELSE 'text' END AS type, i AS n,
           CASE WHEN i <= 27 THEN format('CASE WHEN x.q%1$s IS NULL THEN ''q%1$s required'' WHEN x.q%1$s !~ %2$L THEN ''q%1$s type'' WHEN x.q%1$s::%3$s NOT BETWEEN %4$s THEN ''q%1$s range'' END', i,
                    CASE WHEN i <= 18 THEN '^-?\d{1,9}$' WHEN i <= 24 THEN '^-?\d+(\.\d+)?$' ELSE '^\d{4}-\d\d-\d\d$' END,
                    CASE WHEN i <= 18 THEN 'integer' WHEN i <= 24 THEN 'numeric' ELSE 'date' END,
                    CASE WHEN i <= 18 THEN '0 AND 3' WHEN i <= 24 THEN '0 AND 100' ELSE '''2025-01-01'' AND ''2027-01-01''' END)
                WHEN i = 28 THEN 'CASE WHEN x.q28 NOT IN (''true'', ''false'') THEN ''q28 type'' END'
                WHEN i = 29 THEN 'CASE WHEN x.q29 NOT IN (''NONE'', ''MILD'', ''MODERATE'', ''SEVERE'') THEN ''q29 code'' END'
                ELSE 'CASE WHEN length(x.q30) > 200 THEN ''q30 length'' END' END AS wrong
    FROM generate_series(1, 30) i
    UNION ALL
    SELECT 'f' || f, 'integer', 100 + f, format('CASE WHEN x.f%1$s !~ ''^-?\d{1,9}$'' THEN ''f%1$s type'' WHEN x.f%1$s::integer NOT BETWEEN 0 AND 7 THEN ''f%1$s range'' END', f)
    FROM generate_series(1, 20) f;

CREATE FUNCTION peer() RETURNS text LANGUAGE sql AS $$
    SELECT format('WITH moved AS (DELETE FROM bench_forms.staging RETURNING *), judged AS MATERIALIZED ('
        'SELECT m.id, m.study, encode(sha256((''key'' || m.subject)::bytea), ''hex'') AS subject_key, m.authored, m.payload, x.*, array_remove(ARRAY[%s], NULL) AS wrong'
        ' FROM moved m, jsonb_to_record(m.payload) AS x (dob text, %s)),'
        ' bad AS (INSERT INTO bench_forms.rejected SELECT id, subject_key, payload - ''{name,email,dob}''::text[], wrong FROM judged WHERE wrong <> ''{}'')'
        ' INSERT INTO bench_forms.sink_json (source_id, study, subject_key, dob, authored, %s) SELECT id, study, subject_key, extract(year FROM age(authored, dob::date))::integer, authored, %s FROM judged WHERE wrong = ''{}''',
        string_agg(wrong, ', ' ORDER BY n), string_agg(name || ' text', ', ' ORDER BY n), string_agg(name, ', ' ORDER BY n), string_agg(name || '::' || type, ', ' ORDER BY n)) FROM item $$;

-- what is left to do when everything is done
CREATE UNLOGGED TABLE ready (LIKE sink_json);
DO $$
BEGIN
    EXECUTE (SELECT format('INSERT INTO bench_forms.ready (source_id, study, subject_key, dob, authored, %s) SELECT id, study, encode(sha256((''key'' || subject)::bytea), ''hex''),'
        ' extract(year FROM age(authored, (payload ->> ''dob'')::date)), authored, %s FROM bench_forms.pool WHERE payload ->> ''q5'' <> ''9''',
        string_agg(name, ', ' ORDER BY n), string_agg(format('(payload ->> %L)::%s', name, type), ', ' ORDER BY n)) FROM bench_forms.item);
END $$;
VACUUM ANALYZE ready;

TRUNCATE entrant;
INSERT INTO entrant (position, name, plain, pipeline, statement, judges) VALUES
    (1, 'limit', 'limit', 'json', 'WITH move AS (INSERT INTO bench_forms.sink_json SELECT * FROM bench_forms.ready) DELETE FROM bench_forms.staging', false),
    (2, 'peer_sql', 'peer_sql', 'json', peer(), true),
    (3, 'inline', 'peer_sql', 'json', 'SELECT FROM epro_etl.run(''json'', workers => 0)', true),
    (4, '1 worker', 'peer_sql', 'json', 'SELECT FROM epro_etl.run(''json'', workers => 1)', true),
    (5, '2 workers', 'peer_sql', 'json', 'SELECT FROM epro_etl.run(''json'', workers => 2)', true);
-- the sink holds some of the keys already: one in 20, or all
INSERT INTO entrant (position, name, plain, pipeline, before, statement, alike, held) SELECT v.position, v.name, '1 worker', 'json',
    format('INSERT INTO bench_forms.sink_json (source_id) SELECT id FROM bench_forms.pool WHERE id %% %s = 0', v.every),
    'SELECT FROM epro_etl.run(''json'', workers => 1)', false, (SELECT count(*) FROM pool WHERE id % v.every = 0)
    FROM (VALUES (6, '1 worker, 5 % duplicates', 20), (7, '1 worker, 100 % duplicates', 1)) AS v (position, name, every);
