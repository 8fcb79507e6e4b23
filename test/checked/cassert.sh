#!/usr/bin/env bash
#
# The suites that need a server, on one with assertions: PostgreSQL of the
# release's own source package, with --enable-cassert, and the extension built
# against it.
#
#   bash test/checked/cassert.sh
#   PG_SOURCE=FOLDER ...          an unpacked source of the same version instead
#   SUITES='pg_regress tap' ...   some of the suites
#   DISCARD=1 ...                 pg_regress once more with debug_discard_caches = 1, where
#                                 each catalogue entry that is held over an invalidation
#                                 has gone; a test can take minutes, all of them an hour
#   EPRO_MIRROR=URL ...           another mirror
#
# Takes about ten minutes more than the suites. The system's PostgreSQL is only
# read: pgTAP and pg_cron come from it. The last line counts the runs.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=test/checked/source.sh
. "$TOP/test/checked/source.sh"

contrib=(postgres_fdw dblink pg_stat_statements auto_explain)
good=0
bad=0

main()
{
	bash "$TOP/test/setup.sh" all
	lib_open
	theirs=$PG_CONFIG
	prefix=$WORK/checked
	get_source
	build_server >"$WORK/server.build.log" 2>&1 || {
		tail -n 40 "$WORK/server.build.log"
		exit 1
	}
	borrow_extensions
	tree_copy

	# shellcheck disable=SC2086 # a list of words
	run 'assertions' ${SUITES:-pg_regress isolation pgtap tap}
	if [ -n "${DISCARD:-}" ]; then
		echo 'debug_discard_caches = 1' >"$WORK/discard.conf"
		TEMP_CONFIG=$WORK/discard.conf run 'assertions, caches discarded' pg_regress
	fi
	echo
	echo "cassert: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# Sets source.
get_source()
{
	local major

	major=$("$PG_CONFIG" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
	source=$WORK/source
	if [ -n "${PG_SOURCE:-}" ]; then
		cp -R "$PG_SOURCE" "$source"
		return
	fi
	# shellcheck source=/dev/null
	server_source "$major" "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$source"
}

# Sets PG_CONFIG to the one of this server.
build_server()
{
	local module

	server_build "$source" "$prefix" --enable-cassert --enable-debug --enable-tap-tests CFLAGS='-Og -g' || return 1
	for module in "${contrib[@]}"; do
		supervise make -s -C "$source/contrib/$module" install || return 1
	done
	cd "$WORK" || return 1
	PG_CONFIG=$prefix/bin/pg_config
}

# pgTAP is SQL; pg_cron calls what is the same with assertions and without.
borrow_extensions()
{
	local from to

	from=$("$theirs" --sharedir)/extension
	to=$("$PG_CONFIG" --sharedir)/extension
	cp "$from"/pgtap* "$from"/pg_cron* "$to"
	cp "$("$theirs" --pkglibdir)/pg_cron.so" "$("$PG_CONFIG" --pkglibdir)"
}

# run TEXT SUITE...: of the copy, whose objects are of this server.
run()
{
	local text=$1
	shift
	echo
	echo "==== $text ===="
	# -Og lets gcc doubt the variables of PG_TRY() itself
	if PG_CONFIG=$PG_CONFIG COPT=-Wno-clobbered supervise bash "$TREE/test/check-all.sh" "$@"; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
	fi
}

main "$@"
