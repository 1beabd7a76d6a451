// Requests against the DRAM channels alone, without AXI4 in front, for ctypes (sim/dram/replay.py).
#include <algorithm>

#include "channel.hpp"

using namespace halfdome;

namespace {

struct Replay {
  std::vector<std::vector<DramCommand>> logs;
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Offers `count` lines in order, each from its clock in `arrivals` on, to the channel it lies in; a
// line that finds the queue full holds up those behind it. `done[i]` becomes the clock at which the
// line has arrived, or, of a write, at which it was queued. Returns a handle on the command logs.
Replay* dram_replay(const DramSettings* settings, const int64_t* lines, const uint8_t* writes,
                    const int64_t* arrivals, size_t count, int log, int64_t* done) {
  std::vector<DramChannel> channels(static_cast<size_t>(settings->channels),
                                    DramChannel(*settings));
  auto* replay = new Replay;
  replay->logs.resize(channels.size());
  if (log) {
    for (size_t i = 0; i < channels.size(); ++i) channels[i].log = &replay->logs[i];
  }
  size_t next = 0;
  int64_t clock = count ? arrivals[0] : 0;
  for (;;) {
    for (; next < count && arrivals[next] <= clock; ++next) {
      DramChannel& channel = channels[settings->channel_of(lines[next])];
      if (writes[next]) {
        if (!channel.write(lines[next], ~uint64_t{0}, clock)) break;
        done[next] = clock;
      } else {
        if (!channel.read_room()) break;
        channel.read(lines[next], clock, &done[next]);
      }
    }
    int64_t until = next < count && arrivals[next] > clock ? arrivals[next] : NEVER;
    for (const DramChannel& channel : channels) until = std::min(until, channel.wake() + 1);
    if (until >= NEVER) return replay;
    clock = std::max(clock + 1, until);
    for (DramChannel& channel : channels) channel.run(clock);
  }
}

size_t dram_replay_log(const Replay* replay, size_t channel, const DramCommand** commands) {
  *commands = replay->logs[channel].data();
  return replay->logs[channel].size();
}

void dram_replay_free(Replay* replay) { delete replay; }

}  // extern "C"
#pragma GCC visibility pop
