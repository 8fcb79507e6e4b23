/*
 * guard.c
 *		What a rule may do while it is judged: read, and nothing else.
 *
 * A rule's own functions are marked STABLE or IMMUTABLE, but what these call
 * can be anything, and all of it acts as the role of the run.  Whoever may
 * write rules would otherwise write as whoever runs them.  So rules are
 * compiled and judged in a scope that is read-only, that cannot become another
 * role, whose names mean the same whatever the caller's search path is, and
 * after which settings are what they were.
 *
 * What can be read, the role of the run can read: that is not taken away.
 *
 * An error inside a scope needs no clean-up: the (sub)transaction's abort
 * restores all of it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "effects/effects.h"
#include "miscadmin.h"
#include "utils/guc.h"

/* Scopes nest.  In a (sub)transaction, which rolls back what an error leaves. */
void
rules_begin(RuleScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->context);
	scope->read_only = XactReadOnly;
	scope->guc_level = pin_search_path();
	SetUserIdAndSecContext(scope->user, scope->context | SECURITY_RESTRICTED_OPERATION);
	XactReadOnly = true;
}

void
rules_end(RuleScope *scope)
{
	/* what was set in between is not kept, as after a function in an index */
	AtEOXact_GUC(false, scope->guc_level);
	XactReadOnly = scope->read_only;
	SetUserIdAndSecContext(scope->user, scope->context);
}
