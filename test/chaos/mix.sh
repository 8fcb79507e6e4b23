#!/bin/sh
# The long form of test/t/12_stream_mix.pl: more responses, more time, more that
# happens. Takes EPRO_MIX_ROWS, EPRO_MIX_MINUTES, EPRO_MIX_SEED and
# EPRO_MIX_REQUIRED (0: the other server's sink is not required) from the
# environment; a seed that a failed run has printed does the same again.
#
# Run it as a user that may start servers, with the extension installed in the
# PostgreSQL that pg_config on the path, or PG_CONFIG, is of.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
pg_config=${PG_CONFIG:-pg_config}
source=$(cd "$(dirname "$("$pg_config" --pgxs)")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/epro_mix.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tap/tmp_check"

status=0
cd "$here"
env PATH="$("$pg_config" --bindir):$PATH" LC_ALL=C.UTF-8 TMPDIR="$work" \
	TESTDIR="$work/tap" TESTDATADIR="$work/tap/tmp_check" TESTLOGDIR="$work/tap/tmp_check/log" \
	PG_TEST_PORT_DIR="$work/tap/portlock" PGPORT=65432 PG_REGRESS="$source/test/regress/pg_regress" \
	EPRO_MIX_ROWS="${EPRO_MIX_ROWS:-200000}" EPRO_MIX_MINUTES="${EPRO_MIX_MINUTES:-10}" \
	prove -v -I "$source/test/perl" -I "$here" -I "$here/t" t/12_stream_mix.pl || status=$?
if [ "$status" -ne 0 ]; then
	kept="${TMPDIR:-/tmp}/epro_mix.failed.$$"
	cp -R "$work/tap/tmp_check" "$kept"
	echo "what it left is in $kept" >&2
fi
exit "$status"
