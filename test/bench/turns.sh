# shellcheck shell=bash
#
# Entrants against each other over the same rows. To be sourced, with server.sh;
# turns.sql keeps the entrants and their turns, and a workload brings the rows
# (bench.pool), what they are (its comment), the entrants, and bench.report.
#
#   turns ROWS ROUNDS FILE...             a server of its own with these files, every entrant in turn, the report
#   turns_load ROWS FILE...               what it is made of: turns.sql and these files, on the server that is there;
#   turns_rounds ROUNDS ROWS [NAME...]    these entrants, or all, over the pool's first ROWS rows (or, with several numbers in one word, each);
#   turns_report                          the report, then whether entrants have loaded what they should
#
# A turn's time is what its client sees, in a session of its own: a process that
# has met the buffers before has a third of the work less (see doc/performance.md).
# After each turn every response that was
# staged must be in one place, and in one only, or the exit code is not 0.

turns()
{
	local rows=$1 rounds=$2
	shift 2

	bench_open
	turns_load "$rows" "$@"
	echo "$rows $(bench_psql -Atc "SELECT obj_description('bench.pool'::regclass)"), $rounds rounds"
	turns_rounds "$rounds" "$rows"
	turns_report
	bench_close
}

turns_load()
{
	local rows=$1 file
	shift

	for file in "$TOP/test/bench/turns.sql" "$@"; do
		bench_psql -v rows="$rows" <"$file"
	done
}

turns_rounds()
{
	local rounds=$1 sizes=$2 round rows
	shift 2

	entrants=("$@")
	[ $# -gt 0 ] || mapfile -t entrants < <(bench_psql -Atc 'SELECT name FROM bench.entrant ORDER BY position')
	{
		echo '\o /dev/null'
		for ((round = 1; round <= rounds; round++)); do
			for rows in $sizes; do
				one_round "$round" "$rows"
			done
		done
	} >"$WORK/rounds.sql"
	bench_file "$WORK/rounds.sql"
}

# Every entrant once, in another order each time, so that none is always behind
# the same one.
one_round()
{
	local n=${#entrants[@]} turn name

	for ((turn = 0; turn < n; turn++)); do
		name=${entrants[($1 + turn) % n]}
		cat <<SQL
\set rows $2
SELECT before, statement, stages, 'bench.sink_' || pipeline AS sink FROM bench.entrant WHERE name = '$name' \gset
TRUNCATE bench.staging, :sink, bench.rejected, epro_etl.quarantine, epro_etl.finding;
:before \g
INSERT INTO bench.staging SELECT * FROM bench.pool WHERE id <= :rows AND :'stages';
VACUUM ANALYZE bench.staging;
CHECKPOINT;
\connect -
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS lsn \gset
:statement \g
SELECT extract(epoch FROM clock_timestamp() - :'began') AS seconds, pg_current_wal_insert_lsn() - :'lsn' AS wal \gset
SELECT bench.note($1, :rows, '$name', :seconds, :wal);
SQL
	done
}

turns_report()
{
	bench_psql -c 'TABLE bench.report'
	bench_psql -o /dev/null -c 'SELECT bench.judge()'
}
