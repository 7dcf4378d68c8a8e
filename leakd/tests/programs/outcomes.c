/* Every outcome of every allocating function, each in a function of its own.
 *
 * Waits for a line, does all of it once, prints the truth (function: blocks,
 * bytes outstanding; those with 0 blocks must not be reported) and waits for
 * the end of stdin. It checks itself that each outcome was the one meant. */
#define _GNU_SOURCE
#include "common.h"
#include <errno.h>
#include <malloc.h>
#include <stdint.h>

#define MEANT(condition)                                                                     \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			say("not the outcome meant: %s (line %d)\n", #condition, __LINE__);  \
			_exit(4);                                                            \
		}                                                                            \
	} while (0)

/* Sizes that the compiler must not know. */
static volatile size_t huge = SIZE_MAX / 2;
static volatile size_t zero;

ALONE static void leak_by_malloc(void)
{
	for (int i = 0; i < 11; i++) {
		sink = malloc(101);
		MEANT(sink);
	}
}

ALONE static void leak_by_malloc_of_zero(void)
{
	sink = malloc(zero); /* a block of 0 bytes that has to be freed */
	MEANT(sink);
}

ALONE static void leak_by_calloc(void)
{
	for (int i = 0; i < 12; i++) {
		sink = calloc(7, 13);
		MEANT(sink);
	}
}

ALONE static void leak_by_posix_memalign(void)
{
	for (int i = 0; i < 13; i++) {
		void *block = NULL;
		MEANT(posix_memalign(&block, 4096, 777) == 0);
		sink = block;
	}
}

ALONE static void leak_by_aligned_alloc(void)
{
	for (int i = 0; i < 14; i++) {
		sink = aligned_alloc(256, 512);
		MEANT(sink);
	}
}

ALONE static void leak_by_memalign(void)
{
	for (int i = 0; i < 15; i++) {
		sink = memalign(128, 333);
		MEANT(sink);
	}
}

ALONE static void leak_by_valloc(void)
{
	sink = valloc(555);
	MEANT(sink);
}

ALONE static void leak_by_reallocarray(void)
{
	for (int i = 0; i < 16; i++) {
		sink = reallocarray(NULL, 5, 31);
		MEANT(sink);
	}
}

ALONE static void leak_by_strdup(void)
{
	static volatile char text[] = "seventeen bytes.";
	for (int i = 0; i < 17; i++) {
		sink = strdup((const char *)text);
		MEANT(sink);
	}
}

ALONE static void leak_by_realloc_of_null(void)
{
	for (int i = 0; i < 18; i++) {
		void *volatile nothing = NULL;
		sink = realloc(nothing, 45);
		MEANT(sink);
	}
}

/* The block moves: what is outstanding is the new one, allocated here. */
ALONE static void leak_by_realloc_that_moves(void)
{
	void *block = malloc(40);
	void *behind = malloc(40); /* so that there is no room to grow */
	uintptr_t before = (uintptr_t)block;
	void *moved = realloc(block, 100000);
	MEANT(moved && (uintptr_t)moved != before);
	sink = moved;
	free(behind);
}

/* The block stays where it is, with a new size. */
ALONE static void leak_by_realloc_in_place(void)
{
	void *block = malloc(4000);
	uintptr_t before = (uintptr_t)block;
	void *same = realloc(block, 3990);
	MEANT(same && (uintptr_t)same == before);
	sink = same;
}

ALONE static void *survive(void)
{
	void *block = malloc(60);
	*(volatile char *)block = 1;
	return block;
}

/* Fails: the old block stays, with its size, and survive() allocated it. */
ALONE static void realloc_that_fails(void)
{
	void *block = survive();
	void *none = realloc(block, huge);
	MEANT(!none && errno == ENOMEM);
	sink = block;
}

/* glibc frees the block and returns NULL. */
ALONE static void realloc_to_zero(void)
{
	void *block = malloc(70);
	sink = block;
	void *none = realloc(block, zero);
	MEANT(!none);
}

ALONE static void nothing_comes_of_it(void)
{
	void *volatile block = calloc(huge, 3);
	MEANT(!block);
	block = malloc(huge);
	MEANT(!block);
	block = reallocarray(NULL, huge, 3);
	MEANT(!block);
	void *aligned = (void *)8;
	MEANT(posix_memalign(&aligned, 24, 100) == EINVAL);
	MEANT(posix_memalign(&aligned, 64, huge) == ENOMEM);
	block = aligned_alloc(64, huge);
	MEANT(!block);
	free(NULL);
}

ALONE static void all_given_back(void)
{
	free(malloc(1));
	free(calloc(3, 5));
	void *block = NULL;
	MEANT(posix_memalign(&block, 64, 10) == 0);
	free(block);
	block = malloc(10);
	for (size_t size = 20; size < 500000; size *= 3) {
		block = realloc(block, size);
		MEANT(block);
		*(volatile char *)block = 1;
	}
	free(block);
	free(strdup("gone at once"));
}

int main(void)
{
	ready();
	wait_for_go();
	leak_by_malloc();
	leak_by_malloc_of_zero();
	leak_by_calloc();
	leak_by_posix_memalign();
	leak_by_aligned_alloc();
	leak_by_memalign();
	leak_by_valloc();
	leak_by_reallocarray();
	leak_by_strdup();
	leak_by_realloc_of_null();
	leak_by_realloc_that_moves();
	leak_by_realloc_in_place();
	realloc_that_fails();
	realloc_to_zero();
	nothing_comes_of_it();
	all_given_back();
	leaked_blocks = 11 + 1 + 12 + 13 + 14 + 15 + 1 + 16 + 17 + 18 + 1 + 1 + 1;
	leaked_bytes = 11 * 101 + 12 * 91 + 13 * 777 + 14 * 512 + 15 * 333 + 555 + 16 * 155 +
		       17 * 17 + 18 * 45 + 100000 + 3990 + 60;
	say("{\"leaked_blocks\":%lu,\"leaked_bytes\":%lu,\"sites\":{"
	    "\"leak_by_malloc\":[11,1111],\"leak_by_malloc_of_zero\":[1,0],"
	    "\"leak_by_calloc\":[12,1092],\"leak_by_posix_memalign\":[13,10101],"
	    "\"leak_by_aligned_alloc\":[14,7168],\"leak_by_memalign\":[15,4995],"
	    "\"leak_by_valloc\":[1,555],\"leak_by_reallocarray\":[16,2480],"
	    "\"leak_by_strdup\":[17,289],\"leak_by_realloc_of_null\":[18,810],"
	    "\"leak_by_realloc_that_moves\":[1,100000],\"leak_by_realloc_in_place\":[1,3990],"
	    "\"survive\":[1,60],\"realloc_that_fails\":[0,0],\"realloc_to_zero\":[0,0],"
	    "\"nothing_comes_of_it\":[0,0],\"all_given_back\":[0,0]}}\n",
	    leaked_blocks, leaked_bytes);
	wait_for_end();
	return 0;
}
