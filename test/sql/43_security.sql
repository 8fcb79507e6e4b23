-- Security: what somebody who may do a little tries, in order to do more. What
-- workers and streams do about it is test/t/22_privileges.pl's.
\set SHOW_CONTEXT never
SELECT probe.open_area('t43');
SET client_min_messages = warning;
DROP ROLE IF EXISTS epro_t43_author, epro_t43_operator, epro_t43_reader;
RESET client_min_messages;
CREATE ROLE epro_t43_author;
CREATE ROLE epro_t43_operator;
CREATE ROLE epro_t43_reader;
GRANT USAGE ON SCHEMA t43, epro_etl TO epro_t43_author, epro_t43_operator, epro_t43_reader;
GRANT CREATE ON SCHEMA t43 TO epro_t43_author;
GRANT SELECT, DELETE ON staging TO epro_t43_author;
GRANT SELECT, DELETE ON staging TO epro_t43_operator;
GRANT EXECUTE ON FUNCTION epro_etl.run, epro_etl.cancel_run TO epro_t43_operator;

-- who configures, as the README has it
GRANT EXECUTE ON FUNCTION epro_etl.register_form(text, jsonb, text), epro_etl.register_form(text, xml, text), epro_etl.register_form(text, text, text), epro_etl.add_edit_check, epro_etl.add_lookup, epro_etl.remove_edit_check,
    epro_etl.retire_check, epro_etl.thresholds_fit, epro_etl.compile_form, epro_etl.form_items, epro_etl.form_not_imported, epro_etl.set_deid, epro_etl.set_severity, epro_etl.form_rules,
    epro_etl.create_pipeline, epro_etl.compile_pipeline, epro_etl.add_sink, epro_etl.create_sink, epro_etl.make_sink, epro_etl.tell_unstored, epro_etl.validate TO epro_t43_author;
GRANT SELECT, INSERT ON epro_etl.form, epro_etl.edit_check, epro_etl.deid_rule, epro_etl.deid_category, epro_etl.severity_overlay, epro_etl.batch_threshold, epro_etl.pipeline, epro_etl.sink TO epro_t43_author;
GRANT UPDATE ON epro_etl.edit_check, epro_etl.deid_rule, epro_etl.severity_overlay, epro_etl.batch_threshold TO epro_t43_author;
GRANT USAGE ON SEQUENCE epro_etl.severity_overlay_overlay_id_seq TO epro_t43_author;
SET ROLE epro_t43_author;
SELECT epro_etl.register_form('t43', '{"properties": {"a": {"type": "integer"}, "t": {"type": "string"}}}');
SELECT epro_etl.add_edit_check('t43', 'positive', 'a > 0');
SELECT epro_etl.add_edit_check('t43', 'low', 'a < 100', 'warning');
SELECT epro_etl.set_severity('t43', 'low', 'information', 'for now');
SELECT epro_etl.set_severity('t43', 'low', NULL);
SELECT epro_etl.remove_edit_check('t43', 'low');
SELECT epro_etl.set_deid('t43', '/t', 'keep');
SELECT epro_etl.create_pipeline('t43_own', 't43.staging');
SELECT epro_etl.create_sink('t43_own', 't43', 't43.own');
-- it loads nothing, reads no response, touches neither ledger nor key, and acts as nobody else
\set VERBOSITY terse
SELECT epro_etl.run('t43_own');
SELECT count(*) FROM epro_etl.quarantine;
SELECT count(*) FROM epro_etl.superseded;
SELECT count(*) FROM epro_etl.outbox;
SELECT count(*) FROM epro_etl.pseudonym;
SELECT count(*) FROM epro_etl.run_ledger;
INSERT INTO epro_etl.run_ledger DEFAULT VALUES;
DELETE FROM epro_etl.edit_check;
UPDATE epro_etl.form SET definition = '{}';
INSERT INTO epro_etl.stream (pipeline_id, login, role) SELECT pipeline_id, 10, 10 FROM epro_etl.pipeline LIMIT 1;
INSERT INTO epro_etl.key_version (version, check_value) VALUES (99, '');
SELECT epro_etl.rotate_key();
SELECT epro_etl.decrypt_answer('t43', '/t', 'ST01', 'x');
SELECT epro_etl.add_context_server('x');
CREATE TABLE epro_etl.mine ();
CREATE FUNCTION epro_etl.now() RETURNS timestamptz LANGUAGE sql RETURN '-infinity'::timestamptz;
CREATE TRIGGER mine BEFORE INSERT ON epro_etl.run_ledger EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE POLICY mine ON epro_etl.quarantine USING (true);
CREATE INDEX mine ON epro_etl.quarantine (run_id);
RESET ROLE;
-- with EXECUTE on everything, the privileges on tables, and the functions' own, still hold
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO epro_t43_author;
SET ROLE epro_t43_author;
SELECT epro_etl.rotate_key();
SELECT epro_etl.decrypt_answer('t43', '/t', 'ST01', 'x');
SELECT epro_etl.add_context_server('x');
SELECT epro_etl.requeue('t43_own');
SELECT epro_etl.reconcile(1);
RESET ROLE;
\set VERBOSITY default

