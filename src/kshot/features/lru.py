"""A bounded cache in memory for values that cost much to make; the least recently used go first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Values by key.

    max_bytes: of all values together, as `size_of` counts them; a value larger than that is not kept.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]):
        self.max_bytes, self.size_of = max_bytes, size_of
        self.bytes = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, from `make` when it is not in the cache."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self.bytes += self.size_of(value)
        while self.bytes > self.max_bytes:
            self.bytes -= self.size_of(self._values.popitem(last=False)[1])
        return value


class SharedCache(Generic[Value]):
    """A `BoundedCache` that threads share; those that want the same value wait for the first to make it."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]):
        self._cache = BoundedCache[Value](max_bytes, size_of)
        self._lock = threading.Lock()
        self._making: dict[Hashable, tuple[threading.Lock, int]] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, from `make` when it is not in the cache."""
        with self._lock:
            if key in self._cache:
                return self._cache.get(key, make)
            making, users = self._making.get(key, (threading.Lock(), 0))
            self._making[key] = making, users + 1
        try:
            with making:
                with self._lock:
                    if key in self._cache:
                        return self._cache.get(key, make)
                value = make()
                with self._lock:
                    return self._cache.get(key, lambda: value)
        finally:
            with self._lock:
                making, users = self._making.pop(key)
                if users > 1:
                    self._making[key] = making, users - 1
