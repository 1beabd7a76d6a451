// The engines that move: LOAD, COPY and TRANSPOSE, STORE and SIGNAL (hdl/dma).
#pragma once

#include "requester.hpp"
#include "transpose.hpp"

namespace halfdome::timing {

// A LOAD, COPY or STORE, rows that touch merged to one (a TRANSPOSE has other fields), and how long the merger takes for that.
struct Move {
  Move() = default;
  explicit Move(const Command& command)
      : source(command[load_fields::source]), destination(command[load_fields::destination]),
        rows(command[load_fields::rows]), row_bytes(command[load_fields::row_bytes]),
        source_stride(command[load_fields::source_stride]),
        destination_stride(command[load_fields::destination_stride]) {
    if (command.opcode() == Opcode::TRANSPOSE) return;
    if (source_stride != row_bytes || destination_stride != row_bytes || rows <= 1) return;
    for (uint64_t left = rows; left; left >>= 1) ++cycles;
    ++cycles;
    if (rows * row_bytes >> 32) return;
    row_bytes *= rows;
    rows = 1;
  }
  uint64_t source = 0, destination = 0, rows = 0, row_bytes = 0, source_stride = 0,
           destination_stride = 0;
  int64_t cycles = 2;  // from taking the command to the move
};

class LoadEngine : public Engine {
 public:
  LoadEngine(const Parameters& p, ReadPort& source, WritePort& destination, DmaPort& dma)
      : port_(destination), dma_(dma),
        reader_(p, source, static_cast<unsigned>(p.load_copy_depth)), writer_(p), transposer_(p) {}

  bool ready() const override { return state_ == IDLE; }
  void take(const Command& command, int64_t cycle) override {
    command_ = command;
    move_ = Move(command);
    starts_at_ = cycle + move_.cycles;
    failure_ = ReadFailure::NONE;
    asked_ = false;
    next_ = MERGE;
  }
  bool done() const override { return state_ == RESULT; }
  void finish(int64_t) override { next_ = IDLE; }
  Result result() const override {
    if (failure_ == ReadFailure::NONE) return {};
    return {Status::READ_FAILED, static_cast<uint32_t>(failure_)};
  }

  void offer(int64_t cycle) override {
    if (state_ == REQUEST && !dma_.valid) {
      dma_.valid = true;
      dma_.address = move_.source;
      dma_.destination = move_.destination;
      dma_.bytes = move_.row_bytes;
    }
    if (state_ != COPY) return;
    reader_.offer();
    const bool word = transposes() ? transposer_.offers() : reader_.buffer.readable(cycle);
    if (!writer_.over() && !port_.valid && word) {
      port_.offer(writer_.address(), writer_.word_bytes());
    }
  }

  int64_t clock(int64_t cycle) override {
    Activity activity = state_ == IDLE ? Activity::IDLE : BUSY;
    int64_t next = NEVER;
    if (asked_ && failure_ == ReadFailure::NONE) failure_ = dma_.failure;
    switch (state_) {
      case IDLE:
        break;
      case MERGE:
        next = starts_at_;
        if (cycle < starts_at_) break;
        next_ = COPY;
        if (command_.opcode() == Opcode::LOAD) {
          next_ = REQUEST;
        } else if (transposes()) {
          transposer_.start(command_);
        } else {
          reader_.start({move_.source, move_.source_stride, move_.rows, move_.row_bytes});
          writer_.start({move_.destination, move_.destination_stride, move_.rows, move_.row_bytes});
        }
        break;
      case REQUEST:
        if (!dma_.taken) {
          activity = BLOCKED;
          break;
        }
        asked_ = true;
        move_.source += move_.source_stride;
        move_.destination += move_.destination_stride;
        if (--move_.rows == 0) next_ = RECEIVE;
        else next = cycle + 1;
        break;
      case RECEIVE:
        activity = STARVED;
        if (dma_.idle) next_ = RESULT;
        break;
      case COPY:
        if (transposes()) {
          activity = turn(cycle);
          next = cycle + 1;
          break;
        }
        activity = port_.taken ? BUSY : port_.valid || writer_.over() ? BLOCKED : STARVED;
        if (writer_.over() && port_.idle) next_ = RESULT;
        if (port_.taken) {
          reader_.buffer.read(cycle);
          writer_.pass(1);
          next = cycle + 1;
        }
        next = std::min(next, reader_.clock(cycle));
        if (!port_.valid && !writer_.over()) {
          next = std::min(next, std::max(cycle + 1, reader_.buffer.readable_at()));
        }
        break;
      case RESULT:
        if (next_ == RESULT) activity = BLOCKED;
        break;
    }
    account.become(activity, cycle);
    if (next_ == state_) return next;
    state_ = next_;
    return cycle + 1;
  }

 private:
  enum State { IDLE, MERGE, REQUEST, RECEIVE, COPY, RESULT };

  bool transposes() const { return command_.opcode() == Opcode::TRANSPOSE; }

