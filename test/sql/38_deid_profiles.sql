-- Profiles, categories, the report and k-anonymity.
\set SHOW_CONTEXT never
SELECT probe.open_area('t38');
-- the 18 identifiers of 45 CFR 164.514(b)(2)(i), and what each profile does about them
SELECT paragraph, category FROM epro_etl.deid_category ORDER BY paragraph;
SELECT coalesce(c.paragraph, '-') AS paragraph, p.category, string_agg(p.method || CASE p.params::text WHEN '{}' THEN '' ELSE ' ' || p.params::text END, ', else ' ORDER BY p.rank) FILTER (WHERE profile = 'safe_harbor') AS safe_harbor,
       string_agg(p.method || CASE p.params::text WHEN '{}' THEN '' ELSE ' ' || p.params::text END, ', else ' ORDER BY p.rank) FILTER (WHERE profile = 'gdpr_pseudonymous') AS gdpr_pseudonymous,
       string_agg(p.method || CASE p.params::text WHEN '{}' THEN '' ELSE ' ' || p.params::text END, ', else ' ORDER BY p.rank) FILTER (WHERE profile = 'limited_dataset') AS limited_dataset
    FROM epro_etl.deid_profile p LEFT JOIN epro_etl.deid_category c USING (category) GROUP BY coalesce(c.paragraph, '-'), p.category ORDER BY coalesce(c.paragraph, '-') = '-', coalesce(c.paragraph, '-'), p.category;
SELECT count(*) AS shipped, count(*) FILTER (WHERE NOT shipped) AS own FROM epro_etl.deid_profile;
SELECT epro_etl.register_form('t38', '{"x-normalise": ["trim", "width", "coerce", "blank"], "properties": {
    "name": {"type": "string"}, "zip": {"type": "string"}, "state": {"type": "string", "enum": ["MA", "NY"]}, "born": {"type": "string", "format": "date"}, "age": {"type": "integer"},
    "phone": {"type": "string"}, "ssn": {"type": "string"}, "mrn": {"type": "integer"}, "visit_at": {"type": "string", "format": "date-time"}, "note": {"type": "string"},
    "files": {"type": "array"}, "q1": {"type": "integer", "minimum": 0, "maximum": 3}, "q2": {"type": "number"}, "ok": {"type": "boolean"}, "code": {"const": "X"},
    "dwelling": {"type": "object", "properties": {"street": {"type": "string"}, "rooms": {"type": "integer"}}}}}');
SELECT location, holds FROM epro_etl.deid_kinds('t38') ORDER BY holds, location;
\set VERBOSITY terse
-- refused
SELECT epro_etl.apply_deid_profile('t38', 'safest_harbor');
SELECT epro_etl.apply_deid_profile('t38', NULL);
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor', '[]');
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor', '{"/nope": "names"}');
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor', '{"/name": "nickname"}');
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor', '{"/name": 1}');
SELECT epro_etl.apply_deid_profile('t38_none', 'safe_harbor');
SELECT epro_etl.add_edit_check('t38', 'adult', 'born < ''2008-01-01''');
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor');
SELECT epro_etl.remove_edit_check('t38', 'adult');
SELECT count(*) AS rules FROM epro_etl.deid_rule WHERE form = 't38' AND removed_at IS NULL;
-- before anybody has decided
SELECT location, type, method, decided FROM epro_etl.deid_report('t38');
-- a rule that is there stays, of a group too
SELECT epro_etl.set_deid('t38', '/phone', 'mask', '{"keep_last": 2, "category": "telephone"}');
SELECT epro_etl.set_deid('t38', '/dwelling', 'keep');
SELECT epro_etl.apply_deid_profile('t38', 'safe_harbor', '{"/name": "names", "/zip": "geographic", "/age": "dates", "/ssn": "ssn", "/mrn": "medical record", "/phone": "telephone"}');
SELECT location, type, method, params, category, decided FROM epro_etl.deid_report('t38');
SELECT epro_etl.set_deid('t38', '/' || i, 'keep') FROM unnest('{q1,q2,ok,code,state}'::text[]) i \g /dev/null
SELECT location FROM epro_etl.deid_report('t38') WHERE NOT decided;
-- again: nothing changes
SELECT max(rule_id) AS last FROM epro_etl.deid_rule \gset
SELECT epro_etl.apply_deid_profile('t38', 'gdpr_pseudonymous', '{"/name": "names", "/zip": "geographic"}');
SELECT max(rule_id) = :last AS unchanged FROM epro_etl.deid_rule;
SELECT epro_etl.create_sink('t38', 't38', 't38');
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't38'::regclass AND attnum > 0 ORDER BY attname COLLATE "C";
INSERT INTO staging SELECT n, 'ST01', 't38', 'P-1', 'V', '2026-03-01 07:30Z', p::jsonb FROM (VALUES (1, '{"name": "SECRET", "zip": "03601", "born": "1930-05-06", "age": 95, "phone": "617-555-0142",
        "ssn": "SECRET", "mrn": 7654321987, "visit_at": "2026-02-27T10:00:00Z", "note": "SECRET", "files": ["SECRET"], "q1": 2, "dwelling": {"street": "shown", "rooms": 3}, "SECRET": 1}'),
    (2, '{"zip": "02139", "born": "1960-05-06", "age": 65, "q1": 7}')) AS v (n, p);
SELECT status, loaded, rejected FROM epro_etl.run('t38', workers => 0);
SELECT source_id, (authored AT TIME ZONE 'UTC')::date = '2026-01-01' AS authored, zip, state, born, age, phone, visit_at, note, q1, dwelling_street, dwelling_rooms FROM t38;
SELECT location, rule, kind FROM probe.last;
SELECT count(*) AS leaks FROM (SELECT t::text FROM t38 t UNION ALL SELECT f::text FROM epro_etl.finding f) AS x (line) WHERE line ~ 'SECRET|1930-05|7654321987|617-555';

