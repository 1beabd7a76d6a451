// What a GATHER computes, bit for bit `sparse_lengths_sum` of sim/golden/gather.py.
#pragma once

#include <vector>

#include "../gather/job.hpp"
#include "arithmetic.hpp"

namespace halfdome::timing::values {

// Adds rows to the sum of a bag.
class Pool {
 public:
  Pool(uint64_t dim, uint64_t format)
      : element_bits_(ROW_ELEMENT_BITS[format]), tail_bytes_(ROW_TAIL_BYTES[format]),
        data_bytes_((dim * element_bits_ + 7) / 8), row_(dim), sum_(dim) {}

  const std::vector<float>& sum() const { return sum_; }
  uint64_t count() const { return count_; }

  void clear() {
    std::fill(sum_.begin(), sum_.end(), 0.0f);
    count_ = 0;
  }

  void add(const uint8_t* row, float weight) {
    unpack(row);
    float scale = weight, bias = -0.0f;
    if (tail_bytes_) {
      const uint8_t* tail = row + data_bytes_;
      const bool half = tail_bytes_ == 4;
      scale = weight * (half ? widen(load<uint16_t>(tail)) : load<float>(tail));
      bias = weight * (half ? widen(load<uint16_t>(tail + 2)) : load<float>(tail + 4));
    }
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] = std::fma(scale, row_[i], sum_[i] + bias);
    ++count_;
  }

 private:
  void unpack(const uint8_t* row) {
    for (size_t i = 0; i < row_.size(); ++i) {
      switch (element_bits_) {
        case 4: row_[i] = static_cast<float>(row[i / 2] >> 4 * (i % 2) & 15); break;
        case 8: row_[i] = row[i]; break;
        case 16: row_[i] = widen(load<uint16_t>(row + 2 * i)); break;
        default: row_[i] = load<float>(row + 4 * i);
      }
    }
  }

  unsigned element_bits_, tail_bytes_;
  uint64_t data_bytes_;
  std::vector<float> row_, sum_;
  uint64_t count_ = 0;
};

// Writes sums in the format of the output.
class PooledRow {
 public:
  PooledRow(const Command& command, bool mean)
      : format_(ElementFormat(command[gather_fields::output_format])),
        bytes_(ELEMENT_BYTES[command[gather_fields::output_format]]), mean_(mean),
        multiplier_(float_of(command[gather_fields::multiplier])),
        offset_(format_ == ElementFormat::INT8 ? INT8_OFFSET : 0),
        zero_point_(static_cast<int>(command[gather_fields::zero_point] ^ offset_)) {}

  void write(const Pool& pool, uint8_t* to) const {
    const bool half = format_ == ElementFormat::FLOAT16;
    float divisor = static_cast<float>(std::max<uint64_t>(1, pool.count()));
    if (half) divisor = widen(narrow(divisor));
    for (float x : pool.sum()) {
      // PyTorch divides the fp16 that it would have put out.
      if (mean_) x = (half ? widen(narrow(x)) : x) / divisor;
      if (half) store(to, narrow(x));
      else if (format_ == ElementFormat::FLOAT32) store(to, canonical(x));
      else *to = static_cast<uint8_t>(quantise(x, multiplier_, zero_point_) ^ offset_);
      to += bytes_;
    }
  }

 private:
  ElementFormat format_;
  unsigned bytes_;
  bool mean_;
  float multiplier_;
  unsigned offset_;
  int zero_point_;
};

// Reads int32 or int64; what is beyond every sum of good lengths stays beyond.
inline int64_t integer(const uint8_t* from, uint64_t number, bool wide) {
  constexpr int64_t FAR = int64_t{1} << 40;
  const int64_t value = wide ? load<int64_t>(from + 8 * number) : load<int32_t>(from + 4 * number);
  return std::min(std::max(value, -FAR), FAR);
}

// `memory` is by card address; the command is checked. Rows and weights are looked at, and pooled rows
// written, only `with_values`.
inline Result gather(const Parameters& p, const Command& command, uint8_t* memory, bool with_values) {
  const timing::gather::Job job = timing::gather::job_of(p, command);
  Pool pool(command[gather_fields::dim], command[gather_fields::format]);
  const PooledRow pooled(command, job.mean);
  const uint8_t* const lengths = memory + job.lengths;
  const auto fault = [](Status status, uint64_t detail) {
    return Result{status, static_cast<uint32_t>(detail)};
  };
  const auto end_of = [&](uint64_t bag) {
    return bag + 1 < job.bags ? integer(lengths, bag + 1, job.wide) : static_cast<int64_t>(job.index_count);
  };
  uint64_t position = 0;
  uint32_t bad = 0;
  for (uint64_t bag = 0; bag < job.bags; ++bag) {
    int64_t length = integer(lengths, bag, job.wide);
    if (job.offsets) {
      if (bag == 0 && length != 0) return fault(Status::LENGTH_MISMATCH, 0);
      length = end_of(bag) - length;
    }
    if (length < 0) return fault(Status::BAD_LENGTH, bag);
    if (static_cast<uint64_t>(length) > job.index_count - position) {
      return fault(Status::LENGTH_MISMATCH, bag);
    }
    pool.clear();
    for (const uint64_t end = position + static_cast<uint64_t>(length); position < end; ++position) {
      const int64_t index = job.wide ? load<int64_t>(memory + job.indices + 8 * position)
                                     : load<int32_t>(memory + job.indices + 4 * position);
      if (index >= 0 && static_cast<uint64_t>(index) < job.rows) {
        if (!with_values) continue;
        const float weight = job.weighted ? load<float>(memory + job.weights + 4 * position) : 1.0f;
        pool.add(memory + job.table + static_cast<uint64_t>(index) * job.row_stride, weight);
      } else if (!(job.pruned && index == -1)) {
        if (!job.warn && !job.ignore) return fault(Status::BAD_INDEX, position);
        ++bad;
      }
    }
    if (with_values) pooled.write(pool, memory + job.output + bag * job.output_stride);
  }
  if (position != job.index_count) return fault(Status::LENGTH_MISMATCH, job.bags);
  return {Status::OK, job.warn ? bad : 0};
}

}  // namespace halfdome::timing::values
