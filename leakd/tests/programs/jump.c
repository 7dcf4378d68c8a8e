/* Loaded into a process, makes the time of day jump: by a year, ahead and back,
 * each time that it is asked for. Other clocks go on. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
	static unsigned asked;
	int status = syscall(SYS_clock_gettime, clock, time);
	if (clock == CLOCK_REALTIME && status == 0)
		time->tv_sec += __atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED) % 2 ? 31536000 : -31536000;
	return status;
}
