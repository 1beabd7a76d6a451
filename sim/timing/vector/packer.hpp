// Collects groups of elements into words of a strided matrix (hdl/vector/packer.py).
#pragma once

#include "source.hpp"

namespace halfdome::timing::vector {

// Rows of `bytes` bytes, in `groups` groups; a group fills `1 << size` parts of a word.
struct Rows {
  uint64_t address = 0, stride = 0, rows = 0, groups = 0, bytes = 0;
  unsigned size = 0;
};

class RowPacker {
 public:
  RowPacker(const Parameters& p, WritePort& port) : p_(p), port_(port) {}

  // A matrix is not written to its end.
  bool busy() const { return rows_left_ != 0 || held_; }
  // From the next cycle on: after `clock` of this one.
  void start(const Rows& rows) {
    rows_ = rows;
    rows_left_ = rows.rows;
    next_row_ = rows.address;
    begin_row();
  }

  void offer() {
    if (held_ && !port_.valid) port_.offer(word_, word_bytes_);
  }
  // In a cycle of which `port.taken` is known: whether it takes a group.
  bool ready() const { return rows_left_ != 0 && (!held_ || port_.taken); }

  // `take`: a group comes. True if it can do something in the next cycle.
  bool clock(bool take) {
    if (port_.taken) held_ = false;
    if (take) take_group();
    return take || port_.taken;
  }

 private:
  void begin_row() {
    address_ = next_row_;
    next_row_ += rows_.stride;
    groups_left_ = rows_.groups;
    bytes_left_ = rows_.bytes;
    position_ = 0;
  }
  void take_group() {
    position_ += 1u << rows_.size;
    const bool row_ends = --groups_left_ == 0;
    if (!row_ends && position_ != parts_of_word(p_)) return;
    const uint64_t bus = static_cast<uint64_t>(p_.bus_bytes);
    held_ = true;
    word_ = address_ & ADDRESS_MASK;
    word_bytes_ = static_cast<unsigned>(std::min(bytes_left_, bus));
    bytes_left_ -= word_bytes_;
    address_ += bus;
    position_ = 0;
    if (!row_ends) return;
    --rows_left_;
    begin_row();
  }

  const Parameters& p_;
  WritePort& port_;
  Rows rows_{};
  bool held_ = false;
  uint64_t rows_left_ = 0, groups_left_ = 0, bytes_left_ = 0, address_ = 0, next_row_ = 0;
  uint64_t word_ = 0;
  unsigned word_bytes_ = 0, position_ = 0;
};

}  // namespace halfdome::timing::vector
