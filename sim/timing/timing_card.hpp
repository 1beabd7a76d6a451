// A card without hardware: what happens in it, and in which cycle.
//
// Cycles in which nothing happens are passed over; of the others every part is told that has
// something to do. What a part sees of another within a cycle is what hardware would see: parts
// change at the end of a cycle, in `clock`, those behind a handshake before those in front of it.
#pragma once

#include "../kernel/card.hpp"
#include "dma.hpp"
#include "gather/engine.hpp"
#include "matmul/solo.hpp"
#include "registers.hpp"
#include "values/left_out.hpp"
#include "values/values.hpp"
#include "verdicts.hpp"
#include "vector/engine.hpp"

namespace halfdome::timing {

constexpr unsigned AXI_ID_BITS = 8;  // enough to number the ports of every card

// What Python knows of commands. `check` and `execute` return status | detail << 8.
struct SemanticsCalls {
  uint64_t (*check)(int64_t card, int64_t core, const uint8_t* descriptor, const uint8_t* extension);
  uint64_t (*execute)(int64_t card, int64_t core, const uint8_t* descriptor);
};

// Values that take long are computed here; or none at all, if there is a place that tells of those that
// are left out.
class CardSemantics : public Semantics {
 public:
  CardSemantics(const Parameters& p, uint8_t* memory, uint8_t* left_out, const SemanticsCalls& calls,
                int64_t card)
      : p_(p), memory_(memory), leaver_(p, memory, left_out), with_values_(!left_out), calls_(calls),
        card_(card) {}
  Result check(size_t core, const uint8_t* descriptor, const uint8_t* extension) override {
    return verdicts_.of(core, descriptor, extension, [&] {
      return result(calls_.check(card_, static_cast<int64_t>(core), descriptor, extension));
    });
  }
  Result execute(size_t core, const Command& command) override {
    if (!with_values_ && !leaver_.misses(command)) return leaver_.execute(command);
    if (with_values_ && values::computes(command)) return values::compute(p_, command, memory_);
    return result(calls_.execute(card_, static_cast<int64_t>(core), command.bytes));
  }
  bool failed() const { return failed_; }

 private:
  // All ones: Python raised an exception.
  Result result(uint64_t packed) {
    failed_ |= packed == ~uint64_t{0};
    return {Status(packed & 0xFF), static_cast<uint32_t>(packed >> 8)};
  }

  const Parameters& p_;
  uint8_t* memory_;
  values::Leaver leaver_;
  bool with_values_;
  SemanticsCalls calls_;
  int64_t card_;
  Verdicts verdicts_;
  bool failed_ = false;
};

class TimingCard : public Card {
 public:
  TimingCard(const Parameters& parameters, Endpoint&& link, const DramSettings& settings,
             uint8_t* memory, uint8_t* left_out, const SemanticsCalls& calls, int64_t number)
      : Card(std::move(link), Dram(settings, nullptr, static_cast<uint64_t>(parameters.dram_bytes),
                                   AXI_ID_BITS)),
        p_(parameters), cores_(static_cast<size_t>(p_.cores)), semantics_(p_, memory, left_out, calls, number),
        bytes_(memory, left_out, p_), memory_(p_, dram), solo_(memory_), buffer_(p_),
        requester_(p_, bytes_, memory_.card_write(1), fetch_), mux_(2 + writers()) {
    posted_ = std::vector<PostedPort>(cores_);
    std::vector<std::vector<Engine*>> engines;
    for (size_t core = 0; core < cores_; ++core) {
      std::vector<Engine*> of_core;
      for (unsigned number_of_engine = 0; number_of_engine < ENGINES; ++number_of_engine) {
        engines_.push_back(make_engine(core, number_of_engine));
        of_core.push_back(engines_.back().get());
      }
      engines.push_back(std::move(of_core));
    }
    wakes_.assign(engines_.size(), NEVER);
    was_idle_.resize(cores_);
    processor_ = std::make_unique<Processor>(p_, std::move(engines), fetch_, semantics_, requester_,
                                             memory_);
    completer_ = std::make_unique<Completer>(p_, bytes_, *processor_, memory_.card_read(0),
                                             memory_.card_write(0));
    for (PostedPort& port : posted_) writers_.emplace_back(p_, port);
    writers_.emplace_back(p_, processor_->completion.port);
  }

