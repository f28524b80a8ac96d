"""Secrets sealed in the store, and the seal for what passes through clients: AES-256-GCM.

Everything hangs on one master key. Where it comes from is decided once and recorded in the store:
MCPGW_MASTER_KEY when that is set, else the OS keyring, else a private file beside the store. Later
nothing else is tried, so that a missing or foreign key is an error and never a new key. For each
purpose an own key is derived (HKDF), and the name or the bind is authenticated with the text.
Nothing is looked at before the first use.
"""

from __future__ import annotations

import base64
import binascii
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeAlias, cast

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import audit, ring
from mcpgw.store.db import Store, explained

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Origin: TypeAlias = Literal["env", "keyring", "file"]
"""Where the master key is kept."""

VARIABLE: Final = "MCPGW_MASTER_KEY"
KEY_SIZE: Final = 32
LONGEST_NAME: Final = 200
LONGEST_VALUE: Final = 1024 * 1024  # characters; certificates and service accounts fit

_NONCE = 12
_EXPIRY = struct.Struct(">d")
_ORIGIN, _CHECK, _SALT = "vault.origin", "vault.check", "vault.salt"
_NO_SALT = b"mcpgw, not kept"  # daemons that serve one file share what a passphrase becomes
_SCRYPT_COST = 2**15  # 32 MiB and 0.1 s, once per process, for a passphrase


