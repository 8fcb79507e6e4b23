-- FHIR questionnaires: each rule by a response that keeps it and one that does not.
\set SHOW_CONTEXT never
SELECT probe.open_area('t26');
\pset null (null)
CREATE TABLE asked (n serial PRIMARY KEY, rule text, questionnaire jsonb, good jsonb, bad jsonb);
-- of a rule: the items, or a whole questionnaire; then what is answered, as items or a whole response
CREATE FUNCTION ask(rule text, questionnaire jsonb, good jsonb, bad jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO asked (rule, questionnaire, good, bad)
    SELECT rule, CASE jsonb_typeof(questionnaire) WHEN 'array' THEN
            jsonb_build_object('resourceType', 'Questionnaire', 'url', 'urn:q', 'version', '1', 'status', 'active', 'item', questionnaire)
            ELSE questionnaire END,
        CASE jsonb_typeof(good) WHEN 'array' THEN jsonb_build_object('resourceType', 'QuestionnaireResponse', 'status', 'completed', 'questionnaire', 'urn:q', 'item', good) ELSE good END,
        CASE jsonb_typeof(bad) WHEN 'array' THEN jsonb_build_object('resourceType', 'QuestionnaireResponse', 'status', 'completed', 'questionnaire', 'urn:q', 'item', bad) ELSE bad END;
END $$;
-- one question q of a type, with more to say; its answers, as members of answers
CREATE FUNCTION q(type text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('linkId', 'q', 'type', type) || more) $$;
CREATE FUNCTION a(VARIADIC answers jsonb[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('linkId', 'q', 'answer', to_jsonb(answers))) $$;
CREATE FUNCTION ext(name text, value jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('extension', jsonb_build_array(jsonb_build_object('url', 'http://hl7.org/fhir/StructureDefinition/' || name) || value)) $$;

DO $$
DECLARE
    two jsonb := '[{"linkId": "q", "type": "string"}, {"linkId": "r", "type": "string"}]';
    grouped jsonb := '[{"linkId": "g", "type": "group", "item": [{"linkId": "q", "type": "string"}]}, {"linkId": "d", "type": "display"}]';
    nested jsonb := '[{"linkId": "q", "type": "boolean", "item": [{"linkId": "why", "type": "string", "required": true}]}]';
    ucum text := 'http://unitsofmeasure.org';
    options jsonb := '{"answerOption": [{"valueCoding": {"system": "urn:s", "code": "a"}}, {"valueCoding": {"system": "urn:s", "code": "b"}},
        {"valueCoding": {"system": "urn:s", "code": "none"}, "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-optionExclusive", "valueBoolean": true}]}]}';
