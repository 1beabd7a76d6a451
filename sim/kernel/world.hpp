// Cards, fabric and host memory, advanced together.
//
// Synchronisation is conservative. Nothing a card does has an effect in the switch before
// `lookahead_up`, and nothing the switch does reaches a card before `lookahead_down`: so the fabric
// may handle events up to the one beyond the cards, and the cards may then run up to the other
// beyond the fabric. The outcome is that of a simulation in strict time order, for every number of
// threads and every window. Host software acts at fabric time.
#pragma once

#include <atomic>
#include <memory>

#include "../fabric/fabric.hpp"
#include "rtl_card.hpp"
#include "threads.hpp"

namespace halfdome {

struct WorldSettings {
  FabricSettings fabric;
  DramSettings dram;
  int64_t cards, threads, window_cycles;  // window 0: as long as the lookahead allows
};

// What makes a card that the world knows as a `Card` only; the world owns it.
struct CardMaker {
  Card* (*make)(void* context, int64_t number, Endpoint&& link, const DramSettings& dram);
  void* context;
};

class World {
 public:
  enum Reason { ARRIVED = 0, READ_DONE = 1, INTERRUPT = 2, STOPPED = 4 };

  World(const WorldSettings& settings, uint8_t* host_memory, std::vector<Bars> bars)
      : s_(settings), clock_(settings.dram.clock_mhz), bars_(bars),
        fabric(s_.fabric, host_memory, std::move(bars)) {}

  void add_card(const CardModel& model, uint8_t* memory, uint64_t bytes, const TlpPins& tlp,
                const AxiPins& axi, std::vector<Pin>&& outputs) {
    cards.push_back(std::make_unique<RtlCard>(
        model, next_endpoint(), Dram(s_.dram, memory, bytes, axi.arid.width),
        static_cast<unsigned>(s_.dram.bus_bytes), tlp, axi, std::move(outputs)));
  }

  // A card of any other kind; `make` is told its number.
  void add_card(const CardMaker& maker) {
    cards.emplace_back(maker.make(maker.context, static_cast<int64_t>(cards.size()),
                                  next_endpoint(), s_.dram));
  }

  // Advances until fabric and cards have reached the start of cycle `target`, or a `stop` notice of the root
  // complex, or a card model ends the simulation.
  Reason run(int64_t target, unsigned stop) {
    if (failed_) return STOPPED;
    if (!threads_) {
      const auto workers = static_cast<size_t>(s_.threads);
      begun_ = std::vector<std::atomic<int64_t>>(cards.size());
      threads_ = std::make_unique<Threads>(workers, [this, workers](size_t worker) {
        // Its own cards first, which its processor's cache holds, then those nobody has begun.
        const size_t count = cards.size(), first = worker * count / workers;
        for (size_t step = 0; step < count; ++step) {
          const size_t i = (first + step) % count;
          if (begun_[i].exchange(end_) == end_) continue;
          if (!cards[i]->reached(end_) && !cards[i]->run(end_)) failed_ = true;
        }
      });
    }
    if (const unsigned notice = fabric.root.take_notices(stop)) return Reason(notice);
    const int64_t target_time = clock_.start(target);
    for (;;) {
      const int64_t limit = std::min(target_time, clock_.start(end_) + fabric.lookahead_up());
      if (const unsigned notice = fabric.run(limit, stop)) return Reason(notice);
      deliver();
      if (fabric.now() >= target_time && end_ >= target) return ARRIVED;
      const int64_t start = end_;
      end_ = clock_.first_cycle(fabric.now() + fabric.lookahead_down());
      if (s_.window_cycles) end_ = std::min(end_, start + s_.window_cycles);
      bool asleep = true;
      for (auto& card : cards) asleep &= card->skip_idle(end_);
      if (!asleep) threads_->run();
      if (failed_) return STOPPED;
      collect();
    }
  }

  int64_t cycle() const { return clock_.first_cycle(fabric.now()); }

 private:
  // The end of the link of the card that is added next.
  Endpoint next_endpoint() const {
    const size_t index = cards.size();
    const FabricSettings& f = s_.fabric;
    return Endpoint(clock_, fabric.card_line(), f.card_credits, Fabric::card_id(index),
                    bars_[index], {f.reset_offset, f.reset_value},
                    static_cast<unsigned>(s_.dram.bus_bytes),
                    static_cast<unsigned>(f.max_payload_bytes));
  }

  void deliver() {
    for (size_t i = 0; i < cards.size(); ++i) {
      for (TimedTlp& item : fabric.received[i]) {
        cards[i]->endpoint.deliver(item.time, std::move(item.tlp));
      }
      fabric.received[i].clear();
      for (const CreditReturn& item : fabric.returned[i]) cards[i]->endpoint.line.credits.give(item);
      fabric.returned[i].clear();
    }
  }

  void collect() {
    for (size_t i = 0; i < cards.size(); ++i) {
      for (TimedTlp& item : cards[i]->endpoint.outbox) {
        fabric.arrive_from_card(i, item.time, std::move(item.tlp));
      }
      cards[i]->endpoint.outbox.clear();
      for (const CreditReturn& item : cards[i]->endpoint.returned) {
        fabric.credit_from_card(i, item.time, item.credit);
      }
      cards[i]->endpoint.returned.clear();
    }
  }

  WorldSettings s_;
  CardClock clock_;
  std::vector<Bars> bars_;
  int64_t end_ = 0;  // the cards have simulated every cycle before this one
  std::vector<std::atomic<int64_t>> begun_;  // the `end_` to which a card was last sent
  std::atomic<bool> failed_{false};

 public:
  Fabric fabric;
  std::vector<std::unique_ptr<Card>> cards;

 private:
  std::unique_ptr<Threads> threads_;  // last: its threads end before what they use
};

}  // namespace halfdome
