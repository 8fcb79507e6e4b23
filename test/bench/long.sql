-- For long.sh: the diary into a long sink, 30 rows a response, against COPY of the same rows from a file.
SET client_min_messages = warning;
SET search_path = bench;
SELECT epro_etl.register_form('LONG', definition) FROM epro_etl.form WHERE name = 'DAILY' \g /dev/null
SELECT epro_etl.set_deid('LONG', path, 'remove') FROM unnest('{/name,/email,/dob}'::text[]) path \g /dev/null
SELECT epro_etl.add_edit_check('LONG', name || ' in the study', format('%s BETWEEN date ''2025-01-01'' AND date ''2027-01-01''', name))
    FROM item WHERE type = 'date' \g /dev/null
SELECT epro_etl.create_pipeline('long', 'bench.staging', '{"form": {"value": "LONG"}}'),
       epro_etl.create_sink('long', 'LONG', 'bench.sink_long', 'long') \g /dev/null
CREATE VIEW response_long AS SELECT source_id, min(subject_key) AS subject_key FROM sink_long GROUP BY source_id HAVING count(*) = 30;

-- the file has what a run has loaded
INSERT INTO staging SELECT * FROM pool;
SELECT FROM epro_etl.run('long', workers => 1) \g /dev/null
SELECT account('response_long', :rows) \g /dev/null
SELECT current_setting('data_directory') || '/long.copy' AS file \gset
COPY sink_long TO :'file';
DELETE FROM entrant;
INSERT INTO entrant (position, name, plain, pipeline, whole, stages, same, statement) VALUES
    (1, 'COPY', 'COPY', 'long', NULL, false, true, format('COPY bench.sink_long FROM %L', :'file')),
    (2, '1 worker', 'COPY', 'long', 'bench.response_long', true, true, 'SELECT FROM epro_etl.run(''long'', workers => 1)');

DROP VIEW report;
CREATE VIEW report AS
    SELECT f.name AS entrant, t.loaded AS "sink rows", round(f.seconds::numeric, 3) AS "median s", round((t.loaded / f.seconds)::numeric) AS "rows/s",
           round(1 / times(f.name, 'COPY', f.rows), 2) AS "of COPY", round((f.wal * f.rows / t.loaded)::numeric) AS "WAL bytes/row"
    FROM figure f JOIN turn t ON t.name = f.name AND t.round = 1 ORDER BY f.position;
