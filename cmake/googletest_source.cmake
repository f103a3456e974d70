# GoogleTest from its sources (Debian's package googletest, or SEXTANT_THIRD_PARTY): where no library of it fits the build.
find_path(SEXTANT_GOOGLETEST googletest/include/gtest/gtest.h
  HINTS ${SEXTANT_THIRD_PARTY}/googletest /usr/src/googletest REQUIRED)
set(INSTALL_GTEST OFF)
add_subdirectory(${SEXTANT_GOOGLETEST} googletest EXCLUDE_FROM_ALL)
foreach(library gtest gtest_main gmock gmock_main)
  target_compile_options(${library} PRIVATE -w)
endforeach()
