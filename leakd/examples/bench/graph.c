/* A structure of many blocks that point to each other, and some that were lost.
 *
 *   build BLOCKS LOST BYTES  -> BLOCKS; each of so many bytes, 64 at least
 *   loop MILLISECONDS        moves pointers about for so long -> how many it has moved
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct node {
	struct node *left, *right;
	char more[48];
};

static struct node *root;
static size_t bytes = sizeof(struct node);
static uint64_t seed = 1;

static uint64_t random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static __attribute__((noinline)) struct node *reachable(void)
{
	struct node *node = calloc(1, bytes);
	__asm__ volatile("" : "+r"(node));
	return node;
}

static __attribute__((noinline)) void lost_here(void)
{
	void *block = calloc(1, bytes);
	__asm__ volatile("" : "+r"(block));
}

/* A tree as a heap is laid out: the bits of a node's number, below the highest,
 * are the way to it. One call site, as programs have it. */
static void build(long blocks)
{
	root = reachable();
	for (long number = 2; number <= blocks; number++) {
		struct node *above = root, *node = reachable();
		int bit = 62 - __builtin_clzl((unsigned long)number);
		for (; bit > 0; bit--)
			above = number >> bit & 1 ? above->right : above->left;
		if (number & 1)
			above->right = node;
		else
			above->left = node;
	}
}

/* Overwrites what calls have left of pointers on the stack. */
static __attribute__((noinline)) void wipe(void)
{
	char stack[16384];
	memset(stack, 0, sizeof stack);
	__asm__ volatile("" ::"r"(stack) : "memory");
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

int main(void)
{
	static char line[64], input[4096], output[4096], command[16];
	long a = 0, b = 0, c = 0;

	setvbuf(stdin, input, _IOFBF, sizeof input);
	setvbuf(stdout, output, _IOFBF, sizeof output);
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%15s %ld %ld %ld", command, &a, &b, &c) < 2)
			return 2;
		if (!strcmp(command, "build")) {
			if ((size_t)c > bytes)
				bytes = (size_t)c;
			build(a);
			for (long i = 0; i < b; i++)
				lost_here();
			wipe();
			printf("%ld\n", a);
		} else {
			uint64_t end = now() + (uint64_t)a, moved = 0;
			do {
				for (int i = 0; i < 100; i++, moved++) {
					struct node *node = root, *child;
					for (int depth = 0; depth < 8 && node; depth++) {
						child = node->left;
						node->left = node->right;
						node->right = child;
						node = random_number() & 1 ? node->left : node->right;
					}
				}
			} while (now() < end);
			printf("%lu\n", moved);
		}
		fflush(stdout);
	}
	return 0;
}
