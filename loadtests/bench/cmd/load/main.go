//go:build linux

// Load is the client of the proxy benchmark: one thread, loopback only, bounded in time and count.
//
//	load closed  -address 127.0.0.1:8000 -connections 64 -seconds 5
//	load open    -address 127.0.0.1:8000 -rate 5000 -seconds 5
//	load streams -address 127.0.0.1:8000 -streams 400 -chunks 100 -interval-us 10000 -seconds 5
//	load leave   -address 127.0.0.1:8000 -requests 200
//	load soak    -address 127.0.0.1:8000 -requests 100000 -keys 1000 -models 100 -unknown 100 -leave 0.05
//
// It prints one JSON object.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"synapse-bench/internal/poll"
)

type options struct {
	target      netip.AddrPort
	connections int
	seconds     float64
	warmup      float64
	requests    int
	first       int
	keys        int
	models      int
	unknown     int
	rate        float64
	streams     int
	chunks      int
	intervalUs  int
	leave       float64
	streamShare float64
	seed        uint64
}

// measurement is one way of loading the target: it owns what happens when an answer moves on.
type measurement interface {
	run(c *client) (any, error)
}

func main() {
	if len(os.Args) < 2 {
		poll.Fatal(errors.New("want a mode: closed, open, streams, leave or soak"))
	}
	o, err := parse(os.Args[1], os.Args[2:])
	if err != nil {
		poll.Fatal(err)
	}
	var m measurement
	switch os.Args[1] {
	case "closed":
		m = &closedLoop{}
	case "open":
		m = &openLoop{}
	case "streams":
		m = &streams{}
	case "leave":
		m = &leavers{}
	case "soak":
		m = &soak{}
	default:
		poll.Fatal(fmt.Errorf("mode: want closed, open, streams, leave or soak, got %q", os.Args[1]))
	}
	poll.Exclusive()
	poll.RaiseFileLimit()
	c, err := newClient(o)
	if err != nil {
		poll.Fatal(err)
	}
	result, err := m.run(c)
	if err != nil {
		poll.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		poll.Fatal(err)
	}
}

func parse(mode string, args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet(mode, flag.ExitOnError)
	address := flags.String("address", "", "loopback address of the target")
	flags.IntVar(&o.connections, "connections", 64, "connections at once")
	flags.Float64Var(&o.seconds, "seconds", 5, "measured time; the whole run never takes more than ten times that or 60 s")
	flags.Float64Var(&o.warmup, "warmup", 0.5, "seconds before the measured time")
	flags.IntVar(&o.requests, "requests", 10_000_000, "ends after this many")
	flags.IntVar(&o.first, "first", 0, "number of the first request, so that one run carries on another's sequence")
	flags.IntVar(&o.keys, "keys", 50, "API keys in use: sk-bench-0000 and on")
	flags.IntVar(&o.models, "models", 20, "model names in use: bench-000 and on")
	flags.IntVar(&o.unknown, "unknown", 0, "model names that nobody serves: unknown-000 and on")
	flags.Float64Var(&o.rate, "rate", 1000, "requests a second of the open loop")
	flags.IntVar(&o.streams, "streams", 400, "streams at once")
	flags.IntVar(&o.chunks, "chunks", 100, "content chunks of one stream")
	flags.IntVar(&o.intervalUs, "interval-us", 10_000, "time between two chunks, as the upstream is set")
	flags.Float64Var(&o.leave, "leave", 0.05, "share of callers that leave")
	flags.Float64Var(&o.streamShare, "stream-share", 0.05, "share of the soak's requests that are streams read to the end")
	flags.Uint64Var(&o.seed, "seed", 1, "of the random choices")
	_ = flags.Parse(args)
	var err error
	if o.target, err = netip.ParseAddrPort(*address); err != nil {
		return nil, fmt.Errorf("-address: want 127.0.0.1:port, got %q", *address)
	}
	if o.connections < 1 || o.connections > 4096 || o.streams < 1 || o.streams > 4096 {
		return nil, errors.New("-connections, -streams: want 1 to 4096")
	}
	if o.keys < 1 || o.models < 1 || o.requests < 1 || o.seconds <= 0 || o.rate <= 0 {
		return nil, errors.New("-keys, -models, -requests, -seconds, -rate: want more than 0")
	}
	return o, nil
}

func nanoseconds(seconds float64) int64 { return int64(seconds * float64(time.Second)) }
