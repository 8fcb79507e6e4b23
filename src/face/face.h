/*
 * face.h
 *		What the library does when it is loaded.
 */
#ifndef EPRO_ETL_FACE_H
#define EPRO_ETL_FACE_H

#include "postgres.h"

/* ---- dropdb.c ---- */
extern void dropdb_watch(void);

#endif							/* EPRO_ETL_FACE_H */
