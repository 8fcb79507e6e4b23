-- The six forms and their edit checks.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET search_path = pilot;

\set definition `cat "$PILOT_FORMS/ADAS.json"`
SELECT epro_etl.register_form('ADAS', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/CIBIC.json"`
SELECT epro_etl.register_form('CIBIC', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/DAD.json"`
SELECT epro_etl.register_form('DAD', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/HACHINSKI.json"`
SELECT epro_etl.register_form('HACHINSKI', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/MMSE.json"`
SELECT epro_etl.register_form('MMSE', :'definition') \g /dev/null
\set definition `cat "$PILOT_FORMS/NPIX.json"`
SELECT epro_etl.register_form('NPIX', :'definition') \g /dev/null

SELECT same('forms: the items are the ones that were collected',
    'SELECT f.form, i.name FROM unnest(''{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}''::text[]) AS f (form), epro_etl.form_items(f.form) AS i',
    'SELECT DISTINCT form, item FROM answer');

BEGIN;
SET LOCAL client_min_messages = warning;

-- The total is that of the ADAS-Cog 11: not delayed recall (03), visual search
-- (09) and the maze (10). Without a condition: where one of the eleven is
-- missing it must be reported as not evaluated.
SELECT epro_etl.add_edit_check('ADAS', 'total',
    'actot = acitm01 + acitm02 + acitm04 + acitm05 + acitm06 + acitm07 + acitm08 + acitm11 + acitm12 + acitm13 + acitm14',
    severity => 'warning', message => 'the total is not the sum of the eleven items') \g /dev/null

-- With items missing, the total is the share of the points that could be had,
-- of 70. An answer that is no integer is none here, so a total that counts it
-- is reported.
SELECT epro_etl.add_edit_check('ADAS', 'scaled',
    'round(actot, 9) = round(70.0 * (coalesce(acitm01, 0) + coalesce(acitm02, 0) + coalesce(acitm04, 0) +'
    ' coalesce(acitm05, 0) + coalesce(acitm06, 0) + coalesce(acitm07, 0) + coalesce(acitm08, 0) +'
    ' coalesce(acitm11, 0) + coalesce(acitm12, 0) + coalesce(acitm13, 0) + coalesce(acitm14, 0)) /'
    ' (10 * num_nonnulls(acitm01) + 8 * num_nonnulls(acitm07) + 12 * num_nonnulls(acitm08) +'
    ' 5 * num_nonnulls(acitm02, acitm04, acitm05, acitm06, acitm11, acitm12, acitm13, acitm14)), 9)',
    severity => 'warning',
    condition => 'num_nulls(acitm01, acitm02, acitm04, acitm05, acitm06, acitm07, acitm08, acitm11, acitm12, acitm13, acitm14)'
                 ' BETWEEN 1 AND 10',
    message => 'the total is not the scaled sum of the items that are there') \g /dev/null

-- A change since baseline cannot be rated at baseline.
SELECT epro_etl.add_edit_check('CIBIC', 'visit', 'visit <> ''BASELINE''',
    message => 'a change since baseline, rated at baseline') \g /dev/null

-- The score is a share of the activities that apply.
SELECT epro_etl.add_edit_check('DAD', 'applicable',
    format('cardinality(array_remove(ARRAY[%s], ''NA'')) >= 30',
           (SELECT string_agg(format('daitm%s', lpad(n::text, 2, '0')), ', ') FROM generate_series(1, 40) AS n)),
    severity => 'information', message => 'more than a quarter of the activities does not apply') \g /dev/null

-- Who may enter the study: at most 4 points (abrupt onset, fluctuating course,
-- strokes and focal symptoms and signs count double), and 10 to 23 points.
SELECT epro_etl.add_edit_check('HACHINSKI', 'entry',
    (SELECT string_agg(format('%s * (mhitm%s = ''PRESENT'')::int',
                              CASE WHEN n IN (1, 3, 10, 12, 13) THEN 2 ELSE 1 END, lpad(n::text, 2, '0')), ' + ')
     FROM generate_series(1, 13) AS n) || ' <= 4',
    severity => 'warning', message => 'above the limit for entry') \g /dev/null
SELECT epro_etl.add_edit_check('MMSE', 'entry',
    'mmitm01 + mmitm02 + mmitm03 + mmitm04 + mmitm05 + mmitm06 BETWEEN 10 AND 23',
    severity => 'warning', message => 'outside the limits for entry') \g /dev/null

-- Each of the twelve domains of the NPI-X:
--   score     frequency times severity is the score
--   screened  it was screened out, or frequency and severity are there
--   distress  with a frequency, the caregiver was asked too
--   absent    what was screened out has a score of 0 and nothing else
SELECT epro_etl.add_edit_check('NPIX', 'score' || d.nn,
           format('npitm%1$sf * npitm%1$sv = npitm%1$ss', d.nn), severity => 'warning',
           condition => format('npitm%1$sf IS NOT NULL AND npitm%1$sv IS NOT NULL', d.nn),
           message => 'frequency times severity is not the score'),
       epro_etl.add_edit_check('NPIX', 'screened' || d.nn,
           format('npitm%1$s IS NOT NULL OR (npitm%1$sf IS NOT NULL AND npitm%1$sv IS NOT NULL)', d.nn), severity => 'warning',
           message => 'neither screened out nor given with frequency and severity'),
       epro_etl.add_edit_check('NPIX', 'distress' || d.nn,
           format('npitm%1$sd IS NOT NULL', d.nn), severity => 'information',
           condition => format('npitm%1$sf IS NOT NULL', d.nn),
           message => 'the distress of the caregiver is not given'),
       epro_etl.add_edit_check('NPIX', 'absent' || d.nn,
           format('npitm%1$ss = 0 AND num_nonnulls(npitm%1$sf, npitm%1$sv, npitm%1$sd) = 0', d.nn), severity => 'warning',
           condition => format('coalesce(npitm%1$s, '''') = ''ABSENT''', d.nn),
           message => 'screened out, but with a score or its parts')
FROM (SELECT lpad(n::text, 2, '0') AS nn FROM generate_series(1, 12) AS n) AS d \g /dev/null

-- The total is that of nine domains: not euphoria (06), night-time behaviour
-- (11) and appetite (12), which the study has left unscored; scaled as above.
SELECT epro_etl.add_edit_check('NPIX', 'total',
    'nptot = npitm01s + npitm02s + npitm03s + npitm04s + npitm05s + npitm07s + npitm08s + npitm09s + npitm10s',
    severity => 'warning', message => 'the total is not the sum of the nine scores') \g /dev/null
SELECT epro_etl.add_edit_check('NPIX', 'scaled',
    'round(nptot, 9) = round(9.0 * (coalesce(npitm01s, 0) + coalesce(npitm02s, 0) + coalesce(npitm03s, 0) +'
    ' coalesce(npitm04s, 0) + coalesce(npitm05s, 0) + coalesce(npitm07s, 0) + coalesce(npitm08s, 0) +'
    ' coalesce(npitm09s, 0) + coalesce(npitm10s, 0)) / num_nonnulls(npitm01s, npitm02s, npitm03s, npitm04s,'
    ' npitm05s, npitm07s, npitm08s, npitm09s, npitm10s), 9)',
    severity => 'warning',
    condition => 'num_nulls(npitm01s, npitm02s, npitm03s, npitm04s, npitm05s, npitm07s, npitm08s, npitm09s, npitm10s)'
                 ' BETWEEN 1 AND 8',
    message => 'the total is not the scaled sum of the scores that are there') \g /dev/null
COMMIT;

SELECT ok(count(*) = 56, 'forms: each edit check of the list was taken', count(*)::text)
FROM epro_etl.edit_check WHERE removed_at IS NULL;
