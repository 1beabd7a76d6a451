// The card's own reads: DMA into card memory and descriptor fetches (hdl/pcie/requester.py,
// reassembler.py, completion_checker.py, read_table.py, fetch_buffer.py, timer.py).
#pragma once

#include <functional>
#include <memory>

#include "completer.hpp"

namespace halfdome::timing {

// How a load engine reads over PCIe into card memory.
struct DmaPort {
  bool valid = false;  // by the engine, in `offer`; stays until it is taken
  uint64_t address = 0, destination = 0, bytes = 0;
  bool taken = false;                        // of this cycle
  bool idle = true;                          // of this cycle
  ReadFailure failure = ReadFailure::NONE;   // of this cycle
};

// How the fetcher reads descriptors; their bytes come all at once, when the first word does.
struct FetchPort {
  bool valid = false;
  uint64_t address = 0;
  unsigned bytes = 0;
  bool taken = false;           // of this cycle
  bool ready = true;            // by the fetcher: a word is taken if it comes
  bool word_valid = false;      // a word comes in this cycle
  bool last = false, failed = false;
  std::vector<uint8_t> data;    // of the fetch whose words come
};

// Counts of what went wrong, in the order of `READ_EVENTS`.
enum ReadEvent : unsigned { UNEXPECTED, LATE, MALFORMED, UNSUCCESSFUL, POISONED, TIMED_OUT, READ_EVENTS };

class Requester {
 public:
  Requester(const Parameters& p, CardBytes& memory, WritePort& port, FetchPort& fetch)
      : p_(p), bus_(static_cast<unsigned>(p.bus_bytes)), memory_(memory), port_(port), fetch_(fetch),
        reads_(static_cast<size_t>(p.dma_tags)), free_(static_cast<unsigned>(p.dma_tags)) {
    for (int64_t i = 0; i < p.cores; ++i) clients_.push_back(std::make_unique<Client>(p));
  }

  DmaPort& dma(size_t core) { return clients_[core]->port; }

  Count read_bytes;
  uint32_t events[READ_EVENTS] = {};
  unsigned outstanding() const { return outstanding_; }
  unsigned quarantined() const { return quarantined_; }

  bool offers() const { return request_valid_; }
  const Tlp& request() const { return request_; }
  // The request of `tag` leaves the card in `cycle`.
  void sent(unsigned tag, int64_t cycle) {
    reads_[tag].open = true;
    reads_[tag].sent_at = cycle;
    watch_at_ = std::min(watch_at_, cycle);
  }

  // The word of a DMA read of this cycle.
  void offer() {
    if (!valid_ || first_ || !writing_ || to_fetch_ || port_.valid) return;
    const uint64_t word = destination_ / bus_ * bus_;
    const unsigned skip = static_cast<unsigned>(destination_ & (bus_ - 1));
    const unsigned room = second_half_ ? skip : bus_ - skip;
    port_.offer(second_half_ ? word + bus_ : word + skip,
                std::min(second_half_ ? left_ - (bus_ - skip) : left_, room));
  }

  void clock(int64_t cycle, PacketBuffer& i, bool enable, uint32_t timeout, bool taken) {
    // What a request sees of reads that end in this cycle, it sees in the next one.
    hopeless_ = outstanding_ == 0 && (draining_ == 0 || timeout == 0);
    doomed_ = turn() && turn()->failure != ReadFailure::NONE;
    retire();
    take_fetch(cycle, enable);
    bool settling = false;
    for (auto& client : clients_) {
      settling |= client->settling;
    }
    receive(cycle, i, settling && !port_.idle, timeout);
    send(cycle, enable, taken);
    for (auto& client : clients_) client->clock(port_.idle, cycle);
    hand_over();
  }

  // Nothing happens in `cycle`: `clock` would change nothing.
  bool rests(int64_t cycle, const PacketBuffer& i, uint32_t timeout) const {
    if (valid_ || request_valid_ || record_due_ || refused_ || freed_ >= 0) return false;
    if (fetch_.valid || fetch_.taken || fetch_state_ == HAND_OVER) return false;
    if (i.offers(cycle) && (beats_left_ || (i.first() && i.front().tlp.is_completion()))) return false;
    if (watch_at(timeout) <= cycle) return false;
    for (const auto& client : clients_) {
      if (!client->rests()) return false;
    }
    return true;
  }

