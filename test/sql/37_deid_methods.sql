-- The methods of de-identification: what each takes, what it makes of every kind of answer, and what judges it.
\set SHOW_CONTEXT never
SELECT probe.open_area('t37');
SELECT epro_etl.register_form('t37', '{"x-normalise": ["trim", "width", "coerce", "blank"], "required": ["t"], "properties": {
    "t": {"type": "string", "maxLength": 12}, "code": {"type": "string", "enum": ["low", "high"]}, "zip": {"type": "string"},
    "n": {"type": "integer", "minimum": 0, "maximum": 120}, "d": {"type": "number"}, "b": {"type": "boolean"}, "j": {"type": "array"},
    "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"}, "clock": {"type": "string", "format": "time"},
    "part": {"type": "string"}, "g": {"type": "object", "properties": {"x": {"type": "string"}}}}}');
-- refused: a parameter that is none, or of another kind, or missing; an item that the method does not take
\set VERBOSITY terse
SELECT epro_etl.set_deid('t37', '/t', 'substitute');
SELECT epro_etl.set_deid('t37', '/t', 'substitute', '{"value": null}');
SELECT epro_etl.set_deid('t37', '/t', 'substitute', '{"value": 5}');
SELECT epro_etl.set_deid('t37', '/n', 'substitute', '{"value": 5.5}');
SELECT epro_etl.set_deid('t37', '/n', 'substitute', '{"value": 3000000000}');
SELECT epro_etl.set_deid('t37', '/b', 'substitute', '{"value": "true"}');
SELECT epro_etl.set_deid('t37', '/day', 'substitute', '{"value": "2020-02-30"}');
SELECT epro_etl.set_deid('t37', '/at', 'substitute', '{"value": "2020-02-03"}');
SELECT epro_etl.set_deid('t37', '/n', 'mask');
SELECT epro_etl.set_deid('t37', '/t', 'mask', '{"keep_last": -1}');
SELECT epro_etl.set_deid('t37', '/t', 'mask', '{"keep_last": 1.5}');
SELECT epro_etl.set_deid('t37', '/t', 'mask', '{"with": "##"}');
SELECT epro_etl.set_deid('t37', '/t', 'mask', '{"with": ""}');
SELECT epro_etl.set_deid('t37', '/t', 'mask', '{"keep_first": 1}');
SELECT epro_etl.set_deid('t37', '/b', 'generalize', '{"to": "year"}');
SELECT epro_etl.set_deid('t37', '/day', 'generalize', '{"to": "year", "cap": 151}');
SELECT epro_etl.set_deid('t37', '/day', 'generalize', '{"to": "year-month", "cap": 90}');
SELECT epro_etl.set_deid('t37', '/day', 'generalize', '{"to": "year", "bucket": 10}');
SELECT epro_etl.set_deid('t37', '/d', 'generalize', '{"to": "age"}');
SELECT epro_etl.set_deid('t37', '/n', 'generalize', '{"bucket": 0}');
SELECT epro_etl.set_deid('t37', '/n', 'generalize', '{"bucket": -5}');
SELECT epro_etl.set_deid('t37', '/n', 'generalize', '{"bucket": "10"}');
SELECT epro_etl.set_deid('t37', '/t', 'generalize', '{"bucket": 10}');
SELECT epro_etl.set_deid('t37', '/n', 'generalize', '{"zip": 3}');
SELECT epro_etl.set_deid('t37', '/zip', 'generalize', '{"zip": 0}');
SELECT epro_etl.set_deid('t37', '/zip', 'generalize', '{"zip": 6}');
SELECT epro_etl.set_deid('t37', '/zip', 'generalize', '{"zip": 3, "restricted": "036"}');
SELECT epro_etl.set_deid('t37', '/zip', 'generalize', '{"zip": 3, "restricted": [36]}');
SELECT epro_etl.set_deid('t37', '/zip', 'generalize', '{"zip": 3, "restricted": ["o36"]}');
SELECT epro_etl.set_deid('t37', '/n', 'dateShift');
SELECT epro_etl.set_deid('t37', '/clock', 'dateShift');
SELECT epro_etl.set_deid('t37', '/j', 'dateShift');
SELECT epro_etl.set_deid('t37', '/day', 'dateShift', '{"range": 10}');
SELECT epro_etl.set_deid('t37', '/b', 'cryptoHash');
SELECT epro_etl.set_deid('t37', '/j', 'cryptoHash');
SELECT epro_etl.set_deid('t37', '/t', 'cryptoHash', '{"domain": ""}');
SELECT epro_etl.set_deid('t37', '/t', 'perturb', '{"range": 3}');
SELECT epro_etl.set_deid('t37', '/n', 'perturb');
SELECT epro_etl.set_deid('t37', '/n', 'perturb', '{"range": 0}');
SELECT epro_etl.set_deid('t37', '/n', 'perturb', '{"range": 1.5}');
SELECT epro_etl.set_deid('t37', '/n', 'perturb', '{"range": 3000000000}');
SELECT epro_etl.set_deid('t37', '/j', 'encrypt');
SELECT epro_etl.set_deid('t37', '/t', 'encrypt', '{"key": "SECRET"}');
SELECT epro_etl.set_deid('t37', '/g', m) FROM unnest('{mask,dateShift,cryptoHash,encrypt}'::text[]) m;
SELECT epro_etl.set_deid('t37', 'authored', 'mask');
SELECT epro_etl.set_deid('t37', 'authored', 'generalize', '{"to": "year", "cap": 90}');
SELECT epro_etl.set_deid('t37', 'visit', 'remove');
SELECT epro_etl.set_deid('t37', '/t', 'keep', '{"category": "shoe size"}');
SELECT epro_etl.set_deid('t37', '/t', 'keep', '{"category": 5}');
SELECT count(*) AS left_behind FROM epro_etl.deid_rule WHERE form = 't37';
-- a method is asked of the type that the form declares
SELECT m AS method, string_agg(substr(p, 2), ' ' ORDER BY p) FILTER (WHERE epro_etl.deid_suits('t37', p, m, params::jsonb)) AS suits
    FROM (VALUES (1, 'redact', '{}'), (2, 'mask', '{}'), (3, 'generalize', '{"to": "age"}'), (4, 'generalize', '{"to": "year"}'),
                 (5, 'generalize', '{"bucket": 5}'), (6, 'generalize', '{"zip": 3}'), (7, 'dateShift', '{}'), (8, 'cryptoHash', '{}'),
                 (9, 'perturb', '{"range": 1}'), (10, 'encrypt', '{}'), (11, 'remove', '{}'), (12, 'unheard', '{}')) AS m (n, m, params),
         unnest('{/t,/code,/zip,/n,/d,/b,/j,/day,/at,/clock,/part,/g,/g/x,authored,/none}'::text[]) p
    GROUP BY n, m ORDER BY n;

