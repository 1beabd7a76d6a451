// Root complex, uplink, switch and the switch's side of the card links, packet by packet.
//
// Every port stores and forwards; each egress serves its ingress ports round-robin. Requests go to
// the card whose BAR holds the address, whoever sends them, and otherwise to the root complex;
// completions go to their requester. Events are handled in order of (time, kind, port, sequence),
// none of which depends on when packets are handed in, so a run has one outcome.
#pragma once

#include <memory>

#include "endpoint.hpp"
#include "root_complex.hpp"

namespace halfdome {

struct FabricSettings {
  int64_t uplink_generation, uplink_lanes, card_generation, card_lanes, port_latency_fs,
      host_read_latency_fs, host_bytes_per_us, max_payload_bytes, max_read_request_bytes;
  uint64_t host_base, host_bytes, message_base, message_bytes;
};

class Fabric {
 public:
  Fabric(const FabricSettings& settings, uint8_t* host_memory, std::vector<Bars> bars)
      : received(bars.size()),
        root({{settings.host_base, settings.host_bytes},
              {settings.message_base, settings.message_bytes},
              settings.host_read_latency_fs, settings.host_bytes_per_us,
              static_cast<unsigned>(settings.max_payload_bytes),
              static_cast<unsigned>(settings.max_read_request_bytes)},
             host_memory),
        bars_(std::move(bars)), uplink_(bars_.size()),
        link_latency_(2 * settings.port_latency_fs) {
    const LinkRate card(settings.card_generation, settings.card_lanes);
    const LinkRate uplink(settings.uplink_generation, settings.uplink_lanes);
    for (size_t i = 0; i < bars_.size(); ++i) egresses_.emplace_back(card, bars_.size() + 1);
    egresses_.emplace_back(uplink, bars_.size() + 1);  // switch to root complex
    egresses_.emplace_back(uplink, 1);                 // root complex to switch
  }

  // Bus number of a card: 0 root complex, 1 and 2 the switch, then one bus for each link.
  static uint32_t card_id(size_t card) { return static_cast<uint32_t>(card + 3) << 8; }

  // A packet whose last byte reaches the switch at `time` (later than any event handled so far).
  void arrive_from_card(size_t card, int64_t time, Tlp&& tlp) {
    push({time, AT_SWITCH, card, 0, std::move(tlp)});
  }

  // Handles every event before `limit`. Stops early, at that event's time, when the root complex
  // raises one of the `stop` conditions (`RootComplex::Notice`) and returns it; otherwise 0.
  unsigned run(int64_t limit, unsigned stop) {
    flush_root();
    while (!events_.empty() && events_.front().time < limit) {
      std::pop_heap(events_.begin(), events_.end(), later);
      Event event = std::move(events_.back());
      events_.pop_back();
      now_ = event.time;
      handle(event);
      flush_root();
      if (const unsigned notice = root.take_notices(stop)) return notice;
    }
    now_ = std::max(now_, limit);
    return 0;
  }

  int64_t now() const { return now_; }
  int64_t link_latency() const { return link_latency_; }

  // The shortest time between a card's last beat and the switch, or the switch and a card.
  int64_t lookahead() const { return link_latency_ + egresses_[0].rate.time(SMALLEST_TLP_BYTES); }

  const LinkCounters& to_card(size_t card) const { return egresses_[card].sent; }
  const LinkCounters& uplink_up() const { return egresses_[uplink_].sent; }
  const LinkCounters& uplink_down() const { return egresses_[uplink_ + 1].sent; }

  // The log of what the switch sends to a card; after the cards, to and from the root complex.
  PacketLog& log(size_t egress) { return egresses_[egress].log; }

  std::vector<std::vector<TimedTlp>> received;  // per card, for its endpoint, by arrival
  RootComplex root;

