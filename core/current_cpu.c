/* SPDX-License-Identifier: MIT */
#include "core/current_cpu.h"

_Thread_local int current_cpu = -1;
