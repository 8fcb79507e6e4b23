-- The example of doc/odm.md: test/readme.sh holds every block of it against
-- the expected output of this script.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS epro_etl CASCADE;
CREATE EXTENSION epro_etl;
CREATE SCHEMA vitals;
SET search_path = vitals, public;
RESET client_min_messages;
\set SHOW_CONTEXT never
COPY (SELECT 'a key for tests, known to everybody') TO PROGRAM 'umask 077; cat > ../epro_etl_tour_odm.key';
SET epro_etl.key_file = '../epro_etl_tour_odm.key';
CREATE TABLE staging (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
-- the study's metadata, as its EDC exports it
CREATE TABLE metadata (document xml);
INSERT INTO metadata VALUES ('<?xml version="1.0" encoding="UTF-8"?>
<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ODMVersion="1.3.2" FileType="Snapshot" FileOID="ST01.1" CreationDateTime="2026-03-01T09:00:00">
  <Study OID="ST01">
    <GlobalVariables><StudyName>ST01</StudyName><StudyDescription>An example</StudyDescription><ProtocolName>ST01</ProtocolName></GlobalVariables>
    <BasicDefinitions>
      <MeasurementUnit OID="MU.KG" Name="kilogram"><Symbol><TranslatedText xml:lang="en">kg</TranslatedText></Symbol></MeasurementUnit>
      <MeasurementUnit OID="MU.LB" Name="pound"><Symbol><TranslatedText xml:lang="en">lb</TranslatedText></Symbol></MeasurementUnit>
    </BasicDefinitions>
    <MetaDataVersion OID="ST01.V1" Name="First version">
      <FormDef OID="VITALS" Name="Vital signs" Repeating="No">
        <ItemGroupRef ItemGroupOID="IG.VS" Mandatory="Yes" OrderNumber="1"/>
      </FormDef>
      <ItemGroupDef OID="IG.VS" Name="Vital signs" Repeating="No" Domain="VS">
        <ItemRef ItemOID="SEX" Mandatory="Yes" OrderNumber="1"/>
        <ItemRef ItemOID="PREGNANT" Mandatory="Yes" OrderNumber="2" CollectionExceptionConditionOID="COND.MALE"/>
        <ItemRef ItemOID="WEIGHT" Mandatory="Yes" OrderNumber="3"/>
        <ItemRef ItemOID="HEIGHT" Mandatory="No" OrderNumber="4"/>
        <ItemRef ItemOID="BMI" Mandatory="No" OrderNumber="5" MethodOID="METH.BMI"/>
      </ItemGroupDef>
      <ItemDef OID="SEX" Name="Sex" DataType="text" Length="1"><CodeListRef CodeListOID="CL.SEX"/></ItemDef>
      <ItemDef OID="PREGNANT" Name="Pregnant" DataType="boolean">
        <Question><TranslatedText xml:lang="en">Is the subject pregnant?</TranslatedText><TranslatedText xml:lang="de">Schwanger?</TranslatedText></Question>
      </ItemDef>
      <ItemDef OID="WEIGHT" Name="Weight" DataType="float" Length="4" SignificantDigits="1">
        <MeasurementUnitRef MeasurementUnitOID="MU.KG"/>
        <RangeCheck Comparator="LE" SoftHard="Hard"><CheckValue>300</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.KG"/>
          <ErrorMessage><TranslatedText xml:lang="en">nobody weighs more than 300 kg here</TranslatedText></ErrorMessage></RangeCheck>
        <RangeCheck Comparator="GE" SoftHard="Soft"><CheckValue>40</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.KG"/></RangeCheck>
        <RangeCheck Comparator="LE" SoftHard="Hard"><CheckValue>660</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.LB"/></RangeCheck>
      </ItemDef>
      <ItemDef OID="HEIGHT" Name="Height in cm" DataType="integer" Length="3">
        <RangeCheck Comparator="GE" SoftHard="Hard"><CheckValue>50</CheckValue></RangeCheck>
      </ItemDef>
      <ItemDef OID="BMI" Name="Body mass index" DataType="float" Length="3" SignificantDigits="1"/>
      <CodeList OID="CL.SEX" Name="Sex" DataType="text">
        <CodeListItem CodedValue="F"><Decode><TranslatedText xml:lang="en">female</TranslatedText></Decode></CodeListItem>
        <CodeListItem CodedValue="M"><Decode><TranslatedText xml:lang="en">male</TranslatedText></Decode></CodeListItem>
      </CodeList>
      <ConditionDef OID="COND.MALE" Name="Male">
        <Description><TranslatedText xml:lang="en">not asked of men</TranslatedText></Description>
        <FormalExpression Context="XPath">../ItemData[@ItemOID="SEX"][@Value="M"]</FormalExpression>
      </ConditionDef>
      <MethodDef OID="METH.BMI" Name="BMI" Type="Computation">
        <Description><TranslatedText xml:lang="en">weight over the square of the height</TranslatedText></Description>
        <FormalExpression Context="SQL">"WEIGHT" / ("HEIGHT" / 100.0) ^ 2</FormalExpression>
      </MethodDef>
    </MetaDataVersion>
  </Study>
</ODM>');
-- the form, its edit checks, and what became of each construct
SELECT r.construct, r.oid, r.status, r.detail FROM metadata, epro_etl.register_odm(document, version => 'ST01.V1') r WHERE r.form = 'VITALS';
-- what says nothing of a form
SELECT r.construct, r.status, r.detail FROM metadata, epro_etl.register_odm(document, version => 'ST01.V1') r WHERE r.form IS NULL;
SELECT name, type, required FROM epro_etl.form_items('VITALS');
-- loaded as any form
SELECT epro_etl.create_pipeline('vitals', source => 'staging');
SELECT epro_etl.create_sink('vitals', form => 'VITALS', target => 'vital_signs');
INSERT INTO staging (study, form, subject, visit, authored, payload)
SELECT 'ST01', 'VITALS', 'P-' || n, 'DAY 1', '2026-03-01 07:30+00', answers::jsonb
FROM (VALUES (1, '{"SEX": "F", "PREGNANT": false, "WEIGHT": "64.5", "HEIGHT": 170, "BMI": 22.3}'),
             (2, '{"SEX": "M", "WEIGHT": 38}'),
             (3, '{"SEX": "F", "WEIGHT": 70}'),
             (4, '{"SEX": "M", "PREGNANT": true, "WEIGHT": 70}'),
             (5, '{"SEX": "M", "WEIGHT": 350, "WEIGHT_unit": "lb"}'),
             (6, '{"SEX": "X", "PREGNANT": false, "WEIGHT": 350, "HEIGHT": 17}'),
             (7, '{"SEX": "M", "WEIGHT": 80, "HEIGHT": 200, "BMI": 25}')) AS v (n, answers);
SELECT claimed, loaded, warned, rejected FROM epro_etl.run('vitals', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM epro_etl.finding ORDER BY source_id, rule COLLATE "C";
SELECT source_id, sex, pregnant, weight, weight_unit, height, bmi FROM vital_signs ORDER BY source_id;
-- the next version: one range check is gone, and with it its edit check
UPDATE metadata SET document = replace(document::text, '<RangeCheck Comparator="GE" SoftHard="Soft"><CheckValue>40</CheckValue><MeasurementUnitRef MeasurementUnitOID="MU.KG"/></RangeCheck>', '')::xml;
SELECT epro_etl.register_form('VITALS', document) FROM metadata;
SELECT check_name, removed_at IS NULL AS in_force FROM epro_etl.edit_check WHERE form = 'VITALS' AND check_name LIKE 'WEIGHT%' ORDER BY check_name;
DROP EXTENSION epro_etl;
COPY (SELECT) TO PROGRAM 'rm ../epro_etl_tour_odm.key';
SET client_min_messages = warning;
DROP SCHEMA vitals CASCADE;
