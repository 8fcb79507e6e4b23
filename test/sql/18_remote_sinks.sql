-- Sinks on another server, which here is this one, reached through postgres_fdw.
\set SHOW_CONTEXT never
SELECT probe.open_area('t18');
CREATE EXTENSION postgres_fdw SCHEMA t18;
DO $$
DECLARE
    socket text := split_part(current_setting('unix_socket_directories'), ',', 1);
BEGIN
    EXECUTE format('CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L, batch_size ''100'')',
                   CASE socket WHEN '' THEN 'localhost' ELSE socket END, current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
-- what stands there notes each statement that reaches it
CREATE TABLE statement (relation text, rows bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t18.statement SELECT tg_table_name, count(*) FROM new_rows;
    RETURN NULL;
END $$;
CREATE FUNCTION note_on(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER note AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION t18.note()', relation);
END $$;

-- many rows a statement: as many as the server's batch_size says, 500 at most from here
SELECT epro_etl.register_form('t18', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}');
CREATE TABLE wide (source_id int PRIMARY KEY, a int NOT NULL CHECK (a <> 13), b int UNIQUE, run_id bigint, tag text DEFAULT 'there');
CREATE FOREIGN TABLE wide_far (source_id int, a int, b int, run_id bigint, tag text DEFAULT 'here') SERVER far OPTIONS (schema_name 't18', table_name 'wide');
SELECT note_on('wide');
SELECT epro_etl.add_sink('t18', 't18', 'wide_far');
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, jsonb_build_object('a', 0, 'b', n) FROM generate_series(1, 1230) n;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18', workers => 0);
SELECT rows, count(*) FROM statement WHERE rows > 0 GROUP BY 1 ORDER BY 1;
SELECT count(*), sum(b), min(tag), max(tag) FROM wide;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- which row a statement was refused for is not told: found by halving, and it alone is rejected
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, CASE n WHEN 2001 THEN '{"a": 13}' WHEN 2470 THEN '{}' WHEN 2471 THEN '{"a": 1, "b": 7}'
        WHEN 2999 THEN '{"a": 1, "b": 2002}' WHEN 3000 THEN '{"a": 13, "b": 7}' ELSE jsonb_build_object('a', 0, 'b', n) END FROM generate_series(2001, 3000) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t18', workers => 0);
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT count(*) FROM wide WHERE source_id > 2000;
SELECT count(*) AS still_staged FROM staging;
-- no finding and no message quotes a row of another server
SELECT count(*) AS leaks FROM epro_etl.finding WHERE message ~ 'Key|Failing|wide|2002';
-- a worker has a connection of its own
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, CASE n WHEN 4005 THEN '{"a": 13}' ELSE '{"a": 0}' END::jsonb FROM generate_series(4001, 4020) n;
SELECT status, claimed, loaded, rejected, workers FROM epro_etl.run('t18', workers => 1);
SELECT count(*) FROM wide WHERE source_id > 4000;
-- rolled back here, nothing is there
BEGIN;
INSERT INTO staging VALUES (5000, 'ST01', 't18', 'P-1', NULL, NULL, '{"a": 1}');
SELECT status, loaded FROM epro_etl.run('t18', workers => 0);
ROLLBACK;
SELECT count(*) FROM wide WHERE source_id = 5000;
-- a trigger there that drops a row
CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN new.a <> 14 THEN new END; END';
CREATE TRIGGER drop_it BEFORE INSERT ON wide FOR EACH ROW EXECUTE FUNCTION drop_it();
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, jsonb_build_object('a', CASE n WHEN 6007 THEN 14 ELSE 0 END) FROM generate_series(6001, 6020) n;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18', workers => 0);
SELECT source_id, rule, kind, message FROM probe.last;
DROP TRIGGER drop_it ON wide;
-- told to ignore duplicates
SELECT epro_etl.remove_sink('t18', 't18', 'wide_far');
SELECT epro_etl.add_sink('t18', 't18', 'wide_far', on_duplicate => 'ignore');
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, jsonb_build_object('a', CASE n WHEN 6040 THEN 13 ELSE 1 END) FROM generate_series(6011, 6040) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t18', workers => 0);
SELECT source_id, rule, kind FROM probe.last;
SELECT a, count(*) FROM wide WHERE source_id BETWEEN 6011 AND 6040 GROUP BY 1 ORDER BY 1;

-- a long sink there
CREATE TABLE items (source_id int, item text, value text, value_number numeric, run_id bigint, PRIMARY KEY (source_id, item));
CREATE FOREIGN TABLE items_far (source_id int, item text, value text, value_number numeric, run_id bigint) SERVER far OPTIONS (schema_name 't18', table_name 'items');
SELECT note_on('items');
SELECT epro_etl.create_pipeline('t18_items', 'staging');
SELECT epro_etl.add_sink('t18_items', 't18', 'items_far', shape => 'long');
INSERT INTO items VALUES (7300, 'b', 'there');
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, jsonb_build_object('a', n, 'b', -n) FROM generate_series(7001, 7600) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t18_items', workers => 0);
SELECT source_id, rule, kind FROM probe.last;
SELECT count(*), sum(value_number), count(*) FILTER (WHERE value <> value_number::text) AS wrong FROM items WHERE source_id <> 7300;
SELECT item, value FROM items WHERE source_id = 7300;
SELECT max(rows) > 1 AS together FROM statement WHERE relation = 'items';
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));

-- a partitioned table of which one part is there
CREATE TABLE part_there (source_id int PRIMARY KEY, a int CHECK (a <> 13));
CREATE TABLE parts (source_id int, a int) PARTITION BY RANGE (source_id);
CREATE TABLE parts_here PARTITION OF parts (PRIMARY KEY (source_id), CHECK (a <> 13)) FOR VALUES FROM (8000) TO (8500);
CREATE FOREIGN TABLE parts_far PARTITION OF parts FOR VALUES FROM (8500) TO (9000) SERVER far OPTIONS (schema_name 't18', table_name 'part_there');
SELECT note_on('part_there');
SELECT epro_etl.create_pipeline('t18_parts', 'staging');
SELECT epro_etl.add_sink('t18_parts', 't18', 'parts');
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, jsonb_build_object('a', CASE WHEN n IN (8400, 8600) THEN 13 ELSE 0 END)
    FROM generate_series(8301, 8800) n;
INSERT INTO staging VALUES (9999, 'ST01', 't18', 'P-1', NULL, NULL, '{"a": 0}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18_parts', workers => 0);
SELECT source_id, rule, kind, message FROM probe.last;
SELECT tableoid::regclass, count(*), min(source_id), max(source_id) FROM parts GROUP BY 1 ORDER BY 1;
SELECT max(rows) > 1 AS together FROM statement WHERE relation = 'part_there';
-- and the same, where duplicates are ignored
SELECT epro_etl.remove_sink('t18_parts', 't18', 'parts');
SELECT epro_etl.add_sink('t18_parts', 't18', 'parts', on_duplicate => 'ignore');
INSERT INTO staging SELECT n, 'ST01', 't18', 'P-1', NULL, NULL, '{"a": 1}' FROM unnest('{8300, 8301, 8800, 8801}'::int[]) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t18_parts', workers => 0);
SELECT tableoid::regclass, source_id, a FROM parts WHERE source_id IN (8300, 8301, 8800, 8801) ORDER BY 2;

-- every type arrives there as it does here
CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE DOMAIN small AS int CHECK (value < 10);
CREATE DOMAIN pair AS int[] CHECK (array_length(value, 1) = 2);
SELECT epro_etl.register_form('t18_types', '{"properties": {"i": {"type": "integer"}, "n": {"type": "number"}, "f": {"type": "number"}, "t": {"type": "string"},
    "v": {"type": "string"}, "p": {"type": "string"}, "d": {"type": "string", "format": "date"}, "s": {"type": "string", "format": "date-time"}, "h": {"type": "string", "format": "time"},
    "k": {"type": "boolean"}, "j": {}, "o": {}, "e": {"type": "string"}, "u": {"type": "string"}, "small": {"type": "integer"}, "arr": {"type": "array"}}}');
