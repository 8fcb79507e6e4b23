-- What the ODM example says, read here a second time in plain SQL, against what
-- the engine finds in responses and what the import reports. Run by odm.sh.
\set ECHO none
SET client_min_messages = warning;
CREATE EXTENSION epro_etl;
\set file `cat "$ODM_FILE"`
CREATE TABLE document AS SELECT :'file'::xml AS x;
CREATE TABLE report AS SELECT r.* FROM document, epro_etl.register_odm(x) r;

-- the file, in rows
CREATE TABLE ref AS     -- the places of items in forms
    SELECT g.form, g."group", g.mandatory AS group_mandatory, g.exception AS group_exception, i.item, i.mandatory, i.exception, i.method
    FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:FormDef/o:ItemGroupRef' PASSING x COLUMNS
            form text PATH '../@OID', "group" text PATH '@ItemGroupOID', mandatory text PATH '@Mandatory', exception text PATH '@CollectionExceptionConditionOID') g,
        XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:ItemGroupDef/o:ItemRef' PASSING x COLUMNS
            "group" text PATH '../@OID', item text PATH '@ItemOID', mandatory text PATH '@Mandatory', exception text PATH '@CollectionExceptionConditionOID',
            method text PATH '@MethodOID') i
    WHERE i."group" = g."group";
CREATE TABLE item AS
    SELECT t.* FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:ItemDef' PASSING x COLUMNS
        item text PATH '@OID', type text PATH '@DataType', length integer PATH '@Length', digits integer PATH '@SignificantDigits', codelist text PATH 'o:CodeListRef/@CodeListOID') t;
CREATE TABLE range AS
    SELECT t.* FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:RangeCheck' PASSING x COLUMNS
        n FOR ORDINALITY, item text PATH '../@OID', comparator text PATH '@Comparator', softhard text PATH '@SoftHard', value numeric PATH 'o:CheckValue',
        unit text PATH 'o:MeasurementUnitRef/@MeasurementUnitOID', message text PATH 'o:ErrorMessage/o:TranslatedText[@xml:lang="en"]') t;
CREATE TABLE code AS
    SELECT t.* FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:CodeListItem' PASSING x COLUMNS
        codelist text PATH '../@OID', type text PATH '../@DataType', value text PATH '@CodedValue') t;
CREATE TABLE condition AS
    SELECT t.*, substring(t.expression FROM '@ItemOID=''([^'']*)''') AS asks, coalesce(substring(t.expression FROM '@Value=''([^'']*)'''), '95') AS value
    FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:ConditionDef' PASSING x COLUMNS
        oid text PATH '@OID', expression text PATH 'o:FormalExpression') t;
CREATE TABLE unit AS    -- of items: their own and those of their range checks
    SELECT DISTINCT t.item, t.unit FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:ItemDef//o:MeasurementUnitRef' PASSING x COLUMNS
        item text PATH 'ancestor::o:ItemDef/@OID', unit text PATH '@MeasurementUnitOID') t;
CREATE TABLE symbol AS
    SELECT t.* FROM document, XMLTABLE(XMLNAMESPACES ('http://www.cdisc.org/ns/odm/v1.3' AS o), '//o:MeasurementUnit' PASSING x COLUMNS
        unit text PATH '@OID', symbol text PATH 'o:Symbol/o:TranslatedText[@xml:lang="en"]') t;

