// Reads an array of integers or floats, an element at a time (hdl/gather/array.py).
#pragma once

#include <cstring>

#include "job.hpp"

namespace halfdome::timing::gather {

class ArrayReader {
 public:
  ArrayReader(const Parameters& p, const Bytes& bytes, ReadPort& port)
      : reader_(p, port, static_cast<unsigned>(p.gather_prefetch_words)), p_(p), bytes_(bytes),
        port_(port) {}

  // After `clock` of the cycle.
  void start(uint64_t address, uint64_t count, bool wide) {
    address_ = next_ = address;
    wide_ = wide;
    elements_ = count;
    words_ = words_of(p_, count * element_bytes());
    asks_ = words_ != 0 && reader_.ready();
    wake_ = 0;
  }
  bool idle() const { return words_ == 0 && in_flight_ == 0 && held_ == 0; }
  bool valid() const { return held_ != 0; }
  // The element on offer, with its sign.
  int64_t element() const {
    const uint8_t* from = bytes_.at(next_);
    if (wide_) {
      int64_t value;
      std::memcpy(&value, from, sizeof value);
      return value;
    }
    int32_t value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }

  void offer() { reader_.offer(); }
  // In this cycle something comes or was asked for.
  bool touched() const { return port_.taken || port_.arrives; }

  // `ready`: an element is taken if there is one; `stop`: the array is abandoned. Returns when it may
  // go on by itself.
  int64_t clock(int64_t cycle, bool ready, bool stop) {
    if (stop || asks_ || touched()) return advance(cycle, ready, stop);
    if (held_ == 0 || !ready) return cycle < wake_ ? wake_ : advance(cycle, ready, false);
    if (held_ == 1) return advance(cycle, ready, false);
    next_ += element_bytes();  // of a word that stays
    --held_;
    return wake_ = cycle + 1;
  }

 private:
  uint64_t element_bytes() const { return wide_ ? 8 : 4; }

  // A cycle in which more may happen than that an element of many is taken.
  int64_t advance(int64_t cycle, bool ready, bool stop) {
    const bool taken = held_ != 0 && ready, asks = words_ != 0;
    const uint64_t run = std::min(words_, static_cast<uint64_t>(p_.gather_run_words));
    const bool arrived = reader_.buffer.readable(cycle) && (held_ == 0 || (held_ == 1 && ready) || stop);
    if (arrived) reader_.buffer.read(cycle);
    const int64_t reads = reader_.clock(cycle);
    const bool asked = asks && reader_.ready();
    if (asked) {
      reader_.start({address_, 0, 1, run * static_cast<uint64_t>(p_.bus_bytes)});
      address_ += run * static_cast<uint64_t>(p_.bus_bytes);
      words_ -= run;
      in_flight_ += run;
    }
    in_flight_ -= arrived;
    const bool ended = stop && (asked || !asks) && words_ != 0;
    if (stop && (asked || !asks)) words_ = 0;
    const bool dropped = stop && (held_ != 0 || elements_ != 0);
    if (taken) next_ += element_bytes();
    if (stop) {
      held_ = elements_ = 0;
    } else if (arrived) {
      held_ = std::min(elements_, static_cast<uint64_t>(p_.bus_bytes) / element_bytes());
      elements_ -= held_;
    } else if (taken) {
      --held_;
    }
    asks_ = words_ != 0 && reader_.ready();
    const int64_t readable = reader_.buffer.readable_at();
    wake_ = asked || asks_ || arrived || taken || ended || dropped
                ? cycle + 1
                : std::min(reads, readable > cycle ? readable : NEVER);
    return wake_;
  }

  RowReader reader_;
  const Parameters& p_;
  const Bytes& bytes_;
  const ReadPort& port_;
  int64_t wake_ = 0;  // nothing happens before, if nothing comes
  uint64_t address_ = 0, next_ = 0;  // of what is asked for next; of the element on offer
  uint64_t words_ = 0, in_flight_ = 0, elements_ = 0, held_ = 0;
  bool wide_ = false;
  bool asks_ = false;  // a run of words is to be asked for
};

}  // namespace halfdome::timing::gather
