// Card DRAM as an AXI4 subordinate, in transactions: what a card does in a cycle, what it sees in the
// next. Pins are `AxiPort`'s (axi.hpp).
//
// Reads of one ID return in order, reads of different IDs as the scheduler finishes them; bursts are
// not interleaved. A write is acknowledged when it is in the write queue and its bytes are in
// `memory`, so every read accepted after the acknowledgement sees it. Neighbouring words are combined
// into one 64-byte access. Accesses outside `memory` and anything but INCR bursts of up to 16 whole
// bus words answer SLVERR.
#pragma once

#include <cstring>

#include "../ring.hpp"
#include "channel.hpp"

namespace halfdome {

// A burst as an address channel tells it: `size` is the logarithm of a beat's bytes.
struct AddressBurst {
  uint64_t id, address;
  unsigned beats;
  uint64_t size, burst;
};

class Dram {
 public:
  static constexpr size_t MAX_READS = 256;   // read bursts in flight
  static constexpr size_t MAX_WRITES = 16;   // write addresses waiting for data
  static constexpr size_t MAX_BEATS = 32;    // write beats waiting for their place
  static constexpr int64_t LINE = 64;
  static constexpr unsigned MAX_BURST = 16;
  static constexpr uint64_t OKAY = 0, SLVERR = 2;

  // Without `memory` bytes stay where they are: somebody else moves them.
  Dram(const DramSettings& settings, uint8_t* memory, uint64_t bytes, unsigned id_bits)
      : s_(settings), bus_(static_cast<uint64_t>(settings.bus_bytes)), memory_(memory),
        bytes_(bytes), channels_(static_cast<size_t>(settings.channels), DramChannel(s_)),
        bursts_(MAX_READS) {
    while ((uint64_t{1} << size_log2_) < bus_) ++size_log2_;
    for (size_t i = 0; i < MAX_READS; ++i) free_.push_back(&bursts_[i]);
    beats_.resize(MAX_BEATS);
    last_of_id_.resize(size_t{1} << id_bits);
  }

  // What the card sees in this cycle.
  bool takes_reads() const { return arready_; }
  bool takes_writes() const { return awready_; }
  bool takes_data() const { return wready_; }
  bool beat_valid() const { return rvalid_; }
  uint64_t beat_id() const { return active_->id; }
  bool beat_last() const { return active_->next_beat + 1 == active_->beats; }
  uint64_t beat_response() const { return active_->error ? SLVERR : OKAY; }
  void copy_beat(uint8_t* out) const {
    if (active_->error) std::memset(out, 0, bus_);
    else std::memcpy(out, memory_ + active_->address + active_->next_beat * bus_, bus_);
  }
  bool response_valid() const { return !responses_.empty(); }
  uint64_t response_id() const { return responses_.front().id; }
  uint64_t response() const { return responses_.front().response; }

  // What it does, in this order; then `advance` computes the state of the next cycle.
  void take_beat() {
    if (++active_->next_beat < active_->beats) return;
    ReadBurst*& head = *std::find(heads_.begin(), heads_.end(), active_);
    if (active_->next) {
      head = active_->next;
    } else {
      last_of_id_[active_->id] = nullptr;
      head = heads_.back();
      heads_.pop_back();
    }
    free_.push_back(active_);
    active_ = nullptr;
  }

  void take_response() { responses_.pop_front(); }

  void read(const AddressBurst& asked) {
    ReadBurst* burst = free_.back();
    free_.pop_back();
    burst->id = asked.id;
    burst->address = asked.address / bus_ * bus_;
    burst->beats = asked.beats;
    burst->next_beat = burst->dispatched = 0;
    burst->error = !served(burst->address, asked);
    burst->lines = 0;
    if (!burst->error) {
      const uint64_t end = burst->address + burst->beats * bus_;
      burst->lines = static_cast<unsigned>((end - 1) / LINE - burst->address / LINE + 1);
      std::fill(burst->done, burst->done + burst->lines, NEVER);
    }
    burst->number = accepted_++;
    burst->next = nullptr;
    ReadBurst*& last = last_of_id_[burst->id];
    if (last) last->next = burst;
    else heads_.push_back(burst);
    last = burst;
    undispatched_.push_back(burst);
  }

