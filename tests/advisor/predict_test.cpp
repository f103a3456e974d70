// The advisor's numbers: tables, algebra, physics against the engine's memory model, the process' closed forms against
// fits without the rows, intervals and verdicts, and what bad files are told.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "advisor/catalog.h"
#include "advisor/csv.h"
#include "advisor/memory_fit.h"
#include "advisor/predict/accuracy.h"
#include "advisor/predict/predictor.h"
#include "engine/model/memory_model.h"

namespace sextant::advisor {
namespace {

SquareMatrix positive_definite(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  SquareMatrix b(n);
  for (double& value : b.a) value = normal(random);
  SquareMatrix a(n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      for (size_t t = 0; t < n; ++t) a.row(i)[j] += b.row(i)[t] * b.row(j)[t];
      if (i == j) a.row(i)[j] += static_cast<double>(n);
    }
  return a;
}

TEST(DenseSolver, FactorInverseAndBlocksAgreeAtOddSizes) {
  for (const size_t n : {size_t{1}, size_t{2}, size_t{63}, size_t{64}, size_t{65}, size_t{150}, size_t{199}}) {
    const SquareMatrix a = positive_definite(n, static_cast<unsigned>(n));
    SquareMatrix lower = a;
    ASSERT_TRUE(cholesky_in_place(lower));
    // |A - L L^T| <= n * eps * |A| (Higham, Accuracy and Stability, 10.3), with |A| <= its trace.
    double trace = 0;
    for (size_t i = 0; i < n; ++i) trace += a.row(i)[i];
    const double tolerance = static_cast<double>(n) * 1.2e-16 * trace * 2;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (size_t t = 0; t <= j; ++t) sum += lower.row(i)[t] * lower.row(j)[t];
        ASSERT_NEAR(sum, a.row(i)[j], tolerance) << n << " at " << i << "," << j;
      }
    const SquareMatrix inverse = invert_lower(lower);
    std::vector<double> y(n, 1.0);
    const std::vector<double> x = solve(inverse, y);
    for (size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (size_t j = 0; j < n; ++j) sum += a.row(i)[j] * x[j];
      ASSERT_NEAR(sum, 1.0, 1e-9) << n;
    }
    std::vector<size_t> ids;
    for (size_t i = 0; i < n; i += 3) ids.push_back(i);
    const SquareMatrix block = inverse_block(inverse, ids);
    const std::vector<double> diagonal = inverse_diagonal(inverse);
    for (size_t i = 0; i < ids.size(); ++i) ASSERT_NEAR(block.row(i)[i], diagonal[ids[i]], 1e-12);
  }
  SquareMatrix indefinite(2);
  indefinite.a = {1, 2, 2, 1};
  EXPECT_FALSE(cholesky_in_place(indefinite));
}

TEST(Csv, ReadsWhatSpreadsheetsWriteAndRefusesTheRest) {
  const auto table = parse_csv(
      "\xEF\xBB\xBF"
      "a,b\r\n\"x,\"\"y\"\"\nz\",2\n\n3,\n",
      "t.csv");
  ASSERT_TRUE(table.ok()) << table.status().message();
  ASSERT_EQ(table->rows.size(), 2u);
  EXPECT_EQ(table->rows[0][0], "x,\"y\"\nz");
  EXPECT_EQ(table->rows[1][1], "");
  EXPECT_EQ(table->lines[1], 5);
  for (const char* bad :
       {"", "\n\n", "a,b\n1\n", "a,b\n1,2,3\n", "a\n\"open\n", "a\n\xff\xfe\n", "a\n\xC0\xAF\n", "a\n\xED\xA0\x80\n"})
    EXPECT_FALSE(parse_csv(bad, "t.csv").ok()) << bad;
  EXPECT_FALSE(parse_csv(std::string("a\n1\0\n", 5), "t.csv").ok());
  EXPECT_NE(parse_csv("a,b\n1\n", "t.csv").status().message().find("line 2"), std::string::npos);
  for (const char* bad : {"", "x", "1x", "nan", "inf", "1e999", "-1", "0x10", " 1"})
    EXPECT_FALSE(parse_number(bad, "n", 0, 10).ok()) << bad;
  EXPECT_EQ(parse_number("2.5", "n", 0, 10).value(), 2.5);
}

TEST(ServingPoints, ErrorsNameLineAndColumn) {
  const std::string header =
      "model_id,gpu,engine,tensor_parallel,attention_data_parallel,moe_tensor_parallel,moe_expert_parallel,concurrency,"
      "prompt_tokens,output_tokens,ttft_mean_ms,tpot_mean_ms\n";
  const std::string good = "m,g,vllm,1,1,1,1,8,1024,128,50,10\n";
  EXPECT_TRUE(read_serving_points(*parse_csv(header + good, "t")).ok());
  const std::pair<std::string, std::string> cases[] = {{"m,g,vllm,1,1,1,1,8,1024,128,50,-1\n", "tpot_mean_ms"},
                                                       {"m,g,vllm,0,1,1,1,8,1024,128,50,1\n", "tensor_parallel"},
                                                       {"m,g,vllm,1,1,1,1,1e300,1024,128,50,1\n", "concurrency"},
                                                       {",g,vllm,1,1,1,1,8,1024,128,50,1\n", "model_id"},
                                                       {"m,g,vllm,1,1,1,1,8,nan,128,50,1\n", "prompt_tokens"}};
  for (const auto& [row, column] : cases) {
    const auto points = read_serving_points(*parse_csv(header + good + row, "t"));
    ASSERT_FALSE(points.ok()) << row;
    EXPECT_NE(points.status().message().find("line 3"), std::string::npos) << points.status().message();
    EXPECT_EQ(points.status().param(), column);
  }
  EXPECT_FALSE(read_serving_points(*parse_csv("model_id,gpu\nm,g\n", "t")).ok());
}

// For every shape that the engine's memory model knows, the advisor's sums are its sums.
TEST(ModelFacts, AgreeWithTheEnginesMemoryModel) {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 128256;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_hidden_layers = 32;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.max_position_embeddings = 131072;
  for (const int experts : {0, 8}) {
    config.num_experts = experts;
    config.num_experts_per_token = experts > 0 ? 2 : 0;
    for (const bool tied : {false, true}) {
      config.tie_word_embeddings = tied;
      const ModelFacts facts = FactsTable::from_config("m", config);
      const FactCounts counts = count(facts);
      const ParameterCounts engine = count_parameters(config);
      EXPECT_EQ(counts.dense(), static_cast<double>(engine.layers));
      EXPECT_EQ(counts.experts, static_cast<double>(engine.experts));
      EXPECT_EQ(counts.head, static_cast<double>(engine.lm_head));
      EXPECT_EQ(counts.stored(), static_cast<double>(engine.stored() - engine.vectors));
      EXPECT_EQ(2 * kv_elements_per_token(facts), static_cast<double>(kv_bytes_per_token(config, DType::kBFloat16)));
      const double flops = prefill_work(config, WeightType::kBF16, DType::kBFloat16, 1000).flops;
      const double ours = 2 * (counts.dense() + counts.active_experts) * 1000 +
                          2 * facts.num_hidden_layers * attention_width(facts) * 1000 * 1000 + 2 * counts.head;
      EXPECT_NEAR(ours / flops, 1.0, 2e-3);  // the engine counts s (s + 1) / 2 pairs, we s^2 / 2
    }
  }
  // Published sizes: 8.03, 70.6 and 671 billion.
  EXPECT_NEAR(count(*shipped_facts().find("meta-llama/Llama-3.1-8B-Instruct")).stored(), 8.03e9, 0.01e9);
  EXPECT_NEAR(count(*shipped_facts().find("meta-llama/Llama-3.1-70B")).stored(), 70.55e9, 0.1e9);
  EXPECT_NEAR(count(*shipped_facts().find("deepseek-ai/DeepSeek-V3")).stored(), 671e9, 2e9);
}

ServingPoint point_of(const char* model, const char* gpu, double tensor, double data, double moe_tensor,
                      double expert) {
  ServingPoint p;
  p.model_id = model;
  p.gpu = gpu;
  p.engine = "trtllm";
  p.gemm_quant = p.moe_quant = "fp8";
  p.tensor_parallel = tensor;
  p.attention_data_parallel = data;
  p.moe_tensor_parallel = moe_tensor;
  p.moe_expert_parallel = expert;
  p.concurrency = 32;
  p.prompt_tokens = p.output_tokens = 1024;
  return p;
}

TEST(Physics, ReadsOneRunWrittenTwoWaysAsOne) {
  const auto physics = [](const ServingPoint& p) { return physics_of(p, shipped_facts(), shipped_gpus()).value(); };
  const PointPhysics plain = physics(point_of("deepseek-ai/DeepSeek-R1", "b200_sxm", 8, 1, 1, 8));
  const PointPhysics product = physics(point_of("deepseek-ai/DeepSeek-R1", "b200_sxm", 64, 1, 8, 8));
  EXPECT_EQ(plain.num_gpus, 8);
  EXPECT_EQ(product.num_gpus, 8);
  EXPECT_EQ(product.stream_weights, plain.stream_weights);
  EXPECT_EQ(physics(point_of("deepseek-ai/DeepSeek-R1", "b200_sxm", 1, 64, 8, 8)).data_parallel, 8);
  // Two GPUs cannot hold it: four it is.
  EXPECT_EQ(physics(point_of("Qwen/Qwen3-235B-A22B-FP8", "h100_sxm", 4, 1, 2, 2)).num_gpus, 4);
  EXPECT_EQ(physics(point_of("meta-llama/Llama-3.1-70B", "NVIDIA-H100", 4, 1, 4, 1)).num_gpus, 4);
}

TEST(Physics, HasTheBandwidthFloorOfTheAnchors) {
  // 16.06 GB of bf16 weights on 2 x L4, 300 GB/s each, tensor 1: 53.5 ms; 141 GB on 4 x A100: 17.3 ms.
  ServingPoint p = point_of("meta-llama/Llama-3.1-8B-Instruct", "L4", 1, 1, 1, 1);
  p.gemm_quant = p.moe_quant = "bf16";
  const double table_8b = 128256.0 * 4096 * 2 / 300e6;  // the input table is gathered, not streamed
  EXPECT_NEAR(physics_of(p, shipped_facts(), shipped_gpus())->stream_weights + table_8b, 53.5, 0.1);
  p = point_of("meta-llama/Llama-3.1-70B", "A100-80GB", 4, 1, 4, 1);
  p.gemm_quant = p.moe_quant = "bf16";
  EXPECT_NEAR(physics_of(p, shipped_facts(), shipped_gpus())->stream_weights, 17.3, 0.4);
}

TEST(Physics, UnknownNamesAreToldTheNearest) {
  const auto status = [](const ServingPoint& p) { return physics_of(p, shipped_facts(), shipped_gpus()).status(); };
  EXPECT_EQ(status(point_of("Qwen/Qwen3-32", "h100_sxm", 1, 1, 1, 1)).param(), "model_id");
  EXPECT_NE(status(point_of("Qwen/Qwen3-32", "h100_sxm", 1, 1, 1, 1)).message().find("Qwen/Qwen3-32B"),
            std::string::npos);
  EXPECT_EQ(status(point_of("Qwen/Qwen3-32B", "h1000", 1, 1, 1, 1)).param(), "gpu");
  ServingPoint odd = point_of("Qwen/Qwen3-32B", "h100_sxm", 1, 1, 1, 1);
  odd.gemm_quant = "fp3";
  EXPECT_EQ(status(odd).param(), "quantization");
}

// Ten rows of every ninety: quick also where every instruction is checked.
std::vector<ServingPoint> some_points() {
  std::vector<ServingPoint> out;
  for (size_t i = 0; i < shipped_points().size(); ++i)
    if (i % 90 < 10) out.push_back(shipped_points()[i]);
  return out;
}

TEST(ResidualProcess, ClosedFormsEqualFitsWithoutTheRows) {
  Kernel kernel;
  kernel.amplitude = {0.1, 0.05, 0.02};
  kernel.noise = 0.002;
  for (size_t c = 0; c < kNumComponents; ++c)
    for (size_t f = 0; f < kNumNumbers + kNumNames; ++f)
      kernel.weight[c][f] = 0.05 * static_cast<double>(c + 1) + 0.01 * static_cast<double>(f % 3);
  std::vector<PointFeatures> rows;
  std::vector<double> y;
  for (const ServingPoint& p : some_points()) {
    if (rows.size() == 90) break;
    rows.push_back(features_of(p, physics_of(p, shipped_facts(), shipped_gpus()).value()));
    y.push_back(std::log(p.tpot_mean_ms) - 3);
  }
  ResidualProcess all;
  all.fit(kernel, rows, y, 0);
  const ResidualProcess::Block block = {3, 4, 17, 40, 89};
  const auto left_out = all.leave_out(block);
  std::vector<PointFeatures> others;
  std::vector<double> other_y;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (std::find(block.begin(), block.end(), i) != block.end()) continue;
    others.push_back(rows[i]);
    other_y.push_back(y[i]);
  }
  ResidualProcess without;
  without.fit(kernel, others, other_y, 0);
  for (size_t k = 0; k < block.size(); ++k) {
    const auto estimate = without.estimate(rows[block[k]]);
    EXPECT_NEAR(left_out[k].mean, estimate.mean, 1e-6);
    EXPECT_NEAR(left_out[k].deviation, estimate.deviation, 1e-4);  // 85 rows: all are local
    EXPECT_EQ(without.mean(rows[block[k]]), estimate.mean);
  }
  // One row that contradicts its neighbours is believed less when its noise may grow.
  std::vector<double> outlier = y;
  outlier[40] += 3;
  ResidualProcess plain, robust;
  plain.fit(kernel, rows, outlier, 0);
  robust.fit(kernel, rows, outlier, 2);
  EXPECT_LT(std::abs(robust.mean(rows[41]) - y[41]), std::abs(plain.mean(rows[41]) - y[41]));
}

