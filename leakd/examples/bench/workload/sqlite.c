/* Inserts rows into a table in memory for as many milliseconds as each line of
 * its standard input says, and answers with how many that were, in how many ns of
 * CPU time, and their median and 99th percentile in ns. The library is its argument. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEPT 65536
#define ROWS 100000

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;

static int (*open_database)(const char *, sqlite3 **);
static int (*execute)(sqlite3 *, const char *, void *, void *, char **);
static int (*prepare)(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
static int (*bind_text)(sqlite3_stmt *, int, const char *, int, void (*)(void *));
static int (*step)(sqlite3_stmt *);
static int (*reset)(sqlite3_stmt *);

static uint32_t times[KEPT];

static uint64_t now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int by_size(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
	return (a > b) - (a < b);
}

static void *function(void *library, const char *name)
{
	void *address = dlsym(library, name);
	if (!address) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return address;
}

int main(int count, char **arguments)
{
	static char line[64], text[200];
	sqlite3 *database;
	sqlite3_stmt *insert;
	uint64_t rows = 0;
	void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;

	if (!library)
		return 1;
	*(void **)&open_database = function(library, "sqlite3_open");
	*(void **)&execute = function(library, "sqlite3_exec");
	*(void **)&prepare = function(library, "sqlite3_prepare_v2");
	*(void **)&bind_text = function(library, "sqlite3_bind_text");
	*(void **)&step = function(library, "sqlite3_step");
	*(void **)&reset = function(library, "sqlite3_reset");
	if (open_database(":memory:", &database) ||
	    execute(database, "create table rows (number integer primary key, text)", 0, 0, 0) ||
	    prepare(database, "insert into rows (text) values (?)", -1, &insert, NULL))
		return 1;
	while (fgets(line, sizeof line, stdin)) {
		uint64_t cpu = now(CLOCK_THREAD_CPUTIME_ID), time = now(CLOCK_MONOTONIC), last;
		uint64_t end = time + strtoul(line, 0, 10) * 1000000, done = 0, kept;
		while (time < end) {
			int length = snprintf(text, sizeof text, "row %lu, some text to keep", rows);
			/* -1: it takes a copy. */
			bind_text(insert, 1, text, length, (void (*)(void *))-1);
			step(insert);
			reset(insert);
			if (++rows % ROWS == 0)
				execute(database, "delete from rows", 0, 0, 0);
			last = time;
			time = now(CLOCK_MONOTONIC);
			times[done++ % KEPT] = (uint32_t)(time - last);
		}
		cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
		kept = done < KEPT ? done : KEPT;
		qsort(times, kept, sizeof *times, by_size);
		printf("%lu %lu %u %u\n", done, cpu, times[kept / 2], times[kept * 99 / 100]);
		fflush(stdout);
	}
	return 0;
}
