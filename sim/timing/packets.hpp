// Packets on their way in and out of the card: the timing of hdl/pcie/packet_buffer.py, splitter.py,
// writer.py and mux.py.
#pragma once

#include <cstring>

#include "../fabric/endpoint.hpp"
#include "engine.hpp"
#include "../ring.hpp"

namespace halfdome::timing {

// A packet that has come whole. A malformed one is its header alone.
struct Packet {
  Tlp tlp;
  unsigned bar, beats;
  bool malformed;
};

// Passes packets on in order, beat by beat, once their last beat is here.
class PacketBuffer {
 public:
  explicit PacketBuffer(const Parameters& p)
      : bus_(static_cast<unsigned>(p.bus_bytes)), room_(2 * MAX_PAYLOAD_BYTES / bus_) {}

  bool ready() const { return held_ < room_; }
  // The endpoint's beat is taken in `cycle`.
  void take(int64_t cycle, const Endpoint& endpoint) {
    ++held_;
    if (!endpoint.last_beat()) return;
    const Tlp& tlp = endpoint.received();
    const unsigned payload = tlp.has_data() ? tlp.length_bytes() : 0;
    const bool malformed = beats_of(payload) != beats_of(static_cast<unsigned>(tlp.payload.size()));
    const unsigned beats = endpoint.beat() + 1;
    packets_.push_back({{tlp, endpoint.bar(), malformed ? 1 : beats, malformed},
                        cycle + PACKET_BUFFER_LATENCY});
    if (malformed) held_ -= beats - 1;
  }

  bool empty() const { return packets_.empty(); }
  // When the beat in front is offered.
  int64_t offered_at() const { return std::max(packets_.front().cycle, free_at_); }
  bool offers(int64_t cycle) const { return !empty() && offered_at() <= cycle; }
  bool first() const { return beat_ == 0; }
  bool last() const { return beat_ + 1 == packets_.front().packet.beats; }
  // The packet in front: its payload may be moved out of it with its header.
  Packet& front() { return packets_.front().packet; }
  const Packet& front() const { return packets_.front().packet; }
  void pass(int64_t cycle) {
    free_at_ = cycle + 1;
    --held_;
    if (++beat_ < packets_.front().packet.beats) return;
    packets_.pop_front();
    beat_ = 0;
  }

 private:
  struct Held {
    Packet packet;
    int64_t cycle;
  };
  unsigned beats_of(unsigned payload) const { return 1 + (payload + bus_ - 1) / bus_; }

  unsigned bus_, room_;
  Ring<Held> packets_;
  unsigned beat_ = 0, held_ = 0;  // beats passed of the packet in front; beats here
  int64_t free_at_ = 0;
};

// Part of a transfer. `place` is where its bytes go to or come from on the card.
struct Piece {
  uint64_t address, place;
  unsigned bytes, skip;
  bool last;
};

// Cuts transfers at the multiples of `limit`.
class Splitter {
 public:
  Splitter(const Parameters& p, int64_t limit)
      : bus_(static_cast<unsigned>(p.bus_bytes)), limit_(static_cast<unsigned>(limit)) {}

  bool ready() const { return !busy_; }
  bool idle() const { return !busy_ && !valid_; }
  bool offers() const { return valid_; }
  const Piece& front() const { return piece_; }

  // The piece in front leaves in this cycle. Before `clock`, as `accept` is.
  void pass() { passed_ = true; }
  void accept(uint64_t address, uint64_t place, uint64_t bytes) {
    accepted_ = true;
    next_ = {address, place, bytes};
  }
  void clock() {
    if (passed_) valid_ = false;
    passed_ = false;
    if (busy_ && !valid_) {
      unsigned room = limit_ - static_cast<unsigned>(left_.address & (limit_ - 1));
      if (skip_) room = bus_ - skip_;
      const bool last = left_.bytes <= room;
      valid_ = true;
      piece_ = {left_.address, left_.place, last ? static_cast<unsigned>(left_.bytes) : room, skip_,
                last};
      left_ = {left_.address + room, left_.place + room, left_.bytes - room};
      skip_ = (skip_ + room) & (bus_ - 1);
      busy_ = !last;
    }
    if (!accepted_) return;
    accepted_ = false;
    left_ = next_;
    skip_ = 0;
    busy_ = left_.bytes != 0;
  }

 private:
  struct Transfer {
    uint64_t address, place, bytes;
  };
  unsigned bus_, limit_;
  bool busy_ = false, valid_ = false, passed_ = false, accepted_ = false;
  Transfer left_{}, next_{};
  unsigned skip_ = 0;
  Piece piece_{};
};

// How a client posts writes: a request, then its data word by word. The bytes lie at `source`.
struct PostedPort {
  bool valid = false, data_valid = false;  // by the client, in `offer`
  uint64_t address = 0, bytes = 0;
  const uint8_t* source = nullptr;
  bool taken = false, data_taken = false;  // by the writer, of this cycle
  bool idle = true;                        // of this cycle
};

// One client's posted writes, as packets.
class PostedWriter {
 public:
  PostedWriter(const Parameters& p, PostedPort& port)
      : bus_(static_cast<unsigned>(p.bus_bytes)), port_(port), splitter_(p, p.max_payload_bytes) {}

