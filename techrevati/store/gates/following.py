"""A gate's limits, as its provider says they are.  Pure.

declared {rpm: 1000} ──provider: limit 300──▶ {rpm: 300} ──provider: limit 5000──▶ {rpm: 1000}
"""

from collections.abc import Mapping
from dataclasses import replace

from techrevati.store.gates.spec import BucketSpec, GateSpec


def followed(stands: GateSpec, own: GateSpec, limits: Mapping[str, float]) -> GateSpec | None:
    """Give the declaration that the provider's `limits` (a minute) lead to; None: the one that stands.

    `own` is this process's declaration: what it allows is the most, unless it says ``provider_limits="follow"``.  One
    that a newer release has replaced may lower the newer one's limits, and not raise them.
    """
    if own.provider_limits == "ignore":
        return None
    most = own if own.revision >= stands.revision else stands
    buckets = tuple(_follow(bucket, most.bucket(bucket.name), limits, own) for bucket in stands.buckets)
    return None if buckets == stands.buckets else replace(stands, buckets=buckets)


def _follow(bucket: BucketSpec, most: BucketSpec | None, limits: Mapping[str, float], own: GateSpec) -> BucketSpec:
    limit = limits.get(bucket.name)
    if limit is None or not limit > 0:  # none at all is said by what remains
        return bucket
    if own.provider_limits == "follow":
        return BucketSpec.per_minute(bucket.name, limit)
    most = most or bucket
    return BucketSpec(bucket.name, min(most.capacity, limit), min(most.per_second, limit / 60))


_BY = " by the provider's limits of "


def signed(worker: str, spec: GateSpec, own: GateSpec) -> str:
    """Name who declares it, and which of its limits are the provider's."""
    names = [bucket.name for bucket in spec.buckets if bucket != own.bucket(bucket.name)]
    return f"{worker}{_BY}{','.join(names)}" if names else worker


def told_before(by: str, spec: GateSpec) -> dict[str, float]:
    """Give the provider's limits (a minute) in a declaration and its signature, for one who declares another."""
    names = by.partition(_BY)[2].split(",")
    # The lower of both was taken, of a bucket that holds as much and of one that fills as fast.
    return {
        bucket.name: max(bucket.capacity, 60 * bucket.per_second) for bucket in spec.buckets if bucket.name in names
    }
