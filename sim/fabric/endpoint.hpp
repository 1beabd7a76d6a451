// The card's end of its link: what a PCIe hard IP does between wire and TLP streams.
//
// Received packets are shown to the card beat by beat, with the BAR a request hit. Packets the card
// sends are buffered whole, completed with the card's own ID, and sent at the rate of the link;
// `tx.ready` falls while the buffer is full. An endpoint belongs to its card's thread; packets for
// the switch wait in `outbox` until the fabric takes them.
#pragma once

#include <algorithm>
#include <deque>

#include "../pin.hpp"
#include "packet_log.hpp"
#include "tlp.hpp"

namespace halfdome {

struct TlpPins {
  Pin rx_payload, rx_valid, rx_ready, tx_payload, tx_valid, tx_ready;
};

struct Window {
  uint64_t base = 0, bytes = 0;
  bool holds(uint64_t address, uint64_t length) const {
    return length <= bytes && address >= base && address - base <= bytes - length;
  }
};

struct Bars {
  Window bar0, bar2;
};

// Card clock cycles and femtoseconds: cycle k starts k / clock_mhz microseconds after the beginning,
// rounded up to a whole femtosecond, so that no error accumulates.
class CardClock {
 public:
  explicit CardClock(int64_t clock_mhz) : mhz_(clock_mhz) {}
  int64_t start(int64_t cycle) const {
    return static_cast<int64_t>((static_cast<__int128>(cycle) * 1'000'000'000 + mhz_ - 1) / mhz_);
  }
  // The first cycle that starts at `time` or later.
  int64_t first_cycle(int64_t time) const {
    if (time <= 0) return 0;
    return static_cast<int64_t>(static_cast<__int128>(time - 1) * mhz_ / 1'000'000'000) + 1;
  }

 private:
  int64_t mhz_;
};

struct TimedTlp {
  int64_t time;
  Tlp tlp;
};

struct EndpointCounters {
  uint64_t malformed = 0;  // packets from the card that are no packet: dropped
};

class Endpoint {
 public:
  Endpoint(CardClock clock, LinkRate rate, int64_t link_latency, uint32_t id, Bars bars,
           unsigned bus_bytes, unsigned max_payload_bytes, const TlpPins& pins)
      : clock_(clock), rate_(rate), link_latency_(link_latency), id_(id), bars_(bars),
        bus_(bus_bytes), capacity_(std::max(2048u, 4 * (max_payload_bytes + HEADER_BYTES))),
        pins_(pins) {}

  std::vector<TimedTlp> outbox;  // sent, with their arrival at the switch
  LinkCounters sent;
  PacketLog log;
  EndpointCounters counters;

  // From the fabric, in order of arrival.
  void deliver(int64_t time, Tlp&& tlp) {
    inbox_.push_back({clock_.first_cycle(time), std::move(tlp)});
  }

  // Drives the card's inputs of `cycle`.
  void drive(int64_t cycle) {
    if (!receiving_ && !inbox_.empty() && inbox_.front().time <= cycle) {
      receiving_ = true;
      beat_ = 0;
      beats_ = 1 + (static_cast<unsigned>(inbox_.front().tlp.payload.size()) + bus_ - 1) / bus_;
      shown_ = false;
    }
    if (!shown_) {
      shown_ = true;
      pins_.rx_valid.set(receiving_);
      if (receiving_) show_beat();
    }
    while (!leaving_.empty() && leaving_.front().cycle <= cycle) {
      occupied_ -= leaving_.front().bytes;
      leaving_.pop_front();
    }
    // A packet larger than the buffer must still end, to be recognised as malformed.
    const bool ready = occupied_ + partial_.size() + bus_ <= capacity_ || occupied_ == 0;
    if (ready != ready_) pins_.tx_ready.set(ready);
    ready_ = ready;
  }

  // Samples the card's settled outputs of `cycle`.
  void step(int64_t cycle) {
    if (receiving_ && pins_.rx_ready.high()) {
      shown_ = false;
      if (++beat_ == beats_) {
        receiving_ = false;
        inbox_.pop_front();
      }
    }
    if (ready_ && pins_.tx_valid.high()) take_beat(cycle);
  }

  size_t waiting_to_receive() const { return inbox_.size(); }
  size_t waiting_to_send() const { return leaving_.size(); }

 private:
  struct Leaving {
    int64_t cycle;
    size_t bytes;
  };
  static constexpr size_t KEPT_BYTES = 8192;  // more than any packet; the rest of a longer one is lost

  void show_beat() {
    const Tlp& tlp = inbox_.front().tlp;
    uint8_t* out = pins_.rx_payload.data;
    std::memset(out, 0, bus_);
    uint8_t flags = beat_ + 1 == beats_;
    if (beat_ == 0) {
      std::memcpy(out, tlp.header, HEADER_BYTES);
      if (!tlp.is_completion() && bars_.bar2.holds(tlp.address(), 1)) flags |= 2 << 1;
    } else {
      const size_t start = static_cast<size_t>(beat_ - 1) * bus_;
      std::memcpy(out, tlp.payload.data() + start,
                  std::min<size_t>(bus_, tlp.payload.size() - start));
    }
    out[bus_] = flags;  // `last`, then the three bits of `bar`
  }

  void take_beat(int64_t cycle) {
    const uint8_t* in = pins_.tx_payload.data;
    if (partial_.size() < KEPT_BYTES) partial_.insert(partial_.end(), in, in + bus_);
    if (!(in[bus_] & 1)) return;
    Tlp tlp;
    std::memcpy(tlp.header, partial_.data(), HEADER_BYTES);
    const size_t payload = tlp.has_data() ? tlp.length_bytes() : 0;
    const size_t beats = 1 + (payload + bus_ - 1) / bus_;
    if (tlp.known() && partial_.size() == beats * bus_) {
      tlp.payload.assign(partial_.begin() + bus_,
                         partial_.begin() + static_cast<std::ptrdiff_t>(bus_ + payload));
      tlp.header[1] = (tlp.header[1] & 0xFFFF) | id_ << 16;
      send(clock_.start(cycle + 1), std::move(tlp));
    } else {
      ++counters.malformed;
    }
    partial_.clear();
  }

  void send(int64_t time, Tlp&& tlp) {
    sent.add(tlp);
    const int64_t start = std::max(free_at_, time);
    free_at_ = start + rate_.time(tlp.wire_bytes());
    log.add(start, free_at_, tlp);
    const size_t bytes = HEADER_BYTES + tlp.payload.size();
    occupied_ += bytes;
    leaving_.push_back({clock_.first_cycle(free_at_), bytes});
    outbox.push_back({free_at_ + link_latency_, std::move(tlp)});
  }

  CardClock clock_;
  LinkRate rate_;
  int64_t link_latency_;
  uint32_t id_;
  Bars bars_;
  unsigned bus_;
  size_t capacity_;
  TlpPins pins_;
  std::deque<TimedTlp> inbox_;  // `time` is the first cycle in which the packet is there
  bool receiving_ = false, shown_ = false, ready_ = false;
  unsigned beat_ = 0, beats_ = 0;
  std::vector<uint8_t> partial_;
  std::deque<Leaving> leaving_;
  size_t occupied_ = 0;
  int64_t free_at_ = 0;
};

}  // namespace halfdome