  bool offers(bool enable) const {
    if (state_ == HEADER) return splitter_.offers() && port_.data_valid && (enable || offered_);
    return state_ == DATA && port_.data_valid && !silent_;
  }
  bool offers_last() const { return state_ == DATA && left_ <= bus_; }
  bool offers_header() const { return state_ == HEADER; }
  unsigned header_bytes() const { return splitter_.front().bytes; }

  // Ends the cycle. `taken`: what it offers is. A packet that is complete goes to `tlp`.
  void clock(bool enable, bool discard, bool taken, Tlp& tlp) {
    port_.data_taken = false;
    const bool offered = offers(enable);
    const Piece& piece = splitter_.front();
    switch (state_) {
      case HEADER:
        silent_ = false;
        left_ = piece.bytes;
        shifts_ = piece.skip / 4;
        if (taken) {
          packet_ = memory_request(MEMORY_WRITE, piece.address, (piece.bytes + 3) & ~3u,
                                   enables(piece.bytes), 0, 0);
          state_ = piece.skip ? SHIFT : DATA;
        } else if (splitter_.offers() && port_.data_valid && !offered && discard) {
          silent_ = true;
          state_ = DATA;
        }
        offered_ = offered && !taken;
        break;
      case SHIFT:
        if (--shifts_ == 0) state_ = DATA;
        break;
      case DATA:
        if (!port_.data_valid || !(taken || silent_)) break;
        if (left_ == piece.bytes && !silent_) {
          const auto* bytes = reinterpret_cast<const uint8_t*>(piece.place);
          packet_.payload.assign(bytes, bytes + piece.bytes);
          packet_.payload.resize((piece.bytes + 3) & ~3u);
        }
        const bool last = left_ <= bus_;
        const bool word_done = piece.last || ((piece.skip + piece.bytes) & (bus_ - 1)) == 0;
        port_.data_taken = !last || word_done;
        left_ -= bus_;
        if (!last) break;
        if (!silent_) tlp = std::move(packet_);
        splitter_.pass();
        state_ = HEADER;
        break;
    }
    port_.taken = port_.valid && splitter_.ready();
    if (port_.taken) {
      splitter_.accept(port_.address, reinterpret_cast<uint64_t>(port_.source), port_.bytes);
      port_.valid = false;
    }
    splitter_.clock();
  }
  // Before anything of a cycle; `held`: a beat of this writer waits for the link.
  void begin(bool held) { port_.idle = splitter_.idle() && !held; }
  bool busy() const { return !splitter_.idle(); }
  // Nothing is to be posted: `clock` would change nothing.
  bool quiet() const { return splitter_.idle() && !port_.valid; }

 private:
  enum State { HEADER, SHIFT, DATA };

  static uint32_t enables(unsigned bytes) {
    const uint32_t tail = bytes % 4 ? (1u << bytes % 4) - 1 : 0xF;
    return bytes <= 4 ? tail : tail << 4 | 0xF;
  }

  unsigned bus_;
  PostedPort& port_;
  Splitter splitter_;
  State state_ = HEADER;
  bool offered_ = false, silent_ = false;
  unsigned left_ = 0, shifts_ = 0;
  Tlp packet_;
};

// Takes whole packets from its inputs in turn and hands them to the link.
class PacketMux {
 public:
  explicit PacketMux(size_t inputs) : inputs_(inputs) {}

  bool holds(size_t input) const { return valid_ && source_ == input; }
  bool busy() const { return valid_; }
  const Tlp& front() const { return tlp; }
  bool last() const { return last_; }
  Tlp tlp;  // of the beat that it holds, complete if that is the last

  // Which input's beat is taken in this cycle, given whose is offered; none if `inputs`.
  template <typename Offers>
  size_t choose(bool leaves, Offers offers) const {
    if (valid_ && !leaves) return inputs_;
    if (inside_) return offers(source_) ? source_ : inputs_;
    for (size_t distance = 1; distance <= inputs_; ++distance) {
      const size_t candidate = (source_ + distance) % inputs_;
      if (offers(candidate)) return candidate;
    }
    return inputs_;
  }
  void clock(bool leaves, size_t chosen, bool last) {
    if (valid_ && !leaves) return;
    valid_ = chosen != inputs_;
    if (!valid_) return;
    source_ = chosen;
    last_ = last;
    inside_ = !last;
  }

 private:
  size_t inputs_, source_ = 0;
  bool valid_ = false, inside_ = false, last_ = false;
};

}  // namespace halfdome::timing
