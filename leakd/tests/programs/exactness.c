/* 1,000,000 blocks from 16 threads, of which exactly 12,345 are kept. Of another
 * number of blocks, BLOCKS in the environment, as large a share.
 *
 * Waits for a line on stdin, allocates, prints the truth as one line of JSON
 * and waits for the end of stdin. Everything between those two lines that
 * allocates is below: the threads exist before "ready" is printed.
 *
 * Half of what a thread gives back is freed by its neighbour, through a ring
 * of slots. Block number n is of a kind (n % 5) and a size that follow from
 * n, and whether it is kept too, so that the sum is known before any thread
 * has run: keep() and size_of() are all there is to it. Blocks of kind 2 are
 * reallocated once more.
 */
#define _GNU_SOURCE
#include "common.h"
#include <pthread.h>
#include <stdatomic.h>

#define THREADS 16
#define MILLION 1000000UL
#define SLOTS 256

static unsigned long all = MILLION, kept = 12345;
static pthread_barrier_t go, done;
static _Atomic(void *) passed_on[THREADS][SLOTS];

static size_t size_of(unsigned long number)
{
	return 1 + (number * 2654435761UL >> 7) % 2000;
}

/* True for exactly `kept` of the numbers 0..all. */
static int keep(unsigned long number)
{
	return (number + 1) * kept / all != number * kept / all;
}

ALONE static void *take_by_malloc(size_t size)
{
	char *block = malloc(size);
	*(volatile char *)block = 1;
	return block;
}

ALONE static void *take_by_calloc(size_t size)
{
	char *block = calloc(size, 1);
	*(volatile char *)block = 1;
	return block;
}

ALONE static void *take_by_realloc(size_t size)
{
	char *block = realloc(NULL, size / 2 + 1);
	*(volatile char *)block = 1;
	block = realloc(block, size); /* the address may be another thread's at once */
	*(volatile char *)block = 1;
	return block;
}

ALONE static void *take_by_posix_memalign(size_t size)
{
	void *block = NULL;
	if (posix_memalign(&block, 64, size))
		abort();
	*(volatile char *)block = 1;
	return block;
}

ALONE static void *take_by_aligned_alloc(size_t size)
{
	char *block = aligned_alloc(32, size);
	*(volatile char *)block = 1;
	return block;
}

static void *take(unsigned long number)
{
	switch (number % 5) {
	case 0:
		return take_by_malloc(size_of(number));
	case 1:
		return take_by_calloc(size_of(number));
	case 2:
		return take_by_realloc(size_of(number));
	case 3:
		return take_by_posix_memalign(size_of(number));
	default:
		return take_by_aligned_alloc(size_of(number));
	}
}

ALONE static void give(long thread, unsigned long number, void *block)
{
	if (number % 32 < 16) {
		free(block);
		return;
	}
	/* The neighbour's slot: whoever finds an older block there frees it. */
	_Atomic(void *) *slot = &passed_on[(thread + 1) % THREADS][number / THREADS % SLOTS];
	free(atomic_exchange(slot, block));
}

static void *work(void *argument)
{
	long thread = (long)argument;
	pthread_barrier_wait(&go);
	for (unsigned long number = thread; number < all; number += THREADS) {
		void *block = take(number);
		if (!keep(number))
			give(thread, number, block);
		free(atomic_exchange(&passed_on[thread][number % SLOTS], NULL));
	}
	pthread_barrier_wait(&done);
	pthread_barrier_wait(&go); /* stay alive until the end */
	return NULL;
}

int main(void)
{
	static const char *const kinds[] = {"take_by_malloc", "take_by_calloc", "take_by_realloc",
					    "take_by_posix_memalign", "take_by_aligned_alloc"};
	unsigned long blocks[5] = {0}, bytes[5] = {0};
	pthread_t threads[THREADS];
	const char *blocks_wanted = getenv("BLOCKS");
	if (blocks_wanted) {
		all = strtoul(blocks_wanted, NULL, 10);
		kept = all * kept / MILLION;
	}
	pthread_barrier_init(&go, NULL, THREADS + 1);
	pthread_barrier_init(&done, NULL, THREADS + 1);
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			abort();
	for (unsigned long number = 0; number < all; number++)
		if (keep(number)) {
			blocks[number % 5]++;
			bytes[number % 5] += size_of(number);
		}
	for (int i = 0; i < 5; i++) {
		leaked_blocks += blocks[i];
		leaked_bytes += bytes[i];
	}
	if (leaked_blocks != kept)
		abort();
	ready();
	wait_for_go();
	pthread_barrier_wait(&go);
	pthread_barrier_wait(&done);
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < SLOTS; j++)
			free(atomic_exchange(&passed_on[i][j], NULL));
	say("{\"allocations\":%lu,\"leaked_blocks\":%lu,\"leaked_bytes\":%lu,\"sites\":{"
	    "\"%s\":[%lu,%lu],\"%s\":[%lu,%lu],\"%s\":[%lu,%lu],\"%s\":[%lu,%lu],"
	    "\"%s\":[%lu,%lu]}}\n",
	    all, leaked_blocks, leaked_bytes, kinds[0], blocks[0], bytes[0], kinds[1], blocks[1],
	    bytes[1], kinds[2], blocks[2], bytes[2], kinds[3], blocks[3], bytes[3], kinds[4],
	    blocks[4], bytes[4]);
	wait_for_end();
	pthread_barrier_wait(&go);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