TEST(Predictor, KnowsWhereAFigureComesFrom) {
  const std::vector<ServingPoint> rows = some_points();
  const Predictor predictor = Predictor::train(rows, shipped_facts(), shipped_gpus()).value();
  EXPECT_LT(predictor.report().distinct, predictor.report().rows);
  const Predictor again = Predictor::train(rows, shipped_facts(), shipped_gpus()).value();
  size_t measured_rows = 0;
  for (size_t i = 0; i < rows.size(); i += 7) {
    const Prediction p = predictor.predict(Metric::kTpot, rows[i]).value();
    EXPECT_EQ(p.mean, again.predict(Metric::kTpot, rows[i])->mean);  // to the last bit
    EXPECT_LT(p.low, p.mean);
    EXPECT_LT(p.mean, p.high);
    measured_rows += p.provenance == Provenance::kMeasured ? 1 : 0;
    ServingPoint other = rows[i];
    other.engine_version = "0.0.0-never-measured";
    EXPECT_NE(predictor.predict(Metric::kTpot, other)->provenance, Provenance::kMeasured);
    other.gpu = "L4";
    EXPECT_EQ(predictor.nearness(other), Nearness::kPair);
    EXPECT_EQ(predictor.predict(Metric::kTpot, other)->provenance, Provenance::kEstimated);
    EXPECT_GT(predictor.predict(Metric::kTpot, other)->log_half_width, p.log_half_width);
  }
  EXPECT_GT(measured_rows, 10u);
  EXPECT_FALSE(predictor.predict(Metric::kTtft, point_of("no/such-model", "L4", 1, 1, 1, 1)).ok());
  EXPECT_FALSE(Predictor::train({}, shipped_facts(), shipped_gpus()).ok());
  EXPECT_FALSE(Predictor::train(std::vector<ServingPoint>(50, point_of("no/such-model", "L4", 1, 1, 1, 1)),
                                shipped_facts(), shipped_gpus())
                   .ok());
}

