/*
 * reader.c
 *		The head of a stream: finds rows in the source, gives each a place, and
 *		sends it on its way.
 *
 * The reader walks the source in passes, block by block.  A pass begins when
 * a commit has woken the stream, or after naptime; while a pass goes on it is
 * one walk, however long the flow makes it wait, so a backlog costs time in
 * proportion to its rows.  No transaction is open while it waits.
 *
 * It knows the rows that are on their way, so that none is handed out twice: a
 * row is an address and the version that was there.  Those that cannot be
 * moved now, because another session has locked them or a sink is away, are
 * held: they are known without having a place, so they do not stand in the
 * way of others; some of them are tried again each naptime, and when one
 * of these gets through, all are read anew.
 *
 * Nothing here is durable.  When the stream ends in any way, what was on its
 * way is still in the source, and is read again.
 */
#include "postgres.h"

#include "access/commit_ts.h"
#include "access/transam.h"
#include "effects/point.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "processes/reader.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "words/message.h"

/* how long to wait for room before looking at other things */
#define SEND_MS 50

/* between passes, however long they take */
#define MOST_PAUSE_MS 1000

/* held rows that are tried again at a time */
#define MOST_PROBES 64

/* held rows that are remembered; with more, nothing is read */
#define MOST_HELD 1000000

/* A row that is not to be handed out again. */
typedef struct Known
{
	Address		address;		/* the key; padding is zero */
	int32		place;			/* -1: held */
	bool		probe;			/* was held, and is tried again */
	uint32		round;			/* of probes, in which it was tried last */
	TimestampTz committed_at;
} Known;

struct Reader
{
	StreamShared *shared;
	Place	   *places;
	ChannelEnd *out;
	int			entry;			/* in the registry */
	Peek	   *peek;
	HTAB	   *known;
	int64		nheld;
	uint32		round;			/* of probes: each held row once */
	int32	   *free;			/* places that can be given */
	int			nfree;
	MessageHead *outgoing;		/* to be sent, from out_at on */
	int			nout;
	int			out_at;
	bool		in_pass;
	bool		read_anew;		/* a held row got through */
	int64		pass_spent;		/* microseconds of reading, in this pass */
	TimestampTz next_pass;		/* without a commit that wakes it */
	TimestampTz pause;			/* until then, no pass at all */
	TimestampTz committed_at;	/* of the rows of this pass, at the earliest */
	TimestampTz next_probe;
	MemoryContext step_memory;
};

static void send_outgoing(Reader *reader);
static void probe(Reader *reader);
static bool begin_pass(Reader *reader);
static void read_blocks(Reader *reader);
static bool give_place(Reader *reader, Known *known);
static void forget_held(Reader *reader);
static Known *find(Reader *reader, Address address, HASHACTION action, bool *found);
static TimestampTz commit_time(const Reader *reader, TransactionId xid);

/* Makes a reader in the current memory context, which must outlive it. */
Reader *
reader_create(StreamShared *shared, const Source *source, ChannelEnd *out,
			  int entry)
{
	Reader	   *reader = palloc0(sizeof(Reader));
	HASHCTL		control = {0};

	reader->shared = shared;
	reader->places = stream_places(shared);
	reader->out = out;
	reader->entry = entry;
	reader->peek = peek_create(source);
	reader->free = palloc(sizeof(int32) * shared->nplaces);
	for (int i = shared->nplaces - 1; i >= 0; i--)
		reader->free[reader->nfree++] = i;
	reader->outgoing = palloc(sizeof(MessageHead) * shared->nplaces);
	reader->step_memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl reader step",
												ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(Address);
	control.entrysize = sizeof(Known);
	control.hcxt = CurrentMemoryContext;
	reader->known = hash_create("epro_etl rows on their way", shared->nplaces, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return reader;
}

/*
 * Does what there is to do, a little of it: takes back places, sends, tries
 * held rows again, reads on.  False when there is nothing to do until
 * reader_next() or a wake-up.
 */
bool
reader_step(Reader *reader)
{
	reader_collect(reader);
	if (reader->read_anew)
		forget_held(reader);
	if (reader->out_at < reader->nout)
	{
		send_outgoing(reader);
		return true;
	}
	if (reader->nheld > 0 && GetCurrentTimestamp() >= reader->next_probe)
		probe(reader);
	if (reader->out_at < reader->nout)
		return true;
	if (reader->nfree == 0 || (!reader->in_pass && !begin_pass(reader)))
		return false;
	read_blocks(reader);
	return true;
}

/* When there may be something to do again, if nobody wakes the reader. */
TimestampTz
reader_next(const Reader *reader)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = reader->nfree == 0 ?
		TimestampTzPlusMilliseconds(now, reader->shared->naptime) :
		now < reader->pause ? reader->pause : reader->next_pass;

	return reader->nheld > 0 ? Min(next, reader->next_probe) : next;
}

