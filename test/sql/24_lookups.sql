-- Edit checks that ask a reference: what they may be, what they say, and what
-- becomes of a response that gets no answer.
\set SHOW_CONTEXT never
SELECT probe.open_area('t24');
CREATE SCHEMA ref;
CREATE TABLE ref.site (code text PRIMARY KEY, is_open boolean, wait float8 NOT NULL DEFAULT 0);
INSERT INTO ref.site VALUES ('A', true, 0), ('B', false, 0), ('C', NULL, 0), ('SLOW', true, 30);
CREATE VIEW ref.open_site AS SELECT code FROM ref.site WHERE is_open;
CREATE FUNCTION ref.is_open(code text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(s.wait) FROM ref.site s WHERE s.code = is_open.code;
    RETURN (SELECT s.is_open FROM ref.site s WHERE s.code = is_open.code);
END $$;
CREATE TABLE ref_staging (id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
SELECT epro_etl.register_form('REF', '{"type": "object", "required": ["site"], "properties": {
    "site": {"type": "string"}, "code": {"type": "string"}, "n": {"type": "integer", "maximum": 10},
    "vital": {"type": "object", "properties": {"bp": {"type": "integer"}}}}}');
SELECT epro_etl.create_pipeline('ref', 'ref_staging');
SELECT epro_etl.create_sink('ref', 'REF', 'ref_sink');
CREATE FUNCTION stage(first bigint, VARIADIC payloads jsonb[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ref_staging SELECT first + n - 1, 'S', 'REF', 'P' || n, 'V1', '2024-01-01', p
    FROM unnest(payloads) WITH ORDINALITY AS u (p, n) $$;
CREATE FUNCTION go(workers int DEFAULT 0, dry_run boolean DEFAULT false) RETURNS TABLE (status text, claimed bigint, loaded bigint, warned bigint, rejected bigint, deferred bigint, remaining bigint)
    LANGUAGE sql AS $$ SELECT r.status, r.claimed, r.loaded, r.warned, r.rejected, r.deferred, r.remaining FROM epro_etl.run('ref', workers => go.workers, dry_run => go.dry_run) r $$;
CREATE VIEW told AS SELECT source_id, rule, kind, severity, message FROM epro_etl.finding
    WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) ORDER BY source_id, rule;

-- refused where they are declared
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (SELECT FROM ref.site s WHERE code = site)');
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (SELECT FROM ref.site s WHERE s.code = sight)');
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (SELECT FROM site s WHERE s.code = response.site)');
SELECT epro_etl.add_lookup('REF', 'l', '(SELECT s.code FROM ref.site s WHERE s.code = site)');
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (SELECT FROM ref.site s WHERE s.wait > random())');
SELECT epro_etl.add_lookup('REF', 'l', 'true, true');
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (DELETE FROM ref.site)');
SELECT epro_etl.add_lookup('REF', 'l', 'true FROM ref.site s WHERE s.code = site FOR UPDATE');
CREATE TEMPORARY TABLE passing (code text);
SELECT epro_etl.add_lookup('REF', 'l', 'EXISTS (SELECT FROM pg_temp.passing p WHERE p.code = site)');
SELECT epro_etl.add_lookup('REF', 'l', 'true', on_timeout => 'wait');
SELECT epro_etl.add_lookup('REF', 'l', 'true', timeout => '0 s');
SELECT epro_etl.add_lookup('REF', 'l', 'true', severity => 'fatal');
SELECT epro_etl.add_lookup('REF', 'l', NULL);
SELECT epro_etl.add_lookup('NONE', 'l', 'true');
SELECT count(*) FROM epro_etl.edit_check WHERE form = 'REF';

-- a table, a view and a function; an item whose name is a column's; a group's item
SELECT epro_etl.add_lookup('REF', 'known', 'EXISTS (SELECT FROM ref.site s WHERE s.code = site)', message => 'no such site');
SELECT epro_etl.add_lookup('REF', 'open', 'site IN (SELECT o.code FROM ref.open_site o)', 'warning');
SELECT epro_etl.add_lookup('REF', 'code', 'EXISTS (SELECT FROM ref.site s WHERE s.code = response.code)', condition => 'n IS NOT NULL');
SELECT epro_etl.add_lookup('REF', 'bp', 'EXISTS (SELECT FROM ref.site s WHERE vital.bp < 300)', 'information');
SELECT epro_etl.add_lookup('REF', 'mine', 'NOT EXISTS (SELECT FROM t24.ref_sink k WHERE k.subject_key = subject AND k.visit = response.visit AND k.source_id < 0)');
SELECT stage(1, '{"site": "A"}', '{"site": "X"}', '{"site": "B"}', '{}', '{"site": "A", "n": 1, "code": "A"}',
             '{"site": "A", "n": 1, "code": "Z"}', '{"site": "A", "n": 1}', '{"site": "A", "vital": {"bp": 400}}', '{"site": "A", "n": 77, "code": "Z"}');
SELECT * FROM go();
SELECT * FROM told;
SELECT source_id, site, code, n FROM ref_sink ORDER BY 1;
SELECT count(*) FROM ref_staging;

-- an answer of NULL, and an error
SELECT epro_etl.remove_edit_check('REF', r) FROM unnest('{known,open,code,bp,mine}'::text[]) r;
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)');
SELECT epro_etl.add_lookup('REF', 'error', '(SELECT 1 / count(*) FROM ref.site s WHERE s.code = site) = 1');
SELECT epro_etl.add_lookup('REF', 'many', '(SELECT s.code FROM ref.site s) = site', condition => 'n = 2');
SELECT epro_etl.add_lookup('REF', 'rows', 'true FROM ref.site s WHERE s.code <> site', condition => 'n = 3');
SELECT stage(11, '{"site": "C"}', '{"site": "Y"}', '{"site": "A", "n": 2}', '{"site": "A", "n": 3}');
SELECT * FROM go(1);
SELECT * FROM told;

-- no answer: deferred, which is the default
SELECT epro_etl.remove_edit_check('REF', r) FROM unnest('{error,many,rows,"is open"}'::text[]) r;
SELECT epro_etl.add_edit_check('REF', 'small', 'n IS NULL OR n < 5', 'warning');
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '200 ms');
SELECT stage(21, '{"site": "A"}', '{"site": "SLOW", "n": 7}', '{"site": "A"}', '{"site": "SLOW", "n": 70}', '{"site": "A"}', '{"site": "SLOW"}', '{"site": "SLOW"}', '{"site": "SLOW"}');
SELECT * FROM go(0, true);
SELECT * FROM go();
-- one that is rejected anyway does not wait; the same question is asked once
SELECT * FROM told;
SELECT id FROM ref_staging ORDER BY id;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));
UPDATE ref.site SET wait = 0;
SELECT * FROM go(2);
SELECT * FROM told;
SELECT id FROM ref_staging ORDER BY id;
SELECT * FROM epro_etl.reconcile((SELECT max(run_id) FROM epro_etl.run_ledger));

