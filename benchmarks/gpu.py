"""The engine on a GPU at the published sizes: ConvNetD5, 128×128, ten classes, one, ten and fifty images per class.

    python benchmarks/gpu.py --output runs/gpu

Runs `engine.py` once for each published inner loop (T = 40 steps; batches of 100 at ten images per class and more,
as many as the published 200 allow there being fewer images), the variants of a GPU included, and prints times, memory
and the share of the device's peak that the convolutions reach. What is finished is kept, so that it can be run again until it
is done. The plain unroll is left out where half of the device's memory would not hold it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

VARIANTS = "unroll,eager,compiled,compiled-tf32,compiled-bf16,kept-half,kept-all,tesla,truncated"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the engine on a GPU at the published sizes")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--ipc", default="1,10,50")
    parser.add_argument("--steps", default="40")
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--repeats", default="3")
    arguments = parser.parse_args()
    command = [sys.executable, str(Path(__file__).with_name("engine.py")), "--device", "cuda", "--network", "ConvNetD5"]
    for name in ("ipc", "steps", "variants", "repeats"):
        command += [f"--{name}", getattr(arguments, name)]
    sys.exit(subprocess.run([*command, "--size", "128", "--output", str(arguments.output)]).returncode)
