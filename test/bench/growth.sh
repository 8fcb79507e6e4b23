#!/usr/bin/env bash
#
# Ten times the rows: how many times the time, with one worker and with two; and
# a worker's own memory at both.
#
#   SMALL=200000 LARGE=2000000 ROUNDS=3 growth.sh
set -euo pipefail
small=${SMALL:-200000}
large=${LARGE:-2000000}
rounds=${ROUNDS:-3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"
# shellcheck source=test/bench/peak.sh
. "$here/peak.sh"

main()
{
	bench_open
	turns_load "$large" "$here/diary.sql"
	echo "responses of 30 items, $rounds rounds"
	turns_rounds "$rounds" "$small $large" '1 worker' '2 workers'
	bench_psql -v small="$small" -v large="$large" <<'SQL'
SELECT name AS entrant, s.rows AS small, round(s.seconds::numeric, 3) AS "small s", l.rows AS large, round(l.seconds::numeric, 3) AS "large s",
       round((SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lt.seconds / st.seconds)::numeric FROM bench.turn lt JOIN bench.turn st USING (name, round)
              WHERE name = s.name AND lt.rows = :large AND st.rows = :small), 2) AS "times the time"
FROM bench.figure s JOIN bench.figure l USING (name, position) WHERE s.rows = :small AND l.rows = :large ORDER BY position;
SELECT bench.judge() \g /dev/null
SQL
	memory "$small"
	memory "$large"
	bench_close
}

# In a run of its own, since the reading takes time from it.
memory()
{
	bench_psql -v rows="$1" <<'SQL'
TRUNCATE bench.staging, bench.sink_daily, epro_etl.quarantine, epro_etl.finding;
INSERT INTO bench.staging SELECT * FROM bench.pool WHERE id <= :rows;
SQL
	peak_memory bench_psql -c "SELECT FROM epro_etl.run('daily', workers => 1)"
	bench_psql -o /dev/null -c "SELECT bench.account('bench.sink_daily', $1)"
	echo "highest RssAnon of a worker over $1 rows: $peak kB"
}

main
