/*
 * fuzz_server.c
 *		The harness: feeds inputs to a target inside a real backend.
 *
 * What is fuzzed here needs palloc(), ereport(), numeric, jsonb and the server's
 * regular expressions, so this is a module that a server of one process
 * (postgres --single) loads.  Two functions: fuzz_run() hands over to libFuzzer,
 * where that is linked in, and fuzz_replay() runs named files.
 *
 * Each input has a memory context of its own (memory.c), which is deleted after
 * it, together with all contexts below; a chunk that is there still is a failure.
 * So is every error that comes out of a target, an assertion that does not hold
 * and a property that roads.c finds broken: all of them abort().  No input writes
 * anything or takes a resource that only a transaction's end frees, so there is
 * no subtransaction.
 *
 * An input may take so many seconds of the processor's time.  libFuzzer's own
 * timeout goes by the clock on the wall, which also runs while a busy machine
 * does something else.
 *
 * Leaks of the process as a whole are not looked for: the server itself leaves
 * to the end of the process what it has malloc()ed, and what the extension
 * allocates belongs to a context, whose chunks are counted.
 *
 * One process, one thread of ours; libFuzzer's own thread only watches memory.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "fuzz_server.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fuzz_run);
PG_FUNCTION_INFO_V1(fuzz_replay);

/* Of the processor's time, for one input. */
#define MOST_SECONDS 30

/* What the targets' files are in. */
const char *fuzz_folder;

static const FuzzTarget *target;

static void open_target(const char *name, const char *folder);
static int	run_input(const uint8 *data, size_t size);
static void set_limit(int seconds);
static void limit_reached(int signal_number);
static char **texts_of(ArrayType *array, int *n);
static char *read_input(const char *path, size_t *size);

#ifdef WITH_LIBFUZZER
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*run) (const uint8 *data, size_t size));

/* Signals are libFuzzer's, which leaves alone what has a handler already. */
static void
give_signals(void)
{
	static const int given[] = {SIGINT, SIGTERM, SIGFPE, SIGHUP, SIGUSR1, SIGUSR2};

	for (int i = 0; i < (int) lengthof(given); i++)
		pqsignal(given[i], SIG_DFL);
	/* the server sets alarms at its start and its end, which mean nothing here */
	pqsignal(SIGALRM, SIG_IGN);
}
#endif

/*
 * fuzz_run(target, folder, arguments): until libFuzzer has enough, which then
 * ends the process.  The arguments are libFuzzer's.
 */
Datum
fuzz_run(PG_FUNCTION_ARGS)
{
#ifdef WITH_LIBFUZZER
	int			n;
	char	  **given = texts_of(PG_GETARG_ARRAYTYPE_P(2), &n);
	char	  **argv = palloc0(sizeof(char *) * (n + 2));

	open_target(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)));
	argv[0] = "epro_etl_fuzz";
	memcpy(argv + 1, given, sizeof(char *) * n);
	n++;
	give_signals();
	(void) LLVMFuzzerRunDriver(&n, &argv, run_input);
	PG_RETURN_VOID();
#else
	elog(ERROR, "this module was built without libFuzzer");
#endif
}

/*
 * fuzz_replay(target, folder, files): each file once, told of on standard error
 * when it is through.
 */
Datum
fuzz_replay(PG_FUNCTION_ARGS)
{
	int			n;
	char	  **files = texts_of(PG_GETARG_ARRAYTYPE_P(2), &n);

	open_target(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)));
	/* the server's prompt stands in the line */
	fputc('\n', stderr);
	for (int i = 0; i < n; i++)
	{
		size_t		size;
		char	   *data = read_input(files[i], &size);

		(void) run_input((const uint8 *) data, size);
		free(data);
		fprintf(stderr, "passed: %s\n", files[i]);
	}
	PG_RETURN_VOID();
}

/* A property that does not hold. */
void
fuzz_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	abort();
}

/* An error that nobody should have raised. */
void
fuzz_fail_error(const char *where, const ErrorData *error)
{
	fprintf(stderr, "%s: error %s: %s (%s:%d, %s)\n", where, unpack_sql_state(error->sqlerrcode),
			error->message ? error->message : "", error->filename ? error->filename : "?",
			error->lineno, error->funcname ? error->funcname : "?");
	abort();
}

static void
open_target(const char *name, const char *folder)
{
	MemoryContext caller;

	fuzz_folder = MemoryContextStrdup(TopMemoryContext, folder);
	for (int i = 0; i < fuzz_ntargets; i++)
	{
		if (strcmp(fuzz_targets[i].name, name) == 0)
			target = &fuzz_targets[i];
	}
	if (target == NULL)
		elog(ERROR, "there is no target \"%s\"", name);
	pqsignal(SIGPROF, limit_reached);
	caller = MemoryContextSwitchTo(fuzz_memory(TopMemoryContext, "forms of the fuzz target"));
	if (target->prepare != NULL)
		target->prepare();
	MemoryContextSwitchTo(caller);
}

/* Also what libFuzzer calls. */
static int
run_input(const uint8 *data, size_t size)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory;
	volatile int result = FUZZ_TAKEN;
	long		before = fuzz_memory_live();

	set_limit(MOST_SECONDS);
	memory = fuzz_memory(TopMemoryContext, "input");
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		result = target->run((const char *) data, size);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		/* how deep the stack may be is no property of ours, but that it is asked is */
		if (error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX)
			fuzz_fail_error(target->name, error);
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	MUST(fuzz_memory_live() == before);
	set_limit(0);
	return result;
}

/* From now on; 0: none. */
static void
set_limit(int seconds)
{
	struct itimerval timer = {0};

	timer.it_value.tv_sec = seconds;
	MUST(setitimer(ITIMER_PROF, &timer, NULL) == 0);
}

static void
limit_reached(int signal_number)
{
	static const char says[] = "ERROR: the input takes too much of the processor's time\n";

	if (write(STDERR_FILENO, says, sizeof(says) - 1) < 0)
		_exit(1);
	abort();
}

static char **
texts_of(ArrayType *array, int *n)
{
	Datum	   *elements;
	char	  **texts;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, n);
	texts = palloc(sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		texts[i] = TextDatumGetCString(elements[i]);
	return texts;
}

/* A file's bytes, in memory just as long; to be freed. */
static char *
read_input(const char *path, size_t *size)
{
	FILE	   *file = fopen(path, "rb");
	char	   *data;
	long		len;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (len = ftell(file)) < 0 ||
		fseek(file, 0, SEEK_SET) != 0)
		elog(ERROR, "cannot read \"%s\"", path);
	*size = (size_t) len;
	data = malloc(*size);
	if (*size > 0 && (data == NULL || fread(data, 1, *size, file) != *size))
		elog(ERROR, "cannot read \"%s\"", path);
	fclose(file);
	return data;
}