/* Takes back the places of rows that the workers are done with. */
void
reader_collect(Reader *reader)
{
	TimestampTz oldest = 0;

	for (int i = 0; i < reader->shared->nplaces; i++)
	{
		Place	   *place = &reader->places[i];
		PlaceState	state = (PlaceState) pg_atomic_read_u32(&place->state);
		Known	   *known;

		if (state == PLACE_SENT && place->committed_at != 0 &&
			(oldest == 0 || place->committed_at < oldest))
			oldest = place->committed_at;
		if (state == PLACE_FREE || state == PLACE_SENT)
			continue;
		pg_read_barrier();
		known = find(reader, place->address, HASH_FIND, NULL);
		if (known != NULL)
		{
			if (known->probe && state == PLACE_SETTLED)
				reader->read_anew = true;
			if (state == PLACE_HELD)
			{
				known->place = -1;
				known->probe = false;
				if (reader->nheld++ == 0)
					reader->next_probe = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
																	 reader->shared->naptime);
			}
			else
				(void) find(reader, place->address, HASH_REMOVE, NULL);
		}
		pg_atomic_write_u32(&place->state, PLACE_FREE);
		reader->free[reader->nfree++] = i;
	}
	pg_atomic_write_u64(&reader->shared->in_flight, reader->shared->nplaces - reader->nfree);
	pg_atomic_write_u64(&reader->shared->held, reader->nheld);
	pg_atomic_write_u64(&reader->shared->oldest, (uint64) oldest);
}

/* As many as there is room for; the flow's pressure is felt here. */
static void
send_outgoing(Reader *reader)
{
	ChannelMessage messages[MOST_RECEIVED];
	int			n = Min(reader->nout - reader->out_at, MOST_RECEIVED);
	int			sent;

	for (int i = 0; i < n; i++)
	{
		messages[i].data = &reader->outgoing[reader->out_at + i];
		messages[i].len = sizeof(MessageHead);
	}
	POINT("reader.send");
	/* without a receiver there is none any more: whoever looks finds the cause */
	(void) channel_send(reader->out, messages, n, &sent, SEND_MS);
	reader->out_at += sent;
	if (reader->out_at == reader->nout)
		reader->out_at = reader->nout = 0;
}

/* Tries some of the held rows again. */
static void
probe(Reader *reader)
{
	HASH_SEQ_STATUS walk;
	Known	   *known;
	int			n = 0;

	reader->next_probe = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 reader->shared->naptime);
	hash_seq_init(&walk, reader->known);
	while ((known = hash_seq_search(&walk)) != NULL)
	{
		if (known->place >= 0 || known->round == reader->round)
			continue;
		if (n == MOST_PROBES || !give_place(reader, known))
		{
			hash_seq_term(&walk);
			return;
		}
		known->probe = true;
		known->round = reader->round;
		reader->nheld--;
		n++;
	}
	/* each has had its turn */
	reader->round++;
}

