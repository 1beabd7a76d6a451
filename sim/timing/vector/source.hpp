// Reads strided matrices as groups of elements (hdl/vector/source.py).
#pragma once

#include "../reader.hpp"

namespace halfdome::timing::vector {

// `words` bus words and `groups` groups a row; a group fills `1 << size` parts of a word; with `hold` every
// group of a row is the row's first element.
struct Matrix {
  uint64_t address = 0, stride = 0, rows = 0, words = 0, groups = 0;
  unsigned size = 0;
  bool hold = false;
};

// A part is what a group of bytes fills in the lanes.
inline unsigned parts_of_word(const Parameters& p) { return 1u << p.vector_word_size; }

// A burst that is asked for beside those of matrices.
struct Burst {
  uint64_t address;
  unsigned words;
};

class GroupSource {
 public:
  GroupSource(const Parameters& p, ReadPort& port)
      : buffer(port, static_cast<unsigned>(p.vector_read_ahead_words)), p_(p) {}

  ReadBuffer buffer;

  // The matrix before is requested.
  bool ready() const { return matrix_.rows == 0; }
  // From the next cycle on: after `clock` of this one.
  void start(const Matrix& matrix) {
    matrix_ = matrix;
    groups_left_ = matrix.groups;
    position_ = 0;
  }
  // A group is there.
  bool valid(int64_t cycle) const { return buffer.readable(cycle); }

  // Without rows of its own left, a source asks for `burst` if there is one.
  void offer(const Burst* burst) {
    if (burst) buffer.offer(burst->address, burst->words);
    else if (words_ != 0) buffer.offer(address_, count());
  }

  // `take`: a group is taken, the last of its word that is wanted if it `ends`; `burst`: one was
  // offered. Returns when it may go on by itself.
  int64_t clock(int64_t cycle, bool take, bool ends, const Burst* burst) {
    if (buffer.taken() && !burst) pass();
    const bool cut = matrix_.rows != 0 && words_ == 0;
    if (cut) cut_row();
    if (take) take_group(cycle, ends);
    const bool moved = cut || take || buffer.taken();
    buffer.clock(cycle);
    if (moved) return cycle + 1;
    return buffer.readable_at() > cycle ? buffer.readable_at() : NEVER;
  }

 private:
  unsigned count() const {
    return static_cast<unsigned>(std::min<uint64_t>(words_, words_to_line_end(p_, address_)));
  }
  void pass() {
    const unsigned words = count();
    address_ += words * static_cast<uint64_t>(p_.bus_bytes);
    words_ -= words;
  }
  void cut_row() {
    address_ = matrix_.address;
    words_ = matrix_.words;
    matrix_.address += matrix_.stride;
    --matrix_.rows;
  }
  void take_group(int64_t cycle, bool ends) {
    const bool row_ends = groups_left_ == 1 || ends;
    const unsigned next = position_ + (matrix_.hold ? 0 : 1u << matrix_.size);
    if (row_ends || next == parts_of_word(p_)) buffer.read(cycle);
    position_ = row_ends ? 0 : next % parts_of_word(p_);
    groups_left_ = row_ends ? matrix_.groups : groups_left_ - 1;
  }

  const Parameters& p_;
  Matrix matrix_{};
  uint64_t address_ = 0, words_ = 0, groups_left_ = 0;  // what is left of a row
  unsigned position_ = 0;
};

}  // namespace halfdome::timing::vector