 private:
  enum Kind { AT_SWITCH, AT_ROOT, HOST_DATA, LINE_FREE };
  struct Event {
    int64_t time;
    Kind kind;
    size_t port;
    uint64_t sequence;
    Tlp tlp;
  };
  struct Egress {
    Egress(LinkRate link, size_t ingresses) : rate(link), queues(ingresses) {}
    LinkRate rate;
    std::vector<std::deque<Tlp>> queues;  // one for each ingress port
    size_t next = 0;
    bool busy = false;
    LinkCounters sent;
    PacketLog log;
  };

  static bool later(const Event& a, const Event& b) {
    if (a.time != b.time) return a.time > b.time;
    if (a.kind != b.kind) return a.kind > b.kind;
    if (a.port != b.port) return a.port > b.port;
    return a.sequence > b.sequence;
  }

  void push(Event&& event) {
    events_.push_back(std::move(event));
    std::push_heap(events_.begin(), events_.end(), later);
  }

  void handle(Event& event) {
    switch (event.kind) {
      case AT_SWITCH:
        enqueue(route(event.tlp), event.port, std::move(event.tlp));
        break;
      case AT_ROOT:
        root.receive(now_, event.tlp);
        break;
      case HOST_DATA:
        root.host_data_ready();
        break;
      case LINE_FREE:
        egresses_[event.port].busy = false;
        start(event.port);
        break;
    }
  }

  // Packets and memory accesses the root complex has produced at this moment.
  void flush_root() {
    for (Tlp& tlp : root.outgoing) enqueue(uplink_ + 1, 0, std::move(tlp));
    root.outgoing.clear();
    for (const int64_t time : root.memory_due) push({time, HOST_DATA, 0, ++sequence_, {}});
    root.memory_due.clear();
  }

  size_t route(const Tlp& tlp) const {
    if (tlp.is_completion()) {
      const uint32_t requester = tlp.completion_requester();
      for (size_t i = 0; i < bars_.size(); ++i) {
        if (requester == card_id(i)) return i;
      }
      return uplink_;
    }
    for (size_t i = 0; i < bars_.size(); ++i) {
      if (bars_[i].bar0.holds(tlp.address(), tlp.length_bytes()) ||
          bars_[i].bar2.holds(tlp.address(), tlp.length_bytes())) {
        return i;
      }
    }
    return uplink_;
  }

  void enqueue(size_t egress, size_t ingress, Tlp&& tlp) {
    egresses_[egress].queues[ingress].push_back(std::move(tlp));
    start(egress);
  }

  // Sends the next waiting packet if the line is free. The one place where a packet leaves.
  void start(size_t port) {
    Egress& egress = egresses_[port];
    if (egress.busy) return;
    const size_t count = egress.queues.size();
    for (size_t i = 0; i < count; ++i) {
      const size_t ingress = (egress.next + i) % count;
      if (egress.queues[ingress].empty()) continue;
      egress.next = (ingress + 1) % count;
      egress.busy = true;
      Tlp tlp = std::move(egress.queues[ingress].front());
      egress.queues[ingress].pop_front();
      egress.sent.add(tlp);
      const int64_t end = now_ + egress.rate.time(tlp.wire_bytes());
      egress.log.add(now_, end, tlp);
      push({end, LINE_FREE, port, ++sequence_, {}});
      const int64_t arrival = end + link_latency_;
      if (port < uplink_) received[port].push_back({arrival, std::move(tlp)});
      else if (port == uplink_) push({arrival, AT_ROOT, 0, ++sequence_, std::move(tlp)});
      else push({arrival, AT_SWITCH, uplink_, ++sequence_, std::move(tlp)});
      return;
    }
  }

  std::vector<Bars> bars_;
  size_t uplink_;  // the egress towards the root complex, and the ingress from it
  int64_t link_latency_;
  std::vector<Egress> egresses_;
  std::vector<Event> events_;
  uint64_t sequence_ = 0;
  int64_t now_ = 0;
};

}  // namespace halfdome
