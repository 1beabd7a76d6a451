// What is known of descriptors that were checked before.
#pragma once

#include <cstring>
#include <string>
#include <unordered_map>

#include "engine.hpp"

namespace halfdome::timing {

// A program hands over the same descriptors for every request, but for what they are called, wait for
// and signal: no rule looks at that.
class Verdicts {
 public:
  // The verdict on a command of `core`: the one that is kept, or what `check` says.
  template <typename Check>
  Result of(size_t core, const uint8_t* descriptor, const uint8_t* extension, Check check) {
    const std::string key = without_values(core, descriptor, extension);
    const auto found = kept_.find(key);
    if (found != kept_.end()) return found->second;
    const Result verdict = check();
    if (kept_.size() == MOST) kept_.clear();
    kept_.emplace(key, verdict);
    return verdict;
  }

 private:
  static constexpr size_t MOST = 1 << 16;

  static std::string without_values(size_t core, const uint8_t* descriptor, const uint8_t* extension) {
    std::string key(reinterpret_cast<const char*>(descriptor), DESCRIPTOR_BYTES);
    const auto blank = [&](Field field, size_t slot = 0) {
      std::memset(&key[slot + field.start], 0, field.bytes);
    };
    const Opcode opcode = Opcode(descriptor[0]);
    for (const Field field : {header_fields::id, header_fields::wait_value, header_fields::signal_value}) {
      blank(field);
    }
    if (opcode == Opcode::SIGNAL) blank(signal_fields::value);
    if (extension) {
      key.append(reinterpret_cast<const char*>(extension), DESCRIPTOR_BYTES);
      blank(extension_fields::second_wait_value, DESCRIPTOR_BYTES);
    }
    key.append(reinterpret_cast<const char*>(&core), sizeof core);
    return key;
  }

  std::unordered_map<std::string, Result> kept_;
};

}  // namespace halfdome::timing
