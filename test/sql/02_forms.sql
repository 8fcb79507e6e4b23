-- Forms: what is accepted, what is refused and where, and versions.
\set SHOW_CONTEXT never
-- each supported keyword
SELECT epro_etl.register_form('t02_all', '{
    "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:x", "$comment": "c", "title": "t", "description": "d",
    "type": "object",
    "properties": {
        "i":  {"type": "integer", "minimum": 0, "maximum": 10, "default": 3, "examples": [1]},
        "n":  {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.5, "deprecated": true},
        "b":  {"type": "boolean", "readOnly": true, "writeOnly": false},
        "c":  {"type": "string", "enum": ["Y", "N", "NA"]},
        "k":  {"const": "fixed"},
        "t":  {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[A-Z]+$"},
        "d":  {"type": "string", "format": "date"},
        "dt": {"type": "string", "format": "date-time"},
        "tm": {"type": "string", "format": "time"},
        "nul": {"type": ["integer", "null"]},
        "a":  {"type": "array"},
        "any": {},
        "g":  {"type": "object", "properties": {"z/~": {"type": "integer"}}, "required": ["z/~"]}},
    "required": ["i"]}');
SELECT * FROM epro_etl.form_items('t02_all') ORDER BY location COLLATE "C";

-- refused, each with the pointer to what is refused; nothing of it stays
CREATE TABLE public.refusal (n serial, definition jsonb);
INSERT INTO refusal (definition) VALUES
    ('5'), ('[]'), ('null'), ('true'), ('{}'),
    ('{"type": "array"}'),
    ('{"properties": []}'),
    ('{"properties": {}}'),
    ('{"propertys": {"a": {}}}'),
    ('{"properties": {"a": {"minimun": 0}}}'),
    ('{"properties": {"a": {"type": "int"}}}'),
    ('{"properties": {"a": {"type": []}}}'),
    ('{"properties": {"a": {"type": 5}}}'),
    ('{"properties": {"a": 5}}'),
    ('{"properties": {"a": {"type": "integer", "minimum": "0"}}}'),
    ('{"properties": {"a": {"type": "string", "minLength": -1}}}'),
    ('{"properties": {"a": {"type": "string", "minLength": 1.5}}}'),
    ('{"properties": {"a": {"type": "string", "pattern": "("}}}'),
    ('{"properties": {"a": {"type": "string", "pattern": 5}}}'),
    ('{"properties": {"a": {"type": "string", "pattern": "[[:alpha:]]"}}}'),
    ('{"properties": {"a": {"type": "string", "pattern": "\\mx"}}}'),
    ('{"properties": {"a": {"type": "string", "pattern": "\\Ax\\Z"}}}'),
    ('{"properties": {"a": {"type": "string", "format": "hostname"}}}'),
    ('{"properties": {"a": {"enum": "Y"}}}'),
    ('{"properties": {"a": {"type": "array", "items": [{"type": "integer"}]}}}'),
    ('{"properties": {"a": {"anyOf": []}}}'),
    ('{"properties": {"a": {"type": "array", "items": {"itmes": {}}}}}'),
    ('{"properties": {"a": {"$dynamicRef": "#b"}}}'),
    ('{"properties": {"a": {}}, "additionalProperties": "no"}'),
    ('{"properties": {"a": {}}, "required": "a"}'),
    ('{"properties": {"a": {}}, "required": [5]}'),
    ('{"properties": {"a": {}}, "enum": 1}'),
    ('{"properties": {"a": {}}, "minLength": -3}'),
    ('{"properties": {"g": {"type": "object", "properties": {"z/~": {"oneOf": []}}}}}'),
    ('{"properties": {"a": {}}, "x-normalise": "trim"}'),
    ('{"properties": {"a": {}}, "x-normalise": ["upper"]}'),
    ('{"properties": {"a": {"x-normalise": [1]}}}');
DO $$
DECLARE
    r record;
    said text;
    state text;
BEGIN
    FOR r IN SELECT * FROM refusal ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.register_form('t02_refused', r.definition);
            said := 'ACCEPTED';
            DELETE FROM epro_etl.form WHERE name = 't02_refused';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, state = RETURNED_SQLSTATE;
            said := state || ' ' || said;
        END;
        RAISE INFO E'%\n  %', r.definition, said;
    END LOOP;
END $$;
DROP TABLE refusal;
SELECT count(*) AS left_behind FROM epro_etl.form WHERE name = 't02_refused';
SELECT epro_etl.register_form('t02_typo', '{"properties": {"hours": {"type": "number", "minimun": 0}}}');
SELECT epro_etl.register_form(NULL, '{}');
SELECT epro_etl.register_form('t02', NULL);
SELECT epro_etl.register_form('', '{"properties": {"a": {}}}');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {}}}', '');
SELECT epro_etl.form_items('t02_none');

