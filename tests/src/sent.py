"""Decodes the rtnetlink messages that a program sent, as strace wrote them down (see sent.rs): pyroute2 reads them, which
shares nothing with the crates that built them. From a JSON array of logs to one of arrays of messages in the order of
sending. Questions, and writes to other sockets and files, are left out; a message that pyroute2 does not know fails."""

import json
import re
import sys

from pyroute2.netlink import nla_slot
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

FLAGS = {0x1: "request", 0x4: "ack", 0x8: "echo", 0x200: "excl", 0x400: "create"}
OPENED = re.compile(r"socket\(AF_NETLINK, [A-Z_|]+, NETLINK_ROUTE\) = (\d+)$")
CLOSED = re.compile(r"close\((\d+)\)")
CALL = re.compile(r"(?:sendto|sendmsg|write)\((\d+), ")
BYTES = re.compile(r" \| [0-9a-f]+  ((?:[0-9a-f]{2} {1,2})+)")
GET = (18, 22, 26, 34)
NO_FIELDS = ("header", "event", "value", "state", "__align")


def writes(log):
    """The bytes of each write to an rtnetlink socket."""
    sockets, data, wanted = set(), bytearray(), False
    for line in log:
        if found := BYTES.match(line):
            data += bytes.fromhex(found[1]) if wanted else b""
            continue
        if data:
            yield bytes(data)
        data, wanted = bytearray(), False
        if found := OPENED.search(line):
            sockets.add(found[1])
        elif found := CLOSED.search(line):
            sockets.discard(found[1])
        elif found := CALL.search(line):
            wanted = found[1] in sockets
    if data:
        yield bytes(data)


def plain(value):
    """Attributes as a list of [name, value] in their order, so that one that comes twice is seen."""
    if isinstance(value, dict):
        # `state` is no field of the message: pyroute2 makes it from the flags.
        fields = {key: plain(inner) for key, inner in value.items() if key not in NO_FIELDS}
        return fields["attrs"] if list(fields) == ["attrs"] else fields
    if isinstance(value, nla_slot):
        return [value[0], plain(value[1])]
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.hex() if isinstance(value, (bytes, bytearray)) else value


def decoded(log):
    messages = []
    for data in writes(log.splitlines()):
        while data:
            length, kind, bits = (int.from_bytes(data[a:b], "little") for a, b in ((0, 4), (4, 6), (6, 8)))
            one, data = data[:length], data[length + 3 & ~3 :]
            if kind in GET:
                continue
            message = MarshalRtnl.msg_map[kind](one)
            message.decode()
            rest = bits & ~sum(FLAGS)
            flags = [name for bit, name in FLAGS.items() if bits & bit] + [hex(rest)] * bool(rest)
            messages.append({"type": kind, "nlm": " ".join(flags), **plain(message)})
    return messages


json.dump([decoded(log) for log in json.load(sys.stdin)], sys.stdout)
