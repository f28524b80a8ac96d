from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import audit, ring
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_server
from mcpgw.store.vault import VARIABLE, Vault

CREATOR = """
import sys
from pathlib import Path
from mcpgw.store.db import Store
from mcpgw.store.vault import Vault
print("ready", flush=True)
sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    Vault(store).put(sys.argv[2], "value of " + sys.argv[2])
"""


class Ring(keyring.backend.KeyringBackend):
    """An OS keyring in memory. `hold`: an event to wait for, as a hanging D-Bus does."""

    priority = 5  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.hold: threading.Event | None = None
        self.fault: Exception | None = None

    def _wait(self) -> None:
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(30)
        if self.fault is not None:
            raise self.fault

    def get_password(self, service: str, username: str) -> str | None:
        self._wait()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._wait()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture
def os_ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    backend, before = Ring(), keyring.get_keyring()
    monkeypatch.setattr(ring, "_ALWAYS", True)
    keyring.set_keyring(backend)
    yield backend
    if backend.hold is not None:
        backend.hold.set()
    keyring.set_keyring(before)


def refused(caught: pytest.ExceptionInfo[GatewayError]) -> tuple[str, Exit]:
    return caught.value.code, caught.value.exit


# ---------------------------------------------------------------- named secrets


@pytest.mark.parametrize("value", ["x", "ünï\n", "\ud83d", "y" * 100_000])
def test_a_secret_comes_back_in_another_process(path: Path, value: str) -> None:
    with Store.open(path) as store:
        Vault(store).put("github/TOKEN", value)
    with Store.open(path) as store:
        vault = Vault(store)
        assert vault.names() == ["github/TOKEN"]
        assert vault.get("github/TOKEN") == value
        assert vault.get("github/token") is None


def test_putting_again_replaces_and_removing_destroys(store: Store) -> None:
    vault = Vault(store)
    for value in ("one", "two"):
        vault.put("a", value)
    vault.put("b", "three")
    assert (vault.names(), vault.get("a")) == (["a", "b"], "two")
    vault.remove("a")
    vault.remove("a")
    assert (vault.names(), vault.get("a")) == (["b"], None)


def test_a_sealed_value_opens_under_its_own_name_only(store: Store) -> None:
    vault = Vault(store)
    vault.put("cheap", "one")
    vault.put("dear", "two")
    with store.change() as connection:
        connection.execute(
            "UPDATE vault SET sealed = (SELECT sealed FROM vault WHERE name = 'dear') "
            "WHERE name = 'cheap'"
        )
    with pytest.raises(GatewayError) as caught:
        vault.get("cheap")
    assert caught.value.code == "vault_damaged"
    assert "two" not in str(caught.value.why)


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(60)])
def test_altered_bytes_are_told(store: Store, sealed: bytes) -> None:
    vault = Vault(store)
    vault.put("a", "one")
    with store.change() as connection:
        connection.execute("UPDATE vault SET sealed = ?", (sealed,))
    with pytest.raises(GatewayError) as caught:
        vault.get("a")
    assert caught.value.code == "vault_damaged"


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 201])
def test_names_that_cannot_be(store: Store, name: str) -> None:
    with pytest.raises(GatewayError) as caught:
        Vault(store).put(name, "x")
    assert refused(caught) == ("bad_name", Exit.USAGE)


def test_an_empty_secret_is_refused(store: Store) -> None:
    with pytest.raises(GatewayError) as caught:
        Vault(store).put("a", "")
    assert refused(caught) == ("bad_secret", Exit.USAGE)


# ---------------------------------------------------------------- the master key


def test_making_a_vault_looks_nothing_up(store: Store, os_ring: Ring) -> None:
    vault = Vault(store)
    assert (vault.names(), vault.get("a"), vault.origin) == ([], None, None)
    assert os_ring.asked == 0
    assert not vault.key_file.exists()


