-- The examples of doc/checks.md and doc/scores.md: test/readme.sh holds every block
-- of them against the expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
CREATE SCHEMA trial;
SET search_path = trial, public;
SET DateStyle = 'ISO';
\set SHOW_CONTEXT never
CREATE TABLE staging (id int PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb) WITH (autovacuum_enabled = off);
-- two forms and their sinks; enrolment tells the day of the first dose
\pset tuples_only on
\pset format unaligned
SELECT epro_etl.register_form('ENROL', '{"type": "object", "properties": {"first_dose": {"type": "string", "format": "date"}}}');
SELECT epro_etl.register_form('VISIT', '{"type": "object", "properties": {
    "vs_stat": {"type": "string"}, "pulse": {"type": "integer"}, "weight": {"type": "number"}, "unit": {"type": "string"},
    "nausea": {"type": "boolean"}, "headache": {"type": "boolean"}, "none": {"type": "boolean"},
    "oral": {"type": "boolean"}, "patch": {"type": "boolean"}, "smoker": {"type": "string", "enum": ["Y", "N"]}, "packs": {"type": "number"},
    "onset": {"type": "string"}, "resolved": {"type": "string"}, "day": {"type": "integer"}, "first_dose": {"type": "string", "format": "date"}}}');
SELECT epro_etl.create_pipeline('trial', 'staging');
SELECT epro_etl.create_sink('trial', 'ENROL', 'trial.enrolment');
SELECT epro_etl.create_sink('trial', 'VISIT', 'trial.visit');
INSERT INTO staging SELECT 100 + n, 'ST01', 'ENROL', 'P' || n, 'SCREENING', '2026-02-20', '{"first_dose": "2026-03-01"}' FROM generate_series(1, 17) n;
INSERT INTO staging VALUES (120, 'ST01', 'VISIT', 'P13', 'BASELINE', '2026-03-01', '{"weight": 70, "unit": "kg", "pulse": 70, "none": true, "smoker": "N"}'),
    (121, 'ST01', 'VISIT', 'P11', 'WEEK 2', '2026-03-14', '{"pulse": 70, "none": true, "smoker": "N"}');
SELECT status, loaded FROM epro_etl.run('trial', workers => 0);
-- the kinds
SELECT epro_etl.add_check('VISIT', 'pulse or reason', 'null_flavour', '{"item": "vs_stat", "codes": ["NOT DONE", "UNKNOWN"], "excuses": ["pulse"]}');
SELECT epro_etl.add_check('VISIT', 'a symptom or none', 'at_least_one', '{"items": ["nausea", "headache", "none"], "value": true}');
SELECT epro_etl.add_check('VISIT', 'one route', 'exactly_one', '{"items": ["oral", "patch"], "value": true}', condition => 'num_nonnulls(oral, patch) > 0');
SELECT epro_etl.add_check('VISIT', 'packs of smokers', 'required_if', '{"items": ["packs"], "when": {"smoker": "Y"}}');
SELECT epro_etl.add_check('VISIT', 'packs only of smokers', 'blank_unless', '{"items": ["packs"], "when": {"smoker": "Y"}}');
SELECT epro_etl.add_check('VISIT', 'onset by month', 'required_precision', '{"item": "onset", "precision": "month"}', condition => 'onset IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'onset in the past', 'not_future', '{"item": "onset", "time_zone": "Europe/Berlin"}', condition => 'onset IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'onset, then end', 'start_before_end', '{"start": "onset", "end": "resolved"}', condition => 'resolved IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'study day', 'study_day', '{"item": "day", "reference": "first_dose"}', condition => 'day IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'window', 'visit_window', '{"anchor": {"table": "trial.enrolment", "column": "first_dose",
    "match": {"study": "study", "subject_key": "subject"}}, "windows": {"BASELINE": [1, 0, 0], "WEEK 2": [14, 3, 3]}}', 'warning');
SELECT epro_etl.add_check('VISIT', 'once', 'unique_key', '{"table": "trial.visit",
    "match": {"study": "study", "subject_key": "subject", "visit": "visit"}, "compare": {"pulse": "pulse"}}');
