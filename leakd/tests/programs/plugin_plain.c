/* A plugin that leaks by the host's malloc and is then unloaded. */
#include <stdlib.h>

static void *volatile sink;

__attribute__((noinline)) static void leak_in_plugin(unsigned long *blocks, unsigned long *bytes)
{
	sink = malloc(444);
	*(volatile char *)sink = 1;
	++*blocks;
	*bytes += 444;
}

void plugin_round(unsigned long *blocks, unsigned long *bytes)
{
	leak_in_plugin(blocks, bytes);
}
