/* A short life: 1,000 blocks, 993 of them freed, then exit with the status
 * named by the first argument (or by the signal of the second), without any
 * block but its own. "wait" as third argument: wait for a line before. */
#include "common.h"

ALONE static void leak_orders(void)
{
	for (int i = 0; i < 7; i++) {
		sink = malloc(100);
		*(volatile char *)sink = 1;
	}
}

ALONE static void honest(void)
{
	for (int i = 0; i < 993; i++) {
		void *block = malloc(10 + i);
		*(volatile char *)block = 1;
		sink = block;
		free(block);
	}
}

int main(int count, char **arguments)
{
	int status = count > 1 ? atoi(arguments[1]) : 0;
	int signal = count > 2 ? atoi(arguments[2]) : 0;
	if (count > 3) {
		ready();
		wait_for_go();
	}
	honest();
	if (!getenv("NO_LEAK"))
		leak_orders();
	if (signal)
		raise(signal);
	return status;
}
