-- Batch thresholds: what holds a whole run, what does not count, and that a held
-- run leaves everything where it was. And a unit converted into an item.
\set SHOW_CONTEXT never
SELECT probe.open_area('t34');
SELECT epro_etl.register_form('t34', '{"required": ["pulse"], "properties": {"pulse": {"type": "integer", "maximum": 300},
    "note": {"type": "string"}, "site": {"type": "string"}, "meds": {"type": "array", "minItems": 1}}}');
SELECT epro_etl.register_form('t34_other', '{"properties": {"pulse": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t34', 't34', 't34.loaded');
SELECT epro_etl.create_sink('t34', 't34_other', 't34.other');
SELECT epro_etl.add_edit_check('t34', 'usual', 'pulse < 100', 'information', message => 'is not usual');
CREATE TABLE site (site text, factor int);
INSERT INTO site VALUES ('S1', 1), ('S0', 0);
SELECT epro_etl.add_lookup('t34', 'known', 'EXISTS (SELECT FROM t34.site t WHERE t.site = response.site)', 'warning', condition => 'site IS NOT NULL');
-- what was put in, and where it is now: no row is right
CREATE TABLE put_in (id int PRIMARY KEY);
CREATE VIEW amiss AS
    WITH place AS (SELECT id, 'staging' AS place FROM staging UNION ALL SELECT source_id::int, 'loaded' FROM loaded UNION ALL SELECT source_id::int, 'other' FROM other
                   UNION ALL SELECT source_id::int, 'quarantine' FROM epro_etl.quarantine WHERE pipeline = 't34')
    SELECT id, count(place) AS times, string_agg(place, ', ') AS places FROM put_in FULL JOIN place USING (id) GROUP BY id HAVING count(*) <> 1 OR count(place) <> 1;
-- n responses, of which so many break a rule; everything as it was before the first run
CREATE FUNCTION stage(n int, broken int, bad jsonb, good jsonb DEFAULT '{"pulse": 70}', form text DEFAULT 't34') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE staging, loaded, other, put_in;
    DELETE FROM epro_etl.quarantine WHERE pipeline = 't34';
    PERFORM probe.put(form, VARIADIC array_agg(CASE WHEN i <= broken THEN bad ELSE good END ORDER BY i)) FROM generate_series(1, n) i;
    INSERT INTO put_in SELECT id FROM staging;
END $$;
CREATE VIEW places AS SELECT (SELECT count(*) FROM staging) AS staged, (SELECT count(*) FROM loaded) AS loaded, (SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 't34') AS quarantined;
CREATE VIEW ledger AS SELECT status, sqlstate, message, claimed, chunks, remaining, (SELECT count(*) FROM epro_etl.finding f WHERE f.run_id = h.run_id) AS findings
    FROM epro_etl.run_history h ORDER BY run_id DESC LIMIT 1;

-- refused where it is declared
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual"}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": 1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": -0.1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1, "minimum": 0}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1, "per": "site"}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1}', 'warning');
SELECT epro_etl.add_check('t34', '', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "unusual", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "/pulse/minimum", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "/properties/pulse/maximum", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34', 'x', 'batch_threshold', '{"rule": "/meds/maxItems", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34', 'usual', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1}');
SELECT epro_etl.add_check('t34_none', 'x', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.1}');
SELECT count(*) FROM epro_etl.batch_threshold WHERE form = 't34';

-- an edit check of severity information: none is rejected, and the run is held
SELECT epro_etl.add_check('t34', 'too many unusual', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.29}');
SELECT form, check_name, rule, max_ratio, minimum, removed_at FROM epro_etl.batch_threshold WHERE form = 't34';
SELECT stage(100, 30, '{"pulse": 150}');
SELECT * FROM epro_etl.run('t34', workers => 0);
TABLE places;
TABLE amiss;
SELECT count(*) AS entries_inline FROM epro_etl.run_ledger WHERE pipeline = 't34';
-- with workers the ledger has it
\set VERBOSITY sqlstate
SELECT * FROM epro_etl.run('t34', workers => 2);
\set VERBOSITY default
TABLE ledger;
SELECT t.check_name, t.rule FROM epro_etl.run_history h, jsonb_array_elements_text(h.versions -> 't34' -> 'batch_thresholds') i
    JOIN epro_etl.batch_threshold t ON t.threshold_id = i::bigint WHERE h.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger);
