/* Lives as many microseconds as its argument says, allocating all the time. */
#include "common.h"
#include <time.h>

int main(int count, char **arguments)
{
	struct timespec start, now;
	long life = count > 1 ? atol(arguments[1]) : 1000;
	say("ready %d\n", (int)getpid());
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		sink = malloc(50);
		free(sink);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < life);
	return 0;
}
