-- Random codes for subjects and items, kept in epro_etl.pseudonym.
\set SHOW_CONTEXT never
SELECT probe.open_area('t39');
SELECT epro_etl.register_form('t39', '{"x-normalise": ["trim", "blank", "width", "coerce"], "properties": {
    "mrn": {"type": "string"}, "partner": {"type": "string"}, "ward": {"type": "integer"}, "score": {"type": "number"},
    "day": {"type": "string", "format": "date"}, "g": {"type": "object", "properties": {"e": {"type": "string"}}}, "a": {"type": "integer", "maximum": 9}}}');
SELECT epro_etl.register_form('t39_b', '{"properties": {"mrn": {"type": "string"}, "a": {"type": "integer"}}}');
-- refused
SELECT epro_etl.set_deid('t39', 'subject', 'keep');
SELECT epro_etl.set_deid('t39', 'subject', 'remove');
SELECT epro_etl.set_deid('t39', 'subject', 'cryptoHash', '{"domain": "x"}');
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize', '[]');
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize', '{"domain": ""}');
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize', '{"domain": 5}');
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize', '{"allow_create": "no"}');
SELECT epro_etl.set_deid('t39', '/mrn', 'pseudonymize', '{"code": "x"}');
SELECT epro_etl.set_deid('t39', '/score', 'pseudonymize');
SELECT epro_etl.set_deid('t39', '/day', 'pseudonymize');
SELECT epro_etl.set_deid('t39', '/g', 'pseudonymize');
SELECT epro_etl.set_deid('t39_none', 'subject', 'pseudonymize');
SELECT count(*) AS left_behind FROM epro_etl.deid_rule WHERE form LIKE 't39%';
-- accepted
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize');
SELECT epro_etl.set_deid('t39', '/mrn', 'pseudonymize');
SELECT epro_etl.set_deid('t39', '/partner', 'pseudonymize', '{"domain": "subject"}');
SELECT epro_etl.set_deid('t39', '/ward', 'pseudonymize', '{"domain": "ward"}');
SELECT epro_etl.set_deid('t39', '/g/e', 'pseudonymize', '{"domain": "listed", "allow_create": false}');
SELECT epro_etl.set_deid('t39_b', 'subject', 'pseudonymize', '{"allow_create": true}');
SELECT epro_etl.set_deid('t39_b', '/mrn', 'pseudonymize');
SELECT name, type, deidentify FROM epro_etl.form_items('t39') WHERE deidentify <> 'keep';
SELECT location, rule FROM epro_etl.explain_form('t39') WHERE stage = 'deidentify';
SELECT epro_etl.create_sink('t39', 't39', 't39');
SELECT epro_etl.create_sink('t39', 't39_b', 't39_b');
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't39'::regclass AND attname IN ('mrn', 'partner', 'ward', 'g_e') ORDER BY 1;
-- an edit check sees the codes
SELECT epro_etl.add_edit_check('t39', 'sees', 'subject ~ ''^[0-9a-f]{32}$'' AND (mrn IS NULL OR mrn ~ ''^[0-9a-f]{32}$'')');
CREATE VIEW codes AS SELECT * FROM epro_etl.pseudonym;

