/* A server that, with LEAK in the environment, forgets 1 MiB a minute in
 * leak_slowly: 17 KiB a second in blocks of 1 KiB. Without it, it is the same
 * but for that. A round takes about a millisecond. */
#define _GNU_SOURCE
#include "common.h"
#include "honest.h"
#include <time.h>

ALONE static void leak_slowly(void)
{
	char *order = malloc(1024);
	memset(order, 'o', 1024);
	sink = order;
	leaked_blocks++;
	leaked_bytes += 1024;
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

int main(void)
{
	static struct honest honest;
	int leaks = getenv("LEAK") != NULL;
	double begin = seconds();
	ready();
	do {
		honest_round(&honest);
		while (leaks && leaked_bytes < (seconds() - begin) * (1 << 20) / 60)
			leak_slowly();
	} while (next_round());
	honest_end(&honest);
	say_truth();
	return 0;
}
