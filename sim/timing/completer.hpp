// Requests to the card: registers and the window onto card memory (hdl/pcie/completer.py,
// decoder.py, replier.py, completion_sender.py).
#pragma once

#include "packets.hpp"
#include "reader.hpp"

namespace halfdome::timing {

// BAR0, as the completer sees it.
class Registers {
 public:
  virtual ~Registers() = default;
  virtual uint32_t read(unsigned offset, int64_t cycle) = 0;
  virtual void write(unsigned offset, uint32_t value, int64_t cycle) = 0;
  virtual void drop_request(bool poisoned) = 0;
};

// Card memory for the moves of the card. What they write is not left out, if there is a place that tells
// of such bytes.
class CardBytes : public Bytes {
 public:
  CardBytes(uint8_t* memory, uint8_t* left_out, const Parameters& p)
      : memory_(memory), left_out_(left_out), mask_(p.window_bytes - 1) {}
  const uint8_t* at(uint64_t address) const override { return memory_ + (address & mask_); }
  void write(uint64_t address, const uint8_t* from, size_t bytes) {
    std::memcpy(memory_ + (address & mask_), from, bytes);
    if (left_out_) std::memset(left_out_ + (address & mask_), 0, bytes);
  }

 private:
  uint8_t* memory_;
  uint8_t* left_out_;
  uint64_t mask_;
};

struct Answer {
  uint64_t value;  // what registers held, or the card address of the first byte
  bool from_window;
  uint32_t status;
  unsigned bytes, lower_address;
  Tlp request;  // without its payload
};

// Sends the completions of one answer after the other, reading card memory ahead.
class Replier {
 public:
  Replier(const Parameters& p, CardBytes& memory, ReadPort& port)
      : p_(p), bus_(static_cast<unsigned>(p.bus_bytes)), memory_(memory),
        buffer_(port, static_cast<unsigned>(
                          std::max<int64_t>(p.burst_words, PREFETCH_BYTES / p.bus_bytes))) {}

  bool ready() const { return waiting_.level() < READ_QUEUE; }
  void take(int64_t cycle, Answer&& answer) { waiting_.write(cycle, std::move(answer)); }
  bool started() const { return started_; }  // an answer has left the queue in this cycle

  void offer() {
    if (words_) buffer_.offer(address_, burst());
  }
  bool offers(int64_t cycle) const {
    if (state_ == HEADER) return !answer_.from_window || buffer_.readable(cycle);
    return state_ == DATA && (!answer_.from_window || !needs_word() || buffer_.readable(cycle));
  }
  bool offers_last() const { return state_ == HEADER ? !good() : left_ <= bus_; }

  void clock(int64_t cycle, bool taken, Tlp& tlp) {
    advance(cycle, taken, tlp);
    if (buffer_.taken()) {
      const unsigned words = burst();
      address_ += words * static_cast<uint64_t>(bus_);
      words_ -= words;
    }
    started_ = waiting_.readable(cycle) && reading_.size() < READS_IN_FLIGHT &&
               (words_ == 0 || !waiting_.front().from_window);
    if (started_) {
      Answer answer = waiting_.read(cycle);
      if (answer.from_window) {
        address_ = answer.value / bus_ * bus_;
        words_ = ((answer.value & (bus_ - 1)) + answer.bytes + bus_ - 1) / bus_;
      }
      reading_.push_back({cycle + 1, std::move(answer)});
    }
    buffer_.clock(cycle);
  }
  bool busy() const { return state_ != IDLE || !waiting_.empty() || !reading_.empty() || words_; }

 private:
  enum State { IDLE, HEADER, DATA };
  struct Started {
    int64_t cycle;
    Answer answer;
  };

  bool good() const { return answer_.status == SUCCESSFUL; }
  unsigned skip() const { return static_cast<unsigned>(answer_.value / 4) & (bus_ / 4 - 1); }
  bool needs_word() const { return !skip() || left_ + 4 * skip() > bus_; }
  unsigned burst() const {
    return static_cast<unsigned>(std::min<uint64_t>(words_, words_to_line_end(p_, address_)));
  }

  void advance(int64_t cycle, bool taken, Tlp& tlp) {
    switch (state_) {
      case IDLE:
        if (reading_.empty() || reading_.front().cycle > cycle) return;
        answer_ = std::move(reading_.front().answer);
        reading_.pop_front();
        state_ = HEADER;
        return;
      case HEADER: {
        chunk_ = answer_.bytes;
        if (answer_.from_window) {
          const auto boundary = static_cast<unsigned>(
              p_.max_payload_bytes - (answer_.value & (p_.max_payload_bytes - 1)));
          chunk_ = std::min(chunk_, boundary);
        }
        left_ = size_ = (answer_.lower_address & 3) + chunk_;
        if (!taken) return;
        if (answer_.from_window && skip()) buffer_.read(cycle);
        if (good()) {
          state_ = DATA;
        } else {
          tlp = completion(answer_.request, answer_.status, 0, answer_.bytes, answer_.lower_address);
          state_ = IDLE;
        }
        return;
      }
      case DATA:
        if (!taken) return;
        if (answer_.from_window && needs_word()) buffer_.read(cycle);
        if (left_ > bus_) {
          left_ -= bus_;
          return;
        }
        finish(tlp);
    }
  }

