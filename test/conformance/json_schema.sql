-- Judges every case of the JSON Schema test suite by the engine itself: a form
-- a schema, whose one item "v" has it; a response a case; one run. The files are
-- in the table suite (name, content) already; see json_schema.sh.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

-- What cannot come out as the suite has it, and why. A NULL means all of them.
CREATE TABLE listed (file text, "group" text, test text, reason text);
INSERT INTO listed VALUES
    ('const.json', 'nul characters in strings', NULL, 'the schema has a NUL escape, which jsonb cannot hold'),
    ('defs.json', 'validate definition against metaschema', NULL, 'needs a remote document, the metaschema'),
    ('enum.json', 'nul characters in strings', NULL, 'the schema has a NUL escape, which jsonb cannot hold'),
    ('ref.json', 'remote ref, containing refs itself', NULL, 'needs a remote document, the metaschema');

CREATE TABLE schemas AS
    SELECT (row_number() OVER (ORDER BY s.name, o))::int AS n, s.name AS file, g ->> 'description' AS "group", replace((g -> 'schema')::text, '\uE000', '\u0000') AS schema, g -> 'tests' AS tests
    FROM suite s, json_array_elements(s.content) WITH ORDINALITY AS u (g, o);
CREATE TABLE cases AS
    SELECT (row_number() OVER (ORDER BY n, o))::int AS id, n, file, "group", t ->> 'description' AS test,
        '{"v": ' || replace((t -> 'data')::text, '\uE000', '\u0000') || '}' AS payload, (t ->> 'valid')::boolean AS valid
    FROM schemas, json_array_elements(tests) WITH ORDINALITY AS u (t, o);

CREATE TABLE staging (id int PRIMARY KEY, form text, subject text, payload json);
CREATE TABLE landed (source_id int);
SELECT epro_etl.create_pipeline('suite', 'staging', '{"study": {"value": "S"}}');

-- The suite takes "format" for an annotation, but for optional/format.
CREATE TABLE refused (n int, reason text);
DO $$
DECLARE
    s record;
    schema jsonb;
BEGIN
    FOR s IN SELECT * FROM schemas ORDER BY n LOOP
        BEGIN
            schema := s.schema::jsonb;
            -- a resource of its own, so that "#" is the case's schema and not the form's
            IF jsonb_typeof(schema) = 'object' AND NOT schema ? '$id' THEN
                schema := schema || jsonb_build_object('$id', 'urn:case:' || s.n);
            END IF;
            PERFORM epro_etl.register_form('case ' || s.n, jsonb_build_object('properties', jsonb_build_object('v', schema),
                'x-formats', CASE WHEN s.file LIKE 'optional/format/%' THEN 'assert' ELSE 'annotate' END));
            PERFORM epro_etl.add_sink('suite', 'case ' || s.n, 'landed');
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO refused VALUES (s.n, SQLSTATE || ' ' || SQLERRM);
        END;
    END LOOP;
END $$;

INSERT INTO staging SELECT id, 'case ' || n, 'S-1', payload::json FROM cases WHERE n NOT IN (SELECT n FROM refused);
SELECT status AS run FROM epro_etl.run('suite', workers => 0);

CREATE TABLE verdicts AS
    SELECT c.*, r.reason AS refused, c.id IN (SELECT source_id FROM landed) AS found_valid, l.reason AS listed,
        c.id::text IN (SELECT source_id FROM epro_etl.finding WHERE kind IN ('not evaluated', 'form', 'conversion', 'error')) AS odd
    FROM cases c LEFT JOIN refused r USING (n)
    LEFT JOIN listed l ON l.file = c.file AND coalesce(l."group" = c."group", true) AND coalesce(l.test = c.test, true);
ALTER TABLE verdicts ADD agrees boolean;
UPDATE verdicts SET agrees = refused IS NULL AND found_valid = valid AND NOT odd;

SELECT 'listed  ' || file || ': ' || "group" || ': ' || test || ' (' || listed || ')'
    FROM verdicts WHERE listed IS NOT NULL AND NOT agrees ORDER BY id;
SELECT 'not ok  ' || file || ': ' || "group" || ': ' || test || CASE
        WHEN listed IS NOT NULL THEN ': listed, but it agrees'
        WHEN refused IS NOT NULL THEN ': ' || refused
        WHEN odd THEN ': ' || (SELECT string_agg(f.kind || ' ' || f.message, '; ') FROM epro_etl.finding f WHERE f.source_id = id::text)
        ELSE ': found ' || CASE WHEN found_valid THEN 'valid' ELSE 'invalid' END END
    FROM verdicts WHERE agrees = (listed IS NOT NULL) ORDER BY id;
SELECT file || ': ' || count(*) FILTER (WHERE agrees AND listed IS NULL) || ' passed, '
        || count(*) FILTER (WHERE agrees = (listed IS NOT NULL)) || ' failed'
        || coalesce(', ' || nullif(count(*) FILTER (WHERE NOT agrees AND listed IS NOT NULL), 0) || ' listed', '')
    FROM verdicts GROUP BY file ORDER BY file;
SELECT 'json-schema: ' || count(*) FILTER (WHERE agrees AND listed IS NULL) || ' passed, '
        || count(*) FILTER (WHERE agrees = (listed IS NOT NULL)) || ' failed, '
        || count(*) FILTER (WHERE NOT agrees AND listed IS NOT NULL) || ' listed by name'
    FROM verdicts;
