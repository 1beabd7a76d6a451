// What commands element by element compute: `result` of sim/golden/vector.py and pairs.py.
#pragma once

#include <vector>

#include "../engine.hpp"
#include "arithmetic.hpp"

namespace halfdome::timing::values {

inline float maximum(float a, float b) {
  if (std::isnan(a)) return a;
  if (a == b) return std::signbit(a) ? b : a;  // +0 above -0
  return a > b ? a : b;
}

// An operand: rows of numbers, or one number a row for all columns.
class Elements {
 public:
  Elements(const uint8_t* memory, uint64_t address, uint64_t stride, uint64_t format, uint64_t zero_point,
           uint64_t count)
      : from_(memory + address), stride_(stride), format_(ElementFormat(format)),
        zero_point_(format_ == ElementFormat::INT8 ? static_cast<int8_t>(zero_point)
                                                   : static_cast<int>(zero_point)),
        row_(count) {}

  // Until the next call, also if the row is overwritten.
  void read(uint64_t row) {
    const uint8_t* const from = from_ + row * stride_;
    for (size_t i = 0; i < row_.size(); ++i) row_[i] = number(from, i);
  }
  float operator[](size_t column) const { return row_.size() == 1 ? row_[0] : row_[column]; }

 private:
  float number(const uint8_t* from, size_t i) const {
    switch (format_) {
      case ElementFormat::UINT8: return static_cast<float>(from[i] - zero_point_);
      case ElementFormat::INT8: return static_cast<float>(static_cast<int8_t>(from[i]) - zero_point_);
      case ElementFormat::FLOAT16: return widen(load<uint16_t>(from + 2 * i));
      case ElementFormat::FLOAT32: return load<float>(from + 4 * i);
      default: return static_cast<float>(load<int32_t>(from + 4 * i));
    }
  }

  const uint8_t* from_;
  uint64_t stride_;
  ElementFormat format_;
  int zero_point_;
  std::vector<float> row_;
};

// Numbers in the format of an output.
class Encoder {
 public:
  Encoder(uint64_t format, float multiplier, uint64_t zero_point)
      : format_(ElementFormat(format)), bytes_(ELEMENT_BYTES[format]), multiplier_(multiplier),
        offset_(format_ == ElementFormat::INT8 ? INT8_OFFSET : 0),
        zero_point_(static_cast<int>(zero_point ^ offset_)) {}

  void write(uint8_t* row, size_t column, float x) const {
    uint8_t* const to = row + column * bytes_;
    if (format_ == ElementFormat::FLOAT32) store(to, canonical(x * multiplier_));
    else if (format_ == ElementFormat::FLOAT16) store(to, narrow(x * multiplier_));
    else *to = static_cast<uint8_t>(quantise(x, multiplier_, zero_point_) ^ offset_);
  }
  // A quotient, of which NaN gives the least byte.
  void write_quotient(uint8_t* row, size_t column, float x) const {
    row[column] = static_cast<uint8_t>((std::isnan(x) ? 0 : quantise(x, 1.0f, zero_point_)) ^ offset_);
  }