TEST(Predictor, LatenciesDoNotFallAsTheLoadGrows) {
  const auto at = [](double mean, double half) {
    return Prediction{mean, mean / half, mean * half, Provenance::kEstimated, std::log(half)};
  };
  std::vector<Prediction> p = {at(10, 1.1), at(20, 1.5), at(12, 1.05), at(30, 1.2)};
  order_by_load(p);
  EXPECT_EQ(p[0].mean, 10);
  EXPECT_EQ(p[3].mean, 30);
  EXPECT_EQ(p[1].mean, p[2].mean);
  EXPECT_LT(p[1].mean, 12.5);  // the surer one moves little
  EXPECT_GT(p[1].mean, 12);
  EXPECT_NEAR(p[1].high / p[1].mean, 1.5, 1e-12);
  std::vector<Prediction> none;
  order_by_load(none);
}

TEST(MemoryFit, AddsUpAndSaysWhyNot) {
  FitInputs in;
  in.model_id = "meta-llama/Llama-3.1-70B";
  in.gpu = "A100-80GB";
  in.tensor_parallel = 4;
  const auto fit = [&] { return memory_fit(in, shipped_facts(), shipped_gpus()); };
  ASSERT_TRUE(fit().ok()) << fit().status().message();
  EXPECT_NEAR(fit()->weights_gib, 141.1e9 / 4 / 1073741824.0, 0.3);
  EXPECT_NEAR(fit()->usable_gib,
              fit()->weights_gib + fit()->activations_gib + fit()->overhead_gib + fit()->kv_cache_gib, 1e-9);
  EXPECT_EQ(fit()->kv_bytes_per_token, 2 * 8 * 128 * 80 * 2 / 4);
  EXPECT_GT(fit()->sequences, 80);
  in.tensor_parallel = 1;
  EXPECT_FALSE(fit()->fits());
  EXPECT_NE(fit()->reason.find("weights 131"), std::string::npos) << fit()->reason;
  in.model_id = "meta-llama/Llama-3.1-8B-Instruct";  // requirements 003 say 16 GB suffice
  in.gpu = "T4";
  EXPECT_FALSE(fit()->fits());
  const auto param = [&](auto change) {
    FitInputs changed = in;
    change(changed);
    return memory_fit(changed, shipped_facts(), shipped_gpus()).status().param();
  };
  EXPECT_EQ(param([](FitInputs& f) { f.gpu = "H1000"; }), "gpu");
  EXPECT_EQ(param([](FitInputs& f) { f.model_id = "x"; }), "model_id");
  EXPECT_EQ(param([](FitInputs& f) { f.quantization = "fp3"; }), "quantization");
  EXPECT_EQ(param([](FitInputs& f) { f.tensor_parallel = 3; }), "tensor_parallel");
  EXPECT_EQ(param([](FitInputs& f) { f.context_tokens = 200000; }), "context_tokens");
}

