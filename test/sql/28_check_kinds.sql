-- Kinds of edit checks: what each becomes, what is refused, and how each judges a
-- response that passes, one that fails, and one that cannot be decided.
\set SHOW_CONTEXT never
SELECT probe.open_area('t28');

-- partial dates: any text is read or is NULL, and nothing raises an error
SELECT t, epro_etl.partial_date_earliest(t) AS earliest, epro_etl.partial_date_latest(t) AS latest, epro_etl.partial_date_precision(t) AS precision
FROM unnest('{2012,2012-05,2012-05-07,2012-UN-UN,2012-UNK-UNK,2012-05-UN,2012-05-unk,2012---,2012--,2012----,2012---15,2012-UN-31,2012-05--,2012-02,2013-02,2012-02-29,2000-02,
              2012-05-07T10,2012-05-07T10:30,2012-05-07T10:30:59,2012-05-07T10:30:59.25,0001,9999-12-31}'::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n;
SELECT count(*) FILTER (WHERE epro_etl.partial_date_earliest(t) IS NOT NULL) AS earliest, count(*) FILTER (WHERE epro_etl.partial_date_latest(t) IS NOT NULL) AS latest,
       count(*) FILTER (WHERE epro_etl.partial_date_precision(t) IS NOT NULL) AS precision, count(*) AS tried
FROM unnest(ARRAY['', ' ', '0000', '201', '20125', '2012-', '2012-5', '2012-13', '2012-00', '2012-05-', '2012-05-32', '2012-05-00', '2013-02-29', '2012-UN-32', '2012-UNX', '2012-U',
                  '2012/05', '05-2012', 'UN-05-07', '-2012', '+2012', ' 2012', '2012 ', '2012-05-07T', '2012-05-07 10:30', '2012-05-07T24', '2012-05-07T10:60', '2012-05-07T10:3',
                  '2012-05-07T10:30:59.', '2012-05-07T10:30Z', '2012-05T10', '2012-05-UNT10', '2012-UNKN', '２０１２', E'2012\u00a0', repeat('9', 100000), repeat('-', 1000), NULL]) t;
-- every whole date is itself, and a month and a year end where the calendar says
SELECT count(*) AS days, count(*) FILTER (WHERE epro_etl.partial_date_earliest(to_char(d, 'YYYY-MM-DD')) IS DISTINCT FROM d::date OR epro_etl.partial_date_latest(to_char(d, 'YYYY-MM-DD')) IS DISTINCT FROM d::date) AS other,
       count(*) FILTER (WHERE epro_etl.partial_date_latest(to_char(d, 'YYYY-MM')) IS DISTINCT FROM (date_trunc('month', d) + '1 month - 1 day')::date) AS months_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_latest(to_char(d, 'YYYY')) IS DISTINCT FROM (date_trunc('year', d) + '1 year - 1 day')::date) AS years_wrong
FROM generate_series('1896-01-01'::timestamp, '2104-12-31', '1 day') d;
-- comparisons, held against all the days that each may be
CREATE TABLE partial AS SELECT t, epro_etl.partial_date_earliest(t) AS lo, epro_etl.partial_date_latest(t) AS hi FROM unnest('{2012,2012-05,2012-05-07,2012-05-08,2012-06,2012-06-01,2011-12-31,2013,2012-05-31}'::text[]) t;
WITH days AS MATERIALIZED (SELECT t, d::date AS d FROM partial, generate_series(lo::timestamp, hi, '1 day') d),
     truth AS (SELECT a.t AS a, b.t AS b, bool_and(a.d < b.d) AS all_before, bool_or(a.d < b.d) AS some_before, bool_and(a.d > b.d) AS all_after, bool_or(a.d > b.d) AS some_after,
                      bool_and(a.d = b.d) AS all_same, bool_or(a.d = b.d) AS some_same FROM days a, days b GROUP BY a.t, b.t)
SELECT count(*) AS pairs,
       count(*) FILTER (WHERE epro_etl.partial_date_before(a, b) IS DISTINCT FROM CASE WHEN all_before THEN true WHEN NOT some_before THEN false END) AS before_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_after(a, b) IS DISTINCT FROM CASE WHEN all_after THEN true WHEN NOT some_after THEN false END) AS after_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_not_before(a, b) IS DISTINCT FROM CASE WHEN NOT some_before THEN true WHEN all_before THEN false END) AS not_before_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_not_after(a, b) IS DISTINCT FROM CASE WHEN NOT some_after THEN true WHEN all_after THEN false END) AS not_after_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_same(a, b) IS DISTINCT FROM CASE WHEN all_same THEN true WHEN NOT some_same THEN false END) AS same_wrong,
       count(*) FILTER (WHERE epro_etl.partial_date_before(a, b) IS NULL) AS undecided
