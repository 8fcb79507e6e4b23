-- Scores: what they become, what is refused, what they come to with items missing,
-- and where a computed one goes.
\set SHOW_CONTEXT never
SELECT probe.open_area('t29');

-- the published rules, as they are declared
SELECT epro_etl.register_form('PHQ9', jsonb_build_object('type', 'object', 'properties', (SELECT jsonb_object_agg('q' || n, '{"type": "integer", "minimum": 0, "maximum": 3}'::jsonb) FROM generate_series(1, 9) n)));
SELECT epro_etl.add_score('PHQ9', 'phq9', '{"items": ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9"], "range": [0, 3], "min_answered": 7, "missing": "prorate", "round": 0}');
SELECT epro_etl.register_form('GAD7', jsonb_build_object('type', 'object', 'properties', (SELECT jsonb_object_agg('q' || n, '{"type": "integer", "minimum": 0, "maximum": 3}'::jsonb) FROM generate_series(1, 7) n)));
SELECT epro_etl.add_score('GAD7', 'gad7', '{"items": ["q1", "q2", "q3", "q4", "q5", "q6", "q7"], "range": [0, 3]}');
SELECT epro_etl.register_form('QLQ', jsonb_build_object('type', 'object', 'properties', (SELECT jsonb_object_agg('q' || n, jsonb_build_object('type', 'integer', 'minimum', 1, 'maximum', CASE WHEN n > 28 THEN 7 ELSE 4 END)) FROM generate_series(1, 30) n)));
SELECT epro_etl.add_score('QLQ', 'physical', '{"items": ["q1", "q2", "q3", "q4", "q5"], "range": [1, 4], "reverse": ["q1", "q2", "q3", "q4", "q5"], "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.add_score('QLQ', 'fatigue', '{"items": ["q10", "q12", "q18"], "range": [1, 4], "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.add_score('QLQ', 'global_health', '{"items": ["q29", "q30"], "range": [1, 7], "function": "mean", "min_share": 0.5, "transform": true, "round": 4}');
SELECT epro_etl.register_form('ADAS3', '{"type": "object", "properties": {"recall": {"type": "integer"}, "naming": {"type": "integer"}, "recognition": {"type": "integer"}, "total": {"type": "number"}}}');
SELECT epro_etl.add_score('ADAS3', 'total holds', '{"items": ["recall", "naming", "recognition"], "ranges": {"recall": [0, 10], "naming": [0, 5], "recognition": [0, 12]}, "min_answered": 1, "missing": "maxima",
    "mode": "verify", "stated": "total", "tolerance": 0.005}');
SELECT epro_etl.register_form('MIXED', '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}, "c": {"type": "string"}, "d": {"type": "string"}, "g": {"type": "object", "properties": {"X": {"type": "integer"}}}, "when": {"type": "string", "format": "date"}}}');
SELECT epro_etl.add_score('MIXED', 'yes', '{"items": ["c", "d"], "codes": {"Y": 1, "N": 0, "NA": null}, "function": "mean", "min_answered": 1}');
SELECT epro_etl.add_score('MIXED', 'times', '{"items": ["a", "b", "g.X"], "function": "product"}');
SELECT epro_etl.add_score('MIXED', 'bmi', '{"expression": "b / (a / 100.0) ^ 2", "round": 1, "condition": "a IS NOT NULL"}');
SELECT epro_etl.add_score('MIXED', 'twice', '{"expression": "2 * times"}');
SELECT epro_etl.add_edit_check('MIXED', 'bmi is usual', 'bmi < 40', 'warning', 'bmi IS NOT NULL');
\pset format unaligned
SELECT form, check_name, kind, computes, expression FROM epro_etl.edit_check WHERE form IN ('PHQ9', 'GAD7', 'QLQ', 'ADAS3', 'MIXED') AND removed_at IS NULL ORDER BY check_id;
\pset format aligned
-- a score is an item of its form
SELECT * FROM epro_etl.form_items('MIXED');

-- refused
CREATE TABLE tried (n serial, score text, spec jsonb);
INSERT INTO tried (score, spec) VALUES
    ('s', '{}'), ('s', '[]'), ('s', '{"items": ["a"], "item": 1}'), ('s', '{"items": []}'), ('s', '{"items": ["zzz"]}'), ('s', '{"items": ["c"]}'), ('s', '{"items": ["a"], "codes": {"Y": 1}}'),
    ('s', '{"items": ["c"], "codes": {"Y": "1"}}'), ('s', '{"items": ["a"], "function": "median"}'), ('s', '{"items": ["a"], "expression": "a"}'), ('s', '{"items": ["a", "b"], "min_answered": 1}'),
    ('s', '{"items": ["a", "b"], "min_answered": 3}'), ('s', '{"items": ["a", "b"], "min_answered": 1, "missing": "guess"}'), ('s', '{"items": ["a", "b"], "missing": "prorate"}'),
    ('s', '{"items": ["a", "b"], "min_answered": 1, "missing": "maxima"}'), ('s', '{"items": ["a", "b"], "min_answered": 1, "min_share": 0.5, "missing": "ignore"}'), ('s', '{"items": ["a"], "min_share": 2}'),
    ('s', '{"items": ["a", "b"], "function": "product", "min_answered": 1, "missing": "ignore"}'), ('s', '{"items": ["a", "b"], "function": "mean", "min_answered": 1, "missing": "prorate"}'),
    ('s', '{"items": ["a"], "reverse": ["a"]}'), ('s', '{"items": ["a"], "range": [0, 3], "reverse": ["b"]}'), ('s', '{"items": ["a"], "range": [3, 0]}'), ('s', '{"items": ["a"], "range": 3}'),
    ('s', '{"items": ["a", "b"], "ranges": {"a": [0, 3]}}'), ('s', '{"items": ["a"], "ranges": {"a": [0, 3], "b": [0, 3]}}'), ('s', '{"items": ["a"], "transform": true}'),
    ('s', '{"items": ["a", "b"], "range": [0, 3], "min_answered": 1, "missing": "ignore", "transform": true}'), ('s', '{"items": ["a"], "round": -1}'), ('s', '{"items": ["a"], "mode": "both"}'),
    ('s', '{"items": ["a"], "mode": "verify"}'), ('s', '{"items": ["a"], "stated": "b"}'), ('s', '{"items": ["a"], "mode": "verify", "stated": "c"}'), ('s', '{"items": ["a"], "severity": "error"}'),
    ('s', '{"items": ["a"], "mode": "verify", "stated": "b", "tolerance": -1}'), ('s', '{"items": ["a"], "mode": "verify", "stated": "b", "severity": "fatal"}'),
    ('s', '{"expression": "c"}'), ('s', '{"expression": "zzz"}'), ('s', '{"expression": "random()"}'), ('s', '{"expression": "a = 1"}'), ('s', '{"expression": "a), (b"}'), ('s', '{"expression": "a", "condition": "b"}'),
    ('s', '{"expression": "s + 1"}'), ('a', '{"items": ["a"]}'), ('A', '{"items": ["a"]}'), ('visit', '{"items": ["a"]}'), ('', '{"items": ["a"]}'), (NULL, '{"items": ["a"]}'), ('s', NULL);
DO $$
DECLARE
    r record;
    said text;
    hint text;
BEGIN
    FOR r IN SELECT * FROM tried ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.add_score('MIXED', r.score, r.spec);
            said := 'accepted';
            PERFORM epro_etl.remove_edit_check('MIXED', r.score);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            said := SQLSTATE || ' ' || SQLERRM || coalesce(' | ' || nullif(hint, ''), '');
        END;
        RAISE INFO '% %  ->  %', r.score, r.spec, said;
    END LOOP;
END $$;
-- a score that others read stays, and a new version may not have an item of its name
SELECT epro_etl.remove_edit_check('MIXED', 'times');
SELECT epro_etl.register_form('MIXED', '{"properties": {"a": {"type": "integer"}, "bmi": {"type": "integer"}}}');

-- what they come to
SELECT epro_etl.create_sink('t29', 'PHQ9', 'phq9');
SELECT epro_etl.create_sink('t29', 'GAD7', 'gad7');
SELECT epro_etl.create_sink('t29', 'QLQ', 'qlq');
SELECT epro_etl.create_sink('t29', 'QLQ', 'qlq_items', 'long');
SELECT epro_etl.create_sink('t29', 'ADAS3', 'adas3');
SELECT epro_etl.create_sink('t29', 'MIXED', 'mixed');
SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 't29' AND table_name = 'mixed' AND column_name IN ('yes', 'times', 'bmi', 'twice') ORDER BY 1;
SELECT probe.put('PHQ9',
    '{"q1": 0, "q2": 0, "q3": 0, "q4": 0, "q5": 0, "q6": 0, "q7": 0, "q8": 0, "q9": 0}',
    '{"q1": 3, "q2": 3, "q3": 3, "q4": 3, "q5": 3, "q6": 3, "q7": 3, "q8": 3, "q9": 3}',
    '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 3, "q7": 1}',      -- 13 of 7: 16.7
    '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 3}',               -- three missing
    '{"q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 2, "q6": 3, "q7": 4}');     -- out of range
SELECT probe.put('GAD7', '{"q1": 1, "q2": 2, "q3": 3, "q4": 0, "q5": 1, "q6": 2, "q7": 3}', '{"q1": 1, "q2": 2, "q3": 3, "q4": 0, "q5": 1, "q6": 2}');
SELECT probe.put('QLQ',
    '{"q1": 1, "q2": 1, "q3": 1, "q4": 1, "q5": 1, "q10": 1, "q12": 1, "q18": 1, "q29": 7, "q30": 7}',      -- best of all
    '{"q1": 4, "q2": 4, "q3": 4, "q4": 4, "q5": 4, "q10": 4, "q12": 4, "q18": 4, "q29": 1, "q30": 1}',      -- worst of all
    '{"q1": 2, "q2": 1, "q3": 4, "q10": 2, "q12": 3, "q30": 6}',            -- just half, or more
    '{"q1": 2, "q2": 1, "q10": 2}');                           -- less than half
SELECT probe.put('ADAS3',
    '{"recall": 5, "naming": 2, "recognition": 6, "total": 13}', '{"recall": 5, "naming": 2, "recognition": 6, "total": 14}',
    '{"recall": 5, "naming": 2, "total": 12.6}', '{"recall": 5, "naming": 2, "total": 7}', '{"total": 7}', '{"recall": 5, "naming": 2, "recognition": 6}', '{"recall": 11, "naming": 2, "recognition": 6, "total": 19}');
SELECT probe.put('MIXED',
    '{"a": 200, "b": 80, "c": "Y", "d": "N", "g": {"X": 2}}', '{"a": 100, "b": 80.5, "c": "Y", "d": "NA"}', '{"c": "N", "d": "?"}', '{"a": 0, "b": 1}', '{"a": 200, "b": "x"}');
SELECT status, claimed, loaded, warned, rejected FROM epro_etl.run('t29', workers => 0);
SELECT source_id, phq9 FROM phq9 ORDER BY 1;
SELECT source_id, gad7 FROM gad7 ORDER BY 1;
SELECT source_id, physical, fatigue, global_health FROM qlq ORDER BY 1;
SELECT source_id, item, item_no, value, value_number FROM qlq_items WHERE item !~ '^q' ORDER BY 1, 3;
SELECT source_id, total FROM adas3 ORDER BY 1;
SELECT source_id, yes, times, bmi, twice FROM mixed ORDER BY 1;
SELECT source_id, form, location, rule, kind, severity, message FROM probe.last;

-- a column that was there takes it; where none is, it is told
CREATE TABLE narrow (source_id int, burden numeric);
SELECT epro_etl.create_pipeline('t29_narrow', 'staging');
SELECT epro_etl.register_form('N', '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}');
CREATE TABLE whole (a int, b int);
SELECT epro_etl.add_sink('t29_narrow', 'N', 'whole');
SELECT epro_etl.add_score('N', 'load', '{"items": ["a", "b"]}');
SELECT epro_etl.add_sink('t29_narrow', 'N', 'narrow', columns => '{"burden": "load"}');
SELECT probe.put('N', '{"a": 1, "b": 2}', '{"a": 40, "b": 2}');
SELECT status, loaded FROM epro_etl.run('t29_narrow', workers => 1);
SELECT burden FROM narrow ORDER BY 1;
-- replaced, and a run keeps the one that it was pinned to
SELECT epro_etl.add_score('N', 'load', '{"items": ["a", "b"], "function": "mean", "min_answered": 1, "round": 2}');
SELECT probe.put('N', '{"a": 1, "b": 2}', '{"b": 7}');
SELECT status, loaded FROM epro_etl.run('t29_narrow', workers => 2);
SELECT burden FROM narrow ORDER BY 1;
-- in a stream, a score travels from the group that computes it to the one that stores it
TRUNCATE narrow;
CREATE FUNCTION wait_for(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1..3000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN holds;
END $$;
SELECT epro_etl.start_stream('t29_narrow', stages => '{"decode": 1, "validate": 1, "store": 1}');
SELECT probe.put('N', '{"a": 1, "b": 4}', '{"a": 5}', '{}');
SELECT wait_for('(SELECT count(*) = 3 FROM t29.narrow)');
SELECT epro_etl.stop_stream('t29_narrow');
SELECT burden FROM narrow ORDER BY 1;
-- taken off, a sink that was loading it is refused
SELECT epro_etl.remove_edit_check('N', 'load');
SELECT status FROM epro_etl.run('t29_narrow', workers => 0);
SELECT probe.close_area('t29');
