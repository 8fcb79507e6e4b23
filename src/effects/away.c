/*
 * away.c
 *		Sinks on other servers that do not answer.
 *
 * A remote sink whose server cannot be reached, breaks off or takes too long
 * is away: for a pause, which doubles each time it is found away again, nobody
 * in this process tries it.  What is to be done with its rows meanwhile is for
 * the pipeline to say.
 *
 * Known to one process only; the others find out by themselves.
 */
#include "postgres.h"

#include "effects/context.h"
#include "effects/effects.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/errors.h"

#define FIRST_PAUSE_MS 1000

typedef struct Away
{
	int64		sink_id;
	TimestampTz until;
	int			failures;		/* in a row */
} Away;

static Away *aways = NULL;
static int	naways = 0;
static int	room = 0;

static bool out_of_patience = false;	/* the last one has ended */

static Away *find(int64 sink_id);

/* Is it not to be tried now? */
bool
sink_is_away(const Sink *sink)
{
	Away	   *away = naways > 0 ? find(sink->id) : NULL;

	return away != NULL && GetCurrentTimestamp() < away->until;
}

/* Notes that a remote sink does not answer, and says so in the log. */
void
sink_went_away(const Sink *sink, int sqlstate)
{
	Away	   *away = find(sink->id);
	long		pause;

	if (away == NULL)
	{
		if (naways == room)
		{
			room = Max(8, room * 2);
			aways = aways ? repalloc(aways, sizeof(Away) * room) :
				MemoryContextAlloc(TopMemoryContext, sizeof(Away) * room);
		}
		away = &aways[naways++];
		memset(away, 0, sizeof(*away));
		away->sink_id = sink->id;
	}
	pause = doubling_pause(FIRST_PAUSE_MS, away->failures);
	away->failures++;
	away->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	ereport(LOG,
			(errmsg("epro_etl sink %s is away (SQLSTATE %s), and is tried again in %ld ms",
					sink->name, unpack_sql_state(sqlstate), pause)));
}

/* It has taken rows. */
void
sink_came_back(const Sink *sink)
{
	Away	   *away = naways > 0 ? find(sink->id) : NULL;

	if (away != NULL)
		*away = aways[--naways];
}

/*
 * Does an error that a sink raised say that its server is away, or not fit to
 * take rows?  Everything that is not the data's fault does, but what has to be
 * tried again at once, and a cancel of this very process.  That a relation,
 * column, right or login is missing there is not the data's fault either.
 */
bool
error_is_away(const Sink *sink, const ErrorData *error)
{
	if (!sink->remote || error_is_ours(error))
		return false;
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case MAKE_SQLSTATE('0', 'A', '0', '0', '0'):	/* not supported */
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):	/* authorization */
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):	/* no such database */
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):	/* no such schema */
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* no such relation, no right */
			return true;
	}
	/* postgres_fdw's "password is required": a user mapping is wrong */
	if (error->sqlerrcode == ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED)
		return true;
	if (error_is_datas(error->sqlerrcode))
		return false;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_T_R_DEADLOCK_DETECTED))
		return false;
	/* a cancel raised by the other server says nothing about us */
	if (error_is_own_cancel(error))
		return out_of_patience;
	return true;
}

/*
 * Is an error the fault of the rows that were being stored?  sink is the remote
 * one that they were sent to, or NULL.
 */
bool
error_is_rows(const Sink *sink, const ErrorData *error)
{
	return error_is_datas(error->sqlerrcode) &&
		(sink == NULL || !error_is_away(sink, error));
}

/* Before rows go to a remote sink: for how long we wait (0: for ever). */
void
patience_begin(Patience *patience, int milliseconds)
{
	out_of_patience = false;
	patience->granted = milliseconds > 0;
	if (patience->granted)
		budget_grant(&patience->budget,
					 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds));
}

/*
 * They have gone; or not, then with the error, before anything is rolled back.
 * Nothing if it has not begun, or has ended.
 */
void
patience_end(Patience *patience, ErrorData *error)
{
	if (!patience->granted)
		return;
	out_of_patience = error != NULL && budget_has_ended(&patience->budget, error);
	budget_return(&patience->budget);
	patience->granted = false;
}

static Away *
find(int64 sink_id)
{
	for (int i = 0; i < naways; i++)
	{
		if (aways[i].sink_id == sink_id)
			return &aways[i];
	}
	return NULL;
}
