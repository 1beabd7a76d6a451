// Threads that step cards side by side between two barriers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace halfdome {

// Runs `work(worker)` for every worker at once; the caller is worker 0. Waiting threads spin, then
// yield, then sleep, so that a barrier costs little during a run and nothing between runs.
class Crew {
 public:
  Crew(size_t workers, std::function<void(size_t)> work) : work_(std::move(work)) {
    for (size_t worker = 1; worker < workers; ++worker) {
      threads_.emplace_back([this, worker] { serve(worker); });
    }
  }

  ~Crew() {
    stopping_ = true;
    release();
    for (std::thread& thread : threads_) thread.join();
  }

  void run() {
    if (threads_.empty()) return work_(0);
    busy_ = threads_.size();
    release();
    work_(0);
    for (int spins = 0; busy_ != 0; ++spins) pause(spins);
  }

 private:
  static constexpr int SPINS = 200, YIELDS = 2000;

  static void pause(int spins) {
    if (spins >= SPINS) std::this_thread::yield();
  }

  void release() {
    ++round_;
    if (sleeping_ != 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
  }

  void serve(size_t worker) {
    for (uint64_t seen = 0;;) {
      for (int spins = 0; round_ == seen && spins < SPINS + YIELDS; ++spins) pause(spins);
      if (round_ == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleeping_;
        wake_.wait(lock, [&] { return round_ != seen; });
        --sleeping_;
      }
      ++seen;
      if (stopping_) return;
      work_(worker);
      --busy_;
    }
  }

  std::function<void(size_t)> work_;
  std::vector<std::thread> threads_;
  std::atomic<uint64_t> round_{0};
  std::atomic<size_t> busy_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace halfdome
