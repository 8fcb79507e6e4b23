-- The audit trail: what is recorded and what is not, who may not touch it, and where verify_audit() sees that somebody did.
\set SHOW_CONTEXT never
SELECT probe.open_area('t42');
-- this script's own records: what the scripts before it have done by hand is another matter
CREATE TEMP TABLE since AS SELECT clock_timestamp() AS at;
CREATE TEMP VIEW told AS
    SELECT t.action, t.object, t.old_value, t.new_value, t.reason, t.actor, t.writer, t.seq, t.at, t.session_user_name, t.current_user_name, t.context
    FROM epro_etl.audit_trail t WHERE t.at > (SELECT at FROM since) ORDER BY t.at, t.writer, t.seq;
-- of runs, this script's alone
CREATE FUNCTION ours(problem text, what text) RETURNS boolean LANGUAGE sql RETURN problem NOT IN ('ledger', 'findings', 'superseded') OR EXISTS (
    SELECT FROM epro_etl.audit_trail t WHERE t.action = 'begin' AND t.new_value ->> 'pipeline' LIKE 't42%' AND split_part(split_part(what, ',', 1), ' ', 2) = t.new_value ->> 'run_id');
CREATE TEMP VIEW chains AS SELECT problem, object, detail FROM epro_etl.verify_audit() WHERE ours(problem, object);
SELECT * FROM chains;

-- configuration: each function, with the row as it was and as it is, who and why
SELECT epro_etl.register_form('t42', '{"properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "integer"}}, "required": ["a"]}');
SELECT epro_etl.add_edit_check('t42', 'b is a', 'b = a', severity => 'warning');
BEGIN;
SELECT epro_etl.context_set('actor', 'Dr. Data Manager'), epro_etl.context_set('reason', 'change request 7');
SELECT epro_etl.add_edit_check('t42', 'b is a', 'b >= a', severity => 'warning');
COMMIT;
SELECT epro_etl.add_check('t42', 'share', 'batch_threshold', '{"rule": "/a/maximum", "max_ratio": 0.9, "minimum": 100}');
SELECT epro_etl.set_severity('t42', '/properties/a/maximum', 'off', reason => 'query 12');
SELECT epro_etl.set_severity('t42', '/properties/a/maximum', NULL);
SELECT epro_etl.set_deid('t42', '/b', 'keep');
SELECT epro_etl.remove_edit_check('t42', 'b is a'), epro_etl.remove_edit_check('t42', 'share');
SELECT epro_etl.create_pipeline('t42_too', 'staging');
SELECT epro_etl.create_sink('t42', 't42', 'loaded');
SELECT epro_etl.create_sink('t42_too', 't42', 'loaded_too');
SELECT epro_etl.remove_sink('t42_too', 't42', 'loaded_too');
SELECT epro_etl.drop_pipeline('t42_too');
INSERT INTO epro_etl.deid_profile (profile, category, method) VALUES ('t42', 'dates', 'remove');
DELETE FROM epro_etl.deid_profile WHERE profile = 't42';
SELECT epro_etl.set_hop('study', 'epro_etl.study');
SELECT epro_etl.set_hop('study', NULL);
INSERT INTO epro_etl.study (study) VALUES ('t42');
INSERT INTO epro_etl.site_access (study, site, role) VALUES ('t42', '1', 'nobody');
DELETE FROM epro_etl.site_access WHERE study = 't42';
DELETE FROM epro_etl.study WHERE study = 't42';
SELECT action, object, coalesce(new_value ->> 'check_name', new_value ->> 'location', new_value ->> 'path', new_value ->> 'name', new_value ->> 'target',
       old_value ->> 'check_name', old_value ->> 'location', old_value ->> 'name', old_value ->> 'target') AS what, reason, actor FROM told;
SELECT bool_and(session_user_name = session_user AND current_user_name = current_user) AS whom, bool_and(at <= clock_timestamp()) AS in_time FROM told;
SELECT old_value ->> 'expression' AS was, new_value ->> 'expression' AS is, old_value ? 'removed_at' AS was_off, new_value ? 'removed_at' AS is_off
    FROM told WHERE object = 'edit_check';
