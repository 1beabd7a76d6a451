// Fair choice of one among many: the timing of hdl/memory/arbiter.py.
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

  // Input `number` asks in this cycle.
  void ask(unsigned number) {
    const unsigned group = inner_.empty() ? 0 : number / of_group_;
    asked_[group] |= uint32_t{1} << (number - group * of_group_);
    asking_ |= uint32_t{1} << group;
  }

  // Ends the cycle: what is in front leaves if it is `ready`; for each input that is taken, `take`
  // of its number returns what it asks for.
  template <typename Take>
  void clock(bool ready, Take take) {
    if (!asking_ && !busy()) return;
    const uint32_t asking = asking_;
    asking_ = 0;
    if (inner_.empty()) {
      if (!valid_ || ready) valid_ = load(outer_, asked_[0], take);
      asked_[0] = 0;
      return;
    }
    uint32_t left = 0;
    if (!valid_ || ready) {
      valid_ = load(outer_, waiting_, [&](unsigned group) {
        left = uint32_t{1} << group;
        return inner_[group].item;
      });
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
  std::vector<Stage> inner_;
  std::vector<uint32_t> asked_;  // by group
  uint32_t asking_ = 0;          // groups of which an input asks
  uint32_t waiting_ = 0;         // groups of which an item is merged already
};

}  // namespace halfdome::timing
