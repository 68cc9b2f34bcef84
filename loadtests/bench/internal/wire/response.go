package wire

import "bytes"

type phase uint8

const (
	inHead phase = iota
	inBody
	inChunkSize
	inChunkData
	inChunkEnd
	inTrailer
)

const maxHead = 8192

var (
	streamEnd = []byte("data: [DONE]\n\n")
	eventEnd  = []byte("\n\n")
	stampName = []byte(`"system_fingerprint":"t`)
)

// Response reads one response piece by piece and counts the server-sent events in it.
type Response struct {
	phase      phase
	carry      []byte
	remaining  int
	afterLF    bool
	tail       [16]byte
	Status     int
	Events     int   // blank-line-terminated events so far
	Stamp      int64 // the upstream's send time of the newest chunk that had one, in ns
	CloseAfter bool
}

// Reset makes the reader ready for the next response on the connection.
func (r *Response) Reset() {
	*r = Response{carry: r.carry[:0]}
}

// Feed takes the next bytes. complete says that the response ended inside them; what follows it
// would be an answer to nothing, so it is ErrMalformed.
func (r *Response) Feed(p []byte) (complete bool, err error) {
	for {
		var done bool
		switch r.phase {
		case inHead:
			p, done, err = r.head(p)
		case inBody, inChunkData:
			p, done = r.payload(p)
		case inChunkSize, inTrailer:
			p, done, err = r.chunkLine(p)
		case inChunkEnd:
			p, err = r.chunkEnd(p)
		}
		if err != nil {
			return false, err
		}
		if done {
			if len(p) > 0 {
				return true, ErrMalformed
			}
			return true, nil
		}
		if len(p) == 0 {
			return false, nil
		}
	}
}

// EndedWell says whether the last event of a stream was [DONE].
func (r *Response) EndedWell() bool { return bytes.HasSuffix(r.tail[:], streamEnd) }

func (r *Response) head(p []byte) (rest []byte, done bool, err error) {
	buf := p
	if len(r.carry) > 0 {
		r.carry = append(r.carry, p...)
		buf = r.carry
	}
	end := bytes.Index(buf, headEnd)
	if end < 0 {
		if len(buf) > maxHead {
			return nil, false, ErrMalformed
		}
		if len(r.carry) == 0 {
			r.carry = append(r.carry, p...)
		}
		return nil, false, nil
	}
	rest = buf[end+len(headEnd):]
	if end < 12 || !bytes.HasPrefix(buf, []byte("HTTP/1.")) {
		return nil, false, ErrMalformed
	}
	r.Status = atoi(buf[9:12])
	if r.Status < 200 {
		return nil, false, ErrMalformed
	}
	chunked := false
	r.remaining = -1
	_, fields, _ := bytes.Cut(buf[:end+2], lineEnd)
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, lineEnd)
		switch {
		case hasPrefixFold(field, contentLength):
			r.remaining = atoi(field[len(contentLength):])
		case hasPrefixFold(field, encoding):
			chunked = true
		case hasPrefixFold(field, connection):
			r.CloseAfter = bytes.Contains(bytes.ToLower(field), closeToken)
		}
	}
	switch {
	case chunked:
		r.phase, r.carry = inChunkSize, r.carry[:0]
	case r.remaining < 0:
		return nil, false, ErrMalformed
	default:
		r.phase, r.carry = inBody, r.carry[:0]
	}
	return rest, r.phase == inBody && r.remaining == 0, nil
}

func (r *Response) payload(p []byte) (rest []byte, done bool) {
	n := min(len(p), r.remaining)
	r.count(p[:n])
	r.remaining -= n
	if r.remaining > 0 {
		return nil, false
	}
	if r.phase == inBody {
		return p[n:], true
	}
	r.phase, r.remaining = inChunkEnd, len(lineEnd)
	return p[n:], false
}

// count counts events even where one's end is split between two pieces.
func (r *Response) count(piece []byte) {
	if len(piece) == 0 {
		return
	}
	if r.afterLF && piece[0] == '\n' {
		r.Events++
		r.afterLF = false
		r.keepTail(piece)
		piece = piece[1:]
		if len(piece) == 0 {
			return
		}
	} else {
		r.keepTail(piece)
	}
	r.Events += bytes.Count(piece, eventEnd)
	r.afterLF = piece[len(piece)-1] == '\n' && !bytes.HasSuffix(piece, eventEnd)
	if at := bytes.LastIndex(piece, stampName); at >= 0 {
		if digits := piece[at+len(stampName):]; len(digits) >= stampDigits {
			r.Stamp = ReadStamp(digits)
		}
	}
}

func (r *Response) keepTail(piece []byte) {
	if len(piece) >= len(r.tail) {
		copy(r.tail[:], piece[len(piece)-len(r.tail):])
		return
	}
	copy(r.tail[:], r.tail[len(piece):])
	copy(r.tail[len(r.tail)-len(piece):], piece)
}

// chunkLine reads a chunk's size, or the empty line after the last chunk.
func (r *Response) chunkLine(p []byte) (rest []byte, done bool, err error) {
	line, rest, found := bytes.Cut(p, []byte{'\n'})
	if !found {
		r.carry = append(r.carry, p...)
		if len(r.carry) > 64 {
			return nil, false, ErrMalformed
		}
		return nil, false, nil
	}
	if len(r.carry) > 0 {
		r.carry = append(r.carry, line...)
		line = r.carry
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	r.carry = r.carry[:0]
	if r.phase == inTrailer {
		if len(line) != 0 {
			return nil, false, ErrMalformed
		}
		return rest, true, nil
	}
	size := 0
	for _, c := range line {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		if digit < 0 || size > 1<<24 {
			return nil, false, ErrMalformed
		}
		size = size<<4 | digit
	}
	if len(line) == 0 {
		return nil, false, ErrMalformed
	}
	if size == 0 {
		r.phase = inTrailer
	} else {
		r.phase, r.remaining = inChunkData, size
	}
	return rest, false, nil
}

func (r *Response) chunkEnd(p []byte) (rest []byte, err error) {
	for len(p) > 0 && r.remaining > 0 {
		if p[0] != lineEnd[len(lineEnd)-r.remaining] {
			return nil, ErrMalformed
		}
		p = p[1:]
		r.remaining--
	}
	if r.remaining == 0 {
		r.phase = inChunkSize
	}
	return p, nil
}

const stampDigits = 19

// ReadStamp reads the 19 digits that PutStamp wrote.
func ReadStamp(digits []byte) int64 {
	var n int64
	for _, c := range digits[:stampDigits] {
		n = n*10 + int64(c-'0')
	}
	return n
}

// PutStamp writes a wall-clock time in nanoseconds as 19 digits.
func PutStamp(into []byte, ns int64) {
	for i := stampDigits - 1; i >= 0; i-- {
		into[i] = byte('0' + ns%10)
		ns /= 10
	}
}
