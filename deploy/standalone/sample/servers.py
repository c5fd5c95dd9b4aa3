#!/usr/bin/env python3
"""servers.py ROLE DIR: the servers of one recorded machine (see record.sh). DIR holds cert.pem and key.pem.

Says "ready" on standard output once every port is open.
"""
import http.server
import socket
import ssl
import sys
import threading
import time

TEXT = b"Tapweave weaves mirrored packets into sessions that can be queried.\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/":
            self.reply(200, TEXT)
        elif path == "/status":
            self.reply(200, b'{"status":"ok"}', **{"Content-Type": "application/json"})
        elif path.startswith("/bytes/"):  # /bytes/N: N bytes
            n = int(path.rsplit("/", 1)[1])
            self.reply(200, (TEXT * (n // len(TEXT) + 1))[:n])
        elif path == "/trickle":  # 1 kB every 20 ms, for a client that hangs up
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write((TEXT * 16)[:1000])
                    time.sleep(0.02)
            except OSError:
                self.close_connection = True
        elif path == "/old":
            self.reply(301, Location="/")
        else:
            self.reply(404, b"not found\n")

    do_HEAD = do_GET

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(201, b"created\n")


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6  # "::" takes IPv4 too

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the record


def web(port, tls=None):
    server = Server(("::", port), Handler)
    if tls:  # the handshake belongs to the connection's own thread
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server.serve_forever


def echo_udp(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", port))

    def run():
        while True:
            data, peer = s.recvfrom(65535)
            s.sendto(data, peer)
    return run


def lines_tcp(port):
    """A protocol that nobody knows: one line in, one line out."""
    s = socket.create_server(("", port))

    def talk(conn):
        with conn, conn.makefile("rw") as f:
            for line in f:
                f.write("+" + line.upper())
                f.flush()

    def run():
        while True:
            threading.Thread(target=talk, args=[s.accept()[0]], daemon=True).start()
    return run


def main():
    role, where = sys.argv[1:]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(where + "/cert.pem", where + "/key.pem")
    tls.set_alpn_protocols(["http/1.1"])
    serve = {
        "web": lambda: [web(80), web(443, tls), echo_udp(7777)],
        "db": lambda: [lines_tcp(6400)],
        "ext": lambda: [web(80), web(443, tls)],
    }[role]()
    threads = [threading.Thread(target=s, daemon=True) for s in serve]
    for t in threads:
        t.start()
    print("ready", flush=True)
    for t in threads:
        t.join()


main()
