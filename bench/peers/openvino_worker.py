"""OpenVINO GenAI's continuous batching over one GGUF file, driven line by line (compare.py says how).

Usage: openvino_worker.py MODEL.gguf [f32|default]
"""
import json
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as genai

VOCABULARY = 49152


def main():
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 2
    scheduler.max_num_batched_tokens = 8192
    scheduler.max_num_seqs = 64
    scheduler.enable_prefix_caching = False
    properties = {"INFERENCE_PRECISION_HINT": "f32"} if sys.argv[2:] == ["f32"] else {}
    begin = time.perf_counter()
    pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU", properties)
    print(json.dumps({"version": genai.__version__, "ready_s": time.perf_counter() - begin}), flush=True)
    random = np.random.default_rng(1)
    for line in sys.stdin:
        verb, count, length, *rest = line.split()
        count, length, tokens = int(count), int(length), int(rest[0]) if rest else 1
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        prompts = [ov.Tensor(random.integers(0, VOCABULARY, (1, length)).astype(np.int64)) for _ in range(count)]
        begin = time.perf_counter()
        handles = [pipeline.add_request(i, prompt, config) for i, prompt in enumerate(prompts)]
        steps = []
        while pipeline.has_non_finished_requests():
            step_begin = time.perf_counter()
            pipeline.step()
            steps.append(time.perf_counter() - step_begin)
        seconds = time.perf_counter() - begin
        del handles
        mean = seconds
        if verb == "decode":  # the prompts' steps are far longer than the median
            seconds = sorted(steps)[len(steps) // 2]
            decoding = steps[count * length // scheduler.max_num_batched_tokens + 1:]
            mean = sum(decoding) / max(len(decoding), 1)
        print(json.dumps({"seconds": seconds, "mean_seconds": mean}), flush=True)


if __name__ == "__main__":
    main()
