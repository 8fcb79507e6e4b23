#!/usr/bin/env bash
#
# Deadlines: how punctual they are, and what they cost. with_timeout('50 ms') over
# a query that sleeps, ended so many times; and with_timeout() over a trivial
# query, against the same query executed in a subtransaction of its own and
# without one, in microseconds a call, the median of five rounds.
#
#   precision.sh [TRIES [CALLS]]    100 and 20000 by default
#
# It builds and installs the extension, and starts a throwaway server of its own.
# All is measured within the server: a client's way is not in the figures.
set -euo pipefail
tries=${1:-100}
calls=${2:-20000}
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
	cluster_start precision || exit 1
	bench_facts
	measure >"$WORK/measure.sql"
	chmod a+r "$WORK/measure.sql"
	supervise as_server_user psql -Xq -v ON_ERROR_STOP=1 -P pager=off -P footer=off \
		-v tries="$tries" -v calls="$calls" -f "$WORK/measure.sql"
	cluster_stop precision || exit 1
}

measure()
{
	cat <<'SQL'
CREATE EXTENSION epro_etl;
CREATE TEMPORARY TABLE ended (ms float8);
CREATE TEMPORARY TABLE round (what text, us float8);

-- every try has to end by its deadline, and not before it
CREATE PROCEDURE pg_temp.end_by_deadline(tries integer) LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
BEGIN
    FOR i IN 1..tries LOOP
        began := clock_timestamp();
        BEGIN
            PERFORM epro_etl.with_timeout('50 ms', 'SELECT pg_sleep(10)');
            RAISE EXCEPTION 'the query came to its end';
        EXCEPTION WHEN SQLSTATE 'EP001' THEN
            NULL;
        END;
        INSERT INTO pg_temp.ended VALUES (extract(epoch FROM clock_timestamp() - began) * 1000);
    END LOOP;
    IF (SELECT min(ms) < 50 OR max(ms) > 5000 OR count(*) <> tries FROM pg_temp.ended) THEN
        RAISE EXCEPTION 'a try ended before its deadline, or not by it';
    END IF;
END $$;

-- the three are alike but for what is measured, and take turns
CREATE PROCEDURE pg_temp.call(calls integer) LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
    n integer;
BEGIN
    began := clock_timestamp();
    FOR i IN 1..calls LOOP
        EXECUTE 'SELECT 1' INTO STRICT n;
    END LOOP;
    INSERT INTO pg_temp.round VALUES ('bare', extract(epoch FROM clock_timestamp() - began) * 1e6 / calls);
    began := clock_timestamp();
    FOR i IN 1..calls LOOP
        BEGIN
            EXECUTE 'SELECT 1' INTO STRICT n;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
    INSERT INTO pg_temp.round VALUES ('in a subtransaction', extract(epoch FROM clock_timestamp() - began) * 1e6 / calls);
    began := clock_timestamp();
    FOR i IN 1..calls LOOP
        SELECT t.n INTO STRICT n FROM epro_etl.with_timeout('1 s', 'SELECT 1') AS t (n integer);
    END LOOP;
    INSERT INTO pg_temp.round VALUES ('with_timeout', extract(epoch FROM clock_timestamp() - began) * 1e6 / calls);
END $$;

CALL pg_temp.end_by_deadline(:tries);
\echo 'with_timeout(''50 ms'', ''SELECT pg_sleep(10)''): ms until the error is caught'
SELECT count(*) AS tries,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 2) AS median,
       round(min(ms)::numeric, 2) AS min, round(max(ms)::numeric, 2) AS max
FROM ended;

CALL pg_temp.call(:calls);
CALL pg_temp.call(:calls);
CALL pg_temp.call(:calls);
CALL pg_temp.call(:calls);
CALL pg_temp.call(:calls);
\echo 'EXECUTE ''SELECT 1'': microseconds a call, the median of 5 rounds of' :calls 'calls'
WITH m AS (SELECT what, percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us FROM round GROUP BY what)
SELECT what, round(us::numeric, 2) AS us, round((us - (SELECT us FROM m WHERE what = 'bare'))::numeric, 2) AS more_than_bare
FROM m ORDER BY us;
SQL
}

main
