"""An object store that speaks S3: Amazon's, or any other one with that protocol.

A request is HTTP, signed with the secret, which is never sent (Signature Version 4). A put replaces the object whole; a
get may ask for a range. What is larger than a request should be goes up in parts, several at a time, and nothing of it
is seen before the last request completes it.

boto3 checks a checksum of the whole object by default where the server sends one; over a range it cannot hold. So
responses are checked only `when_required`.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from parallel_lab.systems.storage.servers import Endpoint
from parallel_lab.systems.storage.store import Missing, Refused, Store, check_range, checked, in_order

ABSENT = ("NoSuchKey", "404", "NotFound")
FORBIDDEN = ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "403", "Forbidden")


class S3(Store):
    """A bucket, made if it is not there; it may be pickled, and opens its connections anew.

    Args:
        endpoint: address, access key and secret of the server.
        bucket: its name.
        connections: how many requests may be under way at once; more wait for their turn.
        attempts: how often a request is tried. The default is once, so that a measurement sees each failure; for work
            take 5, with the waits between them growing.
    """

    def __init__(self, endpoint: Endpoint, bucket: str = "data", *, connections: int = 16, attempts: int = 1) -> None:
        self.endpoint, self.bucket, self.connections, self.attempts = endpoint, bucket, connections, attempts
        self.client = Session().client(
            "s3",
            endpoint_url=endpoint.url,
            aws_access_key_id=endpoint.access_key,
            aws_secret_access_key=endpoint.secret,
            region_name="us-east-1",
            config=Config(
                response_checksum_validation="when_required",
                request_checksum_calculation="when_required",
                max_pool_connections=connections,
                retries={"total_max_attempts": attempts, "mode": "standard"},
                s3={"addressing_style": "path"},
            ),
        )
        with _told(bucket):
            self.client.create_bucket(Bucket=bucket)

    def __reduce__(self):
        return _again, (self.endpoint, self.bucket, self.connections, self.attempts)

    def put(self, key: str, data: bytes) -> None:
        """One request."""
        with _told(key):
            self.client.put_object(Bucket=self.bucket, Key=checked(key), Body=data)

    def put_parts(self, key: str, data: bytes, *, part_bytes: int = 8 * 2**20, writers: int = 4) -> int:
        """Writes a large object in parts, several at a time; the object appears with the last request.

        Args:
            key: the object's key.
            data: the object.
            part_bytes: the size of a part. S3 asks for 5 MiB at least, of all but the last, and 10,000 parts at most.
            writers: how many parts are under way at once.

        Returns:
            The number of parts.
        """
        there = {"Bucket": self.bucket, "Key": checked(key)}
        starts = range(0, len(data), part_bytes)
        with _told(key), ThreadPoolExecutor(writers) as pool:
            upload = there | {"UploadId": self.client.create_multipart_upload(**there)["UploadId"]}

            def send(number: int, start: int) -> dict:
                body = data[start : start + part_bytes]
                answer = self.client.upload_part(**upload, PartNumber=number, Body=body)
                return {"PartNumber": number, "ETag": answer["ETag"]}

            try:
                parts = list(pool.map(send, range(1, len(starts) + 1), starts))
                self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except BaseException:
                self.client.abort_multipart_upload(**upload)  # or its parts are stored, and paid for, unseen
                raise
        return len(parts)

    def get(self, key: str) -> bytes:
        """One request."""
        with _told(key):
            return self._body(Key=checked(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """One request with a Range header, whose last byte counts."""
        check_range(key, start, length)
        with _told(key):
            return self._body(Key=checked(key), Range=f"bytes={start}-{start + length - 1}")

    def list(self, prefix: str = "") -> list[str]:
        """At most 1,000 keys a request."""
        with _told(prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return in_order(item["Key"] for page in pages for item in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        """Where there is none, S3 says that it is gone."""
        with _told(key), contextlib.suppress(Missing):
            self.client.delete_object(Bucket=self.bucket, Key=checked(key))

    def close(self) -> None:
        """Ends the connections."""
        self.client.close()

    def _body(self, **request: str) -> bytes:
        with contextlib.closing(self.client.get_object(Bucket=self.bucket, **request)["Body"]) as body:
            return body.read()


def _again(endpoint: Endpoint, bucket: str, connections: int, attempts: int) -> S3:
    return S3(endpoint, bucket, connections=connections, attempts=attempts)


@contextlib.contextmanager
def _told(key: str) -> Iterator[None]:
    """Has the server's codes told in the store's words."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ABSENT:
            raise Missing(key) from None
        if code in FORBIDDEN:
            raise Refused(f"{key}: the server refused the request: {code}") from None
        if code in ("InvalidRange", "416"):
            raise ValueError(f"{key}: the range begins outside the object") from None
        if code not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise
