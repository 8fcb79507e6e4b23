/*
 * config_functions.c
 *		What the configuration functions, written in SQL, ask the compiler.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pipeline/pipeline.h"
#include "stages/deid.h"
#include "stages/form.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(epro_etl_compile_form);
PG_FUNCTION_INFO_V1(epro_etl_form_items);
PG_FUNCTION_INFO_V1(epro_etl_form_not_imported);
PG_FUNCTION_INFO_V1(epro_etl_compile_pipeline);
PG_FUNCTION_INFO_V1(epro_etl_form_rules);
PG_FUNCTION_INFO_V1(epro_etl_validate);
PG_FUNCTION_INFO_V1(epro_etl_deid_suits);
PG_FUNCTION_INFO_V1(epro_etl_deid_kinds);
PG_FUNCTION_INFO_V1(epro_etl_decrypt_answer);

static void put_rule(ReturnSetInfo *rsinfo, const char *stage, const char *location,
					 const char *rule, const char *severity, const char *says);
static Span span_argument(FunctionCallInfo fcinfo, int argument);
static PipelineForm *compile_current(text *form);
static CompiledForm *compile_definition(text *form);
static Jsonb *read_current(text *name, char **version);

/*
 * compile_form(form): compiles the current version with all its rules; raises
 * the error of whatever does not fit.
 */
Datum
epro_etl_compile_form(PG_FUNCTION_ARGS)
{
	compile_current(PG_GETARG_TEXT_PP(0));
	PG_RETURN_VOID();
}

