/* Allocates by ever new ways, through a function whose code is replaced again and
 * again: that of one file by that of another one, which does the same. Usage: FILE
 * FILE, both replaced_plugin.c. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "stages.h"

/* Each way is a call site: fewer than leakd has room for. */
#define LEVELS 15
#define CALLS 32000
#define CALLS_A_FILE 16

static void (*plugin)(void *(*)(size_t), void (*)(void *));
static volatile unsigned sink;

NOINLINE static void left(unsigned way, unsigned level);
NOINLINE static void right(unsigned way, unsigned level);

/* A step of a way; no two are the same code. */
#define STEP(name, number)                                            \
	NOINLINE static void name(unsigned way, unsigned level)       \
	{                                                             \
		if (level == 0)                                       \
			plugin(malloc, free);                         \
		else                                                  \
			(way & 1 ? left : right)(way >> 1, level - 1); \
		sink += number;                                       \
	}

STEP(left, 3)
STEP(right, 2)

/* Where the code of the plugin lies. */
static void find(uintptr_t *begin, uintptr_t *end, unsigned long *offset)
{
	char line[4096];
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %*s %lx", begin, end, offset) == 3 &&
		    *begin <= (uintptr_t)plugin && (uintptr_t)plugin < *end) {
			fclose(maps);
			return;
		}
	}
	_exit(5);
}

int main(int count, char **arguments)
{
	uintptr_t begin, end;
	unsigned long offset;
	if (count != 3)
		return 2;
	void *library = dlopen(arguments[1], RTLD_NOW);
	/* So that leakd knows the other file when its code comes. */
	if (!library || !dlopen(arguments[2], RTLD_NOW))
		return 2;
	*(void **)&plugin = dlsym(library, "plugin_take");
	find(&begin, &end, &offset);
	int files[2] = {open(arguments[1], O_RDONLY), open(arguments[2], O_RDONLY)};
	wait_for_go();
	for (unsigned way = 0; way < CALLS; way++) {
		if (way % CALLS_A_FILE == 0) {
			int file = files[way / CALLS_A_FILE & 1];
			void *code = mmap((void *)begin, end - begin, PROT_READ | PROT_EXEC,
					  MAP_PRIVATE | MAP_FIXED, file, (off_t)offset);
			if (code == MAP_FAILED)
				return 3;
		}
		left(way, LEVELS);
	}
	work_is_done();
	return 0;
}
