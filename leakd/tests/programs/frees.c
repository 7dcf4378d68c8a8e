/* Frees that are wrong, and some that only look so. The first argument says which.
 * Run it with GLIBC_TUNABLES=glibc.malloc.tcache_count=0: of its fast bins, glibc
 * checks only the last block.
 *
 * Waits for a line first. */
#include "common.h"

#define SIZE 40

ALONE static char *make_block(void)
{
	sink = malloc(SIZE);
	return sink;
}

ALONE static void free_first(char *block)
{
	free(block);
}

ALONE static void free_again(char *block)
{
	free(block);
}

/* One block, freed rightly once and wrongly three times; the other one wrongly
 * three times as well, always in between. */
ALONE static void twice(void)
{
	char *one = make_block(), *other = make_block();
	free_first(one);
	free_first(other);
	for (int i = 0; i < 3; i++) {
		free_again(one);
		free_again(other);
	}
}

ALONE static void aborted(void)
{
	char *block = make_block();
	free_first(block);
	free_again(block);
}

ALONE static void inside(void)
{
	free_again(make_block() + 16);
}

/* Its address was freed once, long before; what ends it is realloc. */
ALONE static char *move_block(char *block)
{
	sink = realloc(block, 1 << 20);
	return sink;
}

ALONE static void moved(void)
{
	char *block = make_block();
	free_first(block);
	char *same = make_block();
	char *elsewhere = move_block(same);
	if (same != block || elsewhere == same)
		_exit(4);
	char *behind = malloc(SIZE + 100);
	free(behind); /* it is not the last one of its bin any more */
	free_again(same);
}

/* realloc of a block that is gone. */
ALONE static void revived(void)
{
	char *block = make_block(), *other = make_block();
	free_first(block);
	free(other); /* behind it in its bin, so that glibc finds nothing */
	move_block(block);
}

/* Addresses that come again and again, in all ways that blocks can end. */
ALONE static void honest(void)
{
	for (int i = 0; i < 1000; i++) {
		char *blocks[8];
		for (int j = 0; j < 8; j++)
			blocks[j] = malloc(SIZE + j % 3);
		blocks[1] = realloc(blocks[1], 200);
		blocks[2] = realloc(blocks[2], SIZE / 2);
		free(realloc(NULL, SIZE));
		if (realloc(blocks[3], 0))
			_exit(4);
		free(NULL);
		for (int j = 0; j < 8; j++)
			if (j != 3)
				free_first(blocks[j]);
		void *aligned = NULL;
		if (posix_memalign(&aligned, 64, SIZE))
			_exit(4);
		free(aligned);
		free(strdup("a word"));
	}
}

int main(int count, char **arguments)
{
	const char *what = count > 1 ? arguments[1] : "";
	ready();
	wait_for_go();
	if (!strcmp(what, "twice"))
		twice();
	else if (!strcmp(what, "aborted"))
		aborted();
	else if (!strcmp(what, "inside"))
		inside();
	else if (!strcmp(what, "moved"))
		moved();
	else if (!strcmp(what, "revived"))
		revived();
	else
		honest();
	wait_for_end();
	_exit(0); /* what is left of the heap is not to be touched */
}
