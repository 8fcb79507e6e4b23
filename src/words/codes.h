/*
 * codes.h
 *		The book of random codes that a run's process knows.
 */
#ifndef EPRO_ETL_CODES_H
#define EPRO_ETL_CODES_H

#include "postgres.h"

#include "words/response.h"

/* What a code stands for. */
typedef struct CodeName
{
	Span		domain;
	Span		study;
	Span		original;
} CodeName;

typedef struct Code
{
	CodeName	name;			/* in the book's memory */
	uint32		hash;
	bool		create;			/* some rule wants it made when there is none */
	char		text[SUBJECT_KEY_LENGTH + 1];	/* "": wanted */
} Code;

typedef struct CodeBook CodeBook;

extern CodeBook *codebook_create(void);
extern const char *codebook_find(const CodeBook *book, const CodeName *name);
extern void codebook_want(CodeBook *book, const CodeName *name, bool create);
extern Code **codebook_wanted(CodeBook *book, int *n);
extern void codebook_give_up(CodeBook *book);
extern void codebook_accept(CodeBook *book);
extern void codebook_forget(CodeBook *book);
extern void codebook_trim(CodeBook *book);
extern void codebook_wipe(CodeBook *book);

#endif							/* EPRO_ETL_CODES_H */
