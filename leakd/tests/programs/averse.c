/* Notices whatever a debugger does to it: calls that fail with EINTR, signals that
 * are lost or come twice, pauses, a tracer. Says what it noticed at its end.
 *
 * Threads: one in epoll_wait, one in nanosleep, one in recv with a timeout, one
 * that waits for signals, one that runs and looks for a tracer, one that sends
 * signals and leaks. */
#define _GNU_SOURCE
#include "common.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

static volatile int stop;
static unsigned long interrupted, traced, sent, got, waited, longest_pause;
static int quiet_signal;

static void *in_epoll(void *nothing)
{
	int epoll = epoll_create1(0);
	while (!stop) {
		struct epoll_event event;
		if (epoll_wait(epoll, &event, 1, 50) < 0 && errno == EINTR)
			__atomic_add_fetch(&interrupted, 1, __ATOMIC_SEQ_CST);
	}
	close(epoll);
	return nothing;
}

static void *in_sleep(void *nothing)
{
	while (!stop) {
		struct timespec time = {0, 20000000};
		if (nanosleep(&time, NULL) < 0)
			__atomic_add_fetch(&interrupted, 1, __ATOMIC_SEQ_CST);
	}
	return nothing;
}

static void *in_recv(void *nothing)
{
	int pair[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	struct timeval limit = {0, 30000};
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while (!stop) {
		char byte;
		if (recv(pair[0], &byte, 1, 0) < 0 && errno == EINTR)
			__atomic_add_fetch(&interrupted, 1, __ATOMIC_SEQ_CST);
	}
	return nothing;
}

static void *in_sigwait(void *nothing)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, quiet_signal);
	while (!stop) {
		struct timespec limit = {0, 20000000};
		int signal = sigtimedwait(&set, NULL, &limit);
		if (signal == quiet_signal)
			__atomic_add_fetch(&waited, 1, __ATOMIC_SEQ_CST);
		else if (errno == EINTR)
			__atomic_add_fetch(&interrupted, 1, __ATOMIC_SEQ_CST);
	}
	return nothing;
}

/* In nanoseconds: what the clock shows, for how long this thread ran, and for how
 * long it could have run, but others did. */
struct moment {
	unsigned long clock, ran, waited;
};

static unsigned long clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ul + time.tv_nsec;
}

static unsigned long waited_ns(int schedstat)
{
	char text[100];
	ssize_t length = pread(schedstat, text, sizeof text - 1, 0);
	text[length > 0 ? length : 0] = 0;
	char *second = strchr(text, ' ');
	return second ? strtoul(second, NULL, 10) : 0;
}

static struct moment now(int schedstat)
{
	struct moment moment;
	unsigned long before, clock;
	do { /* until nobody else, here or on the host, ran in the middle of it */
		before = waited_ns(schedstat);
		clock = clock_ns(CLOCK_MONOTONIC);
		moment.ran = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		moment.clock = clock_ns(CLOCK_MONOTONIC);
		moment.waited = waited_ns(schedstat);
	} while (before != moment.waited || moment.clock - clock > 200000);
	return moment;
}

/* Looks for a tracer, again and again, and for times at which it was kept from
 * running by something else than that others ran. */
static void *computing(void *nothing)
{
	unsigned long round = 0;
	int schedstat = open("/proc/thread-self/schedstat", O_RDONLY);
	/* The scheduler's clocks of two processors can be a millisecond apart. */
	cpu_set_t here;
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	sched_setaffinity(0, sizeof here, &here);
	struct moment last = now(schedstat);
	while (!stop) {
		if (++round % 4096)
			continue;
		struct moment next = now(schedstat);
		unsigned long known = next.ran - last.ran + next.waited - last.waited;
		unsigned long passed = next.clock - last.clock;
		if (passed > known && passed - known > longest_pause)
			longest_pause = passed - known;
		last = next;
		char text[4096];
		int file = open("/proc/self/status", O_RDONLY);
		ssize_t length = read(file, text, sizeof text - 1);
		close(file);
		text[length > 0 ? length : 0] = 0;
		char *tracer = strstr(text, "TracerPid:");
		if (tracer && atoi(tracer + 10))
			__atomic_add_fetch(&traced, 1, __ATOMIC_SEQ_CST);
	}
	close(schedstat);
	return nothing;
}

static void count(int signal)
{
	(void)signal;
	__atomic_add_fetch(&got, 1, __ATOMIC_SEQ_CST);
}

ALONE static void *leak(void) { return malloc(1000); }

int main(void)
{
	quiet_signal = SIGRTMIN + 1;
	struct sigaction action = {.sa_handler = count};
	sigaction(SIGRTMIN, &action, NULL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, quiet_signal);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	void *(*bodies[])(void *) = {in_epoll, in_sleep, in_recv, in_sigwait, computing};
	pthread_t threads[5];
	for (int i = 0; i < 5; i++)
		pthread_create(&threads[i], NULL, bodies[i], NULL);
	/* Signals with a handler come to this thread alone, and no call of it is
	 * counted. */
	sigset_t handled;
	sigemptyset(&handled);
	sigaddset(&handled, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &handled, NULL);
	ready();
	for (;;) {
		union sigval value = {.sival_int = 0};
		for (int i = 0; i < 10; i++)
			if (sigqueue(getpid(), SIGRTMIN, value) == 0)
				sent++;
		if (sigqueue(getpid(), quiet_signal, value) == 0)
			sent++;
		sink = leak();
		sink = NULL;
		leaked_blocks++;
		leaked_bytes += 1000;
		rounds++;
		struct pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
		int polled = poll(&input, 1, pause_ms);
		if (polled > 0) {
			int lines = read_lines();
			if (lines < 0)
				break;
			while (lines--)
				say_truth();
		}
	}
	while (waited + got < sent)
		usleep(1000);
	stop = 1;
	for (int i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	say("{\"interrupted\":%lu,\"traced\":%lu,\"sent\":%lu,\"got\":%lu,\"longest_pause_ns\":%lu}\n",
	    interrupted, traced, sent, got + waited, longest_pause);
	return 0;
}
