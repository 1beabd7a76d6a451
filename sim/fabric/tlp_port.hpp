// The packet streams of a card as pins, in front of its end of the link: see hdl/pcie/tlp.py.
#pragma once

#include "../pin.hpp"
#include "endpoint.hpp"

namespace halfdome {

struct TlpPins {
  Pin rx_payload, rx_valid, rx_ready, rx_np_ok, tx_payload, tx_valid, tx_ready;
};

class TlpPort {
 public:
  TlpPort(Endpoint& endpoint, unsigned bus_bytes, const TlpPins& pins)
      : endpoint_(endpoint), bus_(bus_bytes), pins_(pins) {}

  // Drives the card's inputs of `cycle`.
  void drive(int64_t cycle) {
    endpoint_.np_ok = pins_.rx_np_ok.high();
    endpoint_.begin(cycle);
    if (!shown_ || endpoint_.receiving() != showing_) {
      shown_ = true;
      showing_ = endpoint_.receiving();
      pins_.rx_valid.set(showing_);
      if (showing_) show_beat();
    }
    if (endpoint_.ready() != ready_) pins_.tx_ready.set(endpoint_.ready());
    ready_ = endpoint_.ready();
  }

  // Samples the card's settled outputs of `cycle`.
  void step(int64_t cycle) {
    if (showing_ && pins_.rx_ready.high()) {
      shown_ = false;
      endpoint_.take_beat(cycle);
    }
    if (ready_ && pins_.tx_valid.high()) take_beat(cycle);
  }

  // The first cycle, from `cycle` on, in which the card's inputs may change without its doing.
  int64_t still_until(int64_t cycle) const {
    return shown_ ? endpoint_.still_until(cycle) : cycle;
  }
  // Whether the card hands over a beat.
  bool asked() const { return pins_.tx_valid.high(); }

 private:
  void show_beat() {
    const Tlp& tlp = endpoint_.received();
    uint8_t* out = pins_.rx_payload.data;
    std::memset(out, 0, bus_);
    unsigned flags = endpoint_.last_beat();
    if (endpoint_.beat() == 0) {
      std::memcpy(out, tlp.header, HEADER_BYTES);
      flags |= endpoint_.bar() << 1;
    } else {
      const size_t start = static_cast<size_t>(endpoint_.beat() - 1) * bus_;
      std::memcpy(out, tlp.payload.data() + start,
                  std::min<size_t>(bus_, tlp.payload.size() - start));
    }
    out[bus_] = static_cast<uint8_t>(flags);  // `last`, then the three bits of `bar`
  }

  void take_beat(int64_t cycle) {
    const uint8_t* in = pins_.tx_payload.data;
    if (partial_.size() < Endpoint::KEPT_BYTES) partial_.insert(partial_.end(), in, in + bus_);
    if (!(in[bus_] & 1)) {
      endpoint_.hold_beat();
      return;
    }
    Tlp tlp;
    std::memcpy(tlp.header, partial_.data(), HEADER_BYTES);
    const size_t payload = tlp.has_data() ? tlp.length_bytes() : 0;
    const size_t beats = 1 + (payload + bus_ - 1) / bus_;
    if (tlp.known() && partial_.size() == beats * bus_) {
      tlp.payload.assign(partial_.begin() + bus_,
                         partial_.begin() + static_cast<std::ptrdiff_t>(bus_ + payload));
      endpoint_.end_packet(cycle, std::move(tlp));
    } else {
      endpoint_.drop_packet();
    }
    partial_.clear();
  }

  Endpoint& endpoint_;
  unsigned bus_;
  TlpPins pins_;
  bool shown_ = false, showing_ = false, ready_ = false;
  std::vector<uint8_t> partial_;  // of the packet that the card sends
};

}  // namespace halfdome
