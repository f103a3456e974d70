#include "kernels/cuda/attention_decode.cuh"

namespace sextant::kernels::cuda {

template int launch_decode<bf16>(const AttentionArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
