#!/usr/bin/env python3
"""wire.py A B: joins two Ethernet interfaces like a bad wire: delay, loss, and packets that overtake others.

tc-netem does the same, where the kernel has it; many kernels of virtual machines have not.
"""
import heapq
import random
import select
import socket
import sys
import time

DELAY, OVERTAKING = 0.004, 0.001  # seconds
LOSS, OVERTAKERS = 0.03, 0.1  # shares of the packets

ALL = 0x0003  # ETH_P_ALL
chance = random.Random(8)
ends = []
for name in sys.argv[1:3]:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    s.bind((name, ALL))
    ends.append(s)
other = {ends[0]: ends[1], ends[1]: ends[0]}
waiting = []  # heap of (due, count, socket, frame)
count = 0
while True:
    patience = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    for s in select.select(ends, [], [], patience)[0]:
        frame, (_, _, kind, _, _) = s.recvfrom(65535)
        if kind == socket.PACKET_OUTGOING or chance.random() < LOSS:  # outgoing: what we sent ourselves
            continue
        count += 1
        late = OVERTAKING if chance.random() < OVERTAKERS else DELAY
        heapq.heappush(waiting, (time.monotonic() + late, count, other[s], frame))
    while waiting and waiting[0][0] <= time.monotonic():
        _, _, to, frame = heapq.heappop(waiting)
        try:
            to.send(frame)
        except OSError:
            pass  # the interface is going down
