// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
/*
 * A kernel module that leaks, for the tests of leakd's view of the kernel.
 *
 * For each kind of memory there is a function that takes memory which is then
 * forgotten now and then, and one whose memory is always given back. Commands
 * are written to /sys/module/leaky/parameters/run:
 *
 *	leak KIND	takes ROUNDS blocks and forgets each STRIDEth of them
 *	honest KIND	takes ROUNDS blocks and gives all of them back
 *	release		gives back what was forgotten
 *
 * KIND is one of `kinds` below, or "all". Reading `run` tells what is forgotten
 * now, as lines "KIND BLOCKS". Nothing stays when the module is unloaded.
 */
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#define ROUNDS 10000
#define STRIDE 100
/* Blocks that are held at once before they are given back. */
#define HELD 10
/* Blocks of a kind that can be forgotten. */
#define MOST 1000

#define SMALL_BYTES 600 /* in kmalloc-1k, which few use */
#define LARGE_BYTES 20000 /* kmalloc takes pages */
#define CACHE_BYTES 200
#define VMALLOC_BYTES 12000
#define PERCPU_BYTES 72
#define PAGES_ORDER 1

/*
 * Call sites, to be told by name: not inlined, not cloned, and with a frame of
 * their own, since barrier() behind a call keeps it from being a jump.
 */
#define SITE noinline __attribute__((__noipa__))

struct small {
	char payload[SMALL_BYTES - sizeof(struct rcu_head)];
	struct rcu_head rcu;
};

static struct kmem_cache *cache;

/* A constructor keeps the cache from being merged with another one. */
static void construct(void *object)
{
	memset(object, 0, CACHE_BYTES);
}

#define SITES(kind, expression)                         \
	SITE void *leaky_##kind##_leak(void);           \
	SITE void *leaky_##kind##_leak(void)            \
	{                                               \
		void *block = (void *)(expression);     \
		barrier();                              \
		return block;                           \
	}                                               \
	SITE void *leaky_##kind##_honest(void);         \
	SITE void *leaky_##kind##_honest(void)          \
	{                                               \
		void *block = (void *)(expression);     \
		barrier();                              \
		return block;                           \
	}

SITES(kmalloc, kmalloc(SMALL_BYTES, GFP_KERNEL))
SITES(large, kmalloc(LARGE_BYTES, GFP_KERNEL))
SITES(cache, kmem_cache_alloc(cache, GFP_KERNEL))
SITES(vmalloc, vmalloc(VMALLOC_BYTES))
SITES(pages, alloc_pages(GFP_KERNEL, PAGES_ORDER))
SITES(percpu, (__force void *)__alloc_percpu(PERCPU_BYTES, 8))

/* Ways to take and give back that are not simply each other's opposite. */
SITE void *leaky_resized_honest(void);
SITE void *leaky_resized_honest(void)
{
	void *block = kmalloc(SMALL_BYTES / 2, GFP_KERNEL);
	void *larger = block ? krealloc(block, LARGE_BYTES, GFP_KERNEL) : NULL;

	if (!larger)
		kfree(block);
	barrier();
	return larger;
}

SITE void *leaky_bulk_honest(void);
SITE void *leaky_bulk_honest(void)
{
	void *blocks[4];

	/* The number of blocks, or from 7.2 on whether it was all. */
	if (!kmem_cache_alloc_bulk(cache, GFP_KERNEL, 4, blocks))
		return NULL;
	/* The last is given back by another call. */
	kmem_cache_free_bulk(cache, 3, blocks);
	return blocks[3];
}

SITE void *leaky_rcu_honest(void);
SITE void *leaky_rcu_honest(void)
{
	void *block = kmalloc(sizeof(struct small), GFP_KERNEL);

	barrier();
	return block;
}

static void free_slab(void *block)
{
	kfree(block);
}

/* By the cache's call and by the general one: the kernel takes both. */
static void free_cache(void *block)
{
	static unsigned int turn;

	if (turn++ & 1)
		kfree(block);
	else
		kmem_cache_free(cache, block);
}

