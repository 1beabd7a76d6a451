// From the submission rings to the queues: descriptors are fetched, checked and passed on
// (hdl/command/fetcher.py, turns.py, checker.py).
#pragma once

#include "arbiter.hpp"
#include "queues.hpp"
#include "requester.hpp"

namespace halfdome::timing {

using Slot = std::array<uint8_t, DESCRIPTOR_BYTES>;

inline bool is_extended(const Slot& slot) { return slot[header_fields::extension.start] == 1; }

struct SubmissionRing {
  uint64_t base = 0;
  unsigned size = 0, tail = 0, head = 0;
  bool enabled = false, restart = false;  // `restart`: in this cycle
};

// Fetches what lies between head and tail of each ring, ring after ring.
class CommandFetcher {
 public:
  CommandFetcher(const Parameters& p, FetchPort& port, std::vector<SubmissionRing>& rings)
      : bus_(static_cast<unsigned>(p.bus_bytes)), port_(port), rings_(rings), held_(rings.size()),
        second_(rings.size()), core_(rings.size() - 1),
        batch_(static_cast<unsigned>(p.max_read_request_bytes) / DESCRIPTOR_BYTES),
        per_word_(std::max(1u, bus_ / DESCRIPTOR_BYTES)) {}

  bool offers(size_t core, int64_t cycle) const {
    return held_[core].readable(cycle) && !half(core, cycle) && !rings_[core].restart;
  }
  const Slot& front(size_t core) const { return held_[core].front(); }
  void pass(size_t core, int64_t cycle) {
    second_[core] = is_extended(held_[core].front()) && !second_[core];
    held_[core].read(cycle);
  }

  // Returns the core whose fetch failed in this cycle, or -1. Rings that are `urgent` go first.
  int clock(int64_t cycle, uint32_t urgent) {
    int failed = -1;
    const bool restarted = rings_[core_].restart;
    switch (state_) {
      case IDLE: {
        const SubmissionRing& ring = rings_[core_];
        if (!wanted(core_) || restarted) {
          pass_on(wanted(), urgent);
          break;
        }
        address_ = ring.base + uint64_t{ring.head} * DESCRIPTOR_BYTES;
        run_ = ring.tail > ring.head ? ring.tail - ring.head : ring.size - ring.head;
        discard_ = false;
        state_ = PLAN;
        break;
      }
      case PLAN: {
        const auto page_index = static_cast<unsigned>(address_ / DESCRIPTOR_BYTES % PAGE_DESCRIPTORS);
        skip_ = page_index & (per_word_ - 1);
        count_ = std::min({run_, PAGE_DESCRIPTORS - page_index, batch_ - skip_});
        const unsigned units = (skip_ + count_ + per_word_ - 1) / per_word_;
        port_.address = address_ & ~uint64_t{bus_ - 1};
        port_.bytes = units * std::max(bus_, DESCRIPTOR_BYTES);
        state_ = REQUEST;
        break;
      }
      case REQUEST:
        port_.valid = true;
        position_ = 0;
        state_ = RESPONSE;
        break;
      case RESPONSE: {
        if (!port_.word_valid) break;
        const uint32_t before = wanted();
        failed = take_word(cycle, restarted);
        if (state_ == IDLE) pass_on(before, urgent);
        break;
      }
    }
    if (restarted) discard_ = true;
    for (size_t core = 0; core < rings_.size(); ++core) {
      if (!rings_[core].restart) continue;
      held_[core].clear();
      second_[core] = false;
      rings_[core].head = 0;
    }
    return failed;
  }

  bool idle(size_t core) const {
    const bool reading = state_ != IDLE && core_ == core;
    return !reading && !ahead(core) && (held_[core].empty() || half(core, NEVER));
  }
  // The next cycle in which something happens, if no word comes and nothing is passed on.
  int64_t next(int64_t cycle) const {
    if (state_ == PLAN || state_ == REQUEST) return cycle + 1;
    for (size_t core = 0; state_ == IDLE && core < rings_.size(); ++core) {
      if (wanted(core)) return cycle + 1;
    }
    return NEVER;
  }
  // When the next command of a ring is offered.
  int64_t offered_at(size_t core) const {
    return held_[core].empty() || half(core, NEVER) ? NEVER : held_[core].readable_at();
  }

 private:
  enum State { IDLE, PLAN, REQUEST, RESPONSE };
  static constexpr unsigned PAGE_DESCRIPTORS = 4096 / DESCRIPTOR_BYTES;

  bool ahead(size_t core) const {
    return rings_[core].enabled && rings_[core].head != rings_[core].tail;
  }
  bool wanted(size_t core) const { return ahead(core) && held_[core].level() <= batch_; }
  uint32_t wanted() const {
    uint32_t rings = 0;
    for (size_t core = 0; core < rings_.size(); ++core) rings |= uint32_t{wanted(core)} << core;
    return rings;
  }
  // Whether there is the first half of a command alone.
  bool half(size_t core, int64_t cycle) const {
    return held_[core].level(cycle) == 1 && is_extended(held_[core].front()) && !second_[core];
  }
  void pass_on(uint32_t wanted, uint32_t urgent) {
    if (wanted) core_ = turn_.take(wanted, urgent);
  }

  int take_word(int64_t cycle, bool restarted) {
    const bool good = !discard_ && !restarted;
    const unsigned parts = std::max(1u, DESCRIPTOR_BYTES / bus_);
    // A descriptor is whole with its last part; a word of several gives one a cycle.
    const unsigned number = position_ / parts;
    const bool whole = position_ % parts == parts - 1;
    if (!port_.failed && good && whole && number >= skip_ && number < skip_ + count_) {
      Slot slot;
      std::memcpy(slot.data(), port_.data.data() + size_t{number} * DESCRIPTOR_BYTES, slot.size());
      held_[core_].write(cycle, slot);
      rings_[core_].head = (rings_[core_].head + 1) & (rings_[core_].size - 1);
    }
    ++position_;
    const bool taken = position_ % per_word_ == 0 || port_.failed;
    port_.ready = taken;
    if (!taken || !port_.last) return -1;
    const int failed = port_.failed && good ? static_cast<int>(core_) : -1;
    state_ = IDLE;
    return failed;
  }

