"""The offline verifier on a bundle of the real services: it holds, and whatever is changed is found by the step whose matter it is."""

from __future__ import annotations

import ast
import base64
import copy
import json
import random
import shutil
import site
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from tests.system.test_city_run import options, run
from verifier import bill as bills
from verifier.__main__ import main
from verifier.bundle import Report, check_bundle
from verifier.canonical import Failure, Unreadable, decode, encode
from verifier.embedded import key_id
from verifier.merkle import require_consistency
from verifier.note import open_checkpoint
from verifier.package import parse_package
from verifier.trust import Trust, read_trust

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Proof:
    """A bill's bundle, the trust file, and the ledger's own keys, with which a cheating operator could sign."""

    bundle: dict[str, Any]
    document: dict[str, Any]
    endorser: SigningKey
    orderer: SigningKey
    files: Path

    @property
    def trust(self) -> Trust:
        return read_trust(self.document)

    def check(self, bundle: dict[str, Any], earlier: str | None = None) -> Report:
        return check_bundle(encode(bundle), self.trust, earlier)

    def signed(self, evidence: dict[str, Any]) -> dict[str, Any]:
        """Evidence endorsed and put in a block again, as the operator himself could."""
        envelope = copy.deepcopy(evidence["envelope"])
        message = b"city.endorsement.v1\n" + encode(envelope["transaction"])
        envelope["endorsements"] = [
            {
                "key": key_id(bytes(self.endorser.verify_key)),
                "organisation": "city",
                "signature": _base64(self.endorser, message),
            }
        ]
        leaf = sha256(b"\x00" + encode(envelope)).hexdigest()
        header = {**evidence["header"], "data": leaf, "count": 1}
        signature = {
            "key": key_id(bytes(self.orderer.verify_key)),
            "signature": _base64(self.orderer, b"city.block.v1\n" + encode(header)),
        }
        path = {"size": 1, "indexes": [0], "hashes": []}
        return {**evidence, "envelope": envelope, "index": 0, "path": path, "header": header, "signature": signature}


def _base64(key: SigningKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message).signature).decode()


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    import asyncio  # noqa: PLC0415

    state = tmp_path_factory.mktemp("verified")
    asyncio.run(run(options(state, for_s=0.1)))
    keys = state / "ledger" / "keys"
    return Proof(
        bundle=json.loads(next((state / "out" / "bundles").glob("*.json")).read_text(encoding="utf-8")),
        document=json.loads((state / "out" / "trust.json").read_text(encoding="utf-8")),
        endorser=SigningKey((keys / "endorser").read_bytes()),
        orderer=SigningKey((keys / "orderer").read_bytes()),
        files=state / "out",
    )


def failed(report: Report) -> str:
    return next((step.name for step in report.steps if not step.ok), "")


def test_an_honest_bill_holds(proof: Proof) -> None:
    report = proof.check(proof.bundle)
    assert [step for step in report.steps if not step.ok] == []
    assert len(report.steps) == 18


def _put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(bundle: dict[str, Any]) -> None:
        at: Any = bundle
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value(at[path[-1]]) if callable(value) else value

    return change


def _flip(text: str) -> str:
    """Another hex digit at the start."""
    return ("0" if text[0] != "0" else "1") + text[1:]


