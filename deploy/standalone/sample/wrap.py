#!/usr/bin/env python3
"""wrap.py OUT NIC=FILE…: joins captures of single NICs into one capture of what a TAP would have sent of them.

Each frame becomes Ethernet, IPv4, UDP to port 4789 with checksum 0, VXLAN, as Azure's virtual network TAP sends it: from the tapped
NIC's address to the load balancer's, from a source port that depends on the inner flow and direction. Stamps are kept, in nanoseconds.
"""
import ipaddress
import struct
import sys
import zlib

BALANCER = ipaddress.ip_address("10.20.9.4")
VNI = 27
NANO = 0xA1B23C4D


def frames(path):
    data = open(path, "rb").read()
    magic, link = struct.unpack_from("<I16xI", data)
    if magic != NANO or link != 1:
        sys.exit(f"{path}: not an Ethernet capture with nanoseconds")
    at = 24
    while at + 16 <= len(data):
        sec, ns, caplen, length = struct.unpack_from("<IIII", data, at)
        if caplen < length:
            sys.exit(f"{path}: offset {at}: a frame was cut")
        yield sec, ns, data[at + 16:at + 16 + caplen]
        at += 16 + caplen


def flow(frame):
    """Addresses and protocol; ports too where the packet is no fragment."""
    if frame[12:14] == b"\x08\x00":
        first, proto, addresses = 14 + 4 * (frame[14] & 15), frame[23], frame[26:34]
        whole = struct.unpack_from("!H", frame, 20)[0] & 0x3FFF == 0
    else:
        first, proto, addresses = 54, frame[20], frame[22:54]
        whole = proto in (6, 17)
    ports = frame[first:first + 4] if whole and proto in (6, 17) else b""
    return addresses + bytes([proto]) + ports


def checksum(header):
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mirrored(nic, frame):
    vxlan = struct.pack("!II", 0x08000000, VNI << 8) + frame
    port = 49152 + zlib.crc32(flow(frame)) % 16384
    udp = struct.pack("!HHHH", port, 4789, 8 + len(vxlan), 0) + vxlan
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, nic.packed, BALANCER.packed)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\x02\x00" + BALANCER.packed + b"\x02\x00" + nic.packed + b"\x08\x00" + head + udp


def main():
    out, taps = sys.argv[1], [arg.split("=", 1) for arg in sys.argv[2:]]
    sent = [(sec, ns, mirrored(ipaddress.ip_address(nic), frame)) for nic, path in taps for sec, ns, frame in frames(path)]
    sent.sort(key=lambda p: p[:2])  # stable: in equal times the first NIC named comes first
    with open(out, "wb") as f:
        f.write(struct.pack("<IHHiIII", NANO, 2, 4, 0, 0, 65535, 1))
        for sec, ns, packet in sent:
            f.write(struct.pack("<IIII", sec, ns, len(packet), len(packet)) + packet)


main()
