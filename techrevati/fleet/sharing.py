"""How coordinators share the partitions: a pure decision over who lives and who holds what."""

from collections.abc import Collection, Sequence


def share(partitions: int, members: Collection[str], me: str, held: Sequence[int]) -> tuple[list[int], list[int]]:
    """Give the partitions to try for and those to give back.

    Each of n members wants at most ceil(P / n); the order of trying starts at a place of one's own, so that
    members that come up together do not race for the same ones.
    """
    ranked = sorted({*members, me})
    fair = -(-partitions // len(ranked))
    if len(held) > fair:
        return [], sorted(held)[fair:]
    first = ranked.index(me) * partitions // len(ranked)
    order = [(first + offset) % partitions for offset in range(partitions)]
    return [number for number in order if number not in held][: fair - len(held)] if len(held) < fair else [], []