-- every method on every kind of answer; each form has one rule for each of its items
\set VERBOSITY default
SET client_min_messages = warning;
CREATE TABLE made (n int GENERATED ALWAYS AS IDENTITY, rule text, type text, given jsonb, kept text, found text);
-- what becomes of answers to one item: the column's text, and what was found
CREATE FUNCTION pg_temp.try(item jsonb, method text, params jsonb, VARIADIC answers text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    form text := 't37_' || (SELECT count(*) FROM epro_etl.form);
    first int;
BEGIN
    PERFORM epro_etl.register_form(form, jsonb_build_object('x-normalise', '["trim", "width", "coerce", "blank"]'::jsonb, 'properties', jsonb_build_object('a', item)));
    PERFORM epro_etl.set_deid(form, '/a', method, params);
    PERFORM epro_etl.create_sink('t37', form, form);
    SELECT nextval('staged') INTO first;
    INSERT INTO staging (id, study, form, subject, visit, authored, payload)
        SELECT nextval('staged'), 'ST01', form, 'P-1', 'DAY 1', '2026-03-01 07:30+00', CASE a WHEN 'absent' THEN '{}' ELSE jsonb_build_object('a', a::jsonb) END
        FROM unnest(answers) WITH ORDINALITY AS u (a, n) ORDER BY n;
    CREATE TEMP TABLE put AS SELECT id, payload -> 'a' AS given FROM staging;
    PERFORM epro_etl.run('t37', workers => 0);
    EXECUTE format('INSERT INTO made (rule, type, given, kept, found) SELECT %L, (SELECT i.type::text FROM epro_etl.form_items(%L) i), p.given, s.a::text, l.found'
        ' FROM put p LEFT JOIN %I s ON s.source_id = p.id LEFT JOIN (SELECT source_id, string_agg(kind || ''/'' || rule || '': '' || message, ''; '') AS found'
        '  FROM probe.last GROUP BY 1) l ON l.source_id = p.id::text ORDER BY p.id', method || ' ' || params, form, form);
    DROP TABLE put;
END $$;
CREATE TEMP TABLE item AS SELECT * FROM (VALUES ('text', '{"type": "string", "maxLength": 12}'::jsonb), ('int', '{"type": "integer", "minimum": 0, "maximum": 120}'), ('num', '{"type": "number"}'),
    ('day', '{"type": "string", "format": "date"}'), ('at', '{"type": "string", "format": "date-time"}'), ('clock', '{"type": "string", "format": "time"}'), ('any', '{}'), ('bool', '{"type": "boolean"}')) AS v (name, def);
CREATE FUNCTION pg_temp.item(name text) RETURNS jsonb LANGUAGE sql AS 'SELECT def FROM item i WHERE i.name = item.name';
SELECT count(pg_temp.try(pg_temp.item('text'), 'redact', '{}', '"abc"', '""', '"  "', 'null', 'absent', '5', '[1]')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'substitute', '{"value": "someone"}', '"abc"', '""', 'null', 'absent', '5', '{"x": 1}')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('int'), 'substitute', '{"value": -7}', '3', '" "', '"x"', 'absent')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('day'), 'substitute', '{"value": "0001-01-01"}', '"2020-02-29"', '"x"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('at'), 'substitute', '{"value": "2020-01-01T00:00:00+02:00"}', '"2020-02-29T10:00:00Z"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('any'), 'substitute', '{"value": {"x": [1, null]}}', '"abc"', '5', 'true', '[1]')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('bool'), 'substitute', '{"value": false}', 'true')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'mask', '{"keep_last": 4}', '"123456789"', '"12345"', '"1234"', '"1"', '" 12345 "', '"日本語のテキスト"', '"é\u0301😀abcd"', '""', 'null', 'absent', '123456', '[1]')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'mask', '{"with": "█"}', '"12345"', '"１２"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('int'), 'generalize', '{"to": "age"}', '0', '89', '90', '91', '"１０２"', '99999999999', '-1', '1.5', '"x"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('at'), 'generalize', '{"to": "age", "cap": 89}', '"1937-03-01T23:00:00Z"', '"1937-03-02T23:00:00Z"', '"1936-03-02T23:00:00Z"', '"1936-03-01T00:00:00-05:00"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('day'), 'generalize', '{"to": "year"}', '"2020-02-29"', '"0001-01-01"', '"9999-12-31"', '"2019-02-29"', '"0000-01-01"', '"10000-01-01"', '"infinity"', '""', 'null', 'absent', '2020')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('day'), 'generalize', '{"to": "year", "cap": 90}', '"1936-01-01"', '"1935-12-31"', '"1850-01-01"', '"2030-01-01"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('at'), 'generalize', '{"to": "year"}', '"2020-01-01T00:30:00+14:00"', '"2016-12-31T23:59:60Z"', '"2020-01-01T00:00:00.1234567891Z"', '"2020-01-01"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'generalize', '{"to": "year-month"}', '"2020"', '"2020-05"', '"2020-05-06"', '"2020-05-UN"', '"2020---06"', '"2020-05-06T10:30"', '"2020-05-06T10:30:00.5+02:00"', '"2020-13"', '"-----"', '"May"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('int'), 'generalize', '{"bucket": 10}', '0', '9', '10', '-1', '-10', '9223372036854775807', '-9223372036854775808', '1e30', '" 17 "', '1.5', '"x"', 'true', 'absent')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('num'), 'generalize', '{"bucket": 0.5}', '0', '0.49', '0.5', '-0.1', '1e20', '7.75', '2.99999999999999999999999999999999999999', '"7,5"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('num'), 'generalize', '{"bucket": 3}', '8.99999999999999999999999999999999999999999999999999999999', '9')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('int'), 'generalize', '{"bucket": 2.5}', '7')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'generalize', '{"zip": 3}', '"02139"', '"02139-4307"', '"021394307"', '"03601"', '"03700"', '"89399"', '"2139"', '"0213"', '"02139-43"', '"ABCDE"', '"1 Main Street"', '2139', '12345', '""', 'null', 'absent', '"０２１３９"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'generalize', '{"zip": 2, "restricted": ["SW1", "99"]}', '"sw1a 1aa"', '"SW2A 1AA"', '"9912"', '"1010"', '"10"', '"100"', '"12345678901234567"', '"München"')) \g /dev/null
SELECT rule, type, given, kept, found FROM made ORDER BY n;
-- the 17 areas of the list, and none of those beside them
SELECT pg_temp.try(pg_temp.item('text'), 'generalize', '{"zip": 3}', VARIADIC array_agg(format('"%s01"', lpad(n::text, 3, '0')) ORDER BY n)) FROM generate_series(0, 999) n \g /dev/null
SELECT count(*), count(*) FILTER (WHERE kept <> left(given ->> 0, 3)) AS zeroed,
       string_agg(left(given ->> 0, 3), ' ' ORDER BY given ->> 0) FILTER (WHERE kept = '000' AND given ->> 0 <> '00001') AS restricted
    FROM (SELECT * FROM made ORDER BY n DESC LIMIT 1000) m;