BEGIN
    -- types
    PERFORM ask('boolean', q('boolean'), a('{"valueBoolean": false}'), a('{"valueBoolean": "false"}'));
    PERFORM ask('decimal', q('decimal'), a('{"valueDecimal": 1.50}'), a('{"valueInteger": 1}'));
    PERFORM ask('integer', q('integer'), a('{"valueInteger": -7}'), a('{"valueInteger": 7.3}'));
    PERFORM ask('integer of 32 bits', q('integer'), a('{"valueInteger": 2147483647}'), a('{"valueInteger": 2147483648}'));
    PERFORM ask('date', q('date'), a('{"valueDate": "2024-02-29"}'), a('{"valueDate": "2023-02-29"}'));
    PERFORM ask('date, a year', q('date'), a('{"valueDate": "2024"}'), a('{"valueDate": "0000"}'));
    PERFORM ask('date, a month', q('date'), a('{"valueDate": "2024-12"}'), a('{"valueDate": "2024-13"}'));
    PERFORM ask('date without time', q('date'), a('{"valueDate": "2024-12-31"}'), a('{"valueDate": "2024-12-31T00:00:00Z"}'));
    PERFORM ask('dateTime', q('dateTime'), a('{"valueDateTime": "2024-12-31T23:59:00.5+01:00"}'), a('{"valueDateTime": "2024-12-31T23:59:00"}'));
    PERFORM ask('dateTime, a day', q('dateTime'), a('{"valueDateTime": "2024-12-31"}'), a('{"valueDateTime": "2024-12-31t23:59:00z"}'));
    PERFORM ask('time', q('time'), a('{"valueTime": "23:59:59.25"}'), a('{"valueTime": "24:00:00"}'));
    PERFORM ask('string', q('string'), a('{"valueString": "x"}'), a('{"valueString": ""}'));
    PERFORM ask('text', q('text'), a('{"valueString": "x"}'), a('{"valueText": "x"}'));
    PERFORM ask('url', q('url'), a('{"valueUri": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"}'), a('{"valueUri": "a b"}'));
    PERFORM ask('reference', q('reference'), a('{"valueReference": {"reference": "Patient/1"}}'), a('{"valueReference": {"reference": "Patient 1"}}'));
    PERFORM ask('attachment', q('attachment'), a('{"valueAttachment": {"contentType": "text/plain"}}'), a('{"valueAttachment": "text"}'));
    PERFORM ask('quantity', q('quantity'), a('{"valueQuantity": {"value": 7, "unit": "kg"}}'), a('{"valueQuantity": {"unit": "kg"}}'));
    PERFORM ask('choice', q('choice'), a('{"valueCoding": {"code": "any"}}'), a('{"valueString": "any"}'));
    PERFORM ask('choice has a code', q('choice'), a('{"valueCoding": {"code": "any"}}'), a('{"valueCoding": {"display": "any"}}'));
    PERFORM ask('open-choice', q('open-choice'), a('{"valueString": "any"}'), a('{"valueInteger": 1}'));
    -- structure
    PERFORM ask('known linkId', two, '[{"linkId": "q"}, {"linkId": "r"}]', '[{"linkId": "s"}]');
    PERFORM ask('some linkId', two, '[{"linkId": "q"}]', '[{"text": "q"}]');
    PERFORM ask('order', two, '[{"linkId": "q"}, {"linkId": "r"}]', '[{"linkId": "r"}, {"linkId": "q"}]');
    PERFORM ask('place', grouped, '[{"linkId": "g", "item": [{"linkId": "q", "answer": [{"valueString": "x"}]}]}]', '[{"linkId": "q", "answer": [{"valueString": "x"}]}]');
    PERFORM ask('group without answer', grouped, '[{"linkId": "g", "item": []}]', '[{"linkId": "g", "answer": [{"valueString": "x"}]}]');
    PERFORM ask('display without answer', grouped, '[{"linkId": "d", "text": "read"}]', '[{"linkId": "d", "answer": [{"valueString": "x"}]}]');
    PERFORM ask('one item', two, '[{"linkId": "q"}]', '[{"linkId": "q"}, {"linkId": "q"}]');
    PERFORM ask('below the answer', nested, '[{"linkId": "q", "answer": [{"valueBoolean": true, "item": [{"linkId": "why", "answer": [{"valueString": "x"}]}]}]}]',
        '[{"linkId": "q", "answer": [{"valueBoolean": true, "item": [{"linkId": "why", "answer": [{"valueString": "x"}]}]}], "item": [{"linkId": "why"}]}]');
    PERFORM ask('a value', q('string'), a('{"valueString": "x"}'), a('{"extension": [{"url": "urn:x", "valueString": "x"}]}'));
    PERFORM ask('one value', q('open-choice'), a('{"valueString": "x"}'), a('{"valueString": "x", "valueCoding": {"code": "x"}}'));
    PERFORM ask('known elements', q('string'), '[{"linkId": "q", "text": "Q?", "_text": {}, "answer": [{"id": "1", "valueString": "x"}]}]',
        '[{"linkId": "q", "txt": "Q?", "answer": [{"valueString": "x", "comment": 1}]}]');
    PERFORM ask('modifierExtension', q('string'), a('{"valueString": "x"}'), a('{"valueString": "x", "modifierExtension": [{"url": "urn:not", "valueBoolean": true}]}'));
    -- the response as a whole
    PERFORM ask('resourceType', two, '[]', '{"resourceType": "Patient"}');
    PERFORM ask('status', two, '{"resourceType": "QuestionnaireResponse", "status": "amended"}', '{"resourceType": "QuestionnaireResponse"}');
    PERFORM ask('status code', two, '{"resourceType": "QuestionnaireResponse", "status": "stopped"}', '{"resourceType": "QuestionnaireResponse", "status": "done"}');
    PERFORM ask('not in error', two, '{"resourceType": "QuestionnaireResponse", "status": "in-progress"}', '{"resourceType": "QuestionnaireResponse", "status": "entered-in-error"}');
    PERFORM ask('questionnaire', two, '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:q|1"}',
        '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:other"}');
    PERFORM ask('its version', two, '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:q"}',
        '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:q|2"}');
    PERFORM ask('effectivePeriod', '{"resourceType": "Questionnaire", "url": "urn:q", "effectivePeriod": {"start": "2026", "end": "2026-06"}, "item": [{"linkId": "q", "type": "string"}]}',
        '{"resourceType": "QuestionnaireResponse", "status": "completed", "authored": "2026-06-30T23:00:00-05:00"}',
        '{"resourceType": "QuestionnaireResponse", "status": "completed", "authored": "2026-07-01T00:00:00+02:00"}');
    -- how often
    PERFORM ask('required', q('string', '{"required": true}'), a('{"valueString": "x"}'), '[]');
    PERFORM ask('required, not complete', q('string', '{"required": true}'), a('{"valueString": "x"}'), '{"resourceType": "QuestionnaireResponse", "status": "in-progress"}');
    PERFORM ask('required below an answer', nested, '[]', a('{"valueBoolean": true}'));
    PERFORM ask('required group', '[{"linkId": "g", "type": "group", "required": true, "item": [{"linkId": "q", "type": "string", "required": true}]}]',
        '[{"linkId": "g", "item": [{"linkId": "q", "answer": [{"valueString": "x"}]}]}]', '[]');
    PERFORM ask('required in a group', '[{"linkId": "g", "type": "group", "item": [{"linkId": "q", "type": "string", "required": true}, {"linkId": "r", "type": "string"}]}]',
        '[]', '[{"linkId": "g", "item": [{"linkId": "r", "answer": [{"valueString": "x"}]}]}]');
    PERFORM ask('one answer', q('integer'), a('{"valueInteger": 1}'), a('{"valueInteger": 1}', '{"valueInteger": 2}'));
    PERFORM ask('repeats', q('integer', '{"repeats": true}'), a('{"valueInteger": 1}', '{"valueInteger": 2}'), a('{"valueInteger": 1}', '{"valueString": "2"}'));
    PERFORM ask('maxOccurs', q('integer', '{"repeats": true}' || ext('questionnaire-maxOccurs', '{"valueInteger": 2}')),
        a('{"valueInteger": 1}', '{"valueInteger": 2}'), a('{"valueInteger": 1}', '{"valueInteger": 2}', '{"valueInteger": 3}'));
    PERFORM ask('minOccurs', q('integer', '{"repeats": true}' || ext('questionnaire-minOccurs', '{"valueInteger": 2}')),
        a('{"valueInteger": 1}', '{"valueInteger": 2}'), a('{"valueInteger": 1}'));
    -- limits
    PERFORM ask('minValue', q('integer', ext('minValue', '{"valueInteger": 0}')), a('{"valueInteger": 0}'), a('{"valueInteger": -1}'));
    PERFORM ask('maxValue', q('decimal', ext('maxValue', '{"valueDecimal": 7.5}')), a('{"valueDecimal": 7.50}'), a('{"valueDecimal": 7.51}'));
    PERFORM ask('minValue of a date', q('date', ext('minValue', '{"valueDate": "2020-06"}')), a('{"valueDate": "2020-06-01"}'), a('{"valueDate": "2020-05"}'));
    PERFORM ask('minValue, undecided', q('date', ext('minValue', '{"valueDate": "2020-06"}')), a('{"valueDate": "2021"}'), a('{"valueDate": "2020"}'));
    PERFORM ask('maxValue of a dateTime', q('dateTime', ext('maxValue', '{"valueDateTime": "2020-01-01T00:00:00Z"}')),
        a('{"valueDateTime": "2020-01-01T01:00:00+02:00"}'), a('{"valueDateTime": "2020-01-01T00:00:00-02:00"}'));
    PERFORM ask('maxValue of a time', q('time', ext('maxValue', '{"valueTime": "12:00:00"}')), a('{"valueTime": "12:00:00"}'), a('{"valueTime": "12:00:00.1"}'));
    PERFORM ask('minQuantity', q('quantity', jsonb_build_object('extension', jsonb_build_array(jsonb_build_object('url', 'http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-minQuantity',
            'valueQuantity', jsonb_build_object('value', 1.2, 'system', ucum, 'code', 'm'))))),
        a(jsonb_build_object('valueQuantity', jsonb_build_object('value', 120, 'system', ucum, 'code', 'cm'))),
        a(jsonb_build_object('valueQuantity', jsonb_build_object('value', 47, 'system', ucum, 'code', '[in_i]'))));
    PERFORM ask('minQuantity, not converted', (SELECT questionnaire FROM asked WHERE rule = 'minQuantity'),
        (SELECT good FROM asked WHERE rule = 'minQuantity'), a(jsonb_build_object('valueQuantity', jsonb_build_object('value', 1, 'system', ucum, 'code', 'kg'))));
    PERFORM ask('maxLength', q('string', '{"maxLength": 3}'), a('{"valueString": "äöü"}'), a('{"valueString": "abcd"}'));
    PERFORM ask('minLength', q('string', ext('minLength', '{"valueInteger": 3}')), a('{"valueString": "äöü"}'), a('{"valueString": "äö"}'));
    PERFORM ask('regex', q('string', ext('regex', '{"valueString": "[0-9]{2}|x"}')), a('{"valueString": "12"}'), a('{"valueString": "123"}'));
    PERFORM ask('maxDecimalPlaces', q('decimal', ext('maxDecimalPlaces', '{"valueInteger": 1}')), a('{"valueDecimal": 1.5}'), a('{"valueDecimal": 1.50}'));
    PERFORM ask('mimeType', q('attachment', ext('mimeType', '{"valueCode": "image/*"}')), a('{"valueAttachment": {"contentType": "image/png"}}'), a('{"valueAttachment": {"contentType": "text/plain"}}'));
    PERFORM ask('maxSize', q('attachment', ext('maxSize', '{"valueDecimal": 0.001}')), a('{"valueAttachment": {"size": 1000}}'), a(jsonb_build_object('valueAttachment', jsonb_build_object('data', repeat('AAAA', 400)))));
    PERFORM ask('referenceResource', q('reference', ext('questionnaire-referenceResource', '{"valueCode": "Patient"}')),
        a('{"valueReference": {"reference": "http://x.org/fhir/Patient/1/_history/2"}}'), a('{"valueReference": {"reference": "Practitioner/1"}}'));
    PERFORM ask('referenceResource, untold', q('reference', ext('questionnaire-referenceResource', '{"valueCode": "Patient"}')),
        a('{"valueReference": {"reference": "#x", "type": "Patient"}}'), a('{"valueReference": {"reference": "#x"}}'));
    -- codes
    PERFORM ask('answerOption', q('choice', options), a('{"valueCoding": {"system": "urn:s", "code": "b"}}'), a('{"valueCoding": {"system": "urn:s", "code": "c"}}'));
    PERFORM ask('answerOption, system', q('choice', options), a('{"valueCoding": {"system": "urn:s", "code": "b", "display": "B"}}'), a('{"valueCoding": {"system": "urn:t", "code": "b"}}'));
    PERFORM ask('answerOption, open', q('open-choice', options), a('{"valueString": "c"}'), a('{"valueCoding": {"system": "urn:s", "code": "c"}}'));
    PERFORM ask('optionExclusive', q('choice', options || '{"repeats": true}'), a('{"valueCoding": {"system": "urn:s", "code": "a"}}', '{"valueCoding": {"system": "urn:s", "code": "b"}}'),
        a('{"valueCoding": {"system": "urn:s", "code": "a"}}', '{"valueCoding": {"system": "urn:s", "code": "none"}}'));
    PERFORM ask('answerOption, integer', q('choice', '{"answerOption": [{"valueInteger": 10}, {"valueInteger": 9}]}'), a('{"valueInteger": 9}'), a('{"valueInteger": 8}'));
    PERFORM ask('answerOption, string', q('string', '{"answerOption": [{"valueString": "yes"}, {"valueString": "no"}]}'), a('{"valueString": "no"}'), a('{"valueString": "No"}'));
    PERFORM ask('answerOption, date', q('date', '{"answerOption": [{"valueDate": "2024-01-01"}]}'), a('{"valueDate": "2024-01-01"}'), a('{"valueDate": "2024-01-02"}'));
    PERFORM ask('answerOption, time', q('time', '{"answerOption": [{"valueTime": "08:00:00"}]}'), a('{"valueTime": "08:00:00"}'), a('{"valueTime": "09:00:00"}'));
    PERFORM ask('answerOption, reference', q('choice', '{"answerOption": [{"valueReference": {"reference": "Location/1"}}]}'),
        a('{"valueReference": {"reference": "Location/1"}}'), a('{"valueReference": {"reference": "Location/2"}}'));
    PERFORM ask('answerValueSet, contained', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('choice', '{"answerValueSet": "#v"}'), 'contained',
            '[{"resourceType": "ValueSet", "id": "v", "compose": {"include": [{"system": "urn:s", "concept": [{"code": "a"}, {"code": "b"}]}], "exclude": [{"system": "urn:s", "concept": [{"code": "b"}]}]}}]'::jsonb),
        a('{"valueCoding": {"system": "urn:s", "code": "a"}}'), a('{"valueCoding": {"system": "urn:s", "code": "b"}}'));
    PERFORM ask('answerValueSet, in the Bundle', jsonb_build_object('resourceType', 'Bundle', 'entry', jsonb_build_array(
            jsonb_build_object('resource', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('choice', '{"answerValueSet": "urn:v|2"}'))),
            '{"resource": {"resourceType": "ValueSet", "url": "urn:v", "version": "2", "compose": {"include": [{"valueSet": ["urn:w"]}, {"system": "urn:c"}]}}}'::jsonb,
            '{"resource": {"resourceType": "ValueSet", "url": "urn:w", "expansion": {"contains": [{"system": "urn:s", "code": "up", "abstract": true, "contains": [{"system": "urn:s", "code": "a"}]}]}}}'::jsonb,
            '{"resource": {"resourceType": "CodeSystem", "url": "urn:c", "content": "complete", "concept": [{"code": "x", "concept": [{"code": "y"}]}]}}'::jsonb)),
        a('{"valueCoding": {"system": "urn:c", "code": "y"}}'), a('{"valueCoding": {"system": "urn:s", "code": "up"}}'));
    PERFORM ask('answerValueSet, in part', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('choice', '{"answerValueSet": "#v"}'), 'contained',
            '[{"resourceType": "ValueSet", "id": "v", "compose": {"include": [{"system": "urn:s", "concept": [{"code": "a"}]}, {"valueSet": ["urn:elsewhere"]}]}}]'::jsonb),
        a('{"valueCoding": {"system": "urn:s", "code": "a"}}'), a('{"valueCoding": {"system": "urn:s", "code": "b"}}'));
    PERFORM ask('answerValueSet, elsewhere', q('open-choice', '{"answerValueSet": "urn:elsewhere"}'), a('{"valueString": "a"}'), a('{"valueCoding": {"system": "urn:s", "code": "a"}}'));
    PERFORM ask('unitOption', q('quantity', ext('questionnaire-unitOption', jsonb_build_object('valueCoding', jsonb_build_object('system', ucum, 'code', 'kg')))),
        a(jsonb_build_object('valueQuantity', jsonb_build_object('value', 70, 'system', ucum, 'code', 'kg'))),
        a(jsonb_build_object('valueQuantity', jsonb_build_object('value', 70, 'system', ucum, 'code', 'g'))));
    PERFORM ask('unitValueSet, elsewhere', q('quantity', ext('questionnaire-unitValueSet', '{"valueCanonical": "urn:units"}')), '[]', a('{"valueQuantity": {"value": 70, "unit": "kg"}}'));
