// How the host answers requests: the loop of `Deployment.run` without cards, for ctypes
// (host/explore/queueing.py).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace {

constexpr double NEVER = -std::numeric_limits<double>::infinity();

struct Line {
  int64_t stages, slots;
  const uint8_t* waits;  // of each stage, whether the host waits for the stage before
};

// The stages of a round: of requests that follow each other, oldest first, each its next.
using Stages = std::vector<int32_t>;

// Writes when the host knows the answer to each request. `cards.begin(first, stages, now)` is told
// of each round, `cards.end(request, stage)` says when the host, waiting, knows that a stage ended.
template <class Cards>
void answer(const Line& line, const double* arrivals, int64_t count, Cards& cards, double* known) {
  const auto last = static_cast<int32_t>(line.stages) - 1;
  Stages under_way, stages;  // the next stage of each request that has begun and is not known
  double now = NEVER;
  for (int64_t oldest = 0; oldest < count; ++oldest) {
    for (;;) {
      const int64_t begun = oldest + static_cast<int64_t>(under_way.size());
      if (under_way.empty()) now = std::max(now, arrivals[begun]);
      const bool come = begun < count && arrivals[begun] <= now;
      if (come && static_cast<int64_t>(under_way.size()) < line.slots) {
        under_way.push_back(0);
      } else if (under_way.front() > last && (come || under_way.back() > last)) {
        break;
      }
      const auto open = std::find_if(under_way.begin(), under_way.end(),
                                     [&](int32_t stage) { return stage <= last; });
      const int64_t first = oldest + (open - under_way.begin());
      stages.assign(open, under_way.end());
      for (size_t i = 0; i < stages.size(); ++i) {
        if (line.waits[stages[i]]) {
          now = std::max(now, cards.end(first + static_cast<int64_t>(i), stages[i] - 1));
        }
      }
      cards.begin(first, stages, now);
      for (auto stage = open; stage != under_way.end(); ++stage) ++*stage;
    }
    now = std::max(now, cards.end(oldest, last));
    under_way.erase(under_way.begin());
    known[oldest] = now;
  }
}

// Cards as they were. Keeps of each stage of each request its round, and when that was issued.
struct Seen {
  const Line& line;
  const double *ends, *answered;
  int64_t* rounds;
  double* issued;
  int64_t next = 0;

  void begin(int64_t first, const Stages& stages, double now) {
    for (size_t i = 0; i < stages.size(); ++i) {
      const int64_t place = (first + static_cast<int64_t>(i)) * line.stages + stages[i];
      rounds[place] = next;
      issued[place] = now;
    }
    ++next;
  }

  double end(int64_t request, int64_t stage) const {
    return stage == line.stages - 1 ? answered[request] : ends[request * line.stages + stage];
  }
};

// When a stage of some round ends: so long `after` what it may wait for, and a spread more.
struct Told {
  std::vector<std::pair<size_t, double>> after;
  const double *spread, *spread_end, *next;
};

// Fills in, for each stage of a round that follows another, the number of what tells its end.
using Find = void (*)(const int32_t* stages, size_t count, const int32_t* before,
                      size_t before_count, int32_t* found);

class Modelled {
 public:
  Modelled(const Line& line, std::vector<Told> told, double notice, Find find)
      : _line(line), _told(std::move(told)), _notice(notice), _find(find),
        _last(static_cast<size_t>(line.stages) + 1, NEVER),
        _ends(static_cast<size_t>(line.stages * line.slots)) {}

  void begin(int64_t first, const Stages& stages, double now) {
    auto& [own, before] = _round;
    before.swap(own);
    if (std::all_of(_now.begin(), _now.end(), [&](double end) { return end <= now; })) {
      before.clear();
    }
    own = stages;
    auto [round, unknown] = _rounds.try_emplace(_round, stages.size());
    Stages& numbers = round->second;
    if (unknown) _find(own.data(), own.size(), before.data(), before.size(), numbers.data());
    _last[0] = now;
    _now.clear();
    for (const int32_t number : numbers) {
      Told& told = _told[static_cast<size_t>(number)];
      double end = NEVER;
      for (const auto& [each, cycles] : told.after) {
        if (_last[each] >= now) end = std::max(end, _last[each] + cycles);
      }
      _now.push_back(end + *told.next);
      if (++told.next == told.spread_end) told.next = told.spread;
    }
    for (size_t i = 0; i < stages.size(); ++i) {
      _last[static_cast<size_t>(stages[i]) + 1] = _now[i];
      _ends[place(first + static_cast<int64_t>(i), stages[i])] = _now[i];
    }
  }

  double end(int64_t request, int64_t stage) const {
    return _ends[place(request, stage)] + _notice;
  }

 private:
  size_t place(int64_t request, int64_t stage) const {
    return static_cast<size_t>(request % _line.slots * _line.stages + stage);
  }

  const Line& _line;
  std::vector<Told> _told;
  double _notice;
  Find _find;
  std::pair<Stages, Stages> _round;  // the last, and the one before if that ran when it was issued
  std::map<std::pair<Stages, Stages>, Stages> _rounds;
  std::vector<double> _last;  // the last issue, and the last end of each stage
  std::vector<double> _ends;  // of the requests under way
  std::vector<double> _now;  // the ends of the last round
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// `ends` is [count][stages], `answered` [count]; fills `rounds` and `issued`, [count][stages].
void queueing_seen(const Line* line, const double* arrivals, int64_t count, const double* ends,
                   const double* answered, int64_t* rounds, double* issued) {
  Seen seen{*line, ends, answered, rounds, issued};
  std::vector<double> known(static_cast<size_t>(count));
  answer(*line, arrivals, count, seen, known.data());
}

// `after` is [kinds][1 + stages], after its issue and after each stage, NaN for what is not waited
// for; the spreads of kind i are `spreads[starts[i]]` to `spreads[starts[i + 1]]`, which `find` may
// set when it first names the kind. Fills `known`, [count].
void queueing_modelled(const Line* line, const double* arrivals, int64_t count, int64_t kinds,
                       const double* after, const double* spreads, const int64_t* starts,
                       double notice, Find find, double* known) {
  std::vector<Told> told(static_cast<size_t>(kinds));
  const auto width = static_cast<size_t>(line->stages) + 1;
  for (size_t kind = 0; kind < told.size(); ++kind) {
    for (size_t each = 0; each < width; ++each) {
      const double cycles = after[kind * width + each];
      if (!std::isnan(cycles)) told[kind].after.emplace_back(each, cycles);
    }
    told[kind].spread = told[kind].next = spreads + starts[kind];
    told[kind].spread_end = spreads + starts[kind + 1];
  }
  Modelled modelled(*line, std::move(told), notice, find);
  answer(*line, arrivals, count, modelled, known);
}

}  // extern "C"
#pragma GCC visibility pop
