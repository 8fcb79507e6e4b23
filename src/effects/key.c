/*
 * key.c
 *		Reads the master key: from the file that epro_etl.key_file names, or
 *		from what the command in epro_etl.key_command prints.
 *
 * The key is in neither setting's value: pg_db_role_setting, the statement log
 * and pg_stat_activity show those.  It is read when a run starts, by the
 * processes of that run alone.
 *
 * The checks are made on the open file, so that what was checked is what is
 * read.  A link is not followed, and opening does not wait for a writer: the
 * file may turn out to be a pipe.
 *
 * What was read is wiped as soon as the keys' root is made of it, and that is
 * wiped with the run's memory; when the process ends before, on its way out.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "effects/effects.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "words/errors.h"

#define LEAST_KEY 16			/* bytes; less is not a key but a password */
#define MOST_KEY 4096

typedef struct MasterKey
{
	uint8		bytes[MOST_KEY];
	ssize_t		len;
} MasterKey;

/* The pseudonymisers that this process has in memory. */
typedef struct Loaded
{
	Pseudonymiser *pseudonymiser;
	struct Loaded *next;
} Loaded;

static Loaded *loaded = NULL;

static void read_key(MasterKey *key);
static void read_file(MasterKey *key);
static void refuse_in_data_directory(void);
static void read_command(MasterKey *key);
static ssize_t read_some(int fd, uint8 *at, size_t room);
static void wipe_with_process(Pseudonymiser *pseudonymiser);
static void forget(void *argument);
static void wipe_loaded(int code, Datum arg);

/*
 * Makes the run's pseudonymiser of a key version in the current memory context.
 * In a transaction.  Raises EP005 when there is no key, its source is not fit
 * to hold one, or it is not the one of the keyring.
 */
Pseudonymiser *
key_load(int version)
{
	MasterKey	key = {0};
	Pseudonymiser *volatile made = NULL;

	PG_TRY();
	{
		read_key(&key);
		made = pseudonymiser_create(key.bytes, (size_t) key.len);
	}
	PG_FINALLY();
	{
		explicit_bzero(&key, sizeof(key));
	}
	PG_END_TRY();
	wipe_with_process(made);
	keyring_verify(made, version);
	pseudonymiser_set_version(made, version);
	return made;
}

static void
read_key(MasterKey *key)
{
	bool		has_file = epro_key_file != NULL && epro_key_file[0] != '\0';
	bool		has_command = epro_key_command != NULL && epro_key_command[0] != '\0';

	if (has_file == has_command)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 has_file ? errmsg("the pseudonym key has two sources") :
				 errmsg("no pseudonym key is set"),
				 errhint("Set epro_etl.key_file to the path of a file with at least %d random bytes and permissions 0600, or epro_etl.key_command to a command that prints them.",
						 LEAST_KEY)));
	if (has_file)
		read_file(key);
	else
		read_command(key);

	/* a text editor's last newline is not part of the key */
	while (key->len > 0 && (key->bytes[key->len - 1] == '\n' || key->bytes[key->len - 1] == '\r'))
		key->len--;
	if (key->len < LEAST_KEY || key->len >= MOST_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 key->len > 0 ?
				 (has_file ? errmsg("the key file has an unfit size") :
				  errmsg("what the key command prints has an unfit size")) :
				 (has_file ? errmsg("the key file is empty") :
				  errmsg("the key command prints nothing")),
				 errhint("It must be %d to %d bytes.", LEAST_KEY, MOST_KEY - 1)));
}

static void
read_file(MasterKey *key)
{
	struct stat status;
	int			fd;

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
				 errmsg("the key file is not a regular file"),
				 errhint("epro_etl.key_file must name a file with at least %d random bytes; for another source there is epro_etl.key_command.",
						 LEAST_KEY)));
	if (status.st_uid != geteuid() || (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the key file is not protected"),
				 errhint("It must belong to the server's operating-system user, with permissions 0600 or less.")));
	refuse_in_data_directory();

	key->len = read_some(fd, key->bytes, MOST_KEY);
	if (key->len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the key file: %m")));
	CloseTransientFile(fd);
}

/* A backup takes the data directory along: the key would lie beside what it guards. */
static void
refuse_in_data_directory(void)
{
	char		file[PATH_MAX];
	char		folder[PATH_MAX];
	size_t		len;

	if (realpath(epro_key_file, file) == NULL || realpath(DataDir, folder) == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not resolve the path of the key file: %m")));
	len = strlen(folder);
	if (strncmp(file, folder, len) == 0 && file[len] == '/')
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the key file is in the data directory"),
				 errhint("Keep it elsewhere: backups of the data directory would take the key along.")));
}

/*
 * What a command prints, run by the server's own user as archive_command is.
 * It has to end by itself: a cancel waits for that.
 */
static void
read_command(MasterKey *key)
{
	FILE	   *pipe = OpenPipeStream(epro_key_command, PG_BINARY_R);
	int			result;

	if (pipe == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("could not run the key command: %m")));
	/* not through the stream: its buffer would keep the key */
	key->len = read_some(fileno(pipe), key->bytes, MOST_KEY);
	if (key->len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from the key command: %m")));
	result = ClosePipeStream(pipe);
	/* a cancel goes to the command as well, and ends it */
	CHECK_FOR_INTERRUPTS();
	/* who printed too much was cut off, and is refused for that */
	if (result != 0 && key->len < MOST_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_EPRO_KEY_REFUSED),
				 errmsg("the key command failed: %s",
						result == -1 ? "its end was lost" : wait_result_to_str(result)),
				 errhint("epro_etl.key_command is run by the server's operating-system user; what it writes to its standard error is in the server log.")));
}

/* Up to room bytes, or the end; -1 with errno. */
static ssize_t
read_some(int fd, uint8 *at, size_t room)
{
	size_t		len = 0;

	while (len < room)
	{
		ssize_t		n = read(fd, at + len, room - len);

		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return -1;
		if (n < 0)
			CHECK_FOR_INTERRUPTS();
		else
			len += (size_t) n;
	}
	return (ssize_t) len;
}

/* A worker's memory is not reset when an error ends its process. */
static void
wipe_with_process(Pseudonymiser *pseudonymiser)
{
	static bool watching = false;
	Loaded	   *entry = palloc(sizeof(Loaded));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	if (!watching)
		on_proc_exit(wipe_loaded, (Datum) 0);
	watching = true;
	callback->func = forget;
	callback->arg = entry;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	entry->pseudonymiser = pseudonymiser;
	entry->next = loaded;
	loaded = entry;
}

/* Its memory goes, and is wiped by its own callback. */
static void
forget(void *argument)
{
	for (Loaded **at = &loaded; *at != NULL; at = &(*at)->next)
	{
		if (*at == argument)
		{
			*at = (*at)->next;
			return;
		}
	}
}

static void
wipe_loaded(int code, Datum arg)
{
	for (Loaded *entry = loaded; entry != NULL; entry = entry->next)
		pseudonymiser_wipe(entry->pseudonymiser);
}
