"""A WebSocket client (RFC 6455) that can also do everything wrong: frames are made by hand."""

import base64
import hashlib
import json
import os
import socket
import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Closed(Exception):
    """The server closed; `code` is None when it sent no close frame."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed with {code} {reason}")
        self.code = code
        self.reason = reason


class WebSocket:
    def __init__(self, port, path="/v1/stream", headers=None, timeout=60, receive_buffer=None, tls=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.num_pings = 0
        self.answers_pings = True
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {"Host": f"127.0.0.1:{port}", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key,
                  "Sec-WebSocket-Version": "13", **(headers or {})}
        self.socket.sendall((f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                             + "\r\n").encode())
        self.held = b""
        head = self._until(b"\r\n\r\n").decode()
        self.status = int(head.split()[1])
        self.headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head.split("\r\n")[1:] if ":" in line}
        if self.status == 101:
            accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
            assert self.headers["sec-websocket-accept"] == accept

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _more(self):
        received = self.socket.recv(65536)
        if not received:
            raise Closed(None)
        self.held += received

    def _until(self, mark):
        while mark not in self.held:
            self._more()
        text, self.held = self.held.split(mark, 1)
        return text

    def _exactly(self, count):
        while len(self.held) < count:
            self._more()
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def send_frame(self, opcode, payload=b"", fin=True, masked=True, reserved=0):
        head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
        mask_bit = 0x80 if masked else 0
        if len(payload) < 126:
            head += bytes([mask_bit | len(payload)])
        elif len(payload) < 65536:
            head += bytes([mask_bit | 126]) + struct.pack(">H", len(payload))
        else:
            head += bytes([mask_bit | 127]) + struct.pack(">Q", len(payload))
        if masked:
            mask = os.urandom(4)
            repeated = (mask * (len(payload) // 4 + 1))[:len(payload)]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
            head += mask
        self.socket.sendall(head + payload)

    def send(self, message):
        self.send_frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode())

    def frame(self):
        """(opcode, payload) of the next data frame; pings are answered; raises Closed at the end."""
        while True:
            first, second = self._exactly(2)
            assert not second & 0x80, "a server's frames are not masked"
            assert not first & 0x70, "no reserved bits"
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", self._exactly(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._exactly(8))[0]
            payload = self._exactly(length)
            opcode = first & 0x0F
            if opcode == PING:
                self.num_pings += 1
                if self.answers_pings:
                    self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                raise Closed(struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None, payload[2:].decode())
            elif opcode != PONG:
                return opcode, payload

    def receive(self):
        opcode, payload = self.frame()
        assert opcode == TEXT
        return json.loads(payload)

    def receive_answer(self):
        """All frames of one answer, the last one (with finish_reason) or an error included."""
        frames = []
        while not frames or ("finish_reason" not in frames[-1] and "error" not in frames[-1]):
            frames.append(self.receive())
        return frames

    def close_code(self):
        """Reads on until the server closes."""
        try:
            while True:
                self.frame()
        except Closed as closed:
            return closed.code
        except ConnectionError:
            return None
