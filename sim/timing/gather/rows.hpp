// Lookups become rows, and rows chunks (hdl/gather/rows.py, align.py, unpack.py and scale.py).
#pragma once

#include "sequencer.hpp"

namespace halfdome::timing::gather {

// What accompanies a row: where it starts in its first bus word, and its lookup.
struct Tag {
  uint64_t offset = 0;
  bool row = false, last = false;
  unsigned context = 0;
};

template <typename T>
void consider(int64_t& next, const Fifo<T>& queue, int64_t cycle) {
  if (!queue.empty() && queue.readable_at() > cycle) next = std::min(next, queue.readable_at());
}

// Reads the bus words that a row touches, with many rows in flight.
class RowFetcher {
 public:
  RowFetcher(const Parameters& p, ReadPort& port)
      : p_(p), port_(port), credit_(p.gather_outstanding),
        stages_(static_cast<size_t>(p.gather_address_latency)) {}

  Fifo<Tag> tags;
  Fifo<bool> words;  // whether one ends its burst

  void start(const Job& job) { job_ = job; }
  // Words that were asked for have not been taken.
  bool waiting() const { return left_ != 0 || credit_ != p_.gather_outstanding; }

  void offer() {
    if (left_ != 0 && credit_ != 0 && !port_.valid) port_.offer(number_ * bus(), burst());
  }
  // In a cycle of which `port.taken` is known: whether it takes a lookup.
  bool ready(int64_t cycle) const { return !stages_[oldest_].valid || tag_leaves(cycle); }

  // `lookup`: what comes, if something does; `returned`: a burst's last word was taken.
  int64_t clock(int64_t cycle, const BagInterleaver::Output* lookup, bool returned) {
    Stage& located = stages_[oldest_];
    const bool step = ready(cycle), leaves = step && located.valid;
    if (port_.arrives) words.write(cycle, port_.last);
    credit_ += returned;
    if (port_.taken) {
      --credit_;
      number_ += port_.words;
      left_ -= port_.words;
    }
    if (leaves) {
      const uint64_t address = (job_.table + located.lookup.index * job_.row_stride) & ADDRESS_MASK;
      tags.write(cycle, {address % bus(), located.lookup.row, located.lookup.last, located.context});
      if (located.lookup.row) {
        number_ = address >> p_.bus_shift;
        left_ = words_of(p_, job_.shape.row_bytes + address % bus());
      }
    }
    if (step) {
      inside_ += (lookup != nullptr) - leaves;
      located.valid = lookup != nullptr;
      if (lookup) located = {true, lookup->lookup, lookup->context};
      if (++oldest_ == stages_.size()) oldest_ = 0;
    }
    if ((step && inside_ != 0) || leaves || returned || port_.taken) return cycle + 1;
    int64_t next = NEVER;
    consider(next, tags, cycle);
    consider(next, words, cycle);
    return next;
  }

 private:
  struct Stage {
    bool valid = false;
    Lookup lookup{};
    unsigned context = 0;
  };

  uint64_t bus() const { return static_cast<uint64_t>(p_.bus_bytes); }
  unsigned burst() const {
    return static_cast<unsigned>(std::min<uint64_t>(left_, words_to_line_end(p_, number_ * bus())));
  }
  bool tag_leaves(int64_t cycle) const {
    const bool free = left_ == 0 || (port_.taken && left_ == port_.words);
    return (free || !stages_[oldest_].lookup.row) && tags.room(cycle, p_.gather_outstanding);
  }

  const Parameters& p_;
  ReadPort& port_;
  Job job_{};
  int64_t credit_;
  std::vector<Stage> stages_;  // on their way to an address
  size_t oldest_ = 0;          // of them
  int inside_ = 0;             // that hold a lookup
  uint64_t number_ = 0, left_ = 0;
};

// From bus words at any byte offset to row-aligned words and the row's tail.
class RowAligner {
 public:
  explicit RowAligner(const Parameters& p) : p_(p) {}

  void start(const Job& job) { shape_ = job.shape; }

  bool valid() const { return valid_; }  // a word of a row, whose elements may end with it
  bool ends() const { return ends_; }
  bool tail_valid() const { return tail_valid_; }
  const Tag& tail() const { return tail_; }