TEST(Predictor, VerdictIsUncertainNearTheLimitOnly) {
  const Prediction p{40, 30, 53, Provenance::kEstimated, std::log(4.0 / 3)};
  EXPECT_EQ(verdict_of(p, 41), Verdict::kUncertain);
  EXPECT_EQ(verdict_of(p, 39), Verdict::kUncertain);
  EXPECT_EQ(verdict_of(p, 53), Verdict::kPass);
  EXPECT_EQ(verdict_of(p, 30), Verdict::kFail);
  EXPECT_NEAR(probability_within(p, 40), 0.5, 1e-12);
  EXPECT_NEAR(probability_within(p, 40.0 * 4 / 3), 0.95, 1e-3);
}

TEST(Accuracy, NeverTrainsOnWhatItScores) {
  std::vector<ServingPoint> rows = some_points();
  rows.resize(200);
  std::vector<ServingPoint> test(rows.begin() + 60, rows.begin() + 80);
  for (ServingPoint& p : test) p.holdout = "chosen";
  test.push_back(test.front());
  test.back().model_id = "no/such-model";
  AccuracyOptions options;
  size_t calls = 0;
  const Progress count_calls = [&](const std::string&, size_t, size_t) { return ++calls > 0; };
  const auto report = score(rows, test, shipped_facts(), shipped_gpus(), options, count_calls);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_GE(report->withheld_twins, 20u);  // each test row stood in the training rows
  EXPECT_EQ(report->kinds.at("chosen").at("tpot").n, 20u);
  EXPECT_EQ(report->skipped.size(), 1u);
  EXPECT_GT(calls, 0u);
  const Progress stop = [](const std::string&, size_t, size_t) { return false; };
  EXPECT_EQ(score(rows, test, shipped_facts(), shipped_gpus(), options, stop).status().code(), StatusCode::kCancelled);
  const nlohmann::ordered_json json = to_json(*report);
  EXPECT_TRUE(json["kinds"]["chosen"]["ttft"]["verdict"].contains("uncertain_pct"));
  EXPECT_NE(to_text(*report).find("chosen"), std::string::npos);
}

}  // namespace
}  // namespace sextant::advisor
