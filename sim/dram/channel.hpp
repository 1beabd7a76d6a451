// One x32 LPDDR4 channel: banks, timing, refresh and a first-ready scheduler, in DRAM clocks.
//
// Commands are decided in clock order and only when something can happen, so an idle channel costs
// nothing. The outcome depends on when lines arrive, never on when `run` is called.
// Timing rules: JEDEC JESD209-4, counted from the first clock of a command to the first of another.
// A command holds the command bus for two or four clocks. Refresh is per bank, in any order: at once
// when it is due, of the bank that is wanted least, while the others go on.
#pragma once

#include <algorithm>
#include <bitset>
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
  // A turn from reads to writes and back takes the data bus six lines' time. So reads go first until
  // the queue is full; then all writes but the newest go, to which words may still be added.
  static constexpr size_t WRITE_QUEUE = 64;
  static constexpr size_t WRITE_LOW = 8;
  static constexpr int64_t COMBINE_CLOCKS = 64;  // how long a partly written line waits for more
  // Nothing waits for ever: of a bank, so many row hits pass an older request before their row is
  // closed, and a drain of writes ends after so many, if reads wait, and the next one lets at least
  // so many reads go first. Between banks the oldest goes first among what can go now.
  static constexpr int MAX_PASSES = 8;
  static constexpr int WRITE_TURN = 64;
  static constexpr int READ_TURN = 64;
  static constexpr int RECENT_LINES = 16;  // so many show what is scarce

  explicit DramChannel(const DramSettings& settings)
      : s_(settings), next_refresh_(settings.refi_bank) {}

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
    const bool first = reads_.size == 0;
    if (push(reads_, entry) || first) reconsider(clock);
  }

  // Queues part of a line, or adds it to a queued write of the same line. False if there is no room.
  bool write(int64_t line, uint64_t mask, int64_t clock) {
    Entry entry = place(line, clock);
    for (Entry& queued : writes_.banks[entry.bank].entries) {
      if (queued.line == line) {
        queued.mask |= mask;
        queued.ready = ~queued.mask ? clock + COMBINE_CLOCKS : clock;
        rank(writes_.banks[entry.bank], banks_[entry.bank]);
        if (writes_go()) reconsider(clock);
        return true;
      }
    }
    if (writes_.size >= WRITE_QUEUE) return false;
    catch_up(clock);
    entry.mask = mask;
    entry.ready = ~mask ? clock + COMBINE_CLOCKS : clock;
    push(writes_, entry);
    if (writes_go()) reconsider(clock);
    return true;
  }

  // Issues every command that falls before `limit`.
  void run(int64_t limit) {
    while (wake_ < limit && !idle()) wake_ = step(limit);
    // What arrives later changes nothing that was decided.
    if (!idle()) now_ = std::max(now_, limit);
  }

  // Refreshes that fell due while nothing else happened.
  void catch_up(int64_t clock) {
    if (!idle()) return;
    // After two rounds all banks are closed, none is behind, and every round is like the last.
    const int64_t round = BANKS * s_.refi_bank;
    const int64_t missed = (clock - next_refresh_) / round - 2;
    if (missed > 0 && !log) {
      next_refresh_ += missed * round;
      refreshes_ += static_cast<uint64_t>(missed * BANKS);
    }
    while (step(clock) < clock) {
    }
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
  enum Kind { COLUMN, ACTIVATE, PRECHARGE, REFRESH };
  // The command that a bank needs next, and from when on bank and request allow it.
  struct Need {
    Kind kind;
    int slot;  // of the request it is for
    int64_t bank_ready, ready, arrival;
    uint64_t order;
  };
  // Requests to one bank, oldest first, with the first to the open row and the first to another.
  struct BankQueue {
    std::vector<Entry> entries;
    int hit = -1, miss = -1;
    Need need;  // if there are any
  };
  struct Queue {
    BankQueue banks[BANKS];
    size_t size = 0;
    unsigned asked = 0;  // banks with requests, as bits
  };
  struct Bank {
    int64_t row = -1;
    int64_t next[3] = {};  // when the bank allows what a request may need, by kind
    int passes = 0;        // row hits since the activate that passed an older request
    bool fresh = false;    // activated for a request that has not been served yet
  };
  static constexpr int64_t CLOCKS[] = {4, 4, 2, 2};  // of the command bus, by kind
  struct Choice {
    Kind kind;
    bool writing = false;
    int64_t ready = NEVER;  // when every rule allows it
    int64_t clock = NEVER;  // when the command bus does, too
    int bank = 0, slot = 0;  // of the request it is for, unless it is for a refresh
    uint64_t order = 0;
  };
  enum Resource { DATA_BUS, ACTIVATES, COMMAND_BUS };

  Entry place(int64_t line, int64_t clock) {
    return {line, s_.row_of(line), clock, clock, 0, ++order_, nullptr, s_.bank_of(line)};
  }

  // Whether the entry is the first of its bank to the open row, or to another.
  bool push(Queue& queue, const Entry& entry) {
    BankQueue& bank = queue.banks[entry.bank];
    int& slot = entry.row == banks_[entry.bank].row ? bank.hit : bank.miss;
    const bool first = slot < 0;
    if (first) slot = static_cast<int>(bank.entries.size());
    bank.entries.push_back(entry);
    ++queue.size;
    queue.asked |= 1u << entry.bank;
    if (first) rank(bank, banks_[entry.bank]);
    return first;
  }

  // What came at `clock` may go before what is decided.
  void reconsider(int64_t clock) {
    decided_ = false;
    wake_ = std::min(wake_, clock);
  }

  // Whether what is asked of writes has a say in what comes next.
  bool writes_go() const {
    return draining_ || reads_.size == 0 || writes_.size >= WRITE_QUEUE;
  }

  void set_row(int bank, int64_t row) {
    banks_[bank].row = row;
    for (Queue* queue : {&reads_, &writes_}) {
      BankQueue& requests = queue->banks[bank];
      requests.hit = row < 0 ? -1 : first(requests, 0, [&](int64_t wanted) { return wanted == row; });
      requests.miss = first(requests, 0, [&](int64_t wanted) { return wanted != row; });
    }
  }

  // The first request, from slot `from` on, to a row that is `right`; -1 if there is none.
  template <typename Right>
  static int first(const BankQueue& requests, int from, Right right) {
    const auto count = static_cast<int>(requests.entries.size());
    for (int i = from; i < count; ++i) {
      if (right(requests.entries[i].row)) return i;
    }
    return -1;
  }

  // Finds what the bank needs; to be called when its state or what is asked of it has changed.
  static void rank(BankQueue& requests, const Bank& bank) {
    if (requests.entries.empty()) return;
    const Kind kind = stays_open(requests, bank) ? COLUMN : bank.row < 0 ? ACTIVATE : PRECHARGE;
    const int slot = kind == COLUMN ? requests.hit : requests.miss;
    const Entry& entry = requests.entries[slot];
    requests.need = {kind, slot, bank.next[kind], entry.ready, entry.arrival, entry.order};
  }

  // Whether the bank's next command is for the open row.
  static bool stays_open(const BankQueue& requests, const Bank& bank) {
    return requests.hit >= 0 && !(requests.miss == 0 && bank.passes >= MAX_PASSES);
  }

  // Decides what comes next, if it falls before `limit`. Returns when something comes then.
  int64_t step(int64_t limit) {
    if (!decided_) next_ = choose();
    decided_ = true;
    const int64_t due = refreshing_ < 0 ? std::max(next_refresh_, now_) : NEVER;
    const int64_t clock = std::min(next_.clock, due);
    if (clock >= limit) return clock;
    decided_ = false;
    if (clock == due) {
      refreshing_ = quietest();
      now_ = due;
    } else {
      issue(next_);
    }
    return now_;
  }

  size_t waiting(int bank) const {
    return reads_.banks[bank].entries.size() + writes_.banks[bank].entries.size();
  }

  // Of the banks that are not refreshed in this round, the one that fewest lines wait for. Lines that
  // come in their order are in the last one's bank or the next: of several it is the first behind
  // those, so that the round does not end with banks that they have reached.
  int quietest() const {
    int best = -1;
    for (int later = 2; later < BANKS + 2; ++later) {
      const int b = (last_bank_ + later) % BANKS;
      if (!refreshed_[b] && (best < 0 || waiting(b) < waiting(best))) best = b;
    }
    return best;
  }

  // When activates and refreshes of other banks allow another.
  int64_t activate_window() const {
    return std::max(last_activate_ + s_.rrd, activate_window_[window_position_] + s_.faw);
  }

  void count_activate(int64_t clock) {
    last_activate_ = clock;
    activate_window_[window_position_] = clock;
    window_position_ = (window_position_ + 1) % 4;
  }

  // The next command for the bank that is to be refreshed.
  Choice refresh() const {
    Choice choice{REFRESH};
    const Bank& bank = banks_[refreshing_];
    choice.bank = refreshing_;
    if (bank.row >= 0) {
      choice.kind = PRECHARGE;
      choice.ready = std::max(bank.next[PRECHARGE], last_precharge_ + s_.ppd);
    } else {
      choice.ready = std::max({bank.next[ACTIVATE], activate_window(), last_refresh_ + s_.rfc_bank});
    }
    choice.clock = std::max(choice.ready, now_);
    return choice;
  }

  // The next command. One for a refresh goes as soon as it can.
  Choice choose() {
    const Choice next = choose_request();
    if (refreshing_ < 0) return next;
    const Choice first = refresh();
    return first.clock <= next.clock ? first : next;
  }

  // The next for a request. Where the command bus is scarce, everything waits for it: what became
  // ready first goes first. Where activates or the data bus are, the commands for them wait for no
  // other to end: the other kind goes first only if the bus is free again in time. A precharge is
  // short, and a bank waits for it, so it goes if it can go earlier.
  Choice choose_request() {
    const bool writing = choose_direction();
    const Queue& queue = writing ? writes_ : reads_;
    Choice choices[] = {{COLUMN, writing}, {ACTIVATE, writing}, {PRECHARGE, writing}};
    const int64_t allowed[] = {writing ? next_write_ : next_read_, activate_window(),
                               last_precharge_ + s_.ppd};
    unsigned left = queue.asked;
    if (refreshing_ >= 0) left &= ~(1u << refreshing_);
    for (; left; left &= left - 1) {
      const int b = __builtin_ctz(left);
      const Need& need = queue.banks[b].need;
      consider(choices[need.kind], b, need, allowed[need.kind]);
    }
    const auto& [column, activate, precharge] = choices;
    if (scarce_ == COMMAND_BUS) {
      const Choice& first = activate.ready < column.ready ? activate : column;
      return precharge.ready < first.ready ? precharge : first;
    }
    const Choice& first = scarce_ == ACTIVATES ? activate : column;
    const Choice& other = scarce_ == ACTIVATES ? column : activate;
    const bool in_time = other.clock + CLOCKS[other.kind] <= first.clock;
    const Choice& next = in_time ? other : first;
    return precharge.clock < next.clock ? precharge : next;
  }

  // What the last lines took most of.
  Resource scarce() const {
    const auto rows = static_cast<int64_t>(needed_rows_.count());
    const int64_t precharge = s_.page_policy == DramSettings::OPEN ? CLOCKS[PRECHARGE] : 0;
    const int64_t data = BURST_CLOCKS * RECENT_LINES;
    const int64_t activates = std::max(4 * s_.rrd, s_.faw) * rows / 4;
    const int64_t commands = CLOCKS[COLUMN] * RECENT_LINES + (CLOCKS[ACTIVATE] + precharge) * rows;
    if (activates >= std::max(data, commands)) return ACTIVATES;
    return commands >= data ? COMMAND_BUS : DATA_BUS;
  }

  // Whether writes go now.
  bool choose_direction() {
    const bool reads_wait = reads_.size > 0;
    const bool leave = writes_.size <= WRITE_LOW || (reads_wait && served_ >= WRITE_TURN);
    const bool enter = writes_.size >= WRITE_QUEUE && (!reads_wait || served_ >= READ_TURN);
    if (draining_ ? leave : enter) {
      draining_ = !draining_;
      served_ = 0;
    }
    return draining_ || !reads_wait;
  }

  // Makes what `bank` needs the choice if it can go before it, or as soon and is older.
  void consider(Choice& choice, int bank, const Need& need, int64_t allowed) const {
    // A line being combined waits, unless the queue has to be drained.
    const int64_t ready = std::max({allowed, need.bank_ready, draining_ ? need.arrival : need.ready});
    const int64_t clock = std::max(ready, now_);
    if (clock > choice.clock) return;
    if (clock == choice.clock && need.order > choice.order) return;
    choice.ready = ready;
    choice.clock = clock;
    choice.bank = bank;
    choice.slot = need.slot;
    choice.order = need.order;
  }

  void note(int64_t clock, DramCommand::Kind kind, int bank, int64_t row = 0, int column = 0,
            bool auto_precharge = false) {
    if (log) log->push_back({clock, kind, bank, row, column, auto_precharge});
  }

  Queue& queue(const Choice& choice) { return choice.writing ? writes_ : reads_; }

  void issue(const Choice& choice) {
    Bank& bank = banks_[choice.bank];
    now_ = choice.clock + CLOCKS[choice.kind];
    change(choice, bank);
    for (Queue* queue : {&reads_, &writes_}) rank(queue->banks[choice.bank], bank);
  }

  // What a command does to its bank and to what is asked of it.
  void change(const Choice& choice, Bank& bank) {
    const int64_t clock = choice.clock;
    switch (choice.kind) {
      case COLUMN:
        access(choice, bank);
        return;
      case ACTIVATE: {
        const int64_t row = queue(choice).banks[choice.bank].entries[choice.slot].row;
        note(clock, DramCommand::ACTIVATE, choice.bank, row);
        set_row(choice.bank, row);
        bank.fresh = true;
        bank.passes = 0;
        bank.next[COLUMN] = clock + s_.rcd;
        bank.next[PRECHARGE] = clock + s_.ras;
        bank.next[ACTIVATE] = clock + s_.ras + s_.rp_bank;
        count_activate(clock);
        ++activates_;
        return;
      }
      case PRECHARGE:
        note(clock, DramCommand::PRECHARGE, choice.bank, bank.row);
        set_row(choice.bank, -1);
        last_precharge_ = clock;
        bank.next[ACTIVATE] = std::max(bank.next[ACTIVATE], clock + s_.rp_bank);
        return;
      case REFRESH:
        note(clock, DramCommand::REFRESH, choice.bank);
        bank.next[ACTIVATE] = clock + s_.rfc_bank;
        count_activate(clock);
        last_refresh_ = clock;
        next_refresh_ += s_.refi_bank;
        refreshed_.set(choice.bank);
        if (refreshed_.all()) refreshed_.reset();
        refreshing_ = -1;
        ++refreshes_;
        return;
    }
  }

  // Reads or writes the line, which leaves its queue, and closes the row if the policy says so.
  void access(const Choice& choice, Bank& bank) {
    const int64_t clock = choice.clock;
    Queue& queue = this->queue(choice);
    BankQueue& requests = queue.banks[choice.bank];
    const Entry entry = requests.entries[choice.slot];
    last_bank_ = choice.bank;
    row_hits_ += !bank.fresh;
    needed_rows_ = needed_rows_ << 1 | std::bitset<RECENT_LINES>(bank.fresh);
    scarce_ = scarce();
    bank.fresh = false;
    served_ += choice.writing == draining_;
    bank.passes += requests.miss == 0;
    if (choice.writing) {
      const int64_t data_end = clock + s_.write_latency + 1 + BURST_CLOCKS;
      next_write_ = clock + BURST_CLOCKS;
      next_read_ = data_end + s_.wtr;
      bank.next[PRECHARGE] = std::max(bank.next[PRECHARGE], data_end + s_.wr);
      ++write_count_;
    } else {
      const int64_t data_end = clock + s_.read_latency + s_.dqsck + BURST_CLOCKS;
      next_read_ = clock + BURST_CLOCKS;
      next_write_ = std::max(next_write_, data_end - s_.write_latency + 2);
      bank.next[PRECHARGE] = std::max(bank.next[PRECHARGE], clock + s_.rtp);
      *entry.done = data_end;
      ++read_count_;
    }
    requests.entries.erase(requests.entries.begin() + choice.slot);
    --queue.size;
    if (requests.entries.empty()) queue.asked &= ~(1u << entry.bank);
    // Those in front of it are to other rows.
    requests.miss -= requests.miss > choice.slot;
    requests.hit = first(requests, choice.slot, [&](int64_t row) { return row == bank.row; });
    const bool close = closes(requests, bank);
    note(clock, choice.writing ? DramCommand::WRITE : DramCommand::READ, entry.bank, entry.row,
         s_.column_of(entry.line), close);
    if (!close) return;
    set_row(entry.bank, -1);
    bank.next[ACTIVATE] = bank.next[PRECHARGE] + s_.rp_bank;
  }

  // Whether a column command closes its row as well, `left` being what else is asked of the bank.
  bool closes(const BankQueue& left, const Bank& bank) const {
    if (s_.page_policy == DramSettings::ADAPTIVE) return left.miss >= 0 && !stays_open(left, bank);
    return s_.page_policy == DramSettings::CLOSED;
  }

  DramSettings s_;
  Queue reads_, writes_;
  uint64_t order_ = 0;
  Bank banks_[BANKS];
  int64_t activate_window_[4] = {-NEVER, -NEVER, -NEVER, -NEVER};
  int window_position_ = 0;
  int64_t last_activate_ = -NEVER, last_precharge_ = -NEVER, last_refresh_ = -NEVER;
  int64_t next_read_ = 0, next_write_ = 0, now_ = 0, wake_ = NEVER;
  Choice next_;           // what comes next, if nothing arrives before
  bool decided_ = false;  // whether that is known
  int64_t next_refresh_;          // when the next falls due, or fell
  int last_bank_ = 0;             // of the last line
  int refreshing_ = -1;           // the bank that is to be refreshed, if any
  std::bitset<BANKS> refreshed_;  // in this round, in which every bank has its turn
  // Which of the last lines needed an activate.
  std::bitset<RECENT_LINES> needed_rows_ = ~0ull;
  Resource scarce_ = scarce();
  bool draining_ = false;
  int served_ = READ_TURN;  // requests since draining began or ended
  uint64_t read_count_ = 0, write_count_ = 0, row_hits_ = 0, activates_ = 0, refreshes_ = 0;
};

}  // namespace halfdome
