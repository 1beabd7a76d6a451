// Weighted sums over windows, requantised (hdl/vector/sums.py, kernel.py and scaler.py).
#pragma once

#include "walker.hpp"

namespace halfdome::timing::vector {

// Channels of an image, a memory line of them after the other (hdl/vector/channels.py).
class ChannelLines {
 public:
  explicit ChannelLines(const Parameters& p) : line_(static_cast<uint64_t>(p.line_bytes)) {}
  void start(uint64_t k) {
    first_ = 0;
    left_ = k;
  }
  bool valid() const { return left_ != 0; }
  uint64_t first() const { return first_; }
  uint64_t size() const { return std::min(left_, line_); }
  void step() {
    left_ -= size();
    first_ += line_;
  }

 private:
  uint64_t line_, first_ = 0, left_ = 0;
};

// Weights and parameters, a line of channels ahead of their use.
class KernelLoader {
 public:
  explicit KernelLoader(const Parameters& p) : p_(p), lines_(p) {}

  void start(const Command& command) {
    namespace f = depthwise_fields;
    lines_.start(command[f::k]);
    w_ = command[f::w];
    row_ = words_of(p_, command[f::k]) * static_cast<uint64_t>(p_.bus_bytes);
    params_ = command[f::params];
    taps_ = command[f::kernel_height] * command[f::kernel_width];
    ones_ = command[header_fields::flags] & flag::ONES;
    in_params_ = ones_;
  }

  // There is a line whose weights are in use.
  bool whole() const { return stored_ != 0; }

  // `word`: one comes; `next_line`: the weights of the next line are in use from now on; `done`:
  // its parameters are; `source_ready`: the source took a matrix in this cycle, already clocked.
  // True if it can do something in the next cycle.
  bool clock(GroupSource& source, bool source_ready, bool word, bool next_line, bool done) {
    const bool received = word && receive();
    bool begin = false, asks = false;
    switch (state_) {
      case State::LINE:
        begin = lines_.valid() && free_ != 0;
        if (begin) state_ = ones_ ? State::PARAMS : State::WEIGHTS;
        break;
      case State::WEIGHTS:
        asks = source_ready;
        if (!asks) break;
        source.start(matrix(w_ + lines_.first(), row_, taps_, line_words()));
        state_ = State::PARAMS;
        break;
      case State::PARAMS:
        asks = source_ready;
        if (!asks) break;
        source.start(matrix(params_ + lines_.first() * param_bytes(), 0, 1, param_words()));
        state_ = State::REST;
        break;
      case State::REST:
        if (received) state_ = State::LINE;
        break;
    }
    if (received) lines_.step();
    free_ += done;
    free_ -= begin;
    stored_ += received;
    stored_ -= next_line;
    return begin || asks || received || word || next_line || done || lines_waiting();
  }

 private:
  enum class State { LINE, WEIGHTS, PARAMS, REST };

  Matrix matrix(uint64_t address, uint64_t stride, uint64_t rows, uint64_t words) const {
    return {address, stride, rows, words, words, static_cast<unsigned>(p_.vector_word_size), false};
  }
  uint64_t param_bytes() const { return static_cast<uint64_t>(p_.matmul_param_bytes); }
  uint64_t line_words() const { return words_of(p_, lines_.size()); }
  uint64_t param_words() const { return words_of(p_, lines_.size() * param_bytes()); }
  bool lines_waiting() const { return state_ == State::LINE && lines_.valid() && free_ != 0; }

  // Of a line come its weights, then its parameters; whether this word is the last.
  bool receive() {
    if (++index_ != (in_params_ ? param_words() : taps_ * line_words())) return false;
    index_ = 0;
    const bool over = in_params_;
    in_params_ = ones_ || !in_params_;
    return over;
  }

  const Parameters& p_;
  ChannelLines lines_;
  State state_ = State::LINE;
  uint64_t w_ = 0, row_ = 0, params_ = 0, taps_ = 0, index_ = 0;
  unsigned free_ = 2, stored_ = 0;
  bool ones_ = false, in_params_ = false;
};

// Groups of sums on their way through adder, queue and scaler, which move in enabled cycles alone.
class Totals {
 public:
  Totals(const Parameters& p, int64_t adder_latency, int64_t scaler_delay)
      : p_(p), adder_latency_(adder_latency), scaler_delay_(scaler_delay),
        room_(static_cast<unsigned>(p.vector_scaler_room)) {}

  bool has_room() const { return room_ != 0; }
  // A group waits for the scaler, or is in it.
  bool busy() const { return !queue_.empty(); }
  // A group of outputs leaves in this cycle, if it is enabled.
  bool leaves() const { return !made_.empty() && made_.front() == enabled_; }
  // Something moves in enabled cycles.
  bool moves() const { return !sums_.empty() || !queue_.empty() || !made_.empty(); }

  // `scales`: the scaler is ready; `enters`: a group of a last tap comes, of its line the last if
  // `line_ends`. Whether the last group of a line was taken.
  bool clock(bool enable, bool scales, bool enters, bool line_ends) {
    bool taken = false, done = false;
    if (enable) {
      if (leaves()) made_.pop_front();
      if (scales && !queue_.empty() && ++part_ == static_cast<unsigned>(p_.vector_scaler_parts)) {
        part_ = 0;
        taken = true;
        done = queue_.front();
        queue_.pop_front();
        made_.push_back(enabled_ + scaler_delay_);
      }
      if (!sums_.empty() && sums_.front().enabled == enabled_) {
        queue_.push_back(sums_.front().line_ends);
        sums_.pop_front();
      }
    }
    if (enters) sums_.push_back({enabled_ + adder_latency_, line_ends});
    room_ += taken;
    room_ -= enters;
    enabled_ += enable;
    return done;
  }

 private:
  struct Sum {
    int64_t enabled;
    bool line_ends;
  };

  const Parameters& p_;
  int64_t adder_latency_, scaler_delay_;
  unsigned room_, part_ = 0;
  int64_t enabled_ = 0;
  Ring<Sum> sums_;    // in the adder
  Ring<bool> queue_;  // in front of the scaler: whether a group is the last of its line
  Ring<int64_t> made_;
};

// What of a DEPTHWISE lies between its source and the packer.
class WindowSums {
 public:
  explicit WindowSums(const Parameters& p)
      : kernel_(p), totals_(p, p.vector_adder_latency, p.vector_scaler_delay) {}

  void start(const Command& command) { kernel_.start(command); }
  bool accepts(const Tap& tap) const {
    return kernel_.whole() && (!tap.last || totals_.has_room());
  }
  const Totals& totals() const { return totals_; }

  // `tap`: that of the group which comes, if one does; `ends`: it is the tap's last; `word`: one of
  // the kernel comes. True if the kernel can do something in the next cycle.
  bool clock(GroupSource& source, bool source_ready, bool enable, const Tap* tap, bool ends, bool word) {
    const bool next_line = tap && ends && tap->last && tap->ends;
    const bool done = totals_.clock(enable, true, tap && tap->last, next_line);
    return kernel_.clock(source, source_ready, word, next_line, done);
  }

 private:
  KernelLoader kernel_;
  Totals totals_;
};

}  // namespace halfdome::timing::vector
