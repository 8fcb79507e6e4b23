# shellcheck shell=bash
#
# A throwaway server to measure on. To be sourced; it brings lib.sh and facts.sh.
#
#   bench_open                builds, installs, starts the server, and tells the machine
#   bench_psql [OPTION...]    psql on it, which stops at the first error
#   bench_file FILE           the same for a long script, that an interrupt ends at once
#   bench_close               stops the server, and fails if anything in it crashed

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=test/bench/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh"

# Scans begin where a table begins, so that rows are staged in their order. No
# checkpoint comes between two that are asked for, nor does autovacuum, and the
# log's files are there.
bench_open()
{
	bash "$TOP/test/setup.sh" demo >&2
	lib_open
	supervise build_and_install >"$WORK/build.log" 2>&1 || {
		cat "$WORK/build.log" >&2
		exit 1
	}
	cluster_start bench 'autovacuum = off' 'synchronize_seqscans = off' 'shared_buffers = 512MB' 'checkpoint_timeout = 1h' \
		'max_wal_size = 12GB' 'min_wal_size = 2GB' 'max_worker_processes = 16' || exit 1
	bench_facts
}

bench_psql()
{
	as_server_user psql -Xq -v ON_ERROR_STOP=1 -P pager=off -P footer=off "$@"
}

bench_file()
{
	chmod a+r "$1"
	supervise bench_psql -f "$1"
}

bench_close()
{
	cluster_stop bench || exit 1
}
