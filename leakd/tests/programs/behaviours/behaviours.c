/* Programs that hold memory after one pattern, named by the argument. What each
 * does with its memory in the long run is in labels.json. A tick is a fiftieth
 * of a second. */
#include "../common.h"
#include <pthread.h>

#define TICKS 50

static unsigned long tick;
static unsigned long seed = 1;

/* A number that looks random, below `limit`. */
static unsigned chance(unsigned limit)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (seed >> 33) % limit;
}

/* Of few, often; of many, seldom: as keys are asked for. */
static unsigned popular(unsigned limit)
{
	unsigned first = chance(limit) + 1;
	return chance(chance(first) + 1);
}

/* A macro, so that the place of an allocation is that of its pattern. */
#define fill(bytes) memset(malloc(bytes), 'x', bytes)

/* Traffic, beside everything else: blocks that live for a moment. */
static void serve(int blocks)
{
	for (int i = 0; i < blocks; i++)
		free(fill(200 + i % 7 * 300));
}

/* Leaks. */

ALONE static void leak_plainly(void)
{
	if (tick % 3 == 0)
		sink = fill(256);
}

ALONE static void leak_on_an_error_path(void)
{
	for (int i = 0; i < 2; i++) {
		char *request = fill(500);
		if (chance(20) == 0)
			return; /* malformed */
		free(request);
	}
}

ALONE static void leak_one_in_a_thousand(void)
{
	for (int i = 0; i < 12; i++) {
		char *answer = fill(300);
		if (chance(1000))
			free(answer);
		else
			sink = answer;
	}
}

struct connection {
	char *peer;
	char *buffer;
	unsigned long end;
};

static struct connection connections[64];

ALONE static char *leak_the_name_of_a_peer(void)
{
	return fill(64);
}

static void leak_per_connection(void)
{
	for (unsigned i = 0; i < 64; i++)
		if (connections[i].end == tick) {
			free(connections[i].buffer);
			connections[i].buffer = NULL;
		}
	unsigned slot = chance(64);
	if (tick % 5 || connections[slot].buffer)
		return;
	connections[slot].peer = leak_the_name_of_a_peer();
	connections[slot].buffer = fill(4096);
	connections[slot].end = tick + 3 * TICKS + chance(7 * TICKS);
}

struct node {
	struct node *next;
	char payload[120];
};

static struct node *head;

ALONE static void leak_the_head_of_a_list(void)
{
	if (tick % 4)
		return;
	struct node *node = fill(sizeof *node);
	node->next = head;
	head = node;
	if (tick % (5 * TICKS) == 0)
		head = NULL;
	sink = head;
}

static char *kept[1 << 16];
static unsigned long keeping;

ALONE static void leak_behind_interior_pointers(void)
{
	if (tick % 5 == 0)
		kept[keeping++ % (1 << 16)] = (char *)fill(400) + 16;
}

ALONE static void leak_by_assigning_again(void)
{
	static char *setting;
	if (tick % 25 == 0)
		setting = strdup("/var/lib/program/some/setting");
	sink = setting;
}

ALONE static void *leak_at_the_end_of_a_thread(void *nothing)
{
	static __thread char *scratch;
	scratch = fill(700);
	sink = scratch;
	return nothing;
}

static void leak_by_thread(void)
{
	pthread_t thread;
	if (tick % 10 == 0 && pthread_create(&thread, NULL, leak_at_the_end_of_a_thread, NULL) == 0)
		pthread_join(thread, NULL);
}

struct entry {
	struct entry *next;
	unsigned long key;
	char value[48];
};

static struct entry *table[1024];

ALONE static void leak_by_a_map_without_removal(void)
{
	struct entry *entry = fill(sizeof *entry);
	entry->key = tick;
	entry->next = table[tick % 1024];
	table[tick % 1024] = entry;
}

ALONE static void leak_slowly(void)
{
	if (tick % (4 * TICKS) == 0)
		sink = fill(64);
}

