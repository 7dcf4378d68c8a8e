/* Calls of malloc from where stacks are hard to walk, each case once or more.
 *
 *     hard PLUGIN [CASE]
 *
 * PLUGIN is the library made from hard_plugin.c, or anything in a static
 * program. With CASE only the case of that name: they are listed at the end. */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "stages.h"

#ifdef WITH_PLUGIN
#include <dlfcn.h>
static void (*plugin_call)(void (*)(void));
#endif

/* What keeps calls from being the last thing that a function does. */
static volatile unsigned sink;
static void *volatile last;

NOINLINE static void take(size_t size)
{
	last = malloc(size);
	sink++;
}

/* Makes the stack frame of the function that it stands in one that is found by
 * the frame pointer, which every function called from there must hand on. */
#define FRAME_OF_UNKNOWN_SIZE                      \
	char unknown[sink % 8 + 16];               \
	unknown[0] = 1;                            \
	__asm__ volatile("" : : "r"(unknown) : "memory")

/* Recursion. */

NOINLINE static unsigned recurse(unsigned depth)
{
	if (depth == 0)
		take(16);
	else
		sink += recurse(depth - 1);
	return sink + depth;
}

NOINLINE static void odd(unsigned depth);

NOINLINE static void even(unsigned depth)
{
	if (depth == 0)
		take(17);
	else
		odd(depth - 1);
	sink++;
}

NOINLINE static void odd(unsigned depth)
{
	char local[depth * 16 + 16];
	local[0] = (char)depth;
	__asm__ volatile("" : : "r"(local) : "memory");
	if (depth != 0)
		even(depth - 1);
	sink += (unsigned char)local[0];
}

static void recursion(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	recurse(3);
	recurse(100);
	even(60);
	/* Deeper than is kept. */
	recurse(300);
}

/* Frames of unusual size and shape. */

NOINLINE static void large_frame(void)
{
	volatile char local[70 * 1024];
	local[0] = local[sizeof local - 1] = 1;
	take(18);
	sink += (unsigned)local[0];
}

NOINLINE static void huge_frame(void)
{
	volatile char local[500 * 1024];
	local[0] = local[sizeof local - 1] = 1;
	take(19);
	sink += (unsigned)local[0];
}

NOINLINE static void with_alloca(size_t size)
{
	char *local = alloca(size);
	memset(local, 1, size);
	__asm__ volatile("" : : "r"(local) : "memory");
	take(20);
	sink += (unsigned char)local[size / 2];
}

NOINLINE static void realigned(void)
{
	_Alignas(64) volatile char local[192];
	local[0] = local[191] = 1;
	__asm__ volatile("" : : "r"(local) : "memory");
	take(21);
	sink += (unsigned)local[0];
}

NOINLINE static void realigned_with_alloca(size_t size, int a, int b, int c, int d, int e, int f,
					   int g)
{
	_Alignas(64) volatile char local[128];
	char *more = alloca(size);
	memset(more, a + b + c + d + e + f + g, size);
	local[0] = local[127] = 1;
	__asm__ volatile("" : : "r"(local), "r"(more) : "memory");
	take(22);
	sink += (unsigned)local[0] + (unsigned char)more[0];
}

typedef double lanes __attribute__((vector_size(32)));

__attribute__((target("avx2"))) NOINLINE static void avx(const double *numbers)
{
	lanes a = {numbers[0], numbers[1], numbers[2], numbers[3]};
	lanes b = {numbers[3], numbers[1], numbers[2], numbers[0]};
	volatile lanes spilled = a * b;
	take(23);
	a = spilled + b;
	sink += (unsigned)a[0];
}

NOINLINE static void many_arguments(int a, int b, int c, int d, int e, int f, long g, long h,
				    long i, long j)
{
	take((size_t)(a + b + c + d + e + f + g + h + i + j));
	sink++;
}

NOINLINE static void variadic(int count, ...)
{
	va_list list;
	size_t sum = 0;
	va_start(list, count);
	while (count-- > 0)
		sum += va_arg(list, size_t);
	va_end(list);
	take(sum);
	sink++;
}

__attribute__((optimize("no-omit-frame-pointer"))) NOINLINE static void framed(void)
{
	take(25);
	sink++;
}

__attribute__((cold)) NOINLINE static void rare(void)
{
	take(26);
	sink++;
}

NOINLINE static void hot_and_cold(unsigned number)
{
	if (__builtin_expect(number == 12345, 0)) {
		rare();
		take(27);
		sink += number;
	}
	sink++;
}

static void frames(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	static const double numbers[4] = {1, 2, 3, 4};
	large_frame();
	huge_frame();
	with_alloca(1000);
	with_alloca(100000);
	realigned();
	realigned_with_alloca(300, 1, 2, 3, 4, 5, 6, 7);
	if (__builtin_cpu_supports("avx2"))
		avx(numbers);
	many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
	variadic(9, (size_t)1, (size_t)2, (size_t)3, (size_t)4, (size_t)5, (size_t)6, (size_t)7,
		 (size_t)8, (size_t)9);
	framed();
	hot_and_cold(12345);
}

