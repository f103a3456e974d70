// A bad access of device code (SIGSEGV, SIGBUS) becomes an error report of its block; one of the host's stays a crash, with
// a line that says so when the address is a device's.
#pragma once

namespace sextant::simt {

// Once per process.
void install_fault_handler();
// Once per thread that runs device code: a stack for the handler, because the fibre's may be used up.
void prepare_thread_for_faults();

}  // namespace sextant::simt
