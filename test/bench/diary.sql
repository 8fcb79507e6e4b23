-- For turns.sh: a diary of 30 items, its responses, and the pipeline that loads them into one wide table.
--
-- :rows responses, about 700 bytes of jsonb each: 18 answers from 0 to 3, six from 0 to 100 with a decimal, three dates, a yes or no, a
-- code and a note; and name, e-mail and date of birth. In 27 of 1,000 one of the 18 is out of range. They are the same whenever it runs.
SET client_min_messages = warning;
SET search_path = bench;

-- chance: a number from 0 to n - 1 for an item of a response
CREATE FUNCTION chance(response bigint, item integer, n integer) RETURNS integer LANGUAGE sql IMMUTABLE
    RETURN (hashint8(response * 64 + item) & 2147483647) % n;
-- given: an expression for its answer in response r, of which item "broken" is out of range
CREATE VIEW item AS
    SELECT i AS n, 'q' || i AS name, CASE WHEN i <= 18 THEN 'integer' WHEN i <= 24 THEN 'numeric' WHEN i <= 27 THEN 'date' WHEN i = 28 THEN 'boolean' ELSE 'text' END AS type,
           CASE WHEN i <= 18 THEN format('bench.chance(r, %s, 4) + CASE WHEN broken = %1$s THEN 9 ELSE 0 END', i)
                WHEN i <= 24 THEN format('round(bench.chance(r, %s, 1001) / 10.0, 1)', i)
                WHEN i <= 27 THEN format('date ''2026-01-01'' + bench.chance(r, %s, 300)', i)
                WHEN i = 28 THEN 'bench.chance(r, 28, 2) = 1'
                WHEN i = 29 THEN '(ARRAY[''MILD'', ''MODERATE'', ''SEVERE''])[1 + bench.chance(r, 29, 3)]'
                ELSE '''note '' || md5(r::text)' END AS given,
           CASE WHEN i <= 18 THEN '{"type": "integer", "minimum": 0, "maximum": 3}'
                WHEN i <= 24 THEN '{"type": "number", "minimum": 0, "maximum": 100}'
                WHEN i <= 27 THEN '{"type": "string", "format": "date"}'
                WHEN i = 28 THEN '{"type": "boolean"}'
                WHEN i = 29 THEN '{"type": "string", "enum": ["MILD", "MODERATE", "SEVERE"]}'
                ELSE '{"type": "string", "maxLength": 200}' END::jsonb AS schema
    FROM generate_series(1, 30) i;

CREATE TABLE pool (id bigint PRIMARY KEY, study text NOT NULL, form text NOT NULL, subject text NOT NULL, visit text NOT NULL,
                   authored timestamptz NOT NULL, payload jsonb NOT NULL);
COMMENT ON TABLE pool IS 'responses of 30 items';
SELECT format('INSERT INTO bench.pool SELECT r, ''ST01'', ''DAILY'', ''S'' || lpad((r %% 5000)::text, 5, ''0''), ''D'' || r / 5000,'
              ' timestamptz ''2026-01-01 08:00+00'' + r * interval ''7 s'', jsonb_build_object(%s, ''name'', ''Łucja Müller '' || r,'
              ' ''email'', ''p'' || r || ''@example.org'', ''dob'', make_date(1940 + (r %% 50)::integer, 3, 12))'
              ' FROM (SELECT r, CASE WHEN bench.chance(r, 40, 1000) < 27 THEN 1 + bench.chance(r, 41, 18) ELSE 0 END AS broken FROM generate_series(1, %s::bigint) r) x',
              string_agg(format('%L, %s', name, given), ', ' ORDER BY n), :rows) FROM item \gexec
CREATE TABLE staging (LIKE pool INCLUDING ALL);
VACUUM ANALYZE pool;

SELECT epro_etl.register_form('DAILY', jsonb_build_object('type', 'object', 'required', (SELECT jsonb_agg(name) FROM item WHERE n <= 27),
    'properties', (SELECT jsonb_object_agg(name, schema) FROM item)
        || '{"name": {"type": "string"}, "email": {"type": "string"}, "dob": {"type": "string", "format": "date"}}')) \g /dev/null
SELECT epro_etl.set_deid('DAILY', '/name', 'remove'), epro_etl.set_deid('DAILY', '/email', 'remove'),
       epro_etl.set_deid('DAILY', '/dob', 'generalize', '{"to": "age"}') \g /dev/null
SELECT epro_etl.add_edit_check('DAILY', name || ' in the study', format('%s BETWEEN date ''2025-01-01'' AND date ''2027-01-01''', name))
    FROM item WHERE type = 'date' \g /dev/null

-- a pipeline, with a sink that may have more to it than columns and a key
CREATE FUNCTION make_pipeline(pipeline text, key text DEFAULT 'source_id bigint PRIMARY KEY', options text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE bench.%I (%s, study text, subject_key text, dob integer, %s, authored timestamptz, loaded_at timestamptz DEFAULT now()) %s',
        'sink_' || pipeline, key, (SELECT string_agg(name || ' ' || type, ', ' ORDER BY n) FROM bench.item), options);
    PERFORM epro_etl.create_pipeline(pipeline, 'bench.staging');
    PERFORM epro_etl.add_sink(pipeline, 'DAILY', ('bench.sink_' || pipeline)::regclass);
END $$;
SELECT make_pipeline('daily') \g /dev/null
INSERT INTO entrant (position, name, plain, pipeline, same, statement)
    SELECT 10 + w, CASE w WHEN 0 THEN 'inline' WHEN 1 THEN '1 worker' ELSE w || ' workers' END, '1 worker', 'daily', true,
           format('SELECT FROM epro_etl.run(''daily'', workers => %s)', w) FROM unnest('{0,1,2,4}'::integer[]) w;