  // The completion is whole.
  void finish(Tlp& tlp) {
    tlp = completion(answer_.request, answer_.status, 0, answer_.bytes, answer_.lower_address);
    const unsigned payload = (size_ + 3) & ~3u;
    tlp.header[0] = COMPLETION_DATA << 24 | (answer_.request.header[0] & COPIED) | (payload / 4 & 0x3FF);
    tlp.payload.resize(payload);
    const uint64_t first = answer_.value & ~uint64_t{3};
    for (unsigned i = 0; i < payload; ++i) {
      tlp.payload[i] = answer_.from_window ? *memory_.at(first + i)
                                           : static_cast<uint8_t>(i < 8 ? answer_.value >> 8 * i : 0);
    }
    answer_.value += chunk_;
    answer_.bytes -= chunk_;
    answer_.lower_address = 0;
    state_ = answer_.bytes ? HEADER : IDLE;
  }

  static constexpr uint32_t COPIED = 3u << 12 | 7u << 20;  // attributes and traffic class

  const Parameters& p_;
  unsigned bus_;
  CardBytes& memory_;
  Fifo<Answer> waiting_;
  Ring<Started> reading_;
  ReadBuffer buffer_;
  uint64_t address_ = 0, words_ = 0;  // of the run that is being asked for
  bool started_ = false;
  State state_ = IDLE;
  Answer answer_{};
  unsigned chunk_ = 0, size_ = 0, left_ = 0;
};

// Serves requests, writes in order, reads in order.
class Completer {
 public:
  Completer(const Parameters& p, CardBytes& memory, Registers& registers, ReadPort& window_read,
            WritePort& window_write)
      : replier(p, memory, window_read), p_(p), bus_(static_cast<unsigned>(p.bus_bytes)),
        memory_(memory), registers_(registers), window_(window_write) {}

  Replier replier;

  // The window's word of this cycle.
  void offer(int64_t cycle, const PacketBuffer& i) {
    replier.offer();
    if (state_ != WINDOW_WRITE || window_.valid) return;
    if (word_ == 0 && !i.offers(cycle)) return;  // later words have their data in time
    offer_word();
  }

  void clock(int64_t cycle, PacketBuffer& i) {
    const bool seen = window_.idle;  // earlier writes can be seen
    switch (state_) {
      case IDLE:
        if (!i.offers(cycle) || !i.first() || i.front().tlp.is_completion()) return;
        packet_ = std::move(i.front());
        i.front() = {{}, packet_.bar, packet_.beats, packet_.malformed};
        follows_ = !i.last();
        i.pass(cycle);
        state_ = DECODE;
        return;
      case DECODE:
        decode();
        return;
      case DISCARD:
        if (!i.offers(cycle)) return;
        if (i.last()) state_ = posted_ ? IDLE : ANSWER;
        i.pass(cycle);
        return;
      case REGISTER_WRITE:
        if (!i.offers(cycle) || !seen) return;
        registers_.write(offset(), dword(0), cycle);
        if (two()) {
          state_ = REGISTER_WRITE_SECOND;
        } else {
          i.pass(cycle);
          state_ = IDLE;
        }
        return;
      case REGISTER_WRITE_SECOND:
        registers_.write(offset() + 4, dword(1), cycle);
        i.pass(cycle);
        state_ = IDLE;
        return;
      case WINDOW_WRITE:
        if (!window_.taken) return;
        if (beats_left_ && i.offers(cycle)) {
          i.pass(cycle);
          --beats_left_;
        }
        if (++word_ < words_) return;
        store();
        state_ = IDLE;
        return;
      case REGISTER_READ:
        if (!seen) return;
        answer_.value = registers_.read(offset(), cycle);
        state_ = REGISTER_DATA;
        return;
      case REGISTER_DATA:
        state_ = ANSWER;
        if (two()) {
          answer_.value |= uint64_t{registers_.read(offset() + 4, cycle)} << 32;
          state_ = REGISTER_DATA_SECOND;
        }
        return;
      case REGISTER_DATA_SECOND:
        state_ = ANSWER;
        return;
      case ANSWER:
        if (!seen || !replier.ready()) return;
        replier.take(cycle, std::move(answer_));
        state_ = IDLE;
        return;
    }
  }
  bool busy() const { return state_ != IDLE; }

 private:
  enum State {
    IDLE, DECODE, DISCARD, REGISTER_WRITE, REGISTER_WRITE_SECOND, WINDOW_WRITE, REGISTER_READ,
    REGISTER_DATA, REGISTER_DATA_SECOND, ANSWER
  };

  bool two() const { return packet_.tlp.header[0] >> 1 & 1; }
  unsigned offset() const { return static_cast<unsigned>(packet_.tlp.address() & 0xFFFF); }
  uint32_t dword(unsigned number) const {
    uint32_t value;
    std::memcpy(&value, packet_.tlp.payload.data() + 4 * number, 4);
    return value;
  }

