// Transaction-layer packets.
//
// Header fields as in hdl/pcie/tlp.py; source: PCI Express Base Specification 3.0, section 2.2.
#pragma once

#include <cstdint>
#include <vector>

namespace halfdome {

constexpr uint32_t MEMORY_READ = 0b000'00000, MEMORY_WRITE = 0b010'00000;  // 64-bit: | ADDRESS_64
constexpr uint32_t ADDRESS_64 = 0b001'00000, WITH_DATA = 0b010'00000;
constexpr uint32_t COMPLETION = 0b000'01010, COMPLETION_DATA = 0b010'01010;
constexpr uint32_t SUCCESSFUL = 0, UNSUPPORTED_REQUEST = 1, COMPLETER_ABORT = 4;
constexpr unsigned HEADER_BYTES = 16;
constexpr unsigned LINK_OVERHEAD_BYTES = 8;  // framing, sequence number, LCRC
constexpr unsigned CREDIT_BYTES = 16;

// Kinds of traffic with credits of their own.
enum Flow : unsigned { POSTED, NON_POSTED, COMPLETIONS };
constexpr unsigned FLOWS = 3;

// What a packet occupies in a receiver: one header, and `data` units of CREDIT_BYTES.
struct Credit {
  Flow flow;
  unsigned data;
};

struct Tlp {
  uint32_t header[4] = {};
  std::vector<uint8_t> payload;

  uint32_t type() const { return header[0] >> 24; }
  bool is_completion() const { return (type() | WITH_DATA) == COMPLETION_DATA; }
  bool is_read() const { return (type() & ~ADDRESS_64) == MEMORY_READ; }
  bool is_write() const { return (type() & ~ADDRESS_64) == MEMORY_WRITE; }
  bool known() const { return is_completion() || is_read() || is_write(); }
  bool has_data() const { return type() & WITH_DATA; }
  bool poisoned() const { return header[0] >> 14 & 1; }
  bool relaxed() const { return header[0] >> 13 & 1; }  // relaxed ordering
  Flow flow() const { return is_completion() ? COMPLETIONS : has_data() ? POSTED : NON_POSTED; }
  Credit credit() const {
    return {flow(), (static_cast<unsigned>(payload.size()) + CREDIT_BYTES - 1) / CREDIT_BYTES};
  }
  unsigned length_bytes() const {
    const uint32_t doublewords = header[0] & 0x3FF;
    return (doublewords ? doublewords : 1024) * 4;
  }
  unsigned wire_bytes() const {
    return (type() & ADDRESS_64 ? 16 : 12) + static_cast<unsigned>(payload.size()) +
           LINK_OVERHEAD_BYTES;
  }

  // Requests.
  uint64_t address() const {
    if (type() & ADDRESS_64) return uint64_t{header[2]} << 32 | (header[3] & ~3u);
    return header[2] & ~3u;
  }
  uint32_t first_enable() const { return header[1] & 0xF; }
  uint32_t last_enable() const { return header[1] >> 4 & 0xF; }
  uint32_t tag() const { return header[1] >> 8 & 0xFF; }
  uint32_t requester() const { return header[1] >> 16; }
  // Bytes from the first enabled one to the last; a read of none counts as one.
  unsigned first_byte() const {
    for (unsigned i = 0; i < 4; ++i) {
      if (first_enable() >> i & 1) return i;
    }
    return 0;
  }
  unsigned byte_count() const {
    const uint32_t last = length_bytes() == 4 ? first_enable() : last_enable();
    unsigned end = 4;
    while (end > 1 && !(last >> (end - 1) & 1)) --end;
    if (length_bytes() == 4 && last == 0) return 1;
    return length_bytes() - 4 + end - first_byte();
  }

  // Completions.
  uint32_t completion_status() const { return header[1] >> 13 & 7; }
  unsigned remaining_bytes() const {
    const uint32_t count = header[1] & 0xFFF;
    return count ? count : 4096;
  }
  uint32_t completion_tag() const { return header[2] >> 8 & 0xFF; }
  uint32_t completion_requester() const { return header[2] >> 16; }
  unsigned lower_address() const { return header[2] & 0x7F; }
};

// A memory request; `enables` is last_be << 4 | first_be.
inline Tlp memory_request(uint32_t type, uint64_t address, unsigned bytes, uint32_t enables,
                          uint32_t requester, uint32_t tag) {
  Tlp tlp;
  const bool wide = address >> 32;
  tlp.header[0] = (type | (wide ? ADDRESS_64 : 0)) << 24 | (bytes / 4 & 0x3FF);
  tlp.header[1] = requester << 16 | tag << 8 | enables;
  tlp.header[2] = static_cast<uint32_t>(wide ? address >> 32 : address);
  tlp.header[3] = wide ? static_cast<uint32_t>(address) : 0;
  return tlp;
}

// A completion of `request` without payload; the caller adds it and the length.
inline Tlp completion(const Tlp& request, uint32_t status, uint32_t completer, unsigned remaining,
                      unsigned lower_address) {
  Tlp tlp;
  tlp.header[0] = COMPLETION << 24;
  tlp.header[1] = completer << 16 | status << 13 | (remaining & 0xFFF);
  tlp.header[2] = request.requester() << 16 | request.tag() << 8 | (lower_address & 0x7F);
  return tlp;
}

}  // namespace halfdome
