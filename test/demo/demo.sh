#!/usr/bin/env bash
#
# The demo: builds and installs the extension, runs demo.sql on a throwaway
# server that writes as durably as a real one, and stops it. Needs nothing
# prepared; as root on Debian it installs what is missing.
#
#   make demo                    or: bash test/demo/demo.sh
#   EPRO_KEEP=1 make demo        leaves the server's folder and log for a look
#
# demo.sql is given the psql variables `workers` (EPRO_DEMO_WORKERS, by default
# 2) and `server_log`, which it searches for what must not be in there.
# Whatever fails in it ends the demo with exit code 3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/lib.sh
. "$here/../lib.sh"

main()
{
	SECONDS=0
	bash "$TOP/test/setup.sh" demo
	lib_open

	echo "building and installing into $("$PG_CONFIG" --pkglibdir)"
	supervise build_quietly || {
		cat "$WORK/build.log"
		echo "demo: the extension could not be built and installed" >&2
		exit 1
	}

	# The demo's SQL is copied to where the server's user can read it.
	as_server_user mkdir "$WORK/demo"
	cp "$here"/*.sql "$WORK/demo/"
	chmod a+r "$WORK/demo"/*.sql

	cluster_start server || exit 1
	echo "a throwaway server, $("$PG_CONFIG" --version), after $SECONDS s"
	echo
	supervise as_server_user psql -X -q -v ON_ERROR_STOP=1 -v workers="${EPRO_DEMO_WORKERS:-2}" \
		-v server_log="$WORK/server/server.log" -P pager=off -f "$WORK/demo/demo.sql" || {
		status=$?
		cluster_log_tail server
		echo "demo: demo.sql failed" >&2
		exit "$status"
	}
	cluster_stop server || exit 1
	echo
	echo "demo: done in $SECONDS s; the server is stopped"
}

build_quietly()
{
	build_and_install >"$WORK/build.log" 2>&1
}

main
