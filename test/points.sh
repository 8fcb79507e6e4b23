#!/usr/bin/env bash
# Builds the extension with its named points (src/effects/point.h) into a copy of
# PostgreSQL, so that the one that is installed keeps a release build, and runs
# test/t/23_points.pl there.
#
# Run it as a user that may start servers. PG_CONFIG names the PostgreSQL to copy;
# EPRO_POINTS_ONLY=NAME,NAME tries these points alone, EPRO_POINTS_TURNS=N (2)
# raises each error at its first N hits. EPRO_KEEP=1 leaves servers' folders and logs.
# If it fails, it shows the end of the logs, which go with the folder.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pg_config=${PG_CONFIG:-pg_config}
pgxs_src=$(cd "$(dirname "$("$pg_config" --pgxs)")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/epro_points.XXXXXX")
trap '[ -n "${EPRO_KEEP:-}" ] && echo "kept: $work" || rm -rf "$work"' EXIT

# PostgreSQL finds its other folders by the way from the one of its programs.
mkdir -p "$work/tree" "$work/tap/tmp_check"
for folder in bindir pkglibdir sharedir includedir-server; do
	from=$("$pg_config" "--$folder")
	mkdir -p "$work$from"
	cp -R "$from/." "$work$from"
done
copy=$work$("$pg_config" --bindir)
if [ "$("$copy/pg_config" --pkglibdir)" != "$work$("$pg_config" --pkglibdir)" ]; then
	echo "the PostgreSQL of $pg_config cannot be moved" >&2
	exit 1
fi

tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' -cf - . | tar -C "$work/tree" -xf -
make -C "$work/tree" -s --no-print-directory PG_CONFIG="$copy/pg_config" POINTS=1 WERROR=1 all install

cd "$work/tree/test"
env PATH="$copy:$PATH" LC_ALL=C.UTF-8 TMPDIR="$work" EPRO_POINTS=1 \
	TESTDIR="$work/tap" TESTDATADIR="$work/tap/tmp_check" TESTLOGDIR="$work/tap/tmp_check/log" \
	PG_TEST_PORT_DIR="$work/tap/portlock" PGPORT="${PGPORT:-65432}" PG_REGRESS="$pgxs_src/test/regress/pg_regress" \
	prove -I "$pgxs_src/test/perl" -I "$PWD" -I "$PWD/t" t/23_points.pl || {
	failed=$?
	for log in "$work"/tap/tmp_check/log/*; do
		if [ -f "$log" ]; then
			echo "---- the end of ${log##*/}" >&2
			tail -n 60 "$log" >&2
		fi
	done
	exit "$failed"
}
