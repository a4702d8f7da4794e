package console

import (
	"context"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
)

// A console that nobody looks at reads nothing; one that is looked at again after a
// while knows what happened meanwhile.
func TestNobodyLooks(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.LazySync)
	js := s.JetStream("operator")
	c, err := New(Options{JS: s.JetStream("consumers"), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c.linger = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	consumers := func() int {
		st, err := js.Stream(t.Context(), contracts.StreamWebhooks)
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.Consumers
	}
	durables := consumers()
	publish := func(id string) {
		if _, err := js.Publish(t.Context(), contracts.SubjectFacebookLeadgen, []byte(`{"leadgen_id":"`+id+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	know := func() (n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.book.entries)
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	publish("1")
	time.Sleep(50 * time.Millisecond)
	if n, k := consumers(), know(); n != durables || k != 0 {
		t.Errorf("%d consumers beside the durables, %d webhooks known, and nobody looks", n-durables, k)
	}
	// stays keeps the console awake, as an open page does.
	page := make(chan []byte, 1000) // never full
	stays := func(on bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if delete(c.viewers, page); on {
			c.viewers[page] = struct{}{}
		}
	}
	for round := 1; round <= 3; round++ {
		stays(true)
		began := time.Now()
		c.look(t.Context())
		if k := know(); k != round && time.Since(began) < longestLook {
			t.Errorf("look %d: %d webhooks are known at once, want %d", round, k, round)
		}
		await("what there is does not come to be known", func() bool { return know() == round })
		stays(false)
		await("it never rests", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.awake
		})
		publish(string(rune('1' + round)))
	}
}
