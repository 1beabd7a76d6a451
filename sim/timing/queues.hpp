// What waits in front of the engines, what they wait for, and what becomes known when they end
// (hdl/command/queues.py, counters.py, merge.py).
#pragma once

#include <array>

#include "fifo.hpp"
#include "packets.hpp"

namespace halfdome::timing {

// What commands mean: whether a descriptor is good, and what it does to card memory.
class Semantics {
 public:
  virtual ~Semantics() = default;
  // Of a descriptor in the ring of `core`, and the slot behind it if it has an extension.
  virtual Result check(size_t core, const uint8_t* descriptor, const uint8_t* extension) = 0;
  // All that a good command but a LOAD, STORE or SIGNAL does, at once.
  virtual Result execute(size_t core, const Command& command) = 0;
};

struct CounterWrite {
  unsigned counter;
  uint32_t value;
};

// A finished command, as its completion tells the host.
struct Finished {
  uint32_t id;
  Result result;
  uint32_t start_cycle, end_cycle;
};

// Passes what some inputs offer on, one a cycle, in turn.
template <typename T>
class RoundRobinMerge {
 public:
  explicit RoundRobinMerge(size_t inputs) : inputs_(inputs) {}

  bool valid() const { return valid_; }
  const T& front() const { return item_; }

  // `offers(i)` says whether input i does, `take(i)` returns what.
  template <typename Offers, typename Take>
  void clock(bool ready, Offers offers, Take take) {
    if (valid_ && !ready) return;
    valid_ = false;
    for (size_t distance = 1; distance <= inputs_; ++distance) {
      const size_t candidate = (last_ + distance) % inputs_;
      if (!offers(candidate)) continue;
      item_ = take(candidate);
      valid_ = true;
      last_ = candidate;
      return;
    }
  }

 private:
  size_t inputs_, last_ = 0;
  bool valid_ = false;
  T item_{};
};

struct Checked {
  Command command;
  Result verdict;
  unsigned second_counter;
  uint32_t second_value;
};

// Holds commands and runs them in order, one at a time.
class EngineQueue {
 public:
  EngineQueue(const Parameters& p, size_t core, unsigned number, Engine& engine, Semantics& semantics,
              const std::vector<uint32_t>& counters)
      : p_(p), core_(core), number_(number), engine_(engine), semantics_(semantics), counters_(counters) {}

  bool room() const { return room_; }  // in this cycle
  bool room_at(int64_t cycle) const { return fifo_.room(cycle, p_.queue_depth); }
  void push(int64_t cycle, Checked&& checked) { fifo_.write(cycle, std::move(checked)); }
  bool empty() const { return fifo_.empty() && !signal_due_ && !finished_due_ && !running_; }

  // What it offers in this cycle.
  void begin(int64_t cycle) {
    room_ = room_at(cycle);
    free_ = !signal_due_ && !finished_due_;
    offers_signal_ = signal_due_;
    offers_finished_ = finished_due_ && !signal_due_;
  }
  bool offers_signal() const { return offers_signal_; }
  bool offers_finished() const { return offers_finished_; }
  CounterWrite take_signal() {
    signal_due_ = false;
    return signal_;
  }
  Finished take_finished() {
    finished_due_ = false;
    return finished_;
  }

  // Whether the engine was given a command, or its result was taken.
  bool clock(int64_t cycle, bool flush) {
    const bool head_here = fifo_.readable(cycle);
    if (head_here) look_up(cycle, flush);
    if (running_) return end_run(cycle, flush);
    if (!head_here) return false;
    const bool dropped = flush && !offered_;
    if (!dropped && waits_until(cycle)) return false;
    const Checked& head = fifo_.front();
    const bool fence = (head.command.bytes[0] & 0xF) == 0xF;
    const bool runs = head.verdict.status == Status::OK && !fence && !dropped;
    if (runs) {
      offered_ = !engine_.ready();
      if (offered_) return false;
      command_ = head.command;
      engine_.take(command_, cycle);
      start_cycle_ = static_cast<uint32_t>(cycle);
      running_ = true;
    } else if (free_) {
      end(head.command, head.verdict, static_cast<uint32_t>(cycle), cycle, flush);
    } else {
      return false;
    }
    fifo_.read(cycle);
    released_[0] = released_[1] = NEVER;
    return runs;
  }

