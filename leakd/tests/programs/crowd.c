/* A program with 256 allocating functions, all to be probed at once: that takes the
 * kernel so long that a test can come in between. */
#include "common.h"

#define ONE(name)                                                                        \
	__attribute__((noinline, noipa, used)) void *name(size_t size)                    \
	{                                                                                 \
		return malloc(size);                                                       \
	}
#define FOUR(name) ONE(name##0) ONE(name##1) ONE(name##2) ONE(name##3)
#define SIXTEEN(name) FOUR(name##0) FOUR(name##1) FOUR(name##2) FOUR(name##3)
#define MANY(name) SIXTEEN(name##0) SIXTEEN(name##1) SIXTEEN(name##2) SIXTEEN(name##3)
MANY(crowd_0)
MANY(crowd_1)
MANY(crowd_2)
MANY(crowd_3)

int main(void)
{
	ready();
	do {
		void *block = crowd_0000(10);
		sink = block;
		free(block);
	} while (next_round());
	return 0;
}
