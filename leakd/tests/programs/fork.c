/* A parent that allocates 1,000 blocks and, after a second `go`, a child that
 * frees its copies of them and keeps 500 of its own. Both stay until stdin
 * ends. */
#include "common.h"
#include <sys/wait.h>

static void *blocks[1000];

ALONE static void leak_in_parent(void)
{
	for (int i = 0; i < 1000; i++) {
		blocks[i] = malloc(150);
		*(volatile char *)blocks[i] = 1;
	}
}

ALONE static void leak_in_child(void)
{
	for (int i = 0; i < 500; i++) {
		sink = malloc(250);
		*(volatile char *)sink = 1;
	}
}

int main(void)
{
	int report[2], order[2];
	ready();
	wait_for_go();
	leak_in_parent();
	if (pipe(report) || pipe(order))
		abort();
	pid_t child = fork();
	if (child == 0) {
		char byte;
		if (read(order[0], &byte, 1) != 1)
			_exit(5);
		for (int i = 0; i < 1000; i++)
			free(blocks[i]);
		leak_in_child();
		if (write(report[1], "x", 1) != 1)
			_exit(5);
		pause(); /* until the parent ends it */
		_exit(0);
	}
	if (child < 0)
		abort();
	say("{\"child\":%d}\n", (int)child);
	wait_for_go();
	char byte;
	if (write(order[1], "x", 1) != 1 || read(report[0], &byte, 1) != 1)
		abort();
	say("{\"child\":%d,\"leaked_blocks\":1000,\"leaked_bytes\":150000,"
	    "\"child_blocks\":500,\"child_bytes\":125000}\n",
	    (int)child);
	wait_for_end();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}