  // Decides on a cycle by what is on offer.
  void look(int64_t cycle, const RowFetcher& fetcher, bool word_taken, bool tail_taken) {
    word_taken_ = word_taken;
    tail_taken_ = tail_taken;
    const bool word = fetcher.words.readable(cycle), has_tag = fetcher.tags.readable(cycle);
    const bool tail_free = !tail_valid_ || tail_taken;
    final_ = number_ == shape_.last_word;
    const bool needs = !final_ || tag_.offset + shape_.last_byte >= static_cast<uint64_t>(p_.bus_bytes);
    step_ = active_ && (!needs || word) && (!valid_ || word_taken) && (tail_free || !shape_.factors);
    const bool row = has_tag && fetcher.tags.front().row;
    load_row_ = (!active_ || (step_ && final_ && !needs)) && row && word && (tail_free || shape_.factors);
    load_end_ = !active_ && has_tag && !row && tail_free;
    takes_word = (step_ && needs) || load_row_;
    takes_tag = load_row_ || load_end_;
  }
  bool takes_word = false, takes_tag = false;

  // `tag`: the one that it takes, if it does. True if it did something.
  bool clock(const Tag* tag) {
    const bool moved = step_ || tag || (valid_ && word_taken_) || (tail_valid_ && tail_taken_);
    if (word_taken_) valid_ = false;
    if (tail_taken_) tail_valid_ = false;
    if (step_) {
      valid_ = number_ <= shape_.last_data_word;
      ends_ = number_ == shape_.last_data_word;
      ++number_;
      if (final_) {
        active_ = false;
        if (shape_.factors) give_tail(tag_);
      }
    }
    if (load_row_) {
      active_ = true;
      tag_ = *tag;
      number_ = 0;
    }
    if (load_end_ || (load_row_ && !shape_.factors)) give_tail(*tag);
    return moved;
  }

 private:
  void give_tail(const Tag& tag) {
    tail_ = tag;
    tail_valid_ = true;
  }

  const Parameters& p_;
  Shape shape_{};
  Tag tag_{}, tail_{};
  uint64_t number_ = 0;  // of the next word of the row
  bool active_ = false, valid_ = false, ends_ = false, tail_valid_ = false;
  bool word_taken_ = false, tail_taken_ = false;
  bool final_ = false, step_ = false, load_row_ = false, load_end_ = false;
};

// Cuts row-aligned words into chunks of one element per lane.
class RowUnpacker {
 public:
  void start(const Job& job) { shape_ = job.shape; }
  bool valid() const { return full_; }
  bool ready(bool taken) const { return !full_ || (taken && done()); }

  // `taken`: the chunk on offer is taken; `word`: whether one comes, and ends its row's elements.
  bool clock(bool taken, bool word, bool ends) {
    if (taken) {
      const bool over = done(), row_ends = chunk_ == shape_.last_chunk;
      part_ = over ? 0 : part_ + 1;
      chunk_ = row_ends ? 0 : chunk_ + 1;
      full_ = !over;
    }
    if (word) {
      full_ = slot_ == shape_.slots - 1 || ends;
      slot_ = full_ ? 0 : slot_ + 1;
    }
    return taken || word;
  }

 private:
  // With this chunk, what is held of the row.
  bool done() const { return part_ == shape_.parts - 1 || chunk_ == shape_.last_chunk; }

  Shape shape_{};
  uint64_t chunk_ = 0;
  unsigned slot_ = 0, part_ = 0;
  bool full_ = false;
};

// Multiplies a row's scale and bias by its weight: a row enters only if the queue has room for it.
class RowScaler {
 public:
  explicit RowScaler(const Parameters& p) : p_(p), free_(p.gather_buffered_rows) {}

  Fifo<Tag> factors;

  bool ready() const { return free_ != 0 && !second_; }
  // `tail`: what comes, if something does; `left`: factors were taken.
  int64_t clock(int64_t cycle, const Tag* tail, bool left) {
    if (!tail && !left && !second_ && cycle < next_) return next_;
    const bool was_second = second_;
    second_ = tail && p_.gather_in_turns;
    if (tail) inside_.push_back({cycle + p_.gather_scaler_latency, *tail});
    free_ += left;
    free_ -= tail != nullptr;
    if (!inside_.empty() && inside_.front().cycle == cycle) {
      factors.write(cycle, inside_.front().tag);
      inside_.pop_front();
    }
    next_ = cycle + 1;
    if (tail || left || was_second) return next_;
    next_ = inside_.empty() ? NEVER : inside_.front().cycle;
    consider(next_, factors, cycle);
    return next_;
  }

 private:
  struct Inside {
    int64_t cycle;
    Tag tag;
  };

  const Parameters& p_;
  int64_t free_;
  bool second_ = false;  // the bias has its turn
  int64_t next_ = 0;     // nothing happens before, if nothing comes
  Ring<Inside> inside_;
};

}  // namespace halfdome::timing::gather
