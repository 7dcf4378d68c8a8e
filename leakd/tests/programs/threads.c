/* 64 threads with honest traffic, of which one leaks, in leak_orders. Blocks
 * also travel: each thread frees what its neighbour allocated. */
#define _GNU_SOURCE
#include "common.h"
#include "honest.h"
#include <pthread.h>
#include <stdatomic.h>

#define THREADS 64

static _Atomic(void *) mailbox[THREADS];
static atomic_int stopping;
static pthread_barrier_t started;

ALONE static void leak_orders(void)
{
	char *order = malloc(136);
	memset(order, 'o', 136);
	sink = order;
	__atomic_add_fetch(&leaked_blocks, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&leaked_bytes, 136, __ATOMIC_RELAXED);
}

ALONE static void work(long number)
{
	struct honest honest = {{NULL}, (unsigned)number};
	unsigned long limit = round_limit;
	for (unsigned long turn = 0; !stopping && !(limit && turn >= limit); turn++) {
		honest_round(&honest);
		free(atomic_exchange(&mailbox[number], malloc(48 + number)));
		free(atomic_exchange(&mailbox[(number + 1) % THREADS], NULL));
		if (number == 17)
			leak_orders();
		if (!limit)
			usleep(5000);
	}
	honest_end(&honest);
}

static void *thread(void *number)
{
	pthread_barrier_wait(&started);
	work((long)number);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	pthread_barrier_init(&started, NULL, THREADS + 1);
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, thread, (void *)i))
			abort();
	ready();
	pthread_barrier_wait(&started);
	while (next_round())
		;
	if (!round_limit)
		stopping = 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < THREADS; i++)
		free(mailbox[i]);
	say_truth();
	return 0;
}
