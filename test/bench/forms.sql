-- For turns.sh: one questionnaire, its responses, and the same rules declared in several ways.
--
-- :rows responses of 50 items, about 900 bytes of jsonb each: 18 answers from 0 to 3, six from 0 to 100, three dates,
-- a yes or no, a code, a note, and twenty follow-ups, each asked where an answer is 3; and three identifiers. One
-- response in 500 has an answer that is out of range. The rows are the same whenever it runs.
SET client_min_messages = warning;
SET search_path = bench;

CREATE FUNCTION bits(response bigint, item integer, mask integer) RETURNS integer LANGUAGE sql IMMUTABLE
    RETURN hashint8(response * 64 + item) & mask;
-- the question that follow-up f hangs on, and whether it is asked
CREATE FUNCTION parent(f integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN 1 + (f - 1) % 18;

CREATE TABLE pool (id bigint PRIMARY KEY, study text NOT NULL, subject text NOT NULL, visit text NOT NULL,
                   authored timestamptz NOT NULL, payload jsonb NOT NULL);
INSERT INTO pool
SELECT r, 'ST01', 'S' || r % 5000, 'D' || r / 5000, timestamptz '2026-01-01 08:00+00' + r * interval '7 s',
       (SELECT jsonb_object_agg('q' || i, CASE
            WHEN i = 5 AND r % 500 = 0 THEN to_jsonb(9)
            WHEN i <= 18 THEN to_jsonb(bits(r, i, 3))
            WHEN i <= 24 THEN to_jsonb((bits(r, i, 1023) % 1000) / 10.0)
            WHEN i <= 27 THEN to_jsonb(date '2026-01-01' + bits(r, i, 255))
            WHEN i = 28 THEN to_jsonb(bits(r, i, 1) = 1)
            WHEN i = 29 THEN to_jsonb((ARRAY['NONE', 'MILD', 'MODERATE', 'SEVERE'])[1 + bits(r, i, 3)])
            ELSE to_jsonb('a note, ' || md5(r::text)) END)
        FROM generate_series(1, 30) i)
       || coalesce((SELECT jsonb_object_agg('f' || f, bits(r, 32 + f, 7)) FROM generate_series(1, 20) f
                    WHERE bits(r, parent(f), 3) = 3 AND NOT (parent(f) = 5 AND r % 500 = 0)), '{}')
       || jsonb_build_object('name', 'name ' || r, 'email', 'p' || r || '@example.org',
                             'dob', make_date(1940 + (r % 50)::integer, 3, 12))
FROM generate_series(1, :rows) r;
COMMENT ON TABLE pool IS 'responses of 50 items';
CREATE TABLE staging (LIKE pool INCLUDING ALL);

-- JSON Schema; the range of the dates has no keyword there, so it is an edit check
CREATE FUNCTION json_form() RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('type', 'object',
    'required', (SELECT jsonb_agg('q' || i) FROM generate_series(1, 27) i),
    'properties', (SELECT jsonb_object_agg('q' || i, CASE
             WHEN i <= 18 THEN '{"type": "integer", "minimum": 0, "maximum": 3}'
             WHEN i <= 24 THEN '{"type": "number", "minimum": 0, "maximum": 100}'
             WHEN i <= 27 THEN '{"type": "string", "format": "date"}'
             WHEN i = 28 THEN '{"type": "boolean"}'
             WHEN i = 29 THEN '{"type": "string", "enum": ["NONE", "MILD", "MODERATE", "SEVERE"]}'
             ELSE '{"type": "string", "maxLength": 200}' END::jsonb) FROM generate_series(1, 30) i)
        || (SELECT jsonb_object_agg('f' || f, '{"type": "integer", "minimum": 0, "maximum": 7}'::jsonb) FROM generate_series(1, 20) f)
        || '{"name": {"type": "string"}, "email": {"type": "string"}, "dob": {"type": "string", "format": "date"}}');
CREATE FUNCTION dates_by_edit_check(form text) RETURNS SETOF void LANGUAGE sql AS $$
    SELECT epro_etl.add_edit_check(form, 'q' || i || ' in the study', format('q%s BETWEEN date ''2025-01-01'' AND date ''2027-01-01''', i))
    FROM generate_series(25, 27) i $$;

-- FHIR Questionnaire; conditional: the follow-ups have their conditions
CREATE FUNCTION limited(type text, value text, low text, high text) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN format(
    '{"type": "%s", "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/minValue", "value%s": %s},
       {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "value%2$s": %4$s}]}', type, value, low, high)::jsonb;
