/*
 * origin.h
 *		Where the functions, operators and types that an expression names are from.
 */
#ifndef EPRO_ETL_ORIGIN_H
#define EPRO_ETL_ORIGIN_H

#include "nodes/nodes.h"

extern bool expression_is_temporary(Node *node);
extern bool expression_calls_out(Node *node);

#endif							/* EPRO_ETL_ORIGIN_H */