 private:
  // One for each core's stores, and one for completions.
  size_t writers() const { return cores_ + 1; }

  std::unique_ptr<Engine> make_engine(size_t core, unsigned number) {
    const auto read = [&](unsigned i) -> ReadPort& { return memory_.core_read(core, i); };
    const auto write = [&](unsigned i) -> WritePort& { return memory_.core_write(core, i); };
    switch (number) {
      case LOAD_ENGINE:
        return std::make_unique<LoadEngine>(p_, read(0), write(0), requester_.dma(core));
      case STORE_ENGINE:
        return std::make_unique<StoreEngine>(p_, bytes_, read(1), posted_[core]);
      case MATMUL_ENGINE:
        return std::make_unique<MatmulEngine>(p_, read(8), read(9), read(10), write(3));
      case VECTOR_ENGINE:
        return std::make_unique<VectorEngine>(p_, read(2), read(3), write(1));
      default: {
        auto gather =
            std::make_unique<GatherEngine>(p_, bytes_, read(4), read(5), read(6), read(7), write(2));
        if (p_.gather_cache_bytes) memory_.watch(gather->watch);
        return gather;
      }
    }
  }

  bool step(int64_t end) override {
    for (;;) {
      const int64_t next = std::max(next_event(), cycle_);
      if (next >= end) break;
      cycle_ = next;
      evaluate(cycle_++);
      ++evaluated_;
      if (semantics_.failed()) return false;
    }
    cycle_ = std::max(cycle_, end);
    return true;
  }

  bool asleep_until(int64_t end) const override { return next_event() >= end; }

  int64_t next_event() const {
    if (soon_) return cycle_;
    return std::min({endpoint.next_event(cycle_), memory_.next(), front_next_, later_});
  }

  void evaluate(int64_t cycle) {
    told_ = std::exchange(soon_, 0);
    if (later_ <= cycle) wake_late(cycle);
    const auto read_told = [&](size_t core, size_t number) { tell(core, READ_OWNERS[number]); };
    const auto write_told = [&](size_t core, size_t number) { tell(core, WRITE_OWNERS[number]); };
    if (solo_.works() && (told_ & ~(uint64_t{1} << solo_engine_) || completer_->busy())) end_solo(cycle);
    memory_.begin(cycle, read_told, write_told);
    bool front = std::min(front_next_, endpoint.next_event(cycle)) <= cycle;
    if (front) begin_front();
    for (uint64_t left = told_; left; left &= left - 1) {
      const size_t i = first(left), core = i / ENGINES;
      offer(i, cycle);
      const size_t number = i % ENGINES;
      if (number == LOAD_ENGINE) front |= requester_.dma(core).valid;
      if (number == STORE_ENGINE) front |= posted_[core].valid || posted_[core].data_valid;
    }
    if (front) {
      completer_->offer(cycle, buffer_);
      requester_.offer();
      processor_->completion.offer();
      if (solo_.works() && memory_.card_asks() && end_solo(cycle)) {
        memory_.begin(cycle, read_told, write_told);
        if (told_ >> solo_engine_ & 1) offer(solo_engine_, cycle);
      }
      memory_.look_at_card();
    }
    memory_.arbitrate(read_told, write_told);
    if (front) exchange(cycle);
    for (uint64_t left = told_; left; left &= left - 1) {
      const size_t i = first(left);
      const bool passed = solo_.passes() && solo_.works(engines_[i].get());
      wake(i, passed ? solo_.conclude(cycle) : engines_[i]->clock(cycle), cycle);
      if (engines_[i]->done()) {
        front_next_ = processor_next_ = cycle + 1;
        processor_moved_ = true;
        if (solo_.works(engines_[i].get())) solo_.keep(cycle);
      }
    }
    if (product_core_ >= 0) begin_solo(static_cast<size_t>(std::exchange(product_core_, -1)), cycle);
    memory_.end(cycle);
    if (front) end_front(cycle);
  }

