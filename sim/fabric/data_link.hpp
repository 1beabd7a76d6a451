// The data link layer of one direction of a link on which faults are planned.
//
// A packet carries a 12-bit sequence number and is kept until acknowledged. The receiver takes the
// number it expects, drops what it has had before, and answers anything else with one NAK, upon
// which, or when the replay timer expires, everything kept is sent again; the fourth time without
// progress the link is trained anew. What the receiver does is known when a packet is sent, so it is
// worked out then. Source: PCI Express Base Specification 3.0, section 3.5.2. The lengths of timers
// follow the link's own delays.
#pragma once

#include <deque>

#include "faults.hpp"
#include "wire.hpp"

namespace halfdome {

class DataLink {
 public:
  explicit DataLink(const Wire& wire)
      : dllp_delay_(wire.rate.time(DLLP_BYTES) + wire.latency),
        replay_timeout_(3 * (2 * wire.latency + ACK_LATENCY_FS + wire.rate.time(4096 + 24))) {}

  FaultList faults;

  // Sends `tlp` at `start` or when the wire is free; what arrives is added to `out`.
  void send(Wire& wire, CreditPool& credits, int64_t start, Tlp&& tlp,
            std::vector<TimedTlp>& out) {
    acknowledge(start);
    if (faults.down(start, start)) {
      ++faults.counters.lost;
      return;
    }
    int64_t delay = 0;
    if (!strike(start, tlp, delay)) return;
    credits.take(tlp.credit());
    if (kept_.empty()) timer_ = std::max(start, wire.free_at);
    kept_.push_back({std::move(tlp), next_, 0, 0, delay});
    next_ = (next_ + 1) & MASK;
    carry(wire, start, kept_.back(), out);
  }

  // When something must be done though no packet is sent.
  int64_t wake() const {
    const int64_t timeout = kept_.empty() ? NEVER : timer_ + replay_timeout_;
    return std::min(nak_at_, timeout);
  }

  void wake(Wire& wire, int64_t now, std::vector<TimedTlp>& out) {
    acknowledge(now);
    if (nak_at_ <= now) {
      ++faults.counters.naks;
      nak_at_ = NEVER;
      while (!kept_.empty() && before(kept_.front().sequence, expected_)) forget(now);
      replay(wire, now, out);
    } else if (!kept_.empty() && timer_ + replay_timeout_ <= now) {
      ++faults.counters.replay_timeouts;
      replay(wire, now, out);
    }
  }

  // The link has gone down: what has not arrived never will, and takes no room.
  void reset(CreditPool& credits, int64_t now) {
    for (const Kept& kept : kept_) {
      faults.counters.corrected += kept.corruptions + kept.lost_acks;
      if (before(kept.sequence, expected_)) continue;
      ++faults.counters.lost;
      credits.give({now, kept.tlp.credit()});
    }
    kept_.clear();
    acks_.clear();
    next_ = expected_ = 0;
    nak_at_ = NEVER;
    nak_scheduled_ = false;
    attempts_ = 0;
  }

 private:
  static constexpr int64_t NEVER = std::numeric_limits<int64_t>::max();
  static constexpr unsigned MASK = 0xFFF;
  static constexpr int64_t ACK_LATENCY_FS = 115'000'000;   // as for credit updates
  static constexpr int64_t RETRAIN_FS = 10'000'000'000;    // recovery, assumed
  struct Kept {
    Tlp tlp;
    unsigned sequence, corruptions, lost_acks;
    int64_t delay;
  };
  struct Ack {
    int64_t time;
    unsigned sequence;
  };

  static bool before(unsigned a, unsigned b) { return a != b && ((b - a) & MASK) < 2048; }

