"""Suppress library messages that appear in every run and that no user can act on.

All other library messages are shown. Like `waiting_threads`, this happens when any of our packages
is imported: a command could not silence messages that are printed while libraries are loaded, or by
the processes that it starts.
"""

import logging
import warnings

# Logger -> how its message begins.
LOGGED = {
    # bitsandbytes 0.50.2, which transformers loads through peft on CPUs with bfloat16: an optional
    # kernel, useful only for quantising on a CPU, is not installed.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
    # bitsandbytes 0.50.2, `--quantize 8bit`: at every layer of every token.
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast from",
    # transformers 5.23, where a fine-tuning is resumed by another number of processes: they have
    # other batches each, of the same size together (`resumed_settings.py`).
    "transformers.trainer_utils": "Warning: The following arguments do not match the ones in the",
}
# Module -> how its FutureWarning begins.
WARNED = {
    # transformers 5.23, called by peft 0.21.2 whenever an adapter is created or loaded.
    r"transformers\.modeling_utils": "`is_gradient_checkpointing` is deprecated",
}


def silence_libraries() -> None:
    """Drop these messages in this process from now on."""
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_of_use)
    for module, beginning in WARNED.items():
        warnings.filterwarnings("ignore", beginning, FutureWarning, module)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(LOGGED[record.name])
