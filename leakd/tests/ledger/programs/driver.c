/* Does what the test writes into a shared file, and nothing else.
 *
 *     driver FILE THREADS
 *
 * FILE holds a struct shared. For each byte on stdin, the operations from
 * `begin` to `end` are done, each by the thread that it names, in the order in
 * which they stand for that thread, and once more for as long as `repeat` is
 * not 0; then a byte goes to stdout. What came of
 * an operation stands beside it. The end of stdin ends the program.
 *
 * After the first byte on stdout ("ready") nothing here calls an allocator but
 * the operations themselves: threads are there already, waiting is by futex
 * and sched_yield.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The numbers and the layout are those of driver.rs. */
enum kind {
	MALLOC,
	CALLOC,
	REALLOC,
	REALLOCARRAY,
	MEMALIGN,
	ALIGNED_ALLOC,
	POSIX_MEMALIGN,
	VALLOC,
	STRDUP,
	FREE,
	KINDS,
};
#define OPERATIONS 16384
#define TEXT 4096

struct operation {
	uint64_t kind, thread;
	uint64_t size;	/* strdup: with the final zero */
	uint64_t extra; /* count or alignment */
	/* The operation whose block is resized or freed, counted from 1; 0: NULL. */
	uint64_t source;
	/* One that must have been done before, counted from 1; 0: none. */
	uint64_t after;
};

struct outcome {
	uint64_t address; /* what the call returned */
	uint64_t live;	  /* the block that is there after it; 0: none */
	_Atomic uint64_t done;
};

struct shared {
	uint64_t begin, end;
	_Atomic uint64_t repeat;
	uint64_t sites[16]; /* where the functions that call the allocator begin */
	struct operation operations[OPERATIONS];
	struct outcome outcomes[OPERATIONS];
};

static struct shared *shared;
static unsigned long threads;
static _Atomic uint32_t round_number, finished;
static char text[TEXT + 1];

/* One call site for each function: the innermost frame tells them apart. The
 * empty asm keeps the call from becoming a jump. */
#define SITE __attribute__((noipa, section("sites")))
#define RETURN(value)                                                                        \
	do {                                                                                 \
		void *result = (value);                                                      \
		__asm__ volatile("" : "+r"(result));                                         \
		return result;                                                               \
	} while (0)

SITE static void *site_malloc(size_t size)
{
	RETURN(malloc(size));
}

SITE static void *site_calloc(size_t count, size_t size)
{
	RETURN(calloc(count, size));
}

SITE static void *site_realloc(void *block, size_t size)
{
	RETURN(realloc(block, size));
}

SITE static void *site_reallocarray(void *block, size_t count, size_t size)
{
	RETURN(reallocarray(block, count, size));
}

SITE static void *site_memalign(size_t alignment, size_t size)
{
	RETURN(memalign(alignment, size));
}

SITE static void *site_aligned_alloc(size_t alignment, size_t size)
{
	RETURN(aligned_alloc(alignment, size));
}

/* What lies in the out-parameter before the call is no block. */
SITE static void *site_posix_memalign(size_t alignment, size_t size)
{
	void *block = (void *)0x5a5a5a50;
	int error = posix_memalign(&block, alignment, size);
	RETURN(error ? NULL : block);
}

SITE static void *site_valloc(size_t size)
{
	RETURN(valloc(size));
}

SITE static void *site_strdup(const char *string)
{
	RETURN(strdup(string));
}

SITE static void site_free(void *block)
{
	free(block);
	__asm__ volatile("");
}

static void perform(const struct operation *operation, struct outcome *outcome)
{
	void *source = NULL;
	if (operation->source)
		source = (void *)shared->outcomes[operation->source - 1].live;
	size_t size = operation->size, extra = operation->extra;
	void *block = NULL, *live = NULL;
	switch (operation->kind) {
	case MALLOC:
		live = block = site_malloc(size);
		break;
	case CALLOC:
		live = block = site_calloc(extra, size);
		break;
	case REALLOC:
		live = block = site_realloc(source, size);
		if (!block && size)
			live = source;
		break;
	case REALLOCARRAY:
		live = block = site_reallocarray(source, extra, size);
		if (!block && size && extra)
			live = source;
		break;
	case MEMALIGN:
		live = block = site_memalign(extra, size);
		break;
	case ALIGNED_ALLOC:
		live = block = site_aligned_alloc(extra, size);
		break;
	case POSIX_MEMALIGN:
		live = block = site_posix_memalign(extra, size);
		break;
	case VALLOC:
		live = block = site_valloc(size);
		break;
	case STRDUP:
		live = block = site_strdup(text + TEXT + 1 - (size < TEXT ? size : TEXT));
		break;
	case FREE:
		site_free(source);
		break;
	default:
		_exit(3);
	}
	outcome->address = (uint64_t)block;
	outcome->live = (uint64_t)live;
}

static void perform_all(unsigned long thread)
{
	do {
		for (uint64_t i = shared->begin; i < shared->end; i++) {
			const struct operation *operation = &shared->operations[i];
			if (operation->thread % threads != thread)
				continue;
			if (operation->after)
				while (!atomic_load(&shared->outcomes[operation->after - 1].done))
					sched_yield();
			perform(operation, &shared->outcomes[i]);
			atomic_store(&shared->outcomes[i].done, 1);
		}
	} while (atomic_load(&shared->repeat));
	atomic_fetch_add(&finished, 1);
	syscall(SYS_futex, &finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_while(_Atomic uint32_t *word, uint32_t value)
{
	while (atomic_load(word) == value)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wait_until_finished(void)
{
	uint32_t now;
	while ((now = atomic_load(&finished)) != threads)
		syscall(SYS_futex, &finished, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
}

static void *worker(void *number)
{
	free(malloc(1)); /* what allocators set up for a thread */
	atomic_fetch_add(&finished, 1);
	syscall(SYS_futex, &finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	for (uint32_t round = 0;; round++) {
		wait_while(&round_number, round);
		perform_all((unsigned long)number);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	if (count != 3)
		return 2;
	int file = open(arguments[1], O_RDWR | O_CLOEXEC);
	threads = strtoul(arguments[2], NULL, 10);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file < 0 || shared == MAP_FAILED || !threads)
		return 2;
	void *sites[KINDS] = {
		site_malloc,	    site_calloc,	 site_realloc, site_reallocarray, site_memalign,
		site_aligned_alloc, site_posix_memalign, site_valloc,  site_strdup,	  site_free,
	};
	for (int kind = 0; kind < KINDS; kind++)
		shared->sites[kind] = (uint64_t)sites[kind];
	memset(text, 'x', TEXT);

	free(malloc(1));
	finished = 1;
	for (unsigned long number = 1; number < threads; number++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, worker, (void *)number))
			return 2;
	}
	wait_until_finished();
	char byte = 'r';
	do {
		if (write(1, &byte, 1) != 1)
			break;
		if (read(0, &byte, 1) != 1)
			break;
		atomic_store(&finished, 0);
		atomic_fetch_add(&round_number, 1);
		syscall(SYS_futex, &round_number, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
		perform_all(0);
		wait_until_finished();
	} while (1);
	_exit(0);
}
