# shellcheck shell=bash
#
# What a figure has to be read with: the machine, the server, and how busy the
# machine was at the start.  To be sourced, after a server was started.

bench_facts()
{
	local processor

	processor=$(sed -nE 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
	echo "$(nproc) processors (${processor:-unknown}), load $(cut -d ' ' -f 1 /proc/loadavg) at the start; PostgreSQL $(
		as_server_user psql -XqAt -c 'SHOW server_version'
	)"
}
