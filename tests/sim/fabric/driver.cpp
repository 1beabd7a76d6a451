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

// Reads of a card that are still to be sent; as many at once as there are tags.
struct Dma {
  uint64_t address, left;
  unsigned request_bytes;
};

struct Probe {
  Fabric fabric;
  std::vector<Bars> bars;
  std::vector<uint8_t*> memory;  // what both BARs of each probe show
  std::vector<Line> lines;
  std::vector<OrderedQueue> waiting;
  std::vector<bool> full, down;  // probes that give no room back; whose links are down
  std::vector<std::vector<CreditReturn>> kept;
  std::vector<Dma> dma;
  unsigned max_payload_bytes;
  std::vector<Packet> log;  // every packet that reached a probe
  std::vector<uint8_t> read_data;
};

static void pass_on(Probe* probe, uint64_t card, std::vector<TimedTlp>& arrivals) {
  for (TimedTlp& item : arrivals) {
    probe->fabric.arrive_from_card(card, item.time, std::move(item.tlp));
  }
}

static void pump(Probe* probe, uint64_t card, int64_t time) {
  Line& line = probe->lines[card];
  line.credits.collect(time);
  while (const Tlp* next = probe->waiting[card].next(line.credits)) {
    Tlp tlp = probe->waiting[card].pop(next->flow());
    std::vector<TimedTlp> arrivals;
    line.transmit(time, std::move(tlp), arrivals);
    pass_on(probe, card, arrivals);
  }
}

// What happens on a link with faults though no packet is sent.
static void tend(Probe* probe, uint64_t card, int64_t time) {
  Line& line = probe->lines[card];
  DataLink* data_link = line.data_link();
  if (!data_link) return;
  const bool down = data_link->faults.down(time, time);
  if (down && !probe->down[card]) data_link->reset(line.credits, time);
  probe->down[card] = down;
  if (down || data_link->wake() > time) return;
  std::vector<TimedTlp> arrivals;
  data_link->wake(line.wire, time, arrivals);
  pass_on(probe, card, arrivals);
}

static void send(Probe* probe, uint64_t card, int64_t time, Tlp&& tlp) {
  tlp.header[1] = (tlp.header[1] & 0xFFFF) | Fabric::card_id(card) << 16;
  probe->waiting[card].push(std::move(tlp));
  pump(probe, card, time);
}

static void read_next(Probe* probe, uint64_t card, int64_t time, uint32_t tag) {
  Dma& dma = probe->dma[card];
  if (!dma.left) return;
  const auto bytes = static_cast<unsigned>(std::min<uint64_t>(dma.left, dma.request_bytes));
  const uint32_t enables = bytes > 4 ? 0xFF : 0xF;
  send(probe, card, time, memory_request(MEMORY_READ, dma.address, bytes, enables, 0, tag));
  dma.address += bytes;
  dma.left -= bytes;
}

static void receive(Probe* probe, uint64_t card, int64_t time, const Tlp& tlp) {
  Packet packet{time, card, tlp.payload.size(), {}, {}};
  std::memcpy(packet.header, tlp.header, sizeof packet.header);
  std::memcpy(packet.payload, tlp.payload.data(), tlp.payload.size());
  probe->log.push_back(packet);
  if (tlp.is_completion()) {
    if (tlp.remaining_bytes() <= tlp.payload.size()) {
      read_next(probe, card, time, tlp.completion_tag());
    }
    return;
  }
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
    uint64_t address = tlp.address() + tlp.first_byte();
    unsigned remaining = tlp.byte_count();
    while (remaining) {
      const uint64_t cut = (address + probe->max_payload_bytes) / 64 * 64;
      const auto bytes = static_cast<unsigned>(std::min<uint64_t>(remaining, cut - address));
      Tlp answer = completion(tlp, SUCCESSFUL, 0, remaining, static_cast<unsigned>(address));
      const unsigned length = (address % 4 + bytes + 3) / 4 * 4;
      answer.header[0] = COMPLETION_DATA << 24 | (length / 4 & 0x3FF);
      const uint8_t* source = memory + (address / 4 * 4 - tlp.address());
      answer.payload.assign(source, source + length);
      send(probe, card, time, std::move(answer));
      address += bytes;
      remaining -= bytes;
    }
  }
}

#pragma GCC visibility push(default)
extern "C" {

Probe* probe_create(const FabricSettings* settings, uint64_t cards, uint8_t* host_memory,
                    const Bars* bars, uint8_t* const* memory) {
  std::vector<Bars> list(bars, bars + cards);
  Fabric fabric(*settings, host_memory, list);
  std::vector<Line> lines;
  for (uint64_t card = 0; card < cards; ++card) lines.push_back(fabric.card_line());
  fabric.root.messages_kept = 1024;  // as many as any test sends
  return new Probe{std::move(fabric), list, std::vector<uint8_t*>(memory, memory + cards), std::move(lines),
                   std::vector<OrderedQueue>(cards), std::vector<bool>(cards), std::vector<bool>(cards),
                   std::vector<std::vector<CreditReturn>>(cards), std::vector<Dma>(cards),
                   static_cast<unsigned>(settings->max_payload_bytes), {}, {}};
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
      tend(probe, i, next);
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

// A card reads `bytes` from `address`, with up to `tags` requests in flight.
void probe_dma(Probe* probe, uint64_t card, uint64_t address, uint64_t bytes,
               uint64_t request_bytes, uint64_t tags) {
  probe->dma[card] = {address, bytes, static_cast<unsigned>(request_bytes)};
  for (uint32_t tag = 0; tag < tags; ++tag) read_next(probe, card, probe->fabric.now(), tag);
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

void probe_inject(Probe* probe, const Fault* faults, uint64_t count) {
  const uint64_t cards = probe->bars.size();
  for (uint64_t i = 0; i < count; ++i) {
    const auto link = static_cast<uint64_t>(faults[i].link);
    if (link < cards && !faults[i].down) probe->lines[link].plan(faults[i]);
    else probe->fabric.plan(link < cards ? link : cards + (faults[i].down ? 1 : 0), faults[i]);
  }
}

void probe_faults(const Probe* probe, uint64_t link, int down, FaultCounters* out) {
  const uint64_t cards = probe->bars.size();
  const Line& line = link < cards && !down ? probe->lines[link]
                                           : probe->fabric.line(link < cards ? link : cards + down);
  *out = line.data_link() ? line.data_link()->faults.counters : FaultCounters{};
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
