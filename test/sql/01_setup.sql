-- The extension, a pseudonym key, and what the scripts after this one share.
\set SHOW_CONTEXT never
-- it makes its own schema, and no other
CREATE SCHEMA elsewhere;
CREATE EXTENSION epro_etl SCHEMA elsewhere;
DROP SCHEMA elsewhere;
-- and a database in UTF8
SELECT current_database() AS here \gset
CREATE DATABASE epro_etl_regress_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\c epro_etl_regress_latin1
\set SHOW_CONTEXT never
CREATE EXTENSION epro_etl;
\c :here
\set SHOW_CONTEXT never
DROP DATABASE epro_etl_regress_latin1;
CREATE EXTENSION epro_etl;
SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'epro_etl';
-- the settings of the prefix are known, others of it are refused
SELECT name, vartype, boot_val, min_val, max_val, context FROM pg_settings WHERE name LIKE 'epro\_etl.%' ORDER BY name COLLATE "C";
SET epro_etl.worker = 2;
SET epro_etl.workers = -1;
SET epro_etl.workers = 10000;
SET epro_etl.batch_size = 0;
-- A known key beside the data folder, set for this database: so make installcheck
-- asks nothing of the server's configuration, and a subject_key can be computed
-- a second time without the extension. zz_cleanup.sql removes it.
COPY (SELECT 'a key for tests, known to everybody') TO PROGRAM 'umask 077; cat > ../epro_etl_regress.key';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET epro_etl.key_file = %L', current_database(), '../epro_etl_regress.key'); END $$;
\c
\set SHOW_CONTEXT never
SHOW epro_etl.key_file;

-- what the scripts share
CREATE SCHEMA probe;
-- put('FORM', payload, ...) stages responses with the next numbers into the "staging" of the search path
CREATE FUNCTION probe.put(form text, VARIADIC payloads jsonb[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO staging (id, study, form, subject, visit, authored, payload)
    SELECT nextval('staged'), 'ST01', put.form, 'P-' || n, 'DAY 1', '2026-03-01 07:30+00', p
    FROM unnest(payloads) WITH ORDINALITY AS u (p, n);
END $$;
-- open_area('name') makes a schema with a staging table and a pipeline over it, both of that name
CREATE FUNCTION probe.open_area(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA %I', name);
    PERFORM set_config('search_path', quote_ident(name) || ', public', false);
    -- rows stay in the order in which they were staged
    CREATE TABLE staging (id int PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb)
        WITH (autovacuum_enabled = off);
    CREATE SEQUENCE staged;
    PERFORM epro_etl.create_pipeline(name, 'staging');
END $$;
-- close_area('name') takes it away again, with its pipelines
CREATE FUNCTION probe.close_area(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM epro_etl.drop_pipeline(p.name) FROM epro_etl.pipeline p
        WHERE p.name = close_area.name OR p.name LIKE close_area.name || '\_%';
    SET LOCAL client_min_messages = warning;
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
    RESET search_path;
END $$;
CREATE VIEW probe.last AS
    SELECT source_id, form, location, rule, kind, severity, message FROM epro_etl.finding
    WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger)
    ORDER BY length(source_id), source_id COLLATE "C", location COLLATE "C", rule COLLATE "C";
-- HMAC-SHA256 (RFC 2104) in SQL, for keys of up to 64 bytes: what subject_key is held against
CREATE FUNCTION probe.hmac(key bytea, message bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0 .. length(key) - 1 LOOP
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(key, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(key, i));
    END LOOP;
    RETURN sha256(outer_pad || sha256(inner_pad || message));
END $$;
-- test case 2 of RFC 4231, so that the measure itself is measured
SELECT probe.hmac('Jefe', 'what do ya want for nothing?')
     = '\x5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843' AS rfc_4231;
-- a derived key, by HKDF-SHA256 (RFC 5869) without a salt: one block is enough
CREATE FUNCTION probe.lp(part text) RETURNS bytea LANGUAGE sql
    RETURN int4send(octet_length(part)) || convert_to(part, 'UTF8');
CREATE FUNCTION probe.derived(master bytea, purpose text, version text, study text) RETURNS bytea LANGUAGE sql
    RETURN probe.hmac(probe.hmac('', master), probe.lp('epro_etl') || probe.lp(purpose) || probe.lp(version) || probe.lp(study) || '\x01');
CREATE FUNCTION probe.subject_key(study text, subject text, master bytea DEFAULT 'a key for tests, known to everybody') RETURNS text LANGUAGE sql
    RETURN encode(probe.hmac(probe.derived(master, 'subject', '1', study), probe.lp(study) || probe.lp(subject)), 'hex');
