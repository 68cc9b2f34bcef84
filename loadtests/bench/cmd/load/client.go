//go:build linux

package main

import (
	"fmt"
	"syscall"

	"synapse-bench/internal/poll"
	"synapse-bench/internal/wire"
)

// exchange is one connection and what is under way on it.
type exchange struct {
	fd       int
	open     bool
	busy     bool
	response wire.Response
	sent     int64 // when the request was sent, or was due to be sent, in ns
	begun    int64 // when the request was written
	last     int64 // when the newest chunk came
	number   int   // of the request
	seen     int   // events that were accounted
	leaves   bool
	ended    bool // cut by the target
}

type client struct {
	*options
	poller    *poll.Poller
	timer     *poll.Timer
	byFD      []*exchange
	buf       [1 << 18]byte
	scratch   []byte
	keyHeads  [][]byte
	giveUpAt  int64
	dials     int
	statuses  [600]int
	resets    int
	badEnds   int
	malformed int
}

// handler reacts to an exchange that has new bytes, is complete, or was closed by the target.
type handler func(x *exchange, now int64, complete bool)

func newClient(o *options) (*client, error) {
	poller, err := poll.New()
	if err != nil {
		return nil, err
	}
	timer, err := poll.NewTimer()
	if err != nil {
		return nil, err
	}
	if err := poller.Add(timer.FD, poll.In); err != nil {
		return nil, err
	}
	c := &client{options: o, poller: poller, timer: timer}
	for key := range o.keys {
		c.keyHeads = append(c.keyHeads, fmt.Appendf(nil,
			"POST /v1/chat/completions HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer sk-bench-%04d\r\n"+
				"content-type: application/json\r\naccept: */*\r\nuser-agent: synapse-bench\r\n", o.target, key))
	}
	c.giveUpAt = poll.Now() + nanoseconds(max(60, 10*o.seconds))
	return c, nil
}

// modelName of a choice: the known ones come first.
func (c *client) modelName(choice int) string {
	if choice < c.models {
		return fmt.Sprintf("bench-%03d", choice)
	}
	return fmt.Sprintf("unknown-%03d", choice-c.models)
}

const conversation = `"messages":[{"role":"system","content":"You are a helpful assistant."},` +
	`{"role":"user","content":"What is the capital of France? Answer in one short sentence."}]`

// tails makes what follows the key's head for each model name, once.
func (c *client) tails(extra string) [][]byte {
	out := make([][]byte, 0, c.models+c.unknown)
	for choice := range c.models + c.unknown {
		body := fmt.Sprintf(`{"model":%q,%s%s}`, c.modelName(choice), conversation, extra)
		out = append(out, fmt.Appendf(nil, "content-length: %d\r\n\r\n%s", len(body), body))
	}
	return out
}

func (c *client) connect(x *exchange) error {
	fd, err := poll.Dial(c.target)
	if err != nil {
		return err
	}
	c.dials++
	x.fd, x.open, x.busy = fd, true, false
	for len(c.byFD) <= fd {
		c.byFD = append(c.byFD, nil)
	}
	c.byFD[fd] = x
	return c.poller.Add(fd, poll.In)
}

func (c *client) close(x *exchange) {
	if x.open {
		poll.Close(x.fd)
		x.open, x.busy = false, false
	}
}

// send writes a request on an idle exchange, connecting first if it must. Requests are far smaller
// than a socket's buffer, so one that does not fit is an error.
func (c *client) send(x *exchange, key int, tail []byte) error {
	if !x.open {
		if err := c.connect(x); err != nil {
			return err
		}
	}
	c.scratch = append(append(c.scratch[:0], c.keyHeads[key]...), tail...)
	x.response.Reset()
	x.busy, x.seen, x.leaves, x.ended = true, 0, false, false
	x.begun = poll.Now()
	n, gone := poll.Write(x.fd, c.scratch)
	if gone {
		// The target closed an idle connection; a client of its kind dials again.
		c.close(x)
		if err := c.connect(x); err != nil {
			return err
		}
		x.busy = true
		n, gone = poll.Write(x.fd, c.scratch)
	}
	if gone || n != len(c.scratch) {
		return fmt.Errorf("send: the target took %d of %d bytes", n, len(c.scratch))
	}
	return nil
}

// turn waits once and hands out what came. It returns whether the timer fired.
func (c *client) turn(timeoutMs int, handle handler) (bool, error) {
	events, err := c.poller.Wait(timeoutMs)
	if err != nil {
		return false, err
	}
	now := poll.Now()
	if now > c.giveUpAt {
		return false, c.tooLong(now)
	}
	fired := false
	for i := range events {
		fd := int(events[i].Fd)
		if fd == c.timer.FD {
			fired = c.timer.Expired() > 0
			continue
		}
		if x := c.byFD[fd]; x.open && x.fd == fd {
			c.receive(x, handle)
		}
	}
	return fired, nil
}

// tooLong says what the client still waits for.
func (c *client) tooLong(now int64) error {
	waiting, oldest := 0, now
	for _, x := range c.byFD {
		if x != nil && x.busy {
			waiting++
			oldest = min(oldest, x.begun)
		}
	}
	return fmt.Errorf("gave up: %d requests unanswered, the oldest for %.1f s; answered by status: %v; %d connections lost",
		waiting, float64(now-oldest)/1e9, c.byStatus(), c.resets)
}

func (c *client) receive(x *exchange, handle handler) {
	n, blocked := poll.Read(x.fd, c.buf[:])
	if blocked {
		return
	}
	now := poll.Now()
	if n == 0 || !x.busy {
		// An end, or bytes that answer nothing.
		wasBusy := x.busy
		c.close(x)
		if wasBusy {
			c.resets++
			x.ended = true
			handle(x, now, false)
		} else if n > 0 {
			c.malformed++
		}
		return
	}
	complete, err := x.response.Feed(c.buf[:n])
	if err != nil {
		c.malformed++
		c.close(x)
		x.ended = true
		handle(x, now, false)
		return
	}
	if complete {
		x.busy = false
		c.statuses[min(max(x.response.Status, 0), 599)]++
		if x.response.CloseAfter {
			c.close(x)
		}
	}
	handle(x, now, complete)
}

func (c *client) byStatus() map[string]int {
	out := map[string]int{}
	for status, n := range c.statuses {
		if n > 0 {
			out[fmt.Sprint(status)] = n
		}
	}
	return out
}

// cpuSeconds is what this process has used.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
