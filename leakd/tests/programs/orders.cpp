// A C++ server that forgets one Order a round, in shop::leak_orders, among
// strings, maps, unique pointers and exceptions that own memory.
#include "common.h"

#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace shop {

struct Order {
	char lines[312];
	unsigned number;
	explicit Order(unsigned number) : lines{}, number(number) {}
};

[[gnu::noinline]] void leak_orders(unsigned number)
{
	auto *order = new Order(number);
	sink = order;
	leaked_blocks++;
	leaked_bytes += sizeof(Order);
}

// An exception that owns a block while it is on its way.
struct Refused : std::runtime_error {
	std::unique_ptr<Order> order;
	explicit Refused(unsigned number)
	    : std::runtime_error("order " + std::to_string(number) + " was refused by the clerk"),
	      order(new Order(number))
	{
	}
	Refused(Refused &&) = default;
};

[[gnu::noinline]] void refuse(unsigned number)
{
	auto on_the_stack = std::make_unique<Order>(number);
	std::string reason(200 + number % 100, 'x');
	sink = reason.data();
	if (number % 3 == 0)
		throw Refused(number);
	if (number % 3 == 1)
		throw std::bad_alloc();
}

class Server {
	std::map<unsigned, std::string> names;
	std::vector<std::unique_ptr<Order>> open;

public:
	[[gnu::noinline]] void round(unsigned number)
	{
		names[number % 50] = std::string(20 + number % 300, 'n');
		if (number % 7 == 0)
			names.erase(number % 50);
		open.push_back(std::make_unique<Order>(number));
		if (open.size() > 40)
			open.clear();
		auto aligned = ::operator new(300, std::align_val_t(128));
		sink = aligned;
		::operator delete(aligned, std::align_val_t(128));
		try {
			refuse(number);
		} catch (const Refused &refused) {
			sink = refused.order.get();
		} catch (const std::bad_alloc &) {
		}
	}
};

} // namespace shop

int main()
{
	{
		shop::Server server;
		ready();
		do {
			server.round(rounds);
			shop::leak_orders(rounds);
		} while (next_round());
	}
	say_truth();
	return 0;
}