class Vault:
    """The vault of one store; implements `model.ports.Seal`. clock: seconds since the epoch.

    Every method may raise GatewayError: vault_locked (the master key is not to be had),
    vault_key_wrong, vault_damaged, and the store's own.
    """

    def __init__(
        self, store: Store, *, kept: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        """kept False: nothing of the master key is stored; without MCPGW_MASTER_KEY it dies."""
        self._store = store
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        self._master: bytes | None = None
        self._ciphers: dict[str, AESGCM] = {}

    # ------------------------------------------------------------ named secrets

    def put(self, name: str, value: str) -> None:
        """Seal `value` under `name`, over what was there. Raises bad_name, bad_secret too."""
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or " " in name:
            raise GatewayError(
                "That cannot be the name of a secret.",
                why=f"It has 1 to {LONGEST_NAME} printable characters without blanks.",
                next="mcpgw secret set NAME",
                code="bad_name",
                exit=Exit.USAGE,
            )
        if not 0 < len(value) <= LONGEST_VALUE:
            raise GatewayError(
                f"The secret {name} cannot be kept.",
                why=f"It is empty or longer than {LONGEST_VALUE} characters.",
                next=f"mcpgw secret set {name}",
                code="bad_secret",
                exit=Exit.USAGE,
            )
        nonce = os.urandom(_NONCE)
        text = value.encode("utf-8", "surrogatepass")
        sealed = nonce + self._cipher("vault").encrypt(nonce, text, _bound(name))
        with self._store.change() as connection:
            known = connection.execute("SELECT 1 FROM vault WHERE name = ?", (name,)).fetchone()
            connection.execute(
                "INSERT INTO vault (name, sealed, updated) VALUES (?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET sealed = excluded.sealed, updated = excluded.updated",
                (name, sealed, self._clock()),
            )
            before = {"sealed": True} if known else None
            audit.record(
                connection, self._store, "secret.set", name, before=before, after={"sealed": True}
            )

    def get(self, name: str) -> str | None:
        """The secret called `name`, None when there is none."""
        rows = self._store.query("SELECT sealed FROM vault WHERE name = ?", (name,))
        if not rows:
            return None
        sealed: bytes = rows[0][0]
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - with the cipher

        cipher = self._cipher("vault")
        try:
            text = cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(name))
        except (InvalidTag, ValueError) as error:
            raise GatewayError(
                f"The secret {name} cannot be opened.",
                why="Its sealed bytes in the store were altered.",
                next=f"mcpgw secret set {name}",
                code="vault_damaged",
            ) from error
        return text.decode("utf-8", "surrogatepass")

    def names(self) -> list[str]:
        """The names of all sealed secrets, sorted. Needs no master key."""
        return [row[0] for row in self._store.query("SELECT name FROM vault ORDER BY name")]

    def remove(self, name: str) -> None:
        """Destroy the secret called `name`; nothing happens when there is none."""
        with self._store.change() as connection:
            if connection.execute("DELETE FROM vault WHERE name = ?", (name,)).rowcount:
                audit.record(
                    connection, self._store, "secret.remove", name, before={"sealed": True}
                )

    # ------------------------------------------------------------ the seal

    def seal(self, body: bytes, *, bind: bytes, purpose: str, ttl: float) -> str:
        """`body` as a URL-safe string that opens for `ttl` seconds, for this bind and purpose."""
        cipher = self._ciphers.get(purpose) or self._cipher(purpose, passing=True)
        nonce = os.urandom(_NONCE)
        text = _EXPIRY.pack(self._clock() + ttl) + body
        return (
            base64.urlsafe_b64encode(nonce + cipher.encrypt(nonce, text, bind)).decode().rstrip("=")
        )

    def unseal(self, token: str, *, bind: bytes, purpose: str) -> bytes | None:
        """The body; None when edited, expired, foreign, of another bind or purpose."""
        cipher = self._ciphers.get(purpose) or self._cipher(purpose, passing=True)
        try:
            spelled = token.encode("ascii")
            raw = base64.urlsafe_b64decode(spelled + b"==")
            # Base64 has several spellings of the same bytes; only ours is not edited.
            if base64.urlsafe_b64encode(raw).rstrip(b"=") != spelled:
                return None
            text = cipher.decrypt(raw[:_NONCE], raw[_NONCE:], bind)
        except (ValueError, _invalid_tag()):
            return None
        if not self._clock() < _EXPIRY.unpack_from(text)[0]:
            return None
        return text[_EXPIRY.size :]

    # ------------------------------------------------------------ the master key

    @property
    def origin(self) -> Origin | None:
        """Where the master key is kept; None as long as none was needed."""
        return cast("Origin | None", self._settings().get(_ORIGIN))

    def open(self) -> None:
        """Get the master key now, so that the first use need not wait for a keyring."""
        self._cipher("vault")

    def warm(self) -> None:
        """As `open`, where tokens alone will do if nothing can be stored."""
        self._cipher("vault", passing=True)

    def reset(self) -> None:
        """Destroy all sealed secrets and forget the master key: the way out when it is lost.

        A process that has the old key in memory cannot open what is sealed afterwards.
        """
        with self._lock:
            with self._store.change() as connection:
                before = {"sealed": self.names(), "master_key": self.origin}
                connection.execute("DELETE FROM vault")
                connection.execute(
                    "DELETE FROM settings WHERE name IN (?, ?, ?)", (_ORIGIN, _CHECK, _SALT)
                )
                audit.record(connection, self._store, "vault.reset", "vault", before=before)
                with explained(self.key_file):
                    self.key_file.unlink(missing_ok=True)
            self._master = None
            self._ciphers.clear()

    @property
    def key_file(self) -> Path:
        """Where the master key is when its origin is "file"."""
        return self._store.path.with_name(self._store.path.name + ".key")

    def _cipher(self, purpose: str, *, passing: bool = False) -> AESGCM:
        """passing: for tokens only, which may die with the process if nothing can be stored."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 40 ms

        with self._lock:
            if (cipher := self._ciphers.get(purpose)) is None:
                if self._master is None:
                    self._master = self._find_master(passing=passing)
                cipher = AESGCM(_derived(self._master, f"purpose {purpose}"))
                self._ciphers[purpose] = cipher
        return cipher

    def _find_master(self, *, passing: bool) -> bytes:
        if not self._kept:
            given = os.environ.get(VARIABLE)
            return _from_environment(_NO_SALT) if given else os.urandom(KEY_SIZE)
        if self.origin is None:
            try:
                return self._first_master()
            except GatewayError as error:
                if passing and error.code == "store_readonly":
                    return os.urandom(KEY_SIZE)
                raise
        return self._known_master()

    def _known_master(self) -> bytes:
        settings = self._settings()
        origin, salt = settings[_ORIGIN], bytes.fromhex(settings[_SALT])
        if origin == "env":
            master = _from_environment(salt)
        elif origin == "keyring":
            master = _from_keyring(settings["store.id"])
        else:
            master = self._from_file()
        if _check(master) != settings[_CHECK]:
            where = {"env": VARIABLE, "keyring": "the OS keyring", "file": str(self.key_file)}
            raise GatewayError(
                "The master key is not the one that this store was sealed with.",
                why=f"It came from {where[origin]}, as recorded in the store.",
                next="Bring the former key back; its secrets cannot be opened without it.",
                code="vault_key_wrong",
                exit=Exit.DENIED,
            )
        return master

    def _first_master(self) -> bytes:
        """Choose where the key lives and record it, while no other process can."""
        with self._store.change() as connection:
            if self.origin is not None:  # another process was first
                return self._known_master()
            salt = os.urandom(16)
            origin, master = self._make(salt)
            for name, value in (
                (_ORIGIN, origin),
                (_SALT, salt.hex()),
                (_CHECK, _check(master)),
            ):
                _set(connection, name, value)
            audit.record(
                connection, self._store, "vault.create", "vault", after={"master_key": origin}
            )
            return master

    def _make(self, salt: bytes) -> tuple[Origin, bytes]:
        if os.environ.get(VARIABLE):
            return "env", _from_environment(salt)
        account = self._settings()["store.id"]
        try:
            if (held := ring.read(ring.SERVICE, account)) is None:
                ring.write(ring.SERVICE, account, _spelled(os.urandom(KEY_SIZE)))
                held = ring.read(ring.SERVICE, account)
            if held is not None and (master := _read_key(held)) is not None:
                return "keyring", master
        except ring.RingError:
            pass  # headless, or it hangs: the file does
        return "file", self._new_file()

    def _new_file(self) -> bytes:
        """Make the key file; one that is there already was left by a change that did not end."""
        path = self.key_file
        key = os.urandom(KEY_SIZE)
        with explained(path):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                return self._from_file()
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(_spelled(key) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return key

    def _from_file(self) -> bytes:
        path = self.key_file
        try:
            key = _read_key(path.read_text("ascii"))
        except OSError as error:
            _locked(f"{path} cannot be read: {os.strerror(error.errno or 0)}.", f"ls -l {path}")
        except ValueError:
            key = None
        if key is None:
            _locked(f"{path} does not hold a key.", f"Restore it from a backup: ls -l {path}")
        return key

    def _settings(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self._store.query("SELECT name, value FROM settings")}


def _set(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT INTO settings (name, value) VALUES (?, ?)", (name, value))


def _from_environment(salt: bytes) -> bytes:
    text = os.environ.get(VARIABLE)
    if not text:
        _locked(
            f"This store is sealed with {VARIABLE}, which is not set.",
            f"export {VARIABLE}=$(cat FILE)",
        )
    if (key := _read_key(text)) is not None:
        return key
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415 - with the cipher

    return Scrypt(salt=salt, length=KEY_SIZE, n=_SCRYPT_COST, r=8, p=1).derive(os.fsencode(text))


def _from_keyring(account: str) -> bytes:
    try:
        held = ring.read(ring.SERVICE, account)
    except ring.RingError as error:
        _locked(f"It is in the OS keyring: {error}.", "Unlock the keyring, then try again.")
    if held is None or (key := _read_key(held)) is None:
        _locked(
            f'The OS keyring has no key for this store ("{ring.SERVICE}", "{account}").',
            f"keyring get {ring.SERVICE} {account}",
        )
    return key


def _locked(why: str, follow: str) -> NoReturn:
    raise GatewayError(
        "The vault's master key is not to be had.",
        why=why,
        next=follow,
        code="vault_locked",
        exit=Exit.DENIED,
    )


def _spelled(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def _read_key(text: str) -> bytes | None:
    """A 256-bit key spelled in base64, of either alphabet; None for anything else."""
    spelled = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = binascii.a2b_base64(spelled + "=" * (-len(spelled) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_SIZE else None


def _derived(master: bytes, label: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - with the cipher
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    info = f"mcpgw 1 {label}".encode()
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(master)


def _check(master: bytes) -> str:
    """Tells whether a key is the right one, and nothing else about it."""
    return _derived(master, "check").hex()


def _bound(name: str) -> bytes:
    return b"secret " + name.encode("utf-8", "surrogatepass")


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - with the cipher

    return InvalidTag
