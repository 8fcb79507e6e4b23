-- One load (with :workers workers) against the raw file and what was expected.
\set VERBOSITY terse
\set SHOW_CONTEXT never
\set schema w:workers
SET search_path = :schema, pilot;
SET TimeZone = 'America/New_York';
\set is 'workers ' :workers ': '

-- 1. Counts, by form and sink, by rule; then finding by finding.
SELECT same(:'is' || 'counts of each form and its sink',
    'SELECT form, sum(loaded), sum(held) FROM'
    ' (SELECT form, 1 AS loaded, 0 AS held FROM arrived UNION ALL SELECT form, 0, 1 FROM held) AS f GROUP BY form',
    'SELECT form, count(*) FILTER (WHERE loads), count(*) FILTER (WHERE NOT loads) FROM want GROUP BY form');
SELECT same(:'is' || 'each response is in its form''s own sink',
    'SELECT split_part(sink, ''.'', 2), source_id FROM arrived', 'SELECT lower(form), id FROM want WHERE loads');
SELECT same(:'is' || 'counts of each rule',
    'SELECT form, location, rule, kind, severity, count(*) FROM found GROUP BY 1, 2, 3, 4, 5',
    'SELECT form, location, rule, kind, severity, count(*) FROM want_finding GROUP BY 1, 2, 3, 4, 5');
SELECT same(:'is' || 'findings, one by one',
    'SELECT source_id, form, location, rule, kind, severity FROM found',
    'SELECT id::text, form, location, rule, kind, severity FROM want_finding');

-- 2. Every answer of every loaded response, and none that was not given; then
-- what stands beside the answers.
SELECT same(:'is' || 'answers that arrived',
    'SELECT source_id, key, value FROM arrived, jsonb_each_text(items) WHERE value IS NOT NULL',
    'SELECT id, lower(item), text FROM answer JOIN want USING (id) WHERE loads AND text IS NOT NULL');
SELECT same(:'is' || 'columns of the items and their types',
    format('SELECT relname, attname, replace(format_type(atttypid, atttypmod), ''bigint'', ''integer'') FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid'
           ' WHERE relnamespace = %L::regnamespace AND attnum > 0 AND relkind = ''r'' AND attname ~ ''^([a-z]{2}itm|..?tot$|cibic)''',
           :'schema'),
    'SELECT lower(form), lower(item), CASE is_a WHEN ''code'' THEN ''text'' WHEN ''number'' THEN ''numeric'' ELSE is_a END FROM codebook');
SELECT same(:'is' || 'study, form, version, visit and day of what arrived',
    'SELECT source_id, study, form, form_version, visit, authored FROM arrived',
    'SELECT id, ''CDISCPILOT01'', form, ''1'', doc ->> ''visit'', (doc ->> ''date'')::timestamptz FROM want WHERE loads');

-- 3. The oracle: staging, sinks and quarantine are the input, nothing twice;
-- and what is in quarantine is the whole staging row.
SELECT same(:'is' || 'staging, sinks and quarantine are the input',
    'SELECT id FROM staging UNION ALL SELECT source_id FROM arrived UNION ALL SELECT source_id::bigint FROM held',
    'SELECT id FROM raw');
SELECT same(:'is' || 'originals in quarantine',
    'SELECT form, tries, original FROM held',
    'SELECT form, 1, jsonb_build_object(''id'', id, ''instrument'', form, ''subject'', doc -> ''subject'', ''visit'', doc -> ''visit'','
    ' ''collected'', doc -> ''date'', ''answers'', doc -> ''answers'') FROM want WHERE NOT loads');

-- 5. No answer and no subject where everybody may look.
SELECT ok(count(*) = 0, :'is' || 'a message depends on the rule only, not on the response', min(message))
FROM (SELECT min(message) AS message FROM found GROUP BY form, location, rule, kind HAVING count(DISTINCT message) > 1) AS f;
SELECT ok(count(*) = 0, :'is' || 'no message holds an answer of its response', min(message))
FROM (SELECT DISTINCT message, text FROM found JOIN answer ON id = source_id::bigint) AS f
WHERE message ~* ('(^|[^[:alnum:]])' || replace(text, '.', '[.]') || '($|[^[:alnum:]])');
SELECT ok(count(*) = 0, :'is' || 'no subject in findings, ledger and sinks', min(place))
FROM (SELECT 'finding' AS place, f::text AS line FROM found f
      UNION ALL SELECT 'ledger', l::text FROM epro_etl.run_ledger l
      UNION ALL SELECT 'ledger', w::text FROM epro_etl.run_worker w
      UNION ALL SELECT sink, a::text FROM arrived a) AS p
WHERE line ~ '01-7[0-9]{2}-[0-9]{4}';

-- 6. The run's own counts, its history and the reconciliation.
SELECT same(:'is' || 'what run() returned',
    'SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM run',
    format('SELECT ''succeeded'', count(*), count(*) FILTER (WHERE loads), count(*) FILTER (WHERE warns),'
           ' count(*) FILTER (WHERE NOT loads), 0, 0, 0, %s FROM want', :workers));
SELECT same(:'is' || 'what run_history says',
    'SELECT h.status, h.claimed, h.loaded, h.warned, h.rejected, h.duplicate, h.deferred, h.remaining, h.workers,'
    ' h.skipped, h.batch_size, h.reason FROM epro_etl.run_history h JOIN run USING (run_id)',
    'SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers,'
    ' (SELECT count(*) FROM want_finding WHERE kind = ''not evaluated''), 200, ''CDISC pilot study'' FROM run');
SELECT ok(count(*) > 0 AND bool_and(agrees), :'is' || 'reconcile() agrees with itself',
          string_agg(format('%s %s', measure, CASE WHEN agrees THEN ledger::text ELSE format('%s, but %s', ledger, relations) END), ', '))
FROM run, epro_etl.reconcile(run.run_id);
SELECT ok(h.chunks > 5071 / (2 * 200) AND CASE h.workers WHEN 0 THEN a.moments = 1 ELSE a.moments > 1 END AND runs = 1,
          :'is' || 'several chunks, each of its own transaction unless inline',
          format('%s chunks, %s moments of loading', h.chunks, a.moments))
FROM run JOIN epro_etl.run_history h USING (run_id),
     (SELECT count(DISTINCT loaded_at) AS moments, count(DISTINCT run_id) AS runs FROM arrived) AS a;

-- 7. Pseudonyms: one a subject, over all sinks.
SELECT ok(count(*) = 254 AND count(DISTINCT subject) = 254 AND count(DISTINCT subject_key) = 254
          AND bool_and(subject_key ~ '^[0-9a-f]{64}$'), :'is' || 'one subject_key a subject',
          count(DISTINCT subject_key) || ' keys')
FROM (SELECT DISTINCT doc ->> 'subject' AS subject, subject_key FROM arrived JOIN want ON id = source_id) AS p;
SELECT ok(count(*) = 0, :'is' || 'no subject_key is a subject', min(sink))
FROM arrived WHERE subject_key IN (SELECT doc ->> 'subject' FROM raw);

-- A dry run before it has said the same.
SELECT same(:'is' || 'a dry run says what would become of each form',
    'SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining FROM dry',
    'SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining FROM run');
SELECT same(:'is' || 'a dry run finds the same',
    'SELECT source_id, f.form, location, rule, kind, severity, message FROM epro_etl.finding f JOIN dry USING (run_id)',
    'SELECT source_id, form, location, rule, kind, severity, message FROM found');
