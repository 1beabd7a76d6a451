// The root complex: host memory, the host processor's reads and writes, and interrupt messages.
//
// Host memory has a read latency and a bandwidth. Reads are answered with completions of up to the
// maximum payload, cut at multiples of 64 bytes (the read completion boundary); what the root
// complex does not know answers "unsupported request". A read of the host that fails returns
// all-ones, as processors do. A request takes room until its data are written or read; completions
// always have room, since the host asked for them.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <set>
#include <utility>

#include "endpoint.hpp"

namespace halfdome {

struct RootSettings {
  Window memory, messages;
  int64_t read_latency_fs, bytes_per_us;
  unsigned max_payload_bytes, max_read_request_bytes;
};

struct RootCounters {
  uint64_t unsupported_reads = 0;    // reads of the host that no one could answer
  uint64_t unsupported_requests = 0; // requests of cards to an address nothing answers at
  uint64_t poisoned_requests = 0;    // writes of cards whose data is marked as bad: dropped
  uint64_t unexpected_completions = 0;
  uint64_t links_lost = 0;           // times that a card's link went down
};

struct Message {
  int64_t time;
  uint64_t requester, address, data;
};

class RootComplex {
 public:
  enum Notice : unsigned { READ_DONE = 1, INTERRUPT = 2 };
  static constexpr unsigned RCB = 64;
  static constexpr unsigned PAGE = 4096;

  RootComplex(const RootSettings& settings, uint8_t* memory) : s_(settings), memory_(memory) {}

  std::deque<Tlp> outgoing;         // for the uplink, in order
  std::vector<int64_t> memory_due;  // when `host_data_ready` must be called
  std::vector<CreditReturn> returned;  // room of requests, and since when it is free again
  std::deque<Message> messages;  // the latest, of which so many are kept:
  size_t messages_kept = 0;
  RootCounters counters;

  // Of which messages a notice is wanted: their address, 0 for any.
  uint64_t awaited = 0;

  // The notices of `mask` that have been raised since they were last taken.
  unsigned take_notices(unsigned mask) {
    unsigned taken = notices_ & mask;
    notices_ &= ~taken;
    if (mask & INTERRUPT) {
      const size_t found = awaited ? unread_.erase(awaited) : unread_.size();
      if (!awaited) unread_.clear();
      if (found) taken |= INTERRUPT;
    }
    return taken;
  }

  // A posted write of the host processor, any alignment and length.
  void write(uint64_t address, const uint8_t* data, uint64_t bytes) {
    while (bytes) {
      const unsigned piece = piece_of(address, bytes, s_.max_payload_bytes);
      Tlp tlp = request(MEMORY_WRITE, address, piece, 0);
      tlp.payload.assign(tlp.length_bytes(), 0);
      std::memcpy(tlp.payload.data() + address % 4, data, piece);
      outgoing.push_back(std::move(tlp));
      address += piece;
      data += piece;
      bytes -= piece;
    }
  }

  // Starts a read of the host processor; `READ_DONE` is raised when `data` is complete.
  void read(uint64_t address, uint8_t* data, uint64_t bytes) {
    std::memset(data, 0xFF, bytes);
    pending_ = {address, data, bytes};
    unfinished_ = 0;
    issue_reads();
    if (unfinished_ == 0) notices_ |= READ_DONE;
  }

  // Gives up on the reads in flight: their tags are not used again.
  void abandon_reads() {
    pending_ = {};
    for (Read& read : reads_) {
      if (read.state == WAITING) read.state = LOST;
    }
    unfinished_ = 0;
  }

  void receive(int64_t now, const Tlp& tlp) {
    if (tlp.is_completion()) {
      complete(tlp);
    } else if (tlp.is_write()) {
      take_write(now, tlp);
    } else if (s_.memory.holds(tlp.address(), tlp.length_bytes())) {
      answer(now, tlp);
    } else {
      ++counters.unsupported_requests;
      returned.push_back({now, tlp.credit()});
      outgoing.push_back(completion(tlp, UNSUPPORTED_REQUEST, ID, tlp.byte_count(),
                                    static_cast<unsigned>(tlp.address()) + tlp.first_byte()));
    }
  }

  // The oldest piece of host memory that was asked for has been read.
  void host_data_ready(int64_t now) {
    const Piece piece = std::move(pieces_.front());
    pieces_.pop_front();
    if (piece.bytes == piece.remaining) returned.push_back({now, piece.request.credit()});
    Tlp tlp = completion(piece.request, SUCCESSFUL, ID, piece.remaining,
                         static_cast<unsigned>(piece.address));
    const uint64_t start = piece.address & ~uint64_t{3};
    const uint64_t end = (piece.address + piece.bytes + 3) & ~uint64_t{3};
    tlp.header[0] = COMPLETION_DATA << 24 | (static_cast<uint32_t>(end - start) / 4 & 0x3FF);
    const uint8_t* source = memory_ + (start - s_.memory.base);
    tlp.payload.assign(source, source + (end - start));
    outgoing.push_back(std::move(tlp));
  }

 private:
  static constexpr uint32_t ID = 0;
  static constexpr size_t TAGS = 32;
  enum State { FREE, WAITING, LOST };
  struct Read {
    State state = FREE;
    uint8_t* data = nullptr;
    unsigned bytes = 0;
  };
  struct Piece {
    Tlp request;
    uint64_t address;
    unsigned bytes, remaining;
  };
  struct Pending {
    uint64_t address = 0;
    uint8_t* data = nullptr;
    uint64_t bytes = 0;
  };

