# Toolchain for 64-bit Arm Linux on another machine: Debian's g++-aarch64-linux-gnu. Programs are linked statically, so that
# qemu-aarch64-static (qemu-user-static) runs them without any of Arm's libraries.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
find_program(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)
