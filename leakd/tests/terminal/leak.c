/* Leaks a hundred blocks of 512 bytes a second, from one line. */
#include <stdlib.h>
#include <unistd.h>

void *volatile last;

__attribute__((noinline)) void leak_orders(void)
{
    last = malloc(512); /* the leak */
}

int main(void)
{
    for (;;) {
        leak_orders();
        usleep(10000);
    }
}
