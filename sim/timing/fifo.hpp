// When words can leave a buffered FIFO (Amaranth's SyncFIFOBuffered).
#pragma once

#include <algorithm>
#include <cstdint>

#include "../ring.hpp"

namespace halfdome::timing {

// A word can be read two cycles after it was written, and one cycle after the word before was read.
template <typename T>
class Fifo {
 public:
  void write(int64_t cycle, T value) { items_.push_back({cycle + 2, std::move(value)}); }
  bool readable(int64_t cycle) const { return !items_.empty() && cycle >= readable_at(); }
  // The cycle from which on a word can be read; only while not empty.
  int64_t readable_at() const { return std::max(items_.front().cycle, free_at_); }
  const T& front() const { return items_.front().value; }
  T read(int64_t cycle) {
    T value = std::move(items_.front().value);
    items_.pop_front();
    free_at_ = cycle + 1;
    return value;
  }
  size_t level() const { return items_.size(); }
  // As hardware sees it in `cycle`: what is written in that cycle counts from the next one on.
  size_t level(int64_t cycle) const {
    return items_.size() - (!items_.empty() && items_.back().cycle == cycle + 2);
  }
  // Whether hardware of that depth takes one more in `cycle`, in which nothing has been read yet:
  // one entry is the output's, and a word is there only when it can be read.
  bool room(int64_t cycle, int64_t depth) const {
    return level() - readable(cycle) < static_cast<size_t>(depth) - 1;
  }
  bool empty() const { return items_.empty(); }
  void clear() { items_.clear(); }

 private:
  struct Item {
    int64_t cycle;
    T value;
  };
  Ring<Item> items_;
  int64_t free_at_ = 0;
};

}  // namespace halfdome::timing
