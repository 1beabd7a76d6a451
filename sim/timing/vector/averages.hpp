// Means over windows (hdl/vector/averages.py, mean_adder.py and mean.py).
#pragma once

#include "sums.hpp"

namespace halfdome::timing::vector {

// What of an AVERAGE lies between its source and the packer.
class WindowAverages {
 public:
  explicit WindowAverages(const Parameters& p)
      : p_(p), totals_(p, p.vector_mean_adder_latency, p.vector_mean_delay) {}

  void start(int64_t cycle) {
    known_ = cycle + p_.vector_inverse_latency;
    came_ = false;
  }
  // The sum of a group of this place is not back yet.
  bool returns(unsigned place) const { return came_ && place == place_; }
  bool accepts(const Tap& tap, unsigned place) const {
    return !returns(place) && (!tap.last || totals_.has_room());
  }
  const Totals& totals() const { return totals_; }
  // When the scaler is ready.
  int64_t known() const { return known_; }

  // `tap`: that of the group which comes, if one does; `place`: its number in the tap.
  void clock(int64_t cycle, bool enable, const Tap* tap, unsigned place) {
    totals_.clock(enable, cycle >= known_, tap && tap->last, false);
    if (!enable) return;
    came_ = tap;
    place_ = place;
  }

 private:
  const Parameters& p_;
  Totals totals_;
  int64_t known_ = 0;
  bool came_ = false;  // a group, in the enabled cycle before
  unsigned place_ = 0;
};

}  // namespace halfdome::timing::vector
