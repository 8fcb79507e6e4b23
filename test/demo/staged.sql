--
-- staged.sql: makes the responses of the demo, in the table "staging".
--
-- Nothing is drawn at random and nobody is real: all follows from md5 of
-- numbers. Every 30th response is broken in one of the ways listed in the
-- table "fault", which also says what is to be found about it; the table
-- "planted" keeps that for the comparison at the end.
--

-- text, not jsonb: so that what is no JSON can arrive as well
CREATE TABLE staging (
    id       bigint PRIMARY KEY,
    form     text,
    subject  text,
    visit    text,
    authored timestamptz,
    payload  text
);

CREATE FUNCTION pg_temp.pick(what text, n bigint, below int) RETURNS int LANGUAGE sql IMMUTABLE AS
    $$ SELECT ('x' || left(md5(what || n), 7))::bit(28)::int % below $$;

-- a number in one of the shapes that it comes in from devices and from paper
CREATE FUNCTION pg_temp.written(value int, style int) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$
    SELECT CASE style
           WHEN 0 THEN to_jsonb(value::text)
           WHEN 1 THEN to_jsonb(' ' || value || ' ')
           WHEN 2 THEN to_jsonb(translate(value::text, '0123456789', '０１２３４５６７８９'))
           WHEN 3 THEN to_jsonb(value || '.0')
           ELSE to_jsonb(value) END
$$;

CREATE TEMP TABLE names (chinese, k, family, latin, given) AS VALUES
    (false, 0, 'Okafor', 'okafor', 'Adaeze'), (true, 0, '王', 'wang', '芳'),
    (false, 1, 'Lindqvist', 'lindqvist', 'Astrid'), (true, 1, '李', 'li', '秀英'),
    (false, 2, 'Moreau', 'moreau', 'Camille'), (true, 2, '张', 'zhang', '伟'),
    (false, 3, 'Castellano', 'castellano', 'Lorenzo'), (true, 3, '刘', 'liu', '娜'),
    (false, 4, 'Fitzgerald', 'fitzgerald', 'Maeve'), (true, 4, '陈', 'chen', '敏'),
    (false, 5, 'Novak', 'novak', 'Tomas'), (true, 5, '欧阳', 'ouyang', '静'),
    (false, 6, 'Haddad', 'haddad', 'Yasmin'), (true, 6, '黄', 'huang', '国强'),
    (false, 7, 'Petersen', 'petersen', 'Soren'), (true, 7, '赵', 'zhao', '磊');

-- the subjects, every third with a Chinese name
CREATE TEMP TABLE person AS
SELECT no, chinese, 'NW-' || 1000 + no AS subject,
       CASE WHEN chinese THEN f.family || g.given ELSE g.given || ' ' || f.family END AS name,
       f.latin || no || '@mail.example' AS email,
       CASE WHEN chinese THEN '+86 199 0000 ' ELSE '+44 7700 90' END || 1000 + no AS phone,
       date '1940-01-01' + pg_temp.pick('born', no, 23000) AS born
FROM generate_series(1, 400) AS no
     JOIN names AS f ON f.chinese = (no % 3 = 0) AND f.k = pg_temp.pick('family', no, 8)
     JOIN names AS g USING (chinese)
WHERE g.k = pg_temp.pick('given', no, 8);

