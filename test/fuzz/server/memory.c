/*
 * memory.c
 *		A memory context of which the address sanitizer sees each chunk.
 *
 * The server's own contexts cut chunks out of large blocks: what is read beyond
 * a chunk's end, or after pfree(), is inside a block all the same, and no
 * sanitizer says a word.  Here every chunk is its own malloc(), exactly as long
 * as was asked for, and a reset frees all of them.  The build redirects
 * AllocSetContextCreate() of the extension's files to fuzz_memory(), so that the
 * contexts they make are of this kind, too.
 *
 * What it does not see.  The server itself is not built with a sanitizer: its
 * reads and writes are seen only where they go through memcpy(), strlen() and
 * the like, which the sanitizer replaces.  Contexts that the server makes inside
 * its own functions (hash tables, the regular expressions' blocks) are its own.
 * Texts inside one chunk (a key inside a jsonb) are one chunk: reading from one
 * into its neighbour is not seen here, but may be by comparing results (roads.c).
 *
 * Since version 16 the server finds a chunk's methods by bits of its header, and
 * there is no place for ours: there, a context of the server's kind with the
 * smallest blocks it knows, where what is longer than some hundred bytes is its
 * own malloc().
 *
 * One process, one thread; no locks.
 */
#include "postgres.h"

#include "fuzz_server.h"
#include "lib/ilist.h"
#include "utils/memutils.h"


#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_SANITIZER
#endif

#ifdef HAS_SANITIZER
#include <sanitizer/asan_interface.h>
#define SHUT(address, len) __asan_poison_memory_region(address, len)
#define OPEN(address, len) __asan_unpoison_memory_region(address, len)
#else
#define SHUT(address, len) ((void) (address))
#define OPEN(address, len) ((void) (address))
#endif

static long live = 0;

/* Chunks that are there, of all contexts of this kind. */
long
fuzz_memory_live(void)
{
	return live;
}

#if PG_VERSION_NUM < 160000

typedef struct Memory
{
	MemoryContextData header;
	dlist_head	chunks;
} Memory;

/* What stands before a chunk; its end is where the server looks for the context. */
typedef struct Chunk
{
	dlist_node	node;
	Size		size;
	MemoryContext context;
} Chunk;

#define CHUNK_HEAD		MAXALIGN(sizeof(Chunk))
#define CHUNK_OF(data)	((Chunk *) ((char *) (data) - CHUNK_HEAD))
#define DATA_OF(chunk)	((void *) ((char *) (chunk) + CHUNK_HEAD))

StaticAssertDecl(sizeof(Chunk) == CHUNK_HEAD, "the context must be right before the data");

static void *memory_alloc(MemoryContext context, Size size);
static void memory_free(MemoryContext context, void *data);
static void *memory_realloc(MemoryContext context, void *data, Size size);
static void memory_reset(MemoryContext context);
static void memory_delete(MemoryContext context);
static Size memory_space(MemoryContext context, void *data);
static bool memory_is_empty(MemoryContext context);
static void memory_stats(MemoryContext context, MemoryStatsPrintFunc print, void *extra,
						 MemoryContextCounters *totals, bool to_stderr);
#ifdef MEMORY_CONTEXT_CHECKING
static void memory_check(MemoryContext context);
#endif

static const MemoryContextMethods methods = {
	.alloc = memory_alloc,
	.free_p = memory_free,
	.realloc = memory_realloc,
	.reset = memory_reset,
	.delete_context = memory_delete,
	.get_chunk_space = memory_space,
	.is_empty = memory_is_empty,
	.stats = memory_stats,
#ifdef MEMORY_CONTEXT_CHECKING
	.check = memory_check,
#endif
};

/* A context below parent.  To the server it is an AllocSet by name only. */
MemoryContext
fuzz_memory(MemoryContext parent, const char *name)
{
	Memory	   *memory = calloc(1, sizeof(Memory));

	MUST(memory != NULL);
	dlist_init(&memory->chunks);
	MemoryContextCreate(&memory->header, T_AllocSetContext, &methods, parent, name);
	return &memory->header;
}

