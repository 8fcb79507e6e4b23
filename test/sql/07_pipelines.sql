-- Pipelines: roles, constants, and sources that changed since.
\set SHOW_CONTEXT never
CREATE SCHEMA t07;
SET search_path = t07, public;
CREATE TABLE staging (id int PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
CREATE TABLE narrow (key text, person varchar(10), answers text);
-- refused; nothing of it stays
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"subjct": "subject"}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"subject": "nope"}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"subject": {"value": "x"}}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"study": {"value": 5}}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"study": {"valu": "x"}}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"study": {"value": "x", "more": 1}}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"payload": 5}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"id": null}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"subject": ["x"]}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '[]');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '"id"');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"authored": "visit"}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', '{"payload": "authored"}');
SELECT epro_etl.create_pipeline('t07_x', 'staging', options => '{"x": 1}');
SELECT epro_etl.create_pipeline('t07_x', 'narrow');
SELECT epro_etl.create_pipeline('t07_x', 'nope');
SELECT epro_etl.create_pipeline('t07_x', NULL);
SELECT epro_etl.create_pipeline(NULL, 'staging');
SELECT epro_etl.create_pipeline('', 'staging');
SELECT epro_etl.create_pipeline(repeat('x', 64), 'staging');
SELECT epro_etl.create_pipeline(repeat('汉', 22), 'staging');
CREATE VIEW seen AS TABLE staging;
SELECT epro_etl.create_pipeline('t07_x', 'seen');
CREATE TABLE parts (LIKE staging) PARTITION BY LIST (form);
SELECT epro_etl.create_pipeline('t07_x', 'parts');
SELECT count(*) AS left_behind FROM epro_etl.pipeline WHERE name LIKE 't07%' OR name LIKE '汉%';
-- accepted: by own names, and with names and constants
SELECT epro_etl.create_pipeline('t07', 'staging');
SELECT epro_etl.create_pipeline('t07', 'staging');
SELECT epro_etl.create_pipeline('t07_narrow', 'narrow',
    '{"id": "key", "study": {"value": "ST07"}, "form": {"value": "t07"}, "subject": "person", "visit": {"value": "BASELINE"}, "payload": "answers"}');
SELECT name, source, columns FROM epro_etl.pipeline WHERE name LIKE 't07%' ORDER BY name COLLATE "C";
SELECT epro_etl.register_form('t07', '{"properties": {"a": {"type": "integer"}}}');
-- nothing to do, and nowhere to go
SELECT status, claimed, remaining FROM epro_etl.run('t07', workers => 0);
INSERT INTO staging SELECT n, 'ST01', 't07', 'P-1', 'V1', NULL, '{"a": 1}' FROM generate_series(1, 3) n;
SELECT status, claimed, rejected FROM epro_etl.run('t07', workers => 0);
SELECT DISTINCT rule, kind, message FROM probe.last;
-- without a column for them, visit and authored are unknown; constants are stored
SELECT epro_etl.create_sink('t07_narrow', 't07', 'stored');
INSERT INTO narrow VALUES ('k1', 'P-7', '{"a": 1}'), ('k2', 'P-7', '{"a": "x"}'), (NULL, 'P-7', '{"a": 3}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t07_narrow', workers => 0);
SELECT source_id, study, form, visit, authored, a, subject_key = probe.subject_key('ST07', 'P-7') AS key_as_computed FROM stored ORDER BY a;
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT source_id, original FROM epro_etl.quarantine WHERE pipeline = 't07_narrow' ORDER BY quarantine_id;
-- two responses of one number are two responses; the second is a duplicate where the sink says so
INSERT INTO narrow VALUES ('k9', 'P-7', '{"a": 9}'), ('k9', 'P-7', '{"a": 9}'), ('k1', 'P-7', '{"a": 9}');
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t07_narrow', workers => 0);

-- altered since: renamed is followed, what does not fit is told, and nothing is lost
INSERT INTO narrow VALUES ('r1', 'P-7', '{"a": 5}');
ALTER TABLE narrow RENAME TO thin;
SELECT status, loaded FROM epro_etl.run('t07_narrow', workers => 0);
INSERT INTO thin VALUES ('r2', 'P-7', '{"a": 5}');
ALTER TABLE thin RENAME COLUMN answers TO given;
SELECT status FROM epro_etl.run('t07_narrow', workers => 0);
ALTER TABLE thin RENAME COLUMN given TO answers;
ALTER TABLE thin ALTER answers TYPE int USING 1;
SELECT status FROM epro_etl.run('t07_narrow', workers => 0);
ALTER TABLE thin ALTER answers TYPE jsonb USING '{"a": 6}';
SELECT status, loaded FROM epro_etl.run('t07_narrow', workers => 0);
INSERT INTO thin VALUES ('r3', 'P-7', '{"a": 5}');
ALTER TABLE thin DROP COLUMN person;
SELECT status FROM epro_etl.run('t07_narrow', workers => 0);
SELECT count(*) AS still_staged FROM thin;
DROP TABLE thin;
SELECT status FROM epro_etl.run('t07_narrow', workers => 0);
-- a source with children gives its own rows and not theirs
CREATE TABLE child () INHERITS (staging);
INSERT INTO staging SELECT n, 'ST01', 't07', 'P-1', 'V1', NULL, '{"a": 1}' FROM generate_series(11, 13) n;
INSERT INTO child SELECT n, 'ST01', 't07', 'P-1', 'V1', NULL, '{"a": 1}' FROM generate_series(21, 22) n;
SELECT epro_etl.create_sink('t07', 't07', 'main');
SELECT status, claimed, loaded, remaining FROM epro_etl.run('t07', workers => 0);
SELECT count(*) AS in_child FROM child;
DROP TABLE child;
-- a source whose rows a trigger does not let go: they stay, and are not loaded
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF old.id % 2 = 0 THEN RETURN NULL; END IF; RETURN old; END';
CREATE TRIGGER keep BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION keep();
INSERT INTO staging SELECT n, 'ST01', 't07', 'P-1', 'V1', NULL, '{"a": 1}' FROM generate_series(101, 110) n;
SELECT status, claimed, loaded, remaining FROM epro_etl.run('t07', workers => 0);
SELECT count(*) FILTER (WHERE id % 2 = 0) AS even, count(*) FILTER (WHERE id % 2 = 1) AS odd FROM staging;
SELECT count(*) AS in_both FROM staging s JOIN main m ON m.source_id = s.id;
DROP TRIGGER keep ON staging;
SELECT status, claimed, loaded, remaining FROM epro_etl.run('t07', workers => 0);
-- a temporary source is its session's own
CREATE TEMP TABLE mine (LIKE staging);
INSERT INTO mine SELECT n, 'ST01', 't07', 'P-1', 'V1', NULL, '{"a": 1}' FROM generate_series(201, 203) n;
SELECT epro_etl.create_pipeline('t07_mine', 'mine');
SELECT epro_etl.add_sink('t07_mine', 't07', 'main');
SELECT status, claimed, loaded, workers FROM epro_etl.run('t07_mine', workers => 2);
DROP TABLE mine;
-- dropping a pipeline leaves tables and the ledger
SELECT epro_etl.drop_pipeline('t07');
SELECT epro_etl.drop_pipeline('t07');
SELECT count(*) FROM main;
SELECT count(*) > 0 AS ledger_stays FROM epro_etl.run_history WHERE pipeline = 't07';
SELECT epro_etl.run('t07');
SELECT probe.close_area('t07');
