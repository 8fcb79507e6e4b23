#!/bin/sh
# The long forms of test/t/24_batch_mix.pl and test/t/12_stream_mix.pl, one after
# the other: more time, more responses, more that happens. Half of MINUTES (10) is
# for each; SEED says what is done in which order, and without it one is drawn and
# printed: with it, the same is done again. EPRO_MIX_ROWS (by default as many as
# fit the time) and EPRO_MIX_REQUIRED (0: the other server's sink is not required)
# are for the streams; MIXES="24_batch_mix" leaves one out. What a failure leaves is
# copied into a folder of KEPT (/tmp).
#
# make chaos builds and installs before. By itself, run it as a user that may start
# servers, with the extension installed in the
# PostgreSQL that pg_config on the path, or PG_CONFIG, is of.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
pg_config=${PG_CONFIG:-pg_config}
source=$(cd "$(dirname "$("$pg_config" --pgxs)")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/epro_mix.XXXXXX")
trap 'rm -rf "$work"' EXIT

minutes=${MINUTES:-${EPRO_MIX_MINUTES:-10}}
each=$(awk -v m="$minutes" 'BEGIN { print m / 2 }')
seed=${SEED:-${EPRO_MIX_SEED:-$(awk 'BEGIN { srand(); print int(rand() * 1000000) }')}}
rows=${EPRO_MIX_ROWS:-$(awk -v m="$each" 'BEGIN { print int(10000 * (m < 2 ? 2 : m)) }')}

echo "make chaos MINUTES=$minutes SEED=$seed"
mkdir -p "$work/tmp_check"
cd "$here"
# shellcheck disable=SC2046,SC2086 # lists of words
env PATH="$("$pg_config" --bindir):$PATH" LC_ALL=C.UTF-8 TMPDIR="$work" \
	TESTDIR="$work" TESTDATADIR="$work/tmp_check" TESTLOGDIR="$work/tmp_check/log" \
	PG_TEST_PORT_DIR="$work/portlock" PGPORT="${PGPORT:-65432}" PG_REGRESS="$source/test/regress/pg_regress" \
	EPRO_MIX_ROWS="$rows" EPRO_MIX_MINUTES="$each" EPRO_MIX_SEED="$seed" \
	prove -I "$source/test/perl" -I "$here" -I "$here/t" $(printf 't/%s.pl ' ${MIXES:-24_batch_mix 12_stream_mix}) || {
	status=$?
	kept=$(mktemp -d "${KEPT:-/tmp}/epro_mix.failed.XXXXXX")
	cp -R "$work/tmp_check" "$kept"
	echo "what it left is in $kept" >&2
	exit "$status"
}
