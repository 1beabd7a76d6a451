// What MATMUL, BATCH_MATMUL and CONV2D compute, bit for bit `execute` of sim/golden/products.py.
#pragma once

#include <vector>

#include "../matmul/job.hpp"
#include "arithmetic.hpp"

namespace halfdome::timing::values {

// 8 bits less their zero point, both signed or both not.
class Operand {
 public:
  Operand(bool is_signed, uint64_t zero_point)
      : signed_(is_signed), zero_point_(value(static_cast<uint8_t>(zero_point))) {}
  int operator()(uint8_t byte) const { return value(byte) - zero_point_; }

 private:
  int value(uint8_t byte) const { return signed_ ? static_cast<int8_t>(byte) : byte; }

  bool signed_;
  int zero_point_;
};

// The weights of a batch as [taps, k, n]; where there is no tile they stand for zero.
class Matrix {
 public:
  Matrix(const Parameters& p, const matmul::Job& job, const Operand& w)
      : p_(p), job_(job), w_(w), taps_(job.kernel_height * job.kernel_width),
        values_(taps_ * job.k * job.n) {}

  const int32_t* row(uint64_t tap, uint64_t k) const { return &values_[(tap * job_.k + k) * job_.n]; }

  void unpack(const uint8_t* from) {
    if (job_.weights == matmul::Weights::PACKED) return unpack_tiles(from);
    const bool transposed = job_.weights == matmul::Weights::COLUMNS;
    for (uint64_t i = 0; i < job_.k; ++i) {
      for (uint64_t j = 0; j < job_.n; ++j) {
        at(0, i, j) = w_(from[transposed ? j * job_.w_stride + i : i * job_.w_stride + j]);
      }
    }
  }

 private:
  int32_t& at(uint64_t tap, uint64_t i, uint64_t j) {
    return values_[(tap * job_.k + i) * job_.n + j];
  }

  // In the order of `tile_order` of sim/golden/matmul.py.
  void unpack_tiles(const uint8_t* from) {
    const auto rows = static_cast<uint64_t>(p_.array_rows);
    const auto columns = static_cast<uint64_t>(p_.array_columns);
    const uint64_t k_tiles = (job_.k + rows - 1) / rows, n_tiles = (job_.n + columns - 1) / columns;
    const auto line = static_cast<uint64_t>(p_.line_tiles);
    const auto group = static_cast<uint64_t>(job_.diagonal ? p_.diagonal_tiles : p_.group_tiles);
    const auto take = [&](uint64_t tap, uint64_t k_tile, uint64_t n_tile) {
      const uint64_t i_end = std::min(rows, job_.k - k_tile * rows);
      const uint64_t j_end = std::min(columns, job_.n - n_tile * columns);
      for (uint64_t i = 0; i < i_end; ++i) {
        for (uint64_t j = 0; j < j_end; ++j) {
          at(tap, k_tile * rows + i, n_tile * columns + j) = w_(from[i * columns + j]);
        }
      }
      from += p_.weight_tile_bytes;
    };
    for (uint64_t first_n = 0; first_n < n_tiles; first_n += group) {
      const uint64_t end_n = std::min(first_n + group, n_tiles);
      for (uint64_t tap = 0; tap < taps_; ++tap) {
        if (job_.diagonal) {
          for (uint64_t tile = first_n; tile < end_n; ++tile) take(tap, tile, tile);
          continue;
        }
        for (uint64_t first_k = 0; first_k < k_tiles; first_k += line) {
          for (uint64_t n_tile = first_n; n_tile < end_n; ++n_tile) {
            for (uint64_t k_tile = first_k; k_tile < std::min(first_k + line, k_tiles); ++k_tile) {
              take(tap, k_tile, n_tile);
            }
          }
        }
      }
    }
  }

  const Parameters& p_;
  const matmul::Job& job_;
  const Operand& w_;
  uint64_t taps_;
  std::vector<int32_t> values_;
};

// The sums of products of one row of the output, which wrap.
class RowOfSums {
 public:
  RowOfSums(const matmul::Job& job, const Operand& x) : job_(job), x_(x), sums_(job.n) {}

  uint32_t operator[](uint64_t j) const { return sums_[j]; }

