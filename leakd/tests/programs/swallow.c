/* Plants a leak in a program from outside: an LD_PRELOAD library that defines
 * free, and only that. Of the blocks whose usable size lies in
 * SWALLOW_MIN..SWALLOW_MAX it keeps every SWALLOW_EVERY-th, by not passing
 * the call on to the allocator.
 *
 * $SWALLOW_FILE is a file of 32 bytes, mapped by the program and the test:
 * armed (nothing is kept while this is 0), blocks kept, bytes kept (usable
 * sizes), blocks of that size seen while armed. It is there when the program
 * starts; processes that the program forks go on counting in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct truth {
	_Atomic uint64_t armed, blocks, bytes, seen;
};

static struct truth *truth;
static size_t smallest, largest, every;
static void (*next_free)(void *);
static size_t (*next_usable)(void *);

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("SWALLOW_FILE"), *from = getenv("SWALLOW_MIN"),
		   *to = getenv("SWALLOW_MAX"), *one_of = getenv("SWALLOW_EVERY");
	if (!path || !from || !to || !one_of)
		_exit(90);
	smallest = strtoul(from, NULL, 0);
	largest = strtoul(to, NULL, 0);
	every = strtoul(one_of, NULL, 0);
	next_usable = dlsym(RTLD_NEXT, "malloc_usable_size");
	int file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0 || !next_usable || !every)
		_exit(91);
	void *memory = mmap(NULL, sizeof *truth, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (memory == MAP_FAILED)
		_exit(92);
	truth = memory;
}

static int swallowed(void *block)
{
	if (!block || !truth || !truth->armed)
		return 0;
	size_t usable = next_usable(block);
	if (usable < smallest || usable > largest || ++truth->seen % every)
		return 0;
	truth->blocks++;
	truth->bytes += usable;
	return 1;
}

void free(void *block)
{
	if (swallowed(block))
		return;
	if (!next_free)
		next_free = dlsym(RTLD_NEXT, "free");
	next_free(block);
}
