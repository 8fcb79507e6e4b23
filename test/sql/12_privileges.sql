-- Privileges: nothing for PUBLIC, and a run has the caller's and no more.
\set SHOW_CONTEXT never
SELECT probe.open_area('t12');
SET client_min_messages = warning;
DROP ROLE IF EXISTS epro_t12_nobody, epro_t12_operator;
RESET client_min_messages;
CREATE ROLE epro_t12_nobody;
CREATE ROLE epro_t12_operator;
GRANT USAGE ON SCHEMA t12 TO epro_t12_nobody, epro_t12_operator;
SELECT epro_etl.register_form('t12', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t12', 't12', 'loaded');
SELECT probe.put('t12', '{"a": 1}', '{"a": "x"}', '{"a": 3}');
\set VERBOSITY terse
-- nobody can do nothing
SET ROLE epro_t12_nobody;
SELECT epro_etl.run('t12', workers => 0);
SELECT * FROM epro_etl.run_history;
SELECT * FROM epro_etl.quarantine;
RESET ROLE;
-- asked of the catalog: no table, sequence or routine of the schema is open to everybody; no row is right
SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm')
    AND has_table_privilege('epro_t12_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'epro_etl'::regnamespace
    AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('epro_t12_nobody', c.oid, 'USAGE, SELECT, UPDATE') END;
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'epro_etl'::regnamespace AND has_function_privilege('epro_t12_nobody', p.oid, 'EXECUTE');
SELECT has_schema_privilege('epro_t12_nobody', 'epro_etl', 'USAGE, CREATE') AS schema_open;
-- an operator, as the README has it, without its privileges on the data
GRANT USAGE ON SCHEMA epro_etl TO epro_t12_operator;
GRANT EXECUTE ON FUNCTION epro_etl.run, epro_etl.start_run, epro_etl.wait_run, epro_etl.cancel_run, epro_etl.progress TO epro_t12_operator;
GRANT EXECUTE ON PROCEDURE epro_etl.run_job TO epro_t12_operator;
GRANT SELECT ON epro_etl.run_history, epro_etl.stat_progress TO epro_t12_operator;
SET ROLE epro_t12_operator;
SELECT epro_etl.run('t12', workers => 0);
RESET ROLE;
GRANT SELECT ON staging TO epro_t12_operator;
SET ROLE epro_t12_operator;
SELECT epro_etl.run('t12', workers => 0);
RESET ROLE;
GRANT DELETE ON staging TO epro_t12_operator;
SET ROLE epro_t12_operator;
SELECT epro_etl.run('t12', workers => 0);
RESET ROLE;
SELECT count(*) AS still_staged FROM staging;
GRANT INSERT ON loaded TO epro_t12_operator;
SET ROLE epro_t12_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t12', workers => 0);
SELECT status, claimed FROM epro_etl.run('t12', workers => 1);
SELECT current_user_name, session_user_name = session_user AS session_user_told FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
SELECT count(*) FROM epro_etl.stat_progress;
-- it runs, and that is all: what the run wrote for it, it can neither read nor change
SELECT * FROM loaded;
SELECT * FROM epro_etl.quarantine;
SELECT * FROM epro_etl.finding;
SELECT * FROM epro_etl.form;
INSERT INTO epro_etl.run_ledger (pipeline) VALUES ('x');
UPDATE epro_etl.run_worker SET loaded = 1;
DELETE FROM epro_etl.finding;
SELECT epro_etl.register_form('t12_z', '{"properties": {"a": {}}}');
SELECT epro_etl.create_pipeline('t12_z', 't12.staging');
SELECT epro_etl.add_sink('t12', 't12', 't12.staging');
SELECT epro_etl.add_edit_check('t12', 'c', 'true');
SELECT epro_etl.set_deid('t12', '/a', 'remove');
SELECT epro_etl.drop_pipeline('t12');
SELECT epro_etl.requeue('t12');
SELECT epro_etl.reconcile(1);
SELECT epro_etl.compile_form('t12');
SELECT epro_etl.form_items('t12');
SELECT nextval('epro_etl.run_ledger_run_id_seq');
-- nor see, or point elsewhere, the key
\set VERBOSITY sqlstate
SHOW epro_etl.key_file;
\set VERBOSITY terse
SET epro_etl.key_file = 'x';
RESET ROLE;
-- privileges on columns are enough, where they are all that is used
REVOKE INSERT ON loaded FROM epro_t12_operator;
GRANT INSERT (source_id, study, subject_key, form, form_version, visit, authored, a, run_id) ON loaded TO epro_t12_operator;
SELECT probe.put('t12', '{"a": 4}');
SET ROLE epro_t12_operator;
SELECT status FROM epro_etl.run('t12', workers => 0);
RESET ROLE;
GRANT INSERT (key_version, loaded_at) ON loaded TO epro_t12_operator;
SET ROLE epro_t12_operator;
SELECT status, loaded FROM epro_etl.run('t12', workers => 0);
RESET ROLE;
-- row security of the source: what the caller cannot see is not claimed; of the sink: what it may not insert is rejected
CREATE TABLE secured (LIKE staging, site text);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_site ON secured USING (site = 'A');
GRANT SELECT, UPDATE, DELETE ON secured TO epro_t12_operator;
CREATE TABLE guarded (source_id int, a int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY small ON guarded FOR INSERT WITH CHECK (a < 6);
GRANT INSERT ON guarded TO epro_t12_operator;
SELECT epro_etl.create_pipeline('t12_secured', 'secured');
SELECT epro_etl.add_sink('t12_secured', 't12', 'guarded');
INSERT INTO secured SELECT n, 'ST01', 't12', 'P-1', NULL, NULL, jsonb_build_object('a', n), CASE WHEN n % 2 = 0 THEN 'A' ELSE 'B' END FROM generate_series(1, 10) n;
SET ROLE epro_t12_operator;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t12_secured', workers => 0);
RESET ROLE;
SELECT location, rule, kind, message FROM probe.last;
SELECT source_id, a FROM guarded ORDER BY 1;
SELECT array_agg(id ORDER BY id) AS left_alone FROM secured;
-- rights of a rule are the rule's caller's too: a function in a check cannot be used to get at more
SELECT epro_etl.register_form('t12_check', '{"properties": {"a": {"type": "integer"}}}');
CREATE FUNCTION peek(a bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN a = (SELECT count(*) FROM epro_etl.quarantine); END';
SELECT epro_etl.add_edit_check('t12_check', 'peek', 't12.peek(a)');
CREATE TABLE checked (source_id int, a int);
GRANT INSERT ON checked TO epro_t12_operator;
SELECT epro_etl.add_sink('t12', 't12_check', 'checked');
SELECT probe.put('t12_check', '{"a": 1}');
SET ROLE epro_t12_operator;
SELECT status, loaded, rejected FROM epro_etl.run('t12', workers => 0);
RESET ROLE;
SELECT rule, kind, message FROM probe.last;
\set VERBOSITY default
SELECT probe.close_area('t12');
DROP OWNED BY epro_t12_operator, epro_t12_nobody;
DROP ROLE epro_t12_operator, epro_t12_nobody;