-- form, what is to be found (kind/rule), items that are set, items that are
-- dropped, columns of the staging row that are set
CREATE TEMP TABLE fault AS
SELECT f.*, count(*) OVER (PARTITION BY form) AS of, row_number() OVER (PARTITION BY form ORDER BY line) - 1 AS no
FROM (VALUES
    -- the keywords of the forms; a check over an answer of the wrong type or
    -- none at all is not evaluated, and that is to be found too
    (1, 'MOOD', '{schema/required,not evaluated/sum}'::text[], '{}'::jsonb, '{mood3}'::text[], '{}'::jsonb),
    (2, 'MOOD', '{schema/type,not evaluated/sum}', '{"mood3": "often"}', '{}', '{}'),
    (3, 'MOOD', '{schema/type,not evaluated/sum}', '{"mood3": "1.5"}', '{}', '{}'),
    (4, 'MOOD', '{schema/const}', '{"instrument": "MOOD-8"}', '{}', '{}'),
    (5, 'MOOD', '{schema/minimum,check/sum}', '{"mood3": -1}', '{}', '{}'),
    (6, 'MOOD', '{schema/maximum,check/sum}', '{"mood3": "４"}', '{}', '{}'),
    (7, 'MOOD', '{schema/format}', '{"completed": "yesterday"}', '{}', '{}'),
    (8, 'MOOD', '{schema/format}', '{"completed": "2025-03-01T08:00:00"}', '{}', '{}'),
    (20, 'DIARY', '{schema/required}', '{"severity": "SEVERE"}', '{pain}', '{}'),
    (21, 'DIARY', '{schema/required}', '{"pain": 2, "severity": "  "}', '{}', '{}'),
    (22, 'DIARY', '{schema/type}', '{"pain": "a lot", "severity": "SEVERE"}', '{}', '{}'),
    (23, 'DIARY', '{schema/type}', '{"pain": 7.3, "severity": "SEVERE"}', '{}', '{}'),
    (24, 'DIARY', '{schema/type,not evaluated/strength}', '{"medication": "maybe"}', '{}', '{}'),
    (25, 'DIARY', '{schema/enum}', '{"severity": "awful"}', '{}', '{}'),
    (26, 'DIARY', '{schema/minimum}', '{"pain": -1, "severity": "SEVERE"}', '{}', '{}'),
    (27, 'DIARY', '{schema/maximum}', '{"pain": "１１", "severity": "SEVERE"}', '{}', '{}'),
    (28, 'DIARY', '{schema/exclusiveMinimum}', '{"medication": false, "dose_mg": 0}', '{}', '{}'),
    (29, 'DIARY', '{schema/exclusiveMaximum,check/long_sleep}', '{"sleep_hours": 24}', '{}', '{}'),
    (30, 'DIARY', '{schema/minLength}', '{"activity": "散步"}', '{}', '{}'),
    (31, 'DIARY', '{schema/maxLength}', '{"activity": "mountaineering"}', '{}', '{}'),
    (32, 'DIARY', '{schema/pattern}', '{"kit": "KIT-12"}', '{}', '{}'),
    (33, 'DIARY', '{schema/format,not evaluated/onset_past}', '{"onset": "2025-02-30"}', '{}', '{}'),
    (34, 'DIARY', '{schema/format}', '{"taken_at": "25:00:00Z"}', '{}', '{}'),
    (35, 'DIARY', '{schema/maximum,schema/enum,schema/exclusiveMaximum,check/long_sleep}',
        '{"pain": "12", "severity": "bad", "sleep_hours": "25"}', '{}', '{}'),
    -- the edit checks: false, not to be evaluated, raising an error
    (40, 'MOOD', '{check/sum}', '{"total": 27}', '{}', '{}'),
    (41, 'MOOD', '{check/adult}', '{"born": "2010-05-05"}', '{}', '{}'),
    (42, 'MOOD', '{check/straight_line}', '{"mood1": 2, "mood2": 2, "mood3": 2, "mood4": 2, "mood5": 2, "mood6": 2,
                                            "mood7": 2, "mood8": 2, "mood9": 2, "total": 18}', '{}', '{}'),
    (43, 'MOOD', '{not evaluated/sum}', '{}', '{total}', '{}'),
    (44, 'MOOD', '{not evaluated/adult}', '{}', '{born}', '{}'),
    (45, 'DIARY', '{check/onset_past}', '{"onset": "2031-01-01"}', '{}', '{}'),
    (46, 'DIARY', '{check/strength}', '{"medication": true, "dose_mg": 5000, "tablets": 1}', '{}', '{}'),
    (47, 'DIARY', '{check/mild_pain}', '{"pain": 9, "severity": "mild"}', '{}', '{}'),
    (48, 'DIARY', '{check/long_sleep}', '{"sleep_hours": 14.5}', '{}', '{}'),
    (49, 'DIARY', '{not evaluated/strength}', '{"medication": true, "dose_mg": 400}', '{tablets}', '{}'),
    (50, 'DIARY', '{not evaluated/strength}', '{}', '{medication}', '{}'),
    (51, 'DIARY', '{not evaluated/onset_past}', '{}', '{onset}', '{}'),
    (52, 'DIARY', '{error/strength}', '{"medication": true, "dose_mg": 400, "tablets": 0}', '{}', '{}'),
    -- de-identification that cannot be done
    (60, 'MOOD', '{deidentify/generalize,not evaluated/adult}', '{"born": "1961-13-45"}', '{}', '{}'),
    (61, 'MOOD', '{deidentify/generalize,not evaluated/adult}', '{"born": "2051-01-01"}', '{}', '{}'),
    (62, 'MOOD', '{deidentify/generalize,not evaluated/adult}', '{}', '{}', '{"authored": null}'),
    -- the sink's columns and constraints
    (70, 'DIARY', '{conversion/sleep_hours}', '{"sleep_hours": 7.125}', '{}', '{}'),
    (71, 'DIARY', '{constraint/onset_in_study}', '{"onset": "1999-12-31"}', '{}', '{}'),
    -- the staging row itself
    (80, 'MOOD', '{subject/subject}', '{}', '{}', '{"subject": null}'),
    (81, 'MOOD', '{subject/subject}', '{}', '{}', '{"subject": "  "}'),
    (82, 'DIARY', '{form/form}', '{}', '{}', '{"form": null}'),
    (83, 'DIARY', '{form/form}', '{}', '{}', '{"form": "wang@mail.example"}'),
    (84, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": null}'),
    (85, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "7"}'),
    (86, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "[3, 7.5]"}'),
    (87, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "pain=3;severity=MILD"}'),
    (88, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "{\"pain\": 3, \"pain\": 4}"}'),
    (89, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "{\"note\": \"\\ud83d\"}"}'),
    (90, 'DIARY', '{payload/payload}', '{}', '{}', '{"payload": "{\"note\": \"\\u0000\"}"}')
    ) AS f (line, form, expect, patch, dropped, columns);

-- ten visits with the mood form and forty days of diary for each subject
CREATE TEMP TABLE response AS
SELECT 'MOOD' AS form, p.no, 'VISIT ' || v AS visit,
       timestamptz '2025-01-06 09:00Z' + v * interval '4 days' + p.no * interval '1 min' AS authored,
       (SELECT jsonb_object_agg('mood' || i, pg_temp.written(s[i], pg_temp.pick('style', k * 10 + i, 12)))
               || jsonb_build_object('total', pg_temp.written(sum(s[i])::int, pg_temp.pick('style', k, 12)))
        FROM generate_series(1, 9) AS i)
       || jsonb_build_object(
           'instrument', 'MOOD-9', 'name', p.name, 'email', p.email, 'phone', p.phone, 'born', p.born,
           'completed', date '2025-01-06' + v * 4 || 'T17:05:00+08:00') AS payload
FROM person AS p, generate_series(1, 10) AS v,
     LATERAL (SELECT p.no * 100 + v AS k) AS key,
     LATERAL (SELECT array_agg(CASE i WHEN 9 THEN 0 ELSE pg_temp.pick('mood', k * 10 + i, 4) END ORDER BY i) AS s
              FROM generate_series(1, 9) AS i) AS score
UNION ALL
SELECT 'DIARY', p.no, 'DAY ' || d,
       timestamptz '2025-01-06 20:00Z' + d * interval '1 day' + p.no * interval '1 min',
       jsonb_build_object(
           'pain', pg_temp.written(pain, pg_temp.pick('style', k, 8)),
           'severity', ('{MILD,mild," Mild ",MODERATE,moderate," Moderate",SEVERE,severe,"SEVERE "}'::text[])[
                       1 + pain / 4 * 3 + pg_temp.pick('severity', k, 3)],
           'onset', date '2025-01-06' + d - pg_temp.pick('onset', k, 300),
           'sleep_hours', 4 + pg_temp.pick('sleep', k, 12) * 0.5,
           'activity', ('{walking,SWIMMING," reading ",打太极拳,ｙｏｇａ}'::text[])[
                       1 + pg_temp.pick('activity', k, 5)],
           'note', CASE pg_temp.pick('note', k, 8)
                   WHEN 0 THEN 'Slept badly. Please ring ' || p.name || ' on ' || p.phone
                   WHEN 1 THEN '请联系' || p.name || '，邮箱 ' || p.email
                   ELSE 'Nothing to report.' END)
       || CASE WHEN pg_temp.pick('medication', k, 3) = 0
               THEN jsonb_build_object(
                   'medication', '[true, "true", " true "]'::jsonb -> pg_temp.pick('style', k, 3),
                   'tablets', pg_temp.written(1 + pain / 4, pg_temp.pick('style', k, 8)),
                   'dose_mg', (1 + pain / 4) * 200,
                   'taken_at', '08:30:00+08:00',
                   'kit', 'KIT-' || 10000 + p.no,
                   'caregiver', jsonb_build_object('name', p.name, 'phone', p.phone))
               ELSE '{"medication": false}' END
FROM person AS p, generate_series(1, 40) AS d,
     LATERAL (SELECT p.no * 100 + d AS k) AS key,
     LATERAL (SELECT pg_temp.pick('pain', k, 11) AS pain) AS score;

-- In the order of arrival: some arrive a second time, two days later.
CREATE TEMP TABLE arrival AS
SELECT row_number() OVER (ORDER BY r.authored + again * interval '2 days', r.form, r.no) AS id,
       r.*, again, f.expect, f.patch, f.dropped, f.columns
FROM (SELECT *, row_number() OVER (PARTITION BY form ORDER BY authored) AS n FROM response) AS r
     JOIN generate_series(0, 1) AS again ON again = 0 OR r.n % 160 = 7
     LEFT JOIN fault AS f ON f.form = r.form AND r.n % 30 = 0 AND f.no = r.n / 30 % f.of;

INSERT INTO staging
SELECT id, s.form, s.subject, visit, s.authored, s.payload
FROM arrival AS a JOIN person AS p USING (no),
     LATERAL (SELECT (a.payload - coalesce(dropped, '{}') || coalesce(patch, '{}'))::text AS payload) AS given,
     LATERAL jsonb_to_record(jsonb_build_object('form', a.form, 'subject', p.subject, 'authored', a.authored,
                                                'payload', given.payload) || coalesce(columns, '{}'))
         AS s (form text, subject text, authored timestamptz, payload text)
ORDER BY id;
ANALYZE staging;

-- what is to be found; of two responses with the same key, one is a duplicate
CREATE TEMP TABLE planted AS
SELECT s.form, split_part(e, '/', 1) AS kind, split_part(e, '/', 2) AS rule, count(*)
FROM arrival JOIN staging AS s USING (id),
     LATERAL unnest(CASE WHEN again = 0 THEN expect
                         ELSE ARRAY[CASE s.form WHEN 'MOOD' THEN 'constraint/one_a_visit'
                                    ELSE 'constraint/one_a_day' END] END) AS e
GROUP BY 1, 2, 3;

-- The identifiers as one pattern: each part of a name, and what all e-mails,
-- phone numbers, subject codes and dates of birth have in common.
SELECT string_agg(family || '|' || given, '|')
       || '|@|\+86 |\+44 |NW-[0-9]|\m(19[4-9]|200)[0-9]-[0-9][0-9]-[0-9][0-9]' AS identifiers
FROM names \gset

-- one response of each form, for a look at it before and after
CREATE TEMP TABLE sample AS
SELECT DISTINCT ON (s.form) s.*
FROM arrival AS a JOIN staging AS s USING (id) JOIN person USING (no)
WHERE expect IS NULL AND chinese AND again = 0 AND n % 160 <> 7
      AND s.payload ~ '[０-９]' AND s.payload ~ '" [^ ]+ "'
      AND (s.form = 'MOOD' OR s.payload ~ 'Please ring' AND s.payload ~ '"caregiver"' AND s.payload ~ '": "[ a-z]+"')
ORDER BY s.form, s.id;
