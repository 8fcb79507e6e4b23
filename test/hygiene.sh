#!/usr/bin/env bash
#
# Checks the rules of the repository that a compiler does not see.
#
#   bash test/hygiene.sh [FOLDER]    FOLDER is the checkout, by default this one
#
# The checks read text and build nothing. Patterns that would find themselves
# in here are written in two parts.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

good=0
bad=0

main()
{
	version=$(sed -nE "s/^default_version *= *'([^']+)'.*/\1/p" epro_etl.control)
	script=sql/epro_etl--$version.sql
	echo "version $version, $(texts | wc -l) text files"

	rule 'control file, scripts, library, META.json, Makefile and CHANGELOG agree on the version' versions
	rule 'META.json has the keys that PGXN asks for' meta
	rule 'every object of the SQL script has a comment' sql_comments
	rule 'a SECURITY DEFINER function fixes its search_path' sql_definers
	rule 'the settings are defined in alphabetical order, under the prefix' settings
	rule 'every C file and script says on top what it is for' headers
	rule 'versions of PostgreSQL differ in words/compat.h only' version_conditions
	rule 'every test file is one that a suite runs, and has what it is compared with' scheduled
	rule 'every script in test/ is called from somewhere' scripts_called
	rule 'no script ignores a failure wholesale' ignored_failures
	rule 'no path of somebody'\''s machine' machine_paths
	rule 'no trailing white space, and a line feed at the end' white_space

	echo "hygiene: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# rule TEXT FUNCTION: the function prints each breach.
rule()
{
	local found status=0

	# A check that fails, or complains, is no check that found nothing.
	found=$("$2" 2>&1) || status=$?
	if [ -z "$found" ] && [ "$status" -eq 0 ]; then
		good=$((good + 1))
		echo "ok      $1"
	else
		bad=$((bad + 1))
		echo "BROKEN  $1"
		sed 's/^/        /' <<<"${found:-the check itself failed with exit code $status}"
	fi
}

# ---- what the version is ---------------------------------------------------

versions()
{
	local file

	[ -n "$version" ] || echo "epro_etl.control: no default_version"
	[ -f "$script" ] || echo "$script: not there"
	for file in sql/*.sql; do
		grep -qE "^DATA *=.* ${file//./\\.}( |$)" Makefile || echo "Makefile: DATA does not name $file"
	done
	grep -qF "#define EPRO_VERSION \"$version\"" src/words/compat.h || echo "src/words/compat.h: EPRO_VERSION is not $version"
	# from each version there is a way to this one
	for file in sql/epro_etl--*.sql; do
		file=${file#sql/epro_etl--}
		file=${file%.sql}
		[[ $file == *--* || $file == "$version" ]] || compgen -G "sql/epro_etl--$file--*.sql" >/dev/null || echo "sql: no script updates from $file"
	done
	grep -qE "^## \[?${version//./\\.}\]?( |$)" CHANGELOG.md || echo "CHANGELOG.md: no heading for $version"
	version=$version script=$script perl -MJSON::PP -0777 -ne '
		my $m = decode_json($_);
		my $p = $m->{provides}{epro_etl};
		print "META.json: version $m->{version}\n" if $m->{version} ne $ENV{version};
		print "META.json: provides $p->{version} in $p->{file}\n"
			if $p->{version} ne $ENV{version} || $p->{file} ne $ENV{script}' META.json
}

meta()
{
	perl -MJSON::PP -0777 -ne '
		my $m = eval { decode_json($_) } or do { print "META.json: $@"; exit };
		for my $key (qw(name version abstract maintainer license provides meta-spec)) {
			print "META.json: no $key\n" unless $m->{$key};
		}
		print "META.json: the licence is $m->{license}\n" if $m->{license} ne "postgresql";
		for my $e (values %{$m->{provides}}) {
			print "META.json: $_ is not there\n" for grep { !-f } grep { defined } @$e{qw(file docfile)};
		}' META.json
}

# ---- SQL -------------------------------------------------------------------

# The script as one statement a line, without comments, its string constants
# and bodies empty, white space folded.
statements()
{
	perl -0777 -pe '
		s{(--[^\n]*)|(/\*.*?\*/)|(\x27(?:\x27\x27|[^\x27])*\x27)|(\$(\w*)\$.*?\$\5\$)}
		 {defined $1 ? "" : defined $2 ? " " : "\x27\x27"}gsex;
		s/^\\.*$//mg; s/\s+/ /g; s/ ?; ?/\n/g' "$script"
}

