// Commands whose values are computed here, not by the golden model in Python.
#pragma once

#include "elements.hpp"
#include "gather.hpp"
#include "moves.hpp"
#include "products.hpp"

namespace halfdome::timing::values {

inline bool computes(const Command& command) {
  switch (command.opcode()) {
    case Opcode::AFFINE:
    case Opcode::ADD:
    case Opcode::MULTIPLY:
    case Opcode::CLAMP: return is_plain(command);
    case Opcode::POOL:
    case Opcode::AVERAGE:
    case Opcode::DEPTHWISE: return false;
    default: return true;
  }
}

// What a checked command that is computed here does to `memory`, which is by card address.
inline Result compute(const Parameters& p, const Command& command, uint8_t* memory) {
  switch (command.opcode()) {
    case Opcode::COPY: copy(command, memory); return {};
    case Opcode::TRANSPOSE: transpose(command, memory); return {};
    case Opcode::GATHER: return gather(p, command, memory, true);
    case Opcode::AFFINE:
    case Opcode::ADD:
    case Opcode::MULTIPLY:
    case Opcode::CLAMP: element_wise(command, memory); return {};
    case Opcode::QUANTISE: quantise(command, memory); return {};
    case Opcode::LOOKUP: lookup(command, memory); return {};
    case Opcode::ADD_QUANTISED:
    case Opcode::MULTIPLY_QUANTISED: pairs(command, memory); return {};
    default: return product(p, command, memory);
  }
}

}  // namespace halfdome::timing::values
