#!/usr/bin/env python3
"""Logs in at every listener of a data plane, and asks the control plane where each login landed.

    login-test.py PLAN

PLAN is a JSON file:

    host          where clients connect
    web_host      the Host of requests by HTTP
    doors         what is there: name, protocol (imap, pop3, managesieve, submission, http), port, tls (implicit,
                  starttls)
    certificates  files with the certificates that clients may be shown, in PEM; the first of each counts
    api           the control plane: host, port, server_name, ca_file, token_file
    username_file, password_file
    destination   where the account must be found; empty: in one place, whichever
    proxies       networks whose members must send a PROXY header: if we are one of them, we send one

A login counts when the control plane lists its session, open, on the expected destination, and as coming from the
address that we came from (or said in the PROXY header). No message is submitted. By HTTP a request with the password is
what counts, to JMAP where that is there and else to WebDAV; it is listed while half of its body is still to come. Nothing
but Python's own library is needed.
"""

import base64
import http.client
import ipaddress
import json
import socket
import ssl
import struct
import sys
import time
import urllib.parse

PATIENCE = 30  # seconds for each step
CLAIMED = ("192.0.2.123", 40123)  # a client that nobody is (RFC 5737), for PROXY headers
PROTOCOLS = {"imap": 1, "pop3": 2, "managesieve": 3, "submission": 4, "http": 7}  # ferrypost.v1.Protocol
OPEN = ("connecting", "relaying")  # a request is the former until its server answers
FAREWELL = {
    "imap": [(b"a4 LOGOUT", b"A4 OK")],
    "pop3": [(b"QUIT", b"+OK")],
    "managesieve": [(b"LOGOUT", b"OK")],
    "submission": [(b"RSET", b"250 "), (b"QUIT", b"221 ")],
}
ECHO = json.dumps({"using": ["urn:ietf:params:jmap:core"], "methodCalls": [["Core/echo", {"from": "helm test"}, "a"]]})
ALL_PROPERTIES = '<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><allprop/></propfind>'


class Failure(Exception):
    """What is wrong, and what to look at."""


