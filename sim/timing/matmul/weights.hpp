// The second operand on its way into the shadows of the array (hdl/matmul/weights.py).
#pragma once

#include "../reader.hpp"
#include "lines.hpp"

namespace halfdome::timing::matmul {

// Reads the words of each line's weight tiles in the order in which they are used.
class WeightFetcher {
 public:
  WeightFetcher(const Parameters& p, ReadPort& port)
      : buffer(port, static_cast<unsigned>(p.matmul_weight_words)), p_(p) {}

  ReadBuffer buffer;

  void start(const Job& job) { job_ = job; }
  // Whether it takes a line in a cycle in which `buffer.taken()` is known.
  bool ready() const { return !walking_ || (buffer.taken() && done()); }

  void offer() {
    if (walking_) buffer.offer(word_address(), burst());
  }

  // `line`: the one it takes, if any. True if it can do something in the next cycle.
  bool clock(int64_t cycle, const Line* line) {
    if (buffer.taken()) pass();
    if (line) {
      line_ = *line;
      walking_ = true;
      words_left_ = static_cast<uint64_t>(line->tiles * line->depth * p_.weight_tile_bytes / p_.bus_bytes);
      tile_ = depth_ = step_ = 0;
      address_ = depth_address_ = tile_address_ = line->address;
      if (line->restart) packed_address_ = job_.w;
    }
    buffer.clock(cycle);
    return walking_ && buffer.room(burst());
  }

 private:
  bool packed() const { return job_.weights == Weights::PACKED; }
  bool by_columns() const { return job_.weights == Weights::COLUMNS; }
  uint64_t word_address() const {
    const uint64_t address = packed() ? packed_address_ : address_;
    return address & ADDRESS_MASK & ~static_cast<uint64_t>(p_.bus_bytes - 1);
  }
  unsigned burst() const {
    if (!packed()) return 1;
    return static_cast<unsigned>(std::min<uint64_t>(words_left_, words_to_line_end(p_, packed_address_)));
  }
  bool last_tile() const { return tile_ == line_.tiles - 1; }
  bool last_depth() const { return depth_ == line_.depth - 1; }
  bool last_used() const {
    const unsigned rows = last_depth() ? line_.last_rows : static_cast<unsigned>(p_.array_rows);
    const unsigned columns = last_tile() ? line_.last_columns : static_cast<unsigned>(p_.array_columns);
    return step_ + 1 >= (by_columns() ? columns : rows);
  }
  bool last_step() const {
    return by_columns() ? last_used() : step_ == static_cast<unsigned>(p_.array_rows) - 1;
  }
  bool done() const {
    return packed() ? words_left_ == burst() : last_step() && last_depth() && last_tile();
  }

  // A burst was taken.
  void pass() {
    const bool over = done();
    if (packed()) {
      const unsigned count = burst();
      packed_address_ += count * static_cast<uint64_t>(p_.bus_bytes);
      words_left_ -= count;
    } else {
      walk();
    }
    walking_ = !over;
  }
  // Rows beyond the last of an operand repeat it.
  void walk() {
    const bool step_ends = last_step(), depth_ends = last_depth();
    if (!last_used()) address_ += job_.w_stride;
    ++step_;
    if (!step_ends) return;
    step_ = 0;
    ++depth_;
    depth_address_ += by_columns() ? static_cast<uint64_t>(p_.array_rows)
                                   : job_.w_stride * static_cast<uint64_t>(p_.array_rows);
    address_ = depth_address_;
    if (!depth_ends) return;
    depth_ = 0;
    ++tile_;
    tile_address_ += by_columns() ? job_.w_stride * static_cast<uint64_t>(p_.array_columns)
                                  : static_cast<uint64_t>(p_.array_columns);
    address_ = depth_address_ = tile_address_;
  }

  const Parameters& p_;
  Job job_{};
  Line line_{};
  bool walking_ = false;
  uint64_t packed_address_ = 0, words_left_ = 0;
  unsigned tile_ = 0, depth_ = 0, step_ = 0;
  uint64_t address_ = 0, depth_address_ = 0, tile_address_ = 0;
};

// Makes tiles of words, one tile ahead of the passes. `look` first decides on a cycle.
class TileLoader {
 public:
  explicit TileLoader(const Parameters& p)
      : columns_(static_cast<unsigned>(p.array_columns)), lanes_(static_cast<unsigned>(p.matmul_rows_per_stage)),
        stages_(static_cast<unsigned>(p.array_rows) / lanes_),
        stages_of_word_(static_cast<unsigned>(std::min(p.array_rows, p.bus_bytes / p.array_columns)) / lanes_) {}

  void start(const Job& job) { weights_ = job.weights; }

  // `line`: the one whose tiles come, if known.
  void look(bool word, const Line* line) {
    last_stage_ = stage_ == stages_ - 1;
    word_ = false;
    switch (weights_) {
      case Weights::PACKED:
        loads_ = word && !full_;
        word_ = loads_ && stage_ % stages_of_word_ == stages_of_word_ - 1;
        break;
      case Weights::ROWS:
        word_ = word && !full_;
        loads_ = word_ && lane_ == lanes_ - 1;
        break;
      case Weights::COLUMNS:
        word_ = word && !turned_;
        loads_ = turned_ && !full_;
        break;
    }
    loaded_ = loads_ && last_stage_;
    line_done_ = loaded_ && depth_ == line->depth - 1 && tile_ == line->tiles - 1;
  }

  // A tile is in place in time for a pass that begins in this cycle.
  bool ready() const { return full_ || (stages_ > 1 && loaded_); }
  // A word is read in this cycle.
  bool reads() const { return word_; }
  // All tiles of the line have come with this cycle.
  bool line_done() const { return line_done_; }

  // `swap`: a pass begins. True if it did something, or can without another word.
  bool clock(bool swap, const Line* line) {
    if (weights_ == Weights::ROWS && word_) lane_ = lane_ == lanes_ - 1 ? 0 : lane_ + 1;
    if (weights_ == Weights::COLUMNS) {
      const unsigned used = line && tile_ == line->tiles - 1 ? line->last_columns : columns_;
      if (word_ && ++count_ == used) {
        count_ = 0;
        turned_ = true;
      }
      if (loaded_) turned_ = false;
    }
    if (loaded_ && ++depth_ == line->depth) {
      depth_ = 0;
      if (++tile_ == line->tiles) tile_ = 0;
    }
    if (swap) full_ = false;
    if (loads_) {
      stage_ = last_stage_ ? 0 : stage_ + 1;
      full_ = last_stage_ && !swap;
    }
    return loads_ || word_ || (turned_ && !full_);
  }
  // It waits for a word and for nothing else.
  bool hungry() const { return weights_ == Weights::COLUMNS ? !turned_ : !full_; }

 private:
  unsigned columns_, lanes_, stages_, stages_of_word_;
  Weights weights_ = Weights::PACKED;
  unsigned tile_ = 0, depth_ = 0, stage_ = 0, lane_ = 0, count_ = 0;
  bool full_ = false, turned_ = false;
  bool word_ = false, loads_ = false, last_stage_ = false, loaded_ = false, line_done_ = false;
};

}  // namespace halfdome::timing::matmul
