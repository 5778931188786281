"""Write shards with the actors of a Ray cluster: Ray Data hands each actor one shard after another.

A shard is written aside, in a folder of the actor's own, and then moved to its place, the file that
completes it last. So an actor, a machine or the driver may be killed at any moment: Ray gives the
shard to another actor, and a command that is started again leaves out what is complete. Two actors
may come to write one shard; they write the same bytes. `--out` must be a folder that all machines
see under the same path, or a URL: then actors put their files there, and the driver copies them.
"""

import json
import logging
import os
import pickle
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from commands.atomic_write import ASIDE_SUFFIX, remove, remove_leftovers
from commands.errors import InputError
from commands.run_folder import OutputFolder
from commands.shard import Item, Shard, ShardWriter
from commands.store_inputs import fetch_input, fetched_inputs
from commands.stores import exists, is_url, put
from commands.workers import MODEL_FACTS, WorkerSettings

Columns = dict[str, np.ndarray]
CONNECT_S = 5.0
PASSED_ON = ("SPOKEN_LANGUAGE",)
"""Environment variables that actors on other machines are given as well."""


class ShardActor:
    """Writes one shard a call; it loads its models when it is given the first."""

    def __init__(
        self,
        out: Path,
        make_writer: Callable[[Path], ShardWriter[Any]],
        inputs: Sequence[str] = (),
    ) -> None:
        """Note what is to be done; nothing is loaded yet.

        Args:
            out: the folder to write to, as all machines see it: its path, or its URL.
            make_writer: as for `write_shards`.
            inputs: URLs of what the driver has copied to its disk, and this machine needs too.
        """
        self.out = out
        self.make_writer = make_writer
        self.inputs = inputs
        folder = Path(tempfile.gettempdir()) if is_url(out) else out
        self.aside = folder / f"actor-{uuid.uuid4().hex}{ASIDE_SUFFIX}"
        self.writer: ShardWriter[Any] | None = None

    def __call__(self, columns: Columns) -> Columns:
        """Write a shard.

        Args:
            columns: one row: `name` of the shard's file, its `number`, and its `items`, pickled.

        Returns:
            One row: the number of items, the facts of the writer as JSON, and the message of an
            InputError or "": Ray would try again if it were raised.
        """
        items = pickle.loads(columns["items"][0])
        error = ""
        try:
            self._write(int(columns["number"][0]), str(columns["name"][0]), items)
        except InputError as refused:
            error = str(refused) or type(refused).__name__
        facts = dict(self.writer.facts) if self.writer else {}
        return {
            "num_items": np.array([len(items)]),
            "facts": np.array([json.dumps(facts)], dtype=object),
            "error": np.array([error], dtype=object),
        }

    def _write(self, number: int, name: str, items: Sequence[Any]) -> None:
        if exists(self.out / name):  # Ray tries again what a killed actor had just completed
            return
        self.aside.mkdir(exist_ok=True)
        if self.writer is None:
            for url in self.inputs:
                fetch_input(Path(url))
            self.writer = self.make_writer(self.aside)
        self.writer.write(Shard(number, self.aside / name, items, tqdm(disable=True)))
        for path in sorted(self.aside.iterdir(), key=lambda path: path.name == name):
            _move(path, self.out / path.name)


def _move(path: Path, target: Path) -> None:
    if is_url(target):
        put(path, target)
        remove(path)
    else:
        os.replace(path, target)


def write_with_actors(
    output: OutputFolder,
    shards: Mapping[int, Sequence[Item]],
    name: str,
    make_writer: Callable[[Path], ShardWriter[Item]],
    workers: WorkerSettings,
    progress: "tqdm[Any]",
) -> None:
    """Write shards with Ray; arguments as of `write_shards`.

    Raises:
        InputError: what a writer raises; Ray is not installed or cannot be reached; two actors have
            loaded different models.
    """
    rows = [
        {"number": number, "name": name.format(number), "items": pickle.dumps(list(items))}
        for number, items in shards.items()
    ]
    first: dict[str, Any] = {}
    machines: list[dict[str, Any]] = []
    with _cluster(workers.ray) as ray:
        resources = ray.cluster_resources()
        num_gpus = int(resources.get("GPU", 0))
        num_actors = workers.ray_actors or num_gpus or int(resources.get("CPU", 1))
        written = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardActor,
            fn_constructor_args=(output.place, make_writer, list(fetched_inputs())),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(rows))),
            num_gpus=1 if num_gpus else 0,
            num_cpus=None if num_gpus else 1,
        )
        for row in written.iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            progress.update(int(row["num_items"]))
            facts = json.loads(row["facts"])
            _refuse_other_models(first, facts)
            machine = {key: value for key, value in facts.items() if key not in MODEL_FACTS}
            if facts and not first:
                first = facts
                output.record(**facts)
            if machine and machine not in machines:
                machines.append(machine)
    output.record(ray={"actors": num_actors, "machines": machines})
    # Of actors that were killed.
    remove_leftovers(output.path)
    if output.store:
        output.store.fetch_missing()


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, and leave it at the end."""
    environment = dict(os.environ)
    sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray = _connect(address)
        # Ray puts its own in place, with which SIGTERM would not end the command as otherwise.
        signal.signal(signal.SIGTERM, sigterm)
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        signal.signal(signal.SIGTERM, sigterm)
        os.environ.clear()
        os.environ.update(environment)


def _connect(address: str) -> Any:
    """The module `ray`, connected."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--ray needs Ray: pip install '.[ray]'") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):  # they would write between the steps of our own bar
        logging.getLogger(name).setLevel(logging.ERROR)
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    host, separator, port = address.rpartition(":")
    # Ray itself would try for minutes, and then end the process.
    if separator and not _answers(host, port):
        raise InputError(f"--ray {address}: no cluster there: nobody answers")
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            # Actors here inherit them; those of a cluster do not.
            runtime_env={"env_vars": passed_on} if passed_on and address != "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--ray {address}: no cluster there: {reason}") from None
    return ray


def _answers(host: str, port: str) -> bool:
    """Whether somebody listens at an address."""
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _refuse_other_models(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name in MODEL_FACTS:
        if first.get(name, other.get(name)) != other.get(name, first.get(name)):
            raise InputError(
                f"--ray: two machines have loaded different models: {name} is {first[name]} and "
                f"{other[name]}; shards written so far are a mixture, start in a new --out"
            )
