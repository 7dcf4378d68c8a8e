/* Graphs of blocks, each block made by a function of its own, whose name says
 * what becomes of it: the class that valgrind gives it, and what it is.
 *
 *   graphs         waits for a line, makes them, says so, waits for the end
 *
 * With ROUNDS=1 it ends at once, for valgrind and LeakSanitizer. */
#include "common.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

/* 40 bytes: the last word is not where glibc has the size of the next block. */
#define SIZE 40
typedef void *volatile block;

/* A function that makes a block, and differs from all others. */
#define BLOCK(name) \
	ALONE static block *name(void) { __asm__ volatile("# " #name); return calloc(1, SIZE); }

#define BLOCKS(one) \
	one(reachable_global) one(reachable_chain_1) one(reachable_chain_2) \
	one(reachable_mapped) one(reachable_tls) one(reachable_other_stack) \
	one(reachable_own_stack) one(reachable_cycle_1) one(reachable_cycle_2) \
	one(reachable_static_array) one(reachable_heap_large) \
	one(definite_alone) one(definite_list_1) one(indirect_list_2) one(indirect_list_3) \
	one(definite_tree) one(indirect_tree_left) one(indirect_tree_right) \
	one(indirect_tree_leaf) one(definite_to_inside) one(indirect_by_inside) \
	one(possible_inside) one(possible_from_inside) one(possible_of_reachable) \
	one(reachable_with_inside) one(reachable_shared) one(definite_with_shared) \
	one(lost_ring)
BLOCKS(BLOCK)

static void *volatile global, *volatile array[16], *volatile inside;
static __thread void *volatile local;
static volatile int go;

ALONE static void *inner(block *of) { return (char *)of + 16; }

/* Nothing of the graph stays in registers or in frames above this one. */
ALONE static void make(block *mapped)
{
	global = (void *)reachable_global();
	block *first = reachable_chain_1();
	first[0] = (void *)reachable_chain_2();
	array[3] = (void *)first;
	mapped[5] = (void *)reachable_mapped();
	block *cycle = reachable_cycle_1();
	cycle[1] = (void *)reachable_cycle_2();
	((block *)cycle[1])[1] = (void *)cycle;
	array[4] = (void *)cycle;
	array[5] = (void *)reachable_static_array();
	block *large = calloc(1, 1 << 20);
	large[70000] = (void *)reachable_heap_large();
	array[6] = (void *)large;

	definite_alone();
	block *list = definite_list_1();
	list[0] = (void *)indirect_list_2();
	((block *)list[0])[0] = (void *)indirect_list_3();
	block *tree = definite_tree();
	tree[0] = (void *)indirect_tree_left();
	tree[1] = (void *)indirect_tree_right();
	((block *)tree[1])[2] = (void *)indirect_tree_leaf();
	block *to_inside = definite_to_inside();
	to_inside[0] = inner(indirect_by_inside());

	block *possible = possible_inside();
	possible[0] = (void *)possible_from_inside();
	inside = inner(possible);
	block *holds = reachable_with_inside();
	holds[0] = inner(possible_of_reachable());
	array[7] = (void *)holds;
	block *shared = reachable_shared();
	array[8] = (void *)shared;
	definite_with_shared()[0] = (void *)shared;
	/* Of a ring one block is definitely lost and the others indirectly: which one
	 * is anybody's guess. */
	block *ring[3];
	for (int i = 0; i < 3; i++)
		ring[i] = lost_ring();
	for (int i = 0; i < 3; i++)
		ring[i][0] = (void *)ring[(i + 1) % 3];
	}

/* Overwrites what calls have left below the stack pointer and in registers. */
ALONE static void wipe(void)
{
	volatile char room[16384];
	memset((void *)room, 0, sizeof room);
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2;"
			 "pxor %%xmm3, %%xmm3; pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5;"
			 "pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7"
			 ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			     "rbx", "r12", "r13", "r14", "r15", "memory");
}

static void *other(void *nothing)
{
	(void)nothing;
	while (go == 0)
		usleep(1000);
	block held = (void *)reachable_other_stack();
	local = (void *)reachable_tls();
	__atomic_store_n(&go, 2, __ATOMIC_SEQ_CST);
	while (go != 3)
		usleep(1000);
	sink = held;
	return local;
}

int main(void)
{
	block *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;
	pthread_create(&thread, NULL, other, NULL);
	ready();
	wait_for_go();
	make(mapped);
	wipe();
	block held = (void *)reachable_own_stack();
	go = 1;
	while (go != 2)
		usleep(1000);
	wipe();
	if (round_limit) {
		exit(0);
	}
	say("made\n");
	wait_for_end();
	sink = held;
	go = 3;
	pthread_join(thread, NULL);
	return 0;
}
