// Every way to card memory: switches, scratchpads and the arbiter in front of DRAM
// (hdl/memory/system.py, switch.py, axi_arbiter.py).
#pragma once

#include <memory>

#include "../dram/dram.hpp"
#include "engine.hpp"
#include "scratchpad.hpp"

namespace halfdome::timing {

struct MemoryTraffic {
  uint64_t read_bytes = 0, written_bytes = 0;  // of DRAM
  // What second operands of products are asked for.
  uint64_t weight_dram_bytes = 0, weight_scratchpad_bytes = 0;
};

// Ports are numbered as AXI identifiers are: core by core, then those of the card itself. In a cycle
// `begin` says what comes, `arbitrate` what is taken, `end` goes on to the next cycle.
class MemorySystem {
 public:
  MemorySystem(const Parameters& p, Dram& dram)
      : p_(p), dram_(dram), cores_(static_cast<size_t>(p.cores)),
        reads_(cores_ * CORE_READS + CARD_READS), writes_(cores_ * CORE_WRITES + CARD_WRITES),
        read_arbiter_(groups(), CORE_READS), write_arbiter_(groups(), CORE_WRITES) {
    while ((1 << size_log2_) < p.bus_bytes) ++size_log2_;
    for (size_t core = 0; core < cores_; ++core) pads_.push_back(std::make_unique<Pad>(p));
    number(reads_, CORE_READS);
    number(writes_, CORE_WRITES);
  }

  ReadPort& core_read(size_t core, size_t number) { return reads_[core * CORE_READS + number].port; }
  WritePort& core_write(size_t core, size_t number) {
    return writes_[core * CORE_WRITES + number].port;
  }
  ReadPort& card_read(size_t number) { return reads_[cores_ * CORE_READS + number].port; }
  WritePort& card_write(size_t number) { return writes_[cores_ * CORE_WRITES + number].port; }

  MemoryTraffic traffic;

  // For every port whose client has to be told: `told` of core (all of them for the card) and number.
  template <typename Read, typename Write>
  void begin(Read read_told, Write write_told) {
    for (size_t core = 0; core < cores_; ++core) {
      Pad& pad = *pads_[core];
      pad.reads.begin();
      pad.writes.begin();
      for (uint32_t left = pad.response; left; left &= left - 1) {
        const auto place = static_cast<unsigned>(__builtin_ctz(left));
        arrive(reader(core, place), pad.response_ends >> place & 1, read_told);
      }
    }
    if (arrived_ >= 0) {
      traffic.read_bytes += static_cast<uint64_t>(p_.bus_bytes);
      arrive(reads_[static_cast<size_t>(arrived_)], arrived_last_, read_told);
    }
    for (Writer& writer : writes_) {
      const bool idle = at_rest(writer);
      if (idle && !writer.port.idle) write_told(writer.core, writer.number);
      writer.port.idle = idle;
    }
  }

  template <typename Read, typename Write>
  void arbitrate(Read read_told, Write write_told) {
    for (size_t i = 0; i < reads_.size(); ++i) {
      Reader& reader = reads_[i];
      if (!reader.port.valid) continue;
      const int wanted = target(reader, reader.port.address);
      if (reader.bursts && (wanted != reader.current || reader.bursts == MOST_BURSTS)) continue;
      if (wanted == DRAM) {
        read_arbiter_.ask(static_cast<unsigned>(i));
        continue;
      }
      BankTurns& turns = pads_[static_cast<size_t>(wanted)]->reads;
      if (!turns.ready(reader.place)) continue;
      turns.take(reader.place, reader.port.address, reader.port.words);
      asked(reader, wanted, read_told);
    }
    read_sent_ = read_arbiter_.valid() && dram_.takes_reads();
    if (read_sent_) reading_ = read_arbiter_.front();
    stalls_ |= read_arbiter_.valid() && !read_sent_;
    read_arbiter_.clock(dram_.takes_reads(), [&](unsigned i) {
      const Asked item{i, reads_[i].port.address, reads_[i].port.words};
      asked(reads_[i], DRAM, read_told);
      return item;
    });
    for (size_t i = 0; i < writes_.size(); ++i) {
      Writer& writer = writes_[i];
      if (!writer.port.valid) continue;
      const int wanted = target(writer, writer.port.address);
      if (wanted == DRAM) {
        if (writer.waiting != OUTSTANDING_WRITES) write_arbiter_.ask(static_cast<unsigned>(i));
        continue;
      }
      BankTurns& turns = pads_[static_cast<size_t>(wanted)]->writes;
      if (!turns.ready(writer.place)) continue;
      turns.take(writer.place, writer.port.address, 1);
      taken(writer, write_told);
    }
    send_write();
    write_arbiter_.clock(write_done_, [&](unsigned i) {
      const Asked item{i, writes_[i].port.address, writes_[i].port.bytes};
      ++writes_[i].waiting;
      taken(writes_[i], write_told);
      return item;
    });
  }

