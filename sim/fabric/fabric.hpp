// Root complex, uplink, switch and the switch's side of the card links, packet by packet.
//
// The switch buffers a packet where it came in until it has gone out; each egress serves its ingress
// ports round-robin, as far as the next receiver has room. Requests go to the card whose BAR holds
// the address, whoever sends them, and otherwise to the root complex; completions go to their
// requester. Events are handled in order of (time, kind, port, sequence), none of which depends on
// when packets are handed in, so a run has one outcome.
#pragma once

#include <memory>

#include "endpoint.hpp"
#include "root_complex.hpp"

namespace halfdome {

struct FabricSettings {
  int64_t uplink_generation, uplink_lanes, card_generation, card_lanes, port_latency_fs,
      switch_latency_fs, cut_through, credit_update_fs, host_read_latency_fs, host_bytes_per_us,
      max_payload_bytes, max_read_request_bytes, reset_offset, reset_value;
  uint64_t host_base, host_bytes, message_base, message_bytes;
  CreditLimits switch_credits, root_credits, card_credits;
};

class Fabric {
 public:
  Fabric(const FabricSettings& settings, uint8_t* host_memory, std::vector<Bars> bars)
      : received(bars.size()), returned(bars.size()),
        root({{settings.host_base, settings.host_bytes},
              {settings.message_base, settings.message_bytes},
              settings.host_read_latency_fs, settings.host_bytes_per_us,
              static_cast<unsigned>(settings.max_payload_bytes),
              static_cast<unsigned>(settings.max_read_request_bytes)},
             host_memory),
        s_(settings), bars_(std::move(bars)), uplink_(bars_.size()),
        root_egress_(bars_.size() + 1), link_latency_(2 * settings.port_latency_fs),
        card_rate_(settings.card_generation, settings.card_lanes),
        uplink_rate_(settings.uplink_generation, settings.uplink_lanes) {
    for (size_t i = 0; i < bars_.size(); ++i) {
      egresses_.emplace_back(Line(card_rate_, link_latency_, s_.card_credits), uplink_ + 2);
    }
    egresses_.emplace_back(Line(uplink_rate_, link_latency_, s_.root_credits), uplink_ + 2);
    egresses_.emplace_back(Line(uplink_rate_, link_latency_, s_.switch_credits), 1);
  }

  // Bus number of a card: 0 root complex, 1 and 2 the switch, then one bus for each link.
  static uint32_t card_id(size_t card) { return static_cast<uint32_t>(card + 3) << 8; }

  // The transmitter of a card.
  Line card_line() const { return Line(card_rate_, link_latency_, s_.switch_credits); }

  // A packet whose last byte reaches the switch at `time`. It was not sent before the last event.
  void arrive_from_card(size_t card, int64_t time, Tlp&& tlp) {
    enter_switch(card, card_rate_, time, std::move(tlp));
  }

