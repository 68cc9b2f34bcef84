//go:build linux

package main

import (
	"fmt"

	"synapse-bench/internal/poll"
)

type leaveResult struct {
	Left []leftAt `json:"left"`
	// Failed counts streams that were over before their caller could leave.
	Failed   int            `json:"failed"`
	Statuses map[string]int `json:"statuses"`
}

type leftAt struct {
	User string `json:"user"`
	AtNs int64  `json:"at_ns"`
}

// leavers open streams and close their connection after a few chunks. The upstream notes when it sees
// its own connection close; the request's "user" member joins the two times.
type leavers struct{}

const chunksBeforeLeaving = 3

func (leavers) run(c *client) (any, error) {
	result := &leaveResult{Left: make([]leftAt, 0, c.requests)}
	next, over := 0, 0
	var failed error
	again := func(x *exchange) {
		if next >= c.requests {
			return
		}
		x.number = next
		next++
		extra := fmt.Sprintf(`,"stream":true,"max_tokens":%d,"user":"left-%d"`, c.chunks, c.first+x.number)
		body := fmt.Sprintf(`{"model":%q,%s%s}`, c.modelName(x.number%c.models), conversation, extra)
		tail := fmt.Appendf(nil, "content-length: %d\r\n\r\n%s", len(body), body)
		if err := c.send(x, x.number%c.keys, tail); err != nil && failed == nil {
			failed = err
		}
	}
	handle := func(x *exchange, _ int64, complete bool) {
		if complete || x.ended {
			result.Failed++
			over++
			again(x)
			return
		}
		if x.response.Events > chunksBeforeLeaving {
			at := poll.Now()
			c.close(x)
			result.Left = append(result.Left, leftAt{fmt.Sprintf("left-%d", c.first+x.number), at})
			over++
			again(x)
		}
	}
	for range min(c.connections, c.requests) {
		again(&exchange{})
	}
	for over < c.requests && failed == nil {
		if _, err := c.turn(100, handle); err != nil {
			return nil, err
		}
	}
	result.Statuses = c.byStatus()
	return result, failed
}
