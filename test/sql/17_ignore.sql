-- on_duplicate => 'ignore': a row that the sink holds already stays, and the response counts as loaded.
\set SHOW_CONTEXT never
SELECT probe.open_area('t17');
SELECT epro_etl.register_form('t17', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}');
-- a plain table, a partitioned one, a long one, one with a trigger after the insert
CREATE TABLE plain (source_id int PRIMARY KEY, a int CHECK (a <> 13), b int UNIQUE);
CREATE TABLE parts (source_id int PRIMARY KEY, a int, b int) PARTITION BY RANGE (source_id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (3);
CREATE TABLE parts_high PARTITION OF parts (CHECK (b < 100)) FOR VALUES FROM (3) TO (1000);
CREATE TABLE after (source_id int PRIMARY KEY, a int);
CREATE TABLE seen (source_id int);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t17.seen VALUES (new.source_id); RETURN NULL; END';
CREATE TRIGGER see AFTER INSERT ON after FOR EACH ROW EXECUTE FUNCTION see();
SELECT epro_etl.add_sink('t17', 't17', 'plain', on_duplicate => 'ignore');
SELECT epro_etl.add_sink('t17', 't17', 'parts', on_duplicate => 'ignore');
SELECT epro_etl.add_sink('t17', 't17', 'after', on_duplicate => 'ignore');
CREATE TABLE items (source_id int, item text, value_number int, run_id bigint, PRIMARY KEY (source_id, item));
SELECT epro_etl.add_sink('t17', 't17', 'items', shape => 'long', on_duplicate => 'ignore');
SELECT on_duplicate, count(*) FROM epro_etl.sink GROUP BY 1;
INSERT INTO plain VALUES (1, 77, 77);
INSERT INTO parts VALUES (2, 77), (3, 77);
INSERT INTO after VALUES (4, 77);
INSERT INTO items VALUES (1, 'a', 77), (5, 'b', 77);
TRUNCATE seen;
-- 2 and 7 have the same b, which plain holds once; 6 and 8 are refused for other reasons than their key
SELECT probe.put('t17', '{"a": 1, "b": 1}', '{"a": 2, "b": 2}', '{"a": 3, "b": 3}', '{"a": 4, "b": 4}', '{"a": 5, "b": 5}', '{"a": 13, "b": 6}', '{"a": 7, "b": 2}',
    '{"a": 8, "b": 100}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t17', workers => 0);
SELECT source_id, rule, kind FROM probe.last;
TABLE plain ORDER BY 1;
SELECT tableoid::regclass, * FROM parts ORDER BY source_id;
TABLE after ORDER BY 1;
TABLE seen ORDER BY 1;
SELECT source_id, item, value_number FROM items ORDER BY 1, 2;
-- the same again changes nothing, and nothing goes to quarantine
INSERT INTO staging SELECT n, 'ST01', 't17', 'P-1', NULL, NULL, '{"a": 99, "b": 99}' FROM unnest('{1, 3, 4, 5}'::int[]) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t17', workers => 0);
SELECT count(*) FROM plain WHERE a = 99;
SELECT count(*) FROM items WHERE value_number = 99;
-- rows of an earlier run cannot be counted for this one
SELECT measure, ledger, relations FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- what rejects next to what ignores decides, and can be counted
CREATE TABLE strict (source_id int PRIMARY KEY, a int, run_id bigint);
SELECT epro_etl.add_sink('t17', 't17', 'strict');
INSERT INTO strict VALUES (50);
INSERT INTO staging SELECT n, 'ST01', 't17', 'P-1', NULL, NULL, '{"a": 1}' FROM unnest('{1, 50, 51}'::int[]) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t17', workers => 0);
SELECT source_id, rule, kind FROM probe.last;
SELECT source_id, a FROM strict ORDER BY 1;
SELECT source_id FROM items WHERE source_id >= 50;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));

-- where a duplicate cannot be told from a row that got lost, it is refused
SELECT epro_etl.add_sink('t17', 't17', 'seen', on_duplicate => NULL);
CREATE VIEW above AS SELECT source_id, a FROM after;
SELECT epro_etl.add_sink('t17', 't17', 'above', on_duplicate => 'ignore');
CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER drop_it BEFORE INSERT ON parts_low FOR EACH ROW EXECUTE FUNCTION drop_it();
SELECT probe.put('t17', '{"a": 1}');
SELECT status FROM epro_etl.run('t17', workers => 0);
DROP TRIGGER drop_it ON parts_low;
CREATE TABLE later (source_id int PRIMARY KEY DEFERRABLE, a int);
SELECT epro_etl.add_sink('t17', 't17', 'later', on_duplicate => 'ignore');
CREATE TABLE ruled (source_id int PRIMARY KEY, a int);
CREATE RULE ruled AS ON INSERT TO ruled WHERE new.a = 13 DO INSTEAD NOTHING;
SELECT epro_etl.add_sink('t17', 't17', 'ruled', on_duplicate => 'ignore');
SELECT status, loaded FROM epro_etl.run('t17', workers => 0);
SELECT probe.close_area('t17');
