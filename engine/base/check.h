// CHECK: an invariant of ours. Never reachable from user input; prints the values and aborts, in every build.
//   CHECK(a < b) << "while freeing block " << id;   CHECK_EQ(a, b);
#pragma once

#include <sstream>

namespace sextant::internal {

// Collects the message; aborts when destroyed.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace sextant::internal

#define CHECK(condition) \
  (condition)            \
      ? (void)0          \
      : ::sextant::internal::Voidify() & ::sextant::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()
#define SEXTANT_CHECK_OP(a, op, b) CHECK((a)op(b)) << " (" << (a) << " vs " << (b) << ") "
#define CHECK_EQ(a, b) SEXTANT_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) SEXTANT_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) SEXTANT_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) SEXTANT_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) SEXTANT_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) SEXTANT_CHECK_OP(a, >=, b)