/* Tail calls: the jumping function has no frame. */

NOINLINE static void *tail_of_malloc(size_t size)
{
	return malloc(size);
}

NOINLINE static void *tail_of_tail(size_t size)
{
	if (size == 0)
		return NULL;
	return tail_of_malloc(size + 1);
}

static void tail_calls(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	last = tail_of_malloc(28);
	last = tail_of_tail(29);
	last = malloc(30);
}

/* Calls that never return, the last instruction of their function. */

static jmp_buf way_out;

__attribute__((noreturn)) NOINLINE static void leave(void)
{
	take(31);
	longjmp(way_out, 1);
}

NOINLINE static void ends_in_a_call(unsigned number)
{
	if (number == 0)
		leave();
	sink++;
}

__attribute__((noreturn)) NOINLINE static void ends_in_a_call_too(void)
{
	take(32);
	leave();
}

static void no_return(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	if (setjmp(way_out) == 0)
		ends_in_a_call(0);
	if (setjmp(way_out) == 0)
		ends_in_a_call_too();
}

/* Called back by the C library. */

static int compare(const void *a, const void *b)
{
	take(33);
	return *(const int *)a - *(const int *)b;
}

static void once(void)
{
	take(34);
}

static void callbacks(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	static pthread_once_t control = PTHREAD_ONCE_INIT;
	int numbers[9] = {5, 3, 9, 1, 7, 2, 8, 4, 6};
	int wanted = 4;
	qsort(numbers, 9, sizeof *numbers, compare);
	last = bsearch(&wanted, numbers, 9, sizeof *numbers, compare);
	pthread_once(&control, once);
}

/* Signal handlers, on the stack of what they interrupt and on one of their
 * own. */

static char *page;

NOINLINE static unsigned touch(const volatile unsigned *at)
{
	return *at;
}

NOINLINE static void handle_deeper(int number)
{
	take(35 + (size_t)number);
	sink++;
}

static void handle(int number)
{
	handle_deeper(number);
	if (number == SIGSEGV && mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0)
		_exit(5);
	if (number == SIGUSR1)
		raise(SIGUSR2);
	sink++;
}

static void set_handlers(int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = handle;
	action.sa_flags = flags;
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

/* The instruction that faults is the first of touch(). */
NOINLINE static void fault(void)
{
	if (mprotect(page, 4096, PROT_NONE) != 0)
		_exit(6);
	sink += touch((unsigned *)page);
	sink++;
}

static void signals(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	static char other_stack[256 << 10];
	const stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
	page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		_exit(7);
	set_handlers(0);
	raise(SIGUSR1);
	fault();
	set_handlers(SA_SIGINFO);
	raise(SIGUSR1);
	if (sigaltstack(&stack, NULL) != 0)
		_exit(8);
	set_handlers(SA_ONSTACK);
	raise(SIGUSR1);
	fault();
	set_handlers(SA_ONSTACK | SA_NODEFER);
	raise(SIGUSR2);
}

/* Threads and their ends. */

static pthread_key_t key;

static void thread_is_gone(void *value)
{
	take(60);
	sink += (unsigned)(uintptr_t)value;
}

static void *thread(void *argument)
{
	take(61);
	pthread_setspecific(key, argument);
	recurse(5);
	sink++;
	return NULL;
}

static void *thread_that_exits(void *argument)
{
	take(62);
	pthread_exit(argument);
}

static void threads(void)
{
	FRAME_OF_UNKNOWN_SIZE;
	pthread_t id;
	pthread_key_create(&key, thread_is_gone);
	for (int number = 0; number < 2; number++) {
		if (pthread_create(&id, NULL, number ? thread_that_exits : thread, page) != 0)
			_exit(9);
		pthread_join(id, NULL);
	}
}

/* A library that came by dlopen, and back into the program. */

static void from_plugin(void)
{
	take(65);
	sink++;
}

static void plugin(void)
{
	FRAME_OF_UNKNOWN_SIZE;
#ifdef WITH_PLUGIN
	plugin_call(from_plugin);
#else
	from_plugin();
#endif
}

/* At the end. */

static void at_exit(void)
{
	take(66);
	work_is_done();
}

int main(int count, char **arguments)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{"recursion", recursion}, {"frames", frames},	{"tail_calls", tail_calls},
		{"no_return", no_return}, {"callbacks", callbacks}, {"signals", signals},
		{"threads", threads},	  {"plugin", plugin},
	};
	const char *wanted = count > 2 ? arguments[2] : "";
#ifdef WITH_PLUGIN
	void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;
	if (library == NULL)
		return 2;
	*(void **)&plugin_call = dlsym(library, "plugin_call");
#endif
	if (atexit(at_exit) != 0)
		return 2;
	wait_for_go();
	for (size_t number = 0; number < sizeof cases / sizeof *cases; number++)
		if (*wanted == 0 || strcmp(wanted, cases[number].name) == 0)
			cases[number].run();
	return 0;
}
