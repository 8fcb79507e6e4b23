-- Payloads: jsonb, json and text; bad ones are findings and nothing is lost.
\set SHOW_CONTEXT never
SELECT probe.open_area('t04');
SELECT epro_etl.register_form('t04', '{"properties": {
    "a": {"type": "integer"}, "n": {"type": "number"}, "t": {"type": "string"}, "d": {"type": "string", "format": "date"},
    "dt": {"type": "string", "format": "date-time"}, "tm": {"type": "string", "format": "time"}}}');
-- text: what is in it has been judged by nobody before
CREATE TABLE staged_text (id serial PRIMARY KEY, study text, form text, subject text, payload text);
SELECT epro_etl.create_pipeline('t04_text', 'staged_text');
SELECT epro_etl.create_sink('t04_text', 't04', 'from_text');
-- a payload, and whether it can be loaded
CREATE TABLE given (id serial PRIMARY KEY, good boolean, payload text);
INSERT INTO given (good, payload) VALUES
    (false, NULL), (false, 'null'), (false, '1'), (false, '"x"'), (false, 'true'), (false, '[]'), (false, ''), (false, ' '),
    (true, '{}'), (true, E' \n{ "a" : 1 }\t'), (true, '{"unknown": 1}'), (true, '{"a": -0}'), (true, '{"a": 1.0}'), (true, '{"a": 1e2}'),
    (false, '{"a": 1'), (false, '{"a": 1} x'), (false, '{"a": 01}'), (false, '{"a": .5}'), (false, '{"a": +1}'), (false, '{''a'': 1}'),
    (false, '{"a": 1,}'), (false, '{"a" 1}'), (false, '{a: 1}'), (false, '{"a": NaN}'), (false, '{"a": Infinity}'), (false, E'{"t": "\t"}'),
    (false, '{"a": 1, "a": 2}'), (false, '{"a": 1, "\u0061": 2}'), (false, '{"z": {"q": 1, "q": 2}}'), (true, '{"a": 1, "A": 2}'),
    (false, '{"t": "\u0000"}'), (false, '{"t": "\ud800"}'), (false, '{"t": "\udc00x"}'), (false, '{"t": "\ud800\u0041"}'),
    (false, '{"t": "\x"}'), (false, '{"t": "\uZZZZ"}'), (true, '{"t": "\ud83d\ude00\n\\"}'), (true, '{"t": "汉字"}'),
    (false, '{"n": 1e400000}'), (false, '{"n": 1e99999999999999}'), (false, '{"n": "NaN"}'), (true, '{"n": -0.0}'),
    (false, '{"a": 1234567890123456789012345678901234567890}'), (true, '{"n": 1234567890123456789012345678901234567890}'),
    (false, '{"a": 1e400}'), (false, '{"a": 9223372036854775808}'), (true, '{"a": -9223372036854775808}'),
    (true, '{"d": "2024-02-29"}'), (false, '{"d": "2026-02-30"}'), (false, '{"d": "0000-00-00"}'), (false, '{"d": "2026-2-3"}'),
    (false, '{"d": "20260203"}'), (false, '{"d": "today"}'), (false, '{"d": "infinity"}'), (false, '{"d": 20260203}'),
    (true, '{"dt": "2026-03-01T07:30:00Z"}'), (true, '{"dt": "2026-03-01t07:30:00.123456+08:00"}'), (false, '{"dt": "2026-03-01T24:00:00Z"}'),
    (false, '{"dt": "2026-03-01T07:30:00"}'), (false, '{"dt": "2026-03-01"}'), (false, '{"dt": "now"}'),
    (true, '{"tm": "07:30:00Z"}'), (false, '{"tm": "25:00:00Z"}'), (false, '{"tm": "07:30"}');
-- deep and long ones
INSERT INTO given (good, payload) VALUES
    (true, repeat('{"z": ', 100) || '1' || repeat('}', 100)),
    (false, repeat('{"z": ', 600) || '1' || repeat('}', 600)),
    (false, repeat('[', 100000)),
    (true, '{"t": "' || repeat('x', 10000000) || '"}'),
    (false, '{"a": "' || repeat('x', 10000000) || '"}'),
    (false, '{"a": ' || repeat('9', 1000000) || '}'),
    (true, '{"q": [' || repeat('{"a": 1}, ', 100000) || '1], "a": 5}');
INSERT INTO staged_text SELECT id, 'ST01', 't04', 'P-1', payload FROM given;
SELECT status, claimed = (SELECT count(*) FROM given) AS all_claimed, claimed = loaded + rejected AS all_told, remaining
    FROM epro_etl.run('t04_text', workers => 0);
