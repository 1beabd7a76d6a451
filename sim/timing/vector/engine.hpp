// The vector engine: when it reads, what passes its units and when it writes (hdl/vector/engine.py).
#pragma once

#include "averages.hpp"
#include "job.hpp"

namespace halfdome::timing {

class VectorEngine : public Engine {
 public:
  VectorEngine(const Parameters& p, ReadPort& a, ReadPort& b, WritePort& y)
      : p_(p), y_(y), a_(p, a), b_(p, b), packer_(p, y), walker_(p), sums_(p), averages_(p), lines_(p) {}

  bool ready() const override { return state_ == State::IDLE; }

  void take(const Command& command, int64_t cycle) override {
    job_ = vector::job_of(p_, command);
    groups_left_ = job_.groups;
    rows_left_ = job_.y.rows;
    go_ = false;
    parts_ = 0;
    came_ = ended_ = 0;
    a_.start(job_.a);
    if (windowed()) {
      image_ = vector::image_of(command);
      known_ = cycle + p_.vector_step_cycles;
      walker_.start(image_, known_);
      if (job_.unit == Unit::SUMS) sums_.start(command);
      if (job_.unit == Unit::AVERAGES) averages_.start(cycle);
    } else {
      packer_.start(job_.y);
      if (job_.two_sources || job_.unit == Unit::TABLE) b_.start(job_.b);
    }
    state_ = windowed() ? State::PREPARE : State::RUN;
    since_ = cycle + 1;
    account.become(BUSY, since_);
  }

  void offer(int64_t cycle) override {
    if ((state_ != State::RUN && state_ != State::PREPARE) || cycle < since_) return;
    a_.offer(burst());
    b_.offer(nullptr);
    packer_.offer();
  }

  int64_t clock(int64_t cycle) override {
    if (state_ == State::IDLE) return NEVER;
    if (cycle < since_) return since_;
    switch (state_) {
      case State::PREPARE:
      case State::RUN: return run(cycle);
      case State::DRAIN:
        account.become(BLOCKED, cycle);
        if (y_.idle) state_ = State::REPORT;
        return cycle + 1;
      default: account.become(BLOCKED, cycle); return NEVER;
    }
  }

  bool done() const override { return state_ == State::REPORT; }
  void finish(int64_t cycle) override {
    state_ = State::IDLE;
    account.become(BLOCKED, cycle);
    account.become(IDLE, cycle + 1);
  }

 private:
  using Unit = vector::Unit;
  enum class State { IDLE, PREPARE, RUN, DRAIN, REPORT };

  bool windowed() const { return vector::is_windowed(job_.unit); }
  // Groups of sums that the command makes, if it makes any.
  const vector::Totals* totals() const {
    switch (job_.unit) {
      case Unit::SUMS: return &sums_.totals();
      case Unit::AVERAGES: return &averages_.totals();
      default: return nullptr;
    }
  }
  const vector::Burst* burst() { return windowed() ? walker_.burst() : nullptr; }

  // Whether there is what a group of a needs beside itself.
  bool complete(bool b, const vector::Tap* tap) const {
    switch (job_.unit) {
      case Unit::TABLE: return true;
      case Unit::MAXIMUM: return tap;
      case Unit::SUMS: return tap && sums_.accepts(*tap);
      case Unit::AVERAGES: return tap && averages_.accepts(*tap, place_);
      default: return (b || !job_.two_sources) && !takes_turns();
    }
  }
  // The lanes have no room for a group in this cycle (hdl/vector/lanes.py).
  bool takes_turns() const {
    const uint64_t ends = static_cast<uint64_t>(p_.vector_reduce_turns);
    const bool alone = ends && (ended_ & 2) && groups_left_ == 1;
    return (came_ & job_.turns) || (job_.reduces && (alone || (ended_ & ends)));
  }
  // A group leaves in this cycle, if it is enabled.
  bool leaves() const {
    if (totals()) return totals()->leaves();
    return !inside_.empty() && inside_.front() == enabled_;
  }
  // Of an enabled cycle: `enter`: a group comes; what goes on is in a pipeline of enabled cycles.
  void pass(bool enter, const vector::Tap* tap) {
    if (leaves()) inside_.pop_front();
    const bool goes_on = job_.reduces ? groups_left_ == 1 : !tap || tap->last;
    if (enter && goes_on) inside_.push_back(enabled_ + job_.latency);
    const uint64_t latest = static_cast<uint64_t>(p_.vector_table_turns);
    if (job_.turns) came_ = ((came_ | enter) << 1) & (2 * latest - 1);
    ended_ = (ended_ | (enter && groups_left_ == 1)) << 1;
    ++enabled_;
  }

