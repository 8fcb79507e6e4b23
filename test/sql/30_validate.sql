-- validate(): what a run would say of one response.
\set SHOW_CONTEXT never
SELECT probe.open_area('t30');
SELECT epro_etl.register_form('T30', '{"type": "object", "required": ["hours"], "x-normalise": ["trim", "coerce"], "properties": {
    "hours": {"type": "integer", "minimum": 0, "maximum": 24}, "note": {"type": "string"}, "name": {"type": "string", "maxLength": 3},
    "born": {"type": "string", "format": "date"}}}');
SELECT epro_etl.set_deid('T30', '/name', 'remove');
SELECT epro_etl.set_deid('T30', '/born', 'generalize', '{"to": "age"}');
SELECT epro_etl.add_edit_check('T30', 'short', 'hours >= 5', 'warning', message => 'a short night');
SELECT epro_etl.add_edit_check('T30', 'ratio', '24 / hours > 1', condition => 'hours < 24');
SELECT epro_etl.add_edit_check('T30', 'adult', 'born >= 18');
SELECT epro_etl.add_edit_check('T30', 'first visit', 'visit <> ''V1'' OR note IS NULL', 'information');
SELECT epro_etl.add_edit_check('T30', 'late', 'authored < ''2030-01-01''');
SELECT epro_etl.add_edit_check('T30', 'subject', 'subject <> ''x''');
CREATE TABLE place (study text, wait float8);
INSERT INTO place VALUES ('S', 0), ('SLOW', 30);
CREATE FUNCTION known(study text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(p.wait) FROM t30.place p WHERE p.study = known.study;
    RETURN EXISTS (SELECT FROM t30.place p WHERE p.study = known.study);
END $$;
SELECT epro_etl.add_lookup('T30', 'known', 't30.known(study)', timeout => '20 ms');
-- nothing to say but what cannot be evaluated
SELECT * FROM epro_etl.validate('T30', '{"hours": " 7 ", "born": "1980-01-01", "name": "long name"}', study => 'S', visit => 'V2', authored => '2024-05-05');
-- all kinds
SELECT * FROM epro_etl.validate('T30', '{"hours": 0, "note": "n", "born": "2020-01-01"}', 'X', 'V1', '2031-01-01');
SELECT * FROM epro_etl.validate('T30', '{"hours": 25}');
SELECT * FROM epro_etl.validate('T30', '{"hours": "eight", "note": 1}', 'S');
-- a lookup without an answer defers nothing here: all else is said
SELECT * FROM epro_etl.validate('T30', '{"note": "n"}', 'SLOW');
-- each trial asks anew
SELECT rule, kind FROM epro_etl.validate('T30', '{"hours": 7}', 'NEW') WHERE rule = 'known';
INSERT INTO place VALUES ('NEW', 0);
SELECT rule, kind FROM epro_etl.validate('T30', '{"hours": 7}', 'NEW') WHERE rule = 'known';
-- not a response
SELECT * FROM epro_etl.validate('T30', '[1]');
SELECT * FROM epro_etl.validate('T30', NULL);
SELECT * FROM epro_etl.validate('T31', '{}');
SELECT * FROM epro_etl.validate(NULL, '{}');
-- the same as a run says
INSERT INTO staging (id, study, form, subject, visit, authored, payload) VALUES (1, 'X', 'T30', 'P', 'V1', '2031-01-01', '{"hours": 0, "note": "n", "born": "2020-01-01"}');
SELECT epro_etl.create_sink('t30', 'T30', 'sink');
SELECT loaded, rejected FROM epro_etl.run('t30', workers => 0);
SELECT location, rule, kind, severity, message FROM epro_etl.finding WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger)
EXCEPT SELECT * FROM epro_etl.validate('T30', '{"hours": 0, "note": "n", "born": "2020-01-01"}', 'X', 'V1', '2031-01-01');
-- a malformed date can be judged by its author, many in a query
SELECT n, v.rule FROM generate_series(4, 6) n, epro_etl.validate('T30', jsonb_build_object('hours', n), 'S') v WHERE v.severity = 'warning' ORDER BY 1, 2;
SELECT probe.close_area('t30');
