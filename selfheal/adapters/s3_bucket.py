"""`python -m selfheal.adapters.s3_bucket NAME`: make a bucket unless it is there, for deployments with a server of their own.

Address, region and credentials are those of every S3 client (`AWS_ENDPOINT_URL`, ...). A bucket that somebody else owns is an
error, as is one that cannot be listed: both would fail later, in the middle of a run.
"""

from __future__ import annotations

import sys

from selfheal.kit.errors import ConfigurationError, SelfhealError, ServiceUnavailableError

MADE_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
DEFAULT_REGION = "us-east-1"
"""The one region that S3 does not want to be named when a bucket is made."""


def make_bucket(name: str) -> None:
    """Make the bucket unless it is there, and list it.

    Raises:
        ConfigurationError: if the extra `s3` is missing, or the server refuses the name or the credentials.
        ServiceUnavailableError: if the server does not answer.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
    except ImportError:
        raise ConfigurationError("S3 needs the extra s3; pip install 'selfheal[s3]'") from None
    try:
        client = boto3.client("s3")
        region = client.meta.region_name
        place = {} if region == DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            client.create_bucket(Bucket=name, **place)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MADE_ALREADY:
                raise
        client.list_objects_v2(Bucket=name, MaxKeys=1)
    except (ConnectionError, HTTPClientError) as error:
        raise ServiceUnavailableError(f"the S3 server does not answer: {error}; check AWS_ENDPOINT_URL") from None
    except (BotoCoreError, ClientError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"the bucket {name} cannot be used: {why}; check its name and AWS_...") from None


def main(arguments: list[str]) -> int:
    """Make the bucket that is named; return the exit code."""
    (name,) = arguments
    try:
        make_bucket(name)
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    print(f"The bucket {name} is there.")  # noqa: T201  (the command's own output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