  // Everything is as after power-on: no read is in flight.
  void reset() {
    for (Read& read : reads_) read = {};
    free_tags_.clear();
    fresh_ = 0;
    free_ = static_cast<unsigned>(p_.dma_tags);
    outstanding_ = quarantined_ = draining_ = 0;
  }

  // Whether something happens in the next cycle already.
  bool busy() const {
    if (valid_ || request_valid_ || record_due_ || fetch_state_ == HAND_OVER || refused_) return true;
    const bool refuses = outstanding_ == 0;  // what has no tag, unless one is to come
    if (fetch_state_ == REQUESTING || (fetch_.valid && refuses)) return true;
    for (const auto& client : clients_) {
      if (client->busy(enough_tags() || refuses)) return true;
    }
    return false;
  }
  // The next cycle in which a read may have waited too long.
  int64_t watch_at(uint32_t timeout) const {
    if (!timeout || watch_at_ == NEVER) return NEVER;
    return watch_at_ + timeout;
  }

 private:
  struct Read {
    bool open = false, quarantined = false, draining = false, malformed = false, poisoned = false;
    size_t client = 0;
    uint64_t destination = 0;
    unsigned bytes = 0, done = 0, lower_address = 0;
    int64_t sent_at = 0;
  };
  struct Client {
    explicit Client(const Parameters& p) : splitter(p, p.max_read_request_bytes) {}

    DmaPort port;
    Splitter splitter;
    bool held = false;  // a piece waits in the merger
    Piece piece{};
    bool active = false, settling = false;
    unsigned in_flight = 0;
    ReadFailure failure = ReadFailure::NONE;

    void clock(bool memory_idle, int64_t) {
      if (settling && memory_idle) active = false;
      port.taken = port.valid && splitter.ready();
      if (port.taken) {
        splitter.accept(port.address, port.destination, port.bytes);
        port.valid = false;
        if (!active) failure = ReadFailure::NONE;
        active = true;
      }
      splitter.clock();
      settling = active && splitter.idle() && !held && in_flight == 0;
      port.idle = !active;
      port.failure = failure;
    }
    bool rests() const {
      return !port.valid && !port.taken && splitter.idle() && !held && !settling &&
             (in_flight || !active) && port.idle == !active && port.failure == failure;
    }
    bool busy(bool goes_on) const {
      return port.valid || (!splitter.idle() && goes_on) || (held && goes_on) || settling ||
             (active && failure != ReadFailure::NONE);
    }
  };
  enum FetchState { NO_FETCH, REQUESTING, COLLECT, HAND_OVER };
  struct Record {
    unsigned tag;
    size_t client;
    ReadFailure failure;
    bool ends, frees, drains;
  };

  // Whether DMA reads may have the next tag: the last one is the fetch's.
  bool enough_tags() const { return free_ > (fetch_open_ ? 0 : 1); }

  // What the last beat of the cycle before meant.
  void retire() {
    fetch_done_ = fetch_failed_ = false;
    if (refused_) fetch_done_ = fetch_failed_ = true;
    refused_ = false;
    if (!record_due_) return;
    record_due_ = false;
    const Record& r = record_;
    if (r.ends) {
      --outstanding_;
      if (r.client == clients_.size()) {
        fetch_done_ = true;
        fetch_failed_ = r.failure != ReadFailure::NONE;
        fetched_ = true;
      } else {
        Client& client = *clients_[r.client];
        --client.in_flight;
        if (client.failure == ReadFailure::NONE) client.failure = r.failure;
      }
      if (!r.frees) {
        ++quarantined_;
        draining_ += r.drains;
      }
    } else if (r.frees) {
      --quarantined_;
      draining_ -= r.drains;
    }
    if (r.frees) freed_ = static_cast<int>(r.tag);
  }

