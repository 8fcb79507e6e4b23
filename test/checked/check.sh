#!/usr/bin/env bash
#
# The suites that need a server, on one that looks at what it does: PostgreSQL of
# the release's own source package, built in one of these ways, and the extension
# built against it.
#
#   bash test/checked/check.sh cassert     with assertions: locks, contexts, snapshots, lists
#   bash test/checked/check.sh sanitize    and with AddressSanitizer and UndefinedBehaviorSanitizer,
#                                          the server and the extension: a bad access, an overflow,
#                                          or a bad shift ends the process
#   bash test/checked/check.sh valgrind    and under valgrind's memcheck, to which the server explains
#                                          its memory contexts: a read or write beyond a palloc()ed
#                                          chunk, of a freed one or of one that was never set is told;
#                                          20 to 50 times as slow, so what it tells counts, and not
#                                          whether tests of short deadlines pass
#   PG_SOURCE=FOLDER ...          an unpacked source of the same version instead
#   SUITES='pg_regress tap' ...   other suites than the way's own
#   DISCARD=1 ...                 with cassert: pg_regress once more with debug_discard_caches = 1, where
#                                 each catalogue entry that is held over an invalidation
#                                 has gone; a test can take minutes, all of them an hour
#   EPRO_MIRROR=URL ...           another mirror
#
# The server is built in about five minutes. The system's PostgreSQL is only read:
# pgTAP and pg_cron come from it. The last line counts the runs.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=test/checked/source.sh
. "$TOP/test/checked/source.sh"

way=${1:-}
contrib=(amcheck auto_explain dblink pg_stat_statements postgres_fdw)
good=0
bad=0

main()
{
	case $way in
		cassert | sanitize | valgrind) ;;
		*)
			echo "which way: cassert, sanitize or valgrind?" >&2
			exit 2
			;;
	esac
	bash "$TOP/test/setup.sh" all
	lib_open
	theirs=$PG_CONFIG
	prefix=$WORK/checked
	"set_$way"
	# what works is slower here; what waits for it is patient
	export PG_TEST_TIMEOUT_DEFAULT=300
	get_source
	build_server >"$WORK/server.build.log" 2>&1 || {
		tail -n 40 "$WORK/server.build.log"
		exit 1
	}
	borrow_extensions
	[ "$way" != valgrind ] || wrap_server
	tree_copy

	# shellcheck disable=SC2086 # a list of words
	run "$way" ${SUITES:-$suites}
	if [ -n "${DISCARD:-}" ]; then
		echo 'debug_discard_caches = 1' >"$WORK/discard.conf"
		TEMP_CONFIG=$WORK/discard.conf run "$way, caches discarded" pg_regress
	fi
	echo
	echo "$way: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# set_WAY: sets flags, preprocessor and suites. COPT is for the extension alone.

# -Og lets gcc doubt the variables of PG_TRY() itself
set_cassert()
{
	flags='-Og -g'
	preprocessor=
	suites='pg_regress isolation pgtap tap'
	export COPT='-Wno-clobbered'
}

# What a server leaves at its end is no leak, and its depth of stack is measured by addresses.
set_sanitize()
{
	flags='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'
	preprocessor=
	suites='pg_regress isolation pgtap tap'
	export COPT='-Wno-clobbered -Wno-maybe-uninitialized'
	export EPRO_STACK_DEPTH=1200kB # as much larger as the frames are
	export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:disable_coredump=0:allocator_may_return_null=1
	export UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1:disable_coredump=0
}

set_valgrind()
{
	flags='-Og -g'
	preprocessor=-DUSE_VALGRIND
	suites='pg_regress'
	export COPT='-Wno-clobbered'
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

	server_build "$source" "$prefix" --enable-cassert --enable-debug --enable-tap-tests \
		CFLAGS="$flags" CPPFLAGS="$preprocessor" || return 1
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

# From here on, each server runs under valgrind, with its children, and what is
# found in one process goes into a file of its own.
wrap_server()
{
	local server=$prefix/bin/postgres

	mkdir "$WORK/memcheck"
	chmod 1777 "$WORK/memcheck"
	mv "$server" "$server.real"
	cat >"$server" <<SH
#!/bin/sh
exec valgrind --quiet --leak-check=no --gen-suppressions=all --num-callers=25 --time-stamp=yes \\
	--suppressions="$source/src/tools/valgrind.supp" --log-file="$WORK/memcheck/%p" "$server.real" "\$@"
SH
	chmod 755 "$server"
	chmod -R go+rX "$source/src/tools"
}

# run TEXT SUITE...: of the copy, whose objects are of this server.
run()
{
	local text=$1 status=0
	shift
	echo
	echo "==== $text ===="
	PG_CONFIG=$PG_CONFIG supervise bash "$TREE/test/check-all.sh" "$@" || status=$?
	if [ "$way" = valgrind ]; then
		# deadlines of milliseconds are over before anything begins there: what memcheck tells counts
		status=0
		memcheck || status=1
	fi
	if [ "$status" -eq 0 ]; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
	fi
}

# What memcheck has told: nothing, in each of the processes.
memcheck()
{
	local told

	echo "processes under memcheck: $(find "$WORK/memcheck" -type f | wc -l)"
	told=$(find "$WORK/memcheck" -type f -size +0)
	[ -n "$told" ] || return 0
	echo "of which told something: $(wc -w <<<"$told")"
	# shellcheck disable=SC2086 # a list of words
	head -n 60 -q $told | head -n 400
	return 1
}

main "$@"
