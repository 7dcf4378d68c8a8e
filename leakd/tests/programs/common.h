/* What the test programs share: how they talk to the test and how they end.
 *
 * A program prints "ready PID", then works in rounds of about a millisecond.
 * Each line on its stdin is answered with one line of JSON: the rounds so far
 * and what it has leaked so far. At the end of stdin, or at SIGTERM, it gives
 * back all but the leak, prints that line once more and exits with 0.
 * ROUNDS=n in the environment: exit after n rounds, without looking at stdin.
 * LEAKD_TEST_SCALE in the environment: the machine is emulated, and a round under
 * trace takes it some milliseconds, so they come less often.
 *
 * Nothing here allocates: a stdio buffer would be one block too many.
 */
#ifndef COMMON_H
#define COMMON_H

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ALONE __attribute__((noinline, noclone, unused))

static unsigned long rounds, round_limit;
static int pause_ms = 1;
static unsigned long leaked_blocks, leaked_bytes;
static volatile sig_atomic_t terminated;

/* What is stored here the compiler must believe to be read by someone. */
static void *volatile sink __attribute__((unused));

ALONE static void say(const char *format, ...)
{
	char line[1024];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	for (int done = 0; done < length;) {
		ssize_t written = write(1, line + done, length - done);
		if (written <= 0)
			_exit(3); /* nobody listens any more */
		done += written;
	}
}

ALONE static void say_truth(void)
{
	say("{\"rounds\":%lu,\"leaked_blocks\":%lu,\"leaked_bytes\":%lu}\n", rounds,
	    leaked_blocks, leaked_bytes);
}

/* How many ticks are over since the first call. By the clock, and not by counting
 * pauses: on a busy machine memory is to grow, or to stop growing, when it should. */
ALONE static unsigned long ticks_since_start(unsigned long a_second)
{
	static struct timespec start;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (start.tv_sec == 0)
		start = now;
	long long nanoseconds = (now.tv_sec - start.tv_sec) * 1000000000ll + now.tv_nsec - start.tv_nsec;
	return nanoseconds * a_second / 1000000000ull;
}

static void on_terminate(int signal)
{
	(void)signal;
	terminated = 1;
}

ALONE static void ready(void)
{
	const char *limit = getenv("ROUNDS");
	if (limit)
		round_limit = strtoul(limit, NULL, 10);
	if (getenv("LEAKD_TEST_SCALE"))
		pause_ms = 20;
	signal(SIGTERM, on_terminate);
	say("ready %d\n", (int)getpid());
}

/* One read of stdin: how many lines came, or -1 at its end. */
ALONE static int read_lines(void)
{
	char input[256];
	ssize_t length = read(0, input, sizeof input);
	if (length <= 0)
		return -1;
	int lines = 0;
	for (ssize_t i = 0; i < length; i++)
		lines += input[i] == '\n';
	return lines;
}

/* Waits for one line on stdin; with ROUNDS set it does not wait. */
ALONE static void wait_for_go(void)
{
	if (round_limit)
		return;
	if (read_lines() < 0)
		exit(0);
}

/* Waits until stdin ends; with ROUNDS set it does not wait. */
ALONE static void wait_for_end(void)
{
	while (!round_limit && !terminated && read_lines() >= 0)
		;
}

/* Ends a round: 0 when the program is to end. */
ALONE static int next_round(void)
{
	rounds++;
	if (round_limit)
		return rounds < round_limit;
	if (terminated)
		return 0;
	struct pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
	if (poll(&input, 1, pause_ms) > 0) {
		int lines = read_lines();
		if (lines < 0)
			return 0;
		while (lines--)
			say_truth();
	}
	return 1;
}

#endif
