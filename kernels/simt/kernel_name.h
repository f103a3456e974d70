// The demangled name of a kernel from its address, for reports: kernels have internal linkage, so the dynamic symbols do not
// hold them and the program's own symbol table is read.
#pragma once

#include <string>

namespace sextant::simt {

std::string kernel_name(const void* function);

}  // namespace sextant::simt
