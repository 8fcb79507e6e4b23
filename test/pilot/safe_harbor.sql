-- The study under the profile safe_harbor, by :workers workers: what was found is
-- what was found without, and what it takes out is nowhere.
\set VERBOSITY terse
\set SHOW_CONTEXT never
\set schema s:workers
\set pipeline pilot_s:workers
\set source s:workers .staging
\set is 'safe harbor, workers ' :workers ': '
SET search_path = pilot;

SET client_min_messages = warning;
SELECT epro_etl.apply_deid_profile(form, 'safe_harbor')
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form \g /dev/null
CREATE SCHEMA :schema;
CREATE TABLE :schema.staging AS
SELECT id, doc ->> 'instrument' AS instrument, doc ->> 'subject' AS subject, doc ->> 'visit' AS visit,
       (doc ->> 'date')::date AS collected, doc -> 'answers' AS answers
FROM raw ORDER BY id;
SELECT epro_etl.create_pipeline(:'pipeline', :'source',
    '{"study": {"value": "CDISCPILOT01"}, "form": "instrument", "authored": "collected", "payload": "answers"}') \g /dev/null
SELECT epro_etl.create_sink(:'pipeline', form, :'schema' || '.' || lower(form))
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form \g /dev/null
SET epro_etl.batch_size = 200;
SELECT * FROM epro_etl.run(:'pipeline', workers => :workers, reason => 'safe harbor') \gset run_
SELECT format('CREATE VIEW %I.arrived AS %s', :'schema', string_agg(format('SELECT %L AS sink, source_id, authored, subject_key, to_jsonb(s)'
              ' - ''{source_id,study,subject_key,form,form_version,visit,authored,run_id,loaded_at}''::text[] AS items FROM %I.%I s', lower(form), :'schema', lower(form)), ' UNION ALL '))
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form \gexec
SELECT format('SELECT source_id, form, location, rule, kind, severity, message FROM epro_etl.finding WHERE run_id = %s', :run_run_id) AS found,
       format('SELECT sink, source_id, items - ''key_version'' FROM %I.arrived', :'schema') AS arrived \gset

SELECT same(:'is' || 'the findings are those without', :'found', 'SELECT source_id, form, location, rule, kind, severity, message FROM w0.found');
SELECT same(:'is' || 'what nobody names identifying arrived as without', :'arrived', 'SELECT split_part(sink, ''.'', 2), source_id, items - ''key_version'' FROM w0.arrived');
SELECT ok(count(DISTINCT doc ->> 'subject') = 254 AND count(DISTINCT subject_key) = 254 AND count(DISTINCT (doc ->> 'subject', subject_key)) = 254,
          :'is' || 'one subject_key a subject', count(DISTINCT subject_key)::text)
FROM :schema.arrived JOIN raw ON raw.id = source_id;
SELECT ok(count(*) > 0 AND bool_and(a.authored = date_trunc('year', (doc ->> 'date')::timestamp) AT TIME ZONE 'UTC'), :'is' || 'of when, the year is left', count(*)::text)
FROM :schema.arrived a JOIN raw ON raw.id = source_id;
SELECT ok(count(*) > 0 AND count(*) FILTER (WHERE method = 'redact' OR location = 'authored') = count(*) FILTER (WHERE decided AND location <> 'subject'),
          :'is' || 'the report names what was decided', count(*) FILTER (WHERE NOT decided) || ' items nobody decided about')
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form, epro_etl.deid_report(form);
SELECT ok(min(size) > 0 AND sum(records) FILTER (WHERE below_k) IS NOT NULL, :'is' || 'classes of year and visit are counted', min(size) || ' in the smallest')
FROM epro_etl.k_anonymity((:'schema' || '.mmse')::regclass, '{authored,visit}', 1000);

-- what comes behind is without it
UPDATE epro_etl.deid_rule SET removed_at = now(), removed_by = session_user WHERE removed_at IS NULL;
