// Forward: one request on its way: picks a member, passes the request on and the answer back, and goes elsewhere while the
// client has not had a byte. On its exchange's strand, but for on_member_down(). Ends with the answer, or with its client.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "server/fleet/fleet.h"
#include "server/fleet/request_facts.h"
#include "server/http/exchange.h"

namespace sextant::fleet {

class Forward : public std::enable_shared_from_this<Forward> {
 public:
  Forward(std::shared_ptr<Fleet> fleet, std::shared_ptr<http::Exchange> exchange);
  ~Forward();

  void start();
  // Any thread.
  void on_member_down();

 private:
  void attempt();
  http::UpstreamRequest request_for(const Fleet::NamedPool& pool) const;
  void on_head(http::UpstreamHead head);
  void on_body(std::string_view bytes);
  void on_end(http::UpstreamEnd end, const std::string& reason);
  void begin_stream();
  void finish_whole();
  void lose_stream(const std::string& reason);
  // True: another member has it now. `seen`: this one has had the request, so that it counts against the budget.
  bool retry(const char* why, bool seen);
  void release(Outcome outcome, const std::string& reason);
  void refuse(int status, const std::string& message, const char* code, double retry_after_s = 0);
  void done();
  void on_client_gone();
  void on_cancel();

  const std::shared_ptr<Fleet> fleet_;
  std::shared_ptr<http::Exchange> exchange_;
  RequestFacts facts_;
  Fleet::NamedPool* pool_ = nullptr;  // that it is at: the model's, or one that took over
  std::set<MemberId> tried_;          // of that pool
  std::shared_ptr<http::UpstreamCall> call_;
  std::optional<Pool::Pick> pick_;
  int64_t tokens_left_ = 0;
  int64_t picked_ns_ = 0;
  http::UpstreamHead head_;
  bool has_head_ = false;
  bool has_body_ = false;   // a byte has come
  bool is_stream_ = false;  // begun to the client
  bool collects_ = false;   // the answer is short: it goes out whole
  bool paused_ = false;
  bool done_ = false;
  std::string collected_;
  // The last answer that said that its server has too much to do, in case nobody has less.
  std::optional<http::HttpResponse> busy_answer_;
};

}  // namespace sextant::fleet
