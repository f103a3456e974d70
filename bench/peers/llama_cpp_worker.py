"""llama.cpp through its C interface over one GGUF file, driven line by line (compare.py says how).

Usage: llama_cpp_worker.py MODEL.gguf THREADS
"""
import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np

VOCABULARY = 49152
BATCH = 2048


class Engine:
    def __init__(self, path, threads):
        self.log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = 64 * 256
        params.n_batch = BATCH
        params.n_seq_max = 64
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def decode(self, rows):
        """rows: (token, position, sequence, whether logits are wanted)"""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = int(token)
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def prefill(self, prompts):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        rows = [(token, position, sequence, position + 1 == len(prompt))
                for sequence, prompt in enumerate(prompts) for position, token in enumerate(prompt)]
        batches = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
        begin = time.perf_counter()
        for batch in batches:
            self.decode(batch)
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - begin

    def generate(self, count, position):
        begin = time.perf_counter()
        self.decode([(1, position, sequence, True) for sequence in range(count)])
        for row in range(count):
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, row), (VOCABULARY,)).argmax()
        return time.perf_counter() - begin


def main():
    begin = time.perf_counter()
    engine = Engine(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"version": llama_cpp.__version__, "ready_s": time.perf_counter() - begin}), flush=True)
    random = np.random.default_rng(1)
    for line in sys.stdin:
        verb, count, length, *rest = line.split()
        count, length = int(count), int(length)
        seconds = engine.prefill([random.integers(0, VOCABULARY, length) for _ in range(count)])
        mean = seconds
        if verb == "decode":
            steps = sorted(engine.generate(count, length + i) for i in range(int(rest[0])))
            seconds, mean = steps[len(steps) // 2], sum(steps) / len(steps)
        print(json.dumps({"seconds": seconds, "mean_seconds": mean}), flush=True)


if __name__ == "__main__":
    main()
