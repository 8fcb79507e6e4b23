-- Edit checks: what is an expression, what is refused and where, and how they judge.
\set SHOW_CONTEXT never
SELECT probe.open_area('t05');
SELECT epro_etl.register_form('t05', '{"properties": {
    "a": {"type": "integer"}, "B": {"type": "integer"}, "b": {"type": "integer"}, "N": {"type": "number"}, "t": {"type": "string"},
    "g": {"type": "object", "properties": {"x": {"type": "integer"}}}, "d": {"type": "string", "format": "date"},
    "yes": {"type": "boolean"}, "list": {"type": "array"}, "gone": {"type": "string"}}}');
SELECT epro_etl.set_deid('t05', '/gone', 'remove');
-- accepted, or refused at a position
CREATE TABLE tried (n serial, expression text);
INSERT INTO tried (expression) VALUES
    ('a = 1'), ('"B" = b'), ('g.x > 0'), ('G.X > 0'), ('d <= authored::date'), ('yes'), ('(list ->> 0)::int > 0'),
    ('a BETWEEN 1 AND 3 AND t IN (''x'', ''y'') AND n IS NOT NULL'), ('subject IS NOT NULL'), ('visit = ''DAY 1'''), ('study = ''ST01'''),
    ('CASE WHEN a > 1 THEN b > 1 ELSE true END'), ('t COLLATE "C" < ''z'''), ('a / 0 = 1'), ('NULL'), ('coalesce(a, 0) + "B" > length(t)'),
    ('a = '), (''), ('  '), ('a'), ('zzz = 1'), ('gone = ''x'''), ('source_id = ''1'''), ('ctid IS NULL'), ('t = 1'), ('nosuch(a)'),
    ('a = (SELECT 1)'), ('EXISTS (SELECT FROM pg_class)'), ('a = ALL (ARRAY(SELECT 1))'), ('sum(a) > 1'), ('rank() OVER () = 1'),
    ('generate_series(1, 2) > 1'), ('random() > 0.5'), ('d <= now()'), ('d <= current_date'), ('a = $1'), ('*'), ('a = DEFAULT'),
    ('a = 1; SELECT true'), ('a = 1, b = 1'), ('a = 1 FROM pg_class'), ('a = 1 WHERE true'), ('a = 1 UNION SELECT true'), ('true) OR (true'),
    ('a = 1 LIMIT 1'), ('a = 1 INTO x'), ('a = 1 -- remark'), ('a = 1 /* open'), ('g = ''1'''), ('g.* IS NULL'), ('setval(''x'', 1) > 1'),
    ('(a, b) = (1, 2)'), ('ROW(a) IS NULL'), ('a IN (1, 2) AS x'), ('pg_sleep(1) IS NULL'), ('"b"."c" = 1'), ('(SELECT true)');
DO $$
DECLARE
    r record;
    said text;
BEGIN
    FOR r IN SELECT * FROM tried ORDER BY n LOOP
        BEGIN
            PERFORM epro_etl.add_edit_check('t05', 'tried', r.expression);
            said := 'accepted';
            PERFORM epro_etl.remove_edit_check('t05', 'tried');
        EXCEPTION WHEN OTHERS THEN
            said := SQLSTATE || ' ' || SQLERRM;
        END;
        RAISE INFO '%  ->  %', r.expression, said;
    END LOOP;
END $$;
SELECT epro_etl.add_edit_check('t05', 'r', 'a = 1 AND zzz = 1');
SELECT epro_etl.add_edit_check('t05', 'r', 'a = ');
SELECT epro_etl.add_edit_check('t05', 'r', 'a + 1');
SELECT epro_etl.add_edit_check('t05', 'r', 'a = 1', condition => 'random() > 0');
SELECT epro_etl.add_edit_check('t05', 'r', 'a = 1', condition => 'a');
SELECT epro_etl.add_edit_check('t05', 'r', 'a = 1', severity => 'fatal');
SELECT epro_etl.add_edit_check('t05', 'r', 'a = 1', severity => NULL);
SELECT epro_etl.add_edit_check('t05_none', 'r', 'a = 1');
SELECT epro_etl.add_edit_check('t05', '', 'a = 1');
SELECT epro_etl.add_edit_check('t05', NULL, 'a = 1');
SELECT epro_etl.add_edit_check('t05', 'r', NULL);
SELECT epro_etl.remove_edit_check('t05', 'r');
SELECT count(*) AS left_behind FROM epro_etl.edit_check WHERE form = 't05' AND check_name = 'r';

