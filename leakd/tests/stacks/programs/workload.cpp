// Allocations from all over a C++ program: templates, virtual functions,
// lambdas, exceptions and what destructors do meanwhile, the standard library
// and its callbacks. The same calls in the same order in every run.
#include <algorithm>
#include <any>
#include <coroutine>
#include <deque>
#include <exception>
#include <functional>
#include <iomanip>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>
#include "stages.h"

static volatile unsigned sink;

// Long enough not to be kept inside the string itself.
NOINLINE static std::string words(unsigned number)
{
	std::string text = "a string that needs memory: ";
	text += std::to_string(number);
	return text;
}

// Templates: each depth is a function of its own.

template <unsigned N> struct Nested {
	template <typename F> NOINLINE static unsigned run(F &&f, unsigned number)
	{
		auto owned = std::make_unique<unsigned>(number + N);
		unsigned result;
		if constexpr (N == 0)
			result = f(*owned);
		else
			result = Nested<N - 1>::run([&f, &owned](unsigned n) { return f(n) + *owned; },
						    number ^ N);
		return result + *owned;
	}
};

// Virtual functions, several bases.

struct Shape {
	virtual ~Shape() = default;
	virtual unsigned area(unsigned depth) const = 0;
};

struct Named {
	virtual ~Named() = default;
	virtual std::string name() const { return words(1); }
};

struct Square : Shape {
	unsigned area(unsigned) const override { return (unsigned)words(2).size(); }
};

struct Group final : Named, Shape {
	std::vector<std::unique_ptr<Shape>> parts;

	unsigned area(unsigned depth) const override
	{
		unsigned sum = (unsigned)name().size();
		for (const auto &part : parts)
			sum += part->area(depth + 1);
		return sum;
	}

	std::string name() const override { return Named::name() + words(3); }
};

NOINLINE static std::unique_ptr<Shape> make_shape(unsigned depth)
{
	if (depth == 0)
		return std::make_unique<Square>();
	auto group = std::make_unique<Group>();
	for (unsigned number = 0; number < 3; number++)
		group->parts.push_back(make_shape(depth - 1));
	return group;
}

// Exceptions: destructors and handlers that allocate on the way.

struct Noisy {
	unsigned depth;
	NOINLINE ~Noisy() { sink = sink + (unsigned)words(depth).size(); }
};

NOINLINE static void fall(unsigned depth)
{
	Noisy noisy{depth};
	if (depth == 0)
		throw std::runtime_error(words(4));
	try {
		fall(depth - 1);
	} catch (const std::runtime_error &error) {
		if (depth % 3 == 0)
			throw std::runtime_error(error.what() + words(depth));
		if (depth % 3 == 1)
			std::throw_with_nested(std::logic_error(words(depth)));
		throw;
	}
}

NOINLINE static void catch_all(unsigned depth)
{
	try {
		fall(depth);
	} catch (const std::exception &error) {
		sink = sink + (unsigned)(words(5) + error.what()).size();
		std::exception_ptr kept = std::current_exception();
		try {
			std::rethrow_exception(kept);
		} catch (...) {
			sink = sink + (unsigned)words(6).size();
		}
	}
}

// Functions as values.

NOINLINE static unsigned call(const std::function<unsigned(unsigned)> &function, unsigned number)
{
	return function(number) + (unsigned)words(number).size();
}

NOINLINE static unsigned functions(unsigned depth)
{
	std::string captured = words(depth);
	std::function<unsigned(unsigned)> function = [captured](unsigned number) {
		return (unsigned)(captured + words(number)).size();
	};
	for (unsigned level = 0; level < depth; level++)
		function = [inner = function, captured](unsigned number) {
			return call(inner, number + 1) + (unsigned)captured.size();
		};
	return call(function, 1);
}

// The standard library, and callbacks from within it.

