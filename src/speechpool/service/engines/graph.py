"""Cuts an ONNX model in two at a tensor, without the `onnx` package.

A model file is a protobuf message, and protobuf copies whole sub-messages around as bytes: to cut a graph only the
names of the nodes' inputs and outputs have to be read. Everything else passes through untouched. Field numbers are
those of `onnx.proto` (ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["FLOAT", "INT64", "Tensor", "cut"]

FLOAT, INT64 = 1, 7
"""Element types, as TensorProto.DataType numbers them."""

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """A graph input: its name, element type, and dimensions (a str is a free one)."""

    name: str
    kind: int
    shape: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    raw: bytes  # the whole field, tag included
    body: bytes  # the payload of a length-delimited field


def cut(model: bytes, *, inputs: Sequence[Tensor], outputs: Sequence[str]) -> bytes:
    """Return a model that computes `outputs` from `inputs`, with only the nodes and weights it needs.

    Raises:
        ValueError: `model` is no ONNX model, or `outputs` cannot be computed from `inputs`.
    """
    return b"".join(
        _delimited(_MODEL_GRAPH, _cut_graph(part.body, inputs, outputs)) if part.number == _MODEL_GRAPH else part.raw
        for part in _fields(model)
    )


def _cut_graph(graph: bytes, inputs: Sequence[Tensor], outputs: Sequence[str]) -> bytes:
    fields = list(_fields(graph))
    weights = {_name(field.body): field.raw for field in fields if field.number == _GRAPH_INITIALIZER}
    nodes = [field for field in fields if field.number == _GRAPH_NODE]
    kept, used = _reachable(nodes, {each.name for each in inputs}, outputs, weights)
    rewritten = {_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO}
    return b"".join([
        *(field.raw for field in kept),
        *(field.raw for field in fields if field.number not in rewritten),
        *(raw for name, raw in weights.items() if name in used),
        *(_delimited(_GRAPH_INPUT, _value_info(each)) for each in inputs),
        *(_delimited(_GRAPH_OUTPUT, _delimited(1, name.encode())) for name in outputs),
    ])  # fmt: skip


def _reachable(
    nodes: Sequence[_Field], given: set[str], outputs: Sequence[str], weights: Mapping[str, bytes]
) -> tuple[list[_Field], set[str]]:
    """Walk back from the outputs. Nodes of a model stand in the order of computation, so one pass is enough."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        reads, writes = _ports(node.body)
        if needed.isdisjoint(writes) or not given.isdisjoint(writes):
            continue
        needed.difference_update(writes)
        needed.update(reads)
        kept.append(node)
    used = needed & weights.keys()
    if missing := needed - given - used - {""}:
        raise ValueError(f"the graph cannot be cut here: nothing gives {', '.join(sorted(missing)[:3])}.")
    return kept[::-1], used


def _ports(node: bytes) -> tuple[list[str], list[str]]:
    reads, writes = [], []
    for field in _fields(node):
        if field.number == _NODE_INPUT:
            reads.append(field.body.decode())
        elif field.number == _NODE_OUTPUT:
            writes.append(field.body.decode())
    return reads, writes


def _name(tensor: bytes) -> str:
    return next((field.body.decode() for field in _fields(tensor) if field.number == _TENSOR_NAME), "")


def _value_info(tensor: Tensor) -> bytes:
    dims = b"".join(
        _delimited(1, _delimited(2, size.encode()) if isinstance(size, str) else b"\x08" + _varint(size))
        for size in tensor.shape
    )
    kind = _delimited(1, b"\x08" + _varint(tensor.kind) + _delimited(2, dims))
    return _delimited(1, tensor.name.encode()) + _delimited(2, kind)


def _delimited(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        body = b""
        match tag & 7:
            case 0:
                _, at = _read_varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(message, at)
                body, at = message[at : at + length], at + length
            case 5:
                at += 4
            case _:
                raise ValueError("the file is no ONNX model.")
        if at > len(message):
            raise ValueError("the ONNX model is cut short.")
        yield _Field(tag >> 3, message[start:at], body)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("the ONNX model is cut short.")
