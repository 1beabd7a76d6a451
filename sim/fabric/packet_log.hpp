// What went over one direction of a link, packet by packet: off until a bound is set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tlp.hpp"

namespace halfdome {

// On the wire from `start` to before `end`, in femtoseconds.
struct PacketRecord {
  int64_t start, end;
  uint32_t header[4], payload_bytes, wire_bytes;
};

class PacketLog {
 public:
  std::vector<PacketRecord> records;
  uint64_t left_out = 0;  // packets beyond the bound

  // Keeps up to `most` packets from now on; 0 keeps none.
  void keep(size_t most) {
    on_ = most > 0;
    most_ = most;
    records.clear();
    left_out = 0;
  }

  void add(int64_t start, int64_t end, const Tlp& tlp) {
    if (!on_) return;
    if (records.size() == most_) {
      ++left_out;
      return;
    }
    const uint32_t* h = tlp.header;
    records.push_back({start, end, {h[0], h[1], h[2], h[3]},
                       static_cast<uint32_t>(tlp.payload.size()), tlp.wire_bytes()});
  }

 private:
  bool on_ = false;
  size_t most_ = 0;
};

}  // namespace halfdome