ALONE static void leak_in_lumps(void)
{
	for (int i = 0; tick % (10 * TICKS) == 0 && i < 50; i++)
		sink = fill(300);
}

static char *logins[256];

ALONE static void leak_some_logins(void)
{
	unsigned slot = tick % 256;
	if (chance(4))
		free(logins[slot]);
	logins[slot] = tick % 2 ? fill(200) : NULL;
}

ALONE static void leak_large_blocks(void)
{
	if (tick % (2 * TICKS) == 0)
		sink = fill(300 << 10);
}

/* No leaks. */

static void traffic(void)
{
	serve(20);
}

#define CACHED 500
static struct {
	unsigned key;
	unsigned long used;
	char *value;
} cache[CACHED];

/* Least recently used goes; keys are asked for as often as they are popular. */
static void lru_cache(void)
{
	for (int i = 0; i < 4; i++) {
		unsigned key = popular(20000) + 1, oldest = 0;
		for (unsigned slot = 0; slot < CACHED; slot++) {
			if (cache[slot].key == key) {
				cache[slot].used = tick;
				key = 0;
				break;
			}
			if (cache[slot].used < cache[oldest].used)
				oldest = slot;
		}
		if (key == 0)
			continue;
		free(cache[oldest].value);
		cache[oldest].value = fill(800);
		cache[oldest].key = key;
		cache[oldest].used = tick;
	}
}

static char *history[1000];

static void last_entries(void)
{
	free(history[tick % 1000]);
	history[tick % 1000] = fill(200);
}

static void startup_tables(void)
{
	for (int i = 0; tick < 8 * TICKS && i < 12; i++)
		kept[keeping++] = fill(100);
}

static void arena(void)
{
	static char *chunks[64];
	unsigned number = tick % (5 * TICKS);
	if (number == 0)
		for (unsigned i = 0; i < 64; i++) {
			free(chunks[i]);
			chunks[i] = NULL;
		}
	if (number % 4 == 0)
		chunks[number / 4] = fill(64 << 10);
}

static struct node *unused;

/* Blocks go back to a list of free ones, never to the heap: as many as are in
 * use at once at most. */
static void pool(void)
{
	static struct node *in_use[400];
	unsigned slot = chance(1 + (tick < 20 * TICKS ? tick * 400 / (20 * TICKS) : 399));
	if (in_use[slot]) {
		in_use[slot]->next = unused;
		unused = in_use[slot];
		in_use[slot] = NULL;
		return;
	}
	struct node *node = unused;
	if (node)
		unused = node->next;
	else
		node = fill(sizeof *node);
	in_use[slot] = node;
}

static void batch(void)
{
	unsigned number = tick % (20 * TICKS);
	if (number < 500)
		kept[number] = fill(600);
	for (unsigned i = 0; number == 700 && i < 500; i++)
		free(kept[i]);
}

static void log_buffer(void)
{
	static char *buffer;
	static size_t length, room;
	if (length + 500 > room)
		buffer = realloc(buffer, room = room ? room * 2 : 512);
	memset(buffer + length, 'x', 500);
	length += 500;
	if (tick % (15 * TICKS) == 0) {
		free(buffer);
		buffer = NULL;
		length = room = 0;
	}
}

static void *cached_by_thread(void *nothing)
{
	char *blocks[64] = {NULL};
	for (unsigned round = 0; round < 200; round++) {
		free(blocks[round % 64]);
		blocks[round % 64] = fill(300);
		usleep(20000);
	}
	for (unsigned i = 0; i < 64; i++)
		free(blocks[i]);
	return nothing;
}

static void thread_caches(void)
{
	pthread_t thread;
	if (tick % TICKS == 0 && pthread_create(&thread, NULL, cached_by_thread, NULL) == 0)
		pthread_detach(thread);
}