END $$;
-- each good response has nothing to say, each bad one what its rule says
CREATE FUNCTION judge_asked(OUT rule text, OUT good text, OUT bad text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    SET LOCAL client_min_messages = warning;
    FOR r IN SELECT * FROM asked ORDER BY n LOOP
        PERFORM epro_etl.register_form('t26 ' || r.n, r.questionnaire);
        PERFORM epro_etl.create_sink('t26', 't26 ' || r.n, 't26_' || r.n);
        INSERT INTO staging VALUES (r.n * 2, 'ST01', 't26 ' || r.n, 'P-1', NULL, '2026-03-01', r.good), (r.n * 2 + 1, 'ST01', 't26 ' || r.n, 'P-1', NULL, '2026-03-01', r.bad);
    END LOOP;
    PERFORM epro_etl.run('t26', workers => 0);
    RETURN QUERY SELECT a.rule,
            (SELECT string_agg(format('%s %s: %s (%s, %s)', location, l.rule, message, kind, severity), '; ') FROM probe.last l WHERE source_id = (a.n * 2)::text),
            (SELECT string_agg(format('%s %s: %s (%s, %s)', location, l.rule, message, kind, severity), '; ') FROM probe.last l WHERE source_id = (a.n * 2 + 1)::text)
        FROM asked a ORDER BY a.n;
    DELETE FROM asked;
END $$;
\x on
\pset tuples_only on
\pset format unaligned
SELECT * FROM judge_asked();

-- enableWhen: operators, answers of each type, all and any, groups, nearest
DO $$
DECLARE
    r record;
    more jsonb := '[{"linkId": "more", "answer": [{"valueString": "m"}]}]';
    items jsonb;
    holds jsonb;
    fails jsonb;
BEGIN
    FOR r IN SELECT * FROM (VALUES
        ('exists', '{"operator": "exists", "answerBoolean": true}', '{"valueString": "x"}', NULL),
        ('does not exist', '{"operator": "exists", "answerBoolean": false}', NULL, '{"valueString": "x"}'),
        ('=', '{"operator": "=", "answerString": "x"}', '{"valueString": "x"}', '{"valueString": "y"}'),
        ('!=', '{"operator": "!=", "answerString": "x"}', '{"valueString": "y"}', '{"valueString": "x"}'),
        ('!= of no answer', '{"operator": "!=", "answerString": "x"}', '{"valueString": "y"}', NULL),
        ('boolean', '{"operator": "=", "answerBoolean": true}', '{"valueBoolean": true}', '{"valueBoolean": false}'),
        ('>', '{"operator": ">", "answerInteger": 1}', '{"valueInteger": 2}', '{"valueInteger": 1}'),
        ('<', '{"operator": "<", "answerInteger": 1}', '{"valueInteger": 0}', '{"valueInteger": 1}'),
        ('>=', '{"operator": ">=", "answerDecimal": 1.5}', '{"valueDecimal": 1.50}', '{"valueDecimal": 1.49}'),
        ('<=', '{"operator": "<=", "answerDecimal": 1.5}', '{"valueDecimal": 1.5}', '{"valueDecimal": 1.51}'),
        ('date', '{"operator": ">", "answerDate": "2024-06"}', '{"valueDate": "2024-07-01"}', '{"valueDate": "2024-05-31"}'),
        ('dateTime', '{"operator": "<", "answerDateTime": "2024-06-01T00:00:00Z"}', '{"valueDateTime": "2024-06-01T01:00:00+02:00"}', '{"valueDateTime": "2024-06-01T00:00:00-02:00"}'),
        ('time', '{"operator": ">=", "answerTime": "12:00:00"}', '{"valueTime": "12:00:00"}', '{"valueTime": "11:59:59"}'),
        ('coding', '{"operator": "=", "answerCoding": {"system": "urn:s", "code": "a"}}', '{"valueCoding": {"system": "urn:s", "code": "a"}}', '{"valueCoding": {"system": "urn:t", "code": "a"}}'),
        ('quantity', '{"operator": ">", "answerQuantity": {"value": 1, "system": "http://unitsofmeasure.org", "code": "kg"}}',
            '{"valueQuantity": {"value": 1001, "system": "http://unitsofmeasure.org", "code": "g"}}', '{"valueQuantity": {"value": 1000, "system": "http://unitsofmeasure.org", "code": "g"}}'),
        ('reference', '{"operator": "=", "answerReference": {"reference": "Patient/1"}}', '{"valueReference": {"reference": "Patient/1"}}', '{"valueReference": {"reference": "Patient/2"}}'))
        AS v (name, condition, holds, fails)
    LOOP
        items := jsonb_build_array(jsonb_build_object('linkId', 'q', 'repeats', true, 'type',
                CASE substring(r.condition from 'answer([A-Za-z]+)') WHEN 'DateTime' THEN 'dateTime' WHEN 'Coding' THEN 'choice'
                    ELSE CASE WHEN r.name LIKE '%exist%' THEN 'string' ELSE lower(substring(r.condition from 'answer([A-Za-z]+)')) END END),
            jsonb_build_object('linkId', 'more', 'type', 'string', 'required', true, 'enableWhen', jsonb_build_array('{"question": "q"}' || r.condition::jsonb)));
        holds := CASE WHEN r.holds IS NULL THEN '[]' ELSE a(r.holds::jsonb) END;
        fails := CASE WHEN r.fails IS NULL THEN '[]' ELSE a(r.fails::jsonb) END;
        PERFORM ask(r.name || ': must not be answered', items, holds || more, fails || more);
        PERFORM ask(r.name || ': must be answered', items, fails, holds);
    END LOOP;
END $$;
SELECT * FROM judge_asked();

-- all and any, groups, nesting
CREATE FUNCTION chosen(behaviour text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array('{"linkId": "a", "type": "integer"}'::jsonb, '{"linkId": "b", "type": "integer"}'::jsonb,
        jsonb_build_object('linkId', 'c', 'type', 'string', 'required', true, 'enableBehavior', behaviour, 'enableWhen',
            '[{"question": "a", "operator": "=", "answerInteger": 1}, {"question": "b", "operator": "=", "answerInteger": 1}]'::jsonb)) $$;
SELECT ask('all', chosen('all'), '[{"linkId": "a", "answer": [{"valueInteger": 1}]}]', '[{"linkId": "a", "answer": [{"valueInteger": 1}]}, {"linkId": "b", "answer": [{"valueInteger": 1}]}]');
SELECT ask('any', chosen('any'), '[{"linkId": "a", "answer": [{"valueInteger": 0}]}]', '[{"linkId": "a", "answer": [{"valueInteger": 1}]}]');
SELECT ask('group', '[{"linkId": "a", "type": "boolean"}, {"linkId": "g", "type": "group", "required": true, "enableWhen": [{"question": "a", "operator": "=", "answerBoolean": true}],
        "item": [{"linkId": "q", "type": "string", "required": true}]}]',
    '[{"linkId": "a", "answer": [{"valueBoolean": false}]}]', '[{"linkId": "a", "answer": [{"valueBoolean": false}]}, {"linkId": "g", "item": [{"linkId": "q", "answer": [{"valueString": "x"}]}]}]');
