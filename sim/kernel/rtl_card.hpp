// A card of hardware: a model with pins, every cycle of it.
#pragma once

#include "../dram/axi.hpp"
#include "../fabric/tlp_port.hpp"
#include "card.hpp"
#include "card_model.hpp"
#include "pin_log.hpp"

namespace halfdome {

class RtlCard : public Card {
 public:
  RtlCard(const CardModel& model, Endpoint&& link, Dram&& memory, unsigned bus_bytes,
          const TlpPins& tlp, const AxiPins& axi, std::vector<Pin>&& outputs)
      : Card(std::move(link), std::move(memory)), model_(model), tlp_(endpoint, bus_bytes, tlp),
        axi_(dram, axi), outputs_(std::move(outputs)) {
    for (const Pin& pin : outputs_) row_bytes_ += (pin.width + 7) / 8;
  }

  std::vector<uint8_t> trace;  // every output pin in every recorded cycle, whole bytes
  PinLog inputs;

  // Starts or ends recording with the next cycle.
  void record(bool on) {
    step(reached_);
    recording_ = on;
    recorded_ = 0;
  }

 private:
  // Looking whether a card repeats itself costs several cycles: look when it has been quiet for
  // this many cycles, and then each time after twice as many.
  static constexpr int64_t FIRST_LOOK = 16;

  bool step(int64_t end) override { return timing ? step<true>(end) : step<false>(end); }

  bool asleep_until(int64_t end) const override {
    return idle_ && !recording_ && still_until() >= end;
  }

  int64_t still_until() const {
    return std::min(tlp_.still_until(cycle_), axi_.still_until(cycle_));
  }

  template <bool timed>
  bool step(int64_t end) {
    for (; cycle_ < end; ++cycle_) {
      const int64_t still = model_.idle_period ? still_until() : cycle_;
      if (idle_) skip(std::min(end, still));
      tlp_.drive(cycle_);
      axi_.drive();
      if (inputs.on()) inputs.note(cycle_);
      const int64_t settling = timed ? now_ns() : 0;
      if (model_.settle(model_.context)) return false;
      if (model_.idle_period) watch(still > cycle_ && !tlp_.asked() && !axi_.asked());
      if (timed) model_ns += now_ns() - settling;
      ++evaluated_;
      if (recording_) record_outputs();
      tlp_.step(cycle_);
      axi_.step(cycle_);
      const int64_t clocking = timed ? now_ns() : 0;
      if (model_.edge) model_.edge(model_.context);
      if (timed) model_ns += now_ns() - clocking;
    }
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
  TlpPort tlp_;
  AxiPort axi_;
  std::vector<Pin> outputs_;
  size_t row_bytes_ = 0;  // of a recorded cycle
  bool recording_ = false;
  int64_t recorded_ = 0;  // cycles since recording began
  int64_t cycle_ = 0;  // evaluated or passed over
  int64_t quiet_ = 0, look_at_ = FIRST_LOOK;
  bool idle_ = false;
};

}  // namespace halfdome
