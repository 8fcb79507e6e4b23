/*
 * decode.c
 *		Payload to values: one merge pass over the jsonb container.
 *
 * A payload column may be jsonb, or json or text that nobody has looked into
 * yet.  Text is parsed by the server's own JSON parser, with actions of ours
 * that cannot raise an error for data: what PostgreSQL's jsonb input would
 * refuse (NUL escapes, lone surrogates, numbers beyond numeric, nesting beyond
 * the stack) or settle in silence (a key given twice) is a finding.
 *
 * Values point into the payload, which must outlive them.  Keys that the form
 * does not declare are passed over: they can never reach a sink.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "stages/fhir.h"
#include "stages/parse.h"
#include "stages/stages.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "words/compat.h"

/* nesting that a questionnaire never has, and the parser's recursion can bear */
#define MAX_DEPTH 512

/* a jsonb cannot hold 256 MB; stay well clear of it */
#define MAX_PAYLOAD (128 * 1024 * 1024)

/* what the JSON parser's actions share */
typedef struct Builder
{
	JsonbParseState *state;
	JsonbValue *result;
	int		   *keys;			/* by depth: keys given to the object so far */
	int			depth;
	const char *fault;			/* why the payload cannot be taken, or NULL */
} Builder;

static int	decode_object(const FormNode *group, const JsonbContainer *object,
						  Value *values);
static int	decode_value(const FormNode *node, const char *base, JEntry entry, uint32 offset,
						 uint32 end, Value *values);
static Jsonb *parse_payload(Span text, const char **fault);
static bool too_deep(Span text);
static EproJsonAction object_start(void *state);
static EproJsonAction object_end(void *state);
static EproJsonAction array_start(void *state);
static EproJsonAction array_end(void *state);
static EproJsonAction field_start(void *state, char *name, bool isnull);
static EproJsonAction scalar(void *state, char *token, JsonTokenType type);
static void push(Builder *builder, JsonbIteratorToken token, JsonbValue *value);

/*
 * Fills response->values, one a node of the form.  Returns false, with a
 * finding, when there is nothing to judge.
 */
bool
decode(const CompiledForm *form, Response *response)
{
	const char *fault = NULL;
	Jsonb	   *payload = NULL;

	memset(response->values, 0, sizeof(Value) * form->nnodes);

	switch (response->payload_kind)
	{
		case PAYLOAD_NULL:
			fault = "the payload is null";
			break;
		case PAYLOAD_JSONB:
			payload = (Jsonb *) response->payload.data;
			break;
		case PAYLOAD_TEXT:
			payload = parse_payload(response->payload, &fault);
			break;
	}
	if (payload != NULL && !JB_ROOT_IS_OBJECT(payload))
		fault = JB_ROOT_IS_SCALAR(payload) ?
			"the payload is a scalar, not an object of items" :
			"the payload is an array, not an object of items";
	if (fault != NULL)
	{
		finding_add(response->findings, FINDING_PAYLOAD, SEVERITY_ERROR, "",
					"payload", fault);
		return false;
	}

	response->root = &payload->root;
	if (form->questionnaire != NULL)
		return questionnaire_read(form, &payload->root, response);
	response->findings->undeclared = decode_object(form->root, &payload->root, response->values);
	return true;
}

/* memcmp(), in line: keys are short, and almost all that meet are the same. */
static inline int
compare_bytes(const char *a, const char *b, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (a[i] != b[i])
			return (unsigned char) a[i] < (unsigned char) b[i] ? -1 : 1;
	}
	return 0;
}

/*
 * Both sides are sorted alike, so one pass meets everything.  jsonb keeps all
 * the keys' entries first, then the values' in the same order; an entry holds
 * a length, or at each stride the end offset.  Returns how many keys are no
 * item's, in groups, too.
 */
static int
decode_object(const FormNode *group, const JsonbContainer *object,
			  Value *values)
{
	int			n = JsonContainerSize(object);
	const JEntry *entries = object->children;
	const char *base = (const char *) (entries + 2 * n);
	uint32		key = 0;
	uint32		value = getJsonbOffset(object, n);
	int			c = 0;
	int			undeclared = n;

	for (int i = 0; i < n; i++)
	{
		uint32		key_end = key;
		uint32		value_end = value;
		int			keylen;

		JBE_ADVANCE_OFFSET(key_end, entries[i]);
		JBE_ADVANCE_OFFSET(value_end, entries[n + i]);
		keylen = (int) (key_end - key);

		while (c < group->nchildren)
		{
			const FormNode *node = group->children[c];
			int			order;

			if (node->keylen != keylen)
				order = node->keylen - keylen;
			else
				order = compare_bytes(node->key, base + key, keylen);
			if (order > 0)
				break;
			c++;
			if (order == 0)
			{
				undeclared += decode_value(node, base, entries[n + i], value,
										   value_end, values) - 1;
				break;
			}
		}
		if (c >= group->nchildren)
			break;
		key = key_end;
		value = value_end;
	}
	return undeclared;
}

static int
decode_value(const FormNode *node, const char *base, JEntry entry, uint32 offset, uint32 end,
			 Value *values)
{
	Value	   *value = &values[node->slot];

	value_set_entry(value, base, entry, offset, end);
	if (value->kind == VALUE_OBJECT && node->nchildren > 0)
	{
		check_stack_depth();
		return decode_object(node, value->data, values);
	}
	return 0;
}