  void write(const AddressBurst& asked) {
    const uint64_t address = asked.address / bus_ * bus_;
    addresses_.push_back({asked.id, address, asked.beats, 0, !served(address, asked)});
  }

  // A beat of a write: a strobe bit a byte.
  void write_data(const uint8_t* data, const uint8_t* strobe, bool last) {
    Beat& beat = beats_[(beat_head_ + beat_count_++) % MAX_BEATS];
    if (memory_) std::memcpy(beat.data, data, bus_);
    std::memcpy(beat.strobe, strobe, bus_ / 8);
    beat.last = last;
  }

  // A cycle in which the card waits for an address or data to be taken.
  void stall() { ++stall_cycles_; }

  void advance(int64_t cycle) {
    // Commands before the end of this cycle are decided without what arrives at its end.
    const auto [before, clock] = s_.clocks(cycle + 1);
    for (DramChannel& channel : channels_) channel.run(clock);
    dispatch_reads(clock);
    place_beat(clock);
    int64_t wake = NEVER;
    for (const DramChannel& channel : channels_) wake = std::min(wake, channel.wake());
    if (wake != wake_) {
      wake_ = wake;
      wake_cycle_ = wake == NEVER ? NEVER : wake * 2 * s_.clock_mhz / s_.rate - 1;
    }
    choose_beat(before);
    arready_ = !free_.empty();
    awready_ = addresses_.size() < MAX_WRITES;
    wready_ = beat_count_ < MAX_BEATS;
  }

  // Nothing is on its way through, and `advance` would change nothing in `cycle`.
  bool quiet(int64_t cycle) const { return unoccupied() && cycle < wake_cycle_; }

  DramCounters counters(int64_t cycle) {
    DramCounters total{};
    for (DramChannel& channel : channels_) {
      channel.catch_up(s_.clock_before(cycle));
      channel.add_counters(total);
    }
    total.stall_cycles = stall_cycles_;
    return total;
  }

  // The first cycle, from `cycle` on, in which what the card sees may change without its doing.
  int64_t still_until(int64_t cycle) const {
    return unoccupied() ? std::max(cycle, wake_cycle_) : cycle;
  }

  // The first cycle after `cycle`, which has been advanced through, in which `advance` may change
  // what the card sees, if it does nothing meanwhile.
  int64_t next_event(int64_t cycle) const {
    if (rvalid_ || !responses_.empty() || beat_count_ || !undispatched_.empty()) return cycle + 1;
    int64_t next = wake_cycle_, first = NEVER;
    for (const ReadBurst* head : heads_) first = std::min(first, arrival(*head));
    if (first < NEVER) next = std::min(next, (first * 2 * s_.clock_mhz + s_.rate - 1) / s_.rate - 1);
    return std::max(next, cycle + 1);
  }

  size_t reads_in_flight() const { return MAX_READS - free_.size(); }
  size_t writes_in_flight() const { return addresses_.size() + responses_.size(); }

 private:
  struct ReadBurst {
    uint64_t id, address, number;  // number: how many were accepted before it
    ReadBurst* next;               // the next of its ID, null if there is none
    unsigned beats, next_beat, lines, dispatched;
    bool error;
    int64_t done[MAX_BURST * 2];  // clock at which each line has arrived
  };
  struct WriteBurst {
    uint64_t id, address;
    unsigned beats, next_beat;
    bool error;
  };
  struct Response {
    uint64_t id, response;
  };
  struct Beat {
    uint8_t data[128];
    uint8_t strobe[16];
    bool last;
  };

  bool unoccupied() const {
    return reads_in_flight() == 0 && writes_in_flight() == 0 && beat_count_ == 0;
  }

  // Whether a burst is one the controller serves.
  bool served(uint64_t address, const AddressBurst& asked) const {
    const uint64_t length = asked.beats * bus_;
    return asked.burst == 1 && asked.size == size_log2_ && asked.beats <= MAX_BURST &&
           length <= bytes_ && address <= bytes_ - length &&
           address / 4096 == (address + length - 1) / 4096;
  }

