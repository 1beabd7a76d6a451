// The card's arithmetic on numbers, as `sim/golden/floats.py` has it on arrays.
//
// Every step rounds once, to nearest with ties to even: compiled without contraction. A NaN is made
// the canonical one when it is stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace halfdome::timing::values {

template <typename T>
T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void store(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  float x;
  std::memcpy(&x, &low, sizeof x);
  return x;
}

inline uint32_t canonical(float x) { return std::isnan(x) ? 0x7FC00000 : bits_of(x); }

// float32 of binary16.
inline float widen(uint16_t half) {
  const uint32_t sign = uint32_t{half} >> 15 << 31, magnitude = half & 0x7FFF;
  if (magnitude >= 0x7C00) return float_of(sign | 0x7F800000 | (magnitude & 0x3FF) << 13);
  if (magnitude >= 0x400) return float_of(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

// binary16 of float32.
inline uint16_t narrow(float x) {
  if (std::isnan(x)) return 0x7E00;
  const uint32_t bits = bits_of(x), sign = bits >> 31 << 15, magnitude = bits & 0x7FFFFFFF;
  uint32_t half;
  if (magnitude >= 0x477FF000) {  // halfway from the largest number to the next
    half = 0x7C00;
  } else if (magnitude < 0x38800000) {  // a multiple of 2**-24
    half = static_cast<uint32_t>(std::nearbyint(float_of(magnitude) * 0x1p24f));
  } else {
    half = (magnitude + 0xFFF + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

// `saturate(round(x * multiplier) + zero_point)`, at least `floor`; NaN counts as 0.
inline uint8_t quantise(float x, float multiplier, int zero_point, int floor = 0) {
  const float product = x * multiplier;
  if (std::isnan(product)) return static_cast<uint8_t>(std::max(floor, zero_point));
  const float near = std::min(std::max(std::nearbyint(product), -512.0f), 512.0f);
  return static_cast<uint8_t>(std::max(floor, std::min(static_cast<int>(near) + zero_point, 255)));
}

// What turns a byte of an int8 into that of the uint8 which is 128 more, and back.
constexpr unsigned INT8_OFFSET = 128;

}  // namespace halfdome::timing::values
