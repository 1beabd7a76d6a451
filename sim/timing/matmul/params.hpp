// Biases and multipliers of the output channels whose rows come out (hdl/matmul/params.py).
#pragma once

#include "../reader.hpp"
#include "lines.hpp"

namespace halfdome::timing::matmul {

// Reads the parameters, a contiguous run for each block of rows, and queues those of tiles.
class ParamLoader {
 public:
  ParamLoader(const Parameters& p, ReadPort& port)
      : reader_(p, port, static_cast<unsigned>(p.matmul_param_words)), p_(p), port_(port),
        group_(static_cast<unsigned>(std::min(p.array_columns, p.bus_bytes / p.matmul_param_bytes))),
        groups_per_word_(static_cast<unsigned>(p.bus_bytes / p.matmul_param_bytes) / group_),
        depth_(static_cast<unsigned>(p.matmul_tiles)) {}

  void start(const Job& job) {
    n_ = job.n;
    run_ = {job.params, 0, 1, job.n * static_cast<uint64_t>(p_.matmul_param_bytes)};
  }

  // The parameters of one more tile are here.
  bool ready() const { return unclaimed_ != 0; }

  void offer() { reader_.offer(); }

  // `begun`: a block of rows begins; `claim`: a tile will take its parameters, the multipliers at
  // `taken`. Returns when it may go on by itself.
  int64_t clock(int64_t cycle, bool begun, bool claim, int64_t taken) {
    if (cycle < next_ && !begun && !claim && !port_.taken && !port_.arrives) return next_;
    const bool push = full_ && queued_ != depth_;
    const bool end = n_ - channels_ <= group_;
    const bool load = reader_.buffer.readable(cycle) && (!full_ || push);
    if (load && (end || within_word_ == groups_per_word_ - 1)) reader_.buffer.read(cycle);
    const int64_t reads = reader_.clock(cycle);
    const bool asked = blocks_ != 0 && reader_.ready();
    if (asked) reader_.start(run_);
    blocks_ += begun;
    blocks_ -= asked;

    unclaimed_ += push;
    unclaimed_ -= claim;
    queued_ += push;
    if (claim) takes_.push_back(taken);
    if (!takes_.empty() && takes_.front() == cycle) {
      takes_.pop_front();
      --queued_;
    }
    if (push) full_ = false;
    if (load) advance(end);
    next_ = std::min(reads, takes_.empty() ? NEVER : takes_.front());
    if (blocks_ != 0 || asked || push || (full_ && queued_ != depth_)) next_ = cycle + 1;
    if (!full_) next_ = std::min(next_, std::max(reader_.buffer.readable_at(), cycle + 1));
    return next_;
  }

 private:
  void advance(bool end) {
    channels_ += group_;
    ++within_word_;
    if (within_word_ == groups_per_word_) within_word_ = 0;
    const bool last = ++target_ == static_cast<unsigned>(p_.array_columns) / group_;
    full_ = last || end;
    if (full_) target_ = 0;
    if (end) channels_ = within_word_ = 0;
  }

  RowReader reader_;
  const Parameters& p_;
  const ReadPort& port_;
  int64_t next_ = 0;  // nothing happens before, if nothing comes
  unsigned group_, groups_per_word_, depth_;
  Block run_{};
  uint64_t n_ = 0, channels_ = 0;
  unsigned blocks_ = 0, target_ = 0, within_word_ = 0, unclaimed_ = 0, queued_ = 0;
  bool full_ = false;
  Ring<int64_t> takes_;  // when the multipliers of claimed tiles leave the queue
};

}  // namespace halfdome::timing::matmul
