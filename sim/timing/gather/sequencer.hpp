// From lengths and indices to lookups (hdl/gather/lengths.py, sequencer.py and interleave.py).
#pragma once

#include <vector>

#include "array.hpp"

namespace halfdome::timing::gather {

// Rows of a bag; `length` means nothing if it is negative or longer than any array (`long_`).
struct BagLength {
  uint64_t length;
  bool negative, long_;
};

// Turns the array that delimits bags into checked bag lengths.
class BagLengths {
 public:
  void restart(const Job& job) {
    offsets_ = job.offsets;
    left_ = job.bags;
    end_ = job.index_count;
    first_ = true;
    started_ = valid_ = false;
  }
  bool valid() const { return valid_; }
  const BagLength& front() const { return out_; }
  // `taken`: what is on offer is taken in this cycle.
  bool ready(bool taken) const {
    const bool free = !valid_ || taken;
    return offsets_ ? (!started_ || free) && !last() : free;
  }

  // `element`: what comes, if something does. True if it did something.
  bool clock(bool taken, const int64_t* element) {
    const bool free = !valid_ || taken, gives = element && ready(taken);
    bool moved = taken || gives;
    if (taken) valid_ = false;
    if (!offsets_) {
      if (gives) {
        const int64_t value = *element;
        give({static_cast<uint64_t>(value), value < 0, value >= 0 && value >> COUNT_BITS != 0});
      }
      return moved;
    }
    const bool ends = last();
    if (started_ && free && (ends || element)) {
      moved = true;
      const int64_t value = ends ? 0 : *element;
      const bool too_long = !ends && value >= 0 && value >> COUNT_BITS != 0;
      const int64_t until = ends ? static_cast<int64_t>(end_) : value & COUNT_MASK;
      const int64_t difference = until - static_cast<int64_t>(start_);
      const bool backward = ends ? difference < 0 : value < 0 || (!too_long && difference < 0);
      give({static_cast<uint64_t>(difference) & COUNT_MASK, !start_bad_ && backward, start_bad_ || too_long});
      if (ends) started_ = false;
    }
    if (gives) {
      start_ = static_cast<uint64_t>(*element & COUNT_MASK);
      start_bad_ = first_ && *element != 0;
      started_ = true;
      first_ = false;
      --left_;
    }
    return moved;
  }

 private:
  static constexpr int64_t COUNT_MASK = (int64_t{1} << COUNT_BITS) - 1;

  bool last() const { return started_ && left_ == 0; }
  void give(const BagLength& length) {
    out_ = length;
    valid_ = true;
  }

  bool offsets_ = false, first_ = false, started_ = false, start_bad_ = false, valid_ = false;
  uint64_t left_ = 0, end_ = 0, start_ = 0;
  BagLength out_{};
};

// One step of a bag: read a row and add it (`row`), end the bag (`last`), or both.
struct Lookup {
  uint64_t index;
  bool row, last;
};

// Walks the bags of a command up to the first bad length or index.
class BagSequencer {
 public:
  void start(const Job& job) {
    job_ = job;
    unclaimed_ = job.index_count;
    bag_ = 0;
    state_ = State::LENGTH;
  }
  bool done() const { return state_ == State::DONE; }
  void finish() { state_ = State::IDLE; }

  // Decides on a cycle by what is on offer.
  void look(const BagLengths& lengths, const ArrayReader& indices, const ArrayReader& weights) {
    offers = false;
    present_ = false;
    if (state_ == State::LENGTH) {
      ends_ = bag_ == job_.bags;
      has_length_ = !ends_ && lengths.valid();
      if (has_length_) length_ = lengths.front();
      bad_length_ = has_length_ && (length_.negative || length_.long_ || length_.length > unclaimed_);
      offers = has_length_ && !bad_length_ && length_.length == 0;
      lookup = {0, false, true};
    } else if (state_ == State::ROWS) {
      present_ = indices.valid() && (weights.valid() || !job_.weighted);
      if (!present_) return;
      const int64_t index = indices.element();
      const bool counts = index >= 0 && static_cast<uint64_t>(index) < job_.rows;
      const bool bad = !counts && !(job_.pruned && index == -1);
      const bool last = remaining_ == 1;
      fatal_ = bad && !job_.warn && !job_.ignore;
      offers = counts || (last && !fatal_);
      lookup = {static_cast<uint64_t>(index), counts, last};
    }
  }
  bool offers = false;  // `lookup`
  Lookup lookup{};