SELECT ask('undecided', '[{"linkId": "a", "type": "date"}, {"linkId": "q", "type": "string", "required": true, "enableWhen": [{"question": "a", "operator": ">", "answerDate": "2024-06-15"}]}]',
    '[{"linkId": "a", "answer": [{"valueDate": "2024-05"}]}]', '[{"linkId": "a", "answer": [{"valueDate": "2024-06"}]}]');
SELECT ask('undecided, and answered', '[{"linkId": "a", "type": "date"}, {"linkId": "q", "type": "string", "required": true, "enableWhen": [{"question": "a", "operator": ">", "answerDate": "2024-06-15"}]}]',
    '[{"linkId": "a", "answer": [{"valueDate": "2024-07"}]}, {"linkId": "q", "answer": [{"valueString": "x"}]}]',
    '[{"linkId": "a", "answer": [{"valueDate": "2024-06"}]}, {"linkId": "q", "answer": [{"valueString": "x"}]}]');
SELECT ask('nearest', '[{"linkId": "g", "type": "group", "repeats": true, "item": [{"linkId": "a", "type": "boolean"},
        {"linkId": "q", "type": "string", "required": true, "enableWhen": [{"question": "a", "operator": "=", "answerBoolean": true}]}]}]',
    '[{"linkId": "g", "item": [{"linkId": "a", "answer": [{"valueBoolean": true}]}, {"linkId": "q", "answer": [{"valueString": "x"}]}]}, {"linkId": "g", "item": [{"linkId": "a", "answer": [{"valueBoolean": false}]}]}]',
    '[{"linkId": "g", "item": [{"linkId": "a", "answer": [{"valueBoolean": true}]}]}, {"linkId": "g", "item": [{"linkId": "a", "answer": [{"valueBoolean": false}]}, {"linkId": "q", "answer": [{"valueString": "x"}]}]}]');