FROM truth;
SELECT epro_etl.study_day('2026-03-01', '2026-03-01') AS first, epro_etl.study_day('2026-02-28', '2026-03-01') AS before, epro_etl.study_day('2026-03-02', '2026-03-01') AS second,
       epro_etl.study_day('infinity', '2026-03-01') AS without_end, epro_etl.study_day(NULL, '2026-03-01') AS unknown;

-- refused where they are declared
SELECT epro_etl.register_form('t28', '{"properties": {
    "smoker": {"type": "string", "enum": ["Y", "N"]}, "packs": {"type": "integer"}, "years": {"type": "integer"}, "status": {"type": "string"},
    "a": {"type": "boolean"}, "b": {"type": "boolean"}, "c": {"type": "boolean"}, "onset": {"type": "string"}, "resolved": {"type": "string"},
    "born": {"type": "string", "format": "date"}, "seen": {"type": "string", "format": "date-time"}, "dose": {"type": "string", "format": "date"}, "day": {"type": "integer"},
    "weight": {"type": "number"}, "unit": {"type": "string"}, "pulse": {"type": "integer"}, "site": {"type": "string"},
    "vitals": {"type": "object", "properties": {"height": {"type": "number"}}}}}');
CREATE TABLE site (code text PRIMARY KEY, is_open boolean);
CREATE TABLE enrolled (study text, subject_key text, first_dose date, PRIMARY KEY (study, subject_key));
CREATE TABLE other_form (subject_key text, visit text, weight numeric);
SELECT epro_etl.create_sink('t28', 't28', 't28_sink');
CREATE TABLE tried (n serial, kind text, params jsonb);
INSERT INTO tried (kind, params) VALUES
    ('nosuch', '{}'), ('at_least_one', '[]'), ('at_least_one', '{}'), ('at_least_one', '{"items": []}'), ('at_least_one', '{"items": "a"}'), ('at_least_one', '{"items": ["a", "zzz"]}'),
    ('at_least_one', '{"items": ["a", "a"]}'), ('at_least_one', '{"items": ["a"], "itmes": ["b"]}'), ('at_least_one', '{"items": ["a", 1]}'), ('at_least_one', '{"items": ["A"]}'),
    ('required_if', '{"items": ["a"], "when": {}}'), ('required_if', '{"items": ["a"], "when": {"zzz": "Y"}}'), ('required_if', '{"items": ["a"], "when": {"smoker": null}}'),
    ('required_if', '{"items": ["a"], "when": {"smoker": []}}'), ('required_if', '{"items": ["a"], "when": {"smoker": {"x": 1}}}'), ('required_if', '{"items": ["a"], "when": {"packs": "x"}}'),
    ('null_flavour', '{"item": "status", "codes": [null], "excuses": ["packs"]}'), ('null_flavour', '{"item": "status", "codes": ["ND"]}'),
    ('required_precision', '{"item": "onset", "precision": "hour"}'), ('required_precision', '{"item": "born", "precision": "day"}'),
    ('not_future', '{"item": "packs"}'), ('not_future', '{"item": "onset", "time_zone": "Mars/Olympus"}'), ('start_before_end', '{"start": "onset"}'),
    ('start_before_end', '{"start": "onset", "end": "resolved", "allow_equal": "no"}'), ('study_day', '{"item": "onset", "reference": "dose"}'),
    ('visit_window', '{"anchor": "dose"}'), ('visit_window', '{"anchor": "dose", "target": 0, "before": 1, "after": 1}'), ('visit_window', '{"anchor": "dose", "target": 7, "before": -1, "after": 1}'),
    ('visit_window', '{"anchor": "dose", "target": 7, "before": 1, "after": 1, "windows": {"V": [1, 1, 1]}}'), ('visit_window', '{"anchor": "dose", "windows": {"V": [1, 1]}}'),
    ('visit_window', '{"anchor": "dose", "windows": {"V": 7}}'), ('visit_window', '{"anchor": "dose", "windows": {"V": [0, 1, 1]}}'), ('visit_window', '{"anchor": 1, "target": 7, "before": 1, "after": 1}'),
    ('visit_window', '{"anchor": {"table": "t28.enrolled"}, "target": 7, "before": 1, "after": 1}'),
    ('visit_window', '{"anchor": {"table": "t28.enrolled", "column": "study", "match": {"subject_key": "subject"}, "x": 1}, "target": 7, "before": 1, "after": 1}'),
    ('visit_window', '{"anchor": {"table": "t28.site", "column": "is_open", "match": {"code": "site"}}, "target": 7, "before": 1, "after": 1}'),
    ('visit_window', '{"anchor": "dose", "target": 7, "before": 1, "after": 1, "timeout": "1 s"}'),
    ('unique_key', '{"table": "t28_sink", "match": {"subject_key": "subject"}}'), ('unique_key', '{"table": "t28.t28_sink", "match": {"subject": "subject"}}'),
    ('unique_key', '{"table": "t28.t28_sink", "match": {"subject_key": 1}}'), ('unique_key', '{"table": "t28.t28_sink", "match": {"subject_key": "subject"}, "compare": {"packs": {"value": 1}}}'),
    ('reference_exists', '{"table": "t28.site", "match": {"code": {"value": [1]}}}'), ('reference_exists', '{"table": "t28.site", "match": {"code": "site"}, "timeout": "soon"}'),
    ('reference_exists', '{"table": "t28.site", "match": {"code": "packs"}}'), ('reference_exists', '{"table": "t28.site", "match": {"code": "site"}, "on_timeout": "wait"}'),
    ('previous_visit', '{"table": "t28.t28_sink", "match": {"subject_key": "subject"}, "item": "weight", "column": "weight", "max_change": 5}'),
    ('previous_visit', '{"table": "t28.t28_sink", "match": {"subject_key": "subject"}, "item": "weight", "column": "weight", "no_previous": "pass"}'),
    ('previous_visit', '{"table": "t28.t28_sink", "match": {"subject_key": "subject"}, "item": "weight", "column": "weight", "max_change": 5, "no_previous": "fail"}'),
    ('previous_visit', '{"table": "t28.t28_sink", "match": {"subject_key": "subject"}, "item": "weight", "column": "weight", "relation": "~", "no_previous": "pass"}'),
    ('cross_form', '{"table": "t28.other_form", "match": {"subject_key": "subject"}, "item": "weight", "column": "weight", "relation": "=", "no_row": "warning"}'),
    ('unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1}}'), ('unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 0}, "minimum": 1}'),
    ('unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": {"times": 2}}, "minimum": 1}'), ('unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": {"divide": 0}}, "minimum": 1}'),
    ('unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": "1"}, "minimum": 1}'),
    ('outlier', '{"item": "pulse"}'), ('outlier', '{"item": "pulse", "mean": 70}'), ('outlier', '{"item": "pulse", "mean": 70, "sd": 0}'), ('outlier', '{"item": "pulse", "low": 1, "mean": 70, "sd": 1}'),
    (NULL, '{}'), ('outlier', NULL);
