-- Severities laid over any rule: of a schema's keywords wherever they stand, and of a questionnaire.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT probe.open_area('t35');
SELECT epro_etl.register_form('T35', '{"type": "object",
    "required": ["a", "extra"],
    "properties": {
        "a": {"type": "integer", "not": {"const": 13}, "multipleOf": 2, "anyOf": [{"minimum": 10}, {"maximum": 0}]},
        "b": {"type": "integer", "oneOf": [{"minimum": 5}, {"$ref": "#/$defs/even"}]},
        "c": {"type": "string"},
        "d": false,
        "list": {"type": "array", "maxItems": 2, "uniqueItems": true, "contains": {"type": "number"}, "maxContains": 1,
                 "items": {"type": ["integer", "string"], "minimum": 0}},
        "low": {"$ref": "#/$defs/pressure"}, "high": {"$ref": "#/$defs/pressure"},
        "tree": {"$ref": "#/$defs/tree"}},
    "allOf": [
        {"if": {"properties": {"c": {"const": "x"}}, "required": ["c"]}, "then": {"required": ["b"], "properties": {"a": {"minimum": 20}}}},
        {"properties": {"high": {"$ref": "#/$defs/even"}}}],
    "dependentRequired": {"low": ["high"]},
    "dependentSchemas": {"high": {"properties": {"low": {"minimum": 50}}}},
    "additionalProperties": {"type": "string", "maxLength": 3},
    "maxProperties": 20,
    "$defs": {
        "pressure": {"type": "integer", "minimum": 30, "maximum": 300, "multipleOf": 5},
        "even": {"multipleOf": 2},
        "tree": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 3}, "sub": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}}}');
CREATE VIEW judged AS SELECT n, v.location, v.rule, v.kind, v.severity FROM (VALUES
    (1, '{"a": 13, "b": 3, "c": "x", "d": 1, "long": "1234"}'::jsonb),
    (2, '{"a": 12, "b": 8, "extra": "e", "list": [1, 2, -1, -1], "low": 31}'),
    (3, '{"a": 12, "extra": "e", "low": 35, "high": 35, "tree": {"name": "1", "sub": [{"sub": [{"name": "long"}]}]}}')) AS r (n, payload),
    epro_etl.validate('T35', payload) v;
SELECT * FROM judged ORDER BY 1, 2, 3;
SELECT step, location, rule, severity, says FROM epro_etl.explain_form('T35') WHERE stage = 'validate';

-- each rule by its keyword's place, one severity after the other
CREATE FUNCTION lay(variadic places text[]) RETURNS void LANGUAGE sql AS $$
    SELECT epro_etl.set_severity('T35', p, (ARRAY['warning', 'information', 'off'])[1 + n % 3], 'tried') FROM unnest(places) WITH ORDINALITY AS u (p, n) $$;
CREATE FUNCTION take_back() RETURNS void LANGUAGE sql AS $$
    SELECT epro_etl.set_severity('T35', o.location, NULL) FROM epro_etl.severity_overlay o WHERE o.form = 'T35' AND o.removed_at IS NULL $$;