  // Bytes of the next packet: whole pages and `limit` are not crossed.
  static unsigned piece_of(uint64_t address, uint64_t bytes, unsigned limit) {
    const uint64_t room = limit - address % 4;
    return static_cast<unsigned>(std::min({bytes, room, PAGE - address % PAGE}));
  }

  static Tlp request(uint32_t type, uint64_t address, unsigned bytes, uint32_t tag) {
    const auto first = static_cast<unsigned>(address % 4);
    const unsigned length = (first + bytes + 3) / 4 * 4;
    const unsigned unused = length - first - bytes;
    uint32_t first_be = 0xF << first & 0xF, last_be = 0xF >> unused;
    if (length == 4) first_be &= std::exchange(last_be, 0);
    return memory_request(type, address, length, last_be << 4 | first_be, ID, tag);
  }

  void issue_reads() {
    for (size_t tag = 0; tag < TAGS && pending_.bytes; ++tag) {
      Read& read = reads_[tag];
      if (read.state != FREE) continue;
      const unsigned bytes =
          piece_of(pending_.address, pending_.bytes, s_.max_read_request_bytes);
      outgoing.push_back(
          request(MEMORY_READ, pending_.address, bytes, static_cast<uint32_t>(tag)));
      read = {WAITING, pending_.data, bytes};
      ++unfinished_;
      pending_ = {pending_.address + bytes, pending_.data + bytes, pending_.bytes - bytes};
    }
  }

  void complete(const Tlp& tlp) {
    const uint32_t tag = tlp.completion_tag();
    if (tag >= TAGS || reads_[tag].state != WAITING) {
      ++counters.unexpected_completions;
      return;
    }
    Read& read = reads_[tag];
    const unsigned remaining = tlp.remaining_bytes(), skip = tlp.lower_address() % 4;
    const bool good = tlp.has_data() && tlp.completion_status() == SUCCESSFUL && !tlp.poisoned() &&
                      remaining <= read.bytes && tlp.payload.size() > skip;
    if (good) {
      const auto bytes =
          std::min<unsigned>(remaining, static_cast<unsigned>(tlp.payload.size()) - skip);
      std::memcpy(read.data + (read.bytes - remaining), tlp.payload.data() + skip, bytes);
      if (bytes < remaining) return;
    } else {
      ++counters.unsupported_reads;
      std::memset(read.data, 0xFF, read.bytes);
    }
    read.state = FREE;
    --unfinished_;
    issue_reads();
    if (unfinished_ == 0) notices_ |= READ_DONE;
  }

  void take_write(int64_t now, const Tlp& tlp) {
    if (tlp.poisoned()) {
      ++counters.poisoned_requests;
      returned.push_back({now, tlp.credit()});
    } else if (s_.messages.holds(tlp.address(), tlp.length_bytes())) {
      uint32_t data = 0;
      std::memcpy(&data, tlp.payload.data(), 4);
      messages.push_back({now, tlp.requester(), tlp.address(), data});
      if (messages.size() > messages_kept) messages.pop_front();
      unread_.insert(tlp.address());
      returned.push_back({now, tlp.credit()});
    } else if (s_.memory.holds(tlp.address(), tlp.length_bytes())) {
      uint8_t* out = memory_ + (tlp.address() - s_.memory.base);
      const size_t bytes = tlp.payload.size();
      for (size_t i = 0; i < 4; ++i) {
        if (tlp.first_enable() >> i & 1) out[i] = tlp.payload[i];
      }
      if (bytes > 8) std::memcpy(out + 4, tlp.payload.data() + 4, bytes - 8);
      for (size_t i = 0; i < 4 && bytes > 4; ++i) {
        if (tlp.last_enable() >> i & 1) out[bytes - 4 + i] = tlp.payload[bytes - 4 + i];
      }
      returned.push_back({occupy(now, bytes), tlp.credit()});
    } else {
      ++counters.unsupported_requests;
      returned.push_back({now, tlp.credit()});
    }
  }

  // Takes the memory for `bytes`; returns when the last of them has passed.
  int64_t occupy(int64_t now, size_t bytes) {
    memory_free_ = std::max(memory_free_, now) +
                   static_cast<int64_t>(bytes) * 1'000'000'000 / s_.bytes_per_us;
    return memory_free_;
  }

  void answer(int64_t now, const Tlp& tlp) {
    uint64_t address = tlp.address() + tlp.first_byte();
    unsigned remaining = tlp.byte_count();
    while (remaining) {
      const uint64_t cut = (address + s_.max_payload_bytes) / RCB * RCB;
      const auto bytes = static_cast<unsigned>(std::min<uint64_t>(remaining, cut - address));
      pieces_.push_back({tlp, address, bytes, remaining});
      memory_due.push_back(occupy(now, bytes) + s_.read_latency_fs);
      address += bytes;
      remaining -= bytes;
    }
  }

  RootSettings s_;
  uint8_t* memory_;
  unsigned notices_ = 0, unfinished_ = 0;
  std::set<uint64_t> unread_;  // addresses of messages of which no notice has been taken
  std::array<Read, TAGS> reads_{};
  Pending pending_;
  std::deque<Piece> pieces_;  // in the order of `memory_due`
  int64_t memory_free_ = 0;
};

}  // namespace halfdome
