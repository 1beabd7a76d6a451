// What a world asks of a card, whatever simulates it.
#pragma once

#include <cstdint>

namespace halfdome {

// A simulated card. In each cycle the world drives the input pins, calls `settle`, samples the
// output pins and calls `edge`. A model whose `settle` also performs the previous cycle's clock
// edge has no `edge`. `settle` returns 0, or anything else to stop the simulation.
//
// A model with a `idle_period` (else 0) says, after `settle`, whether its state was `repeated` since
// it was told to `remember` it; then `advance` takes it over so many periods, before a `settle`.
struct CardModel {
  void* context;
  int (*settle)(void* context);
  void (*edge)(void* context);
  void (*remember)(void* context);
  int (*repeated)(void* context);
  void (*advance)(void* context, int64_t periods);
  int64_t idle_period;
};

}  // namespace halfdome
