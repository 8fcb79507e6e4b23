/*
 * pseudonymize.c
 *		The part of de-identification that puts random codes in the place of
 *		originals.
 *
 * Which code stands for what is not settled here: the book that is handed in
 * knows it.  What will be asked for is collected first, by the same rules, so
 * that a whole chunk's can be settled at once.
 */
#include "postgres.h"

#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "words/compat.h"

/* what an item's code looks like where nobody asks for one: validate() */
static const char no_code[] = "00000000000000000000000000000000";

static CodeName name_of(const char *domain, const Response *response, Span original);
static Span as_span(const char *text);
static Span as_integer(int64 integer);
static bool original_of(const FormNode *node, const Value *value, Span *original,
						bool *blank);
static void refuse(Response *response, const char *location, const char *message);
pg_attribute_noreturn() static void raise_uncollected(void);

/*
 * Notes in the book what deidentify() is going to ask for: of a decoded response,
 * or, with decoded false, its subject only.
 */
void
pseudonymize_collect(const CompiledForm *form, const Response *response, bool decoded,
					 CodeBook *codes)
{
	CodeName	name;
	const char *subject = response->subject.data;

	/* one that is blank is none, see deidentify() */
	if (form->subject_domain != NULL && subject != NULL &&
		normalise_trim(&subject, response->subject.len) > 0)
	{
		name = name_of(form->subject_domain, response, response->subject);
		codebook_want(codes, &name, form->subject_creates);
	}
	for (int i = 0; decoded && i < form->ndeidentified; i++)
	{
		const FormNode *node = form->nodes[form->deidentified[i]];
		Span		original;
		bool		blank;

		if (node->deid != DEID_PSEUDONYMIZE ||
			!original_of(node, &response->values[node->slot], &original, &blank))
			continue;
		name = name_of(node->deid_domain, response, original);
		codebook_want(codes, &name, node->deid_creates);
	}
}

/*
 * Puts the subject's code in the place of its key, if the form says so.  False,
 * with a finding, when it has none.
 */
bool
pseudonymize_subject(const CompiledForm *form, CodeBook *codes, Response *response)
{
	CodeName	name;
	const char *code;

	if (form->subject_domain == NULL)
		return true;
	name = name_of(form->subject_domain, response, response->subject);
	code = codes ? codebook_find(codes, &name) : NULL;
	memset(response->subject_key, 0, sizeof(response->subject_key));
	if (code == NULL)
	{
		if (form->subject_creates)
			raise_uncollected();
		refuse(response, NULL, "the subject has no code, and none may be made for it");
		return false;
	}
	memcpy(response->subject_key, code, strlen(code));
	return true;
}

/* Puts its code in the place of an answer; what has none is a finding, and removed. */
void
pseudonymize_item(const FormNode *node, CodeBook *codes, Value *value, Response *response)
{
	Span		original;
	CodeName	name;
	const char *code;
	bool		blank;

	if (!original_of(node, value, &original, &blank))
	{
		if (blank)
			return;
		refuse(response, node->pointer, "must be a text or a whole number to have a code");
		code = NULL;
	}
	else if (codes == NULL)
		code = no_code;
	else
	{
		name = name_of(node->deid_domain, response, original);
		code = codebook_find(codes, &name);
		if (code == NULL && node->deid_creates)
			raise_uncollected();
		if (code == NULL)
			refuse(response, node->pointer, "has no code, and none may be made for it");
	}
	memset(value, 0, sizeof(*value));
	value->kind = code ? VALUE_TEXT : VALUE_REMOVED;
	value->data = code;
	value->len = code ? (int) strlen(code) : 0;
}

static CodeName
name_of(const char *domain, const Response *response, Span original)
{
	CodeName	name = {as_span(domain), response->study, original};

	return name;
}

static Span
as_span(const char *text)
{
	Span		span = {text, (int) strlen(text)};

	return span;
}

/*
 * What an answer's code stands for: the text that normalisation is going to
 * make of it, as far as width and blanks go, and a whole number in its plain
 * form, so that "７", " 7", 7.0 and 7 have one code where they are one answer.
 * False when there is nothing to have one; blank: because it is no answer.
 */
static bool
original_of(const FormNode *node, const Value *value, Span *original, bool *blank)
{
	int64		integer;
	bool		whole;

	*blank = value->kind == VALUE_ABSENT || value->kind == VALUE_REMOVED || value->kind == VALUE_NULL;
	if (value->kind == VALUE_INTEGER || value->kind == VALUE_NUMERIC)
	{
		const char *point;

		if (value->kind == VALUE_INTEGER)
		{
			*original = as_integer(value->number);
			return true;
		}
		original->data = value_text(value, &original->len);
		if (parse_decimal(original->data, original->len, &whole) != PARSE_OK || !whole)
			return false;
		point = memchr(original->data, '.', original->len);
		if (point != NULL)
			original->len = (int) (point - original->data);
		return true;
	}
	if (value->kind != VALUE_TEXT)
		return false;

	original->data = value->data;
	original->len = value->len;
	if ((node->normalise & NORMALISE_WIDTH) && normalise_width_needed(value->data, value->len))
	{
		char	   *text = palloc(value->len);

		original->len = (int) normalise_width(value->data, value->len, text);
		original->data = text;
	}
	if (node->normalise & NORMALISE_TRIM)
		original->len = (int) normalise_trim(&original->data, original->len);
	if (original->len == 0 && (node->normalise & NORMALISE_BLANK))
	{
		*blank = true;
		return false;
	}
	if (node->deid_whole && parse_integer(original->data, original->len, &integer) == PARSE_OK)
		*original = as_integer(integer);
	return true;
}

static Span
as_integer(int64 integer)
{
	char	   *text = palloc(MAXINT8LEN + 1);
	Span		span = {text, pg_lltoa(integer, text)};

	return span;
}

static void
refuse(Response *response, const char *location, const char *message)
{
	finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR, location,
				"pseudonymize", message);
}

/* A code that may be made is there when it is asked for, or the flow is broken. */
static void
raise_uncollected(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("a code was asked for that nobody has collected")));
}