-- alternatives: what the closest branch says is no more severe; a false schema; names that are no item
SELECT lay('/properties/b/oneOf', '/properties/a/anyOf', '/properties/a/not', '/properties/d', '/required/0', '/additionalProperties');
SELECT * FROM judged WHERE n = 1 ORDER BY 1, 2, 3;
SELECT take_back();
-- a condition and all that it asks, but for what has a severity of its own
SELECT epro_etl.set_severity('T35', '/allOf/0/if', 'warning');
SELECT epro_etl.set_severity('T35', '/allOf/0/then/required', 'error');
SELECT location, rule, severity FROM epro_etl.validate('T35', '{"a": 12, "c": "x", "extra": "e"}');
SELECT location, rule, severity, says FROM epro_etl.form_rules('T35') WHERE location LIKE '/allOf/0/%';
SELECT epro_etl.set_severity('T35', '/allOf/0/if', 'off', 'the condition is under review');
SELECT location, rule, severity FROM epro_etl.validate('T35', '{"a": 12, "c": "x", "extra": "e"}');
SELECT take_back();
-- arrays, and what is said of their elements
SELECT lay('/properties/list/items/minimum', '/properties/list/uniqueItems', '/properties/list/contains', '/properties/list/maxItems', '/dependentRequired');
SELECT * FROM judged WHERE n = 2 ORDER BY 1, 2, 3;
SELECT take_back();
SELECT epro_etl.set_severity('T35', '/properties/list/items', 'warning');
SELECT * FROM judged WHERE n = 2 AND location LIKE '/list/%' ORDER BY 1, 2, 3;
SELECT take_back();
-- by the place that a reference leads to: wherever it is referred to; through an item that is one: there alone
SELECT lay('/$defs/pressure/minimum', '/$defs/pressure/multipleOf', '/$defs/even/multipleOf', '/$defs/tree/properties/name/maxLength', '/$defs/tree/required');
SELECT * FROM judged WHERE n > 1 AND location !~ '^/list' ORDER BY 1, 2, 3;
SELECT * FROM epro_etl.validate('T35', '{"a": 12, "extra": "e", "low": 29, "high": 29, "b": 3}') ORDER BY 1, 2;
SELECT epro_etl.set_severity('T35', '/properties/low/minimum', 'information');
SELECT location, rule, severity FROM epro_etl.validate('T35', '{"a": 12, "extra": "e", "low": 29, "high": 28}') WHERE rule = 'minimum' ORDER BY 1, 3;
SELECT location, rule, severity FROM epro_etl.form_rules('T35') WHERE severity IN ('off', 'warning', 'information');
SELECT take_back();
-- refused: what decides for another rule, and what is no rule
SELECT epro_etl.set_severity('T35', '/properties/a/anyOf/0/minimum', 'warning');
SELECT epro_etl.set_severity('T35', '/properties/a/not/const', 'off', 'no');
SELECT epro_etl.set_severity('T35', '/allOf/0/if/required', 'warning');
SELECT epro_etl.set_severity('T35', '/properties/list/contains/type', 'warning');
SELECT epro_etl.set_severity('T35', '/properties/list/maxContains', 'warning');
SELECT epro_etl.set_severity('T35', '/additionalProperties/maxLength', 'warning');
SELECT epro_etl.set_severity('T35', '/properties/a/anyOf/0', 'warning');
SELECT epro_etl.set_severity('T35', '/allOf/0/then', 'warning');
SELECT epro_etl.set_severity('T35', '/$defs', 'warning');

-- what is no error is as if it held, so that what is left over is still judged, and what was off leaves nothing over
SELECT epro_etl.register_form('T36', '{"type": "object", "properties": {"a": {"type": "integer"}},
    "allOf": [{"properties": {"b": {"minimum": 3}}}], "anyOf": [{"properties": {"c": {"type": "string"}}, "required": ["c"]}, {"required": ["a"]}],
    "unevaluatedProperties": false}');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"a": 1, "b": 1, "c": "c", "z": 1}');
SELECT epro_etl.set_severity('T36', '/allOf/0/properties/b/minimum', 'warning');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"a": 1, "b": 1, "c": "c", "z": 1}');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"a": 1, "b": 1, "c": "c"}');
SELECT epro_etl.set_severity('T36', '/allOf', 'off', 'tried');
SELECT epro_etl.set_severity('T36', '/anyOf', 'off', 'tried');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"a": 1, "b": 1, "c": "c"}');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"b": 1, "z": 1}');
SELECT epro_etl.set_severity('T36', '/unevaluatedProperties', 'information');
SELECT location, rule, severity FROM epro_etl.validate('T36', '{"b": 1, "z": 1}');
-- what decides for the properties of a pattern does so as the form has it, and with the pattern's severity
SELECT epro_etl.register_form('T40', '{"type": "object", "properties": {"p1": {"type": "integer"}, "r": {"$ref": "#/$defs/row"}, "s": {"$ref": "#/$defs/row"}},
    "allOf": [{"patternProperties": {"^p": {"$ref": "#/$defs/low"}}}, {"properties": {"p1": {"$ref": "#/$defs/low"}}}],
    "$defs": {"low": {"minimum": 5}, "row": {"type": "array", "minItems": 2, "items": {"minimum": 5}}}}');
SELECT location, rule, severity FROM epro_etl.validate('T40', '{"p1": 1}');
SELECT epro_etl.set_severity('T40', '/$defs/low/minimum', 'off', 'tried');
SELECT location, rule, severity FROM epro_etl.validate('T40', '{"p1": 1}');
SELECT epro_etl.set_severity('T40', '/allOf/0/patternProperties', 'warning');
SELECT location, rule, severity FROM epro_etl.validate('T40', '{"p1": 1}');
-- through an item that is a reference: what is its own, and nothing that others share
SELECT epro_etl.set_severity('T40', '/properties/r/minItems', 'warning');
SELECT location, rule, severity FROM epro_etl.validate('T40', '{"r": [1], "s": [1]}');
SELECT epro_etl.set_severity('T40', '/properties/r/items/minimum', 'warning');
SELECT epro_etl.set_severity('T40', '/properties/r/items', 'warning');
SELECT location, rule, severity FROM epro_etl.validate('T40', '{"r": [1], "s": [1]}');
-- what takes too long does not hide what failed before; and is no more severe than its rule
SELECT epro_etl.register_form('T41', jsonb_build_object('type', 'object', 'properties', '{"a": {}}'::jsonb, 'additionalProperties', '{"type": "string", "$ref": "#/$defs/d0"}'::jsonb,
    '$defs', (SELECT jsonb_object_agg('d' || i, CASE WHEN i < 24 THEN format('{"allOf": [{"$ref": "#/$defs/d%s"}, {"$ref": "#/$defs/d%1$s"}]}', i + 1) ELSE '{"minLength": 1}' END::jsonb) FROM generate_series(0, 24) i)));
