// Every way to card memory: switches, scratchpads and the arbiter in front of DRAM
// (hdl/memory/system.py, switch.py, axi_arbiter.py).
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "../dram/dram.hpp"
#include "engine.hpp"
#include "scratchpad.hpp"

namespace halfdome::timing {

struct MemoryTraffic {
  Count read_bytes, written_bytes;  // of DRAM
  // What second operands of products are asked for.
  Count weight_dram_bytes, weight_scratchpad_bytes;
};

// Ports are numbered as AXI identifiers are: core by core, then those of the card itself. In a cycle
// `begin` says what comes, `look` finds requests, `arbitrate` says what is taken, `end` goes on to
// the next cycle. In a cycle in which nothing comes and nobody asks for anything new, nothing is done.
class MemorySystem {
 public:
  MemorySystem(const Parameters& p, Dram& dram)
      : p_(p), dram_(dram), cores_(static_cast<size_t>(p.cores)),
        reads_(cores_ * CORE_READS + CARD_READS), writes_(cores_ * CORE_WRITES + CARD_WRITES),
        read_arbiter_(groups(), CORE_READS), write_arbiter_(groups(), CORE_WRITES),
        flight_(cores_ + 1) {
    for (size_t core = 0; core < cores_; ++core) pads_.push_back(std::make_unique<Pad>(p));
    number(reads_, CORE_READS);
    number(writes_, CORE_WRITES);
    for (unsigned i = 0; i < CORE_READS; ++i) of_engine_[READ_OWNERS[i]].reads |= uint32_t{1} << i;
    for (unsigned i = 0; i < CORE_WRITES; ++i) of_engine_[WRITE_OWNERS[i]].writes |= uint32_t{1} << i;
  }

  ReadPort& core_read(size_t core, size_t number) { return reads_[core * CORE_READS + number].port; }
  WritePort& core_write(size_t core, size_t number) {
    return writes_[core * CORE_WRITES + number].port;
  }
  ReadPort& card_read(size_t number) { return reads_[cores_ * CORE_READS + number].port; }
  WritePort& card_write(size_t number) { return writes_[cores_ * CORE_WRITES + number].port; }

  MemoryTraffic traffic;
  uint32_t urgent_cores = 0;  // go first at DRAM, and the card's own ports with them

  // Tells somebody of writes from now on.
  void watch(DramWatch& watcher) { watchers_.push_back(&watcher); }

  // For every port whose client has to be told: `told` of core (all of them for the card) and number.
  template <typename Read, typename Write>
  void begin(int64_t cycle, Read read_told, Write write_told) {
    cycle_ = cycle;
    awake_ = next_ <= cycle;
    if (!awake_) return;
    for (uint32_t left = busy_pads_; left; left &= left - 1) {
      const size_t core = first(left);
      Pad& pad = *pads_[core];
      if (pad.reads.busy()) pad.reads.begin();
      if (pad.writes.busy()) pad.writes.begin();
      for (uint32_t ports = pad.response; ports; ports &= ports - 1) {
        const auto place = static_cast<unsigned>(first(ports));
        arrive(reader(core, place), pad.response_ends >> place & 1, read_told);
      }
    }
    if (arrived_ >= 0) {
      traffic.read_bytes.add(p_.bus_bytes, cycle);
      arrive(reads_[static_cast<size_t>(arrived_)], arrived_last_, read_told);
    }
    restless_.each([&](size_t core, size_t number) {
      Writer& writer = writes_[core * CORE_WRITES + number];
      const bool idle = at_rest(writer);
      if (idle) restless_.clear(core, number);
      if (idle && !writer.port.idle) write_told(core, number);
      writer.port.idle = idle;
    });
  }

  // Finds what an engine of a core, or the card itself, has put into its ports.
  void look(size_t core, unsigned engine) { look(core, of_engine_[engine]); }
  void look_at_card() { look(cores_, {(1u << CARD_READS) - 1, (1u << CARD_WRITES) - 1}); }

