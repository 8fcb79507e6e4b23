/*
 * errors.h
 *		The registry of the extension's own SQLSTATEs: class EP.
 *
 * The standard's code is used wherever one fits; these are the conditions it
 * has no word for.  A code, once released, keeps its meaning.
 */
#ifndef EPRO_ETL_ERRORS_H
#define EPRO_ETL_ERRORS_H

#include "postgres.h"

/*
 * The domain of this extension's messages.  ereport() notes it in the error, so
 * that our own texts, which hold no data, can be told from all others.
 */
#undef TEXTDOMAIN
#define TEXTDOMAIN "epro_etl"

/* a budget is over: of a run, with_timeout() or study_participants() (the caller's
 * statement_timeout is 57014) */
#define ERRCODE_EPRO_DEADLINE_EXCEEDED	MAKE_SQLSTATE('E','P','0','0','1')
/* a worker of the run ended without saying why (killed, or never started) */
#define ERRCODE_EPRO_WORKER_LOST		MAKE_SQLSTATE('E','P','0','0','2')
/* a form definition was refused; the message names the JSON Pointer */
#define ERRCODE_EPRO_FORM_REFUSED		MAKE_SQLSTATE('E','P','0','0','3')
/* an edit check's expression was refused for what it does, not its syntax */
#define ERRCODE_EPRO_CHECK_REFUSED		MAKE_SQLSTATE('E','P','0','0','4')
/* the pseudonym key is missing, empty or not protected */
#define ERRCODE_EPRO_KEY_REFUSED		MAKE_SQLSTATE('E','P','0','0','5')
/* a source, sink or hop is not, or gives not, what it should */
#define ERRCODE_EPRO_RELATION_UNFIT		MAKE_SQLSTATE('E','P','0','0','6')
/* a run stopped itself: too many responses were rejected, or broke the rule of a batch threshold */
#define ERRCODE_EPRO_STOPPED			MAKE_SQLSTATE('E','P','0','0','7')

/* a required sink is away: its responses are held, and the chunk done without */
#define ERRCODE_EPRO_SINK_AWAY			MAKE_SQLSTATE('E','P','0','0','8')

#endif							/* EPRO_ETL_ERRORS_H */
