"""`--isa avx2|native`: any x86-64 machine as one without AVX-512, for torch, oneDNN and the compiler alike."""

import argparse
import os
import sys

ISA = {"native": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


def add_isa(parser: argparse.ArgumentParser) -> None:
    """The option `--isa`."""
    parser.add_argument("--isa", choices=ISA, default="native", help="instructions of the CPU to use: all it has, or AVX2 at most")


def take_isa(name: str) -> None:
    """Start this command anew with those instructions, unless it runs with them: the libraries look once, when they are loaded."""
    if any(os.environ.get(key) != value for key, value in ISA[name].items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ISA[name]})