-- versions: the same again is the same; numbered by itself, or as given; no way back under an old number
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "integer"}, "b": {}}}');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "number"}}}', '7');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "number"}}}', '7');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "string"}}}', '7');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "integer"}}}', '1');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "boolean"}}}', '2026-03 final');
SELECT epro_etl.register_form('t02', '{"properties": {"a": {"type": "boolean"}, "b": {}}}');
SELECT version, definition FROM epro_etl.form WHERE name = 't02' ORDER BY form_id;
SELECT name, type FROM epro_etl.form_items('t02');
-- a version that an edit check of the form does not fit is refused
SELECT epro_etl.add_edit_check('t02', 'a holds', 'a');
SELECT epro_etl.register_form('t02', '{"properties": {"b": {}}}');
SELECT epro_etl.remove_edit_check('t02', 'a holds');
SELECT epro_etl.register_form('t02', '{"properties": {"b": {}}}');

-- a pattern is judged as ECMA-262 has it: \b, \xHH, and "." that is no line break
SELECT probe.open_area('t02');
SELECT epro_etl.register_form('t02_pattern', '{"properties": {
    "word": {"type": "string", "pattern": "\\bmg\\b"},
    "hex":  {"type": "string", "pattern": "^\\x41B$"},
    "dot":  {"type": "string", "pattern": "^a.b$"},
    "part": {"type": "string", "pattern": "[0-9]{2}"},
    "inner": {"type": "string", "pattern": "\\Bmg"}}}');
SELECT epro_etl.create_sink('t02', 't02_pattern', 't02_pattern');
SELECT probe.put('t02_pattern', '{"word": "5 mg", "hex": "AB", "dot": "a b", "part": "x12y", "inner": "5mg"}',
    '{"word": "5mgs"}', '{"hex": "x41B"}', '{"dot": "a\nb"}', '{"part": "1x2"}', '{"inner": "5 mg"}', '{"dot": "a日b"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t02', workers => 0);
SELECT source_id, location, rule, message FROM probe.last;
-- a new version is used from the next run on, and the ledger says which was
SELECT epro_etl.register_form('t02_pattern', definition || jsonb_build_object('properties', definition -> 'properties' ||
    '{"word": {"type": "string"}, "late": {"type": "string"}}')) FROM epro_etl.form WHERE name = 't02_pattern';
SELECT probe.put('t02_pattern', '{"word": "5mgs"}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t02', workers => 0);
SELECT source_id, word, form_version FROM t02_pattern ORDER BY source_id;
SELECT versions -> 't02_pattern' ->> 'version' AS version FROM epro_etl.run_history WHERE pipeline = 't02' ORDER BY run_id;
-- a version that lacks an item which a sink stores: nothing is loaded until the sink is put right
SELECT epro_etl.register_form('t02_pattern', '{"properties": {"word": {"type": "string"}}}');
SELECT probe.put('t02_pattern', '{"word": "x"}');
SELECT status FROM epro_etl.run('t02', workers => 0);
SELECT epro_etl.remove_sink('t02', 't02_pattern', 't02_pattern');
SELECT epro_etl.create_sink('t02', 't02_pattern', 't02_pattern_3');
SELECT status, loaded FROM epro_etl.run('t02', workers => 0);
SELECT source_id, word, form_version FROM t02_pattern_3;
SELECT probe.close_area('t02');
