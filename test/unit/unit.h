/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  The little that a unit test needs: counting, and texts without slack.
 *
 * Failures are told on stderr; the counts go to stdout, for the Makefile to
 * sum up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EPRO_ETL_UNIT_H
#define EPRO_ETL_UNIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int	unit_passed = 0;
static int	unit_failed = 0;

/* A text literal, NUL bytes in it included, as "pointer, length". */
#define TEXT(literal)	(literal), sizeof(literal) - 1

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

/*
 * One check. what and len say which text it was about; bytes outside printable
 * ASCII are escaped.
 */
static inline void
unit_check(bool holds, const char *file, int line, const char *claim,
		   const char *what, size_t len)
{
	if (holds)
	{
		unit_passed++;
		return;
	}
	/* a sweep can fail ten thousand times: the first ones tell enough */
	if (++unit_failed > 50)
		return;
	fprintf(stderr, "%s:%d: not so: %s, for \"", file, line, claim);
	for (size_t i = 0; i < len && i < 100; i++)
	{
		unsigned char c = (unsigned char) what[i];

		if (c >= 0x20 && c < 0x7F && c != '\\' && c != '"')
			fputc(c, stderr);
		else
			fprintf(stderr, "\\x%02X", c);
	}
	fprintf(stderr, "\"%s\n", len > 100 ? "..." : "");
}

#define CHECK(holds, what, len) \
	unit_check((holds), __FILE__, __LINE__, #holds, (what), (len))

/*
 * A copy with nothing behind its last byte, so that the address sanitizer sees
 * a read beyond it. An empty text is NULL, which is allowed too. To be freed.
 */
static inline char *
unit_exact_copy(const char *s, size_t len)
{
	char	   *copy;

	if (len == 0)
		return NULL;
	copy = malloc(len);
	if (copy == NULL)
		abort();
	return memcpy(copy, s, len);
}

/* The exit code for main(). */
static inline int
unit_finish(void)
{
	printf("counts %d %d\n", unit_passed, unit_failed);
	return unit_failed == 0 ? 0 : 1;
}

#endif							/* EPRO_ETL_UNIT_H */
