#!/usr/bin/env bash
#
# What the way a form is declared costs: the same responses through JSON Schema,
# FHIR and ODM, and what forty conditional checks a response add to each.
#
#   front_ends.sh [-r ROWS] [-n ROUNDS]    100000 and 7 by default
#
# In each round every entrant has its turn, with one worker. Printed are the
# median of its times, and of its ratios to the first entrant and to the plain
# form of its own kind. Every run must load and reject the same, or the exit code is not 0.
#
# It builds and installs the extension, and starts a throwaway server of its own.
set -euo pipefail
rows=100000
rounds=7
while getopts r:n: option; do
	case $option in
		r) rows=$OPTARG ;;
		n) rounds=$OPTARG ;;
		*) exit 2 ;;
	esac
done
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
	cluster_start bench 'autovacuum = off' 'shared_buffers = 512MB' 'max_wal_size = 4GB' || exit 1
	as_server_user psql -Xq -v rows="$rows" <"$here/forms.sql"
	bench_facts
	echo "$rows responses of 50 items, one worker, $rounds rounds"
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
	local entrants=(json fhir odm json_checks json_if fhir_when odm_cond) n turn name

	n=${#entrants[@]}
	for ((turn = 0; turn < n; turn++)); do
		name=${entrants[($1 + turn) % n]}
		cat <<SQL
TRUNCATE bench_forms.staging, bench_forms.sink_$name, epro_etl.quarantine, epro_etl.finding;
INSERT INTO bench_forms.staging SELECT * FROM bench_forms.pool;
CHECKPOINT;
SELECT loaded, rejected, extract(epoch FROM elapsed) AS seconds FROM epro_etl.run('$name', workers => 1) \gset
INSERT INTO bench_forms.turn VALUES ($1, '$name', :seconds, :loaded, :rejected);
SQL
	done
}

report()
{
	as_server_user psql -Xq -v ON_ERROR_STOP=1 <<'SQL'
SELECT e.name AS entrant, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds)::numeric, 3) AS seconds,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds / json.seconds)::numeric, 2) AS to_json,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds / plain.seconds)::numeric, 2) AS to_plain
FROM bench_forms.entrant e JOIN bench_forms.turn t USING (name)
     JOIN bench_forms.turn json ON json.round = t.round AND json.name = 'json'
     JOIN bench_forms.turn plain ON plain.round = t.round AND plain.name = e.plain
GROUP BY e.name, e.position ORDER BY e.position;
DO $$
BEGIN
    IF (SELECT count(DISTINCT (loaded, rejected)) FROM bench_forms.turn) <> 1 OR
       (SELECT loaded + rejected FROM bench_forms.turn LIMIT 1) <> (SELECT count(*) FROM bench_forms.pool) THEN
        RAISE 'the entrants did not all load and reject the same';
    END IF;
END $$;
SQL
}

main
