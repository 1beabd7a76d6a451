// The matmul engine: when it reads, feeds its array and writes (hdl/matmul/engine.py).
#pragma once

#include "feeder.hpp"
#include "params.hpp"
#include "weights.hpp"
#include "writer.hpp"

namespace halfdome::timing {

class MatmulEngine : public Engine {
 public:
  MatmulEngine(const Parameters& p, ReadPort& x, ReadPort& w, ReadPort& params, WritePort& y)
      : p_(p), y_(y), sequencer_(p), activations_(p, x), fetcher_(p, w), loader_(p),
        params_(p, params), feeder_(p), writer_(p, y) {}

  bool ready() const override { return state_ == State::IDLE; }

  void take(const Command& command, int64_t cycle) override {
    command_ = command;
    job_ = matmul::job_of(command);
    state_ = State::START;
    begin_ = cycle + 1 + (command.opcode() == Opcode::CONV2D ? p_.matmul_convolution_latency
                                                             : p_.matmul_decode_latency);
    account.become(BUSY, cycle + 1);
  }

  void offer(int64_t) override {
    if (state_ != State::RUN) return;
    activations_.offer();
    fetcher_.offer();
    params_.offer();
    writer_.offer();
  }

  int64_t clock(int64_t cycle) override {
    switch (state_) {
      case State::IDLE: return NEVER;
      case State::START:
        if (cycle < begin_) return begin_;
        begin();
        state_ = State::RUN;
        return cycle + 1;
      case State::RUN: return run(cycle);
      case State::REPORT: account.become(BLOCKED, cycle); return NEVER;
    }
    return NEVER;
  }

  // The product that it has taken; whether it has not begun.
  const Command& command() const { return command_; }
  bool waits() const { return state_ == State::START; }
  // All operands of the product lie in the scratchpad.
  bool is_near() const {
    uint64_t first = std::min({job_.x, job_.w, job_.y});
    if (!job_.int32) first = std::min(first, job_.params);
    return first >= static_cast<uint64_t>(p_.scratchpad_base);
  }
  // The product that it has taken has ended in `cycle`: so many cycles were spent on each activity.
  // Returns the next one of which it must be told.
  int64_t conclude(const int64_t (&spent)[ACTIVITIES], int64_t cycle) {
    state_ = State::REPORT;
    account.pass(spent, BUSY, cycle + 1);
    return cycle + 1;
  }

  bool done() const override { return state_ == State::REPORT; }
  void finish(int64_t cycle) override {
    state_ = State::IDLE;
    account.become(IDLE, cycle + 1);
  }

 private:
  enum class State { IDLE, START, RUN, REPORT };
  using Line = matmul::Line;

  // A row of sums that leaves: `cycle` in which it comes to the writer.
  struct Output {
    int64_t cycle;
    bool start;
  };

  void begin() {
    fed_ = false;
    sequencer_.start(job_);
    activations_.start(job_);
    fetcher_.start(job_);
    loader_.start(job_);
    params_.start(job_);
    feeder_.start(job_);
    writer_.start(job_);
    output_delay_ = job_.int32 ? p_.matmul_totals_delay : p_.matmul_output_delay;
  }

  static const Line* front(const Fifo<Line>& queue, int64_t cycle) {
    return queue.readable(cycle) ? &queue.front() : nullptr;
  }
  bool room(const Fifo<Line>& queue, int64_t cycle) const {
    return queue.room(cycle, p_.matmul_lines_ahead);
  }