  // The next cycle in which something happens, if no engine, counter or reset changes it.
  int64_t next(int64_t cycle) const {
    if (signal_due_ || finished_due_ || (running_ && engine_.done())) return cycle + 1;
    if (fifo_.empty()) return NEVER;
    if (!fifo_.readable(cycle + 1)) return fifo_.readable_at();
    for (unsigned i = 0; i < 2; ++i) {
      if (!waits(i) || released_[i] <= cycle + 1) continue;
      if (released_[i] < NEVER) return released_[i];
      return satisfied(i) ? slot(cycle + 1) : NEVER;
    }
    if (running_) return NEVER;
    return offered_ && !engine_.ready() ? NEVER : cycle + 1;
  }

 private:
  bool waits(unsigned i) const { return counter(i) < static_cast<unsigned>(p_.counters); }
  unsigned counter(unsigned i) const {
    const Checked& head = fifo_.front();
    return i ? head.second_counter : static_cast<unsigned>(head.command[header_fields::wait_counter]);
  }
  bool satisfied(unsigned i) const {
    const Checked& head = fifo_.front();
    const auto value = i ? head.second_value
                         : static_cast<uint32_t>(head.command[header_fields::wait_value]);
    return static_cast<int32_t>(counters_[counter(i)] - value) >= 0;
  }
  bool waits_until(int64_t cycle) const {
    return (waits(0) && released_[0] > cycle) || (waits(1) && released_[1] > cycle);
  }
  // The first cycle from `cycle` on in which it is this queue's turn to look up its counter.
  int64_t slot(int64_t cycle) const {
    return cycle + (number_ + ENGINES - cycle % ENGINES) % ENGINES;
  }

  void look_up(int64_t cycle, bool flush) {
    if (flush || cycle % ENGINES != number_ || !waits_until(cycle)) return;
    const unsigned which = waits(0) && released_[0] > cycle ? 0 : 1;
    // The answer is there a cycle later, and what it means another cycle later.
    if (satisfied(which)) released_[which] = std::min(released_[which], cycle + 2);
  }

  bool end_run(int64_t cycle, bool flush) {
    if (!engine_.done() || !free_) return false;
    Result result = engine_.result();
    const Opcode opcode = command_.opcode();
    if (result.status == Status::OK && opcode != Opcode::LOAD && opcode != Opcode::STORE &&
        opcode != Opcode::SIGNAL) {
      result = semantics_.execute(core_, command_);
    }
    engine_.finish(cycle);
    running_ = false;
    end(command_, result, start_cycle_, cycle, flush);
    return true;
  }

  void end(const Command& command, const Result& result, uint32_t start, int64_t cycle, bool flush) {
    const auto counter = static_cast<unsigned>(command[header_fields::signal_counter]);
    signal_ = {counter, static_cast<uint32_t>(command[header_fields::signal_value])};
    signal_due_ = counter < static_cast<unsigned>(p_.counters) && !flush;
    finished_ = {static_cast<uint32_t>(command[header_fields::id]), result, start,
                 static_cast<uint32_t>(cycle)};
    finished_due_ = true;
  }

  const Parameters& p_;
  size_t core_;
  unsigned number_;
  Engine& engine_;
  Semantics& semantics_;
  const std::vector<uint32_t>& counters_;  // as they are before the writes of a cycle
  Fifo<Checked> fifo_;
  int64_t released_[2] = {NEVER, NEVER};  // when each wait is over
  bool running_ = false, offered_ = false, free_ = true, room_ = true;
  bool signal_due_ = false, finished_due_ = false;
  bool offers_signal_ = false, offers_finished_ = false;
  Command command_{};
  uint32_t start_cycle_ = 0;
  CounterWrite signal_{};
  Finished finished_{};
};

}  // namespace halfdome::timing
