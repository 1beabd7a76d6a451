// Bytes of memory as bus words. Words and lines are powers of two, so nothing is divided.
#pragma once

#include <cstdint>

#include "card.hpp"

namespace halfdome::timing {

// The number of the word in which a byte lies.
inline uint64_t word_at(const Parameters& p, uint64_t address) {
  return address >> __builtin_ctzll(static_cast<uint64_t>(p.bus_bytes));
}
// Where the byte lies in its word.
inline uint64_t place_in_word(const Parameters& p, uint64_t address) {
  return address & static_cast<uint64_t>(p.bus_bytes - 1);
}
// Words that hold so many bytes from the start of one.
inline uint64_t words_of(const Parameters& p, uint64_t bytes) {
  return word_at(p, bytes + static_cast<uint64_t>(p.bus_bytes) - 1);
}
// Where the memory line around `address` ends cuts a run of words.
inline unsigned words_to_line_end(const Parameters& p, uint64_t address) {
  const auto line = static_cast<uint64_t>(p.burst_words);
  return static_cast<unsigned>(line - (word_at(p, address) & (line - 1)));
}

}  // namespace halfdome::timing
