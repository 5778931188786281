"""Call a function in a process of its own, so that its peak memory is its own and all is freed."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from commands.errors import InputError

Result = TypeVar("Result")


class ProcessEnded(Exception):
    """The process ended before it had a result, with this exit code; below 0, the signal that
    killed it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the process ended with code {exit_code}, before it had a result")
        self.exit_code = exit_code


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a new process, which is killed if this call is interrupted.

    The process begins anew rather than as a copy of this one: CUDA cannot be used in a copy, and a
    copy's peak memory would begin with what this process holds.

    Args:
        function: of a module; it and its arguments are pickled.

    Raises:
        InputError: the function raised it.
        ProcessEnded: the process ended otherwise; its traceback, if any, is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()  # ours: when the process ends, nobody can write, and `recv` returns
    try:
        with receiver:
            answer: tuple[str, Any] | None = receiver.recv()
    except EOFError:
        answer = None
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    if answer is None:
        assert process.exitcode is not None
        raise ProcessEnded(process.exitcode)
    error, result = answer
    if error:
        raise InputError(error)
    return result


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the caller, which kills us
    try:
        sender.send(("", function(*arguments)))
    except InputError as error:
        sender.send((str(error), None))
