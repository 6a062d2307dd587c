"""Columns of a table that say which part of a video a line means, by whatever name they go."""

import dataclasses
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from lumiere_jax.runtime.errors import UserError

_ROLES = {
    "start": "start", "begin": "start", "onset": "start", "starts": "start", "begins": "start",
    "from": "start", "end": "end", "stop": "end", "ends": "end", "stops": "end", "until": "end",
    "finish": "end", "to": "end", "duration": "duration", "dur": "duration", "length": "duration",
    "len": "duration",
}  # fmt: skip
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "usecs", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
}
_TIMES = {
    "time", "times", "timestamp", "timestamps", "timecode", "timecodes", "interval", "intervals",
    "segments", "timespan", "timespans", "timing", "timings", "offset",
}  # fmt: skip
_FILLERS = {
    "t", "ts", "at", "in", "of", "clip", "video", "segment", "seg", "shot", "scene", "part",
    "point", "position", "pos", "range", "span", "window", "event", "temporal", "tc", "trim", "cut",
    "moment", "action", "activity",
}  # fmt: skip
_NO_SECONDS = {
    "frame", "frames", "sample", "samples", "index", "idx", "pts", "dts", "ratio", "fraction",
    "percent", "pct", "frac",
}  # fmt: skip
_WEAK = {"from", "to", "length", "len"}  # words that mean times only beside others that do
_PAIRS = (
    ("from", "to"), ("in", "out"), ("t0", "t1"), ("t1", "t2"), ("ss", "to"), ("ss", "t"),
    ("s", "e"), ("t", "dt"), ("von", "bis"), ("beginn", "ende"), ("anfang", "ende"),
    ("debut", "fin"), ("début", "fin"), ("inicio", "fin"),
)  # fmt: skip
"""Names that mean times where both are there, and may mean anything else alone."""
_OPPOSITES = (("start", "end"), ("start", "stop"), ("begin", "end"), ("in", "out"))
"""Words in which the names of two columns differ that may be times, whatever else they say."""
_NO_TIMES = {
    "char", "city", "date", "day", "id", "lat", "line", "location", "lon", "month", "page", "place",
    "state", "token", "word", "x", "y", "year",
}  # fmt: skip

_UNCLEAR = (
    "looks like times, but not what they mean; name the columns start and end (in seconds), or "
    "remove it"
)
_KNOWN = {*_ROLES, *_UNITS, *_TIMES, *_FILLERS, *_NO_SECONDS}

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")


@dataclasses.dataclass(frozen=True)
class _Column:
    name: str
    role: str
    unit: float  # in seconds, of a number

    def seconds(self, where: str, row: Mapping[str, Any]) -> float | None:
        """The time in a row, which may be absent."""
        value = row.get(self.name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, float) and math.isnan(value):  # how pandas says "none" in Parquet
            return None
        seconds = _in_seconds(value, self.unit)
        if not 0 <= seconds < math.inf:
            raise UserError(
                f"{where}: {self.name} is {value!r}, not a time in seconds or as 00:01:02.5"
            )
        return seconds


