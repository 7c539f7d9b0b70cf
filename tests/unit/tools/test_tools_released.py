"""The gate of event types: additions pass, whatever a reader would misread or miss is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from tools import released

RELEASED = """
file {
  name: "city/t/v1/events.proto" package: "city.t.v1" syntax: "proto3"
  message_type {
    name: "Told"
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "times" number: 2 label: LABEL_REPEATED type: TYPE_INT64 }
    field { name: "kind" number: 3 label: LABEL_OPTIONAL type: TYPE_ENUM type_name: ".city.t.v1.Kind" }
    field { name: "left" number: 4 label: LABEL_OPTIONAL type: TYPE_INT32 oneof_index: 0 }
    nested_type { name: "Inner" field { name: "a" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES } }
    oneof_decl { name: "side" }
    reserved_range { start: 9 end: 10 }
    reserved_name: "old"
  }
  message_type { name: "Gone" }
  enum_type { name: "Kind" value { name: "KIND_NONE" number: 0 } value { name: "KIND_ONE" number: 1 } }
}
"""


def image() -> FileDescriptorSet:
    return text_format.Parse(RELEASED, FileDescriptorSet())


def told(now: FileDescriptorSet) -> DescriptorProto:
    return now.file[0].message_type[0]


def add(message: DescriptorProto, name: str, number: int, label: FieldDescriptorProto.Label.ValueType) -> None:
    message.field.add(name=name, number=number, label=label, type=FieldDescriptorProto.TYPE_STRING)


def test_nothing_changed_and_things_added_break_nobody() -> None:
    now = image()
    assert released.breaks(image(), now) == []
    add(told(now), "more", 5, FieldDescriptorProto.LABEL_OPTIONAL)
    now.file[0].message_type.add(name="New")
    now.file[0].enum_type[0].value.add(name="KIND_TWO", number=2)
    assert released.breaks(image(), now) == []


Change = Callable[[FileDescriptorSet], object]
OPTIONAL, REQUIRED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REQUIRED
CHANGES: dict[str, tuple[Change, str]] = {
    "field removed": (lambda now: told(now).field.pop(0), "Told.key (number 1) is removed"),
    "field renumbered": (lambda now: setattr(told(now).field[0], "number", 7), "Told.key (number 1) is removed"),
    "field renamed": (lambda now: setattr(told(now).field[0], "name", "id"), "number 1 is now called id"),
    "type": (lambda now: setattr(told(now).field[1], "type", 17), "was TYPE_INT64 and is TYPE_SINT32"),
    "label": (lambda now: setattr(told(now).field[1], "label", 1), "was LABEL_REPEATED and is LABEL_OPTIONAL"),
    "type name": (lambda now: setattr(told(now).field[2], "type_name", ".city.t.v1.Other"), "is .city.t.v1.Other"),
    "oneof left": (lambda now: told(now).field[3].ClearField("oneof_index"), "another oneof"),
    "presence": (
        lambda now: setattr(told(now).field[0], "proto3_optional", True),
        "says otherwise whether it is there",
    ),
    "message removed": (lambda now: now.file[0].message_type.pop(1), "city.t.v1.Gone is gone"),
    "nested removed": (lambda now: told(now).nested_type.pop(), "Told.Inner is gone"),
    "enum removed": (lambda now: now.file[0].enum_type.pop(), "city.t.v1.Kind is gone"),
    "value removed": (lambda now: now.file[0].enum_type[0].value.pop(), "Kind.KIND_ONE (number 1) is removed"),
    "reserved number": (lambda now: add(told(now), "x", 9, OPTIONAL), "takes number 9 or a name that was reserved"),
    "reserved name": (lambda now: add(told(now), "old", 8, OPTIONAL), "a name that was reserved"),
    "required": (lambda now: add(told(now), "must", 8, REQUIRED), "is new and required"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_breaks_a_reader_is_named(name: str) -> None:
    change, words = CHANGES[name]
    now = image()
    change(now)
    assert any(words in line for line in released.breaks(image(), now))


def test_the_project_keeps_its_released_events() -> None:
    assert released.check() == []
    assert "city.payments.v1.PaymentChanged" in released.messages(released.today())


def test_a_missing_image_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "RELEASED", released.RELEASED.with_name("nothing.txtpb"))
    assert "make release" in released.check()[0]
