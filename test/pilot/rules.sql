-- Scores, visit windows and partial dates of the study, declared as kinds of edit
-- checks, against plain SQL over the same files. Needs the load with 0 workers,
-- which tells the pseudonyms of the subjects.
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE SCHEMA rules;
SET search_path = rules, pilot;
SET DateStyle = 'ISO';

CREATE TABLE dm (studyid text, domain text, usubjid text PRIMARY KEY, subjid text, rfstdtc text, rfendtc text, rfxstdtc text, rfxendtc text, rficdtc text, rfpendtc text,
    dthdtc text, dthfl text, siteid text, age text, ageu text, sex text, race text, ethnic text, armcd text, arm text, actarmcd text, actarm text, country text, dmdtc text, dmdy text);
\copy dm FROM PROGRAM 'zcat "$EPRO_DATA/cdisc-pilot/dm.csv.gz"' WITH (FORMAT csv, HEADER)
CREATE TABLE sv (n bigint GENERATED ALWAYS AS IDENTITY, studyid text, domain text, usubjid text, visitnum text, visit text, visitdy int, svstdtc text, svendtc text);
\copy sv (studyid, domain, usubjid, visitnum, visit, visitdy, svstdtc, svendtc) FROM PROGRAM 'zcat "$EPRO_DATA/cdisc-pilot/sv.csv.gz"' WITH (FORMAT csv, HEADER)
CREATE TABLE cm (n bigint GENERATED ALWAYS AS IDENTITY, studyid text, domain text, usubjid text, cmseq text, cmspid text, cmtrt text, cmdecod text, cmindc text, cmclas text, cmdose text, cmdosu text,
    cmdosfrq text, cmroute text, visitnum text, visit text, visitdy text, cmdtc text, cmstdtc text, cmendtc text, cmstdy int, cmendy int);
\copy cm (studyid, domain, usubjid, cmseq, cmspid, cmtrt, cmdecod, cmindc, cmclas, cmdose, cmdosu, cmdosfrq, cmroute, visitnum, visit, visitdy, cmdtc, cmstdtc, cmendtc, cmstdy, cmendy) FROM PROGRAM 'zcat "$EPRO_DATA/cdisc-pilot/cm.csv.gz"' WITH (FORMAT csv, HEADER)
SELECT ok((SELECT count(*) FROM dm) = 306 AND (SELECT count(*) FROM sv) = 3559 AND (SELECT count(*) FROM cm) = 7510, 'rules: the files are the ones described');

-- The reference date of each subject, as a clinical table has it: by pseudonym.
CREATE TABLE reference AS
SELECT DISTINCT a.subject_key, dm.rfstdtc::date AS first_dose
FROM w0.arrived a JOIN raw ON raw.id = a.source_id JOIN dm ON dm.usubjid = raw.doc ->> 'subject';

-- The two scored instruments once more, with their totals computed and verified.
\set definition `cat "$PILOT_FORMS/ADAS.json"`
SELECT epro_etl.register_form('ADAS SCORED', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/NPIX.json"`
SELECT epro_etl.register_form('NPIX SCORED', :'definition') \g /dev/null
CREATE TABLE scored (form text, total text, spec jsonb);
INSERT INTO scored VALUES
    ('ADAS SCORED', 'ACTOT', '{"items": ["ACITM01", "ACITM02", "ACITM04", "ACITM05", "ACITM06", "ACITM07", "ACITM08", "ACITM11", "ACITM12", "ACITM13", "ACITM14"],
        "ranges": {"ACITM01": [0, 10], "ACITM02": [0, 5], "ACITM04": [0, 5], "ACITM05": [0, 5], "ACITM06": [0, 5], "ACITM07": [0, 8], "ACITM08": [0, 12],
                   "ACITM11": [0, 5], "ACITM12": [0, 5], "ACITM13": [0, 5], "ACITM14": [0, 5]}, "min_answered": 1, "missing": "maxima", "round": 6}'),
    ('NPIX SCORED', 'NPTOT', '{"items": ["NPITM01S", "NPITM02S", "NPITM03S", "NPITM04S", "NPITM05S", "NPITM07S", "NPITM08S", "NPITM09S", "NPITM10S"],
        "range": [0, 12], "min_answered": 1, "missing": "prorate", "round": 6}');
SELECT epro_etl.add_score(form, 'computed', spec),
       epro_etl.add_score(form, 'stated total', spec || jsonb_build_object('mode', 'verify', 'stated', total, 'tolerance', 0.000001)) FROM scored \g /dev/null

SELECT epro_etl.register_form('SV', '{"type": "object", "properties": {"end": {"type": "string", "format": "date"}}}') \g /dev/null
SELECT epro_etl.register_form('CM', '{"type": "object", "x-normalise": ["blank"], "properties": {"start": {"type": "string"}, "end": {"type": "string"},
    "start_day": {"type": "integer"}, "first_dose": {"type": "string", "format": "date"}}}') \g /dev/null
