// Programs that hold memory after one pattern, named by the argument; see
// labels.json. A tick is a fiftieth of a second.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#define ALONE __attribute__((noinline, noclone))
constexpr unsigned TICKS = 50;

static unsigned long tick;
static unsigned long seed = 1;

static unsigned chance(unsigned limit)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (seed >> 33) % limit;
}

static std::string text(std::size_t length) { return std::string(length, 'x'); }

// Leaks.

struct Peer {
	std::shared_ptr<Peer> other;
	std::string name = text(200);
};

ALONE static void leak_a_cycle()
{
	if (tick % 10)
		return;
	auto one = std::make_shared<Peer>();
	one->other = std::make_shared<Peer>();
	one->other->other = one;
}

ALONE static void leak_when_thrown()
{
	auto *order = new char[300];
	memset(order, 'x', 300);
	if (chance(10) == 0)
		throw std::runtime_error("out of stock");
	delete[] order;
}

static void orders()
{
	try {
		leak_when_thrown();
	} catch (const std::runtime_error &) {
	}
}

static std::unordered_map<unsigned long, std::string> answers;

ALONE static void leak_by_a_cache_without_bound()
{
	if (tick % 2 == 0)
		answers.emplace(tick, text(300));
}

ALONE static void leak_what_a_vector_points_to()
{
	static std::vector<Peer *> peers;
	if (tick % 5 == 0)
		peers.push_back(new Peer);
	if (peers.size() == 20)
		peers.clear();
}

static std::vector<std::function<void()>> listeners;

ALONE static void leak_listeners()
{
	if (tick % 10)
		return;
	char state[200] = "listens";
	listeners.push_back([state] { (void)write(2, state, 0); });
}

ALONE static void leak_in_a_destructor()
{
	struct Base {
		std::string *name = new std::string(text(100));
		~Base() = default; // forgets the name
	};
	if (tick % 8 == 0)
		std::make_unique<Base>();
}

// No leaks.

static void lru_of_a_list()
{
	static std::list<std::pair<unsigned, std::string>> order;
	static std::unordered_map<unsigned, decltype(order)::iterator> index;
	for (int i = 0; i < 3; i++) {
		unsigned key = chance(chance(5000) + 1);
		auto found = index.find(key);
		if (found != index.end()) {
			order.splice(order.begin(), order, found->second);
			continue;
		}
		order.emplace_front(key, text(400));
		index[key] = order.begin();
		if (index.size() > 400) {
			index.erase(order.back().first);
			order.pop_back();
		}
	}
}

static void memoization_in_a_map()
{
	static std::map<unsigned, std::string> known;
	unsigned key = chance(300);
	if (!known.count(key))
		known[key] = text(200);
}

static void queue_in_balance()
{
	static std::deque<std::string> queue;
	for (unsigned i = chance(4); i > 0; i--)
		queue.push_back(text(300));
	while (queue.size() > 100 + chance(100))
		queue.pop_front();
}

static void vector_that_is_cleared()
{
	static std::vector<std::string> rows;
	rows.push_back(text(200));
	if (tick % (10 * TICKS) == 0) {
		rows.clear();
		rows.shrink_to_fit();
	}
}

static void strings()
{
	std::string sum;
	for (int i = 0; i < 30; i++)
		sum += text(50);
}

// Held out: see labels.json.

ALONE static void leak_empty_entries()
{
	static std::map<unsigned long, std::vector<int>> orders;
	if (orders[tick].empty() && tick % 7 == 0)
		orders[tick].reserve(50);
}

static void tree_that_is_pruned()
{
	static std::map<unsigned long, std::string> tree;
	tree[chance(1u << 30)] = text(150);
	while (tree.size() > 600)
		tree.erase(tree.begin());
}

// Held out from the second judge.

// Those that are done go from the index, and not from the list of all.
ALONE static void leak_closures()
{
	static std::vector<std::function<size_t()>> all;
	static std::map<unsigned long, size_t> index;
	if (tick % 6 == 0) {
		auto state = std::make_shared<std::string>(text(250));
		all.push_back([state] { return state->size(); });
		index[tick] = all.size();
	}
	if (index.size() > 20)
		index.erase(index.begin());
}

struct Session {
	char data[400];
};

// A weak_ptr keeps what make_shared made, and its entry is never taken out.
ALONE static void leak_by_weak_references()
{
	static std::map<unsigned long, std::weak_ptr<Session>> sessions;
	static std::deque<std::shared_ptr<Session>> open;
	if (tick % 4 == 0) {
		open.push_back(std::make_shared<Session>());
		sessions[tick] = open.back();
	}
	if (open.size() > 30)
		open.pop_front();
}

static void one_stream()
{
	static std::ostringstream stream;
	stream << text(chance(2000));
	if (tick % 100 == 0)
		stream.str("");
}

// As many objects as the load of twenty seconds ever needed.
static void pool_to_the_highest_load()
{
	static std::vector<std::unique_ptr<std::string>> idle, busy;
	unsigned phase = tick % (20 * TICKS) / TICKS;
	unsigned wanted = 10 * (phase < 10 ? phase : 20 - phase);
	while (busy.size() > wanted) {
		idle.push_back(std::move(busy.back()));
		busy.pop_back();
	}
	while (busy.size() < wanted) {
		if (idle.empty()) {
			idle.push_back(std::make_unique<std::string>(text(700)));
		}
		busy.push_back(std::move(idle.back()));
		idle.pop_back();
	}
}

int main(int count, char **arguments)
{
	static const std::map<std::string, void (*)()> behaviours = {
		{"leak_a_cycle", leak_a_cycle},
		{"leak_when_thrown", orders},
		{"leak_by_a_cache_without_bound", leak_by_a_cache_without_bound},
		{"leak_what_a_vector_points_to", leak_what_a_vector_points_to},
		{"leak_listeners", leak_listeners},
		{"leak_in_a_destructor", leak_in_a_destructor},
		{"lru_of_a_list", lru_of_a_list},
		{"memoization_in_a_map", memoization_in_a_map},
		{"queue_in_balance", queue_in_balance},
		{"vector_that_is_cleared", vector_that_is_cleared},
		{"strings", strings},
		{"leak_empty_entries", leak_empty_entries},
		{"tree_that_is_pruned", tree_that_is_pruned},
		{"leak_closures", leak_closures},
		{"leak_by_weak_references", leak_by_weak_references},
		{"one_stream", one_stream},
		{"pool_to_the_highest_load", pool_to_the_highest_load},
	};
	auto found = behaviours.find(count > 1 ? arguments[1] : "");
	if (found == behaviours.end())
		return 2;
	printf("ready %d\n", getpid());
	fflush(stdout);
	// By the clock: on a busy machine memory is to grow when it should.
	auto start = std::chrono::steady_clock::now();
	for (;; usleep(1000000 / TICKS)) {
		std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
		for (; tick <= passed.count() * TICKS; tick++)
			found->second();
	}
}