  int64_t run(int64_t cycle) {
    const bool running = state_ == State::RUN;
    const bool b = b_.valid(cycle), b_ready = b_.ready();
    const bool busy = packer_.busy(), line = lines_.valid();
    const vector::Tap* tap =
        windowed() && walker_.taps.readable(cycle) ? &walker_.taps.front() : nullptr;
    const bool enter = go_ && a_.valid(cycle) && complete(b, tap);
    const bool whole = job_.unit != Unit::TABLE || parts_ == p_.vector_table_cycles;
    const bool loads = b && !whole;
    const bool sums = (totals() && totals()->busy()) ||
                      (job_.unit == Unit::AVERAGES && averages_.returns(place_));
    const bool turns = job_.unit == Unit::LANES && takes_turns();
    const bool works = enter || loads || turns || walker_.skips(cycle) || sums ||
                       (windowed() ? walker_.idle() : rows_left_ == 0);
    account.become(!running ? BUSY : y_.valid ? BLOCKED : works ? BUSY : STARVED, cycle);

    // To the queue in front of the packer, and from it.
    const size_t level = queue_.level();
    const bool out = go_ && leaves();
    const bool packs = queue_.readable(cycle) && packer_.ready();
    if (packs) queue_.read(cycle);
    if (out) queue_.write(cycle, true);
    bool moved = packer_.clock(packs) || enter || loads || out;

    bool tap_ends = false;
    const unsigned place = place_;
    if (enter && tap) {
      tap_ends = ++place_ == tap->groups;
      if (tap_ends) place_ = 0;
    }
    parts_ += loads;
    const bool b_taken = job_.unit == Unit::TABLE  ? loads && parts_ % (p_.bus_bytes / 4) == 0
                         : job_.unit == Unit::SUMS ? b
                                                   : enter && job_.two_sources;
    const bool asked = burst() && a_.buffer.taken();
    int64_t next = std::min(a_.clock(cycle, enter, tap_ends, burst()),
                            b_.clock(cycle, b_taken, false, nullptr));
    moved |= go_ && totals() && totals()->moves();
    if (job_.unit == Unit::SUMS) {
      moved |= sums_.clock(b_, b_ready, go_, enter ? tap : nullptr, tap_ends, b);
    } else if (job_.unit == Unit::AVERAGES) {
      moved |= go_ && averages_.returns(place_);
      averages_.clock(cycle, go_, enter ? tap : nullptr, place);
    } else if (go_) {
      pass(enter, tap);
      moved |= !inside_.empty() || came_ || turns;
    }
    if (windowed()) {
      if (tap_ends) walker_.taps.read(cycle);
      next = std::min(next, walker_.clock(cycle, asked));
    }
    if (enter && --groups_left_ == 0) {
      groups_left_ = job_.groups;
      --rows_left_;
    }

    // Of an image, all windows of a line of channels are written before those of the next.
    if (line && !busy) {
      const uint64_t lanes = static_cast<uint64_t>(p_.byte_lanes);
      packer_.start({image_.y + lines_.first(), image_.y_stride,
                     image_.out_height * image_.out_width, (lines_.size() + lanes - 1) / lanes,
                     lines_.size(), static_cast<unsigned>(p_.vector_byte_size)});
      lines_.step();
      moved = true;
    }
    const bool went = go_;
    if (!running) {
      if (cycle == known_) {
        lines_.start(image_.k);
        state_ = State::RUN;
        moved = true;
      }
      next = std::min(next, known_);
    } else {
      go_ = level + 2 <= static_cast<size_t>(p_.vector_queue_words) && busy && whole;
      if (!busy && !line) {
        state_ = State::DRAIN;
        moved = true;
      }
    }
    if (moved || go_ != went) return cycle + 1;
    if (!queue_.empty()) next = std::min(next, std::max(cycle + 1, queue_.readable_at()));
    if (!walker_.taps.empty() && walker_.taps.readable_at() > cycle) {
      next = std::min(next, walker_.taps.readable_at());
    }
    return next;
  }

  const Parameters& p_;
  WritePort& y_;
  vector::GroupSource a_, b_;
  vector::RowPacker packer_;
  vector::WindowWalker walker_;
  vector::WindowSums sums_;
  vector::WindowAverages averages_;
  vector::ChannelLines lines_;
  Fifo<bool> queue_;              // in front of the packer
  Ring<int64_t> inside_;    // the enabled cycles in which groups leave
  vector::Job job_{};
  vector::Image image_{};
  State state_ = State::IDLE;
  bool go_ = false;  // what lies between sources and queue moves
  int64_t enabled_ = 0, since_ = 0, known_ = 0, parts_ = 0;
  uint64_t groups_left_ = 0, rows_left_ = 0;
  uint64_t came_ = 0, ended_ = 0;  // groups, and last ones of rows: bit n tells of n cycles ago
  unsigned place_ = 0;  // of a group in its tap
};

}  // namespace halfdome::timing
