// One direction of a link: its rate, the credits of its receiver, and who may go next.
//
// Sources: PCI Express Base Specification 3.0, sections 2.4.1 (ordering), 2.6.1 (flow control) and
// 4.2 (coding). Times are femtoseconds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>

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

// Packets on their way from one place to another, and which of them may overtake.
//
// Nothing overtakes a posted packet but completions with relaxed ordering. Posted packets and
// completions overtake reads, and posted packets completions: a kind without credits stops itself
// only, and completions can always drain once the posted packets before them have.
class OrderedQueue {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

  void push(Tlp&& tlp) {
    const Flow flow = tlp.flow();
    queues_[flow].push_back({sequence_++, std::move(tlp)});
    ++size_;
  }

  // The oldest packet that ordering and `credits` let go, or null. `pop` removes it.
  const Tlp* next(const CreditPool& credits) const {
    const auto& posted = queues_[POSTED];
    const uint64_t barrier =
        posted.empty() ? std::numeric_limits<uint64_t>::max() : posted.front().sequence;
    const Entry* oldest = nullptr;
    for (unsigned flow = 0; flow < FLOWS; ++flow) {
      if (queues_[flow].empty()) continue;
      const Entry& entry = queues_[flow].front();
      if (entry.sequence > barrier && !(flow == COMPLETIONS && entry.tlp.relaxed())) continue;
      if (oldest && oldest->sequence < entry.sequence) continue;
      if (credits.allows(entry.tlp.credit())) oldest = &entry;
    }
    return oldest ? &oldest->tlp : nullptr;
  }

  Tlp pop(Flow flow) {
    Tlp tlp = std::move(queues_[flow].front().tlp);
    queues_[flow].pop_front();
    --size_;
    return tlp;
  }

 private:
  struct Entry {
    uint64_t sequence;
    Tlp tlp;
  };
  std::deque<Entry> queues_[FLOWS];
  uint64_t sequence_ = 0;
  size_t size_ = 0;
};

// The transmitter's end of one direction.
class Line {
 public:
  Line(LinkRate link_rate, int64_t latency, const CreditLimits& receiver)
      : rate(link_rate), credits(receiver), latency_(latency) {}

  LinkRate rate;
  CreditPool credits;
  LinkCounters sent;
  PacketLog log;

  // Sends at `start`, or when the line is free; returns when the last byte arrives.
  int64_t transmit(int64_t start, const Tlp& tlp) {
    sent.add(tlp);
    credits.take(tlp.credit());
    start = std::max(free_at_, start);
    free_at_ = start + rate.time(tlp.wire_bytes());
    log.add(start, free_at_, tlp);
    return free_at_ + latency_;
  }

  int64_t free_at() const { return free_at_; }

 private:
  int64_t latency_, free_at_ = 0;
};

}  // namespace halfdome
