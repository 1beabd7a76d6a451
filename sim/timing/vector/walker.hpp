// Visits the windows of an image (hdl/vector/walker.py).
#pragma once

#include "source.hpp"

namespace halfdome::timing::vector {

// Windows over an image; fields as in RTL.
struct Image {
  uint64_t x, y, height, width, k, out_height, out_width, x_stride, y_stride;
  uint64_t kernel_height, kernel_width, stride_height, stride_width;
  uint64_t pad_top, pad_left, dilation_height, dilation_width;
};

inline Image image_of(const Command& command) {
  namespace f = pool_fields;  // those of DEPTHWISE and AVERAGE lie at the same bytes
  return {command[f::x],           command[f::y],
          command[f::height],      command[f::width],
          command[f::k],           command[f::out_height],
          command[f::out_width],   command[f::x_stride],
          command[f::y_stride],    command[f::kernel_height],
          command[f::kernel_width], command[f::stride_height],
          command[f::stride_width], command[f::pad_top],
          command[f::pad_left],    command[f::dilation_height],
          command[f::dilation_width]};
}

// What is to be known of a tap: its groups of bytes; whether it is the last of its window, and the
// window the last of its line of channels.
struct Tap {
  unsigned groups;
  bool last, ends;
};

class WindowWalker {
 public:
  explicit WindowWalker(const Parameters& p) : p_(p) {}

  Fifo<Tap> taps;

  // In `cycle` steps are `known`; the first window is entered two later.
  void start(const Image& image, int64_t known) {
    image_ = image;
    works_ = true;
    walks_at_ = known + 2;
    groups_left_ = (image.k + byte_lanes() - 1) / byte_lanes();
    kx_ = ky_ = 0;
    const uint64_t line = image.width * image.x_stride;
    pixel_step_ = image.stride_width * image.x_stride;
    line_step_ = image.stride_height * line;
    tap_step_ = image.dilation_width * image.x_stride;
    tap_line_step_ = image.dilation_height * line;
    enter_line(image.x - image.pad_left * image.x_stride - image.pad_top * line);
  }
  // Every tap was asked for and taken.
  bool idle() const { return !works_ && taps.empty(); }
  // It finds nothing to ask for.
  bool skips(int64_t cycle) const { return walking(cycle) && !inside(); }
  // The burst that it offers, if any.
  const Burst* burst() {
    if (left_ == 0) return nullptr;
    burst_ = {address_ & ADDRESS_MASK, count()};
    return &burst_;
  }

  // `asked`: its burst was taken. Returns when it may go on by itself.
  int64_t clock(int64_t cycle, bool asked) {
    const bool free = left_ == 0 || (asked && left_ == count());
    const bool room = taps.room(cycle, p_.vector_read_ahead_words);
    const bool asks = walking(cycle) && inside() && free && room;
    const bool step = asks || skips(cycle);
    const uint64_t tap_address = tap_address_;
    const unsigned groups = static_cast<unsigned>(std::min(groups_left_, line_groups()));
    if (asks) taps.write(cycle, {groups, last(), last_window()});
    if (asked) {
      const unsigned passed = count();
      address_ += passed * static_cast<uint64_t>(p_.bus_bytes);
      left_ -= passed;
    }
    if (asks) {
      address_ = tap_address;
      left_ = static_cast<unsigned>(words_of(p_, groups * byte_lanes()));
    }
    if (step) walk();
    if (step || asked || (walking(cycle + 1) && !walking(cycle))) return cycle + 1;
    return works_ && walks_at_ > cycle ? walks_at_ : NEVER;
  }

 private:
  uint64_t byte_lanes() const { return static_cast<uint64_t>(p_.byte_lanes); }
  uint64_t line_groups() const { return static_cast<uint64_t>(p_.line_bytes) / byte_lanes(); }
  unsigned count() const { return std::min(left_, words_to_line_end(p_, address_)); }
  bool walking(int64_t cycle) const { return works_ && cycle >= walks_at_; }
  bool inside() const { return down_ >= 0 && right_ >= 0; }
  bool beside() const {
    return kx_ == image_.kernel_width - 1 || down_ < 0 ||
           right_ + static_cast<int64_t>(image_.dilation_width) >= static_cast<int64_t>(image_.width);
  }
  bool below() const {
    return ky_ == image_.kernel_height - 1 ||
           down_ + static_cast<int64_t>(image_.dilation_height) >= static_cast<int64_t>(image_.height);
  }
  bool last() const { return beside() && below(); }
  bool last_window() const {
    return column_ == image_.out_width - 1 && row_ == image_.out_height - 1;
  }

  void enter(uint64_t window, int64_t down, int64_t right) {
    window_ = tap_row_ = tap_address_ = window;
    window_down_ = down_ = down;
    window_right_ = right_ = right;
  }
  void enter_line(uint64_t group) {
    group_ = line_ = group;
    column_ = row_ = 0;
    enter(group, -static_cast<int64_t>(image_.pad_top), -static_cast<int64_t>(image_.pad_left));
  }

  void walk() {
    const bool beside_ends = beside(), window_ends = last(), line_ends = last_window();
    if (!beside_ends) {
      ++kx_;
      right_ += static_cast<int64_t>(image_.dilation_width);
      tap_address_ += tap_step_;
      return;
    }
    if (!window_ends) {
      kx_ = 0;
      right_ = window_right_;
      tap_address_ = tap_row_ += tap_line_step_;
      ++ky_;
      down_ += static_cast<int64_t>(image_.dilation_height);
      return;
    }
    kx_ = ky_ = 0;
    if (line_ends) {
      if (groups_left_ <= line_groups()) works_ = false;
      groups_left_ -= line_groups();
      enter_line(group_ + static_cast<uint64_t>(p_.line_bytes));
    } else if (column_ != image_.out_width - 1) {
      ++column_;
      enter(window_ + pixel_step_, window_down_, window_right_ + static_cast<int64_t>(image_.stride_width));
    } else {
      column_ = 0;
      ++row_;
      line_ += line_step_;
      enter(line_, window_down_ + static_cast<int64_t>(image_.stride_height),
            -static_cast<int64_t>(image_.pad_left));
    }
  }

  const Parameters& p_;
  Image image_{};
  Burst burst_{};
  bool works_ = false;
  int64_t walks_at_ = 0;
  uint64_t groups_left_ = 0;  // of a pixel, from this line of its channels on
  uint64_t pixel_step_ = 0, line_step_ = 0, tap_step_ = 0, tap_line_step_ = 0;
  uint64_t column_ = 0, row_ = 0, kx_ = 0, ky_ = 0;
  int64_t down_ = 0, right_ = 0, window_down_ = 0, window_right_ = 0;
  uint64_t group_ = 0, line_ = 0, window_ = 0, tap_row_ = 0, tap_address_ = 0;
  uint64_t address_ = 0;
  unsigned left_ = 0;  // words of a tap to be asked for
};

}  // namespace halfdome::timing::vector