-- the time is an instant, whatever the session's zone is; and the same digest comes of it
SET timezone = 'Asia/Kathmandu';
SELECT * FROM chains;
RESET timezone;
-- what comes to nothing, or changes nothing, leaves nothing
UPDATE since SET at = clock_timestamp();
SELECT epro_etl.add_edit_check('t42', 'wrong', 'no_item = 1');
BEGIN;
SELECT epro_etl.add_edit_check('t42', 'undone', 'a = 1');
ROLLBACK;
UPDATE epro_etl.form SET name = name WHERE name = 't42';
SELECT action, object FROM told;
-- somebody else, who has become another still
CREATE ROLE epro_t42_manager;
GRANT USAGE ON SCHEMA epro_etl, t42 TO epro_t42_manager;
GRANT EXECUTE ON FUNCTION epro_etl.add_edit_check, epro_etl.retire_check, epro_etl.compile_form TO epro_t42_manager;
GRANT SELECT, INSERT, UPDATE ON epro_etl.edit_check, epro_etl.batch_threshold TO epro_t42_manager;
GRANT SELECT ON epro_etl.form, epro_etl.deid_rule, epro_etl.severity_overlay TO epro_t42_manager;
SET ROLE epro_t42_manager;
SELECT epro_etl.add_edit_check('t42', 'of the manager', 'a > 0');
SELECT count(*) FROM epro_etl.audit_trail;
RESET ROLE;
SELECT action, object, session_user_name = session_user AS session_told, current_user_name FROM told;
SELECT epro_etl.remove_edit_check('t42', 'of the manager');

-- nor can who may call everything make records of what never was
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO epro_t42_manager;
UPDATE since SET at = clock_timestamp();
SET ROLE epro_t42_manager;
CREATE TEMP TABLE form (name text);
CREATE TRIGGER forged AFTER INSERT ON form FOR EACH ROW EXECUTE FUNCTION epro_etl.audit_change();
INSERT INTO form VALUES ('forged');
DROP TABLE form;
CREATE TEMP TABLE quarantine (run_id bigint, pipeline text, source_id text, quarantine_id bigint);
CREATE TRIGGER forged AFTER DELETE ON quarantine REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_requeue();
INSERT INTO quarantine VALUES (1, 'forged', '1', 1);
DELETE FROM quarantine;
DROP TABLE quarantine;
RESET ROLE;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl FROM epro_t42_manager;
SELECT count(*) AS forged FROM told;

-- a run has a record when it begins and one when it ends, however many rows; inline, with workers, and a dry one
UPDATE since SET at = clock_timestamp();
SELECT probe.put('t42', '{"a": 1, "b": 1}', '{"a": 10}', '{"b": 3}', '{"a": 4}');
SELECT status, loaded, rejected FROM epro_etl.run('t42', workers => 0, reason => 'the first');
SELECT probe.put('t42', '{"a": 1, "b": 1}', '{"a": 10}');
SELECT status, loaded, rejected FROM epro_etl.run('t42', workers => 2, dry_run => true, reason => 'dry');
SELECT status, loaded, rejected FROM epro_etl.run('t42', workers => 2, reason => 'night');
SELECT action, object, new_value ->> 'status' AS status, new_value ->> 'claimed' AS claimed, new_value ->> 'loaded' AS loaded, new_value ->> 'rejected' AS rejected,
       new_value ->> 'findings' AS findings, new_value -> 'versions' -> 't42' ->> 'version' AS version, reason, session_user_name = session_user AS whom FROM told WHERE object = 'run_ledger' ORDER BY (new_value ->> 'run_id')::bigint, action;
SELECT * FROM chains;
-- nothing of a run that is rolled back
BEGIN;
SELECT status FROM epro_etl.run('t42', workers => 0);
ROLLBACK;
SELECT count(*) AS as_before FROM told WHERE object = 'run_ledger';

