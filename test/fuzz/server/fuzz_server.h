/*
 * fuzz_server.h
 *		What the files of the fuzz module share: the harness, the memory that
 *		the sanitizer sees into, and the targets.
 *
 * One input at a time, in one process: nothing here is shared, nothing locked.
 */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

#include "postgres.h"

#include "words/compat.h"
#include "words/response.h"

/* A property that does not hold ends the process, as a sanitizer would. */
#define MUST(holds) \
	do { \
		if (!(holds)) \
			fuzz_fail(__FILE__, __LINE__, #holds); \
	} while (0)

/* What a target says of an input: libFuzzer's numbers. */
#define FUZZ_TAKEN		0
#define FUZZ_UNFIT		(-1)	/* not one for this target: not worth keeping */

typedef struct FuzzTarget
{
	const char *name;
	/* makes what all inputs need, in memory that stays; NULL: nothing */
	void		(*prepare) (void);
	/* in memory of the input's own; may raise an error, which is a failure */
	int			(*run) (const char *data, size_t size);
} FuzzTarget;

/* ---- fuzz_server.c ---- */
extern const char *fuzz_folder;

pg_attribute_noreturn() extern void fuzz_fail(const char *file, int line, const char *what);
pg_attribute_noreturn() extern void fuzz_fail_error(const char *where, const ErrorData *error);

/* ---- memory.c ---- */
extern MemoryContext fuzz_memory(MemoryContext parent, const char *name);
extern long fuzz_memory_live(void);

/* ---- roads.c ---- */
typedef enum Parsed
{
	PARSED_OK,
	PARSED_REFUSED,				/* jsonb's input refuses it */
	PARSED_NO_TEXT				/* no column of the database could hold it */
} Parsed;

extern Parsed parse_jsonb(const char *text, size_t len, Jsonb **jsonb);
extern CompiledForm *try_compile(Jsonb *definition);
extern void judge_on_all_roads(const CompiledForm *form, const char *text, size_t len);

/* ---- targets.c ---- */
extern const FuzzTarget fuzz_targets[];
extern const int fuzz_ntargets;

#endif							/* FUZZ_SERVER_H */