def test_headless_the_key_is_a_private_file_and_keyring_is_not_imported(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mcpgw.store.db import Store;"
        "from mcpgw.store.vault import Vault; store = Store.open(Path(sys.argv[1]));"
        "vault = Vault(store); vault.put('a', 'one'); print(vault.origin, 'keyring' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["file", "False"]
    key = path.with_name("mcpgw.db.key")
    assert key.stat().st_mode & 0o777 == 0o600
    with Store.open(path) as store:
        assert Vault(store).get("a") == "one"


def test_two_processes_agree_on_one_key(path: Path) -> None:
    creators = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("left", "right", "third")
    ]
    for creator in creators:
        assert creator.stdout is not None
        assert creator.stdout.readline() == b"ready\n"
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.write(b"\n")
        creator.stdin.flush()
    for creator in creators:
        _, errors = creator.communicate(timeout=60)
        assert creator.returncode == 0, errors.decode()
    with Store.open(path) as store:
        vault = Vault(store)
        assert [vault.get(name) for name in vault.names()] == [
            "value of left",
            "value of right",
            "value of third",
        ]


def test_a_key_file_without_a_record_is_taken_over(store: Store) -> None:
    """A process may end after the file was made and before the record was."""
    vault = Vault(store)
    held = base64.urlsafe_b64encode(bytes(range(32))).decode()
    vault.key_file.write_text(held)
    vault.put("a", "one")
    assert vault.key_file.read_text() == held
    assert Vault(store).get("a") == "one"


@pytest.mark.parametrize("content", [None, "", "junk", base64.b64encode(bytes(31)).decode()])
def test_a_lost_or_damaged_key_file_is_told_and_not_replaced(
    store: Store, content: str | None
) -> None:
    Vault(store).put("a", "one")
    file = Vault(store).key_file
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    for attempt in (
        lambda: Vault(store).get("a"),
        lambda: Vault(store).put("b", "two"),
        lambda: Vault(store).seal(b"", bind=b"", purpose="x", ttl=1),
    ):
        with pytest.raises(GatewayError) as caught:
            attempt()
        assert refused(caught) == ("vault_locked", Exit.DENIED)
        assert str(file) in (caught.value.why or "")
    assert file.exists() is (content is not None)


def test_a_reset_is_the_way_out_when_the_key_is_lost(store: Store) -> None:
    vault = Vault(store)
    vault.put("a", "one")
    vault.key_file.write_text("junk")
    vault = Vault(store)
    vault.reset()
    assert (vault.names(), vault.origin) == ([], None)
    vault.put("b", "two")
    assert Vault(store).get("b") == "two"
    row = next(row for row in audit.changes(store) if row.action == "vault.reset")
    assert row.before == {"sealed": ["a"], "master_key": "file"}


@pytest.mark.parametrize("content", ["", "junk"])
def test_a_damaged_key_file_is_never_adopted(store: Store, content: str) -> None:
    Vault(store).key_file.write_text(content)
    with pytest.raises(GatewayError) as caught:
        Vault(store).put("a", "one")
    assert caught.value.code == "vault_locked"
    assert Vault(store).origin is None


def test_a_foreign_key_file_is_told(store: Store) -> None:
    Vault(store).put("a", "one")
    Vault(store).key_file.write_text(base64.urlsafe_b64encode(bytes(32)).decode())
    with pytest.raises(GatewayError) as caught:
        Vault(store).get("a")
    assert refused(caught) == ("vault_key_wrong", Exit.DENIED)


