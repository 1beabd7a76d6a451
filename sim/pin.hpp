// A port of a card as simulators see it: little-endian storage of 1, 2, 4, 8 or 4n bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace halfdome {

struct Pin {
  uint8_t* data = nullptr;
  uint32_t width = 0;  // bits

  bool high() const { return *data & 1; }

  // The low 64 bits.
  uint64_t get() const {
    if (width <= 8) return *data;
    if (width <= 16) return load<uint16_t>();
    if (width <= 32) return load<uint32_t>();
    return load<uint64_t>();
  }

  // For pins of at most 64 bits; `value` must fit.
  void set(uint64_t value) {
    if (width <= 8) *data = static_cast<uint8_t>(value);
    else if (width <= 16) store(static_cast<uint16_t>(value));
    else if (width <= 32) store(static_cast<uint32_t>(value));
    else store(value);
  }

 private:
  template <typename T>
  T load() const {
    T value;
    std::memcpy(&value, data, sizeof value);
    return value;
  }
  template <typename T>
  void store(T value) {
    std::memcpy(data, &value, sizeof value);
  }
};

}  // namespace halfdome
