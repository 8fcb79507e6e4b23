# shellcheck shell=bash
#
# A worker's own memory while a command runs. To be sourced.
#
#   peak_memory COMMAND...    runs it, and sets peak to the highest RssAnon, in kB, of a worker that it has started:
#                             the memory that is neither shared nor a file's, read some hundred times a second
#
# The server is the one of the libpq variables, on this machine. The reading takes
# a processor, so a time taken meanwhile is not the worker's.
peak_memory()
{
	local run pid='' now

	peak=0
	"$@" >/dev/null &
	run=$!
	while kill -0 "$run" 2>/dev/null; do
		if [ -z "$pid" ]; then
			pid=$(psql -XqAtc "SELECT pid FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' LIMIT 1")
		elif now=$(awk '/^RssAnon/ {print $2}' "/proc/$pid/status" 2>/dev/null) && [ "${now:-0}" -gt "$peak" ]; then
			peak=$now
		fi
	done
	wait "$run"
}
