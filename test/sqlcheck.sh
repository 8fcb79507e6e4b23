#!/usr/bin/env bash
#
# Checks what an SQL script of an extension must not do: nobody may slip an
# object of his own under one that the script, or a function of it, means.
#
#   bash test/sqlcheck.sh [SCRIPT...]    by default all in sql/
#
# A script with two versions in its name is one for ALTER EXTENSION UPDATE: there
# may be members to replace, and what others were granted must stay as it is.
#
# It reads text, as pgspot does, and builds nothing; the server's own account of
# what was made is test/pgtap's. Then each rule is given something that it has
# to refuse, and one that it must let pass: a rule that finds nothing in there
# finds nothing anywhere.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "${BASH_SOURCE[0]}")/.."

good=0
bad=0

rules=(
	pinned      'every function in SQL or PL/pgSQL pins its search path to pg_catalog, pg_temp, or is parsed when it is made'
	definers    'a SECURITY DEFINER function pins its search path, in whatever language'
	languages   'no language but c, sql and plpgsql'
	qualified   'what is made, altered, dropped or commented on is named with the schema epro_etl'
	adopts      'nothing that is there already is taken for our own'
	paths       'no statement changes the search path'
	dynamic     'statements made in a function are made by format(), not put together'
	revoked     'what is made is then taken from PUBLIC, and nothing is given to it'
	commented   'every object has a comment'
	operators   'no cast, operator, language, role or event trigger is made'
)

