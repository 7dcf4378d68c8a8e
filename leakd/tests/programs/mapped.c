/* orders.c with the file of its argument mapped as code for all its life. */
#include "common.h"
#include "honest.h"
#include <fcntl.h>
#include <sys/mman.h>

ALONE static void leak_orders(void)
{
	char *order = malloc(176);
	memset(order, 'o', 176);
	sink = order;
	leaked_blocks++;
	leaked_bytes += 176;
}

int main(int count, char **arguments)
{
	static struct honest honest;
	int file = count > 1 ? open(arguments[1], O_RDONLY) : -1;
	if (file < 0 || mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED)
		return 2;
	ready();
	do {
		honest_round(&honest);
		leak_orders();
	} while (next_round());
	honest_end(&honest);
	say_truth();
	return 0;
}
