// The card's end of its link: what a PCIe hard IP does between wire and TLP streams, packet by packet.
// Pins are `TlpPort`'s (tlp_port.hpp).
//
// Received packets are shown to the card beat by beat, with the BAR a request hit; while the card has
// no room for reads (`rx_np_ok`), others pass them. The room a request took is given back to the switch
// when the card has taken its last beat. Packets the card sends are
// buffered whole, completed with the card's own ID, and sent at the rate of the link as far as the
// switch has room; `tx.ready` falls while the buffer is full. Reads do not fill the buffer: a card
// has no more of them than tags, and they must not keep completions from passing. An endpoint
// belongs to its card's thread; what is for the switch waits until the fabric takes it. When the link
// goes down, the endpoint resets the card, by the register write that the host would use.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>

#include "link.hpp"

namespace halfdome {

struct Window {
  uint64_t base = 0, bytes = 0;
  bool holds(uint64_t address, uint64_t length) const {
    return length <= bytes && address >= base && address - base <= bytes - length;
  }
};

struct Bars {
  Window bar0, bar2;
};

// The register write that makes a card start anew: `value` to `offset` of BAR0.
struct ResetWrite {
  int64_t offset, value;
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

struct EndpointCounters {
  uint64_t malformed = 0;  // packets from the card that are no packet: dropped
};

class Endpoint {
 public:
  // `line` leads to the switch; `room` is the endpoint's own.
  Endpoint(CardClock clock, Line&& transmitter, const CreditLimits& room, uint32_t id, Bars bars,
           ResetWrite reset, unsigned bus_bytes, unsigned max_payload_bytes)
      : line(std::move(transmitter)), clock_(clock), room_(room), id_(id), bars_(bars), reset_(reset),
        bus_(bus_bytes),
        capacity_(std::max(2048u, 4 * (max_payload_bytes + HEADER_BYTES))) {}

  static constexpr size_t KEPT_BYTES = 8192;  // more than any packet; the rest of a longer one is lost

  std::vector<TimedTlp> outbox;        // sent, with their arrival at the switch
  std::vector<CreditReturn> returned;  // room that is free again, and since when
  Line line;
  EndpointCounters counters;
  bool np_ok = false;  // the card's `rx_np_ok` of the cycle before

  // From the fabric. Only packets that a fault delays come out of order.
  void deliver(int64_t time, Tlp&& tlp) {
    const int64_t cycle = clock_.first_cycle(time);
    auto place = inbox_.end();
    while (place != inbox_.begin() && std::prev(place)->time > cycle) --place;
    inbox_.insert(place, {cycle, std::move(tlp)});
  }

  // Begins `cycle`: sends what may go, and finds out what the card sees.
  void begin(int64_t cycle) {
    if (line.data_link()) tend(*line.data_link(), clock_.start(cycle));
    if (!waiting_.empty() && line.credits.next_return() <= clock_.start(cycle)) send(cycle);
    if (!receiving_) choose(cycle);
    while (!leaving_.empty() && leaving_.front().cycle <= cycle) {
      occupied_ -= leaving_.front().bytes;
      leaving_.pop_front();
    }
    // A packet larger than the buffer must still end, to be recognised as malformed.
    ready_ = occupied_ + partial_ + bus_ <= capacity_ || occupied_ == 0;
  }

  // The packet that the card is being shown, if it is, and the beat: the header comes first.
  bool receiving() const { return receiving_; }
  const Tlp& received() const { return current_.tlp; }
  unsigned beat() const { return beat_; }
  bool last_beat() const { return beat_ + 1 == beats_; }
  // The BAR that a request hit.
  unsigned bar() const {
    const Tlp& tlp = current_.tlp;
    return !tlp.is_completion() && bars_.bar2.holds(tlp.address(), 1) ? 2 : 0;
  }
  // The card takes the beat in `cycle`.
  void take_beat(int64_t cycle) {
    if (++beat_ < beats_) return;
    receiving_ = false;
    const Credit credit = current_.tlp.credit();
    if (room_.limited(credit.flow) && current_.time != OWN) {
      returned.push_back({clock_.start(cycle + 1), credit});
    }
  }

  // Whether a beat of the card is taken in this cycle.
  bool ready() const { return ready_; }
  // It has been, and is not the last of its packet.
  void hold_beat() {
    if (partial_ < KEPT_BYTES) partial_ += bus_;
  }
  // It has been in `cycle`, and ends its packet.
  void end_packet(int64_t cycle, Tlp&& tlp) {
    partial_ = 0;
    tlp.header[1] = (tlp.header[1] & 0xFFFF) | id_ << 16;
    occupied_ += occupies(tlp);
    waiting_.push(std::move(tlp));
    send(cycle + 1);
  }
  // It ends what is no packet.
  void drop_packet() {
    partial_ = 0;
    ++counters.malformed;
  }

