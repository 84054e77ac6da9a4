"""What a program that was compiled for a TPU takes, operation by operation, read off its HLO text.

XLA's own ``cost_analysis`` counts the body of a loop once, and adds the bytes of the on-chip memory
to those of HBM. Here an operation counts as often as it runs and only what lies in HBM has bytes.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_HEADER = re.compile(r"(?P<entry>ENTRY )?%(?P<name>\S+) \(")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%(\S+) = (.+?) ([a-z][a-z0-9-]*)\((.*?)\)(.*)")
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([^}]*)\})?")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = ("dynamic-update-slice", "scatter")
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("custom-call", "copy-done", "slice-done", "partition-id", "replica-id"),
)


class Operation(NamedTuple):
    """An operation of the compiled program.

    Attributes:
      opcode: its kind.
      source: where in the traced program it comes from.
      type_: its result with the layout.
      times: how often it runs.
      flops: of convolutions and matrix products each time, without products with padding.
      hbm_bytes: read and written each time.
      cycles: the compiler's estimate each time; None where it has none.
    """

    opcode: str
    source: str
    type_: str
    times: float
    flops: float
    hbm_bytes: int
    cycles: int | None


class _Array(NamedTuple):
    """An array as it lies in memory."""

    bits: int
    dims: tuple[int, ...]
    layout: str

    @property
    def size(self) -> int:
        """Bytes with the padding of its tiles."""
        order, _, tiling = self.layout.partition(":")
        dims = [self.dims[int(axis)] for axis in order.split(",") if axis]  # the fastest first
        tile = re.match(r"T\(([\d,]+)\)", tiling)
        lengths = [int(length) for length in reversed(tile[1].split(","))] if tile else []
        padded = [-(-n // length) * length for n, length in zip(dims, lengths, strict=False)]
        return math.prod(padded + dims[len(padded) :]) * self.bits // 8

    @property
    def in_hbm(self) -> int:
        """The same, none if it lies on the chip."""
        return 0 if "S(" in self.layout else self.size


def _arrays(type_: str) -> list[_Array]:
    return [
        _Array(8 if kind == "pred" else int(bits or 0), _integers(dims), layout)
        for kind, bits, dims, layout in _ARRAY.findall(type_)
    ]


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _size(type_: str) -> int:
    return sum(array.size for array in _arrays(type_))


def _in_hbm(type_: str) -> int:
    return sum(array.in_hbm for array in _arrays(type_))


class _Instruction(NamedTuple):
    is_root: bool
    name: str
    type_: str
    opcode: str
    argument: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.argument)

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations in the first of the attributes that it has."""
        for attribute in attributes:
            if found := re.search(rf"\b{attribute}=(\{{[^}}]*\}}|\S+)", self.attributes):
                return re.findall(r"%([\w.-]+)", found[1])
        return []


