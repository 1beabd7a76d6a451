// An engine of the timing card in the place of one in RTL, for ctypes (tests/sim/timing/replay.py):
// it gets what the memory around the other did in each cycle, and must ask for the same.
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "timing/gather/engine.hpp"
#include "timing/matmul/engine.hpp"
#include "timing/vector/engine.hpp"

using namespace halfdome::timing;

namespace {

// What was seen in a cycle; the order is that of replay.py.
struct Read {
  int64_t valid, ready, address, words, arrives, last;
};
struct Write {
  int64_t valid, ready, address, bytes, idle;
};
struct Commands {
  int64_t taken, done, finished, activity;
};
// What a gather engine with a cache is told of writes to DRAM, and what became of a request.
struct Caching {
  int64_t wrote, address, pending, hit, miss;
};

struct Memory : Bytes {
  const uint8_t* bytes;
  explicit Memory(const uint8_t* start) : bytes(start) {}
  const uint8_t* at(uint64_t address) const override { return bytes + address; }
};

struct Replay {
  const Parameters& p;
  Memory memory;
  std::vector<ReadPort> reads;
  WritePort write;
  std::unique_ptr<Engine> engine;
  char* message;
  int64_t cycle = 0, wake = 0, counts[ACTIVITIES] = {}, hits = 0, misses = 0;
  bool pending = false;

  Replay(const Parameters& parameters, int kind, const uint8_t* bytes, size_t ports, char* text)
      : p(parameters), memory(bytes), reads(ports), message(text) {
    switch (kind) {
      case GATHER_ENGINE:
        engine = std::make_unique<GatherEngine>(p, memory, reads[0], reads[1], reads[2], reads[3], write);
        break;
      case MATMUL_ENGINE:
        engine = std::make_unique<MatmulEngine>(p, reads[0], reads[1], reads[2], write);
        break;
      case VECTOR_ENGINE:
        engine = std::make_unique<VectorEngine>(p, reads[0], reads[1], write);
        break;
    }
  }

  bool same(const char* what, int64_t here, int64_t seen) {
    if (here == seen) return true;
    std::snprintf(message, 200, "cycle %lld: %s is %lld, not %lld", static_cast<long long>(cycle),
                  what, static_cast<long long>(here), static_cast<long long>(seen));
    return false;
  }

  // One cycle; `command` is the next one. False if something differs.
  bool step(const Read* seen, const Write& written, const Commands& control, const Caching* caching,
            const uint8_t* command) {
    if (caching) tell(*caching);
    bool told = cycle >= wake || control.taken || control.finished;
    write.taken = false;
    write.idle = written.idle;
    for (size_t i = 0; i < reads.size(); ++i) {
      reads[i].taken = false;
      reads[i].arrives = seen[i].arrives;
      reads[i].last = seen[i].last;
      told |= reads[i].arrives;
    }
    if (told) engine->offer(cycle);
    for (size_t i = 0; i < reads.size(); ++i) {
      ReadPort& port = reads[i];
      if (!same("a read's valid", port.valid, seen[i].valid)) return false;
      if (!port.valid) continue;
      if (!same("a read's address", static_cast<int64_t>(port.address), seen[i].address)) return false;
      if (!same("a read's words", port.words, seen[i].words)) return false;
      port.taken = seen[i].ready;
      port.valid = !port.taken;
      told |= port.taken;
    }
    if (!same("the write's valid", write.valid, written.valid)) return false;
    if (write.valid) {
      if (!same("the write's address", static_cast<int64_t>(write.address), written.address)) return false;
      if (!same("the write's bytes", write.bytes, written.bytes)) return false;
      write.taken = written.ready;
      write.valid = !write.taken;
      told |= write.taken;
    }
    if (control.taken) {
      if (!same("ready", engine->ready(), 1)) return false;
      Command taken;
      std::copy(command, command + DESCRIPTOR_BYTES, taken.bytes);
      engine->take(taken, cycle);
    }
    if (!same("done", engine->done(), control.done)) return false;
    if (control.finished) engine->finish(cycle);
    if (told) wake = engine->clock(cycle);
    ++counts[control.activity];
    ++cycle;
    for (int each = 0; each < ACTIVITIES; ++each) {
      const Activity activity = static_cast<Activity>(each);
      const std::string what = "cycles of activity " + std::to_string(each);
      if (!same(what.c_str(), engine->account.count(activity, cycle), counts[each])) return false;
    }
    if (!caching) return true;
    hits += caching->hit;
    misses += caching->miss;
    return same("hits", engine->cache_hits(cycle), hits) &&
           same("misses", engine->cache_misses(cycle), misses);
  }

  void tell(const Caching& caching) {
    auto& watch = static_cast<GatherEngine&>(*engine).watch;
    if (caching.wrote) watch.wrote(static_cast<uint64_t>(caching.address), cycle);
    if (pending == static_cast<bool>(caching.pending)) return;
    pending = caching.pending;
    watch.pending(pending, cycle);
  }
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" int replay(const Parameters* parameters, int kind, const uint8_t* memory,
                      const uint8_t* commands, size_t ports,
                      const Read* reads, const Write* writes, const Commands* controls,
                      const Caching* caching, size_t cycles, char* message) {
  Replay replay(*parameters, kind, memory, ports, message);
  for (size_t cycle = 0; cycle < cycles; ++cycle) {
    const Caching* const cached = caching ? caching + cycle : nullptr;
    if (!replay.step(reads + cycle * ports, writes[cycle], controls[cycle], cached, commands)) return 0;
    if (controls[cycle].taken) commands += DESCRIPTOR_BYTES;
  }
  return 1;
}
#pragma GCC visibility pop
