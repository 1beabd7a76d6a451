// A core's scratchpad: which words its banks serve in a cycle (hdl/memory/scratchpad.py).
#pragma once

#include "arbiter.hpp"

namespace halfdome::timing {

// The reads, or the writes, of all ports. In a cycle: `begin`, then requests are taken, then `end`.
class BankTurns {
 public:
  explicit BankTurns(const Parameters& p)
      : p_(p), turns_(static_cast<size_t>(p.scratchpad_banks)) {}

  // Finds out whose word each bank serves, while it is busy.
  void begin() {
    uint32_t banks = 0;
    for (uint32_t left = active_; left; left &= left - 1) {
      const auto port = static_cast<unsigned>(__builtin_ctz(left));
      const auto bank = static_cast<unsigned>(bursts_[port].word & (turns_.size() - 1));
      wanted_[bank] |= uint32_t{1} << port;
      banks |= uint32_t{1} << bank;
    }
    served |= banks;
    for (; banks; banks &= banks - 1) {
      const auto bank = static_cast<unsigned>(__builtin_ctz(banks));
      const unsigned port = turns_[bank].take(wanted_[bank]);
      wanted_[bank] = 0;
      got_ |= uint32_t{1} << port;
      if (bursts_[port].left == 1) ends_ |= uint32_t{1} << port;
    }
  }

  bool ready(unsigned port) const { return (~active_ | ends_) >> port & 1; }
  bool active(unsigned port) const { return active_ >> port & 1; }
  uint32_t got() const { return got_; }    // ports whose word is served in this cycle
  uint32_t ends() const { return ends_; }  // and is the last of its burst

  // The port's request is taken; it is `ready`.
  void take(unsigned port, uint64_t address, unsigned words) {
    taken_ |= uint32_t{1} << port;
    bursts_[port].next_word = address >> p_.bus_shift;
    bursts_[port].next_left = words;
  }

  void end() {
    for (uint32_t left = got_; left; left &= left - 1) {
      Burst& burst = bursts_[static_cast<unsigned>(__builtin_ctz(left))];
      ++burst.word;
      --burst.left;
    }
    active_ = (active_ & ~ends_) | taken_;
    got_ = ends_ = 0;
    for (; taken_; taken_ &= taken_ - 1) {
      Burst& burst = bursts_[static_cast<unsigned>(__builtin_ctz(taken_))];
      burst.word = burst.next_word;
      burst.left = burst.next_left;
    }
  }

  bool busy() const { return active_; }
  // This cycle does something: `end` must be called.
  bool changes() const { return got_ | taken_; }
  uint32_t served = 0;  // banks that have served anybody, since somebody set it to none
  // Whose turn it is at each bank.
  const std::vector<RoundRobin>& turns() const { return turns_; }
  // After somebody else's turns at some banks.
  void pass(const std::vector<RoundRobin>& turns, uint32_t banks) {
    for (; banks; banks &= banks - 1) {
      const auto bank = static_cast<unsigned>(__builtin_ctz(banks));
      turns_[bank] = turns[bank];
    }
  }

 private:
  static constexpr size_t MOST = 32;  // bits of a set of ports, or of banks
  struct Burst {
    uint64_t word, next_word;
    unsigned left, next_left;
  };

  const Parameters& p_;
  std::vector<RoundRobin> turns_;
  uint32_t wanted_[MOST] = {};  // by bank, ports; empty between cycles
  Burst bursts_[MOST] = {};     // by port
  uint32_t active_ = 0, got_ = 0, ends_ = 0, taken_ = 0;
};

}  // namespace halfdome::timing
