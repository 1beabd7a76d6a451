// The C interface of a world, for ctypes (sim/kernel/world.py). No function throws.
#include "world.hpp"

using namespace halfdome;

static_assert(sizeof(TlpPins) == 7 * sizeof(Pin) && sizeof(AxiPins) == 29 * sizeof(Pin),
              "sim/kernel/world.py passes pins as arrays");

namespace {

struct Handle {
  World world;
  std::vector<uint8_t> read_data;
};

struct LinkTraffic {
  uint64_t tlps, payload_bytes, wire_bytes;
};

struct CardTraffic {
  LinkTraffic to_card, from_card;
  DramCounters dram;
  uint64_t malformed_packets;
};

struct HostTraffic {
  LinkTraffic to_cards, to_host;
  RootCounters root;
};

// A card of hardware; Python asks no other for what only such a card has.
RtlCard& rtl(const Handle* handle, size_t index) {
  return static_cast<RtlCard&>(*handle->world.cards[index]);
}

LinkTraffic traffic(const LinkCounters& link) {
  return {link.tlps, link.payload_bytes, link.wire_bytes};
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

Handle* world_create(const WorldSettings* settings, uint8_t* host_memory, const Bars* bars) {
  const auto cards = static_cast<size_t>(settings->cards);
  return new Handle{World(*settings, host_memory, std::vector<Bars>(bars, bars + cards)), {}};
}

void world_destroy(Handle* handle) { delete handle; }

void world_add_card(Handle* handle, const CardModel* model, uint8_t* memory, uint64_t bytes,
                    const TlpPins* tlp, const AxiPins* axi, const Pin* outputs, size_t count) {
  handle->world.add_card(*model, memory, bytes, *tlp, *axi,
                         std::vector<Pin>(outputs, outputs + count));
}

void world_add_made_card(Handle* handle, const CardMaker* maker) {
  handle->world.add_card(*maker);
}

int world_run(Handle* handle, int64_t target_cycle, unsigned stop, uint64_t message) {
  handle->world.fabric.root.awaited = message;
  return handle->world.run(target_cycle, stop);
}

int64_t world_cycle(const Handle* handle) { return handle->world.cycle(); }

int64_t world_time_fs(const Handle* handle) { return handle->world.fabric.now(); }

void world_write(Handle* handle, uint64_t address, const uint8_t* data, uint64_t bytes) {
  handle->world.fabric.root.write(address, data, bytes);
}

// The data stay with the world until `world_read_data`: a late completion must not find them gone.
void world_read(Handle* handle, uint64_t address, uint64_t bytes) {
  handle->read_data.resize(bytes);
  handle->world.fabric.root.read(address, handle->read_data.data(), bytes);
}

const uint8_t* world_read_data(const Handle* handle) { return handle->read_data.data(); }

void world_abandon_reads(Handle* handle) { handle->world.fabric.root.abandon_reads(); }

size_t world_message_count(const Handle* handle) {
  return handle->world.fabric.root.messages.size();
}

// Keeps the latest `most` messages from now on, and forgets those before.
void world_keep_messages(Handle* handle, size_t most) {
  handle->world.fabric.root.messages.clear();
  handle->world.fabric.root.messages_kept = most;
}

// The message `index` of those that were kept.
void world_message(const Handle* handle, size_t index, Message* out) {
  *out = handle->world.fabric.root.messages[index];
}

void world_card_traffic(Handle* handle, size_t index, CardTraffic* out) {
  Card& card = *handle->world.cards[index];
  *out = {traffic(handle->world.fabric.to_card(index)), traffic(card.endpoint.line.wire.sent),
          card.dram.counters(card.cycle()), card.endpoint.counters.malformed};
}

void world_host_traffic(const Handle* handle, HostTraffic* out) {
  const Fabric& fabric = handle->world.fabric;
  *out = {traffic(fabric.uplink_down()), traffic(fabric.uplink_up()), fabric.root.counters};
}

// Requests to nowhere or with bad data, and links lost. Asked for at every interrupt.
uint64_t world_host_errors(const Handle* handle) {
  const auto& counters = handle->world.fabric.root.counters;
  return counters.unsupported_requests + counters.poisoned_requests + counters.links_lost;
}

void world_card_state(const Handle* handle, size_t index, char* out, size_t bytes) {
  const std::string state = handle->world.cards[index]->state();
  std::strncpy(out, state.c_str(), bytes - 1);
  out[bytes - 1] = 0;
}

void world_time(Handle* handle, int on) {
  for (auto& card : handle->world.cards) card->timing = on;
}

int64_t world_card_evaluated(const Handle* handle, size_t index) {
  return handle->world.cards[index]->evaluated();
}

// Nanoseconds of a card's model, and of the card with its link and DRAM, while timing was on.
void world_card_time(const Handle* handle, size_t index, int64_t* out) {
  const Card& card = *handle->world.cards[index];
  out[0] = card.model_ns;
  out[1] = card.total_ns;
}

void world_record(Handle* handle, size_t index, int on) {
  rtl(handle, index).record(on);
}

// Keeps up to `most` packets of each direction of each link from now on; 0 keeps none.
void world_log_packets(Handle* handle, size_t most) {
  Fabric& fabric = handle->world.fabric;
  for (size_t i = 0; i < handle->world.cards.size() + 2; ++i) fabric.log(i).keep(most);
  for (auto& card : handle->world.cards) card->endpoint.line.wire.log.keep(most);
}

// The packets kept of link `index` (the uplink comes after the cards), towards the cards or not.
size_t world_packets(Handle* handle, size_t index, int down, const PacketRecord** records,
                     uint64_t* left_out) {
  World& world = handle->world;
  const size_t cards = world.cards.size();
  const PacketLog& log = index < cards && !down ? world.cards[index]->endpoint.line.wire.log
                                                : world.fabric.log(index < cards ? index : cards + down);
  *records = log.records.data();
  *left_out = log.left_out;
  return log.records.size();
}

// Keeps up to `most` bytes of what a card's input pins are, from cycle 0.
void world_keep_inputs(Handle* handle, size_t index, const Pin* pins, size_t count, size_t most) {
  rtl(handle, index).inputs = PinLog(std::vector<Pin>(pins, pins + count), most);
}

uint32_t world_card_id(size_t index) { return Fabric::card_id(index); }

int64_t world_card_cycle(const Handle* handle, size_t index) {
  return handle->world.cards[index]->cycle();
}

// Drives a model as a card has been driven up to `end`. Returns 0, 1 if the model stopped, 2 if
// not every input was kept.
int world_repeat(const Handle* handle, size_t index, const CardModel* model, const Pin* pins,
                 int64_t end) {
  const PinLog& inputs = rtl(handle, index).inputs;
  if (!inputs.on() || inputs.overflowed()) return 2;
  const bool whole = inputs.repeat(pins, end, [model] {
    if (model->settle(model->context)) return false;
    if (model->edge) model->edge(model->context);
    return true;
  });
  return whole ? 0 : 1;
}

// Plans faults from now on. Those of what a card sends are its endpoint's, the others the fabric's.
void world_inject(Handle* handle, const Fault* faults, size_t count) {
  World& world = handle->world;
  const size_t cards = world.cards.size();
  for (size_t i = 0; i < count; ++i) {
    const Fault& fault = faults[i];
    const auto link = static_cast<size_t>(fault.link);
    if (link < cards && !fault.down) world.cards[link]->endpoint.line.plan(fault);
    else world.fabric.plan(link < cards ? link : cards + (fault.down ? 1 : 0), fault);
  }
}

// What faults did to link `index` (the uplink comes after the cards), towards the cards or not.
void world_faults(const Handle* handle, size_t index, int down, FaultCounters* out) {
  const World& world = handle->world;
  const size_t cards = world.cards.size();
  const Line& line = index < cards && !down ? world.cards[index]->endpoint.line
                                            : world.fabric.line(index < cards ? index : cards + down);
  *out = line.data_link() ? line.data_link()->faults.counters : FaultCounters{};
}

// Packets hit by the fault planned as number `place` for that direction of that link.
uint64_t world_struck(const Handle* handle, size_t index, int down, size_t place) {
  const World& world = handle->world;
  const size_t cards = world.cards.size();
  const Line& line = index < cards && !down ? world.cards[index]->endpoint.line
                                            : world.fabric.line(index < cards ? index : cards + down);
  return line.data_link()->faults.struck(place);
}

size_t world_trace(const Handle* handle, size_t index, const uint8_t** data) {
  const std::vector<uint8_t>& trace = rtl(handle, index).trace;
  *data = trace.data();
  return trace.size();
}

}  // extern "C"
#pragma GCC visibility pop
