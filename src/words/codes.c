/*
 * codes.c
 *		The book of random codes that a run's process knows.
 *
 * De-identification looks up here what stands for an original; what is missing
 * is wanted first, and settled all at once by effects/pseudonym.c.  The book
 * knows which entries came in with the transaction at hand: until that has
 * committed they may have to be forgotten.
 *
 * Names are compared byte by byte, so a hash that two share mixes nothing up.
 * They identify people: what is let go is overwritten first.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "words/codes.h"

/* what a book may keep from one chunk to the next */
#define MOST_BYTES (16 * 1024 * 1024)

typedef struct CodeEntry
{
	Code	   *code;
	uint32		hash;
	char		status;
} CodeEntry;

static uint32 hash_of(const CodeName *name);
static bool same_name(const CodeName *a, const CodeName *b);

#define SH_PREFIX		entries
#define SH_ELEMENT_TYPE	CodeEntry
#define SH_KEY_TYPE		Code *
#define SH_KEY			code
#define SH_HASH_KEY(table, key)	(key)->hash
#define SH_EQUAL(table, a, b)	same_name(&(a)->name, &(b)->name)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry)	(entry)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct CodeBook
{
	MemoryContext memory;		/* of all entries */
	entries_hash *entries;
	Size		bytes;
	Code	  **fresh;			/* of the transaction at hand */
	int			nfresh;
	int			room;
};

static void open_book(CodeBook *book);
static Size size_of(const CodeName *name);
static Span keep_span(char **at, Span span);
static void remove_code(CodeBook *book, Code *code);
static void overwrite(void *argument);
static int	compare_codes(const void *a, const void *b);
static int	compare_spans(Span a, Span b);

/* Makes an empty book in the current memory context. */
CodeBook *
codebook_create(void)
{
	CodeBook   *book = palloc0(sizeof(CodeBook));

	book->memory = AllocSetContextCreate(CurrentMemoryContext, "epro_etl codes",
										 ALLOCSET_DEFAULT_SIZES);
	open_book(book);
	return book;
}

/* The code that stands for it; NULL: none is known. */
const char *
codebook_find(const CodeBook *book, const CodeName *name)
{
	Code		wanted = {.name = *name, .hash = hash_of(name)};
	CodeEntry  *entry = entries_lookup(book->entries, &wanted);

	return entry == NULL || entry->code->text[0] == '\0' ? NULL : entry->code->text;
}

/* Notes that its code will be asked for; the name is copied. */
void
codebook_want(CodeBook *book, const CodeName *name, bool create)
{
	Code		wanted = {.name = *name, .hash = hash_of(name)};
	CodeEntry  *entry = entries_lookup(book->entries, &wanted);
	Code	   *code;
	char	   *at;
	bool		found;

	if (entry != NULL)
	{
		entry->code->create |= create;
		return;
	}
	code = MemoryContextAllocExtended(book->memory, size_of(name), MCXT_ALLOC_HUGE);
	*code = wanted;
	code->create = create;
	at = (char *) (code + 1);
	code->name.domain = keep_span(&at, name->domain);
	code->name.study = keep_span(&at, name->study);
	code->name.original = keep_span(&at, name->original);
	if (book->nfresh == book->room)
	{
		book->room = Max(256, book->room * 2);
		book->fresh = book->fresh == NULL ?
			MemoryContextAlloc(book->memory, sizeof(Code *) * book->room) :
			repalloc_huge(book->fresh, sizeof(Code *) * book->room);
	}
	(void) entries_insert(book->entries, code, &found);
	book->fresh[book->nfresh++] = code;
	book->bytes += size_of(name);
}

/*
 * What is wanted and has no code yet, in the one order in which everybody makes
 * codes: by domain, study and original, as bytes.  In the current memory context.
 */