@pytest.mark.parametrize(
    "key",
    [
        "correct horse battery staple",
        base64.b64encode(b"\xff" * 32).decode(),
        base64.urlsafe_b64encode(b"\xfe" * 32).decode().rstrip("="),
    ],
)
def test_the_key_from_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch, os_ring: Ring, key: str
) -> None:
    monkeypatch.setenv(VARIABLE, key)
    Vault(store).put("a", "one")
    assert Vault(store).origin == "env"
    assert Vault(store).get("a") == "one"
    assert not Vault(store).key_file.exists()
    assert os_ring.asked == 0
    monkeypatch.setenv(VARIABLE, key + "x")
    with pytest.raises(GatewayError) as caught:
        Vault(store).get("a")
    assert caught.value.code == "vault_key_wrong"
    assert key not in f"{caught.value.what}{caught.value.why}{caught.value.next}"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(GatewayError) as caught:
        Vault(store).get("a")
    assert caught.value.code == "vault_locked"
    assert VARIABLE in (caught.value.why or "")


def test_both_spellings_of_a_key_are_the_same_key(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = b"\xfb\xff" * 16
    monkeypatch.setenv(VARIABLE, base64.b64encode(key).decode())
    Vault(store).put("a", "one")
    monkeypatch.setenv(VARIABLE, base64.urlsafe_b64encode(key).decode() + "\n")
    assert Vault(store).get("a") == "one"


def test_a_recorded_origin_wins_over_what_is_there_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Vault(store).put("a", "one")
    monkeypatch.setenv(VARIABLE, "another")
    assert Vault(store).get("a") == "one"


def test_the_os_keyring_holds_the_key_where_there_is_one(store: Store, os_ring: Ring) -> None:
    Vault(store).put("a", "one")
    assert Vault(store).origin == "keyring"
    assert not Vault(store).key_file.exists()
    assert [service for service, _ in os_ring.held] == ["mcpgw"]
    assert Vault(store).get("a") == "one"
    os_ring.held.clear()
    with pytest.raises(GatewayError) as caught:
        Vault(store).get("a")
    assert caught.value.code == "vault_locked"
    assert os_ring.held == {}


def test_a_keyring_that_refuses_is_passed_over(store: Store, os_ring: Ring) -> None:
    os_ring.fault = RuntimeError("locked; the password was hunter2")
    Vault(store).put("a", "one")
    assert Vault(store).origin == "file"


def test_a_keyring_that_keeps_nothing_is_passed_over(store: Store, os_ring: Ring) -> None:
    os_ring.set_password = lambda *words: None  # type: ignore[method-assign]
    Vault(store).put("a", "one")
    assert Vault(store).origin == "file"


def test_a_keyring_that_hangs_is_waited_for_once(
    store: Store, os_ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "WAIT", 0.05)
    os_ring.hold = threading.Event()
    began = time.monotonic()
    Vault(store).put("a", "one")
    assert time.monotonic() - began < 10  # the keyring would answer after 30 s
    assert Vault(store).origin == "file"
    assert os_ring.asked == 1
    with pytest.raises(ring.RingError, match="a moment ago"):
        ring.read("x", "y")
    assert os_ring.asked == 1


def test_a_recorded_keyring_that_hangs_is_told(
    store: Store, os_ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    Vault(store).put("a", "one")
    monkeypatch.setattr(ring, "WAIT", 0.05)
    os_ring.hold = threading.Event()
    with pytest.raises(GatewayError) as caught:
        Vault(store).get("a")
    assert caught.value.code == "vault_locked"
    assert "did not answer" in (caught.value.why or "")


def test_a_read_only_store_seals_for_this_process_alone(store: Store) -> None:
    store.query("PRAGMA query_only = ON")
    vault = Vault(store)
    token = vault.seal(b"state", bind=b"me", purpose="session", ttl=60)
    assert vault.unseal(token, bind=b"me", purpose="session") == b"state"
    with pytest.raises(GatewayError) as caught:
        Vault(store).put("a", "one")
    assert caught.value.code == "store_readonly"
    assert not vault.key_file.exists()


# ---------------------------------------------------------------- the seal


@pytest.fixture(scope="module")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, base64.b64encode(bytes(32)).decode())
        with Store.open(tmp_path_factory.mktemp("seal") / "mcpgw.db") as store:
            vault = Vault(store)
            vault.open()
            yield vault


@given(body=st.binary(max_size=300), bind=st.binary(max_size=40), purpose=st.text(max_size=10))
def test_what_was_sealed_opens_again(
    sealing: Vault, body: bytes, bind: bytes, purpose: str
) -> None:
    token = sealing.seal(body, bind=bind, purpose=purpose, ttl=60)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert sealing.unseal(token, bind=bind, purpose=purpose) == body
    assert sealing.unseal(token, bind=bind + b"x", purpose=purpose) is None
    assert sealing.unseal(token, bind=bind, purpose=purpose + "x") is None


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(body=st.binary(max_size=60), data=st.data())
def test_an_edited_token_does_not_open(sealing: Vault, body: bytes, data: st.DataObject) -> None:
    token = sealing.seal(body, bind=b"b", purpose="p", ttl=60)
    spot = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda c: c != token[spot]))
    edited = data.draw(
        st.sampled_from(
            [
                token[:spot] + other + token[spot + 1 :],
                token[:spot] + token[spot + 1 :],
                token[:spot] + other + token[spot:],
                token[:spot],
                token + "=",
                token + "\n",
            ]
        )
    )
    if edited != token:
        assert sealing.unseal(edited, bind=b"b", purpose="p") is None