  void take_fetch(int64_t, bool) {
    fetch_.taken = false;
    if (fetch_state_ == COLLECT && fetch_done_) {
      fetch_state_ = HAND_OVER;
      index_ = 0;
      last_ = fetch_failed_;
      next_valid_ = fetch_failed_;
      failed_ = fetch_failed_;
    } else if (fetch_state_ == HAND_OVER) {
      const unsigned count = static_cast<unsigned>(fetch_.data.size()) / bus_;
      if (fetch_.word_valid && !fetch_.ready) {
        // it waits
      } else if (fetch_.word_valid && fetch_.last) {
        fetch_state_ = NO_FETCH;
        next_valid_ = false;
      } else if (!last_) {
        next_valid_ = true;
        last_ = ++index_ == count;
      }
    }
  }

  // The response of the next cycle.
  void hand_over() {
    fetch_.word_valid = next_valid_;
    fetch_.last = last_ && next_valid_;
    fetch_.failed = failed_;
  }

  // A header a cycle leaves: the fetch first.
  void send(int64_t cycle, bool enable, bool taken) {
    const bool fetching = fetch_.valid && fetch_state_ == NO_FETCH;
    const bool room = !request_valid_ || taken;
    const bool fresh = fresh_ != reads_.size();
    const bool tag_free = fresh || free_tags_.readable(cycle);
    const bool enough = free_ > 1 || fetch_open_;
    Client* const turn = this->turn();
    const bool offered = turn && turn->held;
    bool goes = false, passed = false;
    unsigned tag = 0;
    const auto open = [&](size_t client, uint64_t address, uint64_t destination, unsigned bytes) {
      tag = fresh ? static_cast<unsigned>(fresh_++) : free_tags_.read(cycle);
      --free_;
      ++outstanding_;
      Read& read = reads_[tag];
      read = {};
      read.client = client;
      read.destination = destination;
      read.bytes = bytes;
      read.lower_address = static_cast<unsigned>(address & 0x7F);
      request_ = memory_request(MEMORY_READ, address, (bytes + 3) & ~3u, enables(bytes), 0, tag);
      goes = true;
    };
    if (fetching) {
      if (room && tag_free && enable) {
        fetch_open_ = true;
        fetch_.data.assign(fetch_.bytes, 0);
        open(clients_.size(), fetch_.address, 0, fetch_.bytes);
        fetch_.taken = true;
      } else if (!enable || (hopeless_ && free_ == 0)) {
        fetch_.data.clear();
        refused_ = fetch_.taken = true;
      }
      if (fetch_.taken) {
        fetch_.valid = false;
        fetch_state_ = COLLECT;
        failed_ = last_ = next_valid_ = false;
      }
    }
    if (offered && !fetching && room && tag_free && enough && !doomed_ && enable) {
      open(source_, turn->piece.address, turn->piece.place, turn->piece.bytes);
      ++turn->in_flight;
      passed = true;
    } else if (offered && (doomed_ || !enable || (hopeless_ && !enough))) {
      if (!doomed_) turn->failure = enable ? ReadFailure::NO_TAG : ReadFailure::NOT_BUS_MASTER;
      passed = true;
    }
    if (room) request_valid_ = goes;
    merge(passed);
    if (fetched_) fetch_open_ = fetched_ = false;
    if (freed_ >= 0) {
      free_tags_.write(cycle, static_cast<unsigned>(freed_));
      ++free_;
      freed_ = -1;
    }
  }

  // The client in turn, if any was yet.
  Client* turn() const { return source_ < clients_.size() ? clients_[source_].get() : nullptr; }

  // Pieces of the clients, in turn.
  void merge(bool passed) {
    Client* const last = turn();
    if (last && last->held && !passed) return;
    if (last) last->held = false;
    for (size_t distance = 1; distance <= clients_.size(); ++distance) {
      const size_t candidate = (source_ + distance) % clients_.size();
      Client& client = *clients_[candidate];
      if (!client.splitter.offers()) continue;
      client.piece = client.splitter.front();
      client.splitter.pass();
      client.held = true;
      source_ = candidate;
      return;
    }
  }

