// Which bytes of card memory a command would have written, had its values not been left out.
#pragma once

#include <algorithm>

#include "../matmul/job.hpp"
#include "../vector/job.hpp"
#include "gather.hpp"
#include "moves.hpp"

namespace halfdome::timing::values {

// `act(address, bytes)` for each row that a command writes which computes.
template <typename Act>
void each_row(const Parameters& p, const Command& command, Act act) {
  const auto rows = [&](uint64_t address, uint64_t stride, uint64_t count, uint64_t bytes) {
    for (uint64_t row = 0; row < count; ++row) act(address + row * stride, bytes);
  };
  switch (command.opcode()) {
    case Opcode::MATMUL:
    case Opcode::BATCH_MATMUL:
    case Opcode::CONV2D: {
      const matmul::Job job = matmul::job_of(command);
      for (uint64_t batch = 0; batch < job.batches; ++batch) {
        const uint64_t y = job.y + batch * job.y_batch_stride;
        if (!job.triangle) rows(y, job.y_stride, job.rows, job.n * (job.int32 ? 4 : 1));
        else act(y, job.rows * (job.rows - 1) / 2);
      }
      return;
    }
    case Opcode::GATHER: {
      const timing::gather::Job job = timing::gather::job_of(p, command);
      rows(job.output, job.output_stride, job.bags, command[gather_fields::dim] * job.element_bytes);
      return;
    }
    default: {
      if (vector::is_windowed(vector::unit_of(command.opcode()))) {
        const vector::Image image = vector::image_of(command);
        rows(image.y, image.y_stride, image.out_height * image.out_width, image.k);
      } else {
        const vector::Rows y = vector::job_of(p, command).y;
        rows(y.address, y.stride, y.rows, y.bytes);
      }
    }
  }
}

// What a checked command does to `memory` if values are left out: moves, and whether a GATHER finds
// its rows, as the time of others may depend on it. `left_out`, by card address like memory, is not 0
// where values are missing.
class Leaver {
 public:
  Leaver(const Parameters& p, uint8_t* memory, uint8_t* left_out)
      : p_(p), memory_(memory), left_out_(left_out) {}

  // Whether a GATHER would look at lengths or indices that are missing.
  bool misses(const Command& command) const {
    if (command.opcode() != Opcode::GATHER) return false;
    const timing::gather::Job job = timing::gather::job_of(p_, command);
    const uint64_t size = job.wide ? 8 : 4;
    return any(job.lengths, job.bags * size) || any(job.indices, job.index_count * size);
  }
  Result execute(const Command& command) const {
    switch (command.opcode()) {
      case Opcode::COPY:
        copy(command, memory_);
        copy(command, left_out_);
        return {};
      case Opcode::TRANSPOSE:
        transpose(command, memory_);
        transpose(command, left_out_);
        return {};
      default:
        each_row(p_, command, [&](uint64_t address, uint64_t bytes) {
          std::memset(left_out_ + address, 1, bytes);
        });
        return command.opcode() == Opcode::GATHER ? gather(p_, command, memory_, false) : Result{};
    }
  }

 private:
  bool any(uint64_t address, uint64_t bytes) const {
    return std::any_of(left_out_ + address, left_out_ + address + bytes, [](uint8_t each) { return each; });
  }

  const Parameters& p_;
  uint8_t* memory_;
  uint8_t* left_out_;
};

}  // namespace halfdome::timing::values
