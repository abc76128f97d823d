"""The other end of every connection, in a network namespace: a TUN device whose peers each answer in their own way.

The last part of a peer's address says how it answers a SYN: 2 accepts, 3 refuses, 4 is unreachable, 5 is silent,
6 opens from its side at once and then resets. Run as `python -m tests.tun`; prints "ready".
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess

IFF_TUN, IFF_NO_PI, TUNSETIFF = 1, 0x1000, 0x400454CA  # linux/if_tun.h
SYN, RST, ACK = 0x02, 0x04, 0x10
TCP, ICMP, ICMP6 = 6, 1, 58


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def wrap(src: bytes, dst: bytes, protocol: int, data: bytes, checksum_at: int) -> bytes:
    """An IP packet around data, whose checksum is filled in; ICMPv4's does not cover the addresses."""
    pseudo = src + dst + struct.pack("!II", len(data), protocol) if protocol != ICMP else b""
    data = data[:checksum_at] + struct.pack("!H", checksum(pseudo + data)) + data[checksum_at + 2 :]
    if len(src) == 16:
        return struct.pack("!IHBB", 6 << 28, len(data), protocol, 64) + src + dst + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0) + src + dst
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + data


def answers(packet: bytes) -> list[bytes]:
    """What the addressed peer says to a packet."""
    six = packet[0] >> 4 == 6
    head = 40 if six else (packet[0] & 15) * 4
    src, dst = (packet[8:24], packet[24:40]) if six else (packet[12:16], packet[16:20])
    if packet[6 if six else 9] != TCP:
        return []
    sport, dport, seq, _, _, flags = struct.unpack_from("!HHIIBB", packet, head)

    def tcp(seq: int, ack: int, flags: int) -> bytes:
        return wrap(dst, src, TCP, struct.pack("!HHIIBBHHH", dport, sport, seq, ack, 5 << 4, flags, 65535, 0, 0), 16)

    peer = dst[-1]
    if flags & (SYN | ACK) == SYN | ACK and peer == 6:
        return [tcp(1001, 0, RST)]
    if flags & (SYN | ACK) != SYN:
        return []
    if peer == 2:
        return [tcp(1000, seq + 1 & 0xFFFFFFFF, SYN | ACK)]
    if peer == 3:
        return [tcp(0, seq + 1 & 0xFFFFFFFF, RST | ACK)]
    if peer == 4:
        kind = (1, 3) if six else (3, 1)  # address, host unreachable
        return [wrap(dst, src, ICMP6 if six else ICMP, struct.pack("!BBHI", *kind, 0, 0) + packet[: head + 20], 2)]
    return [tcp(1000, 0, SYN)] if peer == 6 else []


def main() -> None:
    """Make the device, and answer until killed."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", b"peers", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        "link set peers up",
        "addr add 10.9.0.1/24 dev peers",
        "addr add fd09::1/64 dev peers nodad",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    print("ready", flush=True)
    while packet := os.read(fd, 65536):
        for answer in answers(packet):
            os.write(fd, answer)


if __name__ == "__main__":
    main()