  DramChannel& channel_of(int64_t line) { return channels_[s_.channel_of(line)]; }

  void dispatch_reads(int64_t clock) {
    while (!undispatched_.empty()) {
      ReadBurst& burst = *undispatched_.front();
      while (burst.dispatched < burst.lines) {
        const auto line = static_cast<int64_t>(burst.address / LINE + burst.dispatched);
        DramChannel& channel = channel_of(line);
        if (!channel.read_room()) return;
        channel.read(line, clock, &burst.done[burst.dispatched]);
        ++burst.dispatched;
      }
      undispatched_.pop_front();
    }
  }

  // Moves one write beat into the write queue and its bytes into memory.
  void place_beat(int64_t clock) {
    if (addresses_.empty() || beat_count_ == 0) return;
    WriteBurst& burst = addresses_.front();
    const Beat& beat = beats_[beat_head_];
    if (!burst.error && !store(burst.address + burst.next_beat * bus_, beat, clock)) return;
    beat_head_ = (beat_head_ + 1) % MAX_BEATS;
    --beat_count_;
    ++burst.next_beat;
    const bool last = burst.next_beat == burst.beats;
    if (beat.last != last) burst.error = true;  // WLAST in the wrong place
    if (last) {
      responses_.push_back({burst.id, burst.error ? SLVERR : OKAY});
      addresses_.pop_front();
    }
  }

  bool store(uint64_t address, const Beat& beat, int64_t clock) {
    const uint64_t piece = std::min<uint64_t>(bus_, LINE);
    for (uint64_t start = 0; start < bus_; start += piece) {
      uint64_t mask = 0;
      std::memcpy(&mask, beat.strobe + start / 8, piece / 8);
      if (mask == 0) continue;
      mask <<= (address + start) % LINE;
      const auto line = static_cast<int64_t>((address + start) / LINE);
      // A piece that has found its place already merges with itself on the next attempt.
      if (!channel_of(line).write(line, mask, clock)) return false;
    }
    for (uint64_t i = 0; memory_ && i < bus_; ++i) {
      if (beat.strobe[i / 8] >> (i % 8) & 1) memory_[address + i] = beat.data[i];
    }
    return true;
  }

  // The clock at which the next beat is here, as far as that is known.
  int64_t arrival(const ReadBurst& burst) const {
    if (burst.error) return 0;
    const uint64_t start = burst.address % LINE + burst.next_beat * bus_;
    int64_t last = 0;
    for (uint64_t i = start / LINE; i <= (start + bus_ - 1) / LINE; ++i) {
      last = std::max(last, burst.done[i]);
    }
    return last;
  }

  // The beat shown in the cycle that starts at `clock`: of the oldest burst that may return.
  void choose_beat(int64_t clock) {
    if (active_ == nullptr) {
      for (ReadBurst* head : heads_) {
        if (active_ && active_->number < head->number) continue;
        if (arrival(*head) <= clock) active_ = head;
      }
    }
    rvalid_ = active_ != nullptr && arrival(*active_) <= clock;
  }

  DramSettings s_;
  uint64_t bus_;
  uint64_t size_log2_ = 0;
  uint8_t* memory_;
  uint64_t bytes_;
  std::vector<DramChannel> channels_;
  std::vector<ReadBurst> bursts_;
  std::vector<ReadBurst*> free_;
  std::vector<ReadBurst*> heads_;       // the oldest of each ID that has any
  std::vector<ReadBurst*> last_of_id_;  // the newest of each ID, null if it has none
  uint64_t accepted_ = 0;
  Ring<ReadBurst*> undispatched_;
  ReadBurst* active_ = nullptr;
  bool rvalid_ = false;
  Ring<WriteBurst> addresses_;
  std::vector<Beat> beats_;
  size_t beat_head_ = 0, beat_count_ = 0;
  Ring<Response> responses_;
  bool arready_ = true, awready_ = true, wready_ = true;
  int64_t wake_ = NEVER, wake_cycle_ = NEVER;  // when a channel has something to do: clock and cycle
  uint64_t stall_cycles_ = 0;
};

}  // namespace halfdome