-- each is where it belongs, and only there: no row is right
SELECT g.id, good, left(payload, 60) AS payload FROM given g WHERE ARRAY[
        (SELECT count(*) FROM from_text k WHERE k.source_id = g.id),
        (SELECT count(*) FROM epro_etl.quarantine q WHERE q.pipeline = 't04_text' AND q.source_id = g.id::text),
        (SELECT count(*) FROM staged_text s WHERE s.id = g.id)]
    <> ARRAY[CASE WHEN good THEN 1 ELSE 0 END, CASE WHEN good THEN 0 ELSE 1 END, 0]::bigint[] ORDER BY id;
SELECT l.source_id, CASE WHEN g.payload !~ E'\t' THEN left(g.payload, 40) END AS payload, location, rule, kind, message FROM probe.last l JOIN given g ON g.id = l.source_id::int;
SELECT k.source_id, a, n, left(t, 6) AS t, length(t), d, dt AT TIME ZONE 'UTC' AS dt, tm FROM from_text k ORDER BY source_id;
-- what was rejected is kept byte by byte
SELECT count(*) AS altered FROM epro_etl.quarantine q JOIN given g ON g.id = q.source_id::int
    WHERE pipeline = 't04_text' AND q.original ->> 'payload' IS DISTINCT FROM g.payload;
-- no finding quotes an answer of ten million x
SELECT max(length(message)) < 200 AS short FROM probe.last;

-- json: the server has judged its form, and nothing else
CREATE TABLE staged_json (id serial PRIMARY KEY, study text, form text, subject text, payload json);
SELECT epro_etl.create_pipeline('t04_json', 'staged_json');
SELECT epro_etl.create_sink('t04_json', 't04', 'from_json');
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT * FROM given WHERE length(payload) < 1000 ORDER BY id LOOP
        BEGIN
            INSERT INTO staged_json VALUES (r.id, 'ST01', 't04', 'P-1', r.payload::json);
        EXCEPTION WHEN data_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT count(*) AS staged FROM staged_json;
SELECT status, claimed = loaded + rejected AS all_told, remaining FROM epro_etl.run('t04_json', workers => 0);
-- the same judgement as for text: no row is right
SELECT source_id, a, n, t, d, dt, tm FROM from_json EXCEPT SELECT source_id, a, n, t, d, dt, tm FROM from_text;
SELECT q.source_id, g.payload FROM epro_etl.quarantine q JOIN given g ON g.id = q.source_id::int WHERE q.pipeline = 't04_json' AND g.good;

-- jsonb: of what could be stored at all, the same but for keys given twice, where jsonb has kept the last
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT * FROM given WHERE length(payload) < 1000 ORDER BY id LOOP
        BEGIN
            INSERT INTO staging VALUES (r.id, 'ST01', 't04', 'P-1', NULL, NULL, r.payload::jsonb);
        EXCEPTION WHEN data_exception OR untranslatable_character THEN NULL;
        END;
    END LOOP;
END $$;
SELECT epro_etl.create_sink('t04', 't04', 'from_jsonb');
SELECT status, claimed = loaded + rejected AS all_told, remaining FROM epro_etl.run('t04', workers => 0);
SELECT source_id, a, n, t, d, dt, tm FROM from_jsonb EXCEPT SELECT source_id, a, n, t, d, dt, tm FROM from_text ORDER BY source_id;
SELECT q.source_id, g.payload FROM epro_etl.quarantine q JOIN given g ON g.id = q.source_id::int WHERE q.pipeline = 't04' AND g.good;

-- more findings than anybody reads: bounded, and said so
SELECT epro_etl.register_form('t04_many', jsonb_build_object('properties', jsonb_object_agg('i' || lpad(n::text, 3, '0'), '{"type": "integer"}'::jsonb),
    'required', jsonb_agg('i' || lpad(n::text, 3, '0')))) FROM generate_series(1, 200) n;
SELECT epro_etl.create_sink('t04', 't04_many', 'many');
SELECT setval('staged', 1000);
SELECT probe.put('t04_many', '{}');
SELECT status, claimed, rejected FROM epro_etl.run('t04', workers => 0);
SELECT count(*), count(DISTINCT location) FROM probe.last WHERE rule = 'required';
SELECT location, rule, kind, severity, message FROM probe.last WHERE rule <> 'required';

-- no form, no subject, no study
SELECT setval('staged', 2000);
INSERT INTO staging (id, study, form, subject, payload) VALUES (2001, 'ST01', 'nope', 'P-1', '{}'), (2002, 'ST01', NULL, 'P-1', '{}'),
    (2003, 'ST01', 't04 ', 'P-1', '{}'), (2004, 'ST01', 't04', NULL, '{}'), (2005, 'ST01', 't04', '  ', '{}'), (2006, NULL, 't04', 'P-1', '{}'),
    (2007, 'ST01', 't04', '', '[]');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t04', workers => 0);
\pset null (null)
SELECT * FROM probe.last;
\pset null ''
SELECT probe.close_area('t04');