SELECT epro_etl.add_check('VISIT', 'enrolled', 'reference_exists', '{"table": "trial.enrolment",
    "match": {"study": "study", "subject_key": "subject"}, "on_timeout": "defer", "timeout": "200 ms"}');
SELECT epro_etl.add_check('VISIT', 'weight change', 'previous_visit', '{"table": "trial.visit", "column": "weight", "item": "weight",
    "match": {"study": "study", "subject_key": "subject"}, "max_change": 10, "no_previous": "pass"}', 'warning', 'weight IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'first dose as enrolled', 'cross_form', '{"table": "trial.enrolment", "column": "first_dose", "item": "first_dose",
    "match": {"study": "study", "subject_key": "subject"}, "relation": "="}', condition => 'first_dose IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'weight', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1, "lb": 0.45359237},
    "minimum": 30, "maximum": 250}', condition => 'weight IS NOT NULL');
SELECT epro_etl.add_check('VISIT', 'pulse', 'outlier', '{"item": "pulse", "low": 40, "high": 120}', condition => 'pulse IS NOT NULL');
\pset tuples_only off
\pset format aligned
SELECT check_name, kind, severity, expression FROM epro_etl.edit_check
 WHERE check_name IN ('packs of smokers', 'study day', 'enrolled') ORDER BY check_id;
-- a response for each
CREATE FUNCTION answer(n int, answers jsonb, subject text DEFAULT NULL, visit text DEFAULT 'WEEK 2', authored date DEFAULT '2026-03-14') RETURNS void LANGUAGE sql AS $$
    INSERT INTO staging VALUES (n, 'ST01', 'VISIT', coalesce(subject, 'P' || n), visit, authored::timestamp AT TIME ZONE 'UTC', '{"pulse": 70, "none": true, "smoker": "N"}' || answers) $$;
DO $$
BEGIN
    PERFORM answer(1, '{"vs_stat": "NOT DONE"}');
    PERFORM answer(2, '{"none": false}');
    PERFORM answer(3, '{"oral": true, "patch": true}');
    PERFORM answer(4, '{"smoker": "Y"}');
    PERFORM answer(5, '{"packs": 1}');
    PERFORM answer(6, '{"onset": "2025-UNK-UNK"}');
    PERFORM answer(7, '{"onset": "2026-04"}');
    PERFORM answer(8, '{"onset": "2026-02", "resolved": "2026-01-31"}');
    PERFORM answer(9, '{"day": 13, "first_dose": "2026-03-01"}');
    PERFORM answer(10, '{}', authored => '2026-03-18');
    PERFORM answer(11, '{"pulse": 71}');
    PERFORM answer(12, '{}', 'P99', 'UNSCHEDULED');
    PERFORM answer(13, '{"weight": 84, "unit": "kg"}');
    PERFORM answer(14, '{"first_dose": "2026-03-02"}');
    PERFORM answer(15, '{"weight": 60, "unit": "lb"}');
    PERFORM answer(16, '{"pulse": 130}');
    PERFORM answer(17, '{"onset": "2026-03", "weight": 10, "unit": "stone"}');
END $$;
SELECT run_id, claimed, loaded, warned, rejected FROM epro_etl.run('trial', workers => 0);
SELECT source_id AS id, rule, kind, severity, message FROM epro_etl.finding WHERE run_id = 2 ORDER BY length(source_id), source_id, rule;
-- partial dates
SELECT d, epro_etl.partial_date_precision(d) AS precision, epro_etl.partial_date_earliest(d) AS earliest, epro_etl.partial_date_latest(d) AS latest,
       epro_etl.partial_date_before(d, '2012-06-15') AS before_15_june
  FROM unnest('{2012,2012-06,2012-05-UN,2012-UNK-UNK,2012---,2012-06-15,May 2012}'::text[]) d;

-- scores
\pset tuples_only on
\pset format unaligned
SELECT epro_etl.register_form('PHQ9', '{"type": "object", "properties": {
    "q1": {"type": "integer"}, "q2": {"type": "integer"}, "q3": {"type": "integer"}, "q4": {"type": "integer"}, "q5": {"type": "integer"},
    "q6": {"type": "integer"}, "q7": {"type": "integer"}, "q8": {"type": "integer"}, "q9": {"type": "integer"}, "total": {"type": "integer"}}}');