class Api:
    """One unary call by gRPC, which is HTTP/2 with nothing else on the connection."""

    def __init__(self, plan):
        self.plan = plan
        with open(plan["token_file"]) as file:
            self.token = file.read().strip()

    def call(self, method, message):
        context = ssl.create_default_context(cafile=self.plan["ca_file"])
        context.set_alpn_protocols(["h2"])
        address = (self.plan["host"], self.plan["port"])
        with socket.create_connection(address, PATIENCE) as plain:
            with context.wrap_socket(plain, server_hostname=self.plan["server_name"]) as stream:
                return self.exchange(stream, method, message)

    def exchange(self, stream, method, message):
        authority = "%s:%d" % (self.plan["server_name"], self.plan["port"])
        headers = [
            (":method", "POST"), (":scheme", "https"), (":path", "/" + method), (":authority", authority),
            ("content-type", "application/grpc"), ("te", "trailers"), ("authorization", "Bearer " + self.token),
        ]
        block = b"".join(b"\0" + hpack(name) + hpack(value) for name, value in headers)
        body = b"\0" + struct.pack(">I", len(message)) + message
        room = 1 << 24
        stream.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, struct.pack(">HI", 4, room))  # SETTINGS: what a stream may bring
            + frame(8, 0, 0, struct.pack(">I", room))  # WINDOW_UPDATE: and the connection
            + frame(1, 4, 1, block)  # HEADERS, whole
            + frame(0, 1, 1, body)  # DATA, the last
        )
        answer, ended = b"", False
        while not ended:
            length, kind, flags, number = struct.unpack(">IBBI", b"\0" + exactly(stream, 9))
            payload = exactly(stream, length)
            if kind == 4 and not flags & 1:
                stream.sendall(frame(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                stream.sendall(frame(6, 1, 0, payload))
            elif kind in (3, 7):
                raise Failure("the control plane hung up in the middle of the call")
            elif number == 1 and kind in (0, 1):
                if kind == 0:
                    answer += payload
                ended = bool(flags & 1)
        if len(answer) < 5:
            raise Failure("the control plane refused the call; is the token the viewer's, and does GetStats answer?")
        return answer[5:]


def hpack(text):
    """A string as it is (RFC 7541, 5.2)."""
    octets = text.encode()
    rest = len(octets) - 127
    if rest < 0:
        return bytes([len(octets)]) + octets
    length = b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + octets


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def exactly(stream, length):
    octets = b""
    while len(octets) < length:
        more = stream.recv(length - len(octets))
        if not more:
            raise Failure("the control plane closed the connection")
        octets += more
    return octets


def varint(octets, at):
    value = shift = 0
    while True:
        value |= (octets[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if octets[at - 1] < 128:
            return value, at


def fields(octets):
    """The fields of a protobuf message that are numbers or have a length."""
    at = 0
    while at < len(octets):
        key, at = varint(octets, at)
        if key & 7 == 0:
            value, at = varint(octets, at)
        elif key & 7 == 2:
            length, at = varint(octets, at)
            value, at = octets[at : at + length], at + length
        else:
            at += 8 if key & 7 == 1 else 4
            continue
        yield key >> 3, value


def sessions(api, account):
    """`ListSessions`: protocol, destination, client and stage of each."""
    name = account.encode()
    answer = api.call("ferrypost.v1.StatsService/ListSessions", b"\x0a" + bytes([len(name)]) + name)
    for number, value in fields(answer):
        if number == 2:
            session = dict(fields(value))
            text = {key: session.get(key, b"").decode() for key in (5, 6, 8)}
            yield {"protocol": session.get(3, 0), "destination": text[5], "client": text[6], "stage": text[8]}


class Client:
    """One connection, whose server must show a certificate that we know."""

    def __init__(self, plan, door):
        self.plan, self.door = plan, door
        self.socket = socket.create_connection((plan["host"], door["port"]), PATIENCE)
        self.seen_as = self.announce()

    def announce(self):
        """Who we are to the data plane, as the control plane writes it."""
        own, there = self.socket.getsockname()[:2], self.socket.getpeername()[:2]
        networks = [ipaddress.ip_network(it, strict=False) for it in self.plan["proxies"]]
        if not any(ipaddress.ip_address(own[0]) in it for it in networks):
            return "[%s]:%d" % own if ":" in own[0] else "%s:%d" % own
        if ":" in there[0]:
            raise Failure("a PROXY header over IPv6 is not spoken here")
        ends = socket.inet_aton(CLAIMED[0]) + socket.inet_aton(there[0]) + struct.pack(">HH", CLAIMED[1], there[1])
        self.socket.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(ends)) + ends)
        return "%s:%d" % CLAIMED

    def secure(self, in_clear):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = context.wrap_socket(in_clear)
        shown = stream.getpeercert(binary_form=True)
        if shown not in [first_certificate(file) for file in self.plan["certificates"]]:
            stream.close()
            raise Failure("it shows a certificate that is none of the data plane's secrets: who answers there?")
        return stream

    def log_in(self, user, password):
        if self.door["tls"] == "implicit":
            self.socket = self.secure(self.socket)
        self.lines = self.socket.makefile("rwb")
        getattr(self, self.door["protocol"])(user, password)

    def start_tls(self):
        self.socket = self.secure(self.socket)
        self.lines = self.socket.makefile("rwb")

    def ask(self, line, good, otherwise):
        """Sends a line, if there is one, and reads up to the answer's last line, which begins like `good`."""
        if line:
            self.lines.write(line + b"\r\n")
            self.lines.flush()
        while True:
            answer = self.lines.readline()
            expect(answer, "%s: the connection was closed" % otherwise)
            if answer.upper().startswith(good):
                return
            goes_on = {
                "imap": answer.startswith(b"*"),
                "pop3": False,
                "submission": answer[3:4] == b"-",
                "managesieve": not answer.upper().startswith((b"NO", b"BYE")),
            }
            expect(goes_on[self.door["protocol"]], "%s: %s" % (otherwise, answer.decode(errors="replace").strip()))

    def imap(self, user, password):
        self.ask(b"", b"* OK", "no greeting")
        if self.door["tls"] == "starttls":
            self.ask(b"a1 STARTTLS", b"A1 OK", "STARTTLS was refused")
            self.start_tls()
        self.ask(b"a2 LOGIN %s %s" % (quoted(user), quoted(password)), b"A2 OK", "the login was refused")
        self.ask(b"a3 NOOP", b"A3 OK", "the server does not answer")

    def pop3(self, user, password):
        self.ask(b"", b"+OK", "no greeting")
        if self.door["tls"] == "starttls":
            self.ask(b"STLS", b"+OK", "STLS was refused")
            self.start_tls()
        self.ask(b"USER " + user.encode(), b"+OK", "the name was refused")
        self.ask(b"PASS " + password.encode(), b"+OK", "the login was refused")
        self.ask(b"STAT", b"+OK", "the server does not answer")

    def submission(self, user, password):
        self.ask(b"", b"220 ", "no greeting")
        self.ask(b"EHLO helm-test.invalid", b"250 ", "EHLO was refused")
        if self.door["tls"] == "starttls":
            self.ask(b"STARTTLS", b"220 ", "STARTTLS was refused")
            self.start_tls()
            self.ask(b"EHLO helm-test.invalid", b"250 ", "EHLO was refused")
        self.ask(b"AUTH PLAIN " + plain(user, password), b"235 ", "the login was refused")
        self.ask(b"NOOP", b"250 ", "the server does not answer")

    def managesieve(self, user, password):
        self.ask(b"", b"OK", "no greeting")
        if self.door["tls"] == "starttls":
            self.ask(b"STARTTLS", b"OK", "STARTTLS was refused")
            self.start_tls()
            self.ask(b"", b"OK", "no capabilities behind TLS")
        self.ask(b'AUTHENTICATE "PLAIN" "' + plain(user, password) + b'"', b"OK", "the login was refused")
        self.ask(b"LISTSCRIPTS", b"OK", "the server does not answer")

    def leave(self):
        for line, good in FAREWELL[self.door["protocol"]]:
            self.ask(line, good, "%s was refused" % line.decode())

    def http(self, user, password):
        self.web = http.client.HTTPConnection(self.plan["host"], self.door["port"])
        self.web.sock = self.socket
        secret = base64.b64encode(("%s:%s" % (user, password)).encode()).decode()
        self.known = {"Host": self.plan["web_host"], "Authorization": "Basic " + secret}
        self.found = self.jmap() or self.webdav("caldav") or self.webdav("carddav")

    def jmap(self):
        """Where JMAP's calls go (RFC 8620, 2)."""
        status, _, content = self.follow("GET", "/.well-known/jmap")
        if status != 200:
            return None
        try:
            calls = urllib.parse.urlsplit(json.loads(content)["apiUrl"]).path
        except (ValueError, KeyError, TypeError):
            return None
        return "JMAP", "POST", calls, {"Content-Type": "application/json"}, ECHO, 200

    def webdav(self, service):
        """Where a collection is (RFC 6764, 5)."""
        more = {"Depth": "0", "Content-Type": "application/xml"}
        status, path, _ = self.follow("PROPFIND", "/.well-known/" + service, more, ALL_PROPERTIES)
        return ("WebDAV", "PROPFIND", path, more, ALL_PROPERTIES, 207) if status == 207 else None

    def follow(self, method, path, more=None, body=None):
        for _ in range(5):
            self.web.request(method, path, body, {**self.known, **(more or {})})
            answer = self.web.getresponse()
            content = answer.read()
            expect(answer.status != 401, "the login was refused")
            expect(answer.status < 500, "it answers %d to %s %s" % (answer.status, method, path))
            if answer.status not in (301, 302, 303, 307, 308):
                break
            path = urllib.parse.urlsplit(answer.getheader("Location", path)).path
        return answer.status, path, content

    def ask_slowly(self, meanwhile):
        """Makes the call that was found, and something else while half of it is under way."""
        _, method, path, more, body, good = self.found
        half = len(body) // 2
        self.web.putrequest(method, path, skip_host=True)
        for name, value in {**self.known, **more, "Content-Length": len(body)}.items():
            self.web.putheader(name, value)
        self.web.endheaders(body[:half].encode())
        seen = meanwhile()
        self.web.send(body[half:].encode())
        answer = self.web.getresponse()
        answer.read()
        expect(answer.status == good, "it answers %d to %s %s" % (answer.status, method, path))
        return seen


def quoted(text):
    return b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def plain(user, password):
    return base64.b64encode(b"\0" + user.encode() + b"\0" + password.encode())


def first_certificate(file):
    with open(file) as text:
        pem = text.read()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)])


