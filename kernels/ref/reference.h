// The definition of correct for every op, in scalar fp64 on plain row-major arrays. Never optimised, never used by the engine:
// the op suite holds each instruction set to these.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/panel.h"

namespace sextant::kernels::ref {

float f32_of_f16(uint16_t h);
uint16_t f16_of_f32(float x);  // round to nearest even
float f32_of_bf16(uint16_t h);
uint16_t bf16_of_f32(float x);  // round to nearest even; NaN stays NaN
// OCP 8-bit Floating Point Specification, E4M3: largest 448, no infinity, NaN is 0x7f and 0xff.
float f32_of_e4m3(uint8_t bits);
uint8_t e4m3_of_f32(float x);  // round to nearest even; beyond 448 to 448; NaN stays NaN

// One row in the file's encoding (panel.h) to numbers, exactly.
std::vector<double> dequantize_row(PanelType type, const uint8_t* row, int64_t cols);
// What is added to a multiple of the quant: m of kQ4_1, m n of kQ4K and kQ5K; else 0.
std::vector<double> minimums_of_row(PanelType type, const uint8_t* row, int64_t cols);

// out[t, n] = sum over k of x[t, k] w[n, k]; and the same sum over |x w|, to which errors are proportional.
struct MatmulResult {
  std::vector<double> out;
  std::vector<double> magnitude;
};
MatmulResult matmul(std::span<const double> x, std::span<const double> w, int64_t tokens, int64_t rows, int64_t cols);
MatmulResult matmul(std::span<const float> x, std::span<const double> w, int64_t tokens, int64_t rows, int64_t cols);

// x [rows, cols] as the int8 recipe of kernels/matmul.h sees it: e q per block of 32 columns.
std::vector<double> quantized_activations(std::span<const float> x, int64_t rows, int64_t cols);

std::vector<double> rms_norm(std::span<const float> x, std::span<const float> weight, double eps);

// residual += the parts, in their order, in fp32 (reduce_norm.h states it so); the norm of that in fp64.
std::vector<double> reduce_add_rms_norm(std::span<const std::vector<float>> parts, std::span<float> residual,
                                        std::span<const float> weight, double eps);

double silu(double x);

// Rotates one head in place: pairs (i, i + rotary_dim / 2), angle = position * theta^(-2 i / rotary_dim).
void rope(std::span<double> head, int64_t position, int64_t rotary_dim, double theta);

struct AttentionProblem {
  double scale;
  double softcap;
  int64_t window;
};
// One query row at `position` over keys and values [position + 1][dim] (row-major, position order).
std::vector<double> attention(std::span<const double> q, std::span<const double> keys, std::span<const double> values,
                              int64_t position, const AttentionProblem& problem);

}  // namespace sextant::kernels::ref
