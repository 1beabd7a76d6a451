// Notices writes to the tables whose rows a cache may hold (hdl/gather/watch.py).
#pragma once

#include "job.hpp"

namespace halfdome::timing::gather {

// Says before a command whether the cache has to forget.
class WriteWatch : public DramWatch {
 public:
  // A command is taken in `cycle`; whether the cache forgets first.
  bool start(const Job& job, int64_t cycle) {
    if (seen_ < cycle) settle();
    merge(cycle);
    const bool forgets = written_;
    written_ = (cycle >= pending_since_ ? pending_ : was_pending_) || seen_ == cycle;
    if (seen_ == cycle) seen_ = NEVER;
    held_ &= !forgets;
    base_ = job.table;
    end_ = (job.table + job.rows * job.row_stride) & ADDRESS_MASK;
    started_ = cycle;
    return forgets;
  }

  void wrote(uint64_t address, int64_t cycle) override {
    settle();
    address_ = address;
    seen_ = cycle;
  }
  void pending(bool any, int64_t cycle) override {
    was_pending_ = pending_;
    pending_ = any;
    pending_since_ = cycle;
  }

 private:
  // Cycles from a start to the first in which its table is part of the span.
  static constexpr int64_t SPAN_LATENCY = 4;

  void merge(int64_t cycle) {
    if (cycle < started_ + SPAN_LATENCY) return;
    lowest_ = held_ ? std::min(lowest_, base_) : base_;
    highest_ = held_ ? std::max(highest_, end_) : end_;
    held_ = true;
    started_ = NEVER;
  }

  // What the last write that was seen means: nothing began in its cycle.
  void settle() {
    if (seen_ == NEVER) return;
    const bool begun = started_ < seen_;
    merge(seen_);
    const bool computing = begun && started_ != NEVER;
    written_ |= computing || (held_ && address_ >= lowest_ && address_ < highest_);
    seen_ = NEVER;
  }

  bool written_ = false, held_ = false;
  uint64_t lowest_ = 0, highest_ = 0, base_ = 0, end_ = 0;
  int64_t started_ = NEVER;  // when the last command did, until its table is part of the span
  uint64_t address_ = 0;     // of the last write
  int64_t seen_ = NEVER;     // and its cycle, until it is known what else happens in it
  bool pending_ = false, was_pending_ = false;
  int64_t pending_since_ = 0;
};

}  // namespace halfdome::timing::gather