-- a response of each form in which all is well, and every item answered
CREATE TABLE well AS SELECT form, payload || CASE WHEN form = 'F_COMPLAINTS_REL_SMOKING' THEN '{}'::jsonb
        ELSE '{"I_SITE": 1, "I_SUBJECTID": "S-1", "I_VISIT": "2026-01-05", "I_VISITTIME": "10:00:00"}' END AS payload FROM (VALUES
    ('F_BASELINE', '{"I_BRTHDT": "1980-01-01", "I_SEX": "F", "I_RACE": "ASIAN", "I_SMOKING": true, "I_NR_CIGARETTES": "LT10", "I_DRINKING": "LT1", "I_BREATHING": 0,
        "I_COUGHING": 0, "I_HEART_COMPLAINTS": 0, "I_ILNESS_DAYS_LAST_YEAR": 3, "I_BRONCHITS": 0, "I_PNEUMONIA": 0, "I_HEIGHT": 70, "I_WEIGHT": 140, "I_SYSBP": 120,
        "I_DIABP": 80, "I_DIZZY": 0, "I_XRAY": "file:///x-ray/1"}'::jsonb),
    ('F_WEEK_1_2', '{"I_WEIGHT": 140, "I_SYSBP": 120, "I_DIABP": 80}'),
    ('F_DIARY', '{"I_DAY": 1, "I_DATE": "2026-01-06", "I_DIARY": 2}'),
    ('F_AE', '{"I_AE_OCCURRED": 1, "I_AE_EVENT": 1, "I_AE_TERM": "headache", "I_AE_START": "2026-01-06", "I_AE_CONTINUES": 0, "I_AE_STOP": "2026-01-09",
        "I_AE_DURATION": "P3D", "I_AE_SERIOUS": 1, "I_AE_SEVERITY": 1, "I_AE_RELATED": 0, "I_AE_ACTION": 1, "I_AE_OUTCOME": 1}'),
    ('F_CM', '{"I_CM_TAKEN": 1, "I_CM_NUMBER": 1, "I_CM_NAME": "aspirin", "I_CM_DOSE": "500", "I_CM_DOSEUNIT": "mg", "I_CM_DOSEFREQ": 1, "I_CM_START": "2026-01-06",
        "I_CM_CONTINUES": 0, "I_CM_STOP": "2026-01-07", "I_CM_IEXISTING": 1, "I_CM_IAE": 1, "I_CM_IPROP": 1, "I_CM_IPROPDESC": "pain"}'),
    ('F_LAB', '{"I_LB_NAME": "Lab", "I_LB_ID": "L1", "I_LB_ACCESSION": 1, "I_LB_RBC_NOTDONE": false, "I_LB_RBC": 5, "I_LB_RBC_LO": 4, "I_LB_RBC_HI": 6,
        "I_LB_WBC_NOTDONE": false, "I_LB_WBC": 5, "I_LB_WBC_LO": 4, "I_LB_WBC_HI": 9}'),
    ('F_COMPLAINTS_REL_SMOKING', '{"I_BREATHING": 0, "I_COUGHING": 0, "I_HEART_COMPLAINTS": 0, "I_ILNESS_DAYS_LAST_YEAR": 3, "I_BRONCHITS": 0, "I_PNEUMONIA": 0}')) AS v (form, payload);

