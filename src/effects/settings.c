/*
 * settings.c
 *		The extension's settings, in alphabetical order.
 */
#include "postgres.h"

#include "effects/context.h"
#include "effects/effects.h"
#include "utils/guc.h"

int			epro_batch_age = 10;
int			epro_batch_size = 2000;
char	   *epro_context = NULL;
char	   *epro_key_command = NULL;
char	   *epro_key_file = NULL;
int			epro_naptime = 1000;
int			epro_queue_size = 1000;
int			epro_sink_timeout = 30000;
int			epro_workers = 2;

/* Defines the settings and reserves their prefix.  Called once, at load. */
void
settings_define(void)
{
	DefineCustomIntVariable("epro_etl.batch_age",
							"Time for which a stream waits for a chunk to fill.",
							"Counted from the chunk's first response; a full chunk does not wait.",
							&epro_batch_age, 10, 0, 60000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.batch_size",
							"Number of responses in a chunk, which is one transaction of one worker.",
							NULL, &epro_batch_size, 2000, 1, MAX_BATCH_SIZE,
							PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomStringVariable("epro_etl.context",
							   "Values of the request at hand; see context_set().",
							   "They are written into the ledger of runs. No patient data belongs here.",
							   &epro_context, "", PGC_USERSET, GUC_NOT_IN_SAMPLE,
							   context_check, NULL, NULL);

	/* these name a source, never the key: settings are shown to everyone */
	DefineCustomStringVariable("epro_etl.key_command",
							   "Command that prints the key of the pseudonyms, instead of a file.",
							   "It is run by the server's operating-system user when a run begins.",
							   &epro_key_command, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("epro_etl.key_file",
							   "File with the key of the pseudonyms.",
							   "It must belong to the server's operating-system user, with permissions 0600.",
							   &epro_key_file, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.naptime",
							"Time after which a stream looks at its source and configuration without being woken.",
							NULL, &epro_naptime, 1000, 10, 3600000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.queue_size",
							"Number of responses that a channel of a stream holds.",
							"Each has 8 kB of shared memory.",
							&epro_queue_size, 1000, 1, MAX_QUEUE_SIZE,
							PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.sink_timeout",
							"Time after which a stream takes a sink on another server for away.",
							"0 waits for ever.",
							&epro_sink_timeout, 30000, 0, 3600000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("epro_etl.workers",
							"Number of background workers of a run that does not name one.",
							"0 runs in the calling session.",
							&epro_workers, 2, 0, MAX_WORKERS,
							PGC_USERSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("epro_etl");
}
