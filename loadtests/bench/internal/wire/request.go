// Package wire reads the little of HTTP/1.1 (RFC 9112) that the benchmark's two ends need.
package wire

import (
	"bytes"
	"errors"
)

// ErrMalformed says that the peer does not speak what this package reads.
var ErrMalformed = errors.New("malformed HTTP message")

var (
	headEnd       = []byte("\r\n\r\n")
	lineEnd       = []byte("\r\n")
	contentLength = []byte("content-length:")
	connection    = []byte("connection:")
	closeToken    = []byte("close")
	encoding      = []byte("transfer-encoding:")
)

// Request is one request, as slices of the buffer that it was parsed from.
type Request struct {
	Method, Target, Body []byte
	Close                bool
}

// ParseRequest reads one request from the front of buf. It returns how many bytes that took, or 0
// when more are needed. A chunked request body is ErrMalformed: no proxy measured here sends one.
func ParseRequest(buf []byte, out *Request) (int, error) {
	end := bytes.Index(buf, headEnd)
	if end < 0 {
		return 0, nil
	}
	line, fields, _ := bytes.Cut(buf[:end+2], lineEnd)
	method, rest, ok := bytes.Cut(line, []byte{' '})
	target, _, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 {
		return 0, ErrMalformed
	}
	length := 0
	out.Close = false
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, lineEnd)
		switch {
		case hasPrefixFold(field, contentLength):
			if length = atoi(field[len(contentLength):]); length < 0 {
				return 0, ErrMalformed
			}
		case hasPrefixFold(field, connection):
			out.Close = bytes.Contains(bytes.ToLower(field), closeToken)
		case hasPrefixFold(field, encoding):
			return 0, ErrMalformed
		}
	}
	total := end + len(headEnd) + length
	if len(buf) < total {
		return 0, nil
	}
	out.Method, out.Target, out.Body = method, target, buf[end+len(headEnd):total]
	return total, nil
}

// hasPrefixFold compares ASCII without case; prefix is lower case.
func hasPrefixFold(s, prefix []byte) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i, want := range prefix {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want {
			return false
		}
	}
	return true
}

func atoi(s []byte) int {
	s = bytes.TrimSpace(s)
	if len(s) == 0 || len(s) > 9 {
		return -1
	}
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// Text finds the string value of the first JSON member of a name. The bodies are the benchmark's own,
// so a search does.
func Text(body, quotedName []byte) []byte {
	value := after(body, quotedName)
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	text, _, _ := bytes.Cut(value[1:], []byte{'"'})
	return text
}

// Number finds the whole-number value of a JSON member, or returns otherwise.
func Number(body, quotedName []byte, otherwise int) int {
	value := after(body, quotedName)
	n := 0
	for n < len(value) && '0' <= value[n] && value[n] <= '9' {
		n++
	}
	if number := atoi(value[:n]); number >= 0 {
		return number
	}
	return otherwise
}

// True says whether a JSON member is true.
func True(body, quotedName []byte) bool {
	return bytes.HasPrefix(after(body, quotedName), []byte("true"))
}

// after returns what follows the member's colon. A value may hold the quoted name too (the role
// "user" is one), so a match without a colon is passed over.
func after(body, quotedName []byte) []byte {
	for {
		at := bytes.Index(body, quotedName)
		if at < 0 {
			return nil
		}
		body = body[at+len(quotedName):]
		if value := bytes.TrimLeft(body, " "); len(value) > 0 && value[0] == ':' {
			return bytes.TrimLeft(value[1:], " ")
		}
	}
}
