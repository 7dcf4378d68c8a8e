/* A server that forgets one 200-byte order a round, in leak_orders. */
#define _GNU_SOURCE
#include "common.h"
#include "honest.h"

ALONE static void leak_orders(void)
{
	char *order = malloc(200);
	memset(order, 'o', 200);
	sink = order;
	leaked_blocks++;
	leaked_bytes += 200;
}

ALONE static int handle_request(struct honest *honest)
{
	honest_round(honest);
	leak_orders();
	return next_round();
}

int main(void)
{
	static struct honest honest;
	ready();
	while (handle_request(&honest))
		;
	honest_end(&honest);
	say_truth();
	return 0;
}
