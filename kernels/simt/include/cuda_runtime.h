// Shadow of <cuda_runtime.h>: the same names, run on the CPU. Found before the toolkit's where the emulator is built.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include "kernels/simt/device_code.h"
#include "kernels/simt/runtime.h"

union cudaLaunchAttributeValue {
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

template <typename... Expected, typename... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Actual&&... actual) {
  auto body = [kernel, arguments = std::tuple<Expected...>(std::forward<Actual>(actual)...)] {
    std::apply(kernel, arguments);
  };
  const dim3& g = config->gridDim;
  const dim3& b = config->blockDim;
  return static_cast<cudaError_t>(
      ::sextant::simt::enqueue_launch(reinterpret_cast<const void*>(kernel), {g.x, g.y, g.z}, {b.x, b.y, b.z},
                                      config->dynamicSmemBytes, config->stream, std::move(body)));
}
template <typename... Arguments>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Arguments...), cudaFuncAttribute attribute, int value) {
  return static_cast<cudaError_t>(
      ::sextant::simt::set_function_attribute(reinterpret_cast<const void*>(kernel), attribute, value));
}
