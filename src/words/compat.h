/*
 * compat.h
 *		What differs between PostgreSQL 15, 17 and 18, and nothing else.
 *
 * Bodies of functions carry no #if: each difference gets one name here, so
 * that a new server version is one file's work.
 */
#ifndef EPRO_ETL_COMPAT_H
#define EPRO_ETL_COMPAT_H

#include "postgres.h"

#include "access/xact.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/wait_event.h"

/* varatt macros moved out of postgres.h in 16 */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18 has another name for what does not return, and takes it in front of the
 * declaration only: our declarations have it there. */
#if PG_VERSION_NUM >= 180000
#define pg_attribute_noreturn() pg_noreturn
#endif

/* The summarizing-index argument came in 16. */
#if PG_VERSION_NUM >= 160000
#define epro_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#else
#define epro_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

/* What conflicts with a row that is to be inserted, and inserting it so that
 * others can wait for it: an argument more in 16 and in 18. */
#if PG_VERSION_NUM >= 180000
#define epro_finds_conflict(rri, slot, estate, tid, indexes) \
	(!ExecCheckIndexConstraints(rri, slot, estate, tid, &(slot)->tts_tid, indexes))
#else
#define epro_finds_conflict(rri, slot, estate, tid, indexes) \
	(!ExecCheckIndexConstraints(rri, slot, estate, tid, indexes))
#endif
#if PG_VERSION_NUM >= 160000
#define epro_insert_index_tuples_speculatively(rri, slot, estate, conflict) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, conflict, NIL, false)
#else
#define epro_insert_index_tuples_speculatively(rri, slot, estate, conflict) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, conflict, NIL)
#endif

/* Scans of indexes are instrumented since 18. */
#if PG_VERSION_NUM >= 180000
#define epro_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define epro_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* One check for all classes of objects since 16; only the privileges on
 * relations and attributes kept theirs. */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#define epro_owns_relation(relation, role) \
	object_ownercheck(RelationRelationId, relation, role)
#define epro_database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, database, role, mode)
#define epro_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#else
#define epro_owns_relation(relation, role) \
	pg_class_ownercheck(relation, role)
#define epro_owns_database(database, role) \
	pg_database_ownercheck(database, role)
#define epro_database_aclcheck(database, role, mode) \
	pg_database_aclcheck(database, role, mode)
#endif

#if PG_VERSION_NUM >= 160000
#include "catalog/pg_namespace.h"
#define epro_namespace_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, schema, role, mode)
#else
#define epro_namespace_aclcheck(schema, role, mode) \
	pg_namespace_aclcheck(schema, role, mode)
#endif

/* Being a member stopped to imply SET ROLE in 16. */
#if PG_VERSION_NUM >= 160000
#define epro_may_become(member, role) member_can_set_role(member, role)
#else
#define epro_may_become(member, role) is_member_of_role(member, role)
#endif

/* Where a relation is stored: a node became a locator in 16. */
#if PG_VERSION_NUM >= 160000
#define epro_relation_file(relation) ((relation)->rd_locator.relNumber)
#else
#define epro_relation_file(relation) ((relation)->rd_node.relNode)
#endif

/* A lexer on the caller's stack in 15 and 16 became an argument in 17. */
#if PG_VERSION_NUM >= 170000
#define epro_json_lexer(text, len, encoding) \
	makeJsonLexContextCstringLen(NULL, text, len, encoding, true)
#else
#define epro_json_lexer(text, len, encoding) \
	makeJsonLexContextCstringLen(text, len, encoding, true)
#endif

/* Semantic actions return an error code since 16, nothing before. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType EproJsonAction;
#define EPRO_JSON_GO_ON return JSON_SUCCESS
#else
typedef void EproJsonAction;
#define EPRO_JSON_GO_ON return
#endif

/* What base64 stands for is unsigned since 18. */
#if PG_VERSION_NUM >= 180000
typedef uint8 EproBase64Byte;
#else
typedef char EproBase64Byte;
#endif

/* As whom a foreign table is reached, InvalidOid for the current user: range
 * table entries stopped to say so in 16. */
#if PG_VERSION_NUM >= 160000
#define epro_foreign_scan_user(scan, estate) ((scan)->checkAsUser)
#define epro_result_user(result, estate) ExecGetResultRelCheckAsUser(result, estate)
#else
#define epro_foreign_scan_user(scan, estate) \
	(exec_rt_fetch((scan)->scan.scanrelid > 0 ? (scan)->scan.scanrelid : \
				   bms_next_member((scan)->fs_relids, -1), estate)->checkAsUser)
#define epro_result_user(result, estate) \
	(exec_rt_fetch(((result)->ri_RootResultRelInfo ? (result)->ri_RootResultRelInfo : \
					(result))->ri_RangeTableIndex, estate)->checkAsUser)
#endif

/* A plan that is run stopped to say whether it is run only once in 18. */
#if PG_VERSION_NUM >= 180000
#define EPRO_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define EPRO_RUN_ARGUMENTS query, direction, count
#else
#define EPRO_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool once
#define EPRO_RUN_ARGUMENTS query, direction, count, once
#endif

/* A transaction has a timeout of its own since 17. */
#if PG_VERSION_NUM >= 170000
#define EPRO_HAS_TRANSACTION_TIMEOUT true
#define EPRO_TRANSACTION_TIMEOUT TRANSACTION_TIMEOUT
#else
#define EPRO_HAS_TRANSACTION_TIMEOUT false
#define EPRO_TRANSACTION_TIMEOUT STATEMENT_TIMEOUT
#endif

/* Of the library, and of the objects that it goes with; see epro_etl.control. */
#define EPRO_VERSION "0.2.0"

/* A module tells its name and version since 18. */
#if PG_VERSION_NUM >= 180000
#define EPRO_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "epro_etl", .version = EPRO_VERSION)
#else
#define EPRO_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* EPRO_ETL_COMPAT_H */
