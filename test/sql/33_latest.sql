-- on_duplicate => 'latest': of one key, the response that was authored last stands, and the row that it replaces is kept.
\set SHOW_CONTEXT never
SELECT probe.open_area('t33');
SELECT epro_etl.register_form('t33', '{"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}');

-- where it cannot be told which row a response meets, or which was authored later, it is refused
CREATE TABLE no_key (study text, subject_key text, visit text, authored timestamptz, a int);
SELECT epro_etl.add_sink('t33', 't33', 'no_key', on_duplicate => 'newest');
SELECT epro_etl.add_sink('t33', 't33', 'no_key', on_duplicate => 'latest');
CREATE UNIQUE INDEX not_it_1 ON no_key (study, subject_key) WHERE visit IS NULL;
CREATE UNIQUE INDEX not_it_2 ON no_key (study, lower(visit));
CREATE UNIQUE INDEX not_it_3 ON no_key (study, subject_key, authored);
CREATE UNIQUE INDEX not_it_4 ON no_key (subject_key COLLATE "C");
CREATE UNIQUE INDEX not_it_5 ON no_key (study, subject_key, visit) NULLS NOT DISTINCT;
ALTER TABLE no_key ADD UNIQUE (study, subject_key) DEFERRABLE;
SELECT epro_etl.add_sink('t33', 't33', 'no_key', on_duplicate => 'latest');
CREATE TABLE two_keys (source_id int PRIMARY KEY, study text, subject_key text, visit text, authored timestamptz, a int, UNIQUE (study, subject_key, visit));
SELECT epro_etl.add_sink('t33', 't33', 'two_keys', on_duplicate => 'latest');
CREATE TABLE timeless (source_id int PRIMARY KEY, a int);
SELECT epro_etl.add_sink('t33', 't33', 'timeless', on_duplicate => 'latest');
CREATE TABLE items (source_id int, item text, value text, authored timestamptz, PRIMARY KEY (source_id, item));
SELECT epro_etl.add_sink('t33', 't33', 'items', shape => 'long', on_duplicate => 'latest');
CREATE TABLE ruled (source_id int PRIMARY KEY, authored timestamptz, a int);
CREATE VIEW above AS SELECT * FROM ruled;
SELECT epro_etl.add_sink('t33', 't33', 'above', on_duplicate => 'latest');
CREATE RULE ruled AS ON INSERT TO ruled WHERE new.a = 13 DO INSTEAD NOTHING;
SELECT epro_etl.add_sink('t33', 't33', 'ruled', on_duplicate => 'latest');
CREATE FOREIGN DATA WRAPPER t33_nowhere;
CREATE SERVER t33_elsewhere FOREIGN DATA WRAPPER t33_nowhere;
CREATE TABLE spread (source_id int, authored timestamptz, a int) PARTITION BY RANGE (source_id);
CREATE FOREIGN TABLE spread_far PARTITION OF spread FOR VALUES FROM (1) TO (10) SERVER t33_elsewhere;
SELECT epro_etl.add_sink('t33', 't33', 'spread', on_duplicate => 'latest');
SELECT epro_etl.add_sink('t33', 't33', 'spread_far', on_duplicate => 'latest');
ALTER TABLE staging RENAME authored TO entered;
SELECT epro_etl.create_pipeline('t33_untimed', 'staging');
SELECT epro_etl.add_sink('t33_untimed', 't33', 'two_keys', on_duplicate => 'latest');
ALTER TABLE staging RENAME entered TO authored;
SELECT epro_etl.drop_pipeline('t33_untimed');
SELECT count(*) AS sinks FROM epro_etl.sink WHERE pipeline_id = (SELECT pipeline_id FROM epro_etl.pipeline WHERE name = 't33');

-- the sink: a number of its own, a mark that people set, a computed column
CREATE TABLE visits (id int GENERATED ALWAYS AS IDENTITY UNIQUE, gone int, study text, subject_key text, visit text, authored timestamptz, a int CHECK (a < 1000), b text,
    form_version text, source_id int, run_id bigint, loaded_at timestamptz, reviewed boolean NOT NULL DEFAULT false, twice int GENERATED ALWAYS AS (2 * a) STORED,
    PRIMARY KEY (subject_key, visit, study));
