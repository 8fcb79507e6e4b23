-- study_participants(): three hops, row security by role, relations of one's own, deadlines that name the hop.
\set SHOW_CONTEXT never
SELECT probe.open_area('t23');
SET client_min_messages = warning;
DROP ROLE IF EXISTS epro_t23_north, epro_t23_both, epro_t23_none, epro_t23_writer, epro_t23_south;
RESET client_min_messages;
CREATE ROLE epro_t23_north;
CREATE ROLE epro_t23_both;
CREATE ROLE epro_t23_none;
CREATE ROLE epro_t23_writer;
-- a member sees what the role sees
CREATE ROLE epro_t23_south ROLE epro_t23_both;
GRANT epro_t23_north TO epro_t23_both;
GRANT USAGE ON SCHEMA epro_etl, t23 TO epro_t23_north, epro_t23_both, epro_t23_none, epro_t23_writer;
GRANT EXECUTE ON FUNCTION epro_etl.study_participants TO epro_t23_north, epro_t23_both, epro_t23_none;
GRANT SELECT ON epro_etl.study, epro_etl.participant, epro_etl.site_access TO epro_t23_north, epro_t23_both, epro_t23_none;
-- what came, or what was raised; times vary
CREATE FUNCTION key(n int) RETURNS text IMMUTABLE LANGUAGE sql RETURN encode(sha256(convert_to('P-' || n, 'UTF8')), 'hex');
CREATE FUNCTION outcome(query text) RETURNS TABLE (state text, message text, detail text, hint text, context text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN QUERY SELECT 'came to its end', NULL, NULL, NULL, NULL;
EXCEPTION WHEN query_canceled OR OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        context = PG_EXCEPTION_CONTEXT;
    message := regexp_replace(message, 'the [0-9]+ ms it had', 'the N ms it had');
    context := regexp_replace(substring(context FROM 'hop "[^\n]*'), 'had [0-9]+ m?s', 'had N ms');
    RETURN NEXT;
END $$;
GRANT EXECUTE ON FUNCTION key, outcome TO PUBLIC;

-- filled by whom privileges let, without seeing anything
GRANT INSERT, DELETE ON epro_etl.study, epro_etl.participant, epro_etl.site_access TO epro_t23_writer;
GRANT SELECT ON epro_etl.participant, epro_etl.site_access TO epro_t23_writer;
SET ROLE epro_t23_writer;
INSERT INTO epro_etl.study (study, title) VALUES ('T23-1', 'Sleep'), ('T23-2', 'Mood'), ('T23-3', 'closed');
INSERT INTO epro_etl.participant
    SELECT study, key(n), site, 'enrolled', DATE '2026-01-01' + n
    FROM (VALUES ('T23-1', 1, 'N'), ('T23-1', 2, 'N'), ('T23-1', 3, 'S'), ('T23-1', 4, 'W'), ('T23-2', 5, 'S'), ('T23-3', 6, 'N')) v (study, n, site);
INSERT INTO epro_etl.site_access (study, site, role) VALUES
    ('T23-1', 'N', 'epro_t23_north'), ('T23-1', 'S', 'epro_t23_south'), ('T23-1', 'W', 'epro_t23_no_such_role'),
    ('T23-2', 'S', 'epro_t23_south'), ('T23-3', 'N', 'epro_t23_no_such_role');
SELECT count(*) FROM epro_etl.participant;
DELETE FROM epro_etl.participant WHERE site = 'N';
RESET ROLE;
-- an identifier does not get in, and is not told
INSERT INTO epro_etl.participant VALUES ('T23-1', 'Jane Doe', 'N');
INSERT INTO epro_etl.participant VALUES ('T23-1', upper(key(1)), 'N');

-- each sees its own
SET ROLE epro_t23_north;
SELECT study, subject_key = key(1) AS first, subject_key = key(2) AS second, site, status, enrolled_on FROM epro_etl.study_participants('T23-1') ORDER BY enrolled_on;
SELECT study FROM epro_etl.study ORDER BY 1;
SELECT study, site FROM epro_etl.participant ORDER BY 1, 2;
SELECT study, site, role FROM epro_etl.site_access ORDER BY 1, 2;
SELECT (epro_etl.study_participants('T23-1', timeout => '1 min')).site;
SELECT epro_etl.study_participants('T23-2');
SET ROLE epro_t23_both;
SELECT site, count(*) FROM epro_etl.study_participants('T23-1') GROUP BY site ORDER BY site;
SELECT site, enrolled_on FROM epro_etl.study_participants('T23-2');
SELECT epro_etl.study_participants('T23-3');
SET ROLE epro_t23_none;
SELECT epro_etl.study_participants('T23-1');
SELECT count(*) FROM epro_etl.study;
SELECT count(*) FROM epro_etl.participant;
SELECT count(*) FROM epro_etl.site_access;
RESET ROLE;
-- a superuser passes row security; what is permitted is by role all the same
SELECT site, count(*) FROM epro_etl.study_participants('T23-1') GROUP BY site ORDER BY site;
SELECT count(*) FROM epro_etl.study_participants('T23-3');
-- a role that goes takes its access along, and raises nothing
SET ROLE epro_t23_both;
SELECT count(*) FROM epro_etl.study_participants('T23-1');
RESET ROLE;
DROP ROLE epro_t23_south;
SET ROLE epro_t23_both;
SELECT count(*) FROM epro_etl.study_participants('T23-1');
SELECT epro_etl.study_participants('T23-2');
RESET ROLE;
-- refused
SELECT epro_etl.study_participants(NULL);
SELECT epro_etl.study_participants('T23-1', '0 s');
SELECT epro_etl.study_participants('T23-1', '-1 s');
SELECT epro_etl.study_participants('none'' of these');
-- who may call it may not be able to read
REVOKE SELECT ON epro_etl.participant FROM epro_t23_none;
UPDATE epro_etl.site_access SET role = 'epro_t23_none' WHERE role = 'epro_t23_south';
SET ROLE epro_t23_none;
SELECT state, message, context FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
RESET ROLE;

-- relations of one's own
CREATE TABLE registry ("Trial" varchar(20), pseudonym text, centre name, state text, since date, born text);
INSERT INTO registry SELECT 'T23-1', key(n), CASE n % 2 WHEN 0 THEN 'N' ELSE 'S' END, 'randomised', DATE '2026-02-01' + n, 'Jane Doe' FROM generate_series(1, 5) n;
SELECT epro_etl.set_hop('participants', 'registry', '{"study": "Trial", "subject_key": "pseudonym", "site": "centre", "status": "state", "enrolled_on": "since"}', '1 min');
SELECT hop, relation, columns, timeout, set_by = session_user AS by_us FROM epro_etl.hop;
SET ROLE epro_t23_north;
SELECT state, message, context FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
RESET ROLE;
GRANT SELECT ON registry TO epro_t23_north;
SET ROLE epro_t23_north;
SELECT study, subject_key = key(2) AS second, site, status, enrolled_on FROM epro_etl.study_participants('T23-1') ORDER BY enrolled_on;
RESET ROLE;
-- its own row security holds
ALTER TABLE registry ENABLE ROW LEVEL SECURITY;
CREATE POLICY later ON registry USING (since > '2026-02-03');
SET ROLE epro_t23_north;
SELECT site, enrolled_on FROM epro_etl.study_participants('T23-1');
RESET ROLE;
ALTER TABLE registry DISABLE ROW LEVEL SECURITY;
-- who may what: a view, and roles that are no one's
CREATE VIEW permitted AS SELECT 'T23-1'::text AS study, s.site, s.role FROM (VALUES ('S', 'epro_t23_north'), ('N', 'epro_t23_gone'), ('N', NULL), (NULL, 'epro_t23_north'),
    ('N', repeat('x', 100))) s (site, role);
GRANT SELECT ON permitted TO epro_t23_north;
SELECT epro_etl.set_hop('permission', 'permitted');
SET ROLE epro_t23_north;
SELECT site, enrolled_on FROM epro_etl.study_participants('T23-1') ORDER BY 2;
RESET ROLE;
-- back to one's own tables
SELECT epro_etl.set_hop('permission', NULL);
SELECT epro_etl.set_hop('participants', NULL);
SELECT epro_etl.set_hop('participants', NULL);
SELECT count(*) FROM epro_etl.hop;
-- refused; nothing of it stays
CREATE TABLE wrong (study int, subject_key text, site text, status text, enrolled_on timestamptz, role text);
CREATE INDEX wrong_index ON wrong (study);
SELECT epro_etl.set_hop('nowhere', 'registry');
SELECT epro_etl.set_hop(NULL, 'registry');
SELECT epro_etl.set_hop('participants', 'registry');
SELECT epro_etl.set_hop('participants', 'registry', '{"study": "Trial", "subject_key": "pseudonyme"}');
SELECT epro_etl.set_hop('participants', 'registry', '{"subject": "pseudonym"}');
SELECT epro_etl.set_hop('participants', 'registry', '{"study": 5}');
SELECT epro_etl.set_hop('participants', 'registry', '[]');
SELECT epro_etl.set_hop('study', 'registry', '{"study": "ctid"}');
SELECT epro_etl.set_hop('study', 'wrong');
SELECT epro_etl.set_hop('participants', 'wrong', '{"study": "role"}');
SELECT epro_etl.set_hop('study', 'wrong_index');
SELECT epro_etl.set_hop('study', 'wrong', '{"study": "role"}', '0 s');
SELECT epro_etl.set_hop('study', NULL, timeout => '1 s');
SELECT epro_etl.set_hop('study', NULL, '{}');
SELECT count(*) FROM epro_etl.hop;
SET ROLE epro_t23_north;
SELECT epro_etl.set_hop('study', NULL);
RESET ROLE;
-- what is not what it was
SELECT epro_etl.set_hop('study', 'registry', '{"study": "Trial"}');
ALTER TABLE registry RENAME TO registry_2;
SELECT count(*) FROM epro_etl.study_participants('T23-1');
ALTER TABLE registry_2 RENAME "Trial" TO trial;
SELECT state, message, context FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
ALTER TABLE registry_2 RENAME trial TO "Trial";
CREATE TABLE lost (study text);
SELECT epro_etl.set_hop('study', 'lost');
DROP TABLE lost;
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
SELECT epro_etl.set_hop('study', NULL);

-- pseudonyms only, and no error that quotes
CREATE VIEW identified AS SELECT "Trial" AS study, 'Jane Doe' || pseudonym AS subject_key, centre AS site, state AS status, since AS enrolled_on FROM registry_2;
SELECT epro_etl.set_hop('participants', 'identified');
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
CREATE OR REPLACE VIEW identified AS SELECT "Trial" AS study, NULL AS subject_key, centre AS site, state AS status, since AS enrolled_on FROM registry_2;
SELECT state, message FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
CREATE OR REPLACE VIEW identified AS SELECT "Trial" AS study, upper(pseudonym) AS subject_key, centre AS site, state AS status, since AS enrolled_on FROM registry_2;
SELECT state, message FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
CREATE OR REPLACE VIEW identified AS SELECT "Trial" AS study, pseudonym AS subject_key, centre AS site, state AS status, born::date AS enrolled_on FROM registry_2;
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
CREATE FUNCTION tells(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'not %', what USING DETAIL = what, TABLE = what, ERRCODE = 'XT23A'; END $$;
CREATE OR REPLACE VIEW identified AS SELECT "Trial" AS study, tells(born) AS subject_key, centre AS site, state AS status, since AS enrolled_on FROM registry_2;
DO $$
DECLARE
    said text;
    of_table text;
BEGIN
    PERFORM epro_etl.study_participants('T23-1');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL, of_table = TABLE_NAME;
    RAISE WARNING '% %, detail "%", table "%"', sqlstate, sqlerrm, said, of_table;
END $$;
SELECT epro_etl.set_hop('participants', NULL);
DROP VIEW identified;

-- deadlines: each hop in turn, with the one that holds it up named
CREATE TABLE pace (seconds float8);
INSERT INTO pace VALUES (60);
CREATE FUNCTION wait() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM t23.pace)); RETURN true; END $$;
CREATE VIEW slow_study AS SELECT study FROM epro_etl.study WHERE wait();
CREATE VIEW slow_participant AS SELECT study, subject_key, site, status, enrolled_on FROM epro_etl.participant, LATERAL (SELECT wait() OFFSET 0) w (waited) WHERE waited;
CREATE VIEW slow_access AS SELECT study, site, role FROM epro_etl.site_access WHERE wait();
SELECT epro_etl.set_hop('study', 'slow_study');
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
SELECT epro_etl.set_hop('study', NULL);
SELECT epro_etl.set_hop('permission', 'slow_access');
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
SELECT epro_etl.set_hop('permission', NULL);
SELECT epro_etl.set_hop('participants', 'slow_participant');
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
-- the hop's own timeout shortens it, and only that
SELECT epro_etl.set_hop('participants', 'slow_participant', timeout => '30 ms');
SELECT * FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
SELECT state, detail FROM outcome($$SELECT epro_etl.study_participants('T23-1', '1 min')$$);
SELECT epro_etl.set_hop('participants', 'slow_participant', timeout => '1 min');
SELECT state, detail FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
-- those around it stay what they are
SELECT state, message FROM outcome($$SELECT epro_etl.with_timeout('30 ms', 'SELECT epro_etl.study_participants(''T23-1'', ''30 s'')')$$);
SELECT state, message FROM outcome($$SELECT epro_etl.with_timeout('1 min', 'SELECT epro_etl.study_participants(''T23-1'', ''200 ms'')')$$);
SET statement_timeout = '200 ms';
SELECT state, message, context FROM outcome($$SELECT epro_etl.study_participants('T23-1', '30 s')$$);
SELECT state, message, context FROM outcome($$SELECT epro_etl.study_participants('T23-1')$$);
RESET statement_timeout;
-- who swallows the cancel is late all the same; so is who had no time to begin with
CREATE OR REPLACE FUNCTION wait() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM t23.pace)); RETURN true; EXCEPTION WHEN query_canceled THEN RETURN true; END $$;
SELECT state, message FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
SELECT state, message FROM outcome($$SELECT epro_etl.study_participants('T23-1', '1 us')$$);
-- the session and its transaction go on
UPDATE pace SET seconds = 60;
BEGIN;
CREATE TABLE written (n int);
INSERT INTO written VALUES (1);
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT epro_etl.study_participants('T23-1', '200 ms');
\set VERBOSITY default
ROLLBACK TO s;
INSERT INTO written VALUES (2);
SELECT state FROM outcome($$SELECT epro_etl.study_participants('T23-1', '200 ms')$$);
UPDATE pace SET seconds = 0;
SELECT count(*) FROM epro_etl.study_participants('T23-1', '1 min');
INSERT INTO written VALUES (3);
COMMIT;
SELECT array_agg(n ORDER BY n) FROM written;
SELECT epro_etl.context_deadline() IS NULL AS no_budget_is_left;
SHOW search_path;
-- many, beyond what is held in memory
INSERT INTO epro_etl.participant SELECT 'T23-2', key(n), 'S' || n % 10, 'screened', '2026-03-01' FROM generate_series(100, 5099) n;
INSERT INTO epro_etl.site_access (study, site, role) SELECT 'T23-2', 'S' || n, 'epro_t23_north' FROM generate_series(0, 150) n WHERE n % 2 = 0;
SELECT epro_etl.set_hop('participants', NULL);
SET work_mem = '64 kB';
SET ROLE epro_t23_north;
SELECT count(*), count(DISTINCT subject_key), count(DISTINCT site) FROM epro_etl.study_participants('T23-2', '1 min');
RESET ROLE;
-- many of them, and no site is open: nothing is left behind
DELETE FROM epro_etl.site_access WHERE study = 'T23-2';
SELECT count(*) FROM epro_etl.study_participants('T23-2');
RESET work_mem;
DELETE FROM epro_etl.participant WHERE study LIKE 'T23-%';
DELETE FROM epro_etl.site_access WHERE study LIKE 'T23-%';
DELETE FROM epro_etl.study WHERE study LIKE 'T23-%';
SELECT probe.close_area('t23');
DROP OWNED BY epro_t23_north, epro_t23_both, epro_t23_none, epro_t23_writer;
DROP ROLE epro_t23_north, epro_t23_both, epro_t23_none, epro_t23_writer;