TRUNCATE made;

-- with a key: the same for equal answers of one item, and for nothing else
SELECT count(pg_temp.try(pg_temp.item('text'), 'cryptoHash', '{}', '"abc"', '" abc "', '"abd"', '""', 'null', 'absent', '5', '"5"', '[1]', '"日本"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('num'), 'cryptoHash', '{}', '7', '7.0', '"7.00"', '7.5', '7.50', '1e400', '"x"', 'true')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('clock'), 'cryptoHash', '{}', '"10:00:00Z"')) \g /dev/null
SELECT rule, type, left(given::text, 20) AS given, kept ~ '^[0-9a-f]{64}$' AS hex, min(n) OVER (PARTITION BY kept) = n AS first_of_its_kind, found FROM made ORDER BY n;
-- an item of another form has other hashes, and those of a domain are shared
SELECT count(DISTINCT kept) = count(*) AS all_differ FROM (SELECT DISTINCT ON (type, kept) kept FROM made WHERE kept IS NOT NULL) k;
TRUNCATE made;
SELECT count(pg_temp.try(pg_temp.item('text'), 'cryptoHash', '{}', '"abc"')), count(pg_temp.try(pg_temp.item('text'), 'cryptoHash', '{}', '"abc"')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('text'), 'cryptoHash', '{"domain": "person"}', '"abc"')), count(pg_temp.try(pg_temp.item('text'), 'cryptoHash', '{"domain": "person"}', '"abc"')) \g /dev/null
SELECT rule, count(DISTINCT kept) AS hashes FROM made GROUP BY rule ORDER BY rule;
TRUNCATE made;

-- perturb: within the range, whole or to the given places, the same again, spread
SELECT count(pg_temp.try(pg_temp.item('int'), 'perturb', '{"range": 3}', '50', '"５０"', '1.5', '"x"', '1e30', '9223372036854775807', 'absent', 'null')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('num'), 'perturb', '{"range": 0.5}', '50', '50.25', '1e30', '"x"')) \g /dev/null
SELECT rule, type, given, CASE WHEN kept IS NOT NULL THEN abs(kept::numeric - (given #>> '{}')::numeric) <= CASE type WHEN 'bigint' THEN 3 ELSE 0.5 END END AS within, scale(kept::numeric) AS places, found
    FROM made WHERE given IS NULL OR given NOT IN ('9223372036854775807', '"５０"') ORDER BY n;
SELECT count(DISTINCT kept) AS equal_answers FROM made WHERE given IN ('50', '"５０"') AND type = 'bigint';
SELECT epro_etl.register_form('t37_noise', '{"properties": {"n": {"type": "integer"}, "d": {"type": "number"}}}');
SELECT epro_etl.set_deid('t37_noise', '/n', 'perturb', '{"range": 3}'), epro_etl.set_deid('t37_noise', '/d', 'perturb', '{"range": 2}');
SELECT epro_etl.create_sink('t37', 't37_noise', 'noise');
INSERT INTO staging SELECT nextval('staged'), 'ST01', 't37_noise', 'N-' || i % 700, 'V' || i / 700, now(), '{"n": 100, "d": 100.000}' FROM generate_series(0, 1399) i;
CREATE TABLE again AS TABLE staging;
SELECT status, loaded FROM epro_etl.run('t37', workers => 0);
SELECT n - 100 AS added, count(*) BETWEEN 140 AND 260 AS about_a_seventh FROM noise GROUP BY 1 ORDER BY 1;
SELECT min(d) BETWEEN 98 AND 98.1 AND max(d) BETWEEN 101.9 AND 102 AND avg(d) BETWEEN 99.9 AND 100.1 AS spread, max(scale(d)) AS places FROM noise;
INSERT INTO staging SELECT id + 100000, study, form, subject, visit, authored, payload FROM again;
SELECT status, loaded FROM epro_etl.run('t37', workers => 2);
SELECT count(*) AS pairs, count(*) FILTER (WHERE (a.n, a.d) IS DISTINCT FROM (b.n, b.d)) AS otherwise, count(DISTINCT a.n) FROM noise a JOIN noise b ON b.source_id = a.source_id + 100000;
TRUNCATE made;

-- encrypt: deterministic, authenticated, bound to study, form and item; readable by a superuser only
SELECT count(pg_temp.try(pg_temp.item('text'), 'encrypt', '{}', '"abc"', '" abc "', '"日本 😀"', '"a\"b"', '""', 'null', 'absent', '5', '[1]')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('num'), 'encrypt', '{}', '7', '7.0', '7.5')) \g /dev/null
SELECT count(pg_temp.try(pg_temp.item('day'), 'encrypt', '{}', '"2020-02-29"', '"no date"')) \g /dev/null
SELECT rule, type, given, kept ~ '^1:[A-Za-z0-9+/]+=*$' AS base64, min(n) OVER (PARTITION BY kept) = n AS first_of_its_kind, found FROM made ORDER BY n;
SELECT epro_etl.register_form('t37_seal', '{"properties": {"a": {"type": "string"}, "b": {"type": "string"}, "e": {"type": "string"}}}');
SELECT count(epro_etl.set_deid('t37_seal', p, 'encrypt')) FROM unnest('{/a,/b,/e}'::text[]) p;
SELECT epro_etl.create_sink('t37', 't37_seal', 'seal');
INSERT INTO staging SELECT nextval('staged'), study, 't37_seal', 'P-1', NULL, NULL, '{"a": "SECRET 日本", "b": "SECRET 日本", "e": ""}' FROM unnest('{ST01,ST02,NULL}'::text[]) study;
SELECT status, loaded FROM epro_etl.run('t37', workers => 0);
SELECT count(DISTINCT v) AS different FROM seal, LATERAL (VALUES (a), (b)) AS x (v);
SELECT study, epro_etl.decrypt_answer('t37_seal', '/a', study, a) AS a, epro_etl.decrypt_answer('t37_seal', '/b', study, b) AS b, epro_etl.decrypt_answer('t37_seal', '/e', study, e) AS e FROM seal WHERE study IS NOT NULL ORDER BY source_id;
CREATE FUNCTION pg_temp.opens(form text, path text, study text, answer text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN epro_etl.decrypt_answer(form, path, study, answer); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;
SELECT DISTINCT pg_temp.opens(v.form, v.path, v.study, v.answer) FROM seal, LATERAL (VALUES ('t37_seal', '/b', study, a), ('t37', '/a', study, a), ('t37_seal', '/a', 'ST02', a),
    ('t37_seal', '/a', study, '2' || substr(a, 2)), ('t37_seal', '/a', study, substr(a, 3)), ('t37_seal', '/a', study, ''), ('t37_seal', '/a', study, '1:'), ('t37_seal', '/a', study, '1:AAAA'),
    ('t37_seal', '/a', study, '99999999999:' || substr(a, 3)), ('t37_seal', '/a', study, left(a, -4)), ('t37_seal', '/a', study, a || 'AAAA'), ('t37_seal', '/a', study, '1:SECRET!')) AS v (form, path, study, answer)
    WHERE seal.study = 'ST01';
-- every character of it counts
SELECT count(*), count(*) FILTER (WHERE pg_temp.opens('t37_seal', '/a', 'ST01', overlay(a PLACING CASE substr(a, i, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM i)) LIKE '22023 %') AS refused
    FROM seal, generate_series(3, length(a)) i WHERE study = 'ST01';
CREATE ROLE epro_etl_regress_curious;
GRANT USAGE ON SCHEMA epro_etl TO epro_etl_regress_curious;
SELECT count(*) AS may FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) x WHERE oid = 'epro_etl.decrypt_answer'::regproc AND grantee <> proowner;
SET ROLE epro_etl_regress_curious;
SELECT epro_etl.decrypt_answer('t37_seal', '/a', 'ST01', 'x');
RESET ROLE;
GRANT EXECUTE ON FUNCTION epro_etl.decrypt_answer(text, text, text, text) TO epro_etl_regress_curious;
SET ROLE epro_etl_regress_curious;
SELECT epro_etl.decrypt_answer('t37_seal', '/a', 'ST01', 'x');
RESET ROLE;
DROP OWNED BY epro_etl_regress_curious;
DROP ROLE epro_etl_regress_curious;

-- dateShift: the true date is judged, and nothing behind the edit checks sees it
CREATE FUNCTION pg_temp.days(study text, subject text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    drawn bytea := probe.hmac(probe.derived('a key for tests, known to everybody', 'date_shift', '', study), probe.lp(subject));
    n numeric := 0;
BEGIN
    FOR i IN 0 .. 7 LOOP n := n * 256 + get_byte(drawn, i); END LOOP;
    n := n % 730 - 365;
    RETURN CASE WHEN n < 0 THEN n ELSE n + 1 END;
END $$;
SET DateStyle = 'ISO';
SET TimeZone = 'UTC';
SELECT epro_etl.register_form('t37_shift', '{"x-normalise": ["trim", "blank"], "properties": {
    "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"}, "part": {"type": "string", "maxLength": 30},
    "code": {"type": "string", "enum": ["2020-01-01", "2020-01-02"]}, "n": {"type": "integer"}}}');
SELECT count(epro_etl.set_deid('t37_shift', p, 'dateShift')) FROM unnest('{/day,/at,/part,/code,authored}'::text[]) p;
SELECT location, type, deidentify FROM epro_etl.form_items('t37_shift');
SELECT stage, location, rule FROM epro_etl.explain_form('t37_shift') WHERE location ~ '^(/properties)?/(day|code)(/|$)' AND stage <> 'decode';
SELECT epro_etl.add_edit_check('t37_shift', 'true day', 'day = ''2020-02-29''', severity => 'information');
SELECT epro_etl.add_edit_check('t37_shift', 'true time', 'authored = ''2026-03-01 07:30Z''', severity => 'information');
SELECT epro_etl.add_score('t37_shift', 'year', '{"expression": "extract(year FROM day)"}');
-- of P-1 and P-2, 2020-02-29 as it is shifted: that is what the lookup asks for and the condition sees
CREATE TABLE visit AS SELECT '2020-02-29'::date + pg_temp.days('ST01', s) AS moved FROM unnest('{P-1,P-2}'::text[]) s;
SELECT epro_etl.add_lookup('t37_shift', 'shifted day', 'EXISTS (SELECT FROM t37.visit v WHERE v.moved = day)', severity => 'information');
SELECT epro_etl.add_lookup('t37_shift', 'shifted time', 'authored <> ''2026-03-01 07:30Z''', severity => 'information');
SELECT epro_etl.create_sink('t37', 't37_shift', 'wide'), epro_etl.create_sink('t37', 't37_shift', 'long', 'long');
CREATE TABLE texts (source_id int, day text, at varchar(40), part text, code text);
CREATE TABLE conditional (source_id int, day date);
SELECT epro_etl.add_sink('t37', 't37_shift', 'texts'), epro_etl.add_sink('t37', 't37_shift', 'conditional', condition => 'day = ''2020-02-29''');
INSERT INTO staging SELECT nextval('staged'), 'ST01', 't37_shift', 'P-' || n, 'V', '2026-03-01 07:30Z', p::jsonb FROM (VALUES
    (1, '{"day": " 2020-02-29 ", "at": "2020-02-29T23:59:59.5+14:00", "part": "2020", "code": "2020-01-01"}'),
    (1, '{"day": "2020-02-28", "at": "2016-12-31T23:59:60Z", "part": "2020-02"}'),
    (2, '{"day": "2020-02-29", "at": "2020-02-29t10:00:00z", "part": "2020-02-29"}'),
    (2, '{"part": "2020-02-UN", "at": ""}'), (2, '{"part": "2020---29"}'), (2, '{"part": "2020-02-29T10:30"}'), (2, '{"part": "2020-02-29T10:30:00+02:00"}'),
    (2, '{"n": 5}'),
    -- judged as they are: a finding of the form; and they cannot be shifted
    (3, '{"day": "2019-02-29"}'), (3, '{"day": 5}'), (3, '{"at": "2020-02-29"}'), (3, '{"code": "2020-01-03"}'), (3, '{"part": "spring"}'), (3, '{"part": "-----"}'), (3, '{"day": "infinity"}')) AS v (n, p);
CREATE TABLE shifted AS TABLE staging;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t37', workers => 0);
SELECT source_id - (SELECT min(id) FROM (SELECT source_id::int AS id FROM probe.last) l) + 1 AS nth, kind, location, rule, severity, message
    FROM (SELECT source_id::int, kind, location, rule, severity, message FROM probe.last) l ORDER BY 1, location, rule, kind;
SELECT nth, day, shift_day - day::date = d AS day_is, at, shift_at - at::timestamptz = d * interval '1 day' - CASE WHEN at LIKE '%:60Z' THEN interval '1 second' ELSE interval '0' END AS at_is, year, authored = '2026-03-01 07:30Z'::timestamptz + d * interval '1 day' AS authored_is
    FROM (SELECT row_number() OVER (ORDER BY w.source_id) AS nth, btrim(r.payload ->> 'day') AS day, r.payload ->> 'at' AS at, w.day AS shift_day, w.at AS shift_at, w.year, w.authored, pg_temp.days(r.study, r.subject) AS d
          FROM wide w JOIN (SELECT id, study, subject, payload FROM shifted) r ON r.id = w.source_id) x ORDER BY nth;
-- the text is rebuilt, wherever it goes: no true date is in any sink
SELECT r.payload ->> 'part' AS part, t.part AS shifted, (pg_temp.days(r.study, r.subject)) AS days FROM texts t JOIN shifted r ON r.id = t.source_id WHERE t.part IS NOT NULL ORDER BY t.source_id;
SELECT count(*) AS rows, count(*) FILTER (WHERE t.day::date IS DISTINCT FROM w.day OR t.day <> to_char(w.day, 'YYYY-MM-DD')
        OR t.at::timestamptz IS DISTINCT FROM w.at
        OR t.day IS DISTINCT FROM (SELECT value FROM long l WHERE l.source_id = t.source_id AND item = 'day')
        OR t.at IS DISTINCT FROM (SELECT value FROM long l WHERE l.source_id = t.source_id AND item = 'at')) AS otherwise
    FROM texts t JOIN wide w USING (source_id);
SELECT bool_and(substr(t.at, 11) = replace(substr(r.payload ->> 'at', 11), ':60', ':59')) AS clock_as_written FROM texts t JOIN shifted r ON r.id = t.source_id WHERE t.at <> '';
SELECT count(*) AS true_dates FROM (SELECT w::text FROM wide w UNION ALL SELECT l::text FROM long l UNION ALL SELECT t::text FROM texts t) AS x (line)
    WHERE line ~ '2020-02-2[89]|2016-12-31|2020-01-01|2026-03-01 07';
SELECT count(*) AS conditions_see_the_shifted FROM conditional;
-- the bounds: what would leave the years 1 to 9999 is taken out, and the rest is not
INSERT INTO staging SELECT nextval('staged'), 'ST01', 't37_shift', 'E-' || i, 'V', CASE i % 4 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN NULL ELSE '2000-02-29Z' END::timestamptz, p::jsonb
    FROM generate_series(1, 40) i, unnest(ARRAY['{"day": "0001-01-01"}', '{"day": "9999-12-31"}', '{"part": "0001"}', '{"part": "9999-12"}', '{"at": "9999-12-31T23:59:59Z"}']) p;
TRUNCATE shifted;
INSERT INTO shifted TABLE staging;
SELECT status FROM epro_etl.run('t37', workers => 0);
SELECT r.payload, count(*) AS all, count(w.source_id) = count(*) FILTER (WHERE fits) AS those_loaded, count(l.source_id) = count(*) FILTER (WHERE NOT fits) AS others_found, min(l.message)
    FROM (SELECT *, CASE payload ->> 'part' WHEN '0001' THEN d > -182 WHEN '9999-12' THEN d <= 16 ELSE CASE WHEN payload ->> 'day' = '0001-01-01' THEN d > 0 ELSE d < 0 END END AS fits
          FROM (SELECT *, pg_temp.days(study, subject) AS d FROM shifted) s) r LEFT JOIN wide w ON w.source_id = r.id LEFT JOIN (SELECT * FROM probe.last WHERE kind = 'deidentify') l ON l.source_id = r.id::text GROUP BY 1 ORDER BY 1;
SELECT r.authored, count(*) > 0 AS some, count(*) FILTER (WHERE w.authored IS DISTINCT FROM r.authored + CASE WHEN isfinite(r.authored) THEN pg_temp.days(r.study, r.subject) ELSE 0 END * interval '1 day') AS otherwise
    FROM wide w JOIN shifted r ON r.id = w.source_id GROUP BY 1 ORDER BY 1;
-- finer than a microsecond: a text, which is shifted all the same
SELECT epro_etl.register_form('t37_fine', '{"properties": {"at": {"type": "string", "format": "date-time"}}}');
SELECT epro_etl.set_deid('t37_fine', '/at', 'dateShift');
CREATE TABLE fine (source_id int, at text);
SELECT epro_etl.add_sink('t37', 't37_fine', 'fine');
SELECT probe.put('t37_fine', '{"at": "2020-02-29T10:00:00.123456789+01:00"}');
SELECT status, loaded FROM epro_etl.run('t37', workers => 0);
SELECT left(at, 10)::date - '2020-02-29' = pg_temp.days('ST01', 'P-1') AS moved, substr(at, 11) AS clock FROM fine;
-- who has no key shifts nothing, and shows nothing to a lookup
SELECT location, rule, kind, severity FROM epro_etl.validate('t37_shift', '{"day": "2020-02-29", "n": "x"}', 'ST01', 'V', '2026-03-01 07:30Z');

-- intervals: 2,000 subjects, two forms and two studies, inline, by two workers and in a cut stream
SELECT epro_etl.register_form('t37_two', '{"properties": {"other": {"type": "string", "format": "date"}, "then": {"type": "string", "format": "date-time"}}}');
SELECT count(epro_etl.set_deid('t37_two', p, 'dateShift')) FROM unnest('{/other,/then,authored}'::text[]) p;
SELECT epro_etl.create_sink('t37', 't37_two', 'two');
SELECT epro_etl.remove_edit_check('t37_shift', c) FROM unnest('{true day,true time,shifted day,shifted time}'::text[]) c \g /dev/null
TRUNCATE wide, staging, shifted, long, texts;
INSERT INTO shifted (id, study, form, subject, visit, authored, payload)
    SELECT nextval('staged'), 'S' || i % 2, CASE n % 2 WHEN 0 THEN 't37_shift' ELSE 't37_two' END,
           CASE i / 2 % 5 WHEN 0 THEN '患者' WHEN 1 THEN 'Ｐ－' WHEN 2 THEN 'é😀' WHEN 3 THEN repeat('long ', 20) ELSE '' END || i / 2, n::text,
           '2024-02-29 12:00Z'::timestamptz + n * 400 * interval '1 day',
           CASE n % 2 WHEN 0 THEN jsonb_build_object('day', to_char('2000-02-29'::date + i * n, 'YYYY-MM-DD'), 'at', to_char('2000-02-29'::date + i + n, 'YYYY-MM-DD"T10:30:00+05:30"'))
                      ELSE jsonb_build_object('other', to_char('2023-12-31'::date - i * n, 'YYYY-MM-DD'), 'then', to_char('1999-12-31'::date + i - n, 'YYYY-MM-DD"T23:59:59.999999Z"')) END
    FROM generate_series(0, 1999) i, generate_series(0, 5) n;
INSERT INTO staging TABLE shifted;
DELETE FROM staging WHERE visit NOT IN ('0', '1');
SELECT status, loaded, rejected FROM epro_etl.run('t37', workers => 0);
INSERT INTO staging SELECT * FROM shifted WHERE visit IN ('2', '3');
SELECT status, loaded, rejected FROM epro_etl.run('t37', workers => 2);
INSERT INTO staging SELECT * FROM shifted WHERE visit IN ('4', '5');
SELECT epro_etl.start_stream('t37', stages => '{"decode": 1, "deidentify": 1, "normalise": 1, "validate": 1, "store": 1}');
DO $$ BEGIN FOR i IN 1..6000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM staging); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT epro_etl.stop_stream('t37');
CREATE TABLE moved AS SELECT r.study, r.subject, r.visit, a.what, a.days FROM shifted r
    LEFT JOIN wide w ON w.source_id = r.id LEFT JOIN two t ON t.source_id = r.id,
    LATERAL (VALUES ('day', w.day - (r.payload ->> 'day')::date), ('at', extract(epoch FROM w.at - (r.payload ->> 'at')::timestamptz) / 86400),
                    ('other', t.other - (r.payload ->> 'other')::date), ('then', extract(epoch FROM t.then - (r.payload ->> 'then')::timestamptz) / 86400),
                    ('authored', extract(epoch FROM coalesce(w.authored, t.authored) - r.authored) / 86400)) AS a (what, days) WHERE a.days IS NOT NULL;
