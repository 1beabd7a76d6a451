// One card of a world, with its DRAM and its end of the link, whatever simulates it.
#pragma once

#include <chrono>
#include <string>

#include "../dram/dram.hpp"
#include "../fabric/endpoint.hpp"

namespace halfdome {

class Card {
 public:
  Card(Endpoint&& link, Dram&& memory) : endpoint(std::move(link)), dram(std::move(memory)) {}
  Card(const Card&) = delete;
  virtual ~Card() = default;

  Endpoint endpoint;
  Dram dram;
  bool timing = false;
  int64_t model_ns = 0, total_ns = 0;  // wall time while `timing`: of the model, of everything here

  // Simulates up to cycle `end`. False if the model stopped the simulation.
  bool run(int64_t end) {
    const int64_t entered = timing ? now_ns() : 0;
    const bool going = step(end);
    if (timing) total_ns += now_ns() - entered;
    reached_ = end;
    return going;
  }

  // Passes over the cycles to `end` if nothing happens to the card before; false if it must run.
  // The cycles are made up for when something does.
  bool skip_idle(int64_t end) {
    if (!asleep_until(end)) return false;
    reached_ = end;
    return true;
  }
  bool reached(int64_t cycle) const { return reached_ == cycle; }

  int64_t cycle() const { return reached_; }
  int64_t evaluated() const { return evaluated_; }

  std::string state() const {
    return "cycle " + std::to_string(reached_) + ", " +
           std::to_string(endpoint.waiting_to_receive()) + " packets to receive, " +
           std::to_string(endpoint.waiting_to_send()) + " to send, " +
           std::to_string(dram.reads_in_flight()) + " DRAM reads and " +
           std::to_string(dram.writes_in_flight()) + " writes in flight";
  }

 protected:
  static int64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  }

  // Simulates every cycle before `end` that has not been.
  virtual bool step(int64_t end) = 0;
  // Whether nothing happens before cycle `end`.
  virtual bool asleep_until(int64_t end) const = 0;

  int64_t reached_ = 0;    // simulated as others see it: an idle card lags behind
  int64_t evaluated_ = 0;  // cycles in which the model did something
};

}  // namespace halfdome