  template <typename Read, typename Write>
  void arbitrate(Read read_told, Write write_told) {
    if (!awake_) return;
    reading_ports_.each([&](size_t core, size_t number) {
      const size_t i = core * CORE_READS + number;
      Reader& reader = reads_[i];
      const int wanted = target(reader, reader.port.address);
      if (reader.bursts && (wanted != reader.current || reader.bursts == MOST_BURSTS)) return;
      if (wanted == DRAM) {
        read_arbiter_.ask(static_cast<unsigned>(i));
        return;
      }
      BankTurns& turns = pads_[static_cast<size_t>(wanted)]->reads;
      if (!turns.ready(reader.place)) return;
      turns.take(reader.place, reader.port.address, reader.port.words);
      busy_pads_ |= uint32_t{1} << wanted;
      asked(reader, wanted, read_told);
    });
    if (read_arbiter_.active()) arbitrate_reads(read_told);
    writing_ports_.each([&](size_t core, size_t number) {
      const size_t i = core * CORE_WRITES + number;
      Writer& writer = writes_[i];
      const int wanted = target(writer, writer.port.address);
      if (wanted == DRAM) {
        if (writer.waiting != OUTSTANDING_WRITES) write_arbiter_.ask(static_cast<unsigned>(i));
        return;
      }
      BankTurns& turns = pads_[static_cast<size_t>(wanted)]->writes;
      if (!turns.ready(writer.place)) return;
      turns.take(writer.place, writer.port.address, 1);
      busy_pads_ |= uint32_t{1} << wanted;
      taken(writer, write_told);
    });
    if (write_arbiter_.active()) arbitrate_writes(write_told);
  }

  void end(int64_t cycle) {
    if (!awake_) return;
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
    for (uint32_t left = busy_pads_; left; left &= left - 1) {
      const size_t core = first(left);
      if (!pads_[core]->end()) busy_pads_ &= ~(uint32_t{1} << core);
    }
    const bool asks = read_sent_ || sends_address_ || sends_data_ || stalls_;
    const bool acted = (asks || arrived_ >= 0 || cycle >= dram_next_) && serve_dram(cycle);
    const bool busy = acted || busy_pads_ || read_arbiter_.busy() || write_arbiter_.busy() || comes_to_rest();
    if (!watchers_.empty()) tell_pending(cycle);
    next_ = busy ? cycle + 1 : dram_next_;
  }

  // Nobody is served, and nobody asks for anything.
  bool rests() const {
    return next_ == NEVER && !reading_ports_.owners && !writing_ports_.owners && !restless_.owners;
  }
  // The card itself asks for something.
  bool card_asks() const {
    const auto valid = [](const auto& client) { return client.port.valid; };
    return std::any_of(reads_.begin() + static_cast<ptrdiff_t>(cores_ * CORE_READS), reads_.end(), valid) ||
           std::any_of(writes_.begin() + static_cast<ptrdiff_t>(cores_ * CORE_WRITES), writes_.end(), valid);
  }
  // The banks of a core's scratchpad.
  BankTurns& pad_reads(size_t core) { return pads_[core]->reads; }
  BankTurns& pad_writes(size_t core) { return pads_[core]->writes; }
  // The ports by which an engine reads, as bits of those of a scratchpad.
  uint32_t read_ports(unsigned engine) const { return of_engine_[engine].reads; }

  // The next cycle in which memory does something by itself.
  int64_t next() const { return next_; }

 private:
  static constexpr int DRAM = -1;
  static constexpr unsigned MOST_BURSTS = (1 << OUTSTANDING_BITS) - 1;

  // Some ports: bits of `of`, by core, and the cores that have any.
  struct Ports {
    uint32_t owners = 0, of[sizeof(uint32_t) * 8] = {};
    void set(size_t core, size_t number) {
      owners |= uint32_t{1} << core;
      of[core] |= uint32_t{1} << number;
    }
    void clear(size_t core, size_t number) {
      of[core] &= ~(uint32_t{1} << number);
      if (!of[core]) owners &= ~(uint32_t{1} << core);
    }
    // `act` of core and number for each of them, which may clear it.
    template <typename Act>
    void each(Act act) const {
      for (uint32_t left = owners; left; left &= left - 1) {
        const size_t core = first(left);
        for (uint32_t ports = of[core]; ports; ports &= ports - 1) act(core, first(ports));
      }
    }
  };
  struct Numbers {
    uint32_t reads = 0, writes = 0;
  };
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
    explicit Pad(const Parameters& p) : reads(p), writes(p) {}
    BankTurns reads, writes;
    // Words leave their bank a cycle after their turn, and the scratchpad a cycle later.
    uint32_t fetched = 0, fetched_ends = 0, response = 0, response_ends = 0;