  // Completions: one beat is in hand.
  void receive(int64_t cycle, PacketBuffer& i, bool hold, uint32_t timeout) {
    bool take = false;
    if (valid_ && (timed_out_ || first_)) {
      if (timed_out_ || !hold) {
        judge(cycle);
        take = true;
        if (timed_out_ || beats_ == 1) finish();
      }
    } else if (valid_) {
      const bool writes = writing_ && !to_fetch_;
      if (!writes) {
        take = true;
        pass_word();
      } else if (port_.taken) {
        const unsigned skip = static_cast<unsigned>(destination_ & (bus_ - 1));
        if (skip && !second_half_ && left_ > bus_ - skip) {
          second_half_ = true;
        } else {
          second_half_ = false;
          take = true;
          pass_word();
        }
      }
      if (take && --beats_left_ == 0) finish();
    }
    if (valid_ && !take) return;
    valid_ = false;
    const bool between = beats_left_ == 0;
    if (between && timeout) {
      const int tag = expired(cycle, timeout);
      if (tag >= 0) {
        valid_ = timed_out_ = true;
        tag_ = static_cast<unsigned>(tag);
        return;
      }
    }
    if (!i.offers(cycle)) return;
    if (between) {
      if (!i.first() || !i.front().tlp.is_completion()) return;
      packet_ = std::move(i.front());
      i.front() = {{}, 0, packet_.beats, packet_.malformed};
      beats_ = packet_.beats;
      beats_left_ = beats_ - 1;
      first_ = true;
      tag_ = packet_.tlp.completion_tag();
    } else {
      first_ = false;
    }
    timed_out_ = false;
    valid_ = true;
    i.pass(cycle);
  }

  // A tag that has waited too long. Looked at in turn, a tag a cycle: the delay is left out.
  int expired(int64_t cycle, uint32_t timeout) {
    if (watch_at(timeout) > cycle) return -1;
    watch_at_ = NEVER;
    int found = -1;
    for (size_t tag = 0; tag < reads_.size(); ++tag) {
      const Read& read = reads_[tag];
      if (!read.open && !read.draining) continue;
      if (found < 0 && cycle - read.sent_at >= timeout) found = static_cast<int>(tag);
      watch_at_ = std::min(watch_at_, read.sent_at);
    }
    return found;
  }