SELECT epro_etl.add_check('SV', 'window', 'visit_window', jsonb_build_object('anchor', '{"table": "rules.reference", "column": "first_dose", "match": {"subject_key": "subject"}}'::jsonb,
    'windows', (SELECT jsonb_object_agg(visit, jsonb_build_array(visitdy, 3, 3)) FROM (SELECT DISTINCT visit, visitdy FROM sv WHERE visitdy IS NOT NULL) v), 'timeout', '10 s'), 'warning'),
    epro_etl.add_check('CM', 'year', 'required_precision', '{"item": "start", "precision": "year"}', 'warning'),
    epro_etl.add_check('CM', 'month', 'required_precision', '{"item": "start", "precision": "month"}', 'information'),
    epro_etl.add_check('CM', 'day', 'required_precision', '{"item": "start", "precision": "day"}', 'information'),
    epro_etl.add_check('CM', 'order', 'start_before_end', '{"start": "start", "end": "end"}', 'warning', '"end" IS NOT NULL'),
    epro_etl.add_check('CM', 'past', 'not_future', '{"item": "start"}', 'warning'),
    epro_etl.add_check('CM', 'study day', 'study_day', '{"item": "start_day", "date": "start", "reference": "first_dose"}', 'warning', 'start_day IS NOT NULL') \g /dev/null

CREATE TABLE staging (id text PRIMARY KEY, instrument text, subject text, visit text, authored timestamptz, answers jsonb);
INSERT INTO staging
SELECT 'QS' || id, doc ->> 'instrument' || ' SCORED', doc ->> 'subject', doc ->> 'visit', (doc ->> 'date')::timestamp AT TIME ZONE 'UTC', doc -> 'answers' FROM raw WHERE doc ->> 'instrument' IN ('ADAS', 'NPIX')
UNION ALL SELECT 'SV' || n, 'SV', usubjid, visit, svstdtc::timestamp AT TIME ZONE 'UTC', jsonb_strip_nulls(jsonb_build_object('end', svendtc)) FROM sv
UNION ALL SELECT 'CM' || n, 'CM', usubjid, visit, cm.cmdtc::timestamp AT TIME ZONE 'UTC',
    jsonb_strip_nulls(jsonb_build_object('start', cmstdtc, 'end', cmendtc, 'start_day', cmstdy, 'first_dose', nullif(rfstdtc, ''))) FROM cm LEFT JOIN dm USING (usubjid);
SELECT epro_etl.create_pipeline('pilot_rules', 'rules.staging', '{"study": {"value": "CDISCPILOT01"}, "form": "instrument", "payload": "answers"}') \g /dev/null
SELECT epro_etl.create_sink('pilot_rules', form, 'rules.loaded_' || replace(lower(form), ' ', '_')) FROM unnest('{ADAS SCORED,NPIX SCORED,SV,CM}'::text[]) form \g /dev/null
SELECT run_id, status, claimed, loaded FROM epro_etl.run('pilot_rules', workers => 2) \gset run_
CREATE VIEW told AS SELECT source_id, form, location, rule, kind, severity FROM epro_etl.finding WHERE run_id = :run_run_id;
SELECT ok(:'run_status' = 'succeeded' AND :run_claimed = (SELECT count(*) FROM raw WHERE doc ->> 'instrument' IN ('ADAS', 'NPIX')) + 3559 + 7510, 'rules: all forms, visits and medications were judged', :run_claimed || ' responses');

