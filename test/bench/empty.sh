#!/usr/bin/env bash
#
# What a run costs before its first row: run() on an empty source, inline and
# with workers, in milliseconds as its client sees them; and, for comparison, what
# one commit of one row takes on this disk.
#
#   empty.sh [CALLS]    50 by default
set -euo pipefail
calls=${1:-${CALLS:-50}}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

main()
{
	bench_open
	turns_load 0 "$here/diary.sql"
	bench_psql <<'SQL'
CREATE TABLE bench.row (i integer);
INSERT INTO bench.entrant (position, name, plain, statement) VALUES (1, 'one commit', 'one commit', 'INSERT INTO bench.row VALUES (1)');
SQL
	echo "run() on an empty source, and one commit of one row, $calls calls each"
	calls >"$WORK/calls.sql"
	bench_file "$WORK/calls.sql"
	bench_psql <<'SQL'
SELECT e.name AS entrant, round(ms[1]::numeric, 1) AS "median ms", round(ms[2]::numeric, 1) AS "95 % ms", round(ms[3]::numeric, 1) AS "most ms"
FROM (SELECT name, percentile_cont('{0.5,0.95,1}'::float8[]) WITHIN GROUP (ORDER BY seconds * 1000) AS ms FROM bench.turn GROUP BY name) t
     JOIN bench.entrant e USING (name) ORDER BY e.position;
SELECT bench.account('bench.sink_daily', 0) \g /dev/null
SQL
	bench_close
}

# In turn, after a call each that is not counted: that one loads the library.
calls()
{
	local call name

	for ((call = 0; call <= calls; call++)); do
		for name in 'one commit' inline '1 worker' '2 workers'; do
			cat <<SQL
SELECT statement, clock_timestamp() AS began FROM bench.entrant WHERE name = '$name' \gset
:statement \g /dev/null
INSERT INTO bench.turn (round, name, seconds) SELECT $call, '$name', extract(epoch FROM clock_timestamp() - :'began') WHERE $call > 0;
SQL
		done
	done
}

main