SELECT epro_etl.add_score('PHQ9', 'phq9', '{"items": ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9"], "range": [0, 3],
    "min_answered": 7, "missing": "prorate", "round": 0}');
SELECT epro_etl.add_score('PHQ9', 'total', '{"items": ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9"], "range": [0, 3],
    "mode": "verify", "stated": "total", "condition": "total IS NOT NULL"}');
SELECT epro_etl.create_sink('trial', 'PHQ9', 'trial.phq9');
\pset tuples_only off
\pset format aligned
INSERT INTO staging VALUES
    (31, 'ST01', 'PHQ9', 'P1', 'WEEK 2', '2026-03-14', '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 0, "q7": 1, "q8": 0, "q9": 0, "total": 10}'),
    (32, 'ST01', 'PHQ9', 'P2', 'WEEK 2', '2026-03-14', '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 0, "q7": 1, "q8": 0, "q9": 0, "total": 11}'),
    (33, 'ST01', 'PHQ9', 'P3', 'WEEK 2', '2026-03-14', '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 0, "q7": 1}'),
    (34, 'ST01', 'PHQ9', 'P4', 'WEEK 2', '2026-03-14', '{"q1": 1, "q2": 2, "q3": 3}');
SELECT run_id, claimed, loaded, warned, rejected FROM epro_etl.run('trial', workers => 2);
SELECT source_id, q1, q2, q3, total, phq9 FROM trial.phq9 ORDER BY source_id;
SELECT source_id, rule, kind, severity, message FROM epro_etl.finding WHERE run_id = 3 ORDER BY source_id;
-- the other published rules
\pset tuples_only on
\pset format unaligned
SELECT epro_etl.register_form('GAD7', '{"type": "object", "properties": {"q1": {"type": "integer"}, "q2": {"type": "integer"}, "q3": {"type": "integer"},
    "q4": {"type": "integer"}, "q5": {"type": "integer"}, "q6": {"type": "integer"}, "q7": {"type": "integer"}}}');
SELECT epro_etl.add_score('GAD7', 'gad7', '{"items": ["q1", "q2", "q3", "q4", "q5", "q6", "q7"], "range": [0, 3]}');
SELECT epro_etl.register_form('ADAS', '{"type": "object", "properties": {"recall": {"type": "integer"}, "naming": {"type": "integer"}, "commands": {"type": "integer"},
    "construction": {"type": "integer"}, "ideation": {"type": "integer"}, "orientation": {"type": "integer"}, "recognition": {"type": "integer"},
    "language": {"type": "integer"}, "comprehension": {"type": "integer"}, "finding": {"type": "integer"}, "instructions": {"type": "integer"}, "total": {"type": "number"}}}');
SELECT epro_etl.add_score('ADAS', 'total', '{"items": ["recall", "naming", "commands", "construction", "ideation", "orientation", "recognition",
        "language", "comprehension", "finding", "instructions"],
    "ranges": {"recall": [0, 10], "naming": [0, 5], "commands": [0, 5], "construction": [0, 5], "ideation": [0, 5], "orientation": [0, 8],
        "recognition": [0, 12], "language": [0, 5], "comprehension": [0, 5], "finding": [0, 5], "instructions": [0, 5]},
    "min_answered": 8, "missing": "maxima", "mode": "verify", "stated": "total", "tolerance": 0.005}');
SELECT epro_etl.register_form('QLQ-C30', jsonb_build_object('type', 'object', 'properties',
    (SELECT jsonb_object_agg('q' || n, '{"type": "integer"}'::jsonb) FROM generate_series(1, 30) n)));
