--
-- demo.sql: the nightly load, from staging to sinks, on generated responses.
--
-- Run by demo.sh with the variables `workers` and `server_log`. Two forms of
-- 400 subjects, a mood questionnaire and a daily diary, are in one staging
-- table, and a few percent of the responses are broken. What was broken is
-- known (see staged.sql), so the demo judges the result as well: it fails when
-- anything else was found than had been planted.
--
\set ON_ERROR_STOP on
\pset footer off
\pset null '(null)'
\encoding UTF8

CREATE EXTENSION epro_etl;
\o /dev/null
\ir forms.sql
\o
\ir staged.sql

SELECT count(*) AS staged, count(*) FILTER (WHERE form = 'MOOD') AS moods,
       count(*) FILTER (WHERE form = 'DIARY') AS diaries
FROM staging \gset
\echo '1. Staged in one table:' :staged 'responses of 400 subjects, among them' :moods 'to MOOD and' :diaries 'to DIARY'
\echo

-- The pipeline: where responses come from, and a sink for each form. A sink is
-- a table like any other; these get a key against duplicates, a constraint and
-- a narrower column.
\o /dev/null
SELECT epro_etl.create_pipeline('nightly', 'staging', columns => '{"study": {"value": "DEMO-1"}}');
SELECT epro_etl.create_sink('nightly', 'MOOD', 'mood');
SELECT epro_etl.create_sink('nightly', 'DIARY', 'diary');
\o
ALTER TABLE mood ADD CONSTRAINT one_a_visit UNIQUE (subject_key, visit);
ALTER TABLE diary ADD CONSTRAINT one_a_day UNIQUE (subject_key, visit),
    ADD CONSTRAINT onset_in_study CHECK (onset >= '2024-01-01'),
    ALTER COLUMN sleep_hours TYPE numeric(4, 2);

-- run() would do it in one call. start_run() returns at once, so that the same
-- session can watch; small chunks give it something to see.
SET epro_etl.batch_size = 200;
SELECT epro_etl.start_run('nightly', workers => :workers, reason => 'demo') AS run_id \gset

-- waits until the workers have done so many responses, or have ended
CREATE PROCEDURE pg_temp.wait_until(run bigint, responses bigint) LANGUAGE plpgsql AS
$$
BEGIN
    WHILE (SELECT sum(tuples_processed) < responses AND bool_or(phase <> 'ended')
           FROM epro_etl.stat_progress WHERE run_id = run) LOOP
        PERFORM pg_sleep(0.005);
    END LOOP;
END $$;
PREPARE progress (bigint) AS
    SELECT worker, phase, tuples_processed, tuples_excluded, blocks_done, blocks_total
    FROM epro_etl.stat_progress WHERE run_id = $1 ORDER BY worker;

\echo '2. Progress seen on the way (epro_etl.stat_progress)'
CALL pg_temp.wait_until(:run_id, 1);
EXECUTE progress (:run_id);
\pset tuples_only on
CALL pg_temp.wait_until(:run_id, :staged / 3);
EXECUTE progress (:run_id);
CALL pg_temp.wait_until(:run_id, :staged * 2 / 3);
EXECUTE progress (:run_id);
\pset tuples_only off

\echo '3. The run (epro_etl.wait_run)'
SELECT * FROM epro_etl.wait_run(:run_id);

\echo '4. The ledger agrees with itself and with the tables (epro_etl.reconcile)'
SELECT * FROM epro_etl.reconcile(:run_id);

\echo '5. Findings by rule, beside the number planted; no form: it is unknown, or not said'
CREATE TEMP VIEW judged AS
SELECT f.name AS form, kind, rule, max(severity) AS severity, sum(found) AS count, sum(planted) AS planted
FROM (SELECT form, kind, rule, severity, 1 AS found, 0 AS planted FROM epro_etl.finding
      UNION ALL
      SELECT form, kind, rule, NULL, 0, count FROM planted) AS both_sides
     LEFT JOIN epro_etl.form AS f ON f.name = both_sides.form
GROUP BY f.name, kind, rule;
SELECT * FROM judged ORDER BY form, kind, rule;

\echo '6. Three quarantined responses and the reasons; a message never tells the answer'
SELECT source_id, form, location, rule, message
FROM (SELECT DISTINCT ON (kind) run_id, source_id
      FROM (SELECT *, count(*) OVER (PARTITION BY source_id) AS reasons FROM epro_etl.finding) AS f
      WHERE kind IN ('schema', 'payload', 'error')
      ORDER BY kind, reasons DESC, source_id::bigint) AS chosen
     JOIN (SELECT run_id, source_id FROM epro_etl.quarantine) AS q USING (run_id, source_id)
     JOIN epro_etl.finding USING (run_id, source_id)
ORDER BY source_id::bigint, location;

\echo '7. A loaded response of each form, as it was staged and as it is in its sink'
SELECT form, CASE WHEN key ~ '^mood' THEN 'mood1 to mood9' ELSE key END AS item,
       string_agg(staged.value::text, ', ' ORDER BY key) AS staged,
       coalesce(string_agg(loaded.value, ', ' ORDER BY key), '(removed)') AS loaded
FROM (SELECT id, form, item.key, item.value
      FROM sample, jsonb_each(jsonb_build_object('subject_key', subject) || payload::jsonb) AS item) AS staged
     LEFT JOIN (SELECT source_id AS id, item.key, item.value FROM mood, jsonb_each_text(to_jsonb(mood)) AS item
                UNION ALL
                SELECT source_id, item.key, item.value FROM diary, jsonb_each_text(to_jsonb(diary)) AS item) AS loaded
     USING (id, key)
GROUP BY 1, 2 ORDER BY 1 DESC, 2;

\echo '8. Where planted names, e-mails, phone numbers, subject codes and dates of birth are'
CREATE TEMP TABLE searched AS
SELECT place, count(*) AS rows, count(*) FILTER (WHERE line ~ :'identifiers') AS with_identifiers
FROM (SELECT 'sink mood' AS place, mood::text AS line FROM mood
      UNION ALL SELECT 'sink diary', diary::text FROM diary
      UNION ALL SELECT 'findings', finding::text FROM epro_etl.finding
      UNION ALL SELECT 'ledger', run_ledger::text FROM epro_etl.run_ledger
      UNION ALL SELECT 'ledger', run_worker::text FROM epro_etl.run_worker
      UNION ALL SELECT 'server log', regexp_split_to_table(pg_read_file(:'server_log'), '\n')
      UNION ALL SELECT 'quarantine', quarantine::text FROM epro_etl.quarantine) AS looked_at
GROUP BY place;
SELECT * FROM searched ORDER BY with_identifiers, place;

SELECT (SELECT status = 'succeeded' FROM epro_etl.run_history WHERE run_id = :run_id)
       AND (SELECT bool_and(agrees) FROM epro_etl.reconcile(:run_id))
       AND (SELECT bool_and(count = planted) FROM judged)
       AND (SELECT bool_and((with_identifiers > 0) = (place = 'quarantine')) FROM searched)
       AND NOT EXISTS (SELECT FROM staging) AS good \gset
\if :good
    \echo 'All that was planted was found, nothing else; identifiers are in quarantine alone.'
\else
    DO $$ BEGIN RAISE 'the demo did not find what had been planted, or found more'; END $$;
\endif
