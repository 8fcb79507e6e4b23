-- Normalising: what the form declares, and nothing else; meaning never changes.
\set SHOW_CONTEXT never
SELECT probe.open_area('t03');
SELECT epro_etl.register_form('t03', '{
    "x-normalise": ["trim", "width", "coerce", "fold", "blank"],
    "properties": {
        "i":   {"type": "integer", "minimum": -10, "maximum": 10},
        "x":   {"type": "number"},
        "b":   {"type": "boolean"},
        "c":   {"type": "string", "enum": ["Y", "N", "NA", "Na2", "nA2"]},
        "k":   {"type": "string", "enum": ["1", "2"]},
        "raw": {"type": "integer", "x-normalise": []},
        "t":   {"type": "string", "x-normalise": ["trim"]},
        "w":   {"type": "string", "x-normalise": ["width"]},
        "d":   {"type": "string", "format": "date"},
        "both": {"type": ["integer", "string"]},
        "nul": {"type": ["integer", "null"]},
        "q":   {"type": "string", "const": "Yes"},
        "g":   {"type": "object", "properties": {"z": {"type": "integer"}}}}}');
SELECT epro_etl.create_sink('t03', 't03', 't03');
-- an answer, and what it must become: NULL is no answer, '-' a finding
CREATE TABLE expected (id int PRIMARY KEY DEFAULT nextval('staged'), item text, answer jsonb, becomes text);
INSERT INTO expected (item, answer, becomes) VALUES
    ('i', '3', '3'), ('i', '"3"', '3'), ('i', '" 3 "', '3'), ('i', '"７"', '7'), ('i', '"7.0"', '7'), ('i', '7.0', '7'),
    ('i', '"-3"', '-3'), ('i', '"　７．０　"', '7'), ('i', '"－７"', '-7'), ('i', '""', NULL), ('i', '"  "', NULL),
    ('i', '7.3', '-'), ('i', '"7.3"', '-'), ('i', '"7,0"', '-'), ('i', '"1_0"', '-'), ('i', '"0x7"', '-'),
    ('i', '"Infinity"', '-'), ('i', '"seven"', '-'), ('i', 'true', '-'), ('i', '"true"', '-'), ('i', '[7]', '-'), ('i', 'null', '-'),
    ('i', '"11"', '-'), ('i', '"-11"', '-'), ('i', '"1e1"', '10'), ('i', '"10000000000000000000000"', '-'), ('i', '"七"', '-'),
    ('x', '"1.50"', '1.50'), ('x', '1.50', '1.50'), ('x', '"1e3"', '1000'), ('x', '"NaN"', '-'), ('x', '"1.5 mg"', '-'),
    ('x', '"0.1000000000000000000000000000000000001"', '0.1000000000000000000000000000000000001'),
    ('b', 'true', 'true'), ('b', '"true"', 'true'), ('b', '"false"', 'false'), ('b', '1', '-'), ('b', '"yes"', '-'),
    ('c', '"Y"', 'Y'), ('c', '"y"', 'Y'), ('c', '" Ｎａ "', 'NA'), ('c', '"Na2"', 'Na2'), ('c', '"nA2"', 'nA2'),
    ('c', '"NA2"', '-'), ('c', '"YES"', '-'), ('c', '""', NULL), ('c', '5', '-'),
    ('k', '"１"', '1'), ('k', '1', '1'), ('k', '1.5', '-'), ('k', '"3"', '-'),
    ('raw', '3', '3'), ('raw', '"3"', '-'), ('raw', '" 3"', '-'), ('raw', '""', '-'),
    ('t', '"  ａb "', 'ａb'), ('t', '"   "', ''), ('t', '"\t\u00a0x\u3000\n"', 'x'),
    ('w', '" ａＢ９ "', ' aB9 '), ('w', '"ｶﾅ漢字é"', 'ｶﾅ漢字é'),
    ('d', '" ２０２０-01-02 "', '2020-01-02'), ('d', '""', NULL), ('d', '"2020-1-2"', '-'),
    ('both', '"x"', 'x'), ('both', '3', '3'), ('nul', 'null', NULL), ('nul', '""', NULL), ('nul', '"null"', '-'), ('nul', '"4"', '4'),
    ('q', '"Yes"', 'Yes'), ('q', '"YES"', '-'), ('q', '"No"', '-'),
    ('g', '{"z": "５"}', '5'), ('g', '{"z": "x"}', '-');
INSERT INTO staging SELECT id, 'ST01', 't03', 'P-1', NULL, '2026-03-01Z', jsonb_build_object(item, answer) FROM expected;
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t03', workers => 0);
-- each answer became what it must, and no other item got one: no row is right
CREATE VIEW became AS
    SELECT e.id, e.item, e.answer, e.becomes,
           CASE WHEN made.source_id IS NULL THEN '-' ELSE to_jsonb(made) ->> CASE e.item WHEN 'g' THEN 'g_z' ELSE e.item END END AS found,
           (SELECT count(*) FROM jsonb_each(to_jsonb(made)) AS j (name, v) WHERE v <> 'null' AND name IN
               ('i', 'x', 'b', 'c', 'k', 'raw', 't', 'w', 'd', 'both', 'nul', 'q', 'g_z')) AS answers
    FROM expected e LEFT JOIN t03 made ON made.source_id = e.id;
SELECT * FROM became WHERE (found IS DISTINCT FROM becomes OR answers <> CASE WHEN becomes IS NULL OR becomes = '-' THEN 0 ELSE 1 END) ORDER BY id;
-- what the findings say
SELECT e.item, e.answer, l.location, l.rule, l.kind, l.message FROM probe.last l JOIN expected e ON e.id = l.source_id::int ORDER BY e.id;
-- the original is in quarantine as it came
SELECT count(*) AS altered FROM epro_etl.quarantine q JOIN expected e ON e.id = q.source_id::int
    WHERE pipeline = 't03' AND q.original -> 'payload' IS DISTINCT FROM jsonb_build_object(e.item, e.answer);

-- without "x-normalise" nothing is touched
SELECT epro_etl.register_form('t03_plain', '{"properties": {"i": {"type": "integer"}, "t": {"type": "string"}, "c": {"enum": ["Y"]}}, "required": ["t"]}');
SELECT epro_etl.create_sink('t03', 't03_plain', 't03_plain');
TRUNCATE staging;
SELECT probe.put('t03_plain', '{"t": " ａ ", "i": 7.0}', '{"t": ""}', '{"t": "x", "i": "7"}', '{"t": "x", "c": "y"}', '{"t": null}', '{}');
SELECT status, loaded, rejected FROM epro_etl.run('t03', workers => 0);
SELECT i, '[' || t || ']' AS t, c FROM t03_plain ORDER BY source_id;
SELECT location, rule, message FROM probe.last;
-- a required item that is blank is a missing one, where blank is declared
SELECT epro_etl.register_form('t03_blank', '{"x-normalise": ["trim", "blank"], "properties": {"t": {"type": "string", "minLength": 2}}, "required": ["t"]}');
SELECT epro_etl.create_sink('t03', 't03_blank', 't03_blank');
SELECT probe.put('t03_blank', '{"t": " "}', '{"t": "a "}', '{"t": " ab "}');
SELECT status, loaded, rejected FROM epro_etl.run('t03', workers => 0);
SELECT location, rule, message FROM probe.last;
SELECT probe.close_area('t03');
