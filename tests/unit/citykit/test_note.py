"""Signed notes and checkpoints, against the example of the C2SP signed-note specification's key and our own."""

from __future__ import annotations

import base64

import pytest

from citykit.note import (
    Checkpoint,
    NoteError,
    key_id,
    open_checkpoint,
    parse_checkpoint,
    public_key,
    sign_note,
    verified_text,
)

SEED, NAME = bytes(range(32)), "provable.city/test/log"
KEY = public_key(SEED)
HEAD = Checkpoint(NAME, 300, bytes(range(32)))


def test_the_key_id_of_the_specification_s_example() -> None:
    """PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW (golang.org/x/mod/sumdb/note)."""
    raw = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert key_id("PeterNeumann", raw[1:]).hex() == "c74f20a3"


def test_the_specification_s_example_verifies() -> None:
    raw = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert verified_text(f"{text}\n{line}", "PeterNeumann", raw[1:]) == text


def test_a_checkpoint_comes_back_and_other_signers_are_passed_over() -> None:
    note = sign_note(HEAD.text(), NAME, SEED)
    assert open_checkpoint(note, NAME, KEY) == HEAD
    cosigned = note + "— witness.example/w " + base64.b64encode(bytes(76)).decode() + "\n"
    assert open_checkpoint(cosigned, NAME, KEY) == HEAD


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("300", "301"),
        lambda note: note.rstrip("\n"),
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("— ", "- "),
        lambda note: note.replace("provable.city/test/log", "other"),
        lambda note: note[:-3] + "A=\n",
        lambda note: note.replace("\n\n", "\n\n— x !!!\n"),
        lambda note: note.replace("\n\n", "\n\n— x AB==\n"),
        lambda note: note.replace("\n\n", "\n\n— x y z AAAA\n"),
        lambda note: note + "— x AAAA\n" * 101,
    ],
)
def test_a_changed_note_is_refused(change: object) -> None:
    note = sign_note(HEAD.text(), NAME, SEED)
    with pytest.raises(NoteError):
        open_checkpoint(change(note), NAME, KEY)  # type: ignore[operator]


@pytest.mark.parametrize(
    "text", ["", "a\n", "a\n1\n", "a\nx\nAAAA\n", "a\n01\nAAAA\n", "a\n1\n!!\n", "a\n1\nAAAA\n", "\n1\nAAAA\n"]
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)
