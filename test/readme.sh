#!/usr/bin/env bash
# The pages' examples against what really ran: every ```sql block of README.md
# must stand, line for line, in expected/tour.out, every one of doc/context.md in
# expected/tour_context.out, those of doc/checks.md and doc/scores.md in
# expected/tour_checks.out, those of doc/odm.md in expected/tour_odm.out,
# and those of doc/fhir.md in expected/tour_fhir.out, which pg_regress holds against the server; but for blanks at a line's end. Prints a line a block and "readme: N
# passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
awk '
  { sub(/[ \t]+$/, "") }
  # what ran and the page take turns
  FNR == 1 { is_page = ++files % 2 == 0; inside = 0; if (is_page) pages[FILENAME] = 0; else expected = "" }
  !is_page { expected = expected $0 "\n"; next }
  /^```sql$/ { inside = 1; block = ""; first = FNR + 1; next }
  /^```$/ && inside {
      inside = 0
      pages[FILENAME]++
      if (index(expected, block) > 0) { passed++; print "ok - " FILENAME " line " first }
      else { failed++; print "not ok - " FILENAME " line " first " is not in what ran" }
      next
  }
  inside { block = block $0 "\n" }
  END {
      for (page in pages)
          if (pages[page] == 0) { failed++; print "not ok - " page " has no block" }
      printf "readme: %d passed, %d failed\n", passed, failed
      exit (failed > 0 || passed == 0)
  }' expected/tour.out README.md expected/tour_context.out doc/context.md \
  expected/tour_checks.out doc/checks.md expected/tour_checks.out doc/scores.md \
  expected/tour_schema.out doc/json-schema.md expected/tour_odm.out doc/odm.md expected/tour_fhir.out doc/fhir.md
