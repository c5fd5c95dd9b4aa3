// Package jsontext appends JSON values to a buffer: texts whatever their bytes, times, addresses. Nothing is
// allocated.
package jsontext

import (
	"unicode/utf8"

	"github.com/tapweave/tapweave/proto/packet"
)

// AppendAddress appends an address without quotation marks.
func AppendAddress(dst []byte, a packet.Addr) []byte {
	n := a.Netip()
	if !n.Is4() {
		return n.AppendTo(dst)
	}
	for i, b := range n.As4() {
		if i > 0 {
			dst = append(dst, '.')
		}
		if b >= 100 {
			dst = append(dst, '0'+b/100)
		}
		if b >= 10 {
			dst = append(dst, '0'+b/10%10)
		}
		dst = append(dst, '0'+b%10)
	}
	return dst
}

// Floor is a/b, rounded down for negative numbers too.
func Floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// AppendTime appends a time, given in nanoseconds since 1970, as RFC 3339 in UTC with nine digits. It does without
// package time, which takes four times as long. Every int64 is in the years 1677 to 2262.
func AppendTime(dst []byte, ns int64) []byte {
	second := Floor(ns, 1e9)
	fraction := uint64(ns - second*1e9)
	day := Floor(second, 86400)
	clock := uint64(second - day*86400)
	year, month, date := civil(day)
	var t [32]byte
	t[0] = '"'
	two(t[1:], year/100)
	two(t[3:], year%100)
	t[5] = '-'
	two(t[6:], month)
	t[8] = '-'
	two(t[9:], date)
	t[11] = 'T'
	two(t[12:], clock/3600)
	t[14] = ':'
	two(t[15:], clock/60%60)
	t[17] = ':'
	two(t[18:], clock%60)
	t[20] = '.'
	two(t[21:], fraction/1e7)
	two(t[23:], fraction/1e5%100)
	two(t[25:], fraction/1e3%100)
	two(t[27:], fraction/10%100)
	t[29] = '0' + byte(fraction%10)
	t[30] = 'Z'
	t[31] = '"'
	return append(dst, t[:]...)
}

const hexDigits = "0123456789abcdef"

const digits = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"

func two(dst []byte, n uint64) { copy(dst[:2], digits[2*n:2*n+2]) }

// civil is the date of a day since 1970 in the Gregorian calendar. It counts days from 1 March of a year 0 that
// lies before all dates here: so the leap day is a year's last.
func civil(day int64) (year, month, date uint64) {
	const (
		era   = 146097 // days of 400 years
		epoch = 719468 // from 1 March 0000 to 1 January 1970
	)
	n := uint64(day + epoch)
	ofEra := n % era
	yearOfEra := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	shifted := (5*ofYear + 2) / 153 // months since March
	date = ofYear - (153*shifted+2)/5 + 1
	year, month = yearOfEra+400*(n/era), shifted+3
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, date
}

// AppendText appends a text with quotation marks. Each byte that is no UTF-8 becomes U+FFFD; control characters,
// and the two line ends that JavaScript knows besides, are escaped.
func AppendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = AppendEscaped(dst, s)
	return append(dst, '"')
}

// plain are the bytes that stand for themselves in a JSON text.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

// AppendEscaped appends a text as AppendText does, without quotation marks.
func AppendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if !plain[s[i]] {
			return appendUnusual(dst, s, i)
		}
	}
	return append(dst, s...)
}

// appendUnusual appends a text of which the bytes before i are plain.
func appendUnusual(dst []byte, s string, i int) []byte {
	from := 0
	for i < len(s) {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, n = utf8.DecodeRuneInString(s[i:]); r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || n > 1) {
				i += n
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', c)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == utf8.RuneError:
			dst = append(dst, "\ufffd"...)
		default:
			dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		}
		i += n
		from = i
	}
	return append(dst, s[from:]...)
}
