// Plays a list of AXI4 operations against the DRAM model and notes what comes back, and when.
#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "dram/axi.hpp"

using namespace halfdome;

struct Operation {
  uint64_t address, beats, id, write, size, burst;
  uint64_t barrier;  // wait until every earlier operation has been answered
  int64_t begun, first, done;  // cycles: address taken, first answer, last answer
  uint64_t response;
  uint64_t data;  // offset of its data in the data and strobe arrays
};

enum Fault { NONE, UNSTABLE, WRONG_LAST, UNKNOWN_ID, HUNG };

struct Storage {
  uint8_t bytes[29][128] = {};
};

static AxiPins bind(Storage& s, uint32_t bus, uint32_t id_bits) {
  int next = 0;
  auto pin = [&](uint32_t width) { return Pin{s.bytes[next++], width}; };
  AxiPins p;
  p.awid = pin(id_bits), p.awaddr = pin(40), p.awlen = pin(8), p.awsize = pin(3);
  p.awburst = pin(2), p.awvalid = pin(1), p.awready = pin(1);
  p.wdata = pin(bus * 8), p.wstrb = pin(bus), p.wlast = pin(1), p.wvalid = pin(1);
  p.wready = pin(1);
  p.bid = pin(id_bits), p.bresp = pin(2), p.bvalid = pin(1), p.bready = pin(1);
  p.arid = pin(id_bits), p.araddr = pin(40), p.arlen = pin(8), p.arsize = pin(3);
  p.arburst = pin(2), p.arvalid = pin(1), p.arready = pin(1);
  p.rid = pin(id_bits), p.rdata = pin(bus * 8), p.rresp = pin(2), p.rlast = pin(1);
  p.rvalid = pin(1), p.rready = pin(1);
  return p;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// The commands of a channel that is run up to every clock, or only when a line arrives. Lines that
// find no room are left out. `commands` has room for `most`; returns how many there were.
EXPORT uint64_t commands(const DramSettings* settings, const int64_t* lines, const uint8_t* writes,
                         const int64_t* arrivals, uint64_t count, int64_t end, int every_clock,
                         DramCommand* commands, uint64_t most) {
  DramChannel channel(*settings);
  std::vector<DramCommand> log;
  channel.log = &log;
  std::vector<int64_t> done(count);
  int64_t clock = 0;
  const auto run = [&](int64_t until) {
    if (every_clock) {
      while (clock < until) channel.run(++clock);
    } else {
      channel.run(until);
    }
  };
  for (uint64_t i = 0; i < count; ++i) {
    run(arrivals[i]);
    if (writes[i]) channel.write(lines[i], ~uint64_t{0}, arrivals[i]);
    else if (channel.read_room()) channel.read(lines[i], arrivals[i], &done[i]);
  }
  run(end);
  std::copy_n(log.begin(), std::min<uint64_t>(log.size(), most), commands);
  return log.size();
}

// `data` holds write data and receives read data; one strobe byte for each data byte.
// `early_data`: write data are offered before their address. `outstanding` bounds what is in flight.
EXPORT int play(const DramSettings* settings, uint8_t* memory, uint64_t bytes, Operation* operations,
                uint64_t count, uint8_t* data, const uint8_t* strobes, uint64_t outstanding,
                int early_data, double stall, uint64_t seed, int64_t limit, DramCounters* counters) {
  const auto bus = static_cast<uint32_t>(settings->bus_bytes);
  Storage storage;
  AxiPins p = bind(storage, bus, 4);
  Dram dram(*settings, memory, bytes, p.arid.width);
  AxiPort port(dram, p);
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> chance(0, 1);
  std::map<uint64_t, std::deque<Operation*>> reads, writes;
  std::map<uint64_t, uint64_t> beat;
  uint64_t next = 0, in_flight = 0, answered = 0;  // `next`: operation whose address is due
  uint64_t data_operation = 0, data_beat = 0;      // write whose data are due
  bool held_r = false, held_b = false;
  uint8_t last_r[160], last_b[2];
  bool r_ready = true, b_ready = true;

  for (int64_t cycle = 0; answered < count; ++cycle) {
    if (cycle > limit) return HUNG;
    port.drive();
    const bool may = next < count && in_flight < outstanding &&
                     !(operations[next].barrier && answered < next);
    Operation& op = operations[std::min(next, count - 1)];
    p.arvalid.set(may && !op.write);
    p.awvalid.set(may && op.write && !(early_data && data_operation <= next));
    p.araddr.set(op.address), p.arlen.set(op.beats - 1), p.arid.set(op.id);
    p.arsize.set(op.size), p.arburst.set(op.burst);
    p.awaddr.set(op.address), p.awlen.set(op.beats - 1), p.awid.set(op.id);
    p.awsize.set(op.size), p.awburst.set(op.burst);

    while (data_operation < count && !operations[data_operation].write) ++data_operation;
    const bool has_data = data_operation < count &&
                          (early_data ? data_operation == next && may : data_operation < next);
    p.wvalid.set(has_data);
    if (has_data) {
      const Operation& w = operations[data_operation];
      const uint64_t start = w.data + data_beat * bus;
      std::memcpy(p.wdata.data, data + start, bus);
      std::memset(p.wstrb.data, 0, 16);
      for (uint32_t i = 0; i < bus; ++i) p.wstrb.data[i / 8] |= strobes[start + i] << (i % 8);
      p.wlast.set(data_beat + 1 == w.beats);
    }
    p.rready.set(r_ready), p.bready.set(b_ready);

    // A refused answer must stay as it is.
    uint8_t r[160] = {}, b[2];
    std::memcpy(r, p.rdata.data, bus);
    r[128] = *p.rid.data, r[129] = *p.rlast.data, r[130] = *p.rresp.data;
    b[0] = *p.bid.data, b[1] = *p.bresp.data;
    if (held_r && (!p.rvalid.high() || std::memcmp(r, last_r, sizeof r))) return UNSTABLE;
    if (held_b && (!p.bvalid.high() || std::memcmp(b, last_b, sizeof b))) return UNSTABLE;
    held_r = p.rvalid.high() && !r_ready;
    held_b = p.bvalid.high() && !b_ready;
    std::memcpy(last_r, r, sizeof r);
    std::memcpy(last_b, b, sizeof b);

    const bool take_ar = p.arvalid.high() && p.arready.high();
    const bool take_aw = p.awvalid.high() && p.awready.high();
    const bool take_w = p.wvalid.high() && p.wready.high();
    const bool take_r = p.rvalid.high() && r_ready, take_b = p.bvalid.high() && b_ready;
    port.step(cycle);

    if (take_r) {
      auto& queue = reads[p.rid.get()];
      if (queue.empty()) return UNKNOWN_ID;
      Operation& read = *queue.front();
      uint64_t& position = beat[p.rid.get()];
      if (position == 0) read.first = cycle;
      std::memcpy(data + read.data + position * bus, p.rdata.data, bus);
      read.response |= p.rresp.get();
      ++position;
      if (p.rlast.high() != (position == read.beats)) return WRONG_LAST;
      if (position == read.beats) {
        read.done = cycle;
        position = 0;
        queue.pop_front();
        --in_flight, ++answered;
      }
    }
    if (take_b) {
      auto& queue = writes[p.bid.get()];
      if (queue.empty()) return UNKNOWN_ID;
      queue.front()->response = p.bresp.get();
      queue.front()->first = queue.front()->done = cycle;
      queue.pop_front();
      --in_flight, ++answered;
    }
    if (take_ar || take_aw) {
      op.begun = cycle;
      op.response = 0;
      (take_ar ? reads : writes)[op.id].push_back(&op);
      ++next, ++in_flight;
    }
    if (take_w && ++data_beat == operations[data_operation].beats) ++data_operation, data_beat = 0;
    r_ready = chance(random) >= stall;
    b_ready = chance(random) >= stall;
  }
  int64_t last = 0;
  for (uint64_t i = 0; i < count; ++i) last = std::max(last, operations[i].done);
  *counters = dram.counters(last + 1);
  return NONE;
}
