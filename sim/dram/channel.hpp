// One x32 LPDDR4 channel: banks, timing, refresh and a first-ready scheduler, in DRAM clocks.
//
// Commands are decided in clock order and only when something can happen, so an idle channel costs
// nothing. The outcome depends on when lines arrive, never on when `run` is called.
// Timing rules: JEDEC JESD209-4. One command a clock; refresh is all-bank, as soon as it is due and
// the banks can be closed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "settings.hpp"

namespace halfdome {

constexpr int64_t NEVER = std::numeric_limits<int64_t>::max() / 4;

class DramChannel {
 public:
  static constexpr int BANKS = DramSettings::BANKS;
  static constexpr int64_t BURST_CLOCKS = 8;  // burst length 16 at double data rate
  static constexpr size_t READ_QUEUE = 48;
  static constexpr size_t WRITE_QUEUE = 32;
  static constexpr size_t WRITE_HIGH = 24;    // start to drain writes before reads
  static constexpr size_t WRITE_LOW = 8;      // and stop
  static constexpr int64_t COMBINE_CLOCKS = 64;  // how long a partly written line waits for more
  // Nothing waits for ever: of a bank, so many row hits pass an older request before their row is
  // closed, and a drain of writes ends after so many, if reads wait, and the next one lets at least
  // so many reads go first. Between banks the oldest goes first among what can go now.
  static constexpr int MAX_PASSES = 8;
  static constexpr int WRITE_TURN = 32;
  static constexpr int READ_TURN = 16;

  explicit DramChannel(const DramSettings& settings) : s_(settings), next_refresh_(settings.refi) {}

  // Where every command from now on is noted; nowhere if null.
  std::vector<DramCommand>* log = nullptr;

  bool read_room() const { return reads_.size < READ_QUEUE; }
  bool idle() const { return reads_.size == 0 && writes_.size == 0; }
  // The next clock at which `run` has something to do.
  int64_t wake() const { return idle() ? NEVER : wake_; }

  // Queues a line read that may be issued from `clock` on. `*done` is set, when the read is
  // issued, to the clock at which the whole line has arrived.
  void read(int64_t line, int64_t clock, int64_t* done) {
    catch_up(clock);
    Entry entry = place(line, clock);
    entry.done = done;
    push(reads_, entry);
  }

