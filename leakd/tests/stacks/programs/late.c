/* Allocates some frames deep, once for each byte on stdin. It says "r" when it
 * is ready, "d" when it has done so once, "e" after the second time. */
#include <stdlib.h>
#include "stages.h"

static volatile unsigned sink;

NOINLINE static void take(unsigned depth)
{
	volatile char local[40];
	local[depth] = 1;
	if (depth == 0)
		free(malloc(100));
	else
		take(depth - 1);
	sink += (unsigned)local[depth];
}

int main(void)
{
	char byte;
	wait_for_go();
	take(10);
	say('d');
	if (read(0, &byte, 1) != 1)
		return 1;
	take(10);
	say('e');
	return read(0, &byte, 1) < 0;
}
