#!/usr/bin/env bash
#
# Stop latency: from the end of a caller's time to the caller's error, while four
# workers are in the midst of their chunks. Prints the 50th and 99th percentile
# and the highest of so many tries a way: a cancel by another session,
# statement_timeout, the run's own timeout. Each try ends with no worker left, and
# the rows must add up, or the exit code is not 0.
#
#   stop.sh [TRIES]    200 by default
#
# It builds and installs the extension, and starts a throwaway server of its own.
# The client is stop.c: psql would take longer to start than what is measured.
set -euo pipefail
tries=${1:-200}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/lib.sh
. "$here/../lib.sh"
# shellcheck source=test/bench/facts.sh
. "$here/facts.sh"

main()
{
	bash "$TOP/test/setup.sh" demo >&2
	lib_open
	supervise build_and_install >"$WORK/build.log" 2>&1 || {
		cat "$WORK/build.log" >&2
		exit 1
	}
	as_server_user mkdir "$WORK/client"
	"${CC:-cc}" -std=gnu99 -O2 -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" -o "$WORK/client/stop" "$here/stop.c" \
		-L"$("$PG_CONFIG" --libdir)" -Wl,-rpath,"$("$PG_CONFIG" --libdir)" -lpq -lm

	# autovacuum would wait for, or hold up, the table that is filled anew
	cluster_start stop 'autovacuum = off' 'max_worker_processes = 16' || exit 1
	fixture | as_server_user psql -Xq -v ON_ERROR_STOP=1 >/dev/null
	bench_facts
	echo "from the end of the caller's time to its error, 4 workers in mid-chunk (batch_size 2000)"
	supervise as_server_user "$WORK/client/stop" "$tries"
	cluster_stop stop || exit 1
}

# The rows and the rules: twelve items, an identifier to drop, an edit check,
# every 97th response broken. restage() fills the source up when a third of it
# is gone, after having looked whether every row is somewhere once.
fixture()
{
	cat <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION epro_etl;
CREATE SCHEMA bench_stop;
CREATE TABLE bench_stop.staging (id bigint PRIMARY KEY, study text, form text, subject text, visit text,
                                 authored timestamptz, payload jsonb);
CREATE TABLE bench_stop.pool AS
    SELECT g::bigint AS id, 'S' AS study, 'STOP' AS form, 'P' || g % 500 AS subject, 'V' || g % 5 AS visit,
           '2026-03-01 08:00+00'::timestamptz + g * interval '1 second' AS authored,
           jsonb_object_agg('q' || q, (g + q) % 4) || jsonb_build_object('pain', CASE WHEN g % 97 = 0 THEN 11 ELSE g % 10 END,
               'date', '2026-03-01', 'email', 'p' || g || '@example.org') AS payload
    FROM generate_series(1, 150000) g, generate_series(1, 10) q GROUP BY g ORDER BY g;
SELECT epro_etl.register_form('STOP', jsonb_build_object('type', 'object', 'required', '["pain"]'::jsonb, 'properties',
    (SELECT jsonb_object_agg('q' || q, '{"type": "integer", "minimum": 0, "maximum": 3}'::jsonb) FROM generate_series(1, 10) q) ||
    '{"pain": {"type": "integer", "minimum": 0, "maximum": 10}, "date": {"type": "string", "format": "date"},
      "email": {"type": "string"}}'));
SELECT epro_etl.set_deid('STOP', '/email', 'remove');
SELECT epro_etl.add_edit_check('STOP', 'in the study', $$date BETWEEN date '2026-01-01' AND date '2027-01-01'$$);
SELECT epro_etl.create_pipeline('bench_stop', 'bench_stop.staging');
SELECT epro_etl.create_sink('bench_stop', 'STOP', 'bench_stop.sink');

CREATE TABLE bench_stop.counted (run_id bigint);
INSERT INTO bench_stop.counted VALUES (0);

CREATE FUNCTION bench_stop.check_rows() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wrong bigint;
BEGIN
    SELECT count(*) INTO wrong FROM (
        SELECT p.id FROM bench_stop.pool p LEFT JOIN (
            SELECT id FROM bench_stop.staging
            UNION ALL SELECT source_id FROM bench_stop.sink
            UNION ALL SELECT source_id::bigint FROM epro_etl.quarantine) x USING (id)
        GROUP BY p.id HAVING count(x.id) <> 1) y;
    IF wrong > 0 THEN
        RAISE '% responses are not in exactly one place', wrong;
    END IF;
    SELECT count(*) INTO wrong FROM epro_etl.run_history
        WHERE claimed <> loaded + rejected + duplicate + deferred OR status = 'running';
    IF wrong > 0 THEN
        RAISE 'the ledger of % runs does not hold', wrong;
    END IF;
    IF (SELECT count(*) FROM bench_stop.sink) <>
       (SELECT coalesce(sum(h.loaded), 0) FROM epro_etl.run_history h WHERE h.run_id > (SELECT run_id FROM bench_stop.counted)) THEN
        RAISE 'the sink has not what the ledger says';
    END IF;
END $$;

CREATE FUNCTION bench_stop.restage() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM bench_stop.staging) > 100000 THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM epro_etl.run_history) THEN
        PERFORM bench_stop.check_rows();
    END IF;
    TRUNCATE bench_stop.staging, bench_stop.sink, epro_etl.quarantine, epro_etl.finding;
    UPDATE bench_stop.counted SET run_id = coalesce((SELECT max(h.run_id) FROM epro_etl.run_history h), 0);
    INSERT INTO bench_stop.staging SELECT * FROM bench_stop.pool;
END $$;
VACUUM ANALYZE bench_stop.pool;
SQL
}

main