-- true, false, unknown, an error: nothing of it is silent
SELECT epro_etl.register_form('t05_judged', '{"properties": {"id": {"type": "integer"}, "a": {"type": "integer"}, "b": {"type": "integer"}, "t": {"type": "string"}}}');
SELECT epro_etl.add_edit_check('t05_judged', 'hard', 'a > 0', message => 'a must be above zero');
SELECT epro_etl.add_edit_check('t05_judged', 'soft', 'a < 100', severity => 'warning', message => 'a is high');
SELECT epro_etl.add_edit_check('t05_judged', 'told', 'a <> 5', severity => 'information');
SELECT epro_etl.add_edit_check('t05_judged', 'ratio', '10 / b < 10', severity => 'warning', condition => 'b IS NOT NULL');
SELECT epro_etl.add_edit_check('t05_judged', 'number', 't::int > 0', severity => 'information', condition => 't <> ''skip''');
SELECT epro_etl.create_sink('t05', 't05_judged', 'judged');
SELECT probe.put('t05_judged',
    '{"a": 1, "b": 2, "t": "1"}',       -- all hold
    '{"a": 0, "b": 2}',                 -- hard does not
    '{"a": 100, "b": 2}',               -- soft does not: loaded, warned
    '{"a": 5, "b": 2}',                 -- told: loaded
    '{"b": 2}',                         -- a is unknown in three: loaded, and told
    '{"a": 1, "b": 0}',                 -- an error, of a warning too, rejects
    '{"a": 1, "t": "SECRET"}',          -- an error that would quote the answer
    '{"a": 1, "t": "skip"}',            -- the condition does not hold: not asked
    '{"a": -5, "b": 1}',                -- two at once
    '{"a": "x", "b": 0}');              -- where the schema does not hold, checks are still asked as far as they can be
SELECT status, claimed, loaded, warned, rejected FROM epro_etl.run('t05', workers => 0);
SELECT source_id, location, rule, kind, severity, message FROM probe.last;
SELECT source_id, a, b, t FROM judged ORDER BY 1;
SELECT skipped FROM epro_etl.run_history WHERE pipeline = 't05' ORDER BY run_id DESC LIMIT 1;
SELECT count(*) AS leaks FROM probe.last WHERE message LIKE '%SECRET%';
-- loaded = no finding of severity error, from the findings themselves: no row is right
SELECT s AS source_id FROM generate_series(1, 10) s
    WHERE EXISTS (SELECT FROM judged j WHERE j.source_id = s)
        = EXISTS (SELECT FROM probe.last l WHERE l.source_id = s::text AND severity = 'error');
-- one of that name again replaces it, and the ledger can still name the old one
SELECT epro_etl.add_edit_check('t05_judged', 'hard', 'a > -10');
SELECT check_name, expression, removed_at IS NULL AS current FROM epro_etl.edit_check WHERE form = 't05_judged' AND check_name = 'hard' ORDER BY check_id;
SELECT probe.put('t05_judged', '{"a": 0}');
SELECT status, loaded FROM epro_etl.run('t05', workers => 0);

-- the same judgement as SQL's own, over answers that are there and not
SELECT epro_etl.register_form('t05_same', '{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "t": {"type": "string"}}}');
SELECT epro_etl.add_edit_check('t05_same', 'c', 'a + b > 3 OR t LIKE ''x%'' AND NOT (a IS DISTINCT FROM b)');
CREATE TABLE same (source_id int, a int, b int, t text);
SELECT epro_etl.create_pipeline('t05_same', 'staging');
SELECT epro_etl.add_sink('t05_same', 't05_same', 'same');
CREATE TABLE raw AS SELECT nextval('staged')::int AS id, a, b, t
    FROM unnest('{0,1,2,3,NULL}'::int[]) a, unnest('{0,1,2,3,NULL}'::int[]) b, unnest('{x,xy,y,NULL}'::text[]) t;
INSERT INTO staging SELECT id, 'ST01', 't05_same', 'P-1', NULL, NULL, jsonb_strip_nulls(jsonb_build_object('a', a, 'b', b, 't', t)) FROM raw;
SELECT status, claimed, claimed = loaded + rejected AS all_told FROM epro_etl.run('t05_same', workers => 0);
WITH here AS (SELECT id, a + b > 3 OR t LIKE 'x%' AND NOT (a IS DISTINCT FROM b) AS holds FROM raw),
     there AS (SELECT id, CASE WHEN l.source_id IS NULL THEN true WHEN l.kind = 'check' THEN false ELSE NULL END AS holds,
                      s.source_id IS NOT NULL AS loaded
               FROM raw LEFT JOIN probe.last l ON l.source_id = id::text LEFT JOIN same s ON s.source_id = id)
SELECT count(*) FILTER (WHERE here.holds) AS holds, count(*) FILTER (WHERE NOT here.holds) AS does_not,
       count(*) FILTER (WHERE here.holds IS NULL) AS unknown,
       count(*) FILTER (WHERE here.holds IS DISTINCT FROM there.holds) AS judged_otherwise,
       count(*) FILTER (WHERE loaded IS DISTINCT FROM (here.holds IS NOT FALSE)) AS placed_otherwise
FROM here JOIN there USING (id);
SELECT probe.close_area('t05');