@given(token=st.text(max_size=200))
def test_junk_does_not_open(sealing: Vault, token: str) -> None:
    assert sealing.unseal(token, bind=b"", purpose="p") is None


def test_a_token_expires(store: Store) -> None:
    now = [1000.0]
    vault = Vault(store, clock=lambda: now[0])
    token = vault.seal(b"x", bind=b"", purpose="p", ttl=10)
    now[0] = 1009.9
    assert vault.unseal(token, bind=b"", purpose="p") == b"x"
    now[0] = 1010.0
    assert vault.unseal(token, bind=b"", purpose="p") is None


def test_a_token_outlives_the_process_and_is_foreign_elsewhere(path: Path, tmp_path: Path) -> None:
    with Store.open(path) as store:
        token = Vault(store).seal(b"x", bind=b"", purpose="p", ttl=60)
    with Store.open(path) as store:
        assert Vault(store).unseal(token, bind=b"", purpose="p") == b"x"
    with Store.open(tmp_path / "other.db") as store:
        assert Vault(store).unseal(token, bind=b"", purpose="p") is None


def test_the_same_body_gives_another_token_each_time(sealing: Vault) -> None:
    tokens = {sealing.seal(b"x", bind=b"", purpose="p", ttl=60) for _ in range(100)}
    assert len(tokens) == 100


def test_sealing_is_quick_enough_for_the_request_path(sealing: Vault) -> None:
    rounds, best = 300, float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(rounds):
            token = sealing.seal(b"x" * 100, bind=b"key_1", purpose="p", ttl=60)
            sealing.unseal(token, bind=b"key_1", purpose="p")
        best = min(best, (time.process_time() - began) / rounds)
    assert best < 100e-6  # about 10 µs; the bound only catches a look-up that crept in


def test_sealing_reads_no_store_once_it_is_open(store: Store) -> None:
    vault = Vault(store)
    vault.seal(b"", bind=b"", purpose="p", ttl=1)
    add_server(store, ServerDraft(name="a", command=("true",)))
    store.close()
    token = vault.seal(b"x", bind=b"", purpose="p", ttl=60)
    assert vault.unseal(token, bind=b"", purpose="p") == b"x"


def test_a_warm_vault_derives_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "5a" * 32)
    with Store.open(tmp_path / "mcpgw.db") as store:
        vault = Vault(store)
        vault.warm()
        monkeypatch.setattr(vault, "_find_master", None)  # it would be called again
        token = vault.seal(b"x", bind=b"", purpose="cursor", ttl=1)
        assert vault.unseal(token, bind=b"", purpose="cursor") == b"x"
