"""The endpoint's certificate: the user's own, validated before use, or a self-signed one. The only import of
cryptography.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from vllmray.errors import ConfigError
from vllmray.secrets.files import text_of
from vllmray.secrets.store import TLS_CERTIFICATE, TLS_KEY, SecretStore

VALID = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate chain and private key, both PEM."""

    chain: str
    key: SecretStr
    names: tuple[str, ...] = ()
    """DNS names and addresses that it is valid for."""

    def host(self, address: str) -> str:
        """The name by which clients reach that address: the address, or a name that the certificate is valid for."""
        plain = [name for name in self.names if not name.startswith("*")]
        return address if address in self.names or not plain else plain[0]


def of_files(certfile: str, keyfile: str, now: datetime | None = None) -> Certificate:
    """A user's own, if a server could use it.

    Raises:
        ConfigError: a file can't be read, is not PEM, the two do not belong together, or it is not valid now.
    """
    chain = text_of("--ssl-certfile", certfile, hidden=False)
    key = text_of("--ssl-keyfile", keyfile, hidden=True)
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError as error:
        raise ConfigError(f"--ssl-certfile: {certfile} is not a PEM certificate") from error
    leaf = certificates[0]
    # Anything else in the file, such as a key, is dropped.
    chain = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = (
            "is protected by a password, which vLLM does not support"
            if isinstance(error, TypeError)
            else "is not a PEM private key"
        )
        raise ConfigError(f"--ssl-keyfile: {keyfile} {what}") from None
    if _public(private.public_key()) != _public(leaf.public_key()):
        raise ConfigError(f"--ssl-keyfile: {keyfile} is not the key of {certfile}")
    _check_dates(certfile, leaf, now or datetime.now(UTC))
    return Certificate(chain, SecretStr(key), _names(leaf))


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined, no-any-return]  # any kind


def _check_dates(certfile: str, leaf: x509.Certificate, now: datetime) -> None:
    if now > leaf.not_valid_after_utc:
        raise ConfigError(f"--ssl-certfile: {certfile} expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if now < leaf.not_valid_before_utc:
        raise ConfigError(f"--ssl-certfile: {certfile} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def self_signed(address: str, store: SecretStore, now: datetime | None = None) -> Certificate:
    """The stored certificate, if it is for that address and valid for long enough; else a new one.

    Args:
        address: the endpoint's; the certificate is for it, for this machine's name, and for loopback.
    """
    now = now or datetime.now(UTC)
    chain, key = store.get(TLS_CERTIFICATE), store.get(TLS_KEY)
    if chain and key:
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):
            leaf = x509.load_pem_x509_certificate(chain.encode())
            private = serialization.load_pem_private_key(key.encode(), password=None)
            lasts = now < leaf.not_valid_after_utc - RENEW_BEFORE
            if lasts and address in _names(leaf) and _public(private.public_key()) == _public(leaf.public_key()):
                return Certificate(chain + "\n", SecretStr(key + "\n"), _names(leaf))
    made = _make(*names_for(address), now)
    store.keep(TLS_KEY, made.key.get_secret_value().rstrip("\n"))
    store.keep(TLS_CERTIFICATE, made.chain.rstrip("\n"))
    return made


def throwaway(address: str) -> Certificate:
    """A certificate for that address that is used once and stored nowhere."""
    return _make(*names_for(address), datetime.now(UTC))


def names_for(address: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The DNS names and the addresses of a self-signed certificate."""
    return ("localhost", socket.gethostname()), (address, "127.0.0.1")


def _make(names: Sequence[str], addresses: Sequence[str], now: datetime) -> Certificate:
    """A key on the curve that every TLS stack has (RFC 8446, 9.1), and a self-signed certificate for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vllmray")])
    listed = [x509.DNSName(name) for name in names]
    listed_addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(addresses)]
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([*listed, *listed_addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = leaf.public_bytes(serialization.Encoding.PEM).decode()
    return Certificate(chain, SecretStr(secret.decode()), _names(leaf))
