// A queue whose items lie side by side: it takes memory only when it grows.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace halfdome {

template <typename T>
class Ring {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  T& front() { return items_[first_]; }
  const T& front() const { return items_[first_]; }
  const T& back() const { return (*this)[size_ - 1]; }
  // The item that `number` others are in front of.
  const T& operator[](size_t number) const { return items_[(first_ + number) & (room_ - 1)]; }

  void push_back(T item) {
    if (size_ == room_) grow();
    items_[(first_ + size_++) & (room_ - 1)] = std::move(item);
  }
  void pop_front() {
    first_ = (first_ + 1) & (room_ - 1);
    --size_;
  }
  void clear() { size_ = 0; }

 private:
  void grow() {
    const size_t room = room_ ? 2 * room_ : 4;
    auto items = std::make_unique<T[]>(room);
    for (size_t i = 0; i < size_; ++i) items[i] = std::move(items_[(first_ + i) & (room_ - 1)]);
    items_ = std::move(items);
    room_ = room;
    first_ = 0;
  }

  std::unique_ptr<T[]> items_;
  size_t room_ = 0, first_ = 0, size_ = 0;  // `room_`: a power of two, or nothing yet
};

}  // namespace halfdome
