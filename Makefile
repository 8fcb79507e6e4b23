# epro_etl: PGXS build.
#
#   make && make install      build and install (PG_CONFIG=... picks the server)
#   make installcheck         regression and isolation tests against a running server
#   make demo                 the whole way on a throwaway server, in about a minute
#   make check-all            every suite on throwaway servers
#   make check-versions       every suite on PostgreSQL 17 and 18, in Debian's later releases (root)
#   make check-upgrade        pg_upgrade of a server with data, from PostgreSQL 15 to 17 (root)
#   make check-cassert        the suites with a server on one with assertions, built from source
#   make check-sanitize       likewise, server and extension under address and undefined sanitizers
#   make check-valgrind       pg_regress under valgrind's memcheck, which is slow
#   make bench                the race against a set-based statement and the bare move
#   make bench-claims         a claimed row behind dead rows, among locked ones, and under a held snapshot
#   make bench-empty          what a run costs before its first row
#   make bench-growth         ten times the rows: the time, and a worker's memory
#   make bench-long           a long sink against COPY of the same rows
#   make bench-plot           throughput by workers and by rows, drawn into doc/throughput.svg
#   make bench-race           the race of test/bench/race.sh; needs ../shared/bench
#   make bench-memory         a worker's memory over the rows (see test/bench/memory.sh)
#   make chaos                the mixes of batches and of streams, their long form: MINUTES=n SEED=s (see test/chaos/mix.sh)
#   make check-planted        bugs put into copies of the sources: is each of them noticed? (see test/planted/check.sh)
#   make check-points         an error at every named point of the code (see test/points.sh)
#   make bench-stream         a stream's latency, and what workers do for a slow stage
#   make bench-stop           from a cancel to the caller's error, with four workers busy
#   make bench-precision      how punctual with_timeout() is, and what it costs
#   make bench-front-ends     one questionnaire through JSON Schema, FHIR and ODM
#   make bench-deid           what the profiles of de-identification cost
#
# The benches take ROWS=, ROUNDS= and what their scripts name, after make's target.
#
# WERROR=1 turns warnings into errors, as check-all does; a released Makefile
# must not break on the warnings of a compiler that is newer than itself.

MODULE_big = epro_etl
EXTENSION = epro_etl
DATA = sql/epro_etl--0.1.0.sql sql/epro_etl--0.1.0--0.2.0.sql sql/epro_etl--0.2.0.sql
PGFILEDESC = "epro_etl - ePRO and EDC records into clinical tables, exactly once"

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*/*.c)))
HDRS = $(wildcard src/*/*.h)

# An include reads "words/compat.h": a reader sees the layer it comes from.
# POINTS=1, after a clean: with the named points of src/effects/point.h, for tests.
PG_CPPFLAGS = -I$(srcdir)/src $(if $(filter 1 yes,$(POINTS)),-DEPRO_POINTS)

# -Wextra, less what PostgreSQL's own headers and fmgr's calling convention
# raise. clang does not know all of the gcc flags and attributes that a server
# built with gcc hands on.
PG_CFLAGS = -Wall -Wextra \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	$(if $(findstring clang,$(CC)),-Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes) \
	$(if $(filter 1 yes,$(WERROR)),-Werror)

# The tests are scheduled by being there, in byte order of their names.
# Inputs live in test/sql, pg_regress finds expected/ at the top by itself.
REGRESS = $(sort $(basename $(notdir $(wildcard test/sql/*.sql))))
REGRESS_OPTS = --inputdir=test
ISOLATION = $(sort $(basename $(notdir $(wildcard test/isolation/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test/isolation

# Bitcode for the JIT needs the very clang that the server was built with, and
# nothing here is inlined into queries: off, unless asked for by with_llvm=yes.
ifneq ($(origin with_llvm),command line)
override with_llvm = no
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(wildcard $(PGXS)),)

include $(PGXS)

# The library that the server links already encrypts answers (src/stages/siv.c).
ifeq ($(with_ssl),openssl)
SHLIB_LINK += -lcrypto
endif

# PGXS tracks no headers: any header, or this file, makes all objects anew.
$(OBJS): $(HDRS) Makefile

clean: clean-tests

else

# Still usable on a machine without PostgreSQL: demo and check-all install it.
all install uninstall installcheck clean:
	@echo "PostgreSQL's server development files were not found through PG_CONFIG=$(PG_CONFIG)." >&2
	@echo "Install them (on Debian: bash test/setup.sh demo) or name another pg_config." >&2
	@exit 1

endif

# The scripts call make again and find their own way: no flags of this one.
.PHONY: demo check-all check-cassert check-sanitize check-valgrind check-planted check-points check-upgrade check-versions check-unit check-fuzz-corpus bench bench-claims bench-empty bench-growth bench-long bench-plot bench-race bench-memory bench-stream bench-stop bench-precision bench-front-ends bench-deid chaos clean-tests

demo:
	@PG_CONFIG='$(PG_CONFIG)' bash test/demo/demo.sh

check-all:
	@PG_CONFIG='$(PG_CONFIG)' bash test/check-all.sh

check-sanitize:
	@PG_CONFIG='$(PG_CONFIG)' bash test/checked/check.sh sanitize

check-cassert:
	@PG_CONFIG='$(PG_CONFIG)' bash test/checked/check.sh cassert

check-valgrind:
	@PG_CONFIG='$(PG_CONFIG)' bash test/checked/check.sh valgrind

check-versions:
	@bash test/versions/check.sh

check-upgrade:
	@bash test/versions/upgrade.sh

bench-race:
	@bash test/bench/race.sh

bench-memory:
	@bash test/bench/memory.sh $(or $(ROWS),100000 2000000)

bench-stream:
	@bash test/bench/latency.sh
	@bash test/bench/slow_stage.sh

bench-stop:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/stop.sh

bench-precision:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/precision.sh

bench:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/bench.sh

bench-claims:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/claims.sh

bench-empty:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/empty.sh

bench-growth:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/growth.sh

bench-long:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/long.sh

bench-plot:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/plot.sh

bench-front-ends:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/front_ends.sh

bench-deid:
	@PG_CONFIG='$(PG_CONFIG)' bash test/bench/deid.sh

chaos:
	@PG_CONFIG='$(PG_CONFIG)' MINUTES='$(MINUTES)' SEED='$(SEED)' bash test/check-all.sh chaos

check-planted:
	@PG_CONFIG='$(PG_CONFIG)' bash test/planted/check.sh

check-points:
	@PG_CONFIG='$(PG_CONFIG)' bash test/check-all.sh points

check-unit:
	$(MAKE) -C test/unit check PG_CONFIG='$(PG_CONFIG)'

ifneq ($(wildcard test/fuzz/Makefile),)
check-fuzz-corpus:
	$(MAKE) -C test/fuzz replay PG_CONFIG='$(PG_CONFIG)'
endif

clean-tests:
	$(foreach dir,$(patsubst %/Makefile,%,$(wildcard test/unit/Makefile test/fuzz/Makefile)),$(MAKE) -C $(dir) clean PG_CONFIG='$(PG_CONFIG)' &&) true
