//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"

	"synapse-bench/internal/poll"
)

type soakResult struct {
	Seconds    float64        `json:"seconds"`
	Requests   int            `json:"requests"`
	PerSecond  float64        `json:"per_second"`
	Left       int            `json:"callers_left"`
	LeftBefore int            `json:"callers_left_before_head"`
	Streams    int            `json:"streams_complete"`
	BadEnds    int            `json:"streams_incomplete"`
	Statuses   map[string]int `json:"statuses"`
	Resets     int            `json:"resets"`
	Malformed  int            `json:"malformed"`
}

// soak sends a number of mixed requests: a key and a model name drawn for each, some streamed, and
// some callers that leave, half of them at once and half after the first chunk of a stream.
type soak struct {
	result soakResult
	random *rand.Rand
	failed error
	next   int
	over   int
	json   [][]byte
	stream [][]byte
}

func (s *soak) run(c *client) (any, error) {
	s.random = rand.New(rand.NewPCG(c.seed, uint64(c.first)))
	s.json = c.tails("")
	s.stream = c.tails(fmt.Sprintf(`,"stream":true,"max_tokens":%d`, c.chunks))
	c.giveUpAt = poll.Now() + nanoseconds(max(60, float64(c.requests)/200))
	begin := poll.Now()
	for range min(c.connections, c.requests) {
		s.again(c, &exchange{})
	}
	handle := func(x *exchange, _ int64, complete bool) { s.moved(c, x, complete) }
	for s.over < c.requests && s.failed == nil {
		if _, err := c.turn(100, handle); err != nil {
			return nil, err
		}
	}
	r := &s.result
	r.Seconds = float64(poll.Now()-begin) / 1e9
	r.Requests = s.over
	r.PerSecond = float64(s.over) / r.Seconds
	r.Statuses, r.Resets, r.Malformed = c.byStatus(), c.resets, c.malformed
	return r, s.failed
}

// again sends requests on x until one of them waits for its answer.
func (s *soak) again(c *client, x *exchange) {
	for s.next < c.requests && s.failed == nil {
		x.number = s.next
		s.next++
		key, choice := s.random.IntN(c.keys), s.random.IntN(len(s.json))
		draw := s.random.Float64()
		atOnce, midway := draw < c.leave/2, draw >= c.leave/2 && draw < c.leave
		tail := s.json[choice]
		if midway || (draw >= c.leave && draw < c.leave+c.streamShare) {
			tail = s.stream[choice]
		}
		s.failed = c.send(x, key, tail)
		x.leaves = midway
		if !atOnce {
			return
		}
		c.close(x)
		s.result.Left++
		s.result.LeftBefore++
		s.over++
	}
}

func (s *soak) moved(c *client, x *exchange, complete bool) {
	switch {
	case complete || x.ended:
		if x.response.Events > 0 {
			if x.response.EndedWell() {
				s.result.Streams++
			} else {
				s.result.BadEnds++
			}
		}
	case x.leaves && x.response.Events > 0:
		c.close(x)
		s.result.Left++
	default:
		return
	}
	s.over++
	s.again(c, x)
}