    bool end() {
      response = fetched;
      response_ends = fetched_ends;
      fetched = reads.got();
      fetched_ends = reads.ends();
      if (reads.changes()) reads.end();
      if (writes.changes()) writes.end();
      return reads.busy() || writes.busy() || response || fetched;
    }
  };

  // Ports that take turns: those of each core, and the card's, which are with those of an only core.
  size_t groups() const { return cores_ == 1 ? 1 : cores_ + 1; }

  uint32_t urgent() const { return urgent_cores | uint32_t{urgent_cores != 0} << cores_; }

  // Those that have enough reads in flight beside urgent ones (hdl/memory/hold_back.py).
  uint32_t held() const {
    bool any_urgent = false;
    uint32_t full = 0;
    for (size_t group = 0; urgent_cores && group <= cores_; ++group) {
      if (urgent() >> group & 1) any_urgent |= flight_[group] != 0;
      else full |= uint32_t{flight_[group] > READS_BESIDE} << group;
    }
    return any_urgent ? full : 0;
  }

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

  static size_t first(uint32_t mask) { return static_cast<size_t>(__builtin_ctz(mask)); }

  void look(size_t core, Numbers numbers) {
    for (uint32_t left = numbers.reads & ~reading_ports_.of[core]; left; left &= left - 1) {
      if (reads_[core * CORE_READS + first(left)].port.valid) reading_ports_.set(core, first(left));
    }
    for (uint32_t left = numbers.writes & ~writing_ports_.of[core]; left; left &= left - 1) {
      if (writes_[core * CORE_WRITES + first(left)].port.valid) writing_ports_.set(core, first(left));
    }
    awake_ |= (reading_ports_.of[core] & numbers.reads) || (writing_ports_.of[core] & numbers.writes);
  }

  // The scratchpad that a port of that address goes to, or DRAM.
  int target(const Client& client, uint64_t address) const {
    const auto base = static_cast<uint64_t>(p_.scratchpad_base);
    if (address < base) return DRAM;
    if (client.core < cores_) return static_cast<int>(client.core);
    const auto core = (address - base) / static_cast<uint64_t>(p_.scratchpad_bytes);
    return static_cast<int>(std::min<uint64_t>(core, cores_ - 1));
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

  // Whether a client is to be told in the next cycle that its writes can be seen.
  bool comes_to_rest() const {
    bool comes = false;
    restless_.each([&](size_t core, size_t number) {
      comes = comes || at_rest(writes_[core * CORE_WRITES + number]);
    });
    return comes;
  }

  template <typename Told>
  void arbitrate_reads(Told told) {
    read_sent_ = read_arbiter_.valid() && dram_.takes_reads();
    if (read_sent_) reading_ = read_arbiter_.front();
    stalls_ |= read_arbiter_.valid() && !read_sent_;
    read_arbiter_.clock(dram_.takes_reads(), urgent(), held(), [&](unsigned i) {
      ++flight_[reads_[i].core];
      const Asked item{i, reads_[i].port.address, reads_[i].port.words};
      asked(reads_[i], DRAM, told);
      return item;
    });
  }

  template <typename Told>
  void arbitrate_writes(Told told) {
    send_write();
    write_arbiter_.clock(write_done_, urgent(), 0, [&](unsigned i) {
      const Asked item{i, writes_[i].port.address, writes_[i].port.bytes};
      ++writes_[i].waiting;
      taken(writes_[i], told);
      return item;
    });
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
      (where == DRAM ? traffic.weight_dram_bytes : traffic.weight_scratchpad_bytes)
          .add(reader.port.words * p_.bus_bytes, cycle_);
    }
    reader.port.valid = false;
    reading_ports_.clear(reader.core, reader.number);
    reader.port.taken = true;
    asked_.push_back(&reader);
    told(reader.core, reader.number);
  }