SELECT ask('the question above', '[{"linkId": "a", "type": "boolean", "item": [{"linkId": "q", "type": "string", "required": true, "enableWhen": [{"question": "a", "operator": "=", "answerBoolean": true}]}]}]',
    '[{"linkId": "a", "answer": [{"valueBoolean": false}]}]', '[{"linkId": "a", "answer": [{"valueBoolean": true}]}]');
SELECT * FROM judge_asked();
\x off
\pset tuples_only off
\pset format aligned

-- what is refused, and what is listed
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Patient"}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Bundle", "entry": []}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire"}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "d", "type": "display"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "a", "type": "string"}, {"linkId": "a", "type": "string"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "1.1", "type": "string"}, {"linkId": "1-1", "type": "string"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"type": "string"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "a", "type": "strin"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "a", "type": "string", "required": "yes"}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "a", "type": "string", "modifierExtension": [{"url": "urn:x"}]}]}');
SELECT epro_etl.register_form('t26 x', '{"resourceType": "Questionnaire", "item": [{"linkId": "a", "type": "string", "enableWhen": [{"question": "b", "operator": "exists", "answerBoolean": true}]}]}');
SELECT epro_etl.register_form('t26 x', jsonb_build_object('resourceType', 'Questionnaire', 'item', chosen(NULL)));
SELECT epro_etl.register_form('t26 x', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('string', ext('regex', '{"valueString": "("}'))));
SELECT epro_etl.register_form('t26 x', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('string', ext('minValue', '{"valueInteger": 1}'))));
SELECT epro_etl.register_form('t26 x', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('choice', '{"answerValueSet": "#v", "answerOption": [{"valueInteger": 1}]}')));
SELECT epro_etl.register_form('t26 x', jsonb_build_object('resourceType', 'Questionnaire', 'item', q('string', ext('questionnaire-constraint', '{"extension": []}'))));
SELECT * FROM epro_etl.form_not_imported('t26 x');

