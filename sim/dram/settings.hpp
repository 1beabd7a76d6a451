// What a DRAM is: its timing, and which bits of an address choose channel, bank, row and column.
#pragma once

#include <cstdint>
#include <numeric>

namespace halfdome {

// Timings are in DRAM clocks. The shifts and `row_bits` count bits of a line number.
struct DramSettings {
  int64_t clock_mhz, bus_bytes, channels, rate, rcd, rp_bank, rp_all, ras, rrd, faw, read_latency,
      write_latency, wr, wtr, rtp, dqsck, refi, rfc, ppd;
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

};

// Division by a number that stays the same, as a multiplication: exact up to 2^63 over that number.
class Divider {
 public:
  explicit Divider(int64_t by) : by_(by), inverse_(by > 1 ? ~uint64_t{0} / static_cast<uint64_t>(by) + 1 : 0) {}
  int64_t down(int64_t number) const {
    if (by_ == 1) return number;
    return static_cast<int64_t>(static_cast<unsigned __int128>(number) * inverse_ >> 64);
  }
  int64_t up(int64_t number) const { return down(number + by_ - 1); }

 private:
  int64_t by_;
  uint64_t inverse_;
};

// Cycles of a card and clocks of its DRAM, both from 0 on.
class DramClock {
 public:
  explicit DramClock(const DramSettings& settings)
      : clocks_(settings.rate / std::gcd(settings.rate, 2 * settings.clock_mhz)),
        cycles_(2 * settings.clock_mhz / std::gcd(settings.rate, 2 * settings.clock_mhz)),
        by_clocks_(clocks_), by_cycles_(cycles_) {}

  // The clock at the start of a cycle, rounded down or up.
  int64_t before(int64_t cycle) const { return by_cycles_.down(cycle * clocks_); }
  int64_t after(int64_t cycle) const { return by_cycles_.up(cycle * clocks_); }
  // The cycle in which a clock lies, and the first that does not start before it.
  int64_t cycle_of(int64_t clock) const { return by_clocks_.down(clock * cycles_); }
  int64_t cycle_from(int64_t clock) const { return by_clocks_.up(clock * cycles_); }

 private:
  int64_t clocks_, cycles_;  // so many clocks take as long as so many cycles
  Divider by_clocks_, by_cycles_;
};

struct DramCounters {
  uint64_t reads, writes, row_hits, activates, refreshes, stall_cycles;
};

// One command on a channel's command bus, from `clock` on, for whoever checks the rules. What a
// command has no use for is 0; the row of a PRECHARGE is the one that it closes.
struct DramCommand {
  enum Kind : int64_t { ACTIVATE, PRECHARGE, READ, WRITE, PRECHARGE_ALL, REFRESH };
  int64_t clock, kind, bank, row, column, auto_precharge;
};

}  // namespace halfdome
