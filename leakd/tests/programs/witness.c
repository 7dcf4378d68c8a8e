/* The independent witness: an LD_PRELOAD library that counts what a program
 * allocates and keeps, with stacks by the C++ runtime's unwinder, in no way
 * related to leakd. It is what the truth about the test programs rests on.
 *
 * At exit it writes "$WITNESS_OUT.PID": one JSON object with the totals and,
 * for each stack, allocated and outstanding blocks and bytes. Stacks are
 * taken for blocks whose usable size lies in WITNESS_MIN..WITNESS_MAX; of
 * others only the return address is kept. A frame is [module, file offset,
 * address in the ELF file, dynamic symbol or ""]; the first is in the caller
 * of the allocator.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS (1u << 22)
#define SITES (1u << 14)
#define FRAMES 24

struct block {
	uintptr_t address; /* 0: never used, 1: used before */
	size_t size;
	uint32_t site;
};

struct site {
	uint64_t hash; /* 0: unused */
	uint64_t allocated_blocks, allocated_bytes, blocks, bytes;
	int depth;
	void *frames[FRAMES];
};

static struct block *blocks;
static struct site *sites;
static uint64_t allocations, frees, foreign_frees, overflows;
static size_t smallest = SIZE_MAX, largest;
static atomic_flag lock = ATOMIC_FLAG_INIT;
static __thread int inside;
static char prefix[3800]; /* copied: nginx drops its environment */

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_reallocarray)(void *, size_t, size_t);
static void *(*next_memalign)(size_t, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static void *(*next_valloc)(size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);
static size_t (*next_usable)(void *);

/* dlsym itself may allocate before the functions are known. */
static char early[65536];
static size_t early_used;

static void *map(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		abort();
	return memory;
}

static void *early_block(size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (early_used + size > sizeof early)
		abort();
	void *block = early + early_used;
	early_used += size;
	return block;
}

static void start(void)
{
	static int started;
	if (started)
		return;
	started = 1;
	inside++;
	next_calloc = dlsym(RTLD_NEXT, "calloc");
	next_realloc = dlsym(RTLD_NEXT, "realloc");
	next_reallocarray = dlsym(RTLD_NEXT, "reallocarray");
	next_memalign = dlsym(RTLD_NEXT, "memalign");
	next_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
	next_valloc = dlsym(RTLD_NEXT, "valloc");
	next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
	next_free = dlsym(RTLD_NEXT, "free");
	next_usable = dlsym(RTLD_NEXT, "malloc_usable_size");
	blocks = map(sizeof *blocks * BLOCKS);
	sites = map(sizeof *sites * SITES);
	const char *out = getenv("WITNESS_OUT");
	if (out && strlen(out) < sizeof prefix)
		strcpy(prefix, out);
	const char *from = getenv("WITNESS_MIN"), *to = getenv("WITNESS_MAX");
	smallest = from ? strtoul(from, NULL, 0) : SIZE_MAX;
	largest = to ? strtoul(to, NULL, 0) : 0;
	next_malloc = dlsym(RTLD_NEXT, "malloc");
	void *frame[2];
	backtrace(frame, 2); /* loads the unwinder now */
	inside--;
}

__attribute__((constructor)) static void at_start(void) { start(); }

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

static struct block *find(uintptr_t address, int insert)
{
	struct block *reusable = NULL;
	for (uint32_t i = mix(0, address), tried = 0; tried < BLOCKS; i++, tried++) {
		struct block *block = &blocks[i % BLOCKS];
		if (block->address == address)
			return block;
		if (block->address == 1 && !reusable)
			reusable = block;
		if (block->address == 0)
			return insert ? (reusable ? reusable : block) : NULL;
	}
	return insert ? reusable : NULL;
}

static void acquire(void)
{
	while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
		;
}

static void release(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

static void allocated(void *address, size_t size, void *caller)
{
	void *stack[FRAMES + 4], **frames = &caller;
	int depth = 1;
	if (!address || inside)
		return;
	inside++;
	size_t usable = next_usable(address);
	if (usable >= smallest && usable <= largest) {
		int all = backtrace(stack, FRAMES + 4);
		for (int i = 0; i < all; i++)
			if (stack[i] == caller) {
				frames = stack + i;
				depth = all - i < FRAMES ? all - i : FRAMES;
				break;
			}
	}
	uint64_t hash = 1;
	for (int i = 0; i < depth; i++)
		hash = mix(hash, (uintptr_t)frames[i]);
	acquire();
	allocations++;
	struct site *site = NULL;
	for (uint32_t i = hash, tried = 0; tried < SITES; i++, tried++) {
		site = &sites[i % SITES];
		if (site->hash == hash)
			break;
		if (site->hash == 0) {
			site->hash = hash;
			site->depth = depth;
			memcpy(site->frames, frames, depth * sizeof *frames);
			break;
		}
	}
	struct block *block = find((uintptr_t)address, 1);
	if (block) {
		*block = (struct block){(uintptr_t)address, size, site - sites};
		site->allocated_blocks++;
		site->allocated_bytes += size;
		site->blocks++;
		site->bytes += size;
	} else {
		overflows++;
	}
	release();
	inside--;
}

/* Takes the block out before it goes to the allocator again. */
static struct block forget(void *address)
{
	struct block old = {0};
	if (!address || inside)
		return old;
	acquire();
	struct block *block = find((uintptr_t)address, 0);
	if (block) {
		old = *block;
		block->address = 1;
		sites[old.site].blocks--;
		sites[old.site].bytes -= old.size;
		frees++;
	} else {
		foreign_frees++;
	}
	release();
	return old;
}

static void put_back(struct block old)
{
	if (!old.address)
		return;
	acquire();
	struct block *block = find(old.address, 1);
	if (block) {
		*block = old;
		sites[old.site].blocks++;
		sites[old.site].bytes += old.size;
	}
	frees--;
	release();
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size)
{
	start();
	if (!next_malloc)
		return early_block(size);
	void *block = next_malloc(size);
	allocated(block, size, CALLER);
	return block;
}

void *calloc(size_t count, size_t size)
{
	if (!next_calloc)
		return early_block(count * size);
	void *block = next_calloc(count, size);
	allocated(block, count * size, CALLER);
	return block;
}

static int is_early(void *block)
{
	return (char *)block >= early && (char *)block < early + sizeof early;
}

void *realloc(void *old, size_t size)
{
	start();
	if (is_early(old))
		abort();
	struct block before = forget(old);
	int outer = !inside;
	inside += outer;
	void *block = next_realloc(old, size);
	inside -= outer;
	if (block)
		allocated(block, size, CALLER);
	else if (size)
		put_back(before);
	return block;
}

void *reallocarray(void *old, size_t count, size_t size)
{
	start();
	struct block before = forget(old);
	inside++;
	void *block = next_reallocarray(old, count, size);
	inside--;
	if (block)
		allocated(block, count * size, CALLER);
	else if (count && size)
		put_back(before);
	return block;
}

void *memalign(size_t alignment, size_t size)
{
	start();
	void *block = next_memalign(alignment, size);
	allocated(block, size, CALLER);
	return block;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	start();
	void *block = next_aligned_alloc(alignment, size);
	allocated(block, size, CALLER);
	return block;
}

void *valloc(size_t size)
{
	start();
	void *block = next_valloc(size);
	allocated(block, size, CALLER);
	return block;
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	start();
	int error = next_posix_memalign(out, alignment, size);
	if (!error)
		allocated(*out, size, CALLER);
	return error;
}

void free(void *block)
{
	start();
	if (is_early(block))
		return;
	int kept = errno;
	forget(block);
	errno = kept;
	next_free(block);
}

struct place {
	uintptr_t address, offset, in_file;
	const char *module;
};

static int find_module(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct place *place = argument;
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type != PT_LOAD || place->address < start ||
		    place->address >= start + segment->p_memsz)
			continue;
		place->module = info->dlpi_name[0] ? info->dlpi_name : "";
		place->offset = place->address - start + segment->p_offset;
		place->in_file = place->address - info->dlpi_addr;
		return 1;
	}
	return 0;
}

