/* A plugin with an allocator of its own, under the standard names: cells of
 * 256 bytes from a mapping. Loaded with RTLD_DEEPBIND, only it calls these. */
#include <stddef.h>
#include <sys/mman.h>

#define CELL 256

static char *arena;
static size_t used, room;
static void *free_cells;

__attribute__((noipa)) void *malloc(size_t size)
{
	if (size > CELL)
		return NULL;
	void *cell = free_cells;
	if (cell) {
		free_cells = *(void **)cell;
		return cell;
	}
	if (used == room) {
		room = CELL * 4096;
		used = 0;
		arena = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	cell = arena + used;
	used += CELL;
	return cell;
}

__attribute__((noipa)) void free(void *cell)
{
	if (cell) {
		*(void **)cell = free_cells;
		free_cells = cell;
	}
}

static void *volatile sink;

__attribute__((noinline)) static void leak_in_plugin(unsigned long *blocks, unsigned long *bytes)
{
	sink = malloc(222);
	*(volatile char *)sink = 1;
	++*blocks;
	*bytes += 222;
}

void plugin_round(unsigned long *blocks, unsigned long *bytes)
{
	for (int i = 0; i < 5; i++) {
		void *block = malloc(100);
		*(volatile char *)block = 1;
		sink = block;
		free(block);
	}
	leak_in_plugin(blocks, bytes);
}
