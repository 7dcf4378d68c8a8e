/* An allocator in front of the C library's: each call is passed on.
 *
 * HEADER	bytes that it keeps in front of each block (0: none)
 * SWALLOW	if defined: free keeps each block whose address, divided by 16,
 *		is a multiple of 3
 * Jumps to the next allocator are calls with -fno-optimize-sibling-calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *(*next_malloc)(size_t), *(*next_calloc)(size_t, size_t), *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);

/* Set by a program that wants to leave a malloc of the given size by longjmp,
 * before (1) or after (2) the call is passed on. */
jmp_buf *interposer_leave_to;
size_t interposer_leave_size;
int interposer_leave_when;

static void resolve(void)
{
	next_malloc = dlsym(RTLD_NEXT, "malloc");
	next_calloc = dlsym(RTLD_NEXT, "calloc");
	next_realloc = dlsym(RTLD_NEXT, "realloc");
	next_free = dlsym(RTLD_NEXT, "free");
}

__attribute__((constructor)) static void start(void)
{
	resolve();
}

#if HEADER
static void *with_header(char *block)
{
	return block ? block + HEADER : NULL;
}

static int too_large(size_t size)
{
	if (size <= SIZE_MAX - HEADER)
		return 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	if (!next_malloc)
		resolve();
	return too_large(size) ? NULL : with_header(next_malloc(size + HEADER));
}

void *calloc(size_t count, size_t size)
{
	size_t bytes;
	if (!next_calloc)
		resolve();
	if (__builtin_mul_overflow(count, size, &bytes) || too_large(bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return with_header(next_calloc(1, bytes + HEADER));
}

void free(void *block)
{
	if (block)
		next_free((char *)block - HEADER);
}

void *realloc(void *block, size_t size)
{
	if (!next_realloc)
		resolve();
	if (block && !size) {
		next_free((char *)block - HEADER);
		return NULL;
	}
	if (too_large(size))
		return NULL;
	return with_header(next_realloc(block ? (char *)block - HEADER : NULL, size + HEADER));
}
#else
void *malloc(size_t size)
{
	if (!next_malloc)
		resolve();
	if (interposer_leave_to && size == interposer_leave_size) {
		if (interposer_leave_when == 2)
			next_free(next_malloc(size));
		longjmp(*interposer_leave_to, 1);
	}
	return next_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	if (!next_calloc)
		resolve();
	return next_calloc(count, size);
}

void free(void *block)
{
#ifdef SWALLOW
	if ((uintptr_t)block / 16 % 3 == 0)
		return;
#endif
	if (!next_free)
		resolve();
	next_free(block);
}

void *realloc(void *block, size_t size)
{
	if (!next_realloc)
		resolve();
	return next_realloc(block, size);
}
#endif
