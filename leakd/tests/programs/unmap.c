/* orders.c with mappings that come and go: each round maps a file of code
 * (its argument), executes nothing of it, unmaps a part of it, then the rest;
 * and unmaps a region of data in the middle. The leak is in leak_orders. */
#include "common.h"
#include "honest.h"
#include <fcntl.h>
#include <sys/mman.h>

ALONE static void leak_orders(void)
{
	char *order = malloc(160);
	memset(order, 'o', 160);
	sink = order;
	leaked_blocks++;
	leaked_bytes += 160;
}

ALONE static void map_and_unmap(int file)
{
	char *code = mmap(NULL, 16384, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
	char *data = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED || data == MAP_FAILED)
		abort();
	munmap(data + 16384, 16384);
	munmap(code + 4096, 4096);
	munmap(code, 16384);
	munmap(data, 65536);
}

int main(int count, char **arguments)
{
	static struct honest honest;
	int file = open(count > 1 ? arguments[1] : "/proc/self/exe", O_RDONLY);
	if (file < 0)
		return 2;
	ready();
	do {
		map_and_unmap(file);
		honest_round(&honest);
		leak_orders();
	} while (next_round());
	honest_end(&honest);
	say_truth();
	return 0;
}
