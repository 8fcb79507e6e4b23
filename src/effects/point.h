/*
 * point.h
 *		Named points in the code, at which a test can make an error or a wait.
 *
 * They are there in a build with EPRO_POINTS ("make POINTS=1") only; in any
 * other they are nothing at all.
 *
 * POINT("name") stands where an error may be raised.  POINT_CALM("name") stands
 * where none may, in clean-up that promises not to raise any: a test can only
 * make the process wait there, and then end it or let it go on.
 *
 * A name is used once; test/t/23_points.pl finds all of them and has to reach each.
 */
#ifndef EPRO_ETL_POINT_H
#define EPRO_ETL_POINT_H

#ifdef EPRO_POINTS
extern void point_reached(const char *name, bool may_raise);

#define POINT(name) point_reached(name, true)
#define POINT_CALM(name) point_reached(name, false)
#else
#define POINT(name) ((void) 0)
#define POINT_CALM(name) ((void) 0)
#endif

#endif							/* EPRO_ETL_POINT_H */
