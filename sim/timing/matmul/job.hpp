// One form for every matrix product (hdl/matmul/job.py).
#pragma once

#include "../engine.hpp"

namespace halfdome::timing::matmul {

enum class Weights { PACKED, ROWS, COLUMNS };

// A batch of products of rows x (kernel_height * kernel_width * k) with that x n; fields as in RTL.
struct Job {
  uint64_t x, x_inside, w, params, y;
  uint64_t rows, k, n, batches = 1;
  uint64_t out_width, height = 1, width;
  uint64_t kernel_height = 1, kernel_width = 1, stride_height = 1, stride_width = 1;
  uint64_t pad_top = 0, pad_left = 0, dilation_height = 1, dilation_width = 1;
  uint64_t pixel_step, line_step = 0, tap_step = 0, tap_line_step = 0;
  uint64_t y_stride, w_stride = 0, x_batch_stride = 0, w_batch_stride = 0, y_batch_stride = 0;
  uint64_t x_zero_point, w_zero_point, y_zero_point;
  Weights weights = Weights::PACKED;
  bool matrix = true, int32, int8, triangle = false, diagonal = false;
};

// What bytes of x, w and y stand for.
inline void set_numbers(Job& job, const Command& command, Field x_zero_point, Field w_zero_point,
                        Field y_zero_point, Field y_format) {
  const auto format = static_cast<ElementFormat>(command[y_format]);
  job.x_zero_point = command[x_zero_point];
  job.w_zero_point = command[w_zero_point];
  job.y_zero_point = command[y_zero_point];
  job.int32 = format == ElementFormat::INT32;
  job.int8 = format == ElementFormat::INT8;
}

inline Job matrix_product(const Command& command) {
  namespace f = matmul_fields;
  Job job{};
  job.rows = job.out_width = job.width = command[f::m];
  job.k = command[f::k];
  job.n = command[f::n];
  job.pixel_step = command[f::x_stride];
  job.y_stride = command[f::y_stride];
  set_numbers(job, command, f::x_zero_point, f::w_zero_point, f::y_zero_point, f::y_format);
  return job;
}

inline Job batch_of_products(const Command& command) {
  namespace f = batch_matmul_fields;
  const uint64_t flags = command[header_fields::flags];
  Job job{};
  job.rows = job.out_width = job.width = command[f::m];
  job.k = command[f::k];
  job.n = command[f::n];
  job.batches = command[f::batches];
  job.pixel_step = command[f::x_stride];
  job.w_stride = command[f::w_stride];
  job.y_stride = command[f::y_stride];
  job.x_batch_stride = command[f::x_batch_stride];
  job.w_batch_stride = command[f::w_batch_stride];
  job.y_batch_stride = command[f::y_batch_stride];
  job.weights = flags & flag::TRANSPOSED ? Weights::COLUMNS : Weights::ROWS;
  job.triangle = flags & flag::TRIANGLE;
  set_numbers(job, command, f::x_zero_point, f::w_zero_point, f::y_zero_point, f::y_format);
  return job;
}

inline Job convolution(const Command& command) {
  namespace f = conv2d_fields;
  const uint64_t x_stride = command[f::x_stride];
  Job job{};
  job.k = command[f::k];
  job.n = command[f::n];
  job.height = command[f::height];
  job.width = command[f::width];
  job.out_width = command[f::out_width];
  job.rows = command[f::out_height] * job.out_width;
  job.kernel_height = command[f::kernel_height];
  job.kernel_width = command[f::kernel_width];
  job.stride_height = command[f::stride_height];
  job.stride_width = command[f::stride_width];
  job.pad_top = command[f::pad_top];
  job.pad_left = command[f::pad_left];
  job.dilation_height = command[f::dilation_height];
  job.dilation_width = command[f::dilation_width];
  const uint64_t image_line = job.width * x_stride;
  job.pixel_step = job.stride_width * x_stride;
  job.line_step = job.stride_height * image_line;
  job.tap_step = job.dilation_width * x_stride;
  job.tap_line_step = job.dilation_height * image_line;
  job.y_stride = command[f::y_stride];
  job.matrix = false;
  job.diagonal = command[header_fields::flags] & flag::DIAGONAL;
  set_numbers(job, command, f::x_zero_point, f::w_zero_point, f::y_zero_point, f::y_format);
  return job;
}

inline Job job_of(const Command& command) {
  namespace f = matmul_fields;  // the operands lie at the same bytes in all three
  const Opcode opcode = command.opcode();
  Job job = opcode == Opcode::CONV2D         ? convolution(command)
            : opcode == Opcode::BATCH_MATMUL ? batch_of_products(command)
                                             : matrix_product(command);
  job.x = job.x_inside = command[f::x];
  job.w = command[f::w];
  job.params = command[f::params];
  job.y = command[f::y];
  if (opcode == Opcode::CONV2D) {
    const uint64_t x_stride = command[conv2d_fields::x_stride];
    job.x -= job.pad_left * x_stride + job.pad_top * job.width * x_stride;  // may wrap below 0
  }
  return job;
}

}  // namespace halfdome::timing::matmul
