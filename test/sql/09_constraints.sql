-- What a sink does not take rejects that response only, whatever refuses it.
\set SHOW_CONTEXT never
SELECT probe.open_area('t09');
SELECT epro_etl.register_form('t09', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "v": {"type": "string"}, "n": {"type": "number"},
    "e": {"type": "string"}, "u": {"type": "string"}, "dd": {"type": "integer"}, "j": {}, "d": {"type": "string", "format": "date"}}}');
CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE DOMAIN small AS int CHECK (value < 10);
CREATE TABLE codes (code int PRIMARY KEY);
INSERT INTO codes VALUES (1), (2);
CREATE TABLE strict (source_id int PRIMARY KEY, a smallint NOT NULL CHECK (a <> 7), b int REFERENCES codes, v varchar(3), n numeric(4, 1), e mood, u uuid,
    dd small, d date, EXCLUDE USING btree (d WITH =));
SELECT epro_etl.add_sink('t09', 't09', 'strict');
-- a response, and what must refuse it (rule); NULL: nothing
CREATE TABLE given (id int PRIMARY KEY, refused text, payload jsonb);
INSERT INTO given VALUES
    (1, NULL, '{"a": 1, "b": 1, "v": "abc", "n": 1.5, "e": "ok", "u": "00000000-0000-0000-0000-000000000001", "dd": 3, "d": "2026-03-01"}'),
    (2, 'a', '{"a": 70000}'), (3, '23502', '{}'), (4, 'strict_a_check', '{"a": 7}'), (5, 'strict_b_fkey', '{"a": 1, "b": 5}'),
    (6, 'v', '{"a": 1, "v": "abcd"}'), (7, NULL, '{"a": 1, "v": "日本語"}'), (8, 'n', '{"a": 1, "n": 1000}'), (9, NULL, '{"a": 1, "n": -999.9}'),
    (10, 'e', '{"a": 1, "e": "sad"}'), (11, 'u', '{"a": 1, "u": "xx"}'), (12, 'dd', '{"a": 1, "dd": 11}'), (13, NULL, '{"a": 1, "b": 2}'),
    (14, 'strict_d_excl', '{"a": 1, "d": "2026-03-01"}'), (15, 'n', '{"a": 1, "n": 1.55}'), (16, 'n', '{"a": 1, "n": 99999.96}'), (17, NULL, '{"a": 1, "v": "ab"}');
