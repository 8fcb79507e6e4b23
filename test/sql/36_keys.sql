-- Pseudonyms: the same for a subject always, unrelated across studies; versions of their key.
\set SHOW_CONTEXT never
SELECT probe.open_area('t36');
SELECT epro_etl.register_form('t36', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t36', 't36', 'loaded');
-- subjects as they stand: nothing folds, trims or normalises them
CREATE TABLE subjects (n int PRIMARY KEY, study text, subject text);
INSERT INTO subjects SELECT row_number() OVER (), study, subject FROM (VALUES
    ('AB', 'C'), ('A', 'BC'), ('', 'ABC'), ('ABC', 'ABC'),
    ('S', 'P-1'), ('S', U&'\FF30\FF0D\FF11'), ('S', 'p-1'), ('S', ' P-1'), ('S', 'P-1 '),
    ('S', U&'Ren\00E9'), ('S', U&'Rene\0301'), ('S', U&'\738B\5C0F\660E'), ('S', U&'\+01F469\200D\2695\FE0F'),
    ('S', repeat('x', 47)), ('S', repeat('x', 48)), ('S', repeat('x', 1000000)), (repeat('s', 64), 'x'), (repeat('s', 65), 'x'),
    (repeat('s', 1000000), 'x')) AS v (study, subject);
INSERT INTO subjects SELECT 100 + n, 'ST' || n % 5, 'P-' || n / 10 FROM generate_series(0, 999) n;
INSERT INTO staging (id, study, form, subject, payload) SELECT n, study, 't36', subject, '{"a": 1}' FROM subjects;
SELECT status, claimed, loaded FROM epro_etl.run('t36', workers => 0);
SELECT count(*) AS others FROM loaded l JOIN subjects s ON s.n = l.source_id
    WHERE l.subject_key <> probe.subject_key(s.study, s.subject) OR l.key_version <> 1;
SELECT count(DISTINCT subject_key) = count(DISTINCT (study, subject)) AND count(*) = count(DISTINCT subject_key) AS one_each
    FROM (SELECT DISTINCT s.study, s.subject, l.subject_key FROM loaded l JOIN subjects s ON s.n = l.source_id) u;
-- and the same again by workers
CREATE TABLE before AS SELECT source_id, subject_key FROM loaded;
TRUNCATE loaded;
INSERT INTO staging (id, study, form, subject, payload) SELECT n, study, 't36', subject, '{"a": 1}' FROM subjects;
SELECT status, claimed, loaded FROM epro_etl.run('t36', workers => 2);
SELECT count(*) AS same FROM loaded JOIN before USING (source_id, subject_key);
-- without a subject there is no pseudonym
INSERT INTO staging (id, study, form, subject, payload) SELECT 2000 + n, 'S', 't36', subject, '{"a": 1}'
    FROM unnest(ARRAY['', ' ', U&'\3000', NULL]) WITH ORDINALITY AS u (subject, n);
SELECT status, claimed, rejected FROM epro_etl.run('t36', workers => 0);
SELECT source_id, rule, kind FROM probe.last;
-- the keyring: no key in it
SELECT version, octet_length(check_value), state, note FROM epro_etl.key_version;
SELECT key_version FROM epro_etl.run_history WHERE pipeline = 't36' GROUP BY 1;
-- another version, another pseudonym; who may
CREATE ROLE t36_owner;
GRANT USAGE ON SCHEMA epro_etl, t36 TO t36_owner;
GRANT EXECUTE ON FUNCTION epro_etl.rotate_key TO t36_owner;
GRANT EXECUTE ON PROCEDURE epro_etl.repseudonymise TO t36_owner;
SET ROLE t36_owner;
SELECT epro_etl.rotate_key();
CALL epro_etl.repseudonymise('loaded');
RESET ROLE;
-- in a transaction of its own making: regress runs that follow are of version 1
BEGIN;
SELECT epro_etl.rotate_key('a test') AS version;
SELECT version, octet_length(check_value), state, note FROM epro_etl.key_version ORDER BY version;
SELECT count(DISTINCT check_value) FROM epro_etl.key_version;
INSERT INTO staging (id, study, form, subject, payload) VALUES (3000, 'ST1', 't36', 'P-1', '{"a": 1}');
SELECT status, loaded FROM epro_etl.run('t36', workers => 0);
SELECT key_version, subject_key = encode(probe.hmac(probe.derived('a key for tests, known to everybody', 'subject', '2', 'ST1'),
    convert_to(probe.subject_key('ST1', 'P-1'), 'UTF8')), 'hex') AS as_computed FROM loaded WHERE source_id = 3000;
SELECT key_version FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1;
CALL epro_etl.repseudonymise('loaded');
ROLLBACK;
SELECT version, state FROM epro_etl.key_version;
-- a keyring that does not know the key, and one that was tampered with
BEGIN;
UPDATE epro_etl.key_version SET check_value = '\x0011223344556677';
SELECT epro_etl.run('t36', workers => 0);
ROLLBACK;
BEGIN;
UPDATE epro_etl.key_version SET version = 7;
SELECT epro_etl.run('t36', workers => 0);
ROLLBACK;
BEGIN;
UPDATE epro_etl.key_version SET check_value = '\x0011223344556677';
SELECT epro_etl.rotate_key();
ROLLBACK;
-- what cannot be brought to another version
CALL epro_etl.repseudonymise(NULL);
CALL epro_etl.repseudonymise('subjects');
CREATE TABLE narrow (source_id int, subject_key text, study text, a int);
SELECT epro_etl.add_sink('t36', 't36', 'narrow');
CALL epro_etl.repseudonymise('narrow');
CREATE TABLE twice (source_id int, subject_key text, usubjid text, key_version int, a int);
SELECT epro_etl.add_sink('t36', 't36', 'twice', columns => '{"usubjid": "subject_key"}');
CALL epro_etl.repseudonymise('twice');
CREATE VIEW seen AS SELECT * FROM loaded;
CALL epro_etl.repseudonymise('seen');
CREATE TABLE parent (subject_key text PRIMARY KEY);
INSERT INTO parent SELECT DISTINCT subject_key FROM loaded;
ALTER TABLE loaded ADD CONSTRAINT tied FOREIGN KEY (subject_key) REFERENCES parent ON UPDATE CASCADE;
CALL epro_etl.repseudonymise('loaded');
ALTER TABLE loaded DROP CONSTRAINT tied;
-- nothing is older than the newest
CALL epro_etl.repseudonymise('loaded');
DROP OWNED BY t36_owner;
DROP ROLE t36_owner;
SELECT probe.close_area('t36');
