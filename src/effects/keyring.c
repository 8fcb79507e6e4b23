/*
 * keyring.c
 *		The table epro_etl.key_version: which versions of keys there are, and
 *		by what to tell that the key at hand is theirs.
 *
 * It holds no key, only a check value a version: eight bytes of a MAC under a
 * key that is derived for this alone.  It is written and read as the owner of
 * the extension.  Writers take the table's lock; the one entry that runs make,
 * version 1 of an empty keyring, is left to the primary key.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "effects/effects.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "words/errors.h"

static void enter_version(Pseudonymiser *pseudonymiser, int version, const char *note);
static bytea *check_value(Pseudonymiser *pseudonymiser, int version);
static void execute(const char *command, int nargs, Oid *types, Datum *values,
					const char *nulls, int expected);

/* The version that new runs take: 1 as long as the keyring is empty. */
int
keyring_version(void)
{
	OwnerScope	scope;
	bool		isnull;
	int			version;

	owner_begin(&scope);
	execute("SELECT coalesce(max(version), 1) FROM epro_etl.key_version",
			0, NULL, NULL, NULL, SPI_OK_SELECT);
	version = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										  1, &isnull));
	owner_end(&scope);
	return version;
}

/*
 * Is the pseudonymiser's key the one of that version?  Raises EP005 if not.  An
 * empty keyring takes it for version 1.
 */
void
keyring_verify(Pseudonymiser *pseudonymiser, int version)
{
	Oid			types[] = {INT4OID, BYTEAOID};
	Datum		values[lengthof(types)];
	OwnerScope	scope;
	bool		isnull;
	bool		known;
	bool		same;

	owner_begin(&scope);
	values[0] = Int32GetDatum(version);
	values[1] = PointerGetDatum(check_value(pseudonymiser, version));
	execute("SELECT check_value = $2 FROM epro_etl.key_version WHERE version = $1",
			lengthof(types), types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0 && version == 1)
	{
		execute("SELECT FROM epro_etl.key_version LIMIT 1", 0, NULL, NULL, NULL, SPI_OK_SELECT);
		if (SPI_processed == 0)
			enter_version(pseudonymiser, 1, NULL);
		execute("SELECT check_value = $2 FROM epro_etl.key_version WHERE version = $1",
				lengthof(types), types, values, NULL, SPI_OK_SELECT);
	}
	known = SPI_processed == 1;
	same = known && DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1, &isnull));
	owner_end(&scope);
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("key version %d is not in the keyring", version),
				 errhint("See epro_etl.key_version.")));
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the pseudonym key is not the one of key version %d", version),
				 errhint("With another key, subjects would get other pseudonyms. Give back the key that this database's runs began with; see epro_etl.key_version.")));
}

/*
 * Enters the next version, and returns it.  Raises EP005 when the key is not
 * the one of the version before.
 */
int
keyring_rotate(Pseudonymiser *pseudonymiser, const char *note)
{
	OwnerScope	scope;
	int			version;

	/* two rotations are one after the other; runs go on reading */
	LockRelationOid(own_relation("key_version"), ShareRowExclusiveLock);
	version = keyring_version();
	keyring_verify(pseudonymiser, version);
	owner_begin(&scope);
	enter_version(pseudonymiser, ++version, note);
	owner_end(&scope);
	return version;
}

/* In an owner's scope. */
static void
enter_version(Pseudonymiser *pseudonymiser, int version, const char *note)
{
	Oid			types[] = {INT4OID, BYTEAOID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[] = "   ";

	values[0] = Int32GetDatum(version);
	values[1] = PointerGetDatum(check_value(pseudonymiser, version));
	values[2] = note ? CStringGetTextDatum(note) : (Datum) 0;
	nulls[2] = note ? ' ' : 'n';
	execute("UPDATE epro_etl.key_version SET state = 'superseded' WHERE state = 'current' AND version < $1",
			1, types, values, nulls, SPI_OK_UPDATE);
	/* of runs that begin together, one enters it */
	execute("INSERT INTO epro_etl.key_version (version, check_value, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			lengthof(types), types, values, nulls, SPI_OK_INSERT);
}

/* In the current memory context. */
static bytea *
check_value(Pseudonymiser *pseudonymiser, int version)
{
	bytea	   *made = palloc(VARHDRSZ + KEY_CHECK_LENGTH);

	SET_VARSIZE(made, VARHDRSZ + KEY_CHECK_LENGTH);
	pseudonymiser_check(pseudonymiser, version, (uint8 *) VARDATA(made));
	return made;
}

static void
execute(const char *command, int nargs, Oid *types, Datum *values,
		const char *nulls, int expected)
{
	int			result = SPI_execute_with_args(command, nargs, types, values,
											   nulls, false, 0);

	if (result != expected)
		elog(ERROR, "could not use the keyring: %s", SPI_result_code_string(result));
}