main()
{
	local i script scripts=("$@")

	[ ${#scripts[@]} -gt 0 ] || scripts=(sql/*.sql)
	for script in "${scripts[@]}"; do
		for ((i = 0; i < ${#rules[@]}; i += 2)); do
			tell "$script: ${rules[i + 1]}" "$(breaches "${rules[i]}" "$script" 2>&1)"
		done
	done
	tell 'epro_etl.control: the script runs with a search path of pg_catalog alone, as a superuser' "$(control epro_etl.control)"
	plants
	echo "sqlcheck: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# tell RULE FOUND
tell()
{
	if [ -z "$2" ]; then
		good=$((good + 1))
		echo "ok      $1"
	else
		bad=$((bad + 1))
		echo "BROKEN  $1"
		sed 's/^/        /' <<<"$2"
	fi
}

control()
{
	local line

	for line in "schema = pg_catalog" "relocatable = false" "superuser = true" "trusted = false"; do
		grep -qxE "${line// /[ ]*}" "$1" || echo "no line \"$line\""
	done
}

# breaches RULE SCRIPT: prints each. A statement keeps its bodies here: they are
# what dynamic SQL is looked for in; the other rules see it without.
breaches()
{
	RULE=$1 UPDATE=$([[ $2 == *--*--* ]] && echo 1 || echo 0) perl -0777 -e '
		use strict;
		use warnings FATAL => "all";
		my ($rule, $is_update) = @ENV{qw(RULE UPDATE)};
		my $text = <>;
		my (@statements, @bodies, @found);

		# strings and bodies go into @bodies, a statement names them by their number
		$text =~ s{(--[^\n]*)|(/\*.*?\*/)|(E?\x27(?:\x27\x27|[^\x27])*\x27)|\$(\w*)\$(.*?)\$\4\$|("(?:""|[^"])*")}
			{defined $1 ? "" : defined $2 ? " " : defined $6 ? $6 : do { push @bodies, defined $3 ? $3 : $5; (defined $3 ? "\x27" : "\$") . $#bodies . (defined $3 ? "\x27" : "\$") }}gsex;
		$text =~ s/^\\.*$//mg;
		$text =~ s/\s+/ /g;
		# a body of the standard holds semicolons
		my $depth = 0;
		my $at = "";
		for my $part (split /(;|\bBEGIN ATOMIC\b|\bCASE\b|\bEND\b)/i, $text) {
			$depth++ if $part =~ /^BEGIN ATOMIC$/i || ($depth && $part =~ /^CASE$/i);
			$depth-- if $depth && $part =~ /^END$/i;
			if ($part eq ";" && !$depth) { push @statements, $at; $at = ""; } else { $at .= $part; }
		}
		push @statements, $at;
		s/^ +| +$//g for @statements;
		@statements = grep { $_ ne "" } @statements;

		my $object = qr/(?:UNLOGGED |FOREIGN |MATERIALIZED |UNIQUE |CONSTRAINT )*(TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|DOMAIN|SEQUENCE|INDEX|TRIGGER|POLICY|SCHEMA|RULE|STATISTICS)/i;
		my (%made, %said, %last, %revoked);
		my $n = 0;
		for my $s (@statements) {
			my $head = substr($s, 0, 70);
			my ($is_routine) = $s =~ /^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) (\S+?) ?\(/i;
			my $is_definer = $s =~ /\bSECURITY DEFINER\b/i;
			my $is_pinned = $s =~ /\bSET search_path (?:=|TO) pg_catalog, pg_temp\b(?!\s*,)/i;
			my $say = sub { push @found, "$head: $_[0]" };
			$n++;
			if ($rule eq "pinned") {
				next unless $is_routine;
				my ($language) = $s =~ /\bLANGUAGE (\w+)/i;
				next if defined $language && lc $language eq "c";
				next if !$is_definer && $s =~ /\bLANGUAGE sql\b/i && $s =~ /\bBEGIN ATOMIC\b|\bRETURN (?!S\b)[^;]*$/i && $s !~ /\bAS \$\d+\$|\bAS \x27/i;
				$say->("the search path is the caller\x27s") unless $is_pinned;
			}
			elsif ($rule eq "definers") {
				$say->("with the search path of the caller") if $is_definer && !$is_pinned;
			}
			elsif ($rule eq "languages") {
				next unless $is_routine;
				$say->("in $1") if $s =~ /\bLANGUAGE \x27?(\w+)/i && $1 !~ /^(?:c|sql|plpgsql)$/i;
				$say->("in no language that is named") if $s !~ /\bLANGUAGE\b/i && $s !~ /\bRETURN\b/i;
			}
			elsif ($rule eq "qualified") {
				if ($s =~ /^(?:CREATE(?: OR REPLACE)?|ALTER|DROP|COMMENT ON) $object (?:IF (?:NOT )?EXISTS )?(?:ONLY )?(\S+)(.*)/i) {
					my ($kind, $name, $rest) = (uc $1, $2, $3);
					if ($kind =~ /^(?:TRIGGER|POLICY|RULE|INDEX)$/ && $s !~ /^DROP INDEX|^COMMENT ON INDEX/i) {
						$say->("not on a table of the schema") unless "$name$rest" =~ /\b(?:ON|TO) (?:ONLY )?epro_etl\.\w/i;
						$say->("calls a function without its schema") if $kind eq "TRIGGER" && $rest =~ /\bEXECUTE (?:FUNCTION|PROCEDURE) (?!epro_etl\.)/i;
					}
					elsif ($kind eq "SCHEMA") { $say->("another schema") unless $name =~ /^epro_etl$/ }
					else { $say->("not in the schema epro_etl") unless $name =~ /^epro_etl\.\w/ }
				}
			}
			elsif ($rule eq "adopts") {
				$say->("IF NOT EXISTS") if $s =~ /^(?:CREATE|ALTER)\b.*\bIF NOT EXISTS\b/i && $s !~ /\(.*\bIF NOT EXISTS\b/i;
				# the server refuses to replace what is not a member; in the first script nothing is
				$say->("OR REPLACE") if $s =~ /^CREATE OR REPLACE\b/i && (!$is_update || $s !~ /^CREATE OR REPLACE (?:FUNCTION|PROCEDURE|VIEW)\b/i);
				$say->("ADD to the extension") if $s =~ /^ALTER EXTENSION\b/i;
			}
			elsif ($rule eq "paths") {
				$say->("at the top") if $s =~ /^(?:SET|RESET)(?: LOCAL| SESSION)? (?:search_path|SCHEMA)\b/i;
				for my $i ($s =~ /[\x27\$](\d+)[\x27\$]/g) {
					$say->("in a body: $1") if $bodies[$i] =~ /(set_config\s*\(\s*\x27+search_path|\bSET\s+(?:LOCAL\s+|SESSION\s+)?search_path\b)/i;
				}
			}
			elsif ($rule eq "dynamic") {
				next unless $is_routine && $s =~ /\bLANGUAGE plpgsql\b/i;
				for my $i ($s =~ /\$(\d+)\$/g) {
					my $body = $bodies[$i];
					$body =~ s/--[^\n]*//g;
					while ($body =~ /(?<!\bWHEN )\bEXECUTE\s+((?:[^;\x27]|\x27(?:\x27\x27|[^\x27])*\x27)*);/gi) {
						my $what = $1;
						next if $what =~ /^(?:FUNCTION|PROCEDURE)\b/i;
						(my $code = $what) =~ s/\x27(?:\x27\x27|[^\x27])*\x27/\x27\x27/g;
						$say->("EXECUTE of no format(): " . substr($what, 0, 40)) if $code !~ /^(?:pg_catalog\.)?format\s*\(/i;
						$say->("strings put together: " . substr($code, 0, 60)) if $code =~ /\|\|/;
					}
				}
			}
			elsif ($rule eq "revoked") {
				$last{"TYPE $1"} = $n if $s =~ /^CREATE (?:TYPE|DOMAIN) (\S+)/i;
				$revoked{"TYPE $1"} = $n if $s =~ /^REVOKE ALL ON (?:TYPE|DOMAIN) (\S+) FROM PUBLIC$/i;
				$say->("given to PUBLIC") if $s =~ /^(?:GRANT|ALTER DEFAULT PRIVILEGES)\b.*\bTO\b.*\bPUBLIC\b/i;
				if ($is_update) {
					# a REVOKE makes all privileges that there are the initial ones, those of others too: no dump has them then
					$say->("what others were granted would become the extension\x27s own") if $s =~ /^(?:GRANT|REVOKE)\b.*\bON ALL \w+ IN SCHEMA\b/i;
					my ($table) = $s =~ /^CREATE (?:UNLOGGED |FOREIGN |MATERIALIZED )*(?:TABLE|VIEW) (\S+)/i;
					$last{"ROUTINE $is_routine"} = $n if $is_routine && $s !~ /^CREATE OR REPLACE/i;
					$last{"TABLE $table"} = $n if $table;
					while ($table && $s =~ /(?:[(,]) ?(\w+) \w+ GENERATED (?:ALWAYS|BY DEFAULT) AS IDENTITY/gi) { $last{"SEQUENCE ${table}_$1_seq"} = $n; }
					if ($s =~ /^REVOKE ALL ON (TABLE|SEQUENCE|FUNCTION|PROCEDURE|ROUTINE) (.*) FROM PUBLIC$/i) {
						my ($kind, $list) = (uc $1, $2);
						$kind =~ s/FUNCTION|PROCEDURE/ROUTINE/;
						$list =~ s/\([^)]*\)//g;
						$revoked{"$kind $_"} = $n for split / ?, ?/, $list;
					}
					next;
				}
				$last{ROUTINES} = $n if $is_routine;
				$last{TABLES} = $n if $s =~ /^CREATE (?:UNLOGGED |FOREIGN |MATERIALIZED )*(?:TABLE|VIEW)\b/i;
				$last{SEQUENCES} = $n if $s =~ /^CREATE SEQUENCE\b|\bAS IDENTITY\b|\b(?:big|small)?serial\b/i;
				$revoked{uc $1} = $n if $s =~ /^REVOKE ALL ON ALL (\w+) IN SCHEMA epro_etl FROM PUBLIC$/i;
			}
			elsif ($rule eq "commented") {
				if ($s =~ /^CREATE (?:OR REPLACE )?(?:UNLOGGED |FOREIGN |MATERIALIZED )*(TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|DOMAIN|SEQUENCE|SCHEMA) ([\w.]+)/i) {
					$made{uc($1) . " $2"}++ unless $is_update && $s =~ /^CREATE OR REPLACE/i;
				}
				$said{uc($1) . " $2"}++ if $s =~ /^COMMENT ON (?:FOREIGN |MATERIALIZED )?(\w+) ([\w.]+).* IS \x27/i;
			}
			elsif ($rule eq "operators") {
				$say->("reaches beyond the schema") if $s =~ /^(?:CREATE|ALTER|DROP) (?:OR REPLACE )?(?:TRUSTED |PROCEDURAL )*(?:CAST|OPERATOR|LANGUAGE|ROLE|USER|GROUP|EVENT TRIGGER|DATABASE|SYSTEM|TABLESPACE|TRANSFORM|ACCESS METHOD|EXTENSION)\b/i;
			}
			else { die "no rule $rule" }
		}
		for (sort keys %last) {
			push @found, "$_: not taken from PUBLIC after the last that is made" if ($revoked{$_} // 0) < $last{$_};
		}
		for (sort keys %made) {
			push @found, "$_: made $made{$_} times, commented on " . ($said{$_} // 0) . " times" if ($said{$_} // 0) < $made{$_};
		}
		push @found, "nothing was read" unless @statements;
		print "$_\n" for @found;' "$2"
}

# Each rule refuses what it is for, and lets the like of it pass that is right.
plants()
{
	local path='SET search_path = pg_catalog, pg_temp'

	plant pinned refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
	plant pinned refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql AS \$\$ BEGIN RETURN 1; END \$\$"
	plant pinned refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql SET search_path = public, pg_temp AS \$\$ BEGIN RETURN 1; END \$\$"
	plant pinned refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS \$\$ BEGIN RETURN 1; END \$\$"
	plant pinned refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql AS \$\$ BEGIN -- $path
		RETURN 1; END \$\$"
	plant pinned passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql $path AS \$\$ BEGIN RETURN 1; END \$\$"
	plant pinned passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; COMMENT ON FUNCTION epro_etl.f() IS 'x'"
	plant pinned passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant pinned passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE c AS 'MODULE_PATHNAME', 'f'"
	plant definers refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE c SECURITY DEFINER AS 'MODULE_PATHNAME', 'f'"
	plant definers refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_temp, pg_catalog RETURN 1"
	plant definers refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp, public AS 'SELECT 1'"
	plant definers passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql SECURITY DEFINER $path AS 'SELECT 1'"
	plant languages refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plperlu AS 'return 1'"
	plant languages passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE c AS 'MODULE_PATHNAME', 'f'"
	plant qualified refused "CREATE TABLE t (a int)"
	plant qualified refused "CREATE VIEW public.v AS SELECT 1"
	plant qualified refused "CREATE UNIQUE INDEX i ON t (a)"
	plant qualified refused "CREATE TRIGGER g BEFORE INSERT ON epro_etl.t EXECUTE FUNCTION f()"
	plant qualified refused "COMMENT ON TABLE t IS 'x'"
	plant qualified refused "CREATE SCHEMA other"
	plant qualified refused "DROP FUNCTION f()"
	plant qualified passes "CREATE UNIQUE INDEX i ON epro_etl.t (a); CREATE TRIGGER g BEFORE INSERT ON epro_etl.t EXECUTE FUNCTION epro_etl.f()"
	plant adopts refused "CREATE TABLE IF NOT EXISTS epro_etl.t (a int)"
	plant adopts refused "CREATE SCHEMA IF NOT EXISTS epro_etl"
	plant adopts refused "CREATE OR REPLACE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant adopts refused "CREATE OR REPLACE VIEW epro_etl.v AS SELECT 1"
	plant adopts refused "ALTER EXTENSION epro_etl ADD TABLE public.t"
	plant adopts passes "COMMENT ON TABLE epro_etl.t IS 'CREATE OR REPLACE, IF NOT EXISTS'"
	plant paths refused "SET search_path = public"
	plant paths refused "CREATE FUNCTION epro_etl.f() RETURNS void LANGUAGE plpgsql $path AS \$\$ BEGIN PERFORM set_config('search_path', 'x', true); END \$\$"
	plant paths refused "DO \$\$ BEGIN SET LOCAL search_path TO x; END \$\$"
	plant paths passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE plpgsql $path AS \$\$ BEGIN RETURN 1; END \$\$"
	plant dynamic refused "CREATE FUNCTION epro_etl.f(n text) RETURNS void LANGUAGE plpgsql $path AS \$\$ BEGIN EXECUTE 'DROP TABLE ' || n; END \$\$"
	plant dynamic refused "CREATE FUNCTION epro_etl.f(n text) RETURNS void LANGUAGE plpgsql $path AS \$\$ BEGIN EXECUTE format('SELECT; %s', 'x') || n; END \$\$"
	plant dynamic refused "CREATE FUNCTION epro_etl.f(n text) RETURNS void LANGUAGE plpgsql $path AS \$\$ BEGIN EXECUTE n; END \$\$"
	plant dynamic passes "CREATE FUNCTION epro_etl.f(n text) RETURNS void LANGUAGE plpgsql $path AS \$\$ BEGIN EXECUTE format('DROP TABLE %I; a || b', n) USING n; END \$\$"
	plant revoked refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant revoked refused "REVOKE ALL ON ALL ROUTINES IN SCHEMA epro_etl FROM PUBLIC; CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant revoked refused "CREATE TABLE epro_etl.t (a int)"
	plant revoked refused "CREATE TABLE epro_etl.t (a bigint GENERATED ALWAYS AS IDENTITY); REVOKE ALL ON ALL TABLES IN SCHEMA epro_etl FROM PUBLIC"
	plant revoked refused "CREATE DOMAIN epro_etl.d AS text"
	plant revoked refused "GRANT SELECT ON epro_etl.t TO PUBLIC"
	plant revoked passes "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1; REVOKE ALL ON ALL ROUTINES IN SCHEMA epro_etl FROM PUBLIC"
	plant_update revoked refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant_update revoked refused "CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1; REVOKE ALL ON ALL ROUTINES IN SCHEMA epro_etl FROM PUBLIC"
	plant_update revoked refused "REVOKE ALL ON FUNCTION epro_etl.f() FROM PUBLIC; CREATE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant_update revoked refused "CREATE TABLE epro_etl.t (a bigint GENERATED ALWAYS AS IDENTITY); REVOKE ALL ON TABLE epro_etl.t FROM PUBLIC"
	plant_update revoked passes "CREATE TABLE epro_etl.t (b int, a bigint GENERATED ALWAYS AS IDENTITY); REVOKE ALL ON TABLE epro_etl.s, epro_etl.t FROM PUBLIC; REVOKE ALL ON SEQUENCE epro_etl.t_a_seq FROM PUBLIC"
	plant_update revoked passes "CREATE FUNCTION epro_etl.f(a int, b text) RETURNS int LANGUAGE sql RETURN 1; REVOKE ALL ON FUNCTION epro_etl.g(), epro_etl.f(int, text) FROM PUBLIC"
	plant_update adopts passes "CREATE OR REPLACE FUNCTION epro_etl.f() RETURNS int LANGUAGE sql RETURN 1"
	plant_update adopts refused "CREATE TABLE IF NOT EXISTS epro_etl.t (a int)"
	plant commented refused "CREATE TABLE epro_etl.t (a int)"
	plant commented refused "CREATE FUNCTION epro_etl.f(int) RETURNS int LANGUAGE sql RETURN 1; CREATE FUNCTION epro_etl.f(text) RETURNS int LANGUAGE sql RETURN 1; COMMENT ON FUNCTION epro_etl.f(int) IS 'x'"
	plant commented refused "CREATE DOMAIN epro_etl.d AS text; COMMENT ON DOMAIN epro_etl.d IS NULL"
	plant commented passes "CREATE TABLE epro_etl.t (a int); COMMENT ON TABLE epro_etl.t IS 'x'"
	plant operators refused "CREATE OPERATOR epro_etl.= (leftarg = int, rightarg = text, function = epro_etl.f)"
	plant operators refused "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT"
	plant operators refused "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION epro_etl.f()"
	plant operators passes "COMMENT ON SCHEMA epro_etl IS 'CREATE CAST'"
}

# plant RULE refused|passes TEXT
plant()
{
	local rule=$1 what=$2 found planted

	folder=${folder:-$(mktemp -d)}
	trap 'rm -rf "$folder"' EXIT
	planted=$folder/planted${4:-}.sql
	printf '%s;\n' "$3" >"$planted"
	found=$(breaches "$rule" "$planted" 2>&1) || found="the check itself failed: $found"
	if [ "$what" = refused ]; then
		tell "$rule refuses: ${3:0:90}" "$([ -n "$found" ] || echo 'nothing was found in it')"
	else
		tell "$rule lets pass: ${3:0:90}" "$found"
	fi
}

plant_update()
{
	plant "$1" "$2" "$3" --1--2
}

main "$@"
