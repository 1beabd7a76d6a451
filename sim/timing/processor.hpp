// BAR0 and what is behind it: rings, queues, counters, completions, resets
// (hdl/command/processor.py, register_file.py, completion.py, statistics.py, reset.py).
#pragma once

#include "commands.hpp"
#include "memory.hpp"

namespace halfdome::timing {

struct Vector {
  uint64_t address = 0;
  uint32_t data = 0;
  bool masked = true;
};

// Tells the host what has finished.
class CompletionWriter {
 public:
  uint64_t base = 0;
  unsigned size = 0, head = 0, tail = 0;
  Vector vectors[MSIX_VECTORS];
  bool function_mask = false;
  PostedPort port;

  uint32_t pending() const { return pending_; }
  void error() { due_ |= 2; }
  void restart() { tail = 0, phase_ = 1; }
  bool idle(bool offered) const { return state_ == IDLE && !offered && !due_ && port.idle; }

  void offer() {
    port.valid = state_ == REQUEST;
    port.data_valid = state_ == DATA;
  }
  // Whether the finished command that is offered is taken.
  bool takes(bool flush) const { return state_ == IDLE && (flush || !full()); }

  void clock(bool offered, const Finished& finished, bool flush) {
    switch (state_) {
      case IDLE:
        if (flush) {
          due_ = pending_ = 0;
        } else if (offered && !full()) {
          post(finished);
        } else {
          interrupt();
        }
        break;
      case REQUEST:
        if (port.taken) state_ = DATA;
        break;
      case DATA:
        if (port.data_taken) state_ = IDLE;
        break;
    }
  }
  // Whether something happens in the next cycle already.
  bool busy(bool offered) const {
    if (state_ == DATA) return false;  // until the last word is taken
    if (state_ == REQUEST || (offered && !full())) return true;
    for (unsigned i = 0; i < MSIX_VECTORS; ++i) {
      if (due_ >> i & 1 || (pending_ >> i & 1 && !masked(i))) return true;
    }
    return false;
  }

 private:
  enum State { IDLE, REQUEST, DATA };

  bool full() const { return size == 0 || following() == head; }
  unsigned following() const { return (tail + 1) & (size - 1); }
  bool masked(unsigned i) const { return vectors[i].masked || function_mask; }

  void post(const Finished& finished) {
    const uint64_t fields[] = {
        finished.id | uint64_t{static_cast<uint8_t>(finished.result.status)} << 16 |
            uint64_t{phase_} << 24 | uint64_t{finished.result.detail} << 32,
        finished.start_cycle | uint64_t{finished.end_cycle} << 32};
    std::memcpy(word_, fields, COMPLETION_BYTES);
    port.address = base + uint64_t{tail} * COMPLETION_BYTES;
    port.bytes = COMPLETION_BYTES;
    port.source = word_;
    due_ |= 1;
    tail = following();
    if (tail == 0) phase_ ^= 1;
    state_ = REQUEST;
  }

  void interrupt() {
    for (unsigned i = 0; i < MSIX_VECTORS; ++i) {
      const uint32_t bit = 1u << i;
      if (due_ & bit && masked(i)) {
        due_ &= ~bit;
        pending_ |= bit;
        return;
      }
      if ((due_ | pending_) & bit && !masked(i)) {
        due_ &= ~bit;
        pending_ &= ~bit;
        std::memcpy(word_, &vectors[i].data, sizeof vectors[i].data);
        port.address = vectors[i].address;
        port.bytes = sizeof vectors[i].data;
        port.source = word_;
        state_ = REQUEST;
        return;
      }
    }
  }

