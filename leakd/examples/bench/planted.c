/* Leaks, among honest traffic: five caches that replace their oldest block, which
 * then is some seconds old, and blocks that are freed at once. For each line of its
 * standard input it works for so many milliseconds, and answers with the number of
 * blocks that it has leaked since its start. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES 4000
#define LEAKED 200

static void *volatile sink;
static uint64_t leaked;

/* The stack that leaks: sixteen functions, of which main is the last. */
#define CALLER(name, next)                            \
	static __attribute__((noinline)) void name(void) \
	{                                                \
		next();                                      \
		__asm__ volatile("");                        \
	}
static __attribute__((noinline)) void planted_leak(void)
{
	sink = memset(malloc(LEAKED), 'x', 64);
	leaked++;
}
CALLER(planted_1, planted_leak)
CALLER(planted_2, planted_1)
CALLER(planted_3, planted_2)
CALLER(planted_4, planted_3)
CALLER(planted_5, planted_4)
CALLER(planted_6, planted_5)
CALLER(planted_7, planted_6)
CALLER(planted_8, planted_7)
CALLER(planted_9, planted_8)
CALLER(planted_10, planted_9)
CALLER(planted_11, planted_10)
CALLER(planted_12, planted_11)
CALLER(planted_13, planted_12)

/* Honest: bounded, and what is oldest goes. */
#define CACHE(name)                                    \
	static void *name##_entries[ENTRIES];              \
	static __attribute__((noinline)) void name(long n) \
	{                                                  \
		void **entry = &name##_entries[n % ENTRIES];   \
		free(*entry);                                  \
		*entry = malloc(200 + n % 200);                \
	}
CACHE(users)
CACHE(sessions)
CACHE(pages)
CACHE(names)
CACHE(rows)

static __attribute__((noinline)) void work(long tick)
{
	users(tick);
	sessions(tick);
	pages(tick);
	names(tick);
	rows(tick);
	for (int i = 0; i < 40; i++) {
		sink = malloc(32 + (size_t)(i % 7) * 64);
		free(sink);
	}
	if (tick % 16 == 0)
		planted_13();
	__asm__ volatile("");
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

int main(void)
{
	static char line[64], input[4096], output[4096];
	long tick = 0;

	/* The caches are full from the start. */
	while (tick < ENTRIES)
		work(tick++);
	/* Buffers of our own: stdio would take them from malloc. */
	setvbuf(stdin, input, _IOFBF, sizeof input);
	setvbuf(stdout, output, _IOFBF, sizeof output);
	while (fgets(line, sizeof line, stdin)) {
		uint64_t end = now() + strtoul(line, 0, 10);
		while (now() < end) {
			work(tick++);
			usleep(1000);
		}
		printf("%lu\n", leaked);
		fflush(stdout);
	}
	sink = NULL;
	return 0;
}
