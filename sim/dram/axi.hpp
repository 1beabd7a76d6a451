// The AXI4 pins of a card, in front of its DRAM. All outputs are registered.
#pragma once

#include "../pin.hpp"
#include "dram.hpp"

namespace halfdome {

struct AxiPins {
  Pin awid, awaddr, awlen, awsize, awburst, awvalid, awready;
  Pin wdata, wstrb, wlast, wvalid, wready;
  Pin bid, bresp, bvalid, bready;
  Pin arid, araddr, arlen, arsize, arburst, arvalid, arready;
  Pin rid, rdata, rresp, rlast, rvalid, rready;
};

class AxiPort {
 public:
  AxiPort(Dram& dram, const AxiPins& pins) : dram_(dram), pins_(pins) {}

  // Drives the card's inputs of this cycle.
  void drive() {
    if (!dirty_) return;
    dirty_ = false;
    pins_.arready.set(dram_.takes_reads());
    pins_.awready.set(dram_.takes_writes());
    pins_.wready.set(dram_.takes_data());
    pins_.bvalid.set(dram_.response_valid());
    if (dram_.response_valid()) {
      pins_.bid.set(dram_.response_id());
      pins_.bresp.set(dram_.response());
    }
    pins_.rvalid.set(dram_.beat_valid());
    if (dram_.beat_valid() && !shown_) {
      shown_ = true;  // a refused beat stays as it is, whatever is written meanwhile
      pins_.rid.set(dram_.beat_id());
      pins_.rlast.set(dram_.beat_last());
      pins_.rresp.set(dram_.beat_response());
      dram_.copy_beat(pins_.rdata.data);
    }
  }

  // Samples the card's settled outputs of `cycle`.
  void step(int64_t cycle) {
    const bool ar = pins_.arvalid.high(), aw = pins_.awvalid.high(), w = pins_.wvalid.high();
    if (!(ar || aw || w) && dram_.quiet(cycle)) return;
    dirty_ = true;
    const bool read = ar && dram_.takes_reads(), write = aw && dram_.takes_writes();
    const bool data = w && dram_.takes_data();
    if (ar != read || aw != write || w != data) dram_.stall();
    if (dram_.beat_valid() && pins_.rready.high()) {
      dram_.take_beat();
      shown_ = false;
    }
    if (dram_.response_valid() && pins_.bready.high()) dram_.take_response();
    if (read) {
      dram_.read({pins_.arid.get(), pins_.araddr.get(), beats(pins_.arlen), pins_.arsize.get(),
                  pins_.arburst.get()});
    }
    if (write) {
      dram_.write({pins_.awid.get(), pins_.awaddr.get(), beats(pins_.awlen), pins_.awsize.get(),
                   pins_.awburst.get()});
    }
    if (data) dram_.write_data(pins_.wdata.data, pins_.wstrb.data, pins_.wlast.high());
    dram_.advance(cycle);
  }

  // The first cycle, from `cycle` on, in which the card's inputs may change without its doing.
  int64_t still_until(int64_t cycle) const { return dirty_ ? cycle : dram_.still_until(cycle); }
  // Whether the card asks for anything.
  bool asked() const {
    return pins_.arvalid.high() || pins_.awvalid.high() || pins_.wvalid.high();
  }

 private:
  static unsigned beats(const Pin& length) { return static_cast<unsigned>(length.get()) + 1; }

  Dram& dram_;
  AxiPins pins_;
  bool dirty_ = true, shown_ = false;
};

}  // namespace halfdome
