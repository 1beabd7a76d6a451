// A component in parts that were compiled by themselves: a shell, and units joined to its pins.
//
// What is combinational may go from any part through others and back. Parts are settled in turn as
// long as a pin changes; values that stay are the only ones there are, if no loop is combinational.
//
// A unit whose inputs hold still and whose state repeats itself from one cycle to the next is at
// rest: it stays as it is until an input changes, and costs nothing. A unit counts no cycles.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "../kernel/card_model.hpp"

namespace halfdome {

// A pin of one part, and that of another which it drives.
struct Wire {
  const void* from;
  void* to;
  uint32_t bytes;
};

class Wires {
 public:
  Wires(const Wire* wires, size_t count) {
    for (const Wire* wire = wires; wire != wires + count; ++wire) {
      switch (wire->bytes) {
        case 1: add(bytes_, *wire); break;
        case 2: add(halves_, *wire); break;
        case 4: add(words_, *wire); break;
        case 8: add(doubles_, *wire); break;
        default: wide_.push_back(*wire);
      }
    }
  }

  // Brings every value across; whether one was another than before.
  bool carry() {
    bool changed = carry(bytes_) | carry(halves_) | carry(words_) | carry(doubles_);
    for (const Wire& wire : wide_) {
      if (!std::memcmp(wire.to, wire.from, wire.bytes)) continue;
      std::memcpy(wire.to, wire.from, wire.bytes);
      changed = true;
    }
    return changed;
  }

 private:
  template <typename Value>
  struct Narrow {
    const Value* from;
    Value* to;
  };

  template <typename Value>
  static void add(std::vector<Narrow<Value>>& wires, const Wire& wire) {
    wires.push_back({static_cast<const Value*>(wire.from), static_cast<Value*>(wire.to)});
  }

  template <typename Value>
  static bool carry(std::vector<Narrow<Value>>& wires) {
    Value differences = 0;
    for (const Narrow<Value>& wire : wires) {
      const Value value = *wire.from;
      differences |= *wire.to ^ value;
      *wire.to = value;
    }
    return differences != 0;
  }

  std::vector<Narrow<uint8_t>> bytes_;
  std::vector<Narrow<uint16_t>> halves_;
  std::vector<Narrow<uint32_t>> words_;
  std::vector<Narrow<uint64_t>> doubles_;
  std::vector<Wire> wide_;
};

class Linked {
 public:
  explicit Linked(const CardModel& shell) : shell_(shell) {}

  void add(const CardModel& unit, Wires&& inputs, Wires&& outputs) {
    units_.push_back({unit, std::move(inputs), std::move(outputs)});
  }

  // Settles all parts; false if they do not settle.
  bool settle() {
    for (Unit& unit : units_) {
      if (!unit.resting) unit.outputs.carry();
    }
    for (int round = 0; round < MOST_ROUNDS; ++round) {
      shell_.settle(shell_.context);
      bool changed = false;
      for (Unit& unit : units_) {
        const bool woken = unit.inputs.carry();
        if (woken) {
          unit.resting = false;
          unit.quiet = -1;
          repeating_ = false;
        }
        if (unit.resting || (round && !woken)) continue;
        unit.model.settle(unit.model.context);
        changed |= unit.outputs.carry();
      }
      if (!changed) {
        for (Unit& unit : units_) unit.watch();
        return true;
      }
    }
    settled_ = false;
    return false;
  }
  bool settled() const { return settled_; }

  void edge() {
    shell_.edge(shell_.context);
    for (Unit& unit : units_) {
      if (!unit.resting) unit.model.edge(unit.model.context);
    }
  }

  // See `CardModel`. While all units rest, the shell alone says whether everything repeats itself.
  void remember() {
    shell_.remember(shell_.context);
    repeating_ = true;
    for (const Unit& unit : units_) repeating_ &= unit.resting;
  }
  bool repeated() { return repeating_ && shell_.repeated(shell_.context); }
  void advance(int64_t periods) { shell_.advance(shell_.context, periods); }

 private:
  // A path through more parts than this is taken for a loop.
  static constexpr int MOST_ROUNDS = 100;

  struct Unit {
    CardModel model;
    Wires inputs, outputs;
    bool resting = false;
    int64_t quiet = -1, look_at = FIRST_LOOK;  // cycles with the inputs of the one before

    // Told once a cycle is settled. Looking at the state takes as long as some cycles: look after
    // `FIRST_LOOK`, and then each time after twice as many. What repeats itself after more than a
    // cycle does not stay as it is.
    void watch() {
      if (resting || model.idle_period != 1) return;
      if (++quiet == 0) {
        look_at = FIRST_LOOK;
      } else if (quiet == look_at) {
        model.remember(model.context);
      } else if (quiet == look_at + 1) {
        resting = model.repeated(model.context);
        look_at = 2 * quiet;
      }
    }
    static constexpr int64_t FIRST_LOOK = 8;
  };

  CardModel shell_;
  std::vector<Unit> units_;
  bool repeating_ = false, settled_ = true;
};

}  // namespace halfdome
