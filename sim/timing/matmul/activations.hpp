// Lines of activations between memory and the array (hdl/matmul/activations.py).
#pragma once

#include "../reader.hpp"
#include "lines.hpp"

namespace halfdome::timing::matmul {

class ActivationBuffer {
 public:
  ActivationBuffer(const Parameters& p, ReadPort& port) : p_(p), port_(port) {}

  void start(const Job& job) {
    job_ = job;
    batch_x_ = job.x;
    block_ = origin(job.x);
  }

  // Whether it takes a line.
  bool ready() const { return !walking_ && free_ != 0; }
  // Whether a word of the oldest line is there.
  bool available(unsigned row, unsigned word) const {
    return complete_[read_half_] ||
           (come_half_ == read_half_ && (come_row_ > row || (come_row_ == row && come_word_ > word)));
  }
  // Rows of the oldest line of which this word is there.
  unsigned rows_available(unsigned word) const {
    if (complete_[read_half_]) return lines_[read_half_].rows;
    if (come_half_ != read_half_) return 0;
    return come_row_ + (come_word_ > word ? 1 : 0);
  }

  void offer() {
    if (left_ != 0 && !joins() && !port_.valid) port_.offer(address_, burst());
  }

  // `taken`: it takes this line; `release`: the oldest one is done with. True if it did anything.
  bool clock(const Line* taken, bool release) {
    if (!walking_ && !port_.taken && !port_.arrives && !taken && !release) return false;
    const bool arrived = port_.arrives;
    walk();
    if (taken) take(*taken);
    free_ += release ? 1 : 0;
    if (arrived) arrive();
    if (release) {
      complete_[read_half_] = false;
      read_half_ ^= 1;
    }
    // A burst that memory refuses holds up the walk.
    return !port_.valid || port_.arrives || release;
  }

 private:
  // A row of a line, as a pixel of an image.
  struct Position {
    uint64_t column;
    int64_t down, right;
    uint64_t address, line_address;
  };
  struct Size {
    unsigned rows, words;
  };

  Position origin(uint64_t address) const {
    return {0, -static_cast<int64_t>(job_.pad_top), -static_cast<int64_t>(job_.pad_left), address, address};
  }
  Position following() const {
    Position next = here_;
    ++next.column;
    next.right += static_cast<int64_t>(job_.stride_width);
    next.address += job_.pixel_step;
    if (here_.column == job_.out_width - 1) {
      next = {0, here_.down + static_cast<int64_t>(job_.stride_height),
              -static_cast<int64_t>(job_.pad_left), here_.line_address + job_.line_step,
              here_.line_address + job_.line_step};
    }
    return next;
  }
  // Where the row's words are read; what lies outside of the image is read somewhere within.
  uint64_t row_address() const {
    const int64_t down = here_.down + static_cast<int64_t>(line_.down);
    const int64_t right = here_.right + static_cast<int64_t>(line_.right);
    const bool inside = down >= 0 && down < static_cast<int64_t>(job_.height) && right >= 0 &&
                        right < static_cast<int64_t>(job_.width);
    return (inside ? here_.address + line_.offset : job_.x_inside) & ADDRESS_MASK;
  }

  unsigned burst() const { return std::min(left_, words_to_line_end(p_, address_)); }
  // From DRAM, rows that follow each other in a line of memory are read together.
  bool joins() const {
    return walking_ && adjoins_ && row_ != 0 && left_ + line_.words <= words_to_line_end(p_, address_);
  }

  void walk() {
    const bool join = joins();
    const bool asked = port_.taken;
    const unsigned count = burst();
    const bool step = walking_ && (left_ == 0 || join || (asked && left_ == count));
    const uint64_t address = row_address();
    if (asked) {
      address_ = (address_ + count * static_cast<uint64_t>(p_.bus_bytes)) & ADDRESS_MASK;
      left_ -= count;
    }
    if (join) {
      left_ += line_.words;
    } else if (step) {
      address_ = address;
      left_ = line_.words;
    }
    if (!step) return;
    const Position next = following();
    here_ = next;
    if (++row_ != line_.rows) return;
    walking_ = false;
    fill_half_ ^= 1;
    if (line_.batch_last) {
      batch_x_ += job_.x_batch_stride;
      block_ = origin(batch_x_);
    } else if (line_.block_last) {
      block_ = next;
    }
  }

  void take(const Line& line) {
    line_ = line;
    row_ = 0;
    walking_ = true;
    here_ = block_;
    --free_;
    lines_[fill_half_] = {line.rows, line.words};
    adjoins_ = job_.matrix && job_.x < static_cast<uint64_t>(p_.scratchpad_base) &&
               job_.pixel_step == line.words * static_cast<uint64_t>(p_.bus_bytes);
  }

  void arrive() {
    const Size& line = lines_[come_half_];
    if (++come_word_ != line.words) return;
    come_word_ = 0;
    if (++come_row_ != line.rows) return;
    come_row_ = 0;
    complete_[come_half_] = true;
    come_half_ ^= 1;
  }

  const Parameters& p_;
  ReadPort& port_;
  Job job_{};
  Line line_{};
  Size lines_[2] = {};  // in each half
  bool complete_[2] = {};
  unsigned free_ = 2, fill_half_ = 0, come_half_ = 0, read_half_ = 0;
  unsigned come_row_ = 0, come_word_ = 0;
  bool walking_ = false, adjoins_ = false;
  unsigned row_ = 0, left_ = 0;
  Position here_{}, block_{};
  uint64_t batch_x_ = 0, address_ = 0;
};

}  // namespace halfdome::timing::matmul