-- validate() and a dry run make none, and do not tell who has one
SELECT location, rule FROM epro_etl.validate('t39', '{"mrn": "M-1", "ward": 7, "g": {"e": "unlisted"}}');
INSERT INTO staging (id, study, form, subject, payload) VALUES
    (1, 'ST1', 't39', 'P-1', '{"mrn": "M-1", "partner": "P-2", "ward": 7, "a": 1}'),
    (2, 'ST1', 't39', 'P-2', '{"mrn": "M-2", "partner": "P-1", "ward": "７"}'),
    (3, 'ST1', 't39_b', 'P-1', '{"mrn": "M-1"}'),
    (4, 'ST2', 't39', 'P-1', '{"mrn": "M-1", "ward": " 7.0 "}'),
    (5, 'ST1', 't39', 'P-1', '{"mrn": " M-1 ", "ward": 70e-1}'),
    (6, 'ST1', 't39', 'P-1', '{"mrn": null, "partner": "  ", "ward": ""}'),
    (7, 'ST1', 't39', 'P-1', '{"mrn": 12, "ward": 123456789012345678901234567890}'),
    (8, 'ST1', 't39', 'P-1', '{"mrn": "12", "ward": "123456789012345678901234567890"}'),
    (9, 'ST1', 't39', 'P-1', '{"mrn": true}'),
    (10, 'ST1', 't39', 'P-1', '{"mrn": ["SECRET"]}'),
    (11, 'ST1', 't39', 'P-1', '{"ward": 7.5}'),
    (12, 'ST1', 't39', 'P-1', '{"g": {"e": "unlisted"}}'),
    (13, 'ST1', 't39', '  ', '{}'),
    (14, 'ST1', 't39', NULL, '{}'),
    (15, NULL, 't39', 'P-1', '{}'),
    (16, '', 't39', 'P-1', '{}'),
    (17, 'ST1', 't39_none', 'P-9', '{}'),
    (18, 'ST1', 't39', 'P-9', '{"mrn": "M-9", "a": 10}'),
    (19, 'ST1', 't39', 'P-1 ', '{}');
CREATE TABLE raw AS TABLE staging;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t39', workers => 0, dry_run => true);
SELECT count(*) AS made FROM codes;
-- rolled back with the caller's transaction, or a part of it
BEGIN;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t39', workers => 0);
SELECT count(*) > 0 AS made FROM codes;
ROLLBACK;
SELECT count(*) AS made FROM codes;
BEGIN;
SAVEPOINT s;
SELECT status, loaded FROM epro_etl.run('t39', workers => 0);
ROLLBACK TO s;
SELECT count(*) AS made FROM codes;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t39', workers => 0);
COMMIT;
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT domain, study, original, run_id IS NOT NULL AS by_run FROM codes ORDER BY domain COLLATE "C", study COLLATE "C", original COLLATE "C";
SELECT count(*) = count(DISTINCT code) AS unique, bool_and(code ~ '^[0-9a-f]{32}$') AS hex FROM codes;
-- what stands in the sinks is the code of what was there
SELECT source_id, s.code = t.subject_key AS subject, m.original AS mrn, p.original AS partner, w.original AS ward
    FROM t39 t JOIN raw r ON r.id = source_id JOIN codes s ON s.domain = 'subject' AND s.study = coalesce(r.study, '') AND s.original = r.subject
    LEFT JOIN codes m ON m.code = t.mrn LEFT JOIN codes p ON p.code = t.partner LEFT JOIN codes w ON w.code = t.ward ORDER BY 1;
SELECT b.subject_key = t.subject_key AS same_subject_in_both_forms, b.mrn <> t.mrn AS items_apart FROM t39 t, t39_b b WHERE t.source_id = 1 AND b.source_id = 3;
-- another run, in workers; the rejected ones come again, and have their codes
UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload}', '{"mrn": "M-9", "a": 1}') WHERE source_id = '18';
CREATE TABLE before AS TABLE codes;
SELECT epro_etl.requeue('t39');
-- the owner's own codes; a code of digits stays a text
\set VERBOSITY terse
INSERT INTO epro_etl.pseudonym (domain, study, original, code) VALUES ('listed', 'ST1', 'unlisted', 'by hand');
\set VERBOSITY default
INSERT INTO epro_etl.pseudonym (domain, study, original, code) VALUES ('listed', 'ST1', 'unlisted', 'by-hand'), ('ward', 'ST9', '7', '007.0');
INSERT INTO staging (id, study, form, subject, payload) VALUES (200, 'ST9', 't39', 'P-1', '{"ward": " 7.0 "}');
INSERT INTO staging (id, study, form, subject, payload) SELECT 100 + id, study, form, subject, payload FROM raw WHERE id <= 8;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t39', workers => 2);
SELECT count(*) AS changed FROM before b FULL JOIN codes c USING (domain, study, original) WHERE b.code IS DISTINCT FROM c.code AND c.code <> 'by-hand' AND c.study <> 'ST9';
SELECT count(*) AS otherwise FROM t39 x JOIN t39 y ON y.source_id = x.source_id + 100
    WHERE (x.subject_key, x.mrn, x.partner, x.ward) IS DISTINCT FROM (y.subject_key, y.mrn, y.partner, y.ward);
