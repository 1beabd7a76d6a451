// Sums become bags in memory (hdl/gather/group.py, mean.py, convert.py and output.py).
#pragma once

#include "lanes.hpp"

namespace halfdome::timing::gather {

// Some elements, or bytes, of a pooled row; `last` ends it.
struct Group {
  uint64_t count;
  unsigned context;
  bool last;
};

// A group after a number of cycles.
struct Later {
  int64_t cycle;
  Group group;
};

// Cuts the chunks of pooled rows into groups.
class ChunkSplitter {
 public:
  explicit ChunkSplitter(const Parameters& p)
      : elements_(static_cast<uint64_t>(p.gather_group_elements)),
        parts_(static_cast<uint64_t>(p.lanes) / elements_) {}
  void start(const Job& job) { shape_ = job.shape; }
  Group group(const Pooled& chunk) const {
    const bool last = chunk.last && last_part(chunk);
    return {last ? shape_.last_lane % elements_ + 1 : elements_, chunk.context, last};
  }
  // With this group the chunk is taken.
  bool last_part(const Pooled& chunk) const {
    return part_ == parts_ - 1 || (chunk.last && part_ == shape_.last_lane / elements_);
  }
  void clock(const Pooled& chunk) { part_ = last_part(chunk) ? 0 : part_ + 1; }

 private:
  uint64_t elements_, parts_, part_ = 0;
  Shape shape_{};
};

// Divides groups, if that is asked for: one enters only if there is room behind the dividers.
class BagMean {
 public:
  explicit BagMean(const Parameters& p) : p_(p), room_(p.gather_mean_room) {}

  Fifo<Group> means;

  bool empty() const { return room_ == p_.gather_mean_room; }
  bool ready() const { return room_ != 0 && (!busy_ || last_step()); }
  int64_t clock(int64_t cycle, const Group* group, bool left) {
    if (busy_ && last_step()) ends_.push_back({cycle + p_.gather_mean_latency, group_});
    const bool works = busy_;
    if (group) {
      group_ = *group;
      busy_ = true;
      step_ = 0;
    } else if (busy_) {
      busy_ = !last_step();
      step_ = busy_ ? step_ + 1 : 0;
    }
    if (!ends_.empty() && ends_.front().cycle == cycle) {
      means.write(cycle, ends_.front().group);
      ends_.pop_front();
    }
    room_ += left;
    room_ -= group != nullptr;
    if (works || group || left) return cycle + 1;
    int64_t next = ends_.empty() ? NEVER : ends_.front().cycle;
    consider(next, means, cycle);
    return next;
  }

 private:
  bool last_step() const { return step_ == p_.gather_mean_steps - 1; }

  const Parameters& p_;
  int64_t room_, step_ = 0;
  bool busy_ = false;
  Group group_{};
  Ring<Later> ends_;
};

// Converts groups to bytes: one enters only if the queue has room for it.
class PooledConverter {
 public:
  explicit PooledConverter(const Parameters& p) : p_(p), room_(p.gather_convert_room) {}

  Fifo<Group> bytes;

  void start(const Job& job) {
    element_bytes_ = job.element_bytes;
    delay_ = element_bytes_ == 4 ? 0 : element_bytes_ == 2 ? p_.gather_half_latency : p_.gather_byte_latency;
  }
  bool empty() const { return room_ == p_.gather_convert_room; }
  bool ready() const { return room_ != 0; }
  int64_t clock(int64_t cycle, const Group* group, bool left) {
    if (group) {
      inside_.push_back({cycle + delay_, {group->count * element_bytes_, group->context, group->last}});
    }
    if (!inside_.empty() && inside_.front().cycle == cycle) {
      bytes.write(cycle, inside_.front().group);
      inside_.pop_front();
    }
    room_ += left;
    room_ -= group != nullptr;
    if (group || left) return cycle + 1;
    int64_t next = inside_.empty() ? NEVER : inside_.front().cycle;
    consider(next, bytes, cycle);
    return next;
  }

 private:
  const Parameters& p_;
  int64_t room_, delay_ = 0;
  uint64_t element_bytes_ = 4;
  Ring<Later> inside_;
};

// Shifts the bytes of pooled rows to where they belong and writes them as bus words.
class BagWriter {
 public:
  BagWriter(const Parameters& p, WritePort& port)
      : port_(port), bus_(static_cast<uint64_t>(p.bus_bytes)),
        addresses_(static_cast<size_t>(p.gather_contexts)) {}

  void restart(const Job& job) {
    stride_ = job.output_stride;
    for (size_t i = 0; i < addresses_.size(); ++i) addresses_[i] = job.output + stride_ * i;
  }
  bool idle() const { return !placed_ && !flush_ && !valid_; }

  void offer() {
    if (valid_ && !port_.valid) port_.offer(address_ & ADDRESS_MASK, bytes_);
  }
  // In a cycle of which `port.taken` is known: whether it takes a group.
  bool ready() const { return !placed_ || merges(); }

  bool clock(const Group* group) {
    const bool free = !valid_ || port_.taken, merge = merges();
    const bool moved = group || port_.taken || merge || (flush_ && free);
    if (port_.taken) valid_ = false;
    if (flush_ && free) {
      flush_ = false;
      give(address_ / bus_ * bus_ + bus_, held_);
      held_ = 0;
    } else if (merge) {
      const uint64_t inside = std::min(size_, bus_ - place_), beyond = size_ - inside;
      if (held_ == 0) held_first_ = place_;
      held_ += inside;
      if (beyond != 0 || place_ + size_ >= bus_ || last_) {
        give(word_ + held_first_, held_);
        held_ = beyond;
        held_first_ = 0;
        flush_ = beyond != 0 && last_;
      }
    }
    if (merge) placed_ = false;
    if (group) place(*group);
    return moved;
  }

 private:
  bool merges() const { return placed_ && (!valid_ || port_.taken) && !flush_; }
  void give(uint64_t address, uint64_t bytes) {
    valid_ = true;
    address_ = address;
    bytes_ = static_cast<unsigned>(bytes);
  }
  void place(const Group& group) {
    uint64_t& next = addresses_[group.context];
    const uint64_t at = first_ ? next : follows_;
    if (first_) next += stride_ * addresses_.size();
    first_ = group.last;
    follows_ = at + group.count;
    placed_ = true;
    place_ = at % bus_;
    word_ = at - place_;
    size_ = group.count;
    last_ = group.last;
  }

  WritePort& port_;
  uint64_t bus_;
  std::vector<uint64_t> addresses_;  // of the next row of each context
  uint64_t stride_ = 0, follows_ = 0;
  bool first_ = true, placed_ = false, flush_ = false, valid_ = false, last_ = false;
  uint64_t word_ = 0, place_ = 0, size_ = 0;
  uint64_t held_ = 0, held_first_ = 0;  // bytes of the word that fills up, and where they begin
  uint64_t address_ = 0;
  unsigned bytes_ = 0;
};

}  // namespace halfdome::timing::gather
