-- The example of doc/fhir.md: test/readme.sh holds every block of it against the
-- expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE SCHEMA clinic;
SET search_path = clinic, public;
SET timezone = 'UTC';
CREATE TABLE staging (id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
SELECT epro_etl.create_pipeline('clinic', 'staging');
-- the questionnaire
SELECT epro_etl.register_form('PAIN', '{
  "resourceType": "Questionnaire", "url": "https://example.org/Questionnaire/pain", "version": "1.0", "status": "active",
  "item": [
    {"linkId": "1", "type": "group", "text": "Pain today", "item": [
      {"linkId": "1.1", "type": "integer", "text": "From 0 to 10?", "required": true, "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueInteger": 0},
        {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueInteger": 10}]},
      {"linkId": "1.2", "type": "choice", "text": "Where?", "required": true, "repeats": true, "answerOption": [
        {"valueCoding": {"system": "https://example.org/site", "code": "head"}},
        {"valueCoding": {"system": "https://example.org/site", "code": "back"}}],
       "enableWhen": [{"question": "1.1", "operator": ">", "answerInteger": 0}]}]},
    {"linkId": "since", "type": "date", "text": "Since when?"},
    {"linkId": "weight", "type": "quantity", "extension": [
      {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption",
       "valueCoding": {"system": "http://unitsofmeasure.org", "code": "kg"}}]},
    {"linkId": "drug", "type": "choice", "answerValueSet": "https://example.org/ValueSet/drugs"},
    {"linkId": "stable", "type": "boolean", "extension": [
      {"url": "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression",
       "valueExpression": {"language": "text/fhirpath", "expression": "%resource.item.exists()"}}]}
  ]}');
-- the items, and the table made for them
SELECT name, location, type, required FROM epro_etl.form_items('PAIN');
SELECT epro_etl.create_sink('clinic', 'PAIN', 'pain');
-- responses: one as it should be, one in doubt, two that are wrong, and one without the resource around it
INSERT INTO staging VALUES
  (1, 'ST01', 'PAIN', 'P-001', 'DAY 1', '2026-03-01 07:30Z', '{"resourceType": "QuestionnaireResponse", "status": "completed",
    "questionnaire": "https://example.org/Questionnaire/pain|1.0", "item": [
      {"linkId": "1", "item": [
        {"linkId": "1.1", "answer": [{"valueInteger": 4}]},
        {"linkId": "1.2", "answer": [{"valueCoding": {"system": "https://example.org/site", "code": "head"}},
                                     {"valueCoding": {"system": "https://example.org/site", "code": "back"}}]}]},
      {"linkId": "since", "answer": [{"valueDate": "2026-02"}]},
      {"linkId": "weight", "answer": [{"valueQuantity": {"value": 71.5, "system": "http://unitsofmeasure.org", "code": "kg"}}]}]}'),
  (2, 'ST01', 'PAIN', 'P-002', 'DAY 1', '2026-03-01 08:00Z', '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": [
      {"linkId": "1", "item": [{"linkId": "1.1", "answer": [{"valueInteger": 0}]}]},
      {"linkId": "drug", "answer": [{"valueCoding": {"system": "http://www.whocc.no/atc", "code": "N02BE01"}}]}]}'),
  (3, 'ST01', 'PAIN', 'P-003', 'DAY 1', '2026-03-01 08:10Z', '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": [
      {"linkId": "1", "item": [{"linkId": "1.1", "answer": [{"valueInteger": 11}]}]},
      {"linkId": "weight", "answer": [{"valueQuantity": {"value": 160, "unit": "lb"}}]}]}'),
  (4, 'ST01', 'PAIN', 'P-004', 'DAY 1', '2026-03-01 08:20Z', '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": [
      {"linkId": "1", "item": [
        {"linkId": "1.1", "answer": [{"valueInteger": 0}]},
        {"linkId": "1.2", "answer": [{"valueCoding": {"system": "https://example.org/site", "code": "head"}}]}]},
      {"linkId": "mood", "answer": [{"valueString": "fine"}]}]}'),
  (5, 'ST01', 'PAIN', 'P-005', 'DAY 1', '2026-03-01 08:30Z', '{"1.1": 2, "1.2": ["back"], "since": "2026-02-20", "weight": 64}');
SELECT status, claimed, loaded, rejected FROM epro_etl.run('clinic', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM epro_etl.finding WHERE form = 'PAIN' ORDER BY source_id, location, rule;
-- what arrived
SELECT source_id, "1_1", "1_2", since, weight, drug FROM pain ORDER BY source_id;
DROP EXTENSION epro_etl;
SET client_min_messages = warning;
DROP SCHEMA clinic CASCADE;
