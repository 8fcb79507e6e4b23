-- A run has the sinks of its beginning: one added later waits for the next run, one taken off is done without.
\set SHOW_CONTEXT never
SELECT probe.open_area('t19');
SELECT epro_etl.register_form('t19', '{"properties": {"a": {"type": "integer"}}}');
CREATE TABLE first (source_id int, a int, run_id bigint);
CREATE TABLE second (source_id int, a int);
CREATE TABLE third (source_id int, a int);
SELECT epro_etl.add_sink('t19', 't19', 'first');
SELECT epro_etl.add_sink('t19', 't19', 'second', required => false);
SELECT epro_etl.add_sink('t19', 't19', 'third', required => NULL);
SELECT target, required FROM epro_etl.sink ORDER BY sink_id;
-- the third row changes the sinks under the run, and a function, so that it compiles again
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.a = 3 THEN
        PERFORM epro_etl.add_sink('t19', 't19', 't19.third');
        PERFORM epro_etl.remove_sink('t19', 't19', 't19.second');
        CREATE OR REPLACE FUNCTION t19.touched() RETURNS int LANGUAGE sql RETURN 1;
    ELSIF new.a = 13 THEN
        PERFORM epro_etl.remove_sink('t19', s.form, s.target) FROM epro_etl.sink s JOIN epro_etl.pipeline p USING (pipeline_id) WHERE p.name = 't19';
        CREATE OR REPLACE FUNCTION t19.touched() RETURNS int LANGUAGE sql RETURN 2;
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER change BEFORE INSERT ON first FOR EACH ROW EXECUTE FUNCTION change();
SET epro_etl.batch_size = 1;
SELECT probe.put('t19', '{"a": 1}', '{"a": 2}', '{"a": 3}', '{"a": 4}', '{"a": 5}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t19', workers => 0);
SELECT a FROM first ORDER BY a;
SELECT a FROM second ORDER BY a;
SELECT a FROM third ORDER BY a;
SELECT target FROM epro_etl.sink ORDER BY sink_id;
-- the ledger names them: at the beginning two, of which one is still there
SELECT jsonb_array_length(versions -> 't19' -> 'sinks') AS pinned,
       (SELECT array_agg(s.target::regclass ORDER BY s.sink_id) FROM epro_etl.sink s WHERE to_jsonb(s.sink_id) <@ (versions -> 't19' -> 'sinks')) AS still_there,
       (SELECT jsonb_agg(i ORDER BY i::bigint) FROM jsonb_array_elements(versions -> 't19' -> 'sinks') i) = versions -> 't19' -> 'sinks' AS in_order
    FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
-- the next run has those of now
SELECT setval('staged', 10);
SELECT probe.put('t19', '{"a": 11}', '{"a": 12}', '{"a": 13}', '{"a": 14}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t19', workers => 0);
SELECT versions -> 't19' -> 'sinks' <> '[]' AS pinned FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
-- taken off all of them, a response has nowhere to go
SELECT * FROM probe.last;
SELECT a FROM first WHERE a > 10 ORDER BY a;
SELECT a FROM third ORDER BY a;
RESET epro_etl.batch_size;
SELECT probe.close_area('t19');
