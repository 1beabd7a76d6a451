// The C interface of a world, for ctypes (sim/engine/world.py). No function throws.
#include "world.hpp"

using namespace halfdome;

static_assert(sizeof(TlpPins) == 6 * sizeof(Pin) && sizeof(AxiPins) == 29 * sizeof(Pin),
              "sim/engine/world.py passes pins as arrays");

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

int world_run(Handle* handle, int64_t target_cycle, unsigned stop) {
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

// The message `index`; messages are kept for the life of the world.
void world_message(const Handle* handle, size_t index, Message* out) {
  *out = handle->world.fabric.root.messages[index];
}

void world_card_traffic(Handle* handle, size_t index, CardTraffic* out) {
  Card& card = *handle->world.cards[index];
  *out = {traffic(handle->world.fabric.to_card(index)), traffic(card.endpoint.sent),
          card.dram.counters(card.cycle()), card.endpoint.counters.malformed};
}

void world_host_traffic(const Handle* handle, HostTraffic* out) {
  const Fabric& fabric = handle->world.fabric;
  *out = {traffic(fabric.uplink_down()), traffic(fabric.uplink_up()), fabric.root.counters};
}

void world_card_state(const Handle* handle, size_t index, char* out, size_t bytes) {
  const std::string state = handle->world.cards[index]->state();
  std::strncpy(out, state.c_str(), bytes - 1);
  out[bytes - 1] = 0;
}

void world_time(Handle* handle, int on) {
  for (auto& card : handle->world.cards) card->timing = on;
}

// Nanoseconds of a card's model, and of the card with its link and DRAM, while timing was on.
void world_card_time(const Handle* handle, size_t index, int64_t* out) {
  const Card& card = *handle->world.cards[index];
  out[0] = card.model_ns;
  out[1] = card.total_ns;
}

void world_record(Handle* handle, size_t index, int on) {
  handle->world.cards[index]->recording = on;
}

size_t world_trace(const Handle* handle, size_t index, const uint8_t** data) {
  const std::vector<uint8_t>& trace = handle->world.cards[index]->trace;
  *data = trace.data();
  return trace.size();
}

}  // extern "C"
#pragma GCC visibility pop