TABLE places;
TABLE amiss;
SELECT epro_etl.start_run('t34', workers => 1) AS started \gset
\set VERBOSITY sqlstate
SELECT * FROM epro_etl.wait_run(:started);
CALL epro_etl.run_job('t34', workers => 1);
\set VERBOSITY default
-- a dry run tells, and lists what was found
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t34', workers => 0, dry_run => true);
TABLE ledger;
SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('t34', workers => 2, dry_run => true);
SELECT status, sqlstate, message, claimed, remaining, findings FROM ledger;
TABLE amiss;
-- the share itself may be: 29 of 100 is no more than 0.29
SELECT stage(100, 29, '{"pulse": 150}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0);
TABLE places;
TABLE amiss;
SELECT stage(100, 29, '{"pulse": 150}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 2);
TABLE ledger;
TABLE places;
TABLE amiss;
-- what could not be evaluated does not count, and neither do other rules, or other forms' responses
SELECT stage(100, 90, '{}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(100, 90, '{"pulse": 50, "note": 7}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(100, 90, '{"pulse": 150}', form => 't34_other');
SELECT probe.put('t34', '{"pulse": 70}', '{"pulse": 150}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
-- with a minimum, few responses say nothing; it replaces the one before
SELECT epro_etl.add_check('t34', 'too many unusual', 'batch_threshold', '{"rule": "usual", "max_ratio": 0.29, "minimum": 3}');
SELECT max_ratio, minimum, removed_at IS NULL AS current FROM epro_etl.batch_threshold WHERE form = 't34' ORDER BY threshold_id;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT probe.put('t34', '{"pulse": 70}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
-- an error that the rule raises counts: the response is rejected for it
SELECT epro_etl.add_edit_check('t34', 'usual', '1000 / (pulse - 150) > -20');
SELECT stage(10, 3, '{"pulse": 150}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT epro_etl.remove_edit_check('t34', 'too many unusual');

-- a keyword, by where its findings are; one that the walker judges; a lookup
SELECT epro_etl.add_check('t34', 'too high', 'batch_threshold', '{"rule": "/pulse/maximum", "max_ratio": 0.2}');
SELECT epro_etl.add_check('t34', 'missing', 'batch_threshold', '{"rule": "/pulse/required", "max_ratio": 0.2}');
SELECT epro_etl.add_check('t34', 'no medication', 'batch_threshold', '{"rule": "/meds/minItems", "max_ratio": 0.2}');
SELECT epro_etl.add_check('t34', 'unknown sites', 'batch_threshold', '{"rule": "known", "max_ratio": 0.2}');
SELECT stage(10, 3, '{"pulse": 301}');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(10, 3, '{}');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(10, 3, '{"pulse": 70, "meds": []}');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(10, 3, '{"pulse": 70, "site": "S9"}', '{"pulse": 70, "site": "S1"}');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT * FROM epro_etl.run('t34', workers => 0);
TABLE amiss;
SELECT stage(10, 2, '{"pulse": 301, "meds": [], "site": "S9"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0);
TABLE amiss;
-- a reference that gives no answer: what waits for it is not counted, and stays
CREATE FUNCTION slow(seconds int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(seconds); RETURN seconds; END $$;
SELECT epro_etl.add_lookup('t34', 'known', 'EXISTS (SELECT FROM t34.site t WHERE t.site = response.site AND t34.slow(t.factor) >= 0)', 'warning',
    condition => 'site IS NOT NULL', timeout => '50 ms');
SELECT epro_etl.set_severity('t34', '/properties/pulse/maximum', 'warning');
SELECT stage(10, 3, '{"pulse": 301, "site": "S1"}');
SELECT status, claimed, loaded, rejected, deferred FROM epro_etl.run('t34', workers => 0);
SELECT staged, loaded FROM places;
TABLE amiss;
SELECT stage(10, 3, '{"pulse": 301, "site": "S1"}');
UPDATE staging SET payload = '{"pulse": 301}' WHERE id IN (SELECT id FROM staging ORDER BY id DESC LIMIT 2);
SELECT status, claimed, loaded, rejected, deferred FROM epro_etl.run('t34', workers => 0);
TABLE amiss;
SELECT epro_etl.set_severity('t34', '/properties/pulse/maximum', NULL);
SELECT epro_etl.add_lookup('t34', 'known', 'EXISTS (SELECT FROM t34.site t WHERE t.site = response.site AND t34.slow(t.factor) >= 0)', 'warning',
    condition => 'site IS NOT NULL', timeout => '50 ms', on_timeout => 'reject');
SELECT stage(10, 3, '{"pulse": 70, "site": "S1"}');
SELECT status, claimed, loaded, rejected, deferred FROM epro_etl.run('t34', workers => 0);
TABLE amiss;
-- more findings than are listed: the rule's may be among the rest
SELECT epro_etl.register_form('t34_many', (SELECT jsonb_build_object('properties', jsonb_object_agg('q' || n, '{"type": "integer"}'::jsonb)) FROM generate_series(1, 120) n));
SELECT epro_etl.create_sink('t34', 't34_many', 't34.many');
SELECT epro_etl.add_check('t34_many', 'a', 'batch_threshold', '{"rule": "/q120/type", "max_ratio": 0}');
SELECT stage(1, 1, (SELECT jsonb_object_agg('q' || n, 'x') FROM generate_series(1, 119) n), form => 't34_many');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
SELECT stage(1, 1, (SELECT jsonb_object_agg('q' || n, 'x') FROM generate_series(1, 90) n), form => 't34_many');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);
-- a form's threshold goes by the questionnaire's item
SELECT epro_etl.register_form('t34_fhir', '{"resourceType": "Questionnaire", "url": "urn:t34", "status": "active", "version": "1", "item": [{"linkId": "q", "type": "string", "maxLength": 3}]}');
SELECT epro_etl.create_sink('t34', 't34_fhir', 't34.fhir');
SELECT epro_etl.add_check('t34_fhir', 'a', 'batch_threshold', '{"rule": "/r/maxLength", "max_ratio": 0}');
SELECT epro_etl.add_check('t34_fhir', 'a', 'batch_threshold', '{"rule": "/q/maxLength", "max_ratio": 0}');
SELECT stage(1, 1, '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:t34", "item": [{"linkId": "q", "answer": [{"valueString": "long"}]}]}', form => 't34_fhir');
SELECT status FROM epro_etl.run('t34', workers => 0, dry_run => true);

-- a rule that a threshold counts stays; a new version without it is refused, as is de-identification that silences it
SELECT epro_etl.remove_edit_check('t34', 'known');
SELECT epro_etl.register_form('t34', '{"required": ["pulse"], "properties": {"pulse": {"type": "integer"}, "note": {"type": "string"}, "site": {"type": "string"}, "meds": {"type": "array", "minItems": 1}}}');
SELECT epro_etl.set_deid('t34', '/meds', 'remove');
SELECT epro_etl.add_score('t34', 'known', '{"expression": "pulse * 2"}');
-- past them, a run tells
UPDATE epro_etl.edit_check SET removed_at = now() WHERE form = 't34' AND check_name = 'known' AND removed_at IS NULL;
\set VERBOSITY terse
SELECT status FROM epro_etl.run('t34', workers => 0);
SELECT status FROM epro_etl.run('t34', workers => 1);
\set VERBOSITY default
SELECT epro_etl.remove_edit_check('t34', 'unknown sites');
SELECT epro_etl.remove_edit_check('t34', 'unknown sites');
-- the names are those of edit checks: the other goes
SELECT epro_etl.add_edit_check('t34', 'missing', 'pulse > 0');
SELECT check_name FROM epro_etl.batch_threshold WHERE form = 't34' AND removed_at IS NULL ORDER BY 1;
SELECT epro_etl.add_check('t34', 'missing', 'batch_threshold', '{"rule": "/pulse/required", "max_ratio": 0.2}');
SELECT check_name FROM epro_etl.edit_check WHERE form = 't34' AND removed_at IS NULL ORDER BY 1;
SELECT rule, says FROM epro_etl.explain_form('t34') WHERE stage = 'run';
-- a stream has no batch
SELECT epro_etl.start_stream('t34');
SELECT count(*) FROM epro_etl.stream;
-- and where one is wanted, no threshold and no form that has one can be added
SELECT epro_etl.create_pipeline('t34_stream', 'staging');
SELECT epro_etl.add_sink('t34_stream', 't34_other', 't34.other');
INSERT INTO epro_etl.stream (pipeline_id, login, role) SELECT pipeline_id, current_user::regrole, current_user::regrole FROM epro_etl.pipeline WHERE name = 't34_stream';
SELECT epro_etl.add_check('t34_other', 'x', 'batch_threshold', '{"rule": "/pulse/type", "max_ratio": 0.1}');
SELECT epro_etl.add_sink('t34_stream', 't34', 't34.loaded');
DELETE FROM epro_etl.stream;
SELECT epro_etl.add_sink('t34_stream', 't34', 't34.loaded');
SELECT epro_etl.drop_pipeline('t34_stream');
-- a severity that is off judges nothing, so nothing is broken
SELECT epro_etl.set_severity('t34', '/properties/pulse/maximum', 'off', 'device recalled');
SELECT stage(10, 3, '{"pulse": 301}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 0);
SELECT epro_etl.set_severity('t34', '/properties/pulse/maximum', NULL);
-- a source that is claimed by SQL, chunk by chunk, and empty
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TRIGGER keep BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION keep();
SET epro_etl.batch_size = 3;
SELECT stage(10, 3, '{"pulse": 301}');
\set VERBOSITY terse
SELECT status FROM epro_etl.run('t34', workers => 0);
SELECT status FROM epro_etl.run('t34', workers => 2);
\set VERBOSITY default
TABLE places;
SELECT stage(10, 2, '{"pulse": 301}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t34', workers => 2);
TABLE amiss;
SELECT status, claimed FROM epro_etl.run('t34', workers => 2);
RESET epro_etl.batch_size;

-- a standard unit: what was converted is an item of its own
SELECT epro_etl.register_form('t34_unit', '{"properties": {"weight": {"type": "number"}, "unit": {"type": "string"}, "temp": {"type": "integer"}, "temp_unit": {"type": "string"}}}');
SELECT epro_etl.add_check('t34_unit', 'weight', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1, "lb": 0.45359237}, "minimum": 30, "into": "weight"}');
SELECT epro_etl.add_check('t34_unit', 'weight', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1}, "minimum": 30, "into": "unit"}');
SELECT epro_etl.add_check('t34_unit', 'weight', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1}}');
SELECT epro_etl.add_check('t34_unit', 'weight in kg', 'unit_conversion',
    '{"item": "weight", "unit": "unit", "units": {"kg": 1, "lb": 0.45359237, "g": {"divide": 1000}}, "minimum": 30, "maximum": 250, "into": "weight_std"}', 'warning', 'weight IS NOT NULL');
SELECT epro_etl.add_check('t34_unit', 'temp in C', 'unit_conversion', '{"item": "temp", "unit": "temp_unit", "units": {"C": 1, "F": {"add": -32, "multiply": 5, "divide": 9}}, "into": "temp_std"}',
    condition => 'temp IS NOT NULL');
SELECT epro_etl.add_check('t34_unit', 'heavy', 'outlier', '{"item": "weight_std", "low": 40, "high": 200}', condition => 'weight_std IS NOT NULL');
SELECT check_name, kind, computes, part_of, expression FROM epro_etl.edit_check WHERE form = 't34_unit' AND removed_at IS NULL ORDER BY check_id;
SELECT epro_etl.create_sink('t34', 't34_unit', 't34.unit');
TRUNCATE staging;
SELECT probe.put('t34_unit', '{"weight": 70, "unit": "kg"}', '{"weight": 154.5, "unit": "lb"}', '{"weight": 35500, "unit": "g"}', '{"weight": 66, "unit": "lb", "temp": 98, "temp_unit": "F"}',
    '{"weight": 11, "unit": "stone"}', '{"temp": 37, "temp_unit": "C"}', '{}');
SELECT status, claimed, loaded, warned, rejected FROM epro_etl.run('t34', workers => 1);
SELECT weight, unit, weight_std, temp, round(temp_std, 4) AS temp_std FROM unit ORDER BY source_id;
SELECT dense_rank() OVER (ORDER BY source_id) AS n, rule, kind, severity FROM probe.last;
-- it goes with its check, unless something reads it; and is replaced with it
SELECT epro_etl.add_check('t34_unit', 'weight in kg', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1}, "into": "weight_std"}');
SELECT epro_etl.remove_edit_check('t34_unit', 'weight in kg');
SELECT epro_etl.remove_edit_check('t34_unit', 'heavy');
SELECT epro_etl.remove_edit_check('t34_unit', 'weight in kg');
SELECT check_name FROM epro_etl.edit_check WHERE form = 't34_unit' AND removed_at IS NULL ORDER BY check_id;
DELETE FROM epro_etl.quarantine WHERE pipeline = 't34';
SELECT probe.close_area('t34');