  // Returns the next cycle in which memory does something by itself.
  int64_t end(int64_t cycle) {
    for (Reader* reader : arrivals_) {
      if (reader->port.last) --reader->bursts;
      reader->port.arrives = false;
    }
    arrivals_.clear();
    for (Reader* reader : asked_) {
      reader->port.taken = false;
      ++reader->bursts;
    }
    asked_.clear();
    for (Writer* writer : taken_) writer->port.taken = false;
    taken_.clear();
    bool busy = false;
    for (auto& pad : pads_) busy |= pad->end();
    busy |= serve_dram(cycle) || read_arbiter_.busy() || write_arbiter_.busy();
    for (const Writer& writer : writes_) busy |= !writer.port.idle && at_rest(writer);
    return busy ? cycle + 1 : dram_.next_event(cycle);
  }

 private:
  static constexpr int DRAM = -1;
  static constexpr unsigned MOST_BURSTS = (1 << OUTSTANDING_BITS) - 1;

  struct Asked {
    unsigned port;
    uint64_t address;
    unsigned amount;  // words of a read, bytes of a write
  };
  struct Client {
    size_t core = 0, number = 0;  // core: as many as there are for a port of the card
    unsigned place = 0;           // among the ports of a scratchpad
  };
  struct Reader : Client {
    ReadPort port;
    int current = DRAM;  // where the bursts in flight are
    unsigned bursts = 0;
  };
  struct Writer : Client {
    WritePort port;
    unsigned waiting = 0;  // for a response of DRAM
  };
  struct Pad {
    explicit Pad(const Parameters& p)
        : reads(p, CORE_READS + CARD_READS), writes(p, CORE_WRITES + CARD_WRITES) {}
    BankTurns reads, writes;
    // Words leave their bank a cycle after their turn, and the scratchpad a cycle later.
    uint32_t fetched = 0, fetched_ends = 0, response = 0, response_ends = 0;

    bool end() {
      response = fetched;
      response_ends = fetched_ends;
      fetched = reads.got();
      fetched_ends = reads.ends();
      reads.end();
      writes.end();
      return reads.busy() || writes.busy() || response || fetched;
    }
  };

  // Ports that take turns: those of each core, and the card's, which are with those of an only core.
  size_t groups() const { return cores_ == 1 ? 1 : cores_ + 1; }

  template <typename Clients>
  void number(Clients& clients, size_t of_core) {
    for (size_t i = 0; i < clients.size(); ++i) {
      const size_t core = std::min(i / of_core, cores_), number = i - core * of_core;
      clients[i].core = core;
      clients[i].number = number;
      clients[i].place = static_cast<unsigned>(core < cores_ ? number : of_core + number);
    }
  }

  Reader& reader(size_t core, unsigned place) {
    return reads_[place < CORE_READS ? core * CORE_READS + place
                                     : cores_ * CORE_READS + place - CORE_READS];
  }

  // The scratchpad that a port of that address goes to, or DRAM.
  int target(const Client& client, uint64_t address) const {
    const auto base = static_cast<uint64_t>(p_.scratchpad_base);
    if (address < base) return DRAM;
    const auto core = (address - base) / static_cast<uint64_t>(p_.scratchpad_bytes);
    return static_cast<int>(client.core < cores_ ? client.core : std::min<uint64_t>(core, cores_ - 1));
  }

