// What the transmitter's end of a link needs to know: rate, delays, and the receiver's room.
//
// Sources: PCI Express Base Specification 3.0, sections 2.6.1 (flow control) and 4.2 (coding).
// Times are femtoseconds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

#include "packet_log.hpp"
#include "tlp.hpp"

namespace halfdome {

// How long a link takes to send. Generations 1 and 2 code 8b/10b, later ones 128b/130b.
class LinkRate {
 public:
  LinkRate(int64_t generation, int64_t lanes) : lanes_(lanes) {
    constexpr int64_t quarter_fs_per_byte[] = {16'000'000, 8'000'000, 4'062'500, 2'031'250,
                                               1'015'625};
    byte_ = quarter_fs_per_byte[generation - 1];
  }
  int64_t time(unsigned bytes) const { return (bytes * byte_ + 4 * lanes_ - 1) / (4 * lanes_); }

 private:
  int64_t byte_, lanes_;  // quarter femtoseconds a byte takes on one lane
};

constexpr unsigned DLLP_BYTES = 8;          // a credit update or acknowledgement with its framing
constexpr unsigned ROUTABLE_BYTES = 4 + 12;  // framing and header: enough to know where to

// What went over one direction of a link.
struct LinkCounters {
  uint64_t tlps = 0, payload_bytes = 0, wire_bytes = 0;
  void add(const Tlp& tlp) {
    ++tlps;
    payload_bytes += tlp.payload.size();
    wire_bytes += tlp.wire_bytes();
  }
};

// Room of a receiver by `Flow`: headers, and data in units of CREDIT_BYTES. 0 headers: no limit.
struct CreditLimits {
  int64_t headers[FLOWS], data[FLOWS];
  bool limited(Flow flow) const { return headers[flow] != 0; }
};

struct CreditReturn {
  int64_t time;
  Credit credit;
};

// What a transmitter knows of its receiver's room.
class CreditPool {
 public:
  explicit CreditPool(const CreditLimits& limits) : limits_(limits) {
    for (unsigned flow = 0; flow < FLOWS; ++flow) {
      free_headers_[flow] = limits.headers[flow];
      free_data_[flow] = limits.data[flow];
    }
  }


  // A packet larger than all the room goes when the room is empty.
  bool allows(Credit credit) const {
    if (!limits_.limited(credit.flow)) return true;
    return free_headers_[credit.flow] > 0 &&
           free_data_[credit.flow] >= std::min<int64_t>(credit.data, limits_.data[credit.flow]);
  }

  void take(Credit credit) {
    free_headers_[credit.flow] -= 1;
    free_data_[credit.flow] -= credit.data;
  }

  // Room that this transmitter will know of at `item.time`.
  void give(const CreditReturn& item) {
    auto place = returning_.end();
    while (place != returning_.begin() && std::prev(place)->time > item.time) --place;
    returning_.insert(place, item);
  }

  void collect(int64_t now) {
    while (!returning_.empty() && returning_.front().time <= now) {
      free_headers_[returning_.front().credit.flow] += 1;
      free_data_[returning_.front().credit.flow] += returning_.front().credit.data;
      returning_.pop_front();
    }
  }

  // When more is known next; the largest time if nothing is on its way.
  int64_t next_return() const {
    return returning_.empty() ? std::numeric_limits<int64_t>::max() : returning_.front().time;
  }

 private:
  CreditLimits limits_;
  int64_t free_headers_[FLOWS], free_data_[FLOWS];
  std::deque<CreditReturn> returning_;  // by time
};

struct TimedTlp {
  int64_t time;
  Tlp tlp;
};

// The wire of one direction, one packet after the other.
struct Wire {
  LinkRate rate;
  int64_t latency;
  int64_t free_at = 0;
  LinkCounters sent;
  PacketLog log;

  // Carries a packet from `start` on, or when the wire is free; returns when its last byte arrives.
  int64_t carry(int64_t start, const Tlp& tlp) {
    sent.add(tlp);
    start = std::max(free_at, start);
    free_at = start + rate.time(tlp.wire_bytes());
    log.add(start, free_at, tlp);
    return free_at + latency;
  }
};

}  // namespace halfdome
