"""What libraries say at every run and no user can act on, kept off stderr; each by its own words.

Whatever else a library says is shown. Like `waiting_threads`, this happens when any of our packages
is imported: no command can silence what is said while libraries are loaded, or in the processes
that it starts.
"""

import logging
import warnings

# Logger, and how its message begins.
LOGGED = {
    # 0.50.2, which transformers loads through peft on CPUs that know bfloat16: an optional kernel,
    # of use to nobody but who quantizes on a CPU, is not installed.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
}
# Module, and how its FutureWarning begins.
WARNED = {
    # 5.23, asked by peft 0.21.2 whenever an adapter is made or loaded.
    r"transformers\.modeling_utils": "`is_gradient_checkpointing` is deprecated",
}


def silence_libraries() -> None:
    """Drop these messages from here on in this process."""
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_of_use)
    for module, beginning in WARNED.items():
        warnings.filterwarnings("ignore", beginning, FutureWarning, module)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(LOGGED[record.name])