SELECT g_e, ward, (SELECT original FROM codes WHERE code = subject_key) AS subject FROM t39 WHERE source_id IN (12, 18, 200) ORDER BY source_id;
-- nothing of it is anywhere else
SELECT count(*) AS leaks FROM (SELECT t39::text AS line FROM t39 UNION ALL SELECT f::text FROM epro_etl.finding f WHERE form ~ '^t39'
    UNION ALL SELECT h::text FROM epro_etl.run_history h WHERE pipeline = 't39') AS everything WHERE line ~ 'SECRET|P-[0-9]|M-[0-9]|listed';

-- originals of all kinds and lengths keep their codes apart
TRUNCATE staging, t39;
CREATE TABLE odd (id int, study text, subject text);
INSERT INTO odd SELECT 1000 + row_number() OVER (), s, p FROM (VALUES ('AB', 'C'), ('A', 'BC'), ('', 'ABC'), ('ABC', ' '), ('AB', 'Ｃ'), ('AB', 'é'), ('AB', E'e\u0301'), ('AB', '患者一'),
    ('AB', '🙂'), ('AB', '\x41'), ('AB', 'A'), ('AB', '\101'), ('AB', '\\x41'), ('AB', '\'), ('AB', E'C\n'), ('1:', '2:C'), ('AB', repeat('長', 350000)), ('AB', repeat('長', 350000) || 'x'),
    (repeat('s', 100000), 'C'), (repeat('s', 100000), repeat('長', 3000)), ('AB:1', 'C'), ('AB', ':1C')) v (s, p);
INSERT INTO staging (id, study, form, subject, payload) SELECT id, study, 't39', subject, '{"a": 1}' FROM odd;
INSERT INTO staging (id, study, form, subject, payload) SELECT id + 1000, study, 't39', subject, jsonb_build_object('partner', subject) FROM odd WHERE study = 'AB' AND subject !~ E'[\nＣ]';
SELECT status, loaded, rejected FROM epro_etl.run('t39', workers => 0);
SELECT count(*), count(DISTINCT subject_key) AS codes FROM t39 WHERE source_id < 2000;
SELECT count(*) AS as_partner, count(*) FILTER (WHERE subject_key = partner) AS the_same FROM t39 WHERE source_id > 2000;
SELECT count(*) AS otherwise FROM t39 JOIN odd ON id = source_id LEFT JOIN codes c ON c.domain = 'subject' AND c.study = odd.study AND c.original = odd.subject WHERE c.code IS DISTINCT FROM subject_key;
-- the owner cannot enter an original twice, and is not told whose it is
\set VERBOSITY terse
INSERT INTO epro_etl.pseudonym (domain, study, original, code) SELECT domain, study, original, 'other' FROM codes WHERE original = '患者一';
\set VERBOSITY default
-- who forgets a code gets another
DELETE FROM epro_etl.pseudonym WHERE original = '患者一';
INSERT INTO staging (id, study, form, subject, payload) SELECT id + 2000, study, 't39', subject, '{}' FROM odd WHERE subject = '患者一';
SELECT status, loaded FROM epro_etl.run('t39', workers => 0);
SELECT count(DISTINCT subject_key) AS codes FROM t39 JOIN odd ON odd.id IN (source_id, source_id - 2000) WHERE odd.subject = '患者一';

-- who may run has codes made, and reads none
CREATE ROLE epro_t39 LOGIN;
GRANT USAGE ON SCHEMA epro_etl, t39 TO epro_t39;
GRANT EXECUTE ON FUNCTION epro_etl.run, epro_etl.validate TO epro_t39;
GRANT SELECT ON epro_etl.run_history, epro_etl.stat_progress, epro_etl.pipeline TO epro_t39;
GRANT SELECT, DELETE ON staging TO epro_t39;
GRANT INSERT ON t39, t39_b TO epro_t39;
INSERT INTO staging (id, study, form, subject, payload) VALUES (3001, 'ST1', 't39', 'P-3001', '{}'), (3002, 'ST1', 't39', 'P-3002', '{}');
SET ROLE epro_t39;
SELECT status, loaded FROM epro_etl.run('t39', workers => 1);
SELECT count(*) FROM epro_etl.pseudonym;
INSERT INTO epro_etl.pseudonym (domain, study, original, code) VALUES ('subject', 'ST1', 'P-3001', 'mine');
DELETE FROM epro_etl.pseudonym;
RESET ROLE;
SELECT count(*) AS made FROM codes WHERE original ~ '^P-300';
SELECT x.grantee::regrole, x.privilege_type FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
    WHERE c.oid = 'epro_etl.pseudonym'::regclass AND x.grantee <> c.relowner;
-- a participant may be known by a code; an identifier does not get in
INSERT INTO epro_etl.participant (study, subject_key, site) SELECT 'T39', code, 'N' FROM codes WHERE original = 'P-3001';
INSERT INTO epro_etl.participant (study, subject_key, site) VALUES ('T39', 'P-3001', 'N');
DELETE FROM epro_etl.participant WHERE study = 'T39';
-- a run that may be held judges first: codes of that pass are for the occasion, those of rows are the table's
SELECT epro_etl.add_check('t39', 'high', 'batch_threshold', '{"rule": "/a/maximum", "max_ratio": 0.5}');
CREATE TABLE staging_was AS TABLE staging WITH NO DATA;
INSERT INTO staging (id, study, form, subject, payload) SELECT 3100 + n, 'ST1', 't39', 'P-H' || n, jsonb_build_object('a', n, 'mrn', 'M-H' || n) FROM generate_series(1, 12) n;
INSERT INTO staging_was TABLE staging;
SELECT status, loaded, rejected FROM epro_etl.run('t39', workers => 2);
SELECT count(*), count(DISTINCT t.subject_key) AS subjects, count(c.code) AS kept, count(m.code) AS mrns, count(t.key_version) AS key_versions FROM t39 t
    LEFT JOIN staging_was w ON w.id = t.source_id LEFT JOIN codes c ON c.domain = 'subject' AND c.original = w.subject AND c.code = t.subject_key
    LEFT JOIN codes m ON m.original = w.payload ->> 'mrn' AND m.code = t.mrn WHERE t.source_id BETWEEN 3101 AND 3112;
INSERT INTO staging (id, study, form, subject, payload) SELECT 3200 + n, 'ST1', 't39', 'P-I' || n, '{"a": 10}' FROM generate_series(1, 5) n;
\set VERBOSITY terse
SELECT status FROM epro_etl.run('t39', workers => 2);
SELECT status FROM epro_etl.run('t39', workers => 0);
\set VERBOSITY default
SELECT count(*) AS made FROM codes WHERE original LIKE 'P-I%';
DELETE FROM staging WHERE id > 3200;
SELECT epro_etl.remove_edit_check('t39', 'high');
-- no code is to be made for subjects; and the derived key again
SELECT epro_etl.set_deid('t39', 'subject', 'pseudonymize', '{"allow_create": false}');
INSERT INTO staging (id, study, form, subject, payload) VALUES (4001, 'ST1', 't39', 'P-3001', '{}'), (4002, 'ST1', 't39', 'P-NEW', '{}');
SELECT status, loaded, rejected FROM epro_etl.run('t39', workers => 0, dry_run => true);
SELECT status, loaded, rejected FROM epro_etl.run('t39', workers => 0);
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT count(*) AS made FROM codes WHERE original = 'P-NEW';
SELECT epro_etl.remove_edit_check('t39', 'sees');
SELECT epro_etl.set_deid('t39', 'subject', 'cryptoHash');
INSERT INTO staging (id, study, form, subject, payload) VALUES (4003, 'ST1', 't39', 'P-3001', '{}');
SELECT status, loaded FROM epro_etl.run('t39', workers => 0);
SELECT source_id, length(subject_key) FROM t39 WHERE source_id IN (4001, 4003) ORDER BY 1;
REVOKE ALL ON epro_etl.run_history, epro_etl.stat_progress, epro_etl.pipeline FROM epro_t39;
DROP VIEW codes;
SELECT probe.close_area('t39');
DROP OWNED BY epro_t39;
DROP ROLE epro_t39;
DELETE FROM epro_etl.pseudonym;