  void offer(size_t i, int64_t cycle) {
    engines_[i]->offer(cycle);
    memory_.look(i / ENGINES, static_cast<unsigned>(i % ENGINES));
  }

  // The product of `core` that was given to its engine in `cycle` may have memory to itself.
  void begin_solo(size_t core, int64_t cycle) {
    const size_t i = core * ENGINES + MATMUL_ENGINE;
    auto& engine = static_cast<MatmulEngine&>(*engines_[i]);
    const uint64_t own = uint64_t{1} << i;
    if (solo_.works() || !engine.waits() || soon_ & ~own) return;
    for (size_t other = 0; other < wakes_.size(); ++other) {
      if (other != i && wakes_[other] != NEVER) return;
    }
    soon_ &= ~own;
    solo_engine_ = i;
    wake(i, solo_.begin(core, engine, cycle, wakes_[i]), cycle);
  }
  // It has it to itself no longer. Whether cycles before `cycle` were caught up with: then its engine
  // is told of those from now on.
  bool end_solo(int64_t cycle) {
    const bool passed = solo_.passes();
    const int64_t next = solo_.end(cycle);
    if (!passed) return false;
    wakes_[solo_engine_] = next;
    if (next <= cycle) told_ |= uint64_t{1} << solo_engine_;
    else later_ = std::min(later_, next);
    return true;
  }

  void begin_front() {
    for (size_t i = 0; i < writers_.size(); ++i) {
      PostedPort& port = i < cores_ ? posted_[i] : processor_->completion.port;
      const bool idle = port.idle;
      writers_[i].begin(mux_.holds(2 + i));
      if (!idle && port.idle) tell(i, STORE_ENGINE);
    }
  }
  void end_front(int64_t cycle) {
    for (PostedPort& port : posted_) port.taken = port.data_taken = false;
    processor_->completion.port.taken = processor_->completion.port.data_taken = false;
    for (size_t core = 0; core < cores_; ++core) requester_.dma(core).taken = false;
    if (processor_moved_ || processor_->written()) processor_next_ = processor_->next(cycle);
    processor_moved_ = false;
    front_next_ = front_next(cycle);
  }

  // Engine `i` wants to be told of a cycle after `cycle`.
  void wake(size_t i, int64_t when, int64_t cycle) {
    wakes_[i] = when;
    if (when == cycle + 1) soon_ |= uint64_t{1} << i;
    else later_ = std::min(later_, when);
  }
  // Tells those of `cycle` that have asked for it long ago.
  void wake_late(int64_t cycle) {
    later_ = NEVER;
    for (size_t i = 0; i < wakes_.size(); ++i) {
      if (wakes_[i] <= cycle) told_ |= uint64_t{1} << i;
      else later_ = std::min(later_, wakes_[i]);
    }
  }

  static size_t first(uint64_t mask) { return static_cast<size_t>(__builtin_ctzll(mask)); }

  // The engine has to do with this cycle.
  void tell(size_t core, unsigned engine) {
    if (core < cores_) told_ |= uint64_t{1} << (core * ENGINES + engine);
  }

