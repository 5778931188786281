"""Empty object stores for tests: fsspec's own in memory, a disk, and S3 as moto imitates it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest


def in_memory() -> str:
    """A folder that nobody else has."""
    return f"memory://bucket-{uuid.uuid4().hex}/data"


@contextmanager
def imitating_s3() -> Iterator[str]:
    """A server on this machine that answers as S3 does; skips where it cannot be had. Gives its
    address."""
    if find_spec("s3fs") is None or find_spec("moto") is None:
        pytest.skip(
            "needs s3fs and moto: pip install -c constraints.txt -e '.[remote]' 'moto[server]'"
        )
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def bucket_of(address: str, patch: pytest.MonkeyPatch) -> str:
    """An empty bucket, where s3fs finds it by the environment."""
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "tests")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", address)
    bucket = f"s3://{uuid.uuid4().hex}"
    S3FileSystem().mkdir(bucket)
    return bucket
