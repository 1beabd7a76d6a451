// Commands whose values are computed here, not by the golden model in Python.
#pragma once

#include "gather.hpp"
#include "products.hpp"

namespace halfdome::timing::values {

inline bool computes(Opcode opcode) {
  return opcode == Opcode::GATHER || opcode == Opcode::MATMUL || opcode == Opcode::BATCH_MATMUL ||
         opcode == Opcode::CONV2D;
}

// What a checked command does to `memory`, which is by card address.
inline Result compute(const Parameters& p, const Command& command, uint8_t* memory) {
  return command.opcode() == Opcode::GATHER ? gather(p, command, memory) : product(p, command, memory);
}

}  // namespace halfdome::timing::values
