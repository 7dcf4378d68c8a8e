/* Loads a library on the first line on stdin and then calls its round()
 * function each round. With a number as second argument, it calls it no more
 * after so many rounds and unloads the library. */
#include "common.h"
#include "honest.h"
#include <dlfcn.h>

int main(int count, char **arguments)
{
	static struct honest honest;
	if (count < 2)
		return 2;
	ready();
	wait_for_go();
	void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	if (!library) {
		say("%s\n", dlerror());
		return 1;
	}
	void (*round)(unsigned long *, unsigned long *) =
	    (void (*)(unsigned long *, unsigned long *))dlsym(library, "plugin_round");
	if (!round)
		return 1;
	say("loaded\n");
	unsigned long limit = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
	do {
		honest_round(&honest);
		if (!limit || rounds < limit)
			round(&leaked_blocks, &leaked_bytes);
		if (limit && rounds == limit) {
			dlclose(library);
			say("unloaded\n");
		}
	} while (next_round());
	honest_end(&honest);
	say_truth();
	return 0;
}
