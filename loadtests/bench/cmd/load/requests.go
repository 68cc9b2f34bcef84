//go:build linux

package main

import (
	"math"
	"math/rand/v2"

	"synapse-bench/internal/poll"
	"synapse-bench/internal/sample"
)

const maxSamples = 4 << 20

type requestResult struct {
	Mode      string         `json:"mode"`
	Seconds   float64        `json:"seconds"`
	Requests  int            `json:"requests"`
	PerSecond float64        `json:"per_second"`
	Asked     float64        `json:"asked_per_second,omitempty"`
	LatencyUs sample.Summary `json:"latency_us"`
	Statuses  map[string]int `json:"statuses"`
	Resets    int            `json:"resets"`
	Malformed int            `json:"malformed"`
	CPU       float64        `json:"cpu_seconds"`
}

// closedLoop sends the next request of a connection as soon as it has its answer.
type closedLoop struct{}

func (closedLoop) run(c *client) (any, error) {
	tails := c.tails("")
	latency := sample.New(maxSamples)
	next, done := 0, 0
	var failed error
	start := poll.Now() + nanoseconds(c.warmup)
	end := start + nanoseconds(c.seconds)
	last := start
	again := func(x *exchange) {
		x.number = next
		next++
		x.sent = poll.Now()
		if err := c.send(x, x.number%c.keys, tails[(x.number/c.keys)%len(tails)]); err != nil && failed == nil {
			failed = err
		}
	}
	handle := func(x *exchange, now int64, complete bool) {
		if complete && x.sent >= start && now <= end {
			latency.Add(now - x.sent)
			done++
			last = now
		}
		if (complete || x.ended) && now < end && next < c.requests {
			again(x)
		}
	}
	for range c.connections {
		again(&exchange{})
	}
	for poll.Now() < end && failed == nil && (next < c.requests || last == start) {
		if _, err := c.turn(100, handle); err != nil {
			return nil, err
		}
	}
	elapsed := float64(min(end, max(last, start+1))-start) / 1e9
	return c.requestResult("closed", elapsed, done, latency), failed
}

// openLoop sends requests at seeded Poisson arrivals, whatever the answers do. A latency counts from
// the time at which its request was due.
type openLoop struct{}

func (openLoop) run(c *client) (any, error) {
	tails := c.tails("")
	latency := sample.New(maxSamples)
	random := rand.New(rand.NewPCG(c.seed, 0))
	idle := make([]*exchange, 0, c.connections)
	for range c.connections {
		x := &exchange{}
		if err := c.connect(x); err != nil {
			return nil, err
		}
		idle = append(idle, x)
	}
	next, done := 0, 0
	begin := poll.Now()
	start := begin + nanoseconds(c.warmup)
	end := start + nanoseconds(c.seconds)
	due := begin
	var failed error
	dispatch := func() {
		for now := poll.Now(); due <= now && due < end && len(idle) > 0 && next < c.requests && failed == nil; now = poll.Now() {
			x := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			x.number, x.sent = next, due
			next++
			failed = c.send(x, x.number%c.keys, tails[(x.number/c.keys)%len(tails)])
			due += int64(-math.Log(1-random.Float64()) / c.rate * 1e9)
		}
		if len(idle) > 0 && due < end {
			if err := c.timer.After(due - poll.Now()); err != nil && failed == nil {
				failed = err
			}
		}
	}
	handle := func(x *exchange, now int64, complete bool) {
		if complete && x.sent >= start && x.sent < end {
			latency.Add(now - x.sent)
			done++
		}
		if complete || x.ended {
			idle = append(idle, x)
		}
	}
	dispatch()
	for failed == nil && (poll.Now() < end || len(idle) < c.connections) {
		if _, err := c.turn(100, handle); err != nil {
			return nil, err
		}
		dispatch()
	}
	result := c.requestResult("open", c.seconds, done, latency)
	result.Asked = c.rate
	return result, failed
}

func (c *client) requestResult(mode string, seconds float64, done int, latency *sample.Set) *requestResult {
	return &requestResult{
		Mode: mode, Seconds: seconds, Requests: done, PerSecond: float64(done) / seconds,
		LatencyUs: latency.Summary(1e3), Statuses: c.byStatus(), Resets: c.resets, Malformed: c.malformed,
		CPU: cpuSeconds(),
	}
}
