#!/usr/bin/env bash
# From commit to stored: rows arrive one by one at a steady rate while a stream
# loads them. Prints the percentiles that stat_stream has, for each rate.
#
#   latency.sh [SECONDS]    against the database that the libpq variables name
#
# It makes a schema of its own and drops it again.
set -euo pipefail
seconds=${1:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { psql -Xqt -v ON_ERROR_STOP=1 "$@"; }

cat >"$work/insert.sql" <<'SQL'
\set n random(1, 1000000)
INSERT INTO bench_latency.staging (study, form, subject, payload)
    VALUES ('S', 'LATENCY', 'P' || :n % 500, '{"pain": 3, "sleep": "GOOD", "note": "as every day"}');
SQL

printf '%-34s %8s %8s %10s %10s\n' stages rows/s stored 'p50 ms' 'p99 ms'
for stages in '' '{"deidentify": 1, "validate": 1, "store": 1}'; do
	for rate in 100 1000; do
		run <<'SQL' >/dev/null
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS epro_etl;
DROP SCHEMA IF EXISTS bench_latency CASCADE;
DELETE FROM epro_etl.pipeline WHERE name = 'bench_latency';
CREATE SCHEMA bench_latency;
CREATE TABLE bench_latency.staging (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, study text, form text,
                                    subject text, payload jsonb);
SELECT epro_etl.register_form('LATENCY', '{"type": "object", "properties": {
    "pain": {"type": "integer", "minimum": 0, "maximum": 10},
    "sleep": {"type": "string", "enum": ["GOOD", "FAIR", "POOR"]}, "note": {"type": "string"}}, "required": ["pain"]}');
SELECT epro_etl.create_pipeline('bench_latency', 'bench_latency.staging');
SELECT epro_etl.create_sink('bench_latency', 'LATENCY', 'bench_latency.sink');
SQL
		run -v stages="$stages" <<<"SELECT epro_etl.start_stream('bench_latency', stages => nullif(:'stages', '')::jsonb);" >/dev/null
		pgbench -n -c 4 -j 2 -R "$rate" -T "$seconds" -f "$work/insert.sql" >"$work/pgbench.log" 2>&1
		run -A -F ' ' -c "SELECT stored, round(latency_p50_ms::numeric, 1), round(latency_p99_ms::numeric, 1)
		                  FROM epro_etl.stat_stream WHERE pipeline = 'bench_latency'" >"$work/stat"
		read -r stored half most <"$work/stat"
		printf '%-34s %8s %8s %10s %10s\n' "${stages:-not cut}" "$rate" "$stored" "$half" "$most"
		run -c "SELECT epro_etl.stop_stream('bench_latency')" >/dev/null
	done
done
run <<'SQL' >/dev/null
SET client_min_messages = warning;
SELECT epro_etl.drop_pipeline('bench_latency');
DROP SCHEMA bench_latency CASCADE;
SQL
