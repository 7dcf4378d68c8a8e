/* A process in a state that is hard on whoever looks at it; it leaks 10 blocks
 * after a line.
 *
 *   states sparse     maps a terabyte, of which it uses some pages
 *   states forks      makes processes, one after the other, without end
 *   states threads    makes threads, one after the other, without end
 *   states vanishing  maps and unmaps memory without end
 *   states uninterruptible  waits in vfork, which no signal interrupts
 *   states plain */
#define _GNU_SOURCE
#include "common.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

static volatile int stop;

ALONE static void *leak(void) { return malloc(100); }

static void *nothing(void *argument) { return argument; }

static void *churn(void *way)
{
	unsigned long round = 0;
	while (!stop) {
		round++;
		/* Emulated, one after the other would take a whole processor. */
		if (getenv("LEAKD_TEST_SCALE"))
			usleep(2000);
		if (!strcmp(way, "forks")) {
			pid_t child = fork();
			if (child == 0)
				_exit(0);
			waitpid(child, NULL, 0);
		} else if (!strcmp(way, "threads")) {
			pthread_t thread;
			pthread_create(&thread, NULL, nothing, NULL);
			pthread_join(thread, NULL);
		} else {
			size_t bytes = (round % 50 + 1) << 16;
			char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			memset(memory, 1, bytes);
			munmap(memory, bytes);
		}
	}
	return NULL;
}

int main(int count, char **words)
{
	char *way = count > 1 ? words[1] : "plain";
	pthread_t thread;
	if (!strcmp(way, "sparse")) {
		size_t terabyte = 1UL << 40;
		char *memory = mmap(NULL, terabyte, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		for (size_t i = 0; i < 64; i++)
			memory[i << 34] = 1;
		sink = memory;
	} else if (!strcmp(way, "forks") || !strcmp(way, "threads") || !strcmp(way, "vanishing")) {
		pthread_create(&thread, NULL, churn, way);
	}
	ready();
	wait_for_go();
	for (int i = 0; i < 10; i++) {
		sink = leak();
		sink = NULL;
	}
	/* What calls have left. */
	volatile char room[16384];
	memset((void *)room, 0, sizeof room);
	say("made\n");
	if (!strcmp(way, "uninterruptible")) {
		pid_t child = vfork();
		if (child == 0) {
			char byte;
			while (read(0, &byte, 1) > 0)
				;
			_exit(0);
		}
	} else {
		while (read_lines() >= 0)
			;
	}
	stop = 1;
	say("{\"leaked_blocks\":10}\n");
	return 0;
}
