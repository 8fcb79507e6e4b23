-- Sinks: made from the form, one's own by name or mapping, conditions, several, and kinds of relations.
\set SHOW_CONTEXT never
SELECT probe.open_area('t08');
SELECT epro_etl.register_form('t08', '{"properties": {"a": {"type": "integer"}, "Score": {"type": "number"}, "c": {"type": "string"},
    "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"}, "ok": {"type": "boolean"},
    "any": {}, "g": {"type": "object", "properties": {"x": {"type": "integer"}}}}}');
-- made: a typed column an item, names folded, what clashes is numbered
SELECT epro_etl.create_sink('t08', 't08', 'made');
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = 'made'::regclass AND attnum > 0 ORDER BY attnum;
SELECT columns FROM epro_etl.sink WHERE target = 'made'::regclass;
SELECT epro_etl.register_form('t08_clash', '{"properties": {"Score": {"type": "integer"}, "score": {"type": "integer"}, "item_2": {"type": "integer"},
    "study": {"type": "string"}, "xmin": {"type": "integer"}, "a.b": {"type": "integer"}}}');
-- what would have one name when groups are written with dots cannot be a form
SELECT epro_etl.register_form('t08_dots', '{"properties": {"a.b": {"type": "integer"}, "a": {"type": "object", "properties": {"b": {"type": "integer"}}}}}');
SELECT epro_etl.create_sink('t08', 't08_clash', 'clash');
SELECT probe.put('t08_clash', '{"Score": 1, "score": 2, "item_2": 3, "study": "four", "xmin": 5, "a.b": 6}');
SELECT status, loaded FROM epro_etl.run('t08', workers => 0);
-- each answer is in the column that the sink's mapping says
SELECT m.item, to_jsonb(c) -> m.column_name AS stored FROM clash c, epro_etl.sink s, jsonb_each_text(s.columns) AS m (column_name, item)
    WHERE s.target = 'clash'::regclass ORDER BY stored;
-- refused; nothing of it stays
SELECT epro_etl.create_sink('t08', 't08', 'made');
\set VERBOSITY terse
SELECT epro_etl.create_sink('t08', 't08', 'nowhere.made');
\set VERBOSITY default
SELECT epro_etl.create_sink('t08', 't08', 'a b');
SELECT epro_etl.create_sink('t08', 't08_none', 'x');
SELECT epro_etl.create_sink('t08_none', 't08', 'x');
SELECT epro_etl.create_sink('t08', 't08', 'x', shape => 'tall');
CREATE TABLE own (source_id int PRIMARY KEY, a smallint, label text DEFAULT 'none');
CREATE TABLE wrong_type (source_id int, a boolean);
CREATE TABLE wrong_own (source_id date, a int);
CREATE TABLE nothing_fits (zz int);
CREATE TABLE must_have (source_id int, a int, zz int NOT NULL);
SELECT epro_etl.add_sink('t08', 't08', 'wrong_type');
SELECT epro_etl.add_sink('t08', 't08', 'wrong_own');
SELECT epro_etl.add_sink('t08', 't08', 'nothing_fits');
SELECT epro_etl.add_sink('t08', 't08', 'own', columns => '{"zzz": "a"}');
SELECT epro_etl.add_sink('t08', 't08', 'own', columns => '{"a": "zzz"}');
SELECT epro_etl.add_sink('t08', 't08', 'own', columns => '{"a": 5}');
SELECT epro_etl.add_sink('t08', 't08', 'own', columns => '[]');
SELECT epro_etl.add_sink('t08', 't08', 'own', shape => 'tall');
SELECT epro_etl.add_sink('t08', 't08', 'own', on_duplicate => 'update');
SELECT epro_etl.add_sink('t08', 't08', 'own', condition => 'zzz = 1');
SELECT epro_etl.add_sink('t08', 't08', 'own', condition => 'a');
SELECT epro_etl.add_sink('t08', 't08', 'own', condition => 'random() < 1');
SELECT epro_etl.add_sink('t08', 't08', NULL);
SELECT epro_etl.add_sink('t08', 't08_none', 'own');
SELECT epro_etl.add_sink('t08_none', 't08', 'own');
\set VERBOSITY sqlstate
SELECT epro_etl.add_sink('t08', 't08', 'own_pkey');
\set VERBOSITY default
SELECT epro_etl.add_sink('t08', 't08', 'staged');
SELECT epro_etl.add_sink('t08', 't08', 'made');
CREATE MATERIALIZED VIEW frozen AS SELECT 1 AS a;
CREATE VIEW fixed AS SELECT 1 AS a;
SELECT epro_etl.add_sink('t08', 't08', 'frozen');
SELECT epro_etl.add_sink('t08', 't08', 'fixed');
SELECT epro_etl.remove_sink('t08', 't08', 'own');
SELECT form, target FROM epro_etl.sink JOIN epro_etl.pipeline USING (pipeline_id) WHERE name = 't08' ORDER BY sink_id;
-- one's own: by name, items that it has no column for are told; and mapped, a column its default where nothing maps
SELECT epro_etl.remove_sink('t08', 't08', 'made');
SELECT epro_etl.add_sink('t08', 't08', 'own');
CREATE TABLE mapped (who text, amount numeric(5, 1), "when" date, doc jsonb, run bigint, stamp timestamptz, tag text DEFAULT 'tag');
SELECT epro_etl.add_sink('t08', 't08', 'mapped', columns =>
    '{"who": "subject_key", "amount": "Score", "when": "day", "doc": "any", "run": "run_id", "stamp": "loaded_at"}');
