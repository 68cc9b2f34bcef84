//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"synapse-bench/internal/poll"
	"synapse-bench/internal/sample"
	"synapse-bench/internal/wire"
)

const (
	maxRequest = 1 << 20
	maxCloses  = 1 << 17
	maxModels  = 4096
)

// conn is one client connection; it serves one request at a time.
type conn struct {
	fd      int
	carry   []byte // bytes of a request that is not whole yet
	pending []byte // bytes of an answer that the socket did not take
	stream  stream
	model   *model
}

type closed struct {
	User string `json:"user"`
	AtNs int64  `json:"at_ns"`
}

type counts struct {
	Requests  int64 `json:"requests"` // completions, streamed or not
	Answered  int64 `json:"answered"`
	Failed    int64 `json:"failed"`
	Started   int64 `json:"streams_started"`
	Finished  int64 `json:"streams_finished"`
	Cut       int64 `json:"streams_cut"` // the client went away before the end
	Chunks    int64 `json:"chunks"`
	Deferred  int64 `json:"chunks_deferred"` // due while the socket was full
	Accepted  int64 `json:"connections_accepted"`
	Open      int64 `json:"connections_open"`
	Malformed int64 `json:"malformed"`
}

type server struct {
	poller    *poll.Poller
	timer     *poll.Timer
	listeners map[int]bool
	conns     []*conn // by descriptor
	buf       [65536]byte
	out       []byte
	models    map[string]*model
	wheel     wheel
	interval  int64 // ns between chunks
	failEvery int64
	counts    counts
	closes    []closed
	late      *sample.Set
	deadline  int64
}

func newServer(lifetime time.Duration) (*server, error) {
	poller, err := poll.New()
	if err != nil {
		return nil, err
	}
	timer, err := poll.NewTimer()
	if err != nil {
		return nil, err
	}
	if err = poller.Add(timer.FD, poll.In); err != nil {
		return nil, err
	}
	return &server{
		poller: poller, timer: timer, listeners: map[int]bool{}, models: map[string]*model{},
		interval: int64(10 * time.Millisecond), late: sample.New(1 << 20),
		closes: make([]closed, 0, maxCloses), deadline: poll.Now() + int64(lifetime),
	}, nil
}

func (s *server) listen(port int) (int, error) {
	fd, bound, err := poll.Listen(port)
	if err != nil {
		return 0, err
	}
	s.listeners[fd] = true
	return bound, s.poller.Add(fd, syscall.EPOLLIN)
}

func (s *server) run() error {
	for poll.Now() < s.deadline {
		events, err := s.poller.Wait(1000)
		if err != nil {
			return err
		}
		ticked := false
		for i := range events {
			fd, flags := int(events[i].Fd), events[i].Events
			switch {
			case fd == s.timer.FD:
				ticked = true
			case s.listeners[fd]:
				s.accept(fd)
			default:
				s.ready(fd, flags)
			}
		}
		if ticked {
			s.timer.Expired()
			s.tick(poll.Now())
		}
	}
	return nil
}

func (s *server) accept(listener int) {
	for {
		fd, ok := poll.Accept(listener)
		if !ok {
			return
		}
		for len(s.conns) <= fd {
			s.conns = append(s.conns, nil)
		}
		if s.conns[fd] == nil {
			s.conns[fd] = &conn{fd: fd}
		}
		if s.poller.Add(fd, poll.In) != nil {
			poll.Close(fd)
			continue
		}
		s.counts.Accepted++
		s.counts.Open++
	}
}

func (s *server) ready(fd int, flags uint32) {
	c := s.conns[fd]
	if flags&poll.Out != 0 && len(c.pending) > 0 {
		if s.flush(c) {
			s.drop(c)
			return
		}
	}
	if flags&(poll.In|poll.Hup) == 0 {
		return
	}
	n, blocked := poll.Read(fd, s.buf[:])
	if blocked {
		return
	}
	if n == 0 {
		s.drop(c)
		return
	}
	input := s.buf[:n]
	if len(c.carry) > 0 || c.stream.active {
		c.carry = append(c.carry, input...)
		input = c.carry
	}
	if !c.stream.active {
		s.serve(c, input)
	}
}

