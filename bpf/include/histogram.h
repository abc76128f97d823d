/* SPDX-License-Identifier: GPL-2.0 */
/* Histograms in the rows of a table: how many durations there were of each length. */
#pragma once

#include "table.h"

/* Each counts durations that are longer than the one before it and at most so many nanoseconds: 2^0, 2^1, … The last
 * one counts those that are longer than all. Behind them is the sum of all durations. */
#define HISTOGRAM_BUCKETS (sizeof(gadget_histogram) / sizeof(__u64) - 1)

/* Which of the counts a duration belongs to. It is a function that the verifier looks at alone: all ways through it,
 * each time that one is counted, would be too many for a program with a loop. */
__noinline __u64 histogram_bucket(__u64 duration)
{
	__u64 rest = duration ? duration - 1 : 0, bits = 0;

	for (int half = 32; half; half /= 2) {
		if (rest >> half) {
			rest >>= half;
			bits += half;
		}
	}
	return bits + !!rest;
}

/* Count a duration in nanoseconds in a row's gadget_histogram. */
static __always_inline void gadget_histogram_add(__u64 *histogram, __u64 duration)
{
	__u64 bucket = histogram_bucket(duration);

	if (bucket > HISTOGRAM_BUCKETS - 1)
		bucket = HISTOGRAM_BUCKETS - 1;
	__sync_fetch_and_add(&histogram[bucket], 1);
	__sync_fetch_and_add(&histogram[HISTOGRAM_BUCKETS], duration);
}
