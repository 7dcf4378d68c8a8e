/* Leaves calls of malloc by longjmp, out of an interposer (interposer.c, which
 * it is linked with) or, with -DOWN, out of an allocator of its own, and then
 * allocates ten blocks of 100 bytes from a place that has another position on
 * the stack than the call that was left.
 *
 *     leave SCENARIO WHEN
 *
 * WHEN: before (1) or after (2) the interposer has passed the call on (and,
 * after it, freed the block); an allocator of its own is left at once. A byte on stdin starts it, a byte on stdout says
 * that it is done; the end of stdin ends the program.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))
#define LEAVE 77777

#ifdef OWN
static jmp_buf *interposer_leave_to;
static size_t interposer_leave_size;
static int interposer_leave_when;
static char arena[64 << 10], *next = arena;

/* free() gives nothing back. */
ALONE void *malloc(size_t size)
{
	if (size == interposer_leave_size)
		longjmp(*interposer_leave_to, interposer_leave_when);
	void *block = next;
	next += (size + 15) & ~(size_t)15;
	return next <= arena + sizeof arena ? block : NULL;
}

ALONE void free(void *block)
{
	(void)block;
}
#else
extern jmp_buf *interposer_leave_to;
extern size_t interposer_leave_size;
extern int interposer_leave_when;
#endif

static jmp_buf outside;
static void *volatile sink;

ALONE static void ten_blocks(void)
{
	for (int i = 0; i < 10; i++)
		sink = malloc(100);
}

ALONE static void leave(void)
{
	sink = malloc(LEAVE);
	abort();
}

/* Leaves from `bytes` further down. */
ALONE static void leave_below(size_t bytes)
{
	char *room = __builtin_alloca(bytes);
	__asm__ volatile("" : : "r"(room) : "memory");
	leave();
}

/* Allocates from below an array that is not written to. */
ALONE static void blocks_below(size_t bytes)
{
	char *room = __builtin_alloca(bytes);
	__asm__ volatile("" : : "r"(room) : "memory");
	ten_blocks();
}

/* Allocates from below an array that is. */
ALONE static void blocks_below_written(size_t bytes)
{
	char *room = __builtin_alloca(bytes);
	memset(room, 1, bytes);
	__asm__ volatile("" : : "r"(room) : "memory");
	ten_blocks();
}

int main(int count, char **arguments)
{
	if (count != 3)
		return 2;
	int scenario = atoi(arguments[1]);
	interposer_leave_to = &outside;
	interposer_leave_when = atoi(arguments[2]);
	interposer_leave_size = LEAVE;
	free(malloc(1));
	char byte = 'r';
	if (write(1, &byte, 1) != 1 || read(0, &byte, 1) != 1)
		return 2;
	if (setjmp(outside) == 0) {
		if (scenario == 0)
			leave_below(64);
		else
			leave_below(1024);
	}
	switch (scenario) {
	case 0: /* at about the same place */
		blocks_below(64);
		break;
	case 1: /* further up */
		ten_blocks();
		break;
	case 2: /* further down, what was there overwritten */
		blocks_below_written(8192);
		break;
	case 3: /* further down, what was there left as it was */
		blocks_below(8192);
		break;
	default:
		return 2;
	}
	while (write(1, &byte, 1) == 1 && read(0, &byte, 1) == 1) {
	}
	return 0;
}