  // Everything between the packet streams and the engines.
  void exchange(int64_t cycle) {
    endpoint.np_ok = np_waiting_ < READ_QUEUE - NON_POSTED_LATE;
    endpoint.begin(cycle);
    const bool enable = processor_->bus_master(), discard = processor_->resetting();
    const bool leaves = mux_.busy() && endpoint.ready();
    const size_t chosen = mux_.choose(leaves, [&](size_t input) {
      if (input == 0) return completer_->replier.offers(cycle);
      if (input == 1) return requester_.offers();
      return writers_[input - 2].offers(enable);
    });
    if (leaves) {
      if (mux_.holds(1)) requester_.sent(mux_.tlp.tag(), cycle);
      if (mux_.last()) endpoint.end_packet(cycle, std::move(mux_.tlp));
      else endpoint.hold_beat();
    }
    bool last = true;
    if (chosen == 0) last = completer_->replier.offers_last();
    else if (chosen == 1) mux_.tlp = requester_.request();
    else if (chosen < 2 + writers_.size()) last = writers_[chosen - 2].offers_last();
    for (size_t i = 0; i < writers_.size(); ++i) {
      if (writers_[i].quiet()) continue;
      const bool taken = chosen == 2 + i;
      if (taken && writers_[i].offers_header()) processor_->posted_bytes.add(writers_[i].header_bytes(), cycle);
      writers_[i].clock(enable, discard, taken, mux_.tlp);
    }
    for (size_t core = 0; core < cores_; ++core) {
      if (posted_[core].taken || posted_[core].data_taken) tell(core, STORE_ENGINE);
    }
    const PostedPort& completion = processor_->completion.port;
    if (processor_next_ <= cycle || fetch_.word_valid || completion.taken || completion.data_taken) {
      processor_->clock(cycle, [&](size_t core, unsigned engine) {
        tell(core, engine);
        if (engine == MATMUL_ENGINE) product_core_ = static_cast<int>(core);
      });
      processor_moved_ = true;
    }
    if (!requester_.rests(cycle, buffer_, processor_->timeout())) request(cycle, enable, chosen == 1);
    completer_->replier.clock(cycle, chosen == 0, mux_.tlp);
    completer_->clock(cycle, buffer_);
    np_waiting_ -= completer_->replier.started();
    mux_.clock(leaves, chosen, last);
    if (endpoint.receiving() && buffer_.ready()) {
      const uint32_t kind = endpoint.received().type();
      np_waiting_ += endpoint.beat() == 0 && endpoint.received().flow() == NON_POSTED && !(kind >> 7);
      buffer_.take(cycle, endpoint);
      endpoint.take_beat(cycle);
    }
  }

  // `taken`: its request is, in `cycle`.
  void request(int64_t cycle, bool enable, bool taken) {
    for (size_t core = 0; core < cores_; ++core) was_idle_[core] = requester_.dma(core).idle;
    requester_.clock(cycle, buffer_, enable, processor_->timeout(), taken);
    for (size_t core = 0; core < cores_; ++core) {
      const DmaPort& dma = requester_.dma(core);
      if (dma.taken) tell(core, LOAD_ENGINE);
      // It is told of `idle` a cycle later, when that is so.
      if (dma.idle && !was_idle_[core]) wake(core * ENGINES + LOAD_ENGINE, cycle + 1, cycle);
    }
  }

  int64_t front_next(int64_t cycle) const {
    if (mux_.busy() || requester_.busy() || completer_->busy() || completer_->replier.busy()) {
      return cycle + 1;
    }
    for (const PostedWriter& writer : writers_) {
      if (writer.busy()) return cycle + 1;
    }
    for (const PostedPort& port : posted_) {
      if (!port.idle) return cycle + 1;
    }
    if (!processor_->completion.port.idle) return cycle + 1;
    int64_t next = processor_next_;
    if (!buffer_.empty()) next = std::min(next, std::max(cycle + 1, buffer_.offered_at()));
    return std::min(next, std::max(cycle + 1, requester_.watch_at(processor_->timeout())));
  }

  const Parameters p_;
  const size_t cores_;
  CardSemantics semantics_;
  CardBytes bytes_;
  MemorySystem memory_;
  matmul::Solo solo_;
  size_t solo_engine_ = 0;  // whose product it is
  int product_core_ = -1;   // whose engine of products was given one in this cycle, if any
  FetchPort fetch_;
  PacketBuffer buffer_;
  Requester requester_;
  PacketMux mux_;
  std::vector<PostedPort> posted_;
  std::vector<PostedWriter> writers_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Completer> completer_;
  std::vector<int64_t> wakes_;  // the cycle that each engine wants to be told of
  uint64_t soon_ = 0;           // engines that want to be told of the next one
  int64_t later_ = NEVER;       // no other wants to be told of one before
  std::vector<uint8_t> was_idle_;
  uint64_t told_ = 0;           // engines that have to do with this cycle
  int64_t cycle_ = 0;
  int64_t front_next_ = NEVER;      // when something happens between packet streams and engines
  int64_t processor_next_ = NEVER;  // and in the processor
  bool processor_moved_ = false;    // it was told of this cycle, or has to look at its engines
  unsigned np_waiting_ = 0;          // non-posted requests that have come and not begun
};

}  // namespace halfdome::timing
