/* Loads each library that it is given, calls it for a while, and says when it
 * began to load it: nanoseconds of CLOCK_MONOTONIC, a line for each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void rest(long microseconds)
{
	struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
	nanosleep(&time, NULL);
}

int main(int count, char **libraries)
{
	puts("ready");
	fflush(stdout);
	getchar();
	for (int i = 1; i < count; i++) {
		long long begun = now();
		void *library = dlopen(libraries[i], RTLD_NOW);
		void (*work)(void) = (void (*)(void))(uintptr_t)dlsym(library, "work");
		if (!work)
			return 1;
		while (now() < begun + 250000000) {
			work();
			rest(200);
		}
		printf("%lld\n", begun);
		fflush(stdout);
		/* Not at the same phase of leakd's clock each time. */
		rest(7000 + i * 1300 % 20000);
	}
	getchar();
	return 0;
}
