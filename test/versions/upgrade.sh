#!/usr/bin/env bash
#
# pg_upgrade of a server with data, by the part "pg_upgraded" of
# test/t/25_life_cycle.pl: from PostgreSQL 15, built from Debian's source package,
# to that of a later release, in a root of its own, with the extension built for both.
#
#   bash test/versions/upgrade.sh             to trixie's (17)
#   bash test/versions/upgrade.sh RELEASE     to another release's
#   OLD_SOURCE=FOLDER ...                     an unpacked source of the old version instead
#   EPRO_MIRROR=URL ...                       another mirror
#   EPRO_KEEP=1 ...                           leaves the root
#
# Takes root, about 2 GB and ten minutes. The system's own PostgreSQL is not touched.
# The last line counts the assertions; a part that was skipped has failed.
#
# The old version is not Debian's binary: that belongs to an older release's
# libraries. To the root this script goes along, to be called as "upgrade.sh inside".
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=test/checked/source.sh
. "$TOP/test/checked/source.sh"
# shellcheck source=test/versions/root.sh
. "$TOP/test/versions/root.sh"

old_major=15
old_release=bookworm

main()
{
	if [ "${1:-}" = inside ]; then
		inside
	else
		outside "${1:-trixie}"
	fi
}

# ---- on the system that was asked -------------------------------------------

outside()
{
	local release=$1 status=0

	roots_open upgrade
	root=$WORK/$release
	log=$WORK/$release.log
	make_root "$release" "$root" >"$log" 2>&1 || {
		tail -n 20 "$log"
		not_run "no root could be made from $mirror"
	}
	copy_tree "$root"
	old_source=
	if [ -n "${OLD_SOURCE:-}" ]; then
		old_source=$sources/postgresql
		cp -R "$OLD_SOURCE" "$root$old_source"
	fi

	supervise with_log "$log" in_root "$root" env EPRO_MIRROR="$mirror" OLD_SOURCE="$old_source" \
		bash "$sources/epro_etl/test/versions/upgrade.sh" inside || status=$?
	grep -qE '^upgrade: [0-9]+ passed, [0-9]+ failed$' "$log" || not_run "it did not come to its end (exit code $status)"
	exit "$status"
}

# not_run REASON: the last line, where there is nothing to count.
not_run()
{
	echo "upgrade: $1"
	echo "upgrade: 0 passed, 1 failed"
	exit 1
}

# ---- in the root -------------------------------------------------------------

inside()
{
	bash "$TOP/test/setup.sh" demo
	apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends libipc-run-perl libxml2-dev >/dev/null
	lib_open
	tree_copy
	old_bin=$WORK/old/bin
	old_server >"$WORK/old.log" 2>&1 || build_failed
	extension_for "$old_bin/pg_config" >"$WORK/old.log" 2>&1 || build_failed
	extension_for "$PG_CONFIG" >"$WORK/old.log" 2>&1 || build_failed
	echo "from $("$old_bin/postgres" --version) to $("$PGBIN/postgres" --version)"
	upgrade
}

build_failed()
{
	tail -n 40 "$WORK/old.log"
	not_run "there are not both servers with the extension"
}

# The test tools are those of the new version: they know the old one, too.
old_server()
{
	local source=${OLD_SOURCE:-}

	if [ -z "$source" ]; then
		source=$WORK/source
		server_source "$old_major" "$old_release" "$source" || return 1
	fi
	server_build "$source" "$WORK/old" CFLAGS=-O1 &&
		supervise make -s -C "$source/contrib/amcheck" install
}

# extension_for PG_CONFIG: from clean, as the objects of the other version are no good.
extension_for()
{
	supervise make -C "$TREE" -s --no-print-directory PG_CONFIG="$1" clean &&
		supervise make -C "$TREE" -s -j"$(nproc)" --no-print-directory PG_CONFIG="$1" all &&
		supervise make -C "$TREE" -s --no-print-directory PG_CONFIG="$1" install
}

# The environment is that of suite tap in test/check-all.sh.
upgrade()
{
	local status=0 log=$WORK/upgrade.log good bad skipped

	as_server_user mkdir "$WORK/tap" "$WORK/tap/tmp_check"
	supervise with_log "$log" as_server_user \
		env -C "$TREE/test" EPRO_OLD_BIN="$old_bin" EPRO_NEW_BIN="$PGBIN" \
		TMPDIR="$WORK" TESTDIR="$WORK/tap" TESTDATADIR="$WORK/tap/tmp_check" TESTLOGDIR="$WORK/tap/tmp_check/log" \
		PG_TEST_PORT_DIR="$WORK/tap/portlock" PGPORT=65432 PG_REGRESS="$PGXS_SRC/test/regress/pg_regress" \
		prove -v -I "$PGXS_SRC/test/perl" -I "$TREE/test" -I "$TREE/test/t" "$TREE/test/t/25_life_cycle.pl" :: pg_upgraded || status=$?
	[ "$status" -eq 0 ] || show_logs

	good=$(count '^ok [0-9]+' "$log")
	bad=$(count '^not ok [0-9]+' "$log")
	skipped=$(count '^ok [0-9]+ # skip' "$log")
	good=$((good - skipped))
	bad=$((bad + skipped))
	if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$good" -eq 0 ]; }; then
		echo "exit code $status, though no assertion failed"
		bad=1
	fi
	echo "upgrade: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# What the test and pg_upgrade wrote.
show_logs()
{
	local log

	find "$WORK/tap" -path '*/pg_upgrade_output.d/*' -type f -size +0 \( -name '*.log' -o -name '*.txt' \) |
		while IFS= read -r log; do
			echo "--- the end of $(basename "$log"):"
			tail -n 20 "$log"
		done
	echo "--- the end of the test's own log:"
	tail -n 60 "$WORK/tap/tmp_check/log/regress_log_25_life_cycle"
}

# count PATTERN FILE: lines, of which there may be none.
count()
{
	grep -cE "$1" "$2" || [ $? -eq 1 ]
}

main "$@"
