/* SPDX-License-Identifier: GPL-2.0 */
/* Samples: SEC("perf_event") programs run so often a second on each CPU, in the thread that runs there, and not while
 * the CPU is idle. */
#pragma once

#include "filter.h"

/* How often, if the user does not say it: the option --hz, of 1 to 1000. A number that no other clock has, such as 99,
 * does not see the same moment of something periodic again and again. */
#define GADGET_SAMPLES(times) PARAM(__u32, hz, times, "samples a second, on each CPU that is not idle: 1 to 1000")
