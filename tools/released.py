"""Events only grow: today's event types against those of the last release, whose descriptors stand in protos/released/. Called by `make check`.

`python -m tools.released` writes the descriptors down anew; only `make release` does. A consumer of the last release must be able to read
what today's services publish, and today's consumers what still lies in topics and backups: protos only grow within `v1`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from tools.project import ROOT

RELEASED = ROOT / "protos" / "released" / "events.txtpb"
_HEAD = "# The event types of the last release, written by `make release`; compared with today's by `make check`.\n"
_TYPES = FieldDescriptorProto.Type
_LABELS = FieldDescriptorProto.Label


def main(arguments: Sequence[str]) -> int:
    if arguments:
        print("usage: python -m tools.released", file=sys.stderr)
        return 2
    for line in check():
        print(f"breaks readers of the last release: {line}")
    RELEASED.parent.mkdir(parents=True, exist_ok=True)
    RELEASED.write_text(_HEAD + text_format.MessageToString(today()), encoding="utf-8")
    print(f"{RELEASED.relative_to(ROOT)}: {len(messages(today()))} message types")
    return 0


def check() -> list[str]:
    """A line per change that would break a reader."""
    if not RELEASED.exists():
        return [f"{RELEASED.relative_to(ROOT)} is missing; `make release` writes it"]
    return breaks(text_format.Parse(RELEASED.read_text(encoding="utf-8"), FileDescriptorSet()), today())


def today() -> FileDescriptorSet:
    """The event types as the generated code has them: every file `events.proto`, and what those import of the city."""
    files: dict[str, FileDescriptorProto] = {}
    for path in sorted((ROOT / "protos").rglob("events.proto")):
        name = path.relative_to(ROOT / "protos").with_suffix("").as_posix().replace("/", ".")
        _add(importlib.import_module(f"{name}_pb2").DESCRIPTOR, files)
    return FileDescriptorSet(file=[files[name] for name in sorted(files)])


def _add(found: object, files: dict[str, FileDescriptorProto]) -> None:
    name = str(found.name)  # type: ignore[attr-defined]  # a FileDescriptor, whose class depends on the implementation
    if name in files or not name.startswith("city/"):
        return
    files[name] = FileDescriptorProto()
    found.CopyToProto(files[name])  # type: ignore[attr-defined]
    for needed in found.dependencies:  # type: ignore[attr-defined]
        _add(needed, files)


def breaks(released: FileDescriptorSet, now: FileDescriptorSet) -> list[str]:
    """What a reader of the other side would misread or miss; additions are none."""
    lines: list[str] = []
    types, enums = messages(now), enumerations(now)
    for name, before in messages(released).items():
        after = types.get(name)
        lines += [f"{name} is gone"] if after is None else list(_message_breaks(name, before, after))
    for name, values in enumerations(released).items():
        found = enums.get(name)
        lines += [f"{name} is gone"] if found is None else list(_enum_breaks(name, values, found))
    return lines


def messages(image: FileDescriptorSet) -> dict[str, DescriptorProto]:
    """Every message type by its full name, nested ones too."""
    return {name: item for file in image.file for name, item in _messages(file.package, file.message_type)}


def _messages(scope: str, found: Sequence[DescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for item in found:
        name = f"{scope}.{item.name}"
        yield name, item
        yield from _messages(name, item.nested_type)


def enumerations(image: FileDescriptorSet) -> dict[str, EnumDescriptorProto]:
    """Every enumeration by its full name."""
    top = {f"{file.package}.{item.name}": item for file in image.file for item in file.enum_type}
    return top | {f"{name}.{item.name}": item for name, kind in messages(image).items() for item in kind.enum_type}


def _message_breaks(name: str, before: DescriptorProto, after: DescriptorProto) -> Iterator[str]:
    now = {field.number: field for field in after.field}
    for field in before.field:
        found = now.get(field.number)
        if found is None:
            yield f"{name}.{field.name} (number {field.number}) is removed or has another number"
        else:
            yield from (f"{name}.{field.name}: {line}" for line in _field_breaks(field, found, before, after))
    known = {field.number for field in before.field}
    reserved = [range(item.start, item.end) for item in before.reserved_range]
    for number, field in now.items():
        if number in known:
            continue
        if any(number in numbers for numbers in reserved) or field.name in before.reserved_name:
            yield f"{name}.{field.name} takes number {number} or a name that was reserved"
        if field.label == FieldDescriptorProto.LABEL_REQUIRED:
            yield f"{name}.{field.name} is new and required, and no earlier event has it"


def _field_breaks(
    before: FieldDescriptorProto, after: FieldDescriptorProto, old: DescriptorProto, new: DescriptorProto
) -> Iterator[str]:
    if before.name != after.name:
        yield f"number {before.number} is now called {after.name}; a number keeps its meaning"
    if before.type != after.type:
        yield f"was {_TYPES.Name(before.type)} and is {_TYPES.Name(after.type)}"
    if before.type_name != after.type_name:
        yield f"was {before.type_name} and is {after.type_name}"
    if before.label != after.label:
        yield f"was {_LABELS.Name(before.label)} and is {_LABELS.Name(after.label)}"
    if _choice(before, old) != _choice(after, new) or before.proto3_optional != after.proto3_optional:
        yield "is now in another oneof, or says otherwise whether it is there"


def _choice(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The oneof a field belongs to, by name; empty for none."""
    return message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""


def _enum_breaks(name: str, before: EnumDescriptorProto, after: EnumDescriptorProto) -> Iterator[str]:
    now: Mapping[str, int] = {value.name: value.number for value in after.value}
    for value in before.value:
        if now.get(value.name) != value.number:
            yield f"{name}.{value.name} (number {value.number}) is removed or has another number"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
