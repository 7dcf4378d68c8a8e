/* Does nothing but move its pointers about, in one of several ways; all of its
 * blocks can be reached all the time.
 *
 *   mover WAY [MEBIBYTES]      waits for a line, makes the blocks, says so
 *
 *   swap      between two slots, far apart, through a register
 *   shuffle   among slots of many pages
 *   hand      from thread to thread, through one slot in memory
 *   rotate    a list, head to tail
 *   chase     upward, slot by slot
 *   rare      mostly in a register
 */
#include "common.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#define BLOCKS 64
#define SLOTS (1 << 16)

static void *volatile *slots;
static volatile int stop;
static unsigned long moves;

ALONE static void *block(void) { return calloc(1, 48); }

static uint64_t state = 88172645463325252ULL;
static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

ALONE static void swap(unsigned i)
{
	/* The slots of block i: in a page of its own each. */
	void *volatile *one = slots + i * 512, *volatile *two = slots + SLOTS / 2 + i * 512;
	if (*one) {
		void *held = *one;
		*one = NULL;
		__asm__ volatile("" : "+r"(held));
		*two = held;
	} else {
		void *held = *two;
		*two = NULL;
		__asm__ volatile("" : "+r"(held));
		*one = held;
	}
}

static unsigned at[BLOCKS];

ALONE static void shuffle(unsigned i)
{
	unsigned to;
	do
		to = draw() % SLOTS;
	while (slots[to]);
	void *held = slots[at[i]];
	slots[at[i]] = NULL;
	slots[to] = held;
	at[i] = to;
}

ALONE static void chase(unsigned i)
{
	unsigned from = at[i], to = (from + BLOCKS) % SLOTS;
	void *held = slots[from];
	slots[from] = NULL;
	slots[to] = held;
	at[i] = to;
}

ALONE static void rare(unsigned i)
{
	void *held = slots[i];
	slots[i] = NULL;
	for (unsigned wait = 0; wait < 20000; wait++)
		__asm__ volatile("" : "+r"(held));
	slots[i] = held;
	for (unsigned wait = 0; wait < 200; wait++)
		__asm__ volatile("");
}

struct node { struct node *next; long room[6]; };

ALONE static void rotate(unsigned i)
{
	(void)i;
	/* The head becomes the tail; for a moment only a register has the rest. */
	struct node *head = (void *)slots[0], *last = head;
	slots[0] = NULL;
	while (last->next)
		last = last->next;
	struct node *second = head->next;
	head->next = NULL;
	last->next = head;
	slots[0] = second;
}

static void *volatile exchange[2];

static void *taker(void *number)
{
	intptr_t self = (intptr_t)number;
	while (!stop) {
		void *held = __atomic_exchange_n(&exchange[self], NULL, __ATOMIC_SEQ_CST);
		if (!held)
			continue;
		void *empty = NULL;
		while (!__atomic_compare_exchange_n(&exchange[!self], &empty, held, 0,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			empty = NULL;
	}
	return NULL;
}

int main(int count, char **words)
{
	const char *way = count > 1 ? words[1] : "swap";
	size_t filling = count > 2 ? strtoul(words[2], NULL, 10) << 20 : 0;
	slots = mmap(NULL, SLOTS * sizeof *slots, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (filling) {
		char *more = mmap(NULL, filling, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(more, 1, filling);
	}
	ready();
	wait_for_go();
	void (*move)(unsigned) = NULL;
	pthread_t threads[2];
	if (!strcmp(way, "hand")) {
		exchange[0] = block();
		for (intptr_t i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, taker, (void *)i);
	} else if (!strcmp(way, "rotate")) {
		struct node *list = NULL;
		for (unsigned i = 0; i < BLOCKS; i++) {
			struct node *node = block();
			node->next = list;
			slots[0] = list = node;
		}
		move = rotate;
	} else {
		int swaps = !strcmp(way, "swap");
		for (unsigned i = 0; i < BLOCKS; i++) {
			at[i] = swaps ? i * 512 : i;
			slots[at[i]] = block();
		}
		move = swaps ? swap : !strcmp(way, "shuffle") ? shuffle
		     : !strcmp(way, "chase") ? chase : rare;
	}
	say("made\n");
	struct pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
	for (;; moves++) {
		if (moves % 1024 == 0 && poll(&input, 1, move ? 0 : 10) > 0)
			break;
		if (move)
			move(moves % BLOCKS);
	}
	stop = 1;
	return 0;
}
