// The gather engine: when it reads indices and rows, adds and writes (hdl/gather/engine.py).
#pragma once

#include <optional>
#include <utility>

#include "cache.hpp"
#include "output.hpp"

namespace halfdome::timing {

class GatherEngine : public Engine {
 public:
  GatherEngine(const Parameters& p, const Bytes& bytes, ReadPort& lengths, ReadPort& indices,
               ReadPort& weights, ReadPort& rows, WritePort& output)
      : p_(p), output_(output), cache_(cache(p, rows)), lengths_(p, bytes, lengths),
        indices_(p, bytes, indices), weights_(p, bytes, weights), interleaver_(p),
        fetcher_(p, cache_ ? cache_->client : rows), aligner_(p), scaler_(p), lanes_(p), splitter_(p), mean_(p), converter_(p), writer_(p, output) {}

  bool ready() const override { return state_ == State::IDLE; }

  void take(const Command& command, int64_t cycle) override {
    job_ = gather::job_of(p_, command);
    state_ = State::PREPARE;
    start_ = cycle + 2;
    account.become(BUSY, cycle + 1);
    waits_.become(1 + WAITS_FOR_INDICES, cycle + 1);
    if (cache_ && watch.start(job_, cycle)) cache_->flush();
  }

  void offer(int64_t cycle) override {
    if (state_ == State::RUN || state_ == State::DRAIN) {
      for (gather::ArrayReader* reader : {&lengths_, &indices_, &weights_}) reader->offer();
      fetcher_.offer();
      writer_.offer();
    }
    if (cache_) cache_->offer(cycle);
  }

  int64_t clock(int64_t cycle) override {
    const int64_t next = advance(cycle);
    return cache_ ? std::min(next, cache_->clock(cycle)) : next;
  }

  bool done() const override { return state_ == State::REPORT; }
  void finish(int64_t cycle) override {
    state_ = State::IDLE;
    account.become(IDLE, cycle + 1);
    waits_.become(0, cycle + 1);
  }
  int64_t waited(unsigned wait, int64_t cycle) const override { return waits_.count(1 + wait, cycle); }
  int64_t cache_hits(int64_t cycle) const override { return cache_ ? cache_->hits.before(cycle) : 0; }
  int64_t cache_misses(int64_t cycle) const override {
    return cache_ ? cache_->misses.before(cycle) : 0;
  }

  gather::WriteWatch watch;  // to be told of writes if there is a cache

 private:
  enum class State { IDLE, PREPARE, RUN, DRAIN, REPORT };

  static std::optional<gather::RowCache> cache(const Parameters& p, ReadPort& rows) {
    if (!p.gather_cache_bytes) return std::nullopt;
    return std::optional<gather::RowCache>(std::in_place, p, rows);
  }

  int64_t advance(int64_t cycle) {
    switch (state_) {
      case State::IDLE: return NEVER;
      case State::PREPARE:
        if (cycle < start_) return start_;
        start();
        state_ = State::RUN;
        return cycle + 1;
      case State::REPORT: return NEVER;
      default: return run(cycle);
    }
  }

  void start() {
    lengths_.start(job_.lengths, job_.bags, job_.wide);
    indices_.start(job_.indices, job_.index_count, job_.wide);
    weights_.start(job_.weights, job_.weighted ? job_.index_count : 0, false);
    bag_lengths_.restart(job_);
    sequencer_.start(job_);
    interleaver_.restart();
    fetcher_.start(job_);
    aligner_.start(job_);
    unpacker_.start(job_);
    lanes_.start(job_);
    splitter_.start(job_);
    converter_.start(job_);
    writer_.restart(job_);
    walk_at_ = write_at_ = 0;
  }

  int64_t run(int64_t cycle) {
    const bool draining = state_ == State::DRAIN;
    const bool rows_done = in_flight_ == 0;
    const bool readers_idle = draining && lengths_.idle() && indices_.idle() && weights_.idle();
    const bool written = draining && lanes_.drained() && mean_.empty() && converter_.empty() &&
                         writer_.idle() && output_.idle;
    const bool sequenced = sequencer_.done();

    // Each part decides by what is on offer and by whether what follows takes more.
    const gather::Tag* factors = scaler_.factors.readable(cycle) ? &scaler_.factors.front() : nullptr;
    lanes_.look(cycle, factors, unpacker_.valid());
    const bool chunk_taken = lanes_.takes_chunk, factors_taken = lanes_.takes_factors;
    const bool word_unpacked = row_words_.readable(cycle) && unpacker_.ready(chunk_taken);
    const bool word_taken = aligner_.valid() && row_words_.room(cycle, p_.gather_row_words);
    const bool tail_taken = aligner_.tail_valid() && scaler_.ready();
    aligner_.look(cycle, fetcher_, word_taken, tail_taken);
    const bool located = interleaver_.valid() && fetcher_.ready(cycle);
    const bool dealt = deal(cycle, draining && !readers_idle);

    Activity working = lanes_.blocked ? BLOCKED : lanes_.working ? BUSY : STARVED;
    if (rows_done && readers_idle) working = BLOCKED;
    account.become(working, cycle);
    const GatherWait wait = working == BLOCKED     ? WAITS_FOR_OUTPUT
                            : lanes_.working       ? WAITS_FOR_LANES
                            : fetcher_.waiting()   ? WAITS_FOR_MEMORY
                            : !rows_done           ? WAITS_FOR_LANES
                                                   : WAITS_FOR_INDICES;
    waits_.become(1 + wait, cycle);

    if (cycle >= write_at_ || output_.taken) write_at_ = write(cycle);
    int64_t next = lanes_.clock(cycle, std::exchange(sum_taken_, false));
    gather::consider(write_at_, lanes_.sums, cycle);
    bool moved = false;
    const auto at = [&](int64_t when) { next = std::min(next, when); };

    // Rows.
    const bool word_ends = word_unpacked && row_words_.read(cycle);
    if (word_taken) row_words_.write(cycle, aligner_.ends());
    gather::consider(next, row_words_, cycle);
    moved |= unpacker_.clock(chunk_taken, word_unpacked, word_ends) || word_taken;
    const gather::Tag tail = aligner_.tail();
    if (factors_taken) scaler_.factors.read(cycle);
    at(scaler_.clock(cycle, tail_taken ? &tail : nullptr, factors_taken));
    const bool returned = aligner_.takes_word && fetcher_.words.read(cycle);
    gather::Tag tag;
    if (aligner_.takes_tag) tag = fetcher_.tags.read(cycle);
    moved |= aligner_.takes_word;
    moved |= aligner_.clock(aligner_.takes_tag ? &tag : nullptr);
    const gather::BagInterleaver::Output lookup = interleaver_.front();
    at(fetcher_.clock(cycle, located ? &lookup : nullptr, returned));

    at(interleaver_.clock(cycle, located, dealt ? &sequencer_.lookup : nullptr));
    in_flight_ += dealt;
    in_flight_ -= factors_taken;
    if (walks_) walk_at_ = walk(cycle, dealt, draining);
    at(walk_at_);
    at(write_at_);

    if (state_ == State::RUN && sequenced) {
      sequencer_.finish();
      state_ = State::DRAIN;
      moved = true;
    } else if (rows_done && readers_idle) {
      if (written) state_ = State::REPORT;
      moved = true;
    }
    return moved || located ? cycle + 1 : next;
  }