/* The neighbours' heads are shut: linking opens and shuts them again. */
static void
link_chunk(Memory *memory, Chunk *chunk)
{
	dlist_node *first = memory->chunks.head.next;

	if (first != &memory->chunks.head)
		OPEN(first, sizeof(Chunk));
	dlist_push_head(&memory->chunks, &chunk->node);
	if (first != &memory->chunks.head)
		SHUT(first, sizeof(Chunk));
	live++;
}

static void
unlink_chunk(Memory *memory, Chunk *chunk)
{
	dlist_node *previous = chunk->node.prev;
	dlist_node *next = chunk->node.next;
	dlist_node *end = &memory->chunks.head;

	if (previous != end)
		OPEN(previous, sizeof(Chunk));
	if (next != end)
		OPEN(next, sizeof(Chunk));
	dlist_delete(&chunk->node);
	if (previous != end)
		SHUT(previous, sizeof(Chunk));
	if (next != end)
		SHUT(next, sizeof(Chunk));
	live--;
}

static void *
memory_alloc(MemoryContext context, Size size)
{
	Chunk	   *chunk = malloc(CHUNK_HEAD + size);

	if (chunk == NULL)
		return NULL;
	chunk->size = size;
	chunk->context = context;
	link_chunk((Memory *) context, chunk);
	context->mem_allocated += size;
	SHUT(chunk, sizeof(Chunk));
	return DATA_OF(chunk);
}

static void
memory_free(MemoryContext context, void *data)
{
	Chunk	   *chunk = CHUNK_OF(data);

	OPEN(chunk, sizeof(Chunk));
	unlink_chunk((Memory *) context, chunk);
	context->mem_allocated -= chunk->size;
	free(chunk);
}

/* Always moves, so that who keeps the old address is found out. */
static void *
memory_realloc(MemoryContext context, void *data, Size size)
{
	Chunk	   *chunk = CHUNK_OF(data);
	void	   *made = memory_alloc(context, size);

	if (made == NULL)
		return NULL;
	OPEN(chunk, sizeof(Chunk));
	memcpy(made, data, Min(chunk->size, size));
	SHUT(chunk, sizeof(Chunk));
	memory_free(context, data);
	return made;
}

static void
memory_reset(MemoryContext context)
{
	Memory	   *memory = (Memory *) context;

	while (memory->chunks.head.next != &memory->chunks.head)
		memory_free(context, DATA_OF(memory->chunks.head.next));
}

static void
memory_delete(MemoryContext context)
{
	memory_reset(context);
	free(context);
}

static Size
memory_space(MemoryContext context, void *data)
{
	Chunk	   *chunk = CHUNK_OF(data);
	Size		size;

	OPEN(chunk, sizeof(Chunk));
	size = CHUNK_HEAD + chunk->size;
	SHUT(chunk, sizeof(Chunk));
	return size;
}

static bool
memory_is_empty(MemoryContext context)
{
	return dlist_is_empty(&((Memory *) context)->chunks);
}

static void
memory_stats(MemoryContext context, MemoryStatsPrintFunc print, void *extra,
			 MemoryContextCounters *totals, bool to_stderr)
{
	if (totals != NULL)
		totals->totalspace += context->mem_allocated;
}

#ifdef MEMORY_CONTEXT_CHECKING
static void
memory_check(MemoryContext context)
{
}
#endif

#else							/* PG_VERSION_NUM >= 160000 */

MemoryContext
fuzz_memory(MemoryContext parent, const char *name)
{
	return AllocSetContextCreateInternal(parent, name, 0, 1024, 1024);
}

#endif

/* What the build puts in the place of AllocSetContextCreateInternal(). */
extern MemoryContext fuzz_context_create(MemoryContext parent, const char *name,
										 Size least, Size first, Size most);

MemoryContext
fuzz_context_create(MemoryContext parent, const char *name, Size least, Size first, Size most)
{
	return fuzz_memory(parent, name);
}
