/*
 * log_ahead.c
 *		Having the log of a chunk written while the chunk goes on.
 *
 * A commit waits until its log is on the disk.  A chunk writes megabytes of it,
 * most when it claims; left to the commit, the worker would write and sync all
 * of that itself, and do nothing else.  The WAL writer can do so meanwhile.  It
 * is told what an asynchronous commit tells it: that somebody wants the log up
 * to here.  The commit still waits for all of its log, there is only less left.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "effects/effects.h"

/* what the WAL writer syncs at once by default (wal_writer_flush_after) */
#define LOG_STEP (1024 * 1024)

/* Tells the WAL writer, once in a while; nothing if nothing was written. */
void
log_ahead(void)
{
	static XLogRecPtr told = InvalidXLogRecPtr;

	if (XactLastRecEnd == InvalidXLogRecPtr || XactLastRecEnd < told + LOG_STEP)
		return;
	told = XactLastRecEnd;
	XLogSetAsyncXactLSN(told);
}
