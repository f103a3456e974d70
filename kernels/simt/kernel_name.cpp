#include "kernels/simt/kernel_name.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <vector>

namespace sextant::simt {
namespace {

// The symbol of a function that begins at `offset` of the ELF file; empty when the file is stripped or not understood.
std::string symbol_at(const char* file, uintptr_t offset, uintptr_t base) {
  std::ifstream in(file, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (bytes.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) return "";
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const uintptr_t wanted = header.e_type == ET_EXEC ? base + offset : offset;
  const auto section = [&](size_t index) {
    Elf64_Shdr s = {};
    const size_t at = header.e_shoff + index * sizeof(Elf64_Shdr);
    if (index < header.e_shnum && at + sizeof(s) <= bytes.size()) std::memcpy(&s, bytes.data() + at, sizeof(s));
    return s;
  };
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr symbols = section(i);
    if (symbols.sh_type != SHT_SYMTAB || symbols.sh_offset + symbols.sh_size > bytes.size()) continue;
    const Elf64_Shdr names = section(symbols.sh_link);
    if (names.sh_offset + names.sh_size > bytes.size()) continue;
    for (size_t at = 0; at + sizeof(Elf64_Sym) <= symbols.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, bytes.data() + symbols.sh_offset + at, sizeof(symbol));
      if (symbol.st_value != wanted || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      if (symbol.st_name < names.sh_size) return bytes.data() + names.sh_offset + symbol.st_name;
    }
  }
  return "";
}

// Without return type and parameters: "sextant::kernels::cuda::add_rms_norm_kernel<float>".
std::string shorten(std::string name) {
  for (const char* noise : {"(anonymous namespace)::"}) {
    for (size_t at = name.find(noise); at != std::string::npos; at = name.find(noise)) {
      name.erase(at, std::strlen(noise));
    }
  }
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (depth != 0) continue;
    if (name[i] == ' ') begin = i + 1;
    if (name[i] == '(') return name.substr(begin, i - begin);
  }
  return name.substr(begin);
}

}  // namespace

std::string kernel_name(const void* function) {
  Dl_info info = {};
  std::string symbol;
  if (dladdr(function, &info) != 0 && info.dli_fname != nullptr) {
    const auto base = reinterpret_cast<uintptr_t>(info.dli_fbase);
    symbol = symbol_at(info.dli_fname, reinterpret_cast<uintptr_t>(function) - base, base);
    // The program's own path may be relative to a folder that is no longer the current one.
    if (symbol.empty()) symbol = symbol_at("/proc/self/exe", reinterpret_cast<uintptr_t>(function) - base, base);
    if (symbol.empty() && info.dli_saddr == function && info.dli_sname != nullptr) symbol = info.dli_sname;
  }
  if (symbol.empty()) return "kernel";
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  if (demangled != nullptr) symbol = demangled;
  std::free(demangled);
  return shorten(symbol);
}

}  // namespace sextant::simt