  static unsigned disabled_before(uint32_t enables) {
    return enables & 1 ? 0 : enables & 2 ? 1 : enables & 4 ? 2 : enables & 8 ? 3 : 3;
  }
  static unsigned disabled_after(uint32_t enables) {
    return enables & 8 ? 0 : enables & 4 ? 1 : enables & 2 ? 2 : enables & 1 ? 3 : 3;
  }
  static bool is_posted(uint32_t kind) {
    const bool memory_write = (kind & 0x1F) == 0 && kind >> 6 & 1;
    return memory_write || (kind >> 3 & 3) == 2 || kind >> 7 & 1;
  }

  void decode() {
    const Tlp& tlp = packet_.tlp;
    const uint32_t kind = tlp.type();
    const bool prefix = kind >> 7 & 1, memory = (kind & 0x1F) == 0 && !prefix;
    const bool data = kind >> 6 & 1, poisoned = data && tlp.poisoned() && !prefix;
    posted_ = is_posted(kind);
    const unsigned dwords = tlp.length_bytes() / 4;
    const bool single = (tlp.header[0] & 0x3FF) == 1;
    const uint32_t first = tlp.first_enable(), last = tlp.last_enable(), tail = single ? first : last;
    const bool nothing = single && !first && !last;
    const uint64_t address = tlp.address(), window = address & static_cast<uint64_t>(p_.window_bytes - 1);
    unsigned bytes = dwords * 4 - disabled_before(first) - disabled_after(tail);
    unsigned lower = static_cast<unsigned>(address & 0x7C) | disabled_before(first);
    if (nothing) bytes = 1, lower &= ~3u;
    if (!memory) bytes = 4, lower = 0;
    const bool legal = single ? !last : first && last;
    const bool whole = legal && first == 0xF && tail == 0xF;
    const bool sane = memory && !packet_.malformed && !poisoned &&
                      (address & 0xFFF) + dwords * 4 <= 0x1000;
    const unsigned bar = packet_.bar;
    const bool is_register = bar == 0 && whole && dwords <= 2;
    const bool is_window = bar == 2 && legal &&
        window < static_cast<uint64_t>(p_.scratchpad_base + p_.cores * p_.scratchpad_bytes);
    answer_ = {window / 4 * 4 + (lower & 3), false, SUCCESSFUL, bytes, lower, {}};
    std::memcpy(answer_.request.header, tlp.header, HEADER_BYTES);
    if (sane && (bar == 0 || bar == 2) && nothing) {
      answer_.value = 0;
      state_ = data ? DISCARD : ANSWER;
    } else if (sane && is_register) {
      answer_.value = 0;
      state_ = data ? REGISTER_WRITE : REGISTER_READ;
    } else if (sane && is_window) {
      answer_.from_window = !data;
      state_ = data ? WINDOW_WRITE : ANSWER;
      first_word_ = window / bus_ * bus_;
      word_ = 0;
      words_ = ((window & (bus_ - 1)) + dwords * 4 + bus_ - 1) / bus_;
      beats_left_ = packet_.beats - 1;
    } else {
      registers_.drop_request(poisoned);
      answer_.value = 0;
      answer_.status = UNSUPPORTED_REQUEST;
      state_ = follows_ ? DISCARD : posted_ ? IDLE : ANSWER;
    }
  }

  // Whether byte `i` of a write is to be written.
  bool enabled(unsigned i) const {
    const Tlp& tlp = packet_.tlp;
    const unsigned count = tlp.length_bytes();
    const uint32_t first = tlp.first_enable(), last = count == 4 ? first : tlp.last_enable();
    if (i < 4 && !(first >> i & 1)) return false;
    return i < count - 4 || last >> (i & 3) & 1;
  }
  uint64_t window_start() const {
    return packet_.tlp.address() & static_cast<uint64_t>(p_.window_bytes - 1);
  }

  // The enabled bytes, side by side, of the word of a window write whose turn it is.
  void offer_word() {
    const uint64_t start = window_start(), word = first_word_ + word_ * bus_;
    const uint64_t end = std::min<uint64_t>(word + bus_ - start, packet_.tlp.length_bytes());
    uint64_t first = std::max(word, start) - start;
    while (first + 1 < end && !enabled(static_cast<unsigned>(first))) ++first;
    unsigned bytes = 0;
    for (uint64_t i = first; i < end; ++i) bytes += enabled(static_cast<unsigned>(i));
    window_.offer(start + first, bytes);
  }

  // The enabled bytes of a window write reach memory.
  void store() {
    const uint64_t start = window_start();
    for (unsigned i = 0; i < packet_.tlp.length_bytes(); ++i) {
      if (enabled(i)) memory_.write(start + i, &packet_.tlp.payload[i], 1);
    }
  }

  const Parameters& p_;
  unsigned bus_;
  CardBytes& memory_;
  Registers& registers_;
  WritePort& window_;
  State state_ = IDLE;
  Packet packet_{};
  bool follows_ = false, posted_ = false;
  Answer answer_{};
  uint64_t first_word_ = 0, word_ = 0, words_ = 0;
  unsigned beats_left_ = 0;
};

}  // namespace halfdome::timing
