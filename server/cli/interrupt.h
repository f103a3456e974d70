// Interrupt: Ctrl-C as a flag that long work asks for, while an object of this class lives.
#pragma once

#include <csignal>

namespace sextant::cli {

class Interrupt {
 public:
  // SIGINT sets the flag instead of ending the process; blocking system calls return early. One object at a time.
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  static bool requested();
  static void clear();

 private:
  struct sigaction before_;
};

}  // namespace sextant::cli
