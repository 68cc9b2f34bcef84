package wire

import (
	"testing"
)

const stream = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
	"29\r\ndata: {\"system_fingerprint\":\"t17000000000\r\n" +
	"F\r\n00000001\"}\n\ndat\r\n" +
	"8\r\na: {}\n\nd\r\nd\r\nata: [DONE]\n\n\r\n0\r\n\r\n"

func TestResponseCountsEventsAtEverySplit(t *testing.T) {
	for first := 1; first < len(stream); first++ {
		for step := 1; step <= 7; step += 3 {
			var r Response
			complete := false
			for at, size := 0, first; at < len(stream); at, size = at+size, step {
				var err error
				complete, err = r.Feed([]byte(stream[at:min(at+size, len(stream))]))
				if err != nil {
					t.Fatalf("split %d/%d: %v", first, step, err)
				}
			}
			if !complete || r.Events != 3 || !r.EndedWell() || r.Status != 200 {
				t.Fatalf("split %d/%d: complete %v, %d events, ended well %v", first, step, complete,
					r.Events, r.EndedWell())
			}
		}
	}
}

func TestResponseWithLengthEndsThere(t *testing.T) {
	var r Response
	for range 2 {
		complete, err := r.Feed([]byte("HTTP/1.1 404 Not Found\r\ncontent-LENGTH: 2\r\nConnection: close\r\n\r\n{}"))
		if !complete || err != nil || r.Status != 404 || !r.CloseAfter {
			t.Fatalf("complete %v, %v, %+v", complete, err, r)
		}
		r.Reset()
	}
}

func TestResponseRefusesWhatItCannotRead(t *testing.T) {
	for _, bad := range []string{
		"HTTP/1.1 200 OK\r\n\r\n",
		"SMTP 200 please go away\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
	} {
		var r Response
		if _, err := r.Feed([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestRequestNeedsItsWholeBody(t *testing.T) {
	whole := []byte("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nContent-Length: 4\r\n\r\nbodyGET ")
	var request Request
	for size := range len(whole) - 4 {
		if n, err := ParseRequest(whole[:size], &request); n != 0 || err != nil {
			t.Fatalf("%d bytes: took %d, %v", size, n, err)
		}
	}
	n, err := ParseRequest(whole, &request)
	if err != nil || n != len(whole)-4 || string(request.Body) != "body" || string(request.Target) != "/v1/chat/completions" {
		t.Fatalf("took %d, %v, %+v", n, err, request)
	}
}

func TestMembersAreFoundWithOrWithoutSpaces(t *testing.T) {
	body := []byte(`{"model": "m-1","stream":true, "messages":[{"role":"user"}],"max_tokens" : 12,"user":"left-3"}`)
	if got := string(Text(body, []byte(`"model"`))); got != "m-1" {
		t.Errorf("model %q", got)
	}
	if got := string(Text(body, []byte(`"user"`))); got != "left-3" {
		t.Errorf("user %q", got)
	}
	if !True(body, []byte(`"stream"`)) || True(body, []byte(`"model"`)) {
		t.Error("stream is true, model is not")
	}
	if got := Number(body, []byte(`"max_tokens"`), 7); got != 12 {
		t.Errorf("max_tokens %d", got)
	}
	if got := Number(body, []byte(`"n"`), 7); got != 7 {
		t.Errorf("n %d", got)
	}
}

func TestStampSurvivesTheWire(t *testing.T) {
	var digits [19]byte
	PutStamp(digits[:], 1_700_000_000_123_456_789)
	if got := ReadStamp(digits[:]); got != 1_700_000_000_123_456_789 {
		t.Errorf("got %d", got)
	}
}
