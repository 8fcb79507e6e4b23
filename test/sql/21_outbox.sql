-- Rows that wait for a sink on another server, which here is this one. A new
-- session knows nothing of a sink that another has found away.
\set SHOW_CONTEXT never
SELECT probe.open_area('t21');
CREATE EXTENSION postgres_fdw SCHEMA t21;
DO $$
DECLARE
    socket text := split_part(current_setting('unix_socket_directories'), ',', 1);
BEGIN
    EXECUTE format('CREATE SERVER far21 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L, batch_size ''100'')',
                   CASE socket WHEN '' THEN 'localhost' ELSE socket END, current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR CURRENT_USER SERVER far21;
SELECT epro_etl.register_form('t21', '{"properties": {"a": {"type": "integer"}, "f": {"type": "number"}}}');
CREATE TABLE there (source_id int PRIMARY KEY, a int);
CREATE FOREIGN TABLE far (source_id int, a int) SERVER far21 OPTIONS (schema_name 't21', table_name 'there');
SELECT epro_etl.add_sink('t21', 't21', 'far', required => false);

-- what a trigger there drops is not delivered: it stays, marked, and the others arrive
ALTER TABLE there RENAME TO moved;
INSERT INTO staging SELECT n, 'ST01', 't21', 'P-1', NULL, NULL, jsonb_build_object('a', n) FROM generate_series(1, 8) n;
SELECT status, loaded FROM epro_etl.run('t21', workers => 0);
SELECT count(*), count(refused) FROM epro_etl.outbox;
ALTER TABLE moved RENAME TO there;
CREATE FUNCTION drop_odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN new.a % 2 = 0 THEN new END; END';
CREATE TRIGGER drop_odd BEFORE INSERT ON there FOR EACH ROW EXECUTE FUNCTION drop_odd();
\c
\set SHOW_CONTEXT never
SET search_path = t21, public;
SELECT epro_etl.deliver('t21');
SELECT source_id, refused FROM epro_etl.outbox ORDER BY outbox_id;
SELECT source_id FROM there ORDER BY 1;
DROP TRIGGER drop_odd ON there;
UPDATE epro_etl.outbox SET refused = NULL;
SELECT epro_etl.deliver('t21');
SELECT count(*) FROM epro_etl.outbox;
SELECT count(*) FROM there;

-- a value is read as it was written, whatever the settings of the two sessions are
CREATE TABLE keyed (id daterange, study text, form text, subject text, payload jsonb);
CREATE TABLE days_there (source_id daterange, f float8);
CREATE FOREIGN TABLE days_far (source_id daterange, f float8) SERVER far21 OPTIONS (schema_name 't21', table_name 'moved');
SELECT epro_etl.create_pipeline('t21_days', 'keyed');
SELECT epro_etl.add_sink('t21_days', 't21', 'days_far', required => false);
SET datestyle = 'SQL, DMY';
SET extra_float_digits = -10;
INSERT INTO keyed VALUES ('[2026-03-01,2026-04-02)', 'ST01', 't21', 'P-1', '{"f": 1.23456789012345}');
SELECT status, loaded FROM epro_etl.run('t21_days', workers => 0);
ALTER TABLE days_there RENAME TO moved;
\c
\set SHOW_CONTEXT never
SET search_path = t21, public;
SET datestyle = 'SQL, MDY';
SELECT epro_etl.deliver('t21_days');
SHOW datestyle;
RESET datestyle;
SELECT source_id = daterange('2026-03-01', '2026-04-02') AS days, f FROM moved;
SELECT count(*) FROM epro_etl.outbox;

ALTER TABLE moved RENAME TO days_there;

-- a sink that was taken off in the meantime gets no rows any more: nobody would deliver them
CREATE TABLE near (source_id int, a int);
SELECT epro_etl.remove_sink('t21', 't21', 'far');
SELECT epro_etl.add_sink('t21', 't21', 'near');
SELECT epro_etl.add_sink('t21', 't21', 'far', required => false);
CREATE FUNCTION take_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM epro_etl.remove_sink('t21', 't21', 't21.far'); RETURN NULL; END $$;
CREATE TRIGGER take_off AFTER INSERT ON near FOR EACH STATEMENT EXECUTE FUNCTION take_off();
ALTER TABLE there RENAME TO moved;
INSERT INTO staging VALUES (31, 'ST01', 't21', 'P-1', NULL, NULL, '{"a": 31}');
SELECT status, loaded FROM epro_etl.run('t21', workers => 0);
SELECT count(*) FROM epro_etl.outbox;
SELECT count(*) FROM staging;
DROP TRIGGER take_off ON near;
SELECT status, loaded FROM epro_etl.run('t21', workers => 0);
SELECT count(*) FROM epro_etl.outbox;
-- nor can it be taken off while rows wait for it
SELECT epro_etl.remove_sink('t21', 't21', 'far');
SELECT epro_etl.drop_pipeline('t21');
DELETE FROM epro_etl.outbox;

SET client_min_messages = warning;
DROP SERVER far21 CASCADE;
RESET client_min_messages;
SELECT probe.close_area('t21');
