/* Threads that allocate from stacks of different shapes, as often as they can
 * and in each other's way.
 *
 *     shapes CALLS TRUTH
 *
 * First each thread walks through all shapes, one thread after the other: what
 * is seen then is true. After another byte on stdin they do CALLS calls in all,
 * at once; two of the threads are real-time ones that sleep for some
 * microseconds between two calls, and so preempt the other two where those
 * stand. At the end the program writes how often each shape was called to the
 * file TRUTH: for each its size and its calls. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include "stages.h"

enum { THREADS = 4, DEPTHS = 24, KINDS = 4, SHAPES = DEPTHS * KINDS };

static _Atomic uint64_t calls[SHAPES];
static _Atomic int64_t left;
static volatile unsigned sink;
static pthread_barrier_t barrier;

NOINLINE static void take(unsigned shape)
{
	void *block = malloc(shape + 1);
	sink++;
	free(block);
	atomic_fetch_add_explicit(&calls[shape], 1, memory_order_relaxed);
}

/* Recursion through functions with frames of different kinds. */

NOINLINE static void small(unsigned shape, unsigned depth);

NOINLINE static void large(unsigned shape, unsigned depth)
{
	volatile char local[400];
	local[depth] = 1;
	if (depth == 0)
		take(shape);
	else
		small(shape, depth - 1);
	sink += (unsigned)local[depth];
}

NOINLINE static void aligned(unsigned shape, unsigned depth)
{
	_Alignas(64) volatile char local[64];
	local[depth] = 1;
	__asm__ volatile("" : : "r"(local) : "memory");
	if (depth == 0)
		take(shape);
	else
		large(shape, depth - 1);
	sink += (unsigned)local[depth];
}

__attribute__((optimize("no-omit-frame-pointer"))) NOINLINE static void framed(unsigned shape,
									       unsigned depth)
{
	char local[depth + 16];
	local[depth] = 1;
	__asm__ volatile("" : : "r"(local) : "memory");
	if (depth == 0)
		take(shape);
	else
		aligned(shape, depth - 1);
	sink += (unsigned)local[depth];
}

NOINLINE static void small(unsigned shape, unsigned depth)
{
	if (depth == 0)
		take(shape);
	else
		framed(shape, depth - 1);
	sink++;
}

NOINLINE static void call(unsigned shape)
{
	static void (*const kinds[KINDS])(unsigned, unsigned) = {small, large, aligned, framed};
	kinds[shape % KINDS](shape, shape / KINDS);
	sink++;
}

/* What a thread is at. */
struct turns {
	uintptr_t number;
	unsigned turn, shape, state;
};

static void become_real_time(void)
{
	const struct sched_param parameter = {.sched_priority = 1};
	if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) != 0)
		_exit(6);
	prctl(PR_SET_TIMERSLACK, 1);
}

/* The next shape; -1 at the end. */
NOINLINE static int next(struct turns *turns)
{
	for (; turns->turn < THREADS; turns->turn++, turns->shape = 0) {
		if (turns->turn == turns->number && turns->shape < SHAPES)
			return (int)turns->shape++;
		pthread_barrier_wait(&barrier);
	}
	if (turns->turn++ == THREADS) {
		/* The main thread asks whether to go on. */
		pthread_barrier_wait(&barrier);
		if (turns->number < 2)
			become_real_time();
	} else if (turns->number < 2) {
		const struct timespec pause = {.tv_nsec = (turns->state >> 8) % 30000};
		nanosleep(&pause, NULL);
	}
	turns->state = turns->state * 1103515245 + 12345;
	return atomic_fetch_sub(&left, 1) > 0 ? (int)((turns->state >> 16) % SHAPES) : -1;
}

/* One place from which all shapes are called, so that their stacks are equal
 * from beginning to end. */
static void *work(void *argument)
{
	struct turns turns = {.number = (uintptr_t)argument};
	int shape;
	turns.state = (unsigned)turns.number * 7919 + 1;
	while ((shape = next(&turns)) >= 0)
		call((unsigned)shape);
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t threads[THREADS];
	if (count != 3)
		return 2;
	left = atoll(arguments[1]);
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	wait_for_go();
	for (uintptr_t number = 0; number < THREADS; number++)
		if (pthread_create(&threads[number], NULL, work, (void *)number) != 0)
			return 2;
	for (unsigned turn = 0; turn < THREADS; turn++)
		pthread_barrier_wait(&barrier);
	wait_for_go();
	pthread_barrier_wait(&barrier);
	for (unsigned number = 0; number < THREADS; number++)
		pthread_join(threads[number], NULL);
	/* Without stdio, which would allocate. */
	const int truth = open(arguments[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (unsigned shape = 0; shape < SHAPES; shape++) {
		char line[64];
		const int length = snprintf(line, sizeof line, "%u %llu\n", shape + 1,
					    (unsigned long long)calls[shape]);
		if (write(truth, line, (size_t)length) != length)
			return 3;
	}
	work_is_done();
	return 0;
}
