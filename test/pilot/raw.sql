-- The raw file as it is, and the functions that print the verdicts.
\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE EXTENSION epro_etl;
CREATE SCHEMA pilot;
SET search_path = pilot;

CREATE TABLE raw (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    doc jsonb NOT NULL
);

-- A line a row: neither delimiter nor quote is a character that JSON can hold.
CREATE TEMP TABLE line (n bigint GENERATED ALWAYS AS IDENTITY, json text NOT NULL);
\copy line (json) FROM PROGRAM 'zcat "$PILOT_DATA"' WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')
INSERT INTO raw (doc) SELECT json::jsonb FROM line ORDER BY n;

-- What was collected, an answer a row; text is NULL for a JSON null.
CREATE TABLE answer AS
SELECT id, doc ->> 'instrument' AS form, key AS item, doc -> 'answers' ->> key AS text
FROM raw, jsonb_object_keys(doc -> 'answers') AS key;
CREATE INDEX ON answer (id);
ANALYZE raw, answer;

-- One verdict. A condition that is NULL has not held.
CREATE FUNCTION ok(holds boolean, name text, detail text DEFAULT NULL) RETURNS text
    LANGUAGE sql
RETURN CASE WHEN holds THEN 'ok ' ELSE 'not ok ' END || name || coalesce(': ' || detail, '');

-- Do two queries have the same rows, each as often, and any at all?
CREATE FUNCTION same(name text, have text, want text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    had bigint;
    wanted bigint;
    extra bigint;
    missing bigint;
    shown text;
BEGIN
    EXECUTE format(
        'WITH have AS MATERIALIZED (%s), want AS MATERIALIZED (%s),'
        ' extra AS MATERIALIZED (TABLE have EXCEPT ALL TABLE want),'
        ' missing AS MATERIALIZED (TABLE want EXCEPT ALL TABLE have),'
        ' shown AS ((SELECT ''      there, not expected: '' || extra::text AS line FROM extra ORDER BY 1 LIMIT 5)'
        '           UNION ALL'
        '           (SELECT ''      expected, not there: '' || missing::text FROM missing ORDER BY 1 LIMIT 5))'
        ' SELECT (SELECT count(*) FROM have), (SELECT count(*) FROM want), (SELECT count(*) FROM extra),'
        '        (SELECT count(*) FROM missing), (SELECT string_agg(line, E''\n'') FROM shown)', have, want)
        INTO had, wanted, extra, missing, shown;
    IF extra = 0 AND missing = 0 THEN
        RETURN ok(wanted > 0, name, had || ' rows');
    END IF;
    RETURN ok(false, name, format(E'%s rows, expected %s\n%s', had, wanted, shown));
END $$;

SELECT ok(count(*) = 5071 AND count(DISTINCT doc ->> 'subject') = 254
          AND bool_and(doc ->> 'subject' ~ '^01-7[0-9]{2}-[0-9]{4}$'), 'the file is the one described',
          count(*) || ' forms of ' || count(DISTINCT doc ->> 'subject') || ' subjects')
FROM raw;
