"""Instructions of the protocol, and what becomes of them under a mutator with a seed."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

WORDS = ("river", "Morgen", "窗", "garden.", "café!", "\u200b", "ok?", "12.50", "\U0001f600", "a\u0301", "שלום", "—")
NUMBERS = (
    "0",
    "-1",
    "1e400",
    "-1e-400",
    "9" * 400,
    "1.7976931348623157e308",
    "2147483648",
    "18446744073709551616",
    "0.5",
)
STRANGE = (
    "",
    " ",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202e",
    "<speak>",
    "]]>",
    "<!DOCTYPE a>",
    "&#0;",
    "%s%n",
    "../..",
)
MARKUP = (
    "<break time='1s'/>",
    "<break time='-1e9s'/>",
    "<prosody rate='fast'>",
    "</prosody>",
    "<say-as interpret-as='date'>2026-13-45</say-as>",
    "<say-as interpret-as='cardinal'>" + "9" * 300 + "</say-as>",
    "<sub alias=''>",
    "<!DOCTYPE speak [<!ENTITY a 'b'><!ENTITY c '&a;&a;&a;'>]>&c;",
    "&lt;",
    "&#x0;",
    "&unknown;",
    "<![CDATA[",
    "<!--",
    "<?xml version='1.0' encoding='utf-7'?>",
    "<p " + "a='b' " * 50 + ">",
    "<s>" * 200,
)
KEYS = (
    "header",
    "payload",
    "action",
    "task_id",
    "streaming",
    "parameters",
    "input",
    "text",
    "flush",
    "directive",
    "model",
)
VOICE, MODEL = "longanyang", "cosyvoice-v3-flash"


class Raw:
    """A literal that JSON knows and Python does not, such as a number of 400 digits."""

    def __init__(self, literal: str) -> None:
        self.literal = literal


# ------------------------------------------------------------------------------------------ right instructions
def run_task(random: Random, task_id: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {"text_type": "PlainText", "voice": VOICE, "format": "pcm", "sample_rate": 24000}
    more = {
        "volume": random.randint(0, 100),
        "rate": 1.0,
        "pitch": 1.0,
        "seed": random.randint(0, 65535),
        "type": 0,
        "enable_ssml": random.random() < 0.3,
        "word_timestamp_enabled": True,
        "instruction": "calmly",
        "language_hints": ["en"],
        "hot_fix": {"pronunciation": [{"河": "he2"}], "replace": [{"a": "b"}]},
        "bit_rate": 64,
    }
    parameters |= {name: value for name, value in more.items() if random.random() < 0.25}
    payload = {
        "task_group": "audio",
        "task": "tts",
        "function": "SpeechSynthesizer",
        "model": MODEL,
        "parameters": parameters,
        "input": {},
    }
    return _instruction("run-task", task_id, payload)


def continue_task(random: Random, task_id: str) -> dict[str, Any]:
    return _instruction("continue-task", task_id, {"input": {"text": text(random)}})


def other(random: Random, task_id: str) -> dict[str, Any]:
    """A flush, a finish or a cancel."""
    action, given = random.choice(
        (("continue-task", {"flush": True}), ("finish-task", {}), ("finish-task", {"directive": "cancel"}))
    )
    return _instruction(action, task_id, {"input": given})


def text(random: Random) -> str:
    words = random.choices(WORDS, k=random.randint(1, 12))
    if random.random() < 0.25:
        words[0:0] = random.choices(MARKUP, k=random.randint(1, 6))
        words = ["<speak>", *words, "</speak>"] if random.random() < 0.5 else words
    return " ".join(words)


def _instruction(action: str, task_id: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"header": {"action": action, "task_id": task_id, "streaming": "duplex"}, "payload": payload}


# ------------------------------------------------------------------------------------------ mutated ones
def mutate_tree(random: Random, instruction: dict[str, Any]) -> bytes:
    """Change one to three places of an instruction: other types, sizes, names, depths; then write it as JSON."""
    tree = copy.deepcopy(instruction)
    for _ in range(random.randint(1, 3)):
        holder, key = _place(random, tree)
        change = random.randrange(5)
        if change == 0 and isinstance(holder, dict):
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[random.choice((*KEYS, *STRANGE))] = holder[key]
        elif change == 2:
            holder[key] = _deep(random, random.choice((1, 30, 1000)))
        else:
            holder[key] = _value(random)
    return written(random, tree)


def _place(random: Random, tree: dict[str, Any]) -> tuple[Any, Any]:
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    tree.setdefault("header", None)  # it may have lost all that it had
    walk(tree)
    return random.choice(places)


def _value(random: Random) -> Any:
    return random.choice(
        (
            None,
            True,
            random.choice(STRANGE),
            random.choice(WORDS) * random.choice((1, 50, 4000)),
            Raw(random.choice(NUMBERS)),
            random.randint(-(2**70), 2**70),
            random.choice(KEYS),
            [],
            {},
            [text(random)],
            {random.choice(KEYS): text(random)},
            random.choice(("run-task", "continue-task", "finish-task", "SSML", "mp3", "opus", "wav", "cancel")),
        )
    )


def _deep(random: Random, depth: int) -> Raw:
    opened, closed = random.choice((("[", "]"), ('{"a":', "}")))
    return Raw(opened * depth + "1" + closed * depth)


def written(random: Random, value: Any) -> bytes:
    """Any tree as JSON, with names twice, escapes or none, and half surrogates as they are."""
    ascii_only = random.random() < 0.5
    return _write(random, value, ascii_only).encode("utf-8", "surrogatepass")


def _write(random: Random, value: Any, ascii_only: bool) -> str:
    if isinstance(value, Raw):
        return value.literal
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(key))}:{_write(random, each, ascii_only)}" for key, each in value.items()]
        if pairs and random.random() < 0.05:
            pairs.append(random.choice(pairs))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(random, each, ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Flip, delete, insert, double or cut bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(changed) + 1)
        change = random.randrange(5)
        if change == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif change == 1:
            del changed[at : at + random.choice((1, 4, 100))]
        elif change == 2:
            changed[at:at] = random.choice((b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b'"', b"{", b"\\u", b"\n"))
        elif change == 3:
            changed[at:at] = changed[at : at + 20]
        else:
            del changed[at:]
    return bytes(changed)
