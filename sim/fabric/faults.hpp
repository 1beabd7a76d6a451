// Faults planned for one direction of a link, and what came of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "tlp.hpp"

namespace halfdome {

// Same order as `FaultKind` in sim/fabric/faults.py.
enum FaultKind : int64_t {
  CORRUPT,        // a bit flips: the receiver's LCRC does not match
  LOSE_ACK,       // the acknowledgement of a packet is lost
  DUPLICATE_ACK,  // it arrives twice
  POISON,         // the payload is marked as bad
  REFUSE,         // a completion becomes "unsupported request"
  ABORT,          // a completion becomes "completer abort"
  DROP,           // the packet never arrives, and no one notices
  DELAY,          // it arrives late, and what belongs to it after it
  LINK_DOWN,      // for a time the link carries nothing, either way
};

// The packets that a fault can hit are those of `flow` (any if negative) sent at `after` or later;
// the first `skip` of them pass, the next `count` are hit.
struct Fault {
  int64_t kind, link, down, flow, after_fs, skip, count, for_fs;
};

// injected = corrected + passed_on as soon as nothing is under way.
struct FaultCounters {
  uint64_t injected = 0;   // times that a fault struck
  uint64_t corrected = 0;  // of those, made good by the link
  uint64_t passed_on = 0;  // of those, for the ends to notice
  uint64_t naks = 0, replay_timeouts = 0, replayed = 0, duplicates = 0, retrains = 0, lost = 0;
};

class FaultList {
 public:
  FaultCounters counters;

  void add(const Fault& fault) { planned_.push_back({fault, 0, 0}); }

  // Packets hit by the fault that was added as number `index`.
  uint64_t struck(size_t index) const { return planned_[index].struck; }

  // The fault among those of kinds `first` to `last` that strikes this packet, or null.
  const Fault* strike(FaultKind first, FaultKind last, int64_t now, const Tlp& tlp) {
    for (Planned& planned : planned_) {
      const Fault& fault = planned.fault;
      if (fault.kind < first || fault.kind > last || now < fault.after_fs) continue;
      if (fault.flow >= 0 && fault.flow != tlp.flow()) continue;
      if (!suits(fault, tlp)) continue;
      const int64_t number = planned.seen++ - fault.skip;
      if (number < 0 || number >= fault.count) continue;
      ++counters.injected;
      ++planned.struck;
      if (fault.kind >= POISON) ++counters.passed_on;
      return &fault;
    }
    return nullptr;
  }

  // Whether the link is down at some time from `start` to `end`.
  bool down(int64_t start, int64_t end) const {
    for (const Planned& planned : planned_) {
      const Fault& fault = planned.fault;
      if (fault.kind == LINK_DOWN && end >= fault.after_fs &&
          start < fault.after_fs + fault.for_fs) {
        return true;
      }
    }
    return false;
  }

 private:
  struct Planned {
    Fault fault;
    int64_t seen;
    uint64_t struck;
  };

  static bool suits(const Fault& fault, const Tlp& tlp) {
    if (fault.kind == POISON) return !tlp.payload.empty();
    if (fault.kind == REFUSE || fault.kind == ABORT) return tlp.is_completion();
    if (fault.kind == DELAY) return tlp.flow() != POSTED;  // others must not pass a write
    return fault.kind != LINK_DOWN;
  }

  std::vector<Planned> planned_;
};

}  // namespace halfdome