DO $$
DECLARE
    r record;
    said text;
    hint text;
BEGIN
    FOR r IN SELECT * FROM tried ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.add_check('t28', 'tried', r.kind, r.params);
            said := 'accepted';
            PERFORM epro_etl.remove_edit_check('t28', 'tried');
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            said := SQLSTATE || ' ' || SQLERRM || coalesce(' | ' || nullif(hint, ''), '');
        END;
        RAISE INFO '% %  ->  %', r.kind, r.params, said;
    END LOOP;
END $$;
SELECT epro_etl.add_check('t28', 'far', 'outlier', '{"item": "pulse", "low": 40}', 'error');
SELECT epro_etl.add_check('t28', 'far', 'outlier', '{"item": "pulse", "low": 40}', 'fatal');
SELECT epro_etl.add_check('none', 'far', 'outlier', '{"item": "pulse", "low": 40}');
SELECT count(*) AS left_behind FROM epro_etl.edit_check WHERE form = 't28' AND removed_at IS NULL;

-- one of each, and what it becomes
SELECT epro_etl.add_check('t28', 'null flavour', 'null_flavour', '{"item": "status", "codes": ["ND", "UNK"], "excuses": ["packs", "years"]}', condition => 'study = ''NF''');
SELECT epro_etl.add_check('t28', 'one at least', 'at_least_one', '{"items": ["a", "b", "c"]}', condition => 'study = ''ALO''');
SELECT epro_etl.add_check('t28', 'one ticked', 'at_least_one', '{"items": ["a", "b", "c"], "value": true}', condition => 'study = ''ALT''');
SELECT epro_etl.add_check('t28', 'just one', 'exactly_one', '{"items": ["a", "b", "c"], "value": true}', condition => 'study = ''EX''', message => 'tick one box');
SELECT epro_etl.add_check('t28', 'packs if smoker', 'required_if', '{"items": ["packs", "years"], "when": {"smoker": "Y"}}', 'warning', 'study = ''RI''');
SELECT epro_etl.add_check('t28', 'packs of smokers', 'blank_unless', '{"items": ["packs"], "when": {"smoker": ["Y"]}}', condition => 'study = ''BU''');
SELECT epro_etl.add_check('t28', 'month', 'required_precision', '{"item": "onset", "precision": "month"}', condition => 'study = ''RP''');
SELECT epro_etl.add_check('t28', 'past', 'not_future', '{"item": "onset"}', condition => 'study = ''NF1''');
SELECT epro_etl.add_check('t28', 'past day', 'not_future', '{"item": "born", "time_zone": "Asia/Tokyo"}', condition => 'study = ''NF2''');
SELECT epro_etl.add_check('t28', 'past moment', 'not_future', '{"item": "seen"}', condition => 'study = ''NF3''');
SELECT epro_etl.add_check('t28', 'order', 'start_before_end', '{"start": "onset", "end": "resolved"}', condition => 'study = ''SE''');
SELECT epro_etl.add_check('t28', 'order, strictly', 'start_before_end', '{"start": "onset", "end": "dose", "allow_equal": false}', condition => 'study = ''SES''');
SELECT epro_etl.add_check('t28', 'study day', 'study_day', '{"item": "day", "date": "onset", "reference": "dose"}', condition => 'study = ''SD''');
SELECT epro_etl.add_check('t28', 'window', 'visit_window', '{"anchor": "dose", "target": 7, "before": 1, "after": 2}', condition => 'study = ''VW''');
SELECT epro_etl.add_check('t28', 'window before', 'visit_window', '{"anchor": "dose", "target": -7, "before": 1, "after": 2}', condition => 'study = ''VWB''');
SELECT epro_etl.add_check('t28', 'windows', 'visit_window', '{"anchor": {"table": "t28.enrolled", "column": "first_dose", "match": {"study": "study", "subject_key": "subject"}},
    "windows": {"BASELINE": [1, 0, 0], "WEEK 2": [14, 3, 3]}, "timeout": "10 s"}', condition => 'study = ''VWT''');
SELECT epro_etl.add_check('t28', 'key', 'unique_key', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject", "visit": "visit"}, "timeout": "10 s"}', condition => 'study = ''UK''');
SELECT epro_etl.add_check('t28', 'conflict', 'unique_key', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject", "visit": "visit"}, "compare": {"packs": "packs", "pulse": "pulse"}}', condition => 'study = ''UC''');
SELECT epro_etl.add_check('t28', 'site', 'reference_exists', '{"table": "t28.site", "match": {"code": "site", "is_open": {"value": true}}}', condition => 'study = ''RE''');
SELECT epro_etl.add_check('t28', 'weight change', 'previous_visit', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject"}, "item": "weight", "column": "weight",
    "max_change": 5, "no_previous": "not evaluated"}', condition => 'study = ''PV''');
SELECT epro_etl.add_check('t28', 'grows', 'previous_visit', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject"}, "item": "weight", "column": "weight",
    "relation": ">=", "no_previous": "warning"}', condition => 'study = ''PW''');
