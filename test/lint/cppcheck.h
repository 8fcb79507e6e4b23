/*
 * cppcheck.h
 *		PostgreSQL's macros, as cppcheck has to know them.
 *
 * It is not given PostgreSQL's headers, which would take it minutes.  Only what
 * it cannot parse, or would misread, without them is here.
 */
#ifndef EPRO_ETL_CPPCHECK_H
#define EPRO_ETL_CPPCHECK_H

#define foreach(cell, list) \
	for (cell = list_head(list); cell != NULL; cell = lnext(list, cell))
#define lengthof(array) (sizeof(array) / sizeof((array)[0]))
#define INT64CONST(number) (number##L)
#define UINT64CONST(number) (number##UL)
#define INT64_FORMAT "%ld"
#define UINT64_FORMAT "%lu"
#define FLEXIBLE_ARRAY_MEMBER
#define PGDLLEXPORT

/* Errors do not return. */
#define pg_attribute_noreturn() __attribute__((noreturn))
#define LOG 15
#define ERROR 21
#define FATAL 22
#define PANIC 23
#define ereport(level, ...) \
	do { __VA_ARGS__; if ((level) >= ERROR) exit(1); } while (0)
#define elog(level, ...) \
	do { write_log(__VA_ARGS__); if ((level) >= ERROR) exit(1); } while (0)
#define PG_TRY() if (no_error_comes())
#define PG_CATCH() else
#define PG_END_TRY() (void) 0

#define PG_FUNCTION_INFO_V1(function)
#define PG_FUNCTION_ARGS struct FunctionCallInfoBaseData *fcinfo
#define PG_RETURN_NULL() return 0
#define PG_RETURN_VOID() return 0

#endif							/* EPRO_ETL_CPPCHECK_H */