/* Begins a pass if there is a reason for it: a commit, or naptime is over. */
static bool
begin_pass(Reader *reader)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz woken;

	/* the clock may have been set back */
	if (reader->next_pass - now > (int64) reader->shared->naptime * 1000)
		reader->next_pass = reader->pause = now;
	if (now < reader->pause)
		return false;
	if (reader->nheld >= MOST_HELD)
	{
		reader->next_pass = TimestampTzPlusMilliseconds(now, reader->shared->naptime);
		return false;
	}
	woken = registry_woken(reader->entry);
	if (woken == 0 && now < reader->next_pass)
		return false;
	reader->pass_spent = 0;
	reader->committed_at = woken;
	reader->in_pass = true;
	peek_rewind(reader->peek);
	return true;
}

/* Some blocks, in a transaction of their own. */
static void
read_blocks(Reader *reader)
{
	MemoryContext caller = CurrentMemoryContext;
	Address    *rows;
	bool		at_end;
	bool		full = false;
	int			n;
	instr_time	began;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(began);
	MemoryContextReset(reader->step_memory);
	session_begin();
	MemoryContextSwitchTo(reader->step_memory);
	n = peek_rows(reader->peek, &rows, &at_end);
	POINT("reader.read");
	session_commit();
	MemoryContextSwitchTo(caller);

	for (int i = 0; i < n && !full; i++)
	{
		bool		found;
		Known	   *known = find(reader, rows[i], HASH_ENTER, &found);

		if (found)
			continue;
		known->place = -1;
		known->probe = false;
		known->round = reader->round - 1;
		known->committed_at = commit_time(reader, rows[i].xmin);
		full = !give_place(reader, known);
		if (full)
		{
			(void) find(reader, rows[i], HASH_REMOVE, NULL);
			peek_return(reader->peek, &rows[i]);
		}
	}
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, began);
	reader->pass_spent += (int64) INSTR_TIME_GET_MICROSEC(took);
	if (at_end && !full)
	{
		TimestampTz now = GetCurrentTimestamp();

		reader->in_pass = false;
		reader->next_pass = TimestampTzPlusMilliseconds(now, reader->shared->naptime);
		/* of a table full of dead rows, each pass is long: no more than half the time */
		reader->pause = now + Min(reader->pass_spent, (int64) MOST_PAUSE_MS * 1000);
	}
}

/* A place, and onto the list of what is to be sent; false when there is none. */
static bool
give_place(Reader *reader, Known *known)
{
	Place	   *place;
	MessageHead *head;

	if (reader->nfree == 0)
		return false;
	known->place = reader->free[--reader->nfree];
	place = &reader->places[known->place];
	place->address = known->address;
	place->committed_at = known->committed_at;
	pg_write_barrier();
	pg_atomic_write_u32(&place->state, PLACE_SENT);

	head = &reader->outgoing[reader->nout++];
	memset(head, 0, sizeof(*head));
	head->place = known->place;
	head->form = -1;
	return true;
}

/* What was held can get through now: it is to be read anew. */
static void
forget_held(Reader *reader)
{
	HASH_SEQ_STATUS walk;
	Known	   *known;

	hash_seq_init(&walk, reader->known);
	while ((known = hash_seq_search(&walk)) != NULL)
	{
		if (known->place < 0)
			(void) hash_search(reader->known, &known->address, HASH_REMOVE, NULL);
	}
	reader->nheld = 0;
	reader->read_anew = false;
	reader->next_pass = reader->pause = 0;
}

static Known *
find(Reader *reader, Address address, HASHACTION action, bool *found)
{
	Address		key;

	memset(&key, 0, sizeof(key));
	key.file = address.file;
	key.xmin = address.xmin;
	key.tid = address.tid;
	return hash_search(reader->known, &key, action, found);
}

/* Exactly, where the server keeps that; else the first commit that woke us. */
static TimestampTz
commit_time(const Reader *reader, TransactionId xid)
{
	TimestampTz at;

	if (track_commit_timestamp && TransactionIdIsNormal(xid) &&
		TransactionIdGetCommitTsData(xid, &at, NULL))
		return at;
	return reader->committed_at;
}
