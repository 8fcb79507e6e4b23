#!/usr/bin/env bash
#
# Checks the rules of the source folders: who may include whom, what a pure
# stage may not touch, and which functions nobody calls.
#
#   bash test/layers.sh [FOLDER]    FOLDER is the checkout, by default this one
#
# An include names the folder ("words/form.h"); a file includes its own layer
# and the ones below it. The headers of PostgreSQL and of C are free.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

# From the bottom up.
layers=(words stages effects pipeline processes face)

# Of the stages' folder, what all stages share: their prototypes, the compiled
# form, the total parsers, and the keyed hash and cipher.
shared_stage_headers=' stages.h form.h parse.h partial_date.h schema.h fhir.h deid.h hkdf.h siv.h '
# What compiles a declaration (a form, an expression) may refuse it with an
# error: there is no patient's response in it.
stage_files_that_may_raise=' form.c schema.c fhir_form.c check.c deid_rule.c score.c '
# In the others, an error may only tell that the machinery broke.
machinery_errors='ERRCODE_OUT_OF_MEMORY|ERRCODE_INTERNAL_ERROR'

good=0
bad=0

main()
{
	files=()
	while IFS= read -r file; do files+=("$file"); done < <(find src -name '*.[ch]' | sort)
	if [ ${#files[@]} -eq 0 ]; then
		echo "layers: there is no C file in src"
		echo "layers: 0 passed, 1 failed"
		return 1
	fi
	echo "${#files[@]} files in src; layers from the bottom: ${layers[*]}"

	rule 'every file stands in a layer, one folder deep' place
	rule 'includes go to the own layer or below' includes
	rule 'a stage includes no header of another stage' stage_includes
	rule 'a stage calls no other stage' stage_calls
	rule 'a stage raises no error for data, touches no table, shared memory, clock or setting' stage_purity
	rule 'no unbounded or unchecked string functions' banned_strings
	rule 'no process, file, memory, random or print functions beside the server'\''s own' banned_libc
	rule 'no sleeping but on a latch or condition variable' banned_sleeps
	rule 'no worker is ended by SIGKILL, no handler set by signal()' banned_signals

	echo "layers: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# rule TEXT FUNCTION: the function prints each breach, "file:line: ...".
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

place()
{
	local file

	for file in "${files[@]}"; do
		[[ $file =~ ^src/[a-z]+/[a-z0-9_]+\.[ch]$ && $(rank "$(folder "$file")") -ge 0 ]] ||
			echo "$file: not src/LAYER/name.[ch] with a known layer"
	done
}

includes()
{
	local file line target from to

	while IFS=: read -r file line target; do
		from=$(rank "$(folder "$file")")
		[ "$from" -ge 0 ] || continue
		to=$(rank "${target%%/*}")
		if [[ $target == *../* || $target == ./* ]]; then
			echo "$file:$line: \"$target\": name the layer instead of the way to it"
		elif [[ $target != */* && -z $(find_own "$file" "$target") && -n $(find src -name "$target") ]]; then
			echo "$file:$line: \"$target\": name its layer"
		elif [ "$to" -gt "$from" ]; then
			echo "$file:$line: $(folder "$file") includes $target, which is above it"
		fi
	done < <(all_includes "${files[@]}")
}

stage_includes()
{
	local file line target name

	while IFS=: read -r file line target; do
		name=${target#stages/}
		[[ $name != */* && -f src/stages/$name ]] || continue
		[[ $target == stages/* || -n $(find_own "$file" "$target") ]] || continue
		[[ $shared_stage_headers == *" $name "* ]] && continue
		[ "${name%.h}" != "$(basename "${file%.[ch]}")" ] || continue
		echo "$file:$line: $target belongs to another stage"
	done < <(mapfile -t stage < <(stage_files); all_includes "${stage[@]}")
}

stage_calls()
{
	local verbs file verb

	# A stage is named after its verb, and so is its function.
	verbs=$(stage_files | grep '\.c$' | xargs -r -n 1 basename | grep -vE '^(form|parse)\.c$' | sed 's/\.c$//')
	for file in $(stage_files | grep '\.c$'); do
		for verb in $verbs; do
			[ "$verb" = "$(basename "$file" .c)" ] || calls "$verb" "$file"
		done
	done
}

stage_purity()
{
	local file

	for file in $(stage_files); do
		calls 'SPI_[a-z_]+|(table|relation|heap|index|try_table|try_relation)_(open|openrv|beginscan)|SearchSysCache[A-Za-z0-9]*|GetCurrent[A-Za-z]*Timestamp|GetCurrentTime[A-Za-z]*|GetSQLCurrent[A-Za-z]*|time|gettimeofday|clock_gettime|LWLockAcquire|ShmemInitStruct|dsm_[a-z_]+|dsa_[a-z_]+|GetConfigOption[A-Za-z]*|DefineCustom[A-Za-z]*Variable' "$file"
		[[ $stage_files_that_may_raise == *" $(basename "$file") "* ]] || raises "$file"
	done
}

# Where a file raises anything but a failure of the machinery.
raises()
{
	code_of "$1" | perl -0777 -ne '
		BEGIN { ($allowed, $file) = splice @ARGV, 0, 2 }
		while (/\b(ereport|elog|ereport_domain|errsave|ereturn)\s*\((?!\s*ERROR\s*,\s*\(?\s*errcode\s*\(\s*(?:$allowed)\s*\))/g) {
			my $line = 1 + (substr($_, 0, $-[0]) =~ tr/\n//);
			print "$file:$line: $1() with another code than $allowed\n";
		}' "$machinery_errors" "$1"
}

banned_strings()
{
	calls 'strcpy|strcat|strncat|strncpy|stpcpy|sprintf|vsprintf|gets|scanf|sscanf|fscanf|atoi|atol|atoll|atof|strtok|alloca' "${files[@]}"
}

banned_libc()
{
	calls 'system|popen|execv|execl|execvp|execlp|fork|vfork|exit|_exit|abort|assert|fopen|open|tmpnam|tempnam|mktemp|malloc|calloc|realloc|strdup|strndup|rand|srand|random|drand48|printf|fprintf|puts|fputs|putchar|perror|strerror|localtime|gmtime|ctime|asctime' "${files[@]}"
}

banned_sleeps()
{
	calls 'sleep|usleep|nanosleep|pg_usleep|poll|select' "${files[@]}"
}

banned_signals()
{
	calls 'signal|sigaction' "${files[@]}"
	for file in "${files[@]}"; do
		code_of "$file" | grep -nw SIGKILL | sed "s|^|$file:|" || [ $? -eq 1 ]
	done
}

# ---- helpers ---------------------------------------------------------------

folder()
{
	local rest=${1#src/}
	echo "${rest%%/*}"
}

# The place of a layer, or -1.
rank()
{
	local i

	for i in "${!layers[@]}"; do
		if [ "${layers[$i]}" = "$1" ]; then
			echo "$i"
			return
		fi
	done
	echo -1
}

stage_files()
{
	printf '%s\n' "${files[@]}" | { grep '^src/stages/' || [ $? -eq 1 ]; }
}

# A bare name finds a header beside the file that includes it.
find_own()
{
	local own
	own=$(dirname "$1")/$2
	[ ! -f "$own" ] || echo "$own"
}

# file:line:target of each #include.
all_includes()
{
	[ $# -gt 0 ] || return 0
	grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' "$@" |
		sed -E 's/^([^:]+:[0-9]+):[^"<]*["<]([^">]*)[">].*/\1:\2/' || [ $? -eq 1 ]
}

# The code of a file, line by line, without comments and the insides of
# strings.
code_of()
{
	perl -0777 -pe '
		s{(/\*.*?\*/)|(//[^\n]*)|("(?:\\.|[^"\\\n])*")|(\x27(?:\\.|[^\x27\\\n])+\x27)}
		 {my ($c, $l, $s) = ($1, $2, $3); defined $c ? $c =~ s/[^\n]+//gr : defined $l ? "" : defined $s ? "\"\"" : "0"}gsex' "$1"
}

# calls NAMES FILE...: where one of these functions (alternatives of a regular
# expression) is called. A member (a->open(...)) is another function.
calls()
{
	local names=$1 file
	shift

	for file in "$@"; do
		code_of "$file" | perl -ne '
			BEGIN { ($names, $file) = splice @ARGV, 0, 2 }
			print "$file:$.: $1()\n" while /(?<![\w.])(?<!->)($names)\s*\(/g' "$names" "$file"
	done
}

main
