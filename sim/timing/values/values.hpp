// Commands whose values are computed here, not by the golden model in Python.
#pragma once

#include "gather.hpp"
#include "moves.hpp"
#include "products.hpp"

namespace halfdome::timing::values {

inline bool computes(Opcode opcode) {
  switch (opcode) {
    case Opcode::COPY:
    case Opcode::TRANSPOSE:
    case Opcode::GATHER:
    case Opcode::MATMUL:
    case Opcode::BATCH_MATMUL:
    case Opcode::CONV2D: return true;
    default: return false;
  }
}

// What a checked command does to `memory`, which is by card address. Without values only what the
// time of others may depend on: moves, and whether a GATHER finds its rows.
inline Result compute(const Parameters& p, const Command& command, uint8_t* memory, bool with_values) {
  switch (command.opcode()) {
    case Opcode::COPY: copy(command, memory); return {};
    case Opcode::TRANSPOSE: transpose(command, memory); return {};
    case Opcode::GATHER: return gather(p, command, memory, with_values);
    default: return with_values ? product(p, command, memory) : Result{};
  }
}

}  // namespace halfdome::timing::values
