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

\echo '1. Staged: responses to two forms in one table, some of them broken'
SELECT form, count(*) AS responses, min(authored)::date AS first, max(authored)::date AS last
FROM staging GROUP BY form ORDER BY responses DESC, form;

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
SELECT count(*) AS staged FROM staging \gset
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
\set progress 'SELECT worker, phase, tuples_processed, tuples_excluded, blocks_done, blocks_total FROM epro_etl.stat_progress WHERE run_id = :run_id ORDER BY worker;'

\echo '2. Progress seen on the way (epro_etl.stat_progress)'
CALL pg_temp.wait_until(:run_id, 1);
:progress
\pset tuples_only on
CALL pg_temp.wait_until(:run_id, :staged / 3);
:progress
CALL pg_temp.wait_until(:run_id, :staged * 2 / 3);
:progress
\pset tuples_only off

\echo '3. The run (epro_etl.wait_run)'
SELECT * FROM epro_etl.wait_run(:run_id);

\echo '4. The ledger agrees with itself and with the tables (epro_etl.reconcile)'
SELECT * FROM epro_etl.reconcile(:run_id);

\echo '5. Findings by rule, beside the number planted'
CREATE TEMP VIEW judged AS
SELECT form, kind, rule, max(severity) AS severity, sum(found) AS count, sum(planted) AS planted
FROM (SELECT form, kind, rule, severity, 1 AS found, 0 AS planted FROM epro_etl.finding
      UNION ALL
      SELECT form, kind, rule, NULL, 0, count FROM planted) AS both_sides
GROUP BY form, kind, rule;
SELECT * FROM judged ORDER BY form, kind, rule;

\echo '6. Three quarantined responses and the reasons; a message never tells the answer'
SELECT q.source_id, q.form, f.location, f.rule, f.message
FROM (SELECT DISTINCT ON (rule) source_id FROM epro_etl.finding
      WHERE rule IN ('generalize', 'payload', 'exclusiveMaximum') AND kind <> 'payload' OR message ~ 'twice'
      ORDER BY rule, source_id::bigint) AS chosen
     JOIN epro_etl.quarantine AS q USING (source_id)
     JOIN epro_etl.finding AS f USING (run_id, source_id)
ORDER BY q.source_id::bigint, f.location;

\echo '7. A loaded response of each form, as it was staged and as it is in the sink'
SELECT s.form, coalesce(l.key, s.key) AS item, s.value AS staged, left(l.value, 24) AS loaded
FROM (SELECT id, form, e.key, e.value FROM sample,
             jsonb_each_text(payload::jsonb || jsonb_build_object('subject_key', subject)) AS e) AS s
     LEFT JOIN (SELECT source_id AS id, e.* FROM mood, jsonb_each_text(to_jsonb(mood)) AS e
                UNION ALL
                SELECT source_id, e.* FROM diary, jsonb_each_text(to_jsonb(diary)) AS e) AS l USING (id, key);