SELECT epro_etl.add_check('t28', 'grows or first', 'previous_visit', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject"}, "item": "vitals.height", "column": "vitals_height",
    "relation": ">=", "no_previous": "pass"}', condition => 'study = ''PP''');
SELECT epro_etl.add_check('t28', 'as elsewhere', 'cross_form', '{"table": "t28.other_form", "match": {"subject_key": "subject", "visit": "visit"}, "item": "weight", "column": "weight", "relation": "="}', condition => 'study = ''CF''');
SELECT epro_etl.add_check('t28', 'elsewhere or none', 'cross_form', '{"table": "t28.other_form", "match": {"subject_key": "subject", "visit": "visit"}, "item": "weight", "column": "weight", "relation": "=", "no_row": "pass"}', condition => 'study = ''CP''');
SELECT epro_etl.add_check('t28', 'weight', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"kg": 1, "g": 0.001, "lb": 0.45359237, "st": {"multiply": 635029318, "divide": 100000000}}, "minimum": 30, "maximum": 250}', condition => 'study = ''UN''');
SELECT epro_etl.add_check('t28', 'temperature', 'unit_conversion', '{"item": "weight", "unit": "unit", "units": {"Cel": 1, "[degF]": {"add": -32, "multiply": 5, "divide": 9}}, "minimum": 34, "maximum": 42}', condition => 'study = ''UT''');
SELECT epro_etl.add_check('t28', 'pulse', 'outlier', '{"item": "pulse", "mean": 72, "sd": 12}', condition => 'study = ''OU''');
SELECT epro_etl.add_check('t28', 'pulse low', 'outlier', '{"item": "pulse", "low": 40, "high": 180}', 'information', 'study = ''OL''');
\pset format unaligned
SELECT check_name, kind, severity, timeout, on_timeout, expression FROM epro_etl.edit_check WHERE form = 't28' AND removed_at IS NULL ORDER BY check_id;
\pset format aligned
SELECT DISTINCT kind FROM epro_etl.edit_check WHERE form = 't28' AND removed_at IS NULL ORDER BY 1;