SELECT location, rule, kind, severity FROM epro_etl.validate('T41', '{"b": 1, "cc": "x", "ddd": "x"}');
SELECT location, rule, kind, severity FROM epro_etl.validate('T41', '{"cc": "x", "ddd": "x"}');
SELECT epro_etl.set_severity('T41', '/additionalProperties', 'warning');
SELECT location, rule, kind, severity FROM epro_etl.validate('T41', '{"cc": "x", "ddd": "x"}');
-- a wrong type that is no error: the rest is judged; a condition that nobody knows: its own severity, or it is not evaluated
SELECT epro_etl.register_form('T37', '{"type": "object", "properties": {"a": {"type": "integer", "enum": [1, 2]}, "who": {"type": "string"}, "n": {"type": "integer"},
    "o": {"type": "array", "items": {"type": "integer", "enum": [1]}}},
    "if": {"properties": {"who": {"const": "x"}}}, "then": {"required": ["n"]}, "else": {"required": ["n", "o"]}}');
SELECT epro_etl.set_deid('T37', '/who', 'remove');
SELECT location, rule, kind, severity FROM epro_etl.validate('T37', '{"a": "x", "who": "y", "o": ["x"]}') ORDER BY 1, 2;
SELECT epro_etl.set_severity('T37', '/properties/a/type', 'warning');
SELECT epro_etl.set_severity('T37', '/properties/o/items/type', 'off', 'tried');
SELECT epro_etl.set_severity('T37', '/if', 'warning');
SELECT location, rule, kind, severity FROM epro_etl.validate('T37', '{"a": "x", "who": "y", "o": ["x"]}') ORDER BY 1, 2;
SELECT epro_etl.set_severity('T37', '/then/required', 'off', 'tried');
SELECT epro_etl.set_severity('T37', '/else/required', 'information');
SELECT location, rule, kind, severity FROM epro_etl.validate('T37', '{"a": 1, "who": "y"}') ORDER BY 1, 2;
SELECT epro_etl.set_severity('T37', '/properties/who/type', 'warning');

-- a questionnaire: by the place in it, or by a finding's location and rule
SELECT epro_etl.register_form('T38', '{"resourceType": "Questionnaire", "url": "urn:t38", "effectivePeriod": {"start": "2026-01-01"}, "item": [
    {"linkId": "g", "type": "group", "required": true, "item": [
        {"linkId": "n", "type": "integer", "required": true, "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueInteger": 0},
            {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueInteger": 10}]},
        {"linkId": "why", "type": "string", "maxLength": 3, "required": true, "enableWhen": [{"question": "n", "operator": ">", "answerInteger": 5}],
            "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/regex", "valueString": "[a-z]*"}, {"url": "http://hl7.org/fhir/StructureDefinition/minLength", "valueInteger": 2}]}]},
    {"linkId": "c", "type": "choice", "repeats": true, "answerOption": [{"valueCoding": {"code": "a"}},
        {"valueCoding": {"code": "none"}, "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-optionExclusive", "valueBoolean": true}]}],
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-minOccurs", "valueInteger": 2}, {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-maxOccurs", "valueInteger": 3}]},
    {"linkId": "kg", "type": "quantity", "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption", "valueCoding": {"code": "kg"}},
        {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption", "valueCoding": {"code": "g"}},
        {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-constraint", "valueString": "x"}]},
    {"linkId": "d", "type": "decimal", "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/maxDecimalPlaces", "valueInteger": 1}]},
    {"linkId": "v", "type": "choice", "answerValueSet": "urn:elsewhere"}]}');
CREATE VIEW answered AS SELECT n, v.location, v.rule, v.kind, v.severity FROM (VALUES
    (1, '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": []}'::jsonb),
    (2, '{"resourceType": "QuestionnaireResponse", "status": "new", "questionnaire": "urn:other", "authored": "2025", "colour": 1, "item": [
        {"linkId": "d", "answer": [{"valueDecimal": 1.25}]}, {"linkId": "g", "item": [{"linkId": "n", "answer": [{"valueInteger": 11}]}]},
        {"linkId": "kg", "answer": [{"valueQuantity": {"value": 1, "unit": "lb"}}]}]}'),
    (3, '{"n": -1, "why": "ABCD", "c": ["a", "none", "b", "a"], "v": "x"}'), (4, '{"n": 6, "c": ["a"]}')) AS r (n, payload),
    epro_etl.validate('T38', payload) v;
