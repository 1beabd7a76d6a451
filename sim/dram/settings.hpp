// What a DRAM is: its timing, and which bits of an address choose channel, bank, row and column.
#pragma once

#include <cstdint>

namespace halfdome {

// Timings are in DRAM clocks. The shifts and `row_bits` count bits of a line number.
struct DramSettings {
  int64_t clock_mhz, bus_bytes, channels, rate, rcd, rp_bank, ras, rrd, faw, read_latency,
      write_latency, wr, wtr, rtp, dqsck, refi_bank, rfc_bank, ppd;
  int64_t row_bits, row_shift, bank_shift, column_shift, channel_shift;
  // When a row is closed: OPEN, when another row of the bank is wanted, by a PRECHARGE; CLOSED, by
  // every READ and WRITE; ADAPTIVE, by the one after which a PRECHARGE would be next.
  enum PagePolicy : int64_t { OPEN, CLOSED, ADAPTIVE };
  int64_t page_policy;

  static constexpr int BANKS = 8;
  static constexpr int ROW_LINES = 64;  // 4 KiB rows of 64-byte lines

  int64_t row_of(int64_t line) const { return line >> row_shift & ((int64_t{1} << row_bits) - 1); }
  int bank_of(int64_t line) const { return static_cast<int>(line >> bank_shift & (BANKS - 1)); }
  int column_of(int64_t line) const {
    return static_cast<int>(line >> column_shift & (ROW_LINES - 1));
  }
  size_t channel_of(int64_t line) const {
    return static_cast<size_t>(line >> channel_shift & (channels - 1));
  }

  // The clock of the DRAM at the start of a card cycle, rounded down or up.
  struct Clocks {
    int64_t before, after;
  };
  int64_t clock_before(int64_t cycle) const { return cycle * rate / (2 * clock_mhz); }
  Clocks clocks(int64_t cycle) const {
    const int64_t before = clock_before(cycle);
    return {before, before + (before * 2 * clock_mhz != cycle * rate)};
  }
};

struct DramCounters {
  uint64_t reads, writes, row_hits, activates, refreshes, stall_cycles;
};

// One command on a channel's command bus, from `clock` on, for whoever checks the rules. What a
// command has no use for is 0; the row of a PRECHARGE is the one that it closes.
struct DramCommand {
  enum Kind : int64_t { ACTIVATE, PRECHARGE, READ, WRITE, REFRESH };
  int64_t clock, kind, bank, row, column, auto_precharge;
};

}  // namespace halfdome
