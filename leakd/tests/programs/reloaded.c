/* One of several libraries that come to lie at the same place. Each is told by
 * the size of its blocks (SIZE), the names of its functions (NAME) and the sizes
 * of its frames (MIDDLE, OUTER); the code is of equal length, so that a return
 * address in one is one in another, too.
 *
 * The frame of the middle function is so large that the table of one library,
 * taken for the next one's, leads just past the outermost function: a stack
 * that looks whole. */
#include <stdlib.h>
#include <string.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define IN(function) JOIN(function, NAME)
#define ALONE __attribute__((noinline, noclone, visibility("default")))

static void *volatile sink;

ALONE void IN(innermost)(char *use)
{
	sink = malloc(SIZE);
	memset(sink, use[0], SIZE);
	use[1]++;
}

ALONE void IN(middle)(char *use)
{
	char room[MIDDLE];
	memset(room, use[0], sizeof room);
	IN(innermost)(room);
	use[1] += room[1];
}

ALONE void IN(outermost)(char *use)
{
	char room[OUTER];
	memset(room, use[0], sizeof room);
	IN(middle)(room);
	use[1] += room[1];
}

ALONE void plugin_round(unsigned long *blocks, unsigned long *bytes)
{
	char use[2] = {'u', 0};
	IN(outermost)(use);
	++*blocks;
	*bytes += SIZE;
}