  // Room in a card that is free again since `time`.
  void credit_from_card(size_t card, int64_t time, Credit credit) {
    give_back(card, {time + credit_delay(card_rate_), credit});
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

  // Plans a fault on a line of the switch or the root complex.
  void plan(size_t egress, const Fault& fault) {
    egresses_[egress].line.plan(fault);
    if (fault.kind == LINK_DOWN) {
      push({std::max(fault.after_fs, now_), LINK_FAILS, egress, ++sequence_, {}});
    }
  }

  // The transmitter of what the switch sends to a card; after the cards, to and from the root
  // complex.
  const Line& line(size_t egress) const { return egresses_[egress].line; }

  int64_t now() const { return now_; }

  // The shortest time from what a card does to its first effect in the switch, and back.
  int64_t lookahead_up() const {
    return shortest() + std::min(s_.switch_latency_fs, s_.credit_update_fs);
  }
  int64_t lookahead_down() const { return shortest(); }

  const LinkCounters& to_card(size_t card) const { return egresses_[card].line.wire.sent; }
  const LinkCounters& uplink_up() const { return egresses_[uplink_].line.wire.sent; }
  const LinkCounters& uplink_down() const { return egresses_[root_egress_].line.wire.sent; }

  // The log of what the switch sends to a card; after the cards, to and from the root complex.
  PacketLog& log(size_t egress) { return egresses_[egress].line.wire.log; }

  std::vector<std::vector<TimedTlp>> received;      // per card, for its endpoint, by arrival
  std::vector<std::vector<CreditReturn>> returned;  // per card, for its line
  RootComplex root;

 private:
  enum Kind { LINK_FAILS, AT_SWITCH, AT_ROOT, HOST_DATA, LINE_FREE, CREDIT, TEND };
  struct Event {
    int64_t time;
    Kind kind;
    size_t port;
    uint64_t sequence;
    Tlp tlp;
  };
  struct Egress {
    Egress(Line&& transmitter, size_t ingresses)
        : line(std::move(transmitter)), queues(ingresses) {}
    Line line;
    std::vector<OrderedQueue> queues;  // one for each ingress port, and one for the switch itself
    size_t next = 0, waiting = 0;      // whose turn it is, packets in `queues`
    bool busy = false;
    size_t source = 0;                 // of the packet on the line: where it is buffered
    Credit held{};                     // and the room it takes there
    int64_t wake = -1;                 // when the last `CREDIT` event is or was due
    int64_t tended = -1;               // when the last `TEND` event is or was due
  };

  static bool later(const Event& a, const Event& b) {
    if (a.time != b.time) return a.time > b.time;
    if (a.kind != b.kind) return a.kind > b.kind;
    if (a.port != b.port) return a.port > b.port;
    return a.sequence > b.sequence;
  }

  int64_t shortest() const { return link_latency_ + card_rate_.time(DLLP_BYTES); }

  // From room being free to the transmitter knowing it.
  int64_t credit_delay(const LinkRate& rate) const {
    return s_.credit_update_fs + rate.time(DLLP_BYTES) + link_latency_;
  }

  void push(Event&& event) {
    events_.push_back(std::move(event));
    std::push_heap(events_.begin(), events_.end(), later);
  }

  void handle(Event& event) {
    switch (event.kind) {
      case LINK_FAILS:
        fail(event.port);
        break;
      case AT_SWITCH:
        enqueue(route(event.tlp), event.port, std::move(event.tlp));
        break;
      case AT_ROOT:
        root.receive(now_, event.tlp);
        break;
      case HOST_DATA:
        root.host_data_ready(now_);
        break;
      case LINE_FREE:
        if (egresses_[event.port].line.wire.free_at > now_) {  // it is sending something again
          push({egresses_[event.port].line.wire.free_at, LINE_FREE, event.port, ++sequence_, {}});
          break;
        }
        release(event.port);
        start(event.port);
        break;
      case CREDIT:
        start(event.port);
        break;
      case TEND:
        tend(event.port);
        break;
    }
  }

  // Packets, memory accesses and free room the root complex has produced at this moment.
  void flush_root() {
    for (Tlp& tlp : root.outgoing) enqueue(root_egress_, 0, std::move(tlp));
    root.outgoing.clear();
    for (const int64_t time : root.memory_due) push({time, HOST_DATA, 0, ++sequence_, {}});
    root.memory_due.clear();
    for (const CreditReturn& item : root.returned) {
      give_back(uplink_, {item.time + credit_delay(uplink_rate_), item.credit});
    }
    root.returned.clear();
  }

  // The switch may send a packet on once it is all there; cutting through, once it is clear where
  // to and the rest arrives as fast as it leaves.
  void enter_switch(size_t ingress, const LinkRate& rate, int64_t arrival, Tlp&& tlp) {
    if (s_.cut_through) {
      const unsigned bytes = tlp.wire_bytes();
      const LinkRate& out = egresses_[route(tlp)].line.wire.rate;
      arrival = std::max(arrival - rate.time(bytes) + rate.time(ROUTABLE_BYTES),
                         arrival - out.time(bytes));
    }
    push({arrival + s_.switch_latency_fs, AT_SWITCH, ingress, ++sequence_, std::move(tlp)});
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

  void enqueue(size_t port, size_t ingress, Tlp&& tlp) {
    if (is_down(port)) {
      discard(port, ingress, tlp);
      return;
    }
    egresses_[port].queues[ingress].push(std::move(tlp));
    ++egresses_[port].waiting;
    start(port);
  }

  // Sends the next packet that may go, if the line is free. The one place where a packet leaves.
  void start(size_t port) {
    Egress& egress = egresses_[port];
    if (egress.busy || egress.waiting == 0) return;
    egress.line.credits.collect(now_);
    const size_t count = egress.queues.size();
    for (size_t i = 0; i < count; ++i) {
      const size_t ingress = (egress.next + i) % count;
      if (egress.queues[ingress].empty()) continue;
      if (const Tlp* tlp = egress.queues[ingress].next(egress.line.credits)) {
        egress.next = (ingress + 1) % count;
        send(port, ingress, tlp->flow());
        return;
      }
    }
    wake(port);
  }

  void send(size_t port, size_t ingress, Flow flow) {
    Egress& egress = egresses_[port];
    Tlp tlp = egress.queues[ingress].pop(flow);
    --egress.waiting;
    egress.busy = true;
    egress.source = ingress;
    egress.held = tlp.credit();
    egress.line.transmit(now_, std::move(tlp), arrivals_);
    push({std::max(egress.line.wire.free_at, now_), LINE_FREE, port, ++sequence_, {}});
    pass_on(port);
    if (egress.line.data_link()) schedule_tending(port);
  }

  // Hands what arrives at the other end of a line to who is there.
  void pass_on(size_t port) {
    for (TimedTlp& item : arrivals_) {
      if (port < uplink_) received[port].push_back(std::move(item));
      else if (port == uplink_) push({item.time, AT_ROOT, 0, ++sequence_, std::move(item.tlp)});
      else enter_switch(uplink_, uplink_rate_, item.time, std::move(item.tlp));
    }
    arrivals_.clear();
  }

  // The packet on the line has left its buffer.
  void release(size_t port) {
    egresses_[port].busy = false;
    if (port != root_egress_) free_room(egresses_[port].source, egresses_[port].held);
  }

  // A buffer of the switch behind `ingress` is free again.
  void free_room(size_t ingress, Credit credit) {
    if (ingress > uplink_ || !s_.switch_credits.limited(credit.flow)) return;
    if (ingress < uplink_) {
      returned[ingress].push_back({now_ + credit_delay(card_rate_), credit});
    } else {
      give_back(root_egress_, {now_ + credit_delay(uplink_rate_), credit});
    }
  }

  bool is_down(size_t port) const {
    const DataLink* data_link = egresses_[port].line.data_link();
    return data_link && port < uplink_ && data_link->faults.down(now_, now_);
  }

  // A packet for a link that is down: the switch answers reads in place of who is behind it.
  void discard(size_t port, size_t ingress, const Tlp& tlp) {
    ++egresses_[port].line.data_link()->faults.counters.lost;
    free_room(ingress, tlp.credit());
    if (tlp.flow() != NON_POSTED) return;
    Tlp answer = completion(tlp, UNSUPPORTED_REQUEST, switch_id(port), tlp.byte_count(),
                            static_cast<unsigned>(tlp.address()) + tlp.first_byte());
    const size_t back = route(answer);
    enqueue(back, uplink_ + 1, std::move(answer));
  }

  static uint32_t switch_id(size_t port) { return 2u << 8 | static_cast<uint32_t>(port) << 3; }

  // The link of a card goes down, with what waits for it.
  void fail(size_t port) {
    ++root.counters.links_lost;
    Egress& egress = egresses_[port];
    egress.line.data_link()->reset(egress.line.credits, now_);
    for (size_t ingress = 0; ingress < egress.queues.size(); ++ingress) {
      for (const Flow flow : {POSTED, NON_POSTED, COMPLETIONS}) {
        while (egress.queues[ingress].holds(flow)) {
          const Tlp tlp = egress.queues[ingress].pop(flow);
          --egress.waiting;
          discard(port, ingress, tlp);
        }
      }
    }
  }

  void tend(size_t port) {
    Line& line = egresses_[port].line;
    if (line.data_link()->wake() <= now_) line.data_link()->wake(line.wire, now_, arrivals_);
    pass_on(port);
    schedule_tending(port);
  }

  void schedule_tending(size_t port) {
    Egress& egress = egresses_[port];
    const int64_t time = egress.line.data_link()->wake();
    if (time == std::numeric_limits<int64_t>::max()) return;
    if (egress.tended > now_ && egress.tended <= time) return;
    egress.tended = std::max(time, now_);
    push({egress.tended, TEND, port, ++sequence_, {}});
  }

  void give_back(size_t port, const CreditReturn& item) {
    egresses_[port].line.credits.give(item);
    if (!egresses_[port].busy && egresses_[port].waiting) wake(port);
  }

  // Tries again when more room is known; a line that is busy tries anyway.
  void wake(size_t port) {
    Egress& egress = egresses_[port];
    const int64_t time = egress.line.credits.next_return();
    if (time == std::numeric_limits<int64_t>::max()) return;
    if (egress.wake > now_ && egress.wake <= time) return;
    egress.wake = time;
    push({time, CREDIT, port, ++sequence_, {}});
  }

  FabricSettings s_;
  std::vector<Bars> bars_;
  size_t uplink_;       // the egress towards the root complex, and the ingress from it
  size_t root_egress_;  // the root complex's own
  int64_t link_latency_;
  LinkRate card_rate_, uplink_rate_;
  std::vector<Egress> egresses_;
  std::vector<Event> events_;
  std::vector<TimedTlp> arrivals_;  // of the moment
  uint64_t sequence_ = 0;
  int64_t now_ = 0;
};

}  // namespace halfdome
