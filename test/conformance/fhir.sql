-- One staging table, one pipeline, a form a case: see fhir.sh.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
CREATE EXTENSION epro_etl;
CREATE TABLE given (n serial PRIMARY KEY, case_of jsonb);
\copy given (case_of) FROM PSTDIN WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')
CREATE TABLE staging (id int, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
SELECT epro_etl.create_pipeline('fhir', 'staging') \gset
CREATE TABLE verdict (n int PRIMARY KEY, refused text);

-- a Questionnaire that is refused judges no response: none of its responses passes
DO $$
DECLARE
    g record;
BEGIN
    FOR g IN SELECT n, case_of FROM given ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.register_form('case ' || g.n, jsonb_build_object('resourceType', 'Bundle', 'type', 'collection', 'entry',
                (SELECT jsonb_agg(jsonb_build_object('resource', r)) FROM
                    (SELECT q FROM jsonb_array_elements(g.case_of -> 'questionnaires') q UNION ALL
                     SELECT o FROM jsonb_array_elements(g.case_of -> 'other') o WHERE o ->> 'resourceType' IN ('ValueSet', 'CodeSystem')) u (r))));
            PERFORM epro_etl.create_sink('fhir', 'case ' || g.n, format('wide_%s', g.n));
            PERFORM epro_etl.create_sink('fhir', 'case ' || g.n, format('long_%s', g.n), 'long');
            INSERT INTO staging VALUES (g.n, 'ST01', 'case ' || g.n, 'P-1', NULL, '2026-03-01', g.case_of -> 'response');
            INSERT INTO verdict VALUES (g.n, NULL);
        EXCEPTION WHEN SQLSTATE 'EP003' THEN
            INSERT INTO verdict VALUES (g.n, SQLERRM);
        END;
    END LOOP;
END $$;
SELECT run_id FROM epro_etl.run('fhir', workers => 0) \gset

-- name, what was expected, what came out, and why
\pset format unaligned
\pset tuples_only on
\pset fieldsep '\t'
SELECT g.case_of ->> 'name',
       CASE WHEN e.expected IS NULL THEN 'nothing' WHEN (e.expected ->> 'errors')::int > 0 THEN 'error' ELSE 'no error' END,
       CASE WHEN v.refused IS NOT NULL OR EXISTS (SELECT FROM epro_etl.finding f WHERE f.run_id = :run_id AND f.source_id = g.n::text AND f.severity = 'error')
            THEN 'error' ELSE 'no error' END,
       coalesce(v.refused, (SELECT string_agg(format('%s %s: %s', f.location, f.rule, f.kind), ', ' ORDER BY f.location, f.rule)
                            FROM epro_etl.finding f WHERE f.run_id = :run_id AND f.source_id = g.n::text), '-')
FROM given g JOIN verdict v USING (n),
     LATERAL (SELECT coalesce(g.case_of #> '{expected,brianpos}', g.case_of #> '{expected,java}') AS expected) e
ORDER BY g.n;