static void free_vmalloc(void *block)
{
	vfree(block);
}

static void free_pages_of(void *block)
{
	__free_pages(block, PAGES_ORDER);
}

static void free_per_cpu(void *block)
{
	free_percpu((void __percpu __force *)block);
}

static void free_by_rcu(void *block)
{
	struct small *small = block;

	kfree_rcu(small, rcu);
}

static struct kind {
	const char *name;
	void *(*leak)(void); /* NULL: there is only honest traffic */
	void *(*honest)(void);
	void (*give_back)(void *block);
	unsigned int count;
	void *forgotten[MOST];
} kinds[] = {
	{ "kmalloc", leaky_kmalloc_leak, leaky_kmalloc_honest, free_slab },
	{ "large", leaky_large_leak, leaky_large_honest, free_slab },
	{ "cache", leaky_cache_leak, leaky_cache_honest, free_cache },
	{ "vmalloc", leaky_vmalloc_leak, leaky_vmalloc_honest, free_vmalloc },
	{ "pages", leaky_pages_leak, leaky_pages_honest, free_pages_of },
	{ "percpu", leaky_percpu_leak, leaky_percpu_honest, free_per_cpu },
	{ "resized", NULL, leaky_resized_honest, free_slab },
	{ "bulk", NULL, leaky_bulk_honest, free_cache },
	{ "rcu", NULL, leaky_rcu_honest, free_by_rcu },
};

static int run_kind(struct kind *kind, bool leak)
{
	void *(*take)(void) = leak ? kind->leak : kind->honest;
	void *held[HELD];
	unsigned int round, index;

	if (!take)
		return 0;
	for (round = 0; round < ROUNDS; round += HELD) {
		for (index = 0; index < HELD; index++) {
			held[index] = take();
			if (!held[index])
				goto none;
		}
		if (leak && round % STRIDE == 0) {
			if (kind->count == MOST)
				goto none;
			kind->forgotten[kind->count++] = held[--index];
		}
		while (index)
			kind->give_back(held[--index]);
		cond_resched();
	}
	return 0;
none:
	while (index)
		kind->give_back(held[--index]);
	return -ENOMEM;
}

static void release(void)
{
	struct kind *kind;

	for (kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++)
		while (kind->count)
			kind->give_back(kind->forgotten[--kind->count]);
}

/* The kernel lets one at a time in. */
static int run_set(const char *value, const struct kernel_param *parameter)
{
	char words[32], *name = words, *what;
	bool known = false, leak;
	struct kind *kind;
	int error;

	strscpy(words, value, sizeof(words));
	strim(words);
	what = strsep(&name, " ");
	if (!name) {
		if (strcmp(what, "release"))
			return -EINVAL;
		release();
		return 0;
	}
	leak = !strcmp(what, "leak");
	if (!leak && strcmp(what, "honest"))
		return -EINVAL;
	for (kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++) {
		if (strcmp(name, "all") && strcmp(name, kind->name))
			continue;
		known = true;
		error = run_kind(kind, leak);
		if (error)
			return error;
	}
	return known ? 0 : -EINVAL;
}

static int run_get(char *buffer, const struct kernel_param *parameter)
{
	struct kind *kind;
	int length = 0;

	for (kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++)
		length += scnprintf(buffer + length, PAGE_SIZE - length, "%s %u\n",
				    kind->name, kind->count);
	return length;
}

static const struct kernel_param_ops run_operations = {
	.set = run_set,
	.get = run_get,
};
module_param_cb(run, &run_operations, NULL, 0600);

static int __init leaky_init(void)
{
	cache = kmem_cache_create("leaky_cache", CACHE_BYTES, 0, 0, construct);
	return cache ? 0 : -ENOMEM;
}

static void __exit leaky_exit(void)
{
	release();
	rcu_barrier();
	kmem_cache_destroy(cache);
}

module_init(leaky_init);
module_exit(leaky_exit);
MODULE_DESCRIPTION("leaks memory, for the tests of leakd");
MODULE_LICENSE("Dual MIT/GPL");
