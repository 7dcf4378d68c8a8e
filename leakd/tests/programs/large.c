/* A large heap: BLOCKS blocks that fill BYTES bytes, of which every tenth is lost;
 * the others hang on a tree. It watches for how long it does not get on.
 *
 *   large BLOCKS BYTES */
#define _GNU_SOURCE
#include "common.h"
#include <pthread.h>
#include <time.h>

static void **root;
static volatile int stop;
static long longest_ns;

static long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

/* Switches of this thread against its will. */
static long preemptions(void)
{
	char text[4096];
	FILE *file = fopen("/proc/thread-self/status", "r");
	size_t length = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[length] = 0;
	char *line = strstr(text, "nonvoluntary_ctxt_switches:");
	return line ? atol(line + 27) : 0;
}

/* The longest time in which it did not get on though nobody took its processor. */
static void *watch(void *nothing)
{
	while (!stop) {
		long switches = preemptions();
		long begin = now(), last = begin, longest = 0;
		while (last - begin < 2000000) {
			long time = now();
			if (time - last > longest)
				longest = time - last;
			last = time;
		}
		if (preemptions() == switches && longest > longest_ns)
			longest_ns = longest;
		usleep(1000);
	}
	return nothing;
}

ALONE static void *kept(size_t size) { return malloc(size); }
ALONE static void *lost(size_t size) { return malloc(size); }

int main(int count, char **words)
{
	size_t blocks = count > 1 ? strtoul(words[1], NULL, 10) : 1000;
	size_t bytes = count > 2 ? strtoul(words[2], NULL, 10) : 1 << 20;
	size_t size = bytes / blocks;
	pthread_t thread;
	pthread_create(&thread, NULL, watch, NULL);
	ready();
	wait_for_go();
	void **last = NULL;
	for (size_t i = 0; i < blocks; i++) {
		int is_lost = i % 10 == 9;
		void **block = is_lost ? lost(size) : kept(size);
		memset(block, 1, size);
		if (is_lost) {
			leaked_blocks++;
			leaked_bytes += size;
			continue;
		}
		block[0] = NULL;
		if (last)
			last[0] = block;
		else
			root = block;
		last = block;
	}
	last = NULL;
	longest_ns = 0;
	say("made\n");
	while (read_lines() >= 0)
		;
	stop = 1;
	pthread_join(thread, NULL);
	say("{\"leaked_blocks\":%lu,\"leaked_bytes\":%lu,\"longest_ns\":%ld}\n", leaked_blocks,
	    leaked_bytes, longest_ns);
	sink = root;
	return 0;
}
