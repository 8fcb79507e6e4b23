/*
 * epro_etl.c
 *		What happens when the library is loaded.
 */
#include "postgres.h"

#include "effects/context.h"
#include "effects/effects.h"
#include "effects/registry.h"
#include "face/face.h"
#include "fmgr.h"
#include "processes/stream.h"
#include "words/compat.h"

EPRO_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	settings_define();
	registry_request();
	launcher_request();
	dropdb_watch();
	remote_watch();
}
