// The input pins of a card whenever they change: enough to repeat what it did, alone.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "../pin.hpp"

namespace halfdome {

class PinLog {
 public:
  PinLog() = default;
  // Keeps up to `most` bytes of `pins`.
  PinLog(std::vector<Pin>&& pins, size_t most) : pins_(std::move(pins)), most_(most), on_(true) {
    for (const Pin& pin : pins_) row_ += bytes_of(pin);
    last_.resize(row_);
  }

  bool on() const { return on_; }
  // Whether some change did not fit: then nothing can be repeated.
  bool overflowed() const { return overflowed_; }

  // The pins of `cycle` are driven.
  void note(int64_t cycle) {
    const uint8_t* last = last_.data();
    bool same = !cycles_.empty();
    for (size_t i = 0; same && i < pins_.size(); ++i) {
      same = !std::memcmp(last, pins_[i].data, bytes_of(pins_[i]));
      last += bytes_of(pins_[i]);
    }
    if (same || overflowed_) return;
    if (values_.size() + row_ > most_) {
      overflowed_ = true;
      return;
    }
    uint8_t* out = last_.data();
    for (const Pin& pin : pins_) {
      std::memcpy(out, pin.data, bytes_of(pin));
      out += bytes_of(pin);
    }
    cycles_.push_back(cycle);
    values_.insert(values_.end(), last_.begin(), last_.end());
  }

  // Drives `pins`, those of another model of the same card, as they were in every cycle before
  // `end`; `step` simulates one of them and returns false to stop.
  template <typename Step>
  bool repeat(const Pin* pins, int64_t end, Step step) const {
    size_t next = 0;
    for (int64_t cycle = 0; cycle < end; ++cycle) {
      if (next < cycles_.size() && cycles_[next] == cycle) {
        const uint8_t* in = values_.data() + next * row_;
        for (size_t i = 0; i < pins_.size(); ++i) {
          std::memcpy(pins[i].data, in, bytes_of(pins_[i]));
          in += bytes_of(pins_[i]);
        }
        ++next;
      }
      if (!step()) return false;
    }
    return true;
  }

 private:
  static size_t bytes_of(const Pin& pin) { return (pin.width + 7) / 8; }

  std::vector<Pin> pins_;
  size_t most_ = 0, row_ = 0;
  bool on_ = false, overflowed_ = false;
  std::vector<uint8_t> last_, values_;
  std::vector<int64_t> cycles_;
};

}  // namespace halfdome
