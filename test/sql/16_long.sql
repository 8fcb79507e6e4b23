-- Long sinks: a row an item that is answered.
\set SHOW_CONTEXT never
SELECT probe.open_area('t16');
SELECT epro_etl.register_form('t16', '{"x-normalise": ["trim", "width", "coerce"], "properties": {"a": {"type": ["integer", "null"]}, "Score": {"type": "number"},
    "c": {"type": "string"}, "day": {"type": "string", "format": "date"}, "ok": {"type": "boolean"}, "any": {}, "open": {"type": "object"},
    "email": {"type": "string"}, "g": {"type": "object", "properties": {"x/y": {"type": "integer"}, "z": {"type": "string"}}}}}');
SELECT epro_etl.set_deid('t16', '/email', 'remove');
-- made; it stores every item, so none is told
SELECT epro_etl.create_sink('t16', 't16', 'qs', shape => 'long');
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = 'qs'::regclass AND attnum > 0 ORDER BY attnum;
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'qs'::regclass AND contype <> 'n';
SELECT shape, columns, matched FROM epro_etl.sink WHERE target = 'qs'::regclass;
-- an item that is absent, null or removed has no row, nor has a group; an empty text is an answer; a boolean is no number
SELECT probe.put('t16',
    '{"a": " ７ ", "Score": 2.50, "c": "text", "day": "2026-03-01", "ok": true, "any": [1, {"k": null}], "open": {"p": 1}, "email": "x@example.org", "g": {"x/y": 9, "z": "12"}}',
    '{"a": null, "c": "", "g": {}, "undeclared": 1}', '{"any": 1e3}', '{"any": "1e3"}', '{"Score": 123456789012345678901234567890.5}', '{"ok": false}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16', workers => 0);
SELECT source_id, item, item_no, value, value_number FROM qs ORDER BY 1, 3;
SELECT DISTINCT study, form, form_version, visit, authored, run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) AS run, loaded_at <= now() AS at,
    subject_key = probe.subject_key('ST01', 'P-' || source_id) AS subject FROM qs;
-- numbered as form_items() numbers them: no row is right
SELECT q.item, q.item_no FROM qs q LEFT JOIN epro_etl.form_items('t16') WITH ORDINALITY AS i (name, location, type, required, deidentify, n)
    ON i.name = q.item AND i.n = q.item_no WHERE i.n IS NULL;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- a response of which no item is answered must not vanish
