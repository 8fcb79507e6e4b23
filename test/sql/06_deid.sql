-- De-identification: subject_key, and items removed, redacted or generalised.
\set SHOW_CONTEXT never
SELECT probe.open_area('t06');
SELECT epro_etl.register_form('t06', '{"x-normalise": ["trim", "blank"], "properties": {
    "a": {"type": "integer", "minimum": 0}, "s": {"type": "string", "maxLength": 5}, "dob": {"type": "string", "format": "date"},
    "mail": {"type": "string"}, "g": {"type": "object", "properties": {"e": {"type": "string", "pattern": "@"}}}}}');
-- refused
SELECT epro_etl.set_deid('t06', '/s', 'hash');
SELECT epro_etl.set_deid('t06', 's', 'remove');
SELECT epro_etl.set_deid('t06', '/nope', 'remove');
SELECT epro_etl.set_deid('t06_none', '/s', 'remove');
SELECT epro_etl.set_deid('t06', '', 'remove');
SELECT epro_etl.set_deid('t06', '/a', 'redact');
SELECT epro_etl.set_deid('t06', '/g', 'redact');
SELECT epro_etl.set_deid('t06', '/s', 'generalize', '{"to": "age"}');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize', '{"to": "decade"}');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize', '{"to": "age", "cap": 0}');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize', '{"to": "age", "cap": "90"}');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize', '[]');
SELECT epro_etl.set_deid('t06', '/dob', 'remove', '{"to": "age"}');
SELECT epro_etl.set_deid('t06', '/dob', NULL);
SELECT count(*) AS left_behind FROM epro_etl.deid_rule WHERE form = 't06';
-- accepted; keywords that are silenced by it are named
SELECT epro_etl.set_deid('t06', '/s', 'redact');
SELECT epro_etl.set_deid('t06', '/mail', 'remove');
SELECT epro_etl.set_deid('t06', '/dob', 'generalize', '{"to": "age", "cap": 89}');
SELECT epro_etl.set_deid('t06', '/g/e', 'remove');
SELECT epro_etl.set_deid('t06', '/a', 'keep');
SELECT name, location, type, deidentify FROM epro_etl.form_items('t06');
SELECT epro_etl.create_sink('t06', 't06', 't06');
-- what is removed has no column, what becomes an age is a number
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't06'::regclass AND attnum > 0 ORDER BY attnum;
INSERT INTO staging (id, study, form, subject, authored, payload) VALUES
    (1, 'ST01', 't06', 'P-1', '2020-05-05 12:00Z', '{"s": "SECRETNAME", "dob": "1950-05-06", "mail": "SECRET@x", "g": {"e": "SECRET"}}'),
    (2, 'ST01', 't06', 'P-1', '2020-05-05 12:00Z', '{"s": "SECRETNAME", "dob": "1950-05-05", "mail": 5}'),
    (3, 'ST01', 't06', 'P-2', '2020-05-05 12:00Z', '{"s": "x", "dob": "1900-05-05"}'),
    (4, 'ST01', 't06', 'P-2', '2020-05-05 00:30+14', '{"dob": "1950-05-05"}'),
    (5, 'AB', 't06', 'C', '2021-02-28Z', '{"dob": "2000-02-29"}'),
    (6, 'A', 't06', 'BC', '2021-03-01Z', '{"dob": "2000-02-29"}'),
    (7, 'AB', 't06', '日本', '2021-03-01Z', '{"s": null, "dob": ""}'),
    (8, 'AB', 't06', 'C ', '2021-03-01Z', '{"s": "  "}'),
    (9, '', 't06', 'ABC', '2021-03-01Z', '{}'),
    (11, 'AB', 't06', 'C', '2021-03-01Z', '{"s": 5, "dob": "19000505"}'),
    (12, 'AB', 't06', 'C', '2021-03-01Z', '{"s": {"x": "SECRET"}, "dob": "2030-01-01"}'),
    (13, 'AB', 't06', 'C', NULL, '{"dob": "2000-01-01"}'),
    (14, 'AB', 't06', 'C', 'infinity', '{"dob": "2000-01-01"}'),
    (15, 'AB', 't06', 'C', '2021-03-01Z', '{"g": "SECRET"}'),
    (16, NULL, 't06', 'C', '2021-03-01Z', '{}');
CREATE TABLE raw AS TABLE staging;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t06', workers => 0);
\pset null (null)
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT source_id, s, dob, study FROM t06 ORDER BY 1;
\pset null ''
-- subject_key is HMAC-SHA256 over study and subject, each with its length before it, under a key derived for the study
SELECT source_id, subject_key = probe.subject_key(r.study, r.subject) AS as_computed FROM t06 JOIN raw r ON r.id = source_id WHERE r.study <> '' ORDER BY 1;
-- a subject has one key, another study's or another subject has another
SELECT count(DISTINCT (r.study, r.subject)) = count(DISTINCT subject_key) AS one_each, bool_and(subject_key ~ '^[0-9a-f]{64}$') AS hex
    FROM t06 JOIN raw r ON r.id = source_id;
-- nothing that was taken out is anywhere but in quarantine
SELECT count(*) AS leaks FROM (SELECT t06::text AS line FROM t06 UNION ALL SELECT f::text FROM epro_etl.finding f
    UNION ALL SELECT h::text FROM epro_etl.run_history h) AS everything WHERE line ~ 'SECRET' OR line ~ 'P-1';
-- ages as SQL counts them, on every day around a birthday
TRUNCATE staging;
SELECT setval('staged', 1000);
CREATE TABLE ages AS SELECT nextval('staged')::int AS id, born::date AS born, day::date AS day
    FROM unnest('{1950-03-01,1996-02-29,2000-01-01,1999-12-31}'::date[]) born,
         generate_series('2019-12-30'::date, '2020-03-02'::date, '1 day') day;
INSERT INTO staging SELECT id, 'ST01', 't06', 'P-1', NULL, (day || ' 23:59:59.999999Z')::timestamptz,
    jsonb_build_object('dob', to_char(born, 'YYYY-MM-DD')) FROM ages;
SELECT status, claimed = loaded AS all_loaded FROM epro_etl.run('t06', workers => 0);
SELECT count(*) AS judged, count(*) FILTER (WHERE dob <> extract(year FROM age(day, born))) AS otherwise
    FROM ages JOIN t06 ON source_id = id;
-- a group removed takes all that is in it, whatever it is, required or not
SELECT epro_etl.register_form('t06_group', '{"properties": {"a": {"type": "integer"},
    "g": {"type": "object", "properties": {"e": {"type": "string", "pattern": "@"}}, "required": ["e"]}}, "required": ["g"]}');
SELECT epro_etl.set_deid('t06_group', '/g', 'remove');
SELECT name, deidentify FROM epro_etl.form_items('t06_group');
SELECT epro_etl.create_sink('t06', 't06_group', 't06_group');
SELECT probe.put('t06_group', '{"a": 1, "g": {"e": "SECRET"}}', '{"a": 2, "g": {}}', '{"a": 3, "g": 5}', '{"a": 4}');
SELECT status, loaded, rejected FROM epro_etl.run('t06', workers => 0);
SELECT a FROM t06_group ORDER BY a;
SELECT location, rule, kind FROM probe.last;
SELECT epro_etl.set_deid('t06_group', '/g', 'keep');
SELECT path, method, removed_at IS NULL AS current FROM epro_etl.deid_rule WHERE form = 't06_group' ORDER BY rule_id;
SELECT probe.close_area('t06');