SELECT count(*) AS dates, count(DISTINCT (study, subject)) AS subjects FROM moved;
-- one whole number of days a subject, never none, as it is computed a second time
SELECT count(*) AS subjects, count(*) FILTER (WHERE least <> most) AS not_one, count(*) FILTER (WHERE least <> trunc(least)) AS not_whole, count(*) FILTER (WHERE least = 0) AS zero,
       count(*) FILTER (WHERE least NOT BETWEEN -365 AND 365) AS beyond, count(*) FILTER (WHERE least <> pg_temp.days(study, subject)) AS otherwise
    FROM (SELECT study, subject, min(days) AS least, max(days) AS most FROM moved GROUP BY 1, 2) m;
-- spread over the range: chi-square of ten classes of 73 days, nine degrees of freedom (27.9 is passed once in a thousand)
SELECT sum((n - 200) ^ 2 / 200.0) < 27.9 AS spread, count(*) AS classes, min(n) > 100 AS none_empty
    FROM (SELECT width_bucket(CASE WHEN d > 0 THEN d - 1 ELSE d END, -365, 365, 10) AS class, count(*) AS n FROM (SELECT min(days) AS d FROM moved GROUP BY study, subject) o GROUP BY 1) c;
-- two studies' subjects of one name have nothing in common
SELECT count(*) AS same_name, count(*) FILTER (WHERE a.d = b.d) < 15 AS as_chance FROM (SELECT DISTINCT study, subject, days AS d FROM moved) a
    JOIN (SELECT DISTINCT study, subject, days AS d FROM moved) b ON b.subject = a.subject AND a.study = 'S0' AND b.study = 'S1';
