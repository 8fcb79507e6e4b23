#!/usr/bin/env bash
# The README's tour against what really ran: every ```sql block of README.md
# must stand, line for line, in expected/tour.out, which pg_regress holds
# against the server, but for blanks at a line's end. Prints a line a block and "readme: N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
awk '
  { sub(/[ \t]+$/, "") }
  FNR == NR { expected = expected $0 "\n"; next }
  /^```sql$/ { inside = 1; block = ""; first = FNR + 1; next }
  /^```$/ && inside {
      inside = 0
      if (index(expected, block) > 0) { passed++; print "ok - README.md line " first }
      else { failed++; print "not ok - README.md line " first " is not in expected/tour.out" }
      next
  }
  inside { block = block $0 "\n" }
  END {
      printf "readme: %d passed, %d failed\n", passed, failed
      exit (failed > 0 || passed == 0)
  }' expected/tour.out README.md
