#include "server/cli/interrupt.h"

namespace sextant::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) { interrupted = 1; }

}  // namespace

Interrupt::Interrupt() {
  clear();
  struct sigaction action = {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: a waiting read() returns
  sigaction(SIGINT, &action, &before_);
}

Interrupt::~Interrupt() { sigaction(SIGINT, &before_, nullptr); }

bool Interrupt::requested() { return interrupted != 0; }

void Interrupt::clear() { interrupted = 0; }

}  // namespace sextant::cli
