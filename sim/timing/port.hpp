// Memory ports as engines see them: when words are asked for and come, without the words.
//
// The card evaluates a cycle in three steps: engines offer requests (`Engine::offer`), memory takes
// some of them, everything goes on to the next cycle (`Engine::clock`). Within a cycle `taken` and
// `arrives` are therefore of this cycle in `clock`; in `offer`, `arrives` is, and `taken` is not
// known yet. Addresses are those of hdl/memory/port.py.
#pragma once

#include <cstdint>

namespace halfdome::timing {

// A burst of `words` bus words from `address`, which does not cross a memory line. Words come in
// the order of requests, one a cycle at most, and cannot be refused.
struct ReadPort {
  bool valid = false;  // by the engine: a burst is offered; it stays as it is until it is taken
  uint64_t address = 0;
  unsigned words = 0;
  bool taken = false;    // by memory: the burst offered in this cycle is taken; `valid` is false then
  bool arrives = false;  // by memory: a word comes in this cycle
  bool last = false;     // and ends its burst

  void offer(uint64_t from, unsigned count) {
    valid = true;
    address = from;
    words = count;
  }
};

// One word, of which `bytes` are written.
struct WritePort {
  bool valid = false;
  uint64_t address = 0;
  unsigned bytes = 0;
  bool taken = false;
  bool idle = true;  // by memory, for all of this cycle: every word taken before can be read

  void offer(uint64_t to, unsigned count) {
    valid = true;
    address = to;
    bytes = count;
  }
};

// Who is told of what is written to DRAM, as soon as the card knows.
class DramWatch {
 public:
  virtual ~DramWatch() = default;
  // A word at `address` went out to DRAM; known in `cycle`, of which there is no other.
  virtual void wrote(uint64_t address, int64_t cycle) = 0;
  // From `cycle` on: whether any write is not answered.
  virtual void pending(bool any, int64_t cycle) = 0;
};

}  // namespace halfdome::timing
