#!/usr/bin/env bash
#
# Runs the suites on other versions of PostgreSQL: those of Debian's later
# releases, each with its own compilers, in a root of its own.
#
#   bash test/versions/check.sh                   trixie (17) and forky (18)
#   bash test/versions/check.sh RELEASE...        these; any release of Debian's
#   SUITES='build pg_regress' ...                 some suites of check-all.sh
#   EPRO_MIRROR=URL ...                           another mirror
#   EPRO_KEEP=1 ...                               leaves the roots
#
# Takes root, about 2 GB for a root and the time of check-all.sh for each. A
# root has its own processes and mounts, which end with it, however it ends. The
# system's own PostgreSQL is not touched. The last lines have one of each root's,
# with the version; the exit code is 0 only if nothing failed in any.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=test/versions/root.sh
. "$TOP/test/versions/root.sh"

# without lint: later analysers know more checks, and this release's are the ones it is held to
suites=${SUITES:-build layers hygiene sqlcheck readme unit unit-tsan unit-helgrind spin fuzz pg_regress isolation pgtap json-schema fhir odm pilot tap points}
closings=()
good=0
bad=0

main()
{
	local releases=("$@") release

	[ ${#releases[@]} -gt 0 ] || releases=(trixie forky)
	roots_open versions
	for release in "${releases[@]}"; do
		check "$release"
	done

	echo
	printf '%s\n' "${closings[@]}"
	echo "versions: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# check RELEASE: adds its line to closings[].
check()
{
	local release=$1 root=$WORK/$1 log=$WORK/$1.log status=0 closing

	echo
	echo "==== $release ===="
	if ! make_root "$release" "$root" >"$log" 2>&1; then
		tail -n 20 "$log"
		settle 1 "$release: no root could be made from $mirror"
		return
	fi
	copy_tree "$root"

	# shellcheck disable=SC2086 # a list of words
	supervise with_log "$log" in_root "$root" bash $sources/epro_etl/test/check-all.sh $suites || status=$?
	closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) || {
		closing="did not come to its closing line (exit code $status)"
		status=1
	}
	settle "$status" "$release ($(in_root "$root" pg_config --version || echo 'no PostgreSQL')): $closing"
	[ -n "${EPRO_KEEP:-}" ] || rm -rf --one-file-system "$root"
}

# settle STATUS LINE
settle()
{
	if [ "$1" -eq 0 ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
	closings+=("$2")
	echo "$2"
}

main "$@"