  // Whether every write of the port can be seen.
  bool at_rest(const Writer& writer) const {
    if (writer.waiting) return false;
    if (writer.core < cores_) return !pads_[writer.core]->writes.active(writer.place);
    for (const auto& pad : pads_) {
      if (pad->writes.active(writer.place)) return false;
    }
    return true;
  }

  template <typename Told>
  void arrive(Reader& reader, bool last, Told told) {
    reader.port.arrives = true;
    reader.port.last = last;
    arrivals_.push_back(&reader);
    told(reader.core, reader.number);
  }

  template <typename Told>
  void asked(Reader& reader, int where, Told told) {
    reader.current = where;
    if (reader.number == WEIGHT_PORT && reader.core < cores_) {
      (where == DRAM ? traffic.weight_dram_bytes : traffic.weight_scratchpad_bytes) +=
          reader.port.words * static_cast<uint64_t>(p_.bus_bytes);
    }
    reader.port.valid = false;
    reader.port.taken = true;
    asked_.push_back(&reader);
    told(reader.core, reader.number);
  }

  template <typename Told>
  void taken(Writer& writer, Told told) {
    writer.port.valid = false;
    writer.port.taken = true;
    taken_.push_back(&writer);
    told(writer.core, writer.number);
  }

  // Whether address and data of the write in front are with DRAM at the end of this cycle.
  void send_write() {
    write_done_ = false;
    if (!write_arbiter_.valid()) return;
    sends_address_ = !address_sent_ && dram_.takes_writes();
    sends_data_ = !data_sent_ && dram_.takes_data();
    write_done_ = (address_sent_ || sends_address_) && (data_sent_ || sends_data_);
    sending_ = write_arbiter_.front();
    stalls_ |= (!address_sent_ && !sends_address_) || (!data_sent_ && !sends_data_);
  }

  // What goes over AXI in this cycle; whether something has to be told in the next.
  bool serve_dram(int64_t cycle) {
    arrived_ = -1;
    bool acted = false;
    if (dram_.beat_valid()) {
      arrived_ = static_cast<int>(dram_.beat_id());
      arrived_last_ = dram_.beat_last();
      dram_.take_beat();
      acted = true;
    }
    if (dram_.response_valid()) {
      --writes_[dram_.response_id()].waiting;
      dram_.take_response();
      acted = true;
    }
    if (read_sent_) {
      dram_.read({reading_.port, reading_.address, reading_.amount, size_log2_, 1});
      acted = true;
    }
    if (sends_address_) {
      dram_.write({sending_.port, sending_.address, 1, size_log2_, 1});
      acted = true;
    }
    if (sends_data_) {
      uint8_t strobe[16] = {};
      const auto first = static_cast<unsigned>(sending_.address & (p_.bus_bytes - 1));
      for (unsigned i = first; i < first + sending_.amount; ++i) {
        strobe[i / 8] = static_cast<uint8_t>(strobe[i / 8] | 1 << i % 8);
      }
      traffic.written_bytes += sending_.amount;
      dram_.write_data(nullptr, strobe, true);
      acted = true;
    }
    address_sent_ = (address_sent_ || sends_address_) && !write_done_;
    data_sent_ = (data_sent_ || sends_data_) && !write_done_;
    sends_address_ = sends_data_ = false;
    if (stalls_) dram_.stall();
    stalls_ = false;
    if (acted || !dram_.quiet(cycle)) dram_.advance(cycle);
    return acted;
  }

  const Parameters& p_;
  Dram& dram_;
  size_t cores_;
  uint64_t size_log2_ = 0;
  std::vector<Reader> reads_;
  std::vector<Writer> writes_;
  std::vector<std::unique_ptr<Pad>> pads_;
  StreamArbiter<Asked> read_arbiter_, write_arbiter_;
  std::vector<Reader*> arrivals_, asked_;
  std::vector<Writer*> taken_;
  int arrived_ = -1;  // port whose word DRAM brought a cycle ago
  bool arrived_last_ = false;
  bool read_sent_ = false, address_sent_ = false, data_sent_ = false;
  bool sends_address_ = false, sends_data_ = false, write_done_ = false, stalls_ = false;
  Asked reading_{}, sending_{};
};

}  // namespace halfdome::timing