-- and how each judges
INSERT INTO site VALUES ('S1', true), ('S2', false), ('S3', NULL);
INSERT INTO enrolled SELECT 'VWT', probe.subject_key('VWT', p), '2026-03-01' FROM unnest('{P1,P2,P3}'::text[]) p;
INSERT INTO other_form SELECT probe.subject_key(s, 'P1'), v, 70 FROM unnest('{CF,CP}'::text[]) s, unnest('{V1,V2}'::text[]) v;
INSERT INTO t28_sink (source_id, study, subject_key, form, form_version, visit, authored, packs, pulse, weight, vitals_height, run_id, loaded_at)
SELECT -row_number() OVER (), s, probe.subject_key(s, 'P1'), 't28', '1', 'V1', a, 1, 60, w, w, 0, now()
FROM unnest('{UK,UC,PV,PW,PP}'::text[]) s, (VALUES ('2026-02-01'::timestamptz, 50), ('2026-02-15', 70)) AS v (a, w);
CREATE TABLE expected (study text, n int, want text, subject text, visit text, payload jsonb);
INSERT INTO expected VALUES
    ('NF', 1, 'holds', 'P1', 'V1', '{"status": "DONE", "packs": 1, "years": 2}'), ('NF', 2, 'holds', 'P1', 'V1', '{"status": "ND"}'), ('NF', 3, 'holds', 'P1', 'V1', '{"packs": 1, "years": 2}'),
    ('NF', 4, 'check', 'P1', 'V1', '{"status": "UNK", "packs": 1}'), ('NF', 5, 'check', 'P1', 'V1', '{"status": "DONE", "packs": 1}'), ('NF', 6, 'check', 'P1', 'V1', '{}'),
    ('ALO', 1, 'holds', 'P1', 'V1', '{"b": false}'), ('ALO', 2, 'check', 'P1', 'V1', '{}'),
    ('ALT', 1, 'holds', 'P1', 'V1', '{"a": true, "b": true}'), ('ALT', 2, 'check', 'P1', 'V1', '{"b": false}'),
    ('EX', 1, 'holds', 'P1', 'V1', '{"a": true, "b": false}'), ('EX', 2, 'check', 'P1', 'V1', '{"a": true, "c": true}'), ('EX', 3, 'check', 'P1', 'V1', '{}'),
    ('RI', 1, 'holds', 'P1', 'V1', '{"smoker": "Y", "packs": 1, "years": 1}'), ('RI', 2, 'holds', 'P1', 'V1', '{"smoker": "N"}'), ('RI', 3, 'holds', 'P1', 'V1', '{"packs": 1, "years": 1}'),
    ('RI', 4, 'check', 'P1', 'V1', '{"smoker": "Y", "packs": 1}'), ('RI', 5, 'not evaluated', 'P1', 'V1', '{"packs": 1}'),
    ('BU', 1, 'holds', 'P1', 'V1', '{"smoker": "Y", "packs": 1}'), ('BU', 2, 'holds', 'P1', 'V1', '{"smoker": "N"}'), ('BU', 3, 'holds', 'P1', 'V1', '{}'),
    ('BU', 4, 'check', 'P1', 'V1', '{"smoker": "N", "packs": 1}'), ('BU', 5, 'not evaluated', 'P1', 'V1', '{"packs": 1}'),
    ('RP', 1, 'holds', 'P1', 'V1', '{"onset": "2025-11"}'), ('RP', 2, 'holds', 'P1', 'V1', '{"onset": "2025-11-UN"}'), ('RP', 3, 'check', 'P1', 'V1', '{"onset": "2025-UNK-UNK"}'),
    ('RP', 4, 'check', 'P1', 'V1', '{"onset": "last year"}'), ('RP', 5, 'not evaluated', 'P1', 'V1', '{}'),
    ('NF1', 1, 'holds', 'P1', 'V1', '{"onset": "2026-03-01"}'), ('NF1', 2, 'holds', 'P1', 'V1', '{"onset": "2026-02"}'), ('NF1', 3, 'check', 'P1', 'V1', '{"onset": "2026-04"}'),
    ('NF1', 4, 'check', 'P1', 'V1', '{"onset": "2026-03-02"}'), ('NF1', 5, 'not evaluated', 'P1', 'V1', '{"onset": "2026-03"}'), ('NF1', 6, 'not evaluated', 'P1', 'V1', '{"onset": "soon"}'),
    ('NF2', 1, 'holds', 'P1', 'V1', '{"born": "2026-03-02"}'), ('NF2', 2, 'check', 'P1', 'V1', '{"born": "2026-03-03"}'), ('NF2', 3, 'not evaluated', 'P1', 'V1', '{}'),
    ('NF3', 1, 'holds', 'P1', 'V1', '{"seen": "2026-03-01T23:30:00Z"}'), ('NF3', 2, 'check', 'P1', 'V1', '{"seen": "2026-03-01T23:30:01Z"}'), ('NF3', 3, 'not evaluated', 'P1', 'V1', '{}'),
    ('SE', 1, 'holds', 'P1', 'V1', '{"onset": "2025", "resolved": "2026-01"}'), ('SE', 2, 'holds', 'P1', 'V1', '{"onset": "2025-01-01", "resolved": "2025-01-01"}'),
    ('SE', 3, 'check', 'P1', 'V1', '{"onset": "2025-02", "resolved": "2025-01-31"}'), ('SE', 4, 'not evaluated', 'P1', 'V1', '{"onset": "2025-02", "resolved": "2025-02-20"}'),
    ('SE', 5, 'not evaluated', 'P1', 'V1', '{"onset": "2025-02"}'),
    ('SES', 1, 'holds', 'P1', 'V1', '{"onset": "2025-01", "dose": "2025-02-01"}'), ('SES', 2, 'check', 'P1', 'V1', '{"onset": "2025-02-01", "dose": "2025-02-01"}'),
    ('SES', 3, 'not evaluated', 'P1', 'V1', '{"onset": "2025-01", "dose": "2025-01-31"}'), ('SES', 4, 'check', 'P1', 'V1', '{"onset": "2025-02", "dose": "2025-02-01"}'),
    ('SD', 1, 'holds', 'P1', 'V1', '{"day": 1, "onset": "2026-03-01", "dose": "2026-03-01"}'), ('SD', 2, 'holds', 'P1', 'V1', '{"day": -1, "onset": "2026-02-28", "dose": "2026-03-01"}'),
    ('SD', 3, 'check', 'P1', 'V1', '{"day": 0, "onset": "2026-03-01", "dose": "2026-03-01"}'), ('SD', 4, 'not evaluated', 'P1', 'V1', '{"day": 1, "onset": "2026-03", "dose": "2026-03-01"}'),
    ('VW', 1, 'holds', 'P1', 'V1', '{"dose": "2026-02-23"}'), ('VW', 2, 'holds', 'P1', 'V1', '{"dose": "2026-02-21"}'), ('VW', 3, 'check', 'P1', 'V1', '{"dose": "2026-02-20"}'),
    ('VW', 4, 'holds', 'P1', 'V1', '{"dose": "2026-02-24"}'), ('VW', 5, 'check', 'P1', 'V1', '{"dose": "2026-02-25"}'), ('VW', 6, 'not evaluated', 'P1', 'V1', '{}'),
    ('VWB', 1, 'holds', 'P1', 'V1', '{"dose": "2026-03-08"}'), ('VWB', 2, 'holds', 'P1', 'V1', '{"dose": "2026-03-06"}'), ('VWB', 3, 'check', 'P1', 'V1', '{"dose": "2026-03-05"}'),
    ('VWT', 1, 'holds', 'P1', 'BASELINE', '{}'), ('VWT', 2, 'check', 'P2', 'WEEK 2', '{}'), ('VWT', 3, 'holds', 'P3', 'UNSCHEDULED', '{}'), ('VWT', 4, 'not evaluated', 'P4', 'WEEK 2', '{}'), ('VWT', 5, 'not evaluated', 'P1', NULL, '{}'),
    ('UK', 1, 'holds', 'P1', 'V2', '{}'), ('UK', 2, 'check', 'P1', 'V1', '{}'), ('UK', 3, 'not evaluated', 'P1', NULL, '{}'),
    ('UC', 1, 'holds', 'P1', 'V1', '{"packs": 1, "pulse": 60}'), ('UC', 2, 'check', 'P1', 'V1', '{"packs": 1, "pulse": 61}'), ('UC', 3, 'holds', 'P2', 'V1', '{"packs": 9, "pulse": 61}'), ('UC', 4, 'not evaluated', 'P1', 'V1', '{"packs": 1}'),
    ('RE', 1, 'holds', 'P1', 'V1', '{"site": "S1"}'), ('RE', 2, 'check', 'P1', 'V1', '{"site": "S2"}'), ('RE', 3, 'check', 'P1', 'V1', '{"site": "S3"}'), ('RE', 4, 'not evaluated', 'P1', 'V1', '{}'),
    ('PV', 1, 'holds', 'P1', 'V2', '{"weight": 74}'), ('PV', 2, 'check', 'P1', 'V2', '{"weight": 54}'), ('PV', 3, 'not evaluated', 'P2', 'V2', '{"weight": 54}'), ('PV', 4, 'not evaluated', 'P1', 'V2', '{}'),
    ('PW', 1, 'holds', 'P1', 'V2', '{"weight": 74}'), ('PW', 2, 'check', 'P1', 'V2', '{"weight": 54}'), ('PW', 3, 'warning', 'P2', 'V2', '{"weight": 54}'),
    ('PP', 1, 'holds', 'P1', 'V2', '{"vitals": {"height": 74}}'), ('PP', 2, 'check', 'P1', 'V2', '{"vitals": {"height": 54}}'), ('PP', 3, 'holds', 'P2', 'V2', '{"vitals": {"height": 54}}'), ('PP', 4, 'not evaluated', 'P1', 'V2', '{}'),
    ('CF', 1, 'holds', 'P1', 'V1', '{"weight": 70}'), ('CF', 2, 'check', 'P1', 'V1', '{"weight": 71}'), ('CF', 3, 'not evaluated', 'P2', 'V1', '{"weight": 71}'),
    ('CP', 1, 'holds', 'P1', 'V1', '{"weight": 70}'), ('CP', 2, 'check', 'P1', 'V1', '{"weight": 71}'), ('CP', 3, 'holds', 'P2', 'V1', '{"weight": 71}'), ('CP', 4, 'not evaluated', 'P2', 'V1', '{}'),
    ('UN', 1, 'holds', 'P1', 'V1', '{"weight": 70, "unit": "kg"}'), ('UN', 2, 'holds', 'P1', 'V1', '{"weight": 154, "unit": "lb"}'), ('UN', 3, 'holds', 'P1', 'V1', '{"weight": 70000, "unit": "g"}'),
    ('UN', 4, 'check', 'P1', 'V1', '{"weight": 66, "unit": "lb"}'), ('UN', 5, 'check', 'P1', 'V1', '{"weight": 40, "unit": "st"}'), ('UN', 6, 'not evaluated', 'P1', 'V1', '{"weight": 40, "unit": "oz"}'), ('UN', 7, 'not evaluated', 'P1', 'V1', '{"weight": 40}'),
    ('UT', 1, 'holds', 'P1', 'V1', '{"weight": 98.6, "unit": "[degF]"}'), ('UT', 2, 'check', 'P1', 'V1', '{"weight": 98.6, "unit": "Cel"}'),
    ('OU', 1, 'holds', 'P1', 'V1', '{"pulse": 108}'), ('OU', 2, 'check', 'P1', 'V1', '{"pulse": 109}'), ('OU', 3, 'not evaluated', 'P1', 'V1', '{}'),
    ('OL', 1, 'holds', 'P1', 'V1', '{"pulse": 40}'), ('OL', 2, 'check', 'P1', 'V1', '{"pulse": 39}'), ('OL', 3, 'not evaluated', 'P1', 'V1', '{}');