CREATE TABLE types (source_id int, i bigint, n numeric(12, 3), f float8, t text, v varchar(5), p char(4), d date, s timestamptz, h timetz, k boolean,
    j jsonb, o json, e mood, u uuid, small small, study name, arr jsonb);
CREATE TABLE types_there (LIKE types);
CREATE FOREIGN TABLE types_far (source_id int, i bigint, n numeric(12, 3), f float8, t text, v varchar(5), p char(4), d date, s timestamptz, h timetz, k boolean,
    j jsonb, o json, e mood, u uuid, small small, study name, arr jsonb) SERVER far OPTIONS (schema_name 't18', table_name 'types_there');
SELECT note_on('types_there');
SELECT epro_etl.create_pipeline('t18_types', 'staging');
SELECT epro_etl.add_sink('t18_types', 't18_types', 'types');
SELECT epro_etl.add_sink('t18_types', 't18_types', 'types_far');
SELECT setval('staged', 10000);
SELECT probe.put('t18_types', '{"i": 9007199254740993, "n": -1.250, "f": 0.5, "t": "a,\"b\\{c} NULL ''q''", "v": "日本語", "p": "x", "d": "2026-03-01",
    "s": "2026-03-01T12:00:00.5Z", "h": "07:30:00+09:00", "k": false, "j": {"a": [1, null]}, "o": [1, "x"], "e": "bad", "u": "00000000-0000-0000-0000-000000000001", "small": 3, "arr": [1, [2]]}',
    '{}', '{"t": "", "v": "NULL", "j": null}', '{"j": "text", "o": 1.50, "k": true}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18_types', workers => 0);
