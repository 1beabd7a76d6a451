// What a TRANSPOSE does between the words that it reads and those that it writes
// (hdl/dma/transpose.py).
#pragma once

#include "reader.hpp"

namespace halfdome::timing {

// Cuts matrices into blocks, along the rows of the source.
class BlockWalker {
 public:
  explicit BlockWalker(const Parameters& p) : line_(static_cast<uint64_t>(p.line_bytes)) {}

  void start(const Command& command) {
    namespace f = transpose_fields;
    size_ = command[f::element_bytes];
    side_ = line_ / size_;
    rows_ = all_rows_ = command[f::rows];
    columns_ = all_columns_ = command[f::columns];
    batches_ = command[f::batches];
    strides_ = {command[f::source_stride], command[f::destination_stride]};
    batch_strides_ = {command[f::source_batch_stride], command[f::destination_batch_stride]};
    enter({command[f::source], command[f::destination]}, BATCH);
  }
  bool over() const { return batches_ == 0; }

  // The rows of the block, and where its columns become rows.
  Block source() const { return {places_[BLOCK].source, strides_.source, height(), width() * size_}; }
  Block destination() const {
    return {places_[BLOCK].destination, strides_.destination, width(), height() * size_};
  }

  void pass() {
    if (columns_ > side_) {
      columns_ -= side_;
      const Pair at = places_[BLOCK];
      enter({at.source + line_, at.destination + strides_.destination * side_}, BLOCK);
      return;
    }
    columns_ = all_columns_;
    if (rows_ > side_) {
      rows_ -= side_;
      const Pair at = places_[ROW];
      enter({at.source + strides_.source * side_, at.destination + line_}, ROW);
      return;
    }
    rows_ = all_rows_;
    --batches_;
    const Pair at = places_[BATCH];
    enter({at.source + batch_strides_.source, at.destination + batch_strides_.destination}, BATCH);
  }

 private:
  enum Place { BATCH, ROW, BLOCK, PLACES };
  struct Pair {
    uint64_t source, destination;
  };

  uint64_t height() const { return std::min(rows_, side_); }
  uint64_t width() const { return std::min(columns_, side_); }
  // All places from that of a batch, a row or a block on.
  void enter(Pair at, Place from) {
    for (int place = from; place < PLACES; ++place) places_[place] = at;
  }

  uint64_t line_, size_ = 1, side_ = 0, rows_ = 0, columns_ = 0, all_rows_ = 0, all_columns_ = 0,
           batches_ = 0;
  Pair strides_{}, batch_strides_{}, places_[PLACES] = {};
};

// Blocks on their way: each comes row by row, and leaves column by column while the next one comes.
class Transposer {
 public:
  explicit Transposer(const Parameters& p) : p_(p), walker_(p) {}

  void start(const Command& command) { walker_.start(command); }
  bool idle() const {
    return walker_.over() && leaving_.empty() && targets_.empty() && !reading_ && !valid_;
  }
  bool takes(int64_t cycle) const { return coming_.readable(cycle) && !full_[half_]; }
  bool offers() const { return valid_; }

  // Ends a cycle in which a word `comes`, and the one that it offers `leaves`. The next rows are
  // asked for, and written, when the ones before have been.
  void clock(int64_t cycle, bool comes, bool leaves, RowReader& reader, bool reader_ready,
             Walk& writer, bool writer_ready) {
    const bool room = coming_.room(cycle, QUEUED) && leaving_.room(cycle, QUEUED) &&
                      targets_.room(cycle, QUEUED);
    give(cycle, leaves);
    if (stored_) full_[stored_half_] = true;
    stored_ = comes && take(cycle);
    if (writer_ready && targets_.readable(cycle)) writer.start(targets_.read(cycle));
    if (walker_.over() || !reader_ready || !room) return;
    const Block source = walker_.source(), destination = walker_.destination();
    reader.start(source);
    coming_.write(cycle, source);
    leaving_.write(cycle, destination);
    targets_.write(cycle, destination);
    walker_.pass();
  }

 private:
  static constexpr size_t QUEUED = TRANSPOSE_QUEUED;

  // Whether the word that comes ends its block, which leaves from the cycle after the next on.
  bool take(int64_t cycle) {
    const Block& block = coming_.front();
    if (++word_ < words_of(p_, block.row_bytes)) return false;
    word_ = 0;
    if (++row_ < block.rows) return false;
    row_ = 0;
    coming_.read(cycle);
    stored_half_ = half_;
    half_ ^= 1;
    return true;
  }

  void give(int64_t cycle, bool leaves) {
    if (valid_ && !leaves) return;
    valid_ = reading_;
    reading_ = full_[out_half_];
    if (!reading_) return;
    const Block& block = leaving_.front();
    if (++group_ < words_of(p_, block.row_bytes)) return;
    group_ = 0;
    if (++column_ < block.rows) return;
    column_ = 0;
    leaving_.read(cycle);
    full_[out_half_] = false;
    out_half_ ^= 1;
  }

  const Parameters& p_;
  BlockWalker walker_;
  Fifo<Block> coming_, leaving_, targets_;
  bool full_[2] = {};  // of each half of the banks, whether a block waits there
  unsigned half_ = 0, out_half_ = 0, stored_half_ = 0;
  bool stored_ = false, reading_ = false, valid_ = false;
  uint64_t word_ = 0, row_ = 0, group_ = 0, column_ = 0;
};

}  // namespace halfdome::timing
