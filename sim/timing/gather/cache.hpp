// The hot-row cache: which lines it holds, and when it answers (hdl/gather/cache.py).
#pragma once

#include <vector>

#include "watch.hpp"

namespace halfdome::timing::gather {

// Between a client, whose requests it takes, and memory. In a cycle: `offer` after the client's, then
// `clock` after the client's.
class RowCache {
 public:
  RowCache(const Parameters& p, ReadPort& memory)
      : p_(p), words_(static_cast<unsigned>(p.burst_words)),
        line_bytes_(static_cast<uint64_t>(p.burst_words * p.bus_bytes)),
        ways_(static_cast<size_t>(p.gather_cache_ways)),
        sets_(static_cast<size_t>(p.gather_cache_bytes) / (ways_ * line_bytes_)),
        entries_(sets_ * ways_), buffer_(memory, static_cast<unsigned>(p.gather_outstanding * p.burst_words)) {
    while (size_t{1} << set_bits_ < sets_) ++set_bits_;
  }

  ReadPort client;
  Count hits, misses;

  // Before `clock`: forgets every line, a set a cycle from the next cycle on.
  void flush() { flush_ = true; }

  void offer(int64_t cycle) {
    client.arrives = answered_;
    client.last = answered_last_;
    advance_ = !asked_ || room(cycle);
    client.taken = client.valid && advance_ && !sweeping_;
    if (client.taken) client.valid = false;
    if (!missed_.empty()) buffer_.offer(missed_.front().address, missed_.front().words);
  }

  // Returns the next cycle of which it must be told.
  int64_t clock(int64_t cycle) {
    const bool stepped = answer(cycle), deciding = asked_;
    if (buffer_.taken()) missed_.pop_front();
    if (asked_ && advance_) decide(cycle);
    if (flush_) {
      sweeping_ = true;
      swept_ = 0;
      flush_ = false;
    } else if (sweeping_ && !deciding) {
      std::fill_n(entries_.begin() + static_cast<std::ptrdiff_t>(swept_ * ways_), ways_, Entry{});
      sweeping_ = ++swept_ != sets_;
    }
    if (advance_) {
      asked_ = client.taken;
      request_ = {client.address, client.words};
    }
    client.taken = client.arrives = false;
    buffer_.clock(cycle);
    if (stepped || sweeping_ || (asked_ && room(cycle + 1))) return cycle + 1;
    if (!missed_.empty() && buffer_.room(missed_.front().words)) return cycle + 1;
    int64_t next = NEVER;
    if (!answers_.empty() && answers_.readable_at() > cycle) next = answers_.readable_at();
    const int64_t readable = buffer_.readable_at();
    return readable > cycle ? std::min(next, readable) : next;
  }

 private:
  static constexpr size_t MISSES = 4;

  struct Entry {
    bool valid = false, recent = false;
    uint64_t tag = 0;
  };
  struct Request {
    uint64_t address = 0;
    unsigned words = 0;
  };
  // Words `first` to `last` of a line, which comes from memory as a whole if it is to be kept.
  struct Answer {
    bool cached, fill;
    unsigned first, last;
  };

  // For what becomes of a request.
  bool room(int64_t cycle) const {
    const auto depth = static_cast<int64_t>(2 * p_.gather_outstanding * p_.burst_words);
    return answers_.room(cycle, depth) && missed_.size() < MISSES;
  }

  void decide(int64_t cycle) {
    const bool in_dram = request_.address < static_cast<uint64_t>(p_.dram_bytes);
    const bool found = in_dram && look_up(request_.address / line_bytes_);
    const auto first = static_cast<unsigned>(request_.address / p_.bus_bytes) & (words_ - 1);
    answers_.write(cycle, {found, in_dram && !found, first, first + request_.words - 1});
    if (in_dram) (found ? hits : misses).add(1, cycle);
    if (found) return;
    if (in_dram) missed_.push_back({request_.address / line_bytes_ * line_bytes_, words_});
    else missed_.push_back(request_);
  }

  // Whether a line is held; if not, it is from now on.
  bool look_up(uint64_t line) {
    const uint64_t mask = sets_ - 1, tag = line >> set_bits_;
    Entry* const set = &entries_[((line ^ line >> set_bits_) & mask) * ways_];
    bool all_used = true, found = false;
    for (size_t way = 0; way < ways_; ++way) {
      const bool matches = set[way].valid && set[way].tag == tag;
      found |= matches;
      all_used &= set[way].recent || matches;
    }
    if (!found) {
      size_t oldest = 0;
      for (size_t way = ways_; way-- > 0;) {
        if (!set[way].recent) oldest = way;
      }
      set[oldest] = {true, false, tag};
      return false;
    }
    for (size_t way = 0; way < ways_; ++way) {
      const bool matches = set[way].valid && set[way].tag == tag;
      set[way].recent = matches || (set[way].recent && !all_used);
    }
    return true;
  }

  // A word of the oldest request, if it is there; it leaves a cycle later.
  bool answer(int64_t cycle) {
    const bool ready = answers_.readable(cycle);
    const bool steps = ready && (answers_.front().cached || buffer_.readable(cycle));
    answered_ = false;
    if (!steps) return false;
    const Answer oldest = answers_.front();
    const unsigned word = begun_ ? next_word_ : oldest.fill ? 0 : oldest.first;
    const bool ends = word == (oldest.fill ? words_ - 1 : oldest.last);
    if (!oldest.cached) buffer_.read(cycle);
    if (ends) answers_.read(cycle);
    begun_ = !ends;
    next_word_ = word + 1;
    answered_ = word >= oldest.first && word <= oldest.last;
    answered_last_ = word == oldest.last;
    return true;
  }

  const Parameters& p_;
  unsigned words_;  // of a line
  uint64_t line_bytes_;
  size_t ways_, sets_;
  unsigned set_bits_ = 0;
  std::vector<Entry> entries_;
  ReadBuffer buffer_;
  Fifo<Answer> answers_;
  Ring<Request> missed_;
  Request request_;
  bool asked_ = false, advance_ = true;  // `request_` is being decided on, and moves on
  bool flush_ = false, sweeping_ = false;
  size_t swept_ = 0;
  bool begun_ = false, answered_ = false, answered_last_ = false;
  unsigned next_word_ = 0;
};

}  // namespace halfdome::timing::gather
