# Shakes hands over TLS with itself on command, both ends in memory, with the ssl module of the Python that runs it.
#
# `handshake VERSION` makes a server's context that accepts VERSION (TLSv1, TLSv1_1, TLSv1_2) and anything newer, and a
# client that offers nothing else connects: prints the version agreed upon, or `refused: REASON`. The clients' contexts
# are made before `ready`. `minimum VERSION` sets the least version of a new context and prints what it then is.
# No certificates: the cipher suites are the anonymous ones, and the security level admits the old versions.
import ssl
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of the old versions
ANONYMOUS = "AECDH:@SECLEVEL=0"


def context(protocol):
    made = ssl.SSLContext(protocol)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_ciphers(ANONYMOUS)
    return made


def client(version):
    made = context(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = version
    return made


CLIENTS = {v.name: client(v) for v in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2)}


def server(version):
    made = context(ssl.PROTOCOL_TLS_SERVER)
    made.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 has no anonymous suites
    made.minimum_version = ssl.TLSVersion[version]
    return made


def handshake(version):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server(version).wrap_bio(to_server, to_client, server_side=True),
        CLIENTS[version].wrap_bio(to_client, to_server),
    ]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    return ends[0].version()


def answer(command, version):
    if command == "minimum":
        return server(version).minimum_version.name
    if command == "handshake":
        try:
            return handshake(version)
        except ssl.SSLError as error:
            return f"refused: {error.reason}"
    return "unknown command"


print("ready", flush=True)
for line in sys.stdin:
    command, _, version = line.strip().partition(" ")
    print(answer(command, version), flush=True)