RESET DateStyle;
RESET TimeZone;

-- FHIR: partial dates; what makes no sense for an answer of a type is refused
SELECT epro_etl.register_form('t37 fhir', '{"resourceType": "Questionnaire", "url": "urn:t37", "item": [{"linkId": "d", "type": "date"}, {"linkId": "dt", "type": "dateTime"}, {"linkId": "t", "type": "time"},
    {"linkId": "c", "type": "choice", "answerOption": [{"valueCoding": {"code": "A", "system": "urn:a"}}, {"valueCoding": {"code": "B", "system": "urn:a"}}]}, {"linkId": "q", "type": "quantity"}, {"linkId": "i", "type": "integer"},
    {"linkId": "s", "type": "string"}, {"linkId": "many", "type": "date", "repeats": true}, {"linkId": "f", "type": "attachment"}]}');
SELECT m AS method, string_agg(substr(p, 2), ' ' ORDER BY p) FILTER (WHERE epro_etl.deid_suits('t37 fhir', p, m, params::jsonb)) AS suits
    FROM (VALUES (1, 'redact', '{}'), (2, 'generalize', '{"to": "year"}'), (3, 'generalize', '{"bucket": 5}'), (4, 'dateShift', '{}'), (5, 'cryptoHash', '{}'),
                 (6, 'encrypt', '{}'), (7, 'substitute', '{"value": "x"}'), (8, 'remove', '{}')) AS m (n, m, params), unnest('{/d,/dt,/t,/c,/q,/i,/s,/many,/f}'::text[]) p GROUP BY n, m ORDER BY n;
