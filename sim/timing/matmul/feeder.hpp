// The edge of the array: which row enters when (hdl/matmul/feeder.py).
#pragma once

#include "activations.hpp"
#include "lines.hpp"

namespace halfdome::timing::matmul {

// A tile of outputs that is about to come.
struct Tile {
  uint64_t address, top, left;
  unsigned rows, columns;
  bool last;  // the tile that follows does not continue these rows
};

// Sends the rows of each line through the array, once for each of its weight tiles.
class Feeder {
 public:
  explicit Feeder(const Parameters& p)
      : p_(p), words_(static_cast<unsigned>(p.bus_bytes / p.array_rows)),
        pass_cycles_(static_cast<unsigned>(p.matmul_pass_cycles)) {}

  void start(const Job& job) { job_ = job; }

  // Decides on a cycle: `line` is the one that is fed, if there is one.
  void look(int64_t cycle, const Line* line, const ActivationBuffer& x, bool tile_ready,
            bool params_ready, bool tile_room) {
    feed = missing = blocked = false;
    if (!line) return;
    line_ = line;
    start_ = row_ == 0;
    last_ = line->last && depth_ == line->depth - 1;
    end_ = row_ == line->rows - 1;
    const bool ready = x.available(row_, word()) &&
                       (!start_ || (tile_ready && cycle >= free_at_ && (!last_ || params_ready)));
    const bool room = !last_ || !start_ || tile_room;
    missing = !ready;
    blocked = ready && !room;
    feed = ready && room;
  }

  bool feed = false, missing = false, blocked = false;
  // With `feed`: the row is the first of a pass; its sums leave; its line is done with.
  bool start() const { return start_; }
  bool last() const { return last_; }
  bool line_done() const {
    return end_ && depth_ == line_->depth - 1 && tile_ == line_->tiles - 1;
  }

  // With `feed`, `start` and `last`.
  Tile outputs() const {
    const uint64_t columns = static_cast<uint64_t>(p_.array_columns);
    const bool last_tile = tile_ == line_->tiles - 1;
    return {line_->y_address + tile_ * columns * (job_.int32 ? 4 : 1), line_->top,
            line_->left + tile_ * columns, line_->rows,
            last_tile ? line_->last_columns : static_cast<unsigned>(columns), last_tile};
  }

  void clock(int64_t cycle) {
    if (!feed) return;
    if (!end_) {
      ++row_;
      return;
    }
    row_ = 0;
    if (line_->rows < pass_cycles_) free_at_ = cycle + 1 + pass_cycles_ - line_->rows;
    if (++depth_ != line_->depth) return;
    depth_ = 0;
    if (++tile_ == line_->tiles) tile_ = 0;
  }

  // After `clock`: how many cycles from the next one on bring a row that is neither the last of its
  // pass nor one that leaves, if nothing comes. They can be passed over: `skip` makes up for them.
  unsigned run(const ActivationBuffer& x) const {
    if (row_ == 0 || last_) return 0;
    const unsigned until = std::min(line_->rows - 1, x.rows_available(word()));
    return until > row_ ? until - row_ : 0;
  }
  void skip(int64_t cycles) { row_ += static_cast<unsigned>(cycles); }

  // When the next pass may begin if all else is there.
  int64_t free_at() const { return free_at_; }

 private:
  // The word of the line in which the pass's channels are.
  unsigned word() const { return (job_.diagonal ? tile_ : depth_) / words_; }

  const Parameters& p_;
  unsigned words_, pass_cycles_;
  Job job_{};
  const Line* line_ = nullptr;
  unsigned row_ = 0, depth_ = 0, tile_ = 0;
  int64_t free_at_ = 0;
  bool start_ = false, last_ = false, end_ = false;
};

}  // namespace halfdome::timing::matmul
