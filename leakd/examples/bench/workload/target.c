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
 *   loop THREADS MIXED FRAMES MILLISECONDS
 *       pairs for so long, by so many threads, with a stack of FRAMES frames (1:
 *       called near main or the thread's start). MIXED 0: malloc(64) and free;
 *       1: 16 bytes to 4 KiB, the block freed being the 64th last
 *     -> pairs, CPU ns of all, median and 99th percentile of 16 pairs in ns
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

/* The loop of a thread. */
#define GROUP 16
#define KEPT 65536
#define ALIVE 64

struct loop {
    pthread_barrier_t *barrier;
    int mixed, above;
    uint64_t length, groups, cpu;
    uint32_t *times;
};

/* Mostly small ones, as programs ask for them. */
static const uint16_t sizes[ALIVE / 2] = {
    16, 24, 32, 48, 64, 16, 4096, 40, 128, 32, 24, 256, 64, 16, 1024, 96,
    32, 48, 512, 24, 80, 16, 2048, 64, 200, 32, 56, 700, 24, 112, 40, 320,
};

static __attribute__((noinline)) void loop(struct loop *loop)
{
    void *alive[ALIVE] = {NULL};
    uint64_t start = now(CLOCK_MONOTONIC), time = start, next = 0;
    uint64_t cpu = now(CLOCK_THREAD_CPUTIME_ID);

    while (time - start < loop->length) {
        uint64_t before = time;
        for (int pair = 0; pair < GROUP; pair++, next++) {
            if (loop->mixed) {
                void **oldest = &alive[next % ALIVE];
                free(*oldest);
                *oldest = malloc(sizes[next % (ALIVE / 2)]);
            } else {
                void *block = malloc(SIZE);
                __asm__ volatile("" : "+r"(block));
                free(block);
            }
        }
        time = now(CLOCK_MONOTONIC);
        loop->times[loop->groups++ % KEPT] = (uint32_t)(time - before);
    }
    loop->cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
    for (int i = 0; i < ALIVE; i++)
        free(alive[i]);
}

/* Functions above it: of each other's own, as the fifteen are. */
#define ABOVE(name, next)                                        \
    static __attribute__((noinline)) void name(struct loop *work) \
    {                                                            \
        next(work);                                              \
        __asm__ volatile("");                                    \
    }
ABOVE(a0, loop)
#define ABOVE9(t) ABOVE(a##t##1, a##t##0) ABOVE(a##t##2, a##t##1) ABOVE(a##t##3, a##t##2) \
    ABOVE(a##t##4, a##t##3) ABOVE(a##t##5, a##t##4) ABOVE(a##t##6, a##t##5)                \
    ABOVE(a##t##7, a##t##6) ABOVE(a##t##8, a##t##7) ABOVE(a##t##9, a##t##8)
#define ABOVE10(t, before) ABOVE(a##t##0, before) ABOVE9(t)
ABOVE(a1, a0) ABOVE(a2, a1) ABOVE(a3, a2) ABOVE(a4, a3) ABOVE(a5, a4)
ABOVE(a6, a5) ABOVE(a7, a6) ABOVE(a8, a7) ABOVE(a9, a8)
ABOVE10(1, a9) ABOVE10(2, a19) ABOVE10(3, a29) ABOVE10(4, a39)
ABOVE(a50, a49) ABOVE(a51, a50) ABOVE(a52, a51) ABOVE(a53, a52) ABOVE(a54, a53)
ABOVE(a55, a54)

/* By how many of them are above the loop. */
static void *entry(int above)
{
    switch (above) {
    case 0: return loop;
    case 15: return a14; /* 20 frames, with loop, main and the three below it */
    case 16: return a15; /* 20, with loop, the thread's and the two below it */
    case 55: return a54;
    case 56: return a55;
    default: return NULL;
    }
}

static void *loop_thread(void *argument)
{
    struct loop *loop = argument;
    void (*enter)(struct loop *) = entry(loop->above);
    pthread_barrier_wait(loop->barrier);
    enter(loop);
    return NULL;
}

static int by_size(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

/* Where the loops leave their times; then all of them together. */
static uint32_t times[THREADS][KEPT], all_times[THREADS * KEPT];

static void report(struct loop *loops, long threads)
{
    uint64_t groups = 0, cpu = 0;
    size_t count = 0;
    for (long i = 0; i < threads; i++) {
        size_t kept = loops[i].groups < KEPT ? loops[i].groups : KEPT;
        memcpy(&all_times[count], loops[i].times, kept * sizeof **times);
        count += kept;
        groups += loops[i].groups;
        cpu += loops[i].cpu;
    }
    qsort(all_times, count, sizeof *all_times, by_size);
    printf("%lu %lu %u %u\n", groups * GROUP, cpu, all_times[count / 2],
           all_times[count * 99 / 100]);
}

/* Several threads; one alone is main's, in main itself, for its depth. */
static void loop_threads(struct loop *loops, long threads)
{
    pthread_barrier_t barrier;
    pthread_t ids[THREADS];

    pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
    for (long i = 0; i < threads; i++) {
        loops[i].barrier = &barrier;
        if (pthread_create(&ids[i], NULL, loop_thread, &loops[i])) {
            perror("pthread_create");
            exit(1);
        }
    }
    pthread_barrier_wait(&barrier);
    for (long i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&barrier);
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
    struct loop loops[THREADS];
    long a = 0, b = 0, frames = 0, milliseconds = 0;

    /* Buffers of our own: stdio would take them from malloc. */
    setvbuf(stdin, input, _IOFBF, sizeof input);
    setvbuf(stdout, output, _IOFBF, sizeof output);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %ld %ld %ld %ld", command, &a, &b, &frames, &milliseconds) < 1)
            return 2;
        if (!strcmp(command, "loop")) {
            void (*enter)(struct loop *);
            int above = frames == 1 ? 0 : (int)frames - (a == 1 ? 5 : 4);
            if (a < 1 || a > THREADS || !(enter = entry(above)))
                return 2;
            for (long i = 0; i < a; i++)
                loops[i] = (struct loop){NULL, b != 0, above, (uint64_t)milliseconds * 1000000,
                                         0, 0, times[i]};
            if (a == 1)
                enter(loops);
            else
                loop_threads(loops, a);
            report(loops, a);
            fflush(stdout);
            continue;
        }
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
