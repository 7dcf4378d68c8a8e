/* A process that holds memory after one pattern, named by its argument: those
 * whose names begin with `leak` hold more and more, the others do not. A tick is
 * a hundredth of a second. */
#include "common.h"
#include <pthread.h>
#include <unistd.h>

#define TICKS 100
#define SLOTS 4096

static char *slots[SLOTS];
static unsigned long tick;

/* A macro, so that the place of an allocation is that of its pattern. */
#define fill(bytes) memset(malloc(bytes), 'x', bytes)

/* Traffic: blocks that live for a moment. */
static void serve(int blocks)
{
	for (int i = 0; i < blocks; i++)
		free(fill(200 + i % 7 * 300));
}

static void replace(unsigned slot, size_t bytes)
{
	free(slots[slot % SLOTS]);
	slots[slot % SLOTS] = bytes ? fill(bytes) : NULL;
}

static void clear(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		replace(i, 0);
}

/* Those that leak. */

ALONE static void leak_steadily(void)
{
	sink = fill(1024);
}

ALONE static void leak_large(void)
{
	if (tick % (2 * TICKS) == 0)
		sink = fill(300 << 10);
}

ALONE static void leak_in_lumps(void)
{
	for (int i = 0; tick % (4 * TICKS) == 0 && i < 400; i++)
		sink = fill(1024);
}

ALONE static void leak_on_errors(void)
{
	char *request = fill(2000);
	if (tick % 2)
		free(request);
	sink = request;
}

ALONE static void leak_by_list(void)
{
	static struct item { struct item *next; char text[1000]; } *list;
	struct item *item = fill(sizeof(struct item));
	item->next = list;
	list = item;
	sink = list;
}

ALONE static void leak_by_calloc(void)
{
	sink = memset(calloc(4, 400), 'x', 1600);
}

ALONE static void leak_by_growing(void)
{
	static char *table;
	table = realloc(table, (tick + 1) * 1200);
	memset(table + tick * 1200, 'x', 1200);
	sink = table;
}

ALONE static void leak_beside_waves(void)
{
	sink = fill(1500);
	if (tick % (15 * TICKS) == 0)
		clear();
	replace(tick, 600);
}

ALONE static void leak_faster(void)
{
	for (unsigned long i = 0; i < 1 + tick / 4000; i++)
		sink = fill(700);
}

ALONE static void *leak_in_a_thread(void *nothing)
{
	sink = fill(1100);
	return nothing;
}

/* Those that do not. */

static void flat(void)
{
}

static void traffic(void)
{
	serve(200);
}

static void warm_up(void)
{
	/* 40 MiB, half of what is left in every 8 seconds. */
	static unsigned long done;
	double rest = 40000;
	for (unsigned long i = 0; i < tick / 800; i++)
		rest /= 2;
	for (; rest > 1 && done < 40000 - rest * (1 - tick % 800 / 1600.0); done++)
		sink = fill(1000);
}

static void cache(void)
{
	/* Entries are replaced when the cache is full: after 20 seconds. */
	replace(tick * 2, 1000);
	replace(tick * 2 + 1, 2000);
}

static void sawtooth(void)
{
	if (tick % (20 * TICKS) == 0)
		clear();
	replace(tick % (20 * TICKS), 3000);
}

static void queue(void)
{
	replace(rand(), rand() % 3 ? 5000 : 0);
}

static void sessions(void)
{
	/* A session ends after 30 seconds. */
	replace(tick % (30 * TICKS), 4000);
}

static void one_step(void)
{
	if (tick == 60 * TICKS)
		for (unsigned i = 0; i < SLOTS; i++)
			replace(i, 5000);
}

static void bursts(void)
{
	if (tick % (10 * TICKS) == 0)
		for (unsigned i = 0; i < SLOTS; i++)
			replace(i, 3000);
	if (tick % (10 * TICKS) == TICKS)
		clear();
}

static void too_slowly(void)
{
	/* A quarter of a MiB an hour. */
	if (tick % (14 * TICKS) == 0)
		sink = fill(1024);
}

static void threaded(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, leak_in_a_thread, NULL);
	pthread_join(thread, NULL);
}

static const struct {
	const char *name;
	void (*step)(void);
} PATTERNS[] = {
	{ "leak_steadily", leak_steadily },
	{ "leak_large", leak_large },
	{ "leak_in_lumps", leak_in_lumps },
	{ "leak_on_errors", leak_on_errors },
	{ "leak_by_list", leak_by_list },
	{ "leak_by_calloc", leak_by_calloc },
	{ "leak_by_growing", leak_by_growing },
	{ "leak_beside_waves", leak_beside_waves },
	{ "leak_faster", leak_faster },
	{ "leak_in_a_thread", threaded },
	{ "flat", flat },
	{ "traffic", traffic },
	{ "warm_up", warm_up },
	{ "cache", cache },
	{ "sawtooth", sawtooth },
	{ "queue", queue },
	{ "sessions", sessions },
	{ "one_step", one_step },
	{ "bursts", bursts },
	{ "too_slowly", too_slowly },
};

int main(int count, char **arguments)
{
	for (unsigned i = 0; i < sizeof PATTERNS / sizeof *PATTERNS; i++)
		if (count > 1 && strcmp(PATTERNS[i].name, arguments[1]) == 0) {
			ready();
			for (;; usleep(1000000 / TICKS))
				for (unsigned long due = ticks_since_start(TICKS); tick <= due; tick++) {
					PATTERNS[i].step();
					serve(3);
				}
		}
	return 2;
}
