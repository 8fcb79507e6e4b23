/*
 * targets.c
 *		What is fuzzed in a server, one target each:
 *
 *		decode: a payload against one of a few forms, which stay compiled.  The
 *		input's first byte says which ('a' the first in forms[] and so on), the
 *		rest is the payload as text.
 *
 *		schema, questionnaire: a definition as register_form() gets it, then, after
 *		a form feed (which JSON text cannot hold), a payload for it.  The two are
 *		one compiler to the caller; as targets they are kept apart, so that each
 *		has a corpus and a dictionary of its own.
 *
 * Memory: forms live in what is current at prepare(); all else in the input's.
 */
#include "postgres.h"

#include "fuzz_server.h"
#include "stages/fhir.h"
#include "stages/form.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

static const char *const forms[] = {"plain", "nested", "schema", "questionnaire"};

static CompiledForm *compiled[lengthof(forms)];

static void decode_prepare(void);
static int	decode_run(const char *data, size_t size);
static int	schema_run(const char *data, size_t size);
static int	questionnaire_run(const char *data, size_t size);
static int	definition_run(const char *data, size_t size, bool questionnaire);

const FuzzTarget fuzz_targets[] = {
	{"decode", decode_prepare, decode_run},
	{"schema", NULL, schema_run},
	{"questionnaire", NULL, questionnaire_run},
};

const int	fuzz_ntargets = lengthof(fuzz_targets);

static Jsonb *
jsonb_of(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static CompiledForm *
read_form(const char *name)
{
	char	   *path = psprintf("%s/forms/%s.json", fuzz_folder, name);
	FILE	   *file = AllocateFile(path, "r");
	StringInfoData text;
	int			c;

	if (file == NULL)
		elog(ERROR, "cannot read \"%s\"", path);
	initStringInfo(&text);
	while ((c = getc(file)) != EOF)
		appendStringInfoChar(&text, (char) c);
	FreeFile(file);
	return form_compile(name, "1", jsonb_of(text.data));
}

static void
decode_prepare(void)
{
	Jsonb	   *none = jsonb_of("{}");

	for (int i = 0; i < (int) lengthof(forms); i++)
		compiled[i] = read_form(forms[i]);

	/* each method once, where it can do the most */
	form_deidentify(compiled[0], "/born", "generalize", jsonb_of("{\"to\": \"age\"}"));
	form_deidentify(compiled[0], "/email", "remove", none);
	form_deidentify(compiled[0], "/name", "redact", none);
	form_deidentify(compiled[1], "/contact", "remove", none);
}

static int
decode_run(const char *data, size_t size)
{
	if (size == 0 || !pg_verifymbstr(data + 1, (int) size - 1, true))
		return FUZZ_UNFIT;
	judge_on_all_roads(compiled[(unsigned char) (data[0] - 'a') % lengthof(forms)], data + 1, size - 1);
	return FUZZ_TAKEN;
}

static int
schema_run(const char *data, size_t size)
{
	return definition_run(data, size, false);
}

static int
questionnaire_run(const char *data, size_t size)
{
	return definition_run(data, size, true);
}

static int
definition_run(const char *data, size_t size, bool questionnaire)
{
	const char *feed = size > 0 ? memchr(data, '\f', size) : NULL;
	size_t		len = feed ? (size_t) (feed - data) : size;
	Jsonb	   *definition;
	CompiledForm *form;

	if (feed != NULL && !pg_verifymbstr(feed + 1, (int) (size - len - 1), true))
		return FUZZ_UNFIT;
	if (parse_jsonb(data, len, &definition) != PARSED_OK)
		return FUZZ_UNFIT;
	if (JB_ROOT_IS_OBJECT(definition) && questionnaire_is(&definition->root) != questionnaire)
		return FUZZ_UNFIT;
	form = try_compile(definition);
	/* what is compiled has its own copy of the definition */
	pfree(definition);
	if (form != NULL && feed != NULL)
		judge_on_all_roads(form, feed + 1, size - len - 1);
	return FUZZ_TAKEN;
}
