from __future__ import annotations

import struct

import numpy as np
import pytest

from analysis.diagnose.log import read_log
from analysis.diagnose.planted.writers import event_file
from analysis.diagnose.readers.tensorboard_events import masked_checksum
from testbed.errors import ConfigError

ROWS = [{"step": step, "train/reward": 0.25 * step, "train/entropy": 0.5} for step in range(1, 6)]


def test_checksum_of_a_known_text():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720, appendix B.4); masked as TFRecord does:
    # rotated right by 15, plus 0xA282EAD8.
    plain = 0xE3069283
    rotated = (plain >> 15 | plain << 17) & 0xFFFFFFFF
    assert masked_checksum(b"123456789") == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_an_event_a_number(tmp_path):
    log = read_log(event_file(tmp_path / "events", ROWS))
    assert log.engine.name == "trl"
    assert log.series["reward/mean"].steps.tolist() == [1, 2, 3, 4, 5]
    assert log.series["reward/mean"].values.tolist() == [0.25, 0.5, 0.75, 1.0, 1.25]
    assert "time/clock" in log.series


def test_a_number_as_a_tensor(tmp_path):
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    # dtype 1 is float; tensor_content holds its bytes.
    tensor = b"\x08\x01" + field(4, struct.pack("<f", 0.75))
    value = field(1, b"train/reward") + field(8, tensor)
    event = b"\x09" + struct.pack("<d", 1.0) + b"\x10\x07" + field(5, field(1, value))
    path = event_file(tmp_path / "events", ROWS)
    length = struct.pack("<Q", len(event))
    record = length + struct.pack("<I", masked_checksum(length)) + event + struct.pack("<I", masked_checksum(event))
    path.write_bytes(path.read_bytes() + record)
    series = read_log(path).series["reward/mean"]
    assert (series.steps[-1], series.values[-1]) == (7, 0.75)


def test_what_stands_before_the_damage_is_read(tmp_path):
    path = event_file(tmp_path / "events", ROWS)
    content = bytearray(path.read_bytes())
    content[-30] ^= 0xFF
    path.write_bytes(bytes(content))
    log = read_log(path)
    assert log.series["reward/mean"].steps.tolist() == [1, 2, 3, 4, 5]
    assert log.series["entropy/mean"].steps.tolist() == [1, 2, 3, 4]
    assert any("damaged" in note for note in log.notes)


def test_random_bytes_are_no_event_file(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ConfigError, match="binary file"):
        read_log(path)
