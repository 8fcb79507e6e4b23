/*
 * latency.c
 *		How long it took, as a histogram in shared memory.
 *
 * Eight buckets to each power of two of microseconds, so a percentile is
 * told to within an eighth of itself, in a fixed place, without a lock.
 */
#include "postgres.h"

#include "effects/effects.h"
#include "port/pg_bitutils.h"

#define PER_POWER 8				/* 2 to the 3 */
#define POWER_BITS 3

static int	bucket_of(uint64 microseconds);
static int64 upper_bound(int bucket);

void
latency_init(Latency *latency)
{
	for (int i = 0; i < LATENCY_BUCKETS; i++)
		pg_atomic_init_u64(&latency->buckets[i], 0);
}

/* Counts one; a clock that was set back counts as no time at all. */
void
latency_add(Latency *latency, int64 microseconds)
{
	pg_atomic_fetch_add_u64(&latency->buckets[bucket_of((uint64) Max(microseconds, 0))], 1);
}

/*
 * The time in microseconds that the given fraction (0..1) of all did not
 * exceed; -1 when there are none.
 */
int64
latency_percentile(Latency *latency, double fraction)
{
	uint64		total = 0;
	uint64		seen = 0;

	for (int i = 0; i < LATENCY_BUCKETS; i++)
		total += pg_atomic_read_u64(&latency->buckets[i]);
	if (total == 0)
		return -1;
	for (int i = 0; i < LATENCY_BUCKETS; i++)
	{
		seen += pg_atomic_read_u64(&latency->buckets[i]);
		if (seen > 0 && (double) seen >= fraction * (double) total)
			return upper_bound(i);
	}
	return upper_bound(LATENCY_BUCKETS - 1);
}

static int
bucket_of(uint64 microseconds)
{
	int			power;
	int			bucket;

	if (microseconds < PER_POWER)
		return (int) microseconds;
	power = pg_leftmost_one_pos64(microseconds);
	bucket = (power - POWER_BITS + 1) * PER_POWER +
		(int) ((microseconds >> (power - POWER_BITS)) & (PER_POWER - 1));
	return Min(bucket, LATENCY_BUCKETS - 1);
}

/* The longest time that a bucket counts. */
static int64
upper_bound(int bucket)
{
	int			power = bucket / PER_POWER + POWER_BITS - 1;
	int64		width;

	if (bucket < PER_POWER)
		return bucket;
	width = INT64CONST(1) << (power - POWER_BITS);
	return (INT64CONST(1) << power) + (bucket % PER_POWER + 1) * width - 1;
}