-- rejected, or warned about
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '200 ms', on_timeout => 'reject');
UPDATE ref.site SET wait = 30 WHERE code = 'SLOW';
SELECT stage(31, '{"site": "A"}', '{"site": "SLOW"}');
SELECT * FROM go();
SELECT * FROM told;
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '200 ms', on_timeout => 'warn');
SELECT stage(41, '{"site": "A"}', '{"site": "SLOW"}');
SELECT * FROM go();
SELECT * FROM told;

-- the caller's own time is not the lookup's
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '10 s', on_timeout => 'warn');
SELECT stage(51, '{"site": "A"}', '{"site": "SLOW"}');
SELECT status FROM epro_etl.run('ref', workers => 0, timeout => '50 ms');
\set VERBOSITY terse
SELECT status FROM epro_etl.run('ref', workers => 1, timeout => '150 ms');
\set VERBOSITY default
SET statement_timeout = '100 ms';
SELECT * FROM go();
RESET statement_timeout;
SELECT id FROM ref_staging ORDER BY id;

-- one that makes an answer of the cancel is late all the same; one with a time of its own has not answered
CREATE FUNCTION ref.stubborn(code text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(60);
    RETURN true;
EXCEPTION WHEN query_canceled THEN
    RETURN false;
END $$;
CREATE FUNCTION ref.hasty(code text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN t.known FROM epro_etl.with_timeout('10 ms', 'SELECT pg_sleep(60) IS NOT NULL') AS t (known boolean);
END $$;
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.stubborn(site)', timeout => '200 ms');
SELECT * FROM go();
SELECT * FROM told;
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.hasty(site)');
SELECT * FROM go();
SELECT * FROM told;
-- names mean what they meant when the lookup was declared, whatever the caller's path
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.never(text, text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT false';
CREATE OPERATOR shadow.= (LEFTARG = text, RIGHTARG = text, FUNCTION = shadow.never);
SELECT epro_etl.add_lookup('REF', 'known', 'EXISTS (SELECT FROM ref.site s WHERE s.code = response.site)');
SELECT epro_etl.remove_edit_check('REF', 'is open');
SELECT stage(56, '{"site": "A"}', '{"site": "B"}');
SET search_path = shadow, pg_catalog, t24;
SELECT loaded, rejected FROM epro_etl.run('ref', workers => 0);
SET search_path = t24, public;
SELECT epro_etl.remove_edit_check('REF', 'known');
DROP SCHEMA shadow CASCADE;
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '200 ms');
SELECT stage(53, '{"site": "A"}', '{"site": "SLOW"}');
-- a source whose rows are claimed by SQL
CREATE FUNCTION keep_nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TRIGGER seen BEFORE DELETE ON ref_staging FOR EACH ROW EXECUTE FUNCTION keep_nothing();
SELECT epro_etl.add_lookup('REF', 'is open', 'ref.is_open(site)', timeout => '200 ms');
SELECT * FROM go();
SELECT id FROM ref_staging ORDER BY id;
UPDATE ref.site SET wait = 0;
SELECT * FROM go(1);
SELECT id FROM ref_staging ORDER BY id;
DROP TRIGGER seen ON ref_staging;

-- a reference that is gone, or not for this role: the run says so and moves nothing
CREATE TABLE ref.gone (code text);
SELECT epro_etl.add_lookup('REF', 'gone', 'NOT EXISTS (SELECT FROM ref.gone g WHERE g.code = site)');
SELECT stage(61, '{"site": "A"}');
DROP TABLE ref.gone;
\set SHOW_CONTEXT errors
SELECT * FROM epro_etl.run('ref', workers => 0);
\set SHOW_CONTEXT never
CREATE TABLE ref.gone (code text);
SELECT * FROM go();
SELECT id FROM ref_staging ORDER BY id;
SELECT check_name, expression, timeout, on_timeout FROM epro_etl.edit_check WHERE form = 'REF' AND removed_at IS NULL ORDER BY 1;

SELECT epro_etl.drop_pipeline('ref');
SELECT probe.close_area('t24');
DROP SCHEMA ref CASCADE;
