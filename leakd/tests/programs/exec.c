/* Allocates 1,000 blocks in leak_before_exec after the first line on stdin,
 * becomes itself again after the second, and then leaks one block a round in
 * leak_after_exec. What it held before is gone, not leaked. */
#include "common.h"
#include "honest.h"

ALONE static void leak_before_exec(void)
{
	for (int i = 0; i < 1000; i++) {
		sink = malloc(350);
		*(volatile char *)sink = 1;
	}
	leaked_blocks += 1000;
	leaked_bytes += 350 * 1000;
}

ALONE static void leak_after_exec(void)
{
	sink = malloc(120);
	*(volatile char *)sink = 1;
	leaked_blocks++;
	leaked_bytes += 120;
}

int main(int count, char **arguments)
{
	if (count < 2) {
		ready();
		wait_for_go();
		leak_before_exec();
		say_truth();
		wait_for_go();
		execl("/proc/self/exe", arguments[0], "again", (char *)NULL);
		abort();
	}
	static struct honest honest;
	ready();
	do {
		honest_round(&honest);
		leak_after_exec();
	} while (next_round());
	honest_end(&honest);
	say_truth();
	return 0;
}
