"""XXH3, 64 bits, seed 0: the checksum of newer HEFs, by the `xxhash` package or, where it is missing, by numpy.

Written from the XXH3 part of the xxHash specification (doc/xxhash_spec.md of github.com/Cyan4973/xxHash). Only what
a HEF needs: no seed, no secret of one's own. numpy hashes some 60 MB a second. What is at most 240 bytes long goes
another way in XXH3, and is rare enough for plain Python.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

MASK = (1 << 64) - 1
PRIME32_1, PRIME32_2, PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIME64_1, PRIME64_2, PRIME64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
PRIME64_4, PRIME64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
PRIME_MX1, PRIME_MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
SHORT = 240  # longest input of the other way
STRIPE = 64  # bytes that meet the eight accumulators at once
BLOCK = 1024  # 16 stripes, after which the accumulators are scrambled
FIRST_LANES = (PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1)

_LANES = np.array([[s * 8 + i * 8 for i in range(8)] for s in range(16)])  # secret offset of (stripe, lane)
_KEYS = np.frombuffer(b"".join(SECRET[o : o + 8] for o in _LANES.ravel()), "<u8").reshape(16, 8)
_SCRAMBLE_KEY = np.frombuffer(SECRET[128:], "<u8")
_LAST_KEY = np.frombuffer(SECRET[121:185], "<u8")  # 7 bytes before the last stripe's own place


class Hasher(Protocol):
    """What `xxhash.xxh3_64()` and `Xxh3` have in common."""

    def update(self, data: bytes, /) -> object:
        """Hash some more."""

    def intdigest(self) -> int:
        """The hash of everything so far."""


def new_xxh3() -> Hasher:
    """The package's hasher where it is installed, else ours: equal results, other speeds."""
    try:
        import xxhash
    except ImportError:
        return Xxh3()
    hasher: Hasher = xxhash.xxh3_64()
    return hasher


class Xxh3:
    """XXH3-64 of bytes that come piece by piece; memory stays at a few times a piece's size."""

    def __init__(self) -> None:
        self._lanes = np.array(FIRST_LANES, np.uint64)
        self._length = 0
        self._kept = b""  # what is not hashed yet: the last block stays until it is known to be the last
        self._before = b""  # the 64 bytes before `_kept`, for a last stripe that begins there

    def update(self, data: bytes, /) -> None:
        """Hash some more."""
        self._length += len(data)
        data = self._kept + data
        # hash whole blocks, but never the very last byte: XXH3 treats the end in its own way
        whole = max(len(data) - 1, 0) // BLOCK * BLOCK
        if whole and self._length > SHORT:
            _hash_blocks(self._lanes, data[:whole])
            self._before = data[whole - STRIPE : whole]
        self._kept = data[whole:]

    def intdigest(self) -> int:
        """The hash of everything so far; more may follow."""
        if self._length <= SHORT:
            return _short(self._kept)
        lanes = self._lanes.copy()
        stripes = (len(self._kept) - 1) // STRIPE
        rest = np.frombuffer(self._kept, "<u8", stripes * 8).reshape(stripes, 8)
        lanes += _contribution(rest[None], _KEYS[:stripes])[0]
        last = (self._before + self._kept)[-STRIPE:]
        lanes += _contribution(np.frombuffer(last, "<u8")[None, None], _LAST_KEY)[0]
        return _merge([int(lane) for lane in lanes], self._length)


def _hash_blocks(lanes: np.ndarray, data: bytes) -> None:
    """Many blocks into (8,) uint64 lanes, in place."""
    stripes = np.frombuffer(data, "<u8").reshape(-1, 16, 8)
    for block in _contribution(stripes, _KEYS):
        lanes += block
        lanes ^= lanes >> np.uint64(47)
        lanes ^= _SCRAMBLE_KEY
        lanes *= np.uint64(PRIME32_1)


def _contribution(stripes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n, stripes, 8) words -> (n, 8): what the stripes of each block add to the lanes; uint64 wraps as XXH3 wants."""
    mixed = stripes ^ keys
    product = (mixed & np.uint64(0xFFFFFFFF)) * (mixed >> np.uint64(32))
    product += stripes[..., [1, 0, 3, 2, 5, 4, 7, 6]]
    total: np.ndarray = product.sum(axis=1, dtype=np.uint64)
    return total


def _merge(lanes: list[int], length: int) -> int:
    """The end of a long input: eight lanes -> one hash."""
    result = length * PRIME64_1
    for i in range(0, 8, 2):
        result += _fold(lanes[i] ^ _u64(SECRET, 11 + 8 * i), lanes[i + 1] ^ _u64(SECRET, 19 + 8 * i))
    return _avalanche(result & MASK)


# --- inputs of at most 240 bytes -------------------------------------------------------------------------------------


def _short(data: bytes) -> int:
    for longest, function in ((0, _empty), (3, _upto_3), (8, _upto_8), (16, _upto_16), (128, _upto_128)):
        if len(data) <= longest:
            return function(data)
    return _upto_240(data)


def _empty(data: bytes) -> int:
    return _avalanche_xxh64(_u64(SECRET, 56) ^ _u64(SECRET, 64))


def _upto_3(data: bytes) -> int:
    combined = data[-1] | len(data) << 8 | data[0] << 16 | data[len(data) >> 1] << 24
    return _avalanche_xxh64(combined ^ _u32(SECRET, 0) ^ _u32(SECRET, 4))


def _upto_8(data: bytes) -> int:
    value = _u32(data, len(data) - 4) + (_u32(data, 0) << 32)
    value ^= _u64(SECRET, 8) ^ _u64(SECRET, 16)
    value ^= _rotated(value, 49) ^ _rotated(value, 24)
    value = value * PRIME_MX2 & MASK
    value ^= (value >> 35) + len(data)
    value = value * PRIME_MX2 & MASK
    return value ^ value >> 28


def _upto_16(data: bytes) -> int:
    low = (_u64(SECRET, 24) ^ _u64(SECRET, 32)) ^ _u64(data, 0)
    high = (_u64(SECRET, 40) ^ _u64(SECRET, 48)) ^ _u64(data, len(data) - 8)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return _avalanche((len(data) + swapped + high + _fold(low, high)) & MASK)


def _upto_128(data: bytes) -> int:
    result = len(data) * PRIME64_1
    for i in range((len(data) - 1) // 32 + 1):
        result += _mix_16(data, 16 * i, 32 * i) + _mix_16(data, len(data) - 16 * (i + 1), 32 * i + 16)
    return _avalanche(result & MASK)


def _upto_240(data: bytes) -> int:
    result = len(data) * PRIME64_1 + sum(_mix_16(data, 16 * i, 16 * i) for i in range(8))
    result = _avalanche(result & MASK)
    result += sum(_mix_16(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, len(data) // 16))
    result += _mix_16(data, len(data) - 16, 136 - 17)
    return _avalanche(result & MASK)


def _mix_16(data: bytes, at: int, secret_at: int) -> int:
    return _fold(_u64(data, at) ^ _u64(SECRET, secret_at), _u64(data, at + 8) ^ _u64(SECRET, secret_at + 8))


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & MASK


def _fold(a: int, b: int) -> int:
    """The two halves of the 128-bit product, xored."""
    product = a * b
    return product & MASK ^ product >> 64


def _avalanche(value: int) -> int:
    value = (value ^ value >> 37) * PRIME_MX1 & MASK
    return value ^ value >> 32


def _avalanche_xxh64(value: int) -> int:
    value = (value ^ value >> 33) * PRIME64_2 & MASK
    value = (value ^ value >> 29) * PRIME64_3 & MASK
    return value ^ value >> 32
