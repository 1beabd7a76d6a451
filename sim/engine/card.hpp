// One card of a world: the card itself behind its pins, its DRAM and its end of the link.
#pragma once

#include <chrono>
#include <string>

#include "../dram/dram.hpp"
#include "../fabric/endpoint.hpp"
#include "pin_log.hpp"

namespace halfdome {

// A simulated card. In each cycle the world drives the input pins, calls `settle`, samples the
// output pins and calls `edge`. A model whose `settle` also performs the previous cycle's clock
// edge has no `edge`. `settle` returns 0, or anything else to stop the simulation.
struct CardModel {
  void* context;
  int (*settle)(void* context);
  void (*edge)(void* context);
};

class Card {
 public:
  Card(const CardModel& model, Endpoint&& link, Dram&& memory, std::vector<Pin>&& outputs)
      : endpoint(std::move(link)), dram(std::move(memory)), model_(model),
        outputs_(std::move(outputs)) {}

  Endpoint endpoint;
  Dram dram;
  std::vector<uint8_t> trace;  // every output pin in every recorded cycle, whole bytes
  bool recording = false;
  PinLog inputs;
  bool timing = false;
  int64_t model_ns = 0, total_ns = 0;  // wall time while `timing`: of the model, of everything here

  // Simulates up to cycle `end`. False if the model stopped the simulation.
  bool run(int64_t end) { return timing ? step<true>(end) : step<false>(end); }

  int64_t cycle() const { return cycle_; }

  std::string state() const {
    return "cycle " + std::to_string(cycle_) + ", " +
           std::to_string(endpoint.waiting_to_receive()) + " packets to receive, " +
           std::to_string(endpoint.waiting_to_send()) + " to send, " +
           std::to_string(dram.reads_in_flight()) + " DRAM reads and " +
           std::to_string(dram.writes_in_flight()) + " writes in flight";
  }

 private:
  static int64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  }

  template <bool timed>
  bool step(int64_t end) {
    const int64_t entered = timed ? now_ns() : 0;
    for (; cycle_ < end; ++cycle_) {
      endpoint.drive(cycle_);
      dram.drive();
      if (inputs.on()) inputs.note(cycle_);
      const int64_t settling = timed ? now_ns() : 0;
      if (model_.settle(model_.context)) return false;
      if (timed) model_ns += now_ns() - settling;
      if (recording) record();
      endpoint.step(cycle_);
      dram.step(cycle_);
      const int64_t clocking = timed ? now_ns() : 0;
      if (model_.edge) model_.edge(model_.context);
      if (timed) model_ns += now_ns() - clocking;
    }
    if (timed) total_ns += now_ns() - entered;
    return true;
  }

  void record() {
    for (const Pin& pin : outputs_) {
      trace.insert(trace.end(), pin.data, pin.data + (pin.width + 7) / 8);
    }
  }

  CardModel model_;
  std::vector<Pin> outputs_;
  int64_t cycle_ = 0;
};

}  // namespace halfdome
