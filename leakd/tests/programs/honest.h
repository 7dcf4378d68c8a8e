/* Honest traffic: blocks by every allocating function, each freed some rounds
 * later, by another function than the one that allocated it. */
#ifndef HONEST_H
#define HONEST_H

#include <stdlib.h>
#include <string.h>

#define HONEST_SLOTS 64

struct honest {
	void *slots[HONEST_SLOTS];
	unsigned next;
};

__attribute__((noinline)) static void *honest_block(unsigned number)
{
	void *block = NULL;
	size_t size = 16 + number * 37 % 3000;
	switch (number % 7) {
	case 0:
		block = malloc(size);
		break;
	case 1:
		block = calloc(3, size / 3 + 1);
		break;
	case 2:
		block = malloc(size);
		block = realloc(block, size * 3);
		break;
	case 3:
		if (posix_memalign(&block, 64, size))
			abort();
		break;
	case 4:
		block = aligned_alloc(64, (size + 63) & ~(size_t)63);
		break;
	case 5:
#ifdef __GLIBC__
		block = reallocarray(NULL, 3, size);
#else
		block = realloc(NULL, 3 * size);
#endif
		break;
	default:
		block = strdup("an honest string, freed in time");
	}
	if (!block)
		abort();
	return block;
}

__attribute__((noinline)) static void honest_round(struct honest *honest)
{
	for (int i = 0; i < 7; i++) {
		void **slot = &honest->slots[honest->next % HONEST_SLOTS];
		free(*slot);
		*slot = honest_block(honest->next++);
	}
}

__attribute__((noinline)) static void honest_end(struct honest *honest)
{
	for (int i = 0; i < HONEST_SLOTS; i++) {
		free(honest->slots[i]);
		honest->slots[i] = NULL;
	}
}

#endif
