-- JSON Schema beyond plain items: conditions, references, arrays, undeclared keys.
\set SHOW_CONTEXT never
SELECT probe.open_area('t25');
-- what is staged, to be sent through a stream as well
CREATE TABLE sent (LIKE staging);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t25.sent SELECT NEW.*; RETURN NULL; END $$;
CREATE TRIGGER keep AFTER INSERT ON staging FOR EACH ROW EXECUTE FUNCTION keep();

-- taken in; format and the like in tests of their own
SELECT epro_etl.register_form('t25_all', '{"$id": "https://example.org/form", "properties": {
    "ref":   {"$ref": "#/$defs/score", "title": "t"},
    "norm":  {"$ref": "#/$defs/score", "x-normalise": ["trim", "coerce"]},
    "tree":  {"$ref": "#/$defs/tree"},
    "vital": {"$ref": "#/$defs/vital"},
    "yes": true, "no": false,
    "nullable": {"type": ["object", "null"], "properties": {"z": {"type": "integer"}}},
    "loose": {"properties": {"z": {"type": "integer"}}},
    "mail": {"type": "string", "format": "email"}, "for": {"type": "string", "format": "duration"},
    "v4": {"type": "string", "format": "ipv4"}, "v6": {"type": "string", "format": "ipv6"}, "id": {"type": "string", "format": "uuid"},
    "a": {"type": "array", "items": {"type": "integer"}}, "none": {"enum": []}},
    "required": ["undeclared"],
    "$defs": {"score": {"type": "integer", "minimum": 0, "maximum": 10},
        "vital": {"type": "object", "properties": {"pulse": {"$ref": "#/$defs/score"}}},
        "tree": {"type": "object", "properties": {"leaf": {"type": "integer"}, "left": {"$ref": "#/$defs/tree"}}}}}');
SELECT name, location, type FROM epro_etl.form_items('t25_all') ORDER BY location COLLATE "C";

-- refused, each with the pointer
CREATE TABLE refusal (n serial, definition jsonb);
INSERT INTO refusal (definition) VALUES
    ('{"properties": {"a": {"$ref": "#/$defs/b"}}}'),
    ('{"properties": {"a": {"$ref": "other.json"}}}'),
    ('{"properties": {"a": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}}'),
    ('{"properties": {"a": {"$ref": "#/title"}}, "title": "t"}'),
    ('{"properties": {"a": {"$ref": "#/properties/a"}}}'),
    ('{"properties": {"a": {"anyOf": [{}, {"not": {"$ref": "#/properties/a"}}]}}}'),
    ('{"properties": {"a": {"$ref": "#b"}}}'),
    ('{"properties": {"a": {"$id": "u:1"}, "b": {"$id": "u:1"}}}'),
    ('{"properties": {"a": {"$id": "u:1#b"}}}'),
    ('{"properties": {"a": {"$anchor": "b"}, "c": {"$anchor": "b"}}}'),
    ('{"properties": {"a": {"multipleOf": 0}}}'),
    ('{"properties": {"a": {"multipleOf": 1e-1001}}}'),
    ('{"properties": {"a": {"minItems": -1}}}'),
    ('{"properties": {"a": {"uniqueItems": "yes"}}}'),
    ('{"properties": {"a": {"patternProperties": {"(": {}}}}}'),
    ('{"properties": {"a": {"items": {"format": "hostname"}}}}'),
    ('{"properties": {"a": {"pattern": "\\p{Lu}"}}}'),
    ('{"properties": {"a": {"pattern": "[\\P{L}]"}}}'),
    ('{"properties": {"a": {"items": {"x-normalise": ["trim"]}}}}'),
    ('{"properties": {"a": {"x-formats": "annotate"}}}'),
    ('{"properties": {"a": {}}, "x-formats": "ignore"}'),
    ('{"properties": {"a": {}}, "$defs": []}'),
    ('{"properties": {"a": {}}, "dependentRequired": {"a": "b"}}');
