// A product that has a card's memory to itself: if one like it had before, its cycles are passed over.
//
// What a product does whose operands all lie in the scratchpad of its core follows from its descriptor
// and from whose turn it is at the banks, as long as nobody else asks memory for anything. So it is
// kept by these how it ended, and the next one like it is told of nothing but its end. If somebody
// does come between, the cycles until then are caught up with: nothing was changed meanwhile.
#pragma once

#include <cstring>
#include <string>
#include <unordered_map>

#include "../memory.hpp"
#include "engine.hpp"

namespace halfdome::timing::matmul {

class Solo {
 public:
  explicit Solo(MemorySystem& memory) : memory_(memory) {}

  // A product is at work, and nobody came between so far.
  bool works() const { return engine_ != nullptr; }
  bool works(const Engine* engine) const { return works() && engine == engine_; }
  // Its cycles are passed over.
  bool passes() const { return works() && known_; }

  // `engine` of `core` has taken a product in `cycle`, which has ended, and wants to be told of cycle
  // `wake`. Returns the one of which it is to be told.
  int64_t begin(size_t core, MatmulEngine& engine, int64_t cycle, int64_t wake) {
    if (!engine.is_near() || !memory_.rests()) return wake;
    core_ = core;
    engine_ = &engine;
    start_ = cycle;
    wake_ = wake;
    for (unsigned i = 0; i < ACTIVITIES; ++i) before_[i] = engine.account.count(i, cycle + 1);
    weight_bytes_ = memory_.traffic.weight_scratchpad_bytes.before(cycle + 1);
    memory_.pad_reads(core).served = memory_.pad_writes(core).served = 0;
    key_ = key();
    const auto found = kept_.find(key_);
    known_ = found == kept_.end() ? nullptr : &found->second;
    return known_ ? cycle + known_->cycles : wake;
  }

  // Somebody comes between in `cycle`. Returns the cycle of which the product wants to be told, which
  // has been told of all before `cycle`.
  int64_t end(int64_t cycle) {
    if (known_) {
      for (int64_t at; (at = std::min(wake_, memory_.next())) < cycle;) step(at);
    }
    engine_ = nullptr;
    return wake_;
  }

  // It has ended in `cycle` without being passed over.
  void keep(int64_t cycle) {
    if (kept_.size() == MOST) kept_.clear();
    Outcome& outcome = kept_[key_];
    outcome.cycles = cycle - start_;
    for (unsigned i = 0; i < ACTIVITIES; ++i) {
      outcome.spent[i] = engine_->account.count(i, cycle + 1) - before_[i];
    }
    outcome.weight_bytes = memory_.traffic.weight_scratchpad_bytes.before(cycle + 1) - weight_bytes_;
    outcome.reads = Turns(memory_.pad_reads(core_));
    outcome.writes = Turns(memory_.pad_writes(core_));
    engine_ = nullptr;
  }

  // It has been passed over until `cycle`, in which it ends. Returns the next one of which it wants to
  // be told.
  int64_t conclude(int64_t cycle) {
    memory_.traffic.weight_scratchpad_bytes.add(known_->weight_bytes, start_);
    known_->reads.pass(memory_.pad_reads(core_));
    known_->writes.pass(memory_.pad_writes(core_));
    const int64_t wake = engine_->conclude(known_->spent, cycle);
    engine_ = nullptr;
    return wake;
  }

 private:
  static constexpr size_t MOST = 1 << 12;

  // What became of whose turn it is, at the banks that served the product.
  struct Turns {
    Turns() = default;
    explicit Turns(const BankTurns& banks) : turns(banks.turns()), served(banks.served) {}
    void pass(BankTurns& banks) const { banks.pass(turns, served); }

    std::vector<RoundRobin> turns;
    uint32_t served = 0;
  };
  struct Outcome {
    int64_t cycles = 0, spent[ACTIVITIES] = {};
    int64_t weight_bytes = 0;
    Turns reads, writes;
  };

  // All that decides how it goes on: of whose turn it is, who of its own three readers goes first. Its
  // only writer need not wait for others.
  std::string key() const {
    Command command = engine_->command();
    for (const Field field : {header_fields::id, header_fields::wait_counter, header_fields::wait_value,
                              header_fields::signal_counter, header_fields::signal_value}) {
      std::memset(command.bytes + field.start, 0, field.bytes);
    }
    std::string key(reinterpret_cast<const char*>(command.bytes), DESCRIPTOR_BYTES);
    for (const RoundRobin& turn : memory_.pad_reads(core_).turns()) {
      const uint32_t first = turn.above() & memory_.read_ports(MATMUL_ENGINE);
      key.append(reinterpret_cast<const char*>(&first), sizeof first);
    }
    key.append(reinterpret_cast<const char*>(&core_), sizeof core_);
    return key;
  }

  // A cycle in which nobody else does anything.
  void step(int64_t cycle) {
    bool told = wake_ <= cycle;
    const auto tell = [&](size_t, size_t) { told = true; };
    memory_.begin(cycle, tell, tell);
    if (told) {
      engine_->offer(cycle);
      memory_.look(core_, MATMUL_ENGINE);
    }
    memory_.arbitrate(tell, tell);
    if (told) wake_ = engine_->clock(cycle);
    memory_.end(cycle);
  }

  MemorySystem& memory_;
  std::unordered_map<std::string, Outcome> kept_;
  MatmulEngine* engine_ = nullptr;
  size_t core_ = 0;
  const Outcome* known_ = nullptr;
  std::string key_;
  int64_t start_ = 0, wake_ = 0;
  int64_t before_[ACTIVITIES] = {};  // it had spent so many cycles on each
  int64_t weight_bytes_ = 0;
};

}  // namespace halfdome::timing::matmul