/* form_items(form): a row an item of the current version. */
Datum
epro_etl_form_items(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CompiledForm *form;

	InitMaterializedSRF(fcinfo, 0);
	form = compile_current(PG_GETARG_TEXT_PP(0))->form;
	for (int i = 0; i < form->nnodes; i++)
	{
		FormNode   *node = form->nodes[i];
		Datum		values[5];
		bool		nulls[5] = {false};

		if (!form_node_is_item(node))
			continue;
		values[0] = CStringGetTextDatum(node->name);
		values[1] = CStringGetTextDatum(node->pointer);
		values[2] = ObjectIdGetDatum(item_type_oid(node->type, node->fits_int4));
		values[3] = BoolGetDatum((node->has & (1 << KEYWORD_REQUIRED)) != 0);
		values[4] = CStringGetTextDatum(deid_method_name(node->deid));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* form_not_imported(form): a row for each thing that no rule was made of. */
Datum
epro_etl_form_not_imported(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CompiledForm *form;

	InitMaterializedSRF(fcinfo, 0);
	form = compile_current(PG_GETARG_TEXT_PP(0))->form;
	for (int i = 0; i < form->nnotes; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		values[0] = CStringGetTextDatum(form->notes[i].location);
		values[1] = CStringGetTextDatum(form->notes[i].construct);
		values[2] = CStringGetTextDatum(form->notes[i].reason);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * compile_pipeline(pipeline): compiles it as a run would, as the current user;
 * raises the error of whatever does not fit.
 */
Datum
epro_etl_compile_pipeline(PG_FUNCTION_ARGS)
{
	Oid			source;
	int64		id = pipeline_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), &source);

	pipeline_load(id, pipeline_versions(id));
	PG_RETURN_VOID();
}

/*
 * form_rules(form): a row a thing that the stages do for the current version, in
 * the order in which they do it, and then what was not imported.  What
 * explain_form() is made of.
 */
Datum
epro_etl_form_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CompiledForm *form;
	FormRules  *rules;

	InitMaterializedSRF(fcinfo, 0);
	form = compile_current(PG_GETARG_TEXT_PP(0))->form;
	for (int i = 0; i < form->nnodes; i++)
	{
		const FormNode *node = form->nodes[i];

		/* a score is in no payload */
		if (node->pointer[0] != '\0')
			put_rule(rsinfo, "decode", node->pointer, "item", NULL,
					 form_node_is_item(node) ?
					 format_type_be(item_type_oid(node->type, node->fits_int4)) : "a group of items");
	}
	if (form->subject_domain != NULL)
		put_rule(rsinfo, "deidentify", "subject", deid_method_name(DEID_PSEUDONYMIZE), NULL, NULL);
	for (int i = 0; i < form->nnodes; i++)
	{
		const FormNode *node = form->nodes[i];

		if (node->deid != DEID_KEEP)
			put_rule(rsinfo, "deidentify", node->pointer, deid_method_name(node->deid), NULL, NULL);
	}
	for (int i = 0; i < form->nnodes; i++)
	{
		const char *name;
		uint8		bit;

		for (int n = 0; (name = form_normalisation(n, &bit)) != NULL; n++)
		{
			if (form->nodes[i]->normalise & bit)
				put_rule(rsinfo, "normalise", form->nodes[i]->pointer, name, NULL, NULL);
		}
	}
	rules = form_rules(form);
	for (int i = 0; i < rules->n; i++)
	{
		const FormRule *rule = &rules->list[i];

		put_rule(rsinfo, "validate", rule->where, rule->name,
				 rule->severity == NO_SEVERITY ? NULL :
				 rule->severity == KEYWORD_OFF ? "off" : severity_name((Severity) rule->severity),
				 rule->says);
	}
	for (int i = 0; i < form->nnotes; i++)
		put_rule(rsinfo, "not imported", form->notes[i].location, form->notes[i].construct,
				 NULL, form->notes[i].reason);
	return (Datum) 0;
}

static void
put_rule(ReturnSetInfo *rsinfo, const char *stage, const char *location,
		 const char *rule, const char *severity, const char *says)
{
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = CStringGetTextDatum(stage);
	values[1] = CStringGetTextDatum(location);
	values[2] = CStringGetTextDatum(rule);
	nulls[3] = severity == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(severity);
	nulls[4] = says == NULL;
	values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(says);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * validate(form, payload, study, visit, authored): a row a finding that a run
 * would make of the response.  It has no subject: what asks for one cannot be
 * evaluated.
 */
Datum
epro_etl_validate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Response	response = {0};
	FindingList *findings;
	PipelineForm *form;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("form must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	form = compile_current(PG_GETARG_TEXT_PP(0));
	response.payload_kind = PG_ARGISNULL(1) ? PAYLOAD_NULL : PAYLOAD_JSONB;
	if (!PG_ARGISNULL(1))
	{
		response.payload.data = (const char *) PG_GETARG_JSONB_P(1);
		response.payload.len = (int) VARSIZE(response.payload.data);
	}
	response.study = span_argument(fcinfo, 2);
	response.visit = span_argument(fcinfo, 3);
	response.authored_isnull = PG_ARGISNULL(4);
	if (!PG_ARGISNULL(4))
		response.authored = PG_GETARG_TIMESTAMPTZ(4);

	findings = pipeline_try(form, &response);
	for (int i = findings->first; i < findings->n; i++)
	{
		const Finding *finding = &findings->items[i];
		Datum		values[5];
		bool		nulls[5] = {false};

		nulls[0] = finding->location == NULL;
		values[0] = nulls[0] ? (Datum) 0 : CStringGetTextDatum(finding->location);
		values[1] = CStringGetTextDatum(finding->rule);
		values[2] = CStringGetTextDatum(finding_kind_name(finding->kind));
		values[3] = CStringGetTextDatum(severity_name(finding->severity));
		values[4] = CStringGetTextDatum(finding->message);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static Span
span_argument(FunctionCallInfo fcinfo, int argument)
{
	Span		span = {NULL, 0};

	if (!PG_ARGISNULL(argument))
	{
		text	   *given = PG_GETARG_TEXT_PP(argument);

		span.data = VARDATA_ANY(given);
		span.len = (int) VARSIZE_ANY_EXHDR(given);
	}
	return span;
}

/*
 * deid_suits(form, path, method, params): can the method, with these parameters,
 * be applied to what the current version of the form declares there?
 */
Datum
epro_etl_deid_suits(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(form_suits_method(compile_definition(PG_GETARG_TEXT_PP(0)),
									 text_to_cstring(PG_GETARG_TEXT_PP(1)),
									 text_to_cstring(PG_GETARG_TEXT_PP(2)),
									 PG_GETARG_JSONB_P(3)));
}

/* deid_kinds(form): what each item holds, as a profile goes by it. */
Datum
epro_etl_deid_kinds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CompiledForm *form;

	InitMaterializedSRF(fcinfo, 0);
	form = compile_definition(PG_GETARG_TEXT_PP(0));
	for (int i = 0; i < form->nnodes; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		if (!form_node_is_item(form->nodes[i]))
			continue;
		values[0] = CStringGetTextDatum(form->nodes[i]->pointer);
		values[1] = CStringGetTextDatum(form_node_holds(form, form->nodes[i]));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * decrypt_answer(form, path, study, answer): what the method "encrypt" was given.
 * For superusers, who can read the key file anyway.  Raises an error that says
 * nothing of the answer when it is none of that item and study.
 */
Datum
epro_etl_decrypt_answer(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory;
	Span		answer;
	text	   *result;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser can decrypt answers")));
	memory = AllocSetContextCreate(caller, "epro_etl key", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(memory);
	answer = deid_decrypt(key_load(1), text_to_cstring(PG_GETARG_TEXT_PP(0)),
						  text_to_cstring(PG_GETARG_TEXT_PP(1)),
						  span_argument(fcinfo, 2), span_argument(fcinfo, 3));
	MemoryContextSwitchTo(caller);
	if (answer.data == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the text is no encrypted answer of that form, item and study under this key"),
				 errhint("It may have been changed; or the path is not the item's JSON Pointer.")));
	result = cstring_to_text_with_len(answer.data, answer.len);
	/* wipes the keys, too */
	MemoryContextDelete(memory);
	PG_RETURN_TEXT_P(result);
}

static PipelineForm *
compile_current(text *name)
{
	char	   *version;
	Jsonb	   *definition = read_current(name, &version);

	return pipeline_compile_form(text_to_cstring(name), version, definition);
}

/* The form as its definition has it, without any rule. */
static CompiledForm *
compile_definition(text *name)
{
	char	   *version;
	Jsonb	   *definition = read_current(name, &version);

	return form_compile(text_to_cstring(name), version, definition);
}

/* The current version's definition, in the current memory context. */
static Jsonb *
read_current(text *name, char **version)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	Jsonb	   *definition;
	bool		isnull;

	owner_begin(&scope);
	if (SPI_execute_with_args("SELECT version, definition FROM epro_etl.form WHERE name = $1"
							  " ORDER BY form_id DESC LIMIT 1",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the configuration");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("form \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Register it with epro_etl.register_form().")));
	*version = MemoryContextStrdup(memory,
								   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	MemoryContextSwitchTo(memory);
	definition = (Jsonb *) PG_DETOAST_DATUM_COPY(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 2, &isnull));
	owner_end(&scope);
	MemoryContextSwitchTo(memory);
	return definition;
}