def _other_base64(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (_put("kind", value="other"), "bundle-format"),
        (_put("format", value="city.bundle.v2"), "bundle-format"),
        (lambda b: b.update(more=1), "bundle-format"),
        (lambda b: b.pop("tariff"), "bundle-format"),
        (_put("city", value="provable.city/other"), "trust"),
        (_put("log", "origin", value="provable.city/demo/identity.events"), "checkpoint-signature"),
        (_put("log", "checkpoint", value=lambda t: t.replace("\n\n", "9\n\n")), "checkpoint-signature"),
        (_put("log", "checkpoint", value=lambda t: t.rstrip("\n")), "checkpoint-signature"),
        (_put("log", "anchor", "envelope", "endorsements", 0, "signature", value=_other_base64), "anchor-endorsement"),
        (_put("log", "anchor", "envelope", "endorsements", 0, "key", value="0" * 16), "anchor-endorsement"),
        (_put("log", "anchor", "envelope", "endorsements", value=[]), "anchor-endorsement"),
        (_put("log", "anchor", "envelope", "transaction", "time", value="2016-11-09T00:00:00Z"), "anchor-endorsement"),
        (_put("log", "anchor", "header", "number", value=9_999), "anchor-block"),
        (_put("log", "anchor", "signature", "signature", value=_other_base64), "anchor-block"),
        (_put("log", "anchor", "index", value=1), "anchor-block"),
        (_put("packages", 3, "salt", value=_flip), "inclusion"),
        (_put("packages", 3, "package", value=_other_base64), "inclusion"),
        (_put("packages", 3, "index", value=lambda n: n + 1), "inclusion"),
        (lambda b: b["packages"].pop(), "inclusion"),
        (lambda b: b["packages"].reverse(), "commitments"),
        (lambda b: b["packages"].append(b["packages"][0]), "commitments"),
        (_put("packages", value=[]), "commitments"),
        (_put("log", "proof", "hashes", value=lambda h: h[:-1]), "inclusion"),
        (_put("log", "proof", "hashes", value=lambda h: [*h, h[0]]), "inclusion"),
        (_put("log", "proof", "size", value=lambda n: n + 1), "inclusion"),
        (_put("devices", 0, "id", value="meter-002"), "device-keys"),
        (_put("devices", 0, "keys", 0, "key", value=_flip), "device-keys"),
        (_put("devices", 0, "keys", 0, "from_sequence", value=2), "device-keys"),
        (_put("devices", value=[]), "device-keys"),
        (_put("tariff", "envelope", "transaction", "args", "tariff", "vat_basis_points", value=0), "tariff"),
        (_put("bill", "tariff", "transaction", value=_flip), "tariff"),
        (_put("bill", "total_minor", value=1), "total"),
        (_put("bill", "id", value="bill-x"), "run-inclusion"),
        (_put("bill_salt", value=_flip), "run-inclusion"),
        (_put("bill", "due", value="2020-01-01"), "run-inclusion"),
        (_put("run", "evidence", "envelope", "transaction", "args", "root", value=_flip), "run-inclusion"),
        (_put("run", "proof", "size", value=7), "run-inclusion"),
    ],
)
def test_a_change_is_found_by_the_step_whose_matter_it_is(
    proof: Proof, change: Callable[[dict[str, Any]], object], step: str
) -> None:
    bundle = copy.deepcopy(proof.bundle)
    change(bundle)
    report = proof.check(bundle)
    assert failed(report) == step, [item.detail for item in report.steps if not item.ok][:1]
    assert not report.ok


@pytest.mark.parametrize(
    ("part", "change", "step"),
    [
        (("log", "anchor"), _put("envelope", "code", value="MVCC_READ_CONFLICT"), "anchor-matches"),
        (("log", "anchor"), _put("envelope", "transaction", "args", "heads", value=[]), "anchor-matches"),
        (("log", "anchor"), _put("envelope", "transaction", "contract", value="billing"), "anchor-matches"),
        (("log", "anchor"), _put("envelope", "transaction", "channel", value="other"), "anchor-matches"),
        (("tariff",), _put("envelope", "transaction", "args", "tariff", "standing_micro_per_day", value=0), "lines"),
        (
            ("tariff",),
            _put("envelope", "transaction", "args", "tariff", "bands", 0, "steps", 0, "price_micro_per_wh", value=1),
            "lines",
        ),
        (("tariff",), _put("envelope", "transaction", "args", "tariff", "valid_from", value="2016-10-05"), "tariff"),
        (("tariff",), _put("envelope", "transaction", "args", "tariff", "currency", value="EUR"), "tariff"),
        (("tariff",), _put("envelope", "transaction", "args", "tariff", "dispute_days", value=99), "tariff"),
        (("tariff",), _put("envelope", "transaction", "args", "tariff", "bands", 0, "windows", value=[]), "tariff"),
        (("tariff",), _put("envelope", "transaction", "function", value="other"), "tariff"),
        (("run", "evidence"), _put("envelope", "transaction", "args", "count", value=1), "run-inclusion"),
        (("run", "evidence"), _put("envelope", "transaction", "args", "tariff", "version", value=2), "run-inclusion"),
        (("run", "evidence"), _put("envelope", "transaction", "submitter", value="gateway"), "run-inclusion"),
    ],
)
def test_what_a_cheating_operator_signs_again_is_still_found(
    proof: Proof, part: tuple[str, ...], change: Callable[[dict[str, Any]], object], step: str
) -> None:
    bundle = copy.deepcopy(proof.bundle)
    at: Any = bundle
    for name in part[:-1]:
        at = at[name]
    change(at[part[-1]])
    at[part[-1]] = proof.signed(at[part[-1]])
    assert failed(proof.check(bundle)) == step


def test_every_one_byte_change_is_found(proof: Proof) -> None:
    good = encode(proof.bundle)
    source = random.Random(7)
    for _ in range(300):
        at = source.randrange(len(good))
        bad = good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]
        assert not check_bundle(bad, proof.trust).ok, at


# --- the bill's own arithmetic ------------------------------------------------------------------------


def _slots(proof: Proof, change: Callable[[dict[str, Any]], object]) -> bills.Slots:
    bundle = copy.deepcopy(proof.bundle)
    change(bundle["bill"])
    packages = [parse_package(base64.b64decode(item["package"]), "p") for item in bundle["packages"]]
    return bills.slots_of(bundle["bill"], packages)


