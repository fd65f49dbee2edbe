from collections.abc import Iterable, Iterator, Sequence
from typing import overload

class PackedRecord:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

class PackedRecords(Sequence[PackedRecord]):
    size_bytes: int
    held_bytes: int
    @staticmethod
    def read(body: bytes, count: int, base_offset: int, first_ms: int, append_ms: int | None) -> PackedRecords: ...
    @staticmethod
    def read_part(
        body: bytes, count: int, base_offset: int, first_ms: int, append_ms: int | None, largest: int
    ) -> tuple[PackedRecords, int]: ...
    @staticmethod
    def joined(parts: Iterable[PackedRecords]) -> PackedRecords: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[PackedRecord]: ...
    @overload
    def __getitem__(self, index: int) -> PackedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> PackedRecords: ...