static void write_frame(FILE *out, void *address)
{
	static char self[4096];
	if (!self[0] && readlink("/proc/self/exe", self, sizeof self - 1) < 0)
		strcpy(self, "?");
	struct place place = {.address = (uintptr_t)address, .module = "?"};
	dl_iterate_phdr(find_module, &place);
	Dl_info symbol = {0};
	dladdr((char *)address - 1, &symbol);
	fprintf(out, "[\"%s\",\"0x%lx\",\"0x%lx\",\"%s\"]", place.module[0] ? place.module : self,
		place.offset, place.in_file, symbol.dli_sname ? symbol.dli_sname : "");
}

__attribute__((destructor)) static void at_exit(void)
{
	char path[4096];
	inside++;
	if (!prefix[0])
		return;
	snprintf(path, sizeof path, "%s.%d", prefix, (int)getpid());
	FILE *out = fopen(path, "w");
	if (!out)
		return;
	uint64_t held_blocks = 0, held_bytes = 0;
	for (uint32_t i = 0; i < SITES; i++) {
		held_blocks += sites[i].blocks;
		held_bytes += sites[i].bytes;
	}
	fprintf(out,
		"{\"allocations\":%lu,\"frees\":%lu,\"foreign_frees\":%lu,\"overflows\":%lu,"
		"\"blocks\":%lu,\"bytes\":%lu,\"sites\":[",
		allocations, frees, foreign_frees, overflows, held_blocks, held_bytes);
	const char *comma = "";
	for (uint32_t i = 0; i < SITES; i++) {
		struct site *site = &sites[i];
		if (!site->hash)
			continue;
		fprintf(out,
			"%s\n{\"allocated_blocks\":%lu,\"allocated_bytes\":%lu,\"blocks\":%lu,"
			"\"bytes\":%lu,\"stack\":[",
			comma, site->allocated_blocks, site->allocated_bytes, site->blocks,
			site->bytes);
		for (int frame = 0; frame < site->depth; frame++) {
			fputs(frame ? "," : "", out);
			write_frame(out, site->frames[frame]);
		}
		fputs("]}", out);
		comma = ",";
	}
	fputs("]}\n", out);
	fclose(out);
}
