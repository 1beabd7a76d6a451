// The C interface of the timing card, for ctypes (sim/timing/card.py): a maker of cards for a world.
#include "timing_card.hpp"

using namespace halfdome;

#pragma GCC visibility push(default)
extern "C" {

// What a card is made of; `memory` holds DRAM and then the scratchpads. `left_out` is as large, and null
// if values are computed.
struct TimingSettings {
  const timing::Parameters* parameters;
  uint8_t* memory;
  uint8_t* left_out;
  timing::SemanticsCalls calls;
};

// See `CardMaker` of sim/kernel/world.hpp.
Card* timing_card(void* context, int64_t number, Endpoint&& link, const DramSettings& dram) {
  const auto& settings = *static_cast<const TimingSettings*>(context);
  return new timing::TimingCard(*settings.parameters, std::move(link), dram, settings.memory,
                                settings.left_out, settings.calls, number);
}

}  // extern "C"
#pragma GCC visibility pop
