#!/usr/bin/env bash
#
# The suites that need a server, with the extension built under AddressSanitizer
# and UndefinedBehaviorSanitizer: a bad access of the extension's own code, or of
# the server's at its bidding on the heap, ends the process, and the suite fails.
#
#   bash test/checked/sanitize.sh [SUITE...]    pg_regress, isolation and pgtap without one
#
# The server is a copy of PG_CONFIG's with the sanitizers' runtime loaded before it.
# What palloc() gives comes from larger blocks, whose inside only the fuzzers of
# test/fuzz/server watch.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

main()
{
	local suites=("$@")

	[ ${#suites[@]} -gt 0 ] || suites=(pg_regress isolation pgtap)
	bash "$TOP/test/setup.sh" all
	lib_open
	copy_server
	tree_copy
	# instrumented code lets gcc doubt what it can prove without
	PG_CONFIG=$PG_CONFIG COPT='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-maybe-uninitialized -Wno-clobbered' \
		ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:allocator_may_return_null=1 \
		UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1 \
		supervise bash "$TREE/test/check-all.sh" "${suites[@]}"
}

# PostgreSQL finds its other folders by the way from the one of its programs.
copy_server()
{
	local folder from bin

	for folder in bindir pkglibdir sharedir includedir-server; do
		from=$("$PG_CONFIG" "--$folder")
		mkdir -p "$WORK/server$from"
		cp -R "$from/." "$WORK/server$from"
	done
	bin=$WORK/server$PGBIN
	PG_CONFIG=$bin/pg_config
	if [ "$("$PG_CONFIG" --bindir)" != "$bin" ]; then
		echo "this PostgreSQL cannot be moved" >&2
		exit 1
	fi
	# the server alone: everything else need not be slow
	mv "$bin/postgres" "$bin/postgres.real"
	cat >"$bin/postgres" <<SH
#!/bin/sh
LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so) exec "$bin/postgres.real" "\$@"
SH
	chmod 755 "$bin/postgres"
	chmod -R go+rX "$WORK/server"
}

main "$@"
