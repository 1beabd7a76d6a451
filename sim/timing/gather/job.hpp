// What a GATHER asks for, and the shape of its rows (hdl/gather/shape.py).
#pragma once

#include "../reader.hpp"

namespace halfdome::timing::gather {

// Rows in bus words and chunks: a chunk is what the lanes take in a cycle.
struct Shape {
  uint64_t row_bytes, last_word, last_byte, last_data_word, last_chunk, last_lane;
  unsigned parts, slots;  // chunks of a word; words of a chunk: one of them is 1
  bool factors;           // rows end with scale and bias
};

struct Job {
  uint64_t table, indices, lengths, weights, output;
  uint64_t rows, index_count, bags, row_stride, output_stride;
  bool weighted, mean, wide, offsets, pruned, warn, ignore;
  unsigned element_bytes;  // of the output
  Shape shape;
};

inline Shape shape_of(const Parameters& p, uint64_t dim, uint64_t format) {
  const uint64_t bits = ROW_ELEMENT_BITS[format], tail = ROW_TAIL_BYTES[format];
  const uint64_t bus = static_cast<uint64_t>(p.bus_bytes), lanes = static_cast<uint64_t>(p.lanes);
  const uint64_t data_bytes = (dim * bits + 7) / 8, chunk_bits = lanes * bits, word_bits = 8 * bus;
  Shape shape{};
  shape.row_bytes = data_bytes + tail;
  shape.last_word = (shape.row_bytes - 1) / bus;
  shape.last_byte = (shape.row_bytes - 1) % bus;
  shape.last_data_word = (data_bytes - 1) / bus;
  shape.last_chunk = (dim - 1) / lanes;
  shape.last_lane = (dim - 1) % lanes;
  shape.parts = static_cast<unsigned>(std::max<uint64_t>(1, word_bits / chunk_bits));
  shape.slots = static_cast<unsigned>(std::max<uint64_t>(1, chunk_bits / word_bits));
  shape.factors = tail != 0;
  return shape;
}

inline Job job_of(const Parameters& p, const Command& command) {
  namespace f = gather_fields;
  const uint64_t flags = command[header_fields::flags];
  Job job{};
  job.table = command[f::table];
  job.indices = command[f::indices];
  job.lengths = command[f::lengths];
  job.weights = command[f::weights];
  job.output = command[f::output];
  job.rows = command[f::rows];
  job.index_count = command[f::index_count];
  job.bags = command[f::bags];
  job.row_stride = command[f::row_stride];
  job.output_stride = command[f::output_stride];
  job.weighted = flags & flag::WEIGHTED;
  job.mean = flags & flag::MEAN;
  job.wide = flags & flag::WIDE;
  job.offsets = flags & flag::OFFSETS;
  job.pruned = flags & flag::PRUNED;
  job.warn = flags & flag::WARN;
  job.ignore = flags & flag::IGNORE;
  job.element_bytes = ELEMENT_BYTES[command[f::output_format]];
  job.shape = shape_of(p, command[f::dim], command[f::format]);
  return job;
}

}  // namespace halfdome::timing::gather
