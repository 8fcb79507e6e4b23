-- For turns.sh: the entrants, their turns, and how it is seen that no response was lost, and none loaded twice.
SET client_min_messages = warning;
CREATE EXTENSION epro_etl;
CREATE SCHEMA bench;
SET search_path = bench;

-- plain: the entrant that it is compared with. pipeline: it fills bench.sink_PIPELINE; whole: a relation that has each response of
-- that once, if the sink has not. before: a statement before the rows are staged, which may name :rows, as may statement; stages:
-- it finds rows staged. alike: it loads as many rows as the others that are alike; same: and the very same as others that are the same.
CREATE TABLE entrant (position integer, name text PRIMARY KEY, plain text NOT NULL, pipeline text, whole text, before text NOT NULL DEFAULT 'SELECT 1',
                      statement text, stages boolean NOT NULL DEFAULT true, alike boolean NOT NULL DEFAULT true, same boolean NOT NULL DEFAULT false);
CREATE TABLE turn (round integer, rows bigint, name text, seconds float8, wal numeric, loaded bigint, content numeric);
CREATE TABLE rejected (source_id bigint, study text, subject_key text, payload jsonb, errors text[]);

-- Of the responses 1 to rows, each must be staged, in the sink, or rejected, once; and there is no other. What a sink held before has no subject_key.
CREATE FUNCTION account(sink text, rows bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    once bigint;
    others bigint;
BEGIN
    EXECUTE format('SELECT count(*) FILTER (WHERE places = 1 AND id BETWEEN 1 AND $1), count(*) FILTER (WHERE NOT (places = 1 AND id BETWEEN 1 AND $1))'
        ' FROM (SELECT id, count(*) AS places FROM (SELECT id FROM bench.staging UNION ALL SELECT source_id FROM bench.rejected'
        ' UNION ALL SELECT source_id::bigint FROM epro_etl.quarantine UNION ALL SELECT source_id FROM %s WHERE subject_key IS NOT NULL) p GROUP BY id) q',
        sink) INTO once, others USING rows;
    IF once <> rows OR others > 0 THEN
        RAISE '% of % responses are in exactly one place; % are in several, or were never staged', once, rows, others;
    END IF;
END $$;

-- one turn; the content is a sum of hashes of the rows, less what is of one run or one key only
CREATE FUNCTION note(round integer, rows bigint, entrant text, seconds float8, wal numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    e bench.entrant;
    sink text;
    loaded bigint;
    content numeric;
BEGIN
    SELECT * INTO e FROM bench.entrant x WHERE x.name = note.entrant;
    sink := 'bench.sink_' || e.pipeline;
    IF e.stages THEN
        PERFORM bench.account(coalesce(e.whole, sink), rows);
    END IF;
    EXECUTE (SELECT format('SELECT count(*), sum(hash_record_extended(ROW(%s), 0)) FROM %s WHERE subject_key IS NOT NULL',
                           string_agg(quote_ident(attname), ', ' ORDER BY attname), sink)
             FROM pg_attribute WHERE attrelid = sink::regclass AND attnum > 0 AND attname NOT IN ('subject_key', 'run_id', 'loaded_at'))
        INTO loaded, content;
    INSERT INTO bench.turn VALUES (round, rows, entrant, seconds, wal, loaded, content);
END $$;

CREATE FUNCTION judge() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM bench.turn JOIN bench.entrant USING (name) WHERE alike GROUP BY rows HAVING count(DISTINCT loaded) > 1) OR
       EXISTS (SELECT FROM bench.turn JOIN bench.entrant USING (name) WHERE same GROUP BY rows HAVING count(DISTINCT content) > 1) THEN
        RAISE 'the entrants did not all load and reject the same';
    END IF;
END $$;

CREATE VIEW figure AS
    SELECT e.position, e.name, e.plain, t.rows, percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS seconds,
           t.rows / percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS rows_s,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY t.wal) / nullif(t.rows, 0) AS wal
    FROM entrant e JOIN turn t USING (name) GROUP BY e.name, t.rows;
-- the median over the rounds of how many times another one's time it took
CREATE FUNCTION times(entrant text, other text, rows bigint) RETURNS numeric LANGUAGE sql RETURN (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds / o.seconds)::numeric
    FROM bench.turn t JOIN bench.turn o ON o.round = t.round AND o.rows = t.rows
    WHERE t.name = $1 AND o.name = $2 AND t.rows = $3);
-- for forms: to the first of them, and to the plain one
CREATE VIEW report AS
    SELECT name AS entrant, round(seconds::numeric, 3) AS seconds, round(times(name, first_value(name) OVER (ORDER BY position), rows), 2) AS to_first,
           round(times(name, plain, rows), 2) AS to_plain, round(wal::numeric) AS wal
    FROM figure ORDER BY position;