/* Small blocks that live for ten rounds, between large ones that live for a moment. */
static void pinholes(void)
{
	static char *pins[10][20];
	if (tick % TICKS)
		return;
	char *large[200];
	unsigned round = tick / TICKS % 10;
	for (unsigned i = 0; i < 200; i++) {
		large[i] = fill(4000);
		if (i % 10 == 0) {
			free(pins[round][i / 10]);
			pins[round][i / 10] = fill(64);
		}
	}
	for (unsigned i = 0; i < 200; i++)
		free(large[i]);
}

static void sessions_of_30_seconds(void)
{
	free(kept[tick % (30 * TICKS)]);
	kept[tick % (30 * TICKS)] = fill(1000);
}

static void memoization_of_few(void)
{
	for (int i = 0; i < 2; i++) {
		unsigned key = chance(1000);
		if (!kept[key])
			kept[key] = fill(500);
	}
}

#define FULL 20000

/* Full before anybody looks; each block stays for 400 seconds. */
static void full_before(void)
{
	static unsigned long oldest;
	if (oldest == 0)
		while (oldest < FULL)
			kept[oldest++] = fill(700);
	free(kept[oldest % FULL]);
	kept[oldest++ % FULL] = fill(700);
}

static void sawtooth(void)
{
	unsigned number = tick % (12 * TICKS);
	for (unsigned i = 0; number == 0 && i < 12 * TICKS; i++) {
		free(kept[i]);
		kept[i] = NULL;
	}
	kept[number] = fill(900);
}

static void connections_that_stay(void)
{
	if (tick < 30 * TICKS && tick % 5 == 0)
		kept[keeping++] = fill(8000);
}

/* Written when the judge was done, and not changed since: those of labels.json
 * that are held out. */

/* Fifty come in each second, and half of them are worked off: the oldest. */
ALONE static void leak_by_a_queue_without_bound(void)
{
	static unsigned long first;
	kept[keeping++ % (1 << 16)] = fill(300);
	if (tick % 2)
		free(kept[first++ % (1 << 16)]);
}

ALONE static void leak_by_a_growing_buffer(void)
{
	static char *rows;
	static size_t length, room;
	if (length + 2000 > room)
		rows = realloc(rows, room = room ? room * 2 : 4096);
	memset(rows + length, 'x', 2000);
	length += 2000;
	sink = rows;
}

ALONE static void leak_under_load_that_comes_and_goes(void)
{
	if (tick / (10 * TICKS) % 2)
		return;
	for (int i = 0; i < 4; i++) {
		char *request = fill(350);
		if (chance(10))
			free(request);
	}
}

static struct connection sessions[2000];

/* Sessions of 10 to 30 seconds, of which one in three is never ended. */
ALONE static void leak_forgotten_sessions(void)
{
	for (unsigned i = 0; i < 2000; i++)
		if (sessions[i].buffer && sessions[i].end == tick) {
			free(sessions[i].buffer);
			sessions[i].buffer = NULL;
		}
	if (tick % 2)
		return;
	struct connection *session = &sessions[tick / 2 % 2000];
	session->buffer = fill(450);
	session->end = chance(3) ? tick + (10 + chance(20)) * TICKS : 0;
}

ALONE static void leak_faster_and_faster(void)
{
	for (unsigned long i = 0; i < 1 + tick / 2000; i++)
		sink = fill(150);
}

ALONE static void leak_a_little_less_each_minute(void)
{
	if (chance(10) < 10 - tick / 3000)
		sink = fill(170);
}

/* It would be full after half an hour: each key is new. */
static void cache_that_is_not_full_yet(void)
{
	static char *entries[100000];
	free(entries[tick % 100000]);
	entries[tick % 100000] = fill(250);
}

/* One in 15,000 ends in each tick: they live for five minutes on average. */
static void long_sessions(void)
{
	for (unsigned i = 0; i < 2000; i++)
		if (sessions[i].buffer && chance(15000) == 0) {
			free(sessions[i].buffer);
			sessions[i].buffer = NULL;
		}
	unsigned slot = chance(2000);
	if (tick % 5 == 0 && !sessions[slot].buffer)
		sessions[slot].buffer = fill(600);
}