DO $$
DECLARE
    r record;
    said text;
    state text;
BEGIN
    FOR r IN SELECT * FROM refusal ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.register_form('t25_refused', r.definition);
            said := 'ACCEPTED';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, state = RETURNED_SQLSTATE;
            said := state || ' ' || said;
        END;
        RAISE INFO E'%\n  %', r.definition, said;
    END LOOP;
END $$;

-- conditions over items and groups, as normalised; references; what is missing and undeclared
SELECT epro_etl.register_form('t25', '{"x-normalise": ["trim", "coerce", "blank"], "type": "object", "properties": {
        "smokes": {"type": "string", "enum": ["Y", "N"]}, "packs": {"type": "integer"}, "why": {"type": "string"},
        "meds": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "dose": {"exclusiveMinimum": 0}},
            "additionalProperties": false}, "uniqueItems": true, "maxItems": 3},
        "site": {"type": "object", "properties": {"code": {"type": "integer"}, "kind": {"type": "string"}}, "minProperties": 1,
            "dependentRequired": {"code": ["kind"]}, "additionalProperties": {"type": "integer"}},
        "contact": {"anyOf": [{"type": "object", "required": ["mail"], "properties": {"mail": {"format": "email"}}},
            {"type": "object", "required": ["phone", "hours"], "properties": {"phone": {"pattern": "^[0-9]+$"}}}, {"type": "null"}]},
        "step": {"type": "number", "multipleOf": 0.1}},
    "if": {"properties": {"smokes": {"const": "Y"}, "packs": {"minimum": 1}}, "required": ["smokes", "packs"]},
    "then": {"required": ["why"], "properties": {"packs": {"maximum": 100}}},
    "else": {"properties": {"why": {"maxLength": 0}}},
    "propertyNames": {"pattern": "^[a-z]+$"}}');
SELECT epro_etl.create_sink('t25', 't25', 't25');
SELECT probe.put('t25',
    '{"smokes": "Y", "packs": " 2 ", "why": "habit", "meds": [{"name": "a", "dose": 1}], "site": {"code": 1, "kind": "x", "extra": 5}, "contact": null, "step": 0.3}',
    '{"smokes": "Y", "packs": " 2 ", "why": "  "}',
    '{"smokes": "Y", "packs": "200", "why": "w"}',
    '{"smokes": "N", "packs": 1, "why": "w"}',
    '{"smokes": "Y", "packs": "many"}',
    '{"meds": [{"dose": 0}, {"name": "a", "Zq8Key": 1}, {"name": "b"}, {"name": "b"}]}',
    '{"site": {}, "step": 0.35}', '{"site": {"code": 1, "Zq8Key": "Zq8Value"}}',
    '{"contact": {"mail": "nobody"}}', '{"contact": {"phone": "Zq8"}}', '{"contact": 5}', '{"contact": {"mail": "a@b.c", "phone": 5}}',
    '{"Zq8Key": 1}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;
SELECT count(*) AS leaked FROM probe.last l WHERE l::text LIKE '%Zq8%';
-- no answer is altered by being judged
SELECT source_id, packs, meds, site_code, contact, step FROM t25;

-- oneOf: none, several; a list is bounded; findings within not, if and contains are nobody's
SELECT epro_etl.register_form('t25_one', '{"properties": {
    "one": {"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]},
    "deep": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"const": 1}}}}}]},
    "wide": {"anyOf": [{"required": ["a", "b", "c", "d", "e", "f", "g"]}]},
    "not": {"not": {"anyOf": [{"type": "integer"}, {"minLength": 3}]}},
    "has": {"type": "array", "contains": {"type": "integer", "minimum": 5}, "minContains": 2, "maxContains": 3},
    "pre": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false},
    "rest": {"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}}], "patternProperties": {"^x": {"type": "integer"}}, "unevaluatedProperties": false},
    "word": {"pattern": "^[\\p{L}'' -]+$"}, "digits": {"pattern": "^\\P{Letter}*$"},
    "no": false}}');