-- 1. Scores, from the raw answers: what the items that are there give, and what it is held against.
CREATE TABLE total AS
SELECT id, form || ' SCORED' AS form, count(*) FILTER (WHERE part) AS there,
       round(CASE form WHEN 'ADAS' THEN 70 * sum(text::numeric) FILTER (WHERE part) / sum(highest) FILTER (WHERE part) ELSE 9 * avg(text::numeric) FILTER (WHERE part) END, 6) AS computed,
       bool_or(text::numeric > highest) FILTER (WHERE part) IS TRUE AS beyond, max(CASE WHEN item IN ('ACTOT', 'NPTOT') THEN text::numeric END) AS stated
FROM (SELECT *, CASE form WHEN 'ADAS' THEN item !~ '(03|09|10|TOT)$' ELSE item ~ '(01|02|03|04|05|07|08|09|10)S$' END AS part
      FROM judged WHERE form IN ('ADAS', 'NPIX') AND fits) AS f
GROUP BY id, form;
INSERT INTO total (id, form, there, beyond) SELECT id, doc ->> 'instrument' || ' SCORED', 0, false FROM raw WHERE doc ->> 'instrument' IN ('ADAS', 'NPIX') AND id NOT IN (SELECT id FROM total);
CREATE TABLE verdict AS
SELECT 'QS' || id AS source_id, form, CASE WHEN there = 0 OR beyond THEN NULL ELSE computed END AS computed,
       CASE WHEN there = 0 OR beyond THEN NULL ELSE abs(stated - computed) <= 0.000001 END AS agrees FROM total;
SELECT same('rules: scores that disagree with the stated total, or cannot be held against it',
    $$SELECT source_id, form, kind FROM told WHERE rule = 'stated total'$$,
    $$SELECT source_id, form, CASE WHEN agrees IS NULL THEN 'not evaluated' ELSE 'check' END FROM verdict WHERE agrees IS NOT TRUE$$);
SELECT same('rules: scores that were computed, each in its own column',
    $$SELECT source_id, computed FROM loaded_adas_scored UNION ALL SELECT source_id, computed FROM loaded_npix_scored$$,
    $$SELECT source_id, computed FROM verdict WHERE source_id NOT IN (SELECT source_id FROM told WHERE severity = 'error')$$);
SELECT ok(count(*) = (SELECT count(*) FROM told WHERE rule = 'computed'), 'rules: a score that could not be computed is told', count(*)::text) FROM verdict WHERE computed IS NULL;
SELECT format('      %s: %s forms, %s agree with the stated total, %s disagree, %s could not be held against it', form, count(*), count(*) FILTER (WHERE agrees), count(*) FILTER (WHERE NOT agrees), count(*) FILTER (WHERE agrees IS NULL))
FROM verdict GROUP BY form ORDER BY form;

-- 2. Visit windows: three days around the planned day, from the dates alone.
CREATE TABLE visit_verdict AS
SELECT 'SV' || n AS source_id, CASE WHEN usubjid NOT IN (SELECT doc ->> 'subject' FROM raw) THEN NULL WHEN visitdy IS NULL THEN true
       ELSE sv.svstdtc::date BETWEEN planned - 3 AND planned + 3 END AS inside
