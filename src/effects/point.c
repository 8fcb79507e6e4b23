/*
 * point.c
 *		What a test has ordered at a named point; see point.h.
 *
 * The orders are symbolic links in a folder of the data directory, so that they
 * reach every process, also one without a database, and outlive a restart:
 *
 *		NAME.error.N -> SQLSTATE	the N-th to come here raises that error
 *		NAME.wait.N -> anything		the N-th to come here waits
 *
 * N counts over all processes: who comes renames N to N - 1, or removes the 1 and
 * has won.  Two who come at once must both count, so it is done under a lock of
 * the folder, the kernel's: the server's own are what a point under test may
 * hold, or have lost.  Who waits makes the folder
 * NAME.waiting.PID and goes on when it is gone; who comes at all leaves the
 * folder NAME.reached.  Nothing is read or written while the folder of the
 * orders is not there.
 */
#include "postgres.h"

#include "effects/point.h"

#ifdef EPRO_POINTS

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/elog.h"

#define FOLDER "epro_etl_points"
#define ERRCODE_POINT MAKE_SQLSTATE('E', 'P', '9', '9', '9')

/* the greatest N of an order */
#define MOST_TURNS 9
#define LOOK_MS 5

static bool is_our_turn(const char *name, const char *action, char *argument,
						size_t size);
static bool count_down(const char *name, const char *action, char *argument,
					   size_t size);
static void wait_here(const char *name, bool may_raise);

/* Does what is ordered for this point.  An error is raised only if it may be. */
void
point_reached(const char *name, bool may_raise)
{
	int			saved_errno = errno;
	char		path[MAXPGPATH];
	char		argument[6];

	if (access(FOLDER, F_OK) == 0)
	{
		snprintf(path, sizeof(path), FOLDER "/%s.reached", name);
		(void) mkdir(path, S_IRWXU);
		if (may_raise && is_our_turn(name, "error", argument, sizeof(argument)))
			ereport(ERROR,
					(errcode(strlen(argument) == 5 ?
							 MAKE_SQLSTATE(argument[0], argument[1], argument[2], argument[3], argument[4]) :
							 ERRCODE_POINT),
					 errmsg("a test has ordered this error, at point \"%s\"", name)));
		if (is_our_turn(name, "wait", argument, sizeof(argument)))
			wait_here(name, may_raise);
	}
	errno = saved_errno;
}

/* Counts an order down; true when it is fulfilled by us, with what the link says. */
static bool
is_our_turn(const char *name, const char *action, char *argument, size_t size)
{
	int			folder = BasicOpenFile(FOLDER, O_RDONLY);
	bool		ours;

	if (folder < 0)
		return false;
	while (flock(folder, LOCK_EX) != 0 && errno == EINTR)
		;
	ours = count_down(name, action, argument, size);
	(void) close(folder);
	return ours;
}

/* The caller holds the lock of the folder. */
static bool
count_down(const char *name, const char *action, char *argument, size_t size)
{
	char		path[MAXPGPATH];
	char		next[MAXPGPATH];

	for (int n = 1; n <= MOST_TURNS; n++)
	{
		ssize_t		len;

		snprintf(path, sizeof(path), FOLDER "/%s.%s.%d", name, action, n);
		len = n == 1 ? readlink(path, argument, size - 1) : 0;
		if (n == 1 && len >= 0)
		{
			argument[len] = '\0';
			return unlink(path) == 0;
		}
		if (n > 1 && rename(path, next) == 0)
			return false;
		strlcpy(next, path, sizeof(next));
	}
	return false;
}

/* Until the folder is gone; an interrupt ends it only where an error may be raised. */
static void
wait_here(const char *name, bool may_raise)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), FOLDER "/%s.waiting.%d", name, MyProcPid);
	(void) mkdir(path, S_IRWXU);
	while (access(path, F_OK) == 0)
	{
		if (may_raise)
			CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	/* it may have been set for others too */
	SetLatch(MyLatch);
}

#endif							/* EPRO_POINTS */
