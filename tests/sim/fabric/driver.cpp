// The fabric with probes instead of cards: they answer reads in the moment these arrive.
//
// A probe that finds no credits looks again after each window of the simulation.

#include "fabric/fabric.hpp"

using namespace halfdome;

struct Packet {
  int64_t time;
  uint64_t card, bytes;
  uint32_t header[4];
  uint8_t payload[4096];
};

struct Probe {
  Fabric fabric;
  std::vector<Bars> bars;
  std::vector<uint8_t*> memory;  // what both BARs of each probe show
  std::vector<Line> lines;
  std::vector<OrderedQueue> waiting;
  std::vector<bool> full;        // probes that give no room back
  std::vector<std::vector<CreditReturn>> kept;
  std::vector<Packet> log;  // every packet that reached a probe
  std::vector<uint8_t> read_data;
};

static void pump(Probe* probe, uint64_t card, int64_t time) {
  Line& line = probe->lines[card];
  line.credits.collect(time);
  while (const Tlp* next = probe->waiting[card].next(line.credits)) {
    Tlp tlp = probe->waiting[card].pop(next->flow());
    const int64_t arrival = line.transmit(time, tlp);
    probe->fabric.arrive_from_card(card, arrival, std::move(tlp));
  }
}

static void send(Probe* probe, uint64_t card, int64_t time, Tlp&& tlp) {
  tlp.header[1] = (tlp.header[1] & 0xFFFF) | Fabric::card_id(card) << 16;
  probe->waiting[card].push(std::move(tlp));
  pump(probe, card, time);
}

static void receive(Probe* probe, uint64_t card, int64_t time, const Tlp& tlp) {
  Packet packet{time, card, tlp.payload.size(), {}, {}};
  std::memcpy(packet.header, tlp.header, sizeof packet.header);
  std::memcpy(packet.payload, tlp.payload.data(), tlp.payload.size());
  probe->log.push_back(packet);
  if (tlp.is_completion()) return;
  if (probe->full[card]) probe->kept[card].push_back({time, tlp.credit()});
  else probe->fabric.credit_from_card(card, time, tlp.credit());
  const Bars& bars = probe->bars[card];
  const Window& hit = bars.bar0.holds(tlp.address(), 1) ? bars.bar0 : bars.bar2;
  uint8_t* memory = probe->memory[card] + (tlp.address() - hit.base);
  if (tlp.is_write()) {
    for (unsigned i = 0; i < tlp.payload.size(); ++i) {
      uint32_t enable = 0xF;
      if (i < 4) enable = tlp.first_enable();
      else if (i >= tlp.payload.size() - 4) enable = tlp.last_enable();
      if (enable >> (i % 4) & 1) memory[i] = tlp.payload[i];
    }
  } else if (tlp.is_read()) {
    Tlp answer = completion(tlp, SUCCESSFUL, 0, tlp.byte_count(),
                            static_cast<unsigned>(tlp.address()) + tlp.first_byte());
    answer.header[0] = COMPLETION_DATA << 24 | (tlp.header[0] & 0x3FF);
    answer.payload.assign(memory, memory + tlp.length_bytes());
    send(probe, card, time, std::move(answer));
  }
}

#pragma GCC visibility push(default)
extern "C" {

Probe* probe_create(const FabricSettings* settings, uint64_t cards, uint8_t* host_memory,
                    const Bars* bars, uint8_t* const* memory) {
  std::vector<Bars> list(bars, bars + cards);
  Fabric fabric(*settings, host_memory, list);
  const std::vector<Line> lines(cards, fabric.card_line());
  return new Probe{std::move(fabric), list, std::vector<uint8_t*>(memory, memory + cards), lines,
                   std::vector<OrderedQueue>(cards), std::vector<bool>(cards),
                   std::vector<std::vector<CreditReturn>>(cards), {}, {}};
}

void probe_destroy(Probe* probe) { delete probe; }

// Runs to `limit` or the end of the host's read, whichever is first; returns 1 for the latter.
int probe_run(Probe* probe, int64_t limit) {
  while (probe->fabric.now() < limit) {
    const int64_t next = std::min(limit, probe->fabric.now() + probe->fabric.lookahead_down());
    if (probe->fabric.run(next, RootComplex::READ_DONE)) return 1;
    for (size_t i = 0; i < probe->bars.size(); ++i) {
      for (const CreditReturn& item : probe->fabric.returned[i]) probe->lines[i].credits.give(item);
      probe->fabric.returned[i].clear();
      for (const TimedTlp& item : probe->fabric.received[i]) receive(probe, i, item.time, item.tlp);
      probe->fabric.received[i].clear();
      pump(probe, i, next);
    }
  }
  return 0;
}

int64_t probe_now(const Probe* probe) { return probe->fabric.now(); }

void probe_read(Probe* probe, uint64_t address, uint64_t bytes) {
  probe->read_data.resize(bytes);
  probe->fabric.root.read(address, probe->read_data.data(), bytes);
}

const uint8_t* probe_read_data(const Probe* probe) { return probe->read_data.data(); }

void probe_abandon(Probe* probe) { probe->fabric.root.abandon_reads(); }

void probe_write(Probe* probe, uint64_t address, const uint8_t* data, uint64_t bytes) {
  probe->fabric.root.write(address, data, bytes);
}

// A packet from a card, sent now.
void probe_send(Probe* probe, uint64_t card, const uint32_t* header, const uint8_t* payload,
                uint64_t bytes) {
  Tlp tlp;
  std::memcpy(tlp.header, header, sizeof tlp.header);
  tlp.payload.assign(payload, payload + bytes);
  send(probe, card, probe->fabric.now(), std::move(tlp));
}

// A probe that is `full` keeps the room of what it receives until it no longer is.
void probe_full(Probe* probe, uint64_t card, int full) {
  probe->full[card] = full;
  if (full) return;
  for (const CreditReturn& item : probe->kept[card]) {
    probe->fabric.credit_from_card(card, probe->fabric.now(), item.credit);
  }
  probe->kept[card].clear();
}

uint64_t probe_log_count(const Probe* probe) { return probe->log.size(); }
const Packet* probe_log(const Probe* probe) { return probe->log.data(); }

void probe_counters(const Probe* probe, uint64_t* out) {
  const RootCounters& root = probe->fabric.root.counters;
  const LinkCounters &up = probe->fabric.uplink_up(), &down = probe->fabric.uplink_down();
  const uint64_t values[] = {root.unsupported_reads, root.unsupported_requests,
                             root.unexpected_completions, up.payload_bytes, down.payload_bytes,
                             up.tlps, down.tlps, probe->fabric.root.messages.size()};
  std::memcpy(out, values, sizeof values);
}

}  // extern "C"
#pragma GCC visibility pop
