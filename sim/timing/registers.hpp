// What the host reads and writes in BAR0 (hdl/registers.py, hdl/command/register_file.py).
#pragma once

#include "processor.hpp"

namespace halfdome::timing {

inline void Processor::snapshot(int64_t cycle) {
  snapshot_cycles_ = cycle;
  auto place = snapshot_.begin();
  for (const auto& core : engines_) {
    for (const Engine* engine : core) {
      for (unsigned activity = 0; activity < ACTIVITIES; ++activity) {
        *place++ = static_cast<uint64_t>(engine->account.count(activity, cycle));
      }
    }
  }
  const auto counted = [&](unsigned number, const Count& count) {
    traffic_[number] = static_cast<uint64_t>(count.before(cycle - 1));  // a cycle late
  };
  counted(traffic::dram_read_bytes, memory_.traffic.read_bytes);
  counted(traffic::dram_write_bytes, memory_.traffic.written_bytes);
  counted(traffic::pcie_read_bytes, requester_.read_bytes);
  counted(traffic::pcie_write_bytes, posted_bytes);
  counted(traffic::weight_dram_bytes, memory_.traffic.weight_dram_bytes);
  counted(traffic::weight_scratchpad_bytes, memory_.traffic.weight_scratchpad_bytes);
  const auto of_gathers = [&](unsigned number, auto count) {
    int64_t sum = 0;
    for (const auto& core : engines_) sum += count(*core[GATHER_ENGINE]);
    traffic_[number] = static_cast<uint64_t>(sum);
  };
  of_gathers(traffic::gather_cache_hits, [&](const Engine& e) { return e.cache_hits(cycle - 1); });
  of_gathers(traffic::gather_cache_misses, [&](const Engine& e) { return e.cache_misses(cycle - 1); });
  for (unsigned wait = 0; wait < GATHER_WAITS; ++wait) {
    of_gathers(GATHER_WAIT_TRAFFIC[wait], [&](const Engine& e) { return e.waited(wait, cycle - 1); });
  }
}

inline uint32_t Processor::read(unsigned offset, int64_t cycle) {
  const auto half = [&](uint64_t value) {
    return static_cast<uint32_t>(offset & 4 ? value >> 32 & 0xFFFF : value);
  };
  if (offset >= TRAFFIC_BASE) {
    const unsigned number = (offset - TRAFFIC_BASE) / 8;
    return number < TRAFFICS ? half(traffic_[number]) : 0;
  }
  if (offset >= ACTIVITY_BASE) {
    const unsigned number = (offset - ACTIVITY_BASE) / 8;
    return number < snapshot_.size() ? half(snapshot_[number]) : 0;
  }
  if (offset >= COUNTER_BASE) {
    const unsigned number = (offset - COUNTER_BASE) / 4;
    return number < counters_.size() ? counters_[number] : 0;
  }
  if (offset >= CORE_BASE) {
    const size_t core = (offset - CORE_BASE) / CORE_STRIDE;
    if (core >= cores_) return 0;
    const SubmissionRing& ring = rings_[core];
    switch ((offset - CORE_BASE) % CORE_STRIDE) {
      case core_reg::SQ_BASE_LO: return static_cast<uint32_t>(ring.base);
      case core_reg::SQ_BASE_HI: return static_cast<uint32_t>(ring.base >> 32);
      case core_reg::SQ_SIZE: return ring.size;
      case core_reg::SQ_TAIL: return ring.tail;
      case core_reg::SQ_HEAD: return ring.head;
      case core_reg::CORE_STATUS:
        return drained(core) * STATUS_IDLE | stopped_[core] * STATUS_FETCH_FAILED |
               core_flush_[core] * STATUS_RESETTING;
      case core_reg::SQ_PRIORITY: return memory_.urgent_cores >> core & 1;
    }
    return 0;
  }
  for (unsigned i = 0; i < MSIX_VECTORS; ++i) {
    const Vector& vector = completion.vectors[i];
    switch (offset - MSIX_TABLE - 16 * i) {
      case 0: return static_cast<uint32_t>(vector.address);
      case 4: return static_cast<uint32_t>(vector.address >> 32);
      case 8: return vector.data;
      case 12: return vector.masked;
    }
  }
  bool stopped = false;
  for (const uint8_t each : stopped_) stopped |= each;
  switch (offset) {
    case reg::ID: return IDENTIFICATION;
    case reg::VERSION: return INTERFACE_VERSION;
    case reg::CONFIG_HASH_LO: return static_cast<uint32_t>(p_.hash_low);
    case reg::CONFIG_HASH_HI: return static_cast<uint32_t>(p_.hash_high);
    case reg::CONTROL: return run_;
    case reg::STATUS:
      return idle() * STATUS_IDLE | stopped * STATUS_FETCH_FAILED | resetting_ * STATUS_RESETTING;
    case reg::CYCLES_LO: snapshot(cycle); return static_cast<uint32_t>(cycle);
    case reg::CYCLES_HI: return static_cast<uint32_t>(snapshot_cycles_ >> 32 & 0xFFFF);
    case reg::CQ_BASE_LO: return static_cast<uint32_t>(completion.base);
    case reg::CQ_BASE_HI: return static_cast<uint32_t>(completion.base >> 32);
    case reg::CQ_SIZE: return completion.size;
    case reg::CQ_HEAD: return completion.head;
    case reg::CQ_TAIL: return completion.tail;
    case reg::DROPPED_REQUESTS: return dropped_requests_;
    case reg::POISONED_REQUESTS: return poisoned_requests_;
    case reg::REJECTED_DOORBELLS: return rejected_doorbells_;
    case reg::UNEXPECTED_COMPLETIONS: return requester_.events[UNEXPECTED];
    case reg::LATE_COMPLETIONS: return requester_.events[LATE];
    case reg::MALFORMED_COMPLETIONS: return requester_.events[MALFORMED];
    case reg::UNSUCCESSFUL_COMPLETIONS: return requester_.events[UNSUCCESSFUL];
    case reg::POISONED_COMPLETIONS: return requester_.events[POISONED];
    case reg::COMPLETION_TIMEOUTS: return requester_.events[TIMED_OUT];
    case reg::QUARANTINED_TAGS: return requester_.quarantined();
    case reg::OUTSTANDING_READS: return requester_.outstanding();
    case reg::COMPLETION_TIMEOUT_CYCLES: return timeout_;
    case reg::BUS_MASTER: return bus_master_;
    case reg::MSIX_PENDING: return completion.pending();
    case reg::MSIX_FUNCTION_MASK: return completion.function_mask;
  }
  return 0;
}

inline void Processor::write(unsigned offset, uint32_t value, int64_t) {
  written_ = true;
  const auto low = [&](uint64_t base, uint32_t mask) {
    return (base >> 32 << 32) | (value & mask);
  };
  const auto high = [&](uint64_t base) { return (base & 0xFFFF'FFFF) | uint64_t{value} << 32; };
  const bool is_size = value >= 2 && value <= 4096 && (value & (value - 1)) == 0;
  if (offset >= COUNTER_BASE) {
    const unsigned number = (offset - COUNTER_BASE) / 4;
    if (number < counters_.size()) counters_[number] = value;
    return;
  }
  if (offset >= CORE_BASE) {
    const size_t core = (offset - CORE_BASE) / CORE_STRIDE;
    if (core >= cores_) return;
    SubmissionRing& ring = rings_[core];
    switch ((offset - CORE_BASE) % CORE_STRIDE) {
      case core_reg::SQ_BASE_LO: if (!run_) ring.base = low(ring.base, ~0x3Fu); break;
      case core_reg::SQ_BASE_HI: if (!run_) ring.base = high(ring.base); break;
      case core_reg::SQ_SIZE: if (!run_ && is_size) ring.size = value; break;
      case core_reg::SQ_TAIL:
        if (value < ring.size) ring.tail = value;
        else reject();
        break;
      case core_reg::CORE_CONTROL: core_flush_[core] |= value >> 1 & 1; break;
      case core_reg::SQ_PRIORITY: {
        const uint32_t bit = uint32_t{cores_ > 1} << core;
        memory_.urgent_cores = value & 1 ? memory_.urgent_cores | bit : memory_.urgent_cores & ~bit;
        break;
      }
    }
    return;
  }
  for (unsigned i = 0; i < MSIX_VECTORS; ++i) {
    Vector& vector = completion.vectors[i];
    switch (offset - MSIX_TABLE - 16 * i) {
      case 0: vector.address = low(vector.address, ~3u); return;
      case 4: vector.address = high(vector.address); return;
      case 8: vector.data = value; return;
      case 12: vector.masked = value & 1; return;
    }
  }
  switch (offset) {
    case reg::CONTROL:
      if (value & CONTROL_RESET) {
        resetting_ = true;
      } else if (!resetting_) {
        if (value & CONTROL_RUN && !run_) {
          for (SubmissionRing& ring : rings_) {
            ring.restart = true;
            ring.tail = 0;
          }
          std::fill(stopped_.begin(), stopped_.end(), false);
          completion.head = 0;
          completion.restart();
        }
        run_ = value & CONTROL_RUN;
      }
      break;
    case reg::CQ_HEAD: {
      const unsigned mask = completion.size - 1;
      const unsigned consumed = (value - completion.head) & mask & 0xFFF;
      const unsigned written = (completion.tail - completion.head) & mask & 0xFFF;
      if (value < completion.size && consumed <= written) completion.head = value;
      else reject();
      break;
    }
    case reg::CQ_BASE_LO: if (!run_) completion.base = low(completion.base, ~0x3Fu); break;
    case reg::CQ_BASE_HI: if (!run_) completion.base = high(completion.base); break;
    case reg::CQ_SIZE: if (!run_ && is_size) completion.size = value; break;
    case reg::COMPLETION_TIMEOUT_CYCLES: timeout_ = value; break;
    case reg::BUS_MASTER: bus_master_ = value & 1; break;
    case reg::MSIX_FUNCTION_MASK: completion.function_mask = value & 1; break;
  }
}

}  // namespace halfdome::timing
