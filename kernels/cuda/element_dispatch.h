// From an ElementType to the C++ type of an element. Host side.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/element.h"
#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

// What `call` returns, which is given a value of the type.
template <typename Call>
int with_element_type(ElementType type, const Call& call) {
  switch (type) {
    case ElementType::kFloat32: return call(float{});
    case ElementType::kBFloat16: return call(bf16{});
    case ElementType::kFloat16: return call(fp16{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
