#!/usr/bin/env bash
# The race: race.sh [-r ROWS] [-n ROUNDS], against the database that the libpq
# variables name. It needs ../shared/bench, which brings the workload, the peers
# and the limit; setup.sql declares the forms once the workload is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bench=$here/../../../shared/bench
rows=200000
rounds=5
while getopts r:n: option; do
	case $option in
		r) rows=$OPTARG ;;
		n) rounds=$OPTARG ;;
		*) exit 2 ;;
	esac
done
if [ ! -x "$bench/run" ]; then
	echo "there is no ../shared/bench beside the checkout" >&2
	exit 1
fi
run() { echo "psql -Xqc \"SELECT * FROM epro_etl.run('daily', workers => $1)\""; }
psql -Xq -v rows="$rows" -f "$bench/workload.sql" >/dev/null
psql -Xq -v ON_ERROR_STOP=1 -f "$here/setup.sql"
"$bench/run" -r "$rows" -n "$rounds" "limit_2=bash '$here/limit_2.sh'" \
	"epro_0=$(run 0)" "epro_1=$(run 1)" "epro_2=$(run 2)" "stream=bash '$here/stream.sh'" \
	"stream_cut=bash '$here/stream.sh' '{\"deidentify\": 1, \"validate\": 1, \"store\": 2}'"
