package application

import "math/bits"

// Name is an application protocol, as a number that fits a bit of a set.
type Name uint8

// The protocols that are recognised. Snapshots hold these numbers: new ones go to the end.
const (
	Unknown Name = iota
	DNS
	MDNS
	LLMNR
	TLS
	HTTP
	HTTP2
	WebSocket
	QUIC
	SSH
	RDP
	SMB
	Kerberos
	LDAP
	NTLM
	DCERPC
	NTP
	DHCP
	SNMP
	SIP
	RTP
	STUN
	WireGuard
	OpenVPN
	MQTT
	AMQP
	Kafka
	MySQL
	PostgreSQL
	MSSQL
	Redis
	MongoDB
	Cassandra
	Memcached
	FTP
	SMTP
	IMAP
	POP3
	Telnet
	RTSP
	SOCKS
	BitTorrent
	Modbus
	DNP3
	DTLS
	SSDP
	NBNS
	ISAKMP
	RADIUS
	TFTP
	VNC
	BGP
	numNames
)

// Names is the number of names: they are 0 to Names-1.
const Names = int(numNames)

var names = [numNames]string{
	"", "dns", "mdns", "llmnr", "tls", "http", "http2", "websocket", "quic", "ssh", "rdp", "smb", "kerberos", "ldap", "ntlm",
	"dcerpc", "ntp", "dhcp", "snmp", "sip", "rtp", "stun", "wireguard", "openvpn", "mqtt", "amqp", "kafka", "mysql",
	"postgresql", "mssql", "redis", "mongodb", "cassandra", "memcached", "ftp", "smtp", "imap", "pop3", "telnet", "rtsp",
	"socks", "bittorrent", "modbus", "dnp3", "dtls", "ssdp", "nbns", "isakmp", "radius", "tftp", "vnc", "bgp",
}

// String is the name as it stands in the column app.
func (n Name) String() string {
	if n >= numNames {
		return ""
	}
	return names[n]
}

// Set is a set of names: what one side alone may be.
type Set uint64

func set(names ...Name) (s Set) {
	for _, n := range names {
		s |= 1 << n
	}
	return s
}

// only is the name in a set of one, Unknown of any other.
func (s Set) only() Name {
	if bits.OnesCount64(uint64(s)) != 1 {
		return Unknown
	}
	return Name(bits.TrailingZeros64(uint64(s)))
}

func (s Set) has(n Name) bool { return s&(1<<n) != 0 }

// Verdict is what one side's bytes say of the protocol: which it may be, and whether that is sure without the
// other side.
type Verdict struct {
	Set  Set
	Sure bool
}

// together is the name that follows from both sides. What one side leaves open, the other may settle; what is
// not sure needs the other side.
func together(a, b Verdict) Name {
	switch {
	case a.Set == 0 && b.Set == 0:
		return Unknown
	case a.Set == 0 || b.Set == 0:
		v := a
		if a.Set == 0 {
			v = b
		}
		if !v.Sure {
			return Unknown
		}
		return alone(v.Set)
	}
	if both := a.Set & b.Set; both != 0 {
		return alone(both)
	}
	switch {
	case a.Sure && !b.Sure:
		return alone(a.Set)
	case b.Sure && !a.Sure:
		return alone(b.Set)
	}
	return Unknown // they contradict each other
}

// alone is the name of a set. A request that asks for an upgrade is HTTP until the server takes it up.
func alone(s Set) Name {
	if s == set(HTTP, WebSocket) || s == set(HTTP, HTTP2) {
		return HTTP
	}
	return s.only()
}
