// What a vector command asks of the parts of the engine (hdl/vector/decoder.py).
#pragma once

#include "packer.hpp"
#include "walker.hpp"

namespace halfdome::timing::vector {

// What the groups of a command pass.
enum class Unit { LANES, TABLE, MAXIMUM, PAIRS, SUMS, AVERAGES };

// Elements are those of windows of an image.
inline bool is_windowed(Unit unit) {
  return unit == Unit::MAXIMUM || unit == Unit::SUMS || unit == Unit::AVERAGES;
}

struct Job {
  Unit unit = Unit::LANES;
  bool two_sources = false, reduces = false;
  uint64_t turns = 0;  // cycles after a group in which none may come, a bit each
  uint64_t groups = 0;  // of a row
  int64_t latency = 0;  // enabled cycles of a group, or of a row that is reduced
  Matrix a, b;
  Rows y;
};

inline unsigned element_size(ElementFormat format) {
  return format == ElementFormat::FLOAT16 ? 1 : format > ElementFormat::FLOAT16 ? 2 : 0;
}

inline Unit unit_of(Opcode opcode) {
  switch (opcode) {
    case Opcode::LOOKUP: return Unit::TABLE;
    case Opcode::POOL: return Unit::MAXIMUM;
    case Opcode::ADD_QUANTISED:
    case Opcode::MULTIPLY_QUANTISED: return Unit::PAIRS;
    case Opcode::DEPTHWISE: return Unit::SUMS;
    case Opcode::AVERAGE: return Unit::AVERAGES;
    default: return Unit::LANES;
  }
}

// Commands of matrices; of those of windows only what passes the sources.
inline Job job_of(const Parameters& p, const Command& command) {
  namespace f = affine_fields;
  Job job;
  const Opcode opcode = command.opcode();
  const uint64_t flags = command[header_fields::flags];
  job.unit = unit_of(opcode);
  if (is_windowed(job.unit)) {
    job.a.size = static_cast<unsigned>(p.vector_byte_size);
    job.latency = p.vector_maximum_latency;
    return job;
  }
  const uint64_t columns = command[f::columns], rows = command[f::rows];
  const uint64_t bus = static_cast<uint64_t>(p.bus_bytes);
  job.a = {command[f::a], command[f::a_stride], rows, 0, 0, 0, false};
  job.y = {command[f::y], command[f::y_stride], rows, 0, 0, 0};
  const auto begun = [](uint64_t count, uint64_t unit) { return (count + unit - 1) / unit; };
  if (job.unit != Unit::LANES) {
    const uint64_t lanes = static_cast<uint64_t>(p.byte_lanes);
    const unsigned size = static_cast<unsigned>(p.vector_byte_size);
    job.groups = job.a.groups = begun(columns, lanes);
    job.a.words = begun(columns, bus);
    job.a.size = job.y.size = size;
    job.y.groups = job.groups;
    job.y.bytes = columns;
    job.latency = job.unit == Unit::TABLE ? p.vector_table_latency : p.vector_pairs_latency;
    if (job.unit == Unit::TABLE) {
      const uint64_t words = TABLE_BYTES / bus;
      job.b = {command[lookup_fields::table], 0, 1, words, words,
               static_cast<unsigned>(p.vector_word_size), false};
      return job;
    }
    namespace g = add_quantised_fields;
    job.two_sources = true;
    job.b = {command[g::b], command[g::b_stride], rows, job.a.words, job.groups, size, false};
  } else {
    const uint64_t lanes = static_cast<uint64_t>(p.vector_lanes);
    const bool quantises = opcode == Opcode::QUANTISE;
    const bool table = !quantises && Function(command[f::function]) > Function::RELU;
    job.groups = job.a.groups = begun(columns, lanes);
    job.reduces = flags & (flag::SUM | flag::MAX);
    job.turns = static_cast<uint64_t>(quantises ? p.vector_quotient_turns
                                      : table   ? p.vector_table_turns
                                                : 0);
    job.latency = p.vector_lanes_latency + (table ? p.vector_function_latency : 0) +
                  (job.reduces ? p.vector_reduce_latency : 0);
    job.a.size = element_size(ElementFormat(command[f::a_format]));
    job.a.words = begun(columns << job.a.size, bus);
    job.y.size = element_size(ElementFormat(command[f::y_format]));
    job.y.groups = job.reduces ? 1 : job.groups;
    job.y.bytes = (job.reduces ? 1 : columns) << job.y.size;
    if (opcode != Opcode::ADD && opcode != Opcode::MULTIPLY) return job;
    namespace g = add_fields;
    job.two_sources = true;
    const unsigned size = element_size(ElementFormat(command[g::b_format]));
    job.b = {command[g::b], command[g::b_stride], rows, begun(columns << size, bus), job.groups,
             size, false};
  }
  if (flags & flag::BROADCAST) {
    job.b.hold = true;
    job.b.words = 1;
    if (job.unit == Unit::PAIRS) job.b.size = 0;
  }
  return job;
}

}  // namespace halfdome::timing::vector
