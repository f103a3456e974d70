# SEXTANT_LEAN: engine and kernels on a machine with gcc, CMake, CUDA and Python alone (bench/gpu_check.sh). What the engine needs
# from outside comes from SEXTANT_THIRD_PARTY (bench/gpu_check.sh --pack fills it) or from the system: nlohmann's headers and
# GoogleTest's sources. Left out: text (PCRE2, utf8proc, sentencepiece), downloads (libcurl), the server, Google Benchmark.
set(SEXTANT_THIRD_PARTY ${PROJECT_SOURCE_DIR}/third_party CACHE PATH "folder with nlohmann/ and googletest/")

find_path(SEXTANT_NLOHMANN nlohmann/json.hpp HINTS ${SEXTANT_THIRD_PARTY} REQUIRED)
add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
set_target_properties(nlohmann_json::nlohmann_json PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${SEXTANT_NLOHMANN})

add_library(OpenSSL::Crypto INTERFACE IMPORTED)
set_target_properties(OpenSSL::Crypto PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR}/bench/gpu/lean)
add_library(CURL::libcurl INTERFACE IMPORTED)

if(SEXTANT_TESTS)
  include(cmake/googletest_source.cmake)
endif()
