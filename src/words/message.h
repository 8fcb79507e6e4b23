/*
 * message.h
 *		A response as bytes, on its way from one stage group to the next.
 */
#ifndef EPRO_ETL_MESSAGE_H
#define EPRO_ETL_MESSAGE_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "words/response.h"

/*
 * How each message begins.  One without a body is an address only: whoever
 * receives it reads the row in the source and does the earlier stages itself.
 */
typedef struct MessageHead
{
	int32		place;			/* in the stream's table of rows on their way */
	int32		form;			/* index in the pipeline; -1: no such form */
	bool		has_body;
	bool		ended;			/* judged to the end: no stage has more to say */
	bool		deferred;		/* and it is to stay in the source */
} MessageHead;

extern void message_begin(StringInfo message, int32 place);
extern void message_pack(StringInfo message, int32 form_index, bool ended,
						 bool deferred, const CompiledForm *form, const Response *response,
						 bool identified);
extern MessageHead message_head(const char *data, Size len);
extern void message_unpack(const char *data, Size len,
						   const CompiledForm *form, Response *response);

#endif							/* EPRO_ETL_MESSAGE_H */