-- wide and long: how answers of each type arrive, and repeated ones
SELECT epro_etl.register_form('t26 all', jsonb_build_object('resourceType', 'Questionnaire', 'url', 'urn:all', 'item', '[
    {"linkId": "1", "type": "group", "item": [{"linkId": "b", "type": "boolean"}, {"linkId": "n", "type": "decimal"}, {"linkId": "i", "type": "integer", "required": true}]},
    {"linkId": "d", "type": "date"}, {"linkId": "dt", "type": "dateTime"}, {"linkId": "t", "type": "time"}, {"linkId": "s", "type": "string"}, {"linkId": "u", "type": "url"},
    {"linkId": "c", "type": "choice", "answerOption": [{"valueCoding": {"system": "urn:s", "code": "A"}}]}, {"linkId": "o", "type": "open-choice"},
    {"linkId": "kg", "type": "quantity", "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unit", "valueCoding": {"system": "http://unitsofmeasure.org", "code": "kg"}}]},
    {"linkId": "any", "type": "quantity"}, {"linkId": "r", "type": "reference"}, {"linkId": "many", "type": "integer", "repeats": true},
    {"linkId": "med", "type": "group", "repeats": true, "item": [{"linkId": "med.name", "type": "string"}, {"linkId": "med.day", "type": "choice", "repeats": true}]}]'::jsonb));
SELECT * FROM epro_etl.form_items('t26 all');
SELECT epro_etl.create_sink('t26', 't26 all', 'all_wide');
SELECT epro_etl.create_sink('t26', 't26 all', 'all_long', 'long');
-- a whole date goes into a date column, too
CREATE TABLE dates (source_id int, d date, dt timestamptz, t text);
SELECT epro_etl.add_sink('t26', 't26 all', 'dates');
SELECT epro_etl.add_edit_check('t26 all', 'weight_of_adult', 'kg > 30', severity => 'warning');
SELECT setval('staged', 9000);
SELECT probe.put('t26 all', '{"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "urn:all", "item": [
    {"linkId": "1", "item": [{"linkId": "b", "answer": [{"valueBoolean": true}]}, {"linkId": "n", "answer": [{"valueDecimal": 1.50}]}, {"linkId": "i", "answer": [{"valueInteger": 7}]}]},
    {"linkId": "d", "answer": [{"valueDate": "2024-02-29"}]}, {"linkId": "dt", "answer": [{"valueDateTime": "2024-02-29T12:00:00+02:00"}]}, {"linkId": "t", "answer": [{"valueTime": "08:30:00"}]},
    {"linkId": "s", "answer": [{"valueString": "words"}]}, {"linkId": "u", "answer": [{"valueUri": "urn:x"}]}, {"linkId": "c", "answer": [{"valueCoding": {"system": "urn:s", "code": "A"}}]},
    {"linkId": "o", "answer": [{"valueString": "own words"}]}, {"linkId": "kg", "answer": [{"valueQuantity": {"value": 29.5, "system": "http://unitsofmeasure.org", "code": "kg"}}]},
    {"linkId": "any", "answer": [{"valueQuantity": {"value": 1, "unit": "cup"}}]}, {"linkId": "r", "answer": [{"valueReference": {"reference": "Device/1"}}]},
    {"linkId": "many", "answer": [{"valueInteger": 1}, {"valueInteger": 2}]},
    {"linkId": "med", "item": [{"linkId": "med.name", "answer": [{"valueString": "first"}]}, {"linkId": "med.day", "answer": [{"valueCoding": {"code": "mon"}}, {"valueCoding": {"code": "tue"}}]}]},
    {"linkId": "med", "item": [{"linkId": "med.day", "answer": [{"valueCoding": {"code": "wed"}}]}]}, {"linkId": "med", "item": [{"linkId": "med.name", "answer": [{"valueString": "third"}]}]}]}',
    -- the same by linkId, without the resource around it
    '{"b": true, "n": 1.50, "i": 7, "d": "2024-02-29", "dt": "2024-02-29T12:00:00+02:00", "t": "08:30:00", "s": "words", "u": "urn:x", "c": "A", "o": "own words", "kg": 29.5,
      "any": {"value": 1, "unit": "cup"}, "r": {"reference": "Device/1"}, "many": [1, 2], "unknown": 1}',
    '{"b": 1, "i": "7", "c": "B", "many": 1, "s": ["a", "b"], "d": null}');