SELECT rows FROM statement WHERE relation = 'types_there' AND rows > 0;
-- no row is right
SELECT * FROM (SELECT t::text FROM types t EXCEPT ALL SELECT t::text FROM types_there t) x
UNION ALL SELECT * FROM (SELECT t::text FROM types_there t EXCEPT ALL SELECT t::text FROM types t) x;
-- an array takes no answer, nor does a domain over one
CREATE FOREIGN TABLE arrays_far (source_id int, arr jsonb[]) SERVER far OPTIONS (schema_name 't18', table_name 'arrays');
SELECT epro_etl.add_sink('t18_types', 't18_types', 'arrays_far');
CREATE FOREIGN TABLE pairs_far (source_id int, arr pair) SERVER far OPTIONS (schema_name 't18', table_name 'arrays');
SELECT epro_etl.add_sink('t18_types', 't18_types', 'pairs_far');
-- but may be the number of a response: there are no arrays of it, so such rows go one by one
CREATE TABLE keyed (id int[], study text, form text, subject text, payload jsonb);
SELECT epro_etl.create_pipeline('t18_keyed', 'keyed');
CREATE TABLE by_array (source_id int[], a int);
CREATE FOREIGN TABLE by_array_far (source_id int[], a int) SERVER far OPTIONS (schema_name 't18', table_name 'by_array');
CREATE FOREIGN TABLE by_pair_far (source_id pair, a int) SERVER far OPTIONS (schema_name 't18', table_name 'by_array');
SELECT note_on('by_array');
SELECT epro_etl.add_sink('t18_keyed', 't18', 'by_array_far');
INSERT INTO keyed SELECT ARRAY[1, n], 'ST01', 't18', 'P-1', '{"a": 1}' FROM generate_series(1, 3) n;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18_keyed', workers => 0);
SELECT epro_etl.remove_sink('t18_keyed', 't18', 'by_array_far');
SELECT epro_etl.add_sink('t18_keyed', 't18', 'by_pair_far');
INSERT INTO keyed SELECT ARRAY[2, n], 'ST01', 't18', 'P-1', '{"a": 1}' FROM generate_series(1, 3) n;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18_keyed', workers => 0);
TABLE by_array ORDER BY 1;
SELECT rows, count(*) FROM statement WHERE relation = 'by_array' AND rows > 0 GROUP BY 1 ORDER BY 1;
-- rows that are long go in fewer at a time
SELECT epro_etl.register_form('t18_text', '{"properties": {"c": {"type": "string"}}}');
CREATE TABLE texts (c text);
CREATE FOREIGN TABLE texts_far (c text) SERVER far OPTIONS (schema_name 't18', table_name 'texts');
SELECT note_on('texts');
SELECT epro_etl.create_pipeline('t18_text', 'staging');
SELECT epro_etl.add_sink('t18_text', 't18_text', 'texts_far');
INSERT INTO staging SELECT 20000 + n, 'ST01', 't18_text', 'P-1', NULL, NULL, jsonb_build_object('c', repeat(n::text, 3000000)) FROM generate_series(1, 3) n;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t18_text', workers => 0);
SELECT left(c, 1), length(c) FROM texts ORDER BY 1;
SELECT rows FROM statement WHERE relation = 'texts' AND rows > 0 ORDER BY 1;
SET client_min_messages = warning;
DROP SERVER far CASCADE;
RESET client_min_messages;
SELECT probe.close_area('t18');