Code	  **
codebook_wanted(CodeBook *book, int *n)
{
	Code	  **wanted = palloc(sizeof(Code *) * (book->nfresh + 1));

	*n = 0;
	for (int i = 0; i < book->nfresh; i++)
	{
		if (book->fresh[i]->text[0] == '\0')
			wanted[(*n)++] = book->fresh[i];
	}
	qsort(wanted, *n, sizeof(Code *), compare_codes);
	return wanted;
}

/* What has not been given a code by now has none: forgets that it was wanted. */
void
codebook_give_up(CodeBook *book)
{
	int			kept = 0;

	for (int i = 0; i < book->nfresh; i++)
	{
		if (book->fresh[i]->text[0] == '\0')
			remove_code(book, book->fresh[i]);
		else
			book->fresh[kept++] = book->fresh[i];
	}
	book->nfresh = kept;
}

/* The transaction has committed: what came in with it holds. */
void
codebook_accept(CodeBook *book)
{
	book->nfresh = 0;
}

/* The transaction has rolled back: what came in with it may be nowhere. */
void
codebook_forget(CodeBook *book)
{
	for (int i = 0; i < book->nfresh; i++)
		remove_code(book, book->fresh[i]);
	book->nfresh = 0;
}

/* Between two chunks: begins anew when there is too much. */
void
codebook_trim(CodeBook *book)
{
	if (book->bytes > MOST_BYTES && book->nfresh == 0)
		codebook_wipe(book);
}

/* Forgets all, overwritten. */
void
codebook_wipe(CodeBook *book)
{
	MemoryContextReset(book->memory);
	open_book(book);
}

static void
open_book(CodeBook *book)
{
	MemoryContextCallback *callback = MemoryContextAlloc(book->memory, sizeof(MemoryContextCallback));

	book->entries = entries_create(book->memory, 1024, NULL);
	book->bytes = 0;
	book->fresh = NULL;
	book->nfresh = book->room = 0;
	callback->func = overwrite;
	callback->arg = book->entries;
	MemoryContextRegisterResetCallback(book->memory, callback);
}

/* Called before the memory of the entries goes. */
static void
overwrite(void *argument)
{
	entries_hash *entries = argument;
	entries_iterator iterator;
	CodeEntry  *entry;

	entries_start_iterate(entries, &iterator);
	while ((entry = entries_iterate(entries, &iterator)) != NULL)
		explicit_bzero(entry->code, size_of(&entry->code->name));
}

static void
remove_code(CodeBook *book, Code *code)
{
	Size		size = size_of(&code->name);

	(void) entries_delete(book->entries, code);
	book->bytes -= size;
	explicit_bzero(code, size);
	pfree(code);
}

static Size
size_of(const CodeName *name)
{
	return sizeof(Code) + name->domain.len + name->study.len + name->original.len;
}

static Span
keep_span(char **at, Span span)
{
	Span		kept = {*at, span.len};

	if (span.len > 0)
		memcpy(*at, span.data, span.len);
	*at += span.len;
	return kept;
}

static uint32
hash_of(const CodeName *name)
{
	uint32		hash = hash_bytes((const unsigned char *) name->original.data, name->original.len);

	hash = hash_combine(hash, hash_bytes((const unsigned char *) name->study.data, name->study.len));
	return hash_combine(hash, hash_bytes((const unsigned char *) name->domain.data, name->domain.len));
}

static bool
same_name(const CodeName *a, const CodeName *b)
{
	return compare_spans(a->original, b->original) == 0 &&
		compare_spans(a->study, b->study) == 0 && compare_spans(a->domain, b->domain) == 0;
}

static int
compare_codes(const void *a, const void *b)
{
	const CodeName *left = &(*(Code *const *) a)->name;
	const CodeName *right = &(*(Code *const *) b)->name;
	int			order = compare_spans(left->domain, right->domain);

	if (order == 0)
		order = compare_spans(left->study, right->study);
	if (order == 0)
		order = compare_spans(left->original, right->original);
	return order;
}

static int
compare_spans(Span a, Span b)
{
	int			least = Min(a.len, b.len);
	int			order = least > 0 ? memcmp(a.data, b.data, least) : 0;

	return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}