NOINLINE static void sorting(unsigned size)
{
	std::vector<unsigned> numbers(size);
	unsigned state = 12345;
	for (unsigned &number : numbers)
		number = state = state * 1103515245 + 12345;
	std::sort(numbers.begin(), numbers.end(), [](unsigned a, unsigned b) {
		return words(a / 2) < words(b / 2) || a < b;
	});
	std::stable_sort(numbers.begin(), numbers.end(),
			 [](unsigned a, unsigned b) { return words(b % 7) < words(a % 7); });
	std::list<std::string> list;
	for (unsigned number : numbers)
		list.push_back(words(number % 1000));
	list.sort([](const std::string &a, const std::string &b) { return a + b < b + a; });
	list.unique();
	sink = sink + std::accumulate(numbers.begin(), numbers.end(), 0u, [](unsigned a, unsigned b) {
		       return a + (unsigned)words(b).size();
	       });
}

NOINLINE static void containers(unsigned size)
{
	std::map<std::string, std::set<std::string>> tree;
	std::unordered_map<std::string, std::deque<unsigned>> table;
	for (unsigned number = 0; number < size; number++) {
		tree[words(number % 7)].insert(words(number));
		table[words(number % 5)].push_front(number);
	}
	std::any value = tree;
	std::variant<unsigned, std::string> choice = words(7);
	sink = sink + std::visit(
		[](const auto &held) -> unsigned {
			if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::string>)
				return (unsigned)(held + words(8)).size();
			else
				return held;
		},
		choice);
	sink = sink + (unsigned)std::any_cast<decltype(tree)>(value).size();
}

NOINLINE static void text(unsigned size)
{
	std::regex pattern("([a-z]+) ([a-z]*)(string|thread) (.*): ([0-9]+)");
	std::ostringstream out;
	out.imbue(std::locale::classic());
	for (unsigned number = 0; number < size; number++) {
		std::smatch match;
		std::string subject = words(number);
		out << std::setw(40) << std::hex << number << ' ' << subject << ' ' << number / 3.0;
		if (std::regex_search(subject, match, pattern))
			out << match.str(5);
	}
	std::istringstream in(out.str());
	std::string word;
	while (in >> word)
		sink = sink + (unsigned)(word + words(9)).size();
}

// Coroutines: a frame on the heap, resumed from elsewhere.

struct Generator {
	struct promise_type {
		std::string value;
		Generator get_return_object()
		{
			return {std::coroutine_handle<promise_type>::from_promise(*this)};
		}
		std::suspend_always initial_suspend() { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		std::suspend_always yield_value(std::string next)
		{
			value = std::move(next);
			return {};
		}
		void return_void() {}
		void unhandled_exception() { std::terminate(); }
	};
	std::coroutine_handle<promise_type> handle;
	~Generator() { handle.destroy(); }
	Generator(std::coroutine_handle<promise_type> held) : handle(held) {}
	Generator(Generator &&) = delete;
};

static Generator generate(unsigned count)
{
	std::string kept = words(count);
	for (unsigned number = 0; number < count; number++)
		co_yield kept + words(number);
}

NOINLINE static void coroutines(unsigned count)
{
	Generator generator = generate(count);
	for (;;) {
		generator.handle.resume();
		if (generator.handle.done())
			break;
		sink = sink + (unsigned)generator.handle.promise().value.size();
	}
}

int main()
{
	wait_for_go();
	for (unsigned round = 0; round < 4; round++) {
		sink = sink + Nested<24>::run([](unsigned n) { return (unsigned)words(n).size(); }, round);
		sink = sink + make_shape(4)->area(0);
		catch_all(10 + round);
		sink = sink + functions(8 + round);
		coroutines(20);
	}
	sorting(60);
	containers(120);
	text(25);
	std::thread([] {
		sink = sink + Nested<6>::run([](unsigned n) { return functions(n % 5); }, 3);
		catch_all(5);
		text(3);
	}).join();
	work_is_done();
	return 0;
}