  template <typename Told>
  void taken(Writer& writer, Told told) {
    writer.port.valid = false;
    writing_ports_.clear(writer.core, writer.number);
    restless_.set(writer.core, writer.number);
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

  // Whether writes wait is known two cycles later: their count is a register, and so is this.
  void tell_pending(int64_t cycle) {
    bool pending = false;
    for (const Writer& writer : writes_) pending |= writer.waiting != 0;
    if (pending == pending_) return;
    pending_ = pending;
    for (DramWatch* watcher : watchers_) watcher->pending(pending, cycle + 2);
  }

  // What goes over AXI in this cycle; whether something has to be told in the next.
  bool serve_dram(int64_t cycle) {
    arrived_ = -1;
    bool acted = false;
    if (dram_.beat_valid()) {
      arrived_ = static_cast<int>(dram_.beat_id());
      arrived_last_ = dram_.beat_last();
      if (arrived_last_) --flight_[reads_[static_cast<size_t>(arrived_)].core];
      dram_.take_beat();
      acted = true;
    }
    if (dram_.response_valid()) {
      --writes_[dram_.response_id()].waiting;
      dram_.take_response();
      acted = true;
    }
    if (std::exchange(read_sent_, false)) {
      dram_.read({reading_.port, reading_.address, reading_.amount, size_log2(), 1});
      acted = true;
    }
    if (sends_address_) {
      dram_.write({sending_.port, sending_.address, 1, size_log2(), 1});
      for (DramWatch* watcher : watchers_) watcher->wrote(word_of(sending_.address), cycle + 1);
      acted = true;
    }
    if (sends_data_) {
      uint8_t strobe[16];
      const auto first = static_cast<unsigned>(sending_.address & (p_.bus_bytes - 1));
      const auto ones = (static_cast<unsigned __int128>(1) << (sending_.amount - 1) << 1) - 1;
      const unsigned __int128 written = ones << first;
      std::memcpy(strobe, &written, sizeof strobe);
      traffic.written_bytes.add(sending_.amount, cycle + 1);
      dram_.write_data(nullptr, strobe, true);
      acted = true;
    }
    address_sent_ = (address_sent_ || sends_address_) && !write_done_;
    data_sent_ = (data_sent_ || sends_data_) && !write_done_;
    sends_address_ = sends_data_ = false;
    if (stalls_) dram_.stall();
    stalls_ = false;
    if (acted || cycle >= dram_next_) {
      dram_.advance(cycle);
      dram_next_ = dram_.next_event(cycle);
    }
    return acted;
  }

  // Of a beat, as AXI tells it.
  uint64_t size_log2() const { return static_cast<uint64_t>(p_.bus_shift); }
  uint64_t word_of(uint64_t address) const {
    return address & ~static_cast<uint64_t>(p_.bus_bytes - 1);
  }

  const Parameters& p_;
  Dram& dram_;
  size_t cores_;
  std::vector<Reader> reads_;
  std::vector<Writer> writes_;
  std::vector<std::unique_ptr<Pad>> pads_;
  Numbers of_engine_[ENGINES];
  Ports reading_ports_, writing_ports_;  // that ask for something
  Ports restless_;                       // with writes that cannot be seen yet
  uint32_t busy_pads_ = 0;
  int64_t cycle_ = 0;  // that `begin` was told of
  int64_t next_ = NEVER, dram_next_ = NEVER;
  bool awake_ = false;  // something has to be done in this cycle
  StreamArbiter<Asked> read_arbiter_, write_arbiter_;
  std::vector<unsigned> flight_;  // reads of each group that DRAM was, or is to be, asked for
  std::vector<Reader*> arrivals_, asked_;
  std::vector<Writer*> taken_;
  std::vector<DramWatch*> watchers_;
  bool pending_ = false;  // writes to DRAM are not answered
  int arrived_ = -1;  // port whose word DRAM brought a cycle ago
  bool arrived_last_ = false;
  bool read_sent_ = false, address_sent_ = false, data_sent_ = false;
  bool sends_address_ = false, sends_data_ = false, write_done_ = false, stalls_ = false;
  Asked reading_{}, sending_{};
};

}  // namespace halfdome::timing
