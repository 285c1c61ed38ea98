"""llama.cpp's server, from the `xllamacpp` wheel, on a free port of loopback: prints its URL.

python llama_server.py text.gguf [mmproj.gguf] CONTEXT
"""

from __future__ import annotations

import sys
import time

import xllamacpp


def main(model: str, mmproj: str, context: str) -> None:
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.mmproj.path = mmproj
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_ctx, settings.n_parallel, settings.warmup = int(context), 1, False
    settings.n_gpu_layers = 0
    settings.cpuparams.n_threads = 1
    settings.use_jinja = True
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 3 else "", sys.argv[-1])
