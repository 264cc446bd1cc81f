"""An object in a bucket of S3 or of a server with S3's protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from rootstock.adapters.sources.remote.errors import SourceUnavailable
from rootstock.adapters.sources.remote.source_reference import BucketSource
from rootstock.adapters.spec import Rejected

# s3fs waits in its own thread, which no timeout of ours ends.
_TIMES = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 2}}


async def fetch_object(source: BucketSource, most: int) -> bytes:
    """Return the bytes of an object, read with the credentials and the endpoint of the server's environment.

    Raise SourceUnavailable if there is no such object, the server may not read it, or s3fs is not installed.
    Raise Rejected (check "size") for more than `most` bytes.
    """
    return await asyncio.to_thread(_read, source, most)


def _read(source: BucketSource, most: int) -> bytes:
    try:
        import s3fs
    except ImportError:
        raise SourceUnavailable("s3:// needs s3fs, which is not installed; pip install s3fs") from None
    place = f"{source.bucket}/{source.key}"
    try:
        files = s3fs.S3FileSystem(config_kwargs=_TIMES, skip_instance_cache=True, use_listings_cache=False)
        size = int(files.info(place)["size"])
        if size > most:
            raise Rejected(
                "size", "source", f"{source} has {size} bytes and the limit is {most}; make it smaller"
            )
        data: Any = files.cat_file(place, start=0, end=size)
    except Rejected:
        raise
    # botocore has many errors, and s3fs turns some of them into OSError.
    except Exception as error:
        raise SourceUnavailable(
            f"{source} cannot be read ({type(error).__name__}); check the address, and the credentials and "
            "AWS_ENDPOINT_URL of the server"
        ) from error
    if len(data) != size:
        raise SourceUnavailable(f"{source} changed while it was read; try again")
    return bytes(data)
