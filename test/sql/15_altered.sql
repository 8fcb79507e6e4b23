-- Sinks that were altered after they had been added, and sinks that are none.
\set SHOW_CONTEXT never
SELECT probe.open_area('t15');
SELECT epro_etl.register_form('t15', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}');
-- a source is no sink of its own pipeline; a generated column stores no item
SELECT epro_etl.add_sink('t15', 't15', 'staging');
CREATE TABLE gen (source_id int, a int GENERATED ALWAYS AS (source_id) STORED, b int);
SELECT epro_etl.add_sink('t15', 't15', 'gen');
SELECT epro_etl.remove_sink('t15', 't15', 'gen');
-- renamed and moved, a sink is the same one
CREATE TABLE own (source_id int, a int, b int);
SELECT epro_etl.add_sink('t15', 't15', 'own');
ALTER TABLE own RENAME TO moved;
CREATE SCHEMA t15_other;
ALTER TABLE moved SET SCHEMA t15_other;
SELECT probe.put('t15', '{"a": 1, "b": 2}');
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
SELECT a, b FROM t15_other.moved;
-- but without a column that took an answer it is refused, and nothing moves
ALTER TABLE t15_other.moved RENAME a TO z;
SELECT probe.put('t15', '{"a": 3, "b": 4}');
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
SELECT count(*) AS still_staged FROM staging;
ALTER TABLE t15_other.moved RENAME z TO a;
ALTER TABLE t15_other.moved ALTER b TYPE date USING NULL;
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
ALTER TABLE t15_other.moved ALTER b TYPE int USING NULL;
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
DROP TABLE t15_other.moved;
SELECT probe.put('t15', '{"a": 5, "b": 6}');
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
SELECT count(*) AS still_staged FROM staging;
SELECT epro_etl.remove_sink('t15', 't15');
SELECT count(*) AS sinks FROM epro_etl.sink;
CREATE TABLE again (source_id int, a int, b int);
SELECT epro_etl.add_sink('t15', 't15', 'again');
SELECT status, claimed, loaded FROM epro_etl.run('t15', workers => 0);
-- what a run would find can be asked for, and what nobody stores
SELECT epro_etl.compile_pipeline('t15');
ALTER TABLE again DROP COLUMN b;
SELECT epro_etl.compile_pipeline('t15');
SELECT epro_etl.tell_unstored('t15', 't15');
-- create_sink() is make_sink() in the current schema
SELECT epro_etl.make_sink('t15', 't15', 'made', 'wide', 't15_other');
SELECT epro_etl.remove_sink('t15', 't15', 'again');
SELECT epro_etl.make_sink('t15', 't15', 'made', 'wide', 't15_other');
SELECT epro_etl.remove_sink('t15', 't15', 't15_other.made');
SET client_min_messages = warning;
DROP SCHEMA t15_other CASCADE;
RESET client_min_messages;
SELECT probe.close_area('t15');
