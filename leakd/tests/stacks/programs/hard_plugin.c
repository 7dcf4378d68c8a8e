/* The library that hard.c loads: calls back, and through qsort, too. */
#include <stdlib.h>

static void (*callback)(void);
static volatile unsigned sink;

__attribute__((noinline)) static int compare(const void *a, const void *b)
{
	callback();
	return *(const char *)a - *(const char *)b;
}

void plugin_call(void (*function)(void))
{
	char letters[] = "dcba";
	callback = function;
	qsort(letters, 4, 1, compare);
	function();
	sink++;
}