SELECT epro_etl.set_deid('t37 fhir', '/d', 'dateShift'), epro_etl.set_deid('t37 fhir', '/dt', 'dateShift'), epro_etl.set_deid('t37 fhir', '/i', 'generalize', '{"bucket": 5}'),
       epro_etl.set_deid('t37 fhir', '/c', 'cryptoHash'), epro_etl.set_deid('t37 fhir', '/s', 'mask', '{"keep_last": 1}'), epro_etl.set_deid('t37 fhir', '/many', 'remove') \g /dev/null
SELECT epro_etl.create_sink('t37', 't37 fhir', 'fhir');
CREATE TABLE days (source_id int, d date, dt timestamptz);
SELECT epro_etl.add_sink('t37', 't37 fhir', 'days', condition => 'length(d) = 10 AND length(dt) > 10');
TRUNCATE shifted;
INSERT INTO shifted SELECT nextval('staged'), 'ST01', 't37 fhir', 'P-1', 'V', now(), p::jsonb FROM unnest(ARRAY['{"d": "2020-02-29", "dt": "2020-02-29T10:00:00+02:00", "i": 17, "c": "A", "s": "abc", "many": ["2020-02-29"]}',
    '{"d": "2020-02", "dt": "2020-02-29"}', '{"d": "2020", "dt": "2020"}', '{"d": "2019-02-29"}', '{"dt": "0001-01-01"}']) p;
