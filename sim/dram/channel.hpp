// One x32 LPDDR4 channel: banks, timing, refresh and a first-ready scheduler, in DRAM clocks.
//
// Commands are decided in clock order and only when something can happen, so an idle channel costs
// nothing. The outcome depends on when lines arrive, never on when `run` is called.
// Timing rules: JEDEC JESD209-4. One command a clock; refresh is all-bank, on time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace halfdome {

struct DramSettings {
  int64_t clock_mhz, bus_bytes, channels, rate, rcd, rp_bank, rp_all, ras, rrd, faw, read_latency,
      write_latency, wr, wtr, rtp, dqsck, refi, rfc;
};

struct DramCounters {
  uint64_t reads, writes, row_hits, activates, refreshes, stall_cycles;
};

constexpr int64_t NEVER = std::numeric_limits<int64_t>::max() / 4;

class DramChannel {
 public:
  static constexpr int BANKS = 8;
  static constexpr int ROW_LINES = 64;       // 4 KiB rows of 64-byte lines
  static constexpr int64_t BURST_CLOCKS = 8;  // burst length 16 at double data rate
  static constexpr size_t READ_QUEUE = 48;
  static constexpr size_t WRITE_QUEUE = 32;
  static constexpr size_t WRITE_HIGH = 24;    // start to drain writes before reads
  static constexpr size_t WRITE_LOW = 8;      // and stop
  static constexpr int64_t COMBINE_CLOCKS = 64;  // how long a partly written line waits for more
  static constexpr int64_t STARVATION_CLOCKS = 2000;  // older requests go before row hits

  explicit DramChannel(const DramSettings& settings) : s_(settings), next_refresh_(settings.refi) {}

  bool read_room() const { return reads_.size() < READ_QUEUE; }
  bool idle() const { return reads_.empty() && writes_.empty(); }
  // The next clock at which `run` has something to do.
  int64_t wake() const { return idle() ? NEVER : wake_; }

  // Queues a line read that may be issued from `clock` on. `*done` is set, when the read is
  // issued, to the clock at which the whole line has arrived.
  void read(int64_t line, int64_t clock, int64_t* done) {
    catch_up(clock);
    reads_.push_back(place(line, clock, done));
    wake_ = std::min(wake_, clock);
  }

  // Queues part of a line, or adds it to a queued write of the same line. False if there is no room.
  bool write(int64_t line, uint64_t mask, int64_t clock) {
    for (Entry& entry : writes_) {
      if (entry.line == line) {
        entry.mask |= mask;
        entry.ready = ~entry.mask ? clock + COMBINE_CLOCKS : clock;
        wake_ = std::min(wake_, clock);
        return true;
      }
    }
    if (writes_.size() >= WRITE_QUEUE) return false;
    catch_up(clock);
    Entry entry = place(line, clock, nullptr);
    entry.mask = mask;
    entry.ready = ~mask ? clock + COMBINE_CLOCKS : clock;
    writes_.push_back(entry);
    wake_ = std::min(wake_, clock);
    return true;
  }

  // Issues every command that falls before `limit`.
  void run(int64_t limit) {
    while (wake_ < limit && !idle()) {
      const Choice choice = choose();
      const int64_t clock = choice.clock;
      if (next_refresh_ <= clock) {
        if (next_refresh_ >= limit) {
          wake_ = next_refresh_;
          return;
        }
        refresh();
      } else if (clock >= limit) {
        wake_ = clock;
        return;
      } else {
        issue(choice);
      }
      wake_ = now_;
    }
  }

  // Refreshes that fell due while nothing else happened.
  void catch_up(int64_t clock) {
    if (!idle() || next_refresh_ >= clock) return;
    refresh();  // may have to close rows; from then on the rhythm is regular
    const int64_t missed = (clock - next_refresh_) / s_.refi - 1;
    if (missed > 0) {
      next_refresh_ += missed * s_.refi;
      refreshes_ += missed;
    }
    while (next_refresh_ < clock) refresh();
  }

  void add_counters(DramCounters& total) const {
    total.reads += read_count_;
    total.writes += write_count_;
    total.row_hits += row_hits_;
    total.activates += activates_;
    total.refreshes += refreshes_;
  }

 private:
  struct Entry {
    int64_t line, row, arrival, ready;
    uint64_t mask;
    int64_t* done;
    int bank;
  };
  struct Bank {
    int64_t row = -1, next_activate = 0, next_column = 0, next_precharge = 0;
    bool fresh = false;  // activated for a request that has not been served yet
  };
  enum Kind { COLUMN, ACTIVATE, PRECHARGE };
  struct Choice {
    int64_t clock = NEVER;
    int rank = 0;  // among commands of the same clock the lowest goes first
    Kind kind = COLUMN;
    size_t index = 0;
    bool writing = false;
  };

  Entry place(int64_t line, int64_t clock, int64_t* done) const {
    const int64_t page = line / ROW_LINES;  // row : bank : column
    return {line, page / BANKS, clock, clock, 0, done, static_cast<int>(page % BANKS)};
  }