# Each object made needs a COMMENT ON of its kind and name; overloaded
# functions need one each. By text: the server is who checks the arguments.
sql_comments()
{
	[ -f "$script" ] || {
		echo "$script: not there"
		return
	}
	statements | perl -ne '
		my $kind = "TABLE|VIEW|MATERIALIZED VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|DOMAIN|SEQUENCE|EVENT TRIGGER|ROLE|SCHEMA";
		my $name = qr/(?:"?epro_etl"?\.|\@extschema\@\.)?"?(\w+)"?/;
		next if /^ ?CREATE (?:OR REPLACE )?(?:GLOBAL |LOCAL )?TEMP(?:ORARY)? /i;
		if (/^ ?CREATE (?:OR REPLACE )?(?:UNLOGGED |FOREIGN )?($kind) (?:IF NOT EXISTS )?$name/i) {
			push @order, uc($1) . " " . lc($2) unless $made{uc($1) . " " . lc($2)};
			$made{uc($1) . " " . lc($2)}++;
		} elsif (/^ ?COMMENT ON (?:FOREIGN )?($kind) $name/i) {
			$said{uc($1) . " " . lc($2)}++;
		}
		END {
			print "no object was found in the script\n" unless @order;
			for (@order) {
				my $has = $said{$_} // 0;
				print "$_: made $made{$_} times, commented on $has times\n" if $has < $made{$_};
			}
		}'
}