CREATE FUNCTION fhir_form(conditional boolean) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('resourceType', 'Questionnaire', 'status', 'active',
    'item', (SELECT jsonb_agg(jsonb_build_object('linkId', 'q' || i, 'required', i <= 27) || CASE
             WHEN i <= 18 THEN limited('integer', 'Integer', '0', '3')
             WHEN i <= 24 THEN limited('decimal', 'Decimal', '0', '100')
             WHEN i <= 27 THEN limited('date', 'Date', '"2025-01-01"', '"2027-01-01"')
             WHEN i = 28 THEN '{"type": "boolean"}'
             WHEN i = 29 THEN '{"type": "choice", "answerOption": [{"valueCoding": {"code": "NONE"}}, {"valueCoding": {"code": "MILD"}},
                 {"valueCoding": {"code": "MODERATE"}}, {"valueCoding": {"code": "SEVERE"}}]}'
             ELSE '{"type": "string", "maxLength": 200}' END ORDER BY i) FROM generate_series(1, 30) i)
        || (SELECT jsonb_agg(jsonb_build_object('linkId', 'f' || f) || limited('integer', 'Integer', '0', '7')
                || CASE WHEN conditional THEN jsonb_build_object('required', true, 'enableWhen',
                       jsonb_build_array(jsonb_build_object('question', 'q' || parent(f), 'operator', '=', 'answerInteger', 3))) ELSE '{}' END ORDER BY f)
            FROM generate_series(1, 20) f)
        || '[{"linkId": "name", "type": "string"}, {"linkId": "email", "type": "string"}, {"linkId": "dob", "type": "date"}]');

-- CDISC ODM
CREATE FUNCTION item_def(oid text, type text, low text, high text) RETURNS xml LANGUAGE sql IMMUTABLE RETURN xmlelement(NAME "ItemDef",
    xmlattributes(oid AS "OID", oid AS "Name", type AS "DataType"),
    xmlelement(NAME "RangeCheck", xmlattributes('GE' AS "Comparator", 'Hard' AS "SoftHard"), xmlelement(NAME "CheckValue", low)),
    xmlelement(NAME "RangeCheck", xmlattributes('LE' AS "Comparator", 'Hard' AS "SoftHard"), xmlelement(NAME "CheckValue", high)));
CREATE FUNCTION odm_form(form text, conditional boolean) RETURNS xml LANGUAGE sql RETURN xmlelement(NAME "ODM",
    xmlattributes('http://www.cdisc.org/ns/odm/v1.3' AS xmlns, '1.3.2' AS "ODMVersion", 'Snapshot' AS "FileType", 'F' AS "FileOID",
                  '2026-01-01T00:00:00' AS "CreationDateTime"),
    xmlelement(NAME "Study", xmlattributes('ST01' AS "OID"), xmlelement(NAME "MetaDataVersion", xmlattributes('V1' AS "OID", 'V1' AS "Name"),
        xmlelement(NAME "FormDef", xmlattributes(form AS "OID", form AS "Name", 'No' AS "Repeating"),
            xmlelement(NAME "ItemGroupRef", xmlattributes('IG' AS "ItemGroupOID", 'Yes' AS "Mandatory"))),
        xmlelement(NAME "ItemGroupDef", xmlattributes('IG' AS "OID", 'IG' AS "Name", 'No' AS "Repeating"),
            (SELECT xmlagg(xmlelement(NAME "ItemRef", xmlattributes('q' || i AS "ItemOID", CASE WHEN i <= 27 THEN 'Yes' ELSE 'No' END AS "Mandatory")) ORDER BY i)
             FROM generate_series(1, 30) i),
            (SELECT xmlagg(xmlelement(NAME "ItemRef", xmlattributes('f' || f AS "ItemOID", CASE WHEN conditional THEN 'Yes' ELSE 'No' END AS "Mandatory",
                               CASE WHEN conditional THEN 'C' || f END AS "CollectionExceptionConditionOID")) ORDER BY f)
             FROM generate_series(1, 20) f),
            (SELECT xmlagg(xmlelement(NAME "ItemRef", xmlattributes(n AS "ItemOID", 'No' AS "Mandatory"))) FROM unnest('{name,email,dob}'::text[]) n)),
        (SELECT xmlagg(CASE
             WHEN i <= 18 THEN item_def('q' || i, 'integer', '0', '3')
             WHEN i <= 24 THEN item_def('q' || i, 'float', '0', '100')
             WHEN i <= 27 THEN item_def('q' || i, 'date', '2025-01-01', '2027-01-01')
             WHEN i = 28 THEN xmlelement(NAME "ItemDef", xmlattributes('q28' AS "OID", 'q28' AS "Name", 'boolean' AS "DataType"))
             WHEN i = 29 THEN xmlelement(NAME "ItemDef", xmlattributes('q29' AS "OID", 'q29' AS "Name", 'text' AS "DataType", 8 AS "Length"),
                                         xmlelement(NAME "CodeListRef", xmlattributes('CL' AS "CodeListOID")))
             ELSE xmlelement(NAME "ItemDef", xmlattributes('q30' AS "OID", 'q30' AS "Name", 'text' AS "DataType", 200 AS "Length")) END ORDER BY i)
         FROM generate_series(1, 30) i),
        (SELECT xmlagg(item_def('f' || f, 'integer', '0', '7') ORDER BY f) FROM generate_series(1, 20) f),
        (SELECT xmlagg(xmlelement(NAME "ItemDef", xmlattributes(n AS "OID", n AS "Name", CASE n WHEN 'dob' THEN 'date' ELSE 'text' END AS "DataType")))
         FROM unnest('{name,email,dob}'::text[]) n),
        xmlelement(NAME "CodeList", xmlattributes('CL' AS "OID", 'CL' AS "Name", 'text' AS "DataType"),
            (SELECT xmlagg(xmlelement(NAME "CodeListItem", xmlattributes(c AS "CodedValue"),
                 xmlelement(NAME "Decode", xmlelement(NAME "TranslatedText", c)))) FROM unnest('{NONE,MILD,MODERATE,SEVERE}'::text[]) c)),
        CASE WHEN conditional THEN
            (SELECT xmlagg(xmlelement(NAME "ConditionDef", xmlattributes('C' || f AS "OID", 'C' || f AS "Name"),
                 xmlelement(NAME "Description", xmlelement(NAME "TranslatedText", 'not asked')),
                 xmlelement(NAME "FormalExpression", xmlattributes('XPath' AS "Context"),
                            format('../ItemData[@ItemOID="q%s"][@Value!="3"]', parent(f)))) ORDER BY f) FROM generate_series(1, 20) f) END)));

