// Rows become sums (hdl/gather/lanes.py).
#pragma once

#include "rows.hpp"

namespace halfdome::timing::gather {

// A chunk of a pooled row; `last` ends the row.
struct Pooled {
  unsigned context;
  bool last;
};

class AccumulateLanes {
 public:
  explicit AccumulateLanes(const Parameters& p)
      : p_(p), chunks_(static_cast<size_t>((p.max_dim + p.lanes - 1) / p.lanes)),
        added_(static_cast<size_t>(p.gather_contexts) * chunks_, -p.gather_chain_latency),
        fresh_(static_cast<size_t>(p.gather_contexts), true), room_(p.gather_lanes_room) {}

  Fifo<Pooled> sums;

  void start(const Job& job) {
    shape_ = job.shape;
    fresh_.assign(fresh_.size(), true);
  }
  // No chunk of a finished bag is inside.
  bool drained() const { return room_ == p_.gather_lanes_room; }

  // Decides on a cycle: `factors` of the row, if there are any, and whether a chunk is there.
  void look(int64_t cycle, const Tag* factors, bool chunk) {
    factors_ = factors;
    turns_ = false;
    issue = takes_chunk = takes_factors = working = blocked = false;
    if (!factors || (factors->row && !chunk)) return;
    // The sum to be added to is on its way.
    const bool waits = !fresh_[factors->context] && cycle - added() < p_.gather_chain_latency;
    blocked = !waits && factors->last && room_ == 0;
    working = !blocked;
    turns_ = multiplies(cycle);
    issue = working && !waits && !turns_;
    takes_chunk = issue && factors->row;
    takes_factors = issue && chunk_ == shape_.last_chunk;
  }
  bool issue = false, takes_chunk = false, takes_factors = false;
  bool working = false, blocked = false;  // a chunk enters or waits for a sum; waits for room

  // `left`: a sum was taken. Returns when it may go on by itself.
  int64_t clock(int64_t cycle, bool left) {
    if (cycle < next_ && !left && !issue && !turns_) return next_;
    // Of a bag that is not finished some may be left from a command that failed.
    while (!inside_.empty() && inside_.front().cycle + p_.gather_chain_latency <= cycle) {
      const Inside& retired = inside_.front();
      if (retired.last) sums.write(cycle, {retired.context, retired.last_chunk});
      inside_.pop_front();
    }
    room_ += left;
    if (issue) {
      const bool last_chunk = chunk_ == shape_.last_chunk;
      inside_.push_back({cycle, factors_->context, factors_->last, last_chunk});
      if (!factors_->last) added() = cycle;
      room_ -= factors_->last;
      chunk_ = last_chunk ? 0 : chunk_ + 1;
      if (last_chunk) fresh_[factors_->context] = factors_->last;
    }
    next_ = cycle + 1;
    if (issue || left || turns_) return next_;
    next_ = inside_.empty() ? NEVER : inside_.front().cycle + p_.gather_chain_latency;
    consider(next_, sums, cycle);
    return next_;
  }

 private:
  // A chunk on its way to its sum.
  struct Inside {
    int64_t cycle;
    unsigned context;
    bool last, last_chunk;
  };

  // When a row that does not end its bag was last added to the sum that the next chunk is for.
  int64_t& added() { return added_[factors_->context * chunks_ + chunk_]; }

  // The only lane multiplies what it has added, and adds nothing.
  bool multiplies(int64_t cycle) const {
    if (!p_.gather_lanes_turn) return false;
    for (size_t i = 0; i < inside_.size(); ++i) {
      if (cycle - inside_[i].cycle == p_.gather_lanes_turn) return true;
    }
    return false;
  }

  const Parameters& p_;
  Shape shape_{};
  bool turns_ = false;
  int64_t next_ = 0;  // nothing happens before, if nothing comes
  size_t chunks_;                // of the longest row
  std::vector<int64_t> added_;   // by context and chunk, see `added`
  std::vector<uint8_t> fresh_;   // contexts whose bag has no row yet
  int64_t room_;
  uint64_t chunk_ = 0;
  Ring<Inside> inside_;
  const Tag* factors_ = nullptr;
};

}  // namespace halfdome::timing::gather
