-- Severities laid over keywords and edit checks: which they are, until when, why.
\set SHOW_CONTEXT never
SELECT probe.open_area('t31');
SELECT epro_etl.register_form('T31', '{"type": "object", "required": ["a", "b"], "properties": {
    "a": {"type": "integer", "maximum": 10}, "b": {"type": "string", "enum": ["X", "Y"]}, "a/b": {"type": "integer", "minimum": 0},
    "g": {"type": "object", "required": ["c"], "properties": {"c": {"type": "string", "maxLength": 2, "pattern": "^A"}}}}}');
SELECT epro_etl.add_edit_check('T31', 'pair', 'a > 0 OR b = ''X''');
CREATE VIEW judged AS SELECT n, v.location, v.rule, v.severity FROM (VALUES
    (1, '{"a": 11, "b": "Z", "g": {"c": "Bcd"}}'::jsonb), (2, '{"a": -1, "b": "Y", "g": {}, "a/b": -1}'), (3, '{}')) AS r (n, payload),
    epro_etl.validate('T31', payload) v WHERE v.kind <> 'not evaluated';
SELECT * FROM judged ORDER BY 1, 2, 3;
-- keywords, each by its place in the definition
SELECT epro_etl.set_severity('T31', '/properties/a/maximum', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/b/enum', 'off', reason => 'the code list is being revised');
SELECT epro_etl.set_severity('T31', '/properties/g/properties/c/maxLength', 'information');
SELECT epro_etl.set_severity('T31', '/properties/g/properties/c/pattern', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/g/required', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/a~1b/minimum', 'warning');
SELECT epro_etl.set_severity('T31', '/required/1', 'warning');
SELECT epro_etl.set_severity('T31', 'pair', 'information');
SELECT * FROM judged ORDER BY 1, 2, 3;
-- the whole list of the required, and a check that is off
SELECT epro_etl.set_severity('T31', '/required', 'information');
SELECT epro_etl.set_severity('T31', 'pair', 'off', 'under review');
SELECT * FROM judged WHERE n > 1 ORDER BY 1, 2, 3;
-- taken back
SELECT epro_etl.set_severity('T31', '/required', NULL);
SELECT epro_etl.set_severity('T31', '/required/1', NULL);
SELECT epro_etl.set_severity('T31', 'pair', NULL);
SELECT * FROM judged WHERE n = 3 ORDER BY 1, 2, 3;
-- for a time: before, within and after
SELECT epro_etl.set_severity('T31', '/properties/a/maximum', 'off', 'amendment 2', valid_from => now() + interval '1 day');
SELECT count(*) FROM judged WHERE rule = 'maximum';
SELECT epro_etl.set_severity('T31', '/properties/a/maximum', 'off', 'amendment 1', valid_until => now() + interval '1 hour');
SELECT count(*) FROM judged WHERE rule = 'maximum';
SELECT epro_etl.set_severity('T31', '/properties/a/maximum', 'error', valid_from => now() - interval '2 hours', valid_until => now() - interval '1 hour');
SELECT count(*) FROM judged WHERE rule = 'maximum';
SELECT location, severity, reason, valid_from < now() AS has_begun, valid_until > now() AS goes_on, removed_at IS NOT NULL AS removed
    FROM epro_etl.severity_overlay WHERE form = 'T31' ORDER BY overlay_id;
-- refused
SELECT epro_etl.set_severity('T31', '/properties/a/minimum', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/z/minimum', 'warning', valid_from => now() + interval '1 day');
SELECT epro_etl.set_severity('T31', '/required/7', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/a', 'warning');
SELECT epro_etl.set_severity('T31', 'no check', 'warning');
SELECT epro_etl.set_severity('T31', '/properties/a/type', 'off');
SELECT epro_etl.set_severity('T31', '/properties/a/type', 'fatal');
SELECT epro_etl.set_severity('T31', '/properties/a/type', 'warning', valid_from => now(), valid_until => now());
SELECT epro_etl.set_severity('T31', NULL, 'warning');
SELECT epro_etl.set_severity('T30', '/required', 'warning');
-- a run goes by them, and the ledger says by which
SELECT epro_etl.create_sink('t31', 'T31', 'sink');
INSERT INTO staging (id, form, subject, payload) VALUES (1, 'T31', 'P', '{"a": 11, "b": "Z"}'), (2, 'T31', 'P', '{"a": "x", "b": "Z"}');
SELECT loaded, warned, rejected FROM epro_etl.run('t31', workers => 1);
SELECT source_id, a, b FROM sink;
SELECT o.location, o.severity, o.reason FROM epro_etl.run_history h, jsonb_array_elements_text(h.versions -> 'T31' -> 'severities') i
    JOIN epro_etl.severity_overlay o ON o.overlay_id = i::bigint WHERE h.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) ORDER BY 1, 2;
-- a new version without the keyword
SELECT epro_etl.register_form('T31', '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}');
SELECT probe.close_area('t31');
