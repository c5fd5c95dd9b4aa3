#!/usr/bin/env python3
"""clients.py SCENE: what curl, dig, ssh and ping cannot do in the record (see record.sh)."""
import http.client
import socket
import struct
import sys
import time

WEB, WEB6, DB = "10.20.1.20", "2001:db8:20:1::20", "10.20.2.4"


def keepalive():
    """One HTTP connection for 7 s, a request every second."""
    c = http.client.HTTPConnection(WEB)
    for i in range(7):
        c.request("GET", f"/status?n={i}", headers={"Host": "api.example.com", "User-Agent": "poller/1.0"})
        c.getresponse().read()
        time.sleep(1)
    c.close()


def abort():
    """Reset in mid-transfer: closed with unread data and no linger."""
    s = socket.create_connection((WEB, 80))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.sendall(b"GET /trickle HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: impatient/1.0\r\n\r\n")
    time.sleep(0.4)
    s.recv(4096)
    s.close()


def slow():
    """A reader that lets its small window fill: zero windows."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect((WEB, 80))
    s.sendall(b"GET /bytes/16000 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: slow/1.0\r\nConnection: close\r\n\r\n")
    time.sleep(1.2)
    while s.recv(2000):
        pass
    s.close()


def fragments():
    """Datagrams that need three fragments each, there and back, over IPv4 and IPv6."""
    for family, to in (socket.AF_INET, WEB), (socket.AF_INET6, WEB6):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(0.5)
        for _ in range(4):  # one lost fragment loses the datagram
            s.sendto(b"0123456789abcdef" * 200, (to, 7777))
            try:
                s.recv(65535)
                break
            except TimeoutError:
                pass
        s.close()


def closed():
    """UDP to a closed port (ICMP port unreachable), TCP to another (RST), TCP to one that drops (SYNs only)."""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.sendto(b"anyone?", (WEB, 5060))
    for port, patience in (8081, 2), (9999, 3.5):
        try:
            socket.create_connection((WEB, port), patience)
        except OSError:
            pass


def lines():
    """A protocol that nobody knows."""
    with socket.create_connection((DB, 6400)) as s, s.makefile("rw") as f:
        for line in "select sessions", "select packets", "quit":
            f.write(line + "\n")
            f.flush()
            f.readline()
            time.sleep(0.1)


def scan():
    """A connect scan from outside."""
    for port in 21, 22, 23, 25, 80, 110, 143, 443, 445, 1433, 3306, 3389, 5432, 8080:
        s = socket.socket()
        s.settimeout(0.3)
        s.bind(("198.51.100.77", 0))
        s.connect_ex((WEB, port))
        s.close()


globals()[sys.argv[1]]()
