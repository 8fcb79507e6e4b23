/*
 * audit.h
 *		The audit trail: one more record behind the newest of a chain.
 */
#ifndef EPRO_ETL_AUDIT_H
#define EPRO_ETL_AUDIT_H

#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* What happened, for one record.  What is NULL is not known, or not there. */
typedef struct AuditRecord
{
	const char *session_user_name;
	const char *current_user_name;
	const char *action;
	const char *object;
	Jsonb	   *old_value;
	Jsonb	   *new_value;
	const char *reason;
	Jsonb	   *context;		/* request values; the actor is among them */
} AuditRecord;

extern void audit_caller(AuditRecord *record);
extern void audit_append(const AuditRecord *record);

/* A digest over texts, each with its length before it: see audit_bytes() in SQL. */
typedef struct AuditDigest
{
	pg_cryptohash_ctx *hash;
	uint8		result[PG_SHA256_DIGEST_LENGTH];
} AuditDigest;

extern void audit_digest_begin(AuditDigest *digest);
extern void audit_digest_text(AuditDigest *digest, const char *text);
extern void audit_digest_number(AuditDigest *digest, int64 number);
extern void audit_digest_instant(AuditDigest *digest, TimestampTz instant);
extern void audit_digest_jsonb(AuditDigest *digest, Jsonb *value);
extern char *audit_digest_end(AuditDigest *digest);

#endif							/* EPRO_ETL_AUDIT_H */
