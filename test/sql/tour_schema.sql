-- The examples of doc/json-schema.md: test/readme.sh holds every block of it
-- against the expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
CREATE SCHEMA schema_page;
SET search_path = schema_page, public;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT epro_etl.register_form('INTAKE', $$ {
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["smokes", "born"],
  "x-normalise": ["trim", "coerce"],
  "properties": {
    "born":    {"type": "string", "format": "date"},
    "smokes":  {"enum": ["never", "former", "daily"], "type": "string"},
    "per_day": {"type": "integer", "minimum": 1, "maximum": 200},
    "quit":    {"type": "string", "pattern": "^[0-9]{4}$"},
    "vitals":  {"type": "object", "properties": {
                  "systolic":  {"$ref": "#/$defs/pressure"},
                  "diastolic": {"$ref": "#/$defs/pressure"}}},
    "drugs":   {"type": "array", "maxItems": 20, "uniqueItems": true,
                "items": {"type": "object", "required": ["code"],
                          "properties": {"code": {"type": "string", "pattern": "^[A-Z][0-9]{2}"},
                                         "dose": {"type": "number", "exclusiveMinimum": 0}}}}
  },
  "allOf": [
    {"if":   {"properties": {"smokes": {"const": "daily"}},  "required": ["smokes"]},
     "then": {"required": ["per_day"]}, "else": {"properties": {"per_day": false}}},
    {"if":   {"properties": {"smokes": {"const": "former"}}, "required": ["smokes"]},
     "then": {"required": ["quit"]}}
  ],
  "additionalProperties": false,
  "$defs": {"pressure": {"type": "integer", "minimum": 30, "maximum": 300}}
} $$);
SELECT name, location, type, required FROM epro_etl.form_items('INTAKE');
SELECT location, rule, message FROM epro_etl.validate('INTAKE', '{"born": "1970-03-04", "smokes": "daily", "per_day": " 10 "}');
SELECT location, rule, message FROM epro_etl.validate('INTAKE', '{"born": "1970-02-30", "smokes": "daily"}');
SELECT location, rule, message FROM epro_etl.validate('INTAKE', '{"born": "1970-03-04", "smokes": "former", "per_day": 3, "e-mail": "a@b.example"}');
SELECT location, rule, message FROM epro_etl.validate('INTAKE',
    '{"born": "1970-03-04", "smokes": "never", "vitals": {"systolic": 20}, "drugs": [{"code": "A10", "dose": 5}, {"code": "10A"}, {"code": "A10", "dose": 5}]}');
SELECT epro_etl.register_form('BAD', '{"type": "object", "properties": {"age": {"type": "integer", "minimun": 0}}}');
SELECT epro_etl.register_form('BAD', '{"type": "object", "properties": {"age": {"$ref": "https://elsewhere.example/age.json"}}}');
DROP EXTENSION epro_etl;
SET client_min_messages = warning;
DROP SCHEMA schema_page CASCADE;
