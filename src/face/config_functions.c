/*
 * config_functions.c
 *		What the configuration functions, written in SQL, ask the compiler.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "pipeline/pipeline.h"
#include "stages/form.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(epro_etl_compile_form);
PG_FUNCTION_INFO_V1(epro_etl_form_items);
PG_FUNCTION_INFO_V1(epro_etl_form_not_imported);
PG_FUNCTION_INFO_V1(epro_etl_compile_pipeline);
PG_FUNCTION_INFO_V1(epro_etl_form_rules);
PG_FUNCTION_INFO_V1(epro_etl_validate);

static const char *const deid_method_name[] = {
	[DEID_KEEP] = "keep",
	[DEID_REMOVE] = "remove",
	[DEID_REDACT] = "redact",
	[DEID_AGE] = "generalize",
	[DEID_PSEUDONYMIZE] = "pseudonymize",
};

static void put_rule(ReturnSetInfo *rsinfo, const char *stage, const FormNode *node,
					 const char *rule, const char *severity, const char *says);
static Span span_argument(FunctionCallInfo fcinfo, int argument);
static PipelineForm *compile_current(text *form);

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
		values[4] = CStringGetTextDatum(deid_method_name[node->deid]);
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
 * form_rules(form): a row a thing that the stages do for an item of the current
 * version, in the order in which they do it.  What explain_form() is made of.
 */
Datum
epro_etl_form_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CompiledForm *form;

	InitMaterializedSRF(fcinfo, 0);
	form = compile_current(PG_GETARG_TEXT_PP(0))->form;
	for (int i = 0; i < form->nnodes; i++)
	{
		const FormNode *node = form->nodes[i];

		/* a score is in no payload */
		if (node->pointer[0] != '\0')
			put_rule(rsinfo, "decode", node, "item", NULL,
					 form_node_is_item(node) ?
					 format_type_be(item_type_oid(node->type, node->fits_int4)) : "a group of items");
	}
	if (form->subject_domain != NULL)
		put_rule(rsinfo, "deidentify", NULL, deid_method_name[DEID_PSEUDONYMIZE], NULL, NULL);
	for (int i = 0; i < form->nnodes; i++)
	{
		if (form->nodes[i]->deid != DEID_KEEP)
			put_rule(rsinfo, "deidentify", form->nodes[i], deid_method_name[form->nodes[i]->deid], NULL, NULL);
	}
	for (int i = 0; i < form->nnodes; i++)
	{
		const char *name;
		uint8		bit;

		for (int n = 0; (name = form_normalisation(n, &bit)) != NULL; n++)
		{
			if (form->nodes[i]->normalise & bit)
				put_rule(rsinfo, "normalise", form->nodes[i], name, NULL, NULL);
		}
	}
	for (int i = 0; i < form->nnodes; i++)
	{
		const FormNode *node = form->nodes[i];

		if (node->deid != DEID_KEEP)
			continue;
		for (int k = 0; k < KEYWORD_COUNT; k++)
		{
			int			overlay = node->overlay[k];

			if (node->has & (1 << k))
				put_rule(rsinfo, "validate", node, keyword_name[k],
						 overlay == KEYWORD_OFF ? "off" :
						 severity_name(overlay > 0 ? (Severity) (overlay - 1) : SEVERITY_ERROR),
						 node->message[k]);
		}
		if (node->schema != NULL)
			put_rule(rsinfo, "validate", node, "schema", severity_name(SEVERITY_ERROR),
					 "what else its schema says");
	}
	for (int i = 0; i < form->nnotes; i++)
	{
		FormNode	place = {0};

		place.pointer = form->notes[i].location;
		put_rule(rsinfo, "not imported", &place, form->notes[i].construct, NULL, form->notes[i].reason);
	}
	if (form->root->schema != NULL)
		put_rule(rsinfo, "validate", form->root, "schema", severity_name(SEVERITY_ERROR),
				 "what else the definition says of the response as a whole");
	return (Datum) 0;
}

static void
put_rule(ReturnSetInfo *rsinfo, const char *stage, const FormNode *node,
		 const char *rule, const char *severity, const char *says)
{
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = CStringGetTextDatum(stage);
	/* without a node: the subject, by the name that set_deid() has for it */
	values[1] = CStringGetTextDatum(node ? node->pointer : "subject");
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

static PipelineForm *
compile_current(text *name)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	MemoryContext memory = CurrentMemoryContext;
	OwnerScope	scope;
	Jsonb	   *definition;
	char	   *version;
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
	version = MemoryContextStrdup(memory,
								  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	MemoryContextSwitchTo(memory);
	definition = (Jsonb *) PG_DETOAST_DATUM_COPY(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 2, &isnull));
	owner_end(&scope);
	MemoryContextSwitchTo(memory);
	return pipeline_compile_form(text_to_cstring(name), version, definition);
}