SELECT probe.put('t16', '{}', '{"a": null, "email": "x@example.org", "g": {}}', '{"a": 1}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16', workers => 0);
SELECT * FROM probe.last;
SELECT count(*) FROM qs WHERE source_id IN (7, 8, 9);
-- unless another sink takes it
CREATE TABLE wide (source_id int PRIMARY KEY, a int, run_id bigint);
SELECT epro_etl.add_sink('t16', 't16', 'wide');
SELECT probe.put('t16', '{}', '{"a": 4}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16', workers => 0);
SELECT source_id, a FROM wide ORDER BY 1;
SELECT source_id, item, value FROM qs WHERE source_id > 9 ORDER BY 1;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
SELECT epro_etl.remove_sink('t16', 't16', 'wide');
-- all its rows or none: what is there already makes the whole response a duplicate, which no other follows
INSERT INTO staging VALUES (1, 'ST01', 't16', 'P-1', NULL, NULL, '{"c": "text", "g": {"z": "new"}}');
SELECT probe.put('t16', '{"a": 5, "c": "five"}', '{"a": 6}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t16', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;
SELECT source_id, item, value FROM qs WHERE source_id = 1 AND item = 'g.z' OR source_id > 11 ORDER BY 1, 2;

-- one's own, as SDTM calls them; facts of items, of other types; what does not fit is told with its place
CREATE TABLE sdtm (usubjid text, qsseq smallint, qstestcd varchar(8), qsorres varchar(6), qsstresn int, path text, doc jsonb, extra text DEFAULT 'd');
SELECT epro_etl.create_pipeline('t16_own', 'staging');
SELECT epro_etl.add_sink('t16_own', 't16', 'sdtm', shape => 'long', columns =>
    '{"usubjid": "subject_key", "qsseq": "item_no", "qstestcd": "item", "qsorres": "value", "qsstresn": "value_number", "path": "location", "doc": "value"}');
SELECT setval('staged', 100);
SELECT probe.put('t16', '{"a": 1, "c": "short", "ok": true, "g": {"x/y": 2}}', '{"a": 1, "c": "longer than six"}', '{"Score": 1.5, "a": 2, "g": {"z": "much too long"}}',
    '{"a": 3000000000}', '{"any": {"k": [1]}}', '{"Score": 3.0}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16_own', workers => 0);
SELECT qsseq, qstestcd, qsorres, qsstresn, path, doc, extra FROM sdtm ORDER BY usubjid = probe.subject_key('ST01', 'P-1') DESC, qsseq;
SELECT source_id, location, rule, kind, message FROM probe.last;
-- a type's own input function, and a domain that takes no NULL
CREATE TYPE yes AS ENUM ('yes', '7');
CREATE DOMAIN must AS numeric NOT NULL;
CREATE TABLE typed (item text, value yes, value_number must);
SELECT epro_etl.create_pipeline('t16_typed', 'staging');
SELECT epro_etl.add_sink('t16_typed', 't16', 'typed', shape => 'long');
SELECT setval('staged', 200);
SELECT probe.put('t16', '{"a": 7}', '{"a": 8}', '{"c": "yes"}', '{"g": {"x/y": 7}}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16_typed', workers => 0);
SELECT * FROM typed ORDER BY 1;
SELECT source_id, location, rule, kind, message FROM probe.last;
-- which error was the type's and which the condition's
CREATE TABLE chosen (source_id int, a int);
SELECT epro_etl.create_pipeline('t16_chosen', 'staging');
SELECT epro_etl.add_sink('t16_chosen', 't16', 'chosen', condition => '10 / (a - 7) > 2');
SELECT epro_etl.add_sink('t16_chosen', 't16', 'typed', shape => 'long');
SELECT probe.put('t16', '{"a": 8}', '{"a": 7}', '{"g": {"x/y": 7}}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16_chosen', workers => 0);
SELECT source_id, location, rule, kind FROM probe.last;

-- refused
CREATE TABLE no_item (source_id int, value text);
CREATE TABLE no_value (source_id int, item text, item_no int);
CREATE TABLE wrong (item text, value date);
CREATE TABLE wrong_number (item text, value_number boolean);
CREATE TABLE wrong_no (item text, value text, item_no date);
SELECT epro_etl.add_sink('t16', 't16', 'no_item', shape => 'long');
SELECT epro_etl.add_sink('t16', 't16', 'no_value', shape => 'long');
SELECT epro_etl.add_sink('t16', 't16', 'wrong', shape => 'long');
SELECT epro_etl.add_sink('t16', 't16', 'wrong_number', shape => 'long');
SELECT epro_etl.add_sink('t16', 't16', 'wrong_no', shape => 'long');
SELECT epro_etl.add_sink('t16', 't16', 'no_item', shape => 'long', columns => '{"source_id": "a"}');
SELECT epro_etl.add_sink('t16', 't16', 'no_item', shape => NULL);
SELECT epro_etl.create_sink('t16', 't16', 'qs', shape => 'long');
SELECT epro_etl.create_sink('t16', 't16', 'x', shape => 'Long');
SELECT to_regclass('x');
-- it has lost a column that took something
ALTER TABLE sdtm DROP COLUMN qsstresn;
SELECT status FROM epro_etl.run('t16_own', workers => 0);

-- several forms share one; the roads lead to the same: bulk, partitions, triggers, a condition
SELECT epro_etl.register_form('t16_b', '{"properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}}');
SELECT epro_etl.create_pipeline('t16_roads', 'staging');
SELECT epro_etl.make_sink('t16_roads', 't16', 'bulk', 'long', 't16');
SELECT epro_etl.add_sink('t16_roads', 't16_b', 'bulk', shape => 'long');
CREATE TABLE parts (LIKE bulk INCLUDING ALL) PARTITION BY LIST (source_id);
ALTER TABLE parts ADD twice numeric GENERATED ALWAYS AS (2 * value_number) STORED;
CREATE TABLE parts_low PARTITION OF parts FOR VALUES IN (301, 302, 303);
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
SELECT epro_etl.add_sink('t16_roads', 't16', 'parts', shape => 'long');
SELECT epro_etl.add_sink('t16_roads', 't16_b', 'parts', shape => 'long');
CREATE TABLE triggered (LIKE bulk INCLUDING ALL, seen text);
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.seen := ''seen''; RETURN new; END';
CREATE TRIGGER mark BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION mark();
SELECT epro_etl.add_sink('t16_roads', 't16', 'triggered', shape => 'long');
SELECT epro_etl.add_sink('t16_roads', 't16_b', 'triggered', shape => 'long', condition => 'b > 2');
SELECT setval('staged', 300);
SELECT probe.put('t16', '{"a": 1, "c": "x"}', '{"day": "2026-03-02", "g": {"z": "in"}}');
SELECT probe.put('t16_b', '{"a": 1, "b": 2}', '{"a": 3, "b": 4}', '{"b": 5}', '{}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16_roads', workers => 0);
SELECT source_id, form, item, value, value_number FROM bulk ORDER BY 1, item_no;
-- no row is right
(TABLE bulk EXCEPT SELECT source_id, study, subject_key, form, form_version, visit, authored, item, item_no, value, value_number, run_id, key_version, loaded_at FROM parts
    WHERE twice IS NOT DISTINCT FROM 2 * value_number)
UNION ALL (SELECT source_id, study, subject_key, form, form_version, visit, authored, item, item_no, value, value_number, run_id, key_version, loaded_at FROM parts EXCEPT TABLE bulk);
SELECT source_id, item FROM triggered WHERE seen = 'seen' ORDER BY 1, item_no;
SELECT tableoid::regclass, count(*) FROM parts GROUP BY 1 ORDER BY 1;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- one form of it wide as well: each response counts once
CREATE TABLE beside (source_id int, b int, run_id bigint);
SELECT epro_etl.add_sink('t16_roads', 't16_b', 'beside');
SELECT probe.put('t16', '{"a": 1, "c": "x"}');
SELECT probe.put('t16_b', '{"a": 1, "b": 2}', '{}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t16_roads', workers => 0);
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- where a wide one with a condition takes what leaves the long one empty, nobody can count
SELECT epro_etl.remove_sink('t16_roads', 't16_b', 'beside');
SELECT epro_etl.add_sink('t16_roads', 't16_b', 'beside', condition => 'b IS NULL');
SELECT measure, relations FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger)) WHERE measure LIKE 'loaded%';