ALTER TABLE visits DROP gone;
CREATE UNIQUE INDEX ON visits (study, subject_key, visit);   -- the same key once more
SELECT epro_etl.add_sink('t33', 't33', 'visits', on_duplicate => 'latest');
CREATE TABLE query (visit_id int REFERENCES visits (id));

-- put(n, subject, hour, payload): hour 24 is no time at all
CREATE TABLE input (id int PRIMARY KEY);
CREATE FUNCTION put(n int, subject text, hour int, payload jsonb) RETURNS int LANGUAGE sql AS $$
    INSERT INTO input VALUES (n);
    INSERT INTO staging VALUES (n, 'ST01', 't33', subject, 'DAY 1', CASE WHEN hour < 24 THEN '2026-03-01 00:00+00'::timestamptz + hour * interval '1 hour' END, payload) RETURNING id $$;
CREATE TABLE subjects AS SELECT s AS subject, probe.subject_key('ST01', s) AS subject_key FROM (SELECT 'P' || n AS s FROM generate_series(1, 400) n) n;
CREATE VIEW shown AS SELECT subject, extract(hour FROM authored AT TIME ZONE 'UTC') AS hour, a, b, source_id, reviewed, twice FROM visits JOIN subjects USING (subject_key) ORDER BY length(subject), subject;
CREATE VIEW kept AS SELECT s.source_id, earlier_source_id, extract(hour FROM ("row" ->> 'authored')::timestamptz AT TIME ZONE 'UTC') AS hour, "row" ->> 'a' AS a,
    earlier_run_id = ("row" ->> 'run_id')::bigint AS run_agrees FROM epro_etl.superseded s WHERE target LIKE 't33.%' ORDER BY superseded_id;
-- the oracle: what was put in is in one place, and the latest stands
CREATE VIEW places AS
    SELECT id, (SELECT count(*) FROM staging s WHERE s.id = i.id) AS staged, (SELECT count(*) FROM visits v WHERE v.source_id = i.id) AS loaded,
           (SELECT count(*) FROM epro_etl.quarantine q WHERE q.pipeline = 't33' AND q.source_id = i.id::text) AS quarantined,
           (SELECT count(*) FROM epro_etl.superseded u WHERE u.target = 't33.visits' AND u.earlier_source_id = i.id::text) AS superseded,
           (SELECT count(*) FROM epro_etl.finding f JOIN epro_etl.run_ledger r USING (run_id) WHERE r.pipeline = 't33' AND f.source_id = i.id::text AND f.severity = 'information') AS resent
    FROM input i;
CREATE VIEW oracle AS
    SELECT (SELECT count(*) FROM places WHERE staged + loaded + quarantined + superseded + resent <> 1) AS not_once,
           (SELECT count(*) FROM input) - (SELECT sum(staged + loaded + quarantined + superseded + resent) FROM places) AS lost,
           (SELECT count(*) FROM epro_etl.superseded u JOIN visits v ON v.subject_key = u."row" ->> 'subject_key' WHERE u.target = 't33.visits' AND (u."row" ->> 'authored')::timestamptz >= v.authored) AS not_latest,
           (SELECT count(*) FROM epro_etl.quarantine q JOIN subjects s ON s.subject = q.original ->> 'subject' JOIN visits v USING (subject_key)
            WHERE q.pipeline = 't33' AND (q.original ->> 'authored')::timestamptz > v.authored
              AND EXISTS (SELECT FROM epro_etl.finding f WHERE f.run_id = q.run_id AND f.source_id = q.source_id AND f.rule = 'visits_pkey')) AS not_latest_either,
           (SELECT count(*) FROM epro_etl.run_history h, epro_etl.reconcile(h.run_id) r WHERE h.pipeline = 't33' AND r.measure !~ 'quarantine' AND r.agrees IS NOT TRUE) AS not_reconciled;

