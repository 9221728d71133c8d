"""The line of an error that a status keeps, on texts as libraries print them."""

from __future__ import annotations

import pytest

from trainlarge.errors import UserError
from trainlarge.launch.error_line import MOST_CHARACTERS, ended_in_words, error_line

CUDA = """CUDA error: device-side assert triggered
Search for `cudaErrorAssert' in https://docs.nvidia.com/cuda/cuda-runtime-api/group.html for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
HIP = """HIP error: an illegal memory access was encountered
HIP kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing AMD_SERIALIZE_KERNEL=3
Compile with `TORCH_USE_HIP_DSA` to enable device-side assertions.
"""
NCCL = """NCCL error in: /pytorch/torch/csrc/c10d/NCCLUtils.cpp:77, unhandled cuda error, NCCL version 2.27.5
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
Cuda failure 2 'out of memory'"""
STATE_DICT = """Error(s) in loading state_dict for ModernBertForMaskedLM:
\tMissing key(s) in state_dict: "decoder.bias".\x20
\tsize mismatch for head.weight: copying a param with shape [2] from checkpoint"""
LOADER = f"""Caught AcceleratorError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/x/worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
           ^^^^^^^^^^^^^^^^^^^^
torch.AcceleratorError: {CUDA}"""
SPAWNED = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "/x/spawn.py", line 76, in _wrap
    fn(i, *args)
ValueError: the file ends too soon
"""
COMPILER = """backend='inductor' raised:
CppCompileError: C++ compile error

Command:
g++ -shared -fPIC /tmp/a.cpp -o /tmp/a.so

Output:
/tmp/a.cpp:2:10: fatal error: ATen/vec.h: No such file or directory
compilation terminated.

Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CUDA, "CUDA error: device-side assert triggered"),
        (HIP, "HIP error: an illegal memory access was encountered"),
        ("CUDA out of memory. Tried to allocate 2 GiB.\n", "CUDA out of memory. Tried to allocate 2 GiB."),
        (NCCL, f"{NCCL.splitlines()[0]} (Cuda failure 2 'out of memory')"),
        (
            STATE_DICT,
            "Error(s) in loading state_dict for ModernBertForMaskedLM: "
            'Missing key(s) in state_dict: "decoder.bias".',
        ),
        (LOADER, "torch.AcceleratorError: CUDA error: device-side assert triggered"),
        (SPAWNED, "ValueError: the file ends too soon"),
        (
            COMPILER,
            "backend='inductor' raised: CppCompileError: C++ compile error "
            "(/tmp/a.cpp:2:10: fatal error: ATen/vec.h: No such file or directory)",
        ),
        ("\n========\n  \nfirst\nsecond", "first"),
        ("one line", "one line"),
    ],
)  # fmt: skip
def test_the_line_that_says_something_is_kept(text: str, line: str) -> None:
    assert error_line(RuntimeError(text)) == f"RuntimeError: {line}"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_without_a_message_names_its_place() -> None:
    assert error_line(raised(AssertionError())).startswith("AssertionError in raised (test_error_line.py, line ")
    assert error_line(MemoryError()) == "MemoryError"


def test_a_cause_that_was_named_is_told_too() -> None:
    error = RuntimeError("the state was not saved")
    error.__cause__ = OSError(28, "No space left on device")
    assert (
        error_line(error) == "RuntimeError: the state was not saved (from OSError: [Errno 28] No space left on device)"
    )
    wrapped = RuntimeError("no: x")
    wrapped.__cause__ = ValueError("x")
    assert error_line(wrapped) == "RuntimeError: no: x", "what the error itself repeats is said once"


def test_a_group_is_told_by_its_first_error() -> None:
    inner = ExceptionGroup("inner", [RuntimeError(CUDA), ValueError("y")])
    assert error_line(ExceptionGroup("outer", [inner])) == (
        "RuntimeError: CUDA error: device-side assert triggered (and 1 more)"
    )


def test_a_user_s_error_stays_as_it_is_and_an_endless_one_is_cut() -> None:
    error = UserError("arch.heads", 5, "must divide")
    assert error_line(error) == str(error)
    assert len(error_line(RuntimeError("x" * 10_000))) == MOST_CHARACTERS


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "ended with status 3"), (-9, "was killed by SIGKILL (out of memory?)"), (-15, "was killed by SIGTERM"),
     (-40, "was killed by signal 40")],
)  # fmt: skip
def test_the_end_of_a_process_in_words(status: int, words: str) -> None:
    assert ended_in_words(status) == words