SELECT epro_etl.create_sink('t25', 't25_one', 't25_one');
SELECT probe.put('t25_one', '{"one": 4, "deep": "x", "wide": 1, "not": "ab", "has": [5, 6, 1], "pre": [1, "a"], "rest": {"a": 1, "x1": 2}}',
    '{"one": 5}', '{"one": 6}', '{"deep": {"a": {"b": 2}}}', '{"wide": {}}', '{"not": 1}', '{"not": "abc"}', '{"has": [5]}', '{"has": [5, 6, 7, 8]}',
    '{"pre": ["1", 2, 3]}', '{"rest": {"a": "1", "x1": "2"}}', '{"rest": {"Zq8": 1}}', '{"no": null}', '{"word": "Zoë O''Neill 王", "digits": "7"}', '{"word": "x7", "digits": "ß"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT source_id, location, rule, message FROM probe.last;

-- an answer that was taken out is unknown: what depends on it is not evaluated, what does not is
SELECT epro_etl.register_form('t25_deid', '{"properties": {
        "born": {"type": "string", "format": "date"}, "name": {"type": "string"}, "sex": {"type": "string"}, "pregnant": {"type": "boolean"}},
    "allOf": [{"if": {"properties": {"sex": {"const": "M"}}, "required": ["sex"]}, "then": {"properties": {"pregnant": {"const": false}}}}],
    "anyOf": [{"required": ["name"]}, {"properties": {"name": {"minLength": 5}}}],
    "not": {"properties": {"name": {"const": "x"}}, "required": ["name"]},
    "oneOf": [{"properties": {"name": {"const": "x"}}, "required": ["name"]}, {"properties": {"pregnant": {"const": true}}, "required": ["pregnant"]}]}');
