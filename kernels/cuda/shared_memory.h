// The two ways to declare shared memory; kernels use no other.
//   SEXTANT_SHARED(float, tile, [32][33]);       static: at most 48 KB of a kernel
//   SEXTANT_DYNAMIC_SHARED(float4, buffer);      what the launch asked for, 16-byte aligned
#pragma once

#include <cuda_runtime.h>

#if defined(SEXTANT_SIMT)
#define SEXTANT_SHARED(type, name, extent)                                                  \
  auto& name = *static_cast<type(*) extent>(::sextant::simt::current_block().static_shared( \
      []() -> const void* {                                                                 \
        static const char key = 0;                                                          \
        return &key;                                                                        \
      }(),                                                                                  \
      sizeof(type extent), alignof(type) < 16 ? 16 : alignof(type)))
#define SEXTANT_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(::sextant::simt::current_block().dynamic_shared())
#else
#define SEXTANT_SHARED(type, name, extent) __shared__ __align__(16) type name extent
#define SEXTANT_DYNAMIC_SHARED(type, name)                               \
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared_memory)
#endif
