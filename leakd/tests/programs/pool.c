/* A program with an allocator of its own: xpool carves 96-byte cells from one
 * big block. leak_cells keeps one a round. An ordinary malloc user is there
 * too, to show that it is not what is asked for. */
#define _GNU_SOURCE
#include "common.h"
#include "honest.h"

#define CELL 96
#define CELLS 1000000

static char *pool;
static unsigned long used;
static void *free_cells;

__attribute__((noinline, noipa)) void *xpool_alloc(void *owner, size_t size)
{
	(void)owner;
	if (size > CELL)
		return NULL;
	void *cell = free_cells;
	if (cell)
		free_cells = *(void **)cell;
	else if (used < CELLS)
		cell = pool + CELL * used++;
	return cell;
}

__attribute__((noinline, noipa)) void xpool_free(void *owner, void *cell)
{
	(void)owner;
	if (cell) {
		*(void **)cell = free_cells;
		free_cells = cell;
	}
}

ALONE static void leak_cells(void)
{
	char *cell = xpool_alloc(&pool, 72);
	if (!cell)
		abort();
	memset(cell, 'c', 72);
	sink = cell;
	leaked_blocks++;
	leaked_bytes += 72;
}

int main(void)
{
	static struct honest honest;
	void *cells[32] = {NULL};
	pool = malloc((size_t)CELL * CELLS);
	ready();
	do {
		honest_round(&honest);
		xpool_free(&pool, cells[rounds % 32]);
		cells[rounds % 32] = xpool_alloc(&pool, 8 + rounds % 80);
		if (xpool_alloc(&pool, CELL + 1))
			abort();
		leak_cells();
	} while (next_round());
	for (int i = 0; i < 32; i++)
		xpool_free(&pool, cells[i]);
	honest_end(&honest);
	free(pool);
	say_truth();
	return 0;
}
