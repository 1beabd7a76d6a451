// Assembles the rows of output tiles into lines of memory and writes them (hdl/matmul/writer.py).
#pragma once

#include "feeder.hpp"

namespace halfdome::timing::matmul {

class RowWriter {
 public:
  RowWriter(const Parameters& p, WritePort& port)
      : p_(p), port_(port), free_(static_cast<unsigned>(p.matmul_slots)) {}

  void start(const Job& job) { job_ = job; }

  // A tile may be announced.
  bool room() const {
    return parts_.size() != static_cast<size_t>(p_.matmul_tiles) &&
           (before_ != 0 || free_ >= static_cast<unsigned>(p_.activation_rows));
  }
  // Every row of the announced tiles was handed to memory.
  bool empty() const { return free_ == static_cast<unsigned>(p_.matmul_slots); }

  void announce(const Tile& tile) {
    const unsigned columns = static_cast<unsigned>(p_.array_columns);
    if (before_ == 0) {
      span_address_ = tile.address;
      span_left_ = tile.left;
      free_ -= tile.rows;
    }
    const uint64_t size = static_cast<uint64_t>(p_.matmul_span_bytes);
    const bool line_ends = tile.address % size + (job_.int32 ? 4 * columns : columns) >= size;
    const bool completes =
        tile.last || line_ends || job_.y >= static_cast<uint64_t>(p_.scratchpad_base);
    parts_.push_back({span_address_, tile.top, span_left_, before_ + tile.columns, completes});
    before_ = completes ? 0 : before_ + columns;
  }

  void offer() {
    if (held_ && row_.size != 0 && !port_.valid) offer_word();
  }

  // `row`: a row comes; `start`: it is the first of the next announced tile. Returns when it may
  // go on by itself.
  int64_t clock(int64_t cycle, bool row, bool start) {
    if (cycle < next_ && !row && !port_.taken) return next_;
    bool written = held_ && row_.size == 0;
    if (port_.taken) {
      written = word_ == last_word();
      word_ = written ? 0 : word_ + 1;
    }
    free_ += written;
    if (row) take(cycle, start);
    const bool load = !rows_.empty() && rows_.front().cycle <= cycle && (!held_ || written);
    held_ = load || (held_ && !written);
    if (load) {
      row_ = rows_.front();
      rows_.pop_front();
    }
    if (load || written || port_.taken) next_ = cycle + 1;
    else next_ = rows_.empty() || held_ ? NEVER : rows_.front().cycle;
    return next_;
  }

 private:
  // A tile as part of a span of tiles that are written together.
  struct Part {
    uint64_t address, top, left;
    unsigned columns;
    bool completes;
  };
  // A complete row; it can be read from its slot in `cycle`.
  struct Row {
    int64_t cycle;
    uint64_t address;
    unsigned size;
  };

  void take(int64_t cycle, bool start) {
    if (start) {
      part_ = parts_.front();
      parts_.pop_front();
    }
    if (part_.completes) {
      uint64_t count = part_.columns;
      // Below the diagonal of a triangle lie fewer columns.
      if (job_.triangle) {
        count = part_.top <= part_.left ? 0 : std::min(count, part_.top - part_.left);
      }
      rows_.push_back({cycle + 2, part_.address, static_cast<unsigned>(job_.int32 ? 4 * count : count)});
    }
    part_.address += job_.triangle ? part_.top : job_.y_stride;
    ++part_.top;
  }

  uint64_t bus() const { return static_cast<uint64_t>(p_.bus_bytes); }
  unsigned last_word() const {
    return static_cast<unsigned>((row_.address % bus() + row_.size - 1) / bus());
  }
  void offer_word() {
    const uint64_t from = row_.address, to = from + row_.size;
    const uint64_t word = (from / bus() + word_) * bus();
    const uint64_t first = std::max(from, word);
    port_.offer(first & ADDRESS_MASK, static_cast<unsigned>(std::min(to, word + bus()) - first));
  }

  const Parameters& p_;
  WritePort& port_;
  int64_t next_ = 0;  // nothing happens before, if nothing comes
  Job job_{};
  unsigned free_, before_ = 0;
  uint64_t span_address_ = 0, span_left_ = 0;
  Ring<Part> parts_;
  Part part_{};
  Ring<Row> rows_;
  Row row_{};
  bool held_ = false;
  unsigned word_ = 0;
};

}  // namespace halfdome::timing::matmul
