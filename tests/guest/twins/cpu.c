/* SPDX-License-Identifier: MIT */
#include "rt.h"
void guest_main(void)
{
	say("hello %s", MODE);
	TRIED("ud2");
}
