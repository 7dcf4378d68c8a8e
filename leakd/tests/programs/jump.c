/* Loaded into a process, makes the time of day jump: it is a year ahead or a
 * year behind, irregularly, each time that it is asked for. Other clocks go on. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
	static unsigned asked;
	int status = syscall(SYS_clock_gettime, clock, time);
	if (clock == CLOCK_REALTIME && status == 0) {
		unsigned mixed = __atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED) * 2654435761u;
		time->tv_sec += mixed >> 31 ? 31536000 : -31536000;
	}
	return status;
}
