// An engine that the timing card has no model of yet: its commands are refused before they come here.
#pragma once

#include "engine.hpp"

namespace halfdome::timing {

class VacantEngine : public Engine {
 public:
  bool ready() const override { return true; }
  void take(const Command&, int64_t) override {}
  bool done() const override { return false; }
  void finish(int64_t) override {}
  void offer(int64_t) override {}
  int64_t clock(int64_t) override { return NEVER; }
};

}  // namespace halfdome::timing