CREATE FUNCTION stage(p text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO staging SELECT id, 'ST01', 't09', 'P-1', NULL, NULL, payload FROM given ORDER BY id $$;
SELECT stage('');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t09', workers => 0);
\pset null (null)
SELECT * FROM probe.last;
\pset null ''
SELECT * FROM strict ORDER BY source_id;
-- refused where it must be, and nowhere else: no row is right
CREATE VIEW amiss AS
    SELECT g.id, g.refused, l.rule FROM given g LEFT JOIN probe.last l ON l.source_id = g.id::text WHERE g.refused IS DISTINCT FROM l.rule;
SELECT * FROM amiss ORDER BY id;
-- the same through a trigger, that is: on the executor's road instead of the bulk one
CREATE TEMP TABLE by_bulk AS SELECT * FROM strict;
CREATE TEMP TABLE told_by_bulk AS SELECT * FROM probe.last;
TRUNCATE strict;
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER noop BEFORE INSERT ON strict FOR EACH ROW EXECUTE FUNCTION noop();
SELECT stage('');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t09', workers => 0);
SELECT * FROM amiss ORDER BY id;
(TABLE by_bulk EXCEPT TABLE strict) UNION ALL (TABLE strict EXCEPT TABLE by_bulk);
SELECT * FROM (TABLE told_by_bulk EXCEPT SELECT * FROM probe.last) x;
-- no finding quotes an answer
SELECT count(*) AS leaks FROM epro_etl.finding WHERE message ~ '70000|abcd|sad|1\.55|99999';
-- unique: what the sink holds already, and twice in one chunk, are duplicates
TRUNCATE staging;
INSERT INTO staging VALUES (1, 'ST01', 't09', 'P-1', NULL, NULL, '{"a": 2}'), (30, 'ST01', 't09', 'P-1', NULL, NULL, '{"a": 2}');
SELECT status, loaded, rejected, duplicate FROM epro_etl.run('t09', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;
ALTER TABLE strict ADD UNIQUE (v);
SELECT setval('staged', 40);
SELECT probe.put('t09', '{"a": 3, "v": "x"}', '{"a": 4, "v": "x"}', '{"a": 5, "v": "y"}', '{"a": 6, "v": "x"}');
SELECT status, loaded, rejected, duplicate FROM epro_etl.run('t09', workers => 0);
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT a, v FROM strict WHERE v IN ('x', 'y') ORDER BY a;

-- deferred constraints hold at the end of the chunk, not of the caller's transaction
CREATE TABLE late (source_id int, a int UNIQUE DEFERRABLE INITIALLY DEFERRED, b int REFERENCES codes DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.a = 66 THEN RAISE check_violation; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER judge AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION judge();
SELECT epro_etl.create_pipeline('t09_late', 'staging');
SELECT epro_etl.add_sink('t09_late', 't09', 'late');
SELECT setval('staged', 100);
SELECT probe.put('t09', '{"a": 1, "b": 1}', '{"a": 2, "b": 13}', '{"a": 3, "b": 2}', '{"a": 1, "b": 2}', '{"a": 66, "b": 2}', '{"a": 4}');
BEGIN;
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t09_late', workers => 0);
COMMIT;
SELECT source_id, rule, kind, message FROM probe.last;
SELECT * FROM late ORDER BY a;
SELECT count(*) AS still_staged FROM staging;

-- triggers: one that raises, one that stores nothing, a rule
CREATE TABLE moody (source_id int, a int);
CREATE FUNCTION mood() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.a = 13 THEN RAISE EXCEPTION 'SECRET %', new.a USING DETAIL = 'SECRET'; END IF;
    IF new.a = 14 THEN RETURN NULL; END IF;
    IF new.a = 15 THEN RAISE 'SECRET' USING ERRCODE = '22003'; END IF;
    IF new.a = 16 THEN RAISE 'SECRET' USING ERRCODE = 'feature_not_supported'; END IF;
    IF new.a = 17 THEN RAISE 'SECRET' USING ERRCODE = 'disk_full', HINT = 'SECRET'; END IF;
    RETURN new;
END $$;
CREATE TRIGGER mood BEFORE INSERT ON moody FOR EACH ROW EXECUTE FUNCTION mood();
SELECT epro_etl.create_pipeline('t09_mood', 'staging');
SELECT epro_etl.add_sink('t09_mood', 't09', 'moody');
SELECT probe.put('t09', '{"a": 1}', '{"a": 13}', '{"a": 2}', '{"a": 14}', '{"a": 15}', '{"a": 16}', '{"a": 3}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t09_mood', workers => 0);
SELECT location, rule, kind, severity, message FROM probe.last;
SELECT a FROM moody ORDER BY a;
-- one that is the system's ends the run, told without its words; all is back in staging
SELECT probe.put('t09', '{"a": 4}', '{"a": 17}');
SELECT status FROM epro_etl.run('t09_mood', workers => 0);
SELECT count(*) AS still_staged FROM staging;
SELECT a FROM moody ORDER BY a;
TRUNCATE staging;
CREATE TABLE ruled (source_id int, a int);
CREATE RULE ruled AS ON INSERT TO ruled WHERE new.a = 13 DO INSTEAD NOTHING;
SELECT epro_etl.create_pipeline('t09_rule', 'staging');
SELECT epro_etl.add_sink('t09_rule', 't09', 'ruled');
SELECT probe.put('t09', '{"a": 1}', '{"a": 13}', '{"a": 2}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t09_rule', workers => 0);
SELECT location, rule, kind FROM probe.last;
SELECT a FROM ruled ORDER BY a;

-- partitions: none for it, and constraints of one only; generated columns; a view's check option; row security
CREATE TABLE parts (source_id int, a int, b int) PARTITION BY RANGE (a);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_high PARTITION OF parts (CHECK (b > 0), UNIQUE (a)) FOR VALUES FROM (10) TO (20);
SELECT epro_etl.create_pipeline('t09_parts', 'staging');
SELECT epro_etl.add_sink('t09_parts', 't09', 'parts');
SELECT probe.put('t09', '{"a": 1, "b": 0}', '{"a": 11, "b": 0}', '{"a": 11, "b": 1}', '{"a": 11, "b": 2}', '{"a": 99}', '{"b": 1}', '{"a": 2}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t09_parts', workers => 0);
SELECT location, rule, kind, message FROM probe.last;
SELECT tableoid::regclass, a, b FROM parts ORDER BY a;
CREATE TABLE halved (source_id int, a int, half int GENERATED ALWAYS AS (100 / a) STORED);
SELECT epro_etl.create_pipeline('t09_made', 'staging');
SELECT epro_etl.add_sink('t09_made', 't09', 'halved');
SELECT probe.put('t09', '{"a": 1}', '{"a": 0}', '{"a": 4}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t09_made', workers => 0);
SELECT location, rule, kind, message FROM probe.last;
SELECT a, half FROM halved ORDER BY a;
-- an identity column that is always generated takes no answer
CREATE TABLE numbered (source_id int, a int GENERATED ALWAYS AS IDENTITY);
SELECT epro_etl.add_sink('t09_made', 't09', 'numbered');
CREATE TABLE base (source_id int, a int);
CREATE VIEW low AS SELECT source_id, a FROM base WHERE a < 5 WITH CHECK OPTION;
SELECT epro_etl.create_pipeline('t09_view', 'staging');
SELECT epro_etl.add_sink('t09_view', 't09', 'low');
SELECT probe.put('t09', '{"a": 1}', '{"a": 7}', '{"a": 3}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t09_view', workers => 0);
SELECT location, rule, kind, message FROM probe.last;
SELECT a FROM base ORDER BY a;

-- found by halving: whichever rows of a chunk are bad, they alone are rejected
CREATE TABLE halves (source_id int, a int CHECK (a = 0));
SELECT epro_etl.create_pipeline('t09_half', 'staging');
SELECT epro_etl.add_sink('t09_half', 't09', 'halves');
SELECT setval('staged', 10000);
DO $$
DECLARE
    pattern text;
    bad int;
    got record;
BEGIN
    FOREACH pattern IN ARRAY '{n = 1,n = 100,n IN (50\,51),n % 2 = 0,n % 7 = 3,n > 60,true,false}'::text[] LOOP
        TRUNCATE halves;
        EXECUTE format($q$ INSERT INTO staging SELECT nextval('staged'), 'ST01', 't09', 'P-1', NULL, NULL,
            jsonb_build_object('a', CASE WHEN %s THEN n ELSE 0 END) FROM generate_series(1, 100) n $q$, pattern);
        SELECT count(*) INTO bad FROM staging WHERE payload ->> 'a' <> '0';
        SELECT * INTO got FROM epro_etl.run('t09_half', workers => 0);
        IF (got.claimed, got.loaded, got.rejected) IS DISTINCT FROM (100::bigint, 100::bigint - bad, bad::bigint)
            OR (SELECT count(*) FROM halves) <> 100 - bad
            OR (SELECT count(*) FROM epro_etl.quarantine WHERE run_id = got.run_id AND original #>> '{payload,a}' <> '0') <> bad THEN
            RAISE WARNING '%: % bad, but %', pattern, bad, got;
        END IF;
    END LOOP;
END $$;
SELECT probe.close_area('t09');
