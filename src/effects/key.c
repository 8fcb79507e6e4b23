/*
 * key.c
 *		Reads the pseudonym key from the file that epro_etl.key_file names.
 *
 * The key lives in a file only: never in a setting's value or an argument,
 * which pg_db_role_setting, the statement log and pg_stat_activity show.  It
 * is read when a run starts, by the processes of that run alone.
 *
 * The checks are made on the open file, so that what was checked is what is
 * read.  A link is not followed, and opening does not wait for a writer: the
 * file may turn out to be a pipe.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "effects/effects.h"
#include "storage/fd.h"
#include "words/errors.h"

#define LEAST_KEY 16			/* bytes; less is not a key but a password */
#define MOST_KEY 4096

/*
 * Makes the run's pseudonymiser in the current memory context.  Raises EP005
 * when there is no file, or it is not fit to hold a key.
 */
Pseudonymiser *
key_load(void)
{
	uint8		key[MOST_KEY];
	struct stat status;
	ssize_t		len;
	int			fd;
	Pseudonymiser *made;

	if (epro_key_file == NULL || epro_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("no pseudonym key is set"),
				 errhint("Set epro_etl.key_file to the path of a file with at least %d random bytes and permissions 0600.",
						 LEAST_KEY)));

	fd = OpenTransientFile(epro_key_file,
						   O_RDONLY | PG_BINARY | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("could not open the key file: %m"),
				 errhint("epro_etl.key_file must name a regular file, not a link, that the server's operating-system user can read.")));
	if (fstat(fd, &status) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat the key file: %m")));
	if (!S_ISREG(status.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the key file is not a regular file")));
	if (status.st_uid != geteuid() || (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the key file is not protected"),
				 errhint("It must belong to the server's operating-system user, with permissions 0600 or less.")));

	len = read(fd, key, sizeof(key));
	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the key file: %m")));
	CloseTransientFile(fd);

	/* a text editor's last newline is not part of the key */
	while (len > 0 && (key[len - 1] == '\n' || key[len - 1] == '\r'))
		len--;
	if (len < LEAST_KEY || len >= MOST_KEY)
	{
		explicit_bzero(key, sizeof(key));
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 len == 0 ? errmsg("the key file is empty") :
				 errmsg("the key file has an unfit size"),
				 errhint("It must hold %d to %d bytes.", LEAST_KEY, MOST_KEY - 1)));
	}
	made = pseudonymiser_create(key, (size_t) len);
	explicit_bzero(key, sizeof(key));
	return made;
}
