/* Loads and unloads the libraries that it is given, in turn, as long as it
 * runs, and calls each for some rounds. "mapped" as first argument: it maps a
 * part of the code of each library on its own in between, over what another
 * one left, takes a part of that out again, and makes data executable.
 *
 * A library's blocks are all of one size, so that it is known who took them.
 * Before it begins it says where each library comes to lie. */
#define _GNU_SOURCE
#include "common.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#define PHASE 150 /* rounds, of a millisecond and more */

typedef void (*work)(unsigned long *, unsigned long *);

static work load(const char *path, void **library)
{
	*library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!*library) {
		say("%s\n", dlerror());
		exit(1);
	}
	return (work)(uintptr_t)dlsym(*library, "plugin_round");
}

/* Mappings of code that nothing executes. */
ALONE static void churn(const char *path)
{
	int file = open(path, O_RDONLY);
	char *code = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, file, 0);
	if (file < 0 || code == MAP_FAILED)
		abort();
	mprotect(code, 32768, PROT_READ | PROT_EXEC);
	munmap(code + 8192, 8192);
	char *moved = mremap(code, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, code + 40960);
	if (moved == MAP_FAILED)
		abort();
	munmap(code, 65536);
	close(file);
}

int main(int count, char **arguments)
{
	int mapped = count > 1 && !strcmp(arguments[1], "mapped");
	int first = 1 + mapped;
	ready();
	for (int i = first; i < count; i++) {
		void *library;
		say("%lx\n", (unsigned long)(uintptr_t)load(arguments[i], &library));
		dlclose(library);
	}
	int running = 1;
	for (int i = first; running; i = i + 1 < count ? i + 1 : first) {
		void *library;
		work round = load(arguments[i], &library);
		for (int n = 0; n < PHASE && running; n++) {
			round(&leaked_blocks, &leaked_bytes);
			if (mapped && n % 8 == 0)
				churn(arguments[i]);
			running = next_round();
		}
		dlclose(library);
	}
	say_truth();
	return 0;
}