SELECT status, claimed, loaded, warned, rejected FROM epro_etl.run('t26', workers => 0);
SELECT * FROM probe.last;
\x on
SELECT b, n, i, d, dt, t, s, u, c, o, kg, "any", r, many, med_name, med_day FROM all_wide ORDER BY source_id;
\x off
SELECT item, item_no, value, value_number FROM all_long WHERE source_id = 9001 ORDER BY item_no;
SELECT source_id, d, dt AT TIME ZONE 'UTC' AS dt, t FROM dates ORDER BY source_id;
-- a part of a date is no date for a date column
SELECT probe.put('t26 all', '{"i": 1, "d": "2024-02"}');
SELECT status, loaded, rejected FROM epro_etl.run('t26', workers => 0);
SELECT * FROM probe.last;

-- the same in every topology: with workers, and in a stream that is cut behind each stage
CREATE FUNCTION stage_again(from_id int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO staging SELECT from_id + n, 'ST01', 't26 all', 'P-' || n, NULL, '2026-03-01', p FROM unnest(ARRAY[
        '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": [{"linkId": "1", "item": [{"linkId": "n", "answer": [{"valueDecimal": 1.50}]}, {"linkId": "i", "answer": [{"valueInteger": 7}]}]},
          {"linkId": "dt", "answer": [{"valueDateTime": "2024-02-29T12:00:00+02:00"}]}, {"linkId": "t", "answer": [{"valueTime": "08:30:00"}]},
          {"linkId": "kg", "answer": [{"valueQuantity": {"value": 29.5, "system": "http://unitsofmeasure.org", "code": "kg"}}]}, {"linkId": "any", "answer": [{"valueQuantity": {"value": 1, "unit": "cup"}}]},
          {"linkId": "many", "answer": [{"valueInteger": 1}, {"valueInteger": 2}]},
          {"linkId": "med", "item": [{"linkId": "med.day", "answer": [{"valueCoding": {"code": "mon"}}, {"valueCoding": {"code": "tue"}}]}]}, {"linkId": "med", "item": [{"linkId": "med.name", "answer": [{"valueString": "x"}]}]}]}',
        '{"i": 8, "c": "A", "d": "2024-02-29", "dt": "2024-02-29T12:00:00+02:00"}', '{"i": "8", "c": "B"}']::jsonb[]) WITH ORDINALITY AS u (p, n) $$;
SELECT stage_again(20000);
SELECT status, loaded, warned, rejected FROM epro_etl.run('t26', workers => 0);
SELECT stage_again(30000);
SELECT status, loaded, warned, rejected FROM epro_etl.run('t26', workers => 2);
SELECT stage_again(40000);
SELECT epro_etl.start_stream('t26', stages => '{"decode": 1, "deidentify": 1, "normalise": 1, "validate": 1, "store": 1}');
DO $$ BEGIN FOR i IN 1..3000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM staging); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT epro_etl.stop_stream('t26');
SELECT count(*) FROM all_wide WHERE source_id >= 20000;
-- no row is right: what arrived and what was found is the same each time
SELECT source_id % 10000 AS row, to_jsonb(w) - '{source_id,run_id,loaded_at}'::text[] AS is FROM all_wide w WHERE source_id >= 30000
    EXCEPT SELECT source_id % 10000, to_jsonb(w) - '{source_id,run_id,loaded_at}'::text[] FROM all_wide w WHERE source_id BETWEEN 20000 AND 29999;
SELECT source_id % 10000 AS row, d, dt, t FROM dates WHERE source_id >= 30000
    EXCEPT SELECT source_id % 10000, d, dt, t FROM dates WHERE source_id BETWEEN 20000 AND 29999;
SELECT right(source_id, 1) AS row, location, rule, kind, severity, count(*) FROM epro_etl.finding WHERE form = 't26 all' AND source_id ~ '^[234]000[123]$'
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3;

-- de-identification by linkId, before anything is stored; what it takes is asked for and not judged
SELECT epro_etl.register_form('t26 who', '{"resourceType": "Questionnaire", "url": "urn:who", "item": [{"linkId": "name", "type": "string", "required": true, "maxLength": 3},
    {"linkId": "born", "type": "date"}, {"linkId": "email", "type": "string", "repeats": true}, {"linkId": "note", "type": "text"}]}');
SELECT epro_etl.set_deid('t26 who', '/name', 'remove');
SELECT epro_etl.set_deid('t26 who', '/email', 'remove');
SELECT epro_etl.set_deid('t26 who', '/note', 'redact');
SELECT epro_etl.set_deid('t26 who', '/born', 'generalize', '{"to": "age"}');
SELECT epro_etl.create_sink('t26', 't26 who', 'who');
SELECT probe.put('t26 who', '{"resourceType": "QuestionnaireResponse", "status": "completed", "item": [{"linkId": "name", "answer": [{"valueString": "Ada Byron"}]},
    {"linkId": "born", "answer": [{"valueDate": "1990-03-02"}]}, {"linkId": "email", "answer": [{"valueString": "a@example.org"}]}, {"linkId": "note", "answer": [{"valueString": "call Ada"}]}]}',
    '{"born": "1990", "name": "Ada"}', '{"born": "1990-03-02"}');
