//go:build linux

package main

import (
	"bytes"
	"fmt"
	"time"

	"synapse-bench/internal/poll"
	"synapse-bench/internal/wire"
)

const (
	// The chunks that fall due within one tick go out together: the timer then costs a thousand
	// wake-ups a second whatever the number of streams.
	tickLength = int64(time.Millisecond)
	wheelSlots = 4096
	streamHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n" +
		"transfer-encoding: chunked\r\n\r\n"
)

var failure = sized("503 Service Unavailable", "application/json",
	`{"error":{"message":"the engine is out of slots","type":"server_error","param":null,"code":null}}`)

// stream is the streamed answer that a connection is sending.
type stream struct {
	active     bool
	usage      bool
	generation uint32 // tells a wheel entry of this stream from one of its forerunner
	left       int
	total      int
	interval   int64
	due        int64
	user       []byte
}

// model holds what is sent for one model name, made once.
type model struct {
	name    string
	reply   []byte
	opening []byte // head of the answer and the role chunk
	chunk   []byte // one content chunk; its stamp is rewritten before each send
	stampAt int
}

type entry struct {
	c          *conn
	generation uint32
}

// wheel holds the streams by the tick at which their next chunk is due.
type wheel struct {
	slots  [wheelSlots][]entry
	now    int64 // last tick that was served
	active int
}

func newModel(name string) *model {
	m := &model{name: name}
	m.reply = sized("200 OK", "application/json", fmt.Sprintf(
		`{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":%q,"choices":[{"index":0,`+
			`"message":{"role":"assistant","content":"The capital of France is Paris."},"logprobs":null,`+
			`"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":8,"total_tokens":32}}`, name))
	m.opening = append([]byte(streamHead), m.event(`{"role":"assistant","content":""}`, "null", "")...)
	m.chunk = m.event(`{"content":" token"}`, "null", `,"system_fingerprint":"t0000000000000000000"`)
	m.stampAt = bytes.Index(m.chunk, []byte(`"t0000`)) + 2
	return m
}

func (m *model) event(delta, finish, extra string) []byte {
	return chunked(fmt.Sprintf(
		`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":%q%s,`+
			`"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}`+"\n\n", m.name, extra, delta, finish))
}

// ending is the finish_reason chunk, the usage chunk if it was asked for, [DONE] and the last HTTP chunk.
func (m *model) ending(tokens int, usage bool) []byte {
	out := m.event("{}", `"stop"`, "")
	if usage {
		out = append(out, chunked(fmt.Sprintf(
			`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":%q,"choices":[],`+
				`"usage":{"prompt_tokens":24,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", m.name, tokens, 24+tokens))...)
	}
	out = append(out, chunked("data: [DONE]\n\n")...)
	return append(out, "0\r\n\r\n"...)
}

func sized(status, kind, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s", status, kind, len(body), body)
}

func chunked(data string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data) }

func (s *server) begin(c *conn, m *model, body []byte) (gone bool) {
	s.counts.Started++
	st := &c.stream
	st.active, st.generation = true, st.generation+1
	st.usage = wire.True(body, []byte(`"include_usage"`))
	st.total = wire.Number(body, []byte(`"max_tokens"`), 16)
	st.left, st.interval = st.total, s.interval
	st.user = append(st.user[:0], wire.Text(body, []byte(`"user"`))...)
	c.model = m
	now := poll.Now()
	if s.wheel.active == 0 {
		s.wheel.now = now / tickLength
		if s.timer.Every(tickLength) != nil {
			return true
		}
	}
	s.wheel.active++
	st.due = now + st.interval
	s.schedule(c)
	return s.write(c, m.opening)
}

func (s *server) schedule(c *conn) {
	tick := max((c.stream.due+tickLength-1)/tickLength, s.wheel.now+1)
	slot := &s.wheel.slots[min(tick, s.wheel.now+wheelSlots-1)%wheelSlots]
	*slot = append(*slot, entry{c, c.stream.generation})
}

func (s *server) tick(now int64) {
	for target := now / tickLength; s.wheel.now < target; {
		s.wheel.now++
		slot := &s.wheel.slots[s.wheel.now%wheelSlots]
		for _, e := range *slot {
			if e.c.stream.active && e.generation == e.c.stream.generation {
				s.step(e.c)
			}
		}
		*slot = (*slot)[:0]
	}
}

// step sends what is due on one stream.
func (s *server) step(c *conn) {
	st, now := &c.stream, poll.Now()
	if st.due > now+tickLength || len(c.pending) > 0 {
		if len(c.pending) > 0 {
			s.counts.Deferred++
			st.due = now + tickLength
		}
		s.schedule(c)
		return
	}
	if st.left == 0 {
		s.finish(c)
		return
	}
	s.late.Add(now - st.due)
	wire.PutStamp(c.model.chunk[c.model.stampAt:], now)
	st.left--
	s.counts.Chunks++
	if s.write(c, c.model.chunk) {
		s.drop(c)
		return
	}
	st.due += st.interval
	s.schedule(c)
}

func (s *server) finish(c *conn) {
	s.counts.Finished++
	data := c.model.ending(c.stream.total, c.stream.usage)
	s.end(c)
	if s.write(c, data) {
		s.drop(c)
		return
	}
	if len(c.carry) > 0 {
		s.serve(c, c.carry)
	}
}

func (s *server) end(c *conn) {
	c.stream.active = false
	s.wheel.active--
	if s.wheel.active == 0 {
		_ = s.timer.Every(0)
	}
}
