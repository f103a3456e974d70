// The one way in which kernels are launched; no <<<>>> anywhere. Under the emulator the same call runs the same kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace sextant::kernels::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
  // Programmatic dependent launch: the kernel may begin while the one before ends; it must call grid_dependency_wait()
  // before it reads what that one wrote. Compute capability 9.0; elsewhere no effect.
  bool overlaps_previous = false;
};

template <typename... Expected, typename... Actual>
cudaError_t launch(const LaunchShape& shape, cudaStream_t stream, void (*kernel)(Expected...), Actual&&... actual) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.dynamic_shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = shape.overlaps_previous ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Actual>(actual)...);
}

}  // namespace sextant::kernels::cuda
