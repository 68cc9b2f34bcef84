"""Stands in for `vllm serve`: its flags, port and paths, by llama.cpp and the weights of its image.

Runs as `python3 -c` in the image synapse-llama-cpp. Flags that only a card has a use for are taken
and left alone; one that the chart has no reason to give ends it, as it would end vLLM.
"""

import argparse
import sys

from synapse_llama_cpp.__main__ import main

FLAGS = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
FLAGS.add_argument("--model", required=True)
FLAGS.add_argument("--served-model-name", required=True)
FLAGS.add_argument("--host", required=True)
FLAGS.add_argument("--port", required=True)
FLAGS.add_argument("--max-model-len", default="4096")
FLAGS.add_argument("--max-num-seqs", default="4")
FLAGS.add_argument("--tensor-parallel-size", type=int)
FLAGS.add_argument("--quantization")
FLAGS.add_argument("--gpu-memory-utilization", type=float)
FLAGS.add_argument("--enable-sleep-mode", action="store_true")

if __name__ == "__main__":
    given = FLAGS.parse_args()
    words = ["--model=smollm2-135m-instruct", f"--alias={given.served_model_name}"]
    words += [f"--host={given.host}", f"--port={given.port}"]
    words += [f"--ctx={given.max_model_len}", f"--parallel={given.max_num_seqs}"]
    sys.exit(main(words))
