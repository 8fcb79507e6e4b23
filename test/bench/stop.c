/*
 * stop.c
 *		How long it takes from the end of a caller's time to the caller's error.
 *
 * The client of stop.sh: psql's own start must not be in the figure, so the
 * caller and the one who cancels are two connections held here.  Each try
 * starts a run with four workers, waits until the live view shows all of them
 * past their first chunk and at work, and measures by the monotonic clock how
 * long after the cancel, or after the instant of the timeout, the error has been
 * read.  Then it asks whether a worker is left.  A try in which the workers
 * were not there in time, or were through, says nothing and is made again.
 *
 *		stop TRIES		libpq's variables name the database, stop.sh makes it
 *
 * Prints a line a way; exit code 1 when an answer was not the right one, when a
 * worker was left, or when the rows do not add up.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define WORKERS 4
/* how long any answer may take, in ms, until the bench gives up */
#define PATIENCE_MS 60000
/* workers reach their places within this, or they never do */
#define BUSY_MS 10000
/* the cancel comes up to so much later, so that it hits a chunk anywhere */
#define SPREAD_MS 20

#define SURVIVORS "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'"
#define BUSY "SELECT count(*) FROM epro_etl.stat_progress " \
	"WHERE pipeline = 'bench_stop' AND tuples_processed > 0 AND phase IN ('validating', 'storing')"

typedef enum Way
{
	CANCEL,
	STATEMENT,
	RUN,
} Way;

static const struct
{
	const char *name;
	const char *sqlstate;
}			ways[] = {
	[CANCEL] = {"pg_cancel_backend", "57014"},
	[STATEMENT] = {"statement_timeout", "57014"},
	[RUN] = {"run(timeout)", "EP001"},
};

static PGconn *caller;
static PGconn *other;

/* the time that a timeout gets, in ms, so that the workers are busy at its end */
static double allowance = 100;