  // `memory` is of the batch; what lies outside the image adds nothing.
  void compute(uint64_t row, const uint8_t* memory, const Matrix& w) {
    std::fill(sums_.begin(), sums_.end(), 0);
    const uint64_t down = row / job_.out_width, beside = row % job_.out_width;
    const uint64_t window = job_.x + down * job_.line_step + beside * job_.pixel_step;
    for (uint64_t ky = 0; ky < job_.kernel_height; ++ky) {
      // Negative ones wrap to what is beyond the image too.
      const uint64_t y = down * job_.stride_height + ky * job_.dilation_height - job_.pad_top;
      for (uint64_t kx = 0; kx < job_.kernel_width; ++kx) {
        const uint64_t x = beside * job_.stride_width + kx * job_.dilation_width - job_.pad_left;
        if (y >= job_.height || x >= job_.width) continue;
        const uint64_t pixel = window + ky * job_.tap_line_step + kx * job_.tap_step;
        add(memory + pixel, w, ky * job_.kernel_width + kx);
      }
    }
  }

 private:
  void add(const uint8_t* pixel, const Matrix& w, uint64_t tap) {
    for (uint64_t k = 0; k < job_.k; ++k) {
      const auto factor = static_cast<uint32_t>(x_(pixel[k]));
      const int32_t* weights = w.row(tap, k);
      uint32_t* sums = sums_.data();
      for (uint64_t j = 0; j < job_.n; ++j) sums[j] += factor * static_cast<uint32_t>(weights[j]);
    }
  }

  const matmul::Job& job_;
  const Operand& x_;
  std::vector<uint32_t> sums_;
};

// Sums to 8 bits: `requantise` of sim/golden/matmul.py.
class Requantiser {
 public:
  Requantiser(const uint8_t* params, uint64_t zero_point, bool is_signed, bool relu)
      : params_(params), offset_(is_signed ? INT8_OFFSET : 0),
        zero_point_(static_cast<int>(zero_point ^ offset_)), floor_(relu ? zero_point_ : 0) {}

  uint8_t operator()(uint32_t sum, uint64_t j) const {
    const auto total = static_cast<int32_t>(sum + load<uint32_t>(params_ + 8 * j));
    const uint8_t byte = quantise(static_cast<float>(total), multiplier(j), zero_point_, floor_);
    return static_cast<uint8_t>(byte ^ offset_);
  }

  // The first multiplier of n that is no good.
  Result result(uint64_t n) const {
    for (uint64_t j = 0; j < n; ++j) {
      if (!std::isfinite(multiplier(j)) || multiplier(j) == 0) {
        return {Status::BAD_MULTIPLIER, static_cast<uint32_t>(j)};
      }
    }
    return {};
  }

 private:
  float multiplier(uint64_t j) const { return load<float>(params_ + 8 * j + 4); }

  const uint8_t* params_;
  unsigned offset_;
  int zero_point_, floor_;
};

// `memory` is by card address; the command is checked.
inline Result product(const Parameters& p, const Command& command, uint8_t* memory) {
  const matmul::Job job = matmul::job_of(command);
  const uint64_t flags = command[header_fields::flags];
  const Operand x(flags & flag::X_INT8, job.x_zero_point);
  const Operand w(!(flags & flag::W_UINT8), job.w_zero_point);
  const Requantiser requantiser(memory + job.params, job.y_zero_point, job.int8, flags & flag::RELU);
  Matrix weights(p, job, w);
  RowOfSums sums(job, x);
  for (uint64_t number = 0; number < job.batches; ++number) {
    weights.unpack(memory + job.w + number * job.w_batch_stride);
    uint8_t* const y = memory + job.y + number * job.y_batch_stride;
    for (uint64_t row = 0; row < job.rows; ++row) {
      sums.compute(row, memory + number * job.x_batch_stride, weights);
      // Of a triangle, row i has i elements, those of the rows before it right before them.
      uint8_t* const to = y + (job.triangle ? row * (row - 1) / 2 : row * job.y_stride);
      const uint64_t count = job.triangle ? row : job.n;
      for (uint64_t j = 0; j < count; ++j) {
        if (job.int32) store(to + 4 * j, sums[j]);
        else to[j] = requantiser(sums[j], j);
      }
    }
  }
  return job.int32 ? Result{} : requantiser.result(job.n);
}

}  // namespace halfdome::timing::values