  Choice choose() {
    if (writes_.size() >= WRITE_HIGH) draining_ = true;
    if (writes_.size() <= WRITE_LOW) draining_ = false;
    const bool writing = draining_ || reads_.empty();
    const std::vector<Entry>& queue = writing ? writes_ : reads_;

    // Per bank: the oldest request to the open row and the oldest to any other row.
    constexpr size_t NONE = std::numeric_limits<size_t>::max();
    size_t hit[BANKS], miss[BANKS];
    std::fill(hit, hit + BANKS, NONE);
    std::fill(miss, miss + BANKS, NONE);
    for (size_t i = 0; i < queue.size(); ++i) {
      const Entry& entry = queue[i];
      size_t& slot = entry.row == banks_[entry.bank].row ? hit[entry.bank] : miss[entry.bank];
      if (slot == NONE) slot = i;
    }
    const Entry& oldest = queue.front();
    const bool starving = !writing && now_ - oldest.arrival > STARVATION_CLOCKS;

    Choice best;
    for (int b = 0; b < BANKS; ++b) {
      const Bank& bank = banks_[b];
      const bool first = starving && oldest.bank == b;
      if (first && miss[b] == 0) hit[b] = NONE;
      if (hit[b] != NONE) {
        const int64_t clock = std::max(bank.next_column, writing ? next_write_ : next_read_);
        consider(best, queue, hit[b], COLUMN, clock, first, writing);
      } else if (miss[b] != NONE && bank.row < 0) {
        const int64_t clock = std::max({bank.next_activate, last_activate_ + s_.rrd,
                                        activate_window_[window_position_] + s_.faw});
        consider(best, queue, miss[b], ACTIVATE, clock, first, writing);
      } else if (miss[b] != NONE) {
        consider(best, queue, miss[b], PRECHARGE, bank.next_precharge, first, writing);
      }
    }
    return best;
  }

  void consider(Choice& best, const std::vector<Entry>& queue, size_t index, Kind kind,
                int64_t clock, bool first, bool writing) const {
    const Entry& entry = queue[index];
    // A line being combined waits, unless the queue has to be drained.
    clock = std::max({clock, now_, draining_ ? entry.arrival : entry.ready});
    const int rank = first ? -1 : kind;
    if (clock > best.clock || (clock == best.clock && rank > best.rank)) return;
    if (clock == best.clock && rank == best.rank && index > best.index) return;
    best = {clock, rank, kind, index, writing};
  }

  void issue(const Choice& choice) {
    std::vector<Entry>& queue = choice.writing ? writes_ : reads_;
    const int64_t clock = choice.clock;
    Entry& entry = queue[choice.index];
    Bank& bank = banks_[entry.bank];
    now_ = clock + 1;
    switch (choice.kind) {
      case ACTIVATE:
        bank.row = entry.row;
        bank.fresh = true;
        bank.next_column = clock + s_.rcd;
        bank.next_precharge = clock + s_.ras;
        bank.next_activate = clock + s_.ras + s_.rp_bank;
        last_activate_ = clock;
        activate_window_[window_position_] = clock;
        window_position_ = (window_position_ + 1) % 4;
        ++activates_;
        return;
      case PRECHARGE:
        bank.row = -1;
        bank.next_activate = std::max(bank.next_activate, clock + s_.rp_bank);
        return;
      case COLUMN:
        break;
    }
    row_hits_ += !bank.fresh;
    bank.fresh = false;
    if (choice.writing) {
      const int64_t data_end = clock + s_.write_latency + 1 + BURST_CLOCKS;
      next_write_ = clock + BURST_CLOCKS;
      next_read_ = data_end + s_.wtr;
      bank.next_precharge = std::max(bank.next_precharge, data_end + s_.wr);
      ++write_count_;
    } else {
      const int64_t data_end = clock + s_.read_latency + s_.dqsck + BURST_CLOCKS;
      next_read_ = clock + BURST_CLOCKS;
      next_write_ = std::max(next_write_, data_end - s_.write_latency + 2);
      bank.next_precharge = std::max(bank.next_precharge, clock + s_.rtp);
      *entry.done = data_end;
      ++read_count_;
    }
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(choice.index));
  }

  void refresh() {
    int64_t start = std::max(next_refresh_, now_);
    bool open = false;
    for (const Bank& bank : banks_) {
      if (bank.row >= 0) {
        start = std::max(start, bank.next_precharge);
        open = true;
      }
    }
    if (open) {
      start += s_.rp_all;
    } else {
      for (const Bank& bank : banks_) start = std::max(start, bank.next_activate);
    }
    for (Bank& bank : banks_) {
      bank.row = -1;
      bank.next_activate = std::max(bank.next_activate, start + s_.rfc);
    }
    now_ = start + 1;
    next_refresh_ += s_.refi;
    ++refreshes_;
  }

  DramSettings s_;
  std::vector<Entry> reads_, writes_;
  Bank banks_[BANKS];
  int64_t activate_window_[4] = {-NEVER, -NEVER, -NEVER, -NEVER};
  int window_position_ = 0;
  int64_t last_activate_ = -NEVER;
  int64_t next_read_ = 0, next_write_ = 0, next_refresh_, now_ = 0, wake_ = NEVER;
  bool draining_ = false;
  uint64_t read_count_ = 0, write_count_ = 0, row_hits_ = 0, activates_ = 0, refreshes_ = 0;
};

}  // namespace halfdome
