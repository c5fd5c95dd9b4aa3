package tls

import "encoding/binary"

const (
	recordHeader     = 5
	handshakeHeader  = 4
	contentHandshake = 22

	// MaxHello is how large a hello is waited for. Those of browsers have up to 2 kB.
	MaxHello = 64 << 10
)

// First returns the first handshake message that a stream of TLS records begins with, which may be spread over
// several records (RFC 8446, section 5.1). whole is false while more may come; need is then the length of
// the stream below which asking again is no use. A message that is not whole is returned as far as it is
// there. ok is false if the stream does not begin with a handshake.
func First(stream []byte) (kind uint8, body []byte, whole bool, need int, ok bool) {
	var message []byte
	length := -1
	for at := 0; ; {
		rest := stream[at:]
		if len(rest) < recordHeader {
			need = at + recordHeader
			break
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		if rest[0] != contentHandshake || rest[1] != 3 || n == 0 || n > 1<<14+256 {
			if at == 0 {
				return 0, nil, false, 0, false
			}
			return kind, body, true, 0, length >= 0 // something else in its midst: no more will come
		}
		fragment := rest[recordHeader:min(recordHeader+n, len(rest))]
		if message == nil {
			message = fragment[:len(fragment):len(fragment)]
		} else {
			message = append(message, fragment...)
		}
		if length < 0 && len(message) >= handshakeHeader {
			kind = message[0]
			length = int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		}
		if length >= 0 {
			body = message[handshakeHeader:min(handshakeHeader+length, len(message))]
			if len(body) == length {
				return kind, body, true, 0, true
			}
			if length > MaxHello {
				return kind, body, true, 0, true
			}
		}
		if len(rest) < recordHeader+n {
			need = at + recordHeader + n
			if length >= 0 {
				need = min(need, len(stream)+length-len(body))
			}
			break
		}
		at += recordHeader + n
	}
	return kind, body, false, need, true
}
