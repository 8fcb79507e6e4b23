-- What must come out, from the raw file alone: nothing here uses the extension
-- or reads the forms. The rules stand here a second time, said otherwise.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET search_path = pilot;

-- Comparing texts is enough as long as no answer needs normalising, which is
-- a fact about this file: answers are texts (or null), with no blank around,
-- nothing beyond ASCII, no case to fold, and numbers in their shortest form.
SELECT ok(count(*) = 121749 AND count(*) = count(*) FILTER (WHERE text IS NULL OR text ~
              '^(-?(0|[1-9][0-9]*)([.][0-9]*[1-9])?|[A-Z]+( [A-Z]+)*)$'),
          'the raw answers need no normalising', count(*) || ' answers, ' || count(*) - count(text) || ' of them null')
FROM answer;

CREATE TABLE codebook (
    form    text NOT NULL,
    item    text NOT NULL,
    is_a    text NOT NULL CHECK (is_a IN ('code', 'integer', 'number')),
    needed  boolean NOT NULL,
    lowest  numeric,
    highest numeric,
    codes   text[],
    PRIMARY KEY (form, item)
);
INSERT INTO codebook
SELECT 'ADAS', 'ACITM' || lpad(n::text, 2, '0'), 'integer', true, 0, highest, NULL::text[]
FROM unnest('{10,5,10,5,5,5,8,12,40,240,5,5,5,5}'::numeric[]) WITH ORDINALITY AS u (highest, n)
UNION ALL
SELECT 'MMSE', 'MMITM' || lpad(n::text, 2, '0'), 'integer', true, 0, highest, NULL
FROM unnest('{5,5,3,5,3,9}'::numeric[]) WITH ORDINALITY AS u (highest, n)
UNION ALL
SELECT 'DAD', 'DAITM' || lpad(n::text, 2, '0'), 'code', true, NULL, NULL, '{Y,N,NA}' FROM generate_series(1, 40) AS n
UNION ALL
SELECT 'HACHINSKI', 'MHITM' || lpad(n::text, 2, '0'), 'code', true, NULL, NULL, '{ABSENT,PRESENT}' FROM generate_series(1, 13) AS n
UNION ALL
SELECT 'NPIX', 'NPITM' || lpad(n::text, 2, '0') || part, is_a, false, lowest, highest, codes::text[]
FROM generate_series(1, 12) AS n,
     (VALUES ('', 'code', NULL, NULL, '{ABSENT,NOT APPLICABLE}'), ('F', 'integer', 1, 4, NULL), ('V', 'integer', 1, 3, NULL),
             ('S', 'integer', NULL, NULL, '{0,1,2,3,4,6,8,9,12}'), ('D', 'integer', 0, 5, NULL))
         AS p (part, is_a, lowest, highest, codes)
UNION ALL
VALUES ('ADAS', 'ACTOT', 'number', true, 0, 70, NULL),
       ('NPIX', 'NPTOT', 'number', true, 0, 108, NULL),
       ('CIBIC', 'CIBIC', 'code', true, NULL, NULL,
        '{MARKED IMPROVEMENT,MODERATE IMPROVEMENT,MINIMAL IMPROVEMENT,NO CHANGE,'
        'MINIMAL WORSENING,MODERATE WORSENING,MARKED WORSENING}'::text[]);

CREATE TABLE want_finding (
    id       bigint NOT NULL,
    form     text NOT NULL,
    location text NOT NULL,
    rule     text NOT NULL,
    kind     text NOT NULL,
    severity text NOT NULL
);

-- What is not there.
INSERT INTO want_finding
SELECT r.id, c.form, '/' || c.item, 'required', 'schema', 'error'
FROM raw r JOIN codebook c ON c.form = r.doc ->> 'instrument'
WHERE c.needed AND NOT (r.doc -> 'answers') ? c.item;

-- What is there and is not of its kind.
CREATE TABLE judged AS
SELECT a.*, c.is_a, c.needed, c.lowest, c.highest, c.codes,
       CASE c.is_a WHEN 'code' THEN a.text IS NOT NULL
                   WHEN 'integer' THEN coalesce(a.text ~ '^[0-9]+$', false)
                   ELSE coalesce(a.text ~ '^[0-9]+([.][0-9]+)?$', false) END AS fits
FROM answer a JOIN codebook c USING (form, item);

INSERT INTO want_finding
SELECT id, form, '/' || item, 'type', 'schema', 'error' FROM judged WHERE NOT fits
UNION ALL
SELECT id, form, '/' || item, 'enum', 'schema', 'error' FROM judged WHERE fits AND text <> ALL (codes)
UNION ALL
SELECT id, form, '/' || item, 'minimum', 'schema', 'error' FROM judged WHERE CASE WHEN fits AND is_a <> 'code' THEN text::numeric < lowest END
UNION ALL
SELECT id, form, '/' || item, 'maximum', 'schema', 'error' FROM judged WHERE CASE WHEN fits AND is_a <> 'code' THEN text::numeric > highest END;

-- Edit checks: `holds` is true, false (a finding) or NULL (not evaluated).
CREATE TEMP TABLE verdict (id bigint, form text, rule text, severity text, holds boolean);

