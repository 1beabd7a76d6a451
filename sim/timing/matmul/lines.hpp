// The tile loops of a matrix product (hdl/matmul/sequencer.py).
#pragma once

#include "../reader.hpp"
#include "job.hpp"

namespace halfdome::timing::matmul {

// One line of each row of a block, against the weights of a group of output tiles.
struct Line {
  // What of x to fetch.
  unsigned rows, words;
  uint64_t offset, down, right;
  bool block_last, batch_last;
  // What of w.
  bool restart;
  uint64_t address;
  unsigned tiles, depth, last_rows, last_columns;
  // How it passes through the array.
  uint64_t y_address, top, left;
  bool first, last, keep, final;
  // Whether x is not that of the line before.
  bool fetch;
};

// Walks `for batch: for block: for group: for tap: for line along K`.
class LineSequencer {
 public:
  explicit LineSequencer(const Parameters& p) : p_(p) {}

  void start(const Job& job) {
    job_ = job;
    group_ = static_cast<uint64_t>((job.diagonal ? p_.diagonal_tiles : p_.group_tiles) * p_.array_columns);
    batches_left_ = job.batches;
    rows_left_ = job.rows;
    n_left_ = job.n;
    k_left_ = job.k;
    taps_down_ = job.kernel_height;
    taps_right_ = job.kernel_width;
    first_ = block_first_ = true;
    own_ = offset_ = tap_ = tap_line_ = down_ = right_ = 0;
    w_line_ = w_group_ = w_batch_ = job.w;
    y_group_ = y_block_ = y_batch_ = job.y;
    top_ = left_ = 0;
    describe();
  }

  // A line is offered.
  bool valid() const { return batches_left_ != 0; }
  const Line& line() const { return line_; }

  void step() {
    step_activations();
    step_weights();
    step_outputs();
    step_counts();
    if (valid()) describe();
  }

 private:
  uint64_t block() const { return static_cast<uint64_t>(p_.activation_rows); }
  uint64_t line_bytes() const { return static_cast<uint64_t>(p_.line_bytes); }
  bool k_ends() const { return job_.diagonal || k_left_ <= line_bytes(); }
  bool right_ends() const { return taps_right_ == 1; }
  bool taps_end() const { return k_ends() && right_ends() && taps_down_ == 1; }
  bool n_ends() const { return n_left_ <= group_; }
  bool m_ends() const { return rows_left_ <= block(); }

  void describe() {
    const uint64_t columns = n_ends() ? n_left_ : group_;
    const uint64_t k = job_.diagonal ? columns : k_ends() ? k_left_ : line_bytes();
    const uint64_t array_rows = static_cast<uint64_t>(p_.array_rows);
    const uint64_t array_columns = static_cast<uint64_t>(p_.array_columns);
    const bool one_line = first_ && taps_end() && !job_.diagonal;  // is all of K
    line_.rows = static_cast<unsigned>(m_ends() ? rows_left_ : block());
    line_.words = static_cast<unsigned>(words_of(p_, k));
    line_.offset = offset_;
    line_.down = down_;
    line_.right = right_;
    line_.block_last = one_line || (taps_end() && n_ends());
    line_.batch_last = line_.block_last && m_ends();
    line_.restart = block_first_;
    line_.address = w_line_;
    line_.tiles = static_cast<unsigned>((columns + array_columns - 1) / array_columns);
    line_.depth = job_.diagonal ? 1 : static_cast<unsigned>((k + array_rows - 1) / array_rows);
    line_.last_rows = static_cast<unsigned>((k - 1) % array_rows + 1);
    line_.last_columns = static_cast<unsigned>((columns - 1) % array_columns + 1);
    line_.y_address = y_group_;
    line_.top = top_;
    line_.left = left_;
    line_.first = first_;
    line_.last = taps_end();
    line_.keep = one_line && !n_ends();
    line_.final = taps_end() && n_ends() && m_ends() && batches_left_ == 1;
    line_.fetch = !one_line || block_first_;
  }

  void step_activations() {
    offset_ += line_bytes();
    if (k_ends()) {
      right_ += job_.dilation_width;
      offset_ = tap_ += job_.tap_step;
      if (right_ends()) {
        right_ = 0;
        down_ += job_.dilation_height;
        offset_ = tap_ = tap_line_ += job_.tap_line_step;
      }
    }
    if (taps_end()) {
      own_ = job_.diagonal && !n_ends() ? own_ + group_ : 0;
      offset_ = tap_ = tap_line_ = own_;
      down_ = 0;
    }
  }

  void step_weights() {
    const bool by_rows = job_.weights == Weights::ROWS;
    w_line_ += by_rows ? job_.w_stride * line_bytes() : line_bytes();
    if (!taps_end()) return;
    w_group_ += by_rows ? group_ : job_.w_stride * group_;
    if (n_ends()) {
      if (m_ends()) w_batch_ += job_.w_batch_stride;
      w_group_ = w_batch_;
    }
    w_line_ = w_group_;
  }

  void step_outputs() {
    if (!taps_end()) return;
    left_ += group_;
    y_group_ += group_ * (job_.int32 ? 4 : 1);
    if (!n_ends()) return;
    left_ = 0;
    // Row i of a triangle begins i * (i - 1) / 2 outputs after row 0.
    y_block_ += job_.triangle ? top_ * block() + block() * (block() - 1) / 2 : job_.y_stride * block();
    top_ += block();
    if (m_ends()) {
      top_ = 0;
      y_block_ = y_batch_ += job_.y_batch_stride;
    }
    y_group_ = y_block_;
  }

  void step_counts() {
    const bool k = k_ends(), right = right_ends(), taps = taps_end(), n = n_ends(), m = m_ends();
    first_ = taps;
    block_first_ = taps && n;
    k_left_ -= line_bytes();
    if (!k) return;
    k_left_ = job_.k;
    --taps_right_;
    if (!right) return;
    taps_right_ = job_.kernel_width;
    --taps_down_;
    if (!taps) return;
    taps_down_ = job_.kernel_height;
    n_left_ -= group_;
    if (!n) return;
    n_left_ = job_.n;
    rows_left_ -= block();
    if (!m) return;
    rows_left_ = job_.rows;
    --batches_left_;
  }

  const Parameters& p_;
  Job job_{};
  Line line_{};
  uint64_t group_ = 0, batches_left_ = 0, rows_left_ = 0, n_left_ = 0, k_left_ = 0;
  uint64_t taps_down_ = 0, taps_right_ = 0;
  bool first_ = false, block_first_ = false;
  uint64_t own_ = 0, offset_ = 0, tap_ = 0, tap_line_ = 0, down_ = 0, right_ = 0;
  uint64_t w_line_ = 0, w_group_ = 0, w_batch_ = 0;
  uint64_t y_group_ = 0, y_block_ = 0, y_batch_ = 0, top_ = 0, left_ = 0;
};

}  // namespace halfdome::timing::matmul
