/*
 * reader.h
 *		The head of a stream: finds rows and sends them on their way.
 */
#ifndef EPRO_ETL_READER_H
#define EPRO_ETL_READER_H

#include "postgres.h"

#include "processes/stream.h"

typedef struct Reader Reader;

extern Reader *reader_create(StreamShared *shared, const Source *source,
							 ChannelEnd *out, int entry);
extern bool reader_step(Reader *reader);
extern void reader_collect(Reader *reader);
extern TimestampTz reader_next(const Reader *reader);

#endif							/* EPRO_ETL_READER_H */