sql_definers()
{
	[ -f "$script" ] || return 0
	statements | perl -ne '
		next unless /SECURITY DEFINER/i && !/SET search_path/i;
		print "$1: has no SET search_path\n" if /^ ?(CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) [\w.@"]+)/i'
}

# ---- C ---------------------------------------------------------------------

settings()
{
	local file=src/effects/settings.c names

	[ -f "$file" ] || return 0
	names=$(perl -0777 -ne 'print "$1\n" while /DefineCustom\w+Variable\s*\(\s*"([^"]+)"/g' "$file")
	if [ -z "$names" ]; then
		echo "$file: no setting was found"
		return
	fi
	diff <(echo "$names") <(sort <<<"$names") >/dev/null || echo "$file: the order is $(tr '\n' ' ' <<<"$names")"
	matches -v '^epro_etl\.[a-z_]+$' <<<"$names"
	# Settings that are defined elsewhere escape the order.
	find src -name '*.[ch]' ! -path "$file" | search 'DefineCustom[A-Za-z]+Variable'
}

version_conditions()
{
	find src -name '*.[ch]' ! -path src/words/compat.h | search '\bPG_(VERSION_NUM|MAJORVERSION(_NUM)?)\b'
}

# A C file opens with a block comment of its name and at least one line more;
# scripts have a comment in their first lines.
headers()
{
	local file

	texts | matches '\.[ch]$' | while IFS= read -r file; do
		perl -0777 -ne '
			my ($base) = $ARGV =~ m{([^/]+)$};
			my ($block) = m{\A\s*/\*(.*?)\*/}s;
			my $lines = () = ($block // "") =~ /^.*[A-Za-z]{3}.*$/mg;
			print "$ARGV: does not open with a comment that names it and says what it is for\n"
				unless $lines >= 2 and $block =~ /\b\Q$base\E/' "$file"
	done
	texts | matches '\.(sh|pl|pm)$|^\.ci/' | while IFS= read -r file; do
		head -n 8 "$file" | grep -qE '^# ?[A-Za-z].*[a-z]{2}' || echo "$file: its first lines do not say what it is for"
	done
	texts | matches '\.sql$' | while IFS= read -r file; do
		head -n 5 "$file" | grep -qE '^(--|/\*|\\echo).*[a-z]{3}|^ \* .*[a-z]{3}' || echo "$file: its first lines do not say what it is for"
	done
}

# ---- tests -----------------------------------------------------------------

scheduled()
{
	local file name

	compared test/sql sql expected
	compared test/isolation/specs spec test/isolation/expected
	# From PostgreSQL 16 on, isolation tests look into the top-level expected/
	# before their own.
	comm -12 <(stems test/sql sql) <(stems test/isolation/specs spec) |
		sed 's/$/: the name of a regression script and of an isolation spec/'

	strangers test/sql '*.sql'
	strangers test/t '*.pl' '*.pm'
	strangers test/pgtap '*.sql'
	strangers test/isolation/specs '*.spec'

	for file in test/unit/*.c test/fuzz/*.c; do
		[ -f "$file" ] || continue
		name=$(basename "$file" .c)
		grep -qE "\b$name\b|wildcard [^)]*${name%%_*}_?\*\.c" "$(dirname "$file")/Makefile" ||
			echo "$file: $(dirname "$file")/Makefile does not build it"
	done
}

# compared FOLDER EXTENSION EXPECTED: a file here has its output there
# (NAME.out, or NAME_1.out and so on beside it), and the other way round.
compared()
{
	local file name

	for file in "$1"/*."$2"; do
		[ -f "$file" ] || continue
		name=$(basename "$file" ".$2")
		[ -f "$3/$name.out" ] || echo "$file: no $3/$name.out"
	done
	for file in "$3"/*.out; do
		[ -f "$file" ] || continue
		name=$(basename "$file" .out)
		[ -f "$1/$name.$2" ] || [ -f "$1/${name%_[0-9]}.$2" ] || echo "$file: no $1/$name.$2"
	done
}

stems()
{
	[ ! -d "$1" ] || find "$1" -maxdepth 1 -name "*.$2" -exec basename {} ".$2" \; | sort
}

# strangers FOLDER PATTERN...: what stands there and is run by nobody.
strangers()
{
	local folder=$1 options=() pattern
	shift

	[ -d "$folder" ] || return 0
	for pattern in "$@"; do options+=(! -name "$pattern"); done
	find "$folder" -mindepth 1 -maxdepth 1 "${options[@]}" ! -name README.md | sed 's/$/: no suite runs it/'
}

scripts_called()
{
	local file

	texts | matches '^test/.*\.sh$' | while IFS= read -r file; do
		texts | matches '^(Makefile|\.ci/.*|test/.*(\.sh|\.pl|\.pm|Makefile))$' | grep -vxF "$file" |
			xargs grep -qF "$(basename "$file")" || echo "$file: no Makefile or script names it"
	done
}

ignored_failures()
{
	texts | matches '^(Makefile|\.ci/.*|test/.*(\.sh|\.pl|Makefile))$' | search '\|\| ''*(true|:)( *$|;)'
}

# ---- all files -------------------------------------------------------------

machine_paths()
{
	texts | search '(^|[^A-Za-z0-9_.$}])/(ho''me|Us''ers|ro''ot|wo''rk)/[A-Za-z0-9_]|/tmp/pl''an'
}

white_space()
{
	local file

	texts | matches -v '\.out$' | search '[[:blank:]]+$' | cut -c 1-120
	texts | matches -v '\.out$' | while IFS= read -r file; do
		[ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || echo "$file: no line feed at the end"
	done
}

# The files that people write: not what was built, and not the corpora, which
# hold whatever a stranger may send.
texts()
{
	find . \( -name .git -o -path ./test/fuzz/corpus -o -name build -o -name tmp_check -o -name tmp_check_iso \
		-o -path ./results -o -path ./output_iso -o -path ./log \) -prune -o \
		-type f ! -name '*.o' ! -name '*.so' ! -name '*.bc' ! -name '*.gz' ! -name 'regression.*' \
		-print | sed 's|^\./||' | sort
}

# search PATTERN < list of files: file:line:text of each hit.
search()
{
	local list

	mapfile -t list
	[ ${#list[@]} -eq 0 ] || grep -HnE -e "$1" -- "${list[@]}" || [ $? -eq 1 ]
}

# grep -E, for which finding nothing is no failure.
matches()
{
	grep -E "$@" || [ $? -eq 1 ]
}

main
