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
  // Those that go first.
  uint32_t above() const { return above_; }

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

  bool valid() const { return valid_; }
  const T& front() const { return outer_.item; }
  bool busy() const { return waiting_ || valid_; }
  // Something is asked for, or on its way: `clock` has something to do.
  bool active() const { return asking_ || busy(); }

  // Input `number` asks in this cycle.
  void ask(unsigned number) {
    const unsigned group = inner_.empty() ? 0 : number / of_group_;
    asked_[group] |= uint32_t{1} << (number - group * of_group_);
    asking_ |= uint32_t{1} << group;
  }

  // Ends the cycle: what is in front leaves if it is `ready`; for each input that is taken, `take`
  // of its number returns what it asks for. Of several groups those that are `urgent` go first,
  // and those that are `held` wait.
  template <typename Take>
  void clock(bool ready, uint32_t urgent, uint32_t held, Take take) {
    const uint32_t asking = asking_;
    asking_ = 0;
    if (inner_.empty()) {
      if (!valid_ || ready) valid_ = load(outer_, asked_[0], take);
      asked_[0] = 0;
      return;
    }
    uint32_t left = 0;
    if (!valid_ || ready) {
      const uint32_t waiting = waiting_ & ~held;
      valid_ = waiting != 0;
      if (waiting) {
        const unsigned group = turn_.take(waiting, urgent);
        left = uint32_t{1} << group;
        outer_.item = inner_[group].item;
      }
    }
    waiting_ &= ~left;
    for (uint32_t groups = asking; groups; groups &= groups - 1) {
      const auto group = static_cast<unsigned>(__builtin_ctz(groups));
      if (!(waiting_ >> group & 1)) {
        load(inner_[group], asked_[group], [&](unsigned i) { return take(group * of_group_ + i); });
        waiting_ |= uint32_t{1} << group;
      }
      asked_[group] = 0;
    }
  }

 private:
  struct Stage {
    RoundRobin turn;
    T item{};
  };

  template <typename Take>
  static bool load(Stage& stage, uint32_t requests, Take take) {
    if (requests) stage.item = take(stage.turn.take(requests));
    return requests != 0;
  }

  unsigned of_group_;
  Stage outer_;
  bool valid_ = false;  // what `outer_` holds
  UrgentFirst turn_;    // of the groups
  std::vector<Stage> inner_;
  std::vector<uint32_t> asked_;  // by group
  uint32_t asking_ = 0;          // groups of which an input asks
  uint32_t waiting_ = 0;         // groups of which an item is merged already
};

}  // namespace halfdome::timing
