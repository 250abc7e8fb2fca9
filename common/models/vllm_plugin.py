"""What vLLM 0.31 needs to run LFM2, as a plugin (`vllm.general_plugins`) that every process of vLLM loads by itself."""


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