  void judge(int64_t cycle) {
    const bool alien = tag_ >= reads_.size();
    static const Read none{};
    const Read before = alien ? none : reads_[tag_];
    const Tlp& tlp = packet_.tlp;
    const unsigned needed = before.bytes - before.done;
    const unsigned lower = (before.lower_address + before.done) & 0x7F;
    const unsigned carried = timed_out_ ? 0 : tlp.length_bytes();
    const unsigned announced = timed_out_ ? 0 : tlp.remaining_bytes();
    const bool with_data = !timed_out_ && tlp.type() == COMPLETION_DATA;
    const bool final = carried >= needed;
    const bool last = with_data && announced <= carried;
    const bool successful = !timed_out_ && tlp.completion_status() == SUCCESSFUL;
    const bool in_sequence = with_data && successful && announced == needed &&
        tlp.lower_address() == lower &&
        (final ? carried - needed < 4 : ((lower + carried) & (READ_COMPLETION_BOUNDARY - 1)) == 0);
    const bool packet_malformed = !timed_out_ && packet_.malformed;
    const bool packet_poisoned = !timed_out_ && tlp.poisoned();
    const bool good = before.open && in_sequence && !packet_poisoned && !packet_malformed;
    const bool ends = before.open && (timed_out_ || final || !in_sequence);
    const bool enters = ends && (timed_out_ || (successful && !(last && final)));
    const bool released =
        before.quarantined && (timed_out_ ? before.draining : !successful || last);
    const bool drains = before.quarantined ? before.draining : enters && !timed_out_;
    const bool malformed = packet_malformed || !in_sequence;
    const bool poisoned = packet_poisoned && !malformed;
    ReadFailure failure = ReadFailure::NONE;
    bool malformed_event = false, poisoned_event = false;
    if (timed_out_) {
      events[TIMED_OUT] += before.open;
      failure = ReadFailure::TIMED_OUT;
    } else if (before.quarantined) {
      ++events[LATE];
    } else if (!before.open) {
      ++events[UNEXPECTED];
    } else if (!successful) {
      ++events[UNSUCCESSFUL];
      failure = ReadFailure::UNSUCCESSFUL;
    } else {
      malformed_event = malformed;
      poisoned_event = poisoned;
      events[MALFORMED] += malformed;
      events[POISONED] += poisoned;
      if (before.malformed || malformed) failure = ReadFailure::MALFORMED;
      else if (before.poisoned || poisoned) failure = ReadFailure::POISONED;
    }
    const unsigned bytes = final ? needed : carried;
    record_ = {tag_, before.client, failure, ends, ends ? !enters : released, drains};
    writing_ = good;
    to_fetch_ = before.client == clients_.size();
    destination_ = before.destination + before.done;
    left_ = bytes;
    second_half_ = false;
    if (good) {
      read_bytes.add(bytes, cycle);
      deliver(before, bytes);
    }
    if (alien) return;
    Read& read = reads_[tag_];
    if (before.open) {
      read.open = !ends;
      read.quarantined = enters;
      read.draining = drains;
      read.done += carried;
    }
    if (before.quarantined && record_.frees) read.quarantined = read.draining = false;
    read.malformed |= malformed_event;
    read.poisoned |= poisoned_event;
  }

  // The bytes of a good completion reach their place.
  void deliver(const Read& read, unsigned bytes) {
    const uint8_t* from = packet_.tlp.payload.data();
    const unsigned count = std::min(bytes, static_cast<unsigned>(packet_.tlp.payload.size()));
    if (to_fetch_) {
      std::memcpy(fetch_.data.data() + read.done, from,
                  std::min<size_t>(count, fetch_.data.size() - std::min<size_t>(read.done, fetch_.data.size())));
    } else {
      memory_.write(destination_, from, count);
    }
  }

  void pass_word() {
    destination_ += bus_;
    left_ -= std::min(left_, bus_);
  }

  // The last beat has been taken: what it means is known in the next cycle.
  void finish() {
    record_due_ = record_.ends || record_.frees;
  }

  static uint32_t enables(unsigned bytes) {
    const uint32_t tail = bytes % 4 ? (1u << bytes % 4) - 1 : 0xF;
    return bytes <= 4 ? tail : tail << 4 | 0xF;
  }

  const Parameters& p_;
  unsigned bus_;
  CardBytes& memory_;
  WritePort& port_;
  FetchPort& fetch_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<Read> reads_;

  // Tags.
  Fifo<unsigned> free_tags_;
  size_t fresh_ = 0;
  unsigned free_, outstanding_ = 0, quarantined_ = 0, draining_ = 0;
  int freed_ = -1;
  int64_t watch_at_ = NEVER;  // when the earliest of the open reads was sent, or earlier

  // Requests.
  size_t source_ = 0;
  bool request_valid_ = false;
  bool hopeless_ = false, doomed_ = false;  // no tag comes; the client in turn has failed already
  Tlp request_;

  // The fetch.
  FetchState fetch_state_ = NO_FETCH;
  bool fetch_open_ = false, fetched_ = false, refused_ = false, fetch_done_ = false, fetch_failed_ = false;
  bool last_ = false, failed_ = false, next_valid_ = false;
  unsigned index_ = 0;

  // Completions.
  bool valid_ = false, timed_out_ = false, first_ = false;
  Packet packet_{};
  unsigned tag_ = 0, beats_ = 0, beats_left_ = 0;
  bool writing_ = false, to_fetch_ = false, second_half_ = false;
  uint64_t destination_ = 0;
  unsigned left_ = 0;
  Record record_{};
  bool record_due_ = false;
};

}  // namespace halfdome::timing