  // `accepted`: a lookup would be taken in this cycle.
  bool takes_length(bool accepted) const {
    if (state_ != State::LENGTH || !has_length_ || bad_length_) return false;
    return length_.length != 0 || accepted;
  }
  bool takes_index(bool accepted) const {
    return state_ == State::ROWS && present_ && (offers ? accepted : !fatal_);
  }

  // True if it did something.
  bool clock(bool accepted) {
    switch (state_) {
      case State::LENGTH:
        if (ends_ || bad_length_) {
          state_ = State::DONE;
        } else if (has_length_ && length_.length != 0) {
          remaining_ = length_.length;
          unclaimed_ -= length_.length;
          state_ = State::ROWS;
        } else if (offers && accepted) {
          ++bag_;
        } else {
          return false;
        }
        return true;
      case State::ROWS: {
        const bool advance = takes_index(accepted);
        if (advance && remaining_-- == 1) {
          ++bag_;
          state_ = State::LENGTH;
        }
        if (present_ && fatal_) state_ = State::DONE;
        return advance || (present_ && fatal_);
      }
      default: return false;
    }
  }

 private:
  enum class State { IDLE, LENGTH, ROWS, DONE };

  Job job_{};
  State state_ = State::IDLE;
  uint64_t bag_ = 0, unclaimed_ = 0, remaining_ = 0;
  BagLength length_{};
  bool ends_ = false, has_length_ = false, bad_length_ = false, present_ = false, fatal_ = false;
};

// Deals bags to contexts in turn and takes one lookup of each context in turn.
class BagInterleaver {
 public:
  struct Output {
    Lookup lookup;
    unsigned context;
  };

  explicit BagInterleaver(const Parameters& p)
      : p_(p), rings_(static_cast<size_t>(p.gather_contexts)), left_(rings_.size(), -p.gather_chain_latency) {}

  void restart() {
    deal_ = 0;
    above_ = 0;
    wake_ = 0;
  }
  bool ready() const { return rings_[deal_].size() != static_cast<size_t>(p_.gather_lookups); }
  bool valid() const { return valid_; }
  const Output& front() const { return out_; }

  // `taken`: what is on offer is taken; `lookup`: what comes, if something does. Returns when it may
  // go on by itself.
  int64_t clock(int64_t cycle, bool taken, const Lookup* lookup) {
    if (cycle < wake_ && !taken && !lookup) return wake_;
    const bool free = !valid_ || taken;
    const size_t chosen = free ? choose(cycle) : rings_.size();
    const bool leaves = chosen != rings_.size();
    if (leaves) {
      out_ = {rings_[chosen].front(), static_cast<unsigned>(chosen)};
      rings_[chosen].pop_front();
      if (rings_[chosen].empty()) filled_ &= ~(uint32_t{1} << chosen);
      left_[chosen] = cycle;
      above_ = chosen + 1;
    }
    valid_ = leaves || (valid_ && !taken);
    if (lookup) {
      rings_[deal_].push_back(*lookup);
      filled_ |= uint32_t{1} << deal_;
      if (lookup->last) deal_ = (deal_ + 1) % rings_.size();
    }
    wake_ = cycle + 1;
    if (leaves || taken || lookup) return wake_;
    wake_ = NEVER;
    for (uint32_t left = filled_; left; left &= left - 1) {
      const int64_t when = left_[static_cast<size_t>(__builtin_ctz(left))] + p_.gather_chain_latency;
      if (when > cycle) wake_ = std::min(wake_, when);
    }
    return wake_;
  }

 private:
  // The context whose turn it is: the next one after the last, if it has a lookup and was not chosen
  // too short a time ago.
  size_t choose(int64_t cycle) const {
    const uint32_t before = (uint32_t{1} << above_) - 1;
    for (const uint32_t part : {filled_ & ~before, filled_ & before}) {
      for (uint32_t left = part; left; left &= left - 1) {
        const auto context = static_cast<size_t>(__builtin_ctz(left));
        if (cycle - left_[context] >= p_.gather_chain_latency) return context;
      }
    }
    return rings_.size();
  }

  const Parameters& p_;
  std::vector<Ring<Lookup>> rings_;
  std::vector<int64_t> left_;  // when a lookup left
  uint32_t filled_ = 0;        // contexts that have lookups
  int64_t wake_ = 0;  // nothing happens before, if nothing comes
  size_t deal_ = 0, above_ = 0;
  bool valid_ = false;
  Output out_{};
};

}  // namespace halfdome::timing::gather
