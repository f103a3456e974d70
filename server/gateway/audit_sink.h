// AuditSink: where it is told who did what, when, and what came of it: every admin action and every refused request. What
// keeps the record stands behind this interface. Any thread; must not block for long.
#pragma once

#include <cstdint>
#include <string>

namespace sextant {

struct AuditEvent {
  int64_t unix_ms = 0;
  std::string who;             // key id; empty: nobody that we know
  std::string tenant;          // likewise
  std::string client_address;  // empty: the command line
  std::string request_id;
  std::string action;   // "keys.create", "authorise"
  std::string target;   // the key's id, the route
  std::string outcome;  // "done", "refused", "failed"
  std::string detail;   // never a secret; prompts only where the operator asked for them
  int64_t prompt_tokens = 0, completion_tokens = 0;
  std::string model = {};  // of a served request, and what follows
  int status = 0;          // of its HTTP answer; 499: its client went first
  int64_t duration_ms = 0;
  std::string prompt = {};  // only where the operator asked for prompts
};

class AuditSink {
 public:
  virtual ~AuditSink() = default;
  virtual void record(const AuditEvent& event) = 0;
};

}  // namespace sextant
