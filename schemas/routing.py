"""Assignment of accounts to partitions, with the hash of Kafka's Java client, so that all producers agree. No I/O."""

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Hash bytes as ``org.apache.kafka.common.utils.Utils.murmur2`` does; returns Java's signed 32-bit integer."""
    length = len(data)
    value = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        word ^= word >> 24
        value = (value * _M & _MASK) ^ (word * _M & _MASK)
    if whole < length:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    value ^= value >> 13
    value = value * _M & _MASK
    value ^= value >> 15
    return value - (1 << 32) if value >> 31 else value


def partition_of(account: str, partitions: int) -> int:
    """Return the partition of an account: the positive hash of its UTF-8 bytes modulo the number of partitions.

    Raises:
        ValueError: ``partitions`` is less than 1.
    """
    if partitions < 1:
        raise ValueError(f"{partitions} is not a number of partitions")
    return (murmur2(account.encode()) & 0x7FFFFFFF) % partitions