-- the other two profiles, on the same form
SELECT epro_etl.register_form('t38_' || p, (SELECT definition FROM epro_etl.form WHERE name = 't38')) FROM unnest('{gdpr,limited}'::text[]) p \g /dev/null
SELECT epro_etl.apply_deid_profile('t38_gdpr', 'gdpr_pseudonymous', c), epro_etl.apply_deid_profile('t38_limited', 'limited_dataset', c)
    FROM (VALUES ('{"/name": "names", "/zip": "geographic", "/age": "dates", "/ssn": "ssn", "/mrn": "medical record", "/phone": "telephone", "/dwelling": "geographic"}'::jsonb)) AS v (c) \g /dev/null
SELECT g.location, g.method AS gdpr, g.params, l.method AS limited, l.params, g.category, g.decided FROM epro_etl.deid_report('t38_gdpr') g JOIN epro_etl.deid_report('t38_limited') l USING (location) WHERE g.decided OR l.decided;
-- rows of one's own are a profile, too; they are dumped, the shipped ones are not
INSERT INTO epro_etl.deid_profile (profile, category, rank, method, params) VALUES ('house', 'names', 1, 'substitute', '{"value": "N.N."}'), ('house', 'dates', 1, 'generalize', '{"to": "year-month"}');
SELECT epro_etl.register_form('t38_house', (SELECT definition FROM epro_etl.form WHERE name = 't38'));
SELECT epro_etl.apply_deid_profile('t38_house', 'house', '{"/name": "names"}');
SELECT location, method, params, category FROM epro_etl.deid_report('t38_house') WHERE method NOT IN ('keep', 'derived pseudonym');
SELECT extcondition[array_position(extconfig, 'epro_etl.deid_profile'::regclass::oid)] FROM pg_extension WHERE extname = 'epro_etl';
DELETE FROM epro_etl.deid_profile WHERE profile = 'house';
-- FHIR: what holds words is taken for free text, what lists its codes is not
SELECT epro_etl.register_form('t38 fhir', '{"resourceType": "Questionnaire", "url": "urn:t38", "item": [{"linkId": "d", "type": "date"}, {"linkId": "ds", "type": "dateTime", "repeats": true},
    {"linkId": "c", "type": "choice", "answerOption": [{"valueCoding": {"code": "A"}}]}, {"linkId": "cs", "type": "choice", "repeats": true, "answerOption": [{"valueCoding": {"code": "A"}}]},
    {"linkId": "o", "type": "open-choice", "answerOption": [{"valueCoding": {"code": "A"}}]}, {"linkId": "s", "type": "string"}, {"linkId": "ss", "type": "text", "repeats": true},
    {"linkId": "q", "type": "quantity"}, {"linkId": "i", "type": "integer"}, {"linkId": "b", "type": "boolean"}, {"linkId": "f", "type": "attachment"}, {"linkId": "r", "type": "reference"}, {"linkId": "u", "type": "url"}]}');
SELECT epro_etl.apply_deid_profile('t38 fhir', 'safe_harbor');
SELECT location, method, params, category, decided FROM epro_etl.deid_report('t38 fhir') WHERE location <> 'subject';
-- a score is computed: it is nobody's to decide
SELECT epro_etl.add_score('t38', 'total', '{"expression": "q1 + q2"}');
SELECT location, name, method, decided FROM epro_etl.deid_report('t38') WHERE name = 'total';

-- k-anonymity: sizes of classes, no values
CREATE TABLE census (zip text, year int, "Odd name" text);
INSERT INTO census SELECT z, y, 'SECRET' FROM (VALUES ('021', 1960, 7), ('021', 1970, 4), ('100', 1960, 4), ('100', NULL, 2), (NULL, NULL, 1)) AS v (z, y, n), generate_series(1, n);
SELECT * FROM epro_etl.k_anonymity('census', '{zip,year}');
SELECT * FROM epro_etl.k_anonymity('census', '{zip,year}', 4);
SELECT * FROM epro_etl.k_anonymity('census', '{zip,year}', 1);
SELECT * FROM epro_etl.k_anonymity('census', '{zip}', 3);
SELECT * FROM epro_etl.k_anonymity('census', '{Odd name}', 18);
TRUNCATE census;
SELECT * FROM epro_etl.k_anonymity('census', '{zip}');
SELECT * FROM epro_etl.k_anonymity('census', '{}');
SELECT * FROM epro_etl.k_anonymity('census', NULL);
SELECT * FROM epro_etl.k_anonymity('census', '{zip,nope}');
SELECT * FROM epro_etl.k_anonymity('census', '{zip,NULL}');
SELECT * FROM epro_etl.k_anonymity('census', '{zip}', 0);
CREATE ROLE epro_etl_regress_outsider;
GRANT USAGE ON SCHEMA epro_etl, t38 TO epro_etl_regress_outsider;
GRANT EXECUTE ON FUNCTION epro_etl.k_anonymity(regclass, text[], integer) TO epro_etl_regress_outsider;
SET ROLE epro_etl_regress_outsider;
SELECT * FROM epro_etl.k_anonymity('t38.census', '{zip}');
RESET ROLE;
DROP OWNED BY epro_etl_regress_outsider;
DROP ROLE epro_etl_regress_outsider;
-- the subject got a random code
SELECT domain, study, original, code IN (SELECT subject_key FROM t38) AS stored FROM epro_etl.pseudonym;
DELETE FROM epro_etl.pseudonym;
SELECT probe.close_area('t38');
