"""Memory as it is counted."""

import platform
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from limbeck.runtime.memory import MIB, free_memory, freed_memory_reused, measure, peak_resident, reuse_freed_memory, total_memory

CPU = torch.device("cpu")


def test_tensors_are_counted():
    def work():
        large = torch.zeros(1000, 500)
        return large[:10] + 1  # a new tensor; the large one is dropped

    result, taken = measure(work, CPU)
    assert result.shape == (10, 500)
    assert 2_000_000 + 20_000 <= taken.peak < 2_100_000
    assert 20_000 <= taken.held < 30_000


def test_nothing_taken():
    assert measure(lambda: None, CPU)[1] == (0, 0)


def test_the_machine_has_memory():
    assert 0 < free_memory(CPU) <= total_memory(CPU)
    before = peak_resident()
    block = torch.ones(64 * 2**20 // 4)
    assert peak_resident() >= before
    assert block.nbytes < peak_resident() <= total_memory(CPU)


def test_freed_memory_may_be_kept_more_than_once():
    reuse_freed_memory()
    reuse_freed_memory()
    assert torch.zeros(10).sum() == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other ways of keeping memory")
def test_freed_memory_is_reused_without_page_faults_in_every_thread():
    def faults_of_sixteen() -> int:
        for number in range(32):  # 40 MiB: more than the C library keeps of itself; what is split off the first few settles it
            if number == 16:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.zeros(40 * MIB // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_memory_reused(), ThreadPoolExecutor(1) as thread:
        taken = faults_of_sixteen(), thread.submit(faults_of_sixteen).result()
    anew = 16 * 40 * MIB // resource.getpagesize()
    assert max(taken) < anew / 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other ways of keeping memory")
def test_what_is_free_goes_back_when_the_work_is_done() -> None:
    """Also below something that stays, which keeps a heap from shrinking."""
    with freed_memory_reused():
        blocks = [torch.ones(40 * MIB // 4) for _ in range(8)]
        stays = torch.ones(1000)
        held = _resident()
        del blocks
    assert stays.sum() == 1000
    assert held - _resident() > 7 * 40 * MIB


def _resident() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * resource.getpagesize()
