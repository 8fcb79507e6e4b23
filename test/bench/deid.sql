-- The entrants of deid.sh, instead of those of forms.sql. The edit checks over the dates are left out: a profile that
-- turns dates into years refuses them.
SET client_min_messages = warning;
SET search_path = bench;
TRUNCATE entrant;
INSERT INTO entrant (position, name, plain, pipeline, before) VALUES (1, 'no rule', 'no rule', 'none', 'SELECT 1'),
    (2, 'name, email, age', 'no rule', 'some', 'SELECT 1'),
    (3, 'safe_harbor, first run', 'no rule', 'safe', 'TRUNCATE epro_etl.pseudonym'), (4, 'safe_harbor', 'no rule', 'safe', 'SELECT 1'),
    (5, 'limited_dataset', 'no rule', 'limited', 'SELECT 1'), (6, 'gdpr_pseudonymous', 'no rule', 'gdpr', 'SELECT 1');
UPDATE entrant SET statement = format('SELECT FROM epro_etl.run(%L, workers => 1)', pipeline);
DO $$
DECLARE
    e record;
BEGIN
    FOR e IN SELECT * FROM (VALUES ('none', NULL), ('some', NULL), ('safe', 'safe_harbor'), ('limited', 'limited_dataset'),
                                   ('gdpr', 'gdpr_pseudonymous')) AS v (name, profile) LOOP
        PERFORM epro_etl.register_form(e.name, json_form());
        IF e.profile IS NOT NULL THEN
            PERFORM epro_etl.apply_deid_profile(e.name, e.profile, '{"/name": "names", "/email": "email"}');
        ELSIF e.name = 'some' THEN
            PERFORM epro_etl.set_deid(e.name, '/name', 'remove'), epro_etl.set_deid(e.name, '/email', 'remove'),
                    epro_etl.set_deid(e.name, '/dob', 'generalize', '{"to": "age"}');
        END IF;
        PERFORM epro_etl.create_pipeline(e.name, 'bench.staging', jsonb_build_object('form', jsonb_build_object('value', e.name)));
        PERFORM epro_etl.create_sink(e.name, e.name, 'bench.sink_' || e.name);
    END LOOP;
END $$;