  State state_ = IDLE;
  uint32_t phase_ = 1, due_ = 0, pending_ = 0;
  uint8_t word_[COMPLETION_BYTES] = {};
};

class Processor : public Registers {
 public:
  // `engines[core][number]`, `fetch` the port of the descriptors.
  Processor(const Parameters& p, std::vector<std::vector<Engine*>> engines, FetchPort& fetch,
            Semantics& semantics, Requester& requester, MemorySystem& memory)
      : p_(p), cores_(engines.size()), requester_(requester), memory_(memory), engines_(engines),
        rings_(cores_), stopped_(cores_), core_flush_(cores_),
        fetcher_(p, fetch, rings_), checker_(p, fetcher_, semantics),
        counters_(static_cast<size_t>(p.counters)), all_signals_(cores_), all_finished_(cores_),
        snapshot_(cores_ * ENGINES * ACTIVITIES), timeout_(static_cast<uint32_t>(p.completion_timeout)) {
    for (size_t core = 0; core < cores_; ++core) {
      signals_.emplace_back(ENGINES);
      finished_.emplace_back(ENGINES);
      queues_.emplace_back();
      for (unsigned number = 0; number < ENGINES; ++number) {
        queues_[core].emplace_back(p, core, number, *engines_[core][number], semantics, counters_);
      }
    }
  }

  CompletionWriter completion;
  Count posted_bytes;

  bool bus_master() const { return bus_master_ && !resetting_; }
  bool resetting() const { return resetting_; }
  uint32_t timeout() const { return timeout_; }
  // Something was done to registers since the last cycle of which it was told.
  bool written() const { return written_; }

  // `told` of every engine that is given a command, or whose result is taken.
  template <typename Told>
  void clock(int64_t cycle, Told told) {
    written_ = false;
    for (auto& queues : queues_) {
      for (EngineQueue& queue : queues) queue.begin(cycle);
    }
    const bool clear = sequence_reset(), zeroing = !writes_.empty();
    const bool done = completion.takes(resetting_) && all_finished_.valid();
    completion.clock(all_finished_.valid(), all_finished_.front(), resetting_);
    all_finished_.clock(
        done, [&](size_t core) { return finished_[core].valid() && !flushes(core); },
        [&](size_t core) {
          taken_core_ = static_cast<int>(core);
          return finished_[core].front();
        });
    const bool signalled = all_signals_.valid() && !zeroing;
    if (signalled) set_counter(all_signals_.front());
    int signal_core = -1;
    all_signals_.clock(
        signalled, [&](size_t core) { return signals_[core].valid(); },
        [&](size_t core) {
          signal_core = static_cast<int>(core);
          return signals_[core].front();
        });
    for (size_t core = 0; core < cores_; ++core) {
      auto& queues = queues_[core];
      finished_[core].clock(
          taken_core_ == static_cast<int>(core) || flushes(core),
          [&](size_t i) { return queues[i].offers_finished(); },
          [&](size_t i) { return queues[i].take_finished(); });
      signals_[core].clock(
          signal_core == static_cast<int>(core), [&](size_t i) { return queues[i].offers_signal(); },
          [&](size_t i) { return queues[i].take_signal(); });
      for (unsigned number = 0; number < ENGINES; ++number) {
        if (queues[number].clock(cycle, flushes(core))) told(core, number);
      }
      rings_[core].enabled = run_ && !stopped_[core] && !flushes(core);
      rings_[core].restart |= flushes(core);
    }
    taken_core_ = -1;
    const int failed = fetcher_.clock(cycle, memory_.urgent_cores);
    if (failed >= 0) {
      stopped_[static_cast<size_t>(failed)] = true;
      completion.error();
    }
    checker_.clock(cycle, [&](size_t core, unsigned engine) -> EngineQueue& {
      return queues_[core][engine];
    });
    for (size_t core = 0; core < cores_; ++core) {
      rings_[core].restart = false;
      if (resetting_ || core_flush_[core]) {
        rings_[core].tail = 0;
        stopped_[core] = false;
      }
      if (core_flush_[core] && drained(core)) core_flush_[core] = false;
    }
    apply_counters();
    if (clear) power_on();
  }

  // The next cycle in which something happens, if no word of a fetch comes, no word of a completion is
  // taken and no engine ends.
  int64_t next(int64_t cycle) const {
    const auto queue = [&](size_t core, unsigned engine) -> const EngineQueue& {
      return queues_[core][engine];
    };
    int64_t next = std::min(fetcher_.next(cycle), checker_.next(cycle, queue));
    if (written_ || resetting_ || all_signals_.valid() || completion.busy(all_finished_.valid())) return cycle + 1;
    for (size_t core = 0; core < cores_; ++core) {
      if (core_flush_[core] || signals_[core].valid() || finished_[core].valid()) return cycle + 1;
      for (const EngineQueue& queue : queues_[core]) next = std::min(next, queue.next(cycle));
    }
    return next;
  }