-- quarantine: corrected, requeued, discarded; keys and digests, and the earlier original apart
UPDATE since SET at = clock_timestamp();
BEGIN;
SELECT epro_etl.context_set('reason', 'query 17');
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,a}', '9') WHERE pipeline = 't42' AND source_id = '2';
COMMIT;
UPDATE epro_etl.quarantine SET tries = tries WHERE pipeline = 't42';
UPDATE epro_etl.quarantine SET original = original WHERE pipeline = 't42';
SELECT epro_etl.requeue('t42', source_ids => '{2}');
DELETE FROM epro_etl.quarantine WHERE pipeline = 't42' AND source_id = '3';
DELETE FROM epro_etl.quarantine WHERE pipeline = 't42 none';
SELECT action, object, old_value - 'quarantine_id' - 'run_id' - 'responses' AS old_value, jsonb_path_query_array(old_value, '$.responses.*') AS responses, new_value -> 'columns' AS columns, reason FROM told;
SELECT c.source_id, c.original -> 'payload' AS earlier, corrected_by = current_user AS whom FROM epro_etl.correction c JOIN told t ON t.new_value ->> 'correction_id' = c.correction_id::text;
SELECT count(*) AS answers_told FROM told WHERE to_jsonb(told)::text ~ 'P-[0-9]|DAY 1|"b": 3';
SELECT status, loaded FROM epro_etl.run('t42', workers => 0);
SELECT * FROM chains;

-- overwritten by the latest authored: one record a chunk, and the rows in superseded
CREATE TABLE latest (source_id int, subject_key text, authored timestamptz, a int, run_id bigint, UNIQUE (subject_key));
SELECT epro_etl.create_pipeline('t42_latest', 'staging');
SELECT epro_etl.add_sink('t42_latest', 't42', 'latest', on_duplicate => 'latest');
CREATE FUNCTION again(day int) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO staging SELECT nextval('staged'), 'ST01', 't42', 'P-' || n, 'V', timestamptz '2026-03-01 00:00+00' + day * interval '1 day', jsonb_build_object('a', n) FROM generate_series(1, 5) n $$;
SELECT again(1);
SELECT loaded FROM epro_etl.run('t42_latest', workers => 0);
UPDATE since SET at = clock_timestamp();
SELECT again(2);
SET epro_etl.batch_size = 3;
SELECT loaded FROM epro_etl.run('t42_latest', workers => 2);
RESET epro_etl.batch_size;
SELECT sum((new_value ->> 'rows')::int) AS rows, count(*) AS records FROM told WHERE action = 'overwrite';
SELECT again(3);
SELECT loaded FROM epro_etl.run('t42_latest', workers => 0);
SELECT count(*) AS superseded FROM epro_etl.superseded WHERE target = 't42.latest';
SELECT * FROM chains;

-- rotation, a stream, and what is done by hand to tables that are the runs' to write
UPDATE since SET at = clock_timestamp();
BEGIN;
SELECT epro_etl.rotate_key('stolen laptop') > 0 AS rotated;
SELECT DISTINCT action, object, reason FROM told WHERE action = 'add';
ROLLBACK;
DELETE FROM epro_etl.finding WHERE run_id < 0;
INSERT INTO epro_etl.finding VALUES (-1, '1', 't42', '/a', 'r', 'check', 'warning', 'm'), (-1, '2', 't42', '/a', 'r', 'check', 'warning', 'm');
UPDATE epro_etl.finding SET severity = 'information' WHERE run_id = -1;
DELETE FROM epro_etl.finding WHERE run_id = -1;
INSERT INTO epro_etl.participant (study, subject_key, site) SELECT 't42', repeat(n::text, 32), '1' FROM generate_series(1, 3) n;
UPDATE epro_etl.participant SET status = 'withdrawn' WHERE study = 't42';
DELETE FROM epro_etl.participant WHERE study = 't42';
TRUNCATE epro_etl.requeued;
-- rows of the outbox that are given up, but not those that are delivered
CREATE EXTENSION postgres_fdw SCHEMA t42;
DO $$
DECLARE
    socket text := split_part(current_setting('unix_socket_directories'), ',', 1);