CREATE TABLE asked AS SELECT nextval('staged')::int AS id, e.* FROM (SELECT * FROM expected ORDER BY study, n) e;
INSERT INTO staging SELECT id, study, 't28', subject, visit, '2026-03-01 23:30+00', payload FROM asked ORDER BY id;
-- each response is that of its own check: the dry run asks all against the same sink
SELECT status, claimed, loaded, rejected, deferred FROM epro_etl.run('t28', workers => 0, dry_run => true);
CREATE VIEW got AS
    SELECT a.study, a.n, a.want, coalesce(string_agg(CASE f.severity WHEN 'warning' THEN CASE WHEN f.rule LIKE '%: no previous' THEN 'warning' ELSE f.kind END ELSE f.kind END, ', '), 'holds') AS got
    FROM asked a LEFT JOIN probe.last f ON f.source_id = a.id::text GROUP BY 1, 2, 3;
SELECT count(*) AS asked, count(DISTINCT study) AS kinds, count(*) FILTER (WHERE got = want) AS as_wanted FROM got;
SELECT * FROM got WHERE got <> want ORDER BY 1, 2;
SELECT DISTINCT study, rule, kind, severity, message FROM probe.last f JOIN asked a ON f.source_id = a.id::text ORDER BY 1, 2, 3;
-- workers say the same
SELECT status, claimed FROM epro_etl.run('t28', workers => 2, dry_run => true);
SELECT count(*) FILTER (WHERE got = want) AS as_wanted FROM got;