  uint32_t read(unsigned offset, int64_t cycle) override;
  void write(unsigned offset, uint32_t value, int64_t cycle) override;
  void drop_request(bool poisoned) override {
    ++dropped_requests_;
    poisoned_requests_ += poisoned;
    written_ = true;
    completion.error();
  }

 private:
  bool flushes(size_t core) const { return resetting_ || core_flush_[core]; }
  bool drained(size_t core) const {
    if (!fetcher_.idle(core) || !(checker_.idle() || checker_.core() != core)) return false;
    for (const EngineQueue& queue : queues_[core]) {
      if (!queue.empty()) return false;
    }
    return !signals_[core].valid() && !finished_[core].valid();
  }
  bool idle() const {
    for (size_t core = 0; core < cores_; ++core) {
      if (!drained(core)) return false;
    }
    return !all_signals_.valid() && !all_finished_.valid() && completion.idle(false);
  }

  // Queues see a counter as it was before the writes of a cycle.
  void set_counter(CounterWrite write) { writes_.push_back(write); }
  void apply_counters() {
    for (const CounterWrite& write : writes_) counters_[write.counter] = write.value;
    writes_.clear();
  }

  // Lets what runs end, zeroes the counters, then clears. Whether this is the last cycle.
  bool sequence_reset() {
    if (!resetting_) return false;
    if (zeroed_ < 0) {
      if (idle() && requester_.outstanding() == 0) zeroed_ = 0;
      return false;
    }
    if (zeroed_ == p_.counters) return true;
    set_counter({static_cast<unsigned>(zeroed_++), 0});
    return false;
  }
  void power_on() {
    resetting_ = false;
    zeroed_ = -1;
    run_ = false;
    bus_master_ = true;
    timeout_ = static_cast<uint32_t>(p_.completion_timeout);
    for (SubmissionRing& ring : rings_) ring = {};
    memory_.urgent_cores = 0;
    std::fill(stopped_.begin(), stopped_.end(), false);
    completion.base = completion.size = completion.head = 0;
    for (Vector& vector : completion.vectors) vector = {};
    completion.function_mask = false;
    dropped_requests_ = poisoned_requests_ = rejected_doorbells_ = 0;
    std::fill(std::begin(requester_.events), std::end(requester_.events), 0);
    requester_.reset();
  }

  void snapshot(int64_t cycle);
  void reject() {
    ++rejected_doorbells_;
    completion.error();
  }

  const Parameters& p_;
  size_t cores_;
  Requester& requester_;
  MemorySystem& memory_;
  std::vector<std::vector<Engine*>> engines_;
  std::vector<SubmissionRing> rings_;
  std::vector<uint8_t> stopped_, core_flush_;
  CommandFetcher fetcher_;
  DescriptorChecker checker_;
  std::vector<uint32_t> counters_;
  std::vector<CounterWrite> writes_;
  std::vector<std::vector<EngineQueue>> queues_;
  std::vector<RoundRobinMerge<CounterWrite>> signals_;
  std::vector<RoundRobinMerge<Finished>> finished_;
  RoundRobinMerge<CounterWrite> all_signals_;
  RoundRobinMerge<Finished> all_finished_;
  int taken_core_ = -1;
  bool run_ = false, bus_master_ = true, resetting_ = false;
  bool written_ = false;
  int64_t zeroed_ = -1;  // counters that a reset has zeroed; -1 before
  uint32_t dropped_requests_ = 0, poisoned_requests_ = 0, rejected_doorbells_ = 0;
  std::vector<uint64_t> snapshot_;
  uint64_t traffic_[TRAFFICS] = {};
  int64_t snapshot_cycles_ = 0;
  uint32_t timeout_;
};

}  // namespace halfdome::timing