  int64_t run(int64_t cycle) {
    if (skips_) feeder_.skip(cycle - clocked_ - 1);
    clocked_ = cycle;
    skips_ = false;
    const Line* tiles = front(tiles_, cycle);
    loader_.look(fetcher_.buffer.readable(cycle), tiles);
    feeder_.look(cycle, front(feeds_, cycle), activations_, loader_.ready(),
                 params_.ready() || job_.int32, writer_.room());
    const bool feed = feeder_.feed, start = feed && feeder_.start(), output = feed && feeder_.last();
    const bool line_fed = feed && feeder_.line_done();

    account.become(fed_ && y_.valid                ? BLOCKED
                   : feeder_.missing               ? STARVED
                   : feeder_.blocked               ? BLOCKED
                                                   : BUSY,
                   cycle);
    if (fed_ && writer_.empty() && y_.idle) {
      state_ = State::REPORT;
      account.become(BUSY, cycle + 1);
      return cycle + 1;
    }

    // The next line goes to whoever fetches for it.
    Line line;
    const bool line_taken = sequencer_.valid() && (activations_.ready() || !sequencer_.line().fetch) &&
                            room(weights_, cycle) && room(tiles_, cycle) && room(feeds_, cycle);
    if (line_taken) {
      line = sequencer_.line();
      sequencer_.step();
    }

    // Tiles of outputs are announced as they enter, and come later.
    if (start && output) writer_.announce(feeder_.outputs());
    if (output) outputs_.push_back({cycle + output_delay_, start});
    const bool row = !outputs_.empty() && outputs_.front().cycle == cycle;
    const bool row_start = row && outputs_.front().start;
    if (row) outputs_.pop_front();
    const bool claim = start && output && !job_.int32;

    int64_t next = writer_.clock(cycle, row, row_start);
    next = std::min(next, params_.clock(cycle, line_taken && line.restart && !job_.int32, claim,
                                        cycle + p_.matmul_multiplier_delay));
    if (!outputs_.empty()) next = std::min(next, outputs_.front().cycle);

    const bool release = line_fed && !feeds_.front().keep;
    const bool moved = activations_.clock(line_taken && line.fetch ? &line : nullptr, release);
    if (loader_.reads()) fetcher_.buffer.read(cycle);
    const bool loading = loader_.clock(start, tiles);
    const Line* weights = front(weights_, cycle);
    const bool fetched = weights && fetcher_.ready();
    const bool fetching = fetcher_.clock(cycle, fetched ? weights : nullptr);
    if (line_fed && feeds_.front().final) fed_ = true;
    feeder_.clock(cycle);

    if (fetched) weights_.read(cycle);
    if (loader_.line_done()) tiles_.read(cycle);
    if (line_fed) feeds_.read(cycle);
    if (line_taken) {
      weights_.write(cycle, line);
      tiles_.write(cycle, line);
      feeds_.write(cycle, line);
    }
    const bool ending = fed_ && writer_.empty();
    const unsigned rows = feed ? feeder_.run(activations_) : 0;
    skips_ = rows != 0;
    if (row_start || line_taken || moved || loading || fetching || ending) return cycle + 1;
    if (feed) next = std::min(next, cycle + 1 + rows);
    return std::min(next, wake(cycle));
  }

  // When a word or a line that is on its way within the engine can be seen, or a pass begin.
  int64_t wake(int64_t cycle) const {
    int64_t next = NEVER;
    const auto consider = [&](int64_t when) {
      if (when > cycle) next = std::min(next, when);
    };
    for (const Fifo<Line>* queue : {&weights_, &tiles_, &feeds_}) {
      if (!queue->empty()) consider(queue->readable_at());
    }
    if (loader_.hungry()) consider(std::max(fetcher_.buffer.readable_at(), cycle + 1));
    consider(feeder_.free_at());
    return next;
  }

  const Parameters& p_;
  WritePort& y_;
  matmul::LineSequencer sequencer_;
  matmul::ActivationBuffer activations_;
  matmul::WeightFetcher fetcher_;
  matmul::TileLoader loader_;
  matmul::ParamLoader params_;
  matmul::Feeder feeder_;
  matmul::RowWriter writer_;
  Fifo<Line> weights_, tiles_, feeds_;
  Ring<Output> outputs_;
  Command command_{};
  matmul::Job job_{};
  State state_ = State::IDLE;
  int64_t begin_ = 0, output_delay_ = 0, clocked_ = 0;
  bool fed_ = false;
  bool skips_ = false;  // rows enter in the cycles that are passed over
};

}  // namespace halfdome::timing