  // Whether a lookup goes from the arrays to the interleaver. What walks the arrays goes on if it
  // asked for this cycle, if words come, if what it offers is taken, or while it `stops`.
  bool deal(int64_t cycle, bool stops) {
    walks_ = cycle >= walk_at_ || stops || lengths_.touched() || indices_.touched() || weights_.touched();
    if (walks_) sequencer_.look(bag_lengths_, indices_, weights_);
    const bool dealt = sequencer_.offers && interleaver_.ready();
    walks_ |= dealt;
    return dealt;
  }

  // From the arrays to a lookup. Returns when it may go on by itself.
  int64_t walk(int64_t cycle, bool dealt, bool draining) {
    const bool length_taken = sequencer_.takes_length(dealt), index_taken = sequencer_.takes_index(dealt);
    const bool has_element = lengths_.valid();
    const int64_t element = has_element ? lengths_.element() : 0;
    const bool element_ready = bag_lengths_.ready(length_taken);
    bool moved = sequencer_.clock(dealt);
    moved |= bag_lengths_.clock(length_taken, has_element ? &element : nullptr);
    const int64_t next = std::min({lengths_.clock(cycle, element_ready, draining),
                                   indices_.clock(cycle, index_taken, draining),
                                   weights_.clock(cycle, index_taken && job_.weighted, draining)});
    return moved || dealt ? cycle + 1 : next;
  }

  // What comes from the lanes, on its way to memory. Returns when it may go on by itself.
  int64_t write(int64_t cycle) {
    const bool chunk = lanes_.sums.readable(cycle);
    const gather::Pooled pooled = chunk ? lanes_.sums.front() : gather::Pooled{};
    const gather::Group group = splitter_.group(pooled);
    const bool bytes_taken = converter_.bytes.readable(cycle) && writer_.ready();
    const bool mean_taken = job_.mean && mean_.means.readable(cycle) && converter_.ready();
    const bool group_taken = chunk && (job_.mean ? mean_.ready() : converter_.ready());
    sum_taken_ = group_taken && splitter_.last_part(pooled);
    if (sum_taken_) lanes_.sums.read(cycle);
    if (group_taken) splitter_.clock(pooled);
    gather::Group converted = group, bytes{};
    int64_t next = NEVER;
    if (mean_taken) converted = mean_.means.read(cycle);
    if (job_.mean) next = mean_.clock(cycle, group_taken ? &group : nullptr, mean_taken);
    if (bytes_taken) bytes = converter_.bytes.read(cycle);
    const bool converts = job_.mean ? mean_taken : group_taken;
    next = std::min(next, converter_.clock(cycle, converts ? &converted : nullptr, bytes_taken));
    return writer_.clock(bytes_taken ? &bytes : nullptr) || group_taken ? cycle + 1 : next;
  }

  const Parameters& p_;
  WritePort& output_;
  std::optional<gather::RowCache> cache_;
  gather::ArrayReader lengths_, indices_, weights_;
  gather::BagLengths bag_lengths_;
  gather::BagSequencer sequencer_;
  gather::BagInterleaver interleaver_;
  gather::RowFetcher fetcher_;
  gather::RowAligner aligner_;
  Fifo<bool> row_words_;  // whether one ends the elements of its row
  gather::RowUnpacker unpacker_;
  gather::RowScaler scaler_;
  gather::AccumulateLanes lanes_;
  gather::ChunkSplitter splitter_;
  gather::BagMean mean_;
  gather::PooledConverter converter_;
  gather::BagWriter writer_;
  gather::Job job_{};
  State state_ = State::IDLE;
  int64_t start_ = 0;
  int64_t walk_at_ = 0, write_at_ = 0;  // nothing happens to the arrays, or behind the lanes, before
  bool walks_ = false;                  // something does in this cycle
  bool sum_taken_ = false;
  uint64_t in_flight_ = 0;  // lookups between sequencer and lanes
  Tally<1 + GATHER_WAITS> waits_;  // none, then each
};

}  // namespace halfdome::timing
