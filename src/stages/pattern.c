/*
 * pattern.c
 *		The keyword "pattern": ECMA-262's notation on PostgreSQL's engine.
 *
 * What both write alike means the same; what they write differently is
 * translated; what only ours knows is refused, since it would silently mean
 * something else.  The C collation keeps a class the same on every server.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "stages/form.h"
#include "utils/memutils.h"
#include "words/letters.h"

static char *translate(const char *pattern, const char **fault);
static const char *append_property(StringInfo out, const char *p, bool in_brackets,
								   const char **fault);
static void free_pattern(void *pattern);

/*
 * Compiles a pattern in the current memory context, whose reset frees it.
 * Returns NULL with *fault, and perhaps *hint, when it cannot be used.
 */
regex_t *
pattern_compile(const char *text, const char **fault, const char **hint)
{
	char	   *ours = translate(text, fault);
	pg_wchar   *wide;
	int			wide_len;
	regex_t    *pattern;
	MemoryContextCallback *callback;
	int			code;

	if (ours == NULL)
		return NULL;
	if (strncmp(ours, "***", 3) == 0 ||
		(strncmp(ours, "(?", 2) == 0 && ours[2] != '\0' &&
		 strchr(":=!<", ours[2]) == NULL))
	{
		*fault = "the pattern uses an option that JSON Schema does not know";
		*hint = "Patterns are ECMA-262's; write the cases out.";
		return NULL;
	}

	wide = palloc((strlen(ours) + 1) * sizeof(pg_wchar));
	wide_len = pg_mb2wchar_with_len(ours, wide, strlen(ours));
	pattern = palloc0(sizeof(regex_t));
	code = pg_regcomp(pattern, wide, wide_len, REG_ADVANCED | REG_NOSUB,
					  C_COLLATION_OID);
	if (code != REG_OKAY)
	{
		char		reason[100];

		pg_regerror(code, pattern, reason, sizeof(reason));
		*fault = psprintf("the pattern cannot be used: %s", reason);
		*hint = "Write it as an advanced regular expression, which JSON Schema's patterns mostly are.";
		return NULL;
	}

	/* the server's engine takes its room from malloc() before version 16 */
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = free_pattern;
	callback->arg = pattern;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	return pattern;
}

/*
 * ECMA-262's notation where ours has another one, outside brackets: \b and \B
 * (word boundary) are \y and \Y, \xHH takes two digits, "." is any character
 * but a line end, \p{L} is written out.  What would mean something else in ours is refused.
 */
static char *
translate(const char *pattern, const char **fault)
{
	StringInfoData out;
	bool		in_brackets = false;

	initStringInfo(&out);
	for (const char *p = pattern; *p; p++)
	{
		if (*p == '\\' && p[1] != '\0')
		{
			p++;
			if (strchr("mMyYAZ", *p) != NULL)
			{
				*fault = psprintf("the pattern has \"\\%c\", which JSON Schema does not know", *p);
				return NULL;
			}
			if (*p == 'p' || *p == 'P')
			{
				p = append_property(&out, p, in_brackets, fault);
				if (p == NULL)
					return NULL;
			}
			else if (!in_brackets && *p == 'b')
				appendStringInfoString(&out, "\\y");
			else if (!in_brackets && *p == 'B')
				appendStringInfoString(&out, "\\Y");
			else if (*p == 'x')
			{
				if (!isxdigit((unsigned char) p[1]) || !isxdigit((unsigned char) p[2]))
				{
					*fault = "the pattern has \"\\x\" without two hexadecimal digits";
					return NULL;
				}
				appendStringInfo(&out, "\\u00%c%c", p[1], p[2]);
				p += 2;
			}
			else
				appendStringInfo(&out, "\\%c", *p);
			continue;
		}
		if (in_brackets && *p == '[')
		{
			if (p[1] == ':' || p[1] == '.' || p[1] == '=')
			{
				*fault = "the pattern has a class in double brackets, which JSON Schema does not know";
				return NULL;
			}
			appendStringInfoString(&out, "\\[");
			continue;
		}
		if (*p == '[')
		{
			in_brackets = true;
			appendStringInfoChar(&out, '[');
			if (p[1] == '^')
				appendStringInfoChar(&out, *++p);
			if (p[1] == ']')
			{
				*fault = "the pattern has an empty class, which our engine reads otherwise";
				return NULL;
			}
			continue;
		}
		if (*p == ']')
			in_brackets = false;
		if (*p == '.' && !in_brackets)
			appendStringInfoString(&out, "[^\\n\\r\\u2028\\u2029]");
		else
			appendStringInfoChar(&out, *p);
	}
	return out.data;
}

/*
 * \p{...} or \P{...}; p is at its letter, and what is returned at its end.  Of
 * all properties, letters are the one that names and free texts need.
 */
static const char *
append_property(StringInfo out, const char *p, bool in_brackets, const char **fault)
{
	bool		not = *p == 'P';
	const char *name = p + 1;
	const char *end = *name == '{' ? strchr(name, '}') : NULL;
	int			len = end ? (int) (end - name) + 1 : 0;

	if (!(len == 3 && memcmp(name, "{L}", 3) == 0) &&
		!(len == 8 && memcmp(name, "{Letter}", 8) == 0))
	{
		*fault = "the pattern has a Unicode property other than \\p{L}, or not written so";
		return NULL;
	}
	if (not && in_brackets)
	{
		*fault = "the pattern has \\P within brackets, which our engine cannot express";
		return NULL;
	}
	if (!in_brackets)
		appendStringInfoString(out, not ? "[^" : "[");
	for (int i = 0; i < (int) lengthof(letters); i++)
		appendStringInfo(out, "\\U%08X-\\U%08X", letters[i].first, letters[i].last);
	if (!in_brackets)
		appendStringInfoChar(out, ']');
	return end;
}

static void
free_pattern(void *pattern)
{
	pg_regfree((regex_t *) pattern);
}