SELECT epro_etl.add_score('QLQ-C30', 'pf2', '{"items": ["q1", "q2", "q3", "q4", "q5"], "range": [1, 4],
    "reverse": ["q1", "q2", "q3", "q4", "q5"], "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.add_score('QLQ-C30', 'fa', '{"items": ["q10", "q12", "q18"], "range": [1, 4],
    "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.add_score('QLQ-C30', 'ql2', '{"items": ["q29", "q30"], "range": [1, 7],
    "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.register_form('BODY', '{"type": "object", "properties": {"height_cm": {"type": "number", "exclusiveMinimum": 0}, "weight_kg": {"type": "number"}}}');
SELECT epro_etl.add_score('BODY', 'bmi', '{"expression": "weight_kg / (height_cm / 100) ^ 2", "round": 1, "condition": "height_cm > 0"}');
SELECT epro_etl.add_check('BODY', 'bmi is usual', 'outlier', '{"item": "bmi", "low": 15, "high": 50}');
\pset tuples_only off
\pset format aligned
SELECT epro_etl.create_sink('trial', 'QLQ-C30', 'trial.qlq');
INSERT INTO staging VALUES (41, 'ST01', 'QLQ-C30', 'P1', 'WEEK 2', '2026-03-14', '{"q1": 2, "q2": 1, "q3": 4, "q10": 2, "q12": 3, "q30": 6}');
SELECT status, loaded FROM epro_etl.run('trial', workers => 0);
SELECT q1, q2, q3, q4, q5, pf2, fa, ql2 FROM trial.qlq;
-- the latest response of a key
CREATE TABLE trial.body (study text, subject_key text, visit text, authored timestamptz, height_cm numeric, weight_kg numeric, bmi numeric,
    source_id int, run_id bigint, PRIMARY KEY (study, subject_key, visit));
SELECT epro_etl.add_sink('trial', 'BODY', 'trial.body', on_duplicate => 'latest');
INSERT INTO staging VALUES (51, 'ST01', 'BODY', 'P1', 'WEEK 2', '2026-03-14 08:00+00', '{"height_cm": 170, "weight_kg": 80}'),
    (52, 'ST01', 'BODY', 'P1', 'WEEK 2', '2026-03-14 09:30+00', '{"height_cm": 170, "weight_kg": 70}'),
    (53, 'ST01', 'BODY', 'P1', 'WEEK 2', '2026-03-14 08:30+00', '{"height_cm": 170, "weight_kg": 75}'),
    (54, 'ST01', 'BODY', 'P1', 'WEEK 2', '2026-03-14 09:30+00', '{"height_cm": 170, "weight_kg": 70}');
SELECT run_id, claimed, loaded, duplicate FROM epro_etl.run('trial', workers => 0);
SELECT source_id, weight_kg FROM trial.body;
SELECT source_id, earlier_source_id, "row" ->> 'weight_kg' AS weight_kg FROM epro_etl.superseded;
SELECT source_id, rule, severity, message FROM epro_etl.finding WHERE run_id = 5 ORDER BY source_id;
SELECT * FROM epro_etl.reconcile(5);

-- a standard unit in a column of its own, and a run that is held
\pset tuples_only on
\pset format unaligned
SELECT epro_etl.register_form('VITALS', '{"type": "object", "properties": {"weight": {"type": "number"}, "unit": {"type": "string", "enum": ["kg", "lb"]}}}');
SELECT epro_etl.add_check('VITALS', 'weight in kg', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1, "lb": 0.45359237},
    "minimum": 30, "maximum": 250, "into": "weight_std"}', 'warning', 'weight IS NOT NULL');
SELECT epro_etl.create_sink('trial', 'VITALS', 'trial.vitals');
SELECT epro_etl.add_check('VITALS', 'scale', 'batch_threshold', '{"rule": "weight in kg", "max_ratio": 0.05, "minimum": 20}');
\pset tuples_only off
\pset format aligned
INSERT INTO staging SELECT 50 + n, 'ST01', 'VITALS', 'P' || n, 'WEEK 2', '2026-03-14', jsonb_build_object('weight', 150 + n, 'unit', 'lb') FROM generate_series(1, 3) n;
SELECT status, loaded FROM epro_etl.run('trial', workers => 2);
SELECT source_id, weight, unit, weight_std FROM trial.vitals ORDER BY source_id;
INSERT INTO staging SELECT 60 + n, 'ST01', 'VITALS', 'P' || n, 'WEEK 4', '2026-03-28', jsonb_build_object('weight', CASE WHEN n % 4 = 0 THEN 15 ELSE 70 END, 'unit', 'kg')
    FROM generate_series(1, 40) n;
SELECT * FROM epro_etl.run('trial', workers => 2);
SELECT run_id, status, sqlstate, claimed, remaining FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT epro_etl.drop_pipeline('trial');
SET client_min_messages = warning;
DROP SCHEMA trial CASCADE;