SELECT count(put(n, 'P' || n, 8, jsonb_build_object('a', n, 'b', 'first'))) FROM generate_series(1, 7) n;
SELECT status, claimed, loaded, duplicate FROM epro_etl.run('t33', workers => 0);
UPDATE visits SET reviewed = true;
INSERT INTO query SELECT id FROM visits WHERE a = 1;
-- later; earlier; at the same time and otherwise; the same again; at no time; the same again, and the form has a new version
SELECT put(11, 'P1', 9, '{"a": 11}') AS p11,
       put(12, 'P2', 7, '{"a": 12}') AS p12,
       put(13, 'P3', 8, '{"a": 13, "b": "first"}') AS p13,
       put(14, 'P4', 8, '{"a": 4, "b": "first"}') AS p14,
       put(15, 'P5', 24, '{"a": 5, "b": "first"}') AS p15,
       put(16, 'P6', 8, '{"b": "first", "a": 6}') AS p16;
-- later, and refused for another reason: the row that is there stays
SELECT put(17, 'P7', 9, '{"a": 1007}') AS p17;
-- one key in one chunk, in each order; and a key that was not there
SELECT count(put(20 + n::int, 'P20', hour, jsonb_build_object('a', hour))) FROM unnest('{9,10,8}'::int[]) WITH ORDINALITY AS u (hour, n);
SELECT count(put(30 + n::int, 'P30', hour, jsonb_build_object('a', hour))) FROM unnest('{10,9,8}'::int[]) WITH ORDINALITY AS u (hour, n);
SELECT count(put(40 + n::int, 'P40', hour, jsonb_build_object('a', hour))) FROM unnest('{8,9,10,10}'::int[]) WITH ORDINALITY AS u (hour, n);
SELECT epro_etl.register_form('t33', '{"properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "boolean"}}}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t33', workers => 0);
SELECT source_id, rule, kind, severity, message FROM probe.last;
TABLE shown;
TABLE kept;
SELECT r.* FROM epro_etl.run_history h, epro_etl.reconcile(h.run_id) r WHERE h.pipeline = 't33' ORDER BY h.run_id, r.measure;
-- whole, and still the row that the query is about
SELECT jsonb_object_keys("row") AS k FROM epro_etl.superseded WHERE earlier_source_id = '1' ORDER BY 1;
SELECT v.a, v.id = (u."row" ->> 'id')::int AS same_row FROM query q JOIN visits v ON v.id = q.visit_id JOIN epro_etl.superseded u ON u.source_id = v.source_id::text;
TABLE oracle;

-- what waits in quarantine can be corrected, and is judged anew; a resent one leaves
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{authored}', '"2026-03-01 11:00+00"') WHERE pipeline = 't33' AND source_id = '12';
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload}', '{"a": 3, "b": "first"}') WHERE pipeline = 't33' AND source_id = '13';
SELECT epro_etl.requeue('t33', source_ids => '{12,13,15}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t33', workers => 0);
SELECT source_id, severity, message FROM probe.last;
SELECT source_id, tries FROM epro_etl.quarantine WHERE pipeline = 't33' AND source_id IN ('12', '13', '15');
SELECT * FROM shown WHERE subject IN ('P2', 'P3', 'P5');
TABLE oracle;

-- all or nothing: a later one that another sink refuses replaces nothing, and the other sink gets none that is earlier
CREATE TABLE strict (source_id int PRIMARY KEY, run_id bigint, a int, CHECK (a <> 66));
SELECT epro_etl.add_sink('t33', 't33', 'strict');
SELECT put(51, 'P1', 20, '{"a": 66}') AS p51,
       put(52, 'P1', 2, '{"a": 52}') AS p52,
       put(53, 'P1', 19, '{"a": 53}') AS p53;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t33', workers => 0);
SELECT * FROM shown WHERE subject = 'P1';
SELECT source_id, a FROM strict;
SELECT * FROM kept WHERE source_id IN ('51', '52', '53');
SELECT epro_etl.remove_sink('t33', 't33', 'strict');
TABLE oracle;

