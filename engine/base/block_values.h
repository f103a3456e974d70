// What the blocks of ggml stand for: rows of block-quantised weights as fp32. Slow beside a kernel, and right: for what is done once,
// at load or when a file is converted. Layouts are those of ggml (ggml-common.h's block structs; ggml-quants.c says what they mean),
// MXFP4's that of the OCP Microscaling Formats (MX) Specification 1.0. Pure; any thread.
#pragma once

#include <cstdint>

#include "engine/base/weight_type.h"

namespace sextant {

// Whether decode_row() knows the type: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4.
bool has_block_values(WeightType type);

// out[0..cols) = the row's values, in fp32 with ggml's order of operations, and so bit by bit what ggml says. `row` holds
// cols / block_geometry(type).elements blocks one after another, at any alignment; cols is a multiple of the block. Any bytes are
// blocks: a scale that is infinite or NaN gives values that are, as does an MXFP4 scale that the largest fp32 ends before.
void decode_row(WeightType type, const uint8_t* row, int64_t cols, float* out);

// Whether a row of the type is, value for value, a row of Q8_0 with the same scales: Q5_0 and IQ4_NL, whose quants are int8.
bool is_exact_as_q8_0(WeightType type);

// That row: cols / 32 blocks of 34 bytes.
void recode_row_as_q8_0(WeightType type, const uint8_t* row, int64_t cols, uint8_t* out);

}  // namespace sextant