  // Lets faults of the transaction layer act; false if the packet is to vanish.
  bool strike(int64_t now, Tlp& tlp, int64_t& delay) {
    const uint32_t owner = tlp.is_completion() ? tlp.header[2] >> 8 : 0;
    const bool last = tlp.is_completion() && tlp.remaining_bytes() <= tlp.payload.size();
    if (tlp.is_completion() && ended(owner, last)) return false;
    const Fault* fault = faults.strike(POISON, DELAY, now, tlp);
    if (tlp.is_completion()) delay = held(owner, last);
    if (!fault) return true;
    switch (fault->kind) {
      case POISON:
        tlp.header[0] |= 1u << 14;
        break;
      case REFUSE:
      case ABORT:
        if (!last) ended_.push_back(owner);
        tlp.payload.clear();
        tlp.header[0] = COMPLETION << 24;
        tlp.header[1] = (tlp.header[1] & ~(7u << 13)) |
                        (fault->kind == REFUSE ? UNSUPPORTED_REQUEST : COMPLETER_ABORT) << 13;
        break;
      case DROP:
        return false;
      case DELAY:
        delay = fault->for_fs;
        if (tlp.is_completion() && !last) held_.push_back({owner, delay});
        break;
    }
    return true;
  }

  // Whether the read that `owner` asks for has been answered with an error: no more comes then.
  bool ended(uint32_t owner, bool last) {
    const auto place = std::find(ended_.begin(), ended_.end(), owner);
    if (place == ended_.end()) return false;
    if (last) ended_.erase(place);
    return true;
  }

  // The delay of an earlier completion of the same read, which the rest must not pass.
  int64_t held(uint32_t owner, bool last) {
    for (auto place = held_.begin(); place != held_.end(); ++place) {
      if (place->first != owner) continue;
      const int64_t delay = place->second;
      if (last) held_.erase(place);
      return delay;
    }
    return 0;
  }

  void carry(Wire& wire, int64_t start, Kept& kept, std::vector<TimedTlp>& out) {
    const int64_t arrival = wire.carry(start, kept.tlp);
    if (faults.down(start, arrival)) return;  // `reset` counts it
    const bool corrupt = faults.strike(CORRUPT, CORRUPT, start, kept.tlp);
    if (corrupt) ++kept.corruptions;
    if (!corrupt && kept.sequence == expected_) {
      expected_ = (expected_ + 1) & MASK;
      nak_scheduled_ = false;
      faults.counters.corrected += kept.corruptions;
      kept.corruptions = 0;
      out.push_back({arrival + kept.delay, kept.tlp});
      answer(start, arrival + ACK_LATENCY_FS + dllp_delay_, kept);
    } else if (!corrupt && before(kept.sequence, expected_)) {
      ++faults.counters.duplicates;
      answer(start, arrival + dllp_delay_, kept);
    } else if (!nak_scheduled_) {
      nak_scheduled_ = true;
      nak_at_ = arrival + dllp_delay_;
    }
  }

  void answer(int64_t start, int64_t time, Kept& kept) {
    const Fault* fault = faults.strike(LOSE_ACK, DUPLICATE_ACK, start, kept.tlp);
    if (fault && fault->kind == LOSE_ACK) {
      ++kept.lost_acks;
      return;
    }
    if (fault) ++faults.counters.corrected;  // the second one acknowledges nothing
    acks_.push_back({time, kept.sequence});
  }

  void acknowledge(int64_t now) {
    for (; !acks_.empty() && acks_.front().time <= now; acks_.pop_front()) {
      const Ack& ack = acks_.front();
      while (!kept_.empty() && !before(ack.sequence, kept_.front().sequence)) forget(ack.time);
    }
  }

  // The oldest packet is known to have arrived.
  void forget(int64_t now) {
    faults.counters.corrected += kept_.front().lost_acks;
    kept_.pop_front();
    timer_ = now;
    attempts_ = 0;
  }

  void replay(Wire& wire, int64_t now, std::vector<TimedTlp>& out) {
    if (++attempts_ == 4) {
      ++faults.counters.retrains;
      attempts_ = 0;
      wire.free_at = std::max(wire.free_at, now) + RETRAIN_FS;
    }
    timer_ = std::max(wire.free_at, now);
    for (Kept& kept : kept_) {
      ++faults.counters.replayed;
      carry(wire, now, kept, out);
    }
  }

  int64_t dllp_delay_, replay_timeout_;
  std::deque<Kept> kept_;
  std::deque<Ack> acks_;
  std::vector<uint32_t> ended_;
  std::vector<std::pair<uint32_t, int64_t>> held_;
  unsigned next_ = 0, expected_ = 0, attempts_ = 0;
  int64_t timer_ = 0, nak_at_ = NEVER;
  bool nak_scheduled_ = false;
};

}  // namespace halfdome
