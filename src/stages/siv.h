/*
 * siv.h
 *		AES-256-SIV: encryption that is deterministic and authenticated.
 */
#ifndef EPRO_ETL_SIV_H
#define EPRO_ETL_SIV_H

#include "postgres.h"

#include "words/response.h"

#define SIV_KEY_LENGTH 64
#define SIV_TAG_LENGTH 16

extern bool siv_is_there(void);
extern bool siv_seal(const uint8 *key, Span associated, Span plain, uint8 *sealed);
extern bool siv_open(const uint8 *key, Span associated, Span sealed, uint8 *plain);

#endif							/* EPRO_ETL_SIV_H */
