from collections.abc import Callable

def pack_batches(
    frames: bytes | memoryview,
    common: bytes,
    first_sequence: int,
    mark: bytes,
    codec: int,
    compress: Callable[[bytes], bytes],
    batch_bytes: int,
) -> bytes: ...