-- a dry run leaves all as it is
SELECT put(54, 'P1', 21, '{"a": 54}') AS p54;
SELECT status, claimed, loaded, duplicate FROM epro_etl.run('t33', workers => 0, dry_run => true);
SELECT source_id FROM shown WHERE subject = 'P1';
-- and so does a rollback
BEGIN;
SELECT status, claimed, loaded, duplicate FROM epro_etl.run('t33', workers => 0);
SELECT source_id FROM shown WHERE subject = 'P1';
SELECT count(*) FROM kept WHERE source_id = '54';
ROLLBACK;
SELECT source_id FROM shown WHERE subject = 'P1';
SELECT count(*) FROM kept WHERE source_id = '54';
SELECT status, claimed, loaded, duplicate FROM epro_etl.run('t33', workers => 0);
TABLE oracle;

-- two workers at once, chunks of a few, every key many times and in any order
SELECT count(put(n, 'P' || 100 + n % 37, (n * 7919 / 37) % 24, jsonb_build_object('a', n % 900, 'b', CASE WHEN n % 5 = 0 THEN 'x' ELSE n::text END))) FROM generate_series(1000, 2999) n;
SET epro_etl.batch_size = 20;
SELECT status, claimed, claimed = loaded + duplicate AS nothing_else, rejected, remaining FROM epro_etl.run('t33', workers => 2);
RESET epro_etl.batch_size;
SELECT count(*) AS subjects, min(hour) AS earliest, max(hour) AS latest FROM shown WHERE source_id >= 1000;
TABLE oracle;

-- a stream, cut into stage groups
SELECT count(put(n, 'P' || 200 + n % 11, (n * 31) % 24, jsonb_build_object('a', n % 900))) FROM generate_series(3000, 3199) n;
SELECT epro_etl.start_stream('t33', stages => '{"decode": 1, "validate": 1, "store": 2}');
DO $$
BEGIN
    FOR i IN 1..3000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM t33.staging);
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT epro_etl.stop_stream('t33');
SELECT count(*) AS subjects FROM shown WHERE source_id >= 3000;
TABLE oracle;

-- a sink that is renamed is the same
ALTER TABLE visits RENAME TO visits_2026;
SELECT count(*) AS not_reconciled FROM epro_etl.run_history h, epro_etl.reconcile(h.run_id) r WHERE h.pipeline = 't33' AND r.measure !~ 'quarantine' AND r.agrees IS NOT TRUE;
ALTER TABLE visits_2026 RENAME TO visits;

-- triggers, a partitioned table, a time that the column rounds, NULLs in the key
CREATE TABLE parts (source_id int, study text, subject_key text, visit text, authored timestamptz(0), a int, run_id bigint, UNIQUE (subject_key, visit)) PARTITION BY LIST (visit);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN ('DAY 1');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE TABLE heard (op text, a int);
CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO t33.heard VALUES (tg_when || ' ' || tg_op, new.a);
    IF new.a = 13 THEN RETURN NULL; END IF;
    RETURN new;
