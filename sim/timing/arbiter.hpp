// Choice of one among many, fair or some first: the timing of hdl/memory/arbiter.py.
#pragma once

#include <cstdint>
#include <vector>

#include "card.hpp"

namespace halfdome::timing {

// Grants the next request after the last that was taken, of up to 32.
class RoundRobin {
 public:
  // The number of the one that is granted, and taken; one requests at least.
  unsigned take(uint32_t requests) {
    const uint32_t upper = requests & above_, pool = upper ? upper : requests;
    const uint32_t grant = pool & (~pool + 1);
    above_ = ~(grant | (grant - 1));
    return static_cast<unsigned>(__builtin_ctz(grant));
  }

 private:
  uint32_t above_ = 0;
};

// Grants urgent requests in turn, and others, in turn, if there are none or these had enough.
class UrgentFirst {
 public:
  // The number of the one that is granted, and taken; one requests at least.
  unsigned take(uint32_t requests, uint32_t urgent) {
    const uint32_t first = requests & urgent, other = requests & ~urgent;
    const bool ordinary = other && (!first || passed_ == URGENT_TURNS);
    passed_ = other && !ordinary ? passed_ + 1 : 0;
    return ordinary ? other_.take(other) : first_.take(first);
  }

 private:
  RoundRobin first_, other_;
  unsigned passed_ = 0;  // by urgent ones, while another one waited
};

// Merges requests of `T` into one stream. Of several groups of inputs those of each are merged first;
// the last group may be smaller, and all inputs are one group's if there is one.
template <typename T>
class StreamArbiter {
 public:
  StreamArbiter(size_t groups, size_t inputs_of_group)
      : of_group_(static_cast<unsigned>(inputs_of_group)),
        inner_(groups > 1 ? groups : 0), asked_(groups) {}

  bool valid() const { return outer_.valid; }
  const T& front() const { return outer_.item; }
  bool busy() const {
    for (const Stage& stage : inner_) {
      if (stage.valid) return true;
    }
    return outer_.valid;
  }

  // Input `number` asks in this cycle.
  void ask(unsigned number) {
    const unsigned group = inner_.empty() ? 0 : number / of_group_;
    asked_[group] |= uint32_t{1} << (number - group * of_group_);
    any_ = true;
  }

  // Ends the cycle: what is in front leaves if it is `ready`; for each input that is taken, `take`
  // of its number returns what it asks for. Of several groups those that are `urgent` go first,
  // and those that are `held` wait.
  template <typename Take>
  void clock(bool ready, uint32_t urgent, uint32_t held, Take take) {
    if (!any_ && !busy()) return;
    any_ = false;
    if (inner_.empty()) {
      if (!outer_.valid || ready) load(outer_, asked_[0], [&](unsigned i) { return take(i); });
      asked_[0] = 0;
      return;
    }
    uint32_t waiting = 0, left = 0;
    for (size_t group = 0; group < inner_.size(); ++group) {
      waiting |= uint32_t{inner_[group].valid} << group;
    }
    if (!outer_.valid || ready) {
      waiting &= ~held;
      outer_.valid = waiting != 0;
      if (waiting) {
        const unsigned group = turn_.take(waiting, urgent);
        left = uint32_t{1} << group;
        outer_.item = inner_[group].item;
      }
    }
    for (unsigned group = 0; group < inner_.size(); ++group) {
      if (!inner_[group].valid || left >> group & 1) {
        load(inner_[group], asked_[group], [&](unsigned i) { return take(group * of_group_ + i); });
      }
      asked_[group] = 0;
    }
  }

 private:
  struct Stage {
    RoundRobin turn;
    bool valid = false;
    T item{};
  };

  template <typename Take>
  static void load(Stage& stage, uint32_t requests, Take take) {
    stage.valid = requests != 0;
    if (requests) stage.item = take(stage.turn.take(requests));
  }

  unsigned of_group_;
  Stage outer_;
  UrgentFirst turn_;  // of the groups
  std::vector<Stage> inner_;
  std::vector<uint32_t> asked_;  // by group
  bool any_ = false;
};

}  // namespace halfdome::timing