FROM sv JOIN dm USING (usubjid), LATERAL (SELECT nullif(rfstdtc, '')::date + CASE WHEN visitdy > 0 THEN visitdy - 1 ELSE visitdy END AS planned) p;
SELECT same('rules: visits outside their window, or without a reference date',
    $$SELECT source_id, kind FROM told WHERE rule = 'window'$$,
    $$SELECT source_id, CASE WHEN inside IS NULL THEN 'not evaluated' ELSE 'check' END FROM visit_verdict WHERE inside IS NOT TRUE$$);
SELECT format('      %s visits: %s inside, %s outside, %s without a reference date', count(*), count(*) FILTER (WHERE inside), count(*) FILTER (WHERE NOT inside), count(*) FILTER (WHERE inside IS NULL)) FROM visit_verdict;

-- 3. Partial dates: by precision, and compared as intervals.
SELECT same('rules: partial dates by precision',
    $$SELECT w, coalesce(epro_etl.partial_date_precision(d), 'none'), count(*) FROM cm, LATERAL (VALUES ('start', cmstdtc), ('end', cmendtc), ('taken', cmdtc)) AS v (w, d) GROUP BY 1, 2$$,
    $$SELECT w, CASE length(d) WHEN 4 THEN 'year' WHEN 7 THEN 'month' WHEN 10 THEN 'day' ELSE 'none' END, count(*)
      FROM cm, LATERAL (VALUES ('start', cmstdtc), ('end', cmendtc), ('taken', cmdtc)) AS v (w, d) GROUP BY 1, 2$$);
SELECT same('rules: what is not known to the year, the month or the day',
    $$SELECT source_id, rule, kind FROM told WHERE rule IN ('year', 'month', 'day')$$,
    $$SELECT 'CM' || n, rule, CASE WHEN length(cmstdtc) > 0 THEN 'check' ELSE 'not evaluated' END FROM cm, (VALUES ('year', 4), ('month', 7), ('day', 10)) AS v (rule, needs)
      WHERE coalesce(length(cmstdtc), 0) < needs$$);
CREATE VIEW known AS SELECT 'CM' || n AS source_id, rpad(cmstdtc, 10, '-01-01') AS start_lo, rpad(cmendtc, 10, '-01-01') AS end_lo,
    CASE length(cmstdtc) WHEN 10 THEN cmstdtc WHEN 7 THEN (to_date(cmstdtc, 'YYYY-MM') + interval '1 month - 1 day')::date::text WHEN 4 THEN cmstdtc || '-12-31' END AS start_hi,
    CASE length(cmendtc) WHEN 10 THEN cmendtc WHEN 7 THEN (to_date(cmendtc, 'YYYY-MM') + interval '1 month - 1 day')::date::text WHEN 4 THEN cmendtc || '-12-31' END AS end_hi,
    cmdtc, cmendtc, cmstdtc, cmstdy, nullif(rfstdtc, '')::date AS first_dose FROM cm LEFT JOIN dm USING (usubjid);
SELECT same('rules: medications that end before they start, begin after they are told, or may',
    $$SELECT source_id, rule, kind FROM told WHERE rule IN ('order', 'past')$$,
    $$SELECT source_id, 'order', CASE WHEN start_lo > end_hi THEN 'check' ELSE 'not evaluated' END FROM known WHERE cmendtc <> '' AND (start_hi <= end_lo) IS NOT TRUE
      UNION ALL SELECT source_id, 'past', CASE WHEN start_lo > cmdtc THEN 'check' ELSE 'not evaluated' END FROM known WHERE (start_hi <= cmdtc) IS NOT TRUE$$);
SELECT ok(count(*) = 0 AND (SELECT count(*) FROM known WHERE cmstdy IS NOT NULL) > 1000, 'rules: the study days of the study are those of study_day()',
    (SELECT count(*) FROM known WHERE cmstdy IS NOT NULL)::text || ' of them') FROM told WHERE rule = 'study day';
SELECT format('      medications: %s', string_agg(format('%s %s %s', n, rule, kind), ', ' ORDER BY rule, kind)) FROM (SELECT rule, kind, count(*) AS n FROM told WHERE form = 'CM' GROUP BY 1, 2) t;
