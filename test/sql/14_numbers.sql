-- The short way from jsonb's numbers to whole ones (words/value.c) against
-- numeric's own arithmetic: every number near the borders of digits, of
-- base-10000 digits, of int4, int8 and int64.
\set SHOW_CONTEXT never
SELECT probe.open_area('t14');
SELECT epro_etl.register_form('t14', '{"type": "object", "properties": {"i": {"type": "integer"}, "n": {"type": "number"}}}');
CREATE TABLE sink (source_id int PRIMARY KEY, i bigint, n numeric);
SELECT epro_etl.add_sink('t14', 't14', 'sink');

CREATE TABLE number AS
SELECT row_number() OVER (ORDER BY v, scale(v))::int AS id, v
FROM (SELECT DISTINCT ON (v, scale(v)) v
      FROM (SELECT sign * (10::numeric ^ k + d) AS v
            FROM generate_series(0, 20) k, unnest('{-2,-1,0,1,2}'::int[]) d, unnest('{-1,1}'::int[]) sign
            UNION ALL SELECT sign * (2::numeric ^ k + d) FROM unnest('{15,16,31,32,52,53,62,63,64}'::int[]) k,
                             unnest('{-1,0,1}'::int[]) d, unnest('{-1,1}'::int[]) sign
            UNION ALL SELECT sign * (10::numeric ^ -k) FROM generate_series(1, 20) k, unnest('{-1,1}'::int[]) sign
            UNION ALL SELECT sign * (10::numeric ^ k) + f FROM generate_series(0, 20, 2) k, unnest('{0.5,0.0001,0.00001,0.10}'::numeric[]) f,
                             unnest('{-1,1}'::int[]) sign
            UNION ALL SELECT (n::text || z)::numeric FROM generate_series(-3, 3) n, unnest('{.0,.00,.0000,.00000}'::text[]) z
            UNION ALL SELECT unnest('{0, 10000, 100000000, 1000000000000, 10000000000000000, 99999999, 9999999999999999, 1e30, 1e70, 1e-70, 123e60}'::numeric[])
            ) made) v;
INSERT INTO staging (id, study, form, subject, visit, authored, payload)
    SELECT id, 'ST01', 't14', 'P', 'D', '2026-03-01 07:30+00', jsonb_build_object('i', v, 'n', v) FROM number;
SELECT count(*) > 300 AS enough FROM number;
SELECT claimed = (SELECT count(*) FROM number) AS all_claimed FROM epro_etl.run('t14', workers => 0);

-- what numeric itself says must have become of each
CREATE TABLE expected AS
SELECT id, v, CASE WHEN v <> trunc(v) THEN 'type'
                   WHEN v NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN 'conversion'
                   ELSE 'loaded' END AS becomes FROM number;
SELECT becomes, count(*) > 20 AS enough FROM expected GROUP BY becomes ORDER BY becomes;
SELECT e.becomes, e.v, s.i, s.n, f.rule
    FROM expected e LEFT JOIN sink s ON s.source_id = e.id
    LEFT JOIN epro_etl.finding f ON f.source_id = e.id::text AND f.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger)
    WHERE (e.becomes = 'loaded') IS DISTINCT FROM coalesce(s.i = e.v AND s.n = e.v AND scale(s.n) = scale(e.v), false)
       OR (e.becomes = 'type') IS DISTINCT FROM coalesce(f.rule = 'type', false)
       OR (e.becomes = 'conversion') IS DISTINCT FROM coalesce(f.kind = 'conversion' AND f.rule = 'i', false);

-- limits have a short way of their own: every number against limits of every kind, alone and in pairs
CREATE TABLE bound AS
SELECT row_number() OVER ()::int AS n, low, low_keyword, high, high_keyword
FROM (SELECT b AS low, k AS low_keyword, NULL::numeric AS high, NULL AS high_keyword FROM unnest('{minimum,exclusiveMinimum}'::text[]) k,
             unnest('{-10001,-10000.5,-1,-0.5,0,0.00001,1,9.5,9999,10000,1e15,9999999999999999,9223372036854775807,-9223372036854775808,1e30,0.5e-70}'::numeric[]) b
      UNION ALL SELECT NULL, NULL, b, k FROM unnest('{maximum,exclusiveMaximum}'::text[]) k,
             unnest('{-10001,-10000.5,-1,-0.5,0,0.00001,1,9.5,9999,10000,1e15,9999999999999999,9223372036854775807,-9223372036854775808,1e30,0.5e-70}'::numeric[]) b
      UNION ALL SELECT l, lk, h, hk FROM unnest('{minimum,exclusiveMinimum}'::text[]) lk, unnest('{maximum,exclusiveMaximum}'::text[]) hk,
             (VALUES (-1, 1), (0, 3), (-0.5, 0.5), (0.1, 0.10001), (9, 10), (10, 9), (99.5, 1e20)) AS pair (l, h)) made;
