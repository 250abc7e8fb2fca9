"""What vLLM 0.31 lacks for us, as a plugin (`vllm.general_plugins`) that every process of vLLM loads by itself."""

import sys


def apply() -> None:
    """All of it."""
    keep_short_convolutions()
    let_modules_be_scanned()


def keep_short_convolutions() -> None:
    """Leave convolutions of other widths than 4 as they are.

    On a processor with AVX512-BF16 vLLM packs the weights of every convolution for a kernel that takes a width of 4
    alone, and refuses others, though LFM2's layers do not use that kernel; their width is 3.
    """
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    pack = getattr(_custom_ops, "causal_conv1d_weight_pack", None)
    if pack is None or not current_platform.is_cpu():
        return
    _custom_ops.causal_conv1d_weight_pack = lambda weight: pack(weight) if weight.shape[1] == 4 else weight[:, None]


def let_modules_be_scanned() -> None:
    """Let the `__dict__` of llvmlite's library be asked for a name, as those of other objects.

    On a CPU vLLM looks through all loaded modules so; llvmlite, which bm25s loads where numba is installed, wraps its
    library in an object whose `__dict__` is a function.
    """
    ffi = sys.modules.get("llvmlite.binding.ffi")
    if ffi is not None:
        ffi._lib_fn_wrapper.get = lambda self, name, default=None: default