def expect(fact, otherwise):
    if not fact:
        raise Failure(otherwise)


def landed(api, client, account, destination):
    """The destination that has the client's session; waits until the data plane has told."""
    protocol, deadline = PROTOCOLS[client.door["protocol"]], time.monotonic() + PATIENCE
    while True:
        there = [it for it in sessions(api, account) if it["protocol"] == protocol and it["stage"] in OPEN]
        ours = [it for it in there if it["client"] == client.seen_as]
        if ours:
            break
        if time.monotonic() > deadline:
            others = ", ".join(sorted({it["client"] for it in there})) or "nobody"
            raise Failure(
                "we came as %s, and the data plane serves %s: something between us hides who clients are "
                "(externalTrafficPolicy, a mesh), or PROXY is on at one side alone" % (client.seen_as, others)
            )
        time.sleep(0.2)
    found = ours[0]["destination"]
    expect(not destination or found == destination, "it landed on %s, not on %s" % (found, destination))
    return found


def try_door(plan, api, door, account, password, destination):
    client = Client(plan, door)
    client.log_in(account, password)
    if door["protocol"] != "http":
        found = landed(api, client, account, destination)
        client.leave()
        return "landed on %s, seen as %s" % (found, client.seen_as), found
    if not client.found:
        return "answers, and has neither JMAP nor WebDAV to log in at", destination
    found = client.ask_slowly(lambda: landed(api, client, account, destination))
    return "landed on %s by %s, seen as %s" % (found, client.found[0], client.seen_as), found


def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    with open(plan["username_file"]) as name, open(plan["password_file"]) as secret:
        account, password = name.read().strip(), secret.read().strip()
    api, destination, failed = Api(plan["api"]), plan["destination"], 0
    for door in plan["doors"]:
        try:
            # An account lives in one place, whichever way one comes in.
            said, destination = try_door(plan, api, door, account, password, destination)
            print("ok      %s: %s" % (door["name"], said), flush=True)
        except (Failure, OSError, http.client.HTTPException) as error:
            failed += 1
            print("FAILED  %s: %s" % (door["name"], error or type(error).__name__), flush=True)
    print("%d of %d doors failed" % (failed, len(plan["doors"])))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