SELECT count(*) FROM bound;
SELECT epro_etl.register_form('t14 limits', jsonb_build_object('type', 'object', 'properties', jsonb_object_agg('b' || n,
    jsonb_strip_nulls(jsonb_build_object('type', 'number') || coalesce(jsonb_build_object(low_keyword, low), '{}')
        || coalesce(jsonb_build_object(high_keyword, high), '{}'))))) FROM (SELECT n, low, high, coalesce(low_keyword, 'x') AS low_keyword, coalesce(high_keyword, 'y') AS high_keyword FROM bound) b;
CREATE TABLE breaks AS
SELECT m.id, f.location, f.rule FROM number m,
       LATERAL epro_etl.validate('t14 limits', (SELECT jsonb_object_agg('b' || n, m.v) FROM bound)) f;
SELECT count(*) > 1000 AS enough FROM breaks;
SELECT m.v, b.*, k.rule, f.rule AS found FROM number m CROSS JOIN bound b
    CROSS JOIN LATERAL (VALUES (low_keyword, CASE low_keyword WHEN 'minimum' THEN v >= low ELSE v > low END),
                               (high_keyword, CASE high_keyword WHEN 'maximum' THEN v <= high ELSE v < high END)) AS k (rule, holds)
    LEFT JOIN breaks f ON f.id = m.id AND f.location = '/b' || b.n AND f.rule = k.rule
    WHERE k.rule IS NOT NULL AND k.holds = (f.rule IS NOT NULL) LIMIT 10;
SELECT count(*) AS unexpected FROM breaks f JOIN bound b ON f.location = '/b' || b.n WHERE f.rule NOT IN (coalesce(low_keyword, ''), coalesce(high_keyword, ''));

-- a column of less precision: what the response says is kept as it is or refused, facts are rounded as the type rounds; a
-- sink with a trigger takes the executor's road, to the same end
SELECT epro_etl.register_form('t14 times', '{"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}, "t": {"type": "string", "format": "time"}}}');
CREATE TABLE fast (source_id int, authored timestamptz(0), loaded_at timestamptz(0), at timestamptz(1), t timetz(0));
CREATE TABLE slow (LIKE fast);
CREATE FUNCTION as_it_is() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER as_it_is BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION as_it_is();
SELECT epro_etl.add_sink('t14', 't14 times', s) FROM unnest('{fast,slow}'::regclass[]) s;
INSERT INTO staging (id, study, form, subject, visit, authored, payload)
    SELECT n, 'ST01', 't14 times', 'P', 'D', '2026-03-01 07:30:00.5+00', p FROM unnest(ARRAY['{}', '{"at": "2026-03-01T07:30:00.7Z", "t": "07:30:01Z"}',
        '{"at": "2026-03-01T07:30:00.75Z"}', '{"t": "07:30:00.5Z"}', '{"at": "2026-03-01T07:30:00.70Z", "t": "07:30:00.000+02:00"}']::jsonb[]) WITH ORDINALITY AS u (p, n);
SELECT claimed, loaded, rejected FROM epro_etl.run('t14', workers => 0);
SELECT source_id, location, rule, kind, message FROM epro_etl.finding WHERE form = 't14 times' ORDER BY source_id;
SELECT source_id, authored, at, t, loaded_at = date_trunc('second', loaded_at) AS whole FROM fast ORDER BY source_id;
SELECT (SELECT array_agg(f ORDER BY f) FROM fast f)::text = (SELECT array_agg(s ORDER BY s) FROM slow s)::text AS same;
SELECT probe.close_area('t14');