BEGIN
    EXECUTE format('CREATE SERVER far42 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
                   CASE socket WHEN '' THEN 'localhost' ELSE socket END, current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR CURRENT_USER SERVER far42;
CREATE TABLE there (source_id int, a int, b int);
CREATE FOREIGN TABLE far (source_id int, a int, b int) SERVER far42 OPTIONS (schema_name 't42', table_name 'there');
SELECT epro_etl.create_pipeline('t42_far', 'staging');
SELECT epro_etl.add_sink('t42_far', 't42', 'far', required => false);
INSERT INTO epro_etl.outbox (sink_id, source_id, "row", since) SELECT sink_id, n, jsonb_build_object('source_id', n, 'a', 1), now()
    FROM unnest('{900,901}'::text[]) n, epro_etl.sink JOIN epro_etl.pipeline USING (pipeline_id) WHERE name = 't42_far';
DELETE FROM epro_etl.outbox WHERE source_id = '901';
SELECT epro_etl.deliver('t42_far');
SELECT count(*) AS arrived FROM there;
SELECT epro_etl.start_stream('t42');
SELECT epro_etl.stop_stream('t42');
SELECT action, object, old_value, new_value FROM told WHERE object IN ('finding', 'participant', 'requeued', 'outbox');
SELECT action FROM told WHERE object = 'stream';

-- nobody changes it: not its owner, not by any statement; and nobody but a restore adds to it
CREATE ROLE epro_t42_owner;
GRANT epro_t42_owner TO CURRENT_USER;
GRANT USAGE, CREATE ON SCHEMA epro_etl TO epro_t42_owner;
CREATE FUNCTION handed_to(role name) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY '{audit_trail,audit_writer,correction,superseded}'::text[] LOOP
        EXECUTE format('ALTER TABLE epro_etl.%I OWNER TO %I', t, role);
    END LOOP;
END $$;
SELECT current_user AS me \gset
BEGIN;
SELECT handed_to('epro_t42_owner');
SET LOCAL ROLE epro_t42_owner;
SAVEPOINT here;
UPDATE epro_etl.audit_trail SET reason = 'none';
ROLLBACK TO here;
DELETE FROM epro_etl.audit_writer;
ROLLBACK TO here;
TRUNCATE epro_etl.superseded;
ROLLBACK TO here;
-- also one that grants itself what was revoked
GRANT ALL ON epro_etl.audit_trail, epro_etl.audit_writer, epro_etl.correction, epro_etl.superseded TO epro_t42_owner;
SAVEPOINT here;
UPDATE epro_etl.audit_trail SET reason = 'none';
ROLLBACK TO here;
DELETE FROM epro_etl.audit_trail;
ROLLBACK TO here;
TRUNCATE epro_etl.audit_trail;
ROLLBACK TO here;
INSERT INTO epro_etl.audit_trail SELECT writer, seq + 1000000, at, session_user_name, current_user_name, actor, action, object, old_value, new_value, reason, context, witness, previous, hash FROM epro_etl.audit_trail LIMIT 1;
ROLLBACK TO here;
UPDATE epro_etl.audit_writer SET seq = 0;
ROLLBACK TO here;
DELETE FROM epro_etl.superseded;
ROLLBACK TO here;
UPDATE epro_etl.correction SET source_id = 'x';
ROLLBACK TO here;
COMMIT;
SELECT handed_to(:'me');
-- nor a superuser, as long as the triggers are there; a replica's session is no way around them
DELETE FROM epro_etl.audit_trail;
SET session_replication_role = replica;
UPDATE epro_etl.audit_trail SET reason = 'none';
TRUNCATE epro_etl.audit_writer;
UPDATE since SET at = clock_timestamp();
INSERT INTO epro_etl.study (study) VALUES ('t42 replica');
DELETE FROM epro_etl.study WHERE study = 't42 replica';
RESET session_replication_role;
SELECT action, object FROM told;
SELECT epro_etl.audit_refuse();

-- what holds values of subjects can be erased, by a superuser alone, and not in silence
BEGIN;
UPDATE since SET at = clock_timestamp();
DELETE FROM epro_etl.correction;
DELETE FROM epro_etl.superseded WHERE target = 't42.latest';
TRUNCATE epro_etl.superseded;
SELECT action, object, old_value FROM told WHERE object <> 'correction';
SELECT DISTINCT problem, detail FROM epro_etl.verify_audit() WHERE problem = 'correction';
SAVEPOINT here;
UPDATE epro_etl.correction SET source_id = 'x';
UPDATE epro_etl.superseded SET source_id = 'x';
ROLLBACK TO here;
INSERT INTO epro_etl.superseded (sink_id, target, run_id, "row", superseded_at) VALUES (0, 't42', 0, '{}', now());
UPDATE epro_etl.superseded SET source_id = 'x';
ROLLBACK;

-- tampered with all the same, by a superuser who has the triggers off: each kind is seen
SELECT epro_etl.audit_heads() AS heads \gset
SELECT t.writer AS one, t.seq AS nr FROM epro_etl.audit_trail t WHERE t.object = 'edit_check' AND EXISTS (SELECT FROM epro_etl.audit_trail n WHERE n.writer = t.writer AND n.seq = t.seq + 1) ORDER BY t.at DESC LIMIT 1 \gset
CREATE PROCEDURE tampered(VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE
    s text;
    r record;
BEGIN
    ALTER TABLE epro_etl.audit_trail DISABLE TRIGGER USER;
    ALTER TABLE epro_etl.audit_writer DISABLE TRIGGER USER;
    ALTER TABLE epro_etl.correction DISABLE TRIGGER USER;
    ALTER TABLE epro_etl.superseded DISABLE TRIGGER USER;
    FOREACH s IN ARRAY statements LOOP
        EXECUTE s;
    END LOOP;
    -- which records share a chain is for the moment to say
    FOR r IN SELECT DISTINCT c.problem, regexp_replace(c.detail, '[0-9]+', 'n', 'g') AS detail FROM epro_etl.verify_audit(nullif(current_setting('t42.heads', true), '')::jsonb) c
             WHERE c.problem NOT IN ('trigger', 'lost') AND ours(c.problem, c.object)
               AND (c.problem NOT IN ('ledger', 'findings', 'superseded', 'correction') OR current_setting('t42.about', true) = 'data')
             ORDER BY 1, 2 LOOP
        RAISE NOTICE '%: %', r.problem, r.detail;
    END LOOP;
    ROLLBACK;
END $$;
CALL tampered('SELECT 1');
-- a record changed in each of its columns
SELECT set_config('t42.one', :'one', false) = :'one' AS one, set_config('t42.nr', :'nr', false) = :'nr' AS nr;
SELECT format('CALL tampered(%L)', format('UPDATE epro_etl.audit_trail SET %s WHERE writer::text = current_setting(''t42.one'') AND seq::text = current_setting(''t42.nr'')', change))
    FROM unnest(ARRAY['at = at + interval ''1 microsecond''', 'session_user_name = ''x''', 'current_user_name = ''x''', 'actor = ''x''', 'action = ''x''', 'object = ''edit_check ''', 'old_value = ''{}''',
                      'new_value = NULL', 'reason = ''x''', 'context = ''{}''', 'witness = sha256(''x'')']) change \gexec
CALL tampered(format('UPDATE epro_etl.audit_trail SET previous = sha256(''x'') WHERE writer = %L AND seq = %s', :'one', :nr));
CALL tampered(format('UPDATE epro_etl.audit_trail SET hash = sha256(''x'') WHERE writer = %L AND seq = %s', :'one', :nr));
-- a record taken out; the first; the newest; the newest, with the head put back; two swapped
CALL tampered(format('DELETE FROM epro_etl.audit_trail WHERE writer = %L AND seq = %s', :'one', :nr));
CALL tampered(format('DELETE FROM epro_etl.audit_trail WHERE writer = %L AND seq = 1', :'one'));
CALL tampered(format('DELETE FROM epro_etl.audit_trail WHERE writer = %L AND seq > %s', :'one', :nr));
SET t42.heads = :'heads';
CALL tampered(format('DELETE FROM epro_etl.audit_trail WHERE writer = %L AND seq > %s', :'one', :nr),
              format('UPDATE epro_etl.audit_writer w SET seq = t.seq, hash = t.hash FROM epro_etl.audit_trail t WHERE t.writer = %L AND t.seq = %s AND w.writer = t.writer', :'one', :nr));
RESET t42.heads;
-- a record changed, and all that follows computed anew: seen by what was kept elsewhere alone
CREATE FUNCTION anew(chain uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t epro_etl.audit_trail;
    before bytea;
BEGIN
    FOR t IN SELECT * FROM epro_etl.audit_trail WHERE writer = chain ORDER BY seq LOOP
        UPDATE epro_etl.audit_trail u SET previous = before, hash = sha256(epro_etl.audit_bytes(ARRAY[t.writer::text, t.seq::text, epro_etl.audit_instant(t.at), t.session_user_name, t.current_user_name, t.actor,
            t.action, t.object, t.old_value::text, t.new_value::text, t.reason, t.context::text, encode(t.witness, 'hex'), encode(before, 'hex')]))
            WHERE u.writer = chain AND u.seq = t.seq RETURNING u.hash INTO before;
    END LOOP;
    UPDATE epro_etl.audit_writer SET hash = before WHERE writer = chain;
END $$;
CALL tampered(format('UPDATE epro_etl.audit_trail SET reason = ''x'' WHERE writer = %L AND seq = %s', :'one', :nr), format('SELECT anew(%L)', :'one'));
SET t42.heads = :'heads';
CALL tampered(format('UPDATE epro_etl.audit_trail SET reason = ''x'' WHERE writer = %L AND seq = %s', :'one', :nr), format('SELECT anew(%L)', :'one'));
CALL tampered('DELETE FROM epro_etl.audit_trail', 'DELETE FROM epro_etl.audit_writer');
RESET t42.heads;
CALL tampered(format('UPDATE epro_etl.audit_trail SET seq = CASE seq WHEN %2$s THEN -1 ELSE %2$s END WHERE writer = %1$L AND seq IN (%2$s, %2$s + 1)', :'one', :nr),
              format('UPDATE epro_etl.audit_trail SET seq = %2$s + 1 WHERE writer = %1$L AND seq = -1', :'one', :nr));
CALL tampered(format('DELETE FROM epro_etl.audit_writer WHERE writer = %L', :'one'));
CALL tampered(format('UPDATE epro_etl.audit_writer SET seq = seq - 1 WHERE writer = %L', :'one'));
CALL tampered(format('UPDATE epro_etl.audit_writer SET hash = sha256(''x'') WHERE writer = %L', :'one'));
-- one put in behind the newest, well made but for the head
CALL tampered(format('INSERT INTO epro_etl.audit_trail SELECT n.writer, n.seq, n.at, ''x'', ''x'', NULL, ''x'', ''x'', NULL, NULL, NULL, NULL, NULL, n.previous,'
    ' sha256(epro_etl.audit_bytes(ARRAY[n.writer::text, n.seq::text, epro_etl.audit_instant(n.at), ''x'', ''x'', NULL, ''x'', ''x'', NULL, NULL, NULL, NULL, NULL, encode(n.previous, ''hex'')]))'
    ' FROM (SELECT writer, seq + 1 AS seq, now() AS at, hash AS previous FROM epro_etl.audit_writer WHERE writer = %L) n', :'one'));
SET t42.about = 'data';
-- the ledger, a worker's counts, findings, superseded rows, an earlier original
CALL tampered($$UPDATE epro_etl.run_ledger SET reason = 'another' WHERE pipeline = 't42' AND reason = 'the first'$$);
CALL tampered($$UPDATE epro_etl.run_ledger SET started_at = started_at - interval '1 second' WHERE pipeline = 't42' AND reason = 'the first'$$);
CALL tampered($$UPDATE epro_etl.run_ledger SET versions = '{}' WHERE pipeline = 't42' AND reason = 'the first'$$);
CALL tampered($$UPDATE epro_etl.run_worker SET loaded = loaded + 1, rejected = rejected - 1 WHERE run_id = (SELECT run_id FROM epro_etl.run_ledger WHERE pipeline = 't42' AND reason = 'the first')$$);
CALL tampered($$DELETE FROM epro_etl.run_worker WHERE run_id = (SELECT run_id FROM epro_etl.run_ledger WHERE pipeline = 't42' AND reason = 'the first')$$,
              $$DELETE FROM epro_etl.run_ledger WHERE pipeline = 't42' AND reason = 'the first'$$);
CALL tampered($$DELETE FROM epro_etl.finding WHERE run_id = (SELECT run_id FROM epro_etl.run_ledger WHERE pipeline = 't42' AND reason = 'the first')$$);
CALL tampered($$DELETE FROM epro_etl.superseded WHERE superseded_id = (SELECT max(superseded_id) FROM epro_etl.superseded)$$);
CALL tampered($$UPDATE epro_etl.superseded SET "row" = "row" || '{"a": 7}' WHERE superseded_id = (SELECT max(superseded_id) FROM epro_etl.superseded)$$);
CALL tampered($$DELETE FROM epro_etl.correction WHERE correction_id = (SELECT max(correction_id) FROM epro_etl.correction)$$);
CALL tampered($$UPDATE epro_etl.correction SET original = original || '{"visit": "DAY 2"}' WHERE correction_id = (SELECT max(correction_id) FROM epro_etl.correction)$$);
-- triggers that were switched off, or taken away, are told
BEGIN;
ALTER TABLE epro_etl.audit_trail DISABLE TRIGGER audit_refuse;
ALTER TABLE epro_etl.edit_check ENABLE TRIGGER audit_change;
DROP TRIGGER audit_correction ON epro_etl.quarantine;
SELECT problem, object, detail FROM epro_etl.verify_audit() WHERE problem = 'trigger';
ROLLBACK;
SELECT * FROM chains;
-- who may not read the earlier originals is told so
GRANT EXECUTE ON FUNCTION epro_etl.verify_audit, epro_etl.audit_bytes, epro_etl.audit_instant, epro_etl.audit_run, epro_etl.audit_triggers TO epro_t42_manager;
GRANT SELECT ON epro_etl.audit_trail, epro_etl.audit_writer, epro_etl.run_ledger, epro_etl.run_worker, epro_etl.finding, epro_etl.superseded TO epro_t42_manager;
SET ROLE epro_t42_manager;
SELECT problem, object, detail FROM epro_etl.verify_audit() WHERE ours(problem, object);
RESET ROLE;

-- a restore puts a chain back whole, and closed: the writers go on in others
BEGIN;
CREATE TEMP TABLE saved_trail AS SELECT * FROM epro_etl.audit_trail;
CREATE TEMP TABLE saved_writer AS SELECT * FROM epro_etl.audit_writer;
ALTER TABLE epro_etl.audit_trail DISABLE TRIGGER USER;
ALTER TABLE epro_etl.audit_writer DISABLE TRIGGER USER;
DELETE FROM epro_etl.audit_trail;
DELETE FROM epro_etl.audit_writer;
ALTER TABLE epro_etl.audit_trail ENABLE ALWAYS TRIGGER audit_refuse;
ALTER TABLE epro_etl.audit_trail ENABLE ALWAYS TRIGGER audit_refuse_truncate;
ALTER TABLE epro_etl.audit_writer ENABLE ALWAYS TRIGGER audit_refuse;
ALTER TABLE epro_etl.audit_writer ENABLE ALWAYS TRIGGER audit_refuse_truncate;
SELECT epro_etl.add_edit_check('t42', 'of the restore', 'a > 0');
INSERT INTO epro_etl.audit_trail SELECT * FROM saved_trail;
INSERT INTO epro_etl.audit_writer SELECT * FROM saved_writer;
SELECT epro_etl.remove_edit_check('t42', 'of the restore');
SELECT count(*) FILTER (WHERE slot IS NULL) = (SELECT count(*) FROM saved_writer) AS closed, count(*) FILTER (WHERE slot IS NOT NULL) AS going_on FROM epro_etl.audit_writer;
SELECT * FROM chains;
ROLLBACK;

-- under repeatable read, a chain that somebody has gone on with since the snapshot is gone on with all the same
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) > 0 AS some FROM epro_etl.audit_trail;
SELECT epro_etl.add_edit_check('t42', 'repeatable', 'a > 0');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT epro_etl.remove_edit_check('t42', 'repeatable');
SAVEPOINT a;
SELECT epro_etl.add_edit_check('t42', 'serializable', 'a > 0');
ROLLBACK TO a;
SELECT epro_etl.add_edit_check('t42', 'serializable', 'a > 1');
COMMIT;
SELECT * FROM chains;
SET client_min_messages = warning;
SELECT epro_etl.drop_pipeline('t42_far');
DROP SERVER far42 CASCADE;
RESET client_min_messages;
DROP OWNED BY epro_t42_manager, epro_t42_owner;
DROP ROLE epro_t42_manager, epro_t42_owner;
SELECT probe.close_area('t42');
