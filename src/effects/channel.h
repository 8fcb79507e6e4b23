/*
 * channel.h
 *		A bounded queue of messages between processes: many senders, many
 *		receivers, first in first out.
 */
#ifndef EPRO_ETL_CHANNEL_H
#define EPRO_ETL_CHANNEL_H

#include "postgres.h"

#include "storage/dsm.h"

typedef struct Channel Channel; /* in shared memory */

typedef enum ChannelSide
{
	CHANNEL_SENDER = 0,
	CHANNEL_RECEIVER
} ChannelSide;

typedef enum ChannelResult
{
	CHANNEL_DONE = 0,			/* at least one message was moved */
	CHANNEL_CLOSED,				/* receiving: closed and drained */
	CHANNEL_BROKEN,				/* sending: no receiver is left */
	CHANNEL_TIMEOUT				/* nothing was moved in the time given */
} ChannelResult;

/*
 * A process's hold on one side of a channel; private to the process.  Attached
 * with a segment, it must outlive the segment's mapping.
 */
typedef struct ChannelEnd
{
	Channel    *channel;
	dsm_segment *segment;		/* whose detach lets go, or NULL */
	ChannelSide side;
	bool		attached;
} ChannelEnd;

/* A message to be sent: bytes, not a pointer into the channel. */
typedef struct ChannelMessage
{
	const void *data;
	Size		len;
} ChannelMessage;

/* What stat_channel shows, at one moment. */
typedef struct ChannelStat
{
	int			depth;
	int			capacity;
	int64		sent;
	int64		received;
	int64		waits_for_room;
	int64		waits_for_rows;
	int			senders;		/* that may still send, also those yet to come */
	int			receivers;		/* likewise */
	bool		closed;
} ChannelStat;

extern Size channel_size(int capacity, Size bound);
extern void channel_init(Channel *channel, int tranche, int capacity,
						 Size bound, int senders, int receivers);
extern void channel_attach(ChannelEnd *end, Channel *channel,
						   ChannelSide side, dsm_segment *segment);
extern void channel_detach(ChannelEnd *end);
extern void channel_give_up(Channel *channel, ChannelSide side);
extern ChannelResult channel_send(ChannelEnd *end,
								  const ChannelMessage *messages, int n,
								  int *sent, long timeout_ms);
extern ChannelResult channel_receive(ChannelEnd *end, int most,
									 char *buffer, Size *lens, int *received,
									 long timeout_ms);
extern void channel_close(ChannelEnd *end);
extern void channel_stat(Channel *channel, ChannelStat *stat);

#endif							/* EPRO_ETL_CHANNEL_H */