END $$;
CREATE TRIGGER hear BEFORE INSERT OR UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION hear();
CREATE TRIGGER hear_after AFTER INSERT OR UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION hear();
CREATE TABLE other (LIKE staging);
SELECT epro_etl.create_pipeline('t33_other', 'other');
SELECT epro_etl.add_sink('t33_other', 't33', 'parts', on_duplicate => 'latest');
INSERT INTO other SELECT n, 'ST01', 't33', 'P' || n % 2, CASE WHEN n < 3 THEN 'DAY 1' END, '2026-03-01 08:00:00.6+00', jsonb_build_object('a', n) FROM generate_series(1, 4) n;
SELECT status, loaded FROM epro_etl.run('t33_other', workers => 0);
TABLE heard;
TRUNCATE heard;
-- the same again, though the column has rounded it; later, and swallowed by a trigger, as INSERT and as UPDATE; later
INSERT INTO other SELECT 10 + n, 'ST01', 't33', subject, visit, authored, payload FROM (VALUES
    (1, 'P1', 'DAY 1', '2026-03-01 08:00:00.6+00'::timestamptz, '{"a": 1}'::jsonb),
    (2, 'P0', 'DAY 1', '2026-03-01 09:00+00', '{"a": 13}'), (3, 'P9', 'DAY 1', '2026-03-01 09:00+00', '{"a": 13}'),
    (4, 'P1', 'DAY 1', '2026-03-01 09:00+00', '{"a": 14}'), (5, 'P1', NULL, '2026-03-01 09:00+00', '{"a": 15}')) AS v (n, subject, visit, authored, payload);
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t33_other', workers => 0);
SELECT source_id, rule, kind, severity, message FROM probe.last;
SELECT tableoid::regclass, source_id, visit, authored AT TIME ZONE 'UTC' AS authored, a FROM parts ORDER BY source_id;
TABLE heard;
SELECT earlier_source_id, source_id FROM epro_etl.superseded WHERE target = 't33.parts';
SELECT agrees FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));

-- privileges and row security: the caller's, and no more
SET client_min_messages = warning;
DROP ROLE IF EXISTS epro_t33;
RESET client_min_messages;
CREATE ROLE epro_t33;
GRANT USAGE ON SCHEMA t33, epro_etl TO epro_t33;
GRANT EXECUTE ON FUNCTION epro_etl.run TO epro_t33;
GRANT SELECT, DELETE ON other TO epro_t33;
CREATE TABLE secured (source_id int, subject_key text PRIMARY KEY, authored timestamptz, a int, site text DEFAULT 'A', run_id bigint);
SELECT epro_etl.remove_sink('t33_other', 't33', 'parts');
SELECT epro_etl.add_sink('t33_other', 't33', 'secured', on_duplicate => 'latest');
INSERT INTO secured SELECT 0, probe.subject_key('ST01', s), '2026-03-01', 0, site FROM (VALUES ('P1', 'A'), ('P2', 'B'), ('P3', 'A')) AS v (s, site);
INSERT INTO other SELECT 20 + n, 'ST01', 't33', 'P' || n, 'DAY 1', '2026-03-02', jsonb_build_object('a', n) FROM generate_series(1, 4) n;
GRANT INSERT ON secured TO epro_t33;
SET ROLE epro_t33;
SELECT status FROM epro_etl.run('t33_other', workers => 0);
RESET ROLE;
GRANT SELECT, UPDATE ON secured TO epro_t33;
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY reading ON secured FOR SELECT USING (site = 'A');
CREATE POLICY adding ON secured FOR INSERT WITH CHECK (true);
CREATE POLICY changing ON secured FOR UPDATE USING (site = 'A') WITH CHECK (a <> 3);
SET ROLE epro_t33;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t33_other', workers => 0);
SELECT * FROM epro_etl.superseded;
RESET ROLE;
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT source_id, a, site FROM secured ORDER BY source_id, site;
SELECT source_id, earlier_source_id, "row" -> 'a' AS a FROM epro_etl.superseded WHERE target = 't33.secured';

-- by then another key: the run is told, and moves nothing
ALTER TABLE visits ADD UNIQUE (source_id);
SELECT put(9000, 'P1', 23, '{"a": 1}') AS p9000;
SELECT status FROM epro_etl.run('t33', workers => 0);
ALTER TABLE visits DROP CONSTRAINT visits_source_id_key;
SELECT status, loaded FROM epro_etl.run('t33', workers => 0);
SELECT on_duplicate FROM epro_etl.sink WHERE target = 'visits'::regclass;
TABLE oracle;

DELETE FROM epro_etl.superseded WHERE target LIKE 't33.%';
DROP OWNED BY epro_t33;
DROP ROLE epro_t33;
SELECT probe.close_area('t33');
DROP FOREIGN DATA WRAPPER t33_nowhere CASCADE;
