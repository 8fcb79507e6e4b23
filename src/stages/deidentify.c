/*
 * deidentify.c
 *		Identifiers out, pseudonym in: the first stage after decoding.
 *
 * The keys and the pseudonym are pseudonymiser.c's; what becomes of one answer
 * is said by deid_method.c, deid_date.c and deid_secret.c.
 */
#include "postgres.h"

#include "stages/deid.h"
#include "stages/form.h"
#include "stages/schema.h"
#include "stages/stages.h"

/*
 * Makes the subject key and applies each item's method.  Returns false, with
 * a finding, when there is no subject to make a key of.  Without a pseudonymiser
 * and codes none is asked for, and what takes a key is taken out.
 */
bool
deidentify(const CompiledForm *form, Pseudonymiser *pseudonymiser,
		   CodeBook *codes, Response *response)
{
	if (pseudonymiser != NULL &&
		!(pseudonymise(pseudonymiser, form->shifts, response) && pseudonymize_subject(form, codes, response)))
		return false;

	for (int i = 0; i < form->ndeidentified; i++)
	{
		const FormNode *node = form->nodes[form->deidentified[i]];
		Value	   *value = &response->values[node->slot];
		DeidFault	fault;

		if (value->kind == VALUE_ABSENT || value->kind == VALUE_REMOVED || node->deid == DEID_SHIFT)
			continue;
		if (node->deid == DEID_REMOVE || (pseudonymiser == NULL && deid_takes_key(node->deid)))
		{
			deid_remove(node, response->values);
			continue;
		}
		if (node->deid == DEID_PSEUDONYMIZE)
			pseudonymize_item(node, codes, value, response);
		/* what was not answered stays so */
		normalise_value(node, value);
		if (value->kind <= VALUE_NULL || node->deid == DEID_PSEUDONYMIZE)
			continue;
		/* who reads it is to read what was declared; nothing else judges it any more */
		if (node->deid != DEID_REDACT && node->deid != DEID_SUBSTITUTE && !type_holds(node, value))
			fault = node->message[KEYWORD_TYPE];
		else if (deid_takes_key(node->deid))
			fault = deid_apply_key(form, node, pseudonymiser, response);
		else
			fault = deid_apply(node, value, response);
		if (fault == NULL)
			continue;
		finding_add(response->findings, FINDING_DEIDENTIFY, SEVERITY_ERROR,
					node->pointer, deid_method_name(node->deid), fault);
		deid_remove(node, response->values);
	}
	return true;
}
