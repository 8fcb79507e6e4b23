#!/usr/bin/env bash
#
# Runs the fuzz module in a server of one process, in a throwaway data folder.
# To be called by the Makefile here, which builds the module.
#
#   bash run.sh replay MODULE RUNTIME TARGET...    each file of the corpus once
#   bash run.sh run MODULE RUNTIME TARGET...       libFuzzer, SECONDS_EACH a target
#
# RUNTIME is the sanitizers' shared library, loaded before all others; empty: the
# module has none. Such a server has no socket and nobody else can reach it. One
# that died in the middle recovers when it is started again.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../lib.sh"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
declare -A max_len=([decode]=2048 [schema]=4096 [questionnaire]=4096)

main()
{
	local what=$1 module=$2
	runtime=$3
	# So that what hangs is a failure: seconds of one server.
	limit=$((${SECONDS_EACH:-60} + 240))
	shift 3

	module=$(cd "$(dirname "$module")" && pwd)/$(basename "$module")
	build=$(dirname "$module")
	lib_open
	FUZZ=$WORK/fuzz
	mkdir "$FUZZ"
	cp -R "$here"/forms "$here"/*.dict "$here"/../corpus "$module" "$build/preload.so" "$FUZZ"
	module=$FUZZ/$(basename "$module")
	chmod -R u+rwX,go+rX "$FUZZ"
	[ "$(id -u)" -ne 0 ] || chown -R "$SERVER_USER" "$FUZZ"
	supervise "do_$what" "$@"
}

# One server for all files of a target. One that dies takes the file at hand
# with it, and another goes on behind.
do_replay()
{
	local target file passed=0 failed=0 files through status

	server_make data
	for target in "$@"; do
		mapfile -t files < <(find "$FUZZ/corpus/$target" -type f 2>/dev/null | sort)
		while [ ${#files[@]} -gt 0 ]; do
			status=0
			single data fuzz_replay "$target" "${files[@]}" >"$WORK/$target.log" 2>&1 || status=$?
			through=$(grep -c '^passed: ' "$WORK/$target.log") || through=0
			passed=$((passed + through))
			if [ "$through" -lt ${#files[@]} ] || [ $status -ne 0 ]; then
				failed=$((failed + 1))
				what_failed "$WORK/$target.log" >&2
				file=${files[$through]:-the end}
				echo "fuzz server replay: $target: $(basename "$file") failed (exit code $status)" >&2
				through=$((through + 1))
			fi
			files=("${files[@]:$through}")
			# who waits in vain once is not to do so for each file
			[ $status -ne 124 ] || break
		done
	done
	echo "fuzz server replay: $passed passed, $failed failed"
	[ $failed -eq 0 ] && [ $passed -gt 0 ]
}

# The report in a log; where there is none, its end.
what_failed()
{
	if grep -qE 'ERROR: |runtime error: |: not so: |: error [0-9A-Z]{5}: ' "$1"; then
		sed -nE '/ERROR: |runtime error: |: not so: |: error [0-9A-Z]{5}: /,$p' "$1" | head -n 50
	else
		tail -n 50 "$1"
	fi
}

do_run()
{
	local target failed=0 running=0

	for target in "$@"; do
		server_make "data_$target"
		seeds "$target"
	done
	# A failed one does not end the others.
	for target in "$@"; do
		if [ $running -ge "${JOBS:-1}" ]; then
			wait -n || failed=1
			running=$((running - 1))
		fi
		fuzz "$target" &
		running=$((running + 1))
	done
	while [ $running -gt 0 ]; do
		wait -n || failed=1
		running=$((running - 1))
	done
	return $failed
}

# One target for its time; what is new, and what failed, goes to the build folder.
fuzz()
{
	local target=$1 log=$build/$1.log failed=0 found

	# shellcheck disable=SC2086 # a list
	single "data_$target" fuzz_run "$target" \
		"-max_total_time=${SECONDS_EACH:-60}" "-max_len=${max_len[$target]}" -timeout=0 -rss_limit_mb=4096 \
		-use_value_profile=1 -print_final_stats=1 -detect_leaks=0 \
		${ARGS:+$ARGS} "-dict=$FUZZ/$target.dict" "-artifact_prefix=$FUZZ/found/$target-" \
		"$FUZZ/new/$target" "$FUZZ/corpus/$target" "$FUZZ/seeds/$target" >"$log" 2>&1 || failed=1
	mkdir -p "$build/new_$target"
	find "$FUZZ/new/$target" -type f -exec cp -t "$build/new_$target" {} +
	found=$(find "$FUZZ/found" -name "$target-*" -exec cp {} "$build" \; -printf "$build/%f ")
	if [ $failed -ne 0 ] || ! grep -q '^stat::number_of_executed_units' "$log"; then
		what_failed "$log"
		echo "fuzz server run: $target: failed${found:+ by $found}"
		return 1
	fi
	echo "fuzz server run: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in ${SECONDS_EACH:-60} s," \
		"$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1), no failure"
}

# What a target begins with beside its corpus: what the last run has found, and
# seeds, made by the caller, who can read the test data.
seeds()
{
	local folder

	for folder in new found seeds; do
		mkdir -p "$FUZZ/$folder/$1"
	done
	mkdir -p "$build/new_$1"
	find "$build/new_$1" -type f -exec cp -t "$FUZZ/new/$1" {} +
	perl "$here/seeds.pl" "$1" "$FUZZ/seeds/$1" "$TOP" "${EPRO_DATA:-$TOP/../shared/data}"
	[ "$(id -u)" -ne 0 ] || chown -R "$SERVER_USER" "$FUZZ"
}

server_make()
{
	as_server_user "$PGBIN/initdb" --no-sync -A trust -U postgres -E UTF8 --locale=C.UTF-8 \
		-D "$WORK/$1" >"$WORK/initdb.log" 2>&1 || {
		cat "$WORK/initdb.log"
		return 1
	}
}

# single DATA FUNCTION TARGET ARGUMENT...: calls the module's function. A line is
# a command to such a server, and no argument of ours has a quote in it.
single()
{
	local data=$WORK/$1 function=$2 target=$3 arguments status=0
	shift 3

	arguments=$(printf ",'%s'" "$@")
	cat >"$data.sql" <<-SQL
		CREATE OR REPLACE FUNCTION $function(text, text, text[]) RETURNS void LANGUAGE c STRICT AS '$module', '$function'
		SELECT $function('$target', '$FUZZ', ARRAY[${arguments#,}])
	SQL
	chmod 644 "$data.sql"
	# shellcheck disable=SC2016 # for the inner shell
	as_server_user timeout -k 10 "$limit" env ${runtime:+"LD_PRELOAD=$runtime:$FUZZ/preload.so"} \
		ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:allocator_may_return_null=1 \
		UBSAN_OPTIONS=print_stacktrace=1 \
		sh -c 'exec "$1" --single -F -D "$2" postgres <"$2.sql"' sh "$PGBIN/postgres" "$data" || status=$?
	# one that died leaves it, and nobody is to look for that server
	rm -f "$data/postmaster.pid"
	return $status
}

main "$@"