SELECT status, loaded, rejected FROM epro_etl.run('t26', workers => 0);
SELECT * FROM probe.last;
SELECT * FROM who \gdesc
SELECT born, note FROM who;

-- a severity laid over: by the item's location and the rule
SELECT epro_etl.set_severity('t26 all', '/i/required', 'warning');
SELECT * FROM epro_etl.validate('t26 all', '{"b": true, "kg": 70}');
SELECT epro_etl.set_severity('t26 all', '/required', 'warning');
SELECT epro_etl.set_severity('t26 all', '/c/answerOption', 'warning');
SELECT * FROM epro_etl.validate('t26 all', '{"b": true, "kg": 70, "i": 1, "c": "zz"}');
SELECT epro_etl.set_severity('t26 all', '/c/answerOption', NULL);
SELECT epro_etl.set_severity('t26 all', '/i/required', NULL);
SELECT * FROM epro_etl.validate('t26 all', '{"b": true, "kg": 70}');

-- an item that has to do with no other is judged where it is read: as if a condition had asked about it
CREATE FUNCTION questions(asked boolean) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('resourceType', 'Questionnaire', 'item', i.items || CASE WHEN asked THEN
        (SELECT jsonb_agg(jsonb_build_object('linkId', 'if ' || (q ->> 'linkId'), 'type', 'string', 'enableWhen',
            jsonb_build_array(jsonb_build_object('question', q ->> 'linkId', 'operator', 'exists', 'answerBoolean', true)))) FROM jsonb_array_elements(i.items) q) ELSE '[]' END)
    FROM (SELECT '[{"linkId": "i", "type": "integer", "required": true, "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueInteger": 0},
            {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueInteger": 3}]},
          {"linkId": "x", "type": "decimal", "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueDecimal": 0.5},
            {"url": "http://hl7.org/fhir/StructureDefinition/maxDecimalPlaces", "valueInteger": 1}]},
          {"linkId": "d", "type": "date", "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueDate": "2026-06-15"}]},
          {"linkId": "c", "type": "choice", "answerOption": [{"valueCoding": {"code": "A"}}, {"valueCoding": {"code": "N"},
            "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-optionExclusive", "valueBoolean": true}]}]},
          {"linkId": "w", "type": "string", "maxLength": 3, "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/regex", "valueString": "[a-z]*"}]},
          {"linkId": "b", "type": "boolean"}, {"linkId": "q", "type": "quantity"}]'::jsonb AS items) i $$;
SELECT epro_etl.register_form('t26 lone', questions(false)), epro_etl.register_form('t26 asked', questions(true));
CREATE TABLE plain AS SELECT n, p FROM unnest(ARRAY['{}', '{"i": 2, "x": 1.5, "d": "2026-01-01", "c": "A", "w": "abc", "b": true, "q": {"value": 1}}', '{"i": null}', '{"i": 4, "x": 0.25, "c": "B"}', '{"i": "2", "b": 1}',
    '{"i": 2.5, "x": "1", "d": "2026-13-01"}', '{"i": [2], "c": ["A", "N"]}', '{"i": [], "c": ["N"], "b": [true]}', '{"i": {"a": 1}, "q": 5, "d": "2026"}', '{"i": 99999999999, "w": "AB"}',
    '{"i": 1, "w": "", "c": "", "d": ""}', '{"i": 1, "w": "abcd", "c": {"code": "A"}, "q": {"unit": "kg"}, "d": "2027"}', '{"a": 1, "zzz": 2, "i": 0}']::jsonb[]) WITH ORDINALITY AS u (p, n);
SELECT c.n, count(*), count(*) FILTER (WHERE lone IS DISTINCT FROM asked) AS differ FROM (
    SELECT n, v AS lone, count(*) FROM plain, epro_etl.validate('t26 lone', p) v GROUP BY n, v) a
    FULL JOIN (SELECT n, v AS asked, count(*) FROM plain, epro_etl.validate('t26 asked', p) v GROUP BY n, v) b ON (a.n, a.lone, a.count) = (b.n, b.asked, b.count),
    LATERAL (SELECT coalesce(a.n, b.n) AS n) c GROUP BY c.n ORDER BY c.n;

-- hostile ones: findings, and the server goes on
SELECT setval('staged', 9500);
INSERT INTO staging SELECT nextval('staged'), 'ST01', 't26 all', 'P-1', NULL, '2026-03-01', jsonb_build_object('resourceType', 'QuestionnaireResponse', 'status', 'completed', 'item', p)
    FROM (VALUES (jsonb '5'), ('{}'), ('[[]]'), ('[null, 1, "x", true]'), ('[{"linkId": 5}]'), ('[{"linkId": "d", "answer": 5}]'), ('[{"linkId": "d", "answer": [5]}]'),
        ('[{"linkId": "d", "answer": [{"valueDate": {}}]}]'), ('[{"linkId": "kg", "answer": [{"valueQuantity": {"value": "7"}}]}]'),
        (('[' || repeat('{"linkId": "1", "item": [', 2000) || repeat(']}', 2000) || ']')::jsonb),
        ((SELECT jsonb_agg('{"linkId": "med", "item": [{"linkId": "med.name"}]}'::jsonb) FROM generate_series(1, 12000)))) v (p);
SELECT status, loaded, rejected FROM epro_etl.run('t26', workers => 0);
SELECT source_id, location, rule, kind, message, count(*) FROM probe.last GROUP BY 1, 2, 3, 4, 5 ORDER BY source_id, location, rule, message;
\pset null ''
SELECT probe.close_area('t26');
