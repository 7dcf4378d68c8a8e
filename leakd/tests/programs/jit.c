/* Makes code at run time, as a JIT does, names it in /tmp/perf-PID.map, and
 * allocates in C functions that the code calls: one piece keeps a frame
 * pointer, as V8's code does; one gives its frame back right after the call, as
 * CPython's trampolines do. Before that, older code was named at the same
 * addresses. */
#include "common.h"
#include <stdint.h>
#include <sys/mman.h>

typedef void call(void (*)(void));

/* push %rbp; mov %rsp,%rbp; call *%rdi; pop %rbp; ret */
static const unsigned char with_frame_pointer[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
/* sub $8,%rsp; call *%rdi; add $8,%rsp; ret */
static const unsigned char with_epilogue[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7,
					      0x48, 0x83, 0xc4, 0x08, 0xc3};

static void leak(size_t size)
{
	sink = malloc(size);
	memset(sink, 'j', size);
	leaked_blocks++;
	leaked_bytes += size;
}

ALONE static void leak_under_frame(void)
{
	leak(1900);
	sink = sink;
}

ALONE static void leak_under_epilogue(void)
{
	leak(2100);
	sink = sink;
}

ALONE static void run(call *first, call *second)
{
	first(leak_under_frame);
	second(leak_under_epilogue);
	sink = sink;
}

int main(void)
{
	unsigned char *code =
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
	FILE *map = fopen(path, "w");
	if (code == MAP_FAILED || !map)
		return 1;
	memcpy(code + 256, with_frame_pointer, sizeof with_frame_pointer);
	memcpy(code + 512, with_epilogue, sizeof with_epilogue);
	unsigned long at = (unsigned long)(uintptr_t)code;
	fprintf(map, "%lx 10 before\n%lx 8 older\n", at + 252, at + 514);
	fprintf(map, "%lx 20 compiled_with_frame\n%lx 20 compiled_with_epilogue\n", at + 256, at + 512);
	fclose(map);
	mprotect(code, 4096, PROT_READ | PROT_EXEC);
	ready();
	do
		run((call *)(uintptr_t)(code + 256), (call *)(uintptr_t)(code + 512));
	while (next_round());
	unlink(path);
	say_truth();
	return 0;
}
