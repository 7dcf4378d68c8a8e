/* How a program of these tests is led: it says "r" on stdout when it is
 * ready, waits for a byte on stdin, works between begin_work() and end_work(),
 * says "d", and waits for the end of stdin. Nothing of this allocates.
 *
 * The two functions are where a debugger stops. */
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone, noipa))

#ifdef __cplusplus
extern "C" {
#endif

NOINLINE void begin_work(void)
{
	__asm__ volatile("");
}

NOINLINE void end_work(void)
{
	__asm__ volatile("");
}

#ifdef __cplusplus
}
#endif

static void say(char what)
{
	if (write(1, &what, 1) != 1)
		_exit(3);
}

static void wait_for_go(void)
{
	char byte;
	say('r');
	if (read(0, &byte, 1) != 1)
		_exit(4);
	begin_work();
}

static void work_is_done(void)
{
	char byte;
	end_work();
	say('d');
	while (read(0, &byte, 1) == 1) {
	}
}