def _estimate(slot: int, reason: str = "missing", energy: int = 7) -> dict[str, Any]:
    return {"slot": slot, "energy_wh": energy, "reason": reason, "method": "profile-v1"}


def test_slots_have_one_source_each(proof: Proof) -> None:
    bill = proof.bundle["bill"]
    start = bill["period"]["from_time"]
    assert _slots(proof, lambda b: None).measured == bill["slots"]

    def estimated(*items: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
        return lambda b: b.update(estimated=[*items], measured=b["slots"] - len(items))

    held = _slots(proof, estimated(_estimate(start, "quarantined:spike")))
    assert held.energy_wh[start] == 7
    assert "set aside (spike)" in held.notes[0]
    for change, message in (
        (estimated(_estimate(start)), "but the device measured"),
        (estimated(_estimate(start, "because")), "unknown reason"),
        (estimated(_estimate(start - 1800)), "not a slot of the period"),
        (estimated(_estimate(start, "quarantined:x"), _estimate(start, "quarantined:x")), "listed twice"),
        (estimated(_estimate(start, "quarantined:x", -1)), "negative"),
        (lambda b: b.update(measured=1), "counts 1 measured"),
        (lambda b: b["period"].update(to_time=b["period"]["to_time"] + 40 * 86_400), "neither in a package"),
    ):
        with pytest.raises(Failure, match=message):
            _slots(proof, change)


def test_slots_called_missing_at_the_edge_are_pointed_out(proof: Proof) -> None:
    bundle = copy.deepcopy(proof.bundle)
    bill, last = bundle["bill"], bundle["bill"]["period"]["to_time"] - 1800
    packages = [parse_package(base64.b64decode(item["package"]), "p") for item in bundle["packages"]]
    kept = [package for package in packages if last not in package.readings]
    gone = [
        slot for slot in range(bill["period"]["from_time"], last + 1, 1800) if not any(slot in p.readings for p in kept)
    ]
    bill.update(estimated=[_estimate(slot) for slot in gone], measured=bill["slots"] - len(gone))
    assert f"{len(gone)} slots at the edge" in bills.slots_of(bill, kept).notes[0]


def test_a_slot_that_was_measured_twice_differently_is_found(proof: Proof) -> None:
    packages = [parse_package(base64.b64decode(item["package"]), "p") for item in proof.bundle["packages"]]
    first = packages[0]
    other = type(first)(**{**first.__dict__, "readings": {slot: value + 1 for slot, value in first.readings.items()}})
    with pytest.raises(Failure, match="measured twice"):
        bills.slots_of(proof.bundle["bill"], [*packages, other])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "not a list"),
        ([[1]], "not a list"),
        ([[1_475_535_601, 3_600]], "do not start"),
        ([[1_475_535_600, 99_999]], "impossible"),
        ([[1_475_535_600, 0]], "local midnight"),
        ([[1_475_535_600, 3_600]], "local midnight|not that of"),
        ([[1_475_535_600, 3_600], [1_477_787_400, 0]], "not that of Europe/London"),
    ],
)
def test_offsets_that_are_not_the_zone_s_are_found(proof: Proof, offsets: list[Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        bills.require_offsets({**proof.bundle["bill"]["period"], "offsets": offsets})


def test_without_a_zone_database_the_offsets_are_taken_as_stated(proof: Proof) -> None:
    period = {**proof.bundle["bill"]["period"], "zone": "Nowhere/Atlantis"}
    assert "no time zone database" in bills.require_offsets(period)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["bands"][0]["windows"][0].update(to_minute=421), "in two bands"),
        (lambda t: t["bands"][0]["windows"][0].update(to_minute=419), "in no band"),
        (lambda t: t["bands"][0]["windows"][0].update(to_minute=1_441), "inside a day"),
        (lambda t: t["bands"][0].update(steps=[]), "no price"),
        (lambda t: t["bands"][1]["steps"][0].update(up_to_wh_per_day=None), "open end"),
    ],
)
def test_a_tariff_with_a_hole_or_an_overlap_is_found(
    proof: Proof, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    tariff = copy.deepcopy(proof.bundle["tariff"]["envelope"]["transaction"]["args"]["tariff"])
    change(tariff)
    with pytest.raises(Failure, match=message):
        bills.week_of(tariff)


def test_lines_and_sums_are_recomputed(proof: Proof) -> None:
    bill = copy.deepcopy(proof.bundle["bill"])
    tariff = proof.bundle["tariff"]["envelope"]["transaction"]["args"]["tariff"]
    energy = _slots(proof, lambda b: None).energy_wh
    assert "recomputed" in bills.require_lines(bill, tariff, energy)
    with pytest.raises(Failure, match="line 0"):
        bills.require_lines(bill, tariff, {slot: value + 1 for slot, value in energy.items()})
    with pytest.raises(Failure, match="lines; the readings"):
        bills.require_lines({**bill, "lines": bill["lines"][:-1]}, tariff, energy)
    for name in ("subtotal_minor", "vat_minor", "total_minor"):
        with pytest.raises(Failure, match="its lines make"):
            bills.require_total({**bill, name: bill[name] + 1})
    assert [bills.half_up(n, 10) for n in (4, 5, 14, 15)] == [0, 1, 1, 2]


# --- checkpoints kept from before ---------------------------------------------------------------------


def test_a_kept_checkpoint_of_the_same_size_must_be_the_same(proof: Proof) -> None:
    note = proof.bundle["log"]["checkpoint"]
    assert proof.check(proof.bundle, earlier=note).ok
    origin = proof.bundle["log"]["origin"]
    known = {**proof.document, "known": [{"origin": origin, "checkpoint": note}]}
    assert check_bundle(encode(proof.bundle), read_trust(known)).ok
    assert failed(proof.check(proof.bundle, earlier="nonsense")) == "consistency"
    assert open_checkpoint(note, origin, proof.trust.logs[origin]).origin == origin


def test_consistency_is_shown_or_refused() -> None:
    leaves = [sha256(bytes([n])).digest() for n in range(4)]
    left, right = (sha256(b"\x01" + leaves[n] + leaves[n + 1]).digest() for n in (0, 2))
    root = sha256(b"\x01" + left + right).digest()
    require_consistency(2, left, 4, root, [right])
    three = sha256(b"\x01" + left + leaves[2]).digest()
    require_consistency(3, three, 4, root, [leaves[2], leaves[3], left])
    require_consistency(4, root, 4, root, [])
    for first, old, second, proof_hashes in (
        (2, right, 4, [right]), (2, left, 4, []), (2, left, 4, [right, right]), (4, left, 4, []), (5, root, 4, []), (3, three, 4, []),
    ):  # fmt: skip
        with pytest.raises(Failure):
            require_consistency(first, old, second, root, proof_hashes)


# --- the program --------------------------------------------------------------------------------------


def test_exit_codes_and_words(proof: Proof, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, trust = next((proof.files / "bundles").glob("*.json")), proof.files / "trust.json"
    assert main([str(bundle), "--trust", str(trust)]) == 0
    assert "everything holds" in capsys.readouterr().out
    assert main([str(bundle), "--trust", str(trust), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundles"][0]["steps"][0]["step"] == "bundle-format"
    bad = tmp_path / "bad.json"
    bad.write_bytes(bundle.read_bytes().replace(b'"total_minor":', b'"total_minor":1'))
    assert main([str(bundle), str(bad), "--trust", str(trust)]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    torn = tmp_path / "torn.json"
    torn.write_bytes(bundle.read_bytes()[:-10])
    for words in (
        [str(tmp_path / "no.json"), "--trust", str(trust)],
        [str(bundle), "--trust", str(bundle)],
        [str(torn), "--trust", str(trust)],
    ):
        assert main(words) == 2
        assert "city verify:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"kind":[]}', b"1.0", b"[" * 5_000])
def test_what_is_no_bundle_is_a_failed_check_never_a_traceback(proof: Proof, data: bytes) -> None:
    assert failed(check_bundle(data, proof.trust)) == "bundle-format"


@pytest.mark.parametrize("change", [{"format": "x"}, {"logs": 1}, {"ledger": {}}, {"more": 1}, {"known": [1]}])
def test_a_trust_file_that_cannot_be_used_is_unreadable(proof: Proof, change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="trust file"):
        read_trust({**proof.document, **change})


def test_it_imports_the_standard_library_and_cryptography_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"verifier", "cryptography"}
    for path in (ROOT / "verifier").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_it_runs_where_nothing_else_is_installed(proof: Proof, tmp_path: Path) -> None:
    packages = Path(
        next(path for path in [*site.getsitepackages(), *sys.path] if (Path(path) / "cryptography").is_dir())
    )
    for found in [packages / "cryptography", packages / "cffi", *packages.glob("_cffi_backend*")]:
        if found.exists():
            (tmp_path / found.name).symlink_to(found)
    shutil.copytree(ROOT / "verifier", tmp_path / "verifier", ignore=shutil.ignore_patterns("__pycache__"))
    bundle = next((proof.files / "bundles").glob("*.json"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from verifier.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(bundle), "--trust", str(proof.files / "trust.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_canonical_bytes_are_read_strictly() -> None:
    assert decode(b'{"a":[1,true,null,"x"]}', "it") == {"a": [1, True, None, "x"]}
    for data in (b'{"a": 1}', b'{"b":1,"a":1}', b"1.5", b"NaN", b'{"\xc3\xa9":1}', b"9007199254740992"):
        with pytest.raises(Unreadable):
            decode(data, "it")
