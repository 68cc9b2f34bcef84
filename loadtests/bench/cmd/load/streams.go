//go:build linux

package main

import (
	"fmt"

	"synapse-bench/internal/poll"
	"synapse-bench/internal/sample"
)

type streamResult struct {
	Seconds    float64        `json:"seconds"`
	Chunks     int64          `json:"chunks"`
	PerSecond  float64        `json:"chunks_per_second"`
	Asked      float64        `json:"asked_per_second"`
	GapUs      sample.Summary `json:"gap_us"`
	DelayUs    sample.Summary `json:"delay_us"`
	FirstUs    sample.Summary `json:"first_chunk_us"`
	Complete   int            `json:"streams_complete"`
	Incomplete int            `json:"streams_incomplete"`
	WrongCount int            `json:"streams_with_wrong_count"`
	Statuses   map[string]int `json:"statuses"`
	Resets     int            `json:"resets"`
	Malformed  int            `json:"malformed"`
	CPU        float64        `json:"cpu_seconds"`
}

// streams keeps a number of SSE streams going: each begins anew on its connection when it has ended.
type streams struct {
	gaps, delays, firsts *sample.Set
	chunks               int64
	complete, wrong, bad int
	start, end           int64
}

// eventsBeside are the events of a stream that are not content: role, finish_reason and [DONE].
const eventsBeside = 3

func (s *streams) run(c *client) (any, error) {
	s.gaps, s.delays, s.firsts = sample.New(maxSamples), sample.New(maxSamples), sample.New(1<<18)
	tails := c.tails(fmt.Sprintf(`,"stream":true,"max_tokens":%d`, c.chunks))
	spacing := int64(c.intervalUs) * 1000
	begin := poll.Now()
	// Streams begin spread over the length of one, as those of callers who know nothing of each other
	// do: begun together, all would end and begin anew together ever after.
	ramp := spacing * int64(c.chunks)
	s.start = begin + ramp + nanoseconds(c.warmup)
	s.end = s.start + nanoseconds(c.seconds)
	next := 0
	var failed error
	again := func(x *exchange) {
		x.number = next
		next++
		x.sent = poll.Now()
		if err := c.send(x, x.number%c.keys, tails[x.number%len(tails)]); err != nil && failed == nil {
			failed = err
		}
	}
	handle := func(x *exchange, now int64, complete bool) {
		s.account(c, x, now, complete)
		if (complete || x.ended) && now < s.end {
			again(x)
		}
	}
	begun := 0
	for now := begin; now < s.end && failed == nil; now = poll.Now() {
		for begun < c.streams && now >= begin+ramp*int64(begun)/int64(c.streams) {
			again(&exchange{})
			begun++
		}
		wait := 100
		if begun < c.streams {
			wait = 1
		}
		if _, err := c.turn(wait, handle); err != nil {
			return nil, err
		}
	}
	return s.result(c), failed
}

func (s *streams) account(c *client, x *exchange, now int64, complete bool) {
	fresh := x.response.Events - x.seen
	if fresh > 0 && x.response.Status == 200 {
		content := min(x.response.Events-1, c.chunks) - max(x.seen-1, 0)
		s.content(x, now, content)
		x.seen = x.response.Events
	}
	if !complete && !x.ended {
		return
	}
	switch {
	case x.ended || x.response.Status != 200 || !x.response.EndedWell():
		s.bad++
	case x.response.Events != c.chunks+eventsBeside:
		s.wrong++
	default:
		s.complete++
	}
}

// content accounts n content chunks that came at once.
func (s *streams) content(x *exchange, now int64, n int) {
	if n <= 0 {
		return
	}
	previous, first := x.last, x.seen <= 1
	x.last = now
	if now < s.start || now > s.end {
		return
	}
	s.chunks += int64(n)
	s.delays.Add(now - x.response.Stamp)
	if first {
		s.firsts.Add(now - x.sent)
	} else {
		s.gaps.Add(now - previous)
	}
	for range n - 1 {
		s.gaps.Add(0)
	}
}

func (s *streams) result(c *client) *streamResult {
	seconds := float64(s.end-s.start) / 1e9
	return &streamResult{
		Seconds: seconds, Chunks: s.chunks, PerSecond: float64(s.chunks) / seconds,
		Asked: float64(c.streams) * 1e6 / float64(c.intervalUs),
		GapUs: s.gaps.Summary(1e3), DelayUs: s.delays.Summary(1e3), FirstUs: s.firsts.Summary(1e3),
		Complete: s.complete, Incomplete: s.bad, WrongCount: s.wrong,
		Statuses: c.byStatus(), Resets: c.resets, Malformed: c.malformed, CPU: cpuSeconds(),
	}
}