  // A cycle of a TRANSPOSE.
  Activity turn(int64_t cycle) {
    const bool reader_ready = reader_.ready(), writer_ready = writer_.over();
    const bool comes = reader_.buffer.readable(cycle) && transposer_.takes(cycle);
    const bool leaves = port_.taken, idle = transposer_.idle();
    const Activity activity = leaves                  ? BUSY
                              : port_.valid           ? BLOCKED
                              : writer_ready && idle ? BLOCKED
                              : comes                 ? BUSY
                                                      : STARVED;
    if (writer_ready && port_.idle && idle) next_ = RESULT;
    if (comes) reader_.buffer.read(cycle);
    reader_.clock(cycle);
    if (leaves) writer_.pass(1);
    transposer_.clock(cycle, comes, leaves, reader_, reader_ready, writer_, writer_ready);
    return activity;
  }

  WritePort& port_;
  DmaPort& dma_;
  RowReader reader_;
  Walk writer_;
  Transposer transposer_;
  State state_ = IDLE, next_ = IDLE;
  Command command_{};
  Move move_;
  int64_t starts_at_ = 0;
  bool asked_ = false;
  ReadFailure failure_ = ReadFailure::NONE;
};

class StoreEngine : public Engine {
 public:
  StoreEngine(const Parameters& p, CardBytes& memory, ReadPort& source, PostedPort& posted)
      : p_(p), memory_(memory), posted_(posted),
        reader_(p, source, static_cast<unsigned>(p.store_depth)) {}

  bool ready() const override { return state_ == IDLE; }
  void take(const Command& command, int64_t cycle) override {
    signalling_ = command.opcode() == Opcode::SIGNAL;
    move_ = Move(command);
    if (signalling_) {
      const auto value = static_cast<uint32_t>(command[signal_fields::value]);
      std::memcpy(value_, &value, sizeof value);
    }
    starts_at_ = cycle + move_.cycles;
    next_ = MERGE;
    if (signalling_) move_.destination = command[signal_fields::address];
  }
  bool done() const override { return state_ == RESULT; }
  void finish(int64_t) override { next_ = IDLE; }

  void offer(int64_t cycle) override {
    const bool available = signalling_ || reader_.buffer.readable(cycle);
    posted_.valid = state_ == REQUEST && available;
    posted_.data_valid = state_ == DATA && available;
    if (posted_.valid) {
      posted_.address = move_.destination;
      posted_.bytes = signalling_ ? sizeof value_ : move_.row_bytes;
      posted_.source = signalling_ ? value_ : memory_.at(move_.source);
    }
    reader_.offer();
  }

  int64_t clock(int64_t cycle) override {
    Activity activity = state_ == IDLE ? Activity::IDLE : BUSY;
    int64_t next = NEVER;
    const bool available = signalling_ || reader_.buffer.readable(cycle);
    switch (state_) {
      case IDLE:
        break;
      case MERGE:
        next = starts_at_;
        if (cycle < starts_at_) break;
        next_ = REQUEST;
        if (signalling_) move_.rows = 1;
        else reader_.start({move_.source, move_.source_stride, move_.rows, move_.row_bytes});
        words_ = row_words_ = signalling_ ? 1 : words_of(p_, move_.row_bytes);
        break;
      case REQUEST:
        words_ = row_words_;
        activity = !available ? STARVED : posted_.taken ? BUSY : BLOCKED;
        if (posted_.taken) next_ = DATA;
        break;
      case DATA:
        activity = !available ? STARVED : posted_.data_taken ? BUSY : BLOCKED;
        if (!posted_.data_taken) break;
        if (!signalling_) reader_.buffer.read(cycle);
        next = cycle + 1;
        if (--words_) break;
        move_.source += move_.source_stride;
        move_.destination += move_.destination_stride;
        next_ = --move_.rows ? REQUEST : DRAIN;
        break;
      case DRAIN:
        activity = BLOCKED;
        if (posted_.idle) next_ = RESULT;
        break;
      case RESULT:
        if (next_ == RESULT) activity = BLOCKED;
        break;
    }
    next = std::min(next, reader_.clock(cycle));
    // What is offered and not taken waits for that.
    if (!available) next = std::min(next, std::max(cycle + 1, reader_.buffer.readable_at()));
    account.become(activity, cycle);
    if (next_ == state_) return next;
    state_ = next_;
    return cycle + 1;
  }

 private:
  enum State { IDLE, MERGE, REQUEST, DATA, DRAIN, RESULT };

  const Parameters& p_;
  CardBytes& memory_;
  PostedPort& posted_;
  RowReader reader_;
  State state_ = IDLE, next_ = IDLE;
  Move move_;
  bool signalling_ = false;
  uint8_t value_[4] = {};
  int64_t starts_at_ = 0;
  uint64_t words_ = 0, row_words_ = 0;
};

}  // namespace halfdome::timing