-- The pipelines. All but the first three have forty conditional checks: of each
-- follow-up that it is answered where it is asked, and only there.
INSERT INTO entrant (position, name, plain) VALUES (1, 'json', 'json'), (2, 'fhir', 'fhir'), (3, 'odm', 'odm'),
    (4, 'json_checks', 'json'), (5, 'json_if', 'json'), (6, 'fhir_when', 'fhir'), (7, 'odm_cond', 'odm');
UPDATE entrant SET pipeline = name, statement = format('SELECT FROM epro_etl.run(%L, workers => 1)', name);

SELECT epro_etl.register_form('json', json_form()), epro_etl.register_form('json_checks', json_form()),
       epro_etl.register_form('json_if', json_form() || jsonb_build_object('allOf',
           (SELECT jsonb_agg(jsonb_build_object(
                'if', jsonb_build_object('required', jsonb_build_array('q' || parent(f)),
                                         'properties', jsonb_build_object('q' || parent(f), '{"const": 3}'::jsonb)),
                'then', jsonb_build_object('required', jsonb_build_array('f' || f)),
                'else', jsonb_build_object('properties', jsonb_build_object('f' || f, false)))) FROM generate_series(1, 20) f))),
       epro_etl.register_form('fhir', fhir_form(false)), epro_etl.register_form('fhir_when', fhir_form(true)),
       epro_etl.register_form('odm', odm_form('odm', false)), epro_etl.register_form('odm_cond', odm_form('odm_cond', true)) \g /dev/null
SELECT dates_by_edit_check(form) FROM unnest('{json,json_checks,json_if}'::text[]) form \g /dev/null
SELECT epro_etl.add_check('json_checks', 'f' || f || ' asked', 'required_if', jsonb_build_object('items', jsonb_build_array('f' || f), 'when', jsonb_build_object('q' || parent(f), 3))),
       epro_etl.add_check('json_checks', 'f' || f || ' not asked', 'blank_unless', jsonb_build_object('items', jsonb_build_array('f' || f), 'when', jsonb_build_object('q' || parent(f), 3)))
FROM generate_series(1, 20) f \g /dev/null
DO $$
DECLARE
    e record;
BEGIN
    FOR e IN SELECT * FROM bench.entrant LOOP
        PERFORM epro_etl.set_deid(e.name, '/name', 'remove'), epro_etl.set_deid(e.name, '/email', 'remove'),
                epro_etl.set_deid(e.name, '/dob', 'generalize', '{"to": "age"}');
        EXECUTE format('CREATE TABLE bench.%I (source_id bigint PRIMARY KEY, study text, subject_key text, dob integer, %s, %s, authored timestamptz)', 'sink_' || e.name,
            (SELECT string_agg('q' || i || CASE WHEN i <= 18 THEN ' integer' WHEN i <= 24 THEN ' numeric' WHEN i <= 27 THEN ' date'
                 WHEN i = 28 THEN ' boolean' ELSE ' text' END, ', ') FROM generate_series(1, 30) i),
            (SELECT string_agg('f' || f || ' integer', ', ') FROM generate_series(1, 20) f));
        PERFORM epro_etl.create_pipeline(e.name, 'bench.staging', jsonb_build_object('form', jsonb_build_object('value', e.name)));
        PERFORM epro_etl.add_sink(e.name, e.name, ('bench.sink_' || e.name)::regclass);
    END LOOP;
END $$;
