# Verifies certificates and checks Diffie-Hellman parameters on command, with the fetched pyOpenSSL and cryptography.
#
# `chain NAME DOMAIN` makes an authority whose certificate permits mail addresses at NAME only, has it certify an address
# at DOMAIN, and verifies that: prints `ok` or `refused: REASON`. NAME*COUNT stands for NAME repeated.
# `dh BITS` checks a modulus of BITS bits without small factors, `dh group14` the 2048-bit one of RFC 3526: prints
# `ok MS` or `refused: REASON MS`, MS the milliseconds of processor time.
# `version` prints OpenSSL's.
import datetime
import sys
import time

from cryptography import x509
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dh, ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")  # id-on-SmtpUTF8Mailbox, RFC 8398
START = datetime.datetime(2022, 1, 1)
END = datetime.datetime(2099, 1, 1)


def utf8_string(text):
    """DER of a UTF8String of less than 128 bytes."""
    data = text.encode()
    return bytes([12, len(data)]) + data


def certificate(subject, key, issuer, issuer_key, extensions):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(END)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return crypto.X509.from_cryptography(builder.sign(issuer_key, hashes.SHA256()))


def chain(permitted, domain):
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # The public constructor refuses names that aren't ASCII, and others that real certificates have.
    mail_at = x509.RFC822Name._init_without_validation(permitted)
    constraint = x509.NameConstraints(permitted_subtrees=[mail_at], excluded_subtrees=None)
    authority = certificate(
        "authority", authority_key, "authority", authority_key, [x509.BasicConstraints(True, None), constraint]
    )
    address = x509.OtherName(MAILBOX, utf8_string(f"user@{domain}"))
    leaf = certificate("leaf", key, "authority", authority_key, [x509.SubjectAlternativeName([address])])
    store = crypto.X509Store()
    store.add_cert(authority)
    crypto.X509StoreContext(store, leaf).verify_certificate()


def modulus(bits):
    """Odd, of exactly so many bits, and without small factors: only the slow test can find it composite."""
    number = (1 << bits) - 1
    small = [n for n in range(3, 20000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
    rest = {prime: number % prime for prime in small}
    while 0 in rest.values():
        number -= 2
        rest = {prime: (value - 2) % prime for prime, value in rest.items()}
    return number


GROUP14 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B"
    "302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"
    "49286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D"
    "670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
moduli = {"group14": GROUP14}


def check(which):
    if which not in moduli:
        moduli[which] = modulus(int(which))
    p = moduli[which]
    public = dh.DHPublicNumbers(4, dh.DHParameterNumbers(p, 2))
    numbers = dh.DHPrivateNumbers(2, public)
    start = time.process_time()
    try:
        numbers.private_key(backend)
        answer = "ok"
    except ValueError as error:
        answer = f"refused: {error}"
    return f"{answer} {round(1000 * (time.process_time() - start))}"


def answer(command, argument):
    if command == "version":
        return backend.openssl_version_text()
    if command == "dh":
        return check(argument)
    if command == "chain":
        permitted, _, domain = argument.partition(" ")
        name, _, count = permitted.partition("*")
        try:
            chain(name * int(count or 1), domain)
            return "ok"
        except crypto.X509StoreContextError as error:
            return f"refused: {error}"
    return "unknown command"


print("ready", flush=True)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    print(answer(command, argument), flush=True)
