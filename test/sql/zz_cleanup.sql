-- After all others: nothing stays behind, neither of the extension (tour.sql has dropped it) nor of the scripts.
\set SHOW_CONTEXT never
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'epro_etl';
SELECT count(*) AS schemas FROM pg_namespace WHERE nspname IN ('epro_etl', 'elsewhere') OR nspname ~ '^t[0-9]{2}$';
SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
SELECT count(*) AS workers FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE '%epro_etl%';
SET client_min_messages = warning;
DROP SCHEMA probe CASCADE;
RESET client_min_messages;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET epro_etl.key_file', current_database()); END $$;
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress.key';
