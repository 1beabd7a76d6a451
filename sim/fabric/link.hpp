// One direction of a link: who may go next, and how it gets across.
//
// Source of the ordering: PCI Express Base Specification 3.0, section 2.4.1.
#pragma once

#include <memory>

#include "data_link.hpp"

namespace halfdome {

// Packets on their way from one place to another, and which of them may overtake.
//
// Nothing overtakes a posted packet but completions with relaxed ordering. Posted packets and
// completions overtake reads, and posted packets completions: a kind without credits stops itself
// only, and completions can always drain once the posted packets before them have.
class OrderedQueue {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  bool holds(Flow flow) const { return !queues_[flow].empty(); }

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

// The transmitter's end of one direction. Without planned faults every packet arrives, and nothing
// is kept for replay.
class Line {
 public:
  Line(LinkRate rate, int64_t latency, const CreditLimits& receiver)
      : wire{rate, latency, 0, {}, {}}, credits(receiver) {}

  Wire wire;
  CreditPool credits;

  // Sends at `start`, or when the line is free; adds what arrives, and when, to `out`.
  void transmit(int64_t start, Tlp&& tlp, std::vector<TimedTlp>& out) {
    if (data_link_) {
      data_link_->send(wire, credits, start, std::move(tlp), out);
      return;
    }
    credits.take(tlp.credit());
    const int64_t arrival = wire.carry(start, tlp);
    out.push_back({arrival, std::move(tlp)});
  }

  void plan(const Fault& fault) {
    if (!data_link_) data_link_ = std::make_unique<DataLink>(wire);
    data_link_->faults.add(fault);
  }

  // Null where no faults are planned.
  DataLink* data_link() const { return data_link_.get(); }

 private:
  std::unique_ptr<DataLink> data_link_;
};

}  // namespace halfdome