-- who reads counts
GRANT SELECT ON epro_etl.run_history TO epro_t43_reader;
SELECT epro_etl.create_sink('t43', 't43', 'loaded');
GRANT INSERT ON loaded TO epro_t43_operator;
SELECT probe.put('t43', '{"a": 1}', '{"a": -1}', '{"a": 2}');
SET ROLE epro_t43_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t43', workers => 0);
\set VERBOSITY terse
SET ROLE epro_t43_reader;
SELECT status, claimed, loaded, rejected FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT * FROM epro_etl.finding;
SELECT * FROM epro_etl.quarantine;
SELECT * FROM epro_etl.run_ledger;
SELECT * FROM epro_etl.stat_progress;
SELECT epro_etl.run('t43');
SELECT epro_etl.cancel_run(1);
SELECT epro_etl.validate('t43', '{}');
SELECT epro_etl.context_set('a', 'b');
SELECT * FROM loaded;
UPDATE epro_etl.run_history SET status = 'succeeded';
RESET ROLE;
\set VERBOSITY default

--
-- Names. Every function of the server that ours call, and the operators, are there
-- a second time in a schema that comes first; so are, as temporary objects, the
-- tables and types. Whoever reaches one of them fails.
--
CREATE SCHEMA t43_evil;
GRANT USAGE ON SCHEMA t43_evil TO PUBLIC;
DO $$
DECLARE
    r record;
    args text;
BEGIN
    FOR r IN SELECT p.proname, p.oid, p.prorettype FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
              AND EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = 'epro_etl'::regnamespace AND o.prosrc ~ ('\m' || p.proname || '\(')) LOOP
        BEGIN
            args := pg_get_function_identity_arguments(r.oid);
            EXECUTE format('CREATE FUNCTION t43_evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', r.proname, args, r.prorettype::regtype, 'BEGIN RAISE EXCEPTION ''hijacked''; END');
        EXCEPTION WHEN invalid_function_definition OR undefined_object OR syntax_error OR feature_not_supported OR duplicate_function THEN
            NULL;
        END;
    END LOOP;
    FOR r IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS res, row_number() OVER () AS n FROM pg_operator o
              WHERE o.oprkind = 'b' AND o.oprleft = ANY ('{text,int4,int8,oid,name,bool,jsonb,timestamptz,interval,float8,numeric,regclass,text[],"char",bigint[]}'::regtype[]) LOOP
        EXECUTE format('CREATE FUNCTION t43_evil.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', r.n, r.l, r.r, r.res, 'BEGIN RAISE EXCEPTION ''hijacked''; END');
        EXECUTE format('CREATE OPERATOR t43_evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = t43_evil.operator_%s)', r.oprname, r.l, r.r, r.n);
    END LOOP;
    FOR r IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind IN ('r', 'v')
             UNION SELECT unnest('{pg_class,pg_attribute,pg_roles,pg_locks,pg_constraint,pg_trigger,pg_database,pg_foreign_server,pg_proc,pg_type}'::text[]) LOOP
        EXECUTE format('CREATE TEMP TABLE %I (hijacked int)', r.relname);
        EXECUTE format('CREATE TABLE t43_evil.%I (hijacked int)', r.relname);
    END LOOP;
    FOR r IN SELECT unnest('{text,jsonb,regclass,regtype,bigint,interval,timestamptz,numeric,bool,oid,name,json,xml}'::text[]) AS n LOOP
        EXECUTE format('CREATE DOMAIN pg_temp.%I AS pg_catalog.int4 CHECK (false)', r.n);
        EXECUTE format('CREATE DOMAIN t43_evil.%I AS pg_catalog.int4 CHECK (false)', r.n);
    END LOOP;
