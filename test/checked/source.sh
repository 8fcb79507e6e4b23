# shellcheck shell=bash
#
# Shell functions for whatever needs a PostgreSQL of its own making: fetched as a
# source package and built with what the suites ask for. To be sourced after
# test/lib.sh, once WORK is there.
#
#   server_source MAJOR RELEASE FOLDER        the sources of the release's package, unpacked
#   server_build SOURCE PREFIX [OPTION...]    configured with the options, built, installed

# Lists and archives go into the work folder: the system's own stay as they are. So
# does the system's server: with the distribution's patches, which are not applied
# here, an installation would go into its folders, whatever the prefix is.
server_source()
{
	local major=$1 release=$2 folder=$3 archive=()

	mkdir "$WORK/apt" "$WORK/apt/lists" "$WORK/apt/cache" "$WORK/package"
	echo "deb-src ${EPRO_MIRROR:-http://deb.debian.org/debian} $release main" >"$WORK/apt/sources.list"
	apt_source update || return 1
	apt_source source --download-only --tar-only "postgresql-$major" || return 1
	archive=("$WORK/package"/*.orig.tar.*)
	mkdir "$folder" && tar -xf "${archive[0]}" -C "$folder" --strip-components=1
}

apt_source()
{
	supervise env -C "$WORK/package" apt-get -qq -o Dir::Etc::SourceList="$WORK/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$WORK/apt/lists" -o Dir::Cache="$WORK/apt/cache" \
		-o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false "$@" \
		>"$WORK/apt/log" 2>&1 || {
		cat "$WORK/apt/log"
		return 1
	}
}

# With what the suites ask for, and nothing else.
server_build()
{
	local source=$1 prefix=$2
	shift 2

	# one that has been built before, in other ways
	[ ! -f "$source/GNUmakefile" ] || supervise make -s -C "$source" distclean || return 1
	supervise env -C "$source" ./configure --prefix="$prefix" \
		--with-openssl --with-libxml --without-readline --without-zlib "$@" || return 1
	if grep -E '^(pkglib|data|includeserver)dir *:?= */' "$source/src/Makefile.global"; then
		echo "these sources would be installed outside $prefix"
		return 1
	fi
	supervise make -s -C "$source" -j"$(nproc)" || return 1
	supervise make -s -C "$source" install
}
