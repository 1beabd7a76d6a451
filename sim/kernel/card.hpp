// One card of a world: the card itself behind its pins, its DRAM and its end of the link.
#pragma once

#include <chrono>
#include <string>

#include "../dram/dram.hpp"
#include "../fabric/endpoint.hpp"
#include "card_model.hpp"
#include "pin_log.hpp"

namespace halfdome {

class Card {
 public:
  Card(const CardModel& model, Endpoint&& link, Dram&& memory, std::vector<Pin>&& outputs)
      : endpoint(std::move(link)), dram(std::move(memory)), model_(model),
        outputs_(std::move(outputs)) {
    for (const Pin& pin : outputs_) row_bytes_ += (pin.width + 7) / 8;
  }

  Endpoint endpoint;
  Dram dram;
  std::vector<uint8_t> trace;  // every output pin in every recorded cycle, whole bytes
  PinLog inputs;
  bool timing = false;
  int64_t model_ns = 0, total_ns = 0;  // wall time while `timing`: of the model, of everything here

  // Simulates up to cycle `end`. False if the model stopped the simulation.
  bool run(int64_t end) {
    const bool going = timing ? step<true>(end) : step<false>(end);
    reached_ = end;
    return going;
  }

  // Passes over the cycles to `end` if nothing happens to the card before; false if it must run.
  // The cycles are made up for when something does.
  bool skip_idle(int64_t end) {
    if (!idle_ || recording_ || still_until() < end) return false;
    reached_ = end;
    return true;
  }
  bool reached(int64_t cycle) const { return reached_ == cycle; }

  // Starts or ends recording with the next cycle.
  void record(bool on) {
    step<false>(reached_);
    recording_ = on;
    recorded_ = 0;
  }

  int64_t cycle() const { return reached_; }
  int64_t evaluated() const { return evaluated_; }

  std::string state() const {
    return "cycle " + std::to_string(reached_) + ", " +
           std::to_string(endpoint.waiting_to_receive()) + " packets to receive, " +
           std::to_string(endpoint.waiting_to_send()) + " to send, " +
           std::to_string(dram.reads_in_flight()) + " DRAM reads and " +
           std::to_string(dram.writes_in_flight()) + " writes in flight";
  }

 private:
  // Looking whether a card repeats itself costs several cycles: look when it has been quiet for
  // this many cycles, and then each time after twice as many.
  static constexpr int64_t FIRST_LOOK = 16;

  static int64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  }

  int64_t still_until() const {
    return std::min(endpoint.still_until(cycle_), dram.still_until(cycle_));
  }

  template <bool timed>
  bool step(int64_t end) {
    const int64_t entered = timed ? now_ns() : 0;
    for (; cycle_ < end; ++cycle_) {
      const int64_t still = model_.idle_period ? still_until() : cycle_;
      if (idle_) skip(std::min(end, still));
      endpoint.drive(cycle_);
      dram.drive();
      if (inputs.on()) inputs.note(cycle_);
      const int64_t settling = timed ? now_ns() : 0;
      if (model_.settle(model_.context)) return false;
      if (model_.idle_period) watch(still > cycle_ && !endpoint.asked() && !dram.asked());
      if (timed) model_ns += now_ns() - settling;
      ++evaluated_;
      if (recording_) record_outputs();
      endpoint.step(cycle_);
      dram.step(cycle_);
      const int64_t clocking = timed ? now_ns() : 0;
      if (model_.edge) model_.edge(model_.context);
      if (timed) model_ns += now_ns() - clocking;
    }
    if (timed) total_ns += now_ns() - entered;
    return true;
  }

  // Told in every evaluated cycle whether the card and what is around it leave each other alone.
  void watch(bool quiet) {
    if (!quiet) {
      quiet_ = 0;
      look_at_ = FIRST_LOOK;
      idle_ = false;
    } else if (!idle_) {
      ++quiet_;
      if (quiet_ == look_at_) {
        model_.remember(model_.context);
      } else if (quiet_ == look_at_ + model_.idle_period) {
        idle_ = model_.repeated(model_.context);
        look_at_ = 2 * quiet_;
      }
    }
  }

  // Passes over whole periods before `end`, but for one cycle, as `Idle::advance` wants it.
  void skip(int64_t end) {
    const int64_t period = model_.idle_period, periods = (end - 1 - cycle_) / period;
    if (periods <= 0 || (recording_ && recorded_ < period)) return;
    model_.advance(model_.context, periods);
    cycle_ += periods * period;
    if (!recording_) return;
    const size_t bytes = row_bytes_ * static_cast<size_t>(period);
    for (int64_t i = 0; i < periods; ++i) {
      trace.resize(trace.size() + bytes);
      std::memcpy(trace.data() + trace.size() - bytes, trace.data() + trace.size() - 2 * bytes,
                  bytes);
    }
    recorded_ += periods * period;
  }

  void record_outputs() {
    for (const Pin& pin : outputs_) {
      trace.insert(trace.end(), pin.data, pin.data + (pin.width + 7) / 8);
    }
    ++recorded_;
  }

  CardModel model_;
  std::vector<Pin> outputs_;
  size_t row_bytes_ = 0;  // of a recorded cycle
  bool recording_ = false;
  int64_t recorded_ = 0;  // cycles since recording began
  int64_t cycle_ = 0;     // evaluated or passed over
  int64_t reached_ = 0;   // simulated as others see it: an idle card lags behind
  int64_t evaluated_ = 0;
  int64_t quiet_ = 0, look_at_ = FIRST_LOOK;
  bool idle_ = false;
};

}  // namespace halfdome
