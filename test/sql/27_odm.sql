-- CDISC ODM: each construct by a document of its own, with responses that pass
-- and that fail; what is refused; what an import again replaces.
\set SHOW_CONTEXT never
SELECT probe.open_area('t27');
-- a form F of one mandatory group G: ItemRefs, and what else the MetaDataVersion has
CREATE FUNCTION odm(refs text, defs text, form text DEFAULT '<ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/>', more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
    SELECT '<?xml version="1.0" encoding="UTF-8"?><ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ODMVersion="1.3.2"><Study OID="S"><BasicDefinitions>'
        '<MeasurementUnit OID="MU.CM" Name="centimetre"><Symbol><TranslatedText xml:lang="en">cm</TranslatedText></Symbol></MeasurementUnit>'
        '<MeasurementUnit OID="MU.IN" Name="inch"><Symbol><TranslatedText xml:lang="en">in</TranslatedText></Symbol></MeasurementUnit></BasicDefinitions>'
        '<MetaDataVersion OID="M" Name="M"><FormDef OID="F" Name="The form" Repeating="No">' || form || '</FormDef>'
        '<ItemGroupDef OID="G" Name="The group" Repeating="No">' || refs || '</ItemGroupDef>' || more || defs || '</MetaDataVersion></Study></ODM>' $$;
-- what the document's form F says of responses, one after the other
CREATE FUNCTION judged(document text, VARIADIC payloads jsonb[]) RETURNS TABLE (response jsonb, rule text, kind text, severity text, said text) LANGUAGE plpgsql AS $$
DECLARE
    dry record;
BEGIN
    PERFORM epro_etl.register_odm(document::xml);
    IF NOT EXISTS (SELECT FROM epro_etl.sink s JOIN epro_etl.pipeline p USING (pipeline_id) WHERE p.name = 't27') THEN
        PERFORM epro_etl.create_sink('t27', 'F', 'answers', 'long');
    END IF;
    TRUNCATE staging;
    ALTER SEQUENCE staged RESTART;
    PERFORM probe.put('F', VARIADIC payloads);
    SELECT * INTO dry FROM epro_etl.run('t27', workers => 0, dry_run => true);
    RETURN QUERY SELECT s.payload, f.rule, f.kind, f.severity, f.message FROM staging s
        LEFT JOIN epro_etl.finding f ON f.run_id = dry.run_id AND f.source_id = s.id::text ORDER BY s.id, f.rule COLLATE "C";
END $$;

-- DataTypes: what is accepted, and what is not
CREATE FUNCTION typed(data_type text, VARIADIC answers jsonb[]) RETURNS TABLE (answer jsonb, rule text) LANGUAGE sql AS $$
    SELECT j.response -> 'I', j.rule FROM judged(odm('<ItemRef ItemOID="I" Mandatory="Yes"/>', format('<ItemDef OID="I" Name="i" DataType="%s"/>', data_type)),
        VARIADIC (SELECT array_agg(jsonb_build_object('I', a) ORDER BY n) FROM unnest(answers) WITH ORDINALITY AS u (a, n))) j $$;
SELECT d.data_type, string_agg(t.answer::text, ' ') FILTER (WHERE t.rule IS NULL) AS taken, string_agg(t.answer::text || ' ' || t.rule, '; ') FILTER (WHERE t.rule IS NOT NULL) AS refused
    FROM (VALUES (1, 'integer', '{"7","\"7\"","7.5"}'::jsonb[]), (2, 'float', '{"7.5","\"x\""}'), (3, 'double', '{"1e3","true"}'), (4, 'boolean', '{"true","\"yes\""}'),
        (5, 'text', '{"\"a\"","{}"}'), (6, 'string', '{"\"a\"","[]"}'), (7, 'date', '{"\"2024-02-29\"","\"2023-02-29\""}'),
        (8, 'time', '{"\"23:59:59\"","\"07:00:00.5+02:00\"","\"24:00:00\""}'),
        (9, 'datetime', '{"\"2024-02-29T10:00:00\"","\"2000-02-29T10:00:00Z\"","\"1900-02-29T10:00:00\"","\"2024-01-01\""}'),
        (10, 'partialDate', '{"\"2024\"","\"2024-02\"","\"2024-02-29\"","\"2024-13\"","\"2023-02-30\""}'),
        (11, 'partialTime', '{"\"10\"","\"10:30\"","\"10:30:00Z\"","\"25\""}'),
        (12, 'partialDatetime', '{"\"2024\"","\"2024-02-29T10\"","\"2024-02T10\""}'),
        (13, 'incompleteDate', '{"\"2024----\"","\"2024---01\"","\"-----\"","\"2024-00-01\""}'), (14, 'incompleteTime', '{"\"-:30:-\"","\"-:61:-\""}'),
        (15, 'incompleteDatetime', '{"\"2024---01T-:30:-\"","\"2024-1-1\""}'), (16, 'durationDatetime', '{"\"P1DT2H\"","\"P2W\"","\"P\"","\"P1DT\""}'),
        (17, 'intervalDatetime', '{"\"2024-01-01/2024-02\"","\"2024/P1M\"","\"2024\""}'), (18, 'hexBinary', '{"\"0aFF\"","\"0\""}'),
        (19, 'base64Binary', '{"\"aGk=\"","\"aGk\""}'), (20, 'hexFloat', '{"\"3ff0000000000000\"","\"3ff0\""}'), (21, 'base64Float', '{"\"P/AAAAAAAAA=\"","\"P/A=\""}'),
        (22, 'URI', '{"\"http://a.example/x\"","\"a b\""}')) AS d (n, data_type, answers), LATERAL typed(d.data_type, VARIADIC d.answers) t
    GROUP BY d.n, d.data_type ORDER BY d.n;

-- Length and SignificantDigits
SELECT * FROM judged(odm('<ItemRef ItemOID="N" Mandatory="No"/><ItemRef ItemOID="X" Mandatory="No"/><ItemRef ItemOID="T" Mandatory="No"/><ItemRef ItemOID="U" Mandatory="No"/>',
    '<ItemDef OID="N" Name="n" DataType="integer" Length="2"/><ItemDef OID="X" Name="x" DataType="float" Length="4" SignificantDigits="1"/>'
    '<ItemDef OID="T" Name="t" DataType="text" Length="3"/><ItemDef OID="U" Name="u" DataType="URI" Length="3"/>'),
    '{"N": -99, "X": 999.9, "T": "äöü", "U": "http://a.example"}', '{"N": 100}', '{"X": 1000}', '{"X": 1.25}', '{"T": "abcd"}');
SELECT construct, oid, detail FROM epro_etl.import_report WHERE form = 'F' AND status = 'not imported';

-- code lists, in the item's own type; an external one is not judged
SELECT * FROM judged(odm('<ItemRef ItemOID="N" Mandatory="No"/><ItemRef ItemOID="T" Mandatory="No"/><ItemRef ItemOID="E" Mandatory="No"/><ItemRef ItemOID="B" Mandatory="No"/>',
    '<ItemDef OID="N" Name="n" DataType="integer"><CodeListRef CodeListOID="CN"/></ItemDef><ItemDef OID="T" Name="t" DataType="text"><CodeListRef CodeListOID="CT"/></ItemDef>'
    '<ItemDef OID="E" Name="e" DataType="text"><CodeListRef CodeListOID="CE"/></ItemDef><ItemDef OID="B" Name="b" DataType="integer"><CodeListRef CodeListOID="CT"/></ItemDef>'
    '<CodeList OID="CN" Name="cn" DataType="integer"><CodeListItem CodedValue="0"><Decode><TranslatedText xml:lang="de">nein</TranslatedText></Decode></CodeListItem>'
    '<CodeListItem CodedValue="1"><Decode><TranslatedText xml:lang="de">ja</TranslatedText><TranslatedText xml:lang="en">yes</TranslatedText></Decode></CodeListItem></CodeList>'
    '<CodeList OID="CT" Name="ct" DataType="text"><EnumeratedItem CodedValue="A"/><EnumeratedItem CodedValue="&lt; 1"/></CodeList>'
    '<CodeList OID="CE" Name="ce" DataType="text"><ExternalCodeList Dictionary="MedDRA" Version="26"/></CodeList>'),
    '{"N": 1, "T": "< 1", "E": "anything", "B": 5}', '{"N": 2}', '{"T": "a"}');
SELECT construct, oid, detail FROM epro_etl.import_report WHERE form = 'F' AND status = 'not imported';
SELECT definition -> 'properties' -> 'N' AS n FROM epro_etl.form WHERE name = 'F' ORDER BY form_id DESC LIMIT 1;

-- range checks: all comparators; a plain limit is a keyword, a soft one a warning, a message is kept
CREATE FUNCTION checked(data_type text, comparator text, value text, answer jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(j.rule || ' (' || j.kind || ', ' || j.severity || ')', '; '), 'holds') FROM judged(odm('<ItemRef ItemOID="I" Mandatory="No"/>',
        format('<ItemDef OID="I" Name="i" DataType="%s"><RangeCheck Comparator="%s" SoftHard="Soft">%s</RangeCheck></ItemDef>', data_type, comparator,
               (SELECT string_agg('<CheckValue>' || v || '</CheckValue>', '') FROM unnest(string_to_array(value, '|')) v))), jsonb_build_object('I', answer)) j $$;
SELECT c.*, checked(data_type, comparator, value, passing) AS of_passing, checked(data_type, comparator, value, failing) AS of_failing
    FROM (VALUES ('integer', 'LT', '5', '4'::jsonb, '5'::jsonb), ('integer', 'LE', '5', '5', '6'), ('float', 'GT', '-0.5', '0', '-0.5'), ('float', 'GE', '1e2', '100', '99.9'),
        ('integer', 'EQ', '5', '5', '4'), ('integer', 'NE', '5', '4', '5'), ('integer', 'IN', '1|2|3', '3', '4'), ('integer', 'NOTIN', '1|2', '3', '2'),
        ('text', 'IN', 'a|it''s', '"it''s"', '"b"'), ('text', 'LT', 'b', '"a"', '"c"'), ('boolean', 'EQ', '1', 'true', 'false'),
        ('date', 'GE', '2024-01-01', '"2024-01-01"', '"2023-12-31"'), ('time', 'LT', '12:00:00', '"11:59:59.5"', '"12:00:00"'),
        ('time', 'LT', '12:00:00', '"11:00:00"', '"11:00:00Z"'), ('datetime', 'LE', '2024-01-01T00:00:00', '"2023-12-31T23:59:59"', '"2024-01-01T00:00:01"'),
        ('partialDate', 'NE', '1900', '"1901"', '"1900"')) AS c (data_type, comparator, value, passing, failing);
SELECT checked('partialDate', 'LT', '2024', '"2025"') AS not_compared, checked('integer', 'LT', 'five', '7') AS no_number, checked('integer', 'LT', '1|2', '7') AS two_values;
SELECT * FROM judged(odm('<ItemRef ItemOID="I" Mandatory="No"/>', '<ItemDef OID="I" Name="i" DataType="integer"><RangeCheck Comparator="GE" SoftHard="Hard"><CheckValue>0</CheckValue></RangeCheck>'
    '<RangeCheck Comparator="LE" SoftHard="Hard"><CheckValue>10</CheckValue><ErrorMessage><TranslatedText xml:lang="fr">trop</TranslatedText>'
    '<TranslatedText xml:lang="en-GB">too much</TranslatedText></ErrorMessage></RangeCheck><RangeCheck Comparator="LE" SoftHard="Soft"><CheckValue>8</CheckValue></RangeCheck>'
    '<RangeCheck SoftHard="Hard"><FormalExpression Context="SQL">"I" % 2 = 0</FormalExpression><ErrorMessage><TranslatedText xml:lang="fr">impair</TranslatedText></ErrorMessage></RangeCheck>'
    '<RangeCheck SoftHard="Hard"><FormalExpression Context="SQL">random() &gt; 0</FormalExpression></RangeCheck>'
    '<RangeCheck SoftHard="Hard"><FormalExpression Context="Python">even(I)</FormalExpression></RangeCheck></ItemDef>'),
    '{"I": 8}', '{"I": -2}', '{"I": 12}', '{"I": 7}', '{}');
SELECT oid, status, detail FROM epro_etl.import_report WHERE form = 'F' AND construct = 'RangeCheck';

-- units: an answer may state its own; without one it is in the item's only one
SELECT * FROM judged(odm('<ItemRef ItemOID="H" Mandatory="No"/><ItemRef ItemOID="L" Mandatory="No"/>', '<ItemDef OID="H" Name="h" DataType="integer"><MeasurementUnitRef MeasurementUnitOID="MU.IN"/>'
    '<RangeCheck Comparator="LT" SoftHard="Hard"><CheckValue>220</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.CM"/></RangeCheck>'
    '<RangeCheck Comparator="LT" SoftHard="Hard"><CheckValue>90</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.IN"/></RangeCheck></ItemDef>'
    '<ItemDef OID="L" Name="l" DataType="integer"><MeasurementUnitRef MeasurementUnitOID="MU.IN"/><MeasurementUnitRef MeasurementUnitOID="MU.CM"/>'
    '<RangeCheck Comparator="LT" SoftHard="Hard"><CheckValue>20</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.CM"/></RangeCheck></ItemDef>'),
    '{"H": 70}', '{"H": 180}', '{"H": 180, "H_unit": "cm"}', '{"H": 230, "H_unit": "MU.CM"}', '{"H": 95, "H_unit": "inch"}', '{"H": 1, "H_unit": "ell"}',
    '{"L": 25, "L_unit": "cm"}', '{"L": 25, "L_unit": "in"}', '{"L": 25}');

-- conditions under which something is not collected, and what is mandatory then
SELECT * FROM judged(odm('<ItemRef ItemOID="SEX" Mandatory="Yes"/><ItemRef ItemOID="PREG" Mandatory="Yes" CollectionExceptionConditionOID="C.M"/><ItemRef ItemOID="AGE" Mandatory="Yes"/>'
    '<ItemRef ItemOID="SCHOOL" Mandatory="Yes" CollectionExceptionConditionOID="C.A"/><ItemRef ItemOID="JOB" Mandatory="Yes" CollectionExceptionConditionOID="C.T"/>',
    '<ItemDef OID="SEX" Name="s" DataType="text"/><ItemDef OID="PREG" Name="p" DataType="boolean"/><ItemDef OID="AGE" Name="a" DataType="integer"/><ItemDef OID="SCHOOL" Name="c" DataType="text"/>'
    '<ItemDef OID="JOB" Name="j" DataType="text"/><ItemDef OID="X1" Name="x" DataType="integer"/><ItemDef OID="X2" Name="x" DataType="integer"/>'
    '<ConditionDef OID="C.M" Name="m"><Description><TranslatedText>only for women</TranslatedText></Description><FormalExpression Context="XPath">../ItemData[@ItemOID=''SEX''][@Value=''M'']</FormalExpression></ConditionDef>'
    '<ConditionDef OID="C.A" Name="a"><Description><TranslatedText>only for children</TranslatedText></Description><FormalExpression Context="PostgreSQL">"AGE" >= 18</FormalExpression></ConditionDef>'
    '<ConditionDef OID="C.T" Name="t"><Description><TranslatedText>in words alone</TranslatedText></Description></ConditionDef>'
    '<ConditionDef OID="C.G" Name="g"><FormalExpression Context="XPath">../ItemGroupData[@ItemGroupOID="G"]/ItemData[@ItemOID="AGE"][@Value &lt; 18]</FormalExpression></ConditionDef>',
    '<ItemGroupRef ItemGroupOID="G" Mandatory="Yes" OrderNumber="1"/><ItemGroupRef ItemGroupOID="G2" Mandatory="No" OrderNumber="2" CollectionExceptionConditionOID="C.G"/>',
    '<ItemGroupDef OID="G2" Name="g2" Repeating="Yes"><ItemRef ItemOID="X1" Mandatory="Yes"/><ItemRef ItemOID="X2" Mandatory="No"/></ItemGroupDef>'),
    '{"SEX": "M", "AGE": 40}', '{"SEX": "F", "AGE": 12, "PREG": false, "SCHOOL": "x"}', '{"SEX": "F", "AGE": 40}', '{"SEX": "M", "AGE": 12, "PREG": true}', '{"SEX": "M", "AGE": 40, "SCHOOL": "x"}',
    '{"SEX": "M", "SCHOOL": "x"}', '{"SEX": "M", "AGE": 40, "X1": 1}', '{"SEX": "M", "AGE": 40, "X2": 1}', '{"SEX": "M", "AGE": 12, "SCHOOL": "x", "X1": 1}');
SELECT construct, oid, status, detail FROM epro_etl.import_report WHERE form = 'F' AND construct ~ 'Condition|Mandatory|Repeating|Group';
-- XPath: what is read, and what is not
SELECT x.path, x.of_group, epro_etl.odm_xpath(x.path, x.of_group, 'G', '{"G\u0001A": {"ref": "a", "family": "integer"}, "H\u0001T": {"ref": "t", "family": "text"}}') AS read
    FROM (VALUES ('../ItemData[@ItemOID="A"]', false), ('../ItemData[@ItemOID=''A''][@Value >= 1][@Value != ''3'']', false), ('../../ItemGroupData[@ItemGroupOID="H"]/ItemData[@ItemOID="T"][@Value="o''x"]', false),
        ('../odm:ItemGroupData[@ItemGroupOID="H"]/odm:ItemData[@ItemOID="T"][@Value="x"]', true), ('../ItemData[@ItemOID="A"]', true), ('../ItemData[@ItemOID="T"]', false),
        ('../ItemData[@ItemOID="A"][@Value="x"]', false), ('../../ItemGroupData[@ItemGroupOID="H"]/ItemData[@ItemOID="T"][@Value < 3]', false), ('count(../ItemData) > 3', false),
        ('../FormData[@FormOID="F"]/ItemGroupData[@ItemGroupOID="G"]/ItemData[@ItemOID="A"]', false)) AS x (path, of_group);

-- a condition in SQL that is none here: that is said, and a limit holds all the same
SELECT * FROM judged(odm('<ItemRef ItemOID="A/B" Mandatory="Yes" CollectionExceptionConditionOID="C"/><ItemRef ItemOID="B" Mandatory="Yes"/>',
    '<ItemDef OID="A/B" Name="a" DataType="integer"><RangeCheck Comparator="LT" SoftHard="Hard"><CheckValue>5</CheckValue></RangeCheck></ItemDef><ItemDef OID="B" Name="b" DataType="integer"/>'
    '<ConditionDef OID="C" Name="c"><FormalExpression Context="SQL">nosuch("B")</FormalExpression></ConditionDef>'), '{"B": 1, "A/B": 7}', '{"B": 1}');
SELECT construct, oid, status, detail FROM epro_etl.import_report WHERE form = 'F';

-- methods: what was computed is verified
SELECT * FROM judged(odm('<ItemRef ItemOID="W" Mandatory="Yes"/><ItemRef ItemOID="H" Mandatory="No"/><ItemRef ItemOID="BMI" Mandatory="No" MethodOID="ME.1"/><ItemRef ItemOID="Z" Mandatory="No" MethodOID="ME.2"/>',
    '<ItemDef OID="W" Name="w" DataType="float"/><ItemDef OID="H" Name="h" DataType="float"/><ItemDef OID="BMI" Name="b" DataType="float" Length="4" SignificantDigits="1"/><ItemDef OID="Z" Name="z" DataType="float"/>'
    '<MethodDef OID="ME.1" Name="bmi" Type="Computation"><Description><TranslatedText>BMI</TranslatedText></Description><FormalExpression Context="SAS">x</FormalExpression>'
    '<FormalExpression Context="epro_etl">"W" / ("H" * "H")</FormalExpression></MethodDef><MethodDef OID="ME.2" Name="z" Type="Imputation"><FormalExpression Context="SQL">"W"</FormalExpression></MethodDef>'),
    '{"W": 80, "H": 2, "BMI": 20.0}', '{"W": 80, "H": 2, "BMI": 21}', '{"W": 80, "BMI": 21}', '{"W": 80}');
SELECT oid, status, detail FROM epro_etl.import_report WHERE form = 'F' AND construct = 'MethodDef';

-- an item of two groups stands in an object of each
SELECT * FROM judged(odm('<ItemRef ItemOID="BP" Mandatory="Yes"/><ItemRef ItemOID="ARM" Mandatory="Yes"/>', '<ItemDef OID="BP" Name="bp" DataType="integer"><RangeCheck Comparator="LT" SoftHard="Hard"><CheckValue>180</CheckValue>'
    '<MeasurementUnitRef MeasurementUnitOID="MU.CM"/></RangeCheck></ItemDef><ItemDef OID="ARM" Name="arm" DataType="text"/>',
    '<ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/><ItemGroupRef ItemGroupOID="STAND" Mandatory="No"/>', '<ItemGroupDef OID="STAND" Name="s" Repeating="No"><ItemRef ItemOID="BP" Mandatory="Yes"/></ItemGroupDef>'),
    '{"G": {"BP": 120}, "STAND": {"BP": 110}, "ARM": "left"}', '{"G": {"BP": 190}, "STAND": {"BP": 190, "BP_unit": "in"}, "ARM": "left"}', '{"STAND": {"BP": 110}}');
SELECT name, type, required FROM epro_etl.form_items('F');

-- what is not an item is said so, and a form of nothing else is no form
SELECT * FROM epro_etl.register_odm(odm('<ItemRef ItemOID="I" Mandatory="Yes"/><ItemRef ItemOID="NONE" Mandatory="Yes"/><ItemRef ItemOID="ODD" Mandatory="No"/><ItemRef ItemOID="I" Mandatory="No"/>',
    '<ItemDef OID="I" Name="i" DataType="integer" SASFieldName="I"/><ItemDef OID="ODD" Name="o" DataType="quaternion"/><ItemDef OID="UNUSED" Name="u" DataType="text"/>'
    '<Presentation OID="P">x</Presentation><v:Extra xmlns:v="urn:vendor"/>')::xml);
SELECT * FROM epro_etl.register_odm(odm('<ItemRef ItemOID="NONE" Mandatory="Yes"/>', '')::xml) WHERE form IS NOT NULL;

-- again: what is the same stays, what is gone is retired, what somebody added stays
CREATE FUNCTION checks() RETURNS TABLE (check_name text, condition text, removed boolean) LANGUAGE sql AS $$
    SELECT c.check_name, c.condition, c.removed_at IS NOT NULL FROM epro_etl.edit_check c WHERE c.form = 'AGAIN' ORDER BY c.check_id $$;
CREATE FUNCTION again(checks text) RETURNS text LANGUAGE sql AS $$
    SELECT odm('<ItemRef ItemOID="I" Mandatory="No"/>', '<ItemDef OID="I" Name="i" DataType="integer">' || checks || '</ItemDef>') $$;
SELECT epro_etl.register_form('AGAIN', again('<RangeCheck Comparator="EQ" SoftHard="Soft"><CheckValue>1</CheckValue></RangeCheck><RangeCheck Comparator="NE" SoftHard="Hard"><CheckValue>2</CheckValue></RangeCheck>'));
SELECT epro_etl.add_edit_check('AGAIN', 'mine', '"I" <> 7');
SELECT epro_etl.register_form('AGAIN', again('<RangeCheck Comparator="EQ" SoftHard="Soft"><CheckValue>1</CheckValue></RangeCheck><RangeCheck Comparator="NE" SoftHard="Hard"><CheckValue>3</CheckValue></RangeCheck>'));
SELECT * FROM checks();
SELECT epro_etl.register_form('AGAIN', again('<RangeCheck Comparator="EQ" SoftHard="Soft"><CheckValue>1</CheckValue></RangeCheck><RangeCheck Comparator="NE" SoftHard="Hard"><CheckValue>3</CheckValue></RangeCheck>'));
SELECT count(*) AS imports FROM epro_etl.form_import WHERE form = 'AGAIN';
SELECT epro_etl.register_form('AGAIN', odm('<ItemRef ItemOID="J" Mandatory="No"/>', '<ItemDef OID="J" Name="j" DataType="text"/>'));
SELECT epro_etl.remove_edit_check('AGAIN', 'mine');
SELECT epro_etl.register_form('AGAIN', odm('<ItemRef ItemOID="J" Mandatory="No"/>', '<ItemDef OID="J" Name="j" DataType="text"/>'), '2026-A');
SELECT * FROM checks() WHERE NOT removed;
SELECT version, construct, oid, status FROM epro_etl.import_report WHERE form = 'AGAIN';

-- which FormDef is meant; any prefix, and ODM 1.2
CREATE FUNCTION two(ns text DEFAULT 'http://www.cdisc.org/ns/odm/v1.3') RETURNS text LANGUAGE sql AS $$
    SELECT format('<o:MetaDataVersion xmlns:o="%s" OID="M" Name="M"><o:FormDef OID="F.1" Name="One" Repeating="No"><o:ItemGroupRef ItemGroupOID="G" Mandatory="No"/></o:FormDef>'
        '<o:FormDef OID="F.2" Name="Two" Repeating="Yes"><o:ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/></o:FormDef>'
        '<o:ItemGroupDef OID="G" Name="g" Repeating="No"><o:ItemRef ItemOID="IT.A" Mandatory="Yes"/></o:ItemGroupDef><o:ItemDef OID="IT.A" Name="a" DataType="integer">'
        '<o:RangeCheck Comparator="NE" SoftHard="Hard"><o:CheckValue>1</o:CheckValue></o:RangeCheck></o:ItemDef></o:MetaDataVersion>', ns) $$;
SELECT epro_etl.register_form('F.1', two());
SELECT epro_etl.register_form('Two', two('http://www.cdisc.org/ns/odm/v1.2')::xml);
SELECT epro_etl.register_form('THREE', two());
SELECT check_name, expression FROM epro_etl.edit_check WHERE form = 'Two';

-- refused, and nothing is left of it
SELECT epro_etl.register_form('BAD', two('http://www.cdisc.org/ns/odm/v2.0'));
SELECT epro_etl.register_form('BAD', two('urn:something'));
SELECT epro_etl.register_form('BAD', '<MetaDataVersion OID="M"/>');
SELECT epro_etl.register_form('BAD', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"/>');
SELECT epro_etl.register_form('BAD', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><MetaDataVersion OID="A"/><MetaDataVersion OID="B"/></ODM>');
SELECT epro_etl.register_form('BAD', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><MetaDataVersion OID="A"/></ODM>');
SELECT epro_etl.register_form('BAD', NULL::xml);
SELECT epro_etl.register_odm(NULL);
\set VERBOSITY sqlstate
SELECT epro_etl.register_form('BAD', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"><open></ODM>');
\set VERBOSITY default
SELECT epro_etl.register_odm('text alone');
SELECT epro_etl.register_odm(('<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3">' || repeat(repeat(' ', 1024), 16400) || '</ODM>')::xml);
-- entities: a file, a laugh, a DTD elsewhere, as text and as xml, and the DOCTYPE behind a comment
SELECT epro_etl.register_form('BAD', '<!DOCTYPE ODM [<!ENTITY x SYSTEM "file:///etc/passwd">]>' || two());
SELECT epro_etl.register_form('BAD', ('<!DOCTYPE ODM [<!ENTITY x SYSTEM "file:///etc/passwd">]><ODM xmlns="http://www.cdisc.org/ns/odm/v1.3">&x;</ODM>')::xml);
SELECT epro_etl.register_form('BAD', '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><ODM>&c;</ODM>');
SELECT epro_etl.register_odm('<!-- a --><!DOCTYPE ODM SYSTEM "http://127.0.0.1:9/odm.dtd"><ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"/>');
SELECT count(*) AS left_behind FROM epro_etl.form WHERE name = 'BAD';
-- two rules that would have one name
SELECT epro_etl.register_form('BAD', odm('<ItemRef ItemOID="A" Mandatory="No" MethodOID="Mandatory"/><ItemRef ItemOID="B" Mandatory="Yes"/>',
    '<ItemDef OID="A" Name="a" DataType="integer"><RangeCheck Comparator="EQ" SoftHard="Soft"><CheckValue>1</CheckValue></RangeCheck></ItemDef>'
    '<ItemDef OID="B" Name="b" DataType="integer"/><MethodDef OID="Mandatory" Name="m" Type="Computation"><FormalExpression Context="SQL">"B"</FormalExpression></MethodDef>'));
SELECT epro_etl.register_form('BAD', odm('<ItemRef ItemOID="A" Mandatory="Yes" MethodOID="Mandatory" CollectionExceptionConditionOID="C"/><ItemRef ItemOID="B" Mandatory="Yes"/>',
    '<ItemDef OID="A" Name="a" DataType="integer"/><ItemDef OID="B" Name="b" DataType="integer"/><ConditionDef OID="C" Name="c"><FormalExpression Context="SQL">"B" = 0</FormalExpression></ConditionDef>'
    '<MethodDef OID="Mandatory" Name="m" Type="Computation"><FormalExpression Context="SQL">"B"</FormalExpression></MethodDef>'));
SELECT check_name, expression, condition FROM epro_etl.edit_check WHERE form = 'BAD' ORDER BY check_name;
-- JSON as ever, from a literal, a text and jsonb
SELECT epro_etl.register_form('t27_json', '{"properties": {"a": {"type": "integer"}}}'), epro_etl.register_form('t27_json', '{"properties": {"a": {"type": "integer"}}, "description": "no <!DOCTYPE> at all"}'::text),
    epro_etl.register_form('t27_json', '{"properties": {"a": {"type": "integer"}}}'::jsonb);
SELECT probe.close_area('t27');