  unsigned bus_;
  FetchPort& port_;
  std::vector<SubmissionRing>& rings_;
  std::vector<Fifo<Slot>> held_;
  std::vector<uint8_t> second_;  // of each ring, whether the second half of a command comes next
  UrgentFirst turn_;
  size_t core_;
  unsigned batch_, per_word_;
  State state_ = IDLE;
  uint64_t address_ = 0;
  unsigned run_ = 0, skip_ = 0, count_ = 0, position_ = 0;
  bool discard_ = false;
};

// Checks one command at a time, of the rings in turn, and passes it to its queue.
class DescriptorChecker {
 public:
  DescriptorChecker(const Parameters& p, CommandFetcher& fetcher, Semantics& semantics)
      : p_(p), cores_(static_cast<size_t>(p.cores)), fetcher_(fetcher), semantics_(semantics) {}

  bool idle() const { return state_ == IDLE; }
  size_t core() const { return owner_; }

  // `queue(core, engine)` is where a command goes.
  template <typename Queue>
  void clock(int64_t cycle, Queue queue) {
    const bool taking = state_ == IDLE || state_ == EXTEND;
    if (state_ == OUTPUT && cycle >= output_at_) {
      EngineQueue& target = queue(owner_, engine_of(slot_));
      if (target.room()) {
        target.push(cycle, Checked{command_, verdict_, second_counter_, second_value_});
        state_ = IDLE;
      }
    }
    const bool passed = taking && take(cycle, queue);
    if (state_ == EXTEND && !passed) state_ = IDLE;  // the ring was restarted
    if (!passed && !fits(turn_, cycle, queue)) turn(cycle, queue);
  }

  // The next cycle in which something happens, if no queue gets room.
  template <typename Queue>
  int64_t next(int64_t cycle, Queue queue) const {
    if (state_ == EXTEND) return cycle + 1;
    if (state_ == OUTPUT) {
      if (output_at_ > cycle) return output_at_;
      return queue(owner_, engine_of(slot_)).room_at(cycle + 1) ? cycle + 1 : NEVER;
    }
    int64_t next = NEVER;
    for (size_t core = 0; core < cores_; ++core) {
      const int64_t offered = fetcher_.offered_at(core);
      if (offered == NEVER) continue;
      if (cores_ > 1 && !queue(core, engine_of(fetcher_.front(core))).room_at(cycle + 1)) continue;
      next = std::min(next, std::max(cycle + 1, offered));
    }
    return next;
  }

 private:
  enum State { IDLE, EXTEND, OUTPUT };

  static unsigned engine_of(const Slot& slot) {
    const unsigned number = slot[0] >> 4;
    return number < ENGINES ? number : static_cast<unsigned>(LOAD_ENGINE);
  }
  template <typename Queue>
  bool fits(size_t core, int64_t cycle, Queue queue) const {
    if (!fetcher_.offers(core, cycle)) return false;
    return state_ == EXTEND || cores_ == 1 || queue(core, engine_of(fetcher_.front(core))).room();
  }

  // Takes a slot of the ring in turn; whether there was one.
  template <typename Queue>
  bool take(int64_t cycle, Queue queue) {
    if (!fits(turn_, cycle, queue)) return false;
    const Slot slot = fetcher_.front(turn_);
    fetcher_.pass(turn_, cycle);
    if (state_ == IDLE) {
      slot_ = slot;
      owner_ = turn_;
      if (is_extended(slot)) {
        state_ = EXTEND;
        return true;
      }
      decide(cycle, nullptr);
    } else {
      decide(cycle, slot.data());
    }
    turn(cycle, queue);
    return true;
  }

  template <typename Queue>
  void turn(int64_t cycle, Queue queue) {
    if (cores_ == 1 || state_ == EXTEND) return;
    for (size_t distance = 1; distance <= cores_; ++distance) {
      const size_t candidate = (turn_ + distance) % cores_;
      if (!fits(candidate, cycle, queue)) continue;
      turn_ = candidate;
      return;
    }
  }

  void decide(int64_t cycle, const uint8_t* extension) {
    std::memcpy(command_.bytes, slot_.data(), slot_.size());
    verdict_ = semantics_.check(owner_, slot_.data(), extension);
    second_counter_ = NO_COUNTER;
    second_value_ = 0;
    if (extension) {
      Command second;
      std::memcpy(second.bytes, extension, DESCRIPTOR_BYTES);
      second_counter_ = static_cast<unsigned>(second[extension_fields::second_wait_counter]);
      second_value_ = static_cast<uint32_t>(second[extension_fields::second_wait_value]);
    }
    const unsigned operands = OPERANDS[slot_[0]];
    output_at_ = cycle + (operands ? CHECKER_LATENCY + operands : FENCE_LATENCY);
    state_ = OUTPUT;
  }

  const Parameters& p_;
  size_t cores_;
  CommandFetcher& fetcher_;
  Semantics& semantics_;
  State state_ = IDLE;
  size_t turn_ = 0, owner_ = 0;
  Slot slot_{};
  Command command_{};
  Result verdict_;
  unsigned second_counter_ = NO_COUNTER;
  uint32_t second_value_ = 0;
  int64_t output_at_ = NEVER;
};

}  // namespace halfdome::timing
