/*
 * score.c
 *		A computed score as an item of its form.
 *
 * A score is an item that no payload has: it stands behind the others, where
 * decode leaves it unanswered and check() puts what it has computed.  So sinks,
 * edit checks and messages between groups find it as they find any item.
 * Owns nothing, takes no lock.
 */
#include "postgres.h"

#include "stages/form.h"
#include "words/errors.h"

/*
 * Adds an item for a score to a form that is being compiled, in the current
 * memory context, which must be the form's.  Refuses a name that is taken.
 */
FormNode *
form_add_score(CompiledForm *form, const char *name)
{
	FormNode   *node = palloc0(sizeof(FormNode));
	FormNode  **nodes = palloc(sizeof(FormNode *) * (form->nnodes + 1));

	for (int i = 0; i < form->nnodes; i++)
	{
		if (pg_strcasecmp(form->nodes[i]->name, name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_EPRO_CHECK_REFUSED),
					 errmsg("form \"%s\" has an item \"%s\" already", form->name, name),
					 errdetail("A score that is computed becomes an item of its form."),
					 errhint("Take another name for the score, or compare it with the item: {\"mode\": \"verify\", \"stated\": \"%s\"}.",
							 form->nodes[i]->name)));
		nodes[i] = form->nodes[i];
	}
	node->key = node->name = pstrdup(name);
	node->keylen = (int) strlen(name);
	node->pointer = "";
	node->types = TYPE_NUMBER;
	node->type = ITEM_NUMBER;
	node->slot = form->nnodes;
	nodes[form->nnodes++] = node;
	form->nodes = nodes;
	return node;
}
