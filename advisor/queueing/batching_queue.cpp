#include "advisor/queueing/batching_queue.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <queue>

#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr uint64_t kFewestAlike = 6;  // steps that are worth skipping together

class BatchingQueue {
 public:
  BatchingQueue(const QueueServer& server, const std::vector<QueueRequest>& requests, int64_t concurrency,
                uint64_t max_steps)
      : server_(server), requests_(requests), concurrency_(concurrency), max_steps_(max_steps) {
    sequences_.resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      sequences_[i].prompt = requests[i].prompt_tokens;
      sequences_[i].output = requests[i].output_tokens;
      CHECK(room_of(sequences_[i].prompt + sequences_[i].output) <= server.kv_tokens) << "request " << i;
    }
    run_.outcomes.resize(requests.size(), {kNever, kNever, kNever});
  }

  QueueRun run() {
    for (int64_t i = 0; i < concurrency_; ++i) send_next();
    while (true) {
      while (concurrency_ == 0 && next_ < requests_.size() && requests_[next_].arrival_s <= now_) {
        waiting_.push_back(enter(requests_[next_].arrival_s));
      }
      skip_alike();
      const bool has_room = static_cast<int64_t>(in_flight_.size()) < server_.max_steps_in_flight;
      const bool submitted = has_room && submit();
      const bool is_full = static_cast<int64_t>(in_flight_.size()) == server_.max_steps_in_flight;
      if (!in_flight_.empty() && (is_full || !submitted)) {
        collect();
        if (run_.steps >= max_steps_) {
          run_.gave_up = true;
          break;
        }
      } else if (!submitted) {
        if (concurrency_ > 0 || next_ == requests_.size()) break;
        now_ = std::max(now_, requests_[next_].arrival_s);
      }
    }
    run_.end_s = now_;
    if (run_.busy_s > 0) {
      run_.mean_running /= run_.busy_s;
      run_.mean_kv_tokens /= run_.busy_s;
    }
    return std::move(run_);
  }

 private:
  struct Sequence {
    int64_t prompt = 0;  // to compute before the next token: with what was lost by preemption
    int64_t output = 0;  // tokens still to come
    int64_t computed = 0;
    double arrival_s = 0;
    uint64_t first_step = 0;  // in which the prompt was done
    uint32_t version = 0;     // of its entry in ends_: preemption makes the old one void
    bool started = false;
    bool has_token = false;
  };
  struct End {
    uint64_t step;
    uint32_t idx;
    uint32_t version;
    bool operator>(const End& other) const { return step > other.step; }
  };
  struct Step {
    double finish_s = 0;
    std::vector<uint32_t> first_tokens;  // of sequences whose prompt is done with it
    std::vector<uint32_t> ends;
  };

  double room_of(int64_t tokens) const {
    const int64_t blocks = (tokens + server_.block_size - 1) / server_.block_size;
    return static_cast<double>(blocks * server_.block_size);
  }
  double half_block() const { return 0.5 * static_cast<double>(server_.block_size - 1); }
  double kv_in_use() const {
    return context_ + prefilling_kv_ + ending_kv_ + half_block() * static_cast<double>(num_running_);
  }

  uint32_t enter(double arrival_s) {
    sequences_[next_].arrival_s = arrival_s;
    return static_cast<uint32_t>(next_++);
  }
  void send_next() {
    if (next_ < requests_.size()) waiting_.push_back(enter(now_));
  }

  // Steps in which the same sequences decode, nobody ends and nobody can come, are taken together: their times are those of the
  // first, the middle and the last, by Simpson's rule (exact while a step's time grows with the context as a square at most).
  void skip_alike() {
    const auto num_in_flight = static_cast<uint64_t>(in_flight_.size());
    if (decoding_ == 0 || num_in_flight + 1 != static_cast<uint64_t>(server_.max_steps_in_flight)) return;
    if (!prefilling_.empty() || !leaving_.empty() || preempted_) return;
    for (const Step& step : in_flight_)
      if (!step.first_tokens.empty() || !step.ends.empty()) return;
    const auto decoding = static_cast<double>(decoding_);
    const double room = server_.kv_tokens - kv_in_use();
    if (!waiting_.empty() && num_running_ < server_.max_num_seqs &&
        room >= room_of(sequences_[waiting_.front()].prompt))
      return;
    while (!ends_.empty() && ends_.top().version != sequences_[ends_.top().idx].version) ends_.pop();
    if (ends_.empty() || ends_.top().step <= last_step_ + kFewestAlike) return;
    auto most = static_cast<double>(std::min(ends_.top().step - last_step_ - 1, max_steps_ - run_.steps));
    // Tokens are added before each step; what would need a preemption is not skipped.
    most = std::min(most, std::floor(room / decoding) - 1);
    const auto seconds_of = [&](double ahead) {
      StepLoad load;
      load.sequences = load.tokens = decoding;
      load.context_tokens = load.pairs = context_ + decoding * ahead;
      return server_.cost.seconds(load);
    };
    if (concurrency_ == 0 && next_ < requests_.size() && waiting_.empty()) {
      const double until = requests_[next_].arrival_s - now_;
      most = std::min(most, std::floor(until / seconds_of(1)));
      if (most < static_cast<double>(kFewestAlike)) return;
      // Later steps take longer.
      most = std::min(most, std::floor(until / seconds_of(most))) - static_cast<double>(num_in_flight) - 1;
    }
    if (most < static_cast<double>(kFewestAlike)) return;
    const double last = seconds_of(most);
    const double seconds = most / 6 * (seconds_of(1) + 4 * seconds_of((most + 1) / 2) + last);
    device_free_ = std::max(now_, device_free_) + seconds;
    for (size_t i = 0; i < in_flight_.size(); ++i)
      in_flight_[i].finish_s = device_free_ - static_cast<double>(in_flight_.size() - 1 - i) * last;
    now_ = device_free_ - static_cast<double>(num_in_flight) * last;
    run_.busy_s += seconds;
    run_.mean_running += seconds * static_cast<double>(num_running_);
    run_.mean_kv_tokens += seconds * (kv_in_use() + decoding * most / 2);
    context_ += decoding * most;
    last_step_ += static_cast<uint64_t>(most);
    run_.steps += static_cast<uint64_t>(most);
  }

  // Forms a step of what runs and waits. False: there is nothing to do.
  bool submit() {
    leave();
    const uint64_t number = ++last_step_;
    Step step = recycled();
    make_room(number);

    StepLoad load;
    load.sequences = load.tokens = static_cast<double>(decoding_);
    load.context_tokens = load.pairs = context_ + static_cast<double>(decoding_);
    double budget = static_cast<double>(server_.max_num_batched_tokens) - load.tokens;
    size_t kept = 0;
    for (size_t i = 0; i < prefilling_.size(); ++i) {
      const uint32_t idx = prefilling_[i];
      // One token stays for each of the prompts behind it.
      if (!compute_prompt(idx, budget - static_cast<double>(prefilling_.size() - i - 1), budget, load, step)) {
        prefilling_[kept++] = idx;
      }
    }
    prefilling_.resize(kept);
    while (!preempted_ && budget >= 1 && !waiting_.empty() && num_running_ < server_.max_num_seqs) {
      const uint32_t idx = waiting_.front();
      Sequence& sequence = sequences_[idx];
      const bool alone = num_running_ == 0;
      if (!alone && kv_in_use() + room_of(sequence.prompt) > server_.kv_tokens) break;
      waiting_.pop_front();
      if (!sequence.started) {
        sequence.started = true;
        run_.outcomes[idx].queue_s = now_ - sequence.arrival_s;
      }
      ++num_running_;
      running_.push_back(idx);
      // Its cache is taken as a whole, so that prompts do not begin only to evict each other.
      prefilling_kv_ += static_cast<double>(sequence.prompt);
      if (!compute_prompt(idx, budget, budget, load, step)) prefilling_.push_back(idx);
    }
    preempted_ = false;
    if (load.sequences == 0) {
      --last_step_;
      free_steps_.push_back(std::move(step));
      return false;
    }
    const double seconds = server_.cost.seconds(load);
    device_free_ = std::max(now_, device_free_) + seconds;
    step.finish_s = device_free_;
    run_.busy_s += seconds;
    run_.mean_running += seconds * static_cast<double>(num_running_);
    run_.mean_kv_tokens += seconds * kv_in_use();
    // Decoding sequences have one token more; those whose prompt is done decode from the next step on.
    context_ += static_cast<double>(decoding_);
    for (const uint32_t idx : step.first_tokens) begin_decode(idx, number);
    for (; !ends_.empty() && ends_.top().step == number; ends_.pop()) {
      const End& end = ends_.top();
      if (end.version == sequences_[end.idx].version) step.ends.push_back(end.idx);
    }
    leaving_ = step.ends;
    in_flight_.push_back(std::move(step));
    return true;
  }

  // As much of a prompt as `most` allows. True when it is done.
  bool compute_prompt(uint32_t idx, double most, double& budget, StepLoad& load, Step& step) {
    Sequence& sequence = sequences_[idx];
    const auto chunk = std::min(sequence.prompt - sequence.computed, static_cast<int64_t>(std::max(most, 0.0)));
    if (chunk <= 0) return false;
    const auto tokens = static_cast<double>(chunk);
    const auto before = static_cast<double>(sequence.computed);
    sequence.computed += chunk;
    budget -= tokens;
    load.sequences += 1;
    load.tokens += tokens;
    load.context_tokens += before + tokens;
    load.pairs += tokens * before + tokens * (tokens + 1) / 2;
    if (sequence.computed < sequence.prompt) return false;
    step.first_tokens.push_back(idx);
    return true;
  }

  void begin_decode(uint32_t idx, uint64_t number) {
    Sequence& sequence = sequences_[idx];
    sequence.first_step = number;
    prefilling_kv_ -= static_cast<double>(sequence.prompt);
    ++decoding_;
    context_ += static_cast<double>(sequence.prompt);
    ends_.push({number + static_cast<uint64_t>(sequence.output) - 1, idx, sequence.version});
  }
  // Tokens in the cache before step `number`.
  double context_of(const Sequence& sequence, uint64_t number) const {
    return static_cast<double>(sequence.prompt) + static_cast<double>(number - sequence.first_step - 1);
  }

  // The last to come gives way until every decoding sequence has room for its next token.
  void make_room(uint64_t number) {
    while (decoding_ > 1 && kv_in_use() + static_cast<double>(decoding_) > server_.kv_tokens) {
      const auto last = std::find_if(running_.rbegin(), running_.rend(), [&](uint32_t idx) {
        const Sequence& sequence = sequences_[idx];
        return sequence.first_step > 0 && number < sequence.first_step + static_cast<uint64_t>(sequence.output);
      });
      if (last == running_.rend()) return;
      const uint32_t idx = *last;
      running_.erase(std::next(last).base());
      Sequence& sequence = sequences_[idx];
      const double context = context_of(sequence, number);
      const auto done =
          static_cast<int64_t>(number - sequence.first_step);  // tokens that it has, or that are on their way
      context_ -= context;
      --decoding_;
      --num_running_;
      ++sequence.version;
      sequence.prompt += done;
      sequence.output -= done;
      sequence.computed = 0;
      sequence.first_step = 0;
      waiting_.push_front(idx);
      ++run_.preemptions;
      preempted_ = true;
    }
  }

  void collect() {
    leave();
    Step step = std::move(in_flight_.front());
    in_flight_.pop_front();
    now_ = std::max(now_, step.finish_s);
    ++run_.steps;
    for (const uint32_t idx : step.first_tokens) {
      Sequence& sequence = sequences_[idx];
      if (sequence.has_token) continue;  // again after a preemption
      sequence.has_token = true;
      run_.outcomes[idx].ttft_s = now_ - sequence.arrival_s + server_.fixed_ttft_s;
    }
    for (const uint32_t idx : step.ends) {
      Sequence& sequence = sequences_[idx];
      run_.outcomes[idx].e2e_s = now_ - sequence.arrival_s + server_.fixed_ttft_s;
      ending_kv_ -= static_cast<double>(sequence.prompt + sequence.output - 1);
      --num_running_;
      ++sequence.version;
      running_.erase(std::find(running_.begin(), running_.end(), idx));
      if (concurrency_ > 0) send_next();
    }
    step.first_tokens.clear();
    step.ends.clear();
    free_steps_.push_back(std::move(step));
  }
  // Sequences whose last token is in the last step formed come in no other; cache and place are theirs until it is collected.
  void leave() {
    for (const uint32_t idx : leaving_) {
      const double context = context_of(sequences_[idx], last_step_ + 1);
      --decoding_;
      context_ -= context;
      ending_kv_ += context;
    }
    leaving_.clear();
  }
  Step recycled() {
    if (free_steps_.empty()) return {};
    Step step = std::move(free_steps_.back());
    free_steps_.pop_back();
    return step;
  }

  const QueueServer& server_;
  const std::vector<QueueRequest>& requests_;
  const int64_t concurrency_;
  const uint64_t max_steps_;

  std::vector<Sequence> sequences_;
  std::deque<uint32_t> waiting_;
  std::vector<uint32_t> prefilling_;  // in order of admission
  std::vector<uint32_t> running_;     // all that hold a place, in order of admission
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
  std::vector<uint32_t> leaving_;
  std::deque<Step> in_flight_;
  std::vector<Step> free_steps_;
  int64_t decoding_ = 0;  // sequences in the next step that have their prompt
  int64_t num_running_ = 0;
  double context_ = 0;        // tokens in the cache of those
  double prefilling_kv_ = 0;  // taken by prompts that are being computed
  double ending_kv_ = 0;      // of sequences whose last step is in flight
  bool preempted_ = false;    // in this step: then nobody new comes in
  double now_ = 0;
  double device_free_ = 0;
  uint64_t last_step_ = 0;
  size_t next_ = 0;
  QueueRun run_;
};

}  // namespace

QueueRun run_queue(const QueueServer& server, const std::vector<QueueRequest>& requests, int64_t concurrency,
                   uint64_t max_steps) {
  return BatchingQueue(server, requests, concurrency, max_steps).run();
}

}  // namespace sextant::advisor
