/* SPDX-License-Identifier: GPL-2.0 */
/* The list of system calls that a gadget wants. Its programs for tp_btf/sys_enter and tp_btf/sys_exit run for
 * these calls only: bpf/calls finds the programs by the call's number. A call that no gadget wants costs one look-up,
 * however many gadgets run. A program may be attached without the list; then it looks at the number itself. */
#pragma once

#include "syscalls.h"

#define NUMBERS 512 /* entries of a table; only numbers of x32 calls are greater, and without_x32() maps them */

/* The table of a gadget: a value for each of its calls, by number; all zero for any other call. The engine reads it
 * from the object. The calls of 32-bit programs are in its second half; the last entry stays empty. */
#define CALLS(type) static const type calls[2 * NUMBERS + 1] SEC(".rodata.calls")

/* An entry of CALLS, for 64-bit programs. */
#define KNOWN(call, ...) [SYSCALL_##call] = __VA_ARGS__

/* An entry of CALLS, for 32-bit programs. */
#define KNOWN_32(call, ...) [NUMBERS + (SYSCALL_COMPAT_##call & (NUMBERS - 1))] = __VA_ARGS__

/* Two entries of CALLS, for all programs. */
#define KNOWN_BOTH(call, ...) KNOWN(call, __VA_ARGS__), KNOWN_32(call, __VA_ARGS__)

/* Where a call is in a table, 2 * NUMBERS if it is in none. number is what syscall_number() returned. */
static __always_inline __u32 place_of_call(__u32 number)
{
	__u32 at = number & ~COMPAT_FLAG;

	if (at >= NUMBERS)
		return 2 * NUMBERS;
	return number & COMPAT_FLAG ? NUMBERS + at : at;
}

/* The gadget's value for a call; all zero if the gadget does not want the call. */
#define known_call(number) calls[at_most(place_of_call(number), 2 * NUMBERS)]
