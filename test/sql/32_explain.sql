-- explain_form(): what was compiled, in the order of the flow.
\set SHOW_CONTEXT never
SELECT epro_etl.register_form('T32', '{"type": "object", "required": ["hours"], "x-normalise": ["trim", "coerce"], "properties": {
    "hours": {"type": "integer", "minimum": 0, "maximum": 24}, "name": {"type": "string", "maxLength": 3},
    "g": {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}}}}');
SELECT epro_etl.set_deid('T32', '/name', 'remove');
SELECT epro_etl.add_lookup('T32', 'known', 'EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relname = visit)');
SELECT epro_etl.add_edit_check('T32', 'short', 'hours > 3', 'warning', condition => 'hours IS NOT NULL');
SELECT epro_etl.add_edit_check('T32', 'whole', 'hours = trunc(hours)');
SELECT epro_etl.add_score('T32', 'twice', '{"expression": "hours * 2"}');
SELECT epro_etl.set_severity('T32', '/properties/hours/maximum', 'warning');
SELECT epro_etl.set_severity('T32', 'whole', 'off', 'under review');
SELECT * FROM epro_etl.explain_form('T32');
SELECT * FROM epro_etl.explain_form('T33');
SELECT * FROM epro_etl.explain_form(NULL);