  // Queues part of a line, or adds it to a queued write of the same line. False if there is no room.
  bool write(int64_t line, uint64_t mask, int64_t clock) {
    Entry entry = place(line, clock);
    for (Entry& queued : writes_.banks[entry.bank].entries) {
      if (queued.line == line) {
        queued.mask |= mask;
        queued.ready = ~queued.mask ? clock + COMBINE_CLOCKS : clock;
        wake_ = std::min(wake_, clock);
        return true;
      }
    }
    if (writes_.size >= WRITE_QUEUE) return false;
    catch_up(clock);
    entry.mask = mask;
    entry.ready = ~mask ? clock + COMBINE_CLOCKS : clock;
    push(writes_, entry);
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
    if (missed > 0 && !log) {
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
    uint64_t mask, order;
    int64_t* done;
    int bank;
  };
  // Requests to one bank, oldest first, with the first to the open row and the first to another.
  struct BankQueue {
    std::vector<Entry> entries;
    int hit = -1, miss = -1;
    bool stale = false;  // `hit` and `miss` must be looked for again
  };
  struct Queue {
    BankQueue banks[BANKS];
    size_t size = 0;
  };
  struct Bank {
    int64_t row = -1, next_activate = 0, next_column = 0, next_precharge = 0;
    int passes = 0;      // row hits since the activate that passed an older request
    bool fresh = false;  // activated for a request that has not been served yet
  };
  enum Kind { COLUMN, ACTIVATE, PRECHARGE };  // of what can go in a clock, the first goes
  struct Choice {
    int64_t clock = NEVER;
    Kind kind = PRECHARGE;
    const Entry* entry = nullptr;
    bool writing = false;
  };

  Entry place(int64_t line, int64_t clock) {
    return {line, s_.row_of(line), clock, clock, 0, ++order_, nullptr, s_.bank_of(line)};
  }

  void push(Queue& queue, const Entry& entry) {
    BankQueue& bank = queue.banks[entry.bank];
    int& slot = entry.row == banks_[entry.bank].row ? bank.hit : bank.miss;
    if (slot < 0) slot = static_cast<int>(bank.entries.size());
    bank.entries.push_back(entry);
    ++queue.size;
    wake_ = std::min(wake_, entry.arrival);
  }

  void look_again(int bank) { reads_.banks[bank].stale = writes_.banks[bank].stale = true; }

  void find_slots(BankQueue& queue, int64_t open_row) {
    queue.stale = false;
    queue.hit = queue.miss = -1;
    const auto count = static_cast<int>(queue.entries.size());
    for (int i = 0; i < count && (queue.hit < 0 || queue.miss < 0); ++i) {
      int& slot = queue.entries[i].row == open_row ? queue.hit : queue.miss;
      if (slot < 0) slot = i;
    }
  }

  Choice choose() {
    const bool writing = choose_direction();
    Queue& queue = writing ? writes_ : reads_;
    for (int b = 0; b < BANKS; ++b) {
      if (queue.banks[b].stale) find_slots(queue.banks[b], banks_[b].row);
    }

    Choice best;
    for (int b = 0; b < BANKS; ++b) {
      const BankQueue& requests = queue.banks[b];
      if (requests.entries.empty()) continue;
      const Bank& bank = banks_[b];
      const bool held_up = requests.miss == 0 && bank.passes >= MAX_PASSES;
      if (requests.hit >= 0 && !held_up) {
        const int64_t clock = std::max(bank.next_column, writing ? next_write_ : next_read_);
        consider(best, requests.entries[requests.hit], COLUMN, clock, writing);
      } else if (bank.row < 0) {
        const int64_t clock = std::max({bank.next_activate, last_activate_ + s_.rrd,
                                        activate_window_[window_position_] + s_.faw});
        consider(best, requests.entries[requests.miss], ACTIVATE, clock, writing);
      } else {
        const int64_t clock = std::max(bank.next_precharge, last_precharge_ + s_.ppd);
        consider(best, requests.entries[requests.miss], PRECHARGE, clock, writing);
      }
    }
    return best;
  }

  // Whether writes go now.
  bool choose_direction() {
    const bool reads_wait = reads_.size > 0;
    const bool leave = writes_.size <= WRITE_LOW || (reads_wait && served_ >= WRITE_TURN);
    const bool enter = writes_.size >= WRITE_HIGH && (!reads_wait || served_ >= READ_TURN);
    if (draining_ ? leave : enter) {
      draining_ = !draining_;
      served_ = 0;
    }
    return draining_ || !reads_wait;
  }

  void consider(Choice& best, const Entry& entry, Kind kind, int64_t clock, bool writing) const {
    // A line being combined waits, unless the queue has to be drained.
    clock = std::max({clock, now_, draining_ ? entry.arrival : entry.ready});
    if (clock > best.clock || (clock == best.clock && kind > best.kind)) return;
    if (clock == best.clock && kind == best.kind && entry.order > best.entry->order) return;
    best = {clock, kind, &entry, writing};
  }

  void note(int64_t clock, DramCommand::Kind kind, const Entry& entry) {
    if (log) log->push_back({clock, kind, entry.bank, entry.row, s_.column_of(entry.line)});
  }

  void issue(const Choice& choice) {
    const int64_t clock = choice.clock;
    const Entry& entry = *choice.entry;
    Bank& bank = banks_[entry.bank];
    now_ = clock + 1;
    look_again(entry.bank);
    switch (choice.kind) {
      case ACTIVATE:
        note(clock, DramCommand::ACTIVATE, entry);
        bank.row = entry.row;
        bank.fresh = true;
        bank.passes = 0;
        bank.next_column = clock + s_.rcd;
        bank.next_precharge = clock + s_.ras;
        bank.next_activate = clock + s_.ras + s_.rp_bank;
        last_activate_ = clock;
        activate_window_[window_position_] = clock;
        window_position_ = (window_position_ + 1) % 4;
        ++activates_;
        return;
      case PRECHARGE:
        note(clock, DramCommand::PRECHARGE, entry);
        bank.row = -1;
        last_precharge_ = clock;
        bank.next_activate = std::max(bank.next_activate, clock + s_.rp_bank);
        return;
      case COLUMN:
        break;
    }
    note(clock, choice.writing ? DramCommand::WRITE : DramCommand::READ, entry);
    row_hits_ += !bank.fresh;
    bank.fresh = false;
    served_ += choice.writing == draining_;
    bank.passes += (choice.writing ? writes_ : reads_).banks[entry.bank].miss == 0;
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
    Queue& queue = choice.writing ? writes_ : reads_;
    std::vector<Entry>& entries = queue.banks[entry.bank].entries;
    entries.erase(entries.begin() + (&entry - entries.data()));
    --queue.size;
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
      start = std::max(start, last_precharge_ + s_.ppd);
      if (log) log->push_back({start, DramCommand::PRECHARGE_ALL, 0, 0, 0});
      start += s_.rp_all;
    } else {
      for (const Bank& bank : banks_) start = std::max(start, bank.next_activate);
    }
    for (int b = 0; b < BANKS; ++b) {
      banks_[b].row = -1;
      banks_[b].next_activate = std::max(banks_[b].next_activate, start + s_.rfc);
      look_again(b);
    }
    if (log) log->push_back({start, DramCommand::REFRESH, 0, 0, 0});
    now_ = start + 1;
    next_refresh_ += s_.refi;
    ++refreshes_;
  }

  DramSettings s_;
  Queue reads_, writes_;
  uint64_t order_ = 0;
  Bank banks_[BANKS];
  int64_t activate_window_[4] = {-NEVER, -NEVER, -NEVER, -NEVER};
  int window_position_ = 0;
  int64_t last_activate_ = -NEVER, last_precharge_ = -NEVER;
  int64_t next_read_ = 0, next_write_ = 0, next_refresh_, now_ = 0, wake_ = NEVER;
  bool draining_ = false;
  int served_ = READ_TURN;  // requests since draining began or ended
  uint64_t read_count_ = 0, write_count_ = 0, row_hits_ = 0, activates_ = 0, refreshes_ = 0;
};

}  // namespace halfdome