  // The first cycle, from `cycle` on, in which what the card sees may change without its doing.
  int64_t still_until(int64_t cycle) const {
    if (receiving_ || !ready_ || !waiting_.empty() || line.data_link()) return cycle;
    return inbox_.empty() ? std::numeric_limits<int64_t>::max()
                          : std::max(cycle, inbox_.front().time);
  }
  // The first cycle, from `cycle` on, in which `begin` has something to do or to show.
  int64_t next_event(int64_t cycle) const {
    if (receiving_ || line.data_link()) return cycle;
    int64_t next = inbox_.empty() ? std::numeric_limits<int64_t>::max() : inbox_.front().time;
    if (!waiting_.empty()) next = std::min(next, clock_.first_cycle(line.credits.next_return()));
    return std::max(next, cycle);
  }

  size_t waiting_to_receive() const { return inbox_.size() + receiving_; }
  size_t waiting_to_send() const { return waiting_.size() + leaving_.size(); }

 private:
  struct Leaving {
    int64_t cycle;
    size_t bytes;
  };
  // Takes the next packet for the card out of the inbox. Reads stay in order, and so do all others.
  void choose(int64_t cycle) {
    for (auto item = inbox_.begin(); item != inbox_.end() && item->time <= cycle; ++item) {
      if (item->tlp.flow() == NON_POSTED && !np_ok) continue;
      current_ = std::move(*item);
      inbox_.erase(item);
      receiving_ = true;
      beat_ = 0;
      beats_ = 1 + (static_cast<unsigned>(current_.tlp.payload.size()) + bus_ - 1) / bus_;
      return;
    }
  }

  static size_t occupies(const Tlp& tlp) {
    return tlp.flow() == NON_POSTED ? 0 : HEADER_BYTES + tlp.payload.size();
  }

  // Sends what may go at the start of `cycle`.
  void send(int64_t cycle) {
    const int64_t now = clock_.start(cycle);
    line.credits.collect(now);
    while (!waiting_.empty()) {
      const Tlp* next = waiting_.next(line.credits);
      if (!next) return;
      Tlp tlp = waiting_.pop(next->flow());
      const size_t bytes = occupies(tlp);
      line.transmit(now, std::move(tlp), outbox);
      leaving_.push_back({clock_.first_cycle(line.wire.free_at), bytes});
    }
  }

  // What happens on a link with faults though no packet is sent.
  void tend(DataLink& data_link, int64_t now) {
    const bool down = data_link.faults.down(now, now);
    if (down && !down_) {
      data_link.reset(line.credits, now);
      while (!inbox_.empty()) {  // what the card is being shown is here whole
        const Credit credit = inbox_.back().tlp.credit();
        if (room_.limited(credit.flow) && inbox_.back().time != OWN) {
          returned.push_back({now, credit});
        }
        inbox_.pop_back();
      }
      inbox_.push_back({OWN, reset_request()});
    }
    down_ = down;
    if (!down && data_link.wake() <= now) data_link.wake(line.wire, now, outbox);
  }

  Tlp reset_request() const {
    Tlp tlp = memory_request(MEMORY_WRITE, bars_.bar0.base + static_cast<uint64_t>(reset_.offset),
                             4, 0xF, id_, 0);
    tlp.payload.resize(4);
    for (unsigned i = 0; i < 4; ++i) {
      tlp.payload[i] = static_cast<uint8_t>(reset_.value >> 8 * i);
    }
    return tlp;
  }

  static constexpr int64_t OWN = -1;  // time of a packet that did not come over the link

  CardClock clock_;
  CreditLimits room_;
  uint32_t id_;
  Bars bars_;
  ResetWrite reset_;
  unsigned bus_;
  size_t capacity_;
  std::deque<TimedTlp> inbox_;  // `time` is the first cycle in which the packet is there
  TimedTlp current_;  // what the card is being shown, while `receiving_`
  bool receiving_ = false, ready_ = false, down_ = false;
  unsigned beat_ = 0, beats_ = 0;
  OrderedQueue waiting_;
  std::deque<Leaving> leaving_;
  size_t occupied_ = 0, partial_ = 0;  // bytes of packets to send, and of the one that comes
};

}  // namespace halfdome
