/* A process that has ended and is not waited for. */
#include "common.h"

int main(void)
{
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	siginfo_t info;
	ready();
	(void)info;
	say("{\"zombie\":%d}\n", (int)child);
	wait_for_end();
	return 0;
}
