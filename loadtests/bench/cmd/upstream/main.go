//go:build linux

// Upstream is a fast OpenAI-shaped server for measuring proxies: one thread, loopback only.
//
//	upstream -ports 0,0 [-seconds 3600]
//
// It prints one line of JSON with its ports, then serves until its time is over or it is killed:
//
//	POST /v1/chat/completions   about 300 bytes of JSON, or with "stream": true an SSE stream of
//	                            max_tokens chunks, one each interval; "user" names the request
//	GET  /v1/models, /health    for probes
//	GET  /bench/control?interval_us=N&fail_every=N
//	                            time between the chunks of a stream; each Nth completion answers 503
//	GET  /bench/stats           counts since the last reset
//	GET  /bench/closes          when the connection of each unfinished named stream was seen to close
//	GET  /bench/reset
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"synapse-bench/internal/poll"
)

func main() {
	ports := flag.String("ports", "0", "loopback ports to listen on, by comma; 0 takes a free one")
	seconds := flag.Int("seconds", 3600, "ends after this many seconds")
	flag.Parse()

	poll.Exclusive()
	poll.RaiseFileLimit()
	server, err := newServer(time.Duration(*seconds) * time.Second)
	if err != nil {
		poll.Fatal(err)
	}
	var bound []string
	for _, text := range strings.Split(*ports, ",") {
		port, err := strconv.Atoi(text)
		if err != nil {
			poll.Fatal(fmt.Errorf("-ports: want numbers by comma, got %q", *ports))
		}
		actual, err := server.listen(port)
		if err != nil {
			poll.Fatal(err)
		}
		bound = append(bound, strconv.Itoa(actual))
	}
	fmt.Fprintf(os.Stdout, "{\"ports\": [%s]}\n", strings.Join(bound, ", "))
	if err := server.run(); err != nil {
		poll.Fatal(err)
	}
}
