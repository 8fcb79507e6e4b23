#!/usr/bin/env bash
#
# Lets clang-tidy and cppcheck read src/. A file that one of them has nothing to
# say about has passed with it.
#
#   bash test/lint/run.sh [FILE...]     without a file: all of src/
#
# Which checks, and why not the others: .clang-tidy, and `suppressed` here.
# PG_CONFIG names the server whose headers are read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

headers=$("${PG_CONFIG:-pg_config}" --includedir-server)

# What cppcheck is not to say, and why.
suppressed=(
	--suppress=missingInclude        # PostgreSQL's headers are not there
	--suppress=missingIncludeSystem
	--suppress=ctunullpointer:src/effects/latest.c   # with `latest` there is always somebody to be told
	--suppress=nullPointer:src/stages/schema_rules.c # no place to lay over: it decides another
)

main()
{
	local files=("$@") good=0 bad=0 file found

	[ ${#files[@]} -gt 0 ] || files=(src/*/*.c)
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/epro_lint.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT

	export headers tmp
	export -f tidy
	# shellcheck disable=SC2016 # for the inner shell
	printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'tidy "$1"' tidy
	cppcheck --quiet --enable=warning,performance,portability --inline-suppr --std=c99 --max-configs=1 \
		-D__GNUC__=12 -DPG_VERSION_NUM=150000 --include=test/lint/cppcheck.h -Isrc "${suppressed[@]}" \
		--template='{file}:{line}: {id}: {message}' "${files[@]}" >"$tmp/cppcheck" 2>&1 || cat "$tmp/cppcheck"

	for file in "${files[@]}"; do
		for found in "$tmp/tidy.${file//\//_}" "$tmp/cppcheck"; do
			if grep -q "$file:" "$found" || [ -s "$found.failed" ]; then
				bad=$((bad + 1))
				grep "$file:" "$found" || cat "$found.failed"
			else
				good=$((good + 1))
			fi
		done
	done
	echo "lint: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# tidy FILE: what it says goes to a file of its own.
tidy()
{
	local said=$tmp/tidy.${1//\//_} status=0

	clang-tidy --quiet "$1" -- -std=gnu99 -D_GNU_SOURCE -Isrc -isystem "$headers" -isystem /usr/include/libxml2 \
		>"$said" 2>"$said.err" || status=$?
	# a complaint that names no file of ours, such as a header that is not there
	if [ "$status" -ne 0 ] && ! grep -q "$1:" "$said"; then
		{
			echo "$1: clang-tidy ended with exit code $status"
			tail -n 5 "$said.err" "$said"
		} >"$said.failed"
	fi
}

main "$@"