-- one thing of the response is another: is there a finding with this rule, at this place, of this severity, with this message?
CREATE TABLE trial (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, form text, what text, payload jsonb, holds boolean, rule text, location text, severity text, message text);
CREATE FUNCTION typed(value text, type text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN type IN ('integer', 'float', 'boolean') THEN value::jsonb ELSE to_jsonb(value) END $$;

INSERT INTO trial (form, what, payload, holds, rule) SELECT form, 'all is well', payload, true, '%' FROM well;
-- range checks, in their units: at the limit, and beyond it
INSERT INTO trial (form, what, payload, holds, severity, message)
    SELECT r.form, format('%s %s %s %s, answered %s', c.item, c.comparator, c.value, c.unit, a.value),
           w.payload || jsonb_build_object(c.item, a.value, c.item || '_unit', c.unit), a.holds, CASE c.softhard WHEN 'Soft' THEN 'warning' ELSE 'error' END, c.message
    FROM range c JOIN ref r USING (item) JOIN well w USING (form), LATERAL (VALUES
        (true, c.value + CASE c.comparator WHEN 'LT' THEN -1 WHEN 'GT' THEN 1 ELSE 0 END),
        (false, c.value + CASE c.comparator WHEN 'LE' THEN 1 WHEN 'GE' THEN -1 ELSE 0 END)) AS a (holds, value) ORDER BY c.n, r.form, a.holds;
-- the same number in the other unit of the item is judged by the other check alone
INSERT INTO trial (form, what, payload, holds, message)
    SELECT r.form, format('%s %s %s %s, answered %s in %s', c.item, c.comparator, c.value, c.unit, c.value, u.unit), w.payload || jsonb_build_object(c.item, c.value, c.item || '_unit', u.unit),
           true, c.message
    FROM range c JOIN ref r USING (item) JOIN well w USING (form) JOIN unit u ON u.item = c.item AND u.unit <> c.unit;
-- units: by OID, by symbol, and one that is none of the item's
INSERT INTO trial (form, what, payload, holds, rule, location)
    SELECT DISTINCT r.form, format('%s in "%s"', u.item, a.alias), w.payload || jsonb_build_object(u.item || '_unit', a.alias), a.holds, 'enum', '/' || u.item || '_unit'
    FROM unit u JOIN ref r USING (item) JOIN well w USING (form) JOIN symbol s USING (unit), LATERAL (VALUES (u.unit, true), (s.symbol, true), ('furlong', false)) AS a (alias, holds);
-- code lists: every code, and another value
INSERT INTO trial (form, what, payload, holds, location)
    SELECT r.form, format('%s of %s, code %s', i.item, i.codelist, c.value), w.payload || jsonb_build_object(i.item, typed(c.value, i.type)), true, '/' || i.item
    FROM item i JOIN ref r USING (item) JOIN well w USING (form) JOIN code c USING (codelist);
INSERT INTO trial (form, what, payload, holds, rule, location)
    SELECT r.form, format('%s of %s, no code', i.item, i.codelist), w.payload || jsonb_build_object(i.item, CASE i.type WHEN 'integer' THEN '8'::jsonb ELSE '"?"' END), false, 'enum', '/' || i.item
    FROM item i JOIN ref r USING (item) JOIN well w USING (form) WHERE i.codelist IS NOT NULL;
-- conditions: when one holds the item must not be answered and need not be; else it is as mandatory as it is
INSERT INTO trial (form, what, payload, holds, rule)
    SELECT r.form, format('%s: %s %s', c.oid, r.name, a.what),
           (w.payload || CASE WHEN a.excepted THEN jsonb_build_object(c.asks, typed(c.value, i.type)) ELSE '{}' END) - CASE WHEN a.answered THEN '{}'::text[] ELSE r.items END,
           NOT a.finds, CASE WHEN a.excepted AND a.answered THEN r.name || ' CollectionExceptionCondition' ELSE '%' || r.items[1] || ' Mandatory' END
    FROM (SELECT DISTINCT form, 'group ' || "group" AS name, group_exception AS oid, (SELECT array_agg(m.item ORDER BY m.exception IS NULL DESC, m.mandatory = 'Yes' DESC) FROM ref m WHERE m.form = f.form AND m."group" = f."group") AS items,
                 group_mandatory = 'Yes' AS mandatory FROM ref f WHERE group_exception IS NOT NULL
          UNION ALL SELECT form, item, exception, ARRAY[item], mandatory = 'Yes' FROM ref WHERE exception IS NOT NULL) r
    JOIN condition c USING (oid) JOIN item i ON i.item = c.asks JOIN well w USING (form),
    LATERAL (VALUES (true, true, true, 'answered in spite of it'), (true, false, false, 'left out because of it'), (false, true, false, 'answered without it'),
                    (false, false, r.mandatory, 'left out without it')) AS a (excepted, answered, finds, what);
-- what is mandatory without a condition
INSERT INTO trial (form, what, payload, holds, rule, location)
    SELECT r.form, format('%s is left out', r.item), w.payload - r.item, r.mandatory <> 'Yes', 'required', '/' || r.item
    FROM ref r JOIN well w USING (form) WHERE r.exception IS NULL AND r.group_exception IS NULL AND r.group_mandatory = 'Yes';
-- DataType, Length, SignificantDigits
INSERT INTO trial (form, what, payload, holds, rule, location)
    SELECT r.form, format('%s is no %s', i.item, i.type), w.payload || jsonb_build_object(i.item, '{}'::jsonb), false, 'type', '/' || i.item FROM item i JOIN ref r USING (item) JOIN well w USING (form)
    UNION ALL
    SELECT r.form, format('%s longer than %s', i.item, i.length), w.payload || jsonb_build_object(i.item, CASE i.type WHEN 'text' THEN to_jsonb(repeat('x', i.length + 1))
               ELSE to_jsonb(trim_scale(10::numeric ^ (i.length - coalesce(i.digits, 0)))) END), false, CASE i.type WHEN 'text' THEN 'maxLength' WHEN 'integer' THEN 'maximum' ELSE 'exclusiveMaximum' END, '/' || i.item
    FROM item i JOIN ref r USING (item) JOIN well w USING (form) WHERE i.length IS NOT NULL AND i.codelist IS NULL AND i.type <> 'URI'
    UNION ALL
    SELECT r.form, format('%s finer than %s digits', i.item, i.digits), w.payload || jsonb_build_object(i.item, 5 + 0.1::numeric ^ (i.digits + 1)), false, i.item || ' SignificantDigits', ''
    FROM item i JOIN ref r USING (item) JOIN well w USING (form) WHERE i.digits IS NOT NULL;

-- the engine's word
CREATE TABLE staging AS SELECT t.id, 'CES' AS study, t.form, 'S-1' AS subject, 'V1' AS visit, '2026-01-05 10:00Z'::timestamptz AS authored, t.payload FROM trial t ORDER BY t.id;
SELECT epro_etl.create_pipeline('odm', 'staging') \g /dev/null
SELECT epro_etl.create_sink('odm', 'F_BASELINE', 'answers', 'long') \g /dev/null
SELECT epro_etl.add_sink('odm', w.form, 'answers', 'long') FROM well w WHERE w.form <> 'F_BASELINE' \g /dev/null
SELECT status || ', ' || claimed || ' responses tried' FROM epro_etl.run('odm', workers => 0, dry_run => true);
SELECT CASE WHEN t.holds <> EXISTS (SELECT FROM epro_etl.finding f WHERE f.source_id = t.id::text AND f.rule LIKE coalesce(t.rule, '%') AND f.location = coalesce(t.location, f.location)
                AND f.severity = coalesce(t.severity, f.severity) AND f.message = coalesce(t.message, f.message))
            THEN 'ok ' ELSE 'not ok ' END || t.form || ': ' || t.what || CASE WHEN t.holds THEN ', no finding' ELSE ', a finding' END FROM trial t ORDER BY t.id;

-- the report: as many rows as the file has of each, and every OID
CREATE TABLE counted (what text, said bigint, reported bigint);
INSERT INTO counted
    SELECT 'ItemRefs of forms', (SELECT count(*) FROM ref), (SELECT count(*) FROM report WHERE form IS NOT NULL AND construct = 'ItemDef')
    UNION ALL SELECT 'RangeChecks of forms', (SELECT count(*) FROM ref JOIN range USING (item)), (SELECT count(*) FROM report WHERE construct = 'RangeCheck' AND status = 'imported')
    UNION ALL SELECT 'CodeListRefs of forms', (SELECT count(*) FROM ref JOIN item USING (item) WHERE codelist IS NOT NULL),
        (SELECT count(*) FROM report WHERE form IS NOT NULL AND construct = 'CodeList' AND status = 'imported')
    UNION ALL SELECT 'units of items of forms', (SELECT count(*) FROM ref JOIN unit USING (item)), (SELECT count(*) FROM report WHERE form IS NOT NULL AND construct = 'MeasurementUnit' AND status = 'imported')
    UNION ALL SELECT 'conditions of ItemRefs and ItemGroupRefs', (SELECT count(*) FROM ref WHERE exception IS NOT NULL) + (SELECT count(DISTINCT (form, "group")) FROM ref WHERE group_exception IS NOT NULL),
        (SELECT count(*) FROM report WHERE form IS NOT NULL AND construct = 'ConditionDef' AND status = 'imported')
    UNION ALL SELECT 'methods of ItemRefs', (SELECT count(*) FROM ref WHERE method IS NOT NULL), (SELECT count(*) FROM report WHERE form IS NOT NULL AND construct = 'MethodDef' AND status = 'not imported')
    UNION ALL SELECT 'mandatory ItemRefs', (SELECT count(*) FROM ref WHERE mandatory = 'Yes'), (SELECT count(*) FROM report WHERE construct = 'ItemRef/@Mandatory' AND status = 'imported')
    UNION ALL SELECT 'Lengths', (SELECT count(*) FROM ref JOIN item USING (item) WHERE length IS NOT NULL), (SELECT count(*) FROM report WHERE construct = 'ItemDef/@Length')
    UNION ALL SELECT 'SignificantDigits', (SELECT count(*) FROM ref JOIN item USING (item) WHERE digits IS NOT NULL), (SELECT count(*) FROM report WHERE construct = 'ItemDef/@SignificantDigits')
    UNION ALL SELECT 'edit checks that a report names', (SELECT count(*) FROM epro_etl.edit_check WHERE removed_at IS NULL), (SELECT count(*) FROM report WHERE status = 'imported' AND detail LIKE '%edit check "%"%');
SELECT CASE WHEN said = reported AND said > 0 THEN 'ok ' ELSE 'not ok ' END || 'report: ' || what || ': ' || said || ' in the file, ' || reported || ' reported' FROM counted;
SELECT CASE WHEN EXISTS (SELECT FROM report r WHERE r.oid = d.oid AND r.construct = d.name) THEN 'ok ' ELSE 'not ok ' END || 'report: ' || d.name || ' ' || d.oid
    FROM document, XMLTABLE('//*[@OID]' PASSING x COLUMNS name text PATH 'local-name(.)', oid text PATH '@OID') d
    WHERE d.name IN ('FormDef', 'ItemGroupDef', 'ItemDef', 'CodeList', 'MeasurementUnit', 'ConditionDef', 'MethodDef') ORDER BY 1;
-- an element is reported by its name, or a part of one that is, or what holds the others
SELECT CASE WHEN EXISTS (SELECT FROM report r WHERE r.construct = d.name OR r.construct LIKE d.name || '/%')
                 OR d.name = ANY ('{ODM,Study,BasicDefinitions,MetaDataVersion,ItemGroupRef,CodeListRef,CodeListItem,CheckValue,ErrorMessage,MeasurementUnitRef,FormalExpression,Symbol,
                                    Question,Description,Decode,TranslatedText}') THEN 'ok ' ELSE 'not ok ' END || 'report: element ' || d.name
    FROM (SELECT DISTINCT e.name FROM document, XMLTABLE('//*' PASSING x COLUMNS name text PATH 'local-name(.)') e) d ORDER BY 1;
SELECT CASE WHEN count(*) = 0 THEN 'ok ' ELSE 'not ok ' END || 'report: what was not imported has a reason' FROM report WHERE status = 'not imported' AND coalesce(detail, '') = '';