@dataclasses.dataclass(frozen=True)
class TimeColumns:
    """The columns of a table that hold times."""

    columns: tuple[_Column, ...]  # at most one of each role

    @classmethod
    def among(cls, where: str, names: Sequence[str]) -> Self:
        """Finds them; a `UserError` if one looks like times, and its meaning is not plain."""
        found: dict[str, _Column] = {}
        for name, column in _columns(names).items():
            if isinstance(column, str):
                raise UserError(f"{where}: the column {name} {column}")
            if column is None:
                continue
            if column.role in found:
                raise UserError(
                    f"{where}: the columns {found[column.role].name} and {name} both tell the "
                    f"{column.role}; keep one"
                )
            found[column.role] = column
        if "start" not in found or "end" in found:
            found.pop("duration", None)  # that of the whole file, or said twice
        return cls(tuple(found.values()))

    def span(self, where: str, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """Start and end of a row in seconds, where it has them; a `UserError` if they are none."""
        times = {column.role: column.seconds(where, row) for column in self.columns}
        start, end, duration = (times.get(role) for role in ("start", "end", "duration"))
        if duration is not None:
            end = (start or 0.0) + duration
        if end is not None and end <= (begin := start or 0.0):
            raise UserError(f"{where}: end is {end:g} s, which is not after start, {begin:g} s")
        return start, end

    def told(self) -> dict[str, str]:
        """The names of the columns and what each was read as."""
        units = {1e-3: " in milliseconds", 1e-6: " in microseconds", 60.0: " in minutes"}
        return {
            column.name: column.role + units.get(column.unit, " in seconds")
            for column in self.columns
        }


def cutting(names: Sequence[str]) -> list[str]:
    """Those columns by which a table cuts videos, whether their meaning is plain or not."""
    return [
        name
        for name, column in _columns(names).items()
        if isinstance(column, str) or (column is not None and column.role != "duration")
    ]


def _columns(names: Sequence[str]) -> dict[str, _Column | str | None]:
    """What each column holds, see `_column`, by itself and beside the others."""
    found = {name: _column(name) for name in names}
    paired = {name for pair in _PAIRS if set(pair) <= set(names) for name in pair}
    unread = {tuple(_words(name)): name for name, column in found.items() if column is None}
    for words, name in unread.items():
        for begin, end in _OPPOSITES:
            other = tuple(end if word == begin else word for word in words)
            is_other = bool(_NO_TIMES.intersection(words)) or len(words) < 2
            # As in "opt_in", or "start_pose": what begins is told after it.
            if begin == "in" or words[-1] != begin:
                is_other |= not _KNOWN.issuperset({*words} - {begin, end})
            if words != other in unread and not is_other:
                paired |= {name, unread[other]}
    return {name: _UNCLEAR if name in paired else column for name, column in found.items()}


def _words(name: str) -> list[str]:
    """The words of a name, also if they are written together."""
    return [part for word in re.findall(r"[a-z]+", name.lower()) for part in _split(word)]


def _column(name: str) -> _Column | str | None:
    """What a column holds: times, something that looks so and why it is none, or anything else."""
    words = _words(name)
    roles = {_ROLES[word] for word in words if word in _ROLES}
    units = {_UNITS[word] for word in words if word in _UNITS}
    if not _KNOWN.issuperset(words) or not (roles or _TIMES.intersection(words)):
        return None
    if (len(words) == 1 and words[0] in _WEAK) or (roles == {"duration"} and "video" in words):
        return None
    if _NO_SECONDS.intersection(words):
        if roles == {"duration"}:
            return None
        return "does not count seconds; write times in seconds, as start and end"
    if len(roles) == 1 and len(units) <= 1:
        return _Column(name, roles.pop(), units.pop() if units else 1.0)
    return _UNCLEAR


def _split(word: str) -> list[str]:
    """The parts of a word that was written together, as "starttime"."""
    if word in _KNOWN:
        return [word]
    for role in sorted(_ROLES, key=len, reverse=True):
        if role not in _WEAK and word.startswith(role) and word[len(role) :] in _KNOWN:
            return [role, word[len(role) :]]
        if role not in _WEAK and word.endswith(role) and word[: -len(role)] in _KNOWN:
            return [word[: -len(role)], role]
    return [word]


def _in_seconds(value: Any, unit: float) -> float:
    """A number in that unit, or hours, minutes and seconds; NaN if it is neither."""
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        return datetime.timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second,
            microseconds=value.microsecond,
        ).total_seconds()  # fmt: skip
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups(default="0")
        parts = int(hours), int(minutes), float(seconds.replace(",", "."))
        is_clock = parts[2] < 60 and (clock[1] is None or parts[1] < 60)
        return parts[0] * 3600 + parts[1] * 60 + parts[2] if is_clock else math.nan
    try:
        return math.nan if isinstance(value, bool) else float(value) * unit
    except (TypeError, ValueError):
        return math.nan
