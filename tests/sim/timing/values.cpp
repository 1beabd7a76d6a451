// The values of the timing card alone, for ctypes (tests/sim/timing/test_values.py).
#include "timing/values/left_out.hpp"
#include "timing/values/values.hpp"

using namespace halfdome::timing;

// Returns status | detail << 8.
#pragma GCC visibility push(default)
extern "C" uint64_t compute(const Parameters* parameters, const uint8_t* descriptor, uint8_t* memory) {
  Command command;
  std::memcpy(command.bytes, descriptor, DESCRIPTOR_BYTES);
  const Result result = values::compute(*parameters, command, memory);
  return static_cast<uint64_t>(result.status) | uint64_t{result.detail} << 8;
}

// Sets to 1 what the command would write.
extern "C" void leave_out(const Parameters* parameters, const uint8_t* descriptor, uint8_t* left_out) {
  Command command;
  std::memcpy(command.bytes, descriptor, DESCRIPTOR_BYTES);
  values::each_row(*parameters, command, [&](uint64_t address, uint64_t bytes) {
    std::memset(left_out + address, 1, bytes);
  });
}
#pragma GCC visibility pop