SELECT setval('staged', 10);
SELECT probe.put('t08', '{"a": 1, "Score": 2.5, "c": "x", "day": "2026-03-01", "at": "2026-03-01T00:00:00Z", "ok": true, "any": {"k": [1]}, "g": {"x": 9}}', '{}');
SELECT status, loaded FROM epro_etl.run('t08', workers => 0);
TABLE own ORDER BY 1;
SELECT amount, "when", doc, tag, who = probe.subject_key('ST01', CASE WHEN amount IS NULL THEN 'P-2' ELSE 'P-1' END) AS who,
       run = (SELECT max(run_id) FROM epro_etl.run_ledger) AS run, stamp <= now() AS stamp FROM mapped ORDER BY 1;
SELECT status, sqlstate FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;

-- several sinks: all of them or none; a condition chooses, and one that raises an error rejects
SELECT epro_etl.register_form('t08_many', '{"properties": {"a": {"type": "integer"}}}');
CREATE TABLE one (source_id int PRIMARY KEY, a int, run_id bigint);
CREATE TABLE two (source_id int, a int CHECK (a < 5));
CREATE TABLE three (source_id int, a int);
SELECT epro_etl.create_pipeline('t08_many', 'staging');
SELECT epro_etl.add_sink('t08_many', 't08_many', 'one');
SELECT epro_etl.add_sink('t08_many', 't08_many', 'two');
SELECT epro_etl.add_sink('t08_many', 't08_many', 'three', condition => '10 / a > 2');
SELECT probe.put('t08_many', '{"a": 1}', '{"a": 2}', '{"a": 9}', '{"a": 3}', '{"a": 0}', '{"a": 4}', '{}', '{"a": 9}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t08_many', workers => 0);
SELECT a, rule, severity FROM probe.last l LEFT JOIN (SELECT source_id, original #>> '{payload,a}' AS a FROM epro_etl.quarantine) q USING (source_id)
    ORDER BY source_id;
SELECT one.a, two.a IS NOT DISTINCT FROM one.a AND two.source_id IS NOT NULL AS in_two, three.source_id IS NOT NULL AS in_three
    FROM one LEFT JOIN two USING (source_id) LEFT JOIN three USING (source_id) ORDER BY source_id;
-- no response is in a part of its sinks: no row is right
SELECT source_id FROM one FULL JOIN two USING (source_id) WHERE one.source_id IS NULL OR two.source_id IS NULL;
SELECT source_id FROM three WHERE source_id NOT IN (SELECT source_id FROM one);
SELECT source_id FROM one WHERE source_id::text IN (SELECT source_id FROM epro_etl.quarantine WHERE pipeline = 't08_many');

-- kinds of relations, the same answers into each
SELECT epro_etl.register_form('t08_kind', '{"properties": {"a": {"type": "integer"}}}');
CREATE TABLE plain (source_id int, a int);
CREATE UNLOGGED TABLE unlogged (source_id int, a int);
CREATE TABLE split (source_id int, a int) PARTITION BY RANGE (a);
CREATE TABLE split_low PARTITION OF split FOR VALUES FROM (MINVALUE) TO (3);
CREATE TABLE split_high (a int, more text DEFAULT 'm', source_id int);
ALTER TABLE split_high DROP COLUMN more;
ALTER TABLE split ATTACH PARTITION split_high FOR VALUES FROM (3) TO (MAXVALUE);
CREATE TABLE triggered (source_id int, a int, seen text);
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.seen := ''seen''; RETURN new; END';
CREATE TRIGGER mark BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION mark();
CREATE TABLE counted (n bigint GENERATED ALWAYS AS IDENTITY, source_id int, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE below (source_id int, a int, hidden text DEFAULT 'd');
CREATE VIEW above AS SELECT source_id, a FROM below;
CREATE TABLE kept_by (source_id int, a int);
CREATE VIEW handled AS SELECT source_id, a FROM kept_by WHERE a IS NOT NULL OFFSET 0;
CREATE FUNCTION handle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t08.kept_by VALUES (new.source_id, new.a); RETURN new; END';
CREATE TRIGGER handle INSTEAD OF INSERT ON handled FOR EACH ROW EXECUTE FUNCTION handle();
CREATE TABLE parent (source_id int, a int);
CREATE TABLE heir () INHERITS (parent);
CREATE TABLE moved (source_id int, dropped int, a int);
ALTER TABLE moved DROP COLUMN dropped;
ALTER TABLE moved ADD COLUMN late text DEFAULT 'late';
CREATE TABLE guarded (source_id int, a int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE INDEX ON plain (a) WHERE a > 2;
CREATE INDEX ON plain ((a % 2));
SELECT epro_etl.create_pipeline('t08_kind', 'staging');
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{plain,unlogged,split,triggered,counted,above,handled,parent,moved,guarded}'::text[] LOOP
        PERFORM epro_etl.add_sink('t08_kind', 't08_kind', t::regclass);
    END LOOP;
END $$;
SELECT setval('staged', 100);
SELECT probe.put('t08_kind', '{"a": 1}', '{"a": 2}', '{"a": 3}', '{"a": 4}');
CREATE TABLE raw AS SELECT id AS source_id, (payload ->> 'a')::int AS a FROM staging;
SELECT status, claimed, loaded FROM epro_etl.run('t08_kind', workers => 0);
-- wrong must be 0
SELECT relation, count(got) AS rows, count(*) FILTER (WHERE got IS NULL OR raw IS NULL) AS wrong
FROM (SELECT relation, got, raw FROM (
        SELECT 'plain' AS relation, source_id, a, plain AS got FROM (SELECT source_id, a FROM plain) AS plain
        UNION ALL SELECT 'unlogged', source_id, a, k FROM (SELECT source_id, a FROM unlogged) AS k
        UNION ALL SELECT 'split', source_id, a, k FROM (SELECT source_id, a FROM split) AS k
        UNION ALL SELECT 'triggered', source_id, a, k FROM (SELECT source_id, a FROM triggered WHERE seen = 'seen') AS k
        UNION ALL SELECT 'counted', source_id, a, k FROM (SELECT source_id, a FROM counted WHERE n BETWEEN 1 AND 4 AND twice = 2 * a) AS k
        UNION ALL SELECT 'above', source_id, a, k FROM (SELECT source_id, a FROM below WHERE hidden = 'd') AS k
        UNION ALL SELECT 'handled', source_id, a, k FROM (SELECT source_id, a FROM kept_by) AS k
        UNION ALL SELECT 'parent', source_id, a, k FROM (SELECT source_id, a FROM ONLY parent) AS k
        UNION ALL SELECT 'moved', source_id, a, k FROM (SELECT source_id, a FROM moved WHERE late = 'late') AS k
        UNION ALL SELECT 'guarded', source_id, a, k FROM (SELECT source_id, a FROM guarded) AS k) AS x
      LEFT JOIN raw USING (source_id, a)) AS y
GROUP BY relation ORDER BY relation COLLATE "C";
SELECT tableoid::regclass, a FROM split ORDER BY a;
SET enable_seqscan = off;
SELECT a FROM plain WHERE a > 2 ORDER BY a;
RESET enable_seqscan;

-- altered since: told before anything is moved
SELECT probe.put('t08_kind', '{"a": 1}');
ALTER TABLE unlogged ALTER a TYPE date USING NULL;
SELECT status FROM epro_etl.run('t08_kind', workers => 0);
DROP TABLE unlogged;
SELECT status FROM epro_etl.run('t08_kind', workers => 0);
SELECT count(*) AS still_staged FROM staging;
SELECT probe.close_area('t08');
