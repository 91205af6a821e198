"""Certificates: a user's own looked at before a server does, our own made, and both in real TLS handshakes."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from vllmray.errors import ConfigError
from vllmray.secrets.certificate import RENEW_BEFORE, VALID, Certificate, of_files, self_signed
from vllmray.secrets.store import TLS_CERTIFICATE, TLS_KEY, SecretStore

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def key_text(key: Any, password: bytes | None = None, form: serialization.PrivateFormat = PKCS8) -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    text: bytes = key.private_bytes(PEM, form, hidden)
    return text.decode()


def certificate_text(
    key: Any,
    *,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
    names: tuple[str, ...] = ("model.example", "*.model.example"),
    signer: tuple[str, Any] | None = None,
) -> str:
    """A certificate of a key, signed by itself unless told otherwise; without names it has no such extension."""
    issuer, signing = signer or ("test", key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if names:
        listed = [x509.DNSName(name) for name in names]
        addresses = [x509.IPAddress(ip_address("10.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName([*listed, *addresses]), critical=False)
    kind = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signing, kind).public_bytes(PEM).decode()


@dataclass
class Files:
    """A certificate and a key, as a user has them."""

    folder: Path

    def put(self, name: str, text: str | bytes, *, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)

    def read(self, certificate: str | bytes, key: str | bytes, *, now: datetime = NOW) -> Certificate:
        return of_files(self.put("server.crt", certificate, mode=0o644), self.put("server.key", key), now)

    def refused(self, certificate: str | bytes, key: str | bytes, *, now: datetime = NOW) -> str:
        """The message; no line of the key is in what is said."""
        with pytest.raises(ConfigError) as caught:
            self.read(certificate, key, now=now)
        assert caught.value.exit_code == 2
        lines = (key if isinstance(key, bytes) else key.encode()).decode("latin-1").splitlines()[1:-1]
        said = f"{caught.value.message}{caught.value.details}{caught.value.hint}"
        assert not [line for line in lines if line.strip() and line in said]
        return caught.value.message.replace(f"{self.folder}/", "")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "state", "lab")


KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
GOOD = certificate_text(KEY)


def test_a_users_own_pair_is_taken_as_it_is(files: Files) -> None:
    taken = files.read(GOOD, key_text(KEY))
    assert taken.chain == GOOD
    assert taken.key.get_secret_value() == key_text(KEY)
    assert taken.names == ("model.example", "*.model.example", "10.0.0.1")
    assert "PRIVATE" not in repr(taken)


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate(), OTHER_KEY], ids=type
)
def test_keys_of_every_usual_kind_are_taken(files: Files, key: Any) -> None:
    assert files.read(certificate_text(key), key_text(key)).chain
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        assert files.read(certificate_text(key), key_text(key, form=traditional)).chain
    assert "server.key is not the key of server.crt" in files.refused(certificate_text(key), key_text(KEY))


def test_of_a_chain_the_first_is_the_one_that_counts(files: Files) -> None:
    issuer = certificate_text(OTHER_KEY, end=NOW + 400 * DAY, names=("issuer.example",))
    leaf = certificate_text(KEY, signer=("issuer", OTHER_KEY))
    taken = files.read(leaf + issuer, key_text(KEY))
    assert taken.chain == leaf + issuer
    assert "issuer.example" not in taken.names
    assert files.refused(issuer + leaf, key_text(KEY)) == "--ssl-keyfile: server.key is not the key of server.crt"


def test_a_pair_that_does_not_belong_together_is_refused(files: Files) -> None:
    assert files.refused(GOOD, key_text(OTHER_KEY)) == "--ssl-keyfile: server.key is not the key of server.crt"


def test_one_that_is_out_of_date_is_refused_with_the_day(files: Files) -> None:
    assert files.read(GOOD, key_text(KEY), now=NOW + DAY).chain  # its last second
    late = files.refused(GOOD, key_text(KEY), now=NOW + DAY + timedelta(seconds=1))
    assert late == "--ssl-certfile: server.crt expired on 2026-06-02"
    early = files.refused(GOOD, key_text(KEY), now=NOW - DAY - timedelta(seconds=1))
    assert early == "--ssl-certfile: server.crt is not valid before 2026-05-31"


def test_without_a_time_it_is_now(files: Files) -> None:
    now = datetime.now(UTC)
    names = files.put("a.crt", certificate_text(KEY, begin=now - DAY, end=now + DAY)), files.put("a.key", key_text(KEY))
    assert of_files(*names).chain
    files.put("a.crt", certificate_text(KEY, begin=now - 2 * DAY, end=now - DAY))
    with pytest.raises(ConfigError, match="expired"):
        of_files(*names)


@pytest.mark.parametrize(
    "text", ["", "garbage", GOOD[:-40], GOOD.replace("CERTIFICATE", "NOTHING"), key_text(KEY), "\0"]
)
def test_what_is_no_certificate_is_said_to_be_none(files: Files, text: str) -> None:
    assert files.refused(text, key_text(KEY)) == "--ssl-certfile: server.crt is not a PEM certificate"


@pytest.mark.parametrize("text", ["", "garbage", GOOD, key_text(KEY)[:-60], key_text(KEY).replace("PRIVATE", "OTHER")])
def test_what_is_no_key_is_said_to_be_none(files: Files, text: str) -> None:
    assert files.refused(GOOD, text) == "--ssl-keyfile: server.key is not a PEM private key"


def test_files_in_another_form_are_refused_by_name(files: Files) -> None:
    form, hidden = serialization.Encoding.DER, serialization.NoEncryption()
    assert files.refused(b"\x30\xff", key_text(KEY)) == "--ssl-certfile: server.crt is not a text file"
    binary = b"\xff" + KEY.private_bytes(form, PKCS8, hidden)
    assert files.refused(GOOD, binary) == "--ssl-keyfile: server.key is not a text file"


@pytest.mark.parametrize("form", [PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_a_key_with_a_password_is_refused_before_the_server_asks_for_it(
    files: Files, form: serialization.PrivateFormat
) -> None:
    said = files.refused(GOOD, key_text(KEY, b"password", form))
    assert said == "--ssl-keyfile: server.key is protected by a password, which vLLM does not support"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused(files: Files, bits: int) -> None:
    names = files.put("server.crt", GOOD, mode=0o644), files.put("server.key", key_text(KEY), mode=bits)
    with pytest.raises(ConfigError) as caught:
        of_files(*names, NOW)
    assert caught.value.message == f"--ssl-keyfile: {names[1]} can be read by others"


def test_a_certificate_that_others_can_write_is_refused(files: Files) -> None:
    names = files.put("server.crt", GOOD, mode=0o646), files.put("server.key", key_text(KEY))
    with pytest.raises(ConfigError) as caught:
        of_files(*names, NOW)
    assert caught.value.message == f"--ssl-certfile: {names[0]} can be written by others"


def test_a_file_that_is_not_there_is_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    there = files.put("server.crt", GOOD)
    for name in ("/no/such.key", str(files.folder)):
        with pytest.raises(ConfigError) as caught:
            of_files(there, name, NOW)
        assert caught.value.message.startswith("--ssl-keyfile: ")
        assert name in caught.value.message
    monkeypatch.setenv("HOME", str(files.folder))
    files.put("server.key", key_text(KEY))
    assert of_files("~/server.crt", "~/server.key", NOW).chain == GOOD


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "a\0b"])
def test_a_name_that_no_file_can_have_is_a_wrong_setting(files: Files, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of_files(name, files.put("server.key", key_text(KEY)), NOW)
    assert caught.value.message.startswith("--ssl-certfile: ")


def test_a_certificate_is_called_by_a_name_that_it_has() -> None:
    def host(*names: str) -> str:
        return Certificate("", SecretStr(""), names).host("10.0.0.1")

    assert host() == "10.0.0.1"
    assert host("model.example", "10.0.0.1") == "10.0.0.1"
    assert host("model.example", "10.0.0.2") == "model.example"
    assert host("*.model.example", "model.example") == "model.example"
    assert host("*.model.example") == "10.0.0.1"


def test_a_certificate_without_names_is_taken_and_called_by_the_address(files: Files) -> None:
    taken = files.read(certificate_text(KEY, names=()), key_text(KEY))
    assert taken.names == ()
    assert taken.host("10.0.0.1") == "10.0.0.1"


def belong_together(pair: Certificate) -> bool:
    key = serialization.load_pem_private_key(pair.key.get_secret_value().encode(), None)
    return key.public_key() == x509.load_pem_x509_certificate(pair.chain.encode()).public_key()


def test_our_own_is_for_the_address_this_machine_and_loopback(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store, NOW)
    leaf = x509.load_pem_x509_certificate(made.chain.encode())
    assert {"localhost", "10.0.0.1", "127.0.0.1"} < {*made.names}
    assert made.host("10.0.0.1") == "10.0.0.1"
    assert leaf.not_valid_before_utc < NOW - timedelta(minutes=30)  # for a client whose clock is behind
    assert leaf.not_valid_after_utc == NOW + VALID
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert belong_together(made)
    assert made.key.get_secret_value().splitlines()[1] not in repr(made)


def test_an_address_that_is_loopback_already_is_named_once(store: SecretStore) -> None:
    assert self_signed("127.0.0.1", store, NOW).names.count("127.0.0.1") == 1


def test_our_own_is_the_same_again_until_it_is_soon_to_expire(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store, NOW)
    assert store.get(TLS_CERTIFICATE) == made.chain.rstrip("\n")
    assert store.get(TLS_KEY) == made.key.get_secret_value().rstrip("\n")
    assert self_signed("10.0.0.1", store, NOW + VALID - RENEW_BEFORE - DAY) == made
    renewed = self_signed("10.0.0.1", store, NOW + VALID - RENEW_BEFORE)
    assert renewed.chain != made.chain
    assert renewed.key != made.key
    assert self_signed("10.0.0.1", store, NOW + VALID - RENEW_BEFORE) == renewed


def test_our_own_is_made_anew_for_another_address(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store, NOW)
    moved = self_signed("10.0.0.2", store, NOW)
    assert moved.chain != made.chain
    assert "10.0.0.1" not in moved.names
    assert self_signed("10.0.0.2", store, NOW) == moved


@pytest.mark.parametrize("lost", [TLS_CERTIFICATE, TLS_KEY])
def test_half_a_pair_is_none(store: SecretStore, lost: str) -> None:
    made = self_signed("10.0.0.1", store, NOW)
    store.path(lost).unlink()
    again = self_signed("10.0.0.1", store, NOW)
    assert again.chain != made.chain
    assert belong_together(again)


def test_what_is_no_certificate_in_the_store_is_made_anew(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store, NOW)
    store.keep(TLS_CERTIFICATE, "garbage")
    assert self_signed("10.0.0.1", store, NOW).chain != made.chain


def test_a_pair_that_does_not_belong_together_in_the_store_is_made_anew(store: SecretStore) -> None:
    self_signed("10.0.0.1", store, NOW)
    store.keep(TLS_KEY, key_text(OTHER_KEY).rstrip("\n"))
    again = self_signed("10.0.0.1", store, NOW)
    assert again.key.get_secret_value() != key_text(OTHER_KEY)
    assert belong_together(again)


def shake_hands(shown: Certificate, trusted: str, *, name: str) -> str | None:
    """A real handshake, of bytes in memory, with a client that trusts that certificate and asks for that name.

    Raises:
        ssl.SSLError: the client does not take what it is shown.
    """
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile("w") as both:
        both.write(shown.key.get_secret_value() + shown.chain)
        both.flush()
        server.load_cert_chain(both.name)
    client = ssl.create_default_context(cadata=trusted)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT  # as Python 3.13 has them
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname=name)
    ends = [client_end, server.wrap_bio(to_server, to_client, server_side=True)]
    while ends:
        end = ends.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            ends.append(end)
    return client_end.version()


@pytest.mark.parametrize("name", ["10.0.0.1", "127.0.0.1", "localhost"])
def test_a_client_that_trusts_our_own_takes_it_by_each_of_its_names(store: SecretStore, name: str) -> None:
    made = self_signed("10.0.0.1", store)
    assert shake_hands(made, made.chain, name=name) == "TLSv1.3"


def test_our_own_is_taken_by_no_other_name(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(made, made.chain, name="10.0.0.2")


def test_another_that_looks_the_same_is_not_taken(store: SecretStore, tmp_path: Path) -> None:
    made = self_signed("10.0.0.1", store)
    other = self_signed("10.0.0.1", SecretStore(tmp_path / "other", "lab"))
    for shown, trusted in ((other, made), (made, other)):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
            shake_hands(shown, trusted.chain, name="10.0.0.1")


def test_our_own_signs_for_nobody_else(store: SecretStore) -> None:
    made = self_signed("10.0.0.1", store)
    now = datetime.now(UTC)
    signer = serialization.load_pem_private_key(made.key.get_secret_value().encode(), None)
    forged = certificate_text(KEY, begin=now - DAY, end=now + DAY, signer=("vllmray", signer))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(Certificate(forged, SecretStr(key_text(KEY))), made.chain, name="10.0.0.1")
