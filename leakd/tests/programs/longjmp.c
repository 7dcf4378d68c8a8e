/* An allocator in the program itself that is left by siglongjmp: every tenth
 * round a signal handler jumps out of malloc, so that this call of malloc
 * never returns. What is allocated afterwards must still be seen.
 *
 * The allocator is exported under the standard names, as an interposed one. */
#include "common.h"
#include <setjmp.h>
#include <sys/mman.h>

#define CELL 256

static sigjmp_buf outside;
static volatile sig_atomic_t interrupt_next;
static char *arena;
static size_t used, room;
static void *free_cells;

static void jump_out(int signal)
{
	(void)signal;
	siglongjmp(outside, 1);
}

__attribute__((noipa)) void *malloc(size_t size)
{
	if (interrupt_next) {
		interrupt_next = 0;
		raise(SIGUSR1); /* does not come back */
	}
	if (size > CELL)
		return NULL;
	void *cell = free_cells;
	if (cell) {
		free_cells = *(void **)cell;
		return cell;
	}
	if (used == room) {
		room = CELL * 4096;
		used = 0;
		arena = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	cell = arena + used;
	used += CELL;
	return cell;
}

__attribute__((noipa)) void free(void *cell)
{
	if (cell) {
		*(void **)cell = free_cells;
		free_cells = cell;
	}
}

ALONE static void leave_by_jump(void)
{
	if (sigsetjmp(outside, 1) == 0) {
		interrupt_next = 1;
		sink = malloc(99);
		abort();
	}
}

ALONE static void leak_after_longjmp(void)
{
	sink = malloc(180);
	*(volatile char *)sink = 1;
	leaked_blocks++;
	leaked_bytes += 180;
}

int main(void)
{
	struct sigaction action = {.sa_handler = jump_out};
	sigaction(SIGUSR1, &action, NULL);
	ready();
	do {
		void *block = malloc(64);
		*(volatile char *)block = 1;
		sink = block;
		free(block);
		if (rounds % 10 == 0)
			leave_by_jump();
		leak_after_longjmp();
	} while (next_round());
	say_truth();
	return 0;
}
