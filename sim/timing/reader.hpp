// Read clients: the timing of hdl/memory/reader.py and hdl/dma/rows.py.
//
// Used in the steps of a cycle: `offer` in the engine's `offer`; `readable` and `read` in its `clock`
// (a word that is read leaves in that cycle), and at last `clock`.
#pragma once

#include "engine.hpp"
#include "fifo.hpp"

namespace halfdome::timing {

// Asks for a burst only when all of it has room.
class ReadBuffer {
 public:
  ReadBuffer(ReadPort& port, unsigned depth) : port_(port), free_(depth), depth_(depth) {}

  // Offers a burst unless it has no room; true if it is offered. `port.taken` says what became of it.
  bool offer(uint64_t address, unsigned words) {
    if (port_.valid || free_ < words) return port_.valid;
    port_.offer(address, words);
    return true;
  }
  bool taken() const { return port_.taken; }
  // Whether such a burst could be offered next: if not, something else has to happen first.
  bool room(unsigned words) const { return !port_.valid && free_ >= words; }

  bool readable(int64_t cycle) const { return words_.readable(cycle); }
  // Whether the word that leaves ends its burst.
  bool read(int64_t cycle) {
    ++returned_;
    return words_.read(cycle);
  }
  // The cycle from which on a word can be read, NEVER while none has come.
  int64_t readable_at() const { return words_.empty() ? NEVER : words_.readable_at(); }
  // No word is buffered or in flight.
  bool empty() const { return free_ == depth_; }

  void clock(int64_t cycle) {
    if (port_.taken) free_ -= port_.words;
    if (port_.arrives) words_.write(cycle, port_.last);
    free_ += returned_;
    returned_ = 0;
  }

 private:
  ReadPort& port_;
  Fifo<bool> words_;
  unsigned free_, depth_, returned_ = 0;
};

// Where the memory line around `address` ends cuts a run of words.
inline unsigned words_to_line_end(const Parameters& p, uint64_t address) {
  const uint64_t index = address >> p.bus_shift;
  return static_cast<unsigned>(p.burst_words - (index & (p.burst_words - 1)));
}

// `rows` rows of `row_bytes` bytes, `stride` apart.
struct Block {
  uint64_t address, stride, rows, row_bytes;
};

inline uint64_t words_of(const Parameters& p, uint64_t bytes) {
  return (bytes + static_cast<uint64_t>(p.bus_bytes) - 1) >> p.bus_shift;
}

// A walk over the words of a block, row after row.
class Walk {
 public:
  explicit Walk(const Parameters& p) : p_(p) {}
  void start(const Block& block) {
    address_ = block.address;
    next_row_ = block.address + block.stride;
    stride_ = block.stride;
    rows_ = block.rows;
    words_ = row_words_ = words_of(p_, block.row_bytes);
    odd_bytes_ = static_cast<unsigned>(block.row_bytes & (p_.bus_bytes - 1));
  }
  bool over() const { return words_ == 0; }
  uint64_t address() const { return address_; }
  uint64_t words() const { return words_; }  // left of this row
  // Bytes of the word that comes next.
  unsigned word_bytes() const {
    return words_ == 1 && odd_bytes_ ? odd_bytes_ : static_cast<unsigned>(p_.bus_bytes);
  }
  // Words of the burst that comes next.
  unsigned burst() const {
    return static_cast<unsigned>(std::min<uint64_t>(words_, words_to_line_end(p_, address_)));
  }
  void pass(unsigned words) {
    address_ += words * static_cast<uint64_t>(p_.bus_bytes);
    words_ -= words;
    if (words_ || rows_ == 1) return;
    address_ = next_row_;
    next_row_ += stride_;
    words_ = row_words_;
    --rows_;
  }

 private:
  const Parameters& p_;
  uint64_t address_ = 0, next_row_ = 0, stride_ = 0, rows_ = 0, words_ = 0, row_words_ = 0;
  unsigned odd_bytes_ = 0;  // of a row's last word; 0 for all of it
};

// Streams the words of a block, one burst a cycle as far as there is room.
class RowReader {
 public:
  RowReader(const Parameters& p, ReadPort& port, unsigned depth) : buffer(port, depth), walk_(p) {}

  ReadBuffer buffer;

  // After `clock`: a block can be taken as the last burst of the one before leaves.
  bool ready() const { return walk_.over(); }
  // From the next cycle on.
  void start(const Block& block) { walk_.start(block); }
  void offer() {
    if (!walk_.over()) buffer.offer(walk_.address(), walk_.burst());
  }
  // The next cycle in which it may act by itself.
  int64_t clock(int64_t cycle) {
    if (buffer.taken()) walk_.pass(walk_.burst());
    buffer.clock(cycle);
    return !walk_.over() && buffer.room(walk_.burst()) ? cycle + 1 : NEVER;
  }

 private:
  Walk walk_;
};

}  // namespace halfdome::timing
