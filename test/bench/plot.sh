#!/usr/bin/env bash
#
# Throughput by workers and by rows, measured and drawn: a table, and an SVG file.
#
#   SIZES='10000 50000 200000 1000000 2000000' AT=200000 ROUNDS=3 OUT=doc/throughput.svg plot.sh
#
# AT is the one of the sizes at which workers are compared. The medians of all
# rounds are drawn; the rows are accounted for after each turn (see turns.sh).
set -euo pipefail
sizes=${SIZES:-10000 50000 200000 1000000 2000000}
at=${AT:-200000}
rounds=${ROUNDS:-3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"
out=${OUT:-$TOP/doc/throughput.svg}

main()
{
	local facts

	case " $sizes " in
		*" $at "*) ;;
		*)
			echo "AT=$at is none of SIZES='$sizes'" >&2
			exit 2
			;;
	esac
	bench_open
	facts=$(bench_facts)
	turns_load "$(tr ' ' '\n' <<<"$sizes" | sort -n | tail -n 1)" "$here/diary.sql" "$here/race.sql"
	turns_rounds "$rounds" "$sizes" limit peer_sql inline '1 worker' '2 workers' '4 workers'
	turns_report
	bench_psql -At -F $'\t' -c 'SELECT rows, name, round(rows_s) FROM bench.figure ORDER BY rows, position' |
		awk -F '\t' -v at="$at" -v facts="$facts; medians of $rounds rounds" -f "$here/plot.awk" >"$WORK/throughput.svg"
	cp "$WORK/throughput.svg" "$out"
	echo "drawn: $out"
	bench_close
}

main