/* A new table every 40 seconds; the one before goes then. */
static void two_generations(void)
{
	unsigned long half = tick / (20 * TICKS) % 2 * 1000;
	free(kept[half + tick % 1000]);
	kept[half + tick % 1000] = fill(500);
}

static void index_of_the_first_70_seconds(void)
{
	if (tick < 70 * TICKS)
		kept[keeping++] = fill(220);
}

static void entries_of_90_seconds(void)
{
	free(kept[tick % (90 * TICKS)]);
	kept[tick % (90 * TICKS)] = fill(330);
}

#include "held_out.h"

static const struct {
	const char *name;
	void (*step)(void);
} BEHAVIOURS[] = {
#define BEHAVIOUR(name) { #name, name }
	BEHAVIOUR(leak_plainly),
	BEHAVIOUR(leak_on_an_error_path),
	BEHAVIOUR(leak_one_in_a_thousand),
	BEHAVIOUR(leak_per_connection),
	BEHAVIOUR(leak_the_head_of_a_list),
	BEHAVIOUR(leak_behind_interior_pointers),
	BEHAVIOUR(leak_by_assigning_again),
	BEHAVIOUR(leak_by_thread),
	BEHAVIOUR(leak_by_a_map_without_removal),
	BEHAVIOUR(leak_slowly),
	BEHAVIOUR(leak_in_lumps),
	BEHAVIOUR(leak_some_logins),
	BEHAVIOUR(leak_large_blocks),
	BEHAVIOUR(traffic),
	BEHAVIOUR(lru_cache),
	BEHAVIOUR(last_entries),
	BEHAVIOUR(startup_tables),
	BEHAVIOUR(arena),
	BEHAVIOUR(pool),
	BEHAVIOUR(batch),
	BEHAVIOUR(log_buffer),
	BEHAVIOUR(thread_caches),
	BEHAVIOUR(pinholes),
	BEHAVIOUR(sessions_of_30_seconds),
	BEHAVIOUR(memoization_of_few),
	BEHAVIOUR(full_before),
	BEHAVIOUR(sawtooth),
	BEHAVIOUR(connections_that_stay),
	BEHAVIOUR(leak_by_a_queue_without_bound),
	BEHAVIOUR(leak_by_a_growing_buffer),
	BEHAVIOUR(leak_under_load_that_comes_and_goes),
	BEHAVIOUR(leak_forgotten_sessions),
	BEHAVIOUR(leak_faster_and_faster),
	BEHAVIOUR(leak_a_little_less_each_minute),
	BEHAVIOUR(cache_that_is_not_full_yet),
	BEHAVIOUR(long_sessions),
	BEHAVIOUR(two_generations),
	BEHAVIOUR(index_of_the_first_70_seconds),
	BEHAVIOUR(entries_of_90_seconds),
	BEHAVIOUR(leak_cancelled_timers),
	BEHAVIOUR(leak_by_reloading),
	BEHAVIOUR(leak_by_a_pool_that_is_not_reused),
	BEHAVIOUR(leak_beneath_waves),
	BEHAVIOUR(ring_of_buffers),
	BEHAVIOUR(table_that_is_rehashed),
	BEHAVIOUR(entries_of_20_seconds),
	BEHAVIOUR(set_up_at_first_use),
	BEHAVIOUR(reconnects),
	BEHAVIOUR(last_thousand_edits),
};

int main(int count, char **arguments)
{
	for (unsigned i = 0; i < sizeof BEHAVIOURS / sizeof *BEHAVIOURS; i++)
		if (count > 1 && strcmp(BEHAVIOURS[i].name, arguments[1]) == 0) {
			ready();
			for (; !terminated; usleep(1000000 / TICKS))
				for (unsigned long due = ticks_since_start(TICKS); tick <= due; tick++) {
					BEHAVIOURS[i].step();
					serve(3);
				}
		}
	return 2;
}
