#include "kernels/cuda/attention_prefill.cuh"

namespace sextant::kernels::cuda {

template int launch_prefill<fp16>(const AttentionArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
