-- The race's entrant: forms, rules and sinks for the tables of bench.* (made
-- by the workload).  Run once; the runs themselves are one call of run().
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS epro_etl;
SELECT epro_etl.register_form('DAILY', jsonb_build_object(
    'type', 'object',
    'properties',
        (SELECT jsonb_object_agg('q' || g, '{"type": "integer", "minimum": 0, "maximum": 3}'::jsonb) FROM generate_series(1, 18) g)
     || (SELECT jsonb_object_agg('q' || g, '{"type": "number", "minimum": 0, "maximum": 100}'::jsonb) FROM generate_series(19, 24) g)
     || (SELECT jsonb_object_agg('q' || g, '{"type": "string", "format": "date"}'::jsonb) FROM generate_series(25, 27) g)
     || '{"q28": {"type": "boolean"}, "q29": {"type": "string", "enum": ["MILD", "MODERATE", "SEVERE"]},
          "q30": {"type": "string", "maxLength": 200},
          "name": {"type": "string"}, "email": {"type": "string"}, "dob": {"type": "string", "format": "date"}}',
    'required', (SELECT jsonb_agg('q' || g) FROM generate_series(1, 27) g))) \g /dev/null
SELECT epro_etl.set_deid('DAILY', '/name', 'remove'), epro_etl.set_deid('DAILY', '/email', 'remove'),
       epro_etl.set_deid('DAILY', '/dob', 'generalize', '{"to": "age"}') \g /dev/null
SELECT epro_etl.add_edit_check('DAILY', 'q' || g || ' in study', format('q%s BETWEEN date ''2025-01-01'' AND date ''2027-01-01''', g))
    FROM generate_series(25, 27) g \g /dev/null
DELETE FROM epro_etl.pipeline WHERE name = 'daily';
SELECT epro_etl.create_pipeline('daily', 'bench.staging') \g /dev/null
SELECT epro_etl.add_sink('daily', 'DAILY', 'bench.clinical', columns => '{"response_id": "source_id", "age": "dob"}') \g /dev/null