-- more rows than go in at once; whichever are refused, they alone are
SELECT epro_etl.register_form('t16_many', (SELECT jsonb_build_object('properties', jsonb_object_agg('q' || i, '{"type": "integer"}'::jsonb)) FROM generate_series(1, 30) i));
CREATE TABLE many (source_id int, item text, value_number int CHECK (value_number <> 13), run_id bigint, PRIMARY KEY (source_id, item));
SELECT epro_etl.create_pipeline('t16_many', 'staging');
SELECT epro_etl.add_sink('t16_many', 't16_many', 'many', shape => 'long');
INSERT INTO staging SELECT 1000 + n, 'ST01', 't16_many', 'P-1', NULL, NULL,
    (SELECT jsonb_object_agg('q' || i, CASE WHEN n IN (1, 90, 91, 200) AND i = 30 THEN 13 ELSE 0 END) FROM generate_series(1, 30) i) FROM generate_series(1, 200) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t16_many', workers => 0);
SELECT count(*), count(DISTINCT source_id), max(source_id) FROM many;
SELECT source_id, rule FROM probe.last;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
-- by its index, too
INSERT INTO many SELECT n, 'q7', 0 FROM unnest('{2060, 2061, 2150}'::int[]) n;
INSERT INTO staging SELECT 2000 + n, 'ST01', 't16_many', 'P-1', NULL, NULL,
    (SELECT jsonb_object_agg('q' || i, 0) FROM generate_series(1, 30) i) FROM generate_series(1, 200) n;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t16_many', workers => 0);
SELECT count(*) FROM many WHERE source_id > 2000;
SELECT source_id, rule FROM probe.last;
SELECT probe.close_area('t16');
