/* The program that the benchmark traces. It obeys one command a line on its
 * standard input and answers each with one line:
 *
 *   main    BATCHES PAIRS   malloc(64) and free, called near main
 *   deep    BATCHES PAIRS   the same, with the whole stack DEEP frames deep
 *   threads BATCHES PAIRS   as `main`, by THREADS threads at once
 *     -> elapsed ns of all, CPU ns of all, then the elapsed ns of each batch
 *        (`threads`: of the first thread's)
 *   leak COUNT SITES        COUNT blocks of 64 bytes from SITES call sites
 *     -> elapsed ns
 *
 * Built with -O2 -fomit-frame-pointer, as distributions build.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCHES 1024
#define THREADS 4
#define SITES 1000
#define SIZE 64

static uint64_t batch_ns[BATCHES];

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The pairs. The empty assembly keeps the compiler from leaving them out. */
static __attribute__((noinline)) uint64_t pairs(long batches, long count, uint64_t *elapsed)
{
    uint64_t cpu = now(CLOCK_THREAD_CPUTIME_ID);
    for (long batch = 0; batch < batches; batch++) {
        uint64_t start = now(CLOCK_MONOTONIC);
        for (long pair = 0; pair < count; pair++) {
            void *block = malloc(SIZE);
            __asm__ volatile("" : "+r"(block));
            free(block);
        }
        elapsed[batch] = now(CLOCK_MONOTONIC) - start;
    }
    return now(CLOCK_THREAD_CPUTIME_ID) - cpu;
}

/* Fifteen functions between main and pairs: with pairs, main and the three
 * below main (__libc_start_call_main, __libc_start_main, _start) these are
 * twenty frames. Each is a function of its own, as in real programs: recursion
 * would look the same rule up again and again. The assembly behind the call
 * keeps it from becoming a jump. */
#define FRAME(name, next)                                                                      \
    static __attribute__((noinline)) uint64_t name(long batches, long count, uint64_t *elapsed) \
    {                                                                                          \
        uint64_t cpu = next(batches, count, elapsed);                                          \
        __asm__ volatile("" : "+r"(cpu));                                                      \
        return cpu;                                                                            \
    }
FRAME(frame15, pairs)
FRAME(frame14, frame15)
FRAME(frame13, frame14)
FRAME(frame12, frame13)
FRAME(frame11, frame12)
FRAME(frame10, frame11)
FRAME(frame9, frame10)
FRAME(frame8, frame9)
FRAME(frame7, frame8)
FRAME(frame6, frame7)
FRAME(frame5, frame6)
FRAME(frame4, frame5)
FRAME(frame3, frame4)
FRAME(frame2, frame3)
FRAME(frame1, frame2)

struct work {
    pthread_barrier_t *barrier;
    long batches, count;
    uint64_t *elapsed, cpu;
};

static uint64_t thread_ns[THREADS][BATCHES];

static void *thread(void *argument)
{
    struct work *work = argument;
    pthread_barrier_wait(work->barrier);
    work->cpu = pairs(work->batches, work->count, work->elapsed);
    return NULL;
}

/* Gives the CPU time of all; *elapsed becomes the time from start to end. */
static uint64_t threads(long batches, long count, uint64_t *elapsed)
{
    pthread_barrier_t barrier;
    pthread_t ids[THREADS];
    struct work work[THREADS];
    uint64_t cpu = 0;

    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        work[i] = (struct work){&barrier, batches, count, thread_ns[i], 0};
        if (pthread_create(&ids[i], NULL, thread, &work[i])) {
            perror("pthread_create");
            exit(1);
        }
    }
    pthread_barrier_wait(&barrier);
    uint64_t start = now(CLOCK_MONOTONIC);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
        cpu += work[i].cpu;
    }
    *elapsed = now(CLOCK_MONOTONIC) - start;
    pthread_barrier_destroy(&barrier);
    memcpy(batch_ns, thread_ns[0], sizeof batch_ns);
    return cpu;
}

/* A thousand call instructions. The assembly, different in each, keeps the
 * compiler from making them one. */
#define SITE(n)                                \
    case n:                                    \
        __asm__ volatile("" ::"i"(n));         \
        block = malloc(SIZE);                  \
        __asm__ volatile("" ::"i"(n), "r"(block)); \
        break;
#define SITE10(n) SITE(n) SITE(n + 1) SITE(n + 2) SITE(n + 3) SITE(n + 4) \
                  SITE(n + 5) SITE(n + 6) SITE(n + 7) SITE(n + 8) SITE(n + 9)
#define SITE100(n) SITE10(n) SITE10(n + 10) SITE10(n + 20) SITE10(n + 30) SITE10(n + 40) \
                   SITE10(n + 50) SITE10(n + 60) SITE10(n + 70) SITE10(n + 80) SITE10(n + 90)

static __attribute__((noinline)) void *allocate_at(long site)
{
    void *block = NULL;
    switch (site) {
        SITE100(0) SITE100(100) SITE100(200) SITE100(300) SITE100(400)
        SITE100(500) SITE100(600) SITE100(700) SITE100(800) SITE100(900)
    }
    return block;
}

static uint64_t leak(long count, long sites)
{
    uint64_t start = now(CLOCK_MONOTONIC);
    /* Nothing remembers the blocks: they are all leaks. */
    for (long i = 0; i < count; i++) {
        void *block = allocate_at(i % sites);
        __asm__ volatile("" ::"r"(block));
    }
    return now(CLOCK_MONOTONIC) - start;
}

int main(void)
{
    static char line[256], input[4096], output[65536], command[16];
    long a = 0, b = 0;

    /* Buffers of our own: stdio would take them from malloc. */
    setvbuf(stdin, input, _IOFBF, sizeof input);
    setvbuf(stdout, output, _IOFBF, sizeof output);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %ld %ld", command, &a, &b) < 1)
            return 2;
        if (!strcmp(command, "leak")) {
            if (b < 1 || b > SITES)
                return 2;
            printf("%lu\n", leak(a, b));
        } else {
            uint64_t start, elapsed = 0, cpu;
            if (a < 1 || a > BATCHES)
                return 2;
            start = now(CLOCK_MONOTONIC);
            if (!strcmp(command, "main")) {
                cpu = pairs(a, b, batch_ns);
            } else if (!strcmp(command, "deep")) {
                cpu = frame1(a, b, batch_ns);
            } else if (!strcmp(command, "threads")) {
                cpu = threads(a, b, &elapsed);
            } else {
                return 2;
            }
            if (!elapsed)
                elapsed = now(CLOCK_MONOTONIC) - start;
            printf("%lu %lu", elapsed, cpu);
            for (long batch = 0; batch < a; batch++)
                printf(" %lu", batch_ns[batch]);
            putchar('\n');
        }
        fflush(stdout);
    }
    return 0;
}
