/*
 * preload.c
 *		No translations in a server that a sanitizer is loaded into.
 *
 * A library of the server's (libgpg-error) binds its texts while it is loaded,
 * before the sanitizer has begun.  It does so under a lock of the C library,
 * allocates there, and so starts the sanitizer, which for its part has an error
 * text translated: the lock is taken twice, given back twice, and broken, so
 * that the next who binds texts waits for ever.  These functions stand in front
 * of the C library's and take no lock: every text is its own translation.
 */
extern char *bindtextdomain(const char *domain, const char *folder);
extern char *bind_textdomain_codeset(const char *domain, const char *codeset);
extern char *textdomain(const char *domain);
extern char *gettext(const char *text);
extern char *dgettext(const char *domain, const char *text);
extern char *dcgettext(const char *domain, const char *text, int category);
extern char *ngettext(const char *one, const char *many, unsigned long n);
extern char *dngettext(const char *domain, const char *one, const char *many, unsigned long n);

char *
bindtextdomain(const char *domain, const char *folder)
{
	(void) domain;
	return (char *) folder;
}

char *
bind_textdomain_codeset(const char *domain, const char *codeset)
{
	(void) domain;
	return (char *) codeset;
}

char *
textdomain(const char *domain)
{
	return (char *) domain;
}

char *
gettext(const char *text)
{
	return (char *) text;
}

char *
dgettext(const char *domain, const char *text)
{
	(void) domain;
	return (char *) text;
}

char *
dcgettext(const char *domain, const char *text, int category)
{
	(void) domain;
	(void) category;
	return (char *) text;
}

char *
ngettext(const char *one, const char *many, unsigned long n)
{
	return (char *) (n == 1 ? one : many);
}

char *
dngettext(const char *domain, const char *one, const char *many, unsigned long n)
{
	(void) domain;
	return (char *) (n == 1 ? one : many);
}