-- Totals: `parts` of them count, of which `there` are given, with `points` of
-- the `possible` ones.
CREATE TEMP TABLE total AS
SELECT id, form, count(*) FILTER (WHERE part) AS there,
       sum(CASE WHEN part THEN text::numeric END) AS points,
       CASE form WHEN 'ADAS' THEN sum(highest) FILTER (WHERE part) ELSE 12 * count(*) FILTER (WHERE part) END AS possible,
       CASE form WHEN 'ADAS' THEN 11 ELSE 9 END AS parts,
       CASE form WHEN 'ADAS' THEN 70 ELSE 108 END AS all_points,
       max(CASE WHEN item IN ('ACTOT', 'NPTOT') THEN text::numeric END) AS total
FROM (SELECT *, CASE form WHEN 'ADAS' THEN item !~ '(03|09|10|TOT)$' ELSE item ~ '(01|02|03|04|05|07|08|09|10)S$' END AS part
      FROM judged WHERE form IN ('ADAS', 'NPIX') AND fits) AS f
GROUP BY id, form;

INSERT INTO verdict
SELECT id, form, 'total', 'warning', CASE WHEN there = parts THEN total = points END FROM total
UNION ALL
SELECT id, form, 'scaled', 'warning', abs(total - points * all_points / possible) < 1e-9
FROM total WHERE there BETWEEN 1 AND parts - 1;

INSERT INTO verdict
SELECT id, 'CIBIC', 'visit', 'error', doc ->> 'visit' <> 'BASELINE' FROM raw WHERE doc ->> 'instrument' = 'CIBIC'
UNION ALL
SELECT id, form, 'applicable', 'information', count(*) FILTER (WHERE text = 'NA') <= 10
FROM judged WHERE form = 'DAD' GROUP BY id, form
UNION ALL
SELECT id, form, 'entry', 'warning',
       count(*) FILTER (WHERE text = 'PRESENT') + count(*) FILTER (WHERE text = 'PRESENT' AND item ~ '(01|03|10|12|13)$') <= 4
FROM judged WHERE form = 'HACHINSKI' GROUP BY id, form
UNION ALL
SELECT id, form, 'entry', 'warning', sum(text::int) BETWEEN 10 AND 23
FROM judged WHERE form = 'MMSE' GROUP BY id, form;

-- A domain of the NPI-X a row: screening answer, and the four numbers.
CREATE TEMP TABLE domain AS
SELECT r.id, nn, doc #>> ARRAY['answers', 'NPITM' || nn] AS screening,
       (doc #>> ARRAY['answers', 'NPITM' || nn || 'F'])::int AS f, (doc #>> ARRAY['answers', 'NPITM' || nn || 'V'])::int AS v,
       (doc #>> ARRAY['answers', 'NPITM' || nn || 'S'])::int AS s, (doc #>> ARRAY['answers', 'NPITM' || nn || 'D'])::int AS d
FROM raw r, generate_series(1, 12) AS n, lpad(n::text, 2, '0') AS nn
WHERE doc ->> 'instrument' = 'NPIX';

INSERT INTO verdict
SELECT id, 'NPIX', 'score' || nn, 'warning', f * v = s FROM domain WHERE f > 0 AND v > 0
UNION ALL
SELECT id, 'NPIX', 'screened' || nn, 'warning', (screening > '') IS TRUE OR (f * v > 0) IS TRUE FROM domain
UNION ALL
SELECT id, 'NPIX', 'distress' || nn, 'information', (d >= 0) IS TRUE FROM domain WHERE f > 0
UNION ALL
SELECT id, 'NPIX', 'absent' || nn, 'warning', CASE WHEN coalesce(f, v, d) >= 0 THEN false ELSE s = 0 END
FROM domain WHERE screening = 'ABSENT';

INSERT INTO want_finding
SELECT id, form, '', rule, CASE WHEN holds IS NULL THEN 'not evaluated' ELSE 'check' END,
       CASE WHEN holds IS NULL THEN 'information' ELSE severity END
FROM verdict WHERE holds IS NOT TRUE;

-- What becomes of each form.
CREATE TABLE want AS
SELECT r.id, r.doc ->> 'instrument' AS form, r.doc,
       count(w.id) FILTER (WHERE w.severity = 'error') = 0 AS loads,
       count(w.id) FILTER (WHERE w.severity = 'error') = 0 AND count(w.id) FILTER (WHERE w.severity = 'warning') > 0 AS warns
FROM raw r LEFT JOIN want_finding w USING (id)
GROUP BY r.id;
ALTER TABLE want ADD PRIMARY KEY (id);
ANALYZE codebook, want_finding, want;

SELECT ok(NOT EXISTS (SELECT form, item FROM answer EXCEPT SELECT form, item FROM codebook),
          'every item that was collected is in the codebook', (SELECT count(*) FROM codebook) || ' items');

\echo 'Expected of each form (forms, loaded, of them warned, rejected):'
SELECT format('  %-10s %5s %5s %5s %5s', form, count(*), count(*) FILTER (WHERE loads),
              count(*) FILTER (WHERE warns), count(*) FILTER (WHERE NOT loads))
FROM want GROUP BY form ORDER BY form;
\echo 'Expected of each rule:'
SELECT format('  %-10s %-12s %-14s %-12s %5s  %s', form, rule, kind, severity, count(*),
              (SELECT string_agg(l, ' ' ORDER BY l) FROM unnest(array_agg(DISTINCT location)) AS l WHERE l <> ''))
FROM want_finding GROUP BY form, rule, kind, severity ORDER BY form, kind, rule;
