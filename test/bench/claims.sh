#!/usr/bin/env bash
#
# What a claimed row costs where claiming is hard: the time of one worker for each
# row that it takes out of its source, against a clean one of the same round.
#
#   ROWS=200000 DEAD=5000000 RUNS=5 ROUNDS=3 claims.sh
#
#   clean      ROWS responses that were just staged
#   dead       as many, behind DEAD dead ones, which are narrow (their payload is empty)
#   locked     every second one locked by another session
#   held       RUNS runs in succession, ROWS each, while another session is idle in a
#              transaction that has had its snapshot since before the first was staged:
#              what the runs before have taken is dead, and no vacuum could remove it
set -euo pipefail
rows=${ROWS:-200000}
dead=${DEAD:-5000000}
runs=${RUNS:-5}
rounds=${ROUNDS:-3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

main()
{
	local round

	bench_open
	turns_load "$rows" "$here/diary.sql"
	echo "$rows responses of 30 items, 1 worker, $rounds rounds; $dead narrow dead rows; no vacuum in between"
	for ((round = 1; round <= rounds; round++)); do
		one_round
	done
	bench_psql <<'SQL'
SELECT t.name AS source, max(t.rows) AS claimed, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds)::numeric, 3) AS "median s",
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.rows / t.seconds)::numeric) AS "rows/s",
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY (t.seconds / t.rows) / (c.seconds / c.rows))::numeric, 2) AS "a row, to clean"
FROM bench.turn t JOIN bench.turn c ON c.round = t.round AND c.name = 'clean' GROUP BY t.name ORDER BY min(t.wal);
SQL
	bench_close
}

one_round()
{
	local run

	clear_all
	stage 0
	claim 1 clean "$rows"

	clear_all
	bench_psql -v dead="$dead" <<'SQL'
INSERT INTO bench.staging SELECT -r, 'ST01', 'DAILY', 'S', 'D', '2026-01-01', '{}' FROM generate_series(1, :dead) r;
DELETE FROM bench.staging;
SQL
	stage 0
	claim 2 "behind $dead dead" "$rows"

	clear_all
	stage 0
	hold 'READ COMMITTED' 'SELECT count(*) FROM (SELECT FROM bench.staging WHERE id % 2 = 0 FOR UPDATE) locked'
	claim 3 'every second one locked' "$rows"
	release

	clear_all
	hold 'REPEATABLE READ' 'SELECT pg_current_snapshot()'
	for ((run = 1; run <= runs; run++)); do
		stage $(((run - 1) * rows))
		claim $((3 + run)) "snapshot held, run $run" $((run * rows))
	done
	release
}

clear_all()
{
	bench_psql -c 'TRUNCATE bench.staging, bench.sink_daily, epro_etl.quarantine, epro_etl.finding'
}

# The pool's responses, under ids that begin after the given one.
stage()
{
	bench_psql -v after="$1" <<'SQL'
INSERT INTO bench.staging SELECT id + :after, study, form, subject, visit, authored, payload FROM bench.pool ORDER BY id;
CHECKPOINT;
SQL
}

# claim LINE NAME STAGED: one run, the first to read the source, for that line of the report; STAGED: how many
# there have been in all.  Every one must be in one place still.
claim()
{
	bench_psql -v round="$round" -v line="$1" -v name="$2" -v staged="$3" <<'SQL'
SELECT clock_timestamp() AS began \gset
SELECT claimed FROM epro_etl.run('daily', workers => 1) \gset
SELECT extract(epoch FROM clock_timestamp() - :'began') AS seconds \gset
SELECT bench.account('bench.sink_daily', :staged) \g /dev/null
INSERT INTO bench.turn (round, rows, name, seconds, wal) VALUES (:round, :claimed, :'name', :seconds, :line);
SQL
}

# hold LEVEL STATEMENT: another session, that has begun a transaction, has had an
# answer to this statement, and is idle until release.
hold()
{
	local answer

	coproc HOLDER { bench_psql -At; }
	holder=$HOLDER_PID
	printf 'BEGIN ISOLATION LEVEL %s;\n%s;\n' "$1" "$2" >&"${HOLDER[1]}"
	read -r -t 600 answer <&"${HOLDER[0]}" && [ -n "$answer" ]
}

release()
{
	echo '\q' >&"${HOLDER[1]}"
	wait "$holder"
}

main
