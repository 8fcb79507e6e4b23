#!/usr/bin/env bash
#
# Installs what building (and, with `all`, testing) needs and the machine does
# not have.
#
#   bash test/setup.sh demo      compiler, server, server headers, OpenSSL's
#   bash test/setup.sh all       and clang, clang-tidy, cppcheck, pgTAP, pg_cron, the
#                                Perl modules, spin and valgrind
#   bash test/setup.sh versions  what makes a root of another release: debootstrap
#
# Each need is looked for as the thing itself, not as a package: a server built
# from source is as good as Debian's. Only when something is missing is apt
# asked, as root; anybody else is told what to install, and gets exit code 1.
# PG_CONFIG names the server to look at, PG_MAJOR the version to install
# (without it: the release's own).
set -euo pipefail

usage='usage: setup.sh demo|all|versions'
set_name=${1:?$usage}
case $set_name in
	demo | all | versions) ;;
	*)
		echo "$usage" >&2
		exit 2
		;;
esac

pg_config=${PG_CONFIG:-pg_config}

main()
{
	find_missing
	if [ ${#missing[@]} -eq 0 ]; then
		echo "setup ($set_name): nothing is missing"
		return 0
	fi

	if [ "$(id -u)" -ne 0 ] || ! has_command apt-get; then
		echo "setup ($set_name): missing: $(packages)" >&2
		echo "Install them, as root on Debian: apt-get install --no-install-recommends $(packages)" >&2
		return 1
	fi

	install_missing
	find_missing
	if [ ${#missing[@]} -ne 0 ]; then
		echo "setup ($set_name): still missing after the installation: $(packages)" >&2
		return 1
	fi
	echo "setup ($set_name): complete"
}

# Sets missing[] to the names, less the version, of the packages that carry
# what was not found.
find_missing()
{
	missing=()
	hash -r
	if [ "$set_name" = versions ]; then
		need debootstrap has_command debootstrap
		return
	fi
	need build-essential has_compiler
	need postgresql-N has_server
	need postgresql-server-dev-N has_pgxs
	need libssl-dev has_openssl
	if [ "$set_name" = all ]; then
		need clang has_command clang
		need clang-tidy has_command clang-tidy
		need cppcheck has_command cppcheck
		need postgresql-N-pgtap has_extension pgtap
		need postgresql-N-cron has_extension pg_cron
		need libtap-parser-sourcehandler-pgtap-perl has_command pg_prove
		need libipc-run-perl has_perl_module IPC::Run
		need perl has_command prove
		need spin has_command spin
		need valgrind has_command valgrind
	fi
}

need()
{
	local package=$1
	shift
	"$@" || missing+=("$package")
}

has_command()
{
	local name
	for name in "$@"; do
		command -v "$name" >/dev/null || return 1
	done
}

# gcc may be there without a C library to compile against.
has_compiler()
{
	has_command make gcc && echo "#include <stdio.h>" | gcc -E -xc - >/dev/null 2>&1
}

# pg_config of libpq-dev alone names folders that are not there, so every
# answer is looked at.
ask_pg_config()
{
	has_command "$pg_config" || return 1
	"$pg_config" "$1" 2>/dev/null
}

has_server()
{
	local bindir
	bindir=$(ask_pg_config --bindir) && [ -x "$bindir/initdb" ] && [ -x "$bindir/postgres" ] && return 0
	# Debian's server is found by its place before its headers are installed.
	[ -x "/usr/lib/postgresql/$(known_major)/bin/postgres" ]
}

has_pgxs()
{
	local pgxs
	pgxs=$(ask_pg_config --pgxs) && [ -f "$pgxs" ] &&
		[ -f "$(ask_pg_config --includedir-server)/postgres.h" ]
}

# Only a server that was built with OpenSSL asks for its headers.
has_openssl()
{
	! grep -qs '^#define USE_OPENSSL 1' "$(ask_pg_config --includedir-server)"/pg_config*.h ||
		echo '#include <openssl/evp.h>' | gcc -E -xc - >/dev/null 2>&1
}

has_extension()
{
	local sharedir
	sharedir=$(ask_pg_config --sharedir) && [ -f "$sharedir/extension/$1.control" ]
}

has_perl_module()
{
	has_command perl && perl -M"$1" -e1 2>/dev/null
}

# The major version to install: as told, else that of the headers there are,
# else none yet (it is the release's, which only apt knows).
known_major()
{
	if [ -n "${PG_MAJOR:-}" ]; then
		echo "$PG_MAJOR"
	elif has_pgxs; then
		ask_pg_config --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
	else
		echo none
	fi
}

# missing[] as package names, with the version filled in.
packages()
{
	local major
	major=$(known_major)
	[ "$major" != none ] || major=$(release_major)
	echo "${missing[*]//-N/-$major}"
}

release_major()
{
	local major=
	if has_command apt-cache; then
		major=$(apt-cache show postgresql 2>/dev/null |
			sed -nE 's/^Depends:.*postgresql-([0-9]+).*/\1/p' | head -n 1)
	fi
	echo "${major:-15}"
}

install_missing()
{
	local list

	export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
	# Debian's package makes a cluster of its own and would start it. Ours are
	# throwaway ones on private sockets, so that one only costs time: invoke-rc.d
	# starts nothing in runlevel 1 (where systemd runs, it starts, harmlessly).
	export RUNLEVEL=1

	# One unreachable source of several must not stop what the others have:
	# whether the lists suffice is for the installation to say.
	apt_get update || echo "setup: going on with the package lists at hand" >&2
	list=$(packages)
	echo "setup ($set_name): installing $list"
	# shellcheck disable=SC2086 # a list of package names
	apt_get -y install --no-install-recommends $list
}

# apt-get, whose hundreds of lines are shown only when it failed.
apt_get()
{
	local output

	output=$(apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null 2>&1) || {
		printf '%s\n' "$output" >&2
		echo "setup: apt-get $* failed" >&2
		return 1
	}
}

main
