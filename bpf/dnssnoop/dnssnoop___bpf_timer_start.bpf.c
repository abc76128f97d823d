// SPDX-License-Identifier: GPL-2.0
/* Timers of programs: kernel commit b00628b1c7d5 (5.15). Without them nothing tells of questions without an answer. */
#define TIMERS
#include "dnssnoop.bpf.c"
