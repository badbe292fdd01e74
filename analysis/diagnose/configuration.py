"""The configuration of a run: YAML, JSON or a command line, nested or flat, of any engine; never a pickle."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from analysis.diagnose.engine import Engine, Settings, engines
from testbed.errors import ConfigError

__all__ = ["Configuration", "flatten", "known_beside", "read_configuration"]

_LARGEST = 4 << 20
"""Bytes of a configuration file; a larger one is something else."""

_MOST_KEYS = 50_000

_BESIDE = ("configuration.yaml", "args.json", ".hydra/config.yaml", "config.yaml")
"""Files in which this project, ms-swift, hydra and W&B leave a run's settings."""


class Configuration:
    """What a run was asked to do, under the engine's keys and under canonical names.

    Args:
        flat: dotted keys to values.
        name: where they are from.
    """

    def __init__(self, flat: Mapping[str, Any] | None = None, name: str | None = None) -> None:
        self.flat = dict(flat or {})
        self.name = name
        self.settings = Settings()
        self.engine: Engine | None = None

    def __bool__(self) -> bool:
        return bool(self.flat)

    def engines(self) -> list[str]:
        """Engines that have keys no other engine has, and these are there."""
        votes = {
            name: sum(key.startswith(start) for key in self.flat for start in engines[name].distinctive)
            for name in engines.names()
        }
        best = max(votes.values(), default=0)
        return [name for name, count in votes.items() if count == best and count > 0]

    def resolve(self, engine: Engine) -> None:
        """Read canonical settings, by the table of the log's engine, then of the engine whose keys these are."""
        self.engine, self.settings = engine, Settings()
        order = [engine, *(engines[name] for name in self.engines() if name != engine.name)]
        for item in order:
            for name, keys in item.settings.items():
                for key in keys:
                    if self.flat.get(key) is not None:
                        self.settings.put(name, self.flat[key], key)
                        break
            item.read(self.flat, self.settings)
        for name in _CANONICAL:
            # The canonical names are keys as well.
            self.settings.put(name, self.flat.get(name), name)

    def get(self, name: str) -> Any:
        """The value of a canonical setting, or None."""
        return self.settings.values.get(name)

    def number(self, name: str) -> float | None:
        """The value as a number, or None where it is none."""
        value = self.get(name)
        if isinstance(value, bool):
            return float(value)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            return None

    def source(self, name: str) -> str:
        """Where the value of a canonical setting is from."""
        return self.settings.sources.get(name, "")


_CANONICAL = (
    "updates_per_rollout",
    "clip_low",
    "clip_high",
    "loss",
    "dual_clip",
    "temperature",
    "top_k",
    "top_p",
    "beta",
    "gpus",
    "group_size",
    "ratio_level",
)


def known_beside(logs: Sequence[str | Path]) -> Path | None:
    """A configuration that lies in the folder of a run under a name that is only used for one."""
    for item in logs:
        path = Path(item)
        if str(item) == "-" or not path.exists():
            continue
        folder = path if path.is_dir() else path.parent
        names = _BESIDE if path.is_dir() else ("configuration.yaml",)
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def read_configuration(given: str | Path | Mapping[str, Any] | None, found: Mapping[str, Any]) -> Configuration:
    """A configuration from a file, a mapping or a command line; `found` is what the log itself says.

    Raises:
        ConfigError: there is no such file, it is a pickle, or it is no configuration.
    """
    inside = flatten(found)
    if given is None:
        return Configuration(inside, "the log" if inside else None)
    if isinstance(given, Mapping):
        return Configuration(inside | flatten(given), "the given settings")
    text = str(given)
    path = Path(text)
    if not _is_file(path):
        if _is_command(text):
            return Configuration(inside | _command_line(text), "the given command line")
        shown = text if len(text) <= 80 else f"{text[:77]}…"
        raise ConfigError(f"{shown!r} is no file; expected a configuration: YAML, JSON, or a command line")
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if raw[:1] == b"\x80" or raw[:4] == b"PK\x03\x04":
        raise ConfigError(
            f"{path} is a pickle, which is never loaded; give the settings as YAML, as JSON, or as the command line"
        )
    if len(raw) > _LARGEST or (b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff"))):
        raise ConfigError(f"{path} is no configuration; expected YAML, JSON, or a command line")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return Configuration(inside | _parsed(raw.decode(encoding, errors="replace"), str(path)), str(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A command line is no name of a file: too long, or with characters that none has.
        return False


def _is_command(text: str) -> bool:
    return "\n" in text or text.startswith("--") or bool(re.search(r"\s--?\w|^\+?[\w.]+=|\s\+?[\w.]+=", text))


def _parsed(text: str, name: str) -> dict[str, Any]:
    if not text.strip():
        raise ConfigError(f"{name} is empty; expected a configuration: YAML, JSON, or a command line")
    content: Any = None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        try:
            content = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, RecursionError, ValueError):
            content = None
    if isinstance(content, Mapping):
        return flatten(content)
    flags = _command_line(text)
    if flags:
        return flags
    raise ConfigError(f"{name} is no configuration; expected keys and values as YAML or JSON, or a command line")


class _Loader(yaml.SafeLoader):
    """Numbers such as 1e-6, which YAML 1.1 takes for text; tags of other programs are read as plain data."""


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _plain(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _plain)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def flatten(content: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested mappings as dotted keys; W&B's `{value: …, desc: …}` is its value.

    >>> flatten({"a": {"b.c": 1, "d": {"value": 2, "desc": None}}})
    {'a.b.c': 1, 'a.d': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if len(flat) > _MOST_KEYS:
            raise ConfigError(f"the configuration has more than {_MOST_KEYS} keys; expected the settings of one run")
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < 30:
            if "value" in value and set(value) <= {"value", "desc"}:
                value = value["value"]
                if not isinstance(value, Mapping):
                    flat[name] = value
                    continue
            flat |= flatten(value, f"{name}.", depth + 1)
        else:
            flat[name] = _value(value) if isinstance(value, str) else value
    return flat


def _command_line(text: str) -> dict[str, Any]:
    """`--key value`, `--key=value`, `--flag` and hydra's `key=value`; line continuations and comments are left out."""
    joined = re.sub(r"\\\s*\n", " ", text)
    joined = "\n".join(line.split(" #")[0] for line in joined.splitlines() if not line.lstrip().startswith("#"))
    try:
        words = shlex.split(joined, comments=False)
    except ValueError:
        words = joined.split()
    flat: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals:
                values = []
                while place < len(words) and not _is_option(words[place]):
                    values.append(words[place])
                    place += 1
                given: Any = (
                    True if not values else _value(values[0]) if len(values) == 1 else list(map(_value, values))
                )
            else:
                given = _value(value)
            flat[name.replace("-", "_")] = given
        elif re.match(r"\+{0,2}[A-Za-z_][\w.@/]*=", word):
            name, _, value = word.lstrip("+").partition("=")
            flat[name] = _value(value)
    return flat


def _is_option(word: str) -> bool:
    return word.startswith("--") or bool(re.match(r"\+{0,2}[A-Za-z_][\w.]*=", word))


def _value(text: str) -> Any:
    lowered = text.strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    if lowered in {"none", "null", "~", ""}:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
