/*
 * settings.c
 *		The extension's settings, in alphabetical order.
 */
#include "postgres.h"

#include "effects/effects.h"
#include "utils/guc.h"

int			epro_batch_size = 2000;
char	   *epro_key_file = NULL;
int			epro_workers = 2;

/* Defines the settings and reserves their prefix.  Called once, at load. */
void
settings_define(void)
{
	DefineCustomIntVariable("epro_etl.batch_size",
							"Number of responses in a chunk, which is one transaction of one worker.",
							NULL, &epro_batch_size, 2000, 1, MAX_BATCH_SIZE,
							PGC_USERSET, 0, NULL, NULL, NULL);

	/* names a source, never the key: settings are shown to everyone */
	DefineCustomStringVariable("epro_etl.key_file",
							   "File with the key of the pseudonyms.",
							   "It must belong to the server's operating-system user, with permissions 0600.",
							   &epro_key_file, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.workers",
							"Number of background workers of a run that does not name one.",
							"0 runs in the calling session.",
							&epro_workers, 2, 0, MAX_WORKERS,
							PGC_USERSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("epro_etl");
}