SELECT epro_etl.set_deid('t25_deid', '/name', 'remove');
SELECT epro_etl.set_deid('t25_deid', '/sex', 'redact');
SELECT epro_etl.create_sink('t25', 't25_deid', 't25_deid');
SELECT probe.put('t25_deid', '{"name": "Zq8", "sex": "M", "pregnant": true}', '{"name": "Zq8", "sex": "F", "pregnant": false}', '{"pregnant": true}', '{"pregnant": false}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;

-- cut between normalise and validate, a stream finds the same: by messages of slots, or by address where rules ask for undeclared keys
CREATE FUNCTION wait_for(condition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1..3000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF NOT coalesce(holds, false) THEN
        RAISE EXCEPTION 'it never came: %', condition;
    END IF;
END $$;
DROP TRIGGER keep ON staging;
INSERT INTO staging SELECT id + 1000, study, form, subject, visit, authored, payload FROM sent;
SELECT epro_etl.start_stream('t25', stages => '{"decode": 1, "validate": 1}');
SELECT wait_for('NOT EXISTS (SELECT FROM staging)');
SELECT epro_etl.stop_stream('t25');
CREATE VIEW found AS SELECT source_id::int % 1000 AS id, source_id::int / 1000 AS streamed, location, rule, kind, severity, message
    FROM epro_etl.finding WHERE run_id IN (SELECT run_id FROM epro_etl.run_history WHERE pipeline = 't25');
SELECT streamed, count(*) FROM found GROUP BY streamed ORDER BY streamed;
SELECT id, location, rule FROM found WHERE streamed = 0 EXCEPT SELECT id, location, rule FROM found WHERE streamed = 1;
SELECT id, location, rule FROM found WHERE streamed = 1 EXCEPT SELECT id, location, rule FROM found WHERE streamed = 0;

-- recursion: as deep as the stack allows, and then a finding; endless ways are cut off
SELECT epro_etl.register_form('t25_deep', '{"properties": {"v": {"$ref": "#/$defs/node"}},
    "$defs": {"node": {"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}, "i": {"type": "integer"}}}}}');
SELECT epro_etl.register_form('t25_ways', '{"properties": {"v": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}, "$defs": {
    "a": {"properties": {"n": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}, "minProperties": 2},
    "b": {"properties": {"n": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}, "minProperties": 3}}}');
SELECT epro_etl.create_sink('t25', 't25_deep', 't25_deep');
SELECT epro_etl.create_sink('t25', 't25_ways', 't25_ways');
SELECT probe.put('t25_deep', (repeat('{"n":', 50) || '{"i": "x"}' || repeat('}', 50))::jsonb, jsonb_build_object('v', (repeat('{"n":', 50) || '{"i": 1}' || repeat('}', 50))::jsonb),
    jsonb_build_object('v', (repeat('{"n":', 50) || '{"i": "x"}' || repeat('}', 50))::jsonb),
    jsonb_build_object('v', (repeat('{"n":', 2000) || '{"i": 1}' || repeat('}', 2000))::jsonb));
SELECT probe.put('t25_ways', jsonb_build_object('v', (repeat('{"n":', 60) || '1' || repeat('}', 60))::jsonb));
-- a checked build's frames are larger
\set stack 300kB
\getenv stack EPRO_STACK_DEPTH
SET max_stack_depth = :'stack';
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
RESET max_stack_depth;
SELECT source_id, replace(location, repeat('/n', 50), '/n*50') AS location, rule, kind, severity, message FROM probe.last;

-- a large array is judged in a time that grows with it, and numbers that nobody can divide are not
SELECT epro_etl.register_form('t25_large', '{"properties": {"u": {"type": "array", "uniqueItems": true}, "m": {"multipleOf": 0.01},
    "o": {"type": "object", "additionalProperties": {"type": "integer"}, "patternProperties": {"^x": true}, "minProperties": 2}}}');
SELECT epro_etl.create_sink('t25', 't25_large', 't25_large', shape => 'wide');
SELECT probe.put('t25_large', jsonb_build_object('u', (SELECT jsonb_agg(i) FROM generate_series(1, 200000) i)),
    jsonb_build_object('u', (SELECT jsonb_agg(i % 199999) FROM generate_series(1, 200000) i)),
    '{"u": [1, 1.0]}', '{"u": [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]}', '{"u": ["1", 1, true, null, [1], {"a": 1}]}',
    '{"m": 0.07}', '{"m": 1e100000}', '{"m": 1e-1001}', '{"m": 0.075}',
    jsonb_build_object('o', (SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 20000) i)), '{"o": {"x": "1"}}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;

-- finer than microseconds: a good time, but no column keeps it, and a text does
SELECT epro_etl.register_form('t25_fine', '{"properties": {"at": {"type": "string", "format": "date-time"}}}');
CREATE TABLE t25_fine (source_id int, at timestamptz);
CREATE TABLE t25_text (source_id int, at text);
SELECT epro_etl.add_sink('t25', 't25_fine', 't25_fine');
SELECT probe.put('t25_fine', '{"at": "2026-03-01T07:30:00.1234567Z"}', '{"at": "2026-03-01T07:30:00.1234560Z"}', '{"at": "2026-03-01T24:30:00.1234567Z"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT source_id, location, rule, kind, message FROM probe.last;
SELECT epro_etl.remove_sink('t25', 't25_fine', 't25_fine');
SELECT epro_etl.add_sink('t25', 't25_fine', 't25_text');
SELECT probe.put('t25_fine', '{"at": "2026-03-01T07:30:00.1234567Z"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t25', workers => 0);
SELECT at FROM t25_text;
-- formats as notes
SELECT epro_etl.register_form('t25_notes', '{"x-formats": "annotate", "properties": {"h": {"type": "string", "format": "hostname"}, "d": {"type": "string", "format": "date"}}}');
SELECT name, type FROM epro_etl.form_items('t25_notes');
SELECT probe.close_area('t25');