static void measure(Way way, int tries);
static double one_try(Way way);
static double error_after(Way way, double since);
static bool wait_busy(double began);
static bool answered(PGconn *conn, double wait_ms);
static double now_ms(void);
static void sleep_ms(double ms);
static long number(PGconn *conn, const char *query);
static void command(PGconn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void give_up(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static PGconn *connect_or_exit(void);
static int	by_size(const void *a, const void *b);

int
main(int argc, char **argv)
{
	int			tries = argc == 2 ? atoi(argv[1]) : 0;

	if (tries < 1)
	{
		fprintf(stderr, "usage: stop TRIES\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	srand(1);
	caller = connect_or_exit();
	other = connect_or_exit();

	printf("%-20s %6s %8s %8s %8s %10s\n", "by", "tries", "p50 ms", "p99 ms", "max ms", "made again");
	for (Way way = CANCEL; way <= RUN; way++)
		measure(way, tries);
	command(other, "SELECT bench_stop.check_rows()");
	PQfinish(caller);
	PQfinish(other);
	return 0;
}

/* Prints the percentiles of so many tries (the nearest rank). */
static void
measure(Way way, int tries)
{
	double	   *took = malloc(sizeof(double) * tries);
	int			again = 0;

	for (int done = 0; done < tries;)
	{
		double		ms = one_try(way);

		if (ms >= 0)
			took[done++] = ms;
		else if (++again > 2 * tries + 20)
			give_up("%s: the %d workers are not found at work", ways[way].name, WORKERS);
	}
	qsort(took, tries, sizeof(double), by_size);
	printf("%-20s %6d %8.1f %8.1f %8.1f %10d\n", ways[way].name, tries,
		   took[(int) ceil(0.50 * tries) - 1], took[(int) ceil(0.99 * tries) - 1],
		   took[tries - 1], again);
	free(took);
}

/* In ms; less than zero: the workers were not where they should have been. */
static double
one_try(Way way)
{
	double		began;
	double		end;
	double		took;
	char		query[200];
	bool		busy;

	command(other, "SELECT bench_stop.restage()");
	end = floor(allowance + (double) rand() / RAND_MAX * SPREAD_MS);
	if (way == STATEMENT)
		command(caller, "SET statement_timeout = '%.0f ms'", end);
	snprintf(query, sizeof(query), "SELECT * FROM epro_etl.run('bench_stop', workers => %d", WORKERS);
	if (way == RUN)
		snprintf(query + strlen(query), sizeof(query) - strlen(query), ", timeout => '%.0f ms'", end);
	strcat(query, ")");

	began = now_ms();
	if (!PQsendQuery(caller, query))
		give_up("%s", PQerrorMessage(caller));
	busy = wait_busy(began);
	if (way == CANCEL)
	{
		if (busy)
		{
			/* the others' time, from what this one needed */
			allowance = fmax(allowance, now_ms() - began + SPREAD_MS);
			sleep_ms((double) rand() / RAND_MAX * SPREAD_MS);
			busy = !answered(caller, 0);
		}
		snprintf(query, sizeof(query), "SELECT pg_cancel_backend(%d)", PQbackendPID(caller));
		began = now_ms();
		end = 0;
		if (!PQsendQuery(other, query))
			give_up("%s", PQerrorMessage(other));
	}
	else if (!busy)
		allowance *= 1.1;
	took = error_after(way, began + end);
	if (way == CANCEL)
	{
		while (!answered(other, PATIENCE_MS))
			give_up("the cancel is not answered");
		for (PGresult *result; (result = PQgetResult(other)) != NULL;)
			PQclear(result);
	}
	if (number(caller, SURVIVORS) != 0)
		give_up("%s: a worker is left", ways[way].name);
	if (way == STATEMENT)
		command(caller, "RESET statement_timeout");
	return busy ? took : -1;
}

/*
 * Waits for the caller's error, which has to be the right one.  In ms from the
 * given instant; less than zero when the run was through before.
 */
static double
error_after(Way way, double since)
{
	double		took = 0;
	bool		through = false;

	if (!answered(caller, PATIENCE_MS))
		give_up("%s: no answer in %d ms", ways[way].name, PATIENCE_MS);
	took = now_ms() - since;
	for (PGresult *result; (result = PQgetResult(caller)) != NULL; PQclear(result))
	{
		const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

		if (sqlstate == NULL)
			through = true;
		else if (strcmp(sqlstate, ways[way].sqlstate) != 0)
			give_up("%s: %s", ways[way].name, PQresultErrorMessage(result));
	}
	return through ? -1 : took;
}

/*
 * Waits until all workers are past their first chunk and at work; false when the
 * caller has had its answer before.
 */
static bool
wait_busy(double began)
{
	while (number(other, BUSY) < WORKERS)
	{
		if (answered(caller, 0))
			return false;
		if (now_ms() - began > BUSY_MS)
			give_up("the workers did not come to work in %d ms", BUSY_MS);
		sleep_ms(1);
	}
	return !answered(caller, 0);
}

/* Has the answer arrived, or does it within that time? */
static bool
answered(PGconn *conn, double wait_ms)
{
	double		until = now_ms() + wait_ms;

	for (;;)
	{
		struct pollfd socket = {.fd = PQsocket(conn), .events = POLLIN};
		double		left = until - now_ms();

		if (!PQconsumeInput(conn))
			give_up("%s", PQerrorMessage(conn));
		if (!PQisBusy(conn))
			return true;
		if (left <= 0)
			return false;
		if (poll(&socket, 1, (int) ceil(left)) < 0 && errno != EINTR)
			give_up("poll: %s", strerror(errno));
	}
}

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void
sleep_ms(double ms)
{
	struct timespec time = {.tv_sec = (time_t) (ms / 1e3), .tv_nsec = (long) (fmod(ms, 1e3) * 1e6)};

	nanosleep(&time, NULL);
}

static long
number(PGconn *conn, const char *query)
{
	PGresult   *result = PQexec(conn, query);
	long		value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		give_up("%s", PQerrorMessage(conn));
	value = atol(PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

static void
command(PGconn *conn, const char *format, ...)
{
	char		text[200];
	va_list		arguments;
	PGresult   *result;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	result = PQexec(conn, text);
	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		give_up("%s", PQerrorMessage(conn));
	PQclear(result);
}

static void
give_up(const char *format, ...)
{
	va_list		arguments;

	fprintf(stderr, "stop: ");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static PGconn *
connect_or_exit(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		give_up("%s", PQerrorMessage(conn));
	return conn;
}

static int
by_size(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}
