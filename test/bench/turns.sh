# shellcheck shell=bash
#
# Forms against each other over the same rows. To be sourced, with lib.sh and
# facts.sh; forms.sql brings the rows, the forms, and the table of entrants.
#
#   turns ROWS ROUNDS [FILE...]   a server of its own with forms.sql and these
#                                 files, then every entrant in turn
#
# Printed are the median of an entrant's times, as its client sees them, of its
# ratios to the first entrant and to the one that it names as plain, and of the
# bytes of WAL a response. All responses must be loaded or rejected, by every
# entrant the same way, or the exit code is not 0.

turns()
{
	local rows=$1 rounds=$2 here round file
	shift 2

	here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
	bash "$TOP/test/setup.sh" demo >&2
	lib_open
	supervise build_and_install >"$WORK/build.log" 2>&1 || {
		cat "$WORK/build.log" >&2
		exit 1
	}
	cluster_start bench 'autovacuum = off' 'shared_buffers = 512MB' 'max_wal_size = 4GB' || exit 1
	for file in "$here/forms.sql" "$@"; do
		as_server_user psql -Xq -v ON_ERROR_STOP=1 -v rows="$rows" <"$file"
	done
	bench_facts
	echo "$rows responses of 50 items, $rounds rounds"
	mapfile -t entrants < <(as_server_user psql -XqAtc 'SELECT name FROM bench_forms.entrant ORDER BY position')
	for ((round = 1; round <= rounds; round++)); do
		one_round "$round"
	done >"$WORK/rounds.sql"
	chmod 644 "$WORK/rounds.sql"
	supervise as_server_user psql -Xq -v ON_ERROR_STOP=1 -f "$WORK/rounds.sql"
	report
	cluster_stop bench || exit 1
}

# Every entrant once, in another order each time, so that none is always behind
# the same one.
one_round()
{
	local n=${#entrants[@]} turn name

	for ((turn = 0; turn < n; turn++)); do
		name=${entrants[($1 + turn) % n]}
		cat <<SQL
SELECT pipeline, before, statement FROM bench_forms.entrant WHERE name = '$name' \gset
TRUNCATE bench_forms.staging, bench_forms.sink_:pipeline, bench_forms.rejected, epro_etl.quarantine, epro_etl.finding;
:before \g /dev/null
INSERT INTO bench_forms.staging SELECT * FROM bench_forms.pool;
CHECKPOINT;
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS lsn \gset
:statement \g /dev/null
INSERT INTO bench_forms.turn SELECT $1, '$name', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'lsn',
    (SELECT count(*) FROM bench_forms.staging), (SELECT count(*) FROM bench_forms.sink_:pipeline),
    (SELECT count(*) FROM epro_etl.quarantine) + (SELECT count(*) FROM bench_forms.rejected);
SQL
	done
}

report()
{
	as_server_user psql -Xq -v ON_ERROR_STOP=1 <<'SQL'
SELECT e.name AS entrant, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds)::numeric, 3) AS seconds,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds / first.seconds)::numeric, 2) AS to_first,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds / plain.seconds)::numeric, 2) AS to_plain,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.wal / (SELECT count(*) FROM bench_forms.pool))::numeric) AS wal
FROM bench_forms.entrant e JOIN bench_forms.turn t USING (name)
     JOIN bench_forms.turn first ON first.round = t.round
         AND first.name = (SELECT name FROM bench_forms.entrant ORDER BY position LIMIT 1)
     JOIN bench_forms.turn plain ON plain.round = t.round AND plain.name = e.plain
GROUP BY e.name, e.position ORDER BY e.position;
DO $$
BEGIN
    IF EXISTS (SELECT FROM bench_forms.turn WHERE staged > 0) OR
       (SELECT count(DISTINCT loaded) FROM bench_forms.turn JOIN bench_forms.entrant USING (name) WHERE alike) <> 1 OR
       EXISTS (SELECT FROM bench_forms.turn JOIN bench_forms.entrant USING (name) WHERE judges AND loaded + rejected <> held + (SELECT count(*) FROM bench_forms.pool)) THEN
        RAISE 'the entrants did not all load and reject the same';
    END IF;
END $$;
SQL
}
