#!/usr/bin/env bash
# A stage that waits 20 ms a row, as one that asks another server does: with one
# worker in its group, and with sixteen.
#
#   slow_stage.sh    against the database that the libpq variables name
#
# It needs max_worker_processes for nineteen, makes a schema of its own and drops
# it again.
set -euo pipefail
run() { psql -Xqt -v ON_ERROR_STOP=1 "$@"; }

run <<'SQL' >/dev/null
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS epro_etl;
DROP SCHEMA IF EXISTS bench_slow CASCADE;
DELETE FROM epro_etl.pipeline WHERE name = 'bench_slow';
CREATE SCHEMA bench_slow;
CREATE TABLE bench_slow.staging (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, study text, form text,
                                 subject text, payload jsonb);
CREATE FUNCTION bench_slow.ask(bigint) RETURNS boolean STABLE LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.02); RETURN true; END $$;
SELECT epro_etl.register_form('SLOW', '{"type": "object", "properties": {"pain": {"type": "integer"}}}');
SELECT epro_etl.add_edit_check('SLOW', 'asked', 'bench_slow.ask(pain)');
SELECT epro_etl.create_pipeline('bench_slow', 'bench_slow.staging');
SELECT epro_etl.create_sink('bench_slow', 'SLOW', 'bench_slow.sink');
SQL
printf '%-10s %8s %10s %10s\n' workers rows seconds rows/s
for workers in 1 16; do
	rows=$((workers * 200))
	run -v rows=$rows <<'SQL' >/dev/null
TRUNCATE bench_slow.staging, bench_slow.sink;
INSERT INTO bench_slow.staging (study, form, subject, payload)
    SELECT 'S', 'SLOW', 'P' || g % 100, '{"pain": 3}' FROM generate_series(1, :rows) g;
SQL
	began=$(date +%s.%N)
	run -v stages="{\"decode\": 1, \"validate\": $workers, \"store\": 1}" <<'SQL' >/dev/null
SET client_min_messages = warning;
SELECT epro_etl.start_stream('bench_slow', stages => :'stages');
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM bench_slow.staging) LOOP
        PERFORM pg_sleep(0.02);
        COMMIT;
    END LOOP;
END $$;
SQL
	ended=$(date +%s.%N)
	run -c "SELECT epro_etl.stop_stream('bench_slow')" >/dev/null
	awk -v w=$workers -v n=$rows -v t="$(echo "$ended $began" | awk '{print $1 - $2}')" \
		'BEGIN { printf "%-10d %8d %10.2f %10.1f\n", w, n, t, n / t }'
done
run <<'SQL' >/dev/null
SET client_min_messages = warning;
SELECT epro_etl.drop_pipeline('bench_slow');
DROP SCHEMA bench_slow CASCADE;
SQL
