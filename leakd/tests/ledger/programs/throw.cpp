/* Asks operator new for more than there is (or for as many MiB as the argument
 * says), ten times, and catches what it throws; then allocates ten blocks of
 * 100 bytes. A byte on stdin starts it, a
 * byte on stdout says that it is done; the end of stdin ends the program.
 */
#include <cstdint>
#include <cstdlib>
#include <new>
#include <unistd.h>

static void *volatile sink;
static volatile std::size_t huge = SIZE_MAX / 2;

__attribute__((noipa)) static bool is_refused()
{
	try {
		sink = ::operator new(huge);
	} catch (const std::bad_alloc &) {
		return true;
	}
	return false;
}

int main(int count, char **arguments)
{
	if (count > 1)
		huge = std::strtoul(arguments[1], nullptr, 10) << 20;
	if (!is_refused()) /* also loads what the first exception loads */
		return 3;
	char byte = 'r';
	if (write(1, &byte, 1) != 1 || read(0, &byte, 1) != 1)
		return 2;
	for (int i = 0; i < 10; i++) {
		if (!is_refused())
			return 3;
		sink = std::malloc(100);
	}
	while (write(1, &byte, 1) == 1 && read(0, &byte, 1) == 1) {
	}
	return 0;
}