-- what belongs together goes together, and replaces each other
SELECT epro_etl.remove_edit_check('t28', 'grows');
SELECT check_name FROM epro_etl.edit_check WHERE form = 't28' AND kind = 'previous_visit' AND removed_at IS NULL ORDER BY 1;
SELECT epro_etl.add_check('t28', 'grows', 'previous_visit', '{"table": "t28.t28_sink", "match": {"study": "study", "subject_key": "subject"}, "item": "weight", "column": "weight", "relation": ">=", "no_previous": "warning"}');
SELECT epro_etl.add_edit_check('t28', 'grows', 'weight > 0');
SELECT check_name, kind, params FROM epro_etl.edit_check WHERE form = 't28' AND check_name LIKE 'grows%' AND removed_at IS NULL ORDER BY 1;
-- an identical resend is skipped, another one rejected, where the sink has the key
SELECT epro_etl.register_form('t28_diary', '{"properties": {"pain": {"type": "integer"}}}');
CREATE TABLE diary (study text, subject_key text, visit text, pain int, UNIQUE (study, subject_key, visit));
SELECT epro_etl.create_pipeline('t28_diary', 'staging');
SELECT epro_etl.add_sink('t28_diary', 't28_diary', 'diary', on_duplicate => 'ignore');
SELECT epro_etl.add_check('t28_diary', 'conflict', 'unique_key', '{"table": "t28.diary", "match": {"study": "study", "subject_key": "subject", "visit": "visit"}, "compare": {"pain": "pain"}}');
DELETE FROM staging;
SELECT probe.put('t28_diary', '{"pain": 1}');
SELECT status, loaded, rejected FROM epro_etl.run('t28_diary', workers => 0);
SELECT probe.put('t28_diary', '{"pain": 1}');
SELECT probe.put('t28_diary', '{"pain": 2}');
SELECT status, loaded, rejected FROM epro_etl.run('t28_diary', workers => 0);
SELECT rule, kind, message FROM probe.last;
SELECT study, visit, pain FROM diary;
SELECT probe.close_area('t28');