SELECT * FROM answered ORDER BY 1, 2, 3;
SELECT step, stage, location, rule, severity, says FROM epro_etl.explain_form('T38') WHERE stage IN ('validate', 'not imported');
CREATE FUNCTION lay_all(how text) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(epro_etl.set_severity('T38', p, how, 'tried')) FROM unnest(ARRAY[
        '/status', '/url', '/authored', '/effectivePeriod', '/element', '/item/0/required', '/item/0/item/0/required', '/item/0/item/0/extension/0', '/item/0/item/0/extension/1',
        '/item/0/item/1/maxLength', '/item/0/item/1/enableWhen', '/item/0/item/1/extension/0', '/item/0/item/1/extension/1', '/item/0/item/1/required', '/item/0/order',
        '/item/1/answerOption', '/item/1/answerOption/1/extension/0', '/item/1/extension/0', '/item/1/extension/1', '/item/2/extension/1', '/item/3/extension/0', '/item/4/answerValueSet']) p $$;
SELECT lay_all('warning');
SELECT * FROM answered ORDER BY 1, 2, 3;
SELECT lay_all('off');
SELECT * FROM answered ORDER BY 1, 2, 3;
SELECT lay_all(NULL);
-- as the finding says it
SELECT epro_etl.set_severity('T38', '/n/maxValue', 'information');
SELECT epro_etl.set_severity('T38', '/questionnaire', 'information');
SELECT epro_etl.set_severity('T38', '/kg/unitOption', 'warning');
SELECT * FROM answered WHERE n = 2 AND severity <> 'error' ORDER BY 1, 2, 3;
-- refused: by these a response is read; and what is not there
SELECT epro_etl.set_severity('T38', '/item/0/item/0/type', 'off', 'no');
SELECT epro_etl.set_severity('T38', '/n/repeats', 'warning');
SELECT epro_etl.set_severity('T38', '/linkId', 'warning');
SELECT epro_etl.set_severity('T38', '/modifierExtension', 'warning');
SELECT epro_etl.set_severity('T38', '/item/2/extension/2', 'warning');
SELECT epro_etl.set_severity('T38', '/item/3/required', 'warning');
SELECT epro_etl.set_severity('T38', '/item/9', 'warning');

-- a run goes by them, for a time, and the ledger has the reason
SELECT epro_etl.set_severity('T35', '/properties/a/anyOf', 'off', 'amendment 3', valid_until => now() + interval '1 hour');
SELECT epro_etl.set_severity('T35', '/properties/a/multipleOf', 'warning');
SELECT epro_etl.set_severity('T35', '/dependentRequired', 'off', 'not yet', valid_from => now() + interval '1 hour');
SELECT epro_etl.create_sink('t35', 'T35', 'sink');
INSERT INTO staging (id, form, subject, payload) VALUES (1, 'T35', 'P', '{"a": 5, "extra": "e"}'), (2, 'T35', 'P', '{"a": 4, "extra": "e", "low": 35}'), (3, 'T35', 'P', '{"a": 4}');
SELECT loaded, warned, rejected FROM epro_etl.run('t35', workers => 1);
SELECT f.source_id, f.location, f.rule, f.severity FROM epro_etl.finding f WHERE f.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) ORDER BY 1, 2, 3;
SELECT o.location, o.severity, o.reason FROM epro_etl.run_history h, jsonb_array_elements_text(h.versions -> 'T35' -> 'severities') i
    JOIN epro_etl.severity_overlay o ON o.overlay_id = i::bigint WHERE h.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) ORDER BY 1, 2;

-- of ODM: what was not imported, with the version that came from it and no other; and a reference through an item, in the listing
SELECT epro_etl.register_form('T39', '<?xml version="1.0"?><ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ODMVersion="1.3.2"><Study OID="S"><MetaDataVersion OID="M" Name="M">
    <FormDef OID="T39" Name="f" Repeating="Yes"><ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/></FormDef>
    <ItemGroupDef OID="G" Name="g" Repeating="No"><ItemRef ItemOID="T" Mandatory="Yes"/></ItemGroupDef>
    <ItemDef OID="T" Name="t" DataType="text"><RangeCheck Comparator="EQ" SoftHard="Soft"><CheckValue>a</CheckValue></RangeCheck></ItemDef></MetaDataVersion></Study></ODM>');
SELECT step, stage, location, rule, severity, says FROM epro_etl.explain_form('T39');
SELECT epro_etl.register_form('T39', '{"type": "object", "properties": {"T": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "string", "not": {"const": ""}}}}');
SELECT epro_etl.set_severity('T39', '/properties/T/not', 'warning');
SELECT step, stage, location, rule, severity, says FROM epro_etl.explain_form('T39') WHERE stage <> 'check';
SELECT probe.close_area('t35');