 private:
  ElementFormat format_;
  unsigned bytes_;
  float multiplier_;
  unsigned offset_;
  int zero_point_;
};

// `row(r, y)` for each row of the output.
template <typename Row>
void each_row(const Command& command, uint8_t* memory, Row row) {
  namespace f = affine_fields;
  for (uint64_t r = 0; r < command[f::rows]; ++r) {
    row(r, memory + command[f::y] + r * command[f::y_stride]);
  }
}

// The first operand of any command here, and its columns, lie where those of an AFFINE do.
inline Elements first_operand(const Command& command, uint8_t* memory, uint64_t format, uint64_t zero_point) {
  namespace f = affine_fields;
  return Elements(memory, command[f::a], command[f::a_stride], format, zero_point, command[f::columns]);
}

// Whether an AFFINE, ADD, MULTIPLY or CLAMP is computed here: one without table and reduction.
inline bool is_plain(const Command& command) {
  return Function(command[affine_fields::function]) <= Function::RELU &&
         !(command[header_fields::flags] & (flag::SUM | flag::MAX));
}

inline void element_wise(const Command& command, uint8_t* memory) {
  namespace f = affine_fields;
  namespace g = add_fields;
  const Opcode opcode = command.opcode();
  const bool two = opcode == Opcode::ADD || opcode == Opcode::MULTIPLY;
  const bool relu = Function(command[f::function]) == Function::RELU;
  const uint64_t columns = command[f::columns];
  Elements a = first_operand(command, memory, command[f::a_format], command[f::a_zero_point]);
  Elements b(memory, two ? command[g::b] : 0, command[g::b_stride], command[g::b_format],
             command[g::b_zero_point],
             !two ? 0 : command[header_fields::flags] & flag::BROADCAST ? 1 : columns);
  const Encoder y(command[f::y_format], float_of(command[f::multiplier]), command[f::y_zero_point]);
  // Scale and shift, or either alone, or the limits of a CLAMP.
  const float first = float_of(command[f::scale]), second = float_of(command[f::shift]);
  const auto combined = [&](size_t i) {
    switch (opcode) {
      case Opcode::AFFINE: return std::fma(a[i], first, second);
      case Opcode::ADD: return std::fma(b[i], first, a[i]);
      case Opcode::MULTIPLY: return std::fma(a[i], b[i], first);
      default: return -maximum(-maximum(a[i], first), -second);
    }
  };
  each_row(command, memory, [&](uint64_t row, uint8_t* to) {
    a.read(row);
    if (two) b.read(row);
    for (size_t i = 0; i < columns; ++i) {
      const float x = combined(i);
      y.write(to, i, relu && std::signbit(x) && !std::isnan(x) ? 0.0f : x);
    }
  });
}

inline void quantise(const Command& command, uint8_t* memory) {
  namespace f = quantise_fields;
  Elements a = first_operand(command, memory, command[f::a_format], command[f::a_zero_point]);
  const Encoder y(command[f::y_format], 1.0f, command[f::y_zero_point]);
  const float scale = float_of(command[f::scale]);
  each_row(command, memory, [&](uint64_t row, uint8_t* to) {
    a.read(row);
    for (size_t i = 0; i < command[f::columns]; ++i) y.write_quotient(to, i, a[i] / scale);
  });
}

inline void lookup(const Command& command, uint8_t* memory) {
  namespace f = lookup_fields;
  uint8_t table[TABLE_BYTES];
  std::memcpy(table, memory + command[f::table], TABLE_BYTES);
  each_row(command, memory, [&](uint64_t row, uint8_t* to) {
    const uint8_t* const from = memory + command[f::a] + row * command[f::a_stride];
    for (size_t i = 0; i < command[f::columns]; ++i) to[i] = table[from[i]];
  });
}

inline void pairs(const Command& command, uint8_t* memory) {
  namespace f = add_quantised_fields;
  namespace g = multiply_quantised_fields;
  const bool adds = command.opcode() == Opcode::ADD_QUANTISED;
  const uint64_t flags = command[header_fields::flags], columns = command[f::columns];
  Elements a = first_operand(command, memory, command[f::a_format], adds ? 0 : command[g::a_zero_point]);
  Elements b(memory, command[f::b], command[f::b_stride], command[f::b_format],
             adds ? 0 : command[g::b_zero_point], flags & flag::BROADCAST ? 1 : columns);
  const Encoder y(command[f::y_format], 1.0f, 0);
  const bool inner_a = flags & flag::INNER_A;
  const Elements &inner = inner_a ? a : b, &outer = inner_a ? b : a;
  const float a_ratio = float_of(command[f::a_ratio]), b_ratio = float_of(command[f::b_ratio]);
  const float inner_ratio = inner_a ? a_ratio : b_ratio, outer_ratio = inner_a ? b_ratio : a_ratio;
  const float offset = float_of(command[f::offset]), multiplier = float_of(command[g::multiplier]);
  const uint64_t zero_point = command[g::y_zero_point];
  const auto zero = ElementFormat(command[f::y_format]) == ElementFormat::INT8
                        ? static_cast<float>(static_cast<int8_t>(zero_point))
                        : static_cast<float>(zero_point);
  each_row(command, memory, [&](uint64_t row, uint8_t* to) {
    a.read(row);
    b.read(row);
    for (size_t i = 0; i < columns; ++i) {
      y.write(to, i, adds ? std::fma(outer[i], outer_ratio, std::fma(inner[i], inner_ratio, offset))
                          : a[i] * b[i] * multiplier + zero);
    }
  });
}

}  // namespace halfdome::timing::values