class Program:
    """A compiled program.

    Args:
      text: its HLO, ``compiled.as_text()``.

    >>> text = '''
    ... %body (p: f32[8,128]) -> f32[8,128] {
    ...   %p = f32[8,128]{1,0:T(8,128)} parameter(0)
    ...   ROOT %sine = f32[8,128]{1,0:T(8,128)S(1)} sine(%p)
    ... }
    ... %condition (p: f32[8,128]) -> pred[] {
    ...   %limit = s32[] constant(7)
    ...   ROOT %less = pred[] compare(%count, %limit), direction=LT
    ... }
    ... ENTRY %main (x: f32[8,128]) -> f32[8,128] {
    ...   %x = f32[8,128]{1,0:T(8,128)} parameter(0)
    ...   ROOT %loop = f32[8,128]{1,0} while(%x), condition=%condition, body=%body
    ... }'''
    >>> [(op.opcode, op.times, op.hbm_bytes) for op in Program(text).operations()]
    [('sine', 7.0, 4096)]
    """

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, _Instruction]] = {}
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self._computations.setdefault(header["name"], {})
                self._entry = header["name"]  # the last of them
            elif found := _INSTRUCTION.match(line):
                instruction = _Instruction(bool(found[1]), *found.groups()[1:])
                current[instruction.name] = instruction

    def operations(self, trips: tuple[float, ...] = ()) -> Iterator[Operation]:
        """What runs, of a conditional the dearer branch.

        Args:
          trips: how often loops of unknown length run, nested ones from the outermost on; once
            if not given.
        """
        return self._run(self._entry, 1.0, trips)

    def _run(self, name: str, times: float, trips: tuple[float, ...]) -> Iterator[Operation]:
        for instruction in self._computations[name].values():
            if instruction.opcode == "while":
                known = self._trip_count(*instruction.called("condition"))
                count, rest = (known, trips) if known else ((*trips, 1)[0], trips[1:])
                (body,) = instruction.called("body")
                yield from self._run(body, times * count, rest)
            elif instruction.opcode in ("conditional", "call", "async-start"):
                names = instruction.called("branch_computations", "to_apply", "calls")
                branches = [list(self._run(branch, times, trips)) for branch in names]
                yield from max(branches, key=lambda branch: sum(op.cycles or 0 for op in branch))
            elif instruction.opcode not in _FREE:
                source = _SOURCE.search(instruction.attributes)
                cycles = _CYCLES.search(instruction.attributes)
                yield Operation(
                    instruction.opcode,
                    source[1] if source else instruction.name,
                    instruction.type_,
                    times,
                    self._flops(name, instruction),
                    self._traffic(name, instruction),
                    int(cycles[1]) if cycles else None,
                )

    def _root(self, name: str) -> _Instruction:
        return next(i for i in self._computations[name].values() if i.is_root)

    def _trip_count(self, condition: str) -> int | None:
        """The constant that a loop's counter is compared with."""
        root = self._root(condition)
        instructions = self._computations[condition].values()
        operands = (i for i in instructions if i.name in root.operands)
        bounds = [int(i.argument) for i in operands if i.opcode == "constant"]
        return bounds[0] if bounds and "direction=LT" in root.attributes else None

    def _flops(self, name: str, instruction: _Instruction) -> float:
        if instruction.opcode == "fusion":
            (inner,) = instruction.called("calls")
            return sum(self._flops(inner, i) for i in self._computations[inner].values())
        if instruction.opcode != "convolution":
            return 0.0
        types = [self._computations[name][operand].type_ for operand in instruction.operands]
        image, kernel, out = (_arrays(type_)[0].dims for type_ in (*types, instruction.type_))
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
        of_image, of_kernel, of_out = labels.groups() if labels else ("", "", "")
        found = re.search(r"window=\{([^}]*)\}", instruction.attributes)
        window = dict(entry.split("=") for entry in found[1].split()) if found else {}
        products = kernel[of_kernel.index("i")] * math.prod(out[of_out.index(x)] for x in "bf")
        for axis in range(len(out) - 2):
            at = {key: value.split("x")[axis] for key, value in window.items()}
            spacing = int(at.get("lhs_dilate", 1))
            last = (image[of_image.index(str(axis))] - 1) * spacing
            tap = np.arange(kernel[of_kernel.index(str(axis))]) * int(at.get("rhs_dilate", 1))
            start = np.arange(out[of_out.index(str(axis))]) * int(at.get("stride", 1))
            position = np.add.outer(start - int(at.get("pad", "0_0").split("_")[0]), tap)
            valid = (position >= 0) & (position <= last) & (position % spacing == 0)
            products *= int(valid.sum())
        return 2.0 * products

    def _traffic(self, name: str, instruction: _Instruction) -> int:
        """Bytes of HBM that an instruction reads and writes."""
        opcode, result = instruction.opcode, instruction.type_
        operands = [self._computations[name][operand].type_ for operand in instruction.operands]
        if opcode == "slice-start":  # ((operands), slice, ...)
            piece = _arrays(result)[len(operands)]
            return piece.size + piece.in_hbm
        if opcode.endswith("-start"):  # (result, operand, ...)
            return _in_hbm(result)
        if opcode == "fusion":
            (inner,) = instruction.called("calls")
            touched = (self._touched(inner, position) for position in range(len(operands)))
            read = sum(map(min, map(_in_hbm, operands), touched))
            return read + min(_in_hbm(result), self._written(inner, self._root(inner)))
        read = sum(map(_in_hbm, operands))
        if opcode in _UPDATES:
            update = operands[-1 if opcode == "scatter" else 1]
            return min(2 * _size(update), read + _in_hbm(result))
        return (min(read, _size(result)) if opcode in _SLICES else read) + _in_hbm(result)

    def _touched(self, name: str, position: int) -> int:
        """Bytes of a parameter that a fused computation reads: of a slice of it, the slice."""
        instructions = self._computations[name].values()
        parameter = next(
            i for i in instructions if i.opcode == "parameter" and int(i.argument) == position
        )
        same, total = {parameter.name}, 0
        for user in instructions:
            places = [place for place, operand in enumerate(user.operands) if operand in same]
            if not places:
                continue
            if user.opcode == "bitcast":
                same.add(user.name)
            elif user.opcode == "fusion":
                (inner,) = user.called("calls")
                total += sum(self._touched(inner, place) for place in places)
            elif user.opcode in _SLICES and places == [0]:
                total += _size(user.type_)
            elif user.opcode not in _UPDATES or places != [0]:
                return _size(parameter.type_)
        return total

    def _written(self, name: str, result: _Instruction) -> int:
        """Bytes that a fused computation writes: of an update in place, the update."""
        instructions = self._computations[name]
        if result.opcode in ("tuple", "bitcast"):
            return sum(self._written(name, instructions[o]) for o in result.operands)
        if result.opcode == "dynamic-update-slice":
            return _size(instructions[result.operands[1]].type_)
        return _size(result.type_)