END $$;
SELECT count(*) > 50 AS functions, (SELECT count(*) > 200 FROM pg_operator WHERE oprnamespace = 't43_evil'::regnamespace) AS operators
    FROM pg_catalog.pg_proc WHERE pronamespace = 't43_evil'::regnamespace AND proname NOT LIKE 'operator_%';
GRANT USAGE ON SCHEMA t43_evil TO epro_t43_operator;
SET search_path = t43_evil, pg_temp, pg_catalog, t43, public;
-- so it is for a statement of the session
SELECT 1::pg_catalog.int8 = 1::pg_catalog.int8;
-- and not for ours
SELECT epro_etl.register_form('t43_n', '{"properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": "integer"}, "d": {"type": "string", "format": "date"}, "t": {"type": "string", "pattern": "^x", "enum": ["x", "xy"]}}}');
SELECT epro_etl.add_edit_check('t43_n', 'c', 'a + 1 > coalesce(b, 0) AND lower(t) = t', 'warning');
SELECT epro_etl.add_lookup('t43_n', 'l', 'a IN (SELECT c.relnatts FROM pg_catalog.pg_class c)', 'information');
SELECT epro_etl.add_check('t43_n', 'k', 'required_if', '{"items": ["b"], "when": {"a": 1}}');
SELECT epro_etl.add_check('t43_n', 'p', 'batch_threshold', '{"rule": "c", "max_ratio": 0.9}');
SELECT epro_etl.add_score('t43_n', 'total', '{"expression": "a + b"}');
SELECT epro_etl.set_severity('t43_n', '/properties/a/minimum', 'warning', 'tried');
SELECT epro_etl.set_deid('t43_n', '/d', 'keep', '{"category": "dates"}');
SELECT epro_etl.apply_deid_profile('t43_n', 'safe_harbor');
SELECT pg_catalog.count(*) FROM epro_etl.deid_report('t43_n');
SELECT pg_catalog.count(*) FROM epro_etl.explain_form('t43_n');
SELECT pg_catalog.count(*) FROM epro_etl.validate('t43_n', '{"a": -1, "t": "z"}');
SELECT epro_etl.register_form('t43_odm', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><Study OID="s"><MetaDataVersion OID="m" Name="n"><FormDef OID="F" Name="F" Repeating="No"><ItemGroupRef ItemGroupOID="G" Mandatory="No"/></FormDef><ItemGroupDef OID="G" Name="G" Repeating="No"><ItemRef ItemOID="I" Mandatory="Yes"/></ItemGroupDef><ItemDef OID="I" Name="I" DataType="integer"><RangeCheck Comparator="LE" SoftHard="Soft"><CheckValue>5</CheckValue><ErrorMessage><TranslatedText>high</TranslatedText></ErrorMessage></RangeCheck></ItemDef></MetaDataVersion></Study></ODM>');
SELECT pg_catalog.count(*) FROM epro_etl.import_report WHERE form OPERATOR(pg_catalog.=) 't43_odm';
SELECT epro_etl.create_pipeline('t43_n', 't43.staging');
SELECT epro_etl.create_sink('t43_n', 't43_n', 't43.named');
SELECT epro_etl.create_sink('t43_n', 't43_n', 't43.named_long', 'long');
SELECT epro_etl.k_anonymity('t43.named', '{visit}');
SELECT epro_etl.watch_source('t43_n');
SELECT epro_etl.set_hop('study', 'epro_etl.study');
SELECT epro_etl.set_hop('study', NULL);
\set VERBOSITY sqlstate
SELECT epro_etl.study_participants('none');
\set VERBOSITY default
SELECT epro_etl.cancel_run(0);
INSERT INTO t43.staging SELECT i, 'ST01', 't43_n', 'P-1', 'DAY 1', NULL, pg_catalog.jsonb_build_object('a', i, 'b', 1, 't', CASE WHEN i OPERATOR(pg_catalog.<) 103 THEN 'x' ELSE 'z' END) FROM pg_catalog.generate_series(101, 104) i;
SELECT r.status, r.claimed, r.loaded, r.rejected FROM epro_etl.run('t43_n', workers => 0) r;
SELECT epro_etl.requeue('t43_n');
SELECT r.status, r.claimed, r.loaded, r.rejected FROM epro_etl.run('t43_n', workers => 1) r;
SELECT pg_catalog.count(*) FROM epro_etl.run_history h, epro_etl.reconcile(h.run_id) r WHERE h.pipeline OPERATOR(pg_catalog.=) 't43_n';
SELECT epro_etl.deliver('t43_n');
SELECT epro_etl.stop_stream('t43_n');
SELECT epro_etl.remove_sink('t43_n', 't43_n', 't43.named_long');
SELECT epro_etl.remove_edit_check('t43_n', 'k');
SELECT epro_etl.drop_pipeline('t43_n');
RESET search_path;
DISCARD TEMP;
SET client_min_messages = warning;
DROP SCHEMA t43_evil CASCADE;
RESET client_min_messages;
SET search_path = t43, public;

--
-- Rules. Their functions say that they only read, and try the rest, as the role
-- of the run, which may more than who wrote the rule.
--
CREATE TABLE trophy (who name, what text);
CREATE SEQUENCE counter;
GRANT INSERT ON trophy TO epro_t43_operator;
GRANT USAGE ON counter TO epro_t43_operator;
GRANT CREATE, TEMPORARY ON DATABASE :"DBNAME" TO epro_t43_operator;
GRANT CREATE ON SCHEMA t43 TO epro_t43_operator;
SET ROLE epro_t43_author;
CREATE FUNCTION act(what text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    CASE what
        WHEN 'write' THEN INSERT INTO t43.trophy VALUES (current_user, 'written');
        WHEN 'sequence' THEN PERFORM nextval('t43.counter');
        WHEN 'table' THEN CREATE TABLE t43.made ();
        WHEN 'temp' THEN CREATE TEMP TABLE made ();
        WHEN 'grant' THEN GRANT ALL ON t43.trophy TO PUBLIC;
        WHEN 'role' THEN PERFORM set_config('role', 'none', false);
        WHEN 'session' THEN EXECUTE 'SET SESSION AUTHORIZATION DEFAULT';
        WHEN 'writable' THEN PERFORM set_config('transaction_read_only', 'off', true);
        WHEN 'path' THEN PERFORM set_config('search_path', 't43_evil', false);
        WHEN 'context' THEN PERFORM epro_etl.context_set('request_id', 'forged');
        WHEN 'run' THEN PERFORM epro_etl.run('t43', workers => 0);
        WHEN 'stream' THEN PERFORM epro_etl.launch_stream('t43', NULL, NULL);
        WHEN 'file' THEN PERFORM pg_read_file('postgresql.conf');
        WHEN 'program' THEN COPY (SELECT 1) TO PROGRAM 'true';
        WHEN 'key' THEN PERFORM current_setting('epro_etl.key_file');
        WHEN 'quarantine' THEN PERFORM FROM epro_etl.quarantine;
        WHEN 'sleep' THEN PERFORM pg_sleep(600);
    END CASE;
    RETURN true;
END $$;
CREATE FUNCTION seems_harmless(what text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT t43.act(what)); END $$;
GRANT EXECUTE ON FUNCTION act, seems_harmless TO PUBLIC;
SELECT epro_etl.register_form('t43_r', '{"properties": {"a": {"type": "integer"}, "t": {"type": "string"}}}');
SELECT epro_etl.add_edit_check('t43_r', 'try', 't43.seems_harmless(t)');
RESET ROLE;
SELECT epro_etl.create_sink('t43', 't43_r', 'ruled');
GRANT INSERT ON ruled TO epro_t43_operator;
GRANT EXECUTE ON FUNCTION epro_etl.context_set, epro_etl.launch_stream, epro_etl.context_get TO epro_t43_operator;
CREATE VIEW attempts AS SELECT n, what FROM unnest('{write,sequence,table,temp,grant,role,session,writable,path,context,run,stream,file,program,key,quarantine}'::text[]) WITH ORDINALITY AS u (what, n);
INSERT INTO staging SELECT 200 + n, 'ST01', 't43_r', 'P', NULL, NULL, jsonb_build_object('t', what) FROM attempts;
SET ROLE epro_t43_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t43', workers => 0);
SELECT current_user, current_setting('search_path'), current_setting('transaction_read_only'), epro_etl.context_get('request_id');
RESET ROLE;
-- "path" and "context" got through, and were undone
SELECT a.what, l.rule, l.kind, l.severity, l.message FROM attempts a LEFT JOIN probe.last l ON l.source_id = (200 + a.n)::text ORDER BY a.n;
SELECT * FROM trophy;
SELECT last_value, is_called FROM counter;
SELECT to_regclass('t43.made'), to_regclass('pg_temp.made');
DELETE FROM staging;
-- a sink's condition, the condition of a check and that of a lookup, and a lookup, are rules as well
SELECT epro_etl.remove_edit_check('t43_r', 'try');
SELECT epro_etl.remove_sink('t43', 't43_r', 'ruled');
SELECT epro_etl.add_sink('t43', 't43_r', 'ruled', condition => $$t43.seems_harmless('write')$$);
SELECT probe.put('t43_r', '{"a": 1}');
SET ROLE epro_t43_operator;
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
RESET ROLE;
SELECT rule, kind, message FROM probe.last;
SELECT epro_etl.remove_sink('t43', 't43_r', 'ruled');
SELECT epro_etl.add_sink('t43', 't43_r', 'ruled');
SELECT epro_etl.add_edit_check('t43_r', 'try', 'true', condition => $$t43.seems_harmless('write')$$);
SELECT probe.put('t43_r', '{"a": 1}');
SET ROLE epro_t43_operator;
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
RESET ROLE;
SELECT rule, kind, message FROM probe.last;
SELECT epro_etl.remove_edit_check('t43_r', 'try');
SELECT epro_etl.add_lookup('t43_r', 'try', 'EXISTS (SELECT WHERE t43.seems_harmless(t))', timeout => '10 s');
SELECT probe.put('t43_r', '{"t": "write"}');
\set VERBOSITY terse
SET ROLE epro_t43_operator;
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
RESET ROLE;
\set VERBOSITY default
DELETE FROM staging;
SELECT epro_etl.add_lookup('t43_r', 'try', 'true', condition => $$t43.seems_harmless('path') AND NOT t43.seems_harmless('write')$$);
SELECT probe.put('t43_r', '{"a": 1}');
\set VERBOSITY terse
SET ROLE epro_t43_operator;
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
RESET ROLE;
\set VERBOSITY default
DELETE FROM staging;
SELECT * FROM trophy;
-- sleep ends when the run's time is over
SELECT epro_etl.add_edit_check('t43_r', 'try', 't43.seems_harmless(t)');
SELECT probe.put('t43_r', '{"t": "sleep"}');
SET ROLE epro_t43_operator;
\set VERBOSITY sqlstate
SELECT epro_etl.run('t43', workers => 0, timeout => '100 ms');
SET statement_timeout = '100ms';
SELECT epro_etl.run('t43', workers => 0);
RESET statement_timeout;
\set VERBOSITY default
RESET ROLE;
DELETE FROM staging;
-- constants are computed when the rule is compiled: as who runs, and as guarded
SET ROLE epro_t43_author;
CREATE FUNCTION constant(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RAISE NOTICE 'acts as %', current_user; RETURN current_user = 'epro_t43_author' OR t43.seems_harmless(what); END $$;
SELECT epro_etl.add_edit_check('t43_r', 'try', $$t43.constant('write')$$);
RESET ROLE;
SELECT probe.put('t43_r', '{"a": 1}');
SET ROLE epro_t43_operator;
\set VERBOSITY terse
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
\set VERBOSITY default
RESET ROLE;
SELECT * FROM trophy;
DELETE FROM staging;
-- written by hand, without add_edit_check(), it is judged when it is compiled
SELECT epro_etl.remove_edit_check('t43_r', 'try');
SET ROLE epro_t43_author;
INSERT INTO epro_etl.edit_check (form, check_name, expression, severity) VALUES ('t43_r', 'by hand', $$t43.act('write')$$, 'warning');
RESET ROLE;
SELECT probe.put('t43_r', '{"a": 1}');
SET ROLE epro_t43_operator;
\set VERBOSITY terse
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
\set VERBOSITY default
RESET ROLE;
SELECT epro_etl.remove_edit_check('t43_r', 'by hand');
DELETE FROM staging;
-- what is temporary is another thing for whoever runs
CREATE FUNCTION pg_temp.holds(a bigint) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true;
CREATE FUNCTION pg_temp.differ(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true;
CREATE OPERATOR pg_temp.<=> (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.differ);
CREATE DOMAIN pg_temp.code AS text CHECK (VALUE <> 'x');
CREATE TYPE pg_temp.mood AS ENUM ('good', 'bad');
CREATE TEMP TABLE composed (a int);
\set VERBOSITY terse
SELECT epro_etl.add_edit_check('t43_r', 'try', 'pg_temp.holds(a)');
SELECT epro_etl.add_edit_check('t43_r', 'try', 't OPERATOR(pg_temp.<=>) t');
SELECT epro_etl.add_edit_check('t43_r', 'try', 't::code = t');
SELECT epro_etl.add_edit_check('t43_r', 'try', 't::pg_temp.mood = ''good''');
SELECT epro_etl.add_edit_check('t43_r', 'try', 'ROW(a)::pg_temp.composed IS NOT NULL');
SELECT epro_etl.add_edit_check('t43_r', 'try', 'a > 1', condition => 'pg_temp.holds(a)');
SELECT epro_etl.add_sink('t43', 't43_r', 'loaded', condition => 'pg_temp.holds(a)');
SELECT epro_etl.add_lookup('t43_r', 'try', 'pg_temp.holds(a)');
SELECT epro_etl.add_lookup('t43_r', 'try', 'EXISTS (SELECT WHERE t::code = t)');
SELECT epro_etl.add_score('t43_r', 'try', '{"expression": "CASE WHEN pg_temp.holds(a) THEN 1 END"}');
\set VERBOSITY default
DISCARD TEMP;
-- what a rule's function names means the same under whatever path
CREATE SCHEMA t43_other;
CREATE FUNCTION t43_other.verdict() RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true;
CREATE FUNCTION verdict() RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true;
CREATE FUNCTION asks(a bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN verdict(); END';
CREATE FUNCTION asks_well(a bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path = t43 AS 'BEGIN RETURN verdict(); END';
SELECT epro_etl.add_edit_check('t43_r', 'unpinned', 't43.asks(a)');
SELECT epro_etl.add_edit_check('t43_r', 'pinned', 't43.asks_well(a)');
SELECT probe.put('t43_r', '{"a": 1}');
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
SELECT rule, kind, message FROM probe.last;
SET search_path = t43_other, t43;
SELECT probe.put('t43_r', '{"a": 1}');
SELECT status, loaded, rejected FROM epro_etl.run('t43', workers => 0);
SELECT rule, kind, message FROM probe.last;
SET client_min_messages = warning;
DROP SCHEMA t43_other CASCADE;
RESET client_min_messages;
SET search_path = t43, public;
SELECT epro_etl.remove_edit_check('t43_r', c) FROM unnest('{pinned,unpinned}'::text[]) c;

--
-- Objects of others that we touch: a cast to json of the source's type is not
-- asked for what quarantine keeps; a domain and an index run as who loads, not as
-- the owner of the extension.
--
CREATE TYPE shade AS ENUM ('red', 'blue');
CREATE FUNCTION shade_json(shade) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'cast as %', current_user; END $$;
CREATE FUNCTION shade_jsonb(shade) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'cast as %', current_user; END $$;
CREATE CAST (shade AS json) WITH FUNCTION shade_json(shade) AS IMPLICIT;
CREATE CAST (shade AS jsonb) WITH FUNCTION shade_jsonb(shade) AS IMPLICIT;
CREATE FUNCTION as_whom(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    IF current_user <> 'epro_t43_operator' AND $1 IS NOT NULL THEN RAISE EXCEPTION 'acts as %', current_user; END IF; RETURN $1; END $$;
CREATE DOMAIN known AS int CHECK (as_whom(VALUE) = VALUE);
CREATE TABLE shaded (LIKE staging, colour shade);
GRANT SELECT, DELETE ON shaded TO epro_t43_operator;
INSERT INTO shaded SELECT n, 'ST01', 't43', 'P', NULL, NULL, jsonb_build_object('a', n), 'red' FROM generate_series(-1, 1) n;
CREATE TABLE owned (source_id int, a known, b int DEFAULT as_whom(length(current_user)), CHECK (as_whom(a) IS NOT NULL));
CREATE INDEX ON owned (as_whom(a));
CREATE FUNCTION as_whom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM as_whom(NEW.a); RETURN NEW; END $$;
GRANT INSERT ON owned TO epro_t43_operator;
SELECT epro_etl.create_pipeline('t43_shaded', 'shaded');
SELECT epro_etl.add_sink('t43_shaded', 't43', 'owned');
SET ROLE epro_t43_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t43_shaded', workers => 0);
RESET ROLE;
SELECT original ->> 'colour' AS colour FROM epro_etl.quarantine WHERE pipeline = 't43_shaded' ORDER BY source_id;
CREATE TRIGGER as_whom BEFORE INSERT ON owned FOR EACH ROW EXECUTE FUNCTION as_whom();
INSERT INTO shaded SELECT n, 'ST01', 't43', 'P', NULL, NULL, jsonb_build_object('a', n), 'red' FROM generate_series(2, 3) n;
SET ROLE epro_t43_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t43_shaded', workers => 0);
RESET ROLE;

--
-- The key: its settings are for superusers; further sources that are not fit.
--
SET ROLE epro_t43_operator;
\set VERBOSITY terse
SET epro_etl.key_file = '/etc/passwd';
SET epro_etl.key_command = 'cat /etc/passwd';
SELECT set_config('epro_etl.key_command', 'true', true);
\set VERBOSITY sqlstate
SELECT current_setting('epro_etl.key_command');
\set VERBOSITY default
SELECT name, setting FROM pg_settings WHERE name LIKE 'epro\_etl.key%';
ALTER ROLE epro_t43_operator SET epro_etl.key_file = 'x';
CREATE FUNCTION t43.with_key() RETURNS void LANGUAGE sql SET epro_etl.key_file = 'x' RETURN NULL;
\set VERBOSITY default
RESET ROLE;
SELECT probe.put('t43', '{"a": 1}');
SET epro_etl.key_file = '/etc/passwd';
SELECT epro_etl.run('t43', workers => 0);
SET epro_etl.key_file = '/dev/null';
SELECT epro_etl.run('t43', workers => 0);
SET epro_etl.key_file = '/dev/tty';
\set VERBOSITY sqlstate
SELECT epro_etl.run('t43', workers => 0);
\set VERBOSITY default
SET epro_etl.key_file = '';
SET epro_etl.key_command = 'epro_etl_no_such_command 2> /dev/null';
SELECT epro_etl.run('t43', workers => 0);
SET epro_etl.key_command = 'kill -KILL $$';
SELECT epro_etl.run('t43', workers => 0);
SET epro_etl.key_command = 'exec >&-';
SELECT epro_etl.run('t43', workers => 0);
-- one that hangs goes with the statement
SET epro_etl.key_command = 'exec sleep 600';
SET statement_timeout = '200ms';
SELECT epro_etl.run('t43', workers => 0);
RESET statement_timeout;
RESET epro_etl.key_command;
RESET epro_etl.key_file;
SELECT status, loaded FROM epro_etl.run('t43', workers => 0);

--
-- Bombs in a form's definition; those in payloads are 04_payloads', entities are 27_odm's.
--
SET statement_timeout = '60s';
\set VERBOSITY terse
SELECT epro_etl.register_form('t43_b', repeat('{"not": ', 1000000));
SELECT epro_etl.register_form('t43_b', (repeat('{"properties": {"a": ', 100000) || '{}' || repeat('}}', 100000)));
SELECT epro_etl.register_form('t43_b', '{"properties": {"s": {"pattern": "((a{0,255}){0,255}){0,255}"}}}');
SELECT epro_etl.register_form('t43_b', '{"properties": {"a": {"$ref": "#/properties/a"}}}');
SELECT epro_etl.register_form('t43_b', '{"$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}}, "properties": {"a": {"$ref": "#/$defs/x"}}}');
SELECT epro_etl.register_form('t43_b', '{"properties": {"n": {"maximum": 1e999999}}}');
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ' || string_agg('a' || g || '="1"', ' ') || '/>') FROM generate_series(1, 100000) g;
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><a b=">" ' || string_agg('a' || g || '="1"', ' ') || '/></ODM>') FROM generate_series(1, 6000) g;
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3">' || repeat('x', 17000000) || '</ODM>');
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><?xml-stylesheet href="file:///etc/passwd"?><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/></ODM>');
-- a pattern for which others take for ever
SELECT epro_etl.register_form('t43_b', '{"properties": {"s": {"type": "string", "pattern": "^(a+)+$"}, "n": {"type": "number", "multipleOf": 1e-300}}}');
SELECT location, rule, kind FROM epro_etl.validate('t43_b', jsonb_build_object('s', repeat('a', 100000) || '!', 'n', ('1' || repeat('0', 100000) || '.5')::numeric));
-- the parser tells where, with the text
\set VERBOSITY sqlstate
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3">' || repeat('<a>', 10000) || repeat('</a>', 10000) || '</ODM>');
SELECT epro_etl.register_form('t43_b', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><' || repeat('x', 2000000) || '/></ODM>');
\set VERBOSITY default
RESET statement_timeout;

DELETE FROM staging;
SELECT probe.close_area('t43');
DROP OWNED BY epro_t43_author, epro_t43_operator, epro_t43_reader;
DROP ROLE epro_t43_author, epro_t43_operator, epro_t43_reader;
