-- One load, with :workers workers, in a schema of its own.
\set VERBOSITY terse
\set SHOW_CONTEXT never
\set schema w:workers
\set pipeline pilot_w:workers
\set source w:workers .staging

CREATE SCHEMA :schema;
CREATE TABLE :schema.staging (
    id         bigint PRIMARY KEY,
    instrument text,
    subject    text,
    visit      text,
    collected  date,
    answers    jsonb
);
INSERT INTO :schema.staging
SELECT id, doc ->> 'instrument', doc ->> 'subject', doc ->> 'visit', (doc ->> 'date')::date, doc -> 'answers'
FROM pilot.raw ORDER BY id;

SELECT epro_etl.create_pipeline(:'pipeline', :'source',
    '{"study": {"value": "CDISCPILOT01"}, "form": "instrument", "authored": "collected", "payload": "answers"}') \g /dev/null
SELECT epro_etl.create_sink(:'pipeline', form, :'schema' || '.' || lower(form))
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form \g /dev/null

-- Small chunks, so that there are several; and a time zone that the server
-- does not have, in which each worker must read the date.
SET epro_etl.batch_size = 200;
SET TimeZone = 'America/New_York';
SELECT * FROM epro_etl.run(:'pipeline', workers => :workers, dry_run => true) \gset dry_
SELECT pilot.ok((SELECT count(*) FROM :schema.staging) = 5071 AND (SELECT count(*) FROM :schema.npix) = 0
                AND NOT EXISTS (SELECT FROM epro_etl.quarantine WHERE run_id = :dry_run_id),
                'workers ' || :workers || ': a dry run moves nothing');
SELECT * FROM epro_etl.run(:'pipeline', workers => :workers, reason => 'CDISC pilot study') \gset run_

CREATE TABLE :schema.run AS
SELECT :run_run_id::bigint AS run_id, :'run_status' AS status, :run_claimed AS claimed, :run_loaded AS loaded,
       :run_warned AS warned, :run_rejected AS rejected, :run_duplicate AS duplicate, :run_deferred AS deferred,
       :run_remaining AS remaining, :run_workers AS workers;
CREATE TABLE :schema.dry AS
SELECT :dry_run_id::bigint AS run_id, :'dry_status' AS status, :dry_claimed AS claimed, :dry_loaded AS loaded,
       :dry_warned AS warned, :dry_rejected AS rejected, :dry_duplicate AS duplicate, :dry_deferred AS deferred,
       :dry_remaining AS remaining;

-- What arrived, the six sinks as one: the row's own columns and its items.
CREATE FUNCTION pg_temp.arrived(sink text) RETURNS text LANGUAGE sql
RETURN format('SELECT %1$L AS sink, source_id, study, subject_key, form, form_version, visit, authored, run_id, loaded_at,'
              ' to_jsonb(s) - ''{source_id,study,subject_key,form,form_version,visit,authored,run_id,key_version,loaded_at}''::text[] AS items'
              ' FROM %1$s s', sink);
SELECT format('CREATE VIEW %I.arrived AS %s', :'schema',
              string_agg(pg_temp.arrived(:'schema' || '.' || lower(form)), ' UNION ALL '))
FROM unnest('{ADAS,CIBIC,DAD,HACHINSKI,MMSE,NPIX}'::text[]) AS form \gexec
CREATE VIEW :schema.found AS SELECT * FROM epro_etl.finding WHERE run_id = :run_run_id;
CREATE VIEW :schema.held AS SELECT * FROM epro_etl.quarantine WHERE run_id = :run_run_id;

\echo
SELECT format('workers => %s: %s in %s s, %s chunks, claimed by worker: %s', :workers, h.status,
              round(extract(epoch FROM h.elapsed), 2), h.chunks,
              (SELECT string_agg(claimed::text, ' ' ORDER BY worker) FROM epro_etl.run_worker w WHERE w.run_id = h.run_id))
FROM epro_etl.run_history h WHERE h.run_id = :run_run_id;
