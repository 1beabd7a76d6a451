// Finds out that a compiled component repeats itself, and passes over the repetitions.
//
// The next state is a function of state and inputs. If all of it is what it was some cycles before,
// inputs included, the component will go on like that until an input changes. Counts of cycles are
// left out of the comparison: they grow by the same step in every repetition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace halfdome {

class Idle {
 public:
  struct Count {
    uint64_t* word;
    unsigned bits;
  };

  Idle(const void* state, size_t bytes, std::vector<Count> counts)
      : state_(static_cast<const uint8_t*>(state)), bytes_(bytes), counts_(std::move(counts)) {
    std::sort(counts_.begin(), counts_.end(),
              [](const Count& a, const Count& b) { return a.word < b.word; });
  }

  void remember() {
    seen_.assign(state_, state_ + bytes_);
    steps_.clear();
    for (const Count& count : counts_) steps_.push_back(*count.word);
  }

  // Whether the state is the remembered one, but for the counts.
  bool repeated() {
    size_t start = 0;
    for (const Count& count : counts_) {
      const auto end = static_cast<size_t>(reinterpret_cast<const uint8_t*>(count.word) - state_);
      if (!same(start, end)) return false;
      start = end + sizeof *count.word;
    }
    if (!same(start, bytes_)) return false;
    for (size_t i = 0; i < counts_.size(); ++i) steps_[i] = *counts_[i].word - steps_[i];
    return true;
  }

  // Adds to the counts what so many repetitions add. What is computed from them is old until the
  // next clock edge: one cycle has to be evaluated before anything may happen.
  void advance(int64_t repetitions) {
    for (size_t i = 0; i < counts_.size(); ++i) {
      const uint64_t mask = ~uint64_t{0} >> (64 - counts_[i].bits);
      *counts_[i].word = (*counts_[i].word + static_cast<uint64_t>(repetitions) * steps_[i]) & mask;
    }
  }

 private:
  bool same(size_t start, size_t end) const {
    return std::memcmp(state_ + start, seen_.data() + start, end - start) == 0;
  }

  const uint8_t* state_;
  size_t bytes_;
  std::vector<Count> counts_;
  std::vector<uint8_t> seen_;
  std::vector<uint64_t> steps_;  // of each count from one repetition to the next, once found
};

}  // namespace halfdome