static Jsonb *
parse_payload(Span text, const char **fault)
{
	Builder		builder = {0};
	JsonSemAction actions = {0};
	JsonLexContext *lexer;
	JsonParseErrorType code;

	if (text.len > MAX_PAYLOAD)
	{
		*fault = "the payload is larger than 128 MB";
		return NULL;
	}
	if (too_deep(text))
	{
		*fault = "the payload is nested more than 512 levels deep";
		return NULL;
	}

	builder.keys = palloc0(sizeof(int) * (MAX_DEPTH + 2));
	actions.semstate = &builder;
	actions.object_start = object_start;
	actions.object_end = object_end;
	actions.array_start = array_start;
	actions.array_end = array_end;
	actions.object_field_start = field_start;
	actions.scalar = scalar;

	lexer = epro_json_lexer((char *) text.data, text.len, GetDatabaseEncoding());
	code = pg_parse_json(lexer, &actions);
	if (code != JSON_SUCCESS)
	{
		switch (code)
		{
			case JSON_UNICODE_CODE_POINT_ZERO:
				*fault = "the payload has a NUL escape, which text cannot hold";
				break;
			case JSON_UNICODE_HIGH_SURROGATE:
			case JSON_UNICODE_LOW_SURROGATE:
				*fault = "the payload has a surrogate escape without its other half";
				break;
			case JSON_ESCAPING_INVALID:
			case JSON_UNICODE_ESCAPE_FORMAT:
			case JSON_UNICODE_HIGH_ESCAPE:
				*fault = "the payload has an invalid escape";
				break;
			default:
				*fault = "the payload is not valid JSON";
				break;
		}
		return NULL;
	}
	if (builder.fault != NULL)
	{
		*fault = builder.fault;
		return NULL;
	}
	return JsonbValueToJsonb(builder.result);
}

/* Counts brackets outside strings; what is not JSON at all, the parser finds. */
static bool
too_deep(Span text)
{
	int			depth = 0;
	bool		in_string = false;

	for (int i = 0; i < text.len; i++)
	{
		char		c = text.data[i];

		if (in_string)
		{
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		}
		else if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
		{
			if (++depth > MAX_DEPTH)
				return true;
		}
		else if (c == '}' || c == ']')
			depth--;
	}
	return false;
}

static EproJsonAction
object_start(void *state)
{
	Builder    *builder = state;

	push(builder, WJB_BEGIN_OBJECT, NULL);
	builder->keys[++builder->depth] = 0;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
object_end(void *state)
{
	Builder    *builder = state;
	int			given = builder->keys[builder->depth--];

	push(builder, WJB_END_OBJECT, NULL);
	if (builder->result->val.object.nPairs < given)
		builder->fault = "the payload gives a key twice in one object";
	EPRO_JSON_GO_ON;
}

static EproJsonAction
array_start(void *state)
{
	Builder    *builder = state;

	push(builder, WJB_BEGIN_ARRAY, NULL);
	builder->depth++;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
array_end(void *state)
{
	Builder    *builder = state;

	push(builder, WJB_END_ARRAY, NULL);
	builder->depth--;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
field_start(void *state, char *name, bool isnull)
{
	Builder    *builder = state;
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = name;
	key.val.string.len = strlen(name);
	push(builder, WJB_KEY, &key);
	builder->keys[builder->depth]++;
	EPRO_JSON_GO_ON;
}

static EproJsonAction
scalar(void *state, char *token, JsonTokenType type)
{
	Builder    *builder = state;
	JsonbValue	value;
	bool		is_integer;

	switch (type)
	{
		case JSON_TOKEN_STRING:
			value.type = jbvString;
			value.val.string.val = token;
			value.val.string.len = strlen(token);
			break;
		case JSON_TOKEN_NUMBER:
			if (parse_decimal(token, strlen(token), &is_integer) != PARSE_OK)
			{
				builder->fault = "the payload has a number beyond 1000 digits";
				value.type = jbvNull;
				break;
			}
			value.type = jbvNumeric;
			value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
																	CStringGetDatum(token),
																	ObjectIdGetDatum(InvalidOid),
																	Int32GetDatum(-1)));
			break;
		case JSON_TOKEN_TRUE:
		case JSON_TOKEN_FALSE:
			value.type = jbvBool;
			value.val.boolean = (type == JSON_TOKEN_TRUE);
			break;
		default:
			value.type = jbvNull;
			break;
	}

	if (builder->state == NULL)
	{
		/* a naked scalar: jsonb wraps it in an array that says so */
		JsonbValue	wrap;

		wrap.type = jbvArray;
		wrap.val.array.rawScalar = true;
		wrap.val.array.nElems = 1;
		push(builder, WJB_BEGIN_ARRAY, &wrap);
		push(builder, WJB_ELEM, &value);
		push(builder, WJB_END_ARRAY, NULL);
	}
	else
		push(builder, builder->state->contVal.type == jbvArray ?
			 WJB_ELEM : WJB_VALUE, &value);
	EPRO_JSON_GO_ON;
}

static void
push(Builder *builder, JsonbIteratorToken token, JsonbValue *value)
{
	builder->result = pushJsonbValue(&builder->state, token, value);
}
