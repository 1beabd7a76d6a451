// What a COPY and a TRANSPOSE do: `_move` and `_transpose` of sim/golden/card.py.
#pragma once

#include <cstring>

#include "../engine.hpp"

namespace halfdome::timing::values {

// Row after row, in place too.
inline void copy(const Command& command, uint8_t* memory) {
  namespace f = copy_fields;
  const uint64_t bytes = command[f::row_bytes];
  const uint8_t* from = memory + command[f::source];
  uint8_t* to = memory + command[f::destination];
  for (uint64_t row = 0; row < command[f::rows]; ++row) {
    std::memmove(to + row * command[f::destination_stride], from + row * command[f::source_stride], bytes);
  }
}

inline void transpose(const Command& command, uint8_t* memory) {
  namespace f = transpose_fields;
  const uint64_t rows = command[f::rows], columns = command[f::columns], size = command[f::element_bytes];
  const uint64_t from_stride = command[f::source_stride], to_stride = command[f::destination_stride];
  for (uint64_t batch = 0; batch < command[f::batches]; ++batch) {
    const uint8_t* from = memory + command[f::source] + batch * command[f::source_batch_stride];
    uint8_t* to = memory + command[f::destination] + batch * command[f::destination_batch_stride];
    for (uint64_t row = 0; row < rows; ++row) {
      for (uint64_t column = 0; column < columns; ++column) {
        std::memcpy(to + column * to_stride + row * size, from + row * from_stride + column * size, size);
      }
    }
  }
}

}  // namespace halfdome::timing::values
