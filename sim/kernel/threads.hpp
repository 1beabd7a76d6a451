// Threads that step cards side by side between two barriers.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace halfdome {

// Runs `work(worker)` for every worker at once; the caller is worker 0. Who waits spins for a while
// and then sleeps: spinning is cheaper where every thread has a processor, sleeping where other
// programs take their turns. How long it spins follows how often that was enough.
class Threads {
 public:
  Threads(size_t workers, std::function<void(size_t)> work) : work_(std::move(work)) {
    for (size_t worker = 1; worker < workers; ++worker) {
      threads_.emplace_back([this, worker] { serve(worker); });
    }
  }

  ~Threads() {
    stopping_ = true;
    ++round_;
    start_.signal();
    for (std::thread& thread : threads_) thread.join();
  }

  void run() {
    busy_ = threads_.size();
    ++round_;
    start_.signal();
    work_(0);
    if (!threads_.empty()) finish_.wait(finish_budget_, [this] { return busy_ == 0; });
  }

 private:
  static constexpr int LEAST_SPINS = 50, MOST_SPINS = 5000;

  // Lets threads wait for a condition that another thread makes true and then signals.
  class Bell {
   public:
    template <typename Condition>
    void wait(int& budget, Condition condition) {
      for (int spins = 0; spins < budget; ++spins) {
        if (condition()) {
          budget = std::min(budget * 2, MOST_SPINS);
          return;
        }
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
      budget = std::max(budget / 2, LEAST_SPINS);
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleepers_;
      changed_.wait(lock, condition);
      --sleepers_;
    }

    void signal() {
      if (sleepers_ == 0) return;
      const std::lock_guard<std::mutex> lock(mutex_);
      changed_.notify_all();
    }

   private:
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
  };

  void serve(size_t worker) {
    int budget = LEAST_SPINS;
    for (uint64_t seen = 0;; ++seen) {
      start_.wait(budget, [&] { return round_ != seen; });
      if (stopping_) return;
      work_(worker);
      --busy_;
      finish_.signal();
    }
  }

  std::function<void(size_t)> work_;
  std::vector<std::thread> threads_;
  std::atomic<uint64_t> round_{0};
  std::atomic<size_t> busy_{0};
  std::atomic<bool> stopping_{false};
  Bell start_, finish_;
  int finish_budget_ = LEAST_SPINS;
};

}  // namespace halfdome