// serve answers the requests in input and keeps the rest for later.
func (s *server) serve(c *conn, input []byte) {
	var request wire.Request
	for len(input) > 0 && !c.stream.active {
		took, err := wire.ParseRequest(input, &request)
		if err != nil || len(input) > maxRequest {
			s.counts.Malformed++
			s.drop(c)
			return
		}
		if took == 0 {
			break
		}
		if s.answer(c, &request) || request.Close {
			s.drop(c)
			return
		}
		input = input[took:]
	}
	c.carry = append(c.carry[:0], input...)
}

// answer writes one answer, or begins a stream. It says whether the connection must close.
func (s *server) answer(c *conn, request *wire.Request) (gone bool) {
	if len(request.Method) == 4 && bytes.HasSuffix(request.Target, []byte("/chat/completions")) {
		return s.complete(c, request.Body)
	}
	path, query, _ := bytes.Cut(request.Target, []byte{'?'})
	var reply any
	switch string(path) {
	case "/health":
		reply = map[string]string{"status": "ok"}
	case "/v1/models":
		reply = map[string]any{"object": "list", "data": []map[string]string{{"id": "bench-000", "object": "model"}}}
	case "/bench/control":
		reply = s.control(string(query))
	case "/bench/stats":
		reply = map[string]any{"counts": s.counts, "late_us": s.late.Summary(1e3)}
	case "/bench/closes":
		reply = s.closes
	case "/bench/reset":
		s.counts = counts{Open: s.counts.Open, Accepted: s.counts.Open}
		s.closes = s.closes[:0]
		s.late.Reset()
		reply = map[string]bool{"ok": true}
	default:
		return s.write(c, []byte("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"))
	}
	body, err := json.Marshal(reply)
	if err != nil {
		return true
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", len(body))
	return s.write(c, append([]byte(head), body...))
}

func (s *server) control(query string) any {
	values, err := url.ParseQuery(query)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	for name, set := range map[string]func(int64){
		"interval_us": func(n int64) { s.interval = max(n, 1) * int64(time.Microsecond) },
		"fail_every":  func(n int64) { s.failEvery = n },
	} {
		if text := values.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 || n > int64(time.Hour/time.Microsecond) {
				return map[string]string{"error": name + ": want a whole number, got " + text}
			}
			set(n)
		}
	}
	return map[string]int64{"interval_us": s.interval / int64(time.Microsecond), "fail_every": s.failEvery}
}

func (s *server) complete(c *conn, body []byte) (gone bool) {
	s.counts.Requests++
	if s.failEvery > 0 && s.counts.Requests%s.failEvery == 0 {
		s.counts.Failed++
		return s.write(c, failure)
	}
	m := s.model(wire.Text(body, []byte(`"model"`)))
	if !wire.True(body, []byte(`"stream"`)) {
		s.counts.Answered++
		return s.write(c, m.reply)
	}
	return s.begin(c, m, body)
}

func (s *server) model(name []byte) *model {
	if m := s.models[string(name)]; m != nil {
		return m
	}
	if len(s.models) >= maxModels {
		clear(s.models)
	}
	m := newModel(string(name))
	s.models[m.name] = m
	return m
}

// write sends at once what the socket takes and keeps the rest. It says whether the client is gone.
func (s *server) write(c *conn, data []byte) (gone bool) {
	if len(c.pending) > 0 {
		c.pending = append(c.pending, data...)
		return false
	}
	n, gone := poll.Write(c.fd, data)
	if gone || n == len(data) {
		return gone
	}
	c.pending = append(c.pending[:0], data[n:]...)
	return s.poller.Modify(c.fd, poll.In|poll.Out) != nil
}

func (s *server) flush(c *conn) (gone bool) {
	n, gone := poll.Write(c.fd, c.pending)
	if gone {
		return true
	}
	c.pending = append(c.pending[:0], c.pending[n:]...)
	if len(c.pending) == 0 {
		return s.poller.Modify(c.fd, poll.In) != nil
	}
	return false
}

func (s *server) drop(c *conn) {
	if c.stream.active {
		s.counts.Cut++
		if len(c.stream.user) > 0 && len(s.closes) < maxCloses {
			s.closes = append(s.closes, closed{User: string(c.stream.user), AtNs: poll.Now()})
		}
		s.end(c)
	}
	poll.Close(c.fd)
	s.counts.Open--
	c.carry, c.pending = c.carry[:0], c.pending[:0]
}