INSERT INTO staging TABLE shifted;
SELECT status, loaded, rejected FROM epro_etl.run('t37', workers => 0);
SELECT r.payload ->> 'd' AS given, f.d, r.payload ->> 'dt' AS given, f.dt, i, c ~ '^[0-9a-f]{64}$' AS c, s FROM fhir f JOIN shifted r ON r.id = source_id ORDER BY source_id;
SELECT pg_temp.days('ST01', 'P-1') AS days, count(*) FILTER (WHERE y.d - (r.payload ->> 'd')::date = pg_temp.days('ST01', 'P-1')) AS day_moved,
       count(*) FILTER (WHERE y.dt - (r.payload ->> 'dt')::timestamptz = pg_temp.days('ST01', 'P-1') * interval '1 day') AS time_moved
    FROM days y JOIN shifted r ON r.id = source_id WHERE length(r.payload ->> 'd') = 10;
SELECT location, rule, kind, message FROM probe.last;

-- what the form does not declare reaches no sink, whatever of it is judged
SELECT epro_etl.register_form('t37_wild', '{"type": "object", "patternProperties": {"^x_": {"type": "string", "maxLength": 20}}, "properties": {"a": {"type": "string"}, "g": {"type": "object", "properties": {"b": {"type": "string"}}}}}');
SELECT epro_etl.set_deid('t37_wild', '/a', 'mask');
SELECT epro_etl.create_sink('t37', 't37_wild', 'wild'), epro_etl.create_sink('t37', 't37_wild', 'wild_long', 'long');
SELECT probe.put('t37_wild', '{"a": "SECRET1", "x_name": "SECRET2", "g": {"b": "shown", "c": "SECRET3"}, "more": ["SECRET4"]}', '{"a": "SECRET1", "x_name": "SECRET2 that is too long to be"}');
SELECT status, loaded, rejected FROM epro_etl.run('t37', workers => 0);
SELECT location, rule, kind FROM probe.last;
SELECT count(*) AS leaks FROM (SELECT w::text FROM wild w UNION ALL SELECT l::text FROM wild_long l UNION ALL SELECT f::text FROM epro_etl.finding f) AS x (line) WHERE line ~ 'SECRET';
RESET client_min_messages;
SELECT probe.close_area('t37');
