# One static library per row of ARCHITECTURE's dependency table, and the warnings that all our code is held to.

add_library(sextant_flags INTERFACE)
set(sextant_host_options
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -ffp-contract=off              # a*b+c is fused only where a kernel says so: one numeric recipe per path
  -fno-omit-frame-pointer)
target_compile_options(sextant_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${sextant_host_options}>"
  $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
target_include_directories(sextant_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_link_libraries(sextant_flags INTERFACE Threads::Threads)
if(SEXTANT_SANITIZE)
  # GCC's manual: instrumented code gives false alarms of this kind. The release build keeps the warning.
  target_compile_options(sextant_flags INTERFACE -Wno-maybe-uninitialized)
endif()
if(SEXTANT_SANITIZE STREQUAL "address")
  target_compile_options(sextant_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all)
  target_link_options(sextant_flags INTERFACE -fsanitize=address,undefined)
elseif(SEXTANT_SANITIZE STREQUAL "thread")
  target_compile_options(sextant_flags INTERFACE -fsanitize=thread -Wno-tsan)   # Asio's fences
  target_link_options(sextant_flags INTERFACE -fsanitize=thread)
elseif(SEXTANT_FUZZ)
  # Warnings are held to zero under g++; clang's other opinions must not stop a fuzzer from being built.
  target_compile_options(sextant_flags INTERFACE -Wno-error -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all)
  target_link_options(sextant_flags INTERFACE -fsanitize=address,undefined)
elseif(SEXTANT_SANITIZE)
  message(FATAL_ERROR "SEXTANT_SANITIZE is address or thread, not '${SEXTANT_SANITIZE}'")
endif()

# sextant_library(NAME <name> SOURCES <files...> DEPS <libraries...>)
function(sextant_library)
  cmake_parse_arguments(arg "" "NAME" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_SOURCES)
    add_library(${arg_NAME} INTERFACE)
    target_link_libraries(${arg_NAME} INTERFACE sextant_flags ${arg_DEPS})
    return()
  endif()
  add_library(${arg_NAME} STATIC ${arg_SOURCES})
  target_link_libraries(${arg_NAME} PUBLIC sextant_flags ${arg_DEPS})
endfunction()
