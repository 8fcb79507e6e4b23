/*-------------------------------------------------------------------------
 *
 * server_threads.h
 *	  A stand-in for the little of the server that a channel needs, in which
 *	  the processes are threads.
 *
 * So a file of src/ that lives on locks and condition variables can be tested
 * by the thousand, and under the tools that look for data races. It is included
 * before everything else in each file of such a unit, by the Makefile: the
 * server's two global variables of errors become one a thread.
 *
 * Condition variables behave as the server's do, in the order of their steps
 * too: who is woken goes back onto the list before interrupts are looked at.
 * server_forwards says whether leaving a list passes on a wake-up, as it does
 * up to version 16, or not, as from 17.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EPRO_ETL_SERVER_THREADS_H
#define EPRO_ETL_SERVER_THREADS_H

#define PG_exception_stack (*server_exception_stack())
#define error_context_stack (*server_context_stack())

#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/dsm.h"

/* the server's own printing is not linked */
#undef vsnprintf
#undef snprintf
#undef fprintf
#undef printf

#define MOST_PROCESSES 64

typedef struct Process Process;

/* Settings of the whole stand-in; changed only while one process runs. */
extern bool server_forwards;
extern int	server_jitter;		/* one step in so many pauses; 0: none */

/* The calling thread becomes process 0. To be called once, first. */
extern void server_begin(void);

/*
 * Starts a process. However it ends (its function returns, an error nobody
 * catches, server_die()), its segment is detached.
 */
extern Process *server_start(void (*function) (void *), void *arg);
extern void server_join(Process *process);

/* The calling process's mapping of the segment that a channel lies in. */
extern dsm_segment *server_segment(void);

/* Detaches it now, as a process does that ends; how many callbacks that has. */
extern void server_exit_callbacks(void);
extern int	server_callbacks(void);

/*
 * Interrupts, seen where the server would look at them. A quiet one does not
 * wake the process: it is seen together with the next wake-up.
 */
extern void server_cancel(Process *process, bool quiet);
extern void server_die(Process *process, bool quiet);

/* Returns when the process sleeps on a condition variable, or has ended. */
extern void server_await_sleep(Process *process);

/*
 * The calling process stays where it is until it is told to go on; so does one
 * that is to halt, when it next has released a lock. server_await_halt()
 * returns when it has got there.
 */
extern void server_stay(void);
extern void server_halt(Process *process);
extern void server_await_halt(Process *process);
extern void server_go_on(Process *process);

/* The last error of the calling process. */
extern int	server_sqlstate(void);
extern const char *server_message(void);

/* Random numbers, a sequence a process. */
extern uint32 server_random(void);

#endif							/* EPRO_ETL_SERVER_THREADS_H */
